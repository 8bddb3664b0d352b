"""Many callers, one key: one call, if it succeeds and if it fails."""

from __future__ import annotations

import threading

import pytest
from helpers import eventually, run_threads

from lambda_ext.exceptions import AccessDeniedError, SourceTimeoutError, ThrottledError
from lambda_ext.lifecycle import clock
from lambda_ext.testing import FakeClock
from lambda_ext.values import getters, handles, store

VALUES = {"db": "secret-1"}


def storm(source, count, read):
    """Run *count* readers of one key, all of which arrive while it loads."""
    source.hold()
    threads = threading.Thread(
        target=lambda: (
            source.wait_for_calls(1),
            wait_for_misses(count),
            source.release(),
        )
    )
    threads.start()
    results = run_threads(count, lambda _: read())
    threads.join()
    return results


def wait_for_misses(count):
    """Return once *count* readers wait for a load."""
    eventually(lambda: store.loader.misses >= count)


class TestOneKey:
    """One key, many threads."""

    def test_dead_key_is_loaded_once(self, source):
        """A hundred threads that want one dead key make one call."""
        results = storm(source, 100, lambda: getters.get_secret("db"))

        assert ["secret-1"] * 100 == results
        assert [("db",)] == source.calls

    def test_failed_load_gives_each_waiter_its_own_exception(self, source):
        """A hundred threads get a hundred exceptions, chained to the original."""
        original = AccessDeniedError("no", key="db", code="AccessDeniedException")
        source.fail(original)
        errors = storm(source, 100, lambda: getters.get_secret("db"))

        assert 1 == len(source.calls)
        assert 100 == len({id(error) for error in errors})
        assert {AccessDeniedError} == {type(error) for error in errors}
        assert {"AccessDeniedException"} == {error.code for error in errors}
        assert 99 == sum(error.__cause__ is original for error in errors)

    def test_expired_key_is_loaded_once_for_handles_and_functions_together(
        self, source
    ):
        """A handle and a function wait for the same load."""
        with FakeClock() as time:
            db = handles.Secret("db")
            assert "secret-1" == db.value

            time.advance(300)
            source.rotate("db", "secret-2")
            store.loader.misses = 0
            readers = iter([lambda: db.value, lambda: getters.get_secret("db")] * 20)
            results = storm(source, 40, lambda: next(readers)())

        assert ["secret-2"] * 40 == results
        assert 2 == len(source.calls)

    def test_each_new_wave_makes_one_call_when_there_is_nothing_to_serve(self, source):
        """Failures are not remembered: the next caller asks again."""
        source.fail(ThrottledError("too many", transient=True))
        for _ in range(3):
            storm_errors = run_threads(1, lambda _: getters.get_secret("db"))
            assert ThrottledError is type(storm_errors[0])

        assert 3 == len(source.calls)


class TestWaiting:
    """Waiting for another caller's load."""

    def test_waiter_leaves_when_its_time_is_over(self, source):
        """A caller waits no longer than its invocation lasts."""
        source.hold()
        loading = threading.Thread(target=lambda: getters.get_secret("db"), daemon=True)
        loading.start()
        source.wait_for_calls(1)
        generation = clock.generation
        clock.deadline_at = clock.monotonic() + 0.15  # an invocation under way

        with pytest.raises(SourceTimeoutError, match="'db'") as raised:
            getters.get_secret("db")

        assert generation == clock.generation
        assert raised.value.transient
        clock.deadline_at = None
        source.release()
        loading.join()

    def test_signal_handler_inside_a_load_does_not_wait_for_itself(self, source):
        """The thread that makes a load may ask for the same key meanwhile."""
        inner = []
        fetch = source.fetch

        def interrupted(wanted, timeout_s):
            if not inner:
                inner.append(None)
                inner[0] = getters.get_secret("db")
            return fetch(wanted, timeout_s)

        source.fetch = interrupted

        assert "secret-1" == getters.get_secret("db")
        assert ["secret-1"] == inner

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_leader_interrupted_while_it_plans_hands_over(self, source, error):
        """No caller waits for a call that will never be made."""
        entered = threading.Event()
        plan = source.plan

        def dying(wanted):
            source.plan = plan
            entered.set()
            wait_for_misses(2)
            raise error

        source.plan = dying

        def read(index):
            if index:
                entered.wait()
            return getters.get_secret("db")

        results = run_threads(2, read)

        assert error is type(results[0])
        assert "secret-1" == results[1]

    def test_interrupted_leader_hands_over(self, source):
        """When KeyboardInterrupt ends the loading thread, a waiter asks for itself."""
        entered = threading.Event()
        fetch = source.fetch

        def dying(wanted, timeout_s):
            source.fetch = fetch
            entered.set()
            wait_for_misses(2)
            raise KeyboardInterrupt

        source.fetch = dying
        results = [None, None]

        def load():
            try:
                getters.get_secret("db")
            except BaseException as exc:
                results[0] = exc

        loading = threading.Thread(target=load)
        loading.start()
        entered.wait()
        results[1] = getters.get_secret("db")
        loading.join()

        assert KeyboardInterrupt is type(results[0])
        assert "secret-1" == results[1]
