"""What one wrong answer leaves behind: nothing for the calls after it.

An endpoint, or a machine between, that answers with absurd dates, another
shape, endless texts or line breaks: one call fails, with an error of this
library that quotes no value, and the next one is as if nothing had been.
"""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
import traceback

import pytest
import wire as faults
from helpers import run_threads
from wire import Wire, response

import lambda_ext
from lambda_ext import exceptions
from lambda_ext.aws import connections, light, native, retries, signing, transport
from lambda_ext.lifecycle import clock, real_threads
from lambda_ext.testing import FakeClock

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"
TOKEN = "IQoJLIVESESSIONTOKEN"
KEY = "SECRETKEYSECRETKEY"
VALUE = "hunter2hunter2"


def answer(request):
    """Answer for any name, as the three services do."""
    parameters = json.loads(request.body or b"{}")
    operation = request.operation
    if operation == "GetSecretValue":
        return secret(parameters["SecretId"])
    if operation == "BatchGetSecretValue":
        return {"SecretValues": [secret(n) for n in parameters["SecretIdList"]],
                "Errors": []}  # fmt: skip
    if operation == "GetParameter":
        return {"Parameter": parameter(parameters["Name"])}
    if operation == "GetParameters":
        return {"Parameters": [parameter(name) for name in parameters["Names"]],
                "InvalidParameters": []}  # fmt: skip
    if operation == "GetParametersByPath":
        return {"Parameters": [parameter(parameters["Path"] + "/x")]}
    raise AssertionError(operation)


def secret(name):
    return {"ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
            "SecretString": VALUE}  # fmt: skip


def parameter(name):
    return {"Name": name, "Value": VALUE, "Version": 1, "Type": "String",
            "ARN": f"arn:aws:ssm:eu-central-1:123456789012:parameter{name}"}  # fmt: skip


@pytest.fixture(name="pauses", autouse=True)
def _pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr(retries, "sleep", pauses.append)
    return pauses


