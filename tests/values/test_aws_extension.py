"""AWS's own layer as a source: one HTTP request for each value."""

from __future__ import annotations

import base64
import contextlib
import enum
import http.server
import json
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from lambda_ext.contracts import SourceContract
from lambda_ext.exceptions import (
    AccessDeniedError,
    ConfigurationError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
    ThrottledError,
)
from lambda_ext.lifecycle import clock, phases
from lambda_ext.testing import FakeClock
from lambda_ext.values import keys
from lambda_ext.values.batches import get_secrets
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.sources import aws_extension
from lambda_ext.values.sources.aws_extension import AwsExtension

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"


class Layer(http.server.ThreadingHTTPServer):
    """What is known of the layer: two paths, one header, few words."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.values = {}
        self.requests = []
        self.replies = []  # (status, body) instead of the next answers
        self.hang = threading.Event()
        self.hang.set()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        """Say nothing."""

    def do_GET(self):
        """Answer as the layer does."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.requests.append((url.path, query))
        if not self.server.hang.is_set():
            self.server.hang.wait(30)
            return None  # the caller has left
        if self.server.replies:
            return self.reply(*self.server.replies.pop(0))
        if self.headers.get("X-Aws-Parameters-Secrets-Token") != "token":
            return self.reply(401, "not authorized")
        secret = url.path.startswith("/secretsmanager/")
        name = query["secretId" if secret else "name"]
        if name not in self.server.values:
            code = "ResourceNotFoundException" if secret else "ParameterNotFound"
            return self.reply(400, f"an error occurred: {code}: can't find it")
        value = self.server.values[name]
        if secret:
            text = isinstance(value, str)
            document = {
                "ARN": ARN.format(name),
                "Name": name,
                "VersionId": "0" * 32,
                "SecretString": value if text else None,
                "SecretBinary": None if text else base64.b64encode(value).decode(),
                "CreatedDate": "2026-01-01T00:00:00Z",
            }
        else:
            parameter = {"ARN": "arn:x", "Name": name, "Value": value, "Version": 3}
            document = {"Parameter": parameter, "ResultMetadata": {}}
        return self.reply(200, json.dumps(document))

    def reply(self, status, body):
        """Send one answer."""
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def layer(monkeypatch):
    """The layer on a port of this machine."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    server = Layer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.hang.set()
    server.shutdown()
    server.server_close()
    thread.join()


def source_at(port, monkeypatch):
    """Return the source over a layer that listens at *port*."""
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(port))
    return AwsExtension()


@pytest.fixture
def source(layer, monkeypatch):
    """The source over it."""
    return source_at(layer.server_address[1], monkeypatch)


class TestContract(SourceContract):
    """The layer is a source like any other."""

    @pytest.fixture(autouse=True)
    def _values(self, layer):
        layer.values = {"contract/a": "one", "contract/b": "two"}


def test_secret_with_version_and_stage(layer, source):
    """What changes the answer is in the query."""
    layer.values = {"db": "x"}
    for key in (
        keys.secret(source.scope, "db"),
        keys.secret(source.scope, "db", None, "AWSPREVIOUS"),
        keys.secret(source.scope, "db", "0" * 32),
        keys.secret(source.scope, "db", "0" * 32, "AWSCURRENT"),
        keys.secret(source.scope, "db", None, "AWSCURRENT"),
    ):
        assert "x" == source.fetch([key], None)[key].value

    assert [
        {"secretId": "db"},
        {"secretId": "db", "versionStage": "AWSPREVIOUS"},
        {"secretId": "db", "versionId": "0" * 32},
        {"secretId": "db", "versionId": "0" * 32, "versionStage": "AWSCURRENT"},
        {"secretId": "db", "versionStage": "AWSCURRENT"},
    ] == [query for _, query in layer.requests]


def test_parameter_with_version_label_and_decryption(layer, source):
    """Hierarchical names survive the way, and decryption is always said."""
    layer.values = {"/a/b": "20"}  # for every version
    assert 20 == Parameter("/a/b", transform=int, source=source).value
    Parameter("/a/b:5", source=source, decrypt=False).value
    Parameter("/a/b:prod", source=source).value
    assert "3" == Parameter("/a/b:prod", source=source).version_id

    assert [
        {"name": "/a/b", "withDecryption": "true"},
        {"name": "/a/b", "withDecryption": "false", "version": "5"},
        {"name": "/a/b", "withDecryption": "true", "label": "prod"},
    ] == [query for _, query in layer.requests]


def test_binary_secret(layer, source):
    """The layer sends base64."""
    layer.values = {"key": b"\x00\xff"}

    assert b"\x00\xff" == Secret("key", transform="binary", source=source).value


def test_is_not_asked_in_init(layer, source):
    """The layer serves in INVOKE only, so a value is loaded when first read."""
    layer.values = {"db": "x"}
    db = Secret("db", source=source)
    phases.call(phases.INIT)
    assert [] == layer.requests

    assert "x" == db.value


@pytest.mark.parametrize(
    ("reply", "error", "transient"),
    [
        ((400, "not ready to serve traffic, please wait"), SourceError, True),
        ((400, "operation error: ResourceNotFoundException: no"), NotFoundError, False),
        ((400, '{"__type": "AccessDeniedException"}'), AccessDeniedError, False),
        ((400, "something, ThrottlingException: Rate"), ThrottledError, True),
        ((429, "Connection limit exceeded"), ThrottledError, True),
        ((403, "Bad Token"), AccessDeniedError, False),
        ((500, "hunter2"), SourceError, True),
        ((504, ""), SourceError, True),
        ((200, "garbage hunter2"), SourceError, True),
        ((200, '{"SecretString": null}'), SourceError, True),
        ((200, "[]"), SourceError, True),
    ],
)
def test_what_the_layer_says_is_told_in_our_words(
    layer, source, reply, error, transient
):
    """Its bodies are not documented, and are not quoted."""
    layer.replies = [reply]
    key = keys.secret(source.scope, "db")
    outcome = source.fetch([key], None)[key]

    assert isinstance(outcome, error)
    assert transient == outcome.transient
    assert "hunter2" not in repr(outcome) + repr(outcome.__context__)
    assert "'db'" in str(outcome)


def test_layer_that_hangs_costs_no_more_than_is_left(layer, source):
    """The layer itself has no time-out."""
    layer.hang.clear()
    key = keys.secret(source.scope, "db")
    outcome = source.fetch([key], 0.1)[key]

    assert isinstance(outcome, SourceTimeoutError)
    assert outcome.transient


def test_layer_that_is_not_there_says_so(monkeypatch):
    """Without the layer there is a message about the layer."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # not listening: connections are refused
        port = held.getsockname()[1]
        source = source_at(port, monkeypatch)
        key = keys.secret(source.scope, "db")
        outcome = source.fetch([key], 1.0)[key]

    assert isinstance(outcome, SourceError)
    assert f"no layer answers on localhost:{port}" in str(outcome)


