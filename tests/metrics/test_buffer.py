"""Nothing recorded is lost or doubled, also where one call interrupts another."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import sys
import threading

import emf_rules
import pytest
from helpers import python, run_threads
from interruptions import Interrupted, interruptions, where_handlers_run

from lambda_ext import Metrics, config, metrics
from lambda_ext.lifecycle import clock, phases, process
from lambda_ext.metrics import (
    buffer,
    emf,
    emf_batches,
    parcels,
    recorder,
    stdout,
    tally,
    validation,
)
from lambda_ext.testing import FakeClock, MemorySink

MODULES = (
    *(buffer, clock, config, emf, emf_batches, parcels, phases, process),
    *(recorder, stdout, tally, validation),
)


class Gate:
    """A sink that stands still in the middle of a batch until it may go on."""

    def __init__(self):
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.batches = []

    def accept(self, batch, /):
        self.entered.set()
        assert self.go_on.wait(60)
        self.batches.append(batch)

    def total(self):
        return sum(v for b in self.batches for p in b.points for v in p.values)


@contextlib.contextmanager
def new_stdout(monkeypatch):
    """Begin anew, with a pipe as stdout; yield what reads what it holds."""
    recorder.reset()
    tally.reset()
    phases.reset()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with (
        monkeypatch.context() as patch,
        os.fdopen(writer, "w") as stream,
        os.fdopen(reader, "rb", 0) as source,
    ):
        patch.setattr(sys, "stdout", stream)
        yield lambda: (source.read(1_000_000) or b"").decode()


class TestSums:
    """What belongs together is added up."""

    def test_equal_series_is_one_point(self):
        """Counts of equal name, unit and dimensions come out as their sum."""
        with MemorySink() as sink:
            metrics.count("n", 1, a="x", b="y")
            metrics.count("n", 2, b="y", a="x")
            metrics.count("n", 4, dimensions={"a": "x"}, b="y")

        (point,) = sink.points("n")
        assert ([7], 3) == (point.values, point.samples)
        assert (
            ("service", "unknown_service"),
            ("a", "x"),
            ("b", "y"),
        ) == point.dimensions

    def test_other_unit_or_kind_is_another_point(self):
        """Name alone does not make two series one."""
        with MemorySink() as sink:
            metrics.count("n", 1)
            metrics.count("n", 2, unit="Bytes")
            metrics.gauge("n", 3, unit="Bytes")
            metrics.distribution("n", 4, unit="Bytes")

        assert [[1], [2], [3], [4]] == [point.values for point in sink.points("n")]

    def test_equal_looking_values_of_other_types_are_told_apart(self):
        """1, True and "1" are equal or look so; only what is valid is taken."""
        with MemorySink() as sink:
            metrics.count("n", 1, status=1)
            metrics.count("n", 2, status="1")

        assert [[3]] == [point.values for point in sink.points("n", status="1")]

    @pytest.mark.logs
    @pytest.mark.parametrize("order", [(1, True), (True, 1)])
    def test_true_is_not_taken_for_one(self, order):
        """A dimension of True is refused, also when 1 was accepted before."""
        with MemorySink(strict=False) as sink:
            for status in order:
                metrics.count("n", 1, status=status)

        assert 1 == sink.total("n", status="1")
        assert {"dimension_value": 1} == recorder.snapshot()["dropped"]

    def test_gauge_keeps_the_last_value(self):
        """Of a gauge only what it was set to last is written."""
        with MemorySink() as sink:
            for value in (5, 3, 4):
                metrics.gauge("g", value)

        (point,) = sink.points("g")
        assert ([4], 3) == (point.values, point.samples)

    def test_distribution_keeps_every_value(self):
        """Of a distribution every value is written, in order."""
        with MemorySink() as sink:
            for value in (5, 3, 5):
                metrics.distribution("d", value)

        assert [5, 3, 5] == sink.values("d")

    def test_mutable_argument_is_read_when_it_is_recorded(self):
        """Changing the dict of dimensions afterwards changes nothing."""
        dimensions = {"a": "x"}
        with MemorySink() as sink:
            metrics.count("n", dimensions=dimensions)
            dimensions["a"] = "y"

        assert 1 == sink.total("n", a="x")

    @pytest.mark.logs
    def test_sum_that_grows_too_large_is_dropped(self):
        """A sum that CloudWatch would refuse is counted by its records."""
        with MemorySink() as sink:
            metrics.count("n", 2**360)
            metrics.count("n", 2**360)

        assert [] == sink.points("n")
        assert {"value": 2} == recorder.snapshot()["dropped"]


def grouped(records):
    """Return what `buffer._simple` says of *records*, added up one by one."""
    groups = {}
    for series, value in records:
        groups.setdefault(series, []).append(value)
    return [
        (series, sum(values) if series.kind == "count" else values[-1], len(values))
        for series, values in groups.items()
    ]


class Meanwhile(list):
    """Records, to which another thread adds one while they are counted."""

    def count(self, value):
        self.append(value)
        return super().count(value)


class TestSimple:
    """Records of the value 1 are added up without a look at each of them."""

    A, B, G = (
        (buffer.Series("ns", kind, name, "Count", ()), 1)
        for kind, name in (("count", "a"), ("count", "b"), ("gauge", "g"))
    )

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_it_is_what_a_look_at_each_finds(self, size):
        """Of one series and of several, with other values in between."""
        more = [(self.A[0], 5), (self.A[0], 1.0), (self.A[0], 0.5)]
        for records in itertools.product([self.A, self.B, self.G, *more], repeat=size):
            found = buffer._simple([*records], size)

            assert grouped(records) == found

    @pytest.mark.parametrize("last", [A, B, (A[0], 5)])
    def test_what_comes_in_meanwhile_is_not_taken_for_what_is_there(self, last):
        """A record of another thread does not stand for one of another value."""
        records = Meanwhile([self.A, last, self.A])
        expected = grouped(records)

        assert expected == buffer._simple(records, 3)


class TestThreads:
    """Many threads, one buffer."""

    def test_sixteen_threads_lose_and_double_nothing(self, capfd):
        """16 threads that count 5,000 each make exactly 80,000 on stdout."""
        run_threads(16, lambda _: [metrics.count("n") for _ in range(5_000)])
        metrics.flush()

        assert 80_000 == emf_rules.total(capfd.readouterr().out, "n")
        assert 80_000 == recorder.snapshot()["recorded"]

    def test_flushes_in_the_middle_lose_and_double_nothing(self, capfd):
        """12 threads count and distribute while four flush: every record once."""

        def body(index):
            for i in range(2_000):
                if index < 12:
                    metrics.count("n")
                    metrics.distribution("d", i, thread=index)
                elif i % 10 == 0:
                    metrics.flush()

        results = run_threads(16, body)
        metrics.flush()
        found = emf_rules.values(capfd.readouterr().out)

        assert [None] * 16 == results
        assert 24_000 == sum(sum(v) for key, v in found.items() if key[2] == "n")
        assert (
            sorted(sorted(v) for key, v in found.items() if key[2] == "d")
            == [sorted(range(2_000))] * 12
        )
        assert {} == recorder.snapshot()["dropped"]

    def test_flush_waits_for_what_another_thread_hands_over(self, monkeypatch):
        """When flush returns, a batch that another flush had taken has arrived."""
        monkeypatch.setattr(parcels, "WAIT_S", 60.0)
        gate = Gate()
        Metrics("ns", sink=gate).count("n", 7)
        other = threading.Thread(target=metrics.flush)
        other.start()
        assert gate.entered.wait(30)
        totals = []

        def second():
            metrics.flush()
            totals.append(gate.total())

        waiting = threading.Thread(target=second)
        waiting.start()
        gate.go_on.set()
        waiting.join(30)
        other.join(30)

        assert [7] == totals

    def test_flush_waits_for_a_line_that_another_thread_writes(self, monkeypatch):
        """At SIGTERM, say: what the handler's flush has begun is out first."""
        monkeypatch.setattr(parcels, "WAIT_S", 60.0)
        entered, go_on = threading.Event(), threading.Event()
        real = os.write

        def write(descriptor, data):
            entered.set()
            assert go_on.wait(60)
            return real(descriptor, data)

        with new_stdout(monkeypatch) as read:
            metrics.count("n")
            monkeypatch.setattr(os, "write", write)
            other = threading.Thread(target=metrics.flush)
            other.start()
            assert entered.wait(60)
            seen = []
            waiting = threading.Thread(
                target=lambda: (metrics.flush(), seen.append(read()))
            )
            waiting.start()
            waiting.join(0.2)  # a flush that does not wait would be done
            waits = waiting.is_alive()
            go_on.set()
            waiting.join(60)
            other.join(60)

        assert waits
        assert 1 == emf_rules.total(seen[0], "n")

    def test_flush_does_not_wait_for_ever(self, monkeypatch):
        """A sink that hangs in another thread delays a flush, not more."""
        monkeypatch.setattr(parcels, "WAIT_S", 0.01)
        gate = Gate()
        Metrics("ns", sink=gate).count("n")
        other = threading.Thread(target=metrics.flush)
        other.start()
        assert gate.entered.wait(30)
        with MemorySink() as sink:
            metrics.count("m", 2)
            metrics.flush()
            in_time = (sink.total("m"), gate.total())
        gate.go_on.set()
        other.join(30)

        assert (2, 0) == in_time
        assert 1 == gate.total()

    def test_flush_in_a_flush_of_the_same_thread_does_not_wait(self, monkeypatch):
        """A flush never waits for the one that it interrupts."""
        monkeypatch.setattr(parcels, "WAIT_S", 3_600.0)
        order = []

        class Nested:
            def accept(self, batch, /):
                order.append("begin")
                metrics.flush()
                order.append("end")

        Metrics("ns", sink=Nested()).count("n")
        metrics.flush()

        assert ["begin", "end"] == order


