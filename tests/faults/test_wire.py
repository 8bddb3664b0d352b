"""What the light client makes of a network that misbehaves.

Never a hang past the deadline, never an answer that is not one, never a
signature to any other server; and the call succeeds again as soon as the network does.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from socket import AF_INET6

import pytest
import wire as faults
from helpers import run_threads
from wire import Wire, authority

from lambda_ext import exceptions
from lambda_ext.aws import light, native, retries
from lambda_ext.lifecycle import clock

ANSWER = {"ARN": "arn", "Name": "db", "VersionId": "v", "SecretString": "hunter2"}
LENGTH = len(faults.response(200, ANSWER))


def answer(request):
    return ANSWER


@pytest.fixture(name="pauses", autouse=True)
def _pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr(retries, "sleep", pauses.append)
    return pauses


@pytest.fixture(name="wire", params=["clear", "tls"])
def _wire(request, monkeypatch):
    tls = authority().server("127.0.0.1") if request.param == "tls" else None
    monkeypatch.setenv("AWS_CA_BUNDLE", authority().path)
    with Wire(answer, tls=tls) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield wire


@pytest.fixture(name="way")
def _way(wire):
    way = light.Light("secretsmanager")
    yield way
    way.close()
    light.reset()


def get(way, timeout_s=None):
    """Return the text of the secret."""
    answer = way.call("GetSecretValue", {"SecretId": "db"}, timeout_s=timeout_s)
    return answer["SecretString"]


@pytest.mark.parametrize("then", [faults.vanish, faults.reset])
def test_response_cut_at_any_byte_is_asked_for_again(way, wire, then):
    """After each count of bytes, on a new connection and on a kept one."""
    for count in range(LENGTH):
        wire.faults.append(faults.cut(count, then))
        assert "hunter2" == get(way), count
        wire.requests.clear()

    # The last call left a kept connection: cut that one, too.
    wire.faults.append(faults.cut(LENGTH // 2, then))
    assert "hunter2" == get(way)
    assert 2 == len(wire.requests)


def test_server_that_falls_silent_costs_the_deadline(wire):
    """After any count of bytes, silence ends with the caller's time, all over."""
    counts = range(0, LENGTH, 12)
    wire.faults += [faults.cut(count, faults.silent) for count in counts]
    ways = [light.Light("secretsmanager") for _ in counts]

    results = run_threads(len(ways), lambda index: get(ways[index], 2.0))

    assert {exceptions.SourceTimeoutError} == set(map(type, results))
    assert len(ways) == len(wire.requests)
    for way in ways:
        way.close()


def test_silence_ends_before_the_invocation_does(way, wire):
    """What is left of the invocation is the limit where none is given."""
    wire.faults.append(faults.silent)
    clock.begin_invocation(0.4)

    with pytest.raises(exceptions.SourceTimeoutError):
        get(way)
    assert clock.remaining() > 0
    clock.deadline_at = None


def test_server_that_drips_costs_the_deadline(way, wire):
    """A byte now and then does not extend the caller's time."""
    wire.faults.append(faults.dripping(20, 0.02))

    with pytest.raises(exceptions.SourceTimeoutError):
        get(way, 0.3)


def test_late_answer_is_waited_for_and_a_too_late_one_is_dropped(way, wire):
    """Within the caller's time an answer counts; after it, it is not the next one's."""
    wire.faults += [faults.late(0.1), faults.late(5.0), faults.late(5.0)]
    assert "hunter2" == get(way)
    with pytest.raises(exceptions.SourceTimeoutError):
        get(way, 1.0)
    wire.answer = lambda request: {**ANSWER, "SecretString": "new"}

    assert "new" == get(way)
    assert 3 == wire.connections


def test_mutilated_responses_never_raise_anything_else(way, wire):
    """Every response becomes an answer or an error of this library."""
    random_ = random.Random(3)
    good = faults.response(200, ANSWER)
    outcomes = set()
    for _ in range(200):
        blob = bytearray(good)
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(blob))
            kind = random_.randrange(3)
            if kind == 0:
                blob[at] = random_.randrange(256)
            elif kind == 1:
                del blob[at : at + random_.randrange(1, 30)]
            else:
                blob[at:at] = random_.randbytes(random_.randrange(1, 30))
        wire.faults = [faults.instead(bytes(blob))] * 3
        told = ""
        try:
            outcome = type(get(way, 5.0))
        except exceptions.SourceError as error:
            outcome = type(error)
            told = str(error)
        outcomes.add(outcome)
        assert "hunter2" not in told
        wire.faults.clear()

    assert {str, exceptions.SourceError} <= outcomes
    assert "hunter2" == get(way)


def test_doubled_answer_does_not_answer_the_next_question(way, wire):
    """What came twice is read once, and the connection ends."""
    wire.faults.append(faults.doubled)
    assert "hunter2" == get(way)
    wire.answer = lambda request: {**ANSWER, "SecretString": "new"}

    assert "new" == get(way)
    assert 2 == wire.connections


@pytest.mark.parametrize(
    "blob",
    [b"", b"\0" * 100, b"\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
     faults.response(200, b"<html>"), faults.response(204),
     b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
     b"HTTP/1.1 100 Continue\r\n\r\n" * 50],
)  # fmt: skip
def test_garbage_is_asked_for_again_and_then_told(way, wire, pauses, blob):
    """Three times garbage is an error that passes; garbage once is no matter."""
    wire.faults = [faults.instead(blob)] * 3
    with pytest.raises(exceptions.SourceError) as caught:
        get(way)
    assert caught.value.transient
    assert 3 == len(wire.requests)

    wire.faults = [faults.instead(blob)]
    assert "hunter2" == get(way)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_failing_server_is_asked_again(way, wire, pauses, status):
    """5xx and 429 cost a pause, not the call."""
    wire.faults = [faults.failing(status)] * 2

    assert "hunter2" == get(way)
    assert 2 == len(pauses)


