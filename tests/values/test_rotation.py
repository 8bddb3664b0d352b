"""A credential fails before its time is up, or a new version comes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading

import pytest
from helpers import eventually, run_threads

from lambda_ext.exceptions import ConfigurationError, NotFoundError, ThrottledError
from lambda_ext.injection import inject
from lambda_ext.lifecycle import clock, phases
from lambda_ext.values import store
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.rotation import refresh_on


class RefusedError(Exception):
    """The database does not take the password."""


def quietly(query):
    """Run *query*, refused or not."""
    with contextlib.suppress(RefusedError):
        query()


class Database:
    """Takes one password; counts who tries."""

    def __init__(self, password):
        self.password = password
        self.tries = []

    def log_in(self, password):
        self.tries.append(password)
        if password != self.password:
            raise RefusedError
        return "in"


class Pool:
    """Connections of one password."""

    def __init__(self, password):
        self.password = password
        self.closed = 0

    def close(self):
        self.closed += 1


VALUES = {"db": "old"}


@pytest.fixture
def db(source):
    """The secret, loaded."""
    handle = Secret("db")
    assert "old" == handle.value
    return handle


@pytest.fixture
def database():
    """A database whose password was rotated a moment ago."""
    return Database("new")


class TestRefreshOn:
    """The credential was refused: load it again, call again."""

    def test_refused_credential_is_loaded_and_tried_again(self, source, db, database):
        """The caller notices nothing of a rotation."""
        source.rotate("db", "new")

        @refresh_on(RefusedError, db)
        def query():
            return database.log_in(db.value)

        assert "in" == query()
        assert ["old", "new"] == database.tries
        assert 2 == len(source.calls)

    def test_second_refusal_is_let_through(self, source, db, database):
        """Once is once: there is no loop and no sleep."""

        @refresh_on(RefusedError, db)
        def query():
            return database.log_in(db.value)

        with pytest.raises(RefusedError):
            query()
        assert ["old", "old"] == database.tries

    def test_cooldown_keeps_a_broken_login_from_flooding_aws(
        self, source, db, database, time
    ):
        """Within the cooldown a refusal is let through at once."""

        @refresh_on(RefusedError, db, cooldown=30)
        def query():
            return database.log_in(db.value)

        for _ in range(10):
            with pytest.raises(RefusedError):
                query()
        assert 2 == len(source.calls)
        assert 11 == len(database.tries)

        time.advance(30)
        source.rotate("db", "new")
        assert "in" == query()
        assert 3 == len(source.calls)

    def test_other_errors_pass(self, source, db):
        """A bug does not run the function twice.

        A peer's default runs it again on any Exception.
        """
        runs = []

        @refresh_on(RefusedError, db)
        def query():
            runs.append(1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            query()
        assert [1] == runs
        assert 1 == len(source.calls)

    def test_hundred_refused_threads_make_one_load(self, source, db, database):
        """However many fail at once, AWS is asked once, and all succeed."""
        source.rotate("db", "new")
        barrier = threading.Barrier(50)
        first = threading.local()

        @refresh_on(RefusedError, db)
        def query():
            password = db.value
            if not getattr(first, "done", False):
                first.done = True
                barrier.wait(30)
            return database.log_in(password)

        assert ["in"] * 50 == run_threads(50, lambda _: query())
        assert 2 == len(source.calls)

    def test_no_caller_is_let_through_while_another_loads(self, source, db, database):
        """A caller that is refused during the load waits for it, cooldown or not."""
        source.rotate("db", "new")
        source.hold()

        @refresh_on(RefusedError, db)
        def query():
            return database.log_in(db.value)

        results = []
        threads = [
            threading.Thread(target=lambda: results.append(query())) for _ in range(5)
        ]
        threads[0].start()
        source.wait_for_calls(2)
        for thread in threads[1:]:
            thread.start()
        assert eventually(lambda: 5 == len(database.tries))  # all were refused
        source.release()
        for thread in threads:
            thread.join()

        assert ["in"] * 5 == results
        assert 2 == len(source.calls)

    def test_whoever_has_no_time_to_wait_is_let_through(self, source, db, time):
        """The load of another is not worth the rest of the invocation."""
        source.hold()

        @refresh_on(RefusedError, db)
        def query():
            raise RefusedError

        first = threading.Thread(target=lambda: quietly(query))
        first.start()
        source.wait_for_calls(2)
        clock.begin_invocation(0.05)
        with pytest.raises(RefusedError):
            query()
        clock.deadline_at = None
        source.release()
        first.join()

    def test_forked_child_stands_in_no_line(self, source, db, database):
        """A load that the parent was in does not hold up its child."""
        source.hold()

        @refresh_on(RefusedError, db)
        def query():
            return database.log_in(db.value)

        first = threading.Thread(target=lambda: quietly(query))
        first.start()
        source.wait_for_calls(2)
        child = os.fork()
        if child == 0:
            try:
                source.__init__({"db": "new"})  # its lock was held, too
                os._exit(0 if query() == "in" else 1)
            except BaseException:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        source.release()
        first.join()

        assert 0 == os.waitstatus_to_exitcode(status)

    def test_whoever_comes_late_uses_what_was_loaded(self, source, db, database):
        """A value that is newer than the refused one is not loaded again."""
        source.rotate("db", "new")
        loaded = []

        @refresh_on(RefusedError, db)
        def query():
            password = db.value
            if not loaded:  # by a thread that is none of this call's
                loaded.extend(run_threads(1, lambda _: get_secret("db", None, True)))
            return database.log_in(password)

        assert "in" == query()
        assert ["new"] == loaded
        assert 2 == len(source.calls)

    @pytest.mark.logs
    def test_failed_load_lets_the_first_error_through(self, source, db, caplog):
        """The refusal is raised; that AWS was throttling is logged."""
        source.fail(ThrottledError("too many", transient=True))

        @refresh_on(RefusedError, db)
        def query():
            raise RefusedError

        with pytest.raises(RefusedError):
            query()
        assert "lambda_ext.refresh_on_failed" in caplog.text
        assert "old" == db.value

    def test_secret_that_is_first_read_inside(self, source, database):
        """What the function loaded itself, and was refused, is loaded again."""
        handle = Secret("db")

        @refresh_on(RefusedError, handle)
        def query():
            password = handle.value
            if len(source.calls) == 1:
                source.rotate("db", "new")
            return database.log_in(password)

        assert "in" == query()
        assert 2 == len(source.calls)

    def test_async_function(self, source, db, database):
        """The loop goes on while the credential is loaded."""
        source.rotate("db", "new")

        @refresh_on((RefusedError, KeyError), db)
        async def query():
            return database.log_in(await db.aget())

        assert "in" == asyncio.run(query())
        assert ["old", "new"] == database.tries

    def test_result_and_arguments_pass(self, db):
        """Without an error the function is only called."""

        @refresh_on(RefusedError, db)
        def add(a, *, b=1):
            """Add."""
            return a + b

        assert 5 == add(2, b=3)
        assert "Add." == add.__doc__

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((Secret("x"),), "exception class"),
            (((), Secret("x")), "exception class"),
            (("ValueError", Secret("x")), "exception class"),
            ((ValueError,), "handles after"),
            ((ValueError, "db"), "handles after"),
            ((ValueError, Secret), "takes Secret or Parameter handles"),
        ],
    )
    def test_misuse_is_refused_when_decorating(self, arguments, words):
        """The order of the arguments is said."""
        with pytest.raises(ConfigurationError, match=words):
            refresh_on(*arguments)

    @pytest.mark.parametrize("cooldown", [-1, None, "soon"])
    def test_cooldown_is_a_number_of_seconds(self, cooldown):
        """There is always one."""
        with pytest.raises(ConfigurationError, match="cooldown"):
            refresh_on(RefusedError, Secret("x"), cooldown=cooldown)


class TestOnChange:
    """Listeners for new versions."""

    def test_is_called_when_a_new_version_was_loaded(self, source, db, time):
        """Not at the first load, and not when the same comes again."""
        seen = []
        assert seen.append is db.on_change(seen.append) or True
        time.advance(300)
        db.value
        assert [] == seen

        source.rotate("db", "new")
        time.advance(300)
        db.value
        assert [db] == seen
        assert "new" == db.value

    def test_is_called_for_what_was_deleted_and_created_again(self, source, db):
        """Its number is that of before; its value is another."""
        seen = []
        db.on_change(seen.append)
        source.remove("db")
        source.rotate("db", "new")
        db.invalidate()
        db.value

        assert [db] == seen

    def test_is_called_by_a_refresh_in_the_background(self, source, db, time):
        """A version for which no caller waited is reported, too."""
        versions = []
        done = threading.Event()

        @db.on_change
        def changed(handle):
            versions.append(handle.version_id)
            done.set()

        source.rotate("db", "new")
        time.advance(271)
        db.value

        assert done.wait(30)
        assert [f"{2:032d}"] == versions

    def test_is_called_whoever_loaded_it(self, source, db):
        """A load by name, by ARN, by force or after invalidate()."""
        seen = []
        db.on_change(lambda handle: seen.append(handle.value))
        source.rotate("db", "two")
        get_secret(source.arn("db"))
        assert ["two"] == seen

        source.rotate("db", "three")
        db.invalidate()
        db.value
        assert ["two", "three"] == seen

    def test_is_called_for_a_parameter_that_was_created_anew(self, source, time):
        """Its first version is another one's first version."""
        source.rotate("/p", "one")
        handle, seen = Parameter("/p"), []
        handle.on_change(lambda changed: seen.append(changed.value))
        assert "one" == handle.value
        source.remove("/p")
        source.rotate("/p", "two")
        time.advance(301)

        assert "two" == handle.value
        assert ["two"] == seen

    @pytest.mark.parametrize("read", [get_secret, lambda name: Secret(name).value])
    def test_is_called_where_another_reader_had_the_first_load(self, source, read):
        """A handle whose first value came from memory knows which one it was."""
        source.rotate("key", "one")
        assert "one" == read("key")
        late, seen = Secret("key"), []
        late.on_change(lambda handle: seen.append(handle.value))
        assert "one" == late.value
        source.rotate("key", "two")
        late.invalidate()

        assert "two" == read("key")
        assert ["two"] == seen

    def test_is_called_for_a_handle_that_was_never_read(self, source):
        """A listener that reads nothing hears of what others load."""
        seen = []
        quiet = Secret("db")
        quiet.on_change(seen.append)
        get_secret("db")
        assert [] == seen

        source.rotate("db", "new")
        get_secret("db", force_fetch=True)
        assert [quiet] == seen

    def test_is_called_after_a_restore(self, source, db):
        """The version of before the snapshot is remembered; the value is not."""
        seen = []
        db.on_change(seen.append)
        phases.call(phases.SNAPSHOT)
        phases.call(phases.RESTORE)
        assert [] == seen

        phases.call(phases.SNAPSHOT)
        source.rotate("db", "new")
        phases.call(phases.RESTORE)
        assert [db] == seen

    @pytest.mark.logs
    def test_listener_that_raises_disturbs_no_other(self, source, db, caplog):
        """It is logged, and the others are called."""
        seen = []

        @db.on_change
        def broken(handle):
            raise ZeroDivisionError

        db.on_change(seen.append)
        source.rotate("db", "new")
        db.invalidate()

        assert "new" == db.value
        assert [db] == seen
        assert "lambda_ext.on_change_failed key=db" in caplog.text


