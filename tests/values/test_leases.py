"""What was derived is not closed while it is used, and is closed in the end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import threading
import weakref

import pytest
from helpers import python

from lambda_ext.exceptions import ConfigurationError
from lambda_ext.injection import inject
from lambda_ext.lifecycle import phases
from lambda_ext.testing import FakeSource, simulate_sigterm
from lambda_ext.values.handles import Secret


class Pool:
    """Connections of one password."""

    def __init__(self, password):
        self.password = password
        self.closed = 0

    def close(self):
        self.closed += 1


VALUES = {"db": "1"}


@pytest.fixture
def pool(source):
    """What is derived."""
    return Secret("db").derive(Pool, close=Pool.close, grace=60)


@pytest.fixture
def rotate(source, pool):
    """A function that rotates, and has the new object made."""

    def rotate():
        source.rotate("db", str(len(source.calls) + 1))
        pool._handle.invalidate()
        with pool as made:
            return made

    return rotate


class TestLeases:
    """An object is not closed before its last user has left."""

    def test_value_that_was_handed_out_does_not_end_a_lease(self, pool, rotate, time):
        """The grace period is over; the ``with`` is not."""
        pool.value
        with pool as mine:
            rotate()
            time.advance(61)
            rotate()
            assert 0 == mine.closed
        assert 1 == mine.closed

    def test_lease_does_not_end_the_grace_period(self, pool, rotate, time):
        """The ``with`` is over; the grace period is not."""
        pool.value
        with pool as mine:
            rotate()
        assert 0 == mine.closed

        time.advance(60)
        phases.call(phases.RESPONSE)
        assert 1 == mine.closed

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
    def test_generators_leave_what_they_entered(self, pool, rotate, order):
        """In every order in which they end."""

        def rows():
            with pool as mine:
                yield mine
                yield mine

        running, made = [], []
        for _ in range(3):
            running.append(rows())
            made.append(next(running[-1]))
            rotate()
        closed = [0, 0, 0]
        assert closed == [each.closed for each in made]
        for at in order:
            running[at].close()
            closed[at] = 1
            assert closed == [each.closed for each in made]

    def test_generator_that_is_forgotten_ends_its_lease(self, pool, rotate):
        """A lease keeps no generator alive."""

        def rows():
            with pool as mine:
                yield mine

        running = rows()
        mine = next(running)
        reference = weakref.ref(running)
        rotate()
        del running
        gc.collect()

        assert None is reference()
        assert 1 == mine.closed

    def test_generator_that_ends_in_another_thread(self, pool, rotate):
        """As frameworks do that run a dependency on a pool of threads."""

        @contextlib.contextmanager
        def dependency():
            with pool as mine:
                yield mine

        manager = dependency()
        mine = asyncio.run(asyncio.to_thread(manager.__enter__))
        rotate()
        assert 0 == mine.closed
        asyncio.run(asyncio.to_thread(manager.__exit__, None, None, None))
        assert 1 == mine.closed

    def test_threads(self, pool, rotate):
        """Each leaves what it has entered."""
        made, entered = [], [threading.Event() for _ in range(2)]
        leave = [threading.Event() for _ in range(2)]

        def use(at):
            with pool as mine:
                made.append(mine)
                entered[at].set()
                leave[at].wait(30)

        threads = [threading.Thread(target=use, args=(at,)) for at in range(2)]
        for at in range(2):
            threads[at].start()
            entered[at].wait(30)
            rotate()
        leave[0].set()
        threads[0].join()
        assert [1, 0] == [each.closed for each in made]
        leave[1].set()
        threads[1].join()
        assert [1, 1] == [each.closed for each in made]

    def test_exit_stacks_close_late(self, pool, rotate, time):
        """Nothing tells which of two is left: both are kept until both are."""
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        old = first.enter_context(pool)
        rotate()
        middle = second.enter_context(pool)
        rotate()
        second.close()
        time.advance(1000)
        rotate()
        assert (0, 0) == (old.closed, middle.closed)

        first.close()
        time.advance(60)
        rotate()
        assert (1, 1) == (old.closed, middle.closed)

    def test_exit_stack_does_not_end_the_lease_of_a_with(self, pool, rotate, time):
        """The stack was left; the ``with`` was not."""
        stack = contextlib.ExitStack()
        stack.enter_context(pool)
        with pool as mine:
            stack.close()
            rotate()
            time.advance(1000)
            rotate()
            assert 0 == mine.closed
        time.advance(60)
        rotate()
        assert 1 == mine.closed

    def test_exit_stacks_leave_nothing_behind(self, source):
        """No object and no frame, however often one is used."""

        class Frail(list):
            """What a weak reference can point to."""

        made = []

        def make(value):
            fresh = Frail(value)
            made.append(weakref.ref(fresh))
            return fresh

        pool = Secret("db").derive(make, close=list.clear, grace=0)

        def use():
            with contextlib.ExitStack() as stack:
                stack.enter_context(pool)

        for number in range(100):
            source.rotate("db", str(number))
            pool._handle.invalidate()
            use()
        gc.collect()

        assert 100 == len(made)
        assert 1 == sum(each() is not None for each in made)

    def test_exit_without_enter_changes_nothing(self, pool, rotate):
        """It does not count for a user that comes later."""
        pool.__exit__(None, None, None)
        with pool as mine:
            rotate()
            assert 0 == mine.closed
        assert 1 == mine.closed

    def test_error_within_ends_the_lease(self, pool, rotate):
        """And arrives."""
        made = []

        def fail():
            with pool as mine:
                made.append(mine)
                rotate()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert 1 == made[0].closed


class TestInjected:
    """A function that an object is injected into holds a lease until its end."""

    def test_function(self, pool, rotate, time):
        """Closed when it has returned, and not after a grace period."""
        seen = []

        @inject(p=pool)
        def use(*, p):
            rotate()
            time.advance(1000)
            rotate()
            seen.append(p.closed)
            return p

        mine = use()
        assert [0] == seen
        assert 1 == mine.closed

    def test_async_function(self, pool, rotate):
        """Across its awaits."""
        seen = []

        @inject(p=pool)
        async def use(*, p):
            await asyncio.sleep(0)
            rotate()
            await asyncio.sleep(0)
            seen.append(p.closed)
            return p

        mine = asyncio.run(use())
        assert [0] == seen
        assert 1 == mine.closed

    def test_function_that_returns_a_coroutine(self, pool, rotate):
        """Until that has ended."""
        seen = []

        async def work(p):
            rotate()
            seen.append(p.closed)
            return p

        mine = asyncio.run(inject(p=pool)(lambda *, p: work(p))())
        assert [0] == seen
        assert 1 == mine.closed

    def test_generators(self, pool, rotate):
        """Each until its own end."""

        @inject(p=pool)
        def rows(*, p):
            yield p
            return "end"

        one, two = rows(), rows()
        first = next(one)
        rotate()
        second = next(two)
        rotate()
        with pytest.raises(StopIteration, match="end"):
            next(one)
        assert (1, 0) == (first.closed, second.closed)
        two.close()
        assert (1, 1) == (first.closed, second.closed)

    def test_async_generator(self, pool, rotate):
        """Likewise."""

        @inject(p=pool)
        async def rows(*, p):
            yield p
            yield p

        async def main():
            running = rows()
            mine = await running.__anext__()
            rotate()
            assert 0 == mine.closed
            await running.aclose()
            return mine

        assert 1 == asyncio.run(main()).closed

    def test_task_that_is_cancelled_while_its_value_is_loaded(self, source, pool):
        """The thread that loads goes on, and leases nothing for the task."""
        handle = pool._handle
        left = threading.Event()
        handle.on_change(lambda _: left.wait(30))

        @inject(db=pool)
        async def f(*, db):
            raise AssertionError

        @inject(db=pool)
        async def later(*, db):
            return db

        async def main():
            first = await later()
            source.rotate("db", "2")
            handle.invalidate()
            calls = len(source.calls)
            task = asyncio.create_task(f())
            await asyncio.to_thread(source.wait_for_calls, calls + 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            left.set()
            return first

        first = asyncio.run(main())  # its end waits for the threads
        with pool as second:
            assert ("1", "2") == (first.password, second.password)
            source.rotate("db", "3")
            handle.invalidate()
        with pool as third:
            assert "3" == third.password
        assert (1, 1, 0) == (first.closed, second.closed, third.closed)

    def test_error_while_the_next_value_is_resolved(self, pool, rotate):
        """The lease that was taken before ends, too."""

        @inject(p=pool, other=Secret("nope"))
        def use(*, p, other):
            raise AssertionError

        with pool as mine:
            pass
        with pytest.raises(LookupError):
            use()
        rotate()
        assert 1 == mine.closed


class TestMaking:
    """While one thread makes, no other waits."""

    def test_neither_entering_nor_leaving_waits(self, source):
        """Both go on with the old object; the loop of an application would stand."""
        making, go_on = threading.Event(), threading.Event()

        def make(value):
            if value == "2":
                making.set()
                go_on.wait(30)
            return value

        pool = Secret("db").derive(make)
        maker = threading.Thread(target=lambda: pool.value)
        with pool as early:
            source.rotate("db", "2")
            pool._handle.invalidate()
            maker.start()
            making.wait(30)
        with pool as late:
            assert maker.is_alive()
        assert ("1", "1") == (early, late)
        go_on.set()
        maker.join()
        assert "2" == pool.value

    def test_first_users_wait_for_one(self, source):
        """There is no old object to go on with."""
        made = []
        making, go_on = threading.Event(), threading.Event()

        def make(value):
            made.append(value)
            making.set()
            go_on.wait(30)
            return [value]

        pool = Secret("db").derive(make)
        got = []
        threads = [
            threading.Thread(target=lambda: got.append(pool.value)) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        making.wait(30)
        go_on.set()
        for thread in threads:
            thread.join()
        assert ["1"] == made
        assert [["1"]] * 5 == got

    def test_none_of_a_version_that_was_replaced_meanwhile(self, source):
        """Another thread has loaded a newer one, and had it made."""
        made, news = [], ["3"]
        handle = Secret("db")
        pool = handle.derive(lambda value: made.append(value) or value)
        assert "1" == pool.value

        @handle.on_change
        def listener(_):
            if news:  # between the load of "2" and the use of it
                source.rotate("db", news.pop())
                handle.invalidate()
                assert "3" == pool.value

        source.rotate("db", "2")
        handle.invalidate()
        assert ("3", "3") == (pool.value, pool.value)
        assert ["1", "3"] == made

    def test_older_entry_of_another_source_counts(self, source):
        """What was loaded earlier may be what is wanted now."""
        made = []
        pool = Secret("db").derive(lambda value: made.append(value) or value)
        with FakeSource({"db": "theirs"}):
            assert "theirs" == pool.value
        assert "1" == pool.value
        with FakeSource({"db": "theirs"}):
            assert "theirs" == pool.value
        assert "1" == pool.value
        assert ["theirs", "1"] * 2 == made

    def test_value_is_not_closed_before_it_is_handed_out(self, source, time):
        """It is replaced while an older one is being closed."""
        handle = Secret("db")
        closed = []

        def close(old):
            closed.append(old)
            if old == "1":
                source.rotate("db", "3")
                handle.invalidate()
                assert "3" == pool.value

        pool = handle.derive(str, close=close, grace=60)
        with pool:
            source.rotate("db", "2")
            handle.invalidate()
        assert "2" == pool.value
        assert ["1"] == closed

        time.advance(60)
        phases.call(phases.RESPONSE)
        assert ["1", "2"] == closed

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_copy_is_the_same(self, pool, rotate, time, copied):
        """A second one would close what is in use, and close it twice."""
        with pool as used:
            twin = copied(pool)
            assert pool is twin
            rotate()
            time.advance(61)
            with twin as new:
                assert 0 == used.closed
        assert (1, 0) == (used.closed, new.closed)

    def test_make_that_asks_for_itself_is_told(self, source):
        """Instead of exhausting the stack."""
        pool = Secret("db").derive(lambda value: pool.value)

        with pytest.raises(ConfigurationError, match="asks for what it is making"):
            pool.value

    def test_interrupted_make_is_made_by_the_next(self, source):
        """An exit in the middle of it leaves nothing locked."""
        fails = [KeyboardInterrupt]

        def make(value):
            if fails:
                raise fails.pop()
            return value

        pool = Secret("db").derive(make)
        with pytest.raises(KeyboardInterrupt):
            pool.value
        with pool as made:
            assert "1" == made


class TestEnd:
    """At SIGTERM and at exit everything is closed, within the budget."""

    def test_current_and_old_ones_are_closed(self, pool, rotate, source):
        """Whether they are used or within their grace period."""
        old = pool.value
        with pool:
            rotate()
            current = pool.value
            simulate_sigterm()
            assert (1, 1) == (old.closed, current.closed)
        assert (1, 1) == (old.closed, current.closed)

    def test_each_end_closes_what_was_made_since(self, pool):
        """Once; a simulated end is not the last."""
        first = pool.value
        simulate_sigterm()
        second = pool.value
        simulate_sigterm()
        simulate_sigterm()

        assert first is not second
        assert (1, 1) == (first.closed, second.closed)

    @pytest.mark.logs
    def test_close_that_hangs_costs_its_share(self, source, caplog):
        """The others are closed all the same."""
        never = threading.Event()
        closed = []
        hangs = Secret("db").derive(list, close=lambda made: never.wait(30))
        closes = Secret("db").derive(list, close=closed.append)
        assert [["1"], ["1"]] == [hangs.value, closes.value]
        simulate_sigterm()
        never.set()

        assert [["1"]] == closed
        assert "listener_abandoned phase=shutdown listener=close of 'db'" in (
            caplog.text.replace("lambda_ext.values.derived.", "")
        )

    def test_after_what_the_user_does_at_the_end(self, pool):
        """The user's own SHUTDOWN hook may need the pool."""
        seen = []
        phases.listen(phases.SHUTDOWN, lambda: seen.append(pool.value.closed))
        with pool as mine:
            pass
        simulate_sigterm()

        assert ([0], 1) == (seen, mine.closed)

    @pytest.mark.process
    def test_at_exit(self):
        """Without Lambda, when the interpreter ends by itself."""
        run = python(
            "from lambda_ext import Secret\n"
            "from lambda_ext.testing import FakeSource\n"
            "FakeSource({'db': '1'}).__enter__()\n"
            "pool = Secret('db').derive(list, close=lambda made: print('closed', made))\n"
            "pool.value"
        )

        assert ("closed ['1']\n", "") == (run.stdout, run.stderr)


