"""Several sinks at once: what each gets, what waits, and what became of it."""

from __future__ import annotations

import threading

import emf_rules
import pytest

from lambda_ext import Metrics, configure, metrics, stats
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import phases
from lambda_ext.metrics import outlets, recorder
from lambda_ext.testing import FakeClock, MemorySink


class Remote:
    """A sink that queues, and sends when it may wait."""

    name = "remote"

    def __init__(self, due=True):
        self.queue = []
        self.sent = 0
        self.dropped = {}
        self.error = ""
        self.due = due
        self.drains = []

    @property
    def pending(self):
        return sum(point.samples for batch in self.queue for point in batch.points)

    def accept(self, batch, /):
        self.queue.append(batch)

    def is_due(self):
        return self.due

    def drain(self, ends_at):
        self.drains.append(ends_at)
        self.sent += self.pending
        self.queue.clear()


class TestSeveral:
    """configure(sinks=[...])."""

    def test_each_gets_every_metric(self, capfd):
        """By name, as an object and as a function, all at once."""
        sink, batches = MemorySink(), []
        configure(sinks=["emf", sink, batches.append])
        metrics.count("n", 2)
        metrics.flush()

        assert 2 == emf_rules.total(capfd.readouterr().out, "n")
        assert 2 == sink.total("n")
        assert ["n"] == [point.name for batch in batches for point in batch.points]

    @pytest.mark.logs
    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_one_that_changes_its_batch_changes_no_others(self, at):
        """Points, values, numbers and properties; not those of a later flush either."""

        class Changing:
            def accept(self, batch, /):
                for point in batch.points:
                    point.values[0] += 1
                    point.values.append(9)
                    point.name, point.samples, point.dimensions = "x", 7, ()
                batch.points.clear()
                batch.properties["a"] = "b"
                batch.properties.pop("stage")
                batch.namespace = batch.at = None
                raise ValueError

        def seen(sink):
            return [
                (batch.namespace, point.name, point.values, point.samples,
                 point.dimensions, batch.properties)
                for batch in sink.batches
                for point in batch.points
            ]  # fmt: skip

        first, second = MemorySink(), MemorySink()
        first.name, second.name = "first", "second"
        given = [outlets.route(first, include="*"), second]
        given.insert(at, outlets.route(Changing(), name="changing"))
        configure(sinks=given, namespace="Shop")
        expected = []
        dims = (("service", "unknown_service"), ("shop", "a"))
        metrics.annotate({"stage": "prod"}, always=True)
        for number in (1, 2):
            metrics.distribution("d", number, shop="a")
            metrics.distribution("d", 5, shop="a")
            metrics.flush()
            expected.append(("Shop", "d", [number, 5], 2, dims, {"stage": "prod"}))
        status = stats().metrics

        assert [expected] * 2 == [seen(first), seen(second)]
        assert (4, {"d": 4}) == (
            status.sinks["changing"].dropped,
            status.dropped_by_name["sink"],
        )

    def test_variable_names_them(self, monkeypatch, capfd):
        """LAMBDA_EXT_SINKS is a list of names."""
        monkeypatch.setenv("LAMBDA_EXT_SINKS", " EMF ")
        metrics.count("n")
        metrics.flush()

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")

    def test_none_at_all_is_a_choice(self, capfd):
        """An empty list sends metrics without a sink of their own nowhere."""
        configure(sinks=[])
        own = MemorySink()
        metrics.count("n")
        Metrics("ns", sink=own).count("m")
        metrics.flush()

        assert "" == capfd.readouterr().out
        assert 1 == own.total("m")

    @pytest.mark.parametrize(
        "given", ["cloud", ["emf", "x"], [5], [MemorySink], 7, [None]]
    )
    def test_what_is_no_sink_is_refused(self, given):
        """With the names that there are."""
        with pytest.raises(ConfigurationError, match=r"sink"):
            configure(sinks=given)

    def test_route_of_no_sink_is_refused(self):
        """And so is a pattern that is none."""
        with pytest.raises(ConfigurationError, match="accept"):
            metrics.route(5)
        with pytest.raises(ConfigurationError, match="include="):
            metrics.route("emf", include=5)
        with pytest.raises(ConfigurationError, match="include="):
            metrics.route("emf", include=[""])

    def test_async_sink_is_refused(self):
        """It would be called and never awaited, and all records lost."""

        class Sink:
            async def accept(self, batch):
                pass

        class Draining(MemorySink):
            async def drain(self, ends_at):
                pass

        async def function(batch):
            pass

        for configured in (
            lambda: configure(sinks=[Draining()]),
            lambda: configure(sinks=[Sink()]),
            lambda: configure(sinks=[function]),
            lambda: metrics.route(function),
            lambda: Metrics("n", sink=Sink()),
        ):
            with pytest.raises(ConfigurationError, match="def instead of async def"):
                configured()

    @pytest.mark.logs
    @pytest.mark.parametrize("form", ["function", "object", "route", "own"])
    def test_coroutine_of_a_plain_sink_is_a_loss(self, form, caplog):
        """It does nothing; what it was given is counted, and the others have it."""

        async def later(batch):
            pass

        class Sink:
            def accept(self, batch):
                return later(batch)

        other = MemorySink()
        sinks = {
            "function": lambda batch: later(batch),
            "object": Sink(),
            "route": metrics.route(Sink(), include="n"),
        }
        mine = metrics
        if form == "own":
            mine = Metrics("ns", sink=Sink())
        else:
            configure(sinks=[sinks[form], other])
        mine.count("n", 2)
        metrics.flush()

        assert {"sink": {"n": 1}} == stats().metrics.dropped_by_name
        assert "returned a coroutine, which is not awaited" in caplog.text
        assert (form == "own") or 2 == other.total("n")
        assert 0 == sum(
            status.sent
            for name, status in stats().metrics.sinks.items()
            if name not in ("MemorySink", "emf")
        )

    def test_what_was_recorded_before_goes_where_it_would_have_gone(self):
        """configure() counts from the next record."""
        first, second = MemorySink(), MemorySink()
        configure(sinks=[first])
        metrics.count("n", 1)
        configure(sinks=[second])
        metrics.count("n", 10)
        metrics.flush()

        assert (1, 10) == (first.total("n"), second.total("n"))

    def test_first_records_of_several_threads_go_where_the_options_say(
        self, monkeypatch
    ):
        """Also those of a thread that comes while another finds out where that is."""
        sink = MemorySink()
        configure(sinks=[sink])
        option, began = recorder._option, []

        def slow(name):
            if name == "sinks" and not began:
                began.append(threading.Thread(target=metrics.count, args=("n", 1)))
                began[0].start()
                began[0].join(0.2)  # it records, or waits for this thread
            return option(name)

        monkeypatch.setattr(recorder, "_option", slow)
        metrics.count("n", 10)
        began[0].join(60)
        metrics.flush()

        assert 11 == sink.total("n")

    def test_signal_handler_may_record_while_sinks_are_loaded(self, monkeypatch):
        """It meets a module that is half imported; the next record looks again."""
        sink = MemorySink()
        configure(sinks=[sink])
        whole = outlets.outlets
        monkeypatch.delattr(outlets, "outlets")
        metrics.count("early")
        monkeypatch.setattr(outlets, "outlets", whole, raising=False)
        metrics.count("n", 2)
        metrics.flush()

        assert 2 == sink.total("n")

    def test_memory_sink_takes_all_inside_its_block(self):
        """And afterwards the sinks are those of the options again."""
        sink = MemorySink()
        configure(sinks=[sink])
        with MemorySink() as inside:
            configure(strict=False)
            metrics.count("n", 1)
        metrics.count("n", 10)
        metrics.flush()

        assert (1, 10) == (inside.total("n"), sink.total("n"))

    @pytest.mark.logs
    def test_one_that_raises_does_not_hurt_the_others(self):
        """It is counted for it alone."""
        sink = MemorySink()

        def broken(batch):
            raise OSError("no")

        configure(sinks=[broken, sink])
        metrics.count("n")
        metrics.flush()
        found = {name.split(".")[-1]: one for name, one in _statuses().items()}

        assert 1 == sink.total("n")
        assert (1, "OSError") == (found["broken"].dropped, found["broken"].error)
        assert 1 == found["MemorySink"].sent


