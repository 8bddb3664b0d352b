"""Values as keyword arguments."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from lambda_ext.exceptions import ConfigurationError, NotFoundError
from lambda_ext.injection import inject
from lambda_ext.testing import FakeSource
from lambda_ext.values.handles import Parameter, Secret


@pytest.fixture
def source():
    """A source that answers for AWS."""
    with FakeSource({"db": '{"user": "me"}', "/limit": "20"}) as fake:
        yield fake


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
    """Decorating asks nobody."""

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
    ],
)
def test_misuse_is_refused_when_decorating(values, function, words):
    """A wrong decoration fails at import, not at the first call."""
    with pytest.raises(ConfigurationError, match=words):
        inject(**values)(function)