class TestPlainFunctions:
    """``async def`` is refused where it would not be awaited."""

    @pytest.mark.parametrize(
        "declare",
        [
            lambda db, function: db.on_change(function),
            lambda db, function: db.derive(function),
            lambda db, function: db.derive(list, close=function),
            lambda db, function: Secret("db", transform=function),
        ],
    )
    @pytest.mark.parametrize("kind", ["function", "call", "partial", "generator"])
    def test_async_is_refused(self, source, declare, kind):
        """In every wrapper."""
        import functools

        async def function(value):
            return value

        async def generator(value):
            yield value

        class Call:
            async def __call__(self, value):
                return value

        kinds = {
            "function": function,
            "call": Call(),
            "partial": functools.partial(function),
            "generator": generator,
        }
        with pytest.raises(ConfigurationError, match="must be a plain function"):
            declare(Secret("db"), kinds[kind])

    def test_coroutine_of_a_plain_function(self, source, rotate, pool):
        """Found when it is called; it is closed, and no warning says so."""

        async def nothing():
            """Never awaited."""

        with pytest.raises(ConfigurationError, match="returned a coroutine"):
            Secret("db").derive(lambda value: nothing()).value
        with pytest.raises(ValueError, match="returned a coroutine"):
            Secret("db", transform=lambda value: nothing()).value

    @pytest.mark.logs
    def test_coroutine_of_a_listener_or_a_close(self, source, caplog):
        """Logged, as what they raise is."""

        async def nothing():
            """Never awaited."""

        db = Secret("db")
        db.on_change(lambda handle: nothing())
        made = db.derive(str, close=lambda pool: nothing())
        with made:
            pass
        source.rotate("db", "2")
        db.invalidate()
        with made:
            pass

        assert "on_change_failed key=db error=ConfigurationError" in caplog.text
        assert "close_failed key=db error=ConfigurationError" in caplog.text


@pytest.mark.logs
def test_no_log_line_quotes_the_value(source, caplog):
    """The error of a listener or of a close may: its class and place are logged."""
    db = Secret("db")
    db.on_change(lambda handle: int(handle.value))
    made = db.derive(str, close=lambda pool: {}.pop(pool))
    with made:
        pass
    for value in ("hunter2", "3"):
        source.rotate("db", value)
        db.invalidate()
        with made:
            pass

    assert "hunter2" not in caplog.text
    assert "on_change_failed key=db error=ValueError" in caplog.text
    assert "close_failed key=db error=KeyError" in caplog.text
    assert "test_leases.py" in caplog.text
