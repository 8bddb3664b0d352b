"""
Counters of the drop-in client: calls by operation and by how they were answered.

Threads
    Counters are advanced by one C call; `invalidated` under ``_lock``.
"""

from __future__ import annotations

import itertools

from ..lifecycle import process

_lock = process.Lock()
_tallies: dict[str, Tally] = {}  # by operation
_loads: dict[int, None] = {}  # sequence numbers of those that were counted
MAX_LOADS = 1_000  # loads that are remembered: more than callers wait for at one time


def counters() -> dict[str, dict[str, int]]:
    """Return, for each operation, how many calls became what."""
    with _lock:
        return {operation: tally.read() for operation, tally in _tallies.copy().items()}


class Tally:
    """
    How many calls of one operation were answered how.

    hits: from memory; misses: by a call for which the caller waited; passed: by
    the client's own method, because nothing of them is kept; stored: answers from
    the wire that were kept, refreshes included, but for those of `client`;
    invalidated: values that a write has dropped.
    """

    __slots__ = ("hits", "invalidated", "misses", "passed", "stored")

    def __init__(self) -> None:
        self.hits = itertools.count()  # `next` is one step, in any thread
        self.misses = itertools.count()
        self.passed = itertools.count()
        self.stored = itertools.count()
        self.invalidated = 0

    def read(self) -> dict[str, int]:
        """Return the numbers."""
        return {
            "hits": _number(self.hits),
            "misses": _number(self.misses),
            "passed": _number(self.passed),
            "stored": _number(self.stored),
            "invalidated": self.invalidated,
        }


def _number(counter: itertools.count[int]) -> int:
    """Return how often *counter* was advanced, without advancing it."""
    return int(repr(counter)[6:-1])


def invalidated(operation: str, values: int) -> None:
    """Count *values* that a call of *operation* has dropped."""
    with _lock:
        tally(operation).invalidated += values


def stored_once(operation: str, sequence: int) -> None:
    """Count that the load *sequence* was kept, however many have waited for it."""
    with _lock:
        if sequence in _loads:
            return
        if len(_loads) >= MAX_LOADS:
            _loads.clear()
        _loads[sequence] = None
    next(tally(operation).stored)


@process.at_fork
@process.at_reset
def _reset() -> None:
    _tallies.clear()
    _loads.clear()


def tally(operation: str) -> Tally:
    """Return the counters of *operation*."""
    found = _tallies.get(operation)
    if found is None:
        with _lock:
            found = _tallies.setdefault(operation, Tally())
    return found
