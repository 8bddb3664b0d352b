"""Metrics as a user records them, and when they are flushed."""

from __future__ import annotations

import _weakrefset
import asyncio
import contextlib
import os
import threading

import emf_rules
import pytest
from helpers import python, run_threads
from interruptions import interruptions

import lambda_ext
from lambda_ext import Metrics, configure, metrics
from lambda_ext.exceptions import ConfigurationError, MetricError
from lambda_ext.lifecycle import clock, phases
from lambda_ext.metrics import recorder, tally
from lambda_ext.testing import FakeClock, MemorySink


def written(capfd):
    """Flush, and return the documents on stdout."""
    metrics.flush()
    return emf_rules.documents(capfd.readouterr().out)


def counted():
    """Return the snapshot without the sinks."""
    found = recorder.snapshot()
    del found["sinks"]
    return found


class TestNamespaceAndService:
    """Where the namespace and the dimension ``service`` come from."""

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, ("lambda_ext", "unknown_service")),
            ({"AWS_LAMBDA_FUNCTION_NAME": "fn"}, ("fn", "fn")),
            (
                {
                    "AWS_LAMBDA_FUNCTION_NAME": "fn",
                    "POWERTOOLS_METRICS_NAMESPACE": "pn",
                    "POWERTOOLS_SERVICE_NAME": "ps",
                },
                ("pn", "ps"),
            ),
            (
                {
                    "POWERTOOLS_METRICS_NAMESPACE": "pn",
                    "POWERTOOLS_SERVICE_NAME": "ps",
                    "LAMBDA_EXT_METRICS_NAMESPACE": "ns",
                    "LAMBDA_EXT_SERVICE": "s",
                },
                ("ns", "s"),
            ),
        ],
        ids=["none", "function", "powertools", "own"],
    )
    def test_first_source_wins(self, monkeypatch, capfd, environment, expected):
        """Our variable, then Powertools', then the function's name."""
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        metrics.count("n")
        (document,) = written(capfd)
        (directive,) = document["_aws"]["CloudWatchMetrics"]

        assert (directive["Namespace"], document["service"]) == expected

    def test_argument_wins(self, monkeypatch):
        """What is given to Metrics comes before every variable."""
        monkeypatch.setenv("LAMBDA_EXT_METRICS_NAMESPACE", "ns")
        monkeypatch.setenv("LAMBDA_EXT_SERVICE", "s")
        sink = MemorySink()
        Metrics("mine", service="me", sink=sink).count("n")
        metrics.flush()

        assert "mine" == sink.batches[0].namespace
        assert 1 == sink.total("n", service="me")

    def test_configure_has_an_effect_on_the_next_flush(self):
        """configure() replaces what was read before."""
        with MemorySink() as sink:
            metrics.count("n")
            metrics.flush()
            configure(namespace="other", service="cart")
            metrics.count("n")

        assert ["lambda_ext", "other"] == [batch.namespace for batch in sink.batches]
        assert 1 == sink.total("n", service="cart")

    def test_metrics_that_are_made_while_options_change_harm_nothing(self):
        """A thread may make one, as each scope does, at any place of configure()."""
        metrics.count("n")
        kept, runs = [], 0
        for interruption in interruptions(
            [recorder, _weakrefset], lambda: kept.append(Metrics("other"))
        ):
            kept.clear()
            with interruption:
                configure(service="shop")
            runs += len(kept)

        assert runs > 5

    @pytest.mark.parametrize("hashed", [True, False])
    def test_metrics_that_are_equal_follow_options_each(self, hashed):
        """A subclass may define __eq__, which leaves it without a hash, or not."""
        members = {"__eq__": lambda *_: True, "__slots__": ()}
        if hashed:
            members["__hash__"] = lambda _: 1
        kind = type("Equal", (Metrics,), members)
        made = [kind("ns"), kind("ns")]
        with MemorySink() as sink:
            for each in made:
                each.count("n")
            configure(service="new")
            for each in made:
                each.count("n")

        assert 2 == sink.total("n", service="new")

    def test_choice_of_sinks_that_a_handler_ends_is_made_by_the_next_record(self):
        """The handler has recorded the same before: it is not remembered as settled."""
        run = python(
            """
import os, signal, sys
from lambda_ext import configure, metrics

class Sink:
    names = []
    def accept(self, batch):
        self.names += [point.name for point in batch.points]

def handle(*_):
    metrics.count("n")
    metrics.flush()
    raise TimeoutError

def hook(event, args):
    if event == "exec" and args[0].co_filename.endswith("outlets.py"):
        os.kill(os.getpid(), signal.SIGUSR1)

configure(sinks=[Sink()])
signal.signal(signal.SIGUSR1, handle)
sys.addaudithook(hook)
try:
    metrics.count("first")
except TimeoutError:
    print("raised", file=sys.stderr)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
metrics.count("n")
metrics.flush()
print(Sink.names, file=sys.stderr)
"""
        )

        assert "raised\n['n']\n" == run.stderr

    def test_empty_service_leaves_the_dimension_out(self):
        """service="" records without the dimension."""
        sink = MemorySink()
        Metrics("ns", service="", sink=sink).count("n")
        metrics.flush()

        assert () == sink.points("n")[0].dimensions

    @pytest.mark.logs
    def test_unusable_variable_does_not_lose_metrics(self, monkeypatch, caplog):
        """A namespace that CloudWatch refuses is logged, the function's name used."""
        monkeypatch.setenv("LAMBDA_EXT_METRICS_NAMESPACE", "AWS/Lambda")
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "fn")
        with MemorySink() as sink:
            metrics.count("n")

        assert "fn" == sink.batches[0].namespace
        assert "LAMBDA_EXT_METRICS_NAMESPACE" in caplog.text

    @pytest.mark.logs
    def test_unusable_switch_does_not_break_recording(self, monkeypatch, caplog):
        """A LAMBDA_EXT_STRICT that is no switch is logged once and taken for off."""
        monkeypatch.setenv("LAMBDA_EXT_STRICT", "perhaps")
        with MemorySink(strict=None) as sink:
            metrics.count("")
            metrics.count("")
            metrics.count("n")

        assert 1 == sink.total("n")
        assert 1 == caplog.text.count("LAMBDA_EXT_STRICT")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"namespace": ""},
            {"namespace": "AWS/x"},
            {"namespace": "a b"},
            {"namespace": "x" * 256},
            {"namespace": 3},
            {"service": "é"},
            {"service": "x" * 1025},
            {"service": 3},
            {"dimensions": {":a": "x"}},
            {"dimensions": {"a": ""}},
            {"dimensions": ["a"]},
            {"dimensions": {f"d{i}": "x" for i in range(31)}},
        ],
    )
    def test_bad_argument_is_refused_at_once(self, arguments):
        """What CloudWatch would refuse raises where Metrics is made."""
        with pytest.raises(ConfigurationError):
            Metrics(**arguments)

    @pytest.mark.parametrize("given", ["shop", ["shop"], 5])
    def test_dimensions_that_are_no_mapping_are_named(self, given):
        """In words of the library's, as where a metric is recorded."""
        with pytest.raises(ConfigurationError, match="dimensions= takes a mapping of"):
            Metrics("Shop", dimensions=given)


