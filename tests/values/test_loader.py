"""Fresh, stale and dead; refreshes for which no caller waits; many keys at once."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from types import SimpleNamespace

import pytest
from helpers import eventually, loads_under_way, run_threads

from lambda_ext.exceptions import (
    AccessDeniedError,
    NotFoundError,
    SourceError,
    ThrottledError,
)
from lambda_ext.lifecycle import phases
from lambda_ext.values import calls, keys, loader, store
from lambda_ext.values.cache import Load
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Secret

THROTTLED = ThrottledError("too many", code="ThrottlingException", transient=True)
DENIED = AccessDeniedError("no", code="AccessDeniedException")


@pytest.fixture
def worker(monkeypatch):
    """Refreshes run when the test says so, not on a thread."""
    wakes = []
    monkeypatch.setattr(
        store.loader,
        "worker",
        SimpleNamespace(wake=lambda: wakes.append(1), close=lambda: None),
    )
    return wakes


class TestMaking:
    """The loader itself, of which there is one."""

    def test_first_readers_share_one(self, source, monkeypatch):
        """Threads that need it at once make one, and so one load."""
        made = []

        class Counted(loader.Loader):
            def __init__(self, *arguments):
                made.append(threading.get_ident())
                eventually(lambda: inside() == 8)
                super().__init__(*arguments)

        def inside():
            """Return how many threads need a loader now."""
            return sum(
                any(frame.f_code is store._loading.__code__ for frame, _ in walk)
                for walk in map(traceback.walk_stack, sys._current_frames().values())
            )

        monkeypatch.setattr(loader, "Loader", Counted)
        found = run_threads(8, lambda _: (get_secret("db"), store.loader))

        assert [("one", store.loader)] * 8 == found
        assert (1, 1) == (len(made), len(source.calls))

    def test_without_a_read_there_is_none(self, source):
        """Nothing to drop, to end or to take over needs it."""
        handle = Secret("db")
        store.forget()
        store._forked()

        assert 0 == store.invalidate("db", keys.SECRET)
        assert store._loader is None
        assert "one" == handle.value


class TestFresh:
    """What is younger than max_age."""

    def test_value_is_served_from_memory_until_max_age(self, source, time, worker):
        """AWS is not asked while a value is younger than max_age."""
        assert "one" == get_secret("db")
        source.rotate("db", "two")
        time.advance(299.9)

        assert "one" == get_secret("db")
        assert 1 == len(source.calls)

    def test_value_is_loaded_at_max_age(self, source, time, worker):
        """A value that is max_age old is not served any more."""
        assert "one" == get_secret("db")
        source.rotate("db", "two")
        time.advance(300)

        assert "two" == get_secret("db")

    def test_age_counts_from_when_the_request_was_sent(self, source, time, worker):
        """The time that AWS took to answer belongs to the age."""
        fetch = source.fetch
        source.fetch = lambda *args: (time.advance(100), fetch(*args))[1]
        assert "one" == get_secret("db")
        source.fetch = fetch
        time.advance(200)
        get_secret("db")

        assert 2 == len(source.calls)

    def test_none_is_for_ever(self, source, time, worker):
        """max_age=None never asks again."""
        assert "one" == get_secret("db", max_age=None)
        time.advance(1e9)

        assert "one" == get_secret("db", max_age=None)
        assert [] == worker

    def test_zero_asks_at_each_read(self, source, time, worker):
        """max_age=0 asks AWS on every read."""
        for _ in range(3):
            get_secret("db", max_age=0)

        assert 3 == len(source.calls)

    def test_max_age_is_the_callers_tolerance(self, source, time, worker):
        """Two callers share one entry and judge its age each for itself."""
        assert "one" == get_secret("db")
        source.rotate("db", "two")
        time.advance(20)

        assert "one" == get_secret("db", max_age=60)
        assert "two" == get_secret("db", max_age=10)
        assert "two" == get_secret("db")
        assert 2 == len(source.calls)

    def test_force_fetch_asks_whatever_is_remembered(self, source, worker):
        """force_fetch asks AWS, and what it brings serves all callers."""
        db = Secret("db")
        assert "one" == db.value
        source.rotate("db", "two")

        assert "two" == get_secret("db", force_fetch=True)
        assert "two" == db.value
        assert 2 == len(source.calls)


class TestRefreshAhead:
    """What is due before it expires."""

    def test_due_hit_wakes_the_worker_and_does_not_wait(self, source, time, worker):
        """A hit past 90 % of max_age is served, and has the value refreshed."""
        assert "one" == get_secret("db")
        source.rotate("db", "two")
        time.advance(271)

        assert "one" == get_secret("db")
        assert [1] == worker
        assert 1 == len(source.calls)

        store.loader.refresh_due()
        assert "two" == get_secret("db")
        assert 2 == len(source.calls)
        assert 1 == store.snapshot().refreshes

    def test_hit_before_the_first_is_due_wakes_no_worker(self, source, time, worker):
        """Nothing is refreshed before 70 % of max_age."""
        get_secret("db")
        time.advance(209)
        get_secret("db")

        assert [] == worker

    def test_worker_is_woken_once(self, source, time, worker):
        """A thousand hits on a due value are one refresh."""
        get_secret("db")
        time.advance(271)
        for _ in range(1000):
            get_secret("db")

        assert [1] == worker

    def test_worker_is_woken_once_by_several_forms_of_a_value(
        self, source, time, worker
    ):
        """Each form has a view of its own, and all have one load."""
        get_secret("db"), get_secret("db", str.upper)
        time.advance(271)
        get_secret("db"), get_secret("db", str.upper)

        assert [1] == worker

    def test_hits_during_a_refresh_stay_cheap(self, source, time, worker):
        """While the worker refreshes it, hits find the value without asking the loader."""
        db = Secret("db")
        db.value, get_secret("db")
        time.advance(271)
        db.value, get_secret("db")
        source.hold()
        refresh = threading.Thread(target=store.loader.refresh_due)
        refresh.start()
        source.wait_for_calls(2)
        db.value, get_secret("db")

        looked, store.loader.get = store.loader.get, None
        try:
            assert ("one", "one") == (db.value, get_secret("db"))
        finally:
            store.loader.get = looked
            source.release()
            refresh.join()

    def test_everything_due_goes_in_one_batch(self, source, time, worker):
        """One hit has all that was read and is due refreshed in one call."""
        for name in ("a", "b", "c"):
            source.rotate(name, name)
        handles = [Secret(name) for name in ("a", "b", "c")]
        assert ["a", "b", "c"] == [handle.value for handle in handles]
        time.advance(271)
        assert "b" == handles[1].value
        store.loader.refresh_due()

        assert [("a", "b", "c"), ("a", "b", "c")] == source.calls

    def test_value_that_is_not_read_is_not_refreshed(self, source, time, worker):
        """A batch does not take along what was not read since it was loaded."""
        source.rotate("idle", "idle")
        idle, db = Secret("idle"), Secret("db")
        phases.call(phases.INIT)
        db.value
        time.advance(271)
        db.value
        store.loader.refresh_due()

        assert [("idle", "db"), ("db",)] == source.calls
        assert "idle" == idle.value
        source.calls.clear()
        get_secret("db")
        store.loader.refresh_due()

        assert [("idle",)] == source.calls

    def test_refresh_runs_on_a_daemon_thread(self, source, time):
        """The real worker refreshes while the reader goes on."""
        assert "one" == get_secret("db")
        source.rotate("db", "two")
        time.advance(271)
        source.hold()

        assert "one" == get_secret("db")
        source.wait_for_calls(2)
        assert "one" == get_secret("db")

        (load,) = loads_under_way()
        source.release()
        load.wait(30)
        assert load.is_over()
        assert "two" == get_secret("db")

    def test_reader_joins_a_refresh_that_is_late(self, source, time, monkeypatch):
        """When a value expires during its refresh, readers wait for that one."""
        get_secret("db")
        source.rotate("db", "two")
        time.advance(271)
        source.hold()
        get_secret("db")
        source.wait_for_calls(2)
        time.advance(44)
        wait = Load.wait
        monkeypatch.setattr(
            Load,
            "wait",
            lambda *given, **how: (source.release(), wait(*given, **how)),
        )

        assert "two" == get_secret("db")
        assert 2 == len(source.calls)

    @pytest.mark.logs
    @pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
    def test_worker_survives_what_is_no_exception(self, source, time, error):
        """It refuses a refresh as any other error does; the next one comes."""
        fetch = source.fetch

        def fails(wanted, timeout_s):
            source.calls.append(("fails",))
            raise error

        assert "one" == get_secret("db")
        time.advance(271)
        source.fetch = fails
        get_secret("db")
        eventually(lambda: len(source.calls) == 2 and not loads_under_way())
        source.fetch = fetch
        assert "one" == get_secret("db")
        assert 3 == len(source.calls)

        source.rotate("db", "two")
        time.advance(271)
        assert "one" == get_secret("db")
        source.wait_for_calls(4)
        eventually(lambda: get_secret("db") == "two")

    @pytest.mark.logs
    def test_worker_survives_a_listener_that_exits(self, source, time):
        """It is logged; the next refresh comes."""
        db = Secret("db")
        exits = []

        @db.on_change
        def listener(_):
            exits.append(1)
            sys.exit()

        for number, value in enumerate(("one", "two", "three")):
            assert value == db.value
            source.rotate("db", ("two", "three", "four")[number])
            time.advance(271)
            db.value
            eventually(lambda count=number + 1: len(exits) == count)
            eventually(lambda: not loads_under_way())

    def test_source_may_plan_a_call_for_nothing(self, source, time, worker):
        """It is not made."""
        plan = source.plan
        source.plan = lambda wanted: [(), *plan(wanted), []]
        fetch = source.fetch
        source.fetch = lambda wanted, timeout_s: wanted[0] and fetch(wanted, timeout_s)

        assert "one" == get_secret("db")
        time.advance(271)
        source.rotate("db", "two")
        get_secret("db")
        store.loader.refresh_due()
        assert "two" == get_secret("db")
        assert [("db",)] * 2 == source.calls


class TestStale:
    """What serves while AWS cannot."""

    @pytest.mark.logs
    def test_passing_failure_serves_the_old_value(self, source, time, worker, caplog):
        """While AWS throttles, the last good value serves, counted and logged."""
        assert "one" == get_secret("db")
        source.fail(THROTTLED)
        time.advance(300)

        assert "one" == get_secret("db")
        assert 1 == store.snapshot().stale_served
        assert {"ThrottledError": 1} == store.snapshot().errors
        assert "lambda_ext.stale_served key=db source=fake" in caplog.text

    @pytest.mark.logs
    def test_back_off_spares_aws_while_a_stale_value_serves(self, source, time, worker):
        """After a failure the next call is made after a pause, which grows."""
        get_secret("db")
        source.fail(THROTTLED)
        time.advance(300)
        for _ in range(100):
            assert "one" == get_secret("db")
        assert 2 == len(source.calls)

        time.advance(1.0)
        get_secret("db")
        assert 3 == len(source.calls)

        time.advance(0.9)
        get_secret("db")
        assert 3 == len(source.calls)
        assert 102 == store.snapshot().stale_served

    @pytest.mark.logs
    def test_back_off_spares_what_another_load_would_take_along(
        self, source, time, worker, monkeypatch
    ):
        """A declared value whose refresh failed goes with no other load either."""
        monkeypatch.setattr(calls, "random", lambda: 1.0)
        source.rotate("other", "o")
        failing, other = Secret("db", max_age=300), Secret("other", max_age=10)
        failing.value, other.value
        source.fail(THROTTLED, name="db")
        time.advance(300)
        for pause in (1, 2, 4, 8):  # each failure doubles it
            assert "one" == failing.value
            time.advance(pause)
        assert "one" == failing.value  # and is left alone for 16 seconds
        time.advance(10.5)
        before = len(source.calls)
        assert "o" == other.value

        assert [["other"]] == [[*call] for call in source.calls[before:]]

    @pytest.mark.logs
    def test_pause_ends_when_it_is_over(self, source, time, worker, monkeypatch):
        """At its last instant, not after it."""
        monkeypatch.setattr(calls, "random", lambda: 1.0)
        get_secret("db")
        source.fail(THROTTLED)
        time.advance(300)
        get_secret("db")
        time.advance(0.5)
        get_secret("db")
        assert 2 == len(source.calls)

        time.advance(0.5)
        get_secret("db")
        assert 3 == len(source.calls)

    @pytest.mark.logs
    def test_stale_value_is_dead_after_max_stale(self, source, time, worker):
        """Nothing older than max_age + max_stale is ever served."""
        get_secret("db")
        source.fail(THROTTLED)
        time.advance(300 + 3599)
        assert "one" == get_secret("db")

        time.advance(1.0)
        with pytest.raises(ThrottledError):
            get_secret("db")

    def test_max_stale_zero_is_off(self, source, time, worker):
        """With max_stale=0 an expired value is never served."""
        db = Secret("db", max_stale=0)
        assert "one" == db.value
        source.fail(THROTTLED)
        time.advance(300)

        with pytest.raises(ThrottledError):
            db.value

    @pytest.mark.parametrize("max_age", [0])
    def test_max_stale_has_no_effect_without_an_age(
        self, source, time, worker, max_age
    ):
        """A caller with max_age 0 or None gets no stale value."""
        db = Secret("db", max_age=max_age, max_stale=3600)
        assert "one" == db.value
        source.fail(THROTTLED)

        with pytest.raises(ThrottledError):
            db.value

    @pytest.mark.parametrize(
        "error",
        [
            DENIED,
            NotFoundError("gone", code="ResourceNotFoundException"),
            AccessDeniedError("kms", code="DecryptionFailure"),
            SourceError("scheduled for deletion", code="InvalidRequestException"),
        ],
    )
    def test_lasting_failure_kills_the_entry(self, source, time, worker, error):
        """Denied, deleted or undecryptable values are dead at once."""
        assert "one" == get_secret("db")
        source.fail(error, times=1)
        time.advance(300)
        with pytest.raises(type(error)):
            get_secret("db")

        source.fail(THROTTLED)
        with pytest.raises(SourceError):
            get_secret("db")

    @pytest.mark.logs
    def test_denial_in_the_background_kills_the_entry(
        self, source, time, worker, caplog
    ):
        """A refresh that is denied takes away the value, also from handles."""
        db = Secret("db")
        assert "one" == db.value
        time.advance(271)
        assert "one" == db.value
        source.fail(DENIED)
        store.loader.refresh_due()

        with pytest.raises(AccessDeniedError):
            db.value
        assert "lambda_ext.entry_killed key=db source=fake" in caplog.text

    @pytest.mark.logs
    def test_failed_refresh_leaves_a_fresh_value_alone(self, source, time, worker):
        """A refresh that fails for a passing reason is tried again later."""
        get_secret("db")
        time.advance(271)
        get_secret("db")
        source.fail(THROTTLED, times=1)
        store.loader.refresh_due()

        assert "one" == get_secret("db")
        assert [1] == worker
        time.advance(1.0)
        assert "one" == get_secret("db")
        assert [1, 1] == worker


class TestNotFound:
    """What does not exist, for now."""

    def test_is_remembered_for_seconds(self, source, time, worker):
        """A name that does not exist costs one call in five seconds."""
        for _ in range(10):
            with pytest.raises(NotFoundError, match="'nope'"):
                get_secret("nope")
        assert 1 == len(source.calls)

        source.rotate("nope", "now it does")
        time.advance(5)
        assert "now it does" == get_secret("nope")

    def test_is_not_remembered_against_force_fetch(self, source, worker):
        """force_fetch and max_age=0 ask all the same."""
        with pytest.raises(NotFoundError):
            get_secret("nope")
        source.rotate("nope", "now it does")

        assert "now it does" == get_secret("nope", force_fetch=True)

    def test_is_forgotten_when_something_else_is_heard(self, source, worker):
        """A denial after a "not found" is the newer truth, and is not remembered."""
        with pytest.raises(NotFoundError):
            get_secret("nope")
        source.fail(DENIED)
        with pytest.raises(AccessDeniedError):
            get_secret("nope", force_fetch=True)
        with pytest.raises(AccessDeniedError):
            get_secret("nope")

    def test_no_other_error_is_remembered(self, source, worker):
        """A denied value is asked for by each caller anew."""
        source.fail(DENIED, times=1)
        with pytest.raises(AccessDeniedError):
            get_secret("db")

        assert "one" == get_secret("db")


class TestInvalidation:
    """What is dropped, and does not come back."""

    def test_load_begun_before_an_invalidation_is_not_kept(self, source, worker):
        """What was asked before a write does not overwrite what came after."""
        db = Secret("db")
        fetch = source.fetch

        def overtaken(wanted, timeout_s):
            answers = fetch(wanted, timeout_s)
            source.fetch = fetch
            source.rotate("db", "two")
            db.invalidate()
            assert "two" == get_secret("db")
            return answers

        source.fetch = overtaken
        assert "two" == get_secret("db")  # no less than is remembered by then
        assert "two" == db.value
        assert "two" == get_secret("db")
        assert 2 == len(source.calls)

    def test_load_overtaken_by_an_invalidation_serves_no_later_read(
        self, source, worker
    ):
        """Where nothing was loaded since, the next read asks, also by another name."""
        by_name, by_arn = Secret("db"), Secret(source.arn("db"))
        assert ("one", "one") == (by_name.value, by_arn.value)
        fetch = source.fetch

        def interrupted(wanted, timeout_s):
            answers = fetch(wanted, timeout_s)
            source.fetch = fetch
            source.rotate("db", "two")
            by_arn.invalidate()
            return answers

        source.fetch = interrupted
        get_secret("db", force_fetch=True)
        before = len(source.calls)

        assert ("two", "two") == (by_name.value, by_arn.value)
        assert len(source.calls) > before

    def test_load_begun_before_an_invalidation_blocks_no_reader(self, source, worker):
        """A reader after a write does not wait for what was asked before it."""
        inside, go_on = threading.Event(), threading.Event()
        fetch = source.fetch

        def stuck(wanted, timeout_s):
            answers = fetch(wanted, timeout_s)
            source.fetch = fetch
            inside.set()
            go_on.wait(30)
            return answers

        source.fetch = stuck
        late = threading.Thread(target=lambda: get_secret("db"))
        late.start()
        inside.wait(30)
        source.rotate("db", "two")
        store.invalidate("db", keys.SECRET)

        assert "two" == get_secret("db")
        go_on.set()
        late.join()
        assert "two" == get_secret("db")
        assert 2 == len(source.calls)

    def test_older_load_does_not_overwrite_a_newer_entry(self, source, worker):
        """Of two loads that overlap, the one begun later stays."""
        fetch = source.fetch

        def overtaken(wanted, timeout_s):
            answers = fetch(wanted, timeout_s)
            source.fetch = fetch
            source.rotate("db", "two")
            assert "two" == get_secret("db", force_fetch=True)
            return answers

        source.fetch = overtaken
        assert "two" == get_secret("db")

        assert "two" == get_secret("db")
        assert 2 == len(source.calls)

    def test_number_of_a_parameter_does_not_go_back(self, source, worker):
        """A load that began later may have been answered earlier."""
        fetch = source.fetch
        answered, landed = threading.Event(), threading.Event()
        results = []

        def later():
            def slow(wanted, timeout_s):
                answers = fetch(wanted, timeout_s)
                answered.set()
                landed.wait(30)
                return answers

            source.fetch = slow
            results.append(get_parameter("db", force_fetch=True))

        def sooner(wanted, timeout_s):
            thread.start()
            answered.wait(30)
            source.rotate("db", "two")
            return fetch(wanted, timeout_s)

        thread = threading.Thread(target=later)
        source.fetch = sooner
        assert "two" == get_parameter("db")
        landed.set()
        thread.join()

        assert "two" == get_parameter("db")
        assert ["two"] == results
        assert 2 == len(source.calls)

    def test_parameter_that_was_made_anew_begins_with_one_again(self, source, worker):
        """A lower number counts if its load began after the last had ended."""
        source.rotate("db", "two")
        assert "two" == get_parameter("db")
        source.remove("db")
        source.rotate("db", "anew")

        assert "anew" == get_parameter("db", force_fetch=True)
        assert "anew" == get_parameter("db")

    def test_name_and_arn_agree_and_are_invalidated_together(self, source, worker):
        """Two handles of one secret never differ once each has been loaded."""
        by_name, by_arn = Secret("db"), Secret(source.arn("db"))
        partial = Secret(source.arn("db")[:-7])
        assert ["one"] * 3 == [by_name.value, by_arn.value, partial.value]

        source.rotate("db", "two")
        get_secret("db", force_fetch=True)
        assert ["two"] * 3 == [by_name.value, by_arn.value, partial.value]
        assert 2 == len(source.calls)

        source.rotate("db", "three")
        by_arn.invalidate()
        assert ["three"] * 3 == [by_name.value, by_arn.value, partial.value]
