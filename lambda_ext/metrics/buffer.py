"""
What is recorded and not yet in its sink.

    recorded ─▶ records ─▶ (added up) ─▶ parcels ─▶ sinks

Recording is one ``list.append`` of a series and a number, both checked
before.  A flush adds up what belongs together.  The usual one makes lines of it
at once; any other makes parcels, see `parcels`: a parcel is one batch for one
sink.  Records wait in the list of records or, added up, in the list of parcels,
nowhere else in these two modules.

Guarantees
    Exactly once: a record leaves the first list in the same step in which its
    parcel enters the second.  When a signal handler raises in the middle of a
    flush, each record is in one of them, and each parcel is kept until its
    sink's ``accept`` has returned.  A parcel whose ``accept`` was interrupted
    by such an exception is offered again, as the same `Batch`.
    When `flush` returns, what was recorded before it began has reached the
    sinks.  For what another thread is just handing over it waits, at most
    `parcels.WAIT_S`; never for a flush that it interrupts in its own thread.
    Re-entrant: recording takes no lock, so it may interrupt another record or
    a flush wherever a signal handler or ``__del__`` may run.
    One thread at a time calls the ``accept`` of a sink, batches in the order
    in which they were recorded.
    Bounded by count: past `limit` records the recording thread flushes; past
    `parcels.MAX_WAITING` records in parcels the oldest are dropped and counted.

Steps that are not interrupted
    CPython runs signal handlers, and lets other threads run, at the entry of
    a Python function, after a call and at a jump backwards, nowhere else.  A
    sequence of assignments, ``del x[:n]`` and ``x += y`` on lists has none of
    these, so it happens as a whole; the lines marked "one step" rely on that.
    What a call returns and must not be lost is stored by the same C call,
    ``list.extend(map(function, ...))``, or taken from an iterator made of C
    functions, as by ``for taken in outlet.attempts``: neither the step of such a
    loop nor its ``break`` runs a handler before the name is bound.

Threads
    `_adding` orders those who add up, so that nothing is added up twice in
    vain; `Outlet.lock` orders those who call a sink.  Both are re-entrant and
    free themselves in a forked child.

Not here
    What is valid (`validation`), when to flush (`recorder`), how a batch is
    written (the sinks).
"""

from __future__ import annotations

import itertools
from collections import defaultdict

from .. import disclosure
from ..lifecycle import clock, process
from ..lifecycle.process import by_signal_handler
from ..limits import MAX_MAGNITUDE, MAX_METRICS, MAX_VALUES
from .losses import uncounted, unlogged

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..typing import Sink
    from .parcels import Parcel
    from .validation import Number

    Dimensions = tuple[tuple[str, str], ...]
    Record = tuple["Series", Number]

MAX_RECORDS = 10_000  # in the list of records: about 1 MB
MAX_SERVED = 50  # sinks whose numbers `statuses` returns
DIRECT = object()  # `direct` of a sink that makes lines of series, without a batch

COUNT = "count"
GAUGE = "gauge"
DISTRIBUTION = "distribution"


class Series:
    """
    What a metric is recorded as: namespace, kind, name, unit, dimensions.

    A flush adds up the records of one series.
    """

    __slots__ = (
        "at", "dimensions", "key", "kind", "name", "namespace", "outlet", "resolution",
        "unit",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str,
        kind: str,
        name: str,
        unit: str,
        dimensions: Dimensions,
        *,
        outlet: Outlet | None = None,
        resolution: int = 60,
        at: float | None = None,
    ) -> None:
        self.namespace = namespace
        self.kind = kind
        self.name = name
        self.unit = unit
        self.dimensions = dimensions
        self.outlet = outlet  # None: wherever metrics without a sink go
        self.resolution = resolution  # seconds
        self.at = at  # wall time; None: that of the flush
        # There may be two objects of one series, and each has its own outlet.
        self.key = (name, unit, kind, dimensions, resolution)