class TestDimensions:
    """Dimensions of a record."""

    def test_mapping_keywords_and_defaults_merge(self):
        """All three come out; a keyword goes before a default of its name."""
        sink = MemorySink()
        mine = Metrics("ns", dimensions={"stage": "prod", "zone": 1}, sink=sink)
        mine.count("n", dimensions={"the tenant": "a"}, zone="b", unit="None")
        metrics.flush()

        assert {
            "service": "unknown_service",
            "stage": "prod",
            "zone": "b",
            "the tenant": "a",
        } == dict(sink.points("n")[0].dimensions)

    def test_parameters_are_taken_by_keyword(self):
        """name=, value= and unit= are what they say, not dimensions."""
        with MemorySink() as sink:
            metrics.count(name="n", value=512, unit="Bytes", kind="z", self="me")
            metrics.gauge(name="g", value=2, unit="Percent")
            metrics.distribution(name="d", value=3, unit="Seconds")
        (point,) = sink.points("n")

        assert ([512], "Bytes") == (point.values, point.unit)
        assert {
            "service": "unknown_service",
            "kind": "z",
            "self": "me",
        } == dict(point.dimensions)
        assert ([2], "Percent") == (sink.values("g"), sink.points("g")[0].unit)
        assert ([3], "Seconds") == (sink.values("d"), sink.points("d")[0].unit)

    def test_dimension_called_like_a_parameter_comes_in_the_mapping(self):
        """dimensions={...} takes name, value and unit as names of dimensions."""
        named = {"name": "x", "value": "y", "unit": "z"}
        with MemorySink() as sink:
            metrics.count("n", dimensions=named)
            with metrics.timer("t", dimensions=named):
                pass

        assert 1 == len(sink.points("n", **named))
        assert 1 == len(sink.points("t", **named))

    @pytest.mark.parametrize("name", ["name", "value", "unit"])
    def test_timer_refuses_what_is_meant_as_a_parameter(self, name):
        """A timer has no value= and unit=: they are refused, not made dimensions."""
        with (
            MemorySink(),
            pytest.raises((MetricError, TypeError)),
            metrics.timer("t", **{name: "x"}),
        ):
            pass

    def test_thirty_are_allowed(self, capfd):
        """29 of a record and ``service`` make a valid document."""
        metrics.count("n", dimensions={f"d{i}": "x" for i in range(29)})

        assert 1 == len(written(capfd))


