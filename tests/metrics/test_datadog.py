"""The Datadog sink: datagrams for the extension, lines for the Forwarder."""

from __future__ import annotations

import contextlib
import errno
import json
import socket

import pytest
from datadog.dogstatsd import DogStatsd
from helpers import eventually, in_child

from lambda_ext import Metrics, configure, metrics, stats
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import clock, phases
from lambda_ext.metrics import datadog
from lambda_ext.metrics.buffer import Series
from lambda_ext.metrics.datadog import DatadogSink
from lambda_ext.metrics.parcels import Batch, Point
from lambda_ext.testing import FakeClock

FAILED = pytest.mark.logs  # a failure, or what is dropped, is logged once a reason
DISCARD = 9  # the port "discard": nothing listens there


class Extension:
    """A socket as the extension has it: 127.0.0.1, UDP."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.datagrams = []
        self.read = 0  # lines
        self.sinks = []

    def sink(self, **options):
        """Return a sink that sends here."""
        self.sinks.append(DatadogSink(flush_to_log=False, port=self.port, **options))
        return self.sinks[-1]

    def lines(self, count=None):
        """Return the lines that came since the last call, *count* or what was sent.

        The system may take its time to deliver a datagram, also on one machine.
        """
        if count is None:
            count = sum(sink.sent for sink in self.sinks) - self.read
        found = []
        self.socket.settimeout(30)
        while len(found) < count:
            found += self._received()
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            found += self._received()
        self.read += len(found)
        return found

    def _received(self):
        self.datagrams.append(self.socket.recv(1 << 16))
        return self.datagrams[-1].decode().split("\n")


@pytest.fixture(name="extension")
def _extension():
    extension = Extension()
    yield extension
    extension.socket.close()


def batch(*points, at=None, namespace="Shop"):
    """Return a batch of (kind, name, values, dimensions)."""
    made = [
        Point(Series(namespace, kind, name, "Count", dimensions), [*values])
        for kind, name, values, dimensions in points
    ]
    return Batch(namespace, clock.wall() if at is None else at, made)


def count(name="orders", value=1, **dimensions):
    """Return a point as `batch` takes it."""
    return "count", name, [value], tuple(dimensions.items())


def numbers(sink):
    """Return what *sink* says of itself."""
    return sink.sent, sink.dropped, sink.pending


class TestDatagrams:
    """Where the extension is."""

    def test_each_value_is_a_line_of_a_distribution(self, extension):
        """A counter's sum, a gauge's last value, each value of a distribution."""
        sink = extension.sink()
        sink.accept(
            batch(
                count("orders", 3, shop="a"),
                ("gauge", "depth", [2.5], ()),
                ("distribution", "ms", [1, 2.25, 1], (("shop", "b"),)),
            )
        )

        assert [
            "orders:3|d|#shop:a",
            "depth:2.5|d",
            "ms:1|d|#shop:b",
            "ms:2.25|d|#shop:b",
            "ms:1|d|#shop:b",
        ] == extension.lines()
        assert 1 == len(extension.datagrams)
        assert (5, {}, 0) == numbers(sink)

    @pytest.mark.parametrize("value", [1, -2, 0, 0.1, 1e22, -1.5e-300, 2**53, 1e300])
    @pytest.mark.parametrize(
        "tags",
        [
            (),
            (("shop", "a"),),
            (("a b", "c,d|e#f"), ("path", "/x/y.z-1_2")),
            (("k", "x:y"), ("empty", " ")),
            (("per cent", "100%"),),
        ],
    )
    def test_is_what_datadogs_client_writes(self, extension, value, tags):
        """Byte for byte, tags with characters that cannot stand there included."""
        sink = extension.sink()
        sink.accept(batch(("distribution", "m.n_1", [value], tags)))
        client = DogStatsd(disable_telemetry=True, origin_detection_enabled=False)
        texts = [f"{name}:{text}" for name, text in tags]
        expected = client._serialize_metric("m.n_1", "d", value, texts)

        assert [expected] == extension.lines()

    def test_datagrams_are_small(self, extension):
        """As many lines as fit into 1,432 bytes, a longer line alone."""
        sink = extension.sink()
        values = [*range(1_000)]
        long = tuple((f"dimension{n}", "x" * 100) for n in range(20))
        sink.accept(batch(("distribution", "ms", values, (("shop", "a"),))))
        sink.accept(batch(count("long", 1, **dict(long)), count("short")))
        lines = extension.lines()
        sizes = [len(datagram) for datagram in extension.datagrams]

        assert {f"ms:{value}|d|#shop:a" for value in values} < {*lines}
        assert len(values) + 2 == len(lines)
        assert 1 == sum(size > datadog.MAX_DATAGRAM for size in sizes)
        assert sizes[0] + len("\nms:999|d|#shop:a") > datadog.MAX_DATAGRAM
        assert (1_002, {}, 0) == numbers(sink)

    @FAILED
    def test_line_that_no_datagram_holds_is_dropped(self, extension):
        """The extension would read half of it."""
        sink = extension.sink()
        large = {f"dimension{n}": "x" * 1_000 for n in range(10)}
        sink.accept(batch(count("large", **large), count("small")))

        assert ["small:1|d"] == extension.lines()
        assert (1, {"too_large": 1}, 0) == numbers(sink)

    @pytest.mark.parametrize(
        ("ago_s", "expected"),
        [(0, ""), (9, ""), (10, "|T1699999990"), (14_000, "|T1699986000"),
         (-3_600, "|T1700003600")],
    )  # fmt: skip
    def test_time_is_there_where_it_says_something(self, extension, ago_s, expected):
        """It has 10 seconds' resolution at the extension, which knows what is now."""
        with FakeClock(wall=1_700_000_000.0):
            sink = extension.sink()
            sink.accept(batch(count(shop="a"), at=1_700_000_000 - ago_s))

        assert [f"orders:1|d|#shop:a{expected}"] == extension.lines()

    @FAILED
    def test_what_is_too_old_is_dropped(self, extension):
        """The extension refuses what is older than four hours; nothing says so."""
        sink = extension.sink()
        sink.accept(batch(count(), at=clock.wall() - 4 * 3_600 - 2))

        assert [] == extension.lines()
        assert (0, {"timestamp": 1}, 0) == numbers(sink)

    @FAILED
    def test_no_process_listens(self):
        """Each datagram is counted as dropped, and none is waited for."""
        sink = DatadogSink(flush_to_log=False, port=DISCARD)
        accepted = []

        def another():
            accepted.append(batch(count(), count("n", 2)))
            sink.accept(accepted[-1])
            return sink.dropped

        eventually(another)  # the system may take its time to tell
        sent, dropped, pending = numbers(sink)

        assert ({"Connection refused"}, 0) == ({*dropped}, pending)
        assert 2 * len(accepted) == sent + sum(dropped.values())

    @FAILED
    def test_refusal_that_is_told_late_counts_for_the_one_before(
        self, extension, monkeypatch
    ):
        """The error of a send is that of an earlier datagram, which was lost."""
        real = datadog._connected
        told = []

        class Late:
            def __init__(self, sock):
                self.sock = sock

            def send(self, data):
                if told:
                    raise told.pop()
                return self.sock.send(data)

            def getsockopt(self, *args):
                return 0

            def close(self):
                self.sock.close()

        monkeypatch.setattr(datadog, "_connected", lambda port: Late(real(port)))
        sink = extension.sink()
        sink.accept(batch(count("a"), count("b")))
        told.append(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
        sink.accept(batch(count("c")))

        assert (1, {"Connection refused": 2}, 0) == numbers(sink)
        assert ["a:1|d", "b:1|d", "c:1|d"] == extension.lines(3)

    @pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.EINTR])
    @FAILED
    def test_full_socket_keeps_it_for_later(self, extension, monkeypatch, number):
        """It is sent by the next flush, in its order."""
        real = datadog._connected
        failing = [True]

        class Full:
            def __init__(self, sock):
                self.sock = sock

            def send(self, data):
                if failing:
                    raise OSError(number, "full")
                return self.sock.send(data)

            def getsockopt(self, *args):
                return 0

            def close(self):
                self.sock.close()

        monkeypatch.setattr(datadog, "_connected", lambda port: Full(real(port)))
        with FakeClock() as fake:
            monkeypatch.setattr("lambda_ext.delivery.queue.sleep", fake.advance)
            sink = extension.sink()
            sink.accept(batch(count("a")))
            waiting = (*numbers(sink), sink.backlog, sink.is_due())
            failing.clear()
            fake.advance(1)
            sink.accept(batch(count("b")))

            assert (0, {}, 1, True, True) == waiting
            assert ["a:1|d", "b:1|d"] == extension.lines()
            assert (2, {}, 0) == numbers(sink)

    @FAILED
    def test_other_errors_are_final(self, monkeypatch):
        """The next datagram opens another socket."""
        opened = []

        class Broken:
            def send(self, data):
                raise OSError(errno.EPERM, "Operation not permitted")

            def close(self):
                opened.append("closed")

        monkeypatch.setattr(
            datadog, "_connected", lambda port: opened.append(port) or Broken()
        )
        sink = DatadogSink(flush_to_log=False, port=1)
        sink.accept(batch(count()))
        sink.accept(batch(count()))

        assert [1, "closed", 1, "closed"] == opened
        assert (0, {"Operation not permitted": 2}, 0) == numbers(sink)

    @pytest.mark.parametrize(
        ("size", "accepted", "bursts"),
        [(1_300, 40, [24, 64, 64]), (2_100, 20, [12, 32, 32, 32, 32, 32])],
    )
    def test_flood_is_sent_in_bursts(
        self, extension, monkeypatch, size, accepted, bursts
    ):
        """accept() stops where the extension's socket might overflow; drain pauses."""
        seen = []
        with FakeClock() as fake:

            def pause(seconds):
                seen.append(len(extension.lines()))
                fake.advance(seconds)

            monkeypatch.setattr(datadog, "sleep", pause)
            sink = extension.sink()
            large = {f"dimension{n}": "x" * (size // 3) for n in range(3)}
            points = [count(f"n{n}", **large) for n in range(200)]
            sink.accept(batch(*points[:accepted]))
            sink.accept(batch(*points[accepted:]))
            first = len(extension.lines()), sink.pending, sink.is_due()
            sink.drain(clock.monotonic() + 1)
        extension.lines()

        assert (accepted, 200 - accepted, True) == first
        assert bursts == seen
        assert 200 == len(extension.datagrams)
        assert (200, {}, 0) == numbers(sink)

    def test_time_frees_the_next_burst(self, extension, monkeypatch):
        """A later flush need not wait for what has long been read."""
        monkeypatch.setattr(datadog, "sleep", lambda _: None)
        with FakeClock() as fake:
            sink = extension.sink()
            large = {"dimension": "x" * 1_000}
            for _ in range(4):
                sink.accept(batch(*[count(f"n{n}", **large) for n in range(60)]))
                extension.lines()
                fake.advance(1)

        assert 240 == len(extension.datagrams)
        assert (240, {}, 0) == numbers(sink)

    def test_same_batch_is_sent_once(self, extension):
        """It is offered again where a signal handler has interrupted accept()."""
        sink = extension.sink()
        first, second = batch(count("a")), batch(count("b"))
        for each in (first, second, first):
            sink.accept(each)

        assert ["a:1|d", "b:1|d"] == extension.lines()

    def test_child_sends_its_own(self, extension):
        """A forked process opens a socket of its own, and sends nothing twice."""
        sink = extension.sink()
        sink.accept(batch(count("parent")))

        def child():
            before = sink.sent, sink.pending
            sink.accept(batch(count("child")))
            return before == (0, 0) or before

        assert in_child(child)
        assert ["parent:1|d", "child:1|d"] == extension.lines(2)

    @FAILED
    def test_sockets_that_a_test_forbids_are_not_used(self, extension, monkeypatch):
        """What pytest-socket puts in the place of sockets refuses this one, too."""

        def refuse(*args):
            raise RuntimeError("no sockets")

        refuse.__module__ = "pytest_socket"
        monkeypatch.setattr(socket, "socket", refuse)
        sink = extension.sink()
        sink.accept(batch(count()))

        assert [] == extension.lines()
        assert (0, {"RuntimeError": 1}, 0) == numbers(sink)

    @pytest.mark.parametrize("phase", [phases.SNAPSHOT, phases.RESTORE])
    def test_snapshot_keeps_no_socket(self, extension, phase):
        """After a restore the socket would be another machine's."""
        sink = extension.sink()
        sink.accept(batch(count("a")))
        phases.call(phase)
        closed = sink._output._sock is None
        sink.accept(batch(count("b")))

        assert closed
        assert ["a:1|d", "b:1|d"] == extension.lines()


class TestLines:
    """Where the extension is not."""

    def test_line_is_datadog_lambdas(self, capfd):
        """Members, order and types of write_metric_point_to_stdout().

        Source: datadog-lambda 8.130.0, datadog_lambda/metric.py
        """
        sink = DatadogSink(flush_to_log=True)
        sink.accept(batch(count("coffee.orders", 1, shop="a/b"), at=1_700_000_000.9))

        assert (
            '{"m":"coffee.orders","v":1,"e":1700000000,"t":["shop:a/b"]}\n'
            == capfd.readouterr().out.lstrip("\n")
        )

    def test_forwarder_takes_it(self, capfd):
        """All four members, a number and a list.

        Source: datadog-serverless-functions, aws/logs_monitoring, extract_metric()
        """
        sink = DatadogSink(flush_to_log=True, tags=["größe:µ", 'quote:"'])
        sink.accept(
            batch(count("a", 2.5), ("distribution", "ms", [1, 2], (("k", "v\\"),)))
        )
        lines = [json.loads(x) for x in capfd.readouterr().out.splitlines() if x]

        assert [
            ("a", 2.5, ["größe:µ", 'quote:"']),
            ("ms", 1, ["k:v\\", "größe:µ", 'quote:"']),
            ("ms", 2, ["k:v\\", "größe:µ", 'quote:"']),
        ] == [(line["m"], line["v"], line["t"]) for line in lines]
        assert {int} == {type(line["e"]) for line in lines}
        assert (3, {}, 0) == numbers(sink)

    def test_log_level_does_not_drop_it(self, monkeypatch, capfd):
        """Above INFO Lambda drops a line without a level and a time."""
        monkeypatch.setenv("AWS_LAMBDA_LOG_FORMAT", "JSON")
        monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "WARN")
        sink = DatadogSink(flush_to_log=True)
        sink.accept(batch(count(), at=1_700_000_000))
        line = json.loads(capfd.readouterr().out)

        assert ("WARN", "2023-11-14T22:13:20.000Z") == (
            line["level"],
            line["timestamp"],
        )

    @FAILED
    def test_line_that_is_too_long_is_dropped(self, capfd):
        """A log event would be cut, and half a line is no metric."""
        sink = DatadogSink(flush_to_log=True, tags=["x" * 61_000])
        sink.accept(batch(count()))

        assert "" == capfd.readouterr().out
        assert (0, {"too_large": 1}, 0) == numbers(sink)

    def test_same_batch_is_written_once(self, capfd):
        """It is offered again where a signal handler has interrupted accept()."""
        sink = DatadogSink(flush_to_log=True)
        first, second = batch(count("a")), batch(count("b"))
        for each in (first, second, first):
            sink.accept(each)
        lines = [json.loads(x) for x in capfd.readouterr().out.splitlines() if x]

        assert ["a", "b"] == [line["m"] for line in lines]

    def test_gauge_counts_each_record(self, capfd):
        """Of several only the last is written, and all of them are sent."""
        configure(sinks=["datadog"])
        metrics.gauge("depth", 1)
        metrics.gauge("depth", 2)
        metrics.flush()
        line = json.loads(capfd.readouterr().out)

        assert 2 == line["v"]
        assert 2 == stats().metrics.sinks["datadog"].sent


class TestNames:
    """What a metric is called at Datadog."""

    @pytest.mark.parametrize(
        ("prefix", "name", "expected"),
        [
            ("", "orders.placed", "orders.placed"),
            ("shop", "orders", "shop.orders"),
            ("", "a b-c/d:e|f#g@h", "a_b_c_d_e_f_g_h"),
            ("", "2xx", "xx"),
            ("", "_n1", "n1"),
            ("my app", "n", "my_app.n"),
            ("", "x" * 200, "x" * 200),
        ],
    )
    def test_has_datadogs_characters(self, extension, prefix, name, expected):
        """Letters, digits, "_" and "."; a letter first."""
        sink = extension.sink(prefix=prefix)
        sink.accept(batch(count(name)))

        assert [f"{expected}:1|d"] == extension.lines()

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("aws.lambda.enhanced.invocations", "reserved_name"),
            ("AWS.Lambda.Enhanced.errors", "reserved_name"),
            ("aws/lambda/enhanced/x", None),
            ("aws.lambda.enhanced", "reserved_name"),
            ("1aws.lambda.enhanced.x", "reserved_name"),
            ("aws.lambda.enhancedment", None),
            ("12", "name"),
            ("x" * 201, "name"),
        ],
    )
    @pytest.mark.parametrize("to_log", [True, False])
    @FAILED
    def test_that_cannot_be_is_dropped(
        self, extension, capfd, caplog, name, reason, to_log
    ):
        """Never aws.lambda.enhanced.*, which Datadog counts itself; with a reason."""
        sink = DatadogSink(flush_to_log=to_log, port=extension.port)
        extension.sinks += [] if to_log else [sink]
        Metrics("Shop", sink=sink, service="").count(name)
        metrics.flush()
        sent = len([*extension.lines(), *capfd.readouterr().out.split()])

        if reason is None:
            assert (1, (1, {}, 0)) == (sent, numbers(sink))
        else:
            assert (0, (0, {reason: 1}, 0)) == (sent, numbers(sink))
            assert {reason: 1} == stats().metrics.dropped
            assert name[:10] in caplog.text

    @pytest.mark.parametrize(
        "options",
        [
            {"prefix": "aws.lambda.enhanced"},
            {"prefix": "AWS.LAMBDA.enhanced.x"},
            {"prefix": "123"},
            {"port": 0},
            {"port": 70_000},
            {"port": "8125"},
            {"tags": [5]},
        ],
    )
    def test_options_that_cannot_be_are_refused(self, options):
        """Where they are given."""
        with pytest.raises(ConfigurationError, match=r"prefix=|port=|tags="):
            DatadogSink(**options)