class Outlet:
    """A sink, its counters, and the lock under which threads call it; see `outlet_of`."""

    def __init__(
        self,
        sink: Sink,
        name: str = "",
        wanted: Callable[[str], bool] | None = None,
    ) -> None:
        self.sink = sink
        self.name = name or disclosure.words(sink, "name") or type(sink).__qualname__
        self.wanted = wanted  # says of a metric's name whether it goes here
        self.drains = disclosure.attribute(sink, "drain") is not None
        self.share(process.Lock())
        self.direct = wanted is None and disclosure.attribute(sink, "direct") is DIRECT
        self.sent = 0  # records
        self.dropped = 0  # records
        self.error = ""
        process.remember(_outlets, self)

    def share(self, lock: process.Lock) -> None:
        """Take *lock* as the one under which the sink is called."""
        self.lock = lock
        self.acquire = lock.acquire
        # Each step tries to take the lock; False: another thread has it.
        self.attempts = map(lock.acquire, itertools.repeat(False))

    def narrowed(self, name: str, wanted: Callable[[str], bool] | None) -> Outlet:
        """Return another outlet of the same sink, in the same order of threads."""
        other = Outlet(self.sink, name or self.name, wanted)
        other.share(self.lock)
        return other

    @property
    def backlog(self) -> bool:
        """Whether the sink wants to be called again without anything new."""
        return bool(disclosure.attribute(self.sink, "backlog"))


_outlets: set[weakref.ref[Outlet]] = set()
_finding = process.Lock()


def outlet_of(sink: Sink) -> Outlet:
    """Return the outlet of *sink*; several `Metrics` may share a sink."""
    with _finding:
        return _outlet_of(sink)


def _outlet_of(sink: Sink) -> Outlet:
    known = [outlet for outlet in process.living(_outlets) if outlet.sink is sink]
    for outlet in known:
        if outlet.wanted is None:
            return outlet
    found = Outlet(sink)
    if known:
        found.share(known[0].lock)
    return found


class Buffer:
    """The records of a process, until their sinks have them."""

    def __init__(self, *outlets: Outlet) -> None:
        self.outlets = outlets  # of series without one of their own
        self.records: list[Record] = []
        self.parcels: list[Parcel] = []
        self.properties: Mapping[str, Any] = {}
        self.limit = MAX_RECORDS
        self.taken = 0  # records that left the list of records
        self._backlogged: list[Outlet] = []  # whose sinks have a `backlog`
        self.served: list[Outlet] = []  # the last that had something
        self.draining: list[Outlet] = []  # whose sinks may have to wait
        self._adding = process.Lock()
        self._version = 0  # another one after each adding up

    def clear(self) -> None:
        """Forget everything; the list of records stays the same object."""
        self._version += 1
        self.records.clear()
        self.parcels.clear()
        self._backlogged.clear()
        self.draining.clear()
        self.served.clear()
        for outlet in process.living(_outlets):
            outlet.sent = outlet.dropped = 0
            outlet.error = ""
        self.properties = {}
        self.limit = MAX_RECORDS
        self.taken = 0

    def flush(self, ends_at: float | None = None, give_up: str = "") -> None:
        """
        Hand what was recorded before to the sinks.

        Until *ends_at*, run time, if that is not None: what no sink has by
        then stays, or is dropped for the reason *give_up* and counted.  Raises
        nothing but what a signal handler raises meanwhile.
        """
        if self.records or self.parcels or self._backlogged:
            try:
                usual = not (self.parcels or self._backlogged) and self._write()
                if not usual or self.parcels or (give_up and self._backlogged):
                    # The usual flush needs none of it.
                    from . import parcels

                    # Else this is a signal handler's, in the middle of that import.
                    if hasattr(parcels, "flush"):
                        parcels.flush(self, ends_at, give_up)
            except Exception as exc:
                if by_signal_handler(exc):
                    raise
                waiting = sum([each.samples for each in self.parcels])
                disclosure.failure("flush_failed", waiting=waiting + len(self.records))
        if uncounted or unlogged:
            _tell()

    # From the list of records to lines ---------------------------------------

    def _write(self) -> bool:
        """
        Write the records of few series as lines; False where that takes parcels.

        The usual flush, without batches and parcels: a record leaves the list of
        records in the same step in which its line enters that of the writer, which
        keeps it until stdout has it.  One thread at a time, as for any sink.
        """
        outlets = self.outlets
        if len(outlets) != 1:
            return False
        outlet = outlets[0]
        if not outlet.direct:
            return False
        sink: Any = outlet.sink
        taken = False
        try:
            for taken in outlet.attempts:  # noqa: B007  the `finally` looks at it
                break
            if not taken:
                return False
            version, records = self._version, self.records
            count = len(records)
            try:
                found = lines = None
                text: object
                if count == 1:
                    series, text = records[0]
                else:
                    found = _simple(records, count)
                    if not found:
                        return False
                    series, text, _ = found[0]
                at = clock.wall_time()
                if (found is None or len(found) == 1) and not self.properties:
                    lines = sink.encode_one(series, text, count, at)
                if lines is None:
                    found = found or [(series, text, 1)]
                    lines = sink.encode(found, at, self.properties)
            except Exception as exc:
                if by_signal_handler(exc):
                    raise
                lines = None  # `_add_up` tells
            if not lines:
                return False
            writer, backlogged = sink.writer, self._backlogged
            waiting = writer.lines
            # One step; not if another thread, or a signal handler's flush, has
            # added up meanwhile.  A flush of theirs finds what is not yet written.
            if self._version == version:
                self._version = version + 1
                waiting += lines
                backlogged += outlets
                writer.accepted += count
                self.taken += count
                del records[:count]
                lines = None
            if lines:
                return False
            try:
                writer.write()
            except BaseException as exc:  # of a stream of the user's
                if by_signal_handler(exc):
                    raise
                outlet.error = type(exc).__qualname__
                disclosure.failure("sink_failed", sink=outlet.name)
            if not waiting:
                try:  # noqa: SIM105  suppress() takes 0.4 microseconds
                    backlogged.remove(outlet)
                except ValueError:  # another flush has found it
                    pass
            elif outlet not in backlogged:
                backlogged.append(outlet)
            if outlet not in self.served:
                self.note_served(outlet)
        finally:
            if taken:
                outlet.lock.release()
        return True

    # From the list of records to that of parcels -----------------------------

    def _outlets_of(self, own: Outlet | None) -> tuple[Outlet, ...]:
        return self.outlets if own is None else (own,)

    def settle(self) -> None:
        """Make parcels of what was recorded, for the sinks that it was recorded for."""
        if self.records:
            from . import parcels  # options have changed

            parcels.add_up(self)

    def put(self, series: Series, value: Number, properties: Mapping[str, Any]) -> None:
        """Record *value* in a batch of its own, with *properties*."""
        from . import parcels  # of an invocation that is about to time out

        parcels.put(self, series, value, properties)

    def note_served(self, outlet: Outlet) -> None:
        """Note that *outlet* had something, so that `statuses` tells of it."""
        if outlet not in self.served:
            self.served[:] = [*self.served[1 - MAX_SERVED :], outlet]

    # From the list of parcels to the sinks -----------------------------------

    def drain(self, ends_at: float, *, due_only: bool = False) -> None:
        """
        Let sinks send what they have queued, before the run time *ends_at*.

        With *due_only* only those whose ``is_due()`` says so.  Each has an
        equal share of the time that is left.  Raises nothing but what a signal
        handler raises meanwhile.
        """
        # Already loaded: only `parcels` fills `draining`.
        from . import parcels

        parcels.drain(self, ends_at, due_only)
        if uncounted or unlogged:
            _tell()