BAD = [
    ("value", lambda: metrics.count("n", float("nan"))),
    ("value", lambda: metrics.count("n", float("inf"))),
    ("value", lambda: metrics.count("n", "1")),
    ("value", lambda: metrics.distribution("n", None)),
    ("value", lambda: metrics.gauge("n", 2**361)),
    ("unit", lambda: metrics.count("n", unit="count")),
    ("unit", lambda: metrics.count("n", unit=[])),
    ("name", lambda: metrics.count("")),
    ("name", lambda: metrics.count([])),
    ("name", lambda: metrics.count("level")),
    ("dimension_name", lambda: metrics.count("n", dimensions={":a": "x"})),
    ("dimension_name", lambda: metrics.count("n", dimensions={None: "x"})),
    ("dimension_value", lambda: metrics.count("n", a="")),
    ("dimension_value", lambda: metrics.count("n", a=None)),
    ("dimension_value", lambda: metrics.count("n", a=["x"])),
    ("dimension_clash", lambda: metrics.count("n", dimensions={"a": "x"}, a="x")),
    ("dimensions", lambda: metrics.count("n", dimensions=7)),
    ("name_clash", lambda: metrics.count("a", a="x")),
    ("name_clash", lambda: metrics.count("service")),
    (
        "too_many_dimensions",
        lambda: metrics.count("n", dimensions={f"d{i}": "x" for i in range(30)}),
    ),
]


