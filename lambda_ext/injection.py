"""
`@inject`: values, flags and anything with ``resolve()`` as keyword arguments.

What is injected is resolved at each call, hence from memory and fresh.  Only
keywords are injected, so that nothing depends on the order of parameters or
on what the function is called.
"""

from __future__ import annotations

import functools

from . import callables
from .disclosure import attribute, wrappable
from .exceptions import ConfigurationError, DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, Protocol, TypeVar

    from .callables import Injected

    P = ParamSpec("P")
    R = TypeVar("R")

    class Resolvable(Protocol):
        """What can be injected."""

        def resolve(self) -> Any:
            """Return the value for one call."""
            ...


_NO_PLACE = 1 << 30  # of a parameter that is given by name only
_KEYWORDS = 0x08  # of a code object's co_flags: it takes **keywords


def inject(
    whole: Resolvable | None = None, /, **values: Resolvable | str
) -> Callable[[Callable[P, R]], Injected[P, R]]:
    """
    Pass *values* to the decorated function, resolved at each call.

        @inject(db=Secret("prod/db", transform="json"), limit=Parameter("/limit"))
        def query(table, *, db, limit): ...

        query("orders")             # db and limit are filled in
        query("orders", db=fake)    # what the caller gives comes first

        @inject(Secret("prod/db", transform="json"), user="username", pw="password")
        def connect(*, user, pw): ...   # members of one secret, of one version

    With *whole*, a value that is a dictionary, text names one of its members;
    it is resolved once for each call, and not at all if the caller gives all
    of them.  Works on functions and methods, on generators, and on
    ``async def``, yielding or not, where a load does not block the event loop.
    What is derived from a value is not closed before the function has ended.
    Raises into the caller what a value raises.  `refresh_on` belongs above.
    ``undecorated`` is the function as it was written.

    Raises:
        ConfigurationError: a value has no ``resolve()``, the function has no
            parameter of that name, or `refresh_on` stands below and refreshes
            what is injected.
        DecodeError: *whole* has no such member, in the call.
    """
    if not values:
        msg = "@inject needs keyword arguments: @inject(db=Secret('prod/db'))"
        raise ConfigurationError(msg)
    if whole is not None and not _is_resolvable(whole):
        msg = (
            "@inject takes a Secret or a Parameter, or anything that has resolve(),"
            f" by position, not {_given(whole)}"
        )
        raise ConfigurationError(msg)
    for name, value in values.items():
        if isinstance(value, str):
            if whole is None:
                msg = (
                    f"@inject({name}={value!r}) takes a Secret, a Parameter, or"
                    " anything that has resolve(); text names a member of the Secret"
                    " that is passed first, by position"
                )
                raise ConfigurationError(msg)
        elif not _is_resolvable(value):
            msg = (
                f"@inject({name}=...) takes a Secret, a Parameter, or anything that"
                f" has resolve(), not {_given(value)}"
            )
            raise ConfigurationError(msg)
    if whole is not None and not any(isinstance(v, str) for v in values.values()):
        msg = (
            "@inject(Secret(...), ...) by position needs the names of members:"
            " @inject(Secret('db', transform='json'), user='username')"
        )
        raise ConfigurationError(msg)

    def decorate(function: Callable[P, R]) -> Injected[P, R]:
        if isinstance(function, (classmethod, staticmethod)):
            kind = type(function).__name__
            msg = f"@inject belongs below @{kind}: swap the two lines"
            raise ConfigurationError(msg)
        if not callable(function):
            msg = f"@inject decorates a function, not {type(function).__name__}"  # type: ignore[unreachable]  # not every caller checks types
            raise ConfigurationError(msg)
        code = callables.code_of(function)
        if code is not None:
            _check(code, function, values)
        injected = {
            name: _Member(whole, value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        _refuse_refreshed(function, injected)
        wrap = _WRAPPERS[callables.kind_of(function)]
        wrapper: Injected[P, R] = wrap(function, _Arguments(function, injected))
        wrapper.undecorated = function  # type: ignore[misc]  # of a function
        return wrapper

    return decorate


def _is_resolvable(value: object) -> bool:
    """Say whether *value* has resolve(), and is no class of such objects."""
    return not isinstance(value, type) and callable(attribute(value, "resolve"))


def _given(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}: make an object of it"
    return type(value).__name__


class _Member:
    """One member of a value that is a dictionary."""

    __slots__ = ("_handle", "name")

    def __init__(self, whole: Any, name: str) -> None:
        self._handle = whole
        self.name = name

    def of(self, whole: Any) -> Any:
        """Return the member of *whole*."""
        problem = ""
        if not isinstance(whole, dict):
            problem = "which is no dictionary: mind transform='json'"
        elif self.name not in whole:
            problem = "mind the spelling, case counts"
        if problem:
            whole = None  # in no traceback
            label = attribute(self._handle, "name") or type(self._handle).__name__
            msg = f"@inject found no member {self.name!r} in {label!r}: {problem}"
            raise DecodeError(msg, key=str(label))
        return whole[self.name]


class _Arguments:
    """What is injected into one function, and where a caller may have given it."""

    __slots__ = ("items", "leases")

    def __init__(self, function: Any, values: dict[str, Any]) -> None:
        places = _places(function)
        self.items = tuple(
            (name, places.get(name, _NO_PLACE), value) for name, value in values.items()
        )
        # Whether a lease must be ended when the function has ended.
        self.leases = any(
            hasattr(type(each), "_borrow")
            for value in values.values()
            for each in (value, attribute(value, "_handle"))
        )

    def missing(self, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
        """Return what the caller has given neither by position nor by name."""
        given = len(args)
        return [
            (name, value)
            for name, place, value in self.items
            if name not in kwargs and place >= given
        ]

    def fill(self, args: Any, kwargs: Any, held: list[Any]) -> None:
        """Resolve what is missing; leases go to *held*."""
        wholes: dict[int, Any] = {}
        try:
            for name, value in self.missing(args, kwargs):
                if isinstance(value, _Member):
                    whole = value._handle
                    if id(whole) not in wholes:
                        wholes[id(whole)] = _resolved(whole, held)
                    kwargs[name] = value.of(wholes[id(whole)])
                else:
                    kwargs[name] = _resolved(value, held)
        except BaseException:
            kwargs.clear()  # what was resolved before is in no traceback
            wholes.clear()
            raise

    async def afill(self, args: Any, kwargs: Any, held: list[Any]) -> None:
        """Resolve what is missing, without blocking the event loop."""
        wholes: dict[int, Any] = {}
        try:
            for name, value in self.missing(args, kwargs):
                if isinstance(value, _Member):
                    whole = value._handle
                    if id(whole) not in wholes:
                        wholes[id(whole)] = await _aresolved(whole, held)
                    kwargs[name] = value.of(wholes[id(whole)])
                else:
                    kwargs[name] = await _aresolved(value, held)
        except BaseException:
            kwargs.clear()  # what was resolved before is in no traceback
            wholes.clear()
            raise


def _resolved(value: Any, held: list[Any]) -> Any:
    if hasattr(type(value), "_borrow"):
        value._borrow(held)
        return held[-1][1].made.object
    return value.resolve()


async def _aresolved(value: Any, held: list[Any]) -> Any:
    if hasattr(type(value), "_aborrow"):
        await value._aborrow(held)
        return held[-1][1].made.object
    aget = attribute(value, "aget")
    return value.resolve() if aget is None else await aget()


# Wrappers, by what a call of the function gives --------------------------------


def _plain(function: Any, arguments: _Arguments) -> Any:
    @functools.wraps(function, wrappable(function))
    def call(*args: Any, **kwargs: Any) -> Any:
        held: list[Any] = []
        try:
            arguments.fill(args, kwargs, held)
            result = function(*args, **kwargs)
            if held and callables.looks_like_coroutine(result):
                result, held = _finishing(result, held), []
            return result
        finally:
            _return(held)

    return call


async def _finishing(coroutine: Any, held: list[Any]) -> Any:
    """Await *coroutine*, of a function that is no ``async def``, then end leases."""
    try:
        return await coroutine
    finally:
        _return(held)


def _coroutine(function: Any, arguments: _Arguments) -> Any:
    @functools.wraps(function, wrappable(function))
    async def call(*args: Any, **kwargs: Any) -> Any:
        held: list[Any] = []
        try:
            await arguments.afill(args, kwargs, held)
            return await function(*args, **kwargs)
        finally:
            _return(held)

    return call


def _generator(function: Any, arguments: _Arguments) -> Any:
    if not arguments.leases:
        return _plain(function, arguments)

    @functools.wraps(function, wrappable(function))
    def call(*args: Any, **kwargs: Any) -> Any:
        held: list[Any] = []
        try:
            arguments.fill(args, kwargs, held)
            return (yield from function(*args, **kwargs))
        finally:
            _return(held)

    return call


def _async_generator(function: Any, arguments: _Arguments) -> Any:
    @functools.wraps(function, wrappable(function))
    async def call(*args: Any, **kwargs: Any) -> Any:
        held: list[Any] = []
        try:
            await arguments.afill(args, kwargs, held)
            inner = function(*args, **kwargs)
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
        finally:
            _return(held)

    return call


_WRAPPERS = {
    callables.PLAIN: _plain,
    callables.COROUTINE: _coroutine,
    callables.GENERATOR: _generator,
    callables.ASYNC_GENERATOR: _async_generator,
}


def _return(held: list[Any]) -> None:
    """End the leases of one call, in the order in which they were taken."""
    for derived, lease in held:
        derived._leave(lease)


# When decorating ---------------------------------------------------------------


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


def _places(function: Any) -> dict[str, int]:
    """Return, by name, after how many positional arguments a parameter is given."""
    skipped = 0
    while True:
        if isinstance(function, functools.partial):
            skipped += len(function.args)
            function = function.func
        elif attribute(function, "__wrapped__") is not None:
            function = function.__wrapped__
        else:
            break
    code = callables.code_of(function)
    if code is None:
        function = getattr(type(function), "__call__", None)  # noqa: B004  the method
        code = callables.code_of(function)
        skipped += 1  # its self
    if code is None:
        return {}
    if attribute(function, "__self__") is not None:
        skipped += 1  # a bound method's
    names = code.co_varnames[: code.co_argcount]
    return {name: at - skipped for at, name in enumerate(names)}


def _refuse_refreshed(function: Any, values: dict[str, Any]) -> None:
    """Refuse what `refresh_on` below refreshes: it would get the old value twice."""
    refreshed = attribute(function, "__lambda_ext_refreshes__", ())
    if not refreshed:
        return
    # Loaded already, by `refresh_on`; `inject` alone needs none of it.
    from .values import aliases

    for name, injected in values.items():
        value = injected
        while hasattr(type(value), "_handle"):  # a member, or what was derived
            value = value._handle
        key = attribute(value, "_key")
        if key is not None and any(
            handle._key.operation == key.operation
            and aliases.concerns(key, handle._key.name)
            for handle in refreshed
        ):
            msg = (
                f"@inject({name}=...) above @refresh_on would give the refused value"
                f" to the second call, too: put @refresh_on above @inject"
            )
            raise ConfigurationError(msg)
