"""
What a flush does where it is not the usual one: records, parcels, sinks.

    records ─▶ (added up) ─▶ parcels ─▶ sinks

A parcel is one batch for one sink.  The functions are those of a
`buffer.Buffer`, which hands itself over; its guarantees are kept here, and the
lines marked "one step" rely on what is said there.

Loaded by the first flush that needs it: for a sink that is not EMF on stdout,
several sinks, many series or values, a timestamp that the program gave, what
another thread is just writing, or what stdout did not take.  Where it cannot be
loaded the records wait for the next flush; so it loads `emf_batches`, too, without
which a parcel for EMF would be lost.
"""

from __future__ import annotations

from collections import defaultdict

from .. import disclosure
from ..exceptions import ConfigurationError
from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from ..limits import MAX_MAGNITUDE
from . import emf_batches  # noqa: F401  see above
from .losses import uncounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .losses import Loss
    from .validation import Number

    # Of `buffer`, which imports this module.
    Buffer = Any
    Outlet = Any
    Record = Any
    Series = Any

MAX_POINTS = 500  # of a batch: about 5 ms of encoding
MAX_WAITING = 100_000  # records in the parcels of one sink that takes nothing
LOCK_S = 0.001  # for a lock, before looking whether it is still needed
WAIT_S = 0.1  # for other threads; the essential part of a shutdown has 0.15

COUNT, GAUGE = "count", "gauge"  # kinds of `buffer.Series`


class Point:
    """One series of a batch, with its values since the last flush."""

    __slots__ = (
        "dimensions", "kind", "name", "resolution", "samples", "unit", "values",
    )  # fmt: skip

    def __init__(
        self, series: Series, values: list[Number], samples: int | None = None
    ) -> None:
        self.kind = series.kind
        self.name = series.name
        self.unit = series.unit
        self.dimensions = series.dimensions
        self.resolution = series.resolution
        self.values = values
        self.samples = len(values) if samples is None else samples

    def __repr__(self) -> str:
        dimensions = dict(self.dimensions)
        return f"<Point {self.kind} {self.name!r} {dimensions} {self.values}>"


