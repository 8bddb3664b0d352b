"""The watcher of deadlines: when it begins, whom it fires for, and what a freeze does."""

from __future__ import annotations

import json
import math
import threading

import pytest
from helpers import bare_threads, run_threads

import lambda_ext
from lambda_ext import configure, metrics
from lambda_ext.lifecycle import clock, current, deadline, phases, runtime_client
from lambda_ext.testing import (
    FakeClock,
    MemorySink,
    simulate_sigterm,
    simulate_timeout,
)


class Context:
    """What Lambda passes as the second argument."""

    aws_request_id = "8476a536"

    def __init__(self, remaining_ms=60_000):
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self):
        """Return the milliseconds left."""
        return self.remaining_ms


class DurableContext:
    """What a durable function is passed: Lambda's context is inside."""

    def __init__(self, context):
        self.lambda_context = context


def watchers():
    """Return the names of the threads that watch deadlines."""
    return bare_threads("lambda_ext_deadline", begun=deadline._thread)


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch):
    """No listener is left behind because its thread begins late."""
    monkeypatch.setattr(phases, "ESSENTIAL_S", 10.0)


@pytest.fixture(name="fired")
def _fired():
    """Return a list that an on_timeout hook appends what is left to."""
    seen = []

    @lambda_ext.on_timeout
    def note(remaining):
        seen.append(remaining)

    return seen


@pytest.fixture(name="no_thread")
def _no_thread(monkeypatch):
    """Let the test look in place of the thread; what began it is counted."""
    begun = []

    class Thread:
        def is_alive(self):
            return True

        def join(self, timeout=None):
            pass

    real = deadline.real_threads.start

    def start(name, body, **options):
        if name != "lambda_ext_deadline":
            return real(name, body, **options)
        begun.append(name)
        return Thread()

    with monkeypatch.context() as patch:
        patch.setattr(deadline.real_threads, "start", start)
        yield begun
    deadline._thread = None


def look():
    """Do what the thread does when it wakes: fire what is due; say whether it was."""
    found = deadline._earliest()
    if found is None or found[0] > clock.run_time():
        return False
    deadline._fire(found[1], found[2])
    return True


class TestThread:
    """One thread, and only where there is something to watch."""

    def test_decorating_and_recording_outside_an_invocation_begin_none(self):
        """The first invocation with a deadline does."""
        handler = lambda_ext.handler(lambda event, context: len(watchers()))
        metrics.count("n")
        handler({}, None)
        before = watchers()

        assert 1 == handler({}, Context())
        assert [] == before

    def test_first_record_in_a_handler_guards_that_invocation(self):
        """Not only the next one."""

        @lambda_ext.handler
        def handler(event, context):
            before = len(watchers())
            metrics.count("n")
            return before, len(watchers())

        assert (0, 1) == handler({}, Context())

    def test_handler_that_records_nothing_begins_none(self):
        """Nor does one without a deadline that records."""
        idle = lambda_ext.handler(lambda event, context: None)
        busy = lambda_ext.handler(lambda event, context: metrics.count("n"))
        idle({}, Context())
        busy({}, None)

        assert [] == watchers()

    def test_many_invocations_share_it(self):
        """In one thread, and in eight."""
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
        for _ in range(100):
            handler({}, Context())
        run_threads(8, lambda _: handler({}, Context()))

        assert 1 == len(watchers())

    def test_warm_invocations_do_not_wake_it(self, monkeypatch):
        """One alarm in a minute of invocations that have a minute each."""
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
        handler({}, Context())
        asleep = threading.Event()
        monkeypatch.setattr(deadline, "_wake", Waiting(deadline._wake, asleep))
        deadline._wake.set()
        assert asleep.wait(30)
        alarms = []
        alarm = clock.alarm
        monkeypatch.setattr(clock, "alarm", lambda: (alarms.append(1), alarm()))
        for _ in range(100):
            handler({}, Context())

        assert [] == alarms

    def test_none_under_way_after_its_sleep_wakes_it_once(self, no_thread):
        """It sleeps on for what has ended, then for the next invocation's alarm."""
        with FakeClock() as fake:
            handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
            waited = []
            deadline._wake = Scripted(waited, fake)
            handler({}, Context())
            deadline._run()

        assert [59.5, None] == waited
        assert math.inf == clock.horizon

    def test_invocation_that_begins_while_it_looks_is_watched(self, no_thread):
        """It is later than all that were known, so no alarm comes of it."""
        inside, go_on = threading.Event(), threading.Event()
        waited = []

        class Clock(FakeClock):
            def monotonic(self):
                if waited and waiting:
                    waiting.pop().start()
                    inside.wait(30)
                return super().monotonic()

        @lambda_ext.handler
        def handler(event, context):
            metrics.count("n")
            if event:
                inside.set()
                go_on.wait(30)

        other = threading.Thread(target=handler, args=("late", Context()))
        waiting = [other]
        with Clock() as fake:
            deadline._wake = Scripted(waited, fake)
            handler(None, Context())
            deadline._run()
            go_on.set()
            other.join(30)

        assert [59.5, 59.5] == waited

    @pytest.mark.parametrize("margin", [0, None])
    def test_margin_turns_it_off(self, margin, fired, no_thread):
        """No thread begins, nothing is called."""
        configure(timeout_margin=margin)
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("n")
                fake.advance(59.9)
                return look()

            assert not handler({}, Context())
        assert [] == no_thread
        assert [] == fired

    def test_variable_sets_the_margin(self, monkeypatch, no_thread):
        """In seconds before the deadline."""
        monkeypatch.setenv("LAMBDA_EXT_TIMEOUT_MARGIN", "2.5")
        called = []
        lambda_ext.on_timeout(lambda: called.append(1))
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                fake.advance(57)
                early = look()
                fake.advance(0.5)
                return early, look()

            assert (False, True) == handler({}, Context())

    @pytest.mark.logs
    def test_bad_variable_is_told_and_ignored(self, monkeypatch, caplog, no_thread):
        """The default holds."""
        monkeypatch.setenv("LAMBDA_EXT_TIMEOUT_MARGIN", "soon")
        lambda_ext.on_timeout(lambda: None)

        assert 0.5 == deadline._margin_s
        assert 1 == caplog.text.count("option_ignored")


