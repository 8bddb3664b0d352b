"""Which value was refused: `refresh_on` repeats a call with a newer one only."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import signal
import threading

import pytest
from helpers import run_threads

from lambda_ext.exceptions import ConfigurationError, ThrottledError
from lambda_ext.injection import inject
from lambda_ext.testing import FakeSource
from lambda_ext.values import cache, given, rotation
from lambda_ext.values.batches import get_parameters_by_path, get_secrets
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.rotation import refresh_on


class RefusedError(Exception):
    """The database does not take the password."""


VALUES = {"db": '{"p": "old"}'}


NEW = '{"p": "new"}'


def other_handle(source):
    """Return a read by another handle."""
    other = Secret("db", field="p")
    return lambda: other.value


def derived(source):
    """Return a read of what was derived."""
    made = Secret("db", field="p").derive(str)
    return lambda: made.value


def entered(source):
    """Return a read of what was derived, in a ``with``."""
    made = Secret("db", field="p").derive(str)

    def read():
        with made as value:
            return value

    return read


def injected(source):
    """Return a read by injection."""

    @inject(password=Secret("db", field="p"))
    def read(*, password):
        return password

    return read


def by_arn(source):
    """Return a read by the ARN."""
    return lambda: get_secret(source.arn("db"), field="p")


def in_batch(source):
    """Return a read of several at once."""
    return lambda: get_secrets(["db"], "json")["db"]["p"]


def by_name(source):
    """Return a read by the function."""
    return lambda: get_secret("db", field="p")


def by_unhashable(source):
    """Return a read that no index of hits remembers."""

    class Parse:
        __hash__ = None

        def __call__(self, text):
            return text[7:-2]

    parse = Parse()
    return lambda: get_secret("db", parse)


WAYS = (other_handle, derived, entered, injected, by_arn, in_batch, by_name,
        by_unhashable)  # fmt: skip


def plainly(read):
    """Read in the function itself."""
    return read()


def in_thread_of_loop(read):
    """Read in ``asyncio.to_thread``."""
    return asyncio.run(asyncio.to_thread(read))


def in_task(read):
    """Read in a task."""

    async def task():
        return read()

    async def main():
        return await asyncio.create_task(task())

    return asyncio.run(main())


def nested(read):
    """Read in another protected function, of another secret."""
    return refresh_on(ZeroDivisionError, Secret("other"))(read)()


class TestNewestGiven:
    """What counts is the newest value that was given in this call."""

    def test_many_refused_values_leave_little_behind(self, source, time):
        """A handle for each tenant, say; the last ones count."""

        def refused(name):
            handle = Secret(name)

            @refresh_on(RefusedError, handle)
            def query():
                handle.value
                raise RefusedError

            with pytest.raises(RefusedError):
                query()

        for number in range(1200):
            source.rotate(str(number), "x")
            refused(str(number))
        assert rotation.MAX_RECORDS == len(rotation._records)

        calls = len(source.calls)
        refused("1199")
        assert calls == len(source.calls)

    def test_dropped_coroutine_does_not_end_the_call_it_is_closed_in(self, source):
        """The garbage collector closes it in any context."""
        handle = Secret("db", field="p")
        seen = []

        @refresh_on(RefusedError, handle)
        async def dropped():
            await asyncio.sleep(0)

        coroutine = dropped()
        contextvars.copy_context().run(coroutine.send, None)

        @refresh_on(RefusedError, handle)
        def query():
            if not seen:
                coroutine.close()
                source.rotate("db", NEW)
                handle.invalidate()
            seen.append(handle.value)
            if seen == ["new"]:
                source.rotate("db", '{"p": "newer"}')
                raise RefusedError

        assert "old" == handle.value
        query()
        assert ["new", "newer"] == seen

    @pytest.mark.parametrize("where", [plainly, in_thread_of_loop, in_task, nested])
    @pytest.mark.parametrize("way", WAYS)
    def test_value_read_before_by_the_same_way(self, source, way, where):
        """The old value is in memory; the handle itself was never read."""
        read = way(source)
        assert "old" == read()
        source.rotate("db", NEW)
        loads = len(source.calls)
        tried = []

        @refresh_on(RefusedError, Secret("db"))
        def connect():
            tried.append(where(read))
            if tried[-1] == "old":
                raise RefusedError

        connect()
        assert ["old", "new"] == tried
        assert 1 == len(source.calls) - loads

    @pytest.mark.parametrize("where", [plainly, in_thread_of_loop, in_task, nested])
    @pytest.mark.parametrize("way", WAYS)
    def test_value_that_was_loaded_within_the_call(self, source, time, way, where):
        """It expired before the call, was loaded in it, and then rotated."""
        handle = Secret("db")
        read = way(source)
        assert "old" == read()
        handle.value
        time.advance(400)
        loads = len(source.calls)
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            tried.append(where(read))
            if len(tried) == 1:
                source.rotate("db", NEW)
            if tried[-1] == "old":
                raise RefusedError

        connect()
        assert ["old", "new"] == tried
        assert 2 == len(source.calls) - loads

    def test_hit_on_what_another_thread_has_loaded(self, source, time):
        """Shown while the call runs, read by the call: that is what was refused."""
        handle = Secret("db", field="p")
        handle.value
        source.rotate("db", '{"p": "newer"}')
        loads = len(source.calls)
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            if not tried:
                run_threads(1, lambda _: get_secret("db", force_fetch=True))
                run_threads(1, lambda _: handle.value)
            tried.append(handle.value)
            if len(tried) == 1:
                source.rotate("db", NEW)
            if tried[-1] == "newer":
                raise RefusedError

        connect()
        assert ["newer", "new"] == tried
        assert 2 == len(source.calls) - loads

    def test_same_secret_by_its_stage_is_read_anew(self, source):
        """It is a value of its own to the cache, and as old."""
        handle = Secret("db", field="p")
        handle.value
        staged = Secret("db", version_stage="AWSCURRENT", field="p")
        staged.value
        source.rotate("db", NEW)
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            tried.append(staged.value)
            if tried[-1] == "old":
                raise RefusedError

        connect()
        assert ["old", "new"] == tried

    def test_values_below_a_path_are_read_anew(self, source):
        """They are a value of their own to the cache, and as old."""
        source.rotate("/db/password", "old")
        handle = Parameter("/db/password")
        handle.value
        get_parameters_by_path("/db")
        source.rotate("/db/password", "new")
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            tried.append(get_parameters_by_path("/db")["/db/password"])
            if tried[-1] == "old":
                raise RefusedError

        connect()
        assert ["old", "new"] == tried

    def test_same_secret_as_a_parameter_is_read_anew(self, source):
        """Parameter Store hands out secrets, too: the old one stays in memory."""
        reference = Parameter("/aws/reference/secretsmanager/db")
        source.rotate(reference.name, "old")
        handle = Secret("db")
        handle.value, reference.value
        source.rotate("db", "new")
        source.rotate(reference.name, "new")
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            tried.append(reference.value)
            if tried[-1] == "old":
                raise RefusedError

        connect()
        assert ["old", "new"] == tried

    def test_plain_thread_counts_as_the_value_at_the_beginning(self, source):
        """What a thread of one's own reads is not seen."""
        handle = Secret("db", field="p")
        handle.value
        source.rotate("db", NEW)
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            tried.extend(run_threads(1, lambda _: handle.value))
            if tried[-1] == "old":
                raise RefusedError

        connect()
        assert ["old", "new"] == tried
        assert 2 == len(source.calls)

    def test_newer_entry_of_the_same_version_is_no_news(self, source):
        """A load by another thread that brought the refused version decides nothing."""
        handle = Secret("db", field="p")
        handle.value
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            tried.append(handle.value)
            if len(tried) == 1:
                run_threads(1, lambda _: get_secret("db", force_fetch=True))
                source.rotate("db", NEW)
                raise RefusedError

        connect()
        assert ["old", "new"] == tried
        assert 3 == len(source.calls)

    def test_recursion_repeats_once(self, source, time):
        """Ten calls, one in the other: one is repeated, for every cooldown."""
        handle = Secret("db")
        handle.value
        calls = []

        @refresh_on(RefusedError, handle, cooldown=0)
        def walk(depth):
            calls.append(depth)
            get_secret("db")
            if depth:
                return walk(depth - 1)
            raise RefusedError

        with pytest.raises(RefusedError):
            walk(10)
        assert [*range(10, -1, -1), 0] == calls
        assert 2 == len(source.calls)

    def test_secret_that_was_never_read_is_repeated_for_once(self, source):
        """Its first load tells the ARN, by which the outer call knows it, too."""
        handle, run = Secret("db"), []

        @refresh_on(RefusedError, handle, cooldown=0)
        def outer():
            inner()

        @refresh_on(RefusedError, handle, cooldown=0)
        def inner():
            run.append(1)
            raise RefusedError

        with pytest.raises(RefusedError):
            outer()
        assert (2, 1) == (len(run), len(source.calls))

    def test_newest_value_counts_though_an_older_one_is_given_later(self):
        """What was derived of the version before may be handed out for a while."""
        call = given.Call()
        for sequence in (2, 1):
            call.note("group", given.Given(sequence, None))

        assert 2 == call.newest["group"].sequence

    def test_outer_call_repeats_for_a_secret_of_its_own(self, source):
        """That the inner call has tried its secret twice does not count for another."""
        inner_secret = Secret("db", field="p")
        outer_secret = Secret("other")
        source.rotate("other", "old")
        assert ("old", "old") == (inner_secret.value, outer_secret.value)
        source.rotate("other", "new")

        @refresh_on(RefusedError, inner_secret)
        def inner():
            inner_secret.value
            raise RefusedError

        @refresh_on(RefusedError, outer_secret)
        def outer():
            return outer_secret.value if outer_secret.value == "new" else inner()

        assert "new" == outer()

    def test_loop_that_catches_refusals_is_protected_again(self, source, time):
        """Each error counts for itself, and an old one is not kept."""
        handle = Secret("db", field="p")
        handle.value

        @refresh_on(RefusedError, handle, cooldown=0)
        def inner():
            handle.value
            raise RefusedError

        @refresh_on(RefusedError, handle, cooldown=0)
        def outer():
            with contextlib.suppress(RefusedError):
                inner()
            if handle.value == "old":
                source.rotate("db", NEW)
                raise RefusedError
            return handle.value

        assert "new" == outer()

    def test_old_object_of_a_maker_is_not_given_to_the_second_call(self, source):
        """The refused pool serves others while a new one is made, not this call."""
        making, go_on = threading.Event(), threading.Event()
        handle = Secret("db", field="p")

        def make(password):
            if password == "new":
                making.set()
                go_on.wait(30)
            return password

        pool = handle.derive(make)
        assert "old" == pool.value
        source.rotate("db", NEW)
        maker = threading.Thread(
            target=lambda: (get_secret("db", force_fetch=True), pool.value)
        )
        tried = []

        @refresh_on(RefusedError, handle)
        def connect():
            if tried:
                threading.Timer(0.01, go_on.set).start()
            else:
                maker.start()
                making.wait(30)
            with pool as password:
                tried.append(password)
            if tried[-1] == "old":
                raise RefusedError

        connect()
        maker.join()
        assert ["old", "new"] == tried


