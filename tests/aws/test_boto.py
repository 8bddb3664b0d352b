"""The way to AWS through boto3."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from unittest import mock

import boto3
import botocore.exceptions
import pytest
from botocore.awsrequest import AWSResponse
from helpers import in_child, python

from lambda_ext import config, exceptions
from lambda_ext.aws import boto, retries, transport
from lambda_ext.lifecycle import phases

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db-AbCdEf"


class Raw:
    """The body of an answer, as botocore wants to read it."""

    def __init__(self, body):
        self.body = body

    def stream(self, *args, **kwargs):
        yield self.body

    def read(self, amount=None):
        body, self.body = self.body, b""
        return body


def answering(way, *answers):
    """Have *way*'s client get (status, headers, body) instead of the network."""
    left = list(answers)
    seen = []

    def before_send(request, **kwargs):
        seen.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return AWSResponse(request.url, status, headers, Raw(raw))

    way.client().meta.events.register("before-send", before_send)
    return seen


@pytest.fixture(autouse=True)
def _boto3_without_pauses(monkeypatch):
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    config.configure(transport="boto3")


@pytest.fixture(name="secrets")
def _secrets():
    return transport.transport("secretsmanager")


def test_answer_comes_in_boto3_shape(secrets):
    """Text and bytes arrive as boto3 gives them."""
    answering(secrets, (200, {}, {"ARN": ARN, "SecretBinary": "AAH/"}))

    answer = secrets.call("GetSecretValue", {"SecretId": "db"})

    assert b"\x00\x01\xff" == answer["SecretBinary"]


def test_configuration_is_bytes_not_a_stream():
    """A document of AppConfig's can be read twice."""
    way = transport.transport("appconfigdata")
    headers = {"Next-Poll-Configuration-Token": "t", "Content-Type": "text/plain"}
    answering(way, (200, headers, b"hello"))

    answer = way.call("GetLatestConfiguration", {"ConfigurationToken": "s"})

    assert b"hello" == answer["Configuration"]


def test_service_error_becomes_ours_with_its_cause(secrets):
    """A missing secret raises NotFoundError from botocore's own error."""
    body = {"__type": "ResourceNotFoundException", "Message": "Can't find it."}
    answering(secrets, (400, {}, body))

    with pytest.raises(exceptions.NotFoundError) as caught:
        secrets.call("GetSecretValue", {"SecretId": "db"})
    assert (
        "secret 'db': ResourceNotFoundException: Can't find it."
        " (looked for in eu-central-1)"
    ) == str(caught.value)
    assert isinstance(caught.value.__cause__, botocore.exceptions.ClientError)
    assert ("secrets_manager", "db") == (caught.value.source, caught.value.key)


def test_throttling_is_tried_again_by_us_and_not_by_botocore(secrets, monkeypatch):
    """Our number of attempts reaches the wire, and Retry-After was understood."""
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    body = {"__type": "ThrottlingException", "message": "Rate exceeded"}
    seen = answering(secrets, (400, {"retry-after": "0"}, body))

    with pytest.raises(exceptions.ThrottledError) as caught:
        secrets.call("GetSecretValue", {"SecretId": "db"})
    assert retries.THROTTLED_ATTEMPTS == len(seen)
    assert 0.0 == caught.value.retry_after_s


@pytest.mark.parametrize(
    ("cause", "cls", "shown"),
    [
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://a?t=1"),
         exceptions.SourceTimeoutError, True),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="https://a?t=1"),
         exceptions.SourceTimeoutError, True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="https://a?t=1"),
         exceptions.SourceError, True),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="https://a?t=1"),
         exceptions.SourceError, False),
        (botocore.exceptions.SSLError(endpoint_url="https://a?t=1", error="bad"),
         exceptions.SourceError, True),
        (botocore.exceptions.HTTPClientError(error="t=1"),
         exceptions.SourceError, False),
        (botocore.exceptions.ProxyConnectionError(proxy_url="https://a?t=1"),
         exceptions.SourceError, True),
        (botocore.exceptions.MetadataRetrievalError(error_msg="t=1"),
         exceptions.SourceError, True),
        (TypeError("t=1"), exceptions.SourceError, False),
    ],
)  # fmt: skip
def test_network_error_passes_and_quotes_nothing(secrets, cause, cls, shown):
    """What the network does is transient; what may hold an answer is no cause."""
    answering(secrets, cause)

    with pytest.raises(exceptions.SourceError) as caught:
        secrets.call("GetSecretValue", {"SecretId": "db"})
    assert cls is type(caught.value)
    assert caught.value.transient
    assert (cause if shown else None) is caught.value.__cause__
    assert shown or caught.value.__context__ is None
    assert "t=1" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"a"', b"", b"\xff", b"null"])
def test_garbage_is_an_error_that_passes(secrets, body):
    """A body that is no answer is never taken for one, nor quoted."""
    answering(secrets, (200, {}, body))

    with pytest.raises(exceptions.SourceError) as caught:
        secrets.call("GetSecretValue", {"SecretId": "db"})
    assert caught.value.transient


