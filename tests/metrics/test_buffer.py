"""Nothing recorded is lost or doubled, whoever interrupts whom."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

import emf_rules
import pytest
from helpers import python, run_threads
from interruptions import before_each_instruction

from lambda_ext import Metrics, config, metrics
from lambda_ext.lifecycle import clock, phases
from lambda_ext.metrics import buffer, emf, recorder, tally, validation
from lambda_ext.testing import MemorySink

MODULES = (buffer, clock, config, emf, phases, recorder, tally, validation)


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


def interrupted(monkeypatch, position, handler):
    """Run `interrupt` on a thread of its own.

    An exception between two instructions of an ``except`` leaves the thread
    with an exception that Python takes for the current one, for ever after.
    """
    (result,) = run_threads(1, lambda _: interrupt(monkeypatch, position, handler))
    if isinstance(result, BaseException):
        raise result
    return result


def interrupt(monkeypatch, position, handler):
    """Count 1, distribute 5 and flush, calling *handler* before one instruction.

    Then count 100 and flush.  Returns the totals, and how many instructions
    there are.  Such a handler is what a signal handler is, but exact.
    """
    recorder.reset()
    phases.reset()
    seen = 0

    def instruction():
        nonlocal seen
        seen += 1
        if seen == position:
            handler()

    with monkeypatch.context() as patch:
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as stream, os.fdopen(reader) as source:
            patch.setattr(sys, "stdout", stream)
            with contextlib.suppress(KeyboardInterrupt):
                with before_each_instruction(MODULES, instruction):
                    metrics.count("n", 1)
                    metrics.distribution("d", 5)
                    metrics.flush()
            metrics.flush()
            metrics.count("n", 100)
            metrics.flush()
            stream.close()
            lines = [line for line in source.read().splitlines() if line]
    text = "".join(f"{line}\n" for line in lines)
    return {name: emf_rules.total(text, name) for name in "nd"}, seen


class TestSums:
    """What belongs together is added up."""

    def test_equal_series_is_one_point(self):
        """Counts of equal name, unit and dimensions come out as their sum."""
        with MemorySink() as sink:
            metrics.count("n", 1, a="x", b="y")
            metrics.count("n", 2, b="y", a="x")
            metrics.count("n", 4, dimensions={"a": "x"}, b="y")

        (point,) = sink.points("n")
        assert (point.values, point.samples) == ([7], 3)
        assert point.dimensions == (
            ("service", "unknown_service"),
            ("a", "x"),
            ("b", "y"),
        )

    def test_other_unit_or_kind_is_another_point(self):
        """Name alone does not make two series one."""
        with MemorySink() as sink:
            metrics.count("n", 1)
            metrics.count("n", 2, unit="Bytes")
            metrics.gauge("n", 3, unit="Bytes")
            metrics.distribution("n", 4, unit="Bytes")

        assert [point.values for point in sink.points("n")] == [[1], [2], [3], [4]]

    def test_equal_looking_values_of_other_types_are_told_apart(self):
        """1, True and "1" are equal or look so; only what is valid is taken."""
        with MemorySink() as sink:
            metrics.count("n", 1, status=1)
            metrics.count("n", 2, status="1")

        assert [point.values for point in sink.points("n", status="1")] == [[3]]

    @pytest.mark.logs
    @pytest.mark.parametrize("order", [(1, True), (True, 1)])
    def test_true_is_not_taken_for_one(self, order):
        """A dimension of True is refused, also when 1 was accepted before."""
        with MemorySink() as sink:
            for status in order:
                metrics.count("n", 1, status=status)

        assert sink.total("n", status="1") == 1
        assert recorder.snapshot()["dropped"] == {"dimension_value": 1}

    def test_gauge_keeps_the_last_value(self):
        """Of a gauge only what it was set to last is written."""
        with MemorySink() as sink:
            for value in (5, 3, 4):
                metrics.gauge("g", value)

        (point,) = sink.points("g")
        assert (point.values, point.samples) == ([4], 3)

    def test_distribution_keeps_every_value(self):
        """Of a distribution every value is written, in order."""
        with MemorySink() as sink:
            for value in (5, 3, 5):
                metrics.distribution("d", value)

        assert sink.values("d") == [5, 3, 5]

    def test_mutable_argument_is_read_when_it_is_recorded(self):
        """Changing the dict of dimensions afterwards changes nothing."""
        dimensions = {"a": "x"}
        with MemorySink() as sink:
            metrics.count("n", dimensions=dimensions)
            dimensions["a"] = "y"

        assert sink.total("n", a="x") == 1

    @pytest.mark.logs
    def test_sum_that_grows_too_large_is_dropped(self):
        """A sum that CloudWatch would refuse is counted by its records."""
        with MemorySink() as sink:
            metrics.count("n", 2**360)
            metrics.count("n", 2**360)

        assert sink.points("n") == []
        assert recorder.snapshot()["dropped"] == {"value": 2}


class TestThreads:
    """Many threads, one buffer."""

    def test_sixteen_threads_lose_and_double_nothing(self, capfd):
        """16 threads that count 5,000 each make exactly 80,000 on stdout."""
        run_threads(16, lambda _: [metrics.count("n") for _ in range(5_000)])
        metrics.flush()

        assert emf_rules.total(capfd.readouterr().out, "n") == 80_000
        assert recorder.snapshot()["recorded"] == 80_000

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

        assert results == [None] * 16
        assert sum(sum(v) for key, v in found.items() if key[2] == "n") == 24_000
        assert (
            sorted(sorted(v) for key, v in found.items() if key[2] == "d")
            == [sorted(range(2_000))] * 12
        )
        assert recorder.snapshot()["dropped"] == {}

    def test_flush_waits_for_what_another_thread_hands_over(self, monkeypatch):
        """When flush returns, a batch that another flush had taken has arrived."""
        monkeypatch.setattr(buffer, "WAIT_S", 60.0)
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

        assert totals == [7]

    def test_flush_waits_for_what_another_thread_adds_up(self, monkeypatch):
        """A flush also waits for the thread that is compacting, and takes it all."""
        monkeypatch.setattr(buffer, "WAIT_S", 60.0)
        adding, go_on = threading.Event(), threading.Event()
        real = buffer._book

        def slow(totals, record):
            if threading.current_thread() is compacting:
                adding.set()
                assert go_on.wait(30)
            real(totals, record)

        with MemorySink() as sink:
            metrics.count("n", 7)
            monkeypatch.setattr(buffer, "_book", slow)
            compacting = threading.Thread(target=recorder._buffer.compact)
            compacting.start()
            assert adding.wait(30)
            flushing = threading.Thread(target=metrics.flush)
            flushing.start()
            go_on.set()
            flushing.join(30)
            compacting.join(30)
            in_time = sink.total("n")

        assert in_time == 7

    def test_flush_takes_what_another_thread_added_up_meanwhile(self, monkeypatch):
        """A compaction that ends while the flush hands over is not overlooked."""
        adding, go_on = threading.Event(), threading.Event()
        real = buffer._book

        def slow(totals, record):
            if threading.current_thread() is compacting:
                adding.set()
                assert go_on.wait(30)
            real(totals, record)

        class Sink(MemorySink):
            def accept(self, batch, /):
                super().accept(batch)
                go_on.set()
                compacting.join(30)

        with Sink() as sink:
            metrics.count("n", 7)
            monkeypatch.setattr(buffer, "_book", slow)
            compacting = threading.Thread(target=recorder._buffer.compact)
            compacting.start()
            assert adding.wait(30)
            metrics.count("n", 1)
            metrics.flush()
            in_time = sink.total("n")

        assert in_time == 8

    def test_flush_does_not_wait_for_ever(self, monkeypatch):
        """A sink that hangs in another thread delays a flush, not more."""
        monkeypatch.setattr(buffer, "WAIT_S", 0.01)
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

        assert in_time == (2, 0)
        assert gate.total() == 1

    def test_flush_in_a_flush_of_the_same_thread_does_not_wait(self, monkeypatch):
        """A flush never waits for the one that it interrupts."""
        monkeypatch.setattr(buffer, "WAIT_S", 3_600.0)
        order = []

        class Nested:
            def accept(self, batch, /):
                order.append("begin")
                metrics.flush()
                order.append("end")

        Metrics("ns", sink=Nested()).count("n")
        metrics.flush()

        assert order == ["begin", "end"]


class TestReentrancy:
    """Recording in the middle of anything."""

    def test_flush_may_interrupt_any_instruction(self, monkeypatch):
        """A handler that counts and flushes at any instruction: all exactly once.

        Also in the middle of the first record, which joins the phases.
        """

        def handler():
            metrics.count("n", 10)
            metrics.flush()

        wrong = []
        position = seen = 1
        while position <= seen:
            found, seen = interrupted(monkeypatch, position, handler)
            if found != {"n": 111, "d": 5} and position <= seen:
                wrong.append((position, found))
            position += 1

        assert wrong == []
        assert seen > 1_000

    def test_exception_may_interrupt_any_instruction(self, monkeypatch):
        """A handler that raises at any instruction leaves everything working.

        What it interrupts may come out, or not, in a few places twice; what
        is recorded afterwards comes out exactly once.
        """

        def handler():
            raise KeyboardInterrupt

        found = [
            interrupted(monkeypatch, position, handler)[0]
            for position in range(1, interrupted(monkeypatch, 0, handler)[1], 3)
        ]

        assert {one["n"] for one in found} <= {100, 101, 102}
        assert {one["d"] for one in found} <= {0, 5, 10}
        assert sum(one["n"] > 101 or one["d"] > 5 for one in found) < len(found) / 50
        assert sum(one == {"n": 101, "d": 5} for one in found) > len(found) / 3

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

        assert sum(sink.total(f"n{i}") for i in range(100)) == 100
        assert sink.total("died") == 100

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

        assert (sink.total("n"), sink.total("batches")) == (1, 1)

    def test_handler_that_raises_in_a_flush_loses_nothing(self, monkeypatch):
        """What a flush had taken when KeyboardInterrupt came is flushed next."""
        real = buffer._batched

        def interrupted_batches(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(buffer, "_batched", interrupted_batches)
        with MemorySink() as sink:
            metrics.count("n", 3)
            with pytest.raises(KeyboardInterrupt):
                metrics.flush()
            monkeypatch.setattr(buffer, "_batched", real)

        assert sink.total("n") == 3
        assert recorder._buffer._holders == {}

    def test_handler_that_raises_between_two_records_loses_none(self, monkeypatch):
        """What was added up before the exception, and the record at hand, stay."""
        real = buffer._book
        booked = []

        def book(totals, record):
            booked.append(record)
            if len(booked) == 2:
                raise KeyboardInterrupt
            real(totals, record)

        with MemorySink() as sink:
            for value in (1, 10, 100):
                metrics.count("n", value)
            monkeypatch.setattr(buffer, "_book", book)
            with pytest.raises(KeyboardInterrupt):
                metrics.flush()

        assert sink.total("n") == 111


@pytest.mark.logs
class TestSinkThatFails:
    """A sink that raises is felt by nobody."""

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

        assert recorder.snapshot()["dropped"] == {"sink": 6}
        assert sink.total("m") == 2
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith("lambda_ext.metric_dropped reason=sink sink=")
        assert "Broken\nTraceback " in message

    def test_bug_of_ours_does_not_reach_the_caller(self, monkeypatch, caplog):
        """Whatever goes wrong in a flush is logged, not raised."""
        metrics.count("n")
        monkeypatch.setattr(buffer, "_batched", lambda *_: 1 // 0)
        metrics.flush()

        assert "lambda_ext.flush_failed" in caplog.text


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

        assert sink.calls == [1, 0, 0]

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

        assert calls == [3, 4, 5]


class TestBounds:
    """Memory is bounded by count."""

    def test_many_records_are_added_up_while_recording(self):
        """50,000 records without a flush leave few behind, and lose nothing."""
        with MemorySink() as sink:
            for i in range(50_000):
                metrics.count("n", i)
                assert len(recorder._buffer.records) <= buffer.MAX_RECORDS
            assert len(recorder._buffer._totals) < 50

        assert sink.total("n") == sum(range(50_000))

    def test_gauge_is_still_the_last_after_adding_up(self):
        """Adding up keeps the order of what was set."""
        with MemorySink() as sink:
            for i in range(25_000):
                metrics.gauge("g", i)

        assert sink.values("g") == [24_999]

    @pytest.mark.logs
    def test_too_many_series_are_dropped_and_counted(self, monkeypatch):
        """Past the bound new series are dropped, old ones go on."""
        monkeypatch.setattr(buffer, "MAX_SERIES", 10)
        with MemorySink() as sink:
            for _ in range(2):
                for i in range(15):
                    metrics.count("n", tenant=i)

        assert len(sink.points("n")) == 10
        assert recorder.snapshot()["dropped"] == {"overflow": 10}

    @pytest.mark.logs
    def test_too_many_values_are_dropped_and_counted(self, monkeypatch):
        """Past the bound values of distributions are dropped."""
        monkeypatch.setattr(buffer, "MAX_VALUES", 10)
        with MemorySink() as sink:
            for i in range(15):
                metrics.distribution("d", i)
            metrics.count("n")

        assert sink.values("d") == list(range(10))
        assert sink.total("n") == 1
        assert recorder.snapshot()["dropped"] == {"overflow": 5}


@pytest.mark.process
class TestFork:
    """A forked child."""

    def test_child_writes_only_what_it_recorded(self):
        """Each of parent and child writes its own records, once."""
        done = python(
            "import os, threading\n"
            "from lambda_ext import metrics\n"
            "from lambda_ext.metrics import recorder\n"
            "metrics.count('parent')\n"
            "token = threading.Lock()\n"
            "recorder._buffer._hold(token)\n"
            "recorder._sink._writer[0] = 1\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    metrics.count('child')\n"
            "    metrics.flush()\n"
            "    os._exit(recorder.snapshot()['recorded'])\n"
            "status = os.waitpid(child, 0)[1]\n"
            "recorder._sink._writer.clear()\n"
            "metrics.flush()\n"
            "assert os.waitstatus_to_exitcode(status) == 1, status\n"
        )

        assert (done.returncode, done.stderr) == (0, "")
        documents = emf_rules.documents(done.stdout)
        assert [set(d) & {"parent", "child"} for d in documents] == [
            {"child"},
            {"parent"},
        ]