class TestCost:
    """Hits pay nothing unless a protected call is running."""

    def test_views_are_bare_again_after_the_call(self, source):
        """One hit after the call puts back what was there before."""
        handle = Secret("db")
        copies = []

        @refresh_on(RefusedError, handle)
        def connect():
            handle.value
            copies.append(handle._view.copy)

        connect()
        handle.value
        assert handle._view.copy is None
        assert [None] != copies
        assert set() == cache.protected

    def test_what_was_shown_before_the_call_stays_bare(self, source):
        """The value that is current when the call begins needs no note."""
        handle = Secret("db")
        handle.value
        copies = []
        refresh_on(RefusedError, handle)(
            lambda: (handle.value, copies.append(handle._view.copy))
        )()

        assert [None] == copies

    @pytest.mark.parametrize(
        "error", [RefusedError, ZeroDivisionError, KeyboardInterrupt]
    )
    def test_nothing_is_running_after_an_error(self, source, error):
        """However the call ended."""
        handle = Secret("db")

        @refresh_on(RefusedError, handle)
        def connect():
            handle.value
            raise error

        with pytest.raises(error):
            connect()
        assert set() == cache.protected

    def test_forked_child_keeps_only_its_own_calls(self, source):
        """The calls of other threads do not run in the child."""
        handle = Secret("db")
        inside, leave = threading.Event(), threading.Event()

        @refresh_on(RefusedError, handle)
        def wait():
            inside.set()
            leave.wait(30)

        @refresh_on(RefusedError, handle)
        def fork():
            child = os.fork()
            if child == 0:
                os._exit(len(cache.protected))
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)

        thread = threading.Thread(target=wait)
        thread.start()
        inside.wait(30)
        try:
            assert 1 == fork()
        finally:
            leave.set()
            thread.join()


