"""Which values are loaded together, who waits for whom, what an interruption leaves."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from types import SimpleNamespace

import pytest
from helpers import eventually, loads_under_way, ring
from interruptions import Interrupted, interruptions, where_handlers_run

from lambda_ext import config
from lambda_ext.exceptions import ConfigurationError, NotFoundError, SourceError
from lambda_ext.lifecycle import clock, phases, process
from lambda_ext.testing import FakeSource
from lambda_ext.typing import Answer
from lambda_ext.values import (
    cache,
    calls,
    getters,
    loader,
    store,
)
from lambda_ext.values.batches import get_parameters_by_path, get_secrets
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Parameter, Secret

ROOM = [
    cache,
    calls,
    getters,
    loader,
    store,
    threading,
]


def in_thread(read, timeout=30.0):
    """Return what read() returns in another thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(read()), daemon=True)
    thread.start()
    thread.join(timeout)
    assert not thread.is_alive(), "another thread hangs"
    return results[0]


def thaw(time, seconds):
    """Freeze for *seconds*, and begin the next invocation."""
    time.freeze(seconds)
    clock.begin_invocation()


class Plain:
    """A source that answers at once, without a place where it can be interrupted."""

    name = "plain"
    scope = "plain"

    def plan(self, wanted):
        return [[key] for key in wanted]

    def fetch(self, wanted, timeout_s):
        return {key: Answer("v " + key.name, "1") for key in wanted}


class Two:
    """Twenty secrets and twenty parameters, each kind with a source of its own."""

    def __init__(self):
        names = [f"n{number:02}" for number in range(20)]
        self.secrets = FakeSource(dict.fromkeys(names, "s"), batch=20)
        self.parameters = FakeSource(dict.fromkeys(names, "p"), batch=10)
        self.handles = [Secret(name, source=self.secrets) for name in names]
        self.handles += [Parameter(name, source=self.parameters) for name in names]
        phases.call(phases.INIT)
        self.secrets.calls.clear()
        self.parameters.calls.clear()

    def values(self):
        return "".join(handle.value for handle in self.handles)

    def counts(self):
        return len(self.secrets.calls), len(self.parameters.calls)