class Scripted:
    """An event that lets the time go by that the thread would wait; twice."""

    def __init__(self, waited, fake):
        self.waited, self.fake = waited, fake

    def set(self): ...
    def clear(self): ...

    def wait(self, timeout=None):
        self.waited.append(timeout)
        self.fake.advance(timeout or 0)
        deadline._stopping = len(self.waited) == 2


class Waiting:
    """An event that tells when the thread waits for it."""

    def __init__(self, event, asleep):
        self.set, self.clear = event.set, event.clear
        self.event, self.asleep = event, asleep

    def wait(self, timeout=None):
        self.asleep.set()
        return self.event.wait(timeout)


class TestDue:
    """When the hooks are called, and for which invocation."""

    @pytest.mark.parametrize(("remaining_ms", "due_s"), [(60_000, 59.5), (600, 0.3)])
    def test_is_the_margin_before_the_deadline(
        self, remaining_ms, due_s, fired, no_thread
    ):
        """Half of what a short invocation has."""
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                fake.advance(due_s - 0.01)
                early = look()
                fake.advance(0.02)
                return early, look(), look()

            assert (False, True, False) == handler({}, Context(remaining_ms))
        assert 1 == len(fired)

    def test_is_not_of_an_invocation_that_began_after_the_look(self, fired, no_thread):
        """One ends and the next begins between the look and the call."""
        seen, kept = [], []
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                if event == "seen":
                    fake.advance(59.6)
                    kept.append(deadline._earliest())
                else:
                    deadline._fire(*kept[0][1:])
                    seen.append(len(fired))
                    fake.advance(59.6)
                    seen.append(look())

            handler("seen", Context())
            handler("next", Context())

        assert [0, True] == seen

    def test_durable_context_tells_the_deadline(self, fired, no_thread):
        """Lambda's own is inside it."""
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                fake.advance(59.6)
                return look(), current.state().context

            context = Context()
            assert (True, context) == handler({}, DurableContext(context))

    def test_ended_invocation_is_not_due(self, fired, no_thread):
        """Nor is its successor by its predecessor's deadline."""
        with FakeClock() as fake:
            handler = lambda_ext.handler(lambda event, context: look())
            handler({}, Context())
            fake.advance(59.7)
            between = look()

            assert [False, False] == [between, handler({}, Context())]
        assert [] == fired

    def test_each_thread_has_its_own(self, fired, no_thread):
        """Both of two invocations at once are called for, and the later ends first."""
        inside = threading.Semaphore(0)
        go_on = threading.Event()
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                inside.release()
                return go_on.wait(30)

            threads = [
                threading.Thread(target=handler, args=({}, Context(ms)))
                for ms in (10_000, 60_000)
            ]
            for thread in threads:
                thread.start()
                assert inside.acquire(timeout=30)
            fake.advance(9.6)
            first = [look(), look()]
            fake.advance(50)
            second = [look(), look()]
            go_on.set()
            for thread in threads:
                thread.join(30)

        assert [True, False] == first
        assert [True, False] == second
        assert 2 == len(fired)


