"""The OTLP sink at a receiver that behaves, and at one that does not."""

from __future__ import annotations

import gzip
import json
import os
import ssl
import threading

import collector
import pytest
from helpers import in_child
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from wire import (
    Wire,
    authority,
    cut,
    failing,
    instead,
    late,
    redirecting,
    reset,
    response,
    silent,
    stale,
    vanish,
    whole,
)

from lambda_ext.aws import credentials, signing
from lambda_ext.delivery import otlp_common
from lambda_ext.delivery import queue as delivery
from lambda_ext.exceptions import AccessDeniedError, ConfigurationError
from lambda_ext.lifecycle import clock, phases, process
from lambda_ext.metrics import otlp
from lambda_ext.metrics.otlp import OtlpSink
from lambda_ext.telemetry import destinations
from lambda_ext.testing import FakeClock

FAILED = pytest.mark.logs  # a failure is logged once a reason


class Point:
    """A point as a flush hands it over."""

    def __init__(self, name="orders", values=(1,), kind="count", dimensions=()):
        self.kind = kind
        self.name = name
        self.values = [*values]
        self.unit = "Count"
        self.dimensions = dimensions
        self.samples = len(self.values)


class Batch:
    """A batch as a flush hands it over."""

    def __init__(self, *points, namespace="Shop", at=None):
        self.namespace = namespace
        self.at = clock.wall() if at is None else at
        self.points = points or (Point(),)


class Key:
    """A secret whose value changes when it is read anew."""

    def __init__(self, *values):
        self.values = [*values]
        self.reads = 0

    @property
    def value(self):
        self.reads += 1
        if isinstance(self.values[0], Exception):
            raise self.values[0]
        return self.values[0]

    def invalidate(self):
        if len(self.values) > 1:
            del self.values[0]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    process.reset()
    monkeypatch.setattr(delivery, "jitter", lambda _: 0.0)


@pytest.fixture(name="receiver")
def _receiver():
    with Wire(lambda request: response(200, b"")) as wire:
        yield wire


def sink_at(receiver, path="/v1/metrics", **options):
    """Return a sink that sends to *receiver*."""
    return OtlpSink(receiver.url + path, **options)


def drained(sink, seconds=30.0):
    """Drain *sink* and return what it says of itself."""
    sink.drain(clock.monotonic() + seconds)
    return sink.sent, sink.dropped, sink.pending


def asked(sink):
    """Drain *sink* until a whole request of its is out; return what it says of itself."""
    seconds = 0.1
    while sink._receiver._asked is None:
        found = drained(sink, seconds)
        seconds *= 2  # a machine that is busy does not connect in so short a time
    return found


def decoded(request):
    """Return what a receiver reads out of *request*."""
    body = request.body
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return ExportMetricsServiceRequest.FromString(body)


def points(request):
    """Return (name, value) of each point of *request*."""
    return [
        (metric.name, point.as_int)
        for resource in decoded(request).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.sum.data_points
    ]