class TestDerived:
    """What is made of a value."""

    def test_is_made_once_per_version(self, source, db, time):
        """Reloading the same version keeps the pool."""
        pool = db.derive(Pool, close=Pool.close)
        first = pool.value
        assert "old" == first.password
        time.advance(300)
        assert first is pool.value

        source.rotate("db", "new")
        time.advance(300)
        assert "new" == pool.value.password

    def test_nothing_is_made_before_it_is_used(self, source, db):
        """Declaring costs nothing."""
        made = []
        db.derive(made.append)

        assert [] == made

    def test_old_one_is_closed_when_its_last_user_leaves(self, source, db):
        """Neither under its users nor much later."""
        pool = db.derive(Pool, close=Pool.close)
        with pool as outer:
            with pool as inner:
                assert outer is inner
                source.rotate("db", "new")
                db.invalidate()
                with pool as new:
                    assert "new" == new.password
                    assert 0 == outer.closed
            assert 0 == outer.closed
        assert 1 == outer.closed
        assert 0 == new.closed

    def test_tasks_of_one_loop_leave_what_they_entered(self, source, db):
        """The first to leave leaves its own, not the last that was entered."""
        pool = db.derive(Pool, close=Pool.close)
        used = []

        async def use(entered, leave):
            with pool as mine:
                used.append(mine)
                entered.set()
                await leave.wait()

        async def main():
            entered = [asyncio.Event() for _ in range(2)]
            leave = [asyncio.Event() for _ in range(2)]
            first = asyncio.create_task(use(entered[0], leave[0]))
            await entered[0].wait()
            source.rotate("db", "new")
            db.invalidate()
            second = asyncio.create_task(use(entered[1], leave[1]))
            await entered[1].wait()
            assert [0, 0] == [each.closed for each in used]
            leave[0].set()
            await first
            assert [1, 0] == [each.closed for each in used]
            source.rotate("db", "newer")
            db.invalidate()
            pool.value
            assert [1, 0] == [each.closed for each in used]
            leave[1].set()
            await second

        asyncio.run(main())
        assert [1, 1] == [each.closed for each in used]

    def test_left_in_another_context_is_closed_after_the_grace_period(
        self, source, db, time
    ):
        """What was left cannot be told, so no caller that is inside loses it."""
        pool = db.derive(Pool, close=Pool.close, grace=60)
        old = contextvars.copy_context().run(pool.__enter__)
        pool.__exit__(None, None, None)
        source.rotate("db", "new")
        db.invalidate()
        pool.value
        assert 0 == old.closed

        time.advance(60)
        pool.value
        assert 1 == old.closed

    def test_unused_old_one_is_closed_at_once(self, source, db):
        """If no caller is inside of a `with`, it is not in use."""
        pool = db.derive(Pool, close=Pool.close)
        with pool as old:
            pass
        source.rotate("db", "new")
        db.invalidate()
        with pool as new:
            assert 1 == old.closed

        assert 0 == new.closed

    def test_one_that_was_handed_out_is_closed_after_the_grace_period(
        self, source, db, time
    ):
        """No call says when a plain value is done with."""
        pool = db.derive(Pool, close=Pool.close, grace=60)
        old = pool.value
        source.rotate("db", "new")
        db.invalidate()
        assert "new" == pool.value.password
        time.advance(59)
        pool.value
        assert 0 == old.closed

        time.advance(1)
        phases.call(phases.RESPONSE)
        assert 1 == old.closed

    def test_grace_without_end(self, source, db, time):
        """None leaves closing to the garbage collector."""
        pool = db.derive(Pool, close=Pool.close, grace=None)
        old = pool.value
        source.rotate("db", "new")
        db.invalidate()
        pool.value
        time.advance(1e6)
        phases.call(phases.RESPONSE)

        assert 0 == old.closed

    def test_threads_share_what_is_made(self, source, db):
        """Twenty threads, one pool."""
        made = []
        pool = db.derive(lambda value: made.append(value) or Pool(value))
        pools = run_threads(20, lambda _: pool.value)

        assert 1 == len({id(each) for each in pools})
        assert ["old"] == made

    def test_no_user_waits_for_the_new_one(self, source, db):
        """While it is made, others go on with the old one."""
        inside, go_on = threading.Event(), threading.Event()

        def make(password):
            if password == "new":
                inside.set()
                go_on.wait(30)
            return Pool(password)

        pool = db.derive(make)
        old = pool.value
        source.rotate("db", "new")
        db.invalidate()
        maker = threading.Thread(target=lambda: pool.value)
        maker.start()
        inside.wait(30)

        assert old is pool.value
        go_on.set()
        maker.join()
        assert "new" == pool.value.password

    def test_failure_to_make_reaches_the_caller(self, source, db):
        """What make raises is the user's own; the next one tries again."""
        fails = [ZeroDivisionError]

        def make(password):
            if fails:
                raise fails.pop()
            return Pool(password)

        pool = db.derive(make)
        with pytest.raises(ZeroDivisionError):
            pool.value
        assert "old" == pool.value.password

    @pytest.mark.logs
    def test_failure_to_close_is_logged(self, source, db, caplog):
        """A pool that cannot be closed does not disturb the next."""
        pool = db.derive(Pool, close=lambda pool: 1 / 0)
        with pool:
            pass
        source.rotate("db", "new")
        db.invalidate()

        assert "new" == pool.value.password
        assert "lambda_ext.close_failed key=db" in caplog.text

    def test_snapshot_closes_everything(self, source, db, time):
        """No connection and no credential of a pool is in a snapshot."""
        pool = db.derive(Pool, close=Pool.close)
        old = pool.value
        source.rotate("db", "new")
        db.invalidate()
        new = pool.value
        phases.call(phases.SNAPSHOT)
        assert (1, 1) == (old.closed, new.closed)

        phases.call(phases.RESTORE)
        assert new is not pool.value
        assert 0 == pool.value.closed

    def test_forked_child_closes_nothing(self, source, db):
        """The parent's sockets are not the child's to close; it makes its own."""
        read, write = os.pipe()
        pool = db.derive(Pool, close=lambda pool: os.write(write, b"closed"))
        parents = pool.value
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if pool.value is not parents else 1)
            except BaseException:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        os.close(write)

        assert 0 == os.waitstatus_to_exitcode(status)
        assert b"" == os.read(read, 10)
        assert parents is pool.value
        os.close(read)

    def test_is_injected_like_a_value(self, source, db):
        """It resolves, also without blocking a loop."""
        pool = db.derive(Pool)

        @inject(pool=pool)
        def plain(*, pool):
            return pool.password

        @inject(pool=pool)
        async def asynchronous(*, pool):
            return pool.password

        assert ("old", "old") == (plain(), asyncio.run(asynchronous()))

    def test_value_that_cannot_be_had_raises(self, source):
        """Without a value nothing is made."""
        made = []
        pool = Secret("nope").derive(made.append)
        with pytest.raises(NotFoundError):
            pool.value

        assert [] == made

    def test_repr_names_the_handle(self, source, db):
        """And neither object nor value."""
        pool = db.derive(Pool)
        pool.value

        assert f"<Derived from {db!r}>" == repr(pool)
        assert "old" not in repr(pool)
        assert 1 == store.snapshot().entries
