"""
Records that wait for so many seconds at most, and are flushed then.

Where `flush_every` is a time, and on Managed Instances, where nothing freezes and no
answer is awaited.  The thread that records flushes when it finds the oldest old enough;
while no thread records, the one that watches deadlines flushes.
"""

from __future__ import annotations

from .. import sink_numbers
from ..lifecycle import clock, deadline
from .buffer import MAX_RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .buffer import Buffer


class Aged:
    """When *write* is to be called, by which *buffer* is flushed and sinks are served."""

    __slots__ = ("_buffer", "_oldest_at", "_write", "age_s")

    def __init__(self, buffer: Buffer, write: Callable[[], object]) -> None:
        self.age_s: float | None = None  # the age that records may have; None: any
        self._buffer = buffer
        self._write = write
        self._oldest_at: float | None = None  # run time

    def is_time(self) -> bool:
        """Say, after a record, whether the oldest has waited long, or many wait."""
        age_s, oldest_at = self.age_s, self._oldest_at
        if age_s is None:
            return True  # no age is set: their number made the caller ask
        now = clock.run_time()
        number = len(self._buffer.records)
        if oldest_at is None or number <= 1:
            self._oldest_at = now
            if deadline.looks_after(now + age_s):
                deadline.look(self.due_at, self.flush)
            return False
        return now - oldest_at >= age_s or number > MAX_RECORDS

    def due_at(self) -> float | None:
        """Return at what run time the oldest record has waited long enough."""
        age_s, oldest_at = self.age_s, self._oldest_at
        if age_s is None or oldest_at is None:
            return None
        return oldest_at + age_s if self._buffer.records or self._is_waiting() else None

    def flush(self) -> None:
        """Write what has waited for long, and send what is due; on the watcher's side."""
        self._oldest_at = clock.run_time()
        self._write()

    def _is_waiting(self) -> bool:
        """Say whether a sink has something that it may send later."""
        return any(
            sink_numbers.number(outlet.sink, "pending")
            for outlet in self._buffer.draining
        )