class TestBadInput:
    """What CloudWatch would refuse."""

    @pytest.mark.logs
    @pytest.mark.parametrize(("reason", "record"), BAD)
    def test_it_is_counted_and_nothing_else(self, caplog, capfd, reason, record):
        """It is counted by reason, logged once, and what is good comes out."""
        record()
        metrics.count("good")
        record()
        documents = written(capfd)

        assert {reason: 2} == recorder.snapshot()["dropped"]
        assert 3 == recorder.snapshot()["recorded"]
        assert [1] == [document["good"] for document in documents]
        first, number = [r.getMessage() for r in caplog.records]
        assert first.startswith(f"lambda_ext.metric_dropped reason={reason} name=")
        assert number.startswith("lambda_ext.metrics_dropped number=2 {")

    @pytest.mark.parametrize(("reason", "record"), BAD)
    def test_strict_mode_raises_where_it_is_recorded(self, capfd, reason, record):
        """In strict mode it raises, says what is wrong, and is not recorded."""
        configure(strict=True)
        with pytest.raises(MetricError) as caught:
            record()
        metrics.count("good")

        assert caught.value.reason == reason
        assert str(caught.value).startswith("metric ")
        assert (None, None) == (caught.value.__cause__, caught.value.__context__)
        assert 1 == len(written(capfd))
        assert {} == recorder.snapshot()["dropped"]

    def test_strict_mode_names_the_metric(self):
        """So that it can be found in the code."""
        configure(strict=True)
        with pytest.raises(MetricError, match=r"^metric 'orders': unit= is one of"):
            metrics.count("orders", unit="Milisecond", tenant="acme")

    def test_strict_mode_has_one_error_for_names_with_a_mind_of_their_own(self):
        """What they raise is no error of this library's, and is not shown."""

        class Name(str):
            __slots__ = ()

            def __hash__(self):
                raise RuntimeError("of the name")

        configure(strict=True)
        for record in (
            lambda: metrics.count(Name("n")),
            lambda: metrics.count("n", unit=Name("Count")),
            lambda: metrics.count("n", dimensions={"d": Name("v")}, e=object()),
        ):
            with pytest.raises(MetricError) as caught:
                record()

            assert caught.value.reason in ("invalid", "dimension_value")
            assert caught.value.__context__ is None

    @pytest.mark.logs
    def test_timer_in_strict_mode_leaves_the_users_own_error(self):
        """The error of the block counts; the metric's is counted."""
        configure(strict=True)
        with pytest.raises(ZeroDivisionError) as caught, metrics.timer(""):
            1 / 0
        metrics.flush()

        assert caught.value.__context__ is None
        assert {"name": 1} == recorder.snapshot()["dropped"]
        with pytest.raises(MetricError), metrics.timer(""):
            pass

    @pytest.mark.parametrize("sink", [5, "stdout", print, MemorySink])
    def test_sink_that_is_none_is_refused_at_once(self, sink):
        """Not at the first flush; a class of sinks is none either."""
        with pytest.raises(ConfigurationError, match=r"accept\(batch\)"):
            Metrics(sink=sink)

    @pytest.mark.logs
    def test_strict_mode_can_be_turned_off_again(self, capfd):
        """configure(strict=False) has an effect on the next record."""
        configure(strict=True)
        with pytest.raises(MetricError):
            metrics.count("")
        configure(strict=False)
        metrics.count("")
        metrics.count("n")
        metrics.flush()

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")
        assert {"name": 1} == recorder.snapshot()["dropped"]

    @pytest.mark.logs
    def test_objects_with_a_mind_of_their_own_do_no_harm(self, capfd):
        """What a name, a value or a dimension raises is counted."""

        class Hostile:
            def __hash__(self):
                raise RuntimeError("no hash")

            def __eq__(self, other):
                raise RuntimeError("no comparison")

            def __repr__(self):
                raise RuntimeError("no repr")

            def __float__(self):
                raise RuntimeError("no number")

        class Name(str):
            __slots__ = ()

            def __hash__(self):
                raise RuntimeError("no hash")

        metrics.count(Hostile())
        metrics.count("n", Hostile())
        metrics.count("n", unit=Hostile())
        metrics.count("n", a=Hostile())
        metrics.count("n", dimensions=Hostile())
        metrics.count(Name("n"))
        metrics.count("good")
        documents = written(capfd)
        dropped = recorder.snapshot()["dropped"]

        assert [1] == [document["good"] for document in documents if "good" in document]
        assert 6 == sum(dropped.values()) + sum("n" in d for d in documents)

    def test_value_types_are_converted(self):
        """True counts one, and any real number is taken."""
        from decimal import Decimal

        with MemorySink() as sink:
            metrics.count("n", True)
            metrics.count("n", Decimal("0.5"))

        assert [1.5] == sink.values("n")