class TestRoute:
    """metrics.route."""

    def test_patterns_choose_by_name(self):
        """include= and exclude= are names or patterns, exclude the stronger."""
        some, rest = MemorySink(), MemorySink()
        configure(
            sinks=[
                metrics.route(some, include=["orders.*", "n"], exclude="*.debug"),
                metrics.route(rest, exclude="orders.*"),
            ]
        )
        for name in ("orders.placed", "orders.debug", "n", "other"):
            metrics.count(name)
        metrics.flush()
        found = [
            {point.name for batch in sink.batches for point in batch.points}
            for sink in (some, rest)
        ]

        assert [{"orders.placed", "n"}, {"n", "other"}] == found

    def test_two_routes_of_one_sink_are_one_sink(self):
        """It gets both, and is called by one thread at a time."""
        sink = MemorySink()
        configure(
            sinks=[
                metrics.route(sink, include="a", name="first"),
                metrics.route(sink, include="b", name="second"),
            ]
        )
        metrics.count("a", 1)
        metrics.count("b", 2)
        metrics.flush()
        first, second = recorder.outlets()

        assert (1, 2) == (sink.total("a"), sink.total("b"))
        assert first.lock is second.lock
        assert {"first", "second"} <= {*_statuses()}


class TestDraining:
    """Sinks that wait."""

    def test_emf_comes_before_any_waiting(self, capfd):
        """However the sinks are ordered, and although one raises."""
        seen = []

        class Slow(Remote):
            def drain(self, ends_at):
                seen.append(capfd.readouterr().out)
                raise TimeoutError

        configure(sinks=[Slow(), "emf"])
        metrics.count("n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lambda_ext.disclosure.failure", lambda *_, **__: None)
            result = metrics.flush()

        assert 1 == emf_rules.total(seen[0], "n")
        assert (1, "TimeoutError") == (result["remote"].pending, result["remote"].error)

    def test_end_of_an_invocation_sends_what_is_due(self):
        """Others keep it for a later one; before a snapshot all is sent."""
        early, later = Remote(), Remote(due=False)
        configure(sinks=[early, later])
        metrics.count("n")
        phases.call(phases.RESPONSE)
        after = (early.sent, later.sent)
        phases.call(phases.SNAPSHOT)

        assert (1, 0) == after
        assert 1 == later.sent

    @pytest.mark.parametrize("phase", [phases.TIMEOUT, phases.SHUTDOWN])
    def test_end_of_it_all_sends_everything(self, phase):
        """Before a time-out, and at a shutdown, within a bounded time."""
        sink = Remote(due=False)
        configure(sinks=[sink])
        with FakeClock() as clock:
            metrics.count("n")
            phases.call(phase)

            assert 1 == sink.sent
            assert clock.monotonic() < sink.drains[0] <= clock.monotonic() + 2

    def test_what_callbacks_record_at_the_end_is_sent(self):
        """On_shutdown callbacks run before the last drain, and their records are in it."""
        sink = Remote(due=False)
        configure(sinks=[sink])
        metrics.count("n")
        phases.listen(phases.SHUTDOWN, lambda: metrics.count("m"), priority=phases.USER)
        phases.call(phases.SHUTDOWN)

        assert (2, 0) == (sink.sent, sink.pending)

    def test_what_the_first_moments_had_no_time_for_is_written(
        self, monkeypatch, capfd
    ):
        """EMF goes on before any sink that waits; that one has the rest."""
        monkeypatch.setattr(recorder, "ESSENTIAL_S", -1.0)
        seen = []

        class Slow(Remote):
            def drain(self, ends_at):
                seen.append(emf_rules.total(capfd.readouterr().out, "n"))

        configure(sinks=["emf", Slow()])
        metrics.count("n")
        phases.call(phases.SHUTDOWN)

        assert [1] == seen

    def test_time_is_shared_and_bounded(self):
        """By timeout=, by the invocation's time, and equally among the sinks."""
        one, two = Remote(), Remote()
        configure(sinks=[one, two])
        with FakeClock() as fake:
            metrics.count("n")
            metrics.flush(timeout=0.5)
            now = fake.monotonic()

            assert one.drains == [pytest.approx(now + 0.25)]
            assert two.drains == [pytest.approx(now + 0.5)]

    @pytest.mark.parametrize("timeout", ["soon", [], float("nan")])
    def test_flush_raises_nothing_because_of_its_timeout(self, timeout):
        """What is no number of seconds is as none given: sinks have 2 seconds."""
        sink = Remote()
        configure(sinks=[sink])
        with FakeClock() as fake:
            metrics.count("n")
            result = metrics.flush(timeout=timeout)["remote"]

            assert [fake.monotonic() + 2.0] == sink.drains
        assert 1 == result.sent

    def test_flush_may_wait_for_long(self):
        """For ever is a time that a wait can be told."""
        sink = Remote()
        configure(sinks=[sink])
        metrics.count("n")
        metrics.flush(timeout=float("inf"))

        assert [True] == [at < threading.TIMEOUT_MAX for at in sink.drains]

    def test_flush_tells_what_it_did(self):
        """Records of this flush, by the names of the sinks."""
        sink = Remote()
        configure(sinks=[sink])
        metrics.count("n")
        metrics.count("n")
        first = metrics.flush()["remote"]
        metrics.count("n")
        second = metrics.flush()["remote"]

        assert (2, 0, 0, "") == (first.sent, first.dropped, first.pending, first.error)
        assert 1 == second.sent
        assert "sent=1" in repr(second)

    def test_statistics_have_each_sink(self):
        """As plain numbers."""
        sink = Remote(due=False)
        configure(sinks=[sink, "emf"])
        metrics.count("n")
        phases.call(phases.RESPONSE)
        found = stats().metrics.sinks

        assert (0, 1) == (found["remote"].sent, found["remote"].pending)
        assert 1 == found["emf"].sent


