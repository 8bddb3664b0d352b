"""
Objects that are made of a value, such as a pool of connections: `Secret.derive`.

Guarantees
    At most one object is made per version, and none of a version that was
    replaced by another one meanwhile.  While a new one is being made, others
    go on with the old one, and wait neither to enter nor to leave.
    An object is closed once, and never while a lease on it is held: a ``with``
    or a function that `inject` passed it to.  One that was handed out as
    ``value`` is kept for the grace period after its replacement, too.

Leases
    Python does not tell ``__exit__`` which ``__enter__`` it belongs to.  A ``with``
    enters and leaves in one frame, so ``__exit__`` ends the last lease of its frame.
    Where another frame leaves (an ExitStack), nothing says which lease has ended, and
    no object is closed before all leases have ended and the grace period is over.

Life
    At SIGTERM and at exit all that was made is closed, each on a thread of its
    own, within the budget of the shutdown; before a snapshot, too.  A forked
    child forgets all, and closes nothing: the sockets are the parent's, too.

Threads
    Each `Derived` has a lock, which is held for a few lines at a time, never
    while an object is made or closed; ``_making`` is held by the maker alone.
    Loops under a lock have a function of their own: CPython 3.13 gives the
    backward jump after a condition no exception handler, so that a signal
    handler that raises there would leave a ``with`` without its exit.
"""

from __future__ import annotations

import contextvars
import sys

from .. import callables, disclosure
from ..disclosure import raises_without_variables
from ..exceptions import ConfigurationError
from ..lifecycle import clock, phases, real_threads, shutdown
from ..lifecycle.process import (
    Lock,
    at_fork,
    at_reset,
    by_signal_handler,
    living,
    remember,
)
from . import settings, store, transforms
from .cache import protected

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from typing import Any, Generic, TypeVar

    from typing_extensions import Self

    from .cache import Entry
    from .keys import Key

    R = TypeVar("R")
else:
    # Generic to a type checker, without importing typing (3 ms).
    R = None
    Generic = {R: transforms.Unmistakable}

_MAY_STOP = 0x20 | 0x80 | 0x200  # of co_flags: it may go on in another context

# The leases that were taken in this context, by plain functions.
_leases: contextvars.ContextVar[tuple[_Lease, ...]] = contextvars.ContextVar(
    "lambda_ext_leases", default=()
)
_lock = Lock()
_derived: set[weakref.ref[Any]] = set()
_inherited: list[Any] = []  # the parent's objects, kept from being finalized
_closings: list[_Closing] = []  # of the last shutdown
_listening = False


class _Made:
    """One object, the entry that it was made from, and how it was handed out."""

    __slots__ = ("entry", "key", "lent", "object", "retired_at")

    def __init__(self, key: Key, entry: Entry, made: Any) -> None:
        self.key = key
        self.entry = entry
        self.object = made
        self.lent = False  # handed out without a lease: its end is unknown
        self.retired_at = 0.0


class _Lease:
    """The use of one object, by the frame of a ``with`` or by `inject`."""

    __slots__ = ("ended", "frame", "made")

    def __init__(self, made: _Made, frame: Any) -> None:
        self.made = made
        self.frame = frame
        self.ended = False  # an ended lease holds no object, and is given none

    def end(self) -> None:
        """Let go of everything."""
        self.ended = True
        self.frame = None
        self.made = _NOTHING


