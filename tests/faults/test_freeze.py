"""A freeze lies between two invocations: time has gone by, sockets are dead."""

from __future__ import annotations

import threading

import pytest
from helpers import loads_under_way

from lambda_ext.exceptions import AccessDeniedError, SourceError, ThrottledError
from lambda_ext.lifecycle import clock
from lambda_ext.testing import FakeSource
from lambda_ext.values import store
from lambda_ext.values.batches import get_parameters_by_path
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Secret

BROKEN = SourceError("the connection broke", transient=True)


VALUES = {"db": "one", "/a/b": "one"}


@pytest.fixture
def source(source):
    """The source, within a first invocation."""
    clock.begin_invocation()
    return source


def thaw(time, seconds):
    """Let the environment be frozen for so long, then invoke it."""
    time.freeze(seconds)
    clock.begin_invocation()


class TestAge:
    """Monotonic time stands still in a freeze; values age all the same."""

    def test_nothing_dead_is_served_after_a_long_freeze(self, source, time):
        """Half an hour later every kind of read asks AWS.

        Caches of other libraries that count monotonic time alone go on serving
        what they had for as long as they were frozen.
        """
        db = Secret("db")
        readers = [
            lambda: db.value,
            lambda: get_secret("db"),
            lambda: get_secret("db", lambda raw: raw),
            lambda: get_parameters_by_path("/a")["/a/b"],
        ]
        assert ["one"] * 4 == [read() for read in readers]
        source.rotate("db", "two")
        source.rotate("/a/b", "two")
        thaw(time, 1800)

        assert ["two"] * 4 == [read() for read in readers]

    def test_short_freeze_leaves_fresh_values_alone(self, source, time):
        """A freeze ages a value; it does not kill it."""
        db = Secret("db")
        db.value
        for _ in range(10):
            thaw(time, 20)
            assert ("one", "one") == (db.value, get_secret("db"))

        assert 1 == len(source.calls)

    def test_run_time_and_frozen_time_add_up(self, source, time):
        """Age is what the world's clocks say."""
        db = Secret("db", max_age=100)
        db.value
        source.rotate("db", "two")
        time.advance(30)
        thaw(time, 30)
        time.advance(14)
        assert "one" == db.value

        thaw(time, 26)
        assert "two" == db.value

    def test_wall_clock_that_steps_back_keeps_nothing_alive(self, source, time):
        """A correction of the clock does not make values young again."""
        db = Secret("db", max_age=100)
        db.value
        source.rotate("db", "two")
        time.step(-3600)
        time.advance(100)
        clock.begin_invocation()

        assert "two" == db.value

    def test_without_invocations_a_freeze_is_seen_by_the_read_itself(self, time):
        """Programs without a decorated handler need nothing else."""
        with FakeSource({"db": "one"}) as source:
            db = Secret("db")
            assert "one" == db.value
            source.rotate("db", "two")
            time.freeze(1800)

            assert "two" == db.value


class TestLoadUnderWay:
    """A request was sent, and then the environment was frozen."""

    def test_error_after_a_thaw_means_one_more_try(self, source, time):
        """What a freeze broke is asked again, with a new signature, by the load."""
        fetch = source.fetch

        def frozen(wanted, timeout_s):
            source.fetch = fetch
            thaw(time, 600)
            raise AccessDeniedError(
                "signature expired", code="InvalidSignatureException"
            )

        source.fetch = frozen

        assert "one" == get_secret("db")

    def test_answer_is_as_old_as_its_request(self, source, time):
        """An answer that was under way while frozen is not fresh."""
        fetch = source.fetch

        def frozen(wanted, timeout_s):
            answers = fetch(wanted, timeout_s)
            source.fetch = fetch
            thaw(time, 600)
            return answers

        source.fetch = frozen
        get_secret("db")
        source.rotate("db", "two")

        assert "two" == get_secret("db")

    def test_blocks_no_reader_in_the_next_invocation(self, source, time):
        """A reader after a thaw asks AWS itself, and the old load does not overwrite it."""
        fetch = source.fetch
        inside, go_on = threading.Event(), threading.Event()

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
        thaw(time, 10)

        assert "two" == get_secret("db")
        go_on.set()
        late.join()
        assert "two" == get_secret("db")
        assert 2 == len(source.calls)


class TestRefreshUnderWay:
    """The worker was asking when the environment was frozen."""

    def freeze_the_worker(self, source, time, then):
        """Begin a refresh, freeze it for a minute, and let *then* be its outcome."""
        db = Secret("db")
        assert "one" == db.value
        source.rotate("db", "two")
        time.advance(271)
        fetch = source.fetch
        asked, thawed, done = threading.Event(), threading.Event(), threading.Event()

        def frozen(wanted, timeout_s):
            source.fetch = again
            asked.set()
            thawed.wait(30)
            return then(wanted, timeout_s)

        def again(wanted, timeout_s):
            try:
                return fetch(wanted, timeout_s)
            finally:
                done.set()

        source.fetch = frozen
        assert "one" == db.value  # wakes the worker, for which no reader waits
        asked.wait(30)
        (load,) = loads_under_way()
        thaw(time, 20)
        return db, load, thawed

    def test_goes_on_after_the_thaw(self, source, time):
        """A dead connection is replaced, and the value comes, unnoticed."""

        def breaks(wanted, timeout_s):
            raise BROKEN

        db, load, thawed = self.freeze_the_worker(source, time, breaks)
        assert "one" == db.value
        thawed.set()
        load.wait(30)
        assert load.is_over()

        assert "two" == db.value
        assert 2 == len(source.calls)

    def test_blocks_no_reader_when_the_value_expires(self, source, time):
        """Past max_age a reader does not wait for a refresh from before."""

        def answers_late(wanted, timeout_s):
            return {}

        db, load, thawed = self.freeze_the_worker(source, time, answers_late)
        thaw(time, 600)

        assert "two" == db.value
        thawed.set()
        load.wait(30)
        assert load.is_over()
        assert "two" == db.value

    def test_is_begun_anew_by_the_next_due_hit(self, source, time):
        """A refresh that hangs since before a freeze holds up no other."""

        def answers_late(wanted, timeout_s):
            return {}

        db, load, thawed = self.freeze_the_worker(source, time, answers_late)
        assert "one" == db.value  # not expired yet, but due
        store.loader.refresh_due()
        assert "two" == db.value

        thawed.set()
        load.wait(30)
        assert load.is_over()
        assert "two" == db.value
        assert 3 == len(source.calls)  # the late one has tried once more

    def test_late_denial_does_not_kill_what_is_newer(self, source, time):
        """An expired signature of before the freeze says nothing about now."""

        def denied(wanted, timeout_s):
            source.fail(AccessDeniedError("expired"), times=1)
            raise AccessDeniedError("expired")

        db, load, thawed = self.freeze_the_worker(source, time, denied)
        thaw(time, 600)
        assert "two" == db.value

        thawed.set()
        load.wait(30)
        assert load.is_over()
        calls = len(source.calls)
        assert "two" == db.value
        assert calls == len(source.calls)


class TestBackOff:
    """Pauses are counted on the house clock, too."""

    @pytest.mark.logs
    def test_freeze_ends_the_pause(self, source, time):
        """After a long freeze AWS is asked at once."""
        db = Secret("db")
        db.value
        source.fail(ThrottledError("too many", transient=True), times=1)
        time.advance(300)
        assert "one" == db.value
        source.rotate("db", "two")
        thaw(time, 60)

        assert "two" == db.value