class TestRequest:
    """What is sent."""

    def test_is_what_was_recorded(self, receiver):
        """A receiver decodes the points, the namespace and the resource."""
        sink = sink_at(receiver)
        sink.accept(Batch(Point(values=(3,), dimensions=(("shop", "web"),))))

        assert (1, {}, 0) == drained(sink)
        (request,) = receiver.requests
        (resource,) = decoded(request).resource_metrics
        keys = {pair.key for pair in resource.resource.attributes}
        assert ("POST", "/v1/metrics") == (request.method, request.target)
        assert "application/x-protobuf" == request.headers["content-type"]
        assert {"service.name", "faas.instance"} <= keys
        assert "Shop" == resource.scope_metrics[0].scope.name
        assert [("orders", 3)] == points(request)

    def test_nothing_is_sent_before_a_drain(self, receiver):
        """Accepting a batch opens no connection."""
        sink = sink_at(receiver)
        sink.accept(Batch())

        assert (0, 1) == (receiver.connections, sink.pending)

    def test_intervals_follow_one_another(self, receiver):
        """A delta begins where the one before it ended."""
        with FakeClock(wall=1000.0) as fake:
            sink = sink_at(receiver)
            sink.accept(Batch(at=1000.0))
            drained(sink)
            fake.advance(10)
            sink.accept(Batch(at=1010.0))
            drained(sink)

        first, second = (
            decoded(request)
            .resource_metrics[0]
            .scope_metrics[0]
            .metrics[0]
            .sum.data_points[0]
            for request in receiver.requests
        )
        assert first.start_time_unix_nano <= first.time_unix_nano
        assert first.time_unix_nano == second.start_time_unix_nano
        assert 1010 * 10**9 == second.time_unix_nano

    def test_times_of_the_users_own_move_no_interval(self, receiver):
        """What happened yesterday, or will, begins and ends apart from the rest."""
        with FakeClock(wall=1_000_000.0) as fake:
            sink = sink_at(receiver)
            for at in (1_000_000.0, 900_000.0, 1_003_600.0, 1_000_000.0, 1_000_010.0):
                if at == 1_000_010.0:
                    fake.advance(10)
                sink.accept(Batch(at=at))
                drained(sink)
        found = [
            (point.start_time_unix_nano, point.time_unix_nano)
            for request in receiver.requests
            for resource in decoded(request).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.sum.data_points
        ]
        begin, flush = 999_999 * 10**9, 1_000_000 * 10**9

        assert [
            (begin, flush),
            (900_000 * 10**9 - 1, 900_000 * 10**9),
            (1_003_600 * 10**9 - 1, 1_003_600 * 10**9),
            (begin, flush),  # more of the same flush
            (flush, 1_000_010 * 10**9),
        ] == found

    def test_large_one_is_compressed(self, receiver):
        """Beyond a kilobyte a request is gzip, unless that is turned off."""
        many = [Point(f"m{number}") for number in range(100)]
        for compression in ("gzip", "none"):
            sink = sink_at(receiver, compression=compression)
            sink.accept(Batch(*many))
            drained(sink)

        first, second = receiver.requests
        assert "gzip" == first.headers["content-encoding"]
        assert "content-encoding" not in second.headers
        assert points(first) == points(second)

    def test_many_points_are_divided(self, receiver):
        """No request has more than 1,000 points, and none is lost."""
        sink = sink_at(receiver)
        sink.accept(Batch(*[Point(f"m{number}") for number in range(2500)]))

        assert (2500, {}, 0) == drained(sink)
        assert [1000, 1000, 500] == [len(points(each)) for each in receiver.requests]

    def test_bytes_are_bounded(self, receiver):
        """Points with long dimensions are divided by their size."""
        dimensions = tuple((f"d{number}", "x" * 1000) for number in range(9))
        sink = sink_at(receiver, compression="none")
        sink.accept(Batch(*[Point(f"m{n}", dimensions=dimensions) for n in range(200)]))
        drained(sink)

        assert 200 == sum(len(points(each)) for each in receiver.requests)
        assert max(len(each.body) for each in receiver.requests) <= 500_000

    def test_estimate_covers_what_is_sent(self, receiver):
        """The size by which a batch is queued is not below its encoding."""
        sink = sink_at(receiver, compression="none")
        batch = Batch(
            *[Point(f"d{n}", [1.0, 2.0], "distribution") for n in range(100)],
            *[Point(f"c{n}", dimensions=(("a", "b" * n),)) for n in range(100)],
        )
        sink.accept(batch)
        queued = sink._delivery.bytes
        drained(sink)

        assert sum(len(each.body) for each in receiver.requests) <= queued + 1000

    def test_json_on_request(self, receiver):
        """protocol="http/json" sends the same in OTLP's JSON."""
        sink = sink_at(receiver, protocol="http/json")
        sink.accept(Batch())
        drained(sink)

        (request,) = receiver.requests
        tree = json.loads(request.body)
        metric = tree["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
        assert "application/json" == request.headers["content-type"]
        assert "1" == metric["sum"]["dataPoints"][0]["asInt"]

    def test_batch_that_comes_twice_is_sent_once(self, receiver):
        """A batch offered again, after a signal handler raised, is known already."""
        sink = sink_at(receiver)
        batch = Batch()
        sink.accept(batch)
        sink.accept(batch)

        assert (1, {}, 0) == drained(sink)

    def test_flushes_are_added_up_before_they_are_sent(self, receiver):
        """One point of a series: of two in one second some receivers keep the last."""
        with FakeClock(wall=1_000_000.0) as fake:
            sink = sink_at(receiver)
            for number in range(100):
                fake.advance(0.25)
                sink.accept(
                    Batch(
                        Point("n", [number]),
                        Point("n", [1], dimensions=(("a", "b"),)),
                        Point("g", [number], "gauge"),
                        Point("d", [number, 1], "distribution"),
                    )
                )
            told = drained(sink)
        (request,) = receiver.requests
        found = {
            (name, collector.dimensions(point)): (
                collector.number(kind, point),
                getattr(point, "count", None),
                point.time_unix_nano,
            )
            for name, kind, point in collector.points([decoded(request)])
        }
        at = 1_000_025 * 10**9

        assert (500, {}, 0) == told
        assert {
            ("n", frozenset()): (4_950, None, at),
            ("n", frozenset({("a", "b")})): (100, None, at),
            ("g", frozenset()): (99, None, at),
            ("d", frozenset()): (5_050.0, 200, at),
        } == found

    def test_adding_up_changes_no_batch(self, receiver):
        """Other sinks have the same one."""
        sink = sink_at(receiver)
        batches = [Batch(Point("d", [n], "distribution")) for n in range(3)]
        for batch in batches:
            sink.accept(batch)
        drained(sink)

        assert [[0], [1], [2]] == [batch.points[0].values for batch in batches]

    def test_namespaces_and_long_times_stay_apart(self, receiver):
        """A point stands for a minute at most, and for one namespace."""
        with FakeClock(wall=1_000_000.0) as fake:
            sink = sink_at(receiver)
            for _ in range(5):
                fake.advance(25)
                sink.accept(Batch())
                sink.accept(Batch(namespace="Other"))
            drained(sink)
        found = [
            (
                message.resource_metrics[0].scope_metrics[0].scope.name,
                point.as_int,
                (point.time_unix_nano - point.start_time_unix_nano) // 10**9,
            )
            for message in map(decoded, receiver.requests)
            for _, _, point in collector.points([message])
        ]

        assert [
            ("Shop", 3, 51), ("Other", 3, 51), ("Shop", 2, 50), ("Other", 2, 50),
        ] == found  # fmt: skip

    @FAILED
    def test_what_was_tried_is_sent_again_as_it_was(self, receiver):
        """The receiver may have it: it is not mixed with what is new."""
        receiver.faults += [failing(503)] * delivery.ATTEMPTS
        sink = sink_at(receiver)
        for number in range(2):
            sink.accept(Batch(Point("a", [number])))
        drained(sink)
        for number in range(2, 4):
            sink.accept(Batch(Point("a", [number])))
        drained(sink)
        sent = [points(request) for request in receiver.requests]

        assert [[("a", 1)]] * (delivery.ATTEMPTS + 1) + [[("a", 5)]] == sent

    def test_times_of_the_users_own_share_requests(self, receiver):
        """Each keeps its time, and 1,500 of them are two requests, not 1,500."""
        sink = sink_at(receiver)
        with FakeClock(wall=1_000_000.0):
            for number in range(1500):
                sink.accept(Batch(Point("n", [number]), at=900_000.0 + number))
            told = drained(sink)
        found = [
            (point.as_int, point.time_unix_nano)
            for message in map(decoded, receiver.requests)
            for _, _, point in collector.points([message])
        ]

        assert (1500, {}, 0) == told
        assert [(n, (900_000 + n) * 10**9) for n in range(1500)] == found
        assert [1000, 500] == [
            len([*collector.points([decoded(request)])])
            for request in receiver.requests
        ]

    def test_times_of_one_second_are_one_point(self, receiver):
        """Of two points of a series in one second some receivers keep the last."""
        sink = sink_at(receiver)
        with FakeClock(wall=1_000_000.0):
            for number in range(8):
                at = 900_000.0 + number / 4
                sink.accept(
                    Batch(Point("n", [1]), Point("g", [number], "gauge"), at=at)
                )
            told = drained(sink)
        (request,) = receiver.requests
        found = [
            (name, collector.number(kind, point), point.time_unix_nano)
            for name, kind, point in collector.points([decoded(request)])
        ]

        assert (16, {}, 0) == told
        assert [
            ("n", 4, 900_000_750_000_000), ("g", 3, 900_000_750_000_000),
            ("n", 4, 900_001_750_000_000), ("g", 7, 900_001_750_000_000),
        ] == found  # fmt: skip
        assert 10**9 >= max(
            point.time_unix_nano - point.start_time_unix_nano
            for name, _, point in collector.points([decoded(request)])
            if name == "n"
        )

    def test_own_times_are_added_up_before_any_is_dropped(self, receiver):
        """5,000 batches within some seconds have room, though none was sent meanwhile."""
        sink = sink_at(receiver, every=3600)
        with FakeClock(wall=1_000_000.0):
            for number in range(5000):
                sink.accept(Batch(at=900_000.0 + number / 500))
            told = drained(sink)

        assert (5000, {}, 0) == told
        assert 5000 == sum(collector.sums(map(decoded, receiver.requests)).values())

    @FAILED
    @pytest.mark.parametrize("drains", [False, True])
    def test_values_count_as_bytes(self, drains):
        """What waits for a receiver that is gone has a bound, for each kind of metric."""
        with collector.closed_port() as port:
            sink = OtlpSink(f"http://127.0.0.1:{port}/v1/metrics")
            for _ in range(80):
                sink.accept(Batch(Point("d", range(5000), "distribution")))
                if drains:
                    drained(sink, 0.0)
        dropped = sink.dropped.get("queue_full", 0)

        assert 400_000 == sink.pending + dropped
        assert delivery.MAX_BYTES // 64 <= sink.pending <= delivery.MAX_BYTES // 16

    def test_connection_is_kept(self, receiver):
        """Two drains need one connection."""
        sink = sink_at(receiver)
        for _ in range(2):
            sink.accept(Batch())
            drained(sink)

        assert (2, 1) == (len(receiver.requests), receiver.connections)


class TestReceiver:
    """What a receiver answers, and what becomes of the batch."""

    @pytest.mark.parametrize(
        "answer", [response(200, b""), response(202, b""), response(204, b"")]
    )
    def test_success_is_any_2xx(self, receiver, answer):
        """An empty body and 202 are successes, as New Relic and Datadog have them."""
        receiver.answer = lambda request: answer
        sink = sink_at(receiver)
        sink.accept(Batch())

        assert (1, {}, 0) == drained(sink)

    @FAILED
    def test_partial_success_is_counted_and_not_repeated(self, receiver):
        """Refused points are dropped, and the batch is not sent again."""
        message = ExportMetricsServiceResponse()
        message.partial_success.rejected_data_points = 2
        message.partial_success.error_message = "bad"
        receiver.answer = lambda request: response(
            200, message.SerializeToString(), Content_Type="application/x-protobuf"
        )
        sink = sink_at(receiver)
        sink.accept(Batch(Point("a"), Point("b"), Point("c")))

        assert (1, {"refused": 2}, 0) == drained(sink)
        assert (1, "bad") == (len(receiver.requests), sink.error)

    @FAILED
    @pytest.mark.parametrize(
        ("told", "sent", "dropped"),
        [
            ("-3", 2, {}),
            ("1e999", 2, {}),
            ("NaN", 2, {}),
            ('"-1"', 2, {}),
            ('"99"', 0, {"refused": 2}),
            ("[1]", 2, {}),
            ('"9223372036854775808"', 0, {"refused": 2}),
        ],
    )
    @pytest.mark.parametrize("name", ["rejectedDataPoints", "rejectedSpans"])
    def test_numbers_of_a_receiver_are_not_believed(
        self, receiver, name, told, sent, dropped
    ):
        """Counts add up to what was recorded, for each answer."""
        body = f'{{"partialSuccess":{{"{name}":{told}}}}}'.encode()
        receiver.answer = lambda request: response(
            200, body, Content_Type="application/json"
        )
        sink = sink_at(receiver)
        sink.accept(Batch(Point("a"), Point("b")))

        assert (sent, dropped, 0) == drained(sink)

    @FAILED
    def test_negative_number_in_protobuf(self, receiver):
        """A varint of ten bytes is a negative number."""
        message = ExportMetricsServiceResponse()
        message.partial_success.rejected_data_points = -1
        receiver.answer = lambda request: response(200, message.SerializeToString())
        sink = sink_at(receiver)
        sink.accept(Batch(Point("a"), Point("b")))

        assert (2, {}, 0) == drained(sink)

    @FAILED
    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_passing_status_is_tried_again(self, receiver, status):
        """What the protocol calls retryable is sent again with its own times."""
        receiver.faults += [failing(status), whole]
        sink = sink_at(receiver)
        sink.accept(Batch(at=1000.0))

        assert (1, {}, 0) == drained(sink)
        first, second = receiver.requests
        assert first.body == second.body

    @FAILED
    @pytest.mark.parametrize(
        "headers",
        [
            {"Retry_After": "20"},
            {
                "Retry_After": "Wed, 21 Oct 2015 07:28:20 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            {"Retry_After": "Tue, 14 Nov 2023 22:13:40 GMT", "Date": "none"},
        ],
        ids=["seconds", "date", "date by our clock"],
    )
    def test_retry_after_is_obeyed(self, receiver, monkeypatch, headers):
        """No second attempt earlier than the receiver asks for."""
        with FakeClock(wall=1_700_000_000.0) as fake:
            monkeypatch.setattr(delivery, "sleep", fake.advance)
            receiver.faults += [failing(429, **headers)]
            sink = sink_at(receiver)
            sink.accept(Batch())

            assert (0, {}, 1) == drained(sink, 10)
            assert (0, {}, 1) == drained(sink, 10)
            assert 1 == len(receiver.requests)

            fake.advance(20)

            assert (1, {}, 0) == drained(sink, 10)

    @FAILED
    @pytest.mark.parametrize("status", [400, 404, 413, 415, 500])
    def test_other_status_drops_the_batch(self, receiver, status):
        """What does not pass is counted by status, and sent once."""
        receiver.faults += [failing(status)]
        sink = sink_at(receiver)
        sink.accept(Batch())

        assert (0, {f"HTTP {status}": 1}, 0) == drained(sink)
        assert 1 == len(receiver.requests)

    @FAILED
    @pytest.mark.parametrize(
        "fault", [reset, vanish, cut(20), cut(20, reset), instead(b"no HTTP\r\n\r\n")]
    )
    def test_broken_connection_is_tried_again(self, receiver, fault):
        """A connection that dies, also within the answer, costs no more than an attempt."""
        receiver.faults += [fault]
        sink = sink_at(receiver)
        sink.accept(Batch(at=1000.0))

        assert (1, {}, 0) == drained(sink)
        first, second = receiver.requests
        assert first.body == second.body

    @FAILED
    @pytest.mark.parametrize("status", [301, 307])
    def test_redirect_is_not_followed(self, receiver, status):
        """It would send the key to an address that the program did not choose."""
        receiver.faults += [redirecting("http://127.0.0.1:1/", status)]
        sink = sink_at(receiver, headers={"api-key": "k"})
        sink.accept(Batch())

        assert (0, {f"HTTP {status}": 1}, 0) == drained(sink)
        assert 1 == len(receiver.requests)

    def test_kept_connection_that_died_costs_nothing(self, receiver):
        """A connection that the receiver closed while idle is replaced silently."""
        receiver.faults += [stale]
        sink = sink_at(receiver)
        for _ in range(2):
            sink.accept(Batch())
            drained(sink)

        assert (2, {}, "") == (sink.sent, sink.dropped, sink.error)

    def test_kept_connection_that_is_closed_costs_nothing(self, receiver):
        """Also where the receiver closes it between two drains."""
        sink = sink_at(receiver)
        for _ in range(2):
            sink.accept(Batch())
            drained(sink)
            receiver.hang_up()

        assert (2, {}, "") == (sink.sent, sink.dropped, sink.error)
        assert (2, 2) == (len(receiver.requests), receiver.connections)

    @FAILED
    @pytest.mark.parametrize("fault", [silent, cut(20, silent)])
    def test_receiver_that_hangs_holds_no_caller(self, receiver, fault):
        """The drain ends at its deadline, and the batch is kept for another attempt."""
        receiver.faults += [fault]
        sink = sink_at(receiver, timeout=1.0)
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink, 0.2)
        assert (1, {}, 0) == drained(sink)

    @FAILED
    @pytest.mark.parametrize("before", [0, 20], ids=["nothing", "a part"])
    @pytest.mark.parametrize("warm", [False, True])
    def test_late_answer_is_waited_for(self, receiver, before, warm):
        """A receiver that is slow counts nothing twice: the request is sent once."""
        answers = threading.Event()

        def slow(peer, data):
            whole_answer = data()
            peer.sock.sendall(whole_answer[:before])
            assert answers.wait(60)
            peer.sock.sendall(whole_answer[before:])

        sink = sink_at(receiver)
        if warm:  # on a connection that is kept
            sink.accept(Batch())
            drained(sink)
        receiver.faults += [slow]
        sink.accept(Batch())
        early = asked(sink)
        answers.set()

        assert (warm, {}, 1) == early
        assert (1 + warm, {}, 0) == drained(sink)
        assert 1 + warm == len(receiver.requests)
        sink.accept(Batch())
        assert (2 + warm, {}, 0) == drained(sink)
        assert 2 + warm == len(receiver.requests)

    @FAILED
    def test_answer_that_came_during_a_freeze_counts(self, receiver):
        """The deadline of the drain has passed by then, and nothing is sent again."""
        with FakeClock() as fake:

            def frozen(peer, data):
                answer = data()
                peer.sock.sendall(answer[:20])
                fake.advance(8)
                peer.sock.sendall(answer[20:])

            receiver.faults += [frozen]
            sink = sink_at(receiver)
            sink.accept(Batch())
            sink.drain(clock.monotonic() + 5)
            drained(sink)

        assert (1, {}, 0) == (sink.sent, sink.dropped, sink.pending)
        assert 1 == len(receiver.requests)

    @FAILED
    def test_answer_to_what_was_dropped_counts_for_nothing_else(
        self, receiver, monkeypatch
    ):
        """The queue was full meanwhile: what is sent next has its own answer."""
        receiver.faults += [silent]
        sink = sink_at(receiver)
        sink._delivery._max_items = 1
        sink.accept(Batch(Point("a")))
        asked(sink)
        sink.accept(Batch(Point("b"), Point("c")))

        assert (2, {"queue_full": 1}, 0) == drained(sink)
        assert [[("a", 1)], [("b", 1), ("c", 1)]] == [
            points(request) for request in receiver.requests
        ]

    @FAILED
    def test_address_that_changes_meanwhile_is_the_new_one(self, receiver):
        """What the former address has not answered, and all that follows, goes there."""
        with collector.Collector() as other:
            address = Key(receiver.url + "/v1/metrics", other.endpoint)
            changed = threading.Event()

            def slow(peer, data):
                assert changed.wait(60)
                peer.sock.sendall(data())

            receiver.faults += [slow]
            sink = OtlpSink(address)
            sink.accept(Batch(Point("a")))
            asked(sink)
            address.invalidate()
            changed.set()
            sink.accept(Batch(Point("b")))
            told = drained(sink)
            sink.accept(Batch(Point("c")))
            drained(sink)

        assert (2, {}, 0) == told
        assert 1 == len(receiver.requests)
        assert [[("a", 1)], [("b", 1)], [("c", 1)]] == [
            points(request) for request in other.requests
        ]

    @pytest.mark.parametrize("end", [phases.SNAPSHOT, "fork"])
    @FAILED
    def test_answer_is_not_waited_for_elsewhere(self, receiver, end):
        """After a restore, and in a forked process, connections are others' or dead."""
        receiver.faults += [silent]
        sink = sink_at(receiver)
        sink.accept(Batch())
        asked(sink)
        if end == "fork":
            assert in_child(lambda: (0, {}, 0) == drained(sink))
        else:
            phases.call(phases.SNAPSHOT)
        waits = sink._receiver._asked is not None

        assert (end == "fork") == waits

    @FAILED
    def test_timeout_bounds_one_request(self, receiver):
        """A request ends after *timeout* although the drain may last longer."""
        receiver.faults += [late(20)]
        sink = sink_at(receiver, timeout=0.5)
        sink.accept(Batch())

        assert (1, {}, 0) == drained(sink)

    @FAILED
    def test_nothing_listens(self, receiver):
        """A collector that is not there keeps the batch, bounded."""
        sink = OtlpSink("http://127.0.0.1:1/v1/metrics")
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink)
        assert sink.error