@pytest.mark.parametrize(
    ("code", "cls", "requests"),
    [
        ("ThrottlingException", exceptions.ThrottledError, retries.THROTTLED_ATTEMPTS),
        ("InternalServiceError", exceptions.SourceError, 3),
        ("AccessDeniedException", exceptions.AccessDeniedError, 1),
        ("DecryptionFailure", exceptions.AccessDeniedError, 1),
        ("ResourceNotFoundException", exceptions.NotFoundError, 1),
        ("InvalidRequestException", exceptions.SourceError, 1),
        ("ExpiredTokenException", exceptions.AccessDeniedError, 1),
    ],
)
def test_refusal_has_its_outcome(way, wire, code, cls, requests):
    """What passes is asked for several times, what stays once."""
    wire.faults = [faults.refusing(code)] * requests

    with pytest.raises(cls) as caught:
        get(way)
    assert (code, requests) == (caught.value.code, len(wire.requests))
    assert (requests > 1) is caught.value.transient


def test_redirect_to_another_host_sends_it_nothing(way, wire):
    """No signature goes where a redirect points."""
    with Wire(answer) as other:
        wire.faults.append(faults.redirecting(other.url))
        with pytest.raises(exceptions.SourceError, match="redirect"):
            get(way)
        assert 0 == other.connections


def test_clock_that_is_wrong_by_fifteen_minutes_is_no_failure(way, wire):
    """AWS's Date corrects the signature, once for all the calls that follow."""
    behind = email.utils.formatdate(time.time() - 900, usegmt=True)
    wire.faults.append(faults.refusing("RequestTimeTooSkewed", Date=behind))

    assert "hunter2" == get(way)
    assert "hunter2" == get(way)
    assert 3 == len(wire.requests)


def test_keys_that_expire_in_flight_are_renewed(way, wire, monkeypatch):
    """The call that meets the expiry is answered all the same."""

    def expire(peer, data):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
        faults.refusing("ExpiredTokenException")(peer, data)

    wire.faults.append(expire)

    assert "hunter2" == get(way)
    assert "Credential=renewed/" in wire.requests[1].headers["authorization"]


def test_connections_that_a_freeze_killed_are_reopened(way, wire, pauses):
    """All connections die at once; the next call notices nothing."""
    assert "hunter2" == get(way)
    wire.hang_up()
    way.attempts = 1

    assert "hunter2" == get(way)
    assert [] == pauses


def test_signature_is_made_after_the_connection(way, wire, monkeypatch):
    """A reopened connection gets a new signature, not one of before the freeze."""
    assert "hunter2" == get(way)
    wire.faults.append(faults.vanish)  # the kept connection dies under the request
    times = iter((1_800_000_000.0, 1_800_000_600.0))
    monkeypatch.setattr(clock, "wall", lambda: next(times))

    assert "hunter2" == get(way)
    first, second = (request.headers["x-amz-date"] for request in wire.requests[1:])
    assert ("20270115T080000Z", "20270115T081000Z") == (first, second)


class Resolver:
    """Modules whose name server fails, or does not answer."""

    def __init__(self, monkeypatch, function):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://nowhere.invalid")
        modules = native.private()
        modules.getaddrinfo = function
        native.use(modules)


def test_name_that_does_not_resolve_is_an_error_that_passes(monkeypatch, pauses):
    """DNS that fails is told with the name, and asked again."""
    import socket

    asked = []

    def fail(name, *args):
        asked.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    Resolver(monkeypatch, fail)

    with pytest.raises(exceptions.SourceError, match=r"nowhere\.invalid") as caught:
        get(light.Light("secretsmanager"))
    assert caught.value.transient
    assert [b"nowhere.invalid"] * 3 == asked
    light.reset()


def test_name_server_that_is_silent_costs_the_deadline(monkeypatch, pauses):
    """The resolver knows no time-out, the caller does."""
    answered = threading.Event()
    Resolver(monkeypatch, lambda *args: answered.wait(30) and [])

    with pytest.raises(exceptions.SourceTimeoutError):
        get(light.Light("secretsmanager"), 0.2)
    answered.set()
    light.reset()


def test_second_address_is_tried_when_the_first_refuses(wire, monkeypatch):
    """A name with a dead address still leads somewhere."""
    with Wire(answer) as gone:
        pass
    modules = native.private()
    real = modules.getaddrinfo

    def two(name, port, *args):
        entry = real(b"127.0.0.1", port, *args)[0]
        dead = (*entry[:4], ("127.0.0.1", gone.port))
        return [dead, entry]

    modules.getaddrinfo = two
    native.use(modules)
    way = light.Light("secretsmanager")

    assert "hunter2" == get(way)
    way.close()
    light.reset()


def test_ipv4_is_tried_when_the_addresses_of_ipv6_refuse(wire, monkeypatch):
    """A name with any number of dead addresses of one family still leads somewhere."""
    modules = native.private()
    real = modules.getaddrinfo

    def found(name, port, *args):
        entry = real(b"127.0.0.1", port, *args)[0]
        closed = [("::1", number, 0, 0) for number in (1, 2, 3)]
        return [(AF_INET6, *entry[1:4], address) for address in closed] + [entry]

    modules.getaddrinfo = found
    native.use(modules)
    way = light.Light("secretsmanager")

    assert "hunter2" == get(way)
    way.close()
    light.reset()