class Batch:
    """
    What a flush hands to one sink; a large flush makes several.

    It belongs to that sink: its lists, points and dictionary are in no other batch.
    """

    __slots__ = ("at", "namespace", "points", "properties")

    def __init__(
        self,
        namespace: str,
        at: float,
        points: Sequence[Point],
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.namespace = namespace
        self.at = at
        self.points = points
        self.properties = {**properties} if properties else {}

    def __repr__(self) -> str:
        return f"<Batch {self.namespace!r} of {len(self.points)} points>"


class Parcel:
    """One batch on its way to one sink."""

    __slots__ = ("batch", "busy", "counted", "counts", "done", "outlet", "samples")

    def __init__(self, outlet: Outlet, batch: Batch) -> None:
        self.outlet = outlet
        self.batch = batch
        # Records in it by name, which the sink may change in the batch.
        self.counts = [(point.name, point.samples) for point in batch.points]
        self.samples = sum([samples for _, samples in self.counts])
        self.busy = False  # this thread, or another, is in `accept`
        self.done: list[object] = []  # not empty: the sink has it, or never will
        self.counted = False  # as sent, or as dropped


def put(
    buffer: Buffer, series: Series, value: Number, properties: Mapping[str, Any]
) -> None:
    """Record *value* in a batch of its own, with *properties*."""
    batch = Batch(series.namespace, clock.wall(), [Point(series, [value])], properties)
    waiting, parcels = buffer.parcels, _parcels_of(batch, buffer, series.outlet)
    # One step.
    waiting += parcels
    buffer.taken += 1


def add_up(buffer: Buffer) -> None:
    """Make parcels of the records."""
    with buffer._adding:
        _add_up_all(buffer)
        if buffer.parcels:
            _bound(buffer)


def _add_up_all(buffer: Buffer) -> None:
    records = buffer.records
    while records:
        version = buffer._version
        count = len(records)
        try:
            parcels, losses = _parcels(buffer, records[:count])
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            # A mistake of ours: it must not come again with each flush.
            message = f"{type(exc).__name__} while adding up"
            parcels, losses = [], [("internal", "", count, message)]
            disclosure.failure("flush_failed")
        waiting, dropped = buffer.parcels, uncounted
        # One step; not if a signal handler's flush has done it meanwhile.
        if buffer._version == version:
            buffer._version = version + 1
            waiting += parcels
            dropped += losses
            buffer.taken += count
            del records[:count]


def _parcels(buffer: Buffer, records: list[Record]) -> tuple[list[Parcel], list[Loss]]:
    """Add up *records*; changes nothing."""
    at = clock.wall()
    groups: defaultdict[Series, list[Number]] = defaultdict(list)
    for series, value in records:
        groups[series].append(value)
    losses: list[Loss] = []
    batches: dict[Any, dict[Any, Point]] = {}
    for series, values in groups.items():
        where = (series.namespace, series.outlet, series.at)
        points = batches.get(where)
        if points is None:
            points = batches[where] = {}
        known = points.get(series.key)
        if known is None:
            points[series.key] = Point(series, values)
        else:
            known.values += values
            known.samples += len(values)
    parcels: list[Parcel] = []
    for (namespace, own, since), points in batches.items():
        found: list[Point] = []
        for point in points.values():
            if point.kind == COUNT:
                if len(point.values) > 1:
                    point.values = [sum(point.values)]
                    if not -MAX_MAGNITUDE <= point.values[0] <= MAX_MAGNITUDE:
                        message = "the sum of the values is too large"
                        loss = ("value", point.name, point.samples, message)
                        losses.append(loss)
                        continue
            elif point.kind == GAUGE:
                point.values = point.values[-1:]
            found.append(point)
        for start in range(0, len(found), MAX_POINTS):
            batch = Batch(
                namespace,
                at if since is None else since,
                found[start : start + MAX_POINTS],
                buffer.properties,
            )
            parcels += _parcels_of(batch, buffer, own)
    return parcels, losses


def _bound(buffer: Buffer) -> None:
    """Drop the oldest parcels of a sink that has too many."""
    waiting: dict[Outlet, int] = {}
    for parcel in reversed(buffer.parcels.copy()):
        outlet = parcel.outlet
        waiting[outlet] = waiting.get(outlet, 0) + parcel.samples
        if waiting[outlet] > MAX_WAITING and not (parcel.busy or parcel.done):
            message = f"over {MAX_WAITING} records wait for {outlet.name}"
            _drop(parcel, "overflow", message)


def _parcels_of(batch: Batch, buffer: Buffer, own: Outlet | None) -> list[Parcel]:
    """Return what each outlet wants of *batch*; the first has it itself, others copies."""
    parcels: list[Parcel] = []
    for outlet in buffer._outlets_of(own):
        points: Sequence[Point] = batch.points
        if outlet.wanted is not None:
            points = [point for point in points if outlet.wanted(point.name)]
            if not points:
                continue
        if parcels:
            points = [Point(each, [*each.values], each.samples) for each in points]
        made = batch
        if points is not batch.points:
            made = Batch(batch.namespace, batch.at, points, batch.properties)
        parcels.append(Parcel(outlet, made))
    return parcels


def _deliver(buffer: Buffer, ends_at: float | None) -> None:
    """Hand parcels over, sink by sink, and wait for those of other threads."""
    wait_until = clock.run_time() + WAIT_S
    if ends_at is not None:
        wait_until = min(wait_until, ends_at)
    outlets = dict.fromkeys([parcel.outlet for parcel in buffer.parcels.copy()])
    for outlet in buffer._backlogged.copy():
        if outlet not in outlets:
            buffer.parcels.append(Parcel(outlet, Batch("", clock.wall(), [])))
            outlets[outlet] = None
        _remove(buffer._backlogged, outlet)
    for outlet in outlets:
        if _served(buffer, outlet, ends_at):
            continue
        mine = [each for each in buffer.parcels.copy() if each.outlet is outlet]
        while not _served(buffer, outlet, ends_at):
            if all(each.done for each in mine) or clock.run_time() > wait_until:
                break


def _served(buffer: Buffer, outlet: Outlet, ends_at: float | None) -> bool:
    """Hand over what waits for *outlet*; False while another thread does."""
    got: list[bool] = []
    try:
        # Short: the other thread may have done it all, and go on with more.
        got.extend(map(outlet.acquire, (True,), (LOCK_S,)))
        if got[0]:
            _serve(buffer, outlet, ends_at)
    finally:
        if got and got[0]:
            outlet.lock.release()
    return got[0]


def _serve(buffer: Buffer, outlet: Outlet, ends_at: float | None) -> None:
    """Hand over what waits for *outlet*, the earliest first."""
    for parcel in buffer.parcels.copy():
        if parcel.outlet is outlet and not parcel.busy and not parcel.done:
            if ends_at is not None and clock.run_time() > ends_at:
                return
            _hand_over(parcel)
        if parcel.done:
            _count(parcel)  # also one that a signal handler left uncounted
            _remove(buffer.parcels, parcel)
    if outlet.backlog and outlet not in buffer._backlogged:
        buffer._backlogged.append(outlet)
    buffer.note_served(outlet)
    if outlet.drains and outlet not in buffer.draining:
        buffer.draining.append(outlet)


def _count(parcel: Parcel) -> None:
    """Count as sent what the sink has, once."""
    outlet = parcel.outlet
    # One step.
    if not parcel.counted:
        parcel.counted = True
        outlet.sent += parcel.samples


def _remove(tray: list[Any], held: object) -> None:
    try:  # noqa: SIM105  suppress() takes 0.4 microseconds
        tray.remove(held)
    except ValueError:  # a signal handler's flush has done it
        pass


def _hand_over(parcel: Parcel) -> None:
    outlet, batch = parcel.outlet, parcel.batch
    failure: BaseException | None = None
    accept = outlet.sink.accept
    try:
        parcel.busy = True
        if not parcel.done:  # by a signal handler's flush, just before
            parcel.done.extend(map(accept, (batch,)))
            if parcel.done[0] is not None:
                failure = _not_awaited(parcel)
    except BaseException as exc:
        if parcel.done or by_signal_handler(exc):
            raise
        failure = exc  # of the sink's own: the runtime must not end by it
    finally:
        parcel.busy = False
    if failure is not None:
        outlet.error = type(failure).__qualname__
        _drop(parcel, "sink", f"{outlet.name} raised {_text_of(failure)}")


def _not_awaited(parcel: Parcel) -> Exception | None:
    """Return what is wrong where a sink has returned a coroutine, and done nothing."""
    from .. import callables  # only where a sink returns anything

    try:
        callables.refuse_coroutine(parcel.done[0], "it")
    except ConfigurationError as exc:
        parcel.done.clear()
        return exc
    return None


def _text_of(failure: BaseException) -> str:
    import traceback  # only a failure pays for it

    return "".join(traceback.format_exception(failure)).rstrip()


def _drop(parcel: Parcel, reason: str, message: str) -> None:
    lost = [(reason, name, samples, message) for name, samples in parcel.counts]
    losses, done, outlet = uncounted, parcel.done, parcel.outlet
    # One step.
    if not done:
        losses += lost
        done += (None,)
        outlet.dropped += parcel.samples
        parcel.counted = True


def _abandon(
    buffer: Buffer, waiting: list[Parcel], reason: str, ends_at: float | None
) -> None:
    """Drop and count what no sink has taken: the process ends."""
    for parcel in waiting:
        _drop(parcel, reason, "the process ended before its sink took it")
    for outlet in buffer._backlogged.copy():
        abandon = disclosure.attribute(outlet.sink, "abandon")
        if abandon is None:
            continue
        left_s = LOCK_S if ends_at is None else ends_at - clock.run_time()
        got: list[bool] = []
        try:
            # What another thread is just writing, and has begun since, is not lost.
            got.extend(map(outlet.acquire, (True,), (max(left_s, LOCK_S),)))
            abandon(reason)
        finally:
            if got and got[0]:
                outlet.lock.release()


def flush(buffer: Buffer, ends_at: float | None, give_up: str) -> None:
    """Do what `Buffer.flush` says, of what is left to do."""
    if buffer.records:
        add_up(buffer)
    waiting = buffer.parcels.copy()
    _deliver(buffer, ends_at)
    if give_up:
        _abandon(buffer, waiting, give_up, ends_at)


def drain(buffer: Buffer, ends_at: float, due_only: bool) -> None:
    """Do what `Buffer.drain` says."""
    outlets = buffer.draining.copy()
    for index, outlet in enumerate(outlets):
        sink: Any = outlet.sink
        now = clock.run_time()
        share_s = max(ends_at - now, 0.0) / (len(outlets) - index)
        try:
            is_due = disclosure.attribute(sink, "is_due")
            if not due_only or is_due is None or is_due():
                sink.drain(now + share_s)
        except BaseException as exc:
            if by_signal_handler(exc):
                raise
            outlet.error = type(exc).__qualname__
            disclosure.failure("sink_failed", sink=outlet.name)