def refused(call):
    """Say whether *call* is refused."""
    try:
        call()
    except RefusedError:
        return True
    return False


class TestPauses:
    """How often AWS may be asked for one refused value."""

    @pytest.fixture
    def connect(self, source):
        """A protected call that takes the new password only."""
        handle = Secret("db", field="p")
        assert "old" == handle.value

        @refresh_on(RefusedError, handle, cooldown=20)
        def connect():
            if handle.value != "new":
                raise RefusedError

        return connect

    @pytest.mark.logs
    def test_after_failed_loads(self, source, connect, time):
        """1, 2, 4, 8, 16 seconds, and then 20, which is the cooldown."""
        source.fail(ThrottledError("slow down", transient=True))
        asked_at = []
        for second in range(80):
            calls = len(source.calls)
            assert refused(connect)
            if len(source.calls) > calls:
                asked_at.append(second)
            time.advance(1)

        assert [0, 1, 3, 7, 15, 31, 51, 71] == asked_at

    def test_after_loads_that_brought_the_refused_version(self, source, connect, time):
        """The same pauses."""
        asked_at = []
        for second in range(60):
            calls = len(source.calls)
            assert refused(connect)
            if len(source.calls) > calls:
                asked_at.append(second)
            time.advance(1)

        assert [0, 1, 3, 7, 15, 31, 51] == asked_at

    def test_gap_of_two_seconds_costs_no_more_than_four(self, source, connect, time):
        """The database changes first, AWSCURRENT two seconds later."""
        failed = 0
        for second in range(60):
            if second == 2:
                source.rotate("db", NEW)
            failed += refused(connect)
            time.advance(1)

        assert 3 == failed

    def test_series_begins_anew_after_the_cooldown(self, source, connect, time):
        """A rotation next week is not punished for one today."""
        for _ in range(10):
            refused(connect)
            time.advance(3)
        time.advance(20)
        calls = len(source.calls)
        for _ in range(3):
            refused(connect)
            time.advance(1)

        assert 2 == len(source.calls) - calls

    def test_after_another_version_the_cooldown_holds(self, source, time):
        """A source that tells a new value each time is not flooded."""
        handle = Secret("db", field="p")
        handle.value

        @refresh_on(RefusedError, handle, cooldown=20)
        def connect():
            source.rotate("db", f'{{"p": "{len(source.calls)}"}}')
            handle.value
            raise RefusedError

        asked_at = []
        for second in range(45):
            calls = len(source.calls)
            assert refused(connect)
            if len(source.calls) > calls:
                asked_at.append(second)
            time.advance(1)

        assert [0, 20, 40] == asked_at

    @pytest.mark.logs
    def test_one_at_a_time_and_no_caller_sleeps(self, source, connect, time):
        """Ten callers, one load that fails: all are let through when it has."""
        source.fail(ThrottledError("slow down", transient=True))
        source.hold()
        outcomes = []
        threads = [
            threading.Thread(target=lambda: outcomes.append(refused(connect)))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        source.wait_for_calls(2)
        source.release()
        for thread in threads:
            thread.join(30)

        assert [True] * 10 == outcomes
        assert 2 == len(source.calls)


def a_generator(check):
    """Return a generator function."""

    def items(first):
        got = yield check(), first
        yield got
        return "end"

    return items


def an_async_generator(check):
    """Return an asynchronous generator function."""

    async def items(first):
        got = yield check(), first
        yield got

    return items


async def collect(items):
    """Return what two steps of *items* give."""
    first = await items.__anext__()
    return first, await items.asend("sent")


class TestKinds:
    """What can be decorated is protected; what cannot is refused."""

    @pytest.fixture
    def check(self, source):
        """A look at the password, which is refused once."""
        handle = Secret("db", field="p")
        handle.value
        source.rotate("db", NEW)

        def check():
            if handle.value == "old":
                raise RefusedError
            return handle.value

        check.handle = handle
        return check

    def test_generator_is_begun_again_before_its_first_item(self, check):
        """It is a generator still: it is sent to, and it returns."""
        items = refresh_on(RefusedError, check.handle)(a_generator(check))
        running = items(1)

        assert inspect.isgeneratorfunction(items)
        assert ("new", 1) == next(running)
        assert "sent" == running.send("sent")
        with pytest.raises(StopIteration, match="end"):
            next(running)

    def test_generator_is_thrown_at_and_closed(self, check):
        """As if it were not decorated."""
        seen = []

        @refresh_on(RefusedError, check.handle)
        def items():
            found = check()
            try:
                yield found
            except KeyError:
                yield "caught"
            finally:
                seen.append("closed")

        running = items()
        next(running)
        assert "caught" == running.throw(KeyError())
        running.close()
        assert ["closed"] == seen

    def test_generator_is_not_begun_again_after_its_first_item(self, check):
        """What was handed out cannot be taken back."""
        runs = []

        @refresh_on(RefusedError, check.handle)
        def items():
            runs.append(1)
            yield 1
            check()

        with pytest.raises(RefusedError):
            list(items())
        assert [1] == runs

    def test_empty_generator(self, check):
        """It ends, with its value."""

        @refresh_on(RefusedError, check.handle)
        def items():
            check()
            return "value"
            yield

        with pytest.raises(StopIteration, match="value"):
            next(items())

    def test_async_generator_is_begun_again_before_its_first_item(self, check):
        """Likewise."""
        items = refresh_on(RefusedError, check.handle)(an_async_generator(check))

        assert inspect.isasyncgenfunction(items)
        assert (("new", 1), "sent") == asyncio.run(collect(items(1)))

    def test_context_manager(self, check):
        """A generator below @contextmanager is protected while it enters."""

        @contextlib.contextmanager
        @refresh_on(RefusedError, check.handle)
        def session():
            yield check()

        with session() as found:
            assert "new" == found

    def test_async_call_method(self, check):
        """An object whose __call__ is awaited."""

        class Connect:
            async def __call__(self):
                return check()

        connect = refresh_on(RefusedError, check.handle)(Connect())
        assert "new" == asyncio.run(connect())

    def test_partial_of_async_function(self, check):
        """It is awaited, too."""

        async def connect(x):
            return check(), x

        protected = refresh_on(RefusedError, check.handle)(
            functools.partial(connect, 1)
        )
        assert ("new", 1) == asyncio.run(protected())

    def test_function_that_returns_a_coroutine(self, check):
        """Protected when it is awaited."""

        async def connect():
            return check()

        protected = refresh_on(RefusedError, check.handle)(lambda: connect())
        assert "new" == asyncio.run(protected())

    @pytest.mark.parametrize(
        ("thing", "words"),
        [
            (None, "decorates a function, not NoneType"),
            (classmethod(len), "below @classmethod"),
            (staticmethod(len), "below @staticmethod"),
            (Secret, "not the class Secret"),
            (contextlib.contextmanager(iter), "below @contextmanager"),
            (contextlib.asynccontextmanager(aiter), "below @contextmanager"),
        ],
    )
    def test_what_is_no_function_is_refused(self, source, thing, words):
        """With what to write instead."""
        with pytest.raises(ConfigurationError, match=words):
            refresh_on(RefusedError, Secret("db"))(thing)

    def test_function_inside_of_a_context_manager(self, check):
        """Decorated with one, it is a function like any other."""

        @contextlib.contextmanager
        def around():
            yield

        protected = refresh_on(RefusedError, check.handle)(around()(check))

        assert "new" == protected()

    def test_guard_that_fires_before_the_call_arrives(self):
        """What a signal handler raises while a handle is bound is not lost."""

        class Source(FakeSource):
            @property
            def scope(self):
                signal.raise_signal(signal.SIGUSR1)
                return "scope"

            @scope.setter
            def scope(self, value):
                pass

        class OutOfTimeError(Exception):
            pass

        def handler(number, frame):
            raise OutOfTimeError

        handle = Secret("db", source=Source({}))
        protected = refresh_on(RefusedError, handle)(lambda: None)
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            with pytest.raises(OutOfTimeError):
                protected()
        finally:
            signal.signal(signal.SIGUSR1, before)


class TestInjectAbove:
    """`inject` above would give the refused value twice."""

    @pytest.mark.parametrize(
        "value",
        [
            lambda db: db,
            lambda db: Secret("db", field="p"),
            lambda db: db.derive(str),
            lambda db: Secret(FakeSource().arn("db")),
        ],
    )
    def test_same_secret_is_refused(self, source, value):
        """By any handle; the order that works is named."""
        db = Secret("db")

        @refresh_on(RefusedError, db)
        def connect(*, password):
            return password

        with pytest.raises(ConfigurationError, match="put @refresh_on above @inject"):
            inject(password=value(db))(connect)

    def test_other_secret_is_not(self, source):
        """Nothing is wrong with that."""
        source.rotate("other", "value")

        @inject(other=Secret("other"))
        @refresh_on(RefusedError, Secret("db"))
        def connect(*, other):
            return other

        assert "value" == connect()
