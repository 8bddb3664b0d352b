"""Destinations of logs at receivers that behave, and at some that do not."""

from __future__ import annotations

import gc
import json
import threading

import pytest
from helpers import in_child
from log_entries import (
    SECONDS,
    TIME,
    TRACE,
    TRACE_ID,
    Key,
    body_of,
    concatenated,
    drained,
    entry,
)
from wire import Wire, failing, late, reset, response, silent, stale, vanish, whole

from lambda_ext import Secret, telemetry
from lambda_ext.delivery import queue
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import phases, process
from lambda_ext.telemetry import destinations, records
from lambda_ext.telemetry.datadog_logs import DatadogLogs
from lambda_ext.telemetry.queued import FunctionDestination
from lambda_ext.testing import FakeSource, simulate_sigterm

FAILED = pytest.mark.logs  # a failure is logged once a reason

# Name -> what makes a destination at a URL with a key, and what reads the messages of
# a request.
MAKERS = {
    "http": (
        lambda url, key: destinations.http(url, headers={"x-key": key}),
        lambda body: [json.loads(each)["message"] for each in body.splitlines()],
        "x-key",
    ),
    "splunk_hec": (
        destinations.splunk_hec,
        lambda body: [each["event"] for each in concatenated(body.decode())],
        "authorization",
    ),
    "datadog": (
        lambda url, key: DatadogLogs(key, url=url + "/api/v2/logs"),
        lambda body: [each["message"] for each in json.loads(body)],
        "dd-api-key",
    ),
}


def line_of(text):
    """Return a batch of one line."""
    element = {"time": TIME, "type": "function", "record": text}
    return records.parse(json.dumps([element]))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(queue, "jitter", lambda _: 0.0)


@pytest.fixture(name="receiver")
def _receiver():
    with Wire(lambda request: response(200, b"{}")) as wire:
        yield wire


@pytest.fixture(name="made", params=[*MAKERS])
def _made(request, receiver):
    """A destination of each kind, with a key, and the messages that it sent."""
    make, read, header = MAKERS[request.param]

    class Made:
        key = Key("SECRET-1", "SECRET-2")
        destination = make(receiver.url, key)

        def messages(self):
            return [read(body_of(each)) for each in receiver.requests]

        def keys(self):
            return [
                each.headers[header].rpartition(" ")[2] for each in receiver.requests
            ]

    made = Made()
    yield made
    made.destination.close()


@pytest.mark.parametrize("name", [*MAKERS])
def test_one_that_is_dropped_closes_its_connections(receiver, name):
    """It is not part of a cycle: its connections end with the last reference."""
    make, _, _ = MAKERS[name]
    destination = make(receiver.url, "KEY-0123456789")
    destination.accept_logs([entry("a")])
    drained(destination)
    (idle,) = destination._receiver._connections._idle
    sock = idle._sock
    del idle
    process.reset()  # the phases have it, too
    gc.disable()
    try:
        del destination
        closed = sock.fileno()
    finally:
        gc.enable()

    assert -1 == closed


