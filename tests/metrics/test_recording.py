"""Recording beside the plain calls: decorated timers, scopes, time, properties."""

from __future__ import annotations

import asyncio
import copy
import datetime
import functools
import inspect
import pickle
import sys
import threading
from datetime import timedelta

import emf_rules
import pytest
from helpers import bare_threads, python

import lambda_ext
from lambda_ext import Metrics, config, configure, metrics
from lambda_ext.exceptions import ConfigurationError, MetricError
from lambda_ext.lifecycle import deadline, phases
from lambda_ext.local.emf_check import check
from lambda_ext.metrics import properties, recorder
from lambda_ext.testing import FakeClock, MemorySink


def marked(function):
    """Return *function* as `inspect.markcoroutinefunction` of Python 3.12 marks it."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:
        pytest.skip("Python 3.12 has it")
    return mark(function)


class TestTimerAsDecorator:
    """@metrics.timer(...)."""

    def test_without_a_name_is_refused_where_it_decorates(self):
        """Not in the call of the function, by Python, as a missing argument."""
        with pytest.raises(ConfigurationError, match=r"as in @metrics.timer\('db"):

            @metrics.timer
            def query():
                return 1

    def test_each_call_is_measured(self):
        """With its arguments and result, its name and signature as before."""
        with FakeClock() as clock, MemorySink() as sink:

            @metrics.timer("t", table="orders")
            def query(seconds, *, more=0):
                """Query."""
                clock.advance(seconds + more)
                return seconds

            results = [query(1), query(2, more=3)]

        assert [1, 2] == results
        assert [1000.0, 5000.0] == sink.values("t", table="orders")
        assert ("query", "Query.") == (query.__name__, query.__doc__)
        assert "(seconds, *, more=0)" == str(inspect.signature(query))

    def test_recursion_and_exceptions_are_measured(self):
        """A start lives in its call, and an exception passes unchanged."""
        with FakeClock() as clock, MemorySink() as sink:

            @metrics.timer("t")
            def down(depth):
                clock.advance(1)
                if depth:
                    down(depth - 1)
                else:
                    raise KeyError("bottom")

            with pytest.raises(KeyError, match="bottom"):
                down(2)

        assert [1000.0, 2000.0, 3000.0] == sink.values("t")

    def test_coroutine_is_measured_until_it_is_done(self):
        """Two of one function that overlap each have their own beginning."""
        with FakeClock() as clock, MemorySink() as sink:

            @metrics.timer("t")
            async def wait(event):
                await event.wait()
                return "done"

            async def main():
                events = asyncio.Event(), asyncio.Event()
                tasks = []
                for event in events:
                    tasks.append(asyncio.create_task(wait(event)))
                    await asyncio.sleep(0)
                    clock.advance(1)
                events[1].set()
                second = await tasks[1]
                clock.advance(4)
                events[0].set()
                return await tasks[0], second

            results = asyncio.run(main())

        assert inspect.iscoroutinefunction(wait)
        assert ("done", "done") == results
        assert [1000.0, 6000.0] == sink.values("t")

    @pytest.mark.parametrize("how", ["partial", "object", "staticmethod", "marked"])
    def test_what_calls_a_coroutine_is_one(self, how):
        """Measured until it is done, with each wrapper around the ``async def``."""

        async def wait(seconds):
            await asyncio.sleep(0)
            clock.advance(seconds)
            return "done"

        class Waiting:
            async def __call__(self, seconds):
                return await wait(seconds)

        functions = {
            "partial": functools.partial(wait),
            "object": Waiting(),
            "staticmethod": staticmethod(wait),
        }
        function = functions.get(how) or marked(lambda seconds: wait(seconds))
        with FakeClock() as clock, MemorySink() as sink:
            timed = metrics.timer("t")(function)
            result = asyncio.run(timed(2))

        assert "done" == result
        assert inspect.iscoroutinefunction(timed)
        assert [2000.0] == sink.values("t")

    def test_generators_are_refused(self):
        """Their call runs nothing yet; the message says what to do."""

        def generator():
            yield

        async def agenerator():
            yield

        partial = functools.partial(generator)
        for function in (generator, agenerator, partial, staticmethod(generator), 5):
            with pytest.raises(ConfigurationError, match="context manager inside"):
                metrics.timer("t")(function)


class TestScope:
    """metrics.scope and its arguments."""

    def test_dimensions_come_with_each_record(self):
        """Of the scope, of what it is a scope of, and of the record."""
        sink = MemorySink()
        mine = Metrics("ns", service="", dimensions={"stage": "prod"}, sink=sink)
        with mine.scope(dimensions={"the shop": "a"}, zone=1) as scope:
            scope.count("n", tenant="x")
            with scope.scope(zone=2) as inner:
                inner.count("n")
        metrics.flush()

        assert [
            {"stage": "prod", "the shop": "a", "zone": "1", "tenant": "x"},
            {"stage": "prod", "the shop": "a", "zone": "2"},
        ] == [dict(point.dimensions) for point in sink.points("n")]

    def test_bad_dimension_is_refused_at_once_in_strict_mode(self):
        """Where the scope is made."""
        configure(strict=True)
        with pytest.raises(ConfigurationError, match="dimension 'city' takes"):
            metrics.scope(city="Łódź")
        with MemorySink(), pytest.raises(ConfigurationError, match="beyond ASCII"):
            metrics.scope(city="Łódź")

    @pytest.mark.logs
    @pytest.mark.parametrize("bad", ["Łódź", "", None, 1.5])
    def test_bad_value_raises_nothing_into_a_handler(self, bad, caplog):
        """What an event brings costs its metrics, and no answer."""

        @lambda_ext.handler
        def handler(event, context):
            with metrics.scope(city=event["city"]) as city, city.timer("t"):
                city.count("orders")
                city.gauge("queue", 1)
                with city.scope(shop="a") as shop:
                    shop.count("orders", item="x")
            metrics.count("others")
            return "answer"

        with MemorySink(strict=False) as sink:
            assert "answer" == handler({"city": bad}, None)

        assert ["others"] == [p.name for b in sink.batches for p in b.points]
        assert {
            "orders": 2,
            "queue": 1,
            "t": 1,
        } == lambda_ext.stats().metrics.dropped_by_name["dimension_value"]
        assert "dimension 'city' takes an int, or text" in caplog.text

    @pytest.mark.logs
    def test_old_timestamp_raises_nothing_into_a_handler(self):
        """An event of last month; with a wrong name the code is wrong, and told so."""

        class Keyed(dict):
            __getattr__ = dict.__getitem__

        with MemorySink(strict=False) as sink:
            metrics.scope(timestamp=1).count("n")
            metrics.scope(timestamp=Keyed()).count("n")
        with pytest.raises(ConfigurationError, match="a dimension's name"):
            metrics.scope(dimensions={"Łódź": "a"})
        with pytest.raises(ConfigurationError, match="resolution"):
            metrics.scope(timestamp=1, resolution=5)

        assert [] == sink.points("n")
        assert {"n": 2} == lambda_ext.stats().metrics.dropped_by_name["timestamp"]

    @pytest.mark.parametrize("name", ["name", "value", "unit"])
    def test_parameter_of_count_is_no_dimension_by_keyword(self, name):
        """A mistake, which would be billed; in *dimensions* it is meant."""
        with pytest.raises(ConfigurationError, match=f"{name}= is no parameter here"):
            metrics.scope(**{name: "Bytes"})
        with MemorySink() as sink:
            metrics.scope(dimensions={name: "Bytes"}).count("n")

        assert 1 == sink.total("n", **({} if name == "name" else {name: "Bytes"}))


def test_timer_that_is_left_twice_says_so():
    """By its methods, as a class does that enters it for its users."""
    timer = metrics.timer("t")
    with MemorySink() as sink:
        timer.__enter__()
        timer.__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="left more often than it was entered"):
            timer.__exit__(None, None, None)

    assert 1 == len(sink.values("t"))


@pytest.mark.parametrize("above", [False, True])
def test_methods_of_a_class_are_measured(above):
    """In either order of the two decorators, by the class and by an object."""
    timer = metrics.timer("t")

    def ordered(kind, function):
        return timer(kind(function)) if above else kind(timer(function))

    async def slept(cls, *given):
        return await asyncio.sleep(*given)

    class Orders:
        of_class = ordered(classmethod, lambda cls: cls)
        of_none = ordered(staticmethod, lambda: "none")
        later = ordered(classmethod, slept)

    with MemorySink() as sink:
        for each in (Orders, Orders()):
            assert Orders is each.of_class()
            assert "none" == each.of_none()
            assert "slept" == asyncio.run(each.later(0, "slept"))

    assert 6 == len(sink.values("t"))


class TestCopies:
    """A `Metrics` in what a program copies, such as its settings."""

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_copy_is_the_same(self, copied):
        """One that is not known would miss options, and fill a sink of its own."""
        sink = MemorySink()
        mine = Metrics("ns", sink=sink)
        copied({"metrics": mine, "timer": mine.timer("t")})["metrics"].count("n")
        assert mine is copied(mine)
        metrics.flush()

        assert 1 == sink.total("n")

    def test_one_from_a_pickle_follows_options(self):
        """As in a worker process that it was sent to."""
        mine = Metrics(service="")
        mine.count("n")
        got = pickle.loads(pickle.dumps(mine))
        got.count("n")
        configure(namespace="later")
        with MemorySink() as sink:
            got.count("n")

        assert ["later"] == [batch.namespace for batch in sink.batches]


class TestTime:
    """Resolution and timestamp."""

    def test_high_resolution_is_in_the_definition(self, capfd):
        """And one name with two resolutions comes in two documents."""
        metrics.count("n")
        metrics.scope(resolution=1).count("n", 2)
        metrics.flush()
        documents = emf_rules.documents(capfd.readouterr().out)
        definitions = [
            definition
            for document in documents
            for definition in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]
        ]

        assert [
            {"Name": "n", "Unit": "Count"},
            {"Name": "n", "Unit": "Count", "StorageResolution": 1},
        ] == definitions

    @pytest.mark.parametrize("form", ["seconds", "datetime"])
    def test_timestamp_is_that_of_the_document(self, capfd, form):
        """Others have that of the flush."""
        with FakeClock(wall=1_700_000_000.0):
            at = 1_699_000_000.5
            given = at
            if form == "datetime":
                given = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
            metrics.scope(timestamp=given).count("n", 1)
            metrics.count("n", 2)
            metrics.flush()
        found = {
            document["n"]: document["_aws"]["Timestamp"]
            for document in emf_rules.documents(capfd.readouterr().out)
        }

        assert {1: 1_699_000_000_500, 2: 1_700_000_000_000} == found

    @pytest.mark.parametrize(
        "given",
        [
            {"resolution": 30},
            {"resolution": True},
            {"timestamp": 0},
            {"timestamp": "now"},
            {"timestamp": float("nan")},
            {"timestamp": 1_700_000_000 + 3 * 3_600},
            {"timestamp": 1_700_000_000 - 15 * 86_400},
        ],
    )
    def test_what_cloudwatch_refuses_is_refused(self, given):
        """Two weeks ago and two hours ahead are the limits."""
        with FakeClock(wall=1_700_000_000.0), pytest.raises(ConfigurationError):
            Metrics("ns", **given)


class TestProperties:
    """metrics.annotate."""

    def test_they_are_members_and_no_dimensions(self, capfd):
        """Of each document of the invocation, also of an early one."""
        metrics.annotate({"order": "7", "items": [1, {"a": None}]})
        metrics.count("n")
        metrics.count("m", tenant="x")
        metrics.flush()
        out = capfd.readouterr().out
        checked = [check(line) for line in out.splitlines() if line]

        assert [(), ()] == [each.problems for each in checked]
        assert ["7", "7"] == [each.document["order"] for each in checked]
        assert [[1, {"a": None}]] * 2 == [each.document["items"] for each in checked]
        assert '"order"' not in out.split('"Dimensions"')[1].split("]")[0]

    def test_end_of_the_invocation_forgets_them(self):
        """Those of the process stay."""
        sink = MemorySink()
        configure(sinks=[sink])
        metrics.annotate({"build": "b1"}, always=True)
        for order in ("1", None):
            if order:
                metrics.annotate({"order": order})
            metrics.count("n")
            phases.call(phases.RESPONSE)

        assert [
            {"build": "b1", "order": "1"},
            {"build": "b1"},
        ] == [batch.properties for batch in sink.batches]

    def test_dimension_and_metric_go_before(self, capfd):
        """A property of the same name is left out of that document."""
        metrics.annotate({"n": "no", "tenant": "no", "service": "no", "order": 1})
        metrics.count("n", tenant="x")
        metrics.flush()
        (line,) = [line for line in capfd.readouterr().out.splitlines() if line]
        checked = check(line)

        assert () == checked.problems
        found = {name: checked.document[name] for name in ("n", "tenant", "order")}
        assert {"n": 1, "tenant": "x", "order": 1} == found

    @pytest.mark.parametrize(
        "given",
        [
            {"ö": 1},
            {"_aws": 1},
            {"a": float("nan")},
            {"a": object()},
            {"a": "x" * 2_000},
            {f"p{i}": 1 for i in range(31)},
            5,
        ],
    )
    @pytest.mark.logs
    def test_what_cannot_be_said_is_counted(self, given, caplog):
        """In strict mode it raises; what was there stays."""
        metrics.annotate({"order": 1})
        metrics.annotate(given)

        with MemorySink() as sink:
            metrics.count("n")

        assert {"order": 1} == sink.batches[0].properties
        assert {"property": 1} == recorder.snapshot()["dropped"]
        configure(strict=True)
        with pytest.raises(MetricError):
            metrics.annotate(given)


def due_at():
    """Return when the oldest record is to be flushed; None for never."""
    return None if recorder._aged is None else recorder._aged.due_at()


class TestFlushEvery:
    """configure(flush_every=...)."""

    def test_each_record_is_written_at_once(self, capfd):
        """With 1; what is written survives SIGKILL."""
        configure(flush_every=1)
        for _ in range(3):
            metrics.count("n")
            text = capfd.readouterr().out
            assert 1 == emf_rules.total(text, "n")

    def test_bound_is_that_of_records(self, monkeypatch):
        """The recording thread flushes at the bound, as the variable says."""
        monkeypatch.setenv("LAMBDA_EXT_FLUSH_EVERY", "3")
        sink = MemorySink()
        configure(sinks=[sink])
        for _ in range(7):
            metrics.count("n")

        assert [3, 3] == [batch.points[0].samples for batch in sink.batches]

    @pytest.mark.parametrize("given", [0, -1, 1.5, "often", "0.05s", "5d", "-5s", "s",
                                       timedelta(0), "25h", "nans", True])  # fmt: skip
    def test_others_are_refused(self, given):
        """It begins with one record, and a time with 0.1 seconds."""
        with pytest.raises(ConfigurationError):
            configure(flush_every=given)

    @pytest.mark.parametrize(
        ("given", "seconds"),
        [("5s", 5.0), ("500ms", 0.5), ("1m", 60.0), (" 2H ", 7_200.0),
         (timedelta(seconds=7), 7.0)],
    )  # fmt: skip
    def test_time_is_told_from_a_number_of_records(self, given, seconds):
        """By its unit, or its type; without one it is a number of records."""
        configure(flush_every=given)
        assert seconds == config.get("flush_every")
        configure(flush_every="5")
        assert 5 == config.get("flush_every")
        assert int is type(config.get("flush_every"))

    def test_old_records_are_written_by_the_next_one(self, timed):
        """When the oldest has waited for that long, not before, and then anew."""
        sink, fake = timed
        for second in (4, 0.9, 0.2, 4, 1.1, 4):
            metrics.count("n")
            fake.advance(second)
        metrics.count("n")

        assert [4, 3] == [batch.points[0].samples for batch in sink.batches]

    def test_age_is_that_of_the_oldest_since_the_last_flush(self, timed):
        """What another flush has written does not age."""
        sink, fake = timed
        metrics.count("n")
        fake.advance(4)
        metrics.flush()
        metrics.count("n")
        fake.advance(4)
        metrics.count("n")
        early = len(sink.batches)
        fake.advance(1)
        metrics.count("n")

        assert 1 == early
        assert [1, 3] == [batch.points[0].samples for batch in sink.batches]

    def test_many_records_are_written_before_their_time(self, timed):
        """The bound of a buffer without a time holds, too."""
        sink, _ = timed
        for _ in range(10_001):
            metrics.count("n")

        assert [10_001] == [batch.points[0].samples for batch in sink.batches]

    def test_one_thread_writes_while_nothing_is_recorded(self):
        """It is the one that watches deadlines; invocations begin no other."""
        written = threading.Event()
        sink = MemorySink()
        accept = sink.accept
        sink.accept = lambda batch: (accept(batch), written.set())
        configure(sinks=[sink], flush_every="100ms")

        @lambda_ext.handler
        def handler(event, context):
            metrics.count("n", 2)
            assert written.wait(30)
            return sink.total("n"), bare_threads(
                "lambda_ext_deadline", begun=deadline._thread
            )

        assert (2, ["lambda_ext_deadline"]) == handler({}, None)
        assert 2 == sink.total("n")

    def test_warm_invocations_wake_no_thread(self, timed, monkeypatch):
        """The thread looks when the time of the first one is over, and not before."""
        _, fake = timed
        looks = []
        monkeypatch.setattr(deadline, "_start", lambda: looks.append(1))
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
        handler({}, None)
        deadline._thread = threading.main_thread()  # as if it slept until then
        deadline._until = fake.monotonic() + 5
        for _ in range(100):
            handler({}, None)
            fake.advance(0.01)
        deadline._thread = None

        assert [1] == looks

    def test_look_is_due_while_something_waits(self, timed):
        """Nothing recorded: the thread sleeps until the next record wakes it."""
        _, fake = timed
        before = due_at()
        metrics.count("n")
        due = due_at()
        fake.advance(5)
        recorder._aged.flush()

        assert [None, fake.monotonic(), None] == [before, due, due_at()]

    def test_sink_that_waits_is_served_in_time(self):
        """In a long invocation, too, what is due is sent."""

        class Remote:
            drained = 0
            pending = 0

            def accept(self, batch):
                self.pending += 1

            def is_due(self):
                return self.pending == 2

            def drain(self, ends_at):
                self.drained += self.pending
                self.pending = 0

        remote = Remote()
        configure(sinks=[remote], flush_every="5s")
        with FakeClock() as fake:
            seen = []
            for _ in range(2):
                metrics.count("n")
                fake.advance(5)
                recorder._aged.flush()
                due = due_at()
                seen.append((remote.drained, due and due - fake.monotonic()))

        assert [(0, 5), (2, None)] == seen

    @pytest.mark.parametrize("given", [100, None])
    def test_without_a_time_nothing_is_due(self, timed, given):
        """Where the option was a time before, records wait for their number."""
        sink, fake = timed
        metrics.count("n")
        configure(flush_every=given)
        metrics.count("n")
        fake.advance(60)
        due, _ = deadline._timer
        metrics.count("n")

        assert (None, []) == (due(), sink.batches)

    def test_records_that_wait_keep_their_age(self, timed):
        """When the time becomes shorter, or longer, it counts from the oldest."""
        sink, fake = timed
        metrics.count("n")
        configure(flush_every="60s")
        fake.advance(30)
        metrics.count("n")
        due, _ = deadline._timer
        left = due() - fake.monotonic()
        early = len(sink.batches)
        configure(flush_every="20s")
        metrics.count("n")

        assert (30, 0) == (left, early)
        assert [3] == [batch.points[0].samples for batch in sink.batches]

    def test_nothing_waits_after_the_last_flush(self, timed):
        """Under all options: no flush comes any more but that of a record."""
        sink, fake = timed
        metrics.count("n")
        phases.call_within(1.0, phases.SHUTDOWN)
        metrics.count("n")
        at_once = len(sink.batches)
        for number, given in enumerate(("5s", 100, None), 3):
            configure(flush_every=given, service=f"s{number}")
            metrics.count("n")
            assert number == sink.total("n")
        fake.advance(60)

        assert 2 == at_once
        assert None is deadline._timer[0]()

    def test_no_record_is_lost_while_no_file_can_be_opened(self, monkeypatch):
        """It waits for the next flush; a later record finds the time to wait."""
        sink = MemorySink()
        configure(sinks=[sink], flush_every="5s")
        monkeypatch.setattr(deadline, "_start", lambda: None)
        name = "lambda_ext.metrics.aged"
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr("lambda_ext.metrics.aged", raising=False)
        monkeypatch.setattr(recorder, "_aged", None)
        with FakeClock() as fake:
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, name, None)
                metrics.count("n", 1)
                metrics.count("n", 2)
            metrics.count("n", 3)
            fake.advance(5)
            metrics.count("n", 4)

        assert [4] == [batch.points[0].samples for batch in sink.batches]
        assert {} == recorder.snapshot()["dropped"]

    def test_managed_instances_flush_every_ten_seconds(self, monkeypatch):
        """Nothing freezes there, and a worker may record between invocations."""
        monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "4")
        sink = MemorySink()
        configure(sinks=[sink])
        with FakeClock() as fake:
            handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
            handler({}, None)
            each = sink.total("n")
            metrics.count("between")
            fake.advance(9.9)
            early = due_at() - fake.monotonic()
            fake.advance(0.1)
            metrics.count("between")

        assert 1 == each
        assert 0.1 == pytest.approx(early)
        assert 2 == sink.total("between")

    def test_forked_child_keeps_to_it(self):
        """What it records is out before it ends without a word."""
        done = python(
            "import os\n"
            "from lambda_ext import configure, metrics\n"
            "configure(flush_every=1)\n"
            "metrics.count('n')\n"
            "child = os.fork()\n"
            "metrics.count('n')\n"
            "if not child: os._exit(0)\n"
            "os.waitpid(child, 0)\n"
        )

        assert 3 == emf_rules.total(done.stdout, "n")


@pytest.fixture(name="timed")
def _timed(monkeypatch):
    """Return a sink that is written to after 5 seconds, and the clock; no thread."""
    monkeypatch.setattr(deadline, "_start", lambda: None)
    sink = MemorySink()
    configure(sinks=[sink], flush_every="5s")
    with FakeClock() as fake:
        yield sink, fake


def test_public_names_are_methods_of_the_default():
    """As in `random`."""
    assert metrics.scope == recorder.default.scope
    assert lambda_ext.metrics.annotate is properties.annotate