class TestAlong:
    """An expired read has loaded, with its own value, what else will be needed."""

    def test_hour_of_idleness_costs_three_calls(self, time):
        """20 secrets and 20 parameters are read again after 1 + 2 calls."""
        two = Two()
        assert "s" * 20 + "p" * 20 == two.values()
        thaw(time, 3600)

        assert "s" * 20 + "p" * 20 == two.values()
        assert (1, 2) == two.counts()

    def test_what_is_declared_comes_along_unread(self, time):
        """INIT loaded it, it has not been read yet, and it has expired."""
        two = Two()
        thaw(time, 3600)

        assert "s" * 20 + "p" * 20 == two.values()
        assert (1, 2) == two.counts()

    def test_what_get_secret_has_read_comes_along(self, time):
        """Without any handle, too."""
        names = [f"n{number}" for number in range(20)]
        with FakeSource(dict.fromkeys(names, "v")) as source:
            for name in names:
                get_secret(name)
            source.calls.clear()
            thaw(time, 3600)
            for name in names:
                assert "v" == get_secret(name)

        assert 1 == len(source.calls)

    def test_what_is_due_comes_along(self, time):
        """It would have been refreshed a moment later."""
        with FakeSource({"old": "v", "young": "v", "new": "v"}) as source:
            get_secret("old")
            time.advance(80)
            get_secret("young")
            time.advance(200)
            get_secret("new")
            time.advance(20)
            get_secret("old")
            eventually(lambda: not loads_under_way())

        assert [("old", "young")] == source.calls[3:]

    def test_what_was_never_read_stays(self, time):
        """Parameters that a path brought, and were not asked for, are left alone."""
        values = {"/a/x": "1", "/a/y": "2", "db": "v"}
        with FakeSource(values) as source:
            get_parameters_by_path("/a", max_age=None)
            get_secret("db")
            source.calls.clear()
            thaw(time, 3600)
            get_secret("db")
            eventually(lambda: not loads_under_way())

        assert [("db",)] == source.calls

    def test_calls_are_made_at_the_same_time(self, time):
        """No call waits for the answer to another one."""
        two = Two()
        two.values()
        two.secrets.hold()
        two.parameters.hold()
        thaw(time, 3600)
        reader = threading.Thread(target=lambda: two.handles[0].value)
        reader.start()
        two.secrets.wait_for_calls(1)
        two.parameters.wait_for_calls(2)
        two.secrets.release()
        two.parameters.release()
        reader.join()

        assert (1, 2) == two.counts()

    def test_reader_waits_for_its_own_call_only(self, time):
        """A secret that has arrived is read while Parameter Store is silent."""
        two = Two()
        two.values()
        two.parameters.hold()
        thaw(time, 3600)

        assert "s" * 20 == in_thread(
            lambda: "".join(handle.value for handle in two.handles[:20])
        )
        two.parameters.release()
        assert "p" == two.handles[20].value
        eventually(lambda: not loads_under_way())
        assert (1, 2) == two.counts()

    @pytest.mark.logs
    def test_failure_of_what_comes_along_is_not_the_readers(self, time):
        """The reader gets its value, and others what their own load brings."""
        with FakeSource({"a": "1", "b": "2"}) as source:
            a, b = Secret("a"), Secret("b")
            assert ("1", "2") == (a.value, b.value)
            source.remove("b")
            thaw(time, 3600)

            assert "1" == a.value
            with pytest.raises(SourceError, match="'b'"):
                b.value

    def test_first_read_does_not_wait_for_what_else_is_declared(self, time):
        """It takes along what is declared, and waits for its own call."""
        silent = FakeSource({"/limit": "1"})
        silent.hold()
        with FakeSource({"db": "v"}):
            db, limit = Secret("db"), Parameter("/limit", source=silent)

            assert "v" == in_thread(lambda: db.value)
            silent.wait_for_calls(1)
            silent.release()
            assert "1" == limit.value
            assert 1 == len(silent.calls)


class TestInit:
    """What is declared is loaded while the function starts."""

    def test_does_not_wait_for_a_silent_source(self, monkeypatch):
        """INIT goes on without it; the first read gets the value."""
        monkeypatch.setattr(store, "PATIENCE_S", 0.05)
        silent = FakeSource({"/limit": "1"})
        silent.hold()
        with FakeSource({"db": "v"}) as source:
            db, limit = Secret("db"), Parameter("/limit", source=silent)
            in_thread(lambda: phases.call(phases.INIT))
            assert "v" == db.value
            assert 1 == len(source.calls)
            silent.release()

            assert "1" == limit.value

    def test_waits_two_seconds_at_most(self):
        """Of the ten that Lambda gives it."""
        assert 2.0 == store.PATIENCE_S

    def test_waits_for_what_answers(self):
        """The first invocation finds everything in memory."""
        with FakeSource({"a": "1", "b": "2"}) as source:
            a, b = Secret("a"), Secret("b")
            phases.call(phases.INIT)
            source.hold()

            assert ("1", "2") == in_thread(lambda: (a.value, b.value))


class Singles:
    """A source that answers a call of several keys for none of them."""

    name = "singles"
    scope = "singles"

    def __init__(self, silent=()):
        self.silent = silent
        self.go_on = threading.Event()
        self.calls = []

    def plan(self, wanted):
        return [wanted]

    def fetch(self, wanted, timeout_s):
        self.calls.append(tuple(key.name for key in wanted))
        if len(wanted) > 1:
            return {}
        (key,) = wanted
        if key.name in self.silent:
            self.go_on.wait(30)
        return {key: Answer("v " + key.name, "1")} if key.name != "none" else {}