@pytest.fixture(name="wire")
def _wire(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    with Wire(answer) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        lambda_ext.configure(transport="light")
        yield wire
    light.reset()


@pytest.fixture(name="way")
def _way(wire):
    way = light.Light("secretsmanager")
    yield way
    way.close()


def get(way, name="db", timeout_s=None):
    return way.call("GetSecretValue", {"SecretId": name}, timeout_s=timeout_s)


# -- what is remembered of a refusal -----------------------------------------
ABSURD = [
    "Wed, 21 Oct 99999999999999 07:28:00 GMT",
    "Wed, 21 Oct 99999 07:28:00 GMT",
    "Wed, 21 Oct 0000 07:28:00 GMT",
    "Wed, 21 Oct -005 07:28:00 GMT",
    "Wed, 21 Oct 1_00 07:28:00 GMT",
    "Wed, 21 Oct 2006 07:28:00 GMT",
    "Wed, 99 Oct 2026 99:99:99 GMT",
    f"Wed, 21 Oct {'9' * 400} 07:28:00 GMT",
]


def moment(text):
    """Return the epoch seconds of an x-amz-date."""
    return time.mktime(time.strptime(text, "%Y%m%dT%H%M%SZ")) - time.timezone


@pytest.mark.parametrize("date", range(len(ABSURD)))
def test_absurd_date_in_a_refusal_changes_no_later_signature(wire, date):
    """The refusal is raised; every later call is signed with our own time."""
    way, other = light.Light("secretsmanager"), light.Light("ssm")
    wire.faults.append(faults.refusing("InvalidSignatureException", Date=ABSURD[date]))

    with pytest.raises(exceptions.AccessDeniedError):
        get(way)
    get(way)
    other.call("GetParameter", {"Name": "/p"})

    for request in wire.requests:
        assert abs(moment(request.headers["x-amz-date"]) - time.time()) < 60
    way.close()
    other.close()


def test_date_that_did_not_help_is_not_kept(way, wire):
    """Only a skew whose signature was accepted is used by later calls."""
    date = email.utils.formatdate(time.time() + 7200, usegmt=True)
    wire.faults += [faults.refusing("SignatureDoesNotMatch", Date=date)] * 2

    with pytest.raises(exceptions.AccessDeniedError):
        get(way)
    get(way)

    assert abs(moment(wire.requests[-1].headers["x-amz-date"]) - time.time()) < 60


def test_skew_is_unlearnt_by_a_refusal_without_a_date(way, wire):
    """When the clock was set right, one refusal brings its own time back."""
    date = email.utils.formatdate(time.time() + 7200, usegmt=True)
    wire.faults.append(faults.refusing("RequestTimeTooSkewed", Date=date))
    get(way)
    wire.faults.append(faults.refusing("RequestTimeTooSkewed", Date=None))
    get(way)
    get(way)

    assert abs(moment(wire.requests[2].headers["x-amz-date"]) - time.time()) > 7000
    for request in wire.requests[-2:]:
        assert abs(moment(request.headers["x-amz-date"]) - time.time()) < 60


def test_skew_of_one_endpoint_disturbs_no_call_under_way(wire, monkeypatch):
    """Two endpoints with different clocks: each call succeeds."""
    ahead = 3 * 3600

    def strict(off_s):
        def judge(request):
            off = moment(request.headers["x-amz-date"]) - time.time() - off_s
            if abs(off) < 300:
                return answer(request)
            date = email.utils.formatdate(time.time() + off_s, usegmt=True)
            return faults.error("RequestTimeTooSkewed", Date=date)

        return judge

    wire.answer = strict(0)
    with Wire(strict(ahead)) as other:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", other.url)
        secrets, parameters = light.Light("secretsmanager"), light.Light("ssm")

        def ask(index):
            for number in range(10):
                if index % 2:
                    get(secrets, f"s{number}")
                else:
                    parameters.call("GetParameter", {"Name": f"/p{number}"})

        assert [None] * 4 == run_threads(4, ask)
    secrets.close()
    parameters.close()


def test_retry_after_is_bounded(way, wire):
    """An absurd Retry-After is not passed on as one."""
    fault = faults.failing(503, Retry_After="9" * 400)
    wire.faults.append(fault)

    with pytest.raises(exceptions.SourceError) as caught:
        get(way)
    assert 300.0 == caught.value.retry_after_s


# -- silence -----------------------------------------------------------------
def test_silent_kept_connections_cost_one_time_out(way, wire):
    """The first that stays silent ends all that are kept; a new one answers."""
    together = threading.Barrier(3)

    def first(peer, data):
        together.wait(30.0)
        faults.whole(peer, data)

    wire.faults += [first] * 3
    run_threads(3, lambda index: get(way))
    assert 3 == len(way._connections._idle)
    wire.faults += [faults.silent, faults.whole]

    assert VALUE == get(way, timeout_s=1.0)["SecretString"]
    assert [4, 5] == [len(wire.requests) - 1, len(wire.requests)]
    assert 4 == wire.connections


@pytest.mark.parametrize(("used", "wait_s"), [(False, [3.0]), (True, [1.0])])
def test_used_connection_gets_half_of_the_time(used, wait_s):
    """So that a new one can be tried by the same call."""
    waits = []

    class Silent:
        def send(self, data):
            return len(data)

        def settimeout(self, seconds):
            waits.append(seconds)

        def recv(self, count):
            raise TimeoutError

        def close(self):
            pass

    connection = connections.Connection(Silent(), None)
    connection.used = used
    clock.install(StillClock())
    with pytest.raises(TimeoutError):
        connection.exchange(b"x", 1000.0 + (2.0 if used else 8.0))
    clock.install(None)

    assert wait_s * 2 == waits


def test_connections_are_closed_at_the_end_of_the_interpreter(monkeypatch):
    """When the module's names are gone, those that are kept are still closed."""
    closed = []

    class Kept:
        def close(self):
            closed.append(self)

    pool = connections.Connections(connections.regions.parse("http://127.0.0.1:9"))
    pool._idle += [Kept(), Kept()]
    with monkeypatch.context() as patched:
        patched.setattr(connections, "_close_all", None)
        del pool

    assert 2 == len(closed)


class StillClock:
    """A clock that stands still."""

    def monotonic(self):
        return 1000.0

    def wall(self):
        return 1_700_000_000.0


# -- another shape -----------------------------------------------------------
SHAPES = {
    "get_secret": [
        b"<html>", b"{}", b"[]", b"5", b"null",
        b'{"SecretString": 5}', b'{"SecretString": {"a": "b"}}',
        b'{"SecretString": true}', b'{"SecretBinary": 5}', b'{"SecretBinary": "a"}',
        b'{"SecretString": "x", "VersionId": [1]}',
        b'{"SecretString": "x", "ARN": 5}', b'{"SecretString": "x", "Name": {}}',
    ],
    "get_secrets": [
        b"<html>", b"{}", b'{"SecretValues": 5}', b'{"SecretValues": {"a": 1}}',
        b'{"SecretValues": [1]}', b'{"SecretValues": [[]]}',
        b'{"SecretValues": [], "Errors": [1]}', b'{"SecretValues": [], "Errors": 5}',
        b'{"SecretValues": [], "Errors": [{"SecretId": 5}]}',
        b'{"SecretValues": [], "Errors": [{"SecretId": "s", "ErrorCode": {}}]}',
        b'{"SecretValues": [{"Name": 5, "SecretString": "x"}]}',
    ],
    "get_parameter": [
        b"<html>", b"{}", b'{"Parameter": "x"}', b'{"Parameter": []}',
        b'{"Parameter": {}}', b'{"Parameter": {"Value": null}}',
        b'{"Parameter": {"Value": {"a": "b"}}}', b'{"Parameter": {"Value": 5}}',
        b'{"Parameter": {"Value": "1", "Version": "x"}}',
        b'{"Parameter": {"Value": "1", "Version": true}}',
    ],
    "get_parameters": [
        b"<html>", b"{}", b'{"Parameters": [1], "InvalidParameters": []}',
        b'{"Parameters": 5}', b'{"Parameters": "x"}', b'{"Parameters": {"a": 1}}',
        b'{"Parameters": [], "InvalidParameters": 5}',
        b'{"Parameters": [], "InvalidParameters": [5]}',
        b'{"Parameters": [], "InvalidParameters": [[]]}',
    ],
    "get_parameters_by_path": [
        b"<html>", b"{}", b'{"Parameters": [1]}', b'{"Parameters": 5}',
        b'{"Parameters": [{"Value": "1"}]}', b'{"Parameters": [{"Name": "/p/x"}]}',
        b'{"Parameters": [{"Name": "", "Value": "1"}]}',
        b'{"Parameters": [{"Name": 5, "Value": "1"}]}',
        b'{"Parameters": [], "NextToken": 5}',
    ],
}  # fmt: skip
READS = {
    "get_secret": lambda: lambda_ext.get_secret("s"),
    "get_secrets": lambda: lambda_ext.get_secrets(["s", "t"]),
    "get_parameter": lambda: lambda_ext.get_parameter("/p"),
    "get_parameters": lambda: lambda_ext.get_parameters(["/p", "/q"]),
    "get_parameters_by_path": lambda: lambda_ext.get_parameters_by_path("/p"),
}


@pytest.mark.logs
@pytest.mark.parametrize("how", ["light", "boto3"])
@pytest.mark.parametrize("name", READS)
def test_answer_of_another_shape_is_as_none(name, how, wire):
    """The old value serves, and serves again; a first read fails transiently."""
    lambda_ext.configure(transport=how)
    for blob in SHAPES[name]:
        wire.answer = lambda request, blob=blob: response(200, blob)
        with pytest.raises(exceptions.SourceError) as caught:
            READS[name]()
        assert caught.value.transient, blob

    for blob in SHAPES[name]:
        with FakeClock() as fake:
            wire.answer = answer
            value = READS[name]()
            fake.advance(301)
            wire.answer = lambda request, blob=blob: response(200, blob)
            assert value == READS[name](), blob
            fake.advance(301)
            assert value == READS[name](), blob
        lambda_ext.values.store.reset()


@pytest.mark.parametrize("how", ["light", "boto3"])
@pytest.mark.parametrize(
    ("operation", "parameters", "blob", "headers"),
    [
        ("GetLatestConfiguration", {"ConfigurationToken": "t"}, b"{}",
         {"Next_Poll_Configuration_Token": "n",
          "Next_Poll_Interval_In_Seconds": "9" * 5000}),
        ("GetLatestConfiguration", {"ConfigurationToken": "\ud800"}, b"{}", {}),
        ("StartConfigurationSession",
         {"ApplicationIdentifier": "a", "EnvironmentIdentifier": "e",
          "ConfigurationProfileIdentifier": "p"},
         b'{"InitialConfigurationToken": 5}', {}),
    ],
)  # fmt: skip
def test_nothing_but_our_errors_leaves_a_call(
    operation, parameters, blob, headers, how, wire
):
    """What Python raises over a request or an answer becomes an error of ours."""
    lambda_ext.configure(transport=how)
    wire.answer = lambda request: response(200, blob, **headers)

    with pytest.raises(exceptions.LambdaExtError):
        transport.transport("appconfigdata").call(operation, parameters)


# -- texts -------------------------------------------------------------------
HOSTILE = "X\nINFO forged\x1b[31m\u2028\u202e"


@pytest.mark.parametrize("how", ["light", "boto3"])
def test_error_text_is_one_bounded_line(how, wire):
    """Neither a code nor a message of an answer breaks or floods a log."""
    lambda_ext.configure(transport=how)
    for code, message in (
        (HOSTILE, HOSTILE),
        ("C" * 1_000_000, "m"),
        ("ValidationException", "m" * 10_000_000),
    ):
        wire.faults.append(faults.refusing(code, message))
        with pytest.raises(exceptions.SourceError) as caught:
            lambda_ext.get_secret(f"db{HOSTILE}")

        for text in (str(caught.value), caught.value.code):
            assert text.isprintable()
            assert len(text) < 3000


@pytest.mark.logs
def test_log_line_is_one_line(wire, caplog):
    """A name and a code with line breaks forge no line of the log."""
    caplog.set_level(logging.DEBUG, "lambda_ext")
    name = f"db{HOSTILE}"
    with FakeClock() as fake:
        lambda_ext.get_secret(name)
        fake.advance(301)
        wire.fault = faults.refusing(HOSTILE, "m", 500)
        lambda_ext.get_secret(name)
    ours = [r for r in caplog.records if r.name.startswith("lambda_ext")]

    assert ours
    for record in ours:
        assert record.getMessage().isprintable()


# -- tracebacks --------------------------------------------------------------
def shown(exc):
    """Return what a tool prints that shows each frame's variables."""
    text = traceback.TracebackException.from_exception(exc, capture_locals=True)
    return "".join(text.format())


def leaked(exc):
    """Return which of the secrets the traceback of *exc* shows."""
    text = shown(exc)
    return [word for word in (TOKEN, KEY, VALUE) if word in text]


FAILURES = {
    "time-out": faults.silent,
    "reset": faults.reset,
    "cut": lambda peer, data: faults.cut(len(data()) - 10)(peer, data),
    "not json": lambda peer, data: peer.send(
        response(200, json.dumps(secret("db")).encode()[:-1])
    ),
    "wrong shape": lambda peer, data: peer.send(
        response(200, {"SecretString": [VALUE], "Parameter": [VALUE],
                       "SecretValues": [VALUE], "Parameters": [VALUE]})
    ),
    "denied": faults.refusing("AccessDeniedException", "no"),
    "missing": faults.refusing("ResourceNotFoundException", "no"),
    "skewed": faults.refusing("RequestTimeTooSkewed", "no"),
    "500": faults.failing(500, VALUE.encode()),
    "not http": faults.instead(VALUE.encode() + b"\r\n\r\n"),
}  # fmt: skip
ENTRIES = {
    **READS,
    "value": lambda: lambda_ext.Secret("db").value,
    "parameter value": lambda: lambda_ext.Parameter("/p").value,
    "version": lambda: lambda_ext.Secret("db").version_id,
    "inject": lambda: lambda_ext.inject(db=lambda_ext.Secret("db"))(
        lambda db: None
    )(),
    "derive": lambda: lambda_ext.Secret("db").derive(len).value,
    "aget": lambda: waited_for(lambda_ext.Secret("db").aget()),
}  # fmt: skip


def waited_for(coroutine):
    import asyncio

    return asyncio.run(coroutine)


@pytest.mark.parametrize("how", ["light", "boto3"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_frame_of_a_failure_holds_a_secret(entry, how, wire, monkeypatch):
    """Neither token nor key nor value is in any frame that the error leads to."""
    monkeypatch.setattr(retries, "BUDGET_S", 0.3)
    lambda_ext.configure(transport=how)
    found = {}
    for failure, fault in FAILURES.items():
        wire.fault = fault
        try:
            ENTRIES[entry]()
        except exceptions.LambdaExtError as exc:
            found[failure] = leaked(exc)
        lambda_ext.values.store.reset()
        wire.fault = faults.whole

    assert {failure: [] for failure in FAILURES} == found


@pytest.mark.parametrize("transform", ["json", "binary", int, lambda value: 1 / 0])
@pytest.mark.parametrize("entry", ["get", "many", "handle"])
def test_no_frame_of_a_transform_that_failed_holds_the_value(entry, transform, wire):
    """The value that could not be decoded is not in the traceback."""
    read = {
        "get": lambda: lambda_ext.get_secret("db", transform=transform),
        "many": lambda: lambda_ext.get_secrets(["db", "dc"], transform=transform),
        "handle": lambda: lambda_ext.Secret("db", transform=transform).value,
    }[entry]

    with pytest.raises(exceptions.DecodeError) as caught:
        read()
    assert [] == leaked(caught.value)


def test_no_frame_of_a_thread_that_waited_holds_a_secret(wire):
    """A caller that waited for another's load gets an error without its variables."""
    wire.fault = faults.late(0.3)
    wire.answer = lambda request: faults.error("AccessDeniedException", "no")

    errors = run_threads(4, lambda index: lambda_ext.get_secret("db"))

    assert [exceptions.AccessDeniedError] * 4 == [type(error) for error in errors]
    assert [[]] * 4 == [leaked(error) for error in errors]


def test_exception_of_a_signal_handler_leaves_no_secret(wire, monkeypatch):
    """What interrupts a load is raised as it is; the load's variables are gone."""

    class InterruptedByUserError(Exception):
        pass

    def interrupt(self, request, ends_at, *more):
        local = bytes(request)
        assert TOKEN.encode() in local
        raise InterruptedByUserError

    monkeypatch.setattr(connections.Connection, "exchange", interrupt)

    with pytest.raises(exceptions.LambdaExtError) as caught:
        lambda_ext.get_secret("db")
    assert [] == leaked(caught.value)

    class Stop(BaseException):
        pass

    monkeypatch.setattr(
        connections.Connection, "exchange",
        lambda self, request, *more: (_ for _ in ()).throw(Stop),
    )  # fmt: skip
    with pytest.raises(Stop) as stopped:
        lambda_ext.get_secret("dc")
    assert [] == leaked(stopped.value)


def test_variables_of_the_users_own_frames_stay(wire):
    """What the user's code was doing before is left for their tools to show."""

    def work():
        mine = "mine to see"
        raise KeyError(len(mine))

    def work_and_read():
        try:
            work()
        except KeyError:
            lambda_ext.get_secret("db")

    wire.fault = faults.refusing("AccessDeniedException", "no")
    with pytest.raises(exceptions.AccessDeniedError) as caught:
        work_and_read()

    before = caught.value
    while not isinstance(before, KeyError):
        before = before.__cause__ or before.__context__
    *_, (frame, _) = traceback.walk_tb(before.__traceback__)
    assert {"mine": "mine to see"} == frame.f_locals


def test_generator_of_the_users_that_waits_is_not_ended(wire):
    """A traceback may lead through a generator that goes on afterwards."""

    class Source:
        name = "mine"
        scope = ("mine",)

        def plan(self, wanted):
            return [wanted]

        def fetch(self, wanted, timeout_s):
            next(going_on)
            raise error

    def generate():
        nonlocal error
        while True:
            try:
                raise exceptions.SourceError("no", key="db", source="mine")
            except exceptions.SourceError as exc:
                error = exc
            yield "still here"

    error = None
    going_on = generate()
    handle = lambda_ext.Secret("db", source=Source())
    with pytest.raises(exceptions.SourceError):
        _ = handle.value

    assert "still here" == next(going_on)


def test_values_that_were_injected_before_a_failure_are_dropped(wire):
    """Where one value cannot be had, those before it stay in no frame."""

    @lambda_ext.inject(first=lambda_ext.Secret("db"), second=lambda_ext.Parameter("/p"))
    def function(first, second):
        raise AssertionError

    @lambda_ext.inject(first=lambda_ext.Secret("db"), second=lambda_ext.Parameter("/p"))
    async def coroutine(first, second):
        raise AssertionError

    def denied(request):
        if request.operation.startswith("GetParameter"):
            return faults.error("AccessDeniedException", "no")
        return answer(request)

    wire.answer = denied
    for call in (function, lambda: waited_for(coroutine())):
        with pytest.raises(exceptions.AccessDeniedError) as caught:
            call()
        assert [] == leaked(caught.value)


def test_skew_that_another_call_has_learnt_stays(way, wire):
    """A call that needed no skew does not undo what others need."""

    def learn_meanwhile(peer, data):
        signing.keep_skew(900.0)
        peer.send(data())

    wire.faults.append(learn_meanwhile)
    get(way)

    assert 900.0 == signing.skew_s


# -- the end of the interpreter ----------------------------------------------
@pytest.mark.parametrize("how", ["light", "boto3"])
def test_value_can_be_read_when_no_thread_can_be_started(how, wire, monkeypatch):
    """At exit, where Python 3.12 starts no thread any more, the caller's does it."""
    lambda_ext.configure(transport=how)
    wire_url = wire.url.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire_url)
    here = threading.get_ident()

    def only_others(start):
        def refuse(*arguments):
            if threading.get_ident() == here:
                raise RuntimeError("can't create new thread at interpreter shutdown")
            return start(*arguments)

        return refuse

    for where, name in (
        (threading.Thread, "start"),
        (real_threads, "start_new_thread"),
    ):
        monkeypatch.setattr(where, name, only_others(getattr(where, name)))

    assert VALUE == lambda_ext.get_secret("db")


def test_replaced_sockets_are_used(wire, monkeypatch):
    """Where a test forbids sockets, as pytest-socket does, nothing is sent."""
    import socket

    class Forbidden(socket.socket):
        def __init__(self, *args, **kwargs):
            raise RuntimeError("sockets are forbidden")

    lambda_ext.get_secret("db")
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Forbidden)
        with pytest.raises(exceptions.SourceError) as caught:
            transport.transport("ssm").call("GetParameter", {"Name": "/p"})

    assert "RuntimeError at " in str(caught.value)
    assert 1 == len(wire.requests)


def test_sockets_of_greenlets_are_not_used(monkeypatch):
    """gevent's belong to one thread; the library's go from hand to hand."""
    import socket

    ours = native.modules()
    replaced = type("socket", (socket.socket,), {"__module__": "gevent._socket3"})
    monkeypatch.setattr(socket, "socket", replaced)

    assert ours is native.modules()
