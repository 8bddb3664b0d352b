"""
What happened to the records of this process, counted exactly.

``+=`` is not atomic: a thread, or a signal handler between its read and its
write, would lose counts.  So each event is appended to a deque, and what has
gathered there is added up now and then by whoever can have it first.
"""

from __future__ import annotations

from collections import deque

from .. import disclosure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Counts = dict[str, int]

FOLD = 32  # gathered events from which on they are added up

_gathered: deque[Counts] = deque()
_dropped: deque[Counts] = deque()
_logged: set[str] = set()


def add(counts: Counts) -> None:
    """Count events, so many of each; from any thread or signal handler."""
    _gathered.append(counts)
    if len(_gathered) >= FOLD:
        _fold(_gathered)


def drop(reason: str, number: int, message: str, *, exc_info: bool = False) -> None:
    """Count *number* dropped records; log *message* once for each *reason*."""
    _dropped.append({reason: number})
    if len(_dropped) >= FOLD:
        _fold(_dropped)
    if reason not in _logged:
        _logged.add(reason)
        write = disclosure.failure if exc_info else disclosure.warn
        write("metric_dropped", message, reason=reason)


def events() -> Counts:
    """Return how many there were of each event."""
    return _sum(_gathered.copy())


def dropped() -> Counts:
    """Return how many records were dropped, by reason."""
    return _sum(_dropped.copy())


def reset() -> None:
    """Start again from zero, and log each reason again."""
    _gathered.clear()
    _dropped.clear()
    _logged.clear()


def _fold(where: deque[Counts]) -> None:
    taken = []
    for _ in range(len(where)):
        try:
            taken.append(where.popleft())
        except IndexError:  # another thread adds up as well
            break
    where.append(_sum(taken))


def _sum(many: Iterable[Counts]) -> Counts:
    total: Counts = {}
    for counts in many:
        for event, number in counts.items():
            total[event] = total.get(event, 0) + number
    return total