class TestOneByOne:
    """What a call leaves unanswered is asked for singly."""

    def test_reader_waits_for_its_own_answer_only(self):
        """A silent key delays no other one."""
        source = Singles(silent=("b", "c"))
        a, *others = (Secret(name, source=source) for name in "abcd")

        assert "v a" == in_thread(lambda: a.value)
        source.go_on.set()
        assert ["v b", "v c", "v d"] == [handle.value for handle in others]
        assert [*"abcd"] == sorted(call[0] for call in source.calls[1:])

    def test_many_answers_keep_their_order(self):
        """Each name gets its own value."""
        store.use(Singles())
        names = [f"n{number}" for number in range(30)]

        assert {name: "v " + name for name in names} == get_secrets(names)

    def test_no_answer_to_a_single_call_is_an_error(self):
        """It is asked for once more, and no more."""
        source = Singles()
        store.use(source)
        with pytest.raises(SourceError, match="no answer for 'none'"):
            get_secrets(["a", "none"])

        assert 1 == source.calls.count(("none",))


class TestKept:
    """What a source says of its answer."""

    def source(self, *outcomes):
        class Source(Plain):
            def fetch(self, wanted, timeout_s):
                return dict.fromkeys(wanted, next(answers))

        answers = iter(outcomes)
        store.use(Source())

    def test_answer_that_is_not_to_be_kept_is_handed_out_once(self):
        """The next reader asks again, and handles do not hold it."""
        self.source(*(Answer(str(n), keep=False) for n in range(4)))
        db = Secret("db")

        assert ["0", "1"] == [get_secret("db"), get_secret("db")]
        assert ["2", "3"] == [db.value, db.value]
        assert 0 == store.snapshot().entries

    def test_it_leaves_what_is_remembered_alone(self):
        """Only what may be kept replaces it."""
        self.source(Answer("old"), Answer("passing", keep=False))

        assert "old" == get_secret("db")
        assert "passing" == get_secret("db", force_fetch=True)
        assert "old" == get_secret("db")

    @pytest.mark.parametrize("transient", [True, False])
    def test_error_that_is_not_to_be_kept_changes_nothing(self, transient):
        """Neither does it kill what is remembered, nor is it remembered."""
        cause = ZeroDivisionError()
        passing = NotFoundError("not sent", transient=transient)
        passing.keep = False
        passing.original = cause
        self.source(Answer("old"), passing, passing, Answer("new"))

        assert "old" == get_secret("db")
        with pytest.raises(NotFoundError) as raised:
            get_secret("db", force_fetch=True)
        assert cause is raised.value.original
        assert "old" == get_secret("db")
        with pytest.raises(NotFoundError):
            get_secret("other")
        assert "new" == get_secret("other")

    @pytest.mark.parametrize("repeats", [True, False])
    def test_source_whose_calls_are_the_callers_is_not_asked_again(self, time, repeats):
        """After a freeze others are asked once more."""

        class Source(Plain):
            def fetch(self, wanted, timeout_s):
                asked.append(1)
                if len(asked) == 1:
                    thaw(time, 600)
                    raise SourceError("broken", transient=True)
                return super().fetch(wanted, timeout_s)

        asked = []
        source = Source()
        source.repeats = repeats
        store.use(source)
        if repeats:
            assert "v db" == get_secret("db")
        else:
            with pytest.raises(SourceError, match="broken"):
                get_secret("db")

        assert 1 + repeats == len(asked)

    def test_waiter_asks_for_itself_where_a_call_is_its_callers(self):
        """What is not to be kept reaches no other caller."""

        class Source(Plain):
            repeats = False

            def fetch(self, wanted, timeout_s):
                number = next(numbers)
                if not number:
                    inside.set()
                    go_on.wait(30)
                return dict.fromkeys(wanted, Answer(str(number), keep=False))

        numbers = itertools.count()
        inside, go_on = threading.Event(), threading.Event()
        store.use(Source())
        results = []
        first = threading.Thread(target=lambda: results.append(get_secret("db")))
        first.start()
        inside.wait(30)
        second = threading.Thread(target=lambda: results.append(get_secret("db")))
        second.start()
        eventually(lambda: store.loader.misses == 2)
        go_on.set()
        first.join()
        second.join()

        assert ["0", "1"] == sorted(results)

    def test_response_stays_with_the_value(self):
        """A caller that asks the store for the whole response finds it."""
        response = {"Name": "db"}
        self.source(Answer("v", response=response))
        get_secret("db")
        (slot,) = store.cache.slots.values()

        assert response is slot.entry.answer.response


