"""
Delivery over a network: a bounded queue, retries, and never past a deadline.

A sink that waits for a server puts what it has into a `Delivery` and returns;
`drain` sends it, oldest first, for as long as the caller grants.  What could
not be sent stays in the queue, with its own times, for the next drain.

Guarantees
    `put` and `offer` wait for nothing, and may be called by a signal handler.
    The queue is bounded by items and by bytes: the oldest are dropped first,
    and counted.
    An item is sent again only where its receiver may not have taken it: it
    answered 429, 502, 503 or 504, or the connection failed.  Any other
    answer is final.  One item at a time is under way.
    `drain` returns at its deadline, also if the server hangs, and raises
    nothing but what a signal handler raises; then the item that was under way
    is kept, and is sent again.
    What was under way during a freeze is tried once more at once: the
    connection died with the freeze, not with the server.

Threads
    Any number may `put`.  Of several that `drain` one sends; the others wait
    for it until their own deadline.

Source: OTLP, "Failures" and "OTLP/HTTP Throttling",
https://opentelemetry.io/docs/specs/otlp/#failures
"""

from __future__ import annotations

import time
import weakref
from collections import deque

from .. import disclosure
from ..aws.retries import jitter
from ..lifecycle import clock, phases, real_threads
from ..lifecycle.process import Lock, by_signal_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_ITEMS = 1_000
MAX_BYTES = 4_000_000  # of a process that may have 128 MB in all
ATTEMPTS = 3  # in one drain; the next one begins anew
LONGEST_PAUSE_S = 300.0  # of a Retry-After; a server may ask for days
GROWN = 100  # items more, until they are combined again where there is no room
OFFERED = 8  # batches that are known when they come again
LONGEST_REASON = 500  # characters of what a receiver says
MAX_WARNINGS = 20  # different ones that are logged

sleep = time.sleep  # replaced by tests