class TestEach:
    """What holds for every destination over HTTP."""

    def test_everything_arrives_in_order(self, made, receiver):
        """Entries leave with a drain, not before, in the order of their coming."""
        made.destination.accept_logs([entry("a"), entry("b")])
        made.destination.accept_logs([entry("c")])
        before = receiver.connections

        assert ((3, {}, 0), 0) == (drained(made.destination), before)
        assert [["a", "b"], ["c"]] == made.messages()
        assert 1 == receiver.connections

    @FAILED
    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_passing_status_is_tried_again(self, made, receiver, status):
        """The same body is sent again, once."""
        receiver.faults += [failing(status), whole]
        made.destination.accept_logs([entry("a")])

        assert (1, {}, 0) == drained(made.destination)
        assert [["a"], ["a"]] == made.messages()

    @FAILED
    @pytest.mark.parametrize("fault", [reset, vanish])
    def test_broken_connection_is_tried_again(self, made, receiver, fault):
        """A connection that dies costs an attempt."""
        receiver.faults += [fault]
        made.destination.accept_logs([entry("a")])

        assert (1, {}, 0) == drained(made.destination)

    def test_kept_connection_that_died_costs_nothing(self, made, receiver):
        """A connection that was closed while idle is replaced silently."""
        receiver.faults += [stale]
        for message in "ab":
            made.destination.accept_logs([entry(message)])
            drained(made.destination)

        assert (2, "") == (made.destination.sent, made.destination.error)

    @FAILED
    def test_receiver_that_hangs_is_left_at_the_deadline(self, made, receiver):
        """What could not be sent is kept, and sent by the next drain."""
        receiver.faults += [silent]
        made.destination._receiver._timeout = 1.0
        made.destination.accept_logs([entry("a")])

        assert (0, {}, 1) == drained(made.destination, 0.2)
        assert (1, {}, 0) == drained(made.destination)

    @FAILED
    def test_retry_after_is_obeyed(self, made, receiver, time, monkeypatch):
        """No attempt earlier than the receiver asked for; nor is it due."""
        monkeypatch.setattr(queue, "sleep", time.advance)
        receiver.faults += [failing(429, Retry_After="20")]
        made.destination.accept_logs([entry("a")])

        assert (0, {}, 1) == drained(made.destination, 10)
        assert not made.destination.is_due()
        time.advance(20)
        assert made.destination.is_due()
        assert (1, {}, 0) == drained(made.destination, 10)

    @FAILED
    @pytest.mark.parametrize("asked", [None, "20"])
    def test_end_makes_no_pause_of_its_own(
        self, made, receiver, time, monkeypatch, asked
    ):
        """At SIGTERM a failure is tried again at once, unless the receiver asked."""
        monkeypatch.setattr(queue, "jitter", lambda _: 20.0)
        receiver.faults += [failing(503, Retry_After=asked)]
        made.destination.accept_logs([entry("a")])
        early = drained(made.destination, 10)
        made.destination.end()

        expected = (1, {}, 0) if asked is None else (0, {}, 1)
        assert ((0, {}, 1), expected) == (early, drained(made.destination, 10))

    @FAILED
    @pytest.mark.parametrize("status", [400, 404, 413])
    def test_other_status_drops_and_counts(self, made, receiver, status):
        """What does not pass is counted by status, and sent once."""
        receiver.faults += [failing(status)]
        made.destination.accept_logs([entry("a"), entry("b")])

        assert (0, {f"HTTP {status}": 2}, 0) == drained(made.destination)
        assert 1 == len(receiver.requests)

    @pytest.mark.parametrize("status", [401, 403])
    def test_rotated_key_is_read_anew(self, made, receiver, status):
        """After a refusal the key is read again, and everything sent again, at once."""
        receiver.answer = lambda request: response(
            200 if "SECRET-2" in str(request.headers) else status, b"{}"
        )
        made.destination.accept_logs([entry("a")])

        assert (1, {}, 0) == drained(made.destination)
        assert ["SECRET-1", "SECRET-2"] == made.keys()

    @FAILED
    def test_wrong_key_is_asked_for_twice_and_no_more(self, made, receiver):
        """A key that stays wrong drops what was sent after the second refusal."""
        receiver.answer = lambda request: response(403, b"{}")
        made.destination.accept_logs([entry("a")])

        assert (0, {"HTTP 403": 1}, 0) == drained(made.destination)
        assert 2 == len(receiver.requests)

    @FAILED
    def test_key_is_shown_nowhere(self, made, receiver, caplog):
        """Neither a repr, nor an error, nor a log line has it."""
        receiver.answer = lambda request: response(403, b"SECRET-1 is wrong")
        made.destination.accept_logs([entry("a")])
        drained(made.destination)
        made.key.values = ["SECRET\r\nx: y"]
        made.destination.accept_logs([entry("b")])
        drained(made.destination)

        shown = f"{made.destination!r} {made.destination.error} {caplog.text}"
        assert "SECRET" not in shown

    def test_queue_is_bounded(self, made, monkeypatch):
        """The oldest requests are dropped, and their records counted."""
        monkeypatch.setattr(made.destination._delivery, "_max_items", 2)
        for message in "abcd":
            made.destination.accept_logs([entry(message), entry(message)])

        assert (4, {"queue_full": 4}, 0) == drained(made.destination)
        assert [["c", "c"], ["d", "d"]] == made.messages()

    def test_records_and_bytes_of_a_request_are_bounded(self, made):
        """Many entries become several requests, and all arrive."""
        many = [entry(f"{number}") for number in range(2_500)]
        made.destination.accept_logs(many)
        large = [entry("x" * 400_000) for _ in range(12)]
        made.destination.accept_logs(large)

        sent, dropped, pending = drained(made.destination)
        assert 0 == pending
        assert 2_512 == sent + sum(dropped.values())
        sizes = [len(each) for each in made.messages()]
        assert max(sizes) <= 1_000

    def test_record_that_is_too_large_is_counted(self, made):
        """One that no request can hold is dropped, the others are sent."""
        made.destination.accept_logs([entry("a"), entry("x" * 5_000_000), entry("b")])

        assert (2, {"too_large": 1}, 0) == drained(made.destination)
        assert [["a", "b"]] == made.messages()

    def test_odd_lines_lose_no_other(self, made, receiver):
        """NaN, deep nesting and objects of no type of JSON's: each is sent somehow."""
        deep = {"message": "deep"}
        for _ in range(400):
            deep = {"message": "deep", "inner": deep}
        odd = entry("odd")
        odd.say({"message": "odd", "set": {1}, "class": object, "nan": float("nan")})
        made.destination.accept_logs([entry(deep), odd, entry("b")])

        assert (3, {}, 0) == drained(made.destination)
        body = body_of(receiver.requests[0])
        assert b'"nan":"nan"' in body
        assert b'"set":[1]' in body
        assert b"deep" in body

    @FAILED
    def test_line_that_cannot_be_encoded_is_counted(self, made):
        """What was not foreseen costs that line, and not its neighbours."""
        bad = entry("bad")
        bad.timestamp = None
        made.destination.accept_logs([entry("a"), bad, entry("b")])
        sent, dropped, pending = drained(made.destination)

        assert (3, 0) == (sent + sum(dropped.values()), pending)
        assert {"a", "b"} <= {message for call in made.messages() for message in call}

    def test_lone_surrogates_are_sent(self, made):
        """Text that has no UTF-8 does not stop the others."""
        made.destination.accept_logs([entry("a\ud800"), entry("b")])

        assert (2, {}, 0) == drained(made.destination)

    def test_child_sends_nothing_of_its_parents(self, made, receiver):
        """What waits in a forked child is the parent's to send."""
        made.destination.accept_logs([entry("a")])

        assert in_child(lambda: (0, {}, 0) == drained(made.destination))
        assert [] == receiver.requests

    def test_child_has_connections_of_its_own(self, made, receiver):
        """What parent and child send does not meet on one connection."""
        made.destination.accept_logs([entry("parent")])
        drained(made.destination)

        def child():
            made.destination.accept_logs([entry("child")])
            return drained(made.destination)[2] == 0

        assert in_child(child)
        made.destination.accept_logs([entry("again")])
        drained(made.destination)

        assert [["parent"], ["child"], ["again"]] == made.messages()
        assert [1, 2, 1] == [request.connection for request in receiver.requests]

    def test_child_counts_from_zero(self, made):
        """What the parent has sent is no number of its child's."""
        made.destination.accept_logs([entry("parent")])
        drained(made.destination)

        def child():
            assert (0, {}, 0) == drained(made.destination)
            made.destination.accept_logs([entry("child")])
            return (1, {}, 0) == drained(made.destination)

        assert in_child(child)
        assert (1, {}, 0) == drained(made.destination)

    def test_snapshot_and_restore(self, made, receiver):
        """Connections are closed before a snapshot; what waits is sent after it."""
        made.destination.accept_logs([entry("a")])
        drained(made.destination)
        phases.call(phases.SNAPSHOT)
        phases.call(phases.RESTORE)
        made.destination.accept_logs([entry("b")])

        assert (2, {}, 0) == drained(made.destination)
        assert 2 == receiver.connections