class TestQueued:
    """More calls than threads."""

    def test_reader_makes_a_call_that_is_queued_behind_silent_ones(self, time):
        """It waits for no thread that is busy with something else."""

        class Source(Singles):
            def plan(self, wanted):
                return [[key] for key in wanted]

        names = [f"h{number}" for number in range(calls.WORKERS + 1)]
        source = Source()
        store.use(source)
        for name in (*names, "good"):
            get_secret(name)
        source.calls.clear()
        source.silent = names
        time.advance(300)
        reader = threading.Thread(target=lambda: get_secret(names[0]))
        reader.start()
        # One more where the reader, and not a helper, makes its own call.
        eventually(lambda: len(source.calls) >= calls.WORKERS)

        assert "v good" == in_thread(lambda: get_secret("good"))
        source.go_on.set()
        reader.join()
        assert 1 == source.calls.count(("good",))

    def test_error_of_a_call_that_was_taken_over_is_of_one_reader(self, monkeypatch):
        """Each of the two has an exception of its own: one is what the source raised."""
        original = SourceError("no", key="db")
        begun, go_on = threading.Event(), threading.Event()
        work = loader.Loader._work

        def late(self, batch, **options):
            # Not a helper thread that an earlier test has left.
            if threading.current_thread() is first and not begun.is_set():
                begun.set()
                go_on.wait(10)
            work(self, batch, **options)

        def read():
            with pytest.raises(SourceError) as raised:
                get_secret("db")
            errors.append(raised.value)

        errors = []
        monkeypatch.setattr(calls, "may_be_interrupted", lambda: False)
        monkeypatch.setattr(loader.Loader, "_work", late)
        with FakeSource({"db": "v"}) as source:
            source.fail(original)
            first = threading.Thread(target=read)
            first.start()
            begun.wait(10)
            in_thread(read)
            go_on.set()
            first.join()

            assert 1 == len(source.calls)
        assert [True, False] == [error is original for error in errors]
        assert errors[1].__cause__ is original

    @pytest.mark.usefixtures("held_threads")
    def test_reader_makes_the_whole_call_that_it_has_queued_itself(self, time):
        """It does not ask for one key after the other, though no thread has begun."""
        names = [f"n{number}" for number in range(40)]
        with FakeSource(dict.fromkeys(names, "v"), batch=20) as source:
            handles = [Secret(name) for name in names]

            assert "v" * 40 == "".join(handle.value for handle in handles)
            assert [20, 20] == [len(asked) for asked in source.calls]
            thaw(time, 3600)
            assert "v" * 40 == "".join(handle.value for handle in handles)
            assert [20] * 4 == [len(asked) for asked in source.calls]

    @pytest.mark.usefixtures("held_threads")
    def test_call_that_a_reader_makes_keeps_the_readers_time_limit(self):
        """Queued for the background, it is wanted now."""

        class Source(Plain):
            def __init__(self):
                self.granted = []

            def fetch(self, wanted, timeout_s):
                self.granted.append(timeout_s)
                return super().fetch(wanted, timeout_s)

        config.configure(load_timeout=2)
        source = Source()
        handles = [Secret(name, source=source) for name in ("a", "b")]

        assert ["v a", "v b"] == [handle.value for handle in handles]
        assert [True, True] == [0 < granted_s <= 2 for granted_s in source.granted]


@pytest.fixture
def held_threads(monkeypatch):
    """Helper threads begin only when the test is over, and none is interrupted."""
    bodies = []

    def spawn(body, started):
        bodies.append(body)
        started.append(-len(bodies))
        return True

    monkeypatch.setattr(calls, "may_be_interrupted", lambda: False)
    monkeypatch.setattr(calls, "spawn", spawn)
    yield
    for body in bodies:
        body()


