"""AWS's own layer as a source: one HTTP request for each value."""

from __future__ import annotations

import base64
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
from lambda_ext.lifecycle import phases
from lambda_ext.values import keys
from lambda_ext.values.aws_extension import AwsExtension
from lambda_ext.values.handles import Parameter, Secret

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
            return None  # whoever asked has left
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


@pytest.fixture
def source(layer):
    """The source over it."""
    return AwsExtension(layer.server_address[1])


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
    ):
        assert "x" == source.fetch([key], None)[key].value

    assert [
        {"secretId": "db"},
        {"secretId": "db", "versionStage": "AWSPREVIOUS"},
        {"secretId": "db", "versionId": "0" * 32},
    ] == [query for _, query in layer.requests]


def test_parameter_with_version_label_and_decryption(layer, source):
    """Hierarchical names survive the way, and decryption is always said."""
    layer.values = {"/a/b": "20"}  # whatever the version
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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    source = AwsExtension(port)
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