@pytest.mark.parametrize("make", [destinations.datadog, destinations.splunk_hec])
class TestHost:
    """What tells one execution environment's logs from those of another."""

    @staticmethod
    def host(destination):
        """Return the host of what *destination* sends now."""
        found = json.loads(destination.encode(entry("x")))
        return found.get("hostname") or found["host"]

    @pytest.fixture(name="destination")
    def _destination(self, make, monkeypatch):
        monkeypatch.delenv("AWS_LAMBDA_LOG_STREAM_NAME", raising=False)
        if make is destinations.datadog:
            return make("KEY-0123456789")
        return make("https://x.example", "TOKEN-0123456789")

    def test_is_another_one_after_each_restore(self, destination):
        """Environments that are restored from one snapshot have hosts of their own."""
        found = [self.host(destination)]
        for _ in range(2):
            phases.call(phases.SNAPSHOT)
            phases.call(phases.RESTORE)
            found.append(self.host(destination))

        assert 3 == len({*found})

    def test_is_another_one_in_a_child(self, destination):
        """A process that is forked has a host of its own."""
        before = self.host(destination)

        assert in_child(lambda: before != self.host(destination))


@pytest.mark.logs
class TestMuchAtOnce:
    """More than the queue of a destination holds, all of which its receiver takes."""

    @pytest.mark.parametrize("length", [10, 9_000])
    @pytest.mark.parametrize("options", [{}, {"max_bytes": 4 * 1024 * 1024}])
    def test_all_of_it_arrives(self, made, length, options):
        """What waits is handed over as the destination has room for it."""
        route = telemetry.route().to(made.destination, max_age=1e9, **options)
        route.outlet._not_before = 1e18  # it is paused until all waits
        for start in range(0, 20_000, 1_000):
            element = {"time": TIME, "type": "function", "record": "ж" * length}
            body = json.dumps([element] * 1_000) if start * length < 4e6 else "[]"
            route(records.parse(body))
        waiting = route.waiting
        route.outlet._not_before = 0.0
        done = telemetry.flush(60)
        status = route.status()

        assert waiting >= 400
        assert (True, waiting, {}, 0) == (
            done,
            status.sent,
            status.lost,
            status.pending,
        )

    @FAILED
    def test_what_finds_no_room_stays_with_the_route(self, made, receiver, monkeypatch):
        """While a receiver fails, nothing is dropped that the route has room for."""
        receiver.fault = failing(503)
        monkeypatch.setattr(made.destination._delivery, "_max_bytes", 4_000)
        route = telemetry.route().to(made.destination, max_age=1e9, max_records=1)
        for number in range(50):
            route(line_of(f"{number}"))
        telemetry.flush(30)
        before = route.status()
        receiver.fault = whole
        route.outlet._not_before = 0.0
        telemetry.flush(30)

        assert ({}, {}) == (before.dropped, before.lost)
        assert 50 == before.waiting + before.pending
        assert 50 == route.status().sent
        assert [f"{n}" for n in range(50)] == [m for c in made.messages() for m in c][
            -50:
        ]

    @FAILED
    def test_end_asks_a_full_destination_a_few_times(self, made, receiver, monkeypatch):
        """A receiver that fails is not asked again and again for the whole share."""
        receiver.fault = failing(503)
        monkeypatch.setattr(made.destination._delivery, "_max_bytes", 4_000)
        route = telemetry.route().to(made.destination, max_age=1e9, max_records=1)
        for number in range(50):
            route(line_of(f"{number}"))
        telemetry.flush(30)
        before = len(receiver.requests)
        simulate_sigterm(2.0)

        assert 0 < len(receiver.requests) - before <= 3 * queue.ATTEMPTS
        assert 50 == route.status().waiting + route.status().pending


