"""
Rotation: a credential is refused before its time is up.

`refresh_on` loads it again and calls again.  Nothing sleeps.

What was refused
    The newest value that the call was given, see `given`; where it was given
    none, the one that was current when the call began.  The call is repeated
    if a newer version than that one is in memory, or has been loaded now.

How often AWS is asked
    One load at a time for each secret: callers that are refused meanwhile
    wait for its outcome.  After a load that failed, or brought the refused
    version, the next may begin 1, 2, 4 ... seconds later, at most *cooldown*;
    after one that brought another version, *cooldown* seconds later.  A
    refusal in between is let through at once.

Threads
    ``_lock`` guards the record of loads, and is never held during one.
"""

from __future__ import annotations

import functools

from .. import callables, disclosure
from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock, real_threads
from ..lifecycle.process import Lock, at_fork, at_reset, by_signal_handler
from . import aliases, calls, given, settings, store
from .cache import NEVER, protected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .given import Given
    from .keys import Key

    F = TypeVar("F", bound=Callable[..., Any])

COOLDOWN_S = 30.0
MAX_RECORDS = 1000  # of values that were refused; AWS is asked sooner without one
FIRST_PAUSE_S = 1.0  # after a load that was of no use; doubled by each further one

_lock = Lock()
_records: dict[Key, _Record] = {}


def refresh_on(
    errors: type[BaseException] | tuple[type[BaseException], ...],
    *handles: Any,
    cooldown: float = COOLDOWN_S,
) -> Callable[[F], F]:
    """
    Load *handles* again when the decorated function raises *errors*; call again.

        @refresh_on(psycopg.OperationalError, db)
        def orders(): ...

    Once: what the second call raises is let through.  Name the errors of a
    refused credential, not Exception: the function runs twice.

    What counts as refused is the newest value that the function was given: by
    a handle, by `get_secret`, by ``derive`` or by `inject`, in functions that
    it calls, in asyncio tasks and in ``asyncio.to_thread``.  Threads and pools
    of your own are not seen; where no value was seen, and for one that was
    read before the call, it is the value in memory when the call began.  If a
    newer version is in memory already, AWS is not asked.  Put `inject` below,
    so that it gives the new value to the second call.

    The caller waits for the load, and so do callers that are refused while it
    lasts; ``async def`` waits without blocking the event loop.  The first
    error is let through when the load fails, and when AWS may not be asked
    yet: for 1, 2, 4 ... seconds, at most *cooldown*, after a load that failed
    or brought the refused version, and for *cooldown* seconds after one that
    brought another.  Nothing sleeps.

    A generator, asynchronous or not, is begun again if it is refused before
    its first item; later it cannot be.

    Raises:
        ConfigurationError: *errors* are no exceptions, *handles* no handles,
            or what is decorated is no function.
    """
    _check(errors, handles, cooldown)

    def decorate(function: F) -> F:
        _check_function(function)
        wrap = _WRAPPERS[callables.kind_of(function)]
        wrapper: Any = wrap(function, _Policy(errors, handles, cooldown))
        inner = disclosure.attribute(function, "__lambda_ext_refreshes__", ())
        wrapper.__lambda_ext_refreshes__ = (*inner, *handles)
        return wrapper  # type: ignore[no-any-return]  # of the same type

    return decorate


class _Policy:
    """What is done for one decorated function."""

    __slots__ = ("cooldown", "errors", "handles")

    def __init__(self, errors: Any, handles: tuple[Any, ...], cooldown: float) -> None:
        self.errors = errors
        self.handles = handles
        self.cooldown = cooldown


class _Attempt(given.Call):
    """One call of a decorated function, and what was current when it began."""

    __slots__ = ("begun_with", "policy")

    def __init__(self, policy: _Policy) -> None:
        super().__init__()
        self.policy = policy
        self.begun_with: dict[Any, Given] = {}

    def begin(self) -> None:
        """Note what is current; values that are given from now on are noted by `given`."""
        protected.add(self)
        self.enter()
        for handle in self.policy.handles:
            try:
                entry = store.current(handle._key_of())
                self.begun_with[handle] = given.given_of(entry)
            except Exception as exc:  # what cannot be bound raises where it is read
                if by_signal_handler(exc):
                    raise

    def end(self) -> None:
        """Leave the context; the caller has taken this out of `protected`."""
        self.leave()
        self.passed = None  # holds its traceback, hence this frame's caller

    def may_repeat(self, error: BaseException) -> bool:
        """Say whether to call again after *error*, having loaded what is needed."""
        policy = self.policy
        passed, tried = self.passed or (None, set())
        newer = False
        for handle in policy.handles:
            try:
                key = handle._key_of()
                group = store.group_of(key)
                if passed is error and group in tried:
                    continue  # a call within this one has repeated for it
                refused = self.newest.get(group) or self.begun_with.get(handle)
                if refused is None or not refused.sequence:
                    refused = given.given_of(store.current(key))
                self.refused[group] = refused.sequence
                if _reloaded(handle, key, refused, policy.cooldown):
                    newer = True
                    _forget_other_forms(key)
                    self.refused.setdefault(store.group_of(key), refused.sequence)
            except LambdaExtError as exc:
                disclosure.warn(
                    "refresh_on_failed", handle=repr(handle), error=type(exc).__name__
                )
        if not newer and passed is error:
            self.passing(error)
        return newer

    def passing(self, error: BaseException) -> None:
        """Note, in the call around this one, that *error* was raised at the second attempt."""
        if self.parent is not None:
            tried = {*self.refused}
            if self.passed is not None and self.passed[0] is error:
                tried |= self.passed[1]
            self.parent.passed = (error, tried)


