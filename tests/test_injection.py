"""Values as keyword arguments."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest

from lambda_ext.exceptions import ConfigurationError, DecodeError, NotFoundError
from lambda_ext.injection import inject
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.rotation import refresh_on

VALUES = {"db": '{"user": "me"}', "/limit": "20"}


def test_values_are_resolved_at_each_call(source):
    """Each call sees the value of its time, without a new decoration."""
    db = Secret("db", transform="json")

    @inject(db=db, limit=Parameter("/limit", transform=int))
    def query(table, *, db, limit):
        return table, db["user"], limit

    assert ("orders", "me", 20) == query("orders")

    source.rotate("db", '{"user": "you"}')
    db.invalidate()
    assert ("orders", "you", 20) == query("orders")


def test_nothing_is_loaded_by_decorating(source):
    """Decorating asks no source."""

    @inject(db=Secret("db"))
    def query(*, db):
        return db

    assert [] == source.calls
    assert '{"user": "me"}' == query()


def test_argument_of_the_caller_comes_first(source):
    """What the caller passes is not resolved at all."""

    @inject(db=Secret("nope"))
    def query(*, db):
        return db

    assert "fake" == query(db="fake")
    assert [] == source.calls


def test_positional_argument_of_the_caller_comes_first(source):
    """Nothing is loaded, for every wrapper of the function."""

    def query(table, db):
        return table, db

    class Service:
        @inject(db=Secret("nope"))
        def method(self, table, db):
            return table, db

        def bound(self, table, db):
            return table, db

        def __call__(self, table, db):
            return table, db

    @functools.wraps(query)
    def wrapped(*args, **kwargs):
        return query(*args, **kwargs)

    @inject(db=Secret("nope"))
    async def asynchronous(table, db):
        return table, db

    injected = inject(db=Secret("nope"))
    given = ("orders", "fake")
    assert given == injected(query)(*given)
    assert given == injected(wrapped)(*given)
    assert given == injected(Service())(*given)
    assert given == injected(Service().bound)(*given)
    assert given == injected(functools.partial(query, "orders"))("fake")
    assert given == Service().method(*given)
    assert given == asyncio.run(asynchronous(*given))
    assert [] == source.calls


def test_parameter_that_is_not_given_by_position_is_injected(source):
    """One argument less, and the value is loaded."""
    db = Secret("db", field="user")

    class Service:
        @inject(db=db)
        def method(self, table, db):
            return table, db

    @inject(db=db)
    def query(table, db, limit=3):
        return table, db

    assert ("orders", "me") == query("orders")
    assert ("orders", "me") == Service().method("orders")
    assert ("orders", "me") == inject(db=db)(functools.partial(query, "orders"))()


class TestMembers:
    """Fields of one secret as several arguments."""

    def test_members_of_one_version(self, source):
        """The value is resolved once for a call, also in a rotation."""
        source.rotate("db", '{"user": "me", "password": "old"}')
        resolved = []

        class Whole:
            def resolve(self):
                resolved.append(1)
                return Secret("db", transform="json").value

        @inject(Whole(), user="user", pw="password", limit=Parameter("/limit"))
        def connect(host, *, user, pw, limit):
            return host, user, pw, limit

        assert ("h", "me", "old", "20") == connect("h")
        assert [1] == resolved

    def test_async_and_generators(self, source):
        """Every kind of function."""
        db = Secret("db", transform="json")

        @inject(db, user="user")
        async def asynchronous(*, user):
            return user

        @inject(db, user="user")
        def items(*, user):
            yield user

        @inject(db, user="user")
        async def async_items(*, user):
            yield user

        async def first():
            return [item async for item in async_items()]

        assert "me" == asyncio.run(asynchronous())
        assert ["me"] == list(items())
        assert ["me"] == asyncio.run(first())

    def test_member_of_what_was_derived(self, source):
        """It is leased as a whole."""
        closed = []
        pool = Secret("db", transform="json").derive(dict, close=closed.append)

        @inject(pool, user="user")
        def connect(*, user):
            pool._handle.invalidate()
            source.rotate("db", '{"user": "you"}')
            with pool as new:
                return user, new["user"], [*closed]

        assert ("me", "you", []) == connect()
        assert [{"user": "me"}] == closed

    def test_nothing_is_loaded_if_the_caller_gives_all(self, source):
        """One that is missing is reason enough."""

        @inject(Secret("db", transform="json"), user="user")
        def connect(user):
            return user

        assert ("a", "b") == (connect("a"), connect(user="b"))
        assert [] == source.calls
        assert "me" == connect()

    @pytest.mark.parametrize(
        ("handle", "words"),
        [
            (Secret("db"), "no dictionary: mind transform='json'"),
            (Secret("db", transform="json"), "no member 'usr' in 'db'"),
        ],
    )
    def test_member_that_is_not_there(self, source, handle, words):
        """Named, and the value is not."""

        @inject(handle, user="usr")
        def connect(*, user):
            raise AssertionError

        with pytest.raises(DecodeError, match=words) as info:
            connect()
        assert "me" not in str(info.value).replace("member", "").replace("name", "")

    def test_refresh_on_below_is_refused(self, source):
        """For a member as for the whole."""
        db = Secret("db", transform="json")
        protected = refresh_on(KeyError, db)(lambda *, user: user)
        with pytest.raises(ConfigurationError, match="above @inject"):
            inject(db, user="user")(protected)

    @pytest.mark.parametrize(
        ("whole", "values", "words"),
        [
            (None, {"user": "username"}, "passed first, by position"),
            ("db", {"user": "username"}, r"anything that has resolve\(\)"),
            (Secret("x"), {"user": Secret("y")}, "needs the names of members"),
            (Secret("x"), {}, "needs keyword arguments"),
            (Secret, {"user": "username"}, "the class Secret: make an object of it"),
            (None, {"user": Secret}, "the class Secret: make an object of it"),
        ],
    )
    def test_misuse_is_refused_when_decorating(self, whole, values, words):
        """With what to write."""
        with pytest.raises(ConfigurationError, match=words):
            inject(whole, **values)


def test_function_itself_can_be_had(source):
    """For a test that gives everything."""

    def query(*, db):
        return db

    assert query is inject(db=Secret("db"))(query).undecorated


def test_works_on_methods(source):
    """A method gets its self, and a function named like a method of dict too.

    A peer took every function whose first argument's class has an attribute of
    its name for a method, so a handler named `get` got the secret as event.
    """

    class Service:
        @inject(db=Secret("db", field="user"))
        def get(self, key, *, db):
            return type(self).__name__, key, db

    @inject(db=Secret("db", field="user"))
    def get(event, context, *, db):
        return event, context, db

    assert ("Service", "k", "me") == Service().get("k")
    assert ({"a": 1}, None, "me") == get({"a": 1}, None)


def test_signature_and_name_stay(source):
    """Tools see the function as it was written."""

    @inject(db=Secret("db"))
    def query(table, *, db):
        """Ask."""

    assert "query" == query.__name__
    assert "Ask." == query.__doc__
    assert ["table", "db"] == list(inspect.signature(query).parameters)


def test_error_of_a_value_reaches_the_caller(source):
    """The function does not run when a value cannot be had."""
    ran = []

    @inject(db=Secret("nope"))
    def query(*, db):
        ran.append(db)

    with pytest.raises(NotFoundError, match="'nope'"):
        query()
    assert [] == ran


def test_async_function_gets_values_without_blocking_the_loop(source):
    """While a value loads, the event loop goes on."""
    steps = []

    @inject(db=Secret("db", field="user"))
    async def query(*, db):
        return db

    async def main():
        source.hold()
        task = asyncio.create_task(query())
        await asyncio.to_thread(source.wait_for_calls, 1)
        steps.append("the loop runs")
        source.release()
        return await task

    assert "me" == asyncio.run(main())
    assert ["the loop runs"] == steps


def test_asynchronous_generator_is_one_still(source):
    """It is sent to, thrown at and closed; its values do not block the loop."""
    steps = []

    @inject(db=Secret("db", field="user"))
    async def numbers(first, *, db):
        try:
            sent = yield first, db
            steps.append(sent)
            yield sent
        except KeyError as exc:
            steps.append(repr(exc))
            yield "caught"
        finally:
            steps.append("closed")

    async def main():
        source.hold()
        running = numbers(1)
        task = asyncio.create_task(running.__anext__())
        await asyncio.to_thread(source.wait_for_calls, 1)
        steps.append("the loop runs")
        source.release()
        assert (1, "me") == await task
        assert 2 == await running.asend(2)
        assert "caught" == await running.athrow(KeyError("k"))
        assert [] == [each async for each in running]
        abandoned = numbers(1)
        await abandoned.__anext__()
        await abandoned.aclose()
        failing = numbers(3)
        await failing.__anext__()
        with pytest.raises(KeyboardInterrupt):
            await failing.athrow(KeyboardInterrupt)

    assert inspect.isasyncgenfunction(numbers)
    asyncio.run(main())
    assert ["the loop runs", 2, "KeyError('k')", *["closed"] * 3] == steps


def test_anything_with_resolve_is_injected():
    """Flags and users' own objects need resolve(), and nothing else."""

    class Three:
        def resolve(self):
            return 3

    @inject(three=Three())
    def f(**keywords):
        return keywords

    assert {"three": 3} == f()


@pytest.mark.parametrize(
    ("values", "function", "words"),
    [
        ({}, lambda: None, "keyword arguments"),
        ({"db": "prod/db"}, lambda *, db: db, "resolve"),
        ({"bd": Secret("x")}, lambda *, db: db, "no parameter 'bd'"),
        ({"db": Secret("x")}, lambda db, /: db, "no parameter 'db'"),
        ({"db": Secret("x")}, 3, "decorates a function"),
        ({"db": Secret("x")}, classmethod(print), "below @classmethod: swap"),
        ({"db": Secret("x")}, staticmethod(print), "below @staticmethod: swap"),
    ],
)
def test_misuse_is_refused_when_decorating(values, function, words):
    """A wrong decoration fails at import, not at the first call."""
    with pytest.raises(ConfigurationError, match=words):
        inject(**values)(function)