def whole():
    """Say whether the cache's ring, groups and slots hold the same."""
    store.cache.change(bool)  # repairs what an interruption left
    slots = [*store.cache.slots.values()]
    linked = ring(store.cache)
    members = [
        slot for group in store.cache._groups.values() for slot in group.values()
    ]
    return {*map(id, slots)} == {*map(id, linked)} == {*map(id, members)}


@pytest.fixture(params=[True, False], ids=["another thread", "this thread"])
def loads_elsewhere(request, monkeypatch):
    """Whether loads of this thread run on another one."""
    monkeypatch.setattr(calls, "may_be_interrupted", lambda: request.param)


# Through which a load goes in the thread of its reader, with or without helpers.
LOAD = ("get", "change", "_changed", "_enter", "_begin", "slot", "_dispatch")


@pytest.mark.usefixtures("loads_elsewhere")
class TestInterrupted:
    """A signal handler raises, wherever CPython runs one."""

    def check(self, run, again, through, modules=ROOM, begin=bool):
        """
        Interrupt run() at each place, also in each of the functions *through*.

        begin() leaves what each run begins with: places are numbered, so a run
        that does less than the one before, such as to join the phases, would
        leave out as many of the places that follow.
        """
        interrupted = set()
        for interruption in interruptions(modules):
            begin()
            with interruption:
                run()
            # Its exception arrives, no reader hangs, and nothing is left half made.
            assert interruption.raised == interruption.happened, interruption.where
            assert in_thread(again) == again()
            assert whole()
            interrupted.add(interruption.where)
        assert set() == {*through} - interrupted

    def test_first_load(self):
        """The next reader has the value."""
        store.use(Plain())

        def run():
            store.loader.clear()
            get_secret("db")

        self.check(run, lambda: get_secret("db"), LOAD)

    def test_several_calls(self):
        """No reader waits for calls that will not be made."""
        store.use(Plain())
        names = ["a", "b", "c"]

        def run():
            store.loader.clear()
            get_secrets(names)

        self.check(run, lambda: get_secrets(names), LOAD, [loader, calls, cache])

    def test_expired_read_that_takes_others_along(self, time):
        """They can be read, too."""
        store.use(Plain())
        names = ["a", "b", "c", "d"]

        def again():
            return [get_secret(name) for name in names]

        def run():
            time.advance(300)
            get_secret("a")

        again()
        through = (*LOAD, "_remembered", "_take_along", "_due")
        self.check(run, again, through, [loader, calls, cache, store])

    def test_due_hit(self, time):
        """The value is refreshed by the next one."""
        store.use(Plain())

        def begin():
            # What the run before has asked for is over, whichever thread does it.
            store.loader.refresh_due()
            for slot in [*store.cache.slots.values()]:
                load = slot.load
                if load is not None:
                    load.wait(None)

        def run():
            time.advance(299)
            get_secret("db")

        get_secret("db")
        through = ("get", "change", "_remembered", "_note_read", "wake")
        modules = [loader, cache, calls]
        self.check(run, lambda: get_secret("db"), through, modules, begin)

    def test_init(self):
        """Each handle can be read afterwards."""
        source = Plain()

        def begin():
            handles.clear()
            process.reset()

        def run():
            handles[:] = [Secret(name, source=source) for name in "ab"]
            phases.call(phases.INIT)

        handles = []
        self.check(
            run,
            lambda: [handle.value for handle in handles],
            ("attach", "load_early", "_enter_early", "_begin_early", "_dispatch"),
            [loader, calls, cache, store],
            begin,
        )

    def test_invalidation(self):
        """What could not be dropped was not dropped in part: name and ARN agree."""
        with FakeSource({"db": "v"}) as source:
            by_name, by_arn = Secret("db"), Secret(source.arn("db"))

            def run():
                by_name.value, by_arn.value
                source.rotate("db", "w")
                by_name.invalidate()

            through = ("change", "_changed", "drop", "invalidate", "_members", "_drop")

            def agree():
                return by_name.value == by_arn.value

            self.check(run, agree, through, [loader, cache])

    def test_room_is_made(self):
        """A full cache stays whole and bounded."""
        config.configure(cache_size=3)
        store.use(Plain())
        numbers = itertools.count()

        def run():
            get_secret(f"n{next(numbers)}")

        self.check(run, lambda: get_secret("db"), LOAD, [loader, cache])
        assert 3 >= len(store.cache.slots)