class TestQuery:
    """Addresses with a query, which stays at the end."""

    @pytest.mark.parametrize(
        ("make", "path"),
        [
            (lambda url: destinations.collector(url), "/v1/logs"),
            (lambda url: destinations.sumo_logic(url), "/v1/logs"),
            (lambda url: destinations.sumo_logic(lambda: url), "/v1/logs"),
            (
                lambda url: destinations.splunk_hec(url, "TOKEN-0123"),
                "/services/collector/event",
            ),
            (
                lambda url: destinations.splunk_hec(lambda: url, "TOKEN-0123"),
                "/services/collector/event",
            ),
        ],
    )
    @pytest.mark.parametrize("completed", [False, True])
    def test_path_comes_before_it(self, receiver, make, path, completed):
        """ "?channel=1" is no part of the path, which is completed before it."""
        made = make(f"{receiver.url}{path if completed else '/'}?channel=1")
        made.accept_logs([entry("a")])
        told = drained(made)
        made.close()

        assert (1, {}, 0) == told
        assert f"{path}?channel=1" == receiver.requests[0].target


class TestRefusals:
    """What a refused destination shows."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda key: destinations.splunk_hec("http://other.example", key),
            lambda key: destinations.datadog(key, site="x@evil"),
            lambda key: destinations.new_relic(key, region="mars"),
            lambda key: destinations.http("nonsense", headers={"x-key": key}),
            lambda key: destinations.otlp("nonsense", headers={"x-key": key}),
            lambda key: destinations.spans("nonsense", headers={"x-key": key}),
            lambda key: destinations.collector("nonsense", headers={"x-key": key}),
            lambda key: destinations.sumo_logic("nonsense/" + key),
        ],
    )
    def test_no_key_stands_in_its_frames(self, make):
        """Tools that print the variables of a traceback find no key of ours."""
        with pytest.raises(ConfigurationError) as refused:
            make("SECRET-0123")
        step = refused.value.__traceback__
        shown = [str(refused.value)]
        while step is not None:
            if "lambda_ext" in step.tb_frame.f_globals["__name__"]:
                shown.append(repr(step.tb_frame.f_locals))
            step = step.tb_next

        assert len(shown) > 1
        assert "SECRET" not in "".join(shown)


class TestSecretAsKey:
    """A `Secret` of this library's as the key."""

    @FAILED
    def test_is_loaded_late_renewed_and_kept_out(self, receiver):
        """Read with the first request, anew after a 403, and taken out of lines."""
        receiver.answer = lambda request: response(
            200 if "token-number-2" in request.headers["authorization"] else 403
        )
        with FakeSource({"splunk/hec": "token-number-1"}) as source:
            made = destinations.splunk_hec(receiver.url, Secret("splunk/hec"))
            route = telemetry.route().to(made, max_age=0)
            loads = [*source.calls]
            route(line_of("it is token-number-1"))
            telemetry.flush(30)
            refused = made.dropped
            source.rotate("splunk/hec", "token-number-2")
            route(line_of("or token-number-2"))
            telemetry.flush(30)
            route(line_of("and token-number-2"))
            telemetry.flush(30)

        sent = [
            event["event"]
            for request in receiver.requests
            for event in concatenated(request.body.decode())
        ]
        assert [] == loads
        assert {"HTTP 403": 1} == refused
        assert "and [secret splunk/hec]" == sent[-1]
        assert 2 == made.sent


