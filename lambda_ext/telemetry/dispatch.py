"""
What consumes batches of the Telemetry API: each consumer on a thread of its own.

    dispatch.consumers.append(function)     # called with each `Batch` from now on

Guarantees
    A consumer gets the batches in the order of their arrival, one at a time,
    on one thread.  One that hangs, raises or calls ``sys.exit`` delays neither the other
    consumers nor the listener's answer to the platform: its batches wait, up to
    `MAX_WAITING` bytes as they came from the platform, and those that do not fit are
    dropped for this consumer and counted.
    What a consumer raises is counted, and logged the first `MAX_LOGGED` times, by
    class and place: a log line per batch would be a function log, hence a batch.
    Nothing is begun before the first batch arrives.

Forks
    A child has the consumers, and none of the batches that wait.
"""

from __future__ import annotations

from collections import deque

from .. import callables, disclosure
from ..exceptions import ConfigurationError
from ..lifecycle import clock, phases, process, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .records import Batch

    Consumer = Callable[[Batch], object]
    F = TypeVar("F", bound=Callable[..., Any])

MAX_WAITING = 8 * 1024 * 1024  # bytes that wait for one consumer
MAX_LOGGED = 3  # failures of one consumer

consumers: list[Consumer] = []


class Status:
    """
    What became of the batches for one consumer; a snapshot.

    *batches* and *records* were consumed, *failures* of the batches ended with an
    exception, *dropped* records found no room, *pending* batches wait or are
    being consumed, *error* is the last exception's class and place.
    """

    __slots__ = (
        "batches", "dropped", "error", "failures", "name", "pending", "records",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.batches = 0
        self.records = 0
        self.failures = 0
        self.dropped = 0
        self.pending = 0
        self.error = ""

    def copy(self) -> Status:
        """Return one like it, which does not change."""
        made = Status(self.name)
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        return made

    def __repr__(self) -> str:
        """Show who consumed how much."""
        return f"<dispatch.Status {self.name} {self.batches} batches>"


class _Lane:
    """The batches that wait for one consumer, and the thread that calls it."""

    __slots__ = (
        "_arrived", "_bytes", "_consumer", "_ended", "_lock", "_running", "_waiting",
        "status",
    )  # fmt: skip

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._lock = process.Lock()
        self._waiting: deque[tuple[Batch, int]] = deque()
        self._bytes = 0
        self._arrived = real_threads.Event()
        self._running = False
        self._ended = False
        named = disclosure.words(consumer, "consumer_name")  # a route's
        self.status = Status(named or phases.name_of(consumer))

    def put(self, batch: Batch, size: int) -> None:
        """Have *batch* consumed, if there is room for its *size* bytes."""
        with self._lock:
            # One that is larger than the bound passes where nothing else waits.
            if self._waiting and self._bytes + size > MAX_WAITING:
                self.status.dropped += len(batch)  # parsed for the count alone
                return
            self._waiting.append((batch, size))
            self._bytes += size
            self.status.pending += 1
            begin = not self._running
            self._running = True
        if begin:
            try:
                real_threads.start("lambda_ext_telemetry_consumer", self._run)
            except (RuntimeError, MemoryError):  # no thread to be had; the next may
                self._running = False
        self._arrived.set()

    def end(self) -> None:
        """Call the consumer no more; the thread ends when it is not within it."""
        self._ended = True
        self._arrived.set()

    def _run(self) -> None:
        while not self._ended:
            self._arrived.wait()
            self._arrived.clear()  # before looking: what comes now sets it again
            while self._waiting and not self._ended:
                self._consume(*self._waiting[0])

    def _consume(self, batch: Batch, size: int) -> None:
        failure = ""
        found = batch.records  # once, however often the consumer asks for them
        real_threads.disown()  # it may write, and stdout be within a line
        try:
            callables.refuse_coroutine(self._consumer(batch), "the consumer")
        except BaseException as exc:  # SystemExit too: it would end this thread
            failure = disclosure.kind(exc)
        finally:
            real_threads.own()
        status = self.status
        with self._lock:
            if self._waiting and self._waiting[0][0] is batch:
                self._waiting.popleft()
                self._bytes -= size
            status.pending -= 1
            status.batches += 1
            status.records += len(found)
            if failure:
                status.failures += 1
                status.error = failure
        if failure and status.failures <= MAX_LOGGED:
            disclosure.warn(
                "telemetry_consumer_failed", consumer=status.name, error=failure
            )


_lanes: dict[int, _Lane] = {}  # by the id of the consumer, which the lane keeps alive
_lock = process.Lock()


def on_batch(function: F) -> F:
    """
    Call *function* with each `Batch` from now on, on a thread of its own.

        @telemetry.on_batch
        def ship(batch):
            for record in batch: ...

    The same as ``telemetry.consumers.append(function)``, and returns the function.

    Raises:
        ConfigurationError: what is decorated cannot be called, or has to be awaited.
    """
    refuse_unless_plain(function, "on_batch")
    consumers.append(function)
    return function


def refuse_unless_plain(function: Any, what: str) -> None:
    """
    Refuse what *what* cannot call.

    Raises:
        ConfigurationError: it cannot be called, or has to be awaited.
    """
    if not callable(function):
        msg = f"{what}() decorates a function, not {type(function).__name__}"
        raise ConfigurationError(msg)
    callables.refuse_async(function, f"what {what}() decorates")


def dispatch(batch: Batch, size: int = 0) -> None:
    """Have each consumer called with *batch*, of *size* bytes; waits for none."""
    for consumer in consumers.copy():
        _lane_of(consumer).put(batch, size)


def drain(budget_s: float) -> bool:
    """Wait up to *budget_s* seconds until all is consumed; say whether it is."""
    ends_at = clock.run_time() + budget_s
    while pending():
        left_s = ends_at - clock.run_time()
        if left_s <= 0:
            return False
        real_threads.pause(min(left_s, 0.002))
    return True


def pending() -> int:
    """Return how many batches wait, or are being consumed, over all consumers."""
    return sum(lane.status.pending for lane in [*_lanes.values()])


def status() -> tuple[Status, ...]:
    """Return what became of the batches, by consumer."""
    return tuple(lane.status.copy() for lane in [*_lanes.values()])


def _lane_of(consumer: Consumer) -> _Lane:
    with _lock:
        lane = _lanes.get(id(consumer))
        if lane is None:
            lane = _lanes[id(consumer)] = _Lane(consumer)
            name, names = lane.status.name, {each.status.name for each in _others(lane)}
            if name in names:
                lane.status.name = f"{name} ({len(_lanes)})"
        return lane


def _others(lane: _Lane) -> list[_Lane]:
    return [each for each in [*_lanes.values()] if each is not lane]


@process.at_fork
def _forked() -> None:
    """Leave what waits to the parent, whose threads consume it."""
    _lanes.clear()


@process.at_reset
def reset() -> None:
    """Forget the consumers, as if this were just imported."""
    consumers.clear()
    for lane in [*_lanes.values()]:
        lane.end()
    _lanes.clear()