def test_exception_arrives_where_a_call_was_taken_by_another_thread():
    """Which `deque.remove` says with a repr, and CPython 3.10 then forgets it."""

    def run():
        load = SimpleNamespace(background=False)
        calls.Call(None, [load])
        calls.Batch().claim_for(load)

    where = []
    for interruption in interruptions([calls]):
        with interruption:
            run()
        assert interruption.raised == interruption.happened
        where.append(interruption.where)

    assert "claim_for" in where


class TestRealSignals:
    """The same with SIGALRM, at random instants."""

    def test_no_thread_hangs(self):
        """Loads are interrupted a few hundred times."""

        class Stop(BaseException):
            pass

        def handler(*_):
            if armed:  # else it comes late, through another thread
                raise Stop

        armed = False
        rng = random.Random(1)
        store.use(Plain())
        former = signal.signal(signal.SIGALRM, handler)
        interrupted = 0
        try:
            for number in range(1500):
                store.loader.clear()
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(3e-6, 2e-4))
                    try:
                        get_secret("db")
                    finally:
                        armed = False
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except Stop:
                    interrupted += 1
                    assert whole()
                    assert number % 5 or "v db" == in_thread(lambda: get_secret("db"))
                assert "v db" == get_secret("db")
        finally:
            signal.signal(signal.SIGALRM, former)
        assert interrupted > 50

    def test_exception_of_a_guard_arrives(self):
        """A source, or boto3 below it, may swallow or repeat what it meets."""

        class OutOfTimeError(TimeoutError):
            pass

        class Swallows(Plain):
            def fetch(self, wanted, timeout_s):
                inside.set()
                try:
                    go_on.wait(30)
                except Exception:
                    swallowed.append(1)
                return super().fetch(wanted, timeout_s)

        def guard(*_):
            raise OutOfTimeError

        inside, go_on, swallowed = threading.Event(), threading.Event(), []
        store.use(Swallows())
        former = signal.signal(signal.SIGUSR2, guard)
        main = threading.main_thread().ident
        alarm = threading.Thread(
            target=lambda: (inside.wait(30), signal.pthread_kill(main, signal.SIGUSR2))
        )
        alarm.start()
        try:
            with pytest.raises(OutOfTimeError):
                get_secret("db")
        finally:
            signal.signal(signal.SIGUSR2, former)
            go_on.set()
            alarm.join()

        assert [] == swallowed
        assert "v db" == get_secret("db")

    def test_thread_that_has_ended_at_once_has_made_the_call(self, source, monkeypatch):
        """A load that is over before its reader goes on is not made again."""
        spawn = calls.spawn

        def spawned_and_ended(body, started):
            done = threading.Event()
            there = spawn(lambda: (body(), done.set()), started)
            assert done.wait(30)
            return there

        monkeypatch.setattr(calls, "may_be_interrupted", lambda: True)
        monkeypatch.setattr(calls, "spawn", spawned_and_ended)

        assert "one" == get_secret("db")
        assert [("db",)] == source.calls

    def test_ctrl_c_and_our_own_handlers_cost_no_thread(self, monkeypatch):
        """Without a handler of the user's, a load runs on the reader's thread."""
        handlers = {signal.SIGINT: signal.default_int_handler}
        monkeypatch.setattr(calls._signal, "getsignal", handlers.get)
        assert not calls.may_be_interrupted()

        handlers[signal.SIGALRM] = lambda *_: None
        assert calls.may_be_interrupted()
        assert not in_thread(calls.may_be_interrupted)