def test_missing_region_says_what_to_set(monkeypatch, secrets):
    """Without a region the error names the variables that give one."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(
        exceptions.ConfigurationError, match=r"secret 'db': no AWS region.*AWS_REGION"
    ) as caught:
        secrets.call("GetSecretValue", {"SecretId": "db"})
    assert isinstance(caught.value.__cause__, botocore.exceptions.NoRegionError)


def test_region_of_lambda_is_enough(monkeypatch, secrets):
    """AWS_REGION alone, which boto3 does not read, is taken."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    assert "eu-west-3" == secrets.scope[1]


def test_missing_credentials_say_what_to_set(monkeypatch, secrets):
    """Without credentials the error names what gives them."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(
        exceptions.ConfigurationError, match=r"secret 'db': .*AWS_ACCESS_KEY_ID"
    ):
        secrets.call("GetSecretValue", {"SecretId": "db"})


def test_profile_that_is_not_there_is_a_configuration_error(monkeypatch, secrets):
    """What boto3 itself cannot be configured with is told as that."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(exceptions.ConfigurationError, match="nobody"):
        secrets.call("GetSecretValue", {"SecretId": "db"})


def test_endpoint_that_is_no_url_is_a_configuration_error(monkeypatch, secrets):
    """A mistyped AWS_ENDPOINT_URL is told as that."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(exceptions.ConfigurationError, match="nonsense"):
        secrets.call("GetSecretValue", {"SecretId": "db"})


def test_missing_boto3_says_why_and_what_to_install(monkeypatch, secrets):
    """Where boto3 is not installed, the error says why it was needed."""
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(exceptions.ConfigurationError) as caught:
        secrets.call("GetSecretValue", {"SecretId": "db"})
    assert (
        "secretsmanager needs boto3 (transport='boto3'), and there is no module"
        " 'boto3': put boto3 into the package of the function (pip install boto3)"
    ) == str(caught.value)


def test_missing_boto3_names_what_the_light_client_leaves_to_it(monkeypatch):
    """Under "auto" the reason is what the environment asks for."""
    config.configure(transport="auto")
    monkeypatch.setenv("LAMBDA_TASK_ROOT", "/var/task")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    monkeypatch.setattr(config, "in_lambda", lambda: True)
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(exceptions.ConfigurationError, match="AWS_USE_FIPS_ENDPOINT"):
        _ = transport.transport("ssm").scope


def test_stand_in_that_answers_with_no_dictionary_is_named():
    """A mock takes every call; what it answers to is the test's to say."""
    client = mock.MagicMock()
    way = transport.transport("secretsmanager", client=client)

    with pytest.raises(
        exceptions.ConfigurationError, match="GetSecretValue with Magic"
    ):
        way.call("GetSecretValue", {"SecretId": "db"})


def test_operation_unknown_to_an_old_boto3_says_so(secrets):
    """An operation that this boto3 lacks asks for a newer boto3."""
    with pytest.raises(exceptions.ConfigurationError, match="upgrade boto3"):
        secrets.call("GetSecretValueOfTheFuture", {"SecretId": "db"})


def test_silent_server_is_left_at_the_deadline(monkeypatch):
    """A server that accepts and never answers costs the deadline, not 60 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{port}")
        way = transport.transport("ssm", session=boto3.session.Session())

        with pytest.raises(exceptions.SourceTimeoutError, match=r"within 0\.2"):
            way.call("GetParameter", {"Name": "/a"}, timeout_s=0.2)


def test_silent_name_server_is_left_at_the_deadline(monkeypatch, secrets):
    """A look-up that hangs, and takes no time-out, costs the deadline."""
    answered = threading.Event()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://nowhere.invalid")
    secrets.client()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: answered.wait(30) and [])

    with pytest.raises(exceptions.SourceTimeoutError):
        secrets.call("GetSecretValue", {"SecretId": "db"}, timeout_s=0.2)
    answered.set()


def test_given_client_is_used_as_it_is():
    """A client of the user's own is called, and is not closed by us."""
    client = boto3.client("ssm", region_name="ap-south-1")
    way = transport.transport("ssm", client=client)
    answering(way, (200, {}, {"Parameter": {"Name": "/a", "Value": "1"}}))

    transport.reset()

    assert client is way.client()
    assert "1" == way.call("GetParameter", {"Name": "/a"})["Parameter"]["Value"]


def test_given_session_makes_the_client():
    """Region and credentials come from the session of the user's own."""
    session = boto3.session.Session("AKID", "SECRET", region_name="ap-south-1")
    way = transport.transport("secretsmanager", session=session)

    endpoint = "https://secretsmanager.ap-south-1.amazonaws.com"
    assert ("secretsmanager", "ap-south-1", endpoint, "AKID") == way.scope