# Wrappers, by what a call of the function gives --------------------------------


def _plain(function: Any, policy: _Policy) -> Any:
    @functools.wraps(function, disclosure.wrappable(function))
    def call(*args: Any, **kwargs: Any) -> Any:
        attempt = _Attempt(policy)
        try:
            attempt.begin()
            try:
                result = function(*args, **kwargs)
            except policy.errors as exc:
                if not attempt.may_repeat(exc):
                    raise
                result = _again(attempt, function, args, kwargs)
        finally:
            protected.discard(attempt)
            attempt.end()
        if callables.looks_like_coroutine(result):  # of no ``async def``
            return _awaited(result, policy, function, args, kwargs)
        return result

    return call


def _again(attempt: _Attempt, function: Any, args: Any, kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except attempt.policy.errors as exc:
        attempt.passing(exc)
        raise


def _coroutine(function: Any, policy: _Policy) -> Any:
    @functools.wraps(function, disclosure.wrappable(function))
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _awaited(None, policy, function, args, kwargs)

    return call


async def _awaited(
    begun: Any, policy: _Policy, function: Any, args: Any, kwargs: Any
) -> Any:
    """Await *begun*, or else what *function* gives, and once more if refused."""
    attempt = _Attempt(policy)
    try:
        attempt.begin()
        try:
            return await (function(*args, **kwargs) if begun is None else begun)
        except policy.errors as exc:
            # Only users that run a loop pay its 35 ms.
            import asyncio

            if not await asyncio.to_thread(attempt.may_repeat, exc):
                raise
        try:
            return await function(*args, **kwargs)
        except policy.errors as exc:
            attempt.passing(exc)
            raise
    finally:
        protected.discard(attempt)
        attempt.end()


def _generator(function: Any, policy: _Policy) -> Any:
    @functools.wraps(function, disclosure.wrappable(function))
    def call(*args: Any, **kwargs: Any) -> Any:
        # Up to its first item only: between two items its caller's code runs.
        attempt = _Attempt(policy)
        inner = function(*args, **kwargs)
        try:
            attempt.begin()
            try:
                item = next(inner)
            except StopIteration as stop:
                return stop.value
            except policy.errors as exc:
                if not attempt.may_repeat(exc):
                    raise
                inner = function(*args, **kwargs)
                try:
                    item = _again(attempt, next, (inner,), {})
                except StopIteration as stop:
                    return stop.value
        finally:
            protected.discard(attempt)
            attempt.end()
        return (yield from callables.relay(inner, item))

    return call


def _async_generator(function: Any, policy: _Policy) -> Any:
    @functools.wraps(function, disclosure.wrappable(function))
    async def call(*args: Any, **kwargs: Any) -> Any:
        inner = function(*args, **kwargs)
        begun = [inner]

        def first() -> Any:
            begun[:] = [function(*args, **kwargs)]
            return begun[0].__anext__()

        try:
            item = await _awaited(inner.__anext__(), policy, first, (), {})
        except StopAsyncIteration:
            return
        inner = begun[0]
        try:
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


_WRAPPERS = {
    callables.PLAIN: _plain,
    callables.COROUTINE: _coroutine,
    callables.GENERATOR: _generator,
    callables.ASYNC_GENERATOR: _async_generator,
}


# Arguments -------------------------------------------------------------------


def _check(errors: Any, handles: tuple[Any, ...], cooldown: float) -> None:
    kinds = errors if isinstance(errors, tuple) else (errors,)
    if not kinds or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        msg = "@refresh_on takes an exception class, or a tuple of them, first"
        raise ConfigurationError(msg)
    if not handles or not all(
        disclosure.attribute(handle, "_reload") and not isinstance(handle, type)
        for handle in handles
    ):
        msg = "@refresh_on takes Secret or Parameter handles after the exception class"
        raise ConfigurationError(msg)
    if settings.seconds("cooldown", cooldown, "@refresh_on") is None:
        msg = "cooldown of '@refresh_on' is a number of seconds"
        raise ConfigurationError(msg)


def _check_function(function: Any) -> None:
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        msg = f"@refresh_on belongs below @{kind}: swap the two lines"
        raise ConfigurationError(msg)
    if _is_context_manager(function):
        msg = "@refresh_on belongs below @contextmanager: swap the two lines"
        raise ConfigurationError(msg)
    if isinstance(function, type):
        msg = f"@refresh_on decorates a function or a method, not the class {function.__name__}"
        raise ConfigurationError(msg)
    if not callable(function):
        msg = f"@refresh_on decorates a function, not {type(function).__name__}"
        raise ConfigurationError(msg)


def _is_context_manager(function: Any) -> bool:
    """Say whether contextlib made *function*: its body runs after it has returned."""
    # By name: a function decorated with a context manager is contextlib's, too.
    module = (disclosure.attribute(function, "__globals__") or {}).get("__name__")
    name = getattr(callables.code_of(function), "co_name", "")
    return (module, name) == ("contextlib", "helper")


# Loads -----------------------------------------------------------------------


class _Record:
    """The loads that refusals of one value have caused."""

    __slots__ = ("asked_at", "loading", "refused_at", "useless")

    def __init__(self) -> None:
        self.asked_at = NEVER  # when the last one began; house time
        self.refused_at = NEVER  # when a call was last refused the value
        self.useless = 0  # how many in a row failed or brought the refused version
        self.loading: _Loading | None = None


class _Loading:
    """
    A load that is under way, and the callers that wait for it.

    Each waits at a lock of its own.  To end it, set `over` and exhaust
    `releases`: that is one step in C, where no signal handler can raise
    between two of them, see `process`.
    """

    __slots__ = ("over", "releases", "waiters")

    def __init__(self) -> None:
        self.over = False
        self.waiters: list[Any] = []
        self.releases = map(real_threads.LockType.release, self.waiters)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it is over; False if that takes longer than *timeout_s*."""
        gate = real_threads.allocate_lock()
        gate.acquire()
        self.waiters.append(gate)
        return self.over or gate.acquire(
            timeout=-1 if timeout_s is None else max(timeout_s, 0.0)
        )


def _reloaded(handle: Any, key: Key, refused: Given, cooldown: float) -> bool:
    """Say whether to call again: there is a newer version, or AWS was asked."""
    while True:
        loading = mine = None
        try:
            with _lock:
                entry = store.current(key)
                known = given.given_of(entry)
                if known.sequence > refused.sequence and known.token != refused.token:
                    return True
                record = _record_of(key)
                loading = record.loading
                if loading is None:
                    now = clock.now()
                    if now - record.refused_at >= cooldown:
                        record.useless = 0  # of another rotation
                    record.refused_at = now
                    if now - record.asked_at < _pause(record, cooldown):
                        return False
                    mine = record.loading = _Loading()
                    record.asked_at = now
                    record.useless += 1  # unless it turns out otherwise
            if mine is not None:
                handle._reload(max(known.sequence, refused.sequence))
                if given.given_of(store.current(key)).token != refused.token:
                    record.useless = 0
                return True
        finally:
            if mine is not None:
                record.loading = None
                mine.over = True
                _ = [*mine.releases]
        assert loading is not None
        if not loading.wait(calls.left(None)):
            return False


def _record_of(key: Key) -> _Record:
    """Return the record of *key*, made if need be; the lock is held."""
    record = _records.get(key)
    if record is None:
        while len(_records) >= MAX_RECORDS and _forget_oldest():
            pass
        record = _records[key] = _Record()
    return record


def _forget_oldest() -> bool:
    """Forget one record that no load is under way for; say whether there was one."""
    for key, record in _records.items():
        if record.loading is None:
            del _records[key]
            return True
    return False


def _forget_other_forms(key: Key) -> None:
    """
    Drop older entries that hold the same value: they are read anew.

    Of other stages, say, and of paths above it.
    """
    entry = store.current(key)
    if entry is None:
        return
    group = store.group_of(key)
    for slot in [*store.cache.slots.values()]:
        other = slot.key
        if (
            slot.group != group
            and other.version is None
            and aliases.depends(other, group.name, key.operation)
        ):
            store.cache.kill(other, entry.sequence)


def _pause(record: _Record, cooldown: float) -> float:
    """Return the seconds that must pass between two loads."""
    if not record.useless:
        return cooldown
    # Not 2.0 ** n: that overflows after a thousand.
    return min(FIRST_PAUSE_S * (1 << min(record.useless - 1, 32)), cooldown)


@at_fork
def _forked() -> None:
    """Keep, in a forked child, only the calls that its one thread is in."""
    _records.clear()
    protected.intersection_update(given.still_running())


@at_reset
def reset() -> None:
    """Forget every load, as if this were just imported."""
    with _lock:
        _records.clear()
    protected.clear()