class TestReadInASignalHandler:
    """A signal handler, or a finalizer, reads in the middle of anything."""

    def test_full_cache_stays_whole(self):
        """At every place that it interrupts it gets its value, and so does the reader."""
        config.configure(cache_size=3)
        store.use(Plain())
        numbers = itertools.count()
        wrong = []

        def handler():
            name = f"h{next(numbers) % 7}"
            if get_secret(name) != "v " + name:
                wrong.append(name)

        with where_handlers_run([cache, loader, store], handler):
            for number in range(10):
                assert f"v n{number}" == get_secret(f"n{number}")

        assert [] == wrong
        assert next(numbers) > 300
        assert whole()
        assert 3 >= len(store.cache.slots)

    def test_invalidation_in_a_signal_handler_is_not_lost(self):
        """It takes effect once what it interrupted has ended."""
        config.configure(cache_size=3)
        with FakeSource({"db": "v", "a": "1", "b": "2", "c": "3"}) as source:

            def drop():
                store.invalidate("db", "GetSecretValue")

            names = itertools.cycle("abc")
            for interruption in interruptions([cache], drop):
                assert "v" == get_secret("db")
                with interruption:
                    get_secret(next(names), force_fetch=True)
                source.calls.clear()
                get_secret("db")
                assert [("db",)] * interruption.happened == source.calls

    def test_invalidation_in_a_handler_that_raises_is_not_lost(self):
        """It takes effect although what it interrupted has come to no end."""
        config.configure(cache_size=3)
        with FakeSource({"db": "v", "a": "1", "b": "2", "c": "3"}) as source:

            def drop():
                store.invalidate("db", "GetSecretValue")
                raise Interrupted

            names = itertools.cycle("abc")
            for interruption in interruptions([cache], drop):
                assert "v" == get_secret("db")
                with interruption:
                    get_secret(next(names), force_fetch=True)
                assert interruption.raised == interruption.happened, interruption.where
                source.calls.clear()
                get_secret("db")
                # What was interrupted may still be called for, on a thread of its own.
                asked = sum("db" in call for call in source.calls.copy())
                assert interruption.happened == asked


class TestArguments:
    """What is refused is refused after every other call."""

    def test_true_is_no_age(self, time):
        """It equals 1, which is one."""
        with FakeSource({"a": "A"}):
            for _ in range(2):
                with pytest.raises(ConfigurationError, match="max_age"):
                    get_secret("a", max_age=True)
                assert "A" == get_secret("a", max_age=1)
            with pytest.raises(ConfigurationError, match="max_age"):
                get_parameter("a", max_age=True)
            assert {"a": "A"} != get_parameters_by_path("/", max_age=1)
            with pytest.raises(ConfigurationError, match="max_age"):
                get_parameters_by_path("/", max_age=True)

    def test_equal_switches_mean_the_same(self):
        """1, 1.0 and True, before and after one of them was read."""
        with FakeSource({"a": "A"}) as source:
            for decrypt in (1.0, True, 1, 1.0):
                assert "A" == get_parameter("a", decrypt=decrypt)
            with pytest.raises(ConfigurationError, match="decrypt"):
                get_parameter("a", decrypt=2.0)

        assert 1 == len(source.calls)


class TestThaw:
    """What a freeze leaves of a hit."""

    def test_hit_survives_it(self, time):
        """A value that is still fresh is served without looking further."""
        with FakeSource({"db": "v", "/p": "p"}):
            db, p = Secret("db"), Parameter("/p")
            values = (db.value, p.value, get_secret("db"), get_parameter("/p"))
            thaw(time, 100)
            found, store.loader.get = store.loader.get, None
            try:
                assert values == (
                    db.value,
                    p.value,
                    get_secret("db"),
                    get_parameter("/p"),
                )
            finally:
                store.loader.get = found

    def test_hit_ends_with_the_value(self, time):
        """Frozen time counts."""
        with FakeSource({"db": "old"}) as source:
            db = Secret("db")
            assert ("old", "old") == (db.value, get_secret("db"))
            source.rotate("db", "new")
            thaw(time, 299)
            thaw(time, 1)

            assert ("new", "new") == (db.value, get_secret("db"))