def test_path_is_not_its_business(source):
    """The layer cannot list; the message says what can."""
    key = keys.path(source.scope, "/a")
    outcome = source.fetch([key], 1.0)[key]

    assert "use source='aws'" in str(outcome)


def test_no_token_is_a_matter_of_configuration(source, monkeypatch):
    """Under SnapStart there is none."""
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    key = keys.secret(source.scope, "db")

    assert isinstance(source.fetch([key], 1.0)[key], ConfigurationError)


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_bad_port_names_its_variable(monkeypatch, port):
    """The layer's own variable says where it is."""
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", port)
    with pytest.raises(ConfigurationError, match="HTTP_PORT must be a port"):
        AwsExtension()


class Names(str, enum.Enum):
    """Names as programs like to keep them."""

    DB = "prod/db & more"


def test_member_of_an_enum_is_asked_for_by_its_text(layer, monkeypatch):
    """Not by the name of the member."""
    layer.values = {"prod/db & more": "x"}
    port = layer.server_address[1]
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(port))
    monkeypatch.setenv("LAMBDA_EXT_SOURCE", "aws_extension")

    assert "x" == get_secret(Names.DB)
    assert [{"secretId": "prod/db & more"}] == [query for _, query in layer.requests]


class Drip:
    """A layer that sends an answer byte by byte; each byte moves the clock on."""

    def __init__(self, time, step_s, head):
        self.time = time
        self.step_s = step_s
        self.head = head
        self.body = b'{"SecretString": "hunter2"}'
        self.sent = 0
        self.closed = False

    def settimeout(self, seconds):
        """Take no time-out of 0, which would mean none."""
        assert seconds > 0

    def connect(self, address):
        """Be there."""

    def sendall(self, request):
        """Take the request."""

    def recv(self, count):
        """Return the next byte."""
        data = self.head + self.body
        self.time.advance(self.step_s)
        self.sent += 1
        return data[self.sent - 1 : self.sent]

    def close(self):
        """Note it."""
        self.closed = True


