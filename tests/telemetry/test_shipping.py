"""When sinks of logs are called, for how long, and what one that fails costs."""

from __future__ import annotations

import json
import logging
import sys
import threading

import pytest
from helpers import eventually

import lambda_ext
from lambda_ext import stats, telemetry
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import clock, phases, real_threads
from lambda_ext.telemetry import dispatch, records, shipping, subscription
from lambda_ext.testing import simulate_sigterm, simulate_timeout

FAILED = pytest.mark.logs  # a failure is logged


class Sink:
    """Keeps what it is given, after *act* was called."""

    def __init__(self, name="sink", act=lambda: None):
        self.name = name
        self.act = act
        self.messages = []
        self.threads = []

    def accept_logs(self, entries):
        self.threads.append(threading.get_ident())
        self.act()
        self.messages += [entry.message for entry in entries]


class Hanging:
    """Waits until it is let go."""

    def __init__(self):
        self.inside = threading.Event()
        self.gate = threading.Event()

    def __call__(self):
        self.inside.set()
        self.gate.wait(60)


@pytest.fixture(name="hanging")
def _hanging():
    hanging = Hanging()
    yield hanging
    hanging.gate.set()


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A machine may be busy: what is tested is what happens, not how fast."""
    monkeypatch.setattr(shipping, "BUDGET_S", 30.0)
    monkeypatch.setattr(shipping, "BESIDE_S", 30.0)


def put(route, *messages):
    """Have *route* get *messages* as one batch."""
    elements = [{"time": "", "type": "function", "record": each} for each in messages]
    route(records.Batch.of(json.dumps(elements)))


def invoke():
    """Run an invocation that does nothing, and return its answer."""
    return lambda_ext.handler(lambda event, context: "answer")({}, None)


def exit_():
    sys.exit(3)


def fail():
    raise ValueError("SECRET")


class TestTrafficOfSinks:
    """What HTTP clients log at DEBUG while a sink is called would be shipped again."""

    @pytest.mark.parametrize("in_place", [False, True])
    def test_is_not_logged(self, caplog, monkeypatch, in_place):
        """With its bodies, a line that holds all others would come of each call."""
        names = ("botocore.endpoint", "urllib3.connectionpool", "httpx", "app")

        def act():
            for name in names:
                logging.getLogger(name).debug("sends %s", name)
                logging.getLogger(name).warning("failed %s", name)

        def refuse(*args):
            raise RuntimeError("can't start new thread at interpreter shutdown")

        caplog.set_level(logging.DEBUG)
        for name in names:  # also where it, or a parent, has a level
            caplog.set_level(logging.DEBUG, logger=name)
        if in_place:
            monkeypatch.setattr(shipping.real_threads, "start", refuse)
        put(telemetry.route().to(Sink("sink", act), max_age=1e9), "one")
        shipping._at_shutdown()
        during = [each.getMessage() for each in caplog.records if each.name in names]
        caplog.clear()
        act()

        assert [
            *(f"failed {name}" for name in names[:3]), "sends app", "failed app",
        ] == during  # fmt: skip
        assert 8 == len(caplog.records)

    def test_is_logged_by_other_threads_meanwhile(self, hanging, caplog):
        """The handler may ask AWS beside it, and look at what was sent."""
        caplog.set_level(logging.DEBUG, logger="botocore.endpoint")
        logger = logging.getLogger("botocore.endpoint")
        route = telemetry.route().to(Sink("sink", hanging), max_records=1)
        put(route, "one")
        assert hanging.inside.wait(30)
        logger.debug("of the handler")

        assert ["of the handler"] == [
            each.getMessage() for each in caplog.records if each.name == logger.name
        ]


class TestEndOfAnInvocation:
    """What is due is handed over before the answer leaves."""

    def test_what_is_due_is_handed_over(self):
        """max_age=0 hands over at the end of each invocation."""
        sink = Sink()
        route = telemetry.route().to(sink, max_age=1e9)
        put(route, "young")
        invoke()
        young = [*sink.messages]
        other = Sink("other")
        old = telemetry.route().to(other, max_age=0, max_records=5)
        old._put(telemetry.Entry(records.make({"type": "function", "record": "old"})))

        assert ("answer", [], ["old"]) == (invoke(), young, other.messages)

    def test_due_by_count_begins_beside_the_handler(self):
        """A full batch is handed over when it arrives, on a thread of its own."""
        sink = Sink()
        route = telemetry.route().to(sink, max_records=2, max_age=1e9)
        put(route, "a", "b")
        invoke()  # waits for the call under way

        assert ["a", "b"] == sink.messages
        assert threading.get_ident() not in sink.threads

    @FAILED
    @pytest.mark.parametrize("act", [exit_, fail])
    def test_sink_that_fails_is_named_and_delays_nothing(self, act, caplog):
        """It is counted and logged by name, the others are served, nothing is quoted."""
        good = Sink("good")
        bad = telemetry.route().to(Sink("bad", act), max_age=0)
        put(bad, "one")
        put(telemetry.route().to(good, max_age=0), "two")

        assert "answer" == invoke()
        assert telemetry.flush(30)
        assert (["two"], {"sink": 1}) == (good.messages, bad.status().dropped)
        assert "sink=bad" in caplog.text
        assert "SECRET" not in caplog.text

    @FAILED
    def test_sink_that_hangs_is_left_behind_once(self, hanging, caplog, monkeypatch):
        """The first invocation waits for its budget, the next ones do not wait."""
        monkeypatch.setattr(shipping, "BUDGET_S", 0.2)
        good = Sink("good")
        route = telemetry.route().to(Sink("bad", hanging), max_age=0)
        put(route, "one")
        assert hanging.inside.wait(30)
        first = invoke()
        abandoned = route.status().abandoned
        monkeypatch.setattr(shipping, "BUDGET_S", 30.0)
        put(telemetry.route().to(good, max_age=0), "two")
        second = invoke()
        third = invoke()
        assert telemetry.flush(0.2) is False

        assert ["answer"] * 3 == [first, second, third]
        assert (1, 1) == (abandoned, route.status().abandoned)
        assert (["two"], "sink=bad") == (good.messages, "sink=bad")
        assert 1 == caplog.text.count("sink_left_behind")

        hanging.gate.set()  # one that was left behind is not waited for any more
        eventually(lambda: telemetry.flush(30))
        assert (1, 0) == (route.status().handed, route.status().waiting)

    def test_handlers_time_is_not_used_up(self):
        """In an invocation that is about to end no sink is called."""

        class Context:
            def get_remaining_time_in_millis(self):
                return 40

        sink = Sink()
        route = telemetry.route().to(sink, max_age=0)
        route._put(telemetry.Entry(records.make({"type": "function", "record": "x"})))
        lambda_ext.handler(lambda event, context: None)({}, Context())
        early = [*sink.messages]
        invoke()

        assert ([], ["x"]) == (early, sink.messages)

    @FAILED
    def test_failing_sink_is_tried_after_a_pause(self, time):
        """A sink whose receiver fails costs not every invocation its time."""
        calls = []

        class Failing:
            name = "failing"
            pending = 1

            def accept_logs(self, entries):
                pass

            def drain(self, ends_at):
                calls.append(clock.run_time())

        route = telemetry.route().to(Failing(), max_age=0)
        outlet = route.outlet
        put(route, "one")
        outlet.wait(clock.run_time() + 30)
        for _ in range(5):
            put(route, "more")
            outlet.wait(clock.run_time() + 30)
        early = len(calls)
        time.advance(3)
        put(route, "later")
        outlet.wait(clock.run_time() + 30)

        assert (1, 2) == (early, len(calls))

    def test_sink_that_waits_for_its_time_does_not_fail(self, time):
        """What a sink keeps without an error delays nothing."""
        calls = []

        class Keeping:
            name = "keeping"
            pending = 1
            error = ""

            def accept_logs(self, entries):
                calls.append(len(entries))

        route = telemetry.route().to(Keeping(), max_age=0)
        for _ in range(3):
            put(route, "x")
            route.outlet.wait(clock.run_time() + 30)

        assert [1, 1, 1] == calls


class TestFlush:
    """telemetry.flush()"""

    def test_waits_for_a_call_under_way_and_hands_over_the_rest(self, hanging):
        """What comes while the sink is being called is not left for later."""

        class Draining(Sink):
            def drain(self, ends_at):
                hanging()

        sink = Draining()
        route = telemetry.route().to(sink, max_age=0)
        put(route, "one")
        assert hanging.inside.wait(30)
        put(route, "two")  # while the sink has "one" and sends it
        threading.Timer(0.05, hanging.gate.set).start()

        assert telemetry.flush(30)
        assert (["one", "two"], 0) == (sink.messages, route.waiting)


class TestSubscription:
    """Routes whose records no subscription asks for."""

    @FAILED
    def test_are_named_once(self, monkeypatch, caplog):
        """In Lambda the log says what to call, and only where it is missing."""
        telemetry.route(where="function").to(Sink("lines"))
        telemetry.route(where="platform").to(Sink("events"))
        monkeypatch.setattr(
            subscription, "_status", telemetry.Status("subscribed", types=("platform",))
        )
        invoke()  # outside Lambda
        outside = caplog.text
        monkeypatch.setattr(shipping, "_checked", False)
        monkeypatch.setattr(shipping.config, "in_lambda", lambda: True)
        shipping._at_response()
        shipping._at_response()

        assert "" == outside
        assert 1 == caplog.text.count("route_without_records")
        assert "route=lines" in caplog.text
        assert "subscribe(function=True)" in caplog.text


class TestShutdown:
    """At SIGTERM everything is handed over, within the share of the time."""

    def shut_down(self, seconds=5.0):
        phases.call_within(seconds, phases.SHUTDOWN)

    def test_everything_is_handed_over(self):
        """Also what is young, and what waits for the consumer."""
        sink = Sink()
        route = telemetry.route().to(sink, max_age=1e9)
        put(route, "young")
        body = json.dumps([{"time": "", "type": "function", "record": "late"}])
        dispatch.dispatch(records.Batch.of(body))
        self.shut_down()

        assert ["young", "late"] == sorted(sink.messages, reverse=True)

    def test_what_arrives_meanwhile_is_handed_over(self, monkeypatch):
        """The platform's last batch comes when the process has thawed."""
        monkeypatch.setattr(shipping, "QUIET_S", 20.0)
        sink = Sink()
        route = telemetry.route().to(sink, max_age=1e9)
        put(route, "first")

        def more():
            put(route, "last")
            monkeypatch.setattr(shipping, "QUIET_S", 0.05)

        sink.act = lambda: sink.messages or threading.Timer(0.05, more).start()
        self.shut_down(30)

        assert ["first", "last"] == sink.messages

    @FAILED
    @pytest.mark.parametrize("act", [exit_, fail])
    def test_sink_that_fails_stops_no_other(self, act):
        """One that raises, or calls sys.exit, is followed by the next."""
        good = Sink("good")
        put(telemetry.route().to(Sink("bad", act), max_age=1e9), "one")
        put(telemetry.route().to(good, max_age=1e9), "two")
        self.shut_down()

        assert ["two"] == good.messages

    @FAILED
    def test_sink_that_hangs_takes_only_its_share(self, hanging):
        """The others, and what shuts down after them, have their turn."""
        good, order = Sink("good"), []
        put(telemetry.route().to(Sink("bad", hanging), max_age=1e9), "one")
        put(telemetry.route().to(good, max_age=1e9), "two")
        phases.listen(phases.SHUTDOWN, lambda: order.append("last"), priority=99)
        self.shut_down(3.0)

        assert (["two"], ["last"]) == (good.messages, order)

    @FAILED
    @pytest.mark.parametrize("end", ["flush", "shutdown", "timeout"])
    def test_sink_that_was_left_behind_is_waited_for_again(
        self, hanging, monkeypatch, end
    ):
        """An invocation had no time for it; what comes at the end may have."""
        monkeypatch.setattr(shipping, "BUDGET_S", 0.01)
        sink = Sink("slow", hanging)
        route = telemetry.route().to(sink, max_age=0)
        put(route, "one")
        assert hanging.inside.wait(30)
        invoke()
        put(route, "two")
        before = route.status().abandoned
        # It goes on when a thread waits for it.
        wait = shipping._Call.wait_for

        def waited(call, seconds):
            hanging.gate.set()
            return wait(call, seconds)

        monkeypatch.setattr(shipping._Call, "wait_for", waited)
        if end == "flush":
            telemetry.flush(30)
        elif end == "shutdown":
            self.shut_down(30.0)
        else:
            simulate_timeout(30.0)

        assert 1 == before
        assert ["one", "two"] == sink.messages

    @FAILED
    def test_what_is_left_is_told(self, hanging, caplog):
        """The log says how many records a sink did not get."""
        put(telemetry.route().to(Sink("bad", hanging), max_age=1e9), "one", "two")
        shipping._at_shutdown()

        assert "route_unsent sink=bad records=2" in caplog.text

    def test_without_threads_the_sink_is_called_in_place(self, monkeypatch):
        """When the interpreter ends, no thread can be begun any more."""

        def refuse(*args):
            raise RuntimeError("can't start new thread at interpreter shutdown")

        sink = Sink()
        route = telemetry.route().to(sink, max_age=1e9)
        put(route, "one")
        monkeypatch.setattr(shipping.real_threads, "start", refuse)
        early = telemetry.flush(0.1)
        shipping._at_shutdown()

        assert (False, ["one"]) == (early, sink.messages)
        assert [threading.get_ident()] == sink.threads
        assert not route.outlet.is_busy

    def test_clock_that_stands_still_ends_it(self, time):
        """With a clock of a test double it ends, too."""
        sink = Sink()
        put(telemetry.route().to(sink, max_age=1e9), "one")
        shipping._at_shutdown()

        assert ["one"] == sink.messages

    def test_end_is_told_once_all_is_handed_over(self):
        """A sink may make something of the last records."""
        calls = []

        class Ending(Sink):
            def accept_logs(self, entries):
                calls.append("accept")

            def end(self):
                calls.append("end")

            def drain(self, ends_at):
                calls.append("drain")

        route = telemetry.route().to(Ending(), max_age=1e9)
        put(route, "one")
        self.shut_down()

        assert ["accept", "end", "drain"] == [calls[0], *calls[-2:]]


