"""
`@inject`: values, flags and anything with ``resolve()`` as keyword arguments.

What is injected is resolved at each call, hence from memory and fresh.  Only
keywords are injected, so that nothing depends on the order of parameters or
on what the function is called.
"""

from __future__ import annotations

import functools

from .exceptions import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar

    R = TypeVar("R")

    class Resolvable(Protocol):
        """What can be injected."""

        def resolve(self) -> Any:
            """Return the value for one call."""
            ...


_KEYWORDS = 0x08  # of a code object's co_flags: it takes **keywords
_COROUTINE = 0x80  # likewise: it is an async def
_ASYNC_GENERATOR = 0x200  # likewise: it is an async def that yields


def inject(
    **values: Resolvable,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """
    Pass *values* to the decorated function, resolved at each call.

        @inject(db=Secret("prod/db", transform="json"), limit=Parameter("/limit"))
        def query(table, *, db, limit): ...

        query("orders")             # db and limit are filled in
        query("orders", db=fake)    # what the caller gives comes first

    Works on functions and methods, and on ``async def``, yielding or not, where
    a load does not block the event loop.  Raises into the caller what a value raises.

    Raises:
        ConfigurationError: a value has no ``resolve()``, or the function has
            no parameter of that name.
    """
    if not values:
        msg = "@inject needs keyword arguments: @inject(db=Secret('prod/db'))"
        raise ConfigurationError(msg)
    for name, value in values.items():
        if not callable(getattr(value, "resolve", None)):
            msg = (
                f"@inject({name}=...) takes a Secret, a Parameter, or anything that"
                f" has resolve(), not {type(value).__name__}"
            )
            raise ConfigurationError(msg)
    items = tuple(values.items())

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        if not callable(function):
            msg = f"@inject decorates a function, not {type(function).__name__}"  # type: ignore[unreachable]  # not everybody checks types
            raise ConfigurationError(msg)
        code = getattr(function, "__code__", None)
        if code is not None:
            _check(code, function, values)
        if code is not None and code.co_flags & _COROUTINE:
            wrapper: Callable[..., R] = _asynchronous(function, items)
            return wrapper
        if code is not None and code.co_flags & _ASYNC_GENERATOR:
            generator: Callable[..., R] = _yielding(function, items)
            return generator

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            try:
                for name, value in items:
                    if name not in kwargs:
                        kwargs[name] = value.resolve()
            except BaseException:
                kwargs.clear()  # what was resolved before is in no traceback
                raise
            return function(*args, **kwargs)

        return call

    return decorate


def _asynchronous(function: Any, items: tuple[tuple[str, Any], ...]) -> Any:
    """Return *function*, a coroutine function, with the *items* injected."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        await _fill(kwargs, items)
        return await function(*args, **kwargs)

    return call


def _yielding(function: Any, items: tuple[tuple[str, Any], ...]) -> Any:
    """Return *function*, an asynchronous generator, with the *items* injected."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        await _fill(kwargs, items)
        inner = function(*args, **kwargs)
        try:
            item = await inner.__anext__()
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as exc:  # as an `async with` around us does
                    item = await inner.athrow(exc)
                else:
                    item = await inner.asend(sent)
        except StopAsyncIteration:
            return

    return call


async def _fill(kwargs: dict[str, Any], items: tuple[tuple[str, Any], ...]) -> None:
    """Resolve those *items* that the caller has not given."""
    try:
        for name, value in items:
            if name not in kwargs:
                aget = getattr(value, "aget", None)
                kwargs[name] = value.resolve() if aget is None else await aget()
    except BaseException:
        kwargs.clear()  # what was resolved before is in no traceback
        raise


def _check(code: Any, function: Any, values: dict[str, Any]) -> None:
    """Refuse names that *function* would not take as keywords."""
    if code.co_flags & _KEYWORDS:
        return
    count = code.co_argcount + code.co_kwonlyargcount
    taken = code.co_varnames[code.co_posonlyargcount : count]
    for name in values:
        if name not in taken:
            msg = (
                f"@inject({name}=...): {function.__qualname__}() has no parameter"
                f" {name!r} that can be given by keyword"
            )
            raise ConfigurationError(msg)