class TestKey:
    """Keys: read late, renewed once, shown never."""

    def test_secret_is_read_when_it_is_sent(self, receiver):
        """A handle is read at the first request, not when the sink is made."""
        key = Key("k1")
        sink = sink_at(receiver, headers={"API-Key": key})

        assert 0 == key.reads

        sink.accept(Batch())
        drained(sink)

        assert "k1" == receiver.requests[0].headers["api-key"]

    @pytest.mark.parametrize("status", [401, 403])
    def test_rotated_key_is_read_anew(self, receiver, status):
        """After a refusal the key is read again and the batch sent again, at once."""
        receiver.answer = lambda request: response(
            200 if request.headers["api-key"] == "k2" else status, b""
        )
        sink = sink_at(receiver, headers={"api-key": Key("k1", "k2")})
        sink.accept(Batch())

        assert (1, {}, 0) == drained(sink)
        assert ["k1", "k2"] == [each.headers["api-key"] for each in receiver.requests]

    @FAILED
    def test_wrong_key_is_asked_for_twice_and_no_more(self, receiver):
        """A key that stays wrong drops the batch after the second refusal."""
        receiver.answer = lambda request: response(403, b"")
        sink = sink_at(receiver, headers={"api-key": Key("k1")})
        sink.accept(Batch())

        assert (0, {"HTTP 403": 1}, 0) == drained(sink)
        assert 2 == len(receiver.requests)

    @FAILED
    def test_key_that_cannot_be_read_keeps_the_batch(self, receiver):
        """Without a key nothing is sent, and nothing is lost yet."""
        denied = AccessDeniedError("no", key="k", source="secrets_manager")
        sink = sink_at(receiver, headers={"api-key": Key(denied)})
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink)
        assert [] == receiver.requests

    @FAILED
    @pytest.mark.parametrize(
        "failure", [KeyError("SECRET"), RuntimeError("SECRET"), SystemExit("SECRET")]
    )
    @pytest.mark.parametrize("where", ["header", "address"])
    def test_function_that_raises_keeps_the_batch(
        self, receiver, failure, where, caplog
    ):
        """The next drain asks it again, after each exception; nothing shows what it said."""
        answers = [failure, failure, failure]

        def given():
            if answers:
                raise answers.pop()
            return "key" if where == "header" else receiver.url

        if where == "header":
            sink = sink_at(receiver, headers={"api-key": given})
        else:
            sink = OtlpSink(given)
        sink.accept(Batch())
        before = drained(sink), sink.error
        after = drained(sink)

        kind = type(failure).__name__
        assert ((0, {}, 1), f"its key cannot be read: {kind}") == before
        assert (1, {}, 0) == after
        assert "SECRET" not in caplog.text

    @FAILED
    def test_key_that_cannot_be_forgotten_keeps_the_batch(self, receiver):
        """An invalidate() that raises is a key that cannot be read."""
        receiver.answer = lambda request: response(403, b"")
        key = Key("k1")
        key.invalidate = lambda: 1 / 0
        sink = sink_at(receiver, headers={"api-key": key})
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink)

    @FAILED
    @pytest.mark.parametrize("where", ["header", "address"])
    def test_key_that_takes_long_holds_no_caller(self, receiver, where):
        """A drain ends in time, and the key that comes meanwhile serves the next one."""
        gate = threading.Event()

        def given():
            assert gate.wait(30)
            return "key" if where == "header" else receiver.url

        if where == "header":
            sink = sink_at(receiver, headers={"api-key": given})
        else:
            sink = OtlpSink(given)
        sink.accept(Batch())
        before = drained(sink, 0.05)
        gate.set()

        assert (0, {}, 1) == before
        assert (1, {}, 0) == drained(sink)

    @FAILED
    @pytest.mark.parametrize("value", ["SECRET\r\nx: y", "SECRET\0", "SECRET\u0141"])
    def test_key_that_is_no_header_is_not_sent_and_not_shown(
        self, receiver, value, caplog
    ):
        """A value with a line break ends no request and stands in no message."""
        with pytest.raises(ConfigurationError) as refused:
            sink_at(receiver, headers={"api-key": value})
        sink = sink_at(receiver, headers={"api-key": Key(value)})
        sink.accept(Batch())
        drained(sink)

        shown = f"{refused.value} {sink.error} {sink!r} {caplog.text}"
        assert [] == receiver.requests
        assert "SECRET" not in shown

    def test_address_may_be_a_secret(self, receiver):
        """Sumo Logic's address is its key: it may be a handle, and gets the path."""
        sink = otlp.sumo_logic(Key(receiver.url + "/receiver/SECRET"))
        sink.accept(Batch())

        assert (1, {}, 0) == drained(sink)
        assert "/receiver/SECRET/v1/metrics" == receiver.requests[0].target
        assert "SECRET" not in repr(sink)

    def test_no_key_in_the_clear(self):
        """Plain HTTP to another machine is for collectors without a key."""
        url = "http://collector.internal:4318"

        assert "collector" == otlp.collector(url).name
        with pytest.raises(ConfigurationError, match="https"):
            otlp.collector(url, headers={"api-key": "x"})
        with pytest.raises(ConfigurationError, match="https"):
            OtlpSink(url + "/v1/metrics")