def _statuses():
    return recorder.snapshot()["sinks"]


def test_sinks_that_are_made_by_name_are_made_once():
    """What waits in one is not lost when options change."""
    first = outlets.outlets(["emf"])
    second = outlets.outlets(["emf", MemorySink()])

    assert first[0] is second[0]


class Telling:
    """A sink of the user's one of whose numbers is no number."""

    def __init__(self, name, value):
        self._name = name
        self._value = value
        self.batches = 0

    def __getattr__(self, name):
        if name != self.__dict__["_name"]:
            raise AttributeError(name)
        if isinstance(self._value, Exception):
            raise self._value
        return self._value

    def accept(self, batch):
        self.batches += 1

    def drain(self, ends_at):
        pass


@pytest.mark.logs
@pytest.mark.parametrize("name", ["sent", "pending", "dropped", "error", "name"])
@pytest.mark.parametrize(
    "value",
    [
        RuntimeError("x"), None, "text", [1], {"a": None}, {"a": "b"}, {1: 2},
        float("nan"), True,
    ],
    ids=repr,
)  # fmt: skip
def test_numbers_of_a_sink_are_not_believed(name, value):
    """A flush raises nothing, and statistics can be had, for each number of a sink."""
    sink = Telling(name, value)
    configure(sinks=[sink, "emf"])
    metrics.count("a")
    told = metrics.flush(), metrics.flush()
    found = stats().as_dict()["metrics"]["sinks"]

    assert 1 == sink.batches
    assert [2, 2] == [len(each) for each in told]
    kinds = {
        (name, type(each)) for sink in found.values() for name, each in sink.items()
    }
    assert {("sent", int), ("dropped", int), ("pending", int), ("error", str)} == kinds
    assert 1 == found["emf"]["sent"]