class TestInTheClear:
    """Plain HTTP goes to this machine only."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda url: destinations.http(url),
            lambda url: destinations.splunk_hec(url, "token-0123"),
            lambda url: DatadogLogs("key-0123", url=url),
            lambda url: destinations.otlp(url),
            lambda url: destinations.spans(url),
            lambda url: destinations.collector(url, headers={"api-key": "x"}),
        ],
    )
    def test_is_refused(self, make):
        """The message says what to use, and shows no key."""
        with pytest.raises(ConfigurationError, match="https") as refused:
            make("http://logs.internal:8088")
        assert "0123" not in str(refused.value)

    def test_collector_without_a_key_may(self):
        """A collector in a VPC may be reached without TLS."""
        assert "collector" == destinations.collector("http://logs.internal:4318").name


class TestMissingKey:
    """What os.environ.get() returns for a variable that is not set is no key."""

    @pytest.mark.parametrize("key", [None, 5, b"key-0123", object()])
    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (destinations.http, "the address of the sink 'http'"),
            (destinations.sumo_logic, "the address of the sink 'sumo_logic'"),
            (destinations.new_relic, "the header 'api-key' of the sink 'new_relic'"),
            (destinations.datadog, "the header 'dd-api-key' of the sink 'datadog'"),
            (
                lambda key: destinations.splunk_hec("https://x.example", key),
                "the header 'authorization' of the sink 'splunk_hec'",
            ),
            (
                lambda key: destinations.splunk_hec(key, "key-4567"),
                "the address of the sink 'splunk_hec'",
            ),
        ],
    )
    def test_is_refused_at_once(self, make, says, key):
        """In INIT, not with the first record; the message quotes nothing."""
        with pytest.raises(ConfigurationError, match=says) as refused:
            make(key)
        assert "0123" not in str(refused.value)
        assert "4567" not in str(refused.value)

    @pytest.mark.parametrize("key", ["key-0123\n", "key\r\n-0123", "key-0123 \u20ac"])
    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (destinations.new_relic, "the header 'api-key'"),
            (destinations.datadog, "the header 'dd-api-key'"),
            (
                lambda key: destinations.splunk_hec("https://x.example", key),
                "the header 'authorization'",
            ),
        ],
    )
    def test_text_that_is_no_header_is_refused_at_once(self, make, says, key):
        """A key out of a file ends in a newline, say; the message quotes nothing."""
        with pytest.raises(ConfigurationError, match=says) as refused:
            make(key)
        assert "0123" not in str(refused.value)

    def test_whatever_has_a_value_is_read_later(self):
        """A Secret is not read before it is needed; a function is not called."""
        with FakeSource() as source:
            destinations.datadog(Secret("datadog/key"))
            destinations.http("https://x.example", headers={"k": lambda: 1 / 0})

        assert [] == source.calls


class TestHttp:
    """Lines of JSON."""

    @pytest.mark.parametrize("name", ["content-type", "Content-Type"])
    @pytest.mark.parametrize("late", [False, True])
    def test_type_of_the_users_is_kept(self, receiver, name, late):
        """A receiver that takes no "application/x-ndjson" is told what it takes."""
        given = "application/json; charset=utf-8"
        made = destinations.http(
            receiver.url, headers={name: (lambda: given) if late else given}
        )
        made.accept_logs([entry("a")])

        assert (1, {}, 0) == drained(made)
        assert given == receiver.requests[0].headers["content-type"]

    def test_line_says_what_is_known(self, receiver):
        """Time, type, level, invocation and trace; a message or an object."""
        made = destinations.http(receiver.url + "/in?x=1", compression="gzip")
        report = {"requestId": "r-2", "metrics": {"durationMs": 1.5}}
        made.accept_logs(
            [
                entry("hello"),
                entry(
                    {"level": "WARN", "message": "m", "n": 1},
                    request_id="r-1",
                    trace=TRACE,
                ),
                entry(report, "platform.report"),
                entry("x" * 1000),
            ]
        )
        drained(made)

        (request,) = receiver.requests
        lines = [json.loads(each) for each in body_of(request).splitlines()]
        assert ("/in?x=1", "application/x-ndjson", "gzip") == (
            request.target,
            request.headers["content-type"],
            request.headers["content-encoding"],
        )
        assert [
            {"time": TIME, "type": "function", "message": "hello"},
            {
                "time": TIME, "type": "function", "level": "WARN", "requestId": "r-1",
                "traceId": TRACE_ID,
                "record": {"level": "WARN", "message": "m", "n": 1},
            },
            {"time": TIME, "type": "platform.report", "requestId": "r-2", "record": report},
        ] == lines[:3]  # fmt: skip

    def test_address_may_be_a_secret(self, receiver):
        """An address that is a key itself is read when it is needed."""
        made = destinations.http(Key(receiver.url + "/SECRET"))
        made.accept_logs([entry()])

        assert (1, {}, 0) == drained(made)
        assert "/SECRET" == receiver.requests[0].target
        assert "SECRET" not in repr(made)

    @FAILED
    def test_timeout_bounds_one_request(self, receiver):
        """A request ends after *timeout* although the drain may last longer."""
        receiver.faults += [late(20)]
        made = destinations.http(receiver.url, timeout=0.5)
        made.accept_logs([entry()])

        assert (1, {}, 0) == drained(made)

    @pytest.mark.parametrize(
        "options",
        [
            {"compression": "zstd"},
            {"timeout": 0},
            {"timeout": "5"},
            {"headers": {"a b": "c"}},
            {"headers": {"a": 5}},
            {"headers": ["a"]},
        ],
    )
    def test_what_cannot_be_used_is_refused(self, options):
        """The message names the argument, or the header."""
        with pytest.raises(ConfigurationError):
            destinations.http("https://x.example", **options)

    def test_what_is_no_address_is_refused_unquoted(self):
        """A URL may be a key: it is not shown."""
        with pytest.raises(ConfigurationError) as refused:
            destinations.http("SECRET")
        assert "SECRET" not in str(refused.value)


class TestSplunkHec:
    """Splunk's HTTP Event Collector."""

    @pytest.mark.parametrize(
        "path", ["", "/", "/services/collector", "/services/collector/event"]
    )
    def test_address_is_completed(self, receiver, path):
        """With or without its path, given as text or as a secret."""
        for url in (receiver.url + path, Key(receiver.url + path)):
            made = destinations.splunk_hec(url, "token-0123")
            made.accept_logs([entry()])
            drained(made)

        assert ["/services/collector/event"] * 2 == [
            r.target for r in receiver.requests
        ]

    def test_event_has_what_splunk_indexes(self, receiver, monkeypatch):
        """Time in seconds, host, source, source type, index, and fields."""
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
        monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        made = destinations.splunk_hec(receiver.url, Key("T"), index="main")
        made.accept_logs(
            [
                entry({"level": "ERROR", "message": "m"}, request_id="r", trace=TRACE),
                entry(""),
            ]
        )
        drained(made)

        (request,) = receiver.requests
        first, second = concatenated(request.body.decode())
        assert "Splunk T" == request.headers["authorization"]
        assert {
            "time": SECONDS, "host": "stream", "source": "lambda:orders",
            "sourcetype": "_json", "index": "main",
            "event": {"level": "ERROR", "message": "m"},
            "fields": {
                "type": "function", "level": "ERROR", "requestId": "r",
                "traceId": TRACE_ID,
            },
        } == first  # fmt: skip
        assert "(empty)" == second["event"]

    def test_bad_options_are_refused(self):
        """A name of Splunk's is text."""
        with pytest.raises(ConfigurationError, match="index"):
            destinations.splunk_hec("https://x.example", "t", index=3)