class TestTls:
    """Keys go over TLS, to whom the machine or the user trusts."""

    @pytest.fixture(name="secured")
    def _secured(self):
        with Wire(
            lambda request: response(200, b""), tls=authority().server("localhost")
        ) as wire:
            yield wire

    @pytest.fixture(name="sink")
    def _sink(self, secured):
        url = f"https://localhost:{secured.port}/v1/metrics"
        return lambda: OtlpSink(url, headers={"api-key": "k"})

    def test_file_of_the_users_is_trusted(self, secured, sink, monkeypatch):
        """OTEL_EXPORTER_OTLP_CERTIFICATE names it; the connection is kept."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority().path)
        sink = sink()
        for _ in range(2):
            sink.accept(Batch(*[Point(f"m{n}") for n in range(500)]))
            drained(sink)

        assert (1_000, {}, "") == (sink.sent, sink.dropped, sink.error)
        assert (2, 1) == (len(secured.requests), secured.connections)

    def test_store_of_the_machine_is_trusted(self, secured, sink, monkeypatch):
        """SSL_CERT_FILE is where OpenSSL has it."""
        monkeypatch.setenv("SSL_CERT_FILE", authority().path)
        sink = sink()
        sink.accept(Batch())

        assert (1, {}, 0) == drained(sink)

    def test_client_shows_its_certificate(self, monkeypatch):
        """OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and ..._CLIENT_KEY, for mutual TLS."""
        asks = authority().server("localhost")
        asks.verify_mode = ssl.CERT_REQUIRED
        asks.load_verify_locations(authority().path)
        mine = authority().issued("function")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority().path)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", mine)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", mine)
        with Wire(lambda request: response(200, b""), tls=asks) as wire:
            sink = OtlpSink(f"https://localhost:{wire.port}/v1/metrics")
            sink.accept(Batch())

            assert (1, {}, 0) == drained(sink)
            assert 1 == len(wire.requests)

    @FAILED
    def test_client_without_a_certificate_gets_nowhere(self, monkeypatch):
        """Where the receiver asks for one; nothing is lost."""
        asks = authority().server("localhost")
        asks.verify_mode = ssl.CERT_REQUIRED
        asks.load_verify_locations(authority().path)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority().path)
        with Wire(lambda request: response(200, b""), tls=asks) as wire:
            sink = OtlpSink(f"https://localhost:{wire.port}/v1/metrics")
            sink.accept(Batch())

            assert (0, {}, 1) == drained(sink)
            assert [] == wire.requests

    @FAILED
    def test_what_is_no_pair_is_told(self, secured, sink, monkeypatch):
        """In the sink's error, with the paths; no batch is lost by it."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", authority().path)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", authority().path)
        sink = sink()
        sink.accept(Batch())

        assert 0 == drained(sink)[0]
        assert "no pair of a certificate and its key" in sink.error

    @pytest.mark.parametrize("there", ["KEY", "CERTIFICATE"])
    def test_half_a_pair_is_refused(self, sink, monkeypatch, there):
        """The other half is named."""
        path = authority().issued("function")
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_CLIENT_{there}", path)
        missing = {"KEY": "CERTIFICATE", "CERTIFICATE": "KEY"}[there]
        with pytest.raises(ConfigurationError, match=f"CLIENT_{missing} beside it"):
            sink()

    def test_file_that_is_not_there_is_refused(self, sink, monkeypatch):
        """Before anything is recorded."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/none")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/none")
        with pytest.raises(ConfigurationError, match="CLIENT_CERTIFICATE is not"):
            sink()

    @FAILED
    def test_others_get_nothing(self, secured, sink, monkeypatch):
        """AWS_CA_BUNDLE is for AWS: no key goes to whom it alone trusts."""
        monkeypatch.setenv("AWS_CA_BUNDLE", authority().path)
        sink = sink()
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink)
        assert sink.error
        assert [] == secured.requests

    @FAILED
    def test_late_answer_is_waited_for(self, secured, sink, monkeypatch):
        """As in the clear: a part of it may have come, and nothing is sent twice."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority().path)
        answers = threading.Event()

        def slow(peer, data):
            answer = data()
            peer.sock.sendall(answer[:20])
            assert answers.wait(60)
            peer.sock.sendall(answer[20:])

        secured.faults += [slow]
        sink = sink()
        sink.accept(Batch())
        early = asked(sink)
        answers.set()

        assert (0, {}, 1) == early
        assert (1, {}, 0) == drained(sink)
        assert 1 == len(secured.requests)