class TestTimer:
    """metrics.timer."""

    def test_block_is_measured_in_milliseconds(self):
        """The duration of the block is one value of a distribution."""
        with FakeClock() as clock, MemorySink() as sink:
            for seconds in (0.25, 1.5):
                with metrics.timer("t", table="orders"):
                    clock.advance(seconds)

        (point,) = sink.points("t", table="orders")
        assert ([250.0, 1500.0], "Milliseconds") == (point.values, point.unit)

    def test_dimensions_are_those_of_a_count(self):
        """A timer, a gauge and a distribution take a mapping and keywords."""
        with MemorySink() as sink:
            with metrics.timer("m", dimensions={"the shop": "a"}, zone=1):
                pass
            metrics.gauge("m", 2, dimensions={"the shop": "a"}, zone=1)
            metrics.distribution("m", 3, dimensions={"the shop": "a"}, zone=1)
        points = sink.points("m", **{"the shop": "a", "zone": "1"})

        assert [
            "distribution",
            "gauge",
            "distribution",
        ] == [point.kind for point in points]
        assert (
            "<Point gauge 'm' {'service': 'unknown_service', 'the shop': 'a',"
            " 'zone': '1'} [2]>"
        ) == repr(points[1])

    def test_one_timer_may_be_nested(self):
        """A timer that is entered twice measures both blocks."""
        with FakeClock() as clock, MemorySink() as sink:
            timer = metrics.timer("t")
            with timer:
                clock.advance(1)
                with timer:
                    clock.advance(2)

        assert [2000.0, 3000.0] == sink.values("t")

    def test_threads_share_a_timer(self):
        """Blocks that overlap in two threads each have their own beginning."""
        inside = threading.Barrier(2)
        with FakeClock() as clock, MemorySink() as sink:
            timer = metrics.timer("t")

            def body(index):
                if index:
                    with timer:
                        inside.wait(30)  # both are in
                        inside.wait(30)  # the first has left
                        clock.advance(2)
                else:
                    with timer:
                        inside.wait(30)
                        clock.advance(1)
                    inside.wait(30)

            assert [None, None] == run_threads(2, body)

        assert [1000.0, 3000.0] == sorted(sink.values("t"))

    def test_tasks_share_a_timer(self):
        """And so do blocks that overlap in two tasks of one thread."""

        async def body(clock, timer, entered, leave):
            with timer:
                entered.set()
                await leave.wait()

        async def main(clock, timer):
            events = [asyncio.Event() for _ in range(4)]
            first = asyncio.create_task(body(clock, timer, *events[:2]))
            await events[0].wait()
            clock.advance(1)
            second = asyncio.create_task(body(clock, timer, *events[2:]))
            await events[2].wait()
            clock.advance(2)
            events[1].set()  # the first one leaves first
            await first
            clock.advance(4)
            events[3].set()
            await second

        with FakeClock() as clock, MemorySink() as sink:
            asyncio.run(main(clock, metrics.timer("t")))

        assert [3000.0, 6000.0] == sink.values("t")

    def test_generators_share_a_timer(self):
        """Two that are interleaved in one thread do, too."""

        def body(timer):
            with timer:
                yield

        with FakeClock() as clock, MemorySink() as sink:
            timer = metrics.timer("t")
            one, two = body(timer), body(timer)
            next(one)
            clock.advance(1)
            next(two)
            clock.advance(2)
            next(one, None)
            clock.advance(4)
            next(two, None)

        assert [3000.0, 6000.0] == sink.values("t")

    def test_exit_stack_may_hold_it(self):
        """It leaves in another frame than it entered."""
        with FakeClock() as clock, MemorySink() as sink:
            timer = metrics.timer("t")
            with contextlib.ExitStack() as stack:
                stack.enter_context(timer)
                clock.advance(1)
                with timer:
                    clock.advance(2)

        assert [2000.0, 3000.0] == sink.values("t")
        assert {} == timer._began