class TestEnvironment:
    """Datadog's variables."""

    @pytest.fixture(autouse=True)
    def _variables(self, monkeypatch):
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "function")
        monkeypatch.setenv("DD_SERVICE", "checkout")
        monkeypatch.setenv("DD_ENV", "prod")
        monkeypatch.setenv("DD_VERSION", "1.2")
        monkeypatch.setenv("DD_TAGS", "team:a,layer:b cost:c, team:a")

    def test_are_tags_of_lines(self, capfd):
        """The Forwarder, another function, does not know them."""
        configure(sinks=[DatadogSink(flush_to_log=True)])
        metrics.count("n", shop="a")
        metrics.flush()
        line = json.loads(capfd.readouterr().out)

        assert [
            "shop:a", "env:prod", "service:checkout", "version:1.2",
            "team:a", "layer:b", "cost:c",
        ] == line["t"]  # fmt: skip

    def test_are_left_to_the_extension(self, extension):
        """It adds them itself; a service that is only the function's name goes.

        Source: datadog-lambda-extension, bottlecap/src/tags/lambda/tags.rs
        """
        configure(sinks=[extension.sink()])
        metrics.count("n", shop="a")
        metrics.flush()

        assert ["n:1|d|#shop:a"] == extension.lines()

    def test_do_not_replace_what_was_said(self, capfd):
        """A dimension goes before a variable of the same name."""
        configure(service="orders", sinks=[DatadogSink(flush_to_log=True)])
        metrics.count("n", env="test")
        metrics.flush()
        line = json.loads(capfd.readouterr().out)

        assert [
            "service:orders", "env:test", "version:1.2", "team:a", "layer:b", "cost:c",
        ] == line["t"]  # fmt: skip

    def test_options_that_come_later_count(self, extension):
        """configure(service=...) after the sink was made, and its tags were known."""
        configure(sinks=[extension.sink()])
        metrics.count("n")
        metrics.flush()
        configure(service="function")
        metrics.count("n")
        metrics.flush()

        assert ["n:1|d", "n:1|d|#service:function"] == extension.lines()

    def test_there_are_a_hundred_tags_at_most(self, monkeypatch, capfd):
        """More than the extension and the intake take."""
        monkeypatch.setenv("DD_TAGS", ",".join(f"t{n}:x" for n in range(200)))
        sink = DatadogSink(flush_to_log=True)
        sink.accept(batch(count(shop="a")))
        line = json.loads(capfd.readouterr().out)

        assert (100, "shop:a") == (len(line["t"]), line["t"][0])