class TestSigned:
    """CloudWatch's endpoint, signed by SigV4."""

    @pytest.fixture(name="sink")
    def _sink(self, receiver):
        return sink_at(receiver, sign="monitoring")

    def test_signature_is_botocores(self, receiver, sink):
        """Botocore, given the request as it came, signs it the same way."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        sink.accept(Batch(*[Point(f"m{n}") for n in range(50)]))
        drained(sink)

        (request,) = receiver.requests
        theirs = AWSRequest(
            "POST",
            receiver.url + request.target,
            data=request.body,
            headers={
                "host": request.headers["host"],
                "content-type": request.headers["content-type"],
                "x-amz-date": request.headers["x-amz-date"],
            },
        )
        signer = SigV4Auth(
            Credentials("testing", "testing"), "monitoring", "eu-central-1"
        )
        theirs.context["timestamp"] = request.headers["x-amz-date"]
        signature = signer.signature(
            signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs
        )
        assert request.headers["authorization"].endswith(f"Signature={signature}")
        assert "content-encoding" not in request.headers

    def test_signature_is_of_the_endpoints_region(self, receiver):
        """An endpoint of another region than the function's gets its own signature."""
        sink = sink_at(receiver, sign="monitoring", region="eu-west-1")
        sink.accept(Batch())
        drained(sink)

        (request,) = receiver.requests
        assert "/eu-west-1/monitoring/" in request.headers["authorization"]
        assert "eu-west-1" == otlp.cloudwatch("eu-west-1")._receiver._region

    @FAILED
    def test_keys_that_cannot_be_fetched_keep_the_batch(
        self, receiver, sink, monkeypatch
    ):
        """A refusal while the endpoint for credentials is away loses nothing."""

        class Provider:
            def keys(self, ends_at):
                return signing.Keys("a", "b", "")

            def renewed(self, refused, ends_at):
                raise credentials.UnavailableError

        monkeypatch.setattr(credentials, "provider", Provider)
        receiver.faults += [failing(403)] * delivery.ATTEMPTS
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink)
        assert "no credentials to sign with" == sink.error

    @FAILED
    def test_without_credentials_nothing_is_sent(self, receiver, sink, monkeypatch):
        """A process that cannot sign keeps the batch and says why."""
        monkeypatch.setattr(credentials, "provider", lambda: None)
        sink.accept(Batch())

        assert (0, {}, 1) == drained(sink)
        assert ([], "no credentials to sign with") == (receiver.requests, sink.error)