class TestOtherPhases:
    """Snapshots and time-outs."""

    def test_snapshot_holds_nothing_that_waits(self):
        """Before a snapshot everything is handed over."""
        sink = Sink()
        put(telemetry.route().to(sink, max_age=1e9), "one")
        phases.call(phases.SNAPSHOT)

        assert ["one"] == sink.messages

    def test_before_a_timeout_everything_is_handed_over(self):
        """What waits is sent while there is time."""
        sink = Sink()
        put(telemetry.route().to(sink, max_age=1e9), "one")
        phases.call_within(5, phases.TIMEOUT)

        assert ["one"] == sink.messages


def test_unused_it_costs_nothing():
    """A route without records begins no thread and is not called."""
    before = {*threading.enumerate()}  # some of which may be ending
    sink = Sink()
    telemetry.route().to(sink)
    invoke()

    assert ({*threading.enumerate()} <= before, []) == (True, sink.threads)


def test_a_function_is_called_in_a_thread_that_counts_as_the_users():
    """It may write to stdout, and a metric then begins a line of its own."""
    found = []

    def sink(_):
        found.append(real_threads.get_ident() in real_threads.ours)

    telemetry.route().to(sink)
    dispatch.dispatch(records.parse(json.dumps([{"type": "function", "record": "a"}])))
    assert dispatch.drain(30)
    telemetry.flush(30)

    assert [False] == found