class TestPhases:
    """When it is flushed."""

    def test_end_of_an_invocation_flushes(self, capfd):
        """RESPONSE writes what was recorded."""
        metrics.count("n")
        phases.call(phases.RESPONSE)

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")

    def test_shutdown_flushes_before_and_after_the_users_callbacks(self):
        """What a user's on_shutdown records comes out as well."""
        seen = []

        class Sink:
            def accept(self, batch, /):
                seen.extend(point.name for point in batch.points)

        mine = Metrics("ns", sink=Sink())
        mine.count("before")

        @lambda_ext.on_shutdown
        def end():
            seen.append("callback")
            mine.count("during")

        phases.call(phases.SHUTDOWN)

        assert ["before", "callback", "during"] == seen

    def test_snapshot_flushes(self, capfd):
        """Nothing recorded before a snapshot is in the snapshot."""
        metrics.count("n")
        phases.call(phases.SNAPSHOT)

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")

    @pytest.mark.process
    def test_fork_forgets_what_is_the_parents(self):
        """In a child the buffer and the counters begin empty."""
        done = python(
            "import os\n"
            "from lambda_ext import metrics\n"
            "from lambda_ext.metrics import recorder\n"
            "metrics.count('n')\n"
            "metrics.count('')\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    metrics.flush()\n"
            "    assert recorder.snapshot()['recorded'] == 0\n"
            "    assert recorder.snapshot()['dropped'] == {}\n"
            "    os._exit(7)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            "os._exit(0)\n"
        )

        assert "7\n" == done.stdout

    def test_last_flush_waits_for_half_of_what_is_left(self, time, monkeypatch):
        """For a line that another thread is writing, before it is counted as lost."""
        metrics.count("n")
        seen = []

        def flush(self, ends_at=None, give_up=""):
            seen.append((give_up, round(ends_at - clock.run_time(), 6)))

        monkeypatch.setattr(type(recorder._buffer), "flush", flush)
        phases.call_within(0.3, phases.SHUTDOWN)
        recorder._flush_last()

        assert [("shutdown", 0.15), ("shutdown", recorder.LAST_S)] == seen[-2:]

    def test_phases_are_joined_once_by_the_first_record(self):
        """16 threads that record first register one set of listeners."""
        assert () == phases.listeners(phases.RESPONSE)
        run_threads(16, lambda _: metrics.count("n"))
        configure(strict=False)
        metrics.count("n")
        counts = {phase: len(phases.listeners(phase)) for phase in phases.PHASES}

        assert {
            phases.INVOKE: 1,  # of the first invocation only
            phases.RESPONSE: 1,
            phases.AFTER: 1,
            phases.SHUTDOWN: 3,
            phases.SNAPSHOT: 1,
            phases.TIMEOUT: 2,
        } == {phase: count for phase, count in counts.items() if count}

    def test_released_metrics_is_flushed(self, capfd):
        """What was recorded with a Metrics that is gone comes out."""
        Metrics("gone").count("n")
        metrics.flush()

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")

    def test_timestamp_is_wall_time_of_the_flush(self, capfd):
        """Each document says in whole milliseconds when it was flushed."""
        with FakeClock(wall=1_700_000_000.5) as clock:
            metrics.count("n")
            clock.advance(1)
            (document,) = written(capfd)

        assert 1_700_000_001_500 == document["_aws"]["Timestamp"]


class TestState:
    """State of the process."""

    def test_import_does_nothing(self):
        """Importing reads no variable and registers nothing."""
        done = python(
            "import os\n"
            "read = []\n"
            "class Environment(dict):\n"
            "    def get(self, *a): read.append(a[0]); return dict.get(self, *a)\n"
            "os.environ = Environment(os.environ)\n"
            "import lambda_ext.metrics\n"
            "from lambda_ext.lifecycle import phases\n"
            "from lambda_ext import config\n"
            "print(read, any(phases._listeners.values()), config._listeners)\n"
        )

        assert ("[] False []\n", "") == (done.stdout, done.stderr)

    def test_reset_forgets_everything(self, capfd):
        """After reset() nothing is left, and recording works as at first."""
        metrics.count("n")
        recorder.reset()
        tally.reset()
        phases.reset()
        metrics.flush()
        assert "" == capfd.readouterr().out
        assert {
            "recorded": 0,
            "replayed": 0,
            "documents": 0,
            "dropped": {},
            "dropped_by_name": {},
        } == counted()
        metrics.count("n")
        phases.call(phases.RESPONSE)

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")

    def test_snapshot_counts_what_was_written(self, capfd):
        """Documents are those on stdout."""
        metrics.count("n")
        metrics.count("n", a="x")
        metrics.flush()

        assert 2 == len(emf_rules.documents(capfd.readouterr().out))
        assert {
            "recorded": 2,
            "replayed": 0,
            "documents": 2,
            "dropped": {},
            "dropped_by_name": {},
        } == counted()

    def test_memory_of_checked_series_is_bounded(self, monkeypatch):
        """Dimensions of ever new values are not remembered for ever."""
        monkeypatch.setattr(recorder, "MEMO", 10)
        with MemorySink() as sink:
            for i in range(100):
                metrics.count("n", tenant=i)

        assert 100 == sink.total("n")
        assert len(recorder.default._counts) <= 10

    def test_facade_has_it(self):
        """Metrics and the module are public, and the module's functions are bound."""
        assert lambda_ext.Metrics is recorder.Metrics
        assert lambda_ext.metrics is metrics
        assert metrics.count == recorder.default.count
        assert "__init__.py" == os.path.basename(metrics.__file__)