class TestDatadog:
    """Datadog's logs intake."""

    @pytest.mark.parametrize(
        "site", ["datadoghq.com", "datadoghq.eu", "us5.datadoghq.com"]
    )
    def test_address_is_the_sites(self, site):
        """Each site has an address of its own."""
        made = destinations.datadog("key-0123", site=site)

        assert f"https://http-intake.logs.{site}/api/v2/logs" == made._receiver._url

    def test_log_has_what_datadog_reads(self, receiver, monkeypatch):
        """Reserved attributes are the library's, the rest is the line's own."""
        monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        made = DatadogLogs(
            "key-0123", url=receiver.url, service="shop", tags=["env:prod", "team:a"]
        )
        body = {
            "level": "WARN",
            "message": "m",
            "order": 7,
            "service": "x",
            "status": 3,
        }
        made.accept_logs([entry(body, request_id="r", trace=TRACE), entry("hi")])
        drained(made)

        first, second = json.loads(body_of(receiver.requests[0]))
        assert {
            "ddsource": "lambda", "ddtags": "env:prod,team:a", "hostname": "stream",
            "service": "shop", "message": "m", "timestamp": 1767323045678,
            "status": "warn", "level": "WARN", "order": 7,
            "lambda": {"type": "function", "request_id": "r", "trace_id": TRACE_ID},
        } == first  # fmt: skip
        assert ("hi", "info") == (second["message"], second["status"])

    @FAILED
    @pytest.mark.parametrize("status", [408, 500])
    def test_what_datadog_wants_again_is_sent_again(self, receiver, status):
        """Its documentation names more statuses than OTLP's."""
        receiver.faults += [failing(status)]
        made = DatadogLogs("key-0123", url=receiver.url)
        made.accept_logs([entry()])

        assert (1, {}, 0) == drained(made)

    @pytest.mark.parametrize(
        "options",
        [{"site": "x@evil"}, {"site": ""}, {"tags": "env:prod"}, {"tags": ["a,b"]}],
    )
    def test_bad_options_are_refused(self, options):
        """A site is part of a host name, and tags are several texts."""
        with pytest.raises(ConfigurationError):
            destinations.datadog("key", **options)