@pytest.mark.parametrize("seconds", ["x", None, True, -1, float("nan"), float("inf")])
def test_flush_takes_seconds(seconds):
    """What is none is refused, with an example."""
    with pytest.raises(ConfigurationError, match="takes seconds, such as"):
        telemetry.flush(seconds)


class Telling(Sink):
    """A sink of the user's one of whose numbers is no number."""

    def __init__(self, name, value):
        super().__init__()
        self._name = name
        self._value = value

    def __getattr__(self, name):
        if name != self.__dict__.get("_name"):
            raise AttributeError(name)
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


@pytest.mark.logs
@pytest.mark.parametrize("name", ["sent", "pending", "dropped", "error"])
@pytest.mark.parametrize(
    "value",
    [
        RuntimeError("x"), None, "text", [1], {"a": None}, {"a": "b"}, {1: 2},
        float("nan"), True,
    ],
    ids=repr,
)  # fmt: skip
def test_numbers_of_a_sink_are_not_believed(name, value):
    """It gets its records, and so do others at the end; statistics can be had."""
    sink, other = Telling(name, value), Sink()
    routes = [telemetry.route().to(each, max_age=1e9) for each in (sink, other)]
    for route in routes:
        put(route, "one")
    telemetry.flush(30)
    for route in routes:
        put(route, "two")
    simulate_sigterm(2.0)
    status = routes[0].status()
    found = stats().as_dict()["telemetry"]["routes"]

    assert [["one", "two"]] * 2 == [sink.messages, other.messages]
    assert 2 == status.handed
    assert isinstance(status.pending, int)
    assert isinstance(status.error, str)
    assert isinstance(found[routes[0].name]["sent"], int | None)
    assert {int} >= {type(each) for each in status.lost.values()}