class TestDue:
    """OtlpSink.is_due()"""

    def test_age_points_or_bytes_make_it_due(self):
        """Little is sent every 30 s, much at once, nothing never."""
        with FakeClock() as fake:
            sink = OtlpSink("https://x.example/v1/metrics")
            before = sink.is_due()
            sink.accept(Batch())
            early = sink.is_due()
            fake.advance(otlp.EVERY_S)
            late_enough = sink.is_due()
            many = OtlpSink("https://x.example/v1/metrics")
            many.accept(Batch(*[Point(f"m{n}") for n in range(otlp.MAX_POINTS)]))

        assert (False, False, True) == (before, early, late_enough)
        assert many.is_due()

    @pytest.mark.parametrize(
        "given",
        [
            -1,
            "5",
            None,
            True,
            float("nan"),
            float("inf"),
            86_401,
            pytest.param(10**5000, id="huge"),
        ],
    )
    def test_what_is_no_number_of_seconds_is_refused(self, given):
        """Where the sink is made, not at its first request."""
        url = "https://x.example/v1/metrics"

        with pytest.raises(ConfigurationError, match=r"every=.* number of seconds"):
            OtlpSink(url, every=given)
        if given is not None:
            with pytest.raises(ConfigurationError, match=r"timeout=.* seconds above 0"):
                OtlpSink(url, timeout=given)

    def test_every_0_is_each_invocation(self):
        """With every=0 anything that waits is due."""
        sink = OtlpSink("https://x.example/v1/metrics", every=0)
        sink.accept(Batch())

        assert sink.is_due()

    @FAILED
    @pytest.mark.parametrize("every", [0, otlp.EVERY_S])
    @pytest.mark.parametrize("fault", [failing(503), silent])
    def test_receiver_that_fails_is_asked_less_often(self, receiver, every, fault):
        """Invocations do not wait for it each time, however much waits."""
        receiver.fault = fault
        batch = Batch(*[Point(f"m{n}") for n in range(otlp.MAX_POINTS)])
        pauses = []
        with FakeClock() as fake:
            sink = sink_at(receiver, every=every)
            sink.accept(batch)
            for _ in range(10):
                assert sink.is_due()
                sink.drain(clock.monotonic() + 0.01)
                waited = 0
                while not sink.is_due():
                    fake.advance(1)
                    waited += 1
                pauses.append(waited)
            receiver.fault = whole
            sink.close()
            drained(sink)
            sink.accept(Batch(*[Point(f"n{n}") for n in range(otlp.MAX_POINTS)]))
            after = sink.is_due()

        assert [2, 4, 8, 16, 32, 60, 60, 60, 60, 60] == pauses
        assert after

    @FAILED
    @pytest.mark.parametrize("phase", [phases.SHUTDOWN, phases.TIMEOUT])
    def test_end_makes_no_pause_of_its_own(self, receiver, monkeypatch, phase):
        """A receiver that is well again has the last records, at once."""
        monkeypatch.setattr(delivery, "jitter", lambda _: 1000.0)
        receiver.faults += [failing(503)]
        sink = sink_at(receiver)
        sink.accept(Batch())
        before = drained(sink, 30.0)
        ended = []
        phases.listen(phase, lambda: ended.append(drained(sink, 30.0)))
        phases.call(phase)

        assert (0, {}, 1) == before
        assert [(1, {}, 0)] == ended

    @FAILED
    def test_end_makes_the_pause_that_was_asked_for(self, receiver):
        """A receiver that asks for fewer requests gets no more at the end."""
        receiver.faults += [failing(503, Retry_After="200")]
        sink = sink_at(receiver)
        sink.accept(Batch())
        drained(sink, 30.0)
        ended = []
        phases.listen(phases.SHUTDOWN, lambda: ended.append(drained(sink, 30.0)))
        phases.call(phases.SHUTDOWN)

        assert ([(0, {}, 1)], 1) == (ended, len(receiver.requests))