class TestReentrancy:
    """Recording in the middle of anything."""

    def test_flush_may_interrupt_anything(self, monkeypatch):
        """A handler that counts and flushes wherever one runs: all exactly once.

        Also in the middle of the first record, which joins the phases.
        """
        wrong = []
        position, places = 0, 1
        while position < places:
            found, places = self._with_a_flush_at(position, monkeypatch)
            if found != (111 if position < places else 101, 5):
                wrong.append((position, found))
            position += 1

        assert [] == wrong
        assert places > 100

    def _with_a_flush_at(self, position, monkeypatch):
        """Count and flush in a handler, once; return the sums and all places."""
        places = 0

        def handler():
            nonlocal places
            places += 1
            if places == position + 1:
                metrics.count("n", 10)
                metrics.flush()

        with new_stdout(monkeypatch) as read:
            with where_handlers_run(MODULES, handler):
                metrics.count("n", 1)
                metrics.distribution("d", 5)
                metrics.flush()
                threading.get_ident()  # the last place at which a handler runs
            metrics.count("n", 100)
            metrics.flush()
            text = read()
        return (emf_rules.total(text, "n"), emf_rules.total(text, "d")), places

    def test_line_that_a_handler_kept_back_needs_no_new_record(self, monkeypatch):
        """The next flush writes it, at SIGTERM also where nothing is recorded."""
        wrong = []
        for each in interruptions(MODULES):
            with new_stdout(monkeypatch) as read:
                metrics.count("n", 1)
                with each:
                    metrics.flush()
                    threading.get_ident()  # the last place at which a handler runs
                recorder._flush_first()
                text = "\n".join(line for line in read().split("\n") if line) + "\n"
            if emf_rules.total(text, "n") != 1:
                wrong.append((each, text))

        assert [] == wrong

    def test_handler_that_raises_in_a_flush_loses_and_doubles_nothing(
        self, monkeypatch
    ):
        """Its exception arrives, and what it interrupts comes out exactly once."""
        wrong = []
        places = 0
        for each in interruptions(MODULES):
            places += 1
            with new_stdout(monkeypatch) as read:
                metrics.count("n", 1)
                metrics.count("m", 2, tenant="a")
                metrics.distribution("d", 5)
                with each:
                    metrics.flush()
                    threading.get_ident()  # the last place at which a handler runs
                metrics.count("n", 100)
                metrics.flush()
                text = "\n".join(line for line in read().split("\n") if line) + "\n"
            found = [emf_rules.total(text, name) for name in "nmd"]
            if found != [101, 2, 5] or each.raised != each.happened:
                wrong.append((each, found, each.raised))

        assert [] == wrong
        assert places > 100
        assert {} == recorder.snapshot()["dropped"]

    @pytest.mark.parametrize("flushes", [False, True], ids=["raises", "flushes"])
    def test_sent_is_exact_where_a_handler_comes_between(self, flushes):
        """It says what the sink has, once each."""
        wrong = []
        action = metrics.flush if flushes else None
        for each in interruptions([buffer], action):
            recorder.reset()
            tally.reset()
            with MemorySink() as sink:
                metrics.count("n", 1)
                metrics.count("m", 1)
                with each:
                    metrics.flush()
                metrics.count("n", 1)
                metrics.flush()
                sent = recorder.snapshot()["sinks"]["MemorySink"].sent
                if (3, 3) != (sent, sink.total("n") + sink.total("m")):
                    wrong.append((each.where, sent))

        assert [] == wrong

    def test_exception_that_is_no_baseexception_arrives_too(self, monkeypatch):
        """A time-out guard of the user's raises an Exception, and it is not kept."""

        class TimeIsUp(Exception):
            """Of a guard."""

        counts = {"raised": 0, "arrived": 0}

        def handler(signum, frame):
            counts["raised"] += 1
            raise TimeIsUp

        def flush_until_interrupted():
            # A function of its own: in a `try` around the loop CPython 3.13 misses
            # what is raised at its jump.
            before = counts["raised"]
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            while counts["raised"] == before:
                metrics.flush()

        former = signal.signal(signal.SIGALRM, handler)
        recorded = 0
        # What dies of earlier tests has callbacks, in which Python ignores
        # exceptions, those of signal handlers included.
        gc.collect()
        gc.disable()
        try:
            with new_stdout(monkeypatch) as read:
                text = ""
                while counts["raised"] < 300:
                    try:
                        flush_until_interrupted()
                    except TimeIsUp:
                        counts["arrived"] += 1
                    metrics.distribution("d", 1)
                    recorded += 1
                    text += read()
                metrics.flush()
                text += read()
        finally:
            gc.enable()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)

        assert counts["arrived"] == counts["raised"]
        assert emf_rules.total(text, "d") == recorded
        assert {} == recorder.snapshot()["dropped"]

    def test_handler_that_raises_in_a_record_records_once_or_not_at_all(
        self, monkeypatch
    ):
        """What is recorded afterwards comes out exactly once."""
        found = []
        for each in interruptions(MODULES):
            with new_stdout(monkeypatch) as read:
                with each:
                    metrics.count("n", 1)
                    threading.get_ident()  # the last place at which a handler runs
                metrics.count("n", 100)
                metrics.flush()
                found.append(emf_rules.total(read(), "n"))
            assert each.raised == each.happened

        assert {*found} <= {100, 101}
        assert len(found) > 50

    def test_signal_handlers_lose_and_double_nothing(self):
        """300 handlers, and a second thread, count and flush at the same time."""
        handled = 0

        def handle(*_):
            nonlocal handled
            handled += 1
            metrics.count("in_handler")
            metrics.flush()
            signal.setitimer(signal.ITIMER_REAL, 0.0003)

        stop = threading.Event()
        counts = []

        def elsewhere():
            while not stop.is_set():
                metrics.count("elsewhere")
                metrics.flush()
                counts.append(1)

        counted = 0
        thread = threading.Thread(target=elsewhere)
        sink = MemorySink()
        recorder.install(sink)
        former = signal.signal(signal.SIGALRM, handle)
        thread.start()
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0003)
            while handled < 300:
                metrics.count("outside")
                counted += 1
                if counted % 7 == 0:
                    metrics.flush()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
            stop.set()
            thread.join(30)
        metrics.flush()

        assert sink.total("in_handler") == handled
        assert sink.total("outside") == counted
        assert sink.total("elsewhere") == len(counts)
        assert recorder.snapshot()["recorded"] == handled + counted + len(counts)

    def test_finalizer_may_record_while_a_flush_runs(self):
        """An object that dies inside a flush records into the next one."""

        class Dying:
            def __del__(self):
                metrics.count("died")

        class Name(str):
            __slots__ = ("held",)

        with MemorySink() as sink:
            for i in range(100):
                name = Name(f"n{i}")
                name.held = Dying()
                metrics.count(name)
                del name
            metrics.flush()
            metrics.flush()

        assert 100 == sum(sink.total(f"n{i}") for i in range(100))
        assert 100 == sink.total("died")

    def test_sink_may_record(self):
        """What a sink records while it works comes with the next flush."""

        class Counting(MemorySink):
            def accept(self, batch, /):
                super().accept(batch)
                if batch.namespace == "first":
                    again.count("batches")

        sink = Counting()
        again = Metrics("again", sink=sink)
        Metrics("first", sink=sink).count("n")
        metrics.flush()
        metrics.flush()

        assert (1, 1) == (sink.total("n"), sink.total("batches"))

    def test_batch_whose_sink_was_interrupted_is_offered_again(self):
        """As the same object, so that the sink can tell; others come once."""

        class Guarded:
            def __init__(self):
                self.offered = []

            def accept(self, batch, /):
                self.offered.append(batch)
                if len(self.offered) == 1:
                    signal.raise_signal(signal.SIGALRM)

        def handler(signum, frame):
            raise Interrupted

        sink = Guarded()
        Metrics("ns", sink=sink).count("n", 3)
        former = signal.signal(signal.SIGALRM, handler)
        try:
            with pytest.raises(Interrupted):
                metrics.flush()
        finally:
            signal.signal(signal.SIGALRM, former)
        metrics.flush()
        metrics.flush()

        first, second = sink.offered
        assert first is second
        assert {} == recorder.snapshot()["dropped"]