class RetryError(Exception):
    """
    The receiver may not have taken it: send again, after *after_s* seconds.

    Where it has taken a part, *taken* are the records of that part, and *size*
    their bytes: `send` has removed them from the payload.
    """

    def __init__(
        self,
        reason: str,
        after_s: float | None = None,
        *,
        taken: int = 0,
        size: int = 0,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s
        self.taken = taken
        self.size = size


class RefusedError(Exception):
    """The receiver refused it for good."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason[:LONGEST_REASON]


class Item:
    """One request's worth of records, with what it costs to keep."""

    __slots__ = ("count", "payload", "size", "tried")

    def __init__(self, payload: Any, count: int, size: int) -> None:
        self.payload = payload
        self.count = count  # records in it
        self.size = size  # bytes, about
        self.tried = False  # whether an attempt was made: the receiver may have it

    def __repr__(self) -> str:
        return f"<Item of {self.count} records, {self.size} bytes>"


class Delivery:
    """
    The queue of one receiver.

    *send(payload, ends_at)* makes one attempt before the run time *ends_at*,
    and returns how many records the receiver refused, and why.  It raises
    `RetryError` or `RefusedError`; what else it raises counts as refused.  A method
    of the object that has the queue: that object is not kept alive by it.

    *combine(items)* is given what was not tried yet before it is sent, or before any
    of it is dropped for room, and returns what is to be sent in its place; None sends
    each item as it was queued.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Any, float], tuple[int, str]],
        *,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        combine: Callable[[list[Item]], list[Item]] | None = None,
    ) -> None:
        self.name = name
        self._send = _weakly(send) if hasattr(send, "__self__") else send
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._combine = combine
        self._version: object = None  # another one whenever something is queued
        self._queue: deque[Item] = deque()
        self._lock = Lock()  # guards the queue and the counters
        # Who sends.  Claimed and released by one C call each: a lock would stay
        # locked where a signal handler raises between taking it and using it.
        self._sender: dict[int, object] = {}
        self._idle = real_threads.Event()
        self._idle.set()
        self._bytes = 0
        self._least = 0  # items that the last combining left
        self._failures = 0  # attempts in a row that failed for a passing reason
        self._not_before = 0.0  # house time
        self._own_pause = False  # the receiver did not ask for it
        self._warned: set[str] = set()
        self.sent = 0  # records
        self._offered: list[object] = []  # the last batches that were queued
        self.dropped: dict[str, int] = {}  # records by reason
        self.error = ""  # of the last attempt; "" after a success

    def __repr__(self) -> str:
        return f"<Delivery to {self.name}, {self.pending} records pending>"

    @property
    def pending(self) -> int:
        """The number of records that wait to be sent."""
        with self._lock:
            return sum(item.count for item in self._queue)

    @property
    def bytes(self) -> int:
        """The number of bytes, about, that wait to be sent."""
        return self._bytes

    @property
    def items(self) -> int:
        """The number of items that wait to be sent."""
        return len(self._queue)

    def put(self, payload: Any, count: int, size: int) -> None:
        """Queue *payload* of *count* records; the oldest go where there is no room."""
        self.offer(object(), [Item(payload, count, size)])

    def offer(self, batch: object, items: list[Item]) -> None:
        """
        Queue *items*, unless *batch* is one of the last that were offered.

        Where a signal handler raises meanwhile, all of them are queued or none is,
        and the same batch may be offered again.
        """
        size = sum([item.size for item in items])
        version = object()
        with self._lock:
            queue, offered = self._queue, self._offered
            if batch not in offered:
                # One step: no call and no jump, where CPython runs signal handlers.
                queue += items
                self._bytes += size
                self._version = version
                offered += (batch,)
                del offered[:-OFFERED]
            self._make_room()

    def _make_room(self) -> None:
        if self._is_full() and len(self._queue) >= self._least + GROWN:
            self._combine_here()
        while self._is_full() and self._drop_oldest():
            pass

    def _is_full(self) -> bool:
        return len(self._queue) > self._max_items or self._bytes > self._max_bytes

    def _combine_here(self) -> None:
        """Combine what waits, unless it is being sent."""
        if self._combine is None:
            return
        me, sender = object(), self._sender
        try:
            if sender.setdefault(0, me) is me:
                self._combined(self._combine)
        finally:
            if 0 in sender and sender[0] is me:  # one step, as in `drain`
                del sender[0]

    def drop(self, count: int, reason: str) -> None:
        """Count *count* records that cannot be queued, for *reason*."""
        with self._lock:
            self._count_dropped(count, reason)

    def withdraw(self, count: int, reason: str) -> None:
        """Count *count* records as dropped that were counted as sent."""
        with self._lock:
            self._withdraw(count, reason)

    def _withdraw(self, count: int, reason: str) -> None:
        before = None
        while before is not self.dropped:
            before = self.dropped
            dropped = _more(before, count, reason)
            # One step.
            if self.dropped is before:
                self.dropped = before = dropped
                self.sent -= count

    @property
    def has_little_room(self) -> bool:
        """Whether so much waits that what comes next may have no room."""
        return (
            4 * self._bytes >= self._max_bytes
            or 4 * len(self._queue) >= self._max_items
        )

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed for a transient reason."""
        return self._failures > 0

    @property
    def is_ready(self) -> bool:
        """Whether something waits, and the receiver asked for no pause."""
        return bool(self._queue) and clock.now() >= self._not_before

    def drain(self, ends_at: float, *, join: bool = True) -> bool:
        """
        Send what is queued before the run time *ends_at*; say whether all was.

        No attempt is made earlier than the receiver asked for.  Without *join* it
        does not wait for another thread that is sending.  Before a time-out and at
        the end of the process the pause after an earlier failure is over.
        """
        if phases.under_way(phases.SHUTDOWN) or phases.under_way(phases.TIMEOUT):
            self.hurry()
        me, sender = object(), self._sender
        while True:
            try:
                if sender.setdefault(0, me) is me:
                    self._idle.clear()
                    return self._send_all(ends_at)
            finally:
                # One step: where a signal handler raised here, nothing would be
                # sent any more.
                if 0 in sender and sender[0] is me:
                    del sender[0]
                    self._idle.set()
            if not join:
                return False
            if not self._idle.wait(max(0.0, ends_at - clock.monotonic())):
                return False

    def hurry(self) -> None:
        """Make no pauses from now on but those that the receiver asks for: the process ends."""
        if self._own_pause:
            self._not_before = 0.0

    def forked(self) -> None:
        """Leave the queue to the parent, who sends it, and count from zero."""
        self.sent = 0
        self.dropped = {}
        self.error = ""
        self._queue = deque()
        self._offered = []
        self._bytes = 0
        self._sender = {}
        self._idle = real_threads.Event()
        self._idle.set()

    def _send_all(self, ends_at: float) -> bool:
        if self._combine is not None and len(self._queue) > 1:
            self._combined(self._combine)
        attempts = 0
        while self._queue:
            pause_s = self._not_before - clock.now()
            if clock.monotonic() + max(0.0, pause_s) >= ends_at:
                return False
            if pause_s > 0:
                sleep(pause_s)
            item = self._queue[0]
            generation = clock.generation
            outcome = self._attempt(item, ends_at)
            if outcome:
                attempts = 0
                continue
            clock.sync()
            if clock.generation != generation:  # a freeze broke the connection
                self._not_before = 0.0
            attempts += 1
            if attempts >= ATTEMPTS:
                return False
        return True

    def _combined(self, combine: Callable[[list[Item]], list[Item]]) -> None:
        """Combine the items that were not tried yet; what is queued meanwhile follows them."""
        with self._lock:
            version = self._version
            items = [*self._queue]
            after = deque(_of(items, tried=True))
            after.extend(combine(_of(items, tried=False)))
            size = sum([item.size for item in after])
            # One step; not if a signal handler has queued something meanwhile.
            if self._version is version:
                self._queue = after
                self._bytes = size
                self._least = len(after)

    def _attempt(self, item: Item, ends_at: float) -> bool:
        """Send *item* once; say whether its outcome is final."""
        item.tried = True
        try:
            refused, reason = self._send(item.payload, ends_at)
        except RetryError as exc:
            self._failures += 1
            after_s = jitter(self._failures) if exc.after_s is None else exc.after_s
            self._not_before = clock.now() + min(after_s, LONGEST_PAUSE_S)
            self._own_pause = exc.after_s is None
            self._failed(exc.reason)
            if exc.taken:
                self._settle_part(item, exc.taken, exc.size)
            return False
        except RefusedError as exc:
            self._failed(exc.reason)
            self._settle(item, item.count, exc.reason)
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            reason = type(exc).__name__
            self._failed(reason)
            self._settle(item, item.count, reason)
        else:
            refused = max(0, min(refused, item.count))
            if refused:
                self._failed(reason or "refused")
            else:
                self.error = ""
            self._settle(item, refused, "refused")
        self._failures = 0
        self._not_before = 0.0
        return True

    def _settle(self, item: Item, refused: int, reason: str) -> None:
        """Take *item* out of the queue and count what became of it."""
        with self._lock:
            self._settle_first(item, refused, reason)

    def _settle_first(self, item: Item, refused: int, reason: str) -> None:
        queue, before = self._queue, None
        while before is not self.dropped:  # a signal handler has counted meanwhile
            before = self.dropped
            dropped = _more(before, refused, reason)
            # One step.
            if self.dropped is before and queue and queue[0] is item:
                del queue[0]
                self._bytes -= item.size
                self.sent += item.count - refused
                self.dropped = before = dropped

    def _settle_part(self, item: Item, taken: int, size: int) -> None:
        """Count what the receiver took of *item*, which stays in the queue."""
        with self._lock:
            # One step.
            self.sent += taken
            item.count -= taken
            item.size -= size
            self._bytes -= size

    def _drop_oldest(self) -> bool:
        """Drop the oldest item that is not under way; False if there is none."""
        version, queue = self._version, self._queue
        at = 1 if self._sender else 0
        if len(queue) <= at:
            return False
        item = queue[at]
        dropped = _more(self.dropped, item.count, "queue_full")
        after = object()
        # One step; not if a signal handler has queued something meanwhile, or a thread
        # has begun to send.
        if self._version is version and (at or not self._sender):
            self._version = after
            del queue[at]
            self._bytes -= item.size
            self.dropped = dropped
        return True

    def _count_dropped(self, count: int, reason: str) -> None:
        before = None
        while before is not self.dropped:
            before = self.dropped
            dropped = _more(before, count, reason)
            # One step.
            if self.dropped is before:
                self.dropped = before = dropped

    def _failed(self, reason: str) -> None:
        self.error = reason = reason[:LONGEST_REASON]
        if reason not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(reason)
            disclosure.warn("delivery_failed", sink=self.name, error=reason)


def _weakly(method: Any) -> Callable[[Any, float], tuple[int, str]]:
    """Return what calls *method*, and is no part of a cycle with its object."""
    found = weakref.WeakMethod(method)

    def send(payload: Any, ends_at: float) -> tuple[int, str]:
        bound = found()
        assert bound is not None  # the caller of `drain` holds the object
        sent: tuple[int, str] = bound(payload, ends_at)
        return sent

    return send


def _of(items: list[Item], *, tried: bool) -> list[Item]:
    return [item for item in items if item.tried is tried]


def _more(dropped: dict[str, int], count: int, reason: str) -> dict[str, int]:
    """Return *dropped* with *count* more records for *reason*."""
    if not count:
        return {**dropped}
    return {**dropped, reason: dropped.get(reason, 0) + count}
