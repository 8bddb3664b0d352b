"""
Which loads share a call of their source, and which thread makes it.

    Batch ─▶ Call ─▶ Load        what one reader, INIT or the worker began

A source divides what is wanted into calls (`Source.plan`).  Calls that carry
what the reader waits for come first; its own thread makes one of them.  The
rest goes to a few helper threads, which end with their work.

Guarantees
    A reader waits for no call but those that carry its own keys.  If such a
    call is still queued behind others, the reader makes it itself.
    A load has a thread that will settle it, or its readers notice that it has
    none (`Batch.is_alive`) and ask for themselves: also after a signal handler
    has raised in the thread that led it, at any place.

Threads
    Queues are deques, whose methods are atomic.  `Batch.held` is locked, by
    ``with``, while the thread that began the batch is responsible for it.
    The loader's lock guards everything about a load but its `waiters`.
"""

from __future__ import annotations

from collections import deque

from ..lifecycle import real_threads
from . import threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..typing import Source
    from .entries import Load


class Call:
    """Loads that one call of their source answers."""

    __slots__ = ("loads", "source", "wanted")

    def __init__(self, source: Source, loads: list[Load]) -> None:
        self.source = source
        self.loads = loads
        self.wanted = not all(load.background for load in loads)
        for load in loads:
            load.call = self

    def __repr__(self) -> str:
        return f"<Call for {len(self.loads)} key(s)>"


class Batch:
    """The loads that were begun together, and the threads that see to them."""

    __slots__ = (
        "alone",
        "ended",
        "ends_at",
        "error",
        "held",
        "loads",
        "others",
        "started",
        "wanted",
    )

    def __init__(self, ends_at: float | None = None) -> None:
        self.ends_at = ends_at  # run time until which a wanted call may last
        self.held = real_threads.allocate_lock()
        self.loads: list[Load] = []
        self.wanted: deque[Call] = deque()  # calls that a reader waits for
        self.others: deque[Call] = deque()
        self.alone = False  # without helper threads
        self.started: list[int] = []  # helper threads
        self.ended: list[int] = []
        self.error: BaseException | None = None  # that ended a helper thread

    def __repr__(self) -> str:
        return f"<Batch of {len(self.loads)} load(s)>"

    def is_alive(self) -> bool:
        """Say whether a thread will see to what is not settled yet."""
        return self.held.locked() or len(self.ended) < len(self.started)

    def calls(self) -> int:
        """Return how many calls are queued."""
        return len(self.wanted) + len(self.others)

    def add(self, source: Source, loads: list[Load]) -> None:
        """Queue one call for *loads*."""
        call = Call(source, loads)
        (self.wanted if call.wanted else self.others).append(call)

    def claim(self, *, any_call: bool) -> Call | None:
        """Take the next call from the queue, one that is wanted or *any_call*."""
        for queue in (self.wanted, self.others) if any_call else (self.wanted,):
            try:
                return queue.popleft()
            except IndexError:
                continue
        return None

    def is_queued(self, load: Load) -> bool:
        """Say whether no thread has taken the call that carries *load*."""
        return load.call in self.wanted or load.call in self.others

    def claim_for(self, load: Load) -> Call | None:
        """Take the call that carries *load*, unless a thread has taken it."""
        for queue in (self.wanted, self.others):
            call: Call | None = load.call
            try:
                if call is not None:
                    queue.remove(call)
                    return call
            except ValueError:
                continue
        return None

    def start(self, work: Callable[[], object], most: int) -> bool:
        """
        Have up to *most* more helper threads *work*; say whether any is alive.

        `WORKERS` at most are alive.
        """

        def body() -> None:
            try:
                work()
            except BaseException as exc:
                self.error = exc  # for the reader that began the batch
            finally:
                self.ended.append(real_threads.get_ident())

        room = threads.WORKERS - (len(self.started) - len(self.ended))
        for _ in range(0 if self.alone else min(most, room)):
            if not threads.spawn(body, self.started):
                break
        return len(self.ended) < len(self.started)


def by_scope(loads: Iterable[Load]) -> Iterable[list[Load]]:
    """Divide *loads* by where they ask, in each what is wanted first."""
    groups: dict[object, list[Load]] = {}
    for load in sorted(loads, key=_is_background):
        groups.setdefault(load.key.scope, []).append(load)
    return groups.values()


def _is_background(load: Load) -> bool:
    return load.background