def _tell() -> None:
    """Log what was dropped."""
    tally = tally_if_any()
    if tally is not None:
        tally.tell()


def tally_if_any() -> Any:
    """Return `tally`, which counts and logs; None while it cannot be had."""
    try:
        from . import tally  # mostly nothing is dropped
    except Exception as exc:  # no file can be opened, or Python is ending
        if by_signal_handler(exc):
            raise
        return None
    # None: a signal handler's, in the middle of that import.
    return tally if hasattr(tally, "tell") else None


def _simple(
    records: list[Record], count: int
) -> list[tuple[Series, object, int]] | None:
    """Add up the first *count* records; None where that is not simple."""
    first = records[0]
    series, value = first
    if records[count - 1] is first and series.kind == COUNT and value == 1:
        # Those of the value 1 are one object, see `recorder`.  No other record came
        # in meanwhile if there are as many afterwards.
        if records.count(first) == count == len(records):
            return [(series, value * count, count)]
    elif records[count - 1][0] is series:
        values = [value for each, value in records if each is series]
        if len(values) == count:
            text = _text(series, values)
            return None if text is None else [(series, text, count)]
    groups: defaultdict[Series, list[Number]] = defaultdict(list)
    for series, value in records[:count]:
        groups[series].append(value)
    if len(groups) > MAX_METRICS:
        return None
    found: list[tuple[Series, object, int]] = []
    for series, values in groups.items():
        text = _text(series, values)
        if text is None:
            return None
        found.append((series, text, len(values)))
    return found


def _text(series: Series, values: list[Number]) -> object:
    """Return what a line says of *values*; None for what takes more than one."""
    if len(values) == 1 or series.kind == GAUGE:
        return values[-1]
    if series.kind == COUNT:
        total = sum(values)
        return total if -MAX_MAGNITUDE <= total <= MAX_MAGNITUDE else None
    return f"[{','.join(map(repr, values))}]" if len(values) <= MAX_VALUES else None
