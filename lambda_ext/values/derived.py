"""
What is made of a value, a pool of connections say: `Secret.derive`.

Guarantees
    At most one object is made per version.  While a new one is being made,
    others go on with the old one.  The old one is closed once: when its last
    ``with`` ends, or after the grace period if it was handed out otherwise.

Life
    Before a snapshot every derived object is closed and forgotten.  A forked
    child forgets them, and closes none: their sockets are the parent's, too.

Threads
    Who uses what is kept by thread and, in an event loop, by task.
    Each `Derived` has a lock, which is held while its object is made and never
    while one is closed; ``_lock`` guards the register of them.
"""

from __future__ import annotations

import contextvars
import threading
import types
import weakref

from .. import disclosure
from ..disclosure import raises_without_variables
from ..exceptions import ConfigurationError
from ..lifecycle import clock, phases
from . import settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, TypeVar

    from ..answer import Answer
    from .cache import Entry

    R = TypeVar("R")
else:
    # Generic to a type checker, without importing typing (3 ms).
    R = None

    class _Base:
        __slots__ = ()
        __class_getitem__ = classmethod(types.GenericAlias)

    Generic = {R: _Base}

# Which objects are in use by a thread or by a task: tasks of one loop take turns.
_leases: contextvars.ContextVar[tuple[tuple[Any, _Made], ...]] = contextvars.ContextVar(
    "lambda_ext_leases", default=()
)
_lock = threading.Lock()
_derived: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []  # the parent's objects, kept from being finalized
_listening = False


class _Made:
    """One object, the answer that it was made from, and who uses it."""

    __slots__ = ("answer", "lent", "object", "retired_at", "users")

    def __init__(self, answer: Answer, made: Any) -> None:
        self.answer = answer
        self.object = made
        self.users = 0  # inside of a `with`
        self.lent = False  # handed out otherwise: nobody says when it is done
        self.retired_at = 0.0


class Derived(Generic[R]):
    """
    What was made of a value, made again when its version changes.

    Made by `Secret.derive` and `Parameter.derive`.  Use it in a ``with``, and
    the old one is closed as soon as nobody uses it::

        pool = db.derive(make_pool, close=Pool.close)
        with pool as p:
            p.execute(...)

    or as ``pool.value``, and it is closed after the grace period.
    """

    __slots__ = (
        "__weakref__",
        "_close",
        "_current",
        "_grace",
        "_handle",
        "_lock",
        "_make",
        "_retired",
    )

    def __init__(
        self,
        handle: Any,
        make: Any,  # types are checked in `derive`, here for everybody else
        close: Any,
        grace: Any,
    ) -> None:
        label = f"what is derived from {handle.name!r}"
        if not callable(make) or not (close is None or callable(close)):
            msg = f"make= and close= of {label} must be functions"
            raise ConfigurationError(msg)
        grace_s = settings.seconds("grace", grace, label)
        self._handle = handle
        self._make = make
        self._close = close
        self._grace = grace_s  # None: never closed while it may be in use
        self._lock = threading.RLock()
        self._current: _Made | None = None
        self._retired: list[_Made] = []
        _register(self)

    def __repr__(self) -> str:
        return f"<Derived from {self._handle!r}>"

    @property
    def value(self) -> R:
        """
        The object, made now if there is none of this version.

        Raises what the handle's ``value`` raises, or what ``make`` does.
        """
        made = self._made()
        made.lent = True
        return made.object  # type: ignore[no-any-return]

    def resolve(self) -> R:
        """Return `value`: what `inject` asks of everything that it injects."""
        return self.value

    async def aget(self) -> R:
        """Return `value`; loading and making run on a thread."""
        # Loaded by whoever runs a loop; nobody else pays its 35 ms.
        import asyncio

        return await asyncio.to_thread(self.resolve)

    def __enter__(self) -> R:
        while True:
            made = self._made()
            with self._lock:
                if made is self._current:  # else it may be closed already
                    made.users += 1
                    break
        _leases.set((*_leases.get(), (self, made)))
        return made.object  # type: ignore[no-any-return]

    def __exit__(self, *exc_info: object) -> None:
        leases = _leases.get()
        at = next(
            (at for at in reversed(range(len(leases))) if leases[at][0] is self), -1
        )
        with self._lock:
            if at >= 0:
                leases[at][1].users -= 1
            else:  # entered in another context: who can tell which one this was?
                for made in (*self._retired, self._current):
                    if made is not None and made.users:
                        made.lent = True
        if at >= 0:
            _leases.set((*leases[:at], *leases[at + 1 :]))
        self._sweep()

    @raises_without_variables
    def _made(self) -> _Made:
        """Return the object of the current version."""
        if self._retired:
            self._sweep()
        entry = self._handle._entry()
        current = self._current
        if current is not None and _same(current, entry):
            return current
        # Whoever has an old one does not wait for the new one.
        if not self._lock.acquire(blocking=current is None):
            assert current is not None
            return current
        try:
            current = self._current
            if current is None or not _same(current, entry):
                answer = entry.answer
                fresh = _Made(answer, self._make(self._handle._decoded(entry).give()))
                self._current = fresh
                if current is not None:
                    current.retired_at = clock.now()
                    self._retired.append(current)
                current = fresh
        finally:
            self._lock.release()
        if self._retired:
            self._sweep()
        return current

    def _sweep(self) -> None:
        """Close what is retired and done with."""
        now = clock.now()
        with self._lock:
            done = [made for made in self._retired if self._is_done(made, now)]
            self._retired = [made for made in self._retired if made not in done]
        for made in done:
            self._end(made)

    def _is_done(self, made: _Made, now: float) -> bool:
        if not made.lent:
            return made.users == 0
        return self._grace is not None and now - made.retired_at >= self._grace

    def _end(self, made: _Made) -> None:
        if self._close is not None:
            try:
                self._close(made.object)
            except Exception as exc:  # whose message may quote the value
                disclosure.warn(
                    "close_failed",
                    key=self._handle.name,
                    error=disclosure.kind(exc),
                )

    def _drop(self, *, close: bool) -> None:
        """Let go of everything that was made."""
        retired, self._retired = self._retired, []
        current, self._current = self._current, None
        made = retired if current is None else [*retired, current]
        for each in made:
            if close:
                self._end(each)
            else:
                _inherited.append(each.object)

    def _forked(self) -> None:
        self._lock = threading.RLock()
        self._drop(close=False)


def _same(made: _Made, entry: Entry) -> bool:
    return made.answer is entry.answer or made.answer.same(entry.answer)


def _register(derived: Derived[Any]) -> None:
    with _lock:
        _derived.add(derived)
    _attach()


def _attach() -> None:
    """Tie this to the life of the environment; more calls change nothing."""
    global _listening
    with _lock:
        first, _listening = not _listening, True
    if first:
        phases.listen(phases.RESPONSE, _response, priority=phases.NETWORK)
        phases.listen(phases.SNAPSHOT, _snapshot, priority=phases.USER)
        phases.listen(phases.FORK, _forked, priority=phases.ESSENTIAL)


def _all() -> list[Derived[Any]]:
    with _lock:
        return list(_derived)


def _response() -> None:
    for derived in _all():
        if derived._retired:
            derived._sweep()


def _snapshot() -> None:
    for derived in _all():
        derived._drop(close=True)


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    for derived in _all():
        derived._forked()


def reset() -> None:
    """Forget everything, as if this were just imported; closes nothing."""
    global _listening
    with _lock:
        _derived.clear()
        _inherited.clear()
        _listening = False
