"""
Rotation: a credential is refused before its time is up.

`refresh_on` loads it again and calls again.  Nothing sleeps.  However many
threads are refused at once, one load is made; one more at the earliest after
the cooldown.

Threads
    Who was refused one value stands in line for it: the first loads, the
    others find what it brought.  ``_lock`` guards who stands where.
"""

from __future__ import annotations

import functools
import threading

from .. import disclosure
from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock, phases
from . import settings, store, threads
from .cache import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .keys import Key

    F = TypeVar("F", bound=Callable[..., Any])

COOLDOWN_S = 30.0
_COROUTINE = 0x80  # of a code object's co_flags: it is an async def

_lock = threading.Lock()
_lines: dict[Key, _Line] = {}
_listening = False


def refresh_on(
    errors: type[BaseException] | tuple[type[BaseException], ...],
    *handles: Any,
    cooldown: float = COOLDOWN_S,
) -> Callable[[F], F]:
    """
    Load *handles* again when the decorated function raises *errors*; call again.

        @refresh_on(psycopg.OperationalError, db)
        def orders(): ...

    Once: what the second call raises is let through, and so is the first
    error if the values cannot be loaded, or were loaded for this reason less
    than *cooldown* seconds ago.  Name the errors of a refused credential, not
    Exception: the function runs twice.  The caller waits for the load; works
    on ``async def`` without blocking the event loop.

    Raises:
        ConfigurationError: *errors* are no exceptions, or *handles* no handles.
    """
    _check(errors, handles, cooldown)
    _attach()

    def decorate(function: F) -> F:
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _COROUTINE:

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                marks = [handle._order() for handle in handles]
                try:
                    return await function(*args, **kwargs)
                except errors:
                    # Loaded by whoever runs a loop; nobody else pays its 35 ms.
                    import asyncio

                    if not await asyncio.to_thread(_renew, handles, marks, cooldown):
                        raise
                    return await function(*args, **kwargs)

            return call_async  # type: ignore[return-value]  # of the same type

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            marks = [handle._order() for handle in handles]
            try:
                return function(*args, **kwargs)
            except errors:
                if not _renew(handles, marks, cooldown):
                    raise
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]  # of the same type

    return decorate


def _check(errors: Any, handles: tuple[Any, ...], cooldown: float) -> None:
    kinds = errors if isinstance(errors, tuple) else (errors,)
    if not kinds or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        msg = "@refresh_on takes an exception class, or a tuple of them, first"
        raise ConfigurationError(msg)
    if not handles or not all(hasattr(handle, "_renew") for handle in handles):
        msg = "@refresh_on takes Secret or Parameter handles after the exception class"
        raise ConfigurationError(msg)
    if settings.seconds("cooldown", cooldown, "@refresh_on") is None:
        msg = "cooldown of '@refresh_on' is a number of seconds"
        raise ConfigurationError(msg)


class _Line:
    """Those who were refused one value."""

    __slots__ = ("asked_at", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.asked_at = NEVER  # when a refusal last made us ask; house time


def _renew(handles: tuple[Any, ...], marks: list[int], cooldown: float) -> bool:
    """Say whether any of *handles* is newer than it was when it was refused."""
    newer = False
    for handle, begun_with in zip(handles, marks, strict=True):
        mark = begun_with or handle._order()  # of what the function has used
        try:
            newer |= _renewed(handle, mark, cooldown)
        except LambdaExtError as exc:
            disclosure.warn(
                "refresh_on_failed", handle=repr(handle), error=type(exc).__name__
            )
    return newer


def _renewed(handle: Any, mark: int, cooldown: float) -> bool:
    """Load *handle* unless load *mark* was not the last, or a moment ago."""
    key = handle._key_of()
    with _lock:
        line = _lines.setdefault(key, _Line())
    left_s = threads.left(None)
    if not line.lock.acquire(timeout=-1 if left_s is None else max(left_s, 0.0)):
        return False
    try:
        if store.loader.has_newer(key, mark):
            return True
        now = clock.now()
        if now - line.asked_at < cooldown:
            return False
        line.asked_at = now
        handle._renew(mark)
        return True
    finally:
        line.lock.release()


def _attach() -> None:
    """Follow forks from now on; more calls change nothing."""
    global _listening
    with _lock:
        first, _listening = not _listening, True
    if first:
        phases.listen(phases.FORK, _forked, priority=phases.ESSENTIAL)


def _forked() -> None:
    """Begin new lines in a forked child, where nobody stands in the old ones."""
    global _lock
    _lock = threading.Lock()
    _lines.clear()


def reset() -> None:
    """Forget everything, as if this were just imported."""
    global _listening
    with _lock:
        _lines.clear()
        _listening = False