class TestLife:
    """Snapshots, restores and forks."""

    def test_restore_makes_another_instance(self, monkeypatch):
        """Environments that are restored from one snapshot differ in faas.instance."""
        monkeypatch.delenv("AWS_LAMBDA_LOG_STREAM_NAME", raising=False)
        OtlpSink("https://x.example/v1/metrics")
        before = otlp_common.instance()
        phases.call(phases.RESTORE)

        assert otlp_common.instance() not in ("", before)

    def test_instance_is_the_log_stream(self, monkeypatch):
        """Where Lambda names a log stream it is the instance."""
        monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "2026/[$LATEST]ab")

        assert "2026/[$LATEST]ab" == otlp_common.instance()

    def test_workers_of_one_stream_differ(self, monkeypatch):
        """On Managed Instances the process is part of the instance."""
        monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "s")
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "lambda-managed-instances")

        assert f"s/{os.getpid()}" == otlp_common.instance()

    def test_child_sends_nothing_of_its_parents(self, receiver):
        """What waits in a forked child is the parent's to send."""
        sink = sink_at(receiver)
        sink.accept(Batch())

        assert in_child(lambda: (0, {}, 0) == drained(sink))
        assert [] == receiver.requests


class TestEnvironment:
    """OpenTelemetry's variables."""

    def test_endpoint_gets_the_path(self, receiver, monkeypatch):
        """The general endpoint is extended, the one of metrics is taken as it is."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b")
        sink = OtlpSink()
        sink.accept(Batch())
        drained(sink)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", receiver.url + "/x")
        sink = OtlpSink()
        sink.accept(Batch())
        drained(sink)

        assert [("/v1/metrics", "a b"), ("/x", "a b")] == [
            (request.target, request.headers["api-key"])
            for request in receiver.requests
        ]

    def test_headers_of_the_environment_go_to_its_endpoint_only(
        self, receiver, monkeypatch
    ):
        """A key for one vendor is not sent to another."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=x")
        sink = sink_at(receiver)
        sink.accept(Batch())
        drained(sink)

        assert "api-key" not in receiver.requests[0].headers

    @pytest.mark.parametrize(
        "value",
        [
            "Authorization: Basic U0VDUkVU0/==",
            "api-key:U0VDUkVU0=",
            "U0VDUkVU0/abc==",
            "api-key=ok,U0VDUkVU0/=",
            "U0VDUkVU0=%0a",
        ],
    )
    @pytest.mark.parametrize(
        ("signal", "make"),
        [
            ("", OtlpSink),
            ("METRICS_", OtlpSink),
            ("LOGS_", destinations.otlp),
            ("TRACES_", destinations.spans),
        ],
    )
    def test_headers_in_another_form_are_refused_unquoted(
        self, monkeypatch, value, signal, make
    ):
        """What is written like a header of HTTP holds its key in what would be a name."""
        variable = f"OTEL_EXPORTER_OTLP_{signal}HEADERS"
        monkeypatch.setenv(variable, value)

        with pytest.raises(ConfigurationError) as refused:
            make()
        shown = f"{refused.value} {refused.value.__context__}"
        assert "U0VDUkVU0" not in shown
        assert "OTEL_EXPORTER_OTLP" in shown
        assert "key=value" in shown

    @pytest.mark.parametrize(
        "name", ["Authorization: Bearer SECRET", "x-key SECRET", "x-key\nSECRET", ""]
    )
    def test_name_that_is_none_is_not_quoted_past_its_beginning(self, name):
        """The rest may be a key."""
        with pytest.raises(ConfigurationError, match="name of a header") as refused:
            OtlpSink("https://x.example", headers={name: "v"})

        assert "secret" not in str(refused.value).lower()
        assert (name[:5] or "''") in str(refused.value).replace("auth", "Auth")

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"),
        ],
    )
    def test_what_cannot_be_used_is_an_error(self, monkeypatch, variable, value):
        """A variable of the wrong value is named, or what would do is."""
        monkeypatch.setenv(variable, value)

        with pytest.raises(ConfigurationError) as refused:
            OtlpSink()
        assert variable in str(refused.value) or "https://" in str(refused.value)

    @pytest.mark.logs
    @pytest.mark.parametrize(
        ("preference", "told"),
        [("cumulative", 1), ("CUMULATIVE", 1), ("delta", 0), ("LowMemory", 0), ("", 0)],
    )
    def test_cumulative_preference_is_told(self, monkeypatch, caplog, preference, told):
        """Sums are those of an interval; who asks for others hears of it."""
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference
        )
        OtlpSink()
        words = [record.getMessage() for record in caplog.records]

        assert told == len(words)
        assert all("TEMPORALITY_PREFERENCE" in text for text in words)

    def test_disabled_sdk_sends_nothing(self, receiver, monkeypatch):
        """OTEL_SDK_DISABLED=true makes the sink take nothing."""
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        sink = sink_at(receiver)
        sink.accept(Batch())

        assert (0, {}, 0) == drained(sink)