class TestFreeze:
    """What a freeze does to what is due."""

    def test_frozen_environment_is_not_late(self, fired, no_thread):
        """Between two invocations there is none to be late for."""
        with FakeClock() as fake:
            handler = lambda_ext.handler(lambda event, context: look())
            handler({}, Context())
            fake.freeze(3_600)
            fake.advance(59.9)
            after_thaw = look()

            assert [False, False] == [after_thaw, handler({}, Context())]
        assert [] == fired

    def test_freeze_past_the_deadline_is_not_imminent(self, fired, no_thread):
        """Run time knows nothing of it: wall time does."""
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                fake.advance(59.5)
                fake.step(3_600)
                return look()

            assert handler({}, Context())
        assert [] == fired

    def test_thread_that_hangs_on_is_no_invocation(self, fired, no_thread):
        """When the runtime client waits for the next one, none is under way."""
        with FakeClock() as fake:

            @lambda_ext.handler
            def handler(event, context):
                deadline._none_under_way()
                fake.advance(59.9)
                return look()

            assert not handler({}, Context())

    def test_runtime_client_is_followed(self, monkeypatch):
        """Inside Lambda, by what is called before it waits."""
        called = []
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
        monkeypatch.setattr(runtime_client, "before_wait", called.append)
        deadline.watch()

        assert [deadline._none_under_way] == called

    def test_snapshot_and_restore_change_nothing(self, fired, no_thread):
        """The first invocation after a restore is guarded like any other."""
        with FakeClock() as fake:
            handler = lambda_ext.handler(
                lambda event, context: (fake.advance(59.6), look())[1]
            )
            phases.call(phases.SNAPSHOT)
            fake.freeze(86_400)
            clock.restored()
            phases.call(phases.RESTORE)

            assert handler({}, Context())
        assert 1 == len(fired)


class TestMetrics:
    """What is written before a time-out."""

    def test_records_are_out_while_the_handler_goes_on(self, no_thread):
        """And TimeoutImminent; what comes later is written at the end, each once."""
        with FakeClock() as fake, MemorySink() as sink:

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("before", 2)
                fake.advance(59.6)
                look()
                early = sink.total("before"), sink.total("TimeoutImminent")
                metrics.count("after", 3)
                return early

            assert (2, 1) == handler({}, Context())
            assert 2 == sink.total("before")
            assert 3 == sink.total("after")
            assert 1 == sink.total("TimeoutImminent")

    def test_imminent_time_out_names_its_request(self):
        """By a property of its document alone, with the default dimensions."""

        @lambda_ext.handler
        def handler(event, context):
            metrics.count("n")
            metrics.annotate({"order": "7"})
            simulate_timeout(10)
            metrics.count("later")

        with MemorySink() as sink:
            handler({}, Context())

        found = {
            point.name: (dict(batch.properties), dict(point.dimensions))
            for batch in sink.batches
            for point in batch.points
        }
        service = {"service": "unknown_service"}
        assert found == {
            "n": ({"order": "7"}, service),
            "TimeoutImminent": ({"order": "7", "request_id": "8476a536"}, service),
            "later": ({"order": "7"}, service),
        }

    def test_emf_comes_first_and_the_network_last(self):
        """After the hooks, whose records are written, too."""
        order = []

        class Remote:
            def accept(self, batch):
                order.append([point.name for point in batch.points])

            def drain(self, ends_at):
                order.append("drain")

        configure(sinks=[Remote()])
        metrics.count("n")

        @lambda_ext.on_timeout
        def hook():
            order.append("hook")
            metrics.count("hooked")

        simulate_timeout(10)

        assert [["n"], ["TimeoutImminent"], "hook", ["hooked"], "drain"] == order

    def test_network_has_what_is_left(self):
        """A sink may wait until the deadline, less what others took."""
        granted = []

        class Remote:
            def accept(self, batch): ...

            def drain(self, ends_at):
                granted.append(ends_at - clock.run_time())

        configure(sinks=[Remote()])
        with FakeClock():
            metrics.count("n")
            simulate_timeout(7.0)

        assert [7.0] == granted

    def test_time_out_after_it_writes_the_rest_once(self, capfd):
        """At SIGTERM, which Lambda sends when the time is over."""

        @lambda_ext.handler
        def handler(event, context):
            metrics.count("n")
            simulate_timeout(10)
            metrics.count("n", 10)
            simulate_sigterm(10)

        handler({}, Context())

        assert [1, 10] == [
            json.loads(line)["n"]
            for line in capfd.readouterr().out.splitlines()
            if '"n":' in line
        ]

    def test_without_metrics_nothing_is_recorded(self):
        """A hook alone pays for no metric."""
        seen = []
        lambda_ext.on_timeout(lambda: seen.append(1))
        simulate_timeout(10)

        assert [1] == seen
        assert 0 == lambda_ext.stats().metrics.recorded