@pytest.mark.parametrize(
    ("granted_s", "invocation_s", "expected_s"),
    [(None, None, 5), (1.0, None, 1), (9.0, None, 5), (None, 2.0, 2)],
)
@pytest.mark.parametrize("dripped", ["head", "body"])
def test_deadline_is_of_the_whole_read(
    monkeypatch, granted_s, invocation_s, expected_s, dripped
):
    """A byte in time is no answer in time."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with FakeClock() as time:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n"
        step_s = 0.25
        drip = Drip(time, step_s, head if dripped == "head" else b"")
        if dripped == "body":  # the head comes at once
            first, drip.recv = (
                drip.recv,
                lambda count: setattr(drip, "recv", first) or head,
            )
        modules = type("Modules", (), {"Socket": lambda *a: drip})
        monkeypatch.setattr(aws_extension.native, "modules", lambda: modules)
        if invocation_s is not None:
            clock.begin_invocation(invocation_s)
        monkeypatch.setenv("LAMBDA_EXT_SOURCE", "aws_extension")
        if granted_s is not None:
            monkeypatch.setenv("LAMBDA_EXT_LOAD_TIMEOUT", str(granted_s))
        with pytest.raises(SourceTimeoutError, match="did not answer in time"):
            get_secret("db")

        assert drip.sent * step_s <= expected_s
        assert drip.sent * step_s >= expected_s - 2 * step_s
        assert drip.closed


def test_name_server_is_not_asked_where_localhost_is(layer, monkeypatch):
    """A token goes to this machine, also where a resolver names another."""
    layer.values = {"db": "x"}
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or [])
    source = source_at(layer.server_address[1], monkeypatch)
    key = keys.secret(source.scope, "db")

    assert "x" == source.fetch([key], None)[key].value
    assert [] == asked


def test_connections_go_to_this_machine_only(monkeypatch):
    """By the older address, then by the newer."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    tried = []

    class Refusing:
        def __init__(self, family, kind):
            self.family = family

        def settimeout(self, seconds):
            pass

        def connect(self, address):
            tried.append((self.family, address))
            raise ConnectionRefusedError

        def close(self):
            tried.append("closed")

    modules = type("Modules", (), {"Socket": Refusing})
    monkeypatch.setattr(aws_extension.native, "modules", lambda: modules)
    source = source_at(2773, monkeypatch)
    key = keys.secret(source.scope, "db")

    assert "no layer answers" in str(source.fetch([key], None)[key])
    assert [
        (socket.AF_INET, ("127.0.0.1", 2773)), "closed",
        (socket.AF_INET6, ("::1", 2773)), "closed",
    ] == tried  # fmt: skip


def test_layer_on_the_newer_address(monkeypatch):
    """Where localhost is ::1 alone."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with contextlib.closing(socket.socket(socket.AF_INET6)) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
        listener.listen()
        body = b'{"SecretString": "x"}'

        def serve():
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        source = source_at(listener.getsockname()[1], monkeypatch)
        key = keys.secret(source.scope, "db")
        assert "x" == source.fetch([key], None)[key].value
        thread.join()


@pytest.mark.parametrize("tail", ["\r\nX: y", "\n", "\u2013", "\0"])
def test_token_that_is_no_header_is_not_sent(layer, source, monkeypatch, tail):
    """Nor shown: it is a credential."""
    if "\0" not in tail:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "hunter2" + tail)
    else:
        monkeypatch.setattr(
            aws_extension.os, "environ", {"AWS_SESSION_TOKEN": "hunter2" + tail}
        )
    key = keys.secret(source.scope, "db")
    error = source.fetch([key], None)[key]

    assert isinstance(error, ConfigurationError)
    assert "hunter2" not in repr(error) + repr(vars(error))
    assert [] == layer.requests


GARBAGE = [
    '{"SecretBinary": "a"}',
    '{"SecretBinary": "aGVsbG8=x"}',
    '{"SecretBinary": 5}',
    '{"SecretString": 5}',
    '{"SecretString": {"a": "b"}}',
    '{"SecretString": "x", "VersionId": [1]}',
    '{"SecretString": "x", "ARN": 5}',
    '"x"',
    "[" * 100_000,
]


@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.logs
def test_answer_of_a_wrong_shape_passes(layer, monkeypatch, body):
    """It kills no thread and no value, and is not handed out."""
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    port = layer.server_address[1]
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(port))
    monkeypatch.setenv("LAMBDA_EXT_SOURCE", "aws_extension")
    names = ["a", "b", "c", "d"]
    layer.values = dict.fromkeys(names, "good")
    with FakeClock() as time:
        assert dict.fromkeys(names, "good") == get_secrets(names)
        layer.replies = [(200, body)] * 8
        time.advance(301)
        assert dict.fromkeys(names, "good") == get_secrets(names)
        with pytest.raises(SourceError, match="could not be read") as raised:
            get_secrets(names, force_fetch=True)

    assert raised.value.transient
    assert "aws_extension" == raised.value.source
    assert [] == died


@pytest.mark.parametrize(
    "body", ['{"Parameter": [1]}', '{"Parameter": {"Value": 5}}', "{}", "null"]
)
def test_parameter_of_a_wrong_shape_passes(layer, monkeypatch, body):
    """The same for parameters."""
    port = layer.server_address[1]
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(port))
    monkeypatch.setenv("LAMBDA_EXT_SOURCE", "aws_extension")
    layer.replies = [(200, body)]
    with pytest.raises(SourceError, match="could not be read") as raised:
        get_parameter("/a")

    assert raised.value.transient


def test_arn_of_something_else_joins_nothing(layer, monkeypatch):
    """Two parameters for which the layer gives one ARN stay two."""
    port = layer.server_address[1]
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(port))
    monkeypatch.setenv("LAMBDA_EXT_SOURCE", "aws_extension")
    layer.values = {"/a/b": "one", "/a/c": "other"}

    assert ["one", "other"] == [get_parameter(name) for name in ("/a/b", "/a/c")]
    assert ["one", "other"] == [get_parameter(name) for name in ("/a/b", "/a/c")]