class TestProtocolOfTheEnvironment:
    """OTEL_EXPORTER_OTLP_PROTOCOL, which is another exporter's."""

    @pytest.mark.parametrize("protocol", ["grpc", "http/json"])
    @pytest.mark.parametrize(
        "make",
        [
            lambda: otlp.new_relic("k"),
            lambda: otlp.splunk("k", realm="us0"),
            lambda: otlp.sumo_logic("https://x.example/receiver"),
            lambda: otlp.datadog("k"),
            lambda: otlp.cloudwatch("eu-west-1"),
            lambda: destinations.new_relic("k"),
            lambda: destinations.sumo_logic("https://x.example/receiver"),
            lambda: destinations.cloudwatch_logs("g", "s", region="eu-west-1"),
        ],
    )
    def test_vendors_get_protobuf(self, monkeypatch, make, protocol):
        """Presets send what the vendor takes, also beside an SDK that uses gRPC."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)

        assert "application/x-protobuf" == make()._receiver._content_type

    def test_query_stays_at_the_end(self, receiver, monkeypatch):
        """The path of the signal is completed before it."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url + "/?key=1")
        for sink in (
            OtlpSink(),
            otlp.collector(receiver.url + "?key=1"),
            otlp.sumo_logic(lambda: receiver.url + "/?key=1"),
        ):
            sink.accept(Batch())
            drained(sink)

        found = [request.target for request in receiver.requests]
        assert ["/v1/metrics?key=1"] * 3 == found


class TestPresets:
    """The addresses of vendors."""

    @pytest.mark.parametrize(
        ("make", "url", "headers"),
        [
            (
                lambda: otlp.new_relic("k", region="eu"),
                "https://otlp.eu01.nr-data.net/v1/metrics",
                ["api-key"],
            ),
            (
                lambda: otlp.splunk("k", realm="eu0"),
                "https://ingest.eu0.observability.splunkcloud.com/v2/datapoint/otlp",
                ["x-sf-token"],
            ),
            (
                lambda: otlp.sumo_logic("https://x.example/receiver/abc"),
                "https://x.example/receiver/abc/v1/metrics",
                [],
            ),
            (
                lambda: otlp.datadog("k", site="datadoghq.eu"),
                "https://otlp.datadoghq.eu/v1/metrics",
                ["dd-api-key"],
            ),
            (
                lambda: otlp.cloudwatch("cn-north-1"),
                "https://monitoring.cn-north-1.amazonaws.com.cn/v1/metrics",
                [],
            ),
            (otlp.cloudwatch, "https://monitoring.eu-central-1.amazonaws.com/v1/metrics", []),
            (otlp.collector, "http://localhost:4318/v1/metrics", []),
        ],
    )  # fmt: skip
    def test_know_the_address(self, make, url, headers):
        """Each preset has its vendor's URL and the name of its header."""
        sink = make()

        assert (url, headers) == (sink._receiver._url, [*sink._receiver.headers])

    @pytest.mark.parametrize(
        "make",
        [
            lambda: otlp.new_relic("k", region="mars"),
            lambda: otlp.splunk("k", realm="eu0.evil.example/"),
            lambda: otlp.datadog("k", site="x@evil"),
            lambda: otlp.cloudwatch("eu west"),
            lambda: otlp.splunk("k", realm=""),
            lambda: OtlpSink(timeout=0),
        ],
    )
    def test_refuse_what_makes_no_address(self, make):
        """A realm, a site or a region is part of a host name, or an error."""
        with pytest.raises(ConfigurationError):
            make()

    @pytest.mark.parametrize(
        "make",
        [
            lambda key: otlp.new_relic(key, region="mars"),
            lambda key: otlp.splunk(key, realm="x@evil"),
            lambda key: otlp.datadog(key, site="x@evil"),
            lambda key: otlp.sumo_logic("nonsense/" + key),
            lambda key: otlp.collector("nonsense", headers={"x-key": key}),
        ],
    )
    def test_no_key_stands_in_the_frames_of_a_refusal(self, make):
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