class Derived(Generic[R]):
    """
    What was made of a value, made again when its version changes.

    Made by `Secret.derive` and `Parameter.derive`.  Use it in a ``with``, or
    have it passed by `inject`: an old one is then closed as soon as the last
    user has left::

        pool = db.derive(make_pool, close=Pool.close)
        with pool as p:
            p.execute(...)

    One that was handed out as ``pool.value`` is closed when it has been
    replaced for the grace period, at its next use or at the end of an
    invocation.  In an `contextlib.ExitStack` nothing tells which one is left:
    nothing is closed then before all users have left and the grace period is
    over.  At SIGTERM and at exit all are closed, used or not, within the
    budget of `on_shutdown` and after its functions.
    """

    __slots__ = (
        "__weakref__",
        "_close",
        "_current",
        "_grace",
        "_handle",
        "_leases",
        "_lock",
        "_make",
        "_maker",
        "_making",
        "_retired",
        "_unknown",
    )

    def __init__(
        self,
        handle: Any,
        make: Any,  # types are checked in `derive`, here for all other callers
        close: Any,
        grace: Any,
    ) -> None:
        label = f"what is derived from {handle.name!r}"
        if not callable(make) or not (close is None or callable(close)):
            msg = f"make= and close= of {label} must be functions"
            raise ConfigurationError(msg)
        callables.refuse_async(make, f"make= of {label}")
        callables.refuse_async(close, f"close= of {label}")
        grace_s = settings.seconds("grace", grace, label)
        self._handle = handle
        self._make = make
        self._close = close
        self._grace = grace_s  # None: never closed while it may be in use
        self._lock = Lock()
        self._making = Lock()
        self._maker: int | None = None  # the thread that makes
        self._current: _Made | None = None
        self._retired: list[_Made] = []
        self._leases: list[_Lease] = []
        self._unknown = 0  # leases that have ended, of which it is unknown which
        _register(self)

    def __copy__(self) -> Self:
        """Return the same: a second one would close what the users of this one have."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the same, see `__copy__`."""
        return self

    def __repr__(self) -> str:
        return f"<Derived from {self._handle!r}>"

    @property
    def value(self) -> R:
        """
        The object, made now if there is none of this version.

        Raises what the handle's ``value`` raises, or what ``make`` does.
        """
        return self._hold().object  # type: ignore[no-any-return]

    def resolve(self) -> R:
        """Return `value`: what `inject` asks of everything that it injects."""
        return self.value

    async def aget(self) -> R:
        """Return `value`; loading and making run on a thread."""
        # Loaded where a loop runs; no other program pays its 35 ms.
        import asyncio

        return await asyncio.to_thread(self.resolve)

    def __enter__(self) -> R:
        frame = sys._getframe(1)
        lease = _Lease(_NOTHING, frame)
        try:
            made = self._hold(lease)
            if not frame.f_code.co_flags & _MAY_STOP:
                _leases.set(_with(lease))
        except BaseException:  # of a signal handler, say: there will be no exit
            self._leave(lease)
            raise
        return made.object  # type: ignore[no-any-return]

    def __exit__(self, *exc_info: object) -> None:
        self._leave(self._lease_of(sys._getframe(1)))

    def _lease_of(self, frame: Any) -> _Lease | None:
        """Return the last lease that *frame* took here; None if it took none."""
        if not frame.f_code.co_flags & _MAY_STOP:
            # One of another context was not taken by a `with` of this frame.
            leases = _leases.get()
            for lease in reversed(leases):
                if lease.frame is frame and lease in self._leases:
                    _leases.set(tuple(each for each in leases if each is not lease))
                    return lease
            return None
        return next(
            (each for each in reversed([*self._leases]) if each.frame is frame), None
        )

    def _borrow(self, held: list[Any]) -> None:
        """Append this and a lease on the object to *held*, for `_leave` to end."""
        lease = _Lease(_NOTHING, None)
        held.append((self, lease))  # first: a signal handler may raise below
        self._hold(lease)

    async def _aborrow(self, held: list[Any]) -> None:
        """Do as `_borrow`; loading and making run on a thread."""
        # Only users that run a loop pay its 35 ms.
        import asyncio

        lease = _Lease(_NOTHING, None)
        # First: a task that is cancelled ends it, and the thread goes on.
        held.append((self, lease))
        await asyncio.to_thread(self._hold, lease)

    def _leave(self, lease: _Lease | None) -> None:
        """End *lease*, or one that is not known, and close what is done with."""
        with self._lock:
            if lease is not None:
                lease.ended = True
                if lease in self._leases:
                    self._leases.remove(lease)
                lease.end()
            elif self._leases:
                self._unknown += 1
                self._lend_all()
            if self._unknown >= len(self._leases):
                self._end_all()
        self._sweep()

    def _end_all(self) -> None:
        """End all leases: as many unknown ones have ended as there are leases."""
        while self._leases:
            self._leases[-1].end()
            self._leases.pop()
        self._unknown = 0

    def _lend_all(self) -> None:
        for each in self._leases:
            each.made.lent = True

    @raises_without_variables
    def _hold(self, lease: _Lease | None = None) -> _Made:
        """Return the object of the current version, made if there is none."""
        if self._retired:
            self._sweep()
        entry = self._handle._entry()
        made = self._ready(entry, lease, wait=False)
        if made is None:
            with self._making:
                made = self._ready(entry, lease, wait=True)
                if made is None:
                    made = self._replace(entry, lease)
            if self._retired:
                self._sweep()
        if protected:
            store.note(self._handle._key_of(), made.entry)
        return made

    def _ready(self, entry: Entry, lease: _Lease | None, *, wait: bool) -> _Made | None:
        """Return the object to hand out, leased; None if it is to be made."""
        with self._lock:
            current = self._current
            if current is None or not (
                _same(current, entry)
                or self._is_newer(current, entry)
                # The old object while another thread makes the new one, unless this
                # call of `refresh_on` was refused with it.
                or (
                    self._maker is not None
                    and (not wait or self._maker == real_threads.get_ident())
                    and not (protected and self._was_refused(current))
                )
            ):
                return None
            if _same(current, entry) and current.entry.sequence < entry.sequence:
                current.entry = entry
            self._hand_out(current, lease)
            return current

    def _is_newer(self, made: _Made, entry: Entry) -> bool:
        """Say whether *made* is of what was loaded after *entry*, in another thread."""
        return (
            made.entry.sequence > entry.sequence and made.key == self._handle._key_of()
        )

    def _was_refused(self, made: _Made) -> bool:
        # Imports contextvars, which only users of `refresh_on` need.
        from . import given

        group = store.group_of(self._handle._key_of())
        return given.was_refused(group, made.entry.sequence)

    def _hand_out(self, made: _Made, lease: _Lease | None) -> None:
        if lease is None:
            made.lent = True
        elif not lease.ended:  # else its task was cancelled meanwhile
            lease.made = made
            self._leases.append(lease)

    def _replace(self, entry: Entry, lease: _Lease | None) -> _Made:
        """Make the object of *entry*, and retire the former; `_making` is held."""
        if self._maker is not None:
            msg = f"make= of {self!r} asks for what it is making"
            raise ConfigurationError(msg)
        try:
            self._maker = real_threads.get_ident()
            made = self._make(self._handle._decoded(entry).copied())
            callables.refuse_coroutine(made, f"make= of {self!r}")
            fresh = _Made(self._handle._key_of(), entry, made)
            now = clock.now()
            with self._lock:
                former, self._current = self._current, fresh
                if former is not None:
                    former.retired_at = now
                    self._retired.append(former)
                self._hand_out(fresh, lease)
        finally:
            self._maker = None
        return fresh

    def _sweep(self) -> None:
        """Close what is retired and done with."""
        now = clock.now()
        with self._lock:
            done = self._take_done(now)
        for made in done:
            self._end(made)

    def _take_done(self, now: float) -> list[_Made]:
        """Return what is retired and done with, and forget it; the lock is held."""
        leased = {lease.made for lease in self._leases}
        done = [
            made
            for made in self._retired
            if made not in leased and self._is_over(made, now)
        ]
        self._retired = [made for made in self._retired if made not in done]
        return done

    def _is_over(self, made: _Made, now: float) -> bool:
        """Say whether *made*, without a lease, has been kept for long enough."""
        if not made.lent:
            return True
        return self._grace is not None and now - made.retired_at >= self._grace

    def _end(self, made: _Made) -> None:
        if self._close is None:
            return
        try:
            callables.refuse_coroutine(self._close(made.object), "close=")
        except Exception as exc:  # whose message may quote the value
            if by_signal_handler(exc):
                raise
            disclosure.warn(
                "close_failed", key=self._handle.name, error=disclosure.kind(exc)
            )

    def _take_all(self) -> list[_Made]:
        """Return all that was made and is not closed, and forget it."""
        with self._lock:
            made, self._retired = self._retired, []
            if self._current is not None:
                made.append(self._current)
                self._current = None
        return made

    def _forked(self) -> None:
        self._maker = None
        _inherited.extend(made.object for made in self._take_all())