class TestChoice:
    """Which of the two ways."""

    @pytest.mark.parametrize(
        ("there", "given", "expected"),
        [
            (True, None, "the extension"),
            (False, None, "the log"),
            (True, True, "the log"),
            (False, False, "the extension"),
        ],
    )
    @pytest.mark.parametrize("variable", ["", "true", "false"])
    def test_is_datadog_lambdas(
        self, monkeypatch, tmp_path, there, given, expected, variable
    ):
        """The extension's file decides; it goes before DD_FLUSH_TO_LOG.

        Source: datadog-lambda 8.130.0, extension.py and metric.py
        """
        monkeypatch.setenv("DD_FLUSH_TO_LOG", variable)
        path = tmp_path / "datadog-agent"
        if there:
            path.touch()
        monkeypatch.setattr(datadog, "EXTENSION", str(path))

        assert f"<DatadogSink 'datadog' to {expected}>" == repr(
            DatadogSink(flush_to_log=given)
        )

    def test_name_is_enough(self, monkeypatch, capfd):
        """LAMBDA_EXT_SINKS=emf,datadog; statistics have both."""
        monkeypatch.setenv("LAMBDA_EXT_SINKS", "emf,datadog")
        metrics.count("n", 2)
        result = metrics.flush()
        lines = [json.loads(x) for x in capfd.readouterr().out.splitlines() if x]

        assert [2, 2] == [line.get("v", line.get("n")) for line in lines]
        assert {"emf": 1, "datadog": 1} == {k: one.sent for k, one in result.items()}

    def test_patterns_choose(self, extension):
        """metrics.route() narrows it as any sink."""
        sink = extension.sink()
        configure(sinks=[metrics.route(sink, include="orders.*")])
        metrics.count("orders.n", service="s")
        metrics.count("n", service="s")
        metrics.flush()

        assert ["orders.n:1|d|#service:s"] == extension.lines()