def test_scope_tells_apart_what_may_answer_differently():
    """Another region, another key or another provider is another scope."""

    def scope(key, region):
        session = boto3.session.Session(key, "SECRET", region_name=region)
        return transport.transport("ssm", session=session).scope

    assert scope("A", "eu-west-1") == scope("A", "eu-west-1")
    assert 3 == len(
        {scope("A", "eu-west-1"), scope("B", "eu-west-1"), scope("A", "eu-west-2")}
    )


def test_refreshable_credentials_are_known_by_identity():
    """Credentials that change by themselves stay one identity."""
    client = boto3.client("ssm")
    marker = object()
    client._request_signer._credentials = marker

    assert marker is boto.scope_of("ssm", client)[3]


def test_one_way_per_service_is_shared(secrets):
    """All callers without a client of their own use the same transport."""
    assert secrets is transport.transport("secretsmanager")
    assert secrets is not transport.transport("ssm")


def test_exception_of_a_signal_handler_stays_as_it_is():
    """Also of one that interrupts the making of a client."""

    def guard(*_):
        raise TimeoutError("of the user's")

    former = signal.signal(signal.SIGUSR2, guard)
    try:
        with pytest.raises(TimeoutError, match="of the user's"):
            boto.translated(lambda: signal.raise_signal(signal.SIGUSR2), "ssm")
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_unknown_service_is_refused():
    """A service that has no table of operations is told as that."""
    with pytest.raises(exceptions.ConfigurationError, match="secretsmanager, ssm"):
        transport.transport("s3")


def test_client_is_made_once_by_many_threads(secrets, monkeypatch):
    """Threads that come together wait for one client."""
    from helpers import run_threads

    made = []
    real = boto._new_client
    monkeypatch.setattr(
        boto, "_new_client", lambda *args: made.append(1) or real(*args)
    )

    clients = run_threads(8, lambda index: secrets.client())

    assert 1 == len(set(map(id, clients))) == len(made)


def test_guard_that_fires_while_the_client_is_made_arrives(secrets, monkeypatch):
    """What a signal handler raises is the caller's, though boto3 was being loaded."""

    class OutOfTimeError(Exception):
        pass

    def handler(number, frame):
        raise OutOfTimeError

    def new_client(*args):
        signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(boto, "_new_client", new_client)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(OutOfTimeError):
            _ = secrets.scope
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.process
def test_value_is_read_at_exit_though_boto3_was_not_loaded():
    """When Python ends, boto3 cannot be imported; botocore can."""
    done = python(
        "import atexit, json\n"
        "from unittest import mock\n"
        "from lambda_ext import configure, get_secret\n"
        "configure(transport='boto3')\n"
        "@atexit.register\n"
        "def last():\n"
        "    from botocore.awsrequest import AWSResponse\n"
        "    body = json.dumps({'Name': 'db', 'SecretString': 'hello', 'ARN': 'a'})\n"
        "    raw = mock.Mock(stream=lambda *a, **k: iter([body.encode()]))\n"
        "    answer = AWSResponse('https://x', 200, {}, raw)\n"
        "    send = 'botocore.httpsession.URLLib3Session.send'\n"
        "    with mock.patch(send, return_value=answer):\n"
        "        print(get_secret('db'))",
        env={
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "s",
        },
    )

    assert "hello" == done.stdout.strip(), done.stderr


def test_snapshot_closes_and_the_next_call_connects_anew(secrets):
    """No connection is carried into a snapshot or out of it."""
    before = secrets.client()

    phases.call(phases.SNAPSHOT)

    assert before is not secrets.client()


def test_forked_child_has_a_client_and_locks_of_its_own(secrets):
    """What was held at the fork does not block the child."""
    before = secrets.client()

    assert in_child(
        lambda: (
            before is not secrets.client()
            and secrets is transport.transport("secretsmanager")
        ),
        secrets._lock,
        transport._lock,
    )


def test_trace_context_follows_onto_the_thread(secrets):
    """What instrumentation keeps in context variables is seen by botocore."""
    import contextvars

    trace = contextvars.ContextVar("trace")
    trace.set("root")
    seen = []
    answering(secrets, (200, {}, {"ARN": ARN, "SecretString": "x"}))
    secrets.client().meta.events.register(
        "before-call",
        lambda **kwargs: seen.append((trace.get(), threading.get_ident())),
    )

    secrets.call("GetSecretValue", {"SecretId": "db"}, timeout_s=2.0)

    assert [("root", seen[0][1])] == seen
    assert threading.get_ident() != seen[0][1]


@pytest.mark.process
def test_boto3_is_not_loaded_before_it_is_called():
    """Choosing a way through boto3 loads neither boto3 nor botocore."""
    done = python(
        "from lambda_ext.aws import transport\n"
        "import sys\n"
        "from lambda_ext import configure\n"
        "configure(transport='boto3')\n"
        "transport.transport('ssm')\n"
        "print([m for m in ('boto3', 'botocore') if m in sys.modules])"
    )

    assert "[]" == done.stdout.strip(), done.stderr
