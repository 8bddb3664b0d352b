"""
What kind of callable is it: called, awaited, or iterated?

Partials, methods and objects with ``__call__`` count as what they call.
Pure; imports nothing that costs.
"""

from __future__ import annotations

import functools

from .disclosure import attribute, words
from .exceptions import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

    from typing_extensions import Self

    F = TypeVar("F")
    F_co = TypeVar("F_co", covariant=True)
    P = ParamSpec("P")
    Q = ParamSpec("Q")
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)
    S = TypeVar("S")

    class Handler(Protocol[P, R_co, F_co]):
        """What `lambda_ext.handler` returns: a function, or a method."""

        __name__: str
        __qualname__: str

        @property
        def undecorated(self) -> F_co:
            """The function as it was written."""
            ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __get__(self, instance: None, owner: Any, /) -> Self: ...
        @overload
        def __get__(
            self: Handler[Concatenate[S, Q], R, F], instance: S, owner: Any = None, /
        ) -> Callable[Q, R]: ...

    class Injected(Protocol[P, R_co]):
        """
        What `lambda_ext.inject` returns: a function, or a method.

        No type can say that some keywords need not be given, so that a call
        may have any; the function as it was written is checked as ever.
        """

        __name__: str
        __qualname__: str

        @property
        def undecorated(self) -> Callable[P, R_co]:
            """The function as it was written."""
            ...

        def __call__(self, *args: Any, **kwargs: Any) -> R_co: ...
        @overload
        def __get__(self, instance: None, owner: Any, /) -> Self: ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None, /
        ) -> Callable[..., R_co]: ...


PLAIN = "plain"
COROUTINE = "coroutine"  # an async def
GENERATOR = "generator"
ASYNC_GENERATOR = "asynchronous generator"

# Of a code object's co_flags, see `inspect`.
_KINDS = ((0x20, GENERATOR), (0x80, COROUTINE), (0x200, ASYNC_GENERATOR))


def kind_of(function: Any) -> str:
    """Return what a call of *function* gives: one of the kinds above."""
    while isinstance(function, functools.partial):
        function = function.func
    if _is_marked(function):
        return COROUTINE
    code = code_of(function)
    if code is None and not isinstance(function, type):
        called = getattr(type(function), "__call__", None)  # noqa: B004  the method
        if _is_marked(called):
            return COROUTINE
        code = code_of(called)
    flags = getattr(code, "co_flags", 0)
    if isinstance(flags, int):
        for flag, kind in _KINDS:
            if flags & flag:
                return kind
    return PLAIN


def code_of(function: Any) -> Any:
    """Return the code object of a function or a method; None if it has none."""
    return attribute(function, "__code__")


def refuse_async(function: Any, what: str) -> None:
    """
    Refuse an ``async def`` as *what*, which is called and never awaited.

    Raises:
        ConfigurationError: it is one, or an asynchronous generator.
    """
    if kind_of(function) in (COROUTINE, ASYNC_GENERATOR):
        msg = (
            f"{what} must be a plain function: it is called and not awaited;"
            " write def instead of async def"
        )
        raise ConfigurationError(msg)


def named(given: object) -> str:
    """Return the name or the type of *given* for a message, and nothing that it holds."""
    name = words(given, "__qualname__")
    return name or f"an object of type {type(given).__qualname__}"


def refuse_async_sink(sink: Any) -> None:
    """
    Refuse a sink, or a function of batches, that would have to be awaited.

    Raises:
        ConfigurationError: it, its ``accept`` or its ``drain`` is an async def.
    """
    for name in ("accept", "drain"):
        refuse_async(attribute(sink, name), f"{name} of the sink {named(sink)}")
    refuse_async(sink, f"the sink {named(sink)}")


def looks_like_coroutine(result: Any) -> bool:
    """Say whether *result* is a coroutine."""
    # By name: `types.CoroutineType` is made by running a coroutine.
    return type(result).__name__ == "coroutine" and hasattr(type(result), "cr_code")


def is_coroutine(result: Any) -> bool:
    """Say whether *result* is a coroutine, which was never awaited; close it."""
    if not looks_like_coroutine(result):
        return False
    result.close()
    return True


def refuse_coroutine(result: Any, what: str) -> None:
    """
    Refuse *result* if *what* returned a coroutine, which is not awaited.

    Raises:
        ConfigurationError: it is one; it is closed.
    """
    if is_coroutine(result):
        msg = (
            f"{what} returned a coroutine, which is not awaited: write a plain function"
        )
        raise ConfigurationError(msg)


def relay(inner: Generator[Any, Any, Any], item: Any) -> Generator[Any, Any, Any]:
    """Yield *item*, which came from *inner*, then do as ``yield from inner``."""
    while True:
        thrown: BaseException | None = None
        try:
            sent = yield item
        except GeneratorExit:
            inner.close()
            raise
        except BaseException as exc:  # thrown in by the caller
            thrown = exc
        try:
            item = inner.send(sent) if thrown is None else inner.throw(thrown)
        except StopIteration as stop:
            return stop.value


def _is_marked(function: Any) -> bool:
    """Say whether `inspect.markcoroutinefunction` was called with *function*."""
    function = attribute(function, "__func__", function)
    members = attribute(function, "__dict__")
    return type(members) is dict and "_is_coroutine_marker" in members