class TestFunction:
    """A function as a destination."""

    def test_gets_a_list_of_entries(self):
        """Each call has what was accepted at once, in order."""
        seen = []
        made = FunctionDestination(seen.append)
        made.accept_logs([entry("a"), entry("b")])
        made.accept_logs([entry("c")])

        assert (3, {}, 0) == drained(made)
        assert [["a", "b"], ["c"]] == [[each.message for each in call] for call in seen]

    @FAILED
    def test_network_error_is_tried_again(self):
        """OSError, ConnectionError and TimeoutError mean: later."""
        raised = [TimeoutError(), ConnectionResetError()]
        seen = []

        def function(entries):
            if raised:
                raise raised.pop()
            seen.extend(each.message for each in entries)

        made = FunctionDestination(function)
        made.accept_logs([entry("a")])

        assert ((1, {}, 0), ["a"]) == (drained(made), seen)

    @FAILED
    @pytest.mark.parametrize(
        "raised", [ValueError("SECRET"), SystemExit(3), KeyboardInterrupt()]
    )
    def test_any_other_error_drops(self, raised, caplog):
        """It is counted by class and place, and quoted nowhere."""

        def function(entries):
            raise raised

        made = FunctionDestination(function)
        made.accept_logs([entry("a"), entry("b")])
        sent, dropped, pending = drained(made)

        ((reason, count),) = dropped.items()
        assert (0, 2, 0) == (sent, count, pending)
        assert reason.startswith(type(raised).__name__)
        assert "SECRET" not in reason + caplog.text

    @FAILED
    def test_coroutine_is_refused(self):
        """A function that turns out to be asynchronous loses nothing silently."""

        async def later():
            pass

        made = FunctionDestination(lambda entries: later())
        made.accept_logs([entry("a")])

        assert (0, 0) == (drained(made)[0], drained(made)[2])
        assert "coroutine" in made.error

    def test_is_called_by_one_thread_at_a_time(self):
        """Two drains at once do not call it twice with the same entries."""
        seen, gate = [], threading.Event()

        def function(entries):
            gate.wait(0.05)
            seen.extend(each.message for each in entries)

        made = FunctionDestination(function)
        made.accept_logs([entry("a")])
        threads = [threading.Thread(target=drained, args=(made,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ["a"] == seen