@pytest.mark.logs
class TestSinkThatFails:
    """A sink that raises disturbs neither the handler nor the other sinks."""

    def test_it_is_counted_and_others_get_theirs(self, caplog):
        """The batch is counted as dropped, logged once, and the next sink served."""

        class Broken:
            def accept(self, batch, /):
                raise RuntimeError("no")

        broken = Metrics("broken", sink=Broken())
        with MemorySink() as sink:
            for _ in range(2):
                broken.count("n")
                broken.count("n")
                broken.distribution("d", 1)
                metrics.count("m")
                metrics.flush()

        assert {"sink": {"n": 4, "d": 2}} == recorder.snapshot()["dropped_by_name"]
        assert 2 == sink.total("m")
        first, *numbers = [record.getMessage() for record in caplog.records]
        assert first.startswith("lambda_ext.metric_dropped reason=sink: ")
        assert "Broken raised Traceback" in first
        assert first.endswith("RuntimeError: no")
        assert [
            "lambda_ext.metrics_dropped number=3",
            "lambda_ext.metrics_dropped number=3",
        ] == [line.split(" {")[0] for line in numbers]

    @pytest.mark.parametrize(
        "kind", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit]
    )
    def test_baseexception_of_a_sink_is_counted_and_goes_no_further(self, kind):
        """It does not end the runtime; later flushes and other sinks work."""

        class Cancelled:
            def accept(self, batch, /):
                raise kind

        mine = Metrics("ns", sink=Cancelled())
        with MemorySink() as sink:
            for _ in range(2):
                mine.count("n")
                metrics.count("m")
                metrics.flush()

        assert {"sink": 2} == recorder.snapshot()["dropped"]
        assert 2 == sink.total("m")

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
    def test_value_that_raises_is_counted_and_blocks_nothing(self, kind):
        """A value whose __float__ raises is dropped, and later flushes work."""

        class Value:
            def __float__(self):
                raise kind

        with MemorySink(strict=False) as sink:
            metrics.distribution("bad", Value())
            for _ in range(2):
                metrics.count("n")
                metrics.flush()

        assert 2 == sink.total("n")
        assert 1 == sum(recorder.snapshot()["dropped"].values())

    def test_bug_of_ours_does_not_reach_the_caller(self, monkeypatch, caplog):
        """It is logged, not raised; its records are counted, not tried for ever."""
        metrics.count("n")
        with monkeypatch.context() as patch:
            patch.setattr(emf.EmfSink, "encode", lambda *_: 1 // 0)
            patch.setattr(parcels, "_parcels", lambda *_: 1 // 0)
            metrics.flush()
        with MemorySink() as sink:
            metrics.count("n", 2)

        assert "lambda_ext.flush_failed" in caplog.text
        assert {"internal": 1} == recorder.snapshot()["dropped"]
        assert 2 == sink.total("n")


class TestBacklog:
    """A sink that keeps something is asked again."""

    def test_next_flush_calls_it_without_points(self):
        """While `backlog` is true each flush calls, also when nothing is new."""

        class Keeping:
            def __init__(self):
                self.calls = []
                self.backlog = True

            def accept(self, batch, /):
                self.calls.append(len(batch.points))
                self.backlog = len(self.calls) < 3

        sink = Keeping()
        Metrics("ns", sink=sink).count("n")
        for _ in range(5):
            metrics.flush()

        assert [1, 0, 0] == sink.calls

    def test_sink_of_two_is_asked_once(self):
        """A sink that several Metrics share is not asked once for each."""

        class Keeping:
            def __init__(self):
                self.calls = 0
                self.backlog = True

            def accept(self, batch, /):
                self.calls += 1

        sink = Keeping()
        for namespace in ("one", "two", "three"):
            Metrics(namespace, sink=sink).count("n")
        calls = []
        for _ in range(3):
            metrics.flush()
            calls.append(sink.calls)

        assert [3, 4, 5] == calls


class TestBounds:
    """Memory is bounded by count."""

    def test_full_buffer_flushes(self):
        """50,000 records without a flush leave few behind, and lose nothing."""
        with MemorySink() as sink:
            for i in range(50_000):
                metrics.count("n", i)
                taken = sum([point.samples for point in sink.points("n")])
                assert i + 1 - taken <= buffer.MAX_RECORDS

        assert sink.total("n") == sum(range(50_000))
        assert 5 == len(sink.points("n"))

    def test_gauge_is_the_last_of_each_flush(self):
        """The order of what was set is kept."""
        with MemorySink() as sink:
            for i in range(25_000):
                metrics.gauge("g", i)

        assert [10_000, 20_001, 24_999] == sink.values("g")

    @pytest.mark.logs
    def test_many_values_and_series_lose_nothing(self):
        """200,000 values of a distribution and 30,000 series all come out."""
        with MemorySink() as sink:
            for i in range(200_000):
                metrics.distribution("d", i)
            for i in range(30_000):
                metrics.count("n", tenant=i)

        assert 200_000 == len(sink.values("d"))
        assert sum(sink.values("d")) == sum(range(200_000))
        assert 30_000 == len(sink.points("n"))
        assert {} == recorder.snapshot()["dropped"]

    @pytest.mark.logs
    def test_dimension_with_many_values_is_noted_once(self, caplog):
        """Each value is billed as a metric of its own, which the log says."""
        with MemorySink():
            for i in range(15_000):
                metrics.count("n", user=str(i), shop=str(i % 3))
        notes = [r.getMessage() for r in caplog.records if "note" in r.getMessage()]

        assert [
            (
                "lambda_ext.many_series note: 'user' has 501 values so far; each is a"
                " billed metric"
            )
        ] == notes

    @pytest.mark.logs
    @pytest.mark.parametrize(("number", "notes"), [(500, 0), (600, 1), (5_000, 1)])
    @pytest.mark.parametrize("how", ["count", "scope", "scope of a scope"])
    def test_values_above_five_hundred_are_noted(self, how, number, notes, caplog):
        """Also where each value has a scope of its own."""
        for i in range(number):
            if how == "count":
                metrics.count("n", user=i)
            elif how == "scope":
                metrics.scope(user=i, shop="a").count("n")
            else:
                metrics.scope(user=i).scope(shop=f"shop {i % 7}").count("n")
        metrics.flush()

        assert notes == caplog.text.count("lambda_ext.many_series note: 'user' has 501")
        assert notes == caplog.text.count("lambda_ext.many_series")

    def test_batches_are_bounded(self):
        """A large flush comes in several batches, and every point in one."""
        with MemorySink() as sink:
            for i in range(900):
                metrics.count(f"n{i}")

        assert [500, 400] == [len(batch.points) for batch in sink.batches]

    def test_record_in_a_flush_does_not_flush_again(self):
        """A sink that records while the buffer is full does not recurse."""

        class Counting(MemorySink):
            def accept(self, batch, /):
                super().accept(batch)
                for _ in range(20):
                    metrics.count("again")

        config.configure(flush_every=10)
        with Counting() as sink:
            for _ in range(30):
                metrics.count("n")

        assert 30 == sink.total("n")

    @pytest.mark.logs
    def test_sink_that_hangs_is_bounded(self, monkeypatch):
        """What waits for a sink in another thread is dropped, oldest first."""
        monkeypatch.setattr(parcels, "WAIT_S", 0.001)
        monkeypatch.setattr(parcels, "MAX_WAITING", 30)
        gate = Gate()
        mine = Metrics("ns", sink=gate)
        mine.count("n", 1_000)
        other = threading.Thread(target=metrics.flush)
        other.start()
        assert gate.entered.wait(30)
        for _ in range(10):
            for _ in range(10):
                mine.count("n")
            metrics.flush()
        gate.go_on.set()
        other.join(30)
        metrics.flush()

        dropped = recorder.snapshot()["dropped"]["overflow"]
        assert 60 <= dropped <= 80
        assert gate.total() == 1_000 + 100 - dropped


class TestEnd:
    """The flushes of a shutdown."""

    @pytest.mark.logs
    def test_what_the_time_does_not_allow_is_counted(self, caplog):
        """At the end as many batches as fit, the rest counted and told in a line."""
        with FakeClock() as clock:

            class Slow:
                def __init__(self):
                    self.points = 0

                def accept(self, batch, /):
                    self.points += len(batch.points)
                    clock.advance(0.05)

            sink = Slow()
            mine = Metrics("ns", sink=sink)
            for i in range(5_000):
                mine.count("n", tenant=str(i))
            phases.call(phases.SHUTDOWN)

        assert 1_500 <= sink.points < 5_000
        assert recorder.snapshot()["dropped_by_name"] == {
            "shutdown": {"n": 5_000 - sink.points}
        }
        assert f"metrics_dropped number={5_000 - sink.points} " in caplog.text

    def test_what_is_recorded_after_the_end_is_flushed_at_once(self):
        """As by callbacks of atexit that run after ours."""
        with MemorySink() as sink:
            metrics.count("n", 1)
            phases.call(phases.SHUTDOWN)
            metrics.count("n", 10)
            after = sink.total("n")
            metrics.gauge("g", 5)
            gauge = sink.values("g")

        assert (11, [5]) == (after, gauge)

    @pytest.mark.parametrize(
        "changed",
        [{"service": "shop"}, {"flush_every": 100}, {"flush_every": "5s"}],
        ids=["service", "number", "time"],
    )
    def test_options_that_change_after_the_end_do_not_delay_it(self, changed):
        """Such a callback may configure, too."""
        sink = MemorySink()
        config.configure(sinks=[sink])
        metrics.count("n", 1)
        phases.call(phases.SHUTDOWN)
        config.configure(**changed)
        metrics.count("n", 10)

        assert 11 == sink.total("n")

    @pytest.mark.parametrize(
        "before",
        ["", "lambda_ext.handler(print)", "lambda_ext.on_shutdown(lambda: None)"],
        ids=["nothing", "handler", "callback"],
    )
    def test_first_records_may_come_after_the_end(self, before):
        """Metrics that only a callback of atexit records are written at once."""
        done = python(
            f"""
import atexit, lambda_ext
from lambda_ext import metrics

atexit.register(lambda: [metrics.count(name) for name in ("n", "m", "n")])
{before}
"""
        )

        assert [2, 1] == [emf_rules.total(done.stdout, name) for name in ("n", "m")]

    @pytest.mark.process
    def test_child_that_is_forked_after_the_end_does_not_delay_it(self):
        """No flush comes in it, either."""
        done = python(
            "import atexit, os\n"
            "from lambda_ext import metrics\n"
            "def late():\n"
            "    child = os.fork()\n"
            "    if child:\n"
            "        os.waitpid(child, 0)\n"
            "    else:\n"
            "        metrics.count('child')\n"
            "atexit.register(late)\n"
            "metrics.count('parent')\n"
        )

        names = ("parent", "child")
        assert [1, 1] == [emf_rules.total(done.stdout, name) for name in names]

    @pytest.mark.logs
    def test_lines_that_stdout_never_takes_are_counted(self, monkeypatch):
        """A stdout that takes nothing until the end: counted by name."""

        def write(*_):
            raise BlockingIOError

        monkeypatch.setattr(stdout.Writer, "_writable", lambda *_: False)
        with new_stdout(monkeypatch):
            monkeypatch.setattr(os, "write", write)
            metrics.count("n", 3)
            metrics.count("n", 3)
            phases.call(phases.SHUTDOWN)

        assert {"shutdown": {"n": 2}} == recorder.snapshot()["dropped_by_name"]

    @pytest.mark.parametrize("usual", [True, False], ids=["usual", "by parcels"])
    def test_line_that_another_thread_has_begun_meanwhile_is_not_lost(
        self, monkeypatch, usual
    ):
        """A handler that goes on recording writes while the last flush gives up."""
        monkeypatch.setattr(recorder, "LAST_S", 60.0)
        entered, go_on = threading.Event(), threading.Event()
        other = threading.Thread(target=metrics.count, args=("loop",))
        real_write, real_deliver = os.write, parcels._deliver
        real_usual = buffer.Buffer._write

        def write(descriptor, data):
            if threading.current_thread() is other:
                entered.set()
                assert go_on.wait(60)
            return real_write(descriptor, data)

        def usually(records):
            if threading.current_thread() is other:
                return real_usual(records)
            if usual:
                assert real_usual(records)
                begin(records.outlets[0])
            return usual

        def deliver(records, ends_at):
            real_deliver(records, ends_at)
            if not usual:
                begin(records.outlets[0])

        def begin(outlet):
            def acquire(*args):
                go_on.set()  # the line comes out while this thread waits for it
                return outlet.lock.acquire(*args)

            other.start()
            assert entered.wait(60)
            outlet.acquire = acquire

        with new_stdout(monkeypatch) as read:
            metrics.count("n")
            monkeypatch.setattr(os, "write", write)
            monkeypatch.setattr(parcels, "_deliver", deliver)
            monkeypatch.setattr(buffer.Buffer, "_write", usually)
            recorder._flush_last()
            go_on.set()
            other.join(60)
            written = read()

        assert {} == recorder.snapshot()["dropped"]
        assert (1, 1) == tuple(emf_rules.total(written, name) for name in ("n", "loop"))


@pytest.mark.process
class TestFork:
    """A forked child."""

    def test_child_writes_only_what_it_recorded(self):
        """Each of parent and child writes its own records, once."""
        done = python(
            "import os, threading, warnings\n"
            "from lambda_ext import metrics\n"
            "from lambda_ext.metrics import recorder\n"
            "warnings.simplefilter('ignore')  # of a fork beside a thread\n"
            "metrics.count('parent')\n"
            "held = threading.Event()\n"
            "def hold():\n"
            "    with recorder._buffer._adding, recorder._buffer.outlets[0].lock:\n"
            "        held.set()\n"
            "        go_on.wait()\n"
            "go_on = threading.Event()\n"
            "thread = threading.Thread(target=hold)\n"
            "thread.start()\n"
            "held.wait()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    metrics.count('child')\n"
            "    metrics.flush()\n"
            "    os._exit(recorder.snapshot()['recorded'])\n"
            "status = os.waitpid(child, 0)[1]\n"
            "go_on.set()\n"
            "thread.join()\n"
            "metrics.flush()\n"
            "assert os.waitstatus_to_exitcode(status) == 1, status\n"
        )

        assert (0, "") == (done.returncode, done.stderr)
        documents = emf_rules.documents(done.stdout)
        assert [
            {"child"},
            {"parent"},
        ] == [set(d) & {"parent", "child"} for d in documents]