_NOTHING: Any = None  # what a lease is on before there is an object, and at its end


def _with(lease: _Lease) -> tuple[_Lease, ...]:
    """Return the leases of this context that have not ended, and *lease*."""
    return (*[each for each in _leases.get() if not each.ended], lease)


def _same(made: _Made, entry: Entry) -> bool:
    answer = made.entry.answer
    return answer is entry.answer or answer.same(entry.answer)


def _register(derived: Derived[Any]) -> None:
    remember(_derived, derived)
    _attach()


def _attach() -> None:
    """Register the functions that close what was made, once."""
    global _listening
    if not _listening:
        phases.listen_once(phases.RESPONSE, _response, priority=phases.NETWORK)
        phases.listen_once(phases.SNAPSHOT, _snapshot, priority=phases.USER)
        # After the user's own listeners, which may need what was made.
        phases.listen_once(phases.SHUTDOWN, _shutdown, priority=phases.NETWORK)
        shutdown.follow_exit()
        _listening = True  # last: a signal handler may have raised before


def _all() -> list[Derived[Any]]:
    return living(_derived)


def _response() -> None:
    for derived in _all():
        if derived._retired:
            derived._sweep()


def _snapshot() -> None:
    for derived in _all():
        for made in derived._take_all():
            derived._end(made)


def _shutdown() -> None:
    """Have each object closed by a listener of its own: each has its share."""
    for closing in [*_closings]:
        phases.silence(phases.SHUTDOWN, closing)
    _closings.clear()
    for derived in _all():
        made = derived._take_all()
        if derived._close is not None:
            _closings.extend(_Closing(derived, each) for each in made)
    for closing in _closings:
        phases.listen(phases.SHUTDOWN, closing, priority=phases.NETWORK)


class _Closing:
    """A shutdown listener that closes one object, once."""

    __slots__ = ("__qualname__", "derived", "made")

    def __init__(self, derived: Derived[Any], made: _Made) -> None:
        self.derived = derived
        self.made: _Made | None = made
        self.__qualname__ = f"close of {derived._handle.name!r}"

    def __call__(self) -> None:
        made, self.made = self.made, None
        if made is not None:
            self.derived._end(made)


@at_fork
def _forked() -> None:
    for derived in _all():
        derived._forked()


@at_reset
def reset() -> None:
    """Forget everything, as if this were just imported; closes nothing."""
    global _listening
    for derived in _all():
        derived._take_all()
    with _lock:
        _derived.clear()
        _inherited.clear()
        _closings.clear()
        _listening = False
