"""
What is recorded and not yet flushed.

Recording is one ``deque.append``; all the rest is the flush's: it takes the
records, checks them, adds up what belongs together, and hands one batch per
`Metrics` to its sink.

Guarantees
    Exactly once: ``popleft`` gives a record to one flush only.  When a signal
    handler raises in the middle of a flush, what no sink has is put back.
    When `flush` returns, what was recorded before it began has reached the
    sinks.  For what another thread is just handing over it waits, at most
    `WAIT_S`; never for a flush that it interrupts in its own thread.
    Re-entrant: recording takes no lock, so it may interrupt another record or
    a flush at any instruction.
    Bounded by count: past `MAX_RECORDS` the recording thread adds up a `PART`;
    what then exceeds `MAX_SERIES` or `MAX_VALUES` is dropped and counted.

Threads
    No lock at all.  Who holds what others cannot see has a token, a locked
    lock, in ``_holders``, so that they can wait for it.

Not here
    What is valid (`validation`), when to flush (`recorder`), how a batch is
    written (the sinks).
"""

from __future__ import annotations

import threading
from collections import deque

from .. import disclosure
from ..exceptions import MetricError
from ..lifecycle import clock
from . import tally
from .validation import MAX_VALUE, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    from ..typing import Sink
    from .validation import Number

    # whose, then as given: kind, name, value, unit, dimensions
    Record = tuple["Owner", str, Any, Any, Any, dict[Any, Any]]
    Dimensions = tuple[tuple[str, str], ...]

    class Owner(Protocol):
        """Whose records these are: a `Metrics`."""

        def _series(
            self, kind: str, name: Any, unit: Any, dims: dict[Any, Any]
        ) -> Series: ...
        def _where(self) -> tuple[str, Sink]: ...


MAX_RECORDS = 10_000  # as recorded: about 4 MB
MAX_SERIES = 10_000  # added up: about 5 MB
MAX_VALUES = 100_000  # of distributions: about 3 MB
PART = 1_000  # records that one recording thread adds up: about 1 ms
WAIT_S = 0.1  # for other threads; the essential part of a shutdown has 0.15

COUNT = "count"
GAUGE = "gauge"
DISTRIBUTION = "distribution"


class Series:
    """What records are added up under; there is one object for each."""

    __slots__ = ("__weakref__", "dimensions", "kind", "name", "owner", "unit")

    def __init__(
        self, owner: Owner, kind: str, name: str, unit: str, dimensions: Dimensions
    ) -> None:
        self.owner = owner
        self.kind = kind
        self.name = name
        self.unit = unit
        self.dimensions = dimensions


class Point:
    """One series of a batch, with its values since the last flush."""

    __slots__ = ("dimensions", "kind", "name", "samples", "unit", "values")

    def __init__(self, series: Series, values: list[Number], samples: int) -> None:
        self.kind = series.kind
        self.name = series.name
        self.unit = series.unit
        self.dimensions = series.dimensions
        self.values = values
        self.samples = samples

    def __repr__(self) -> str:
        dimensions = dict(self.dimensions)
        return f"<Point {self.kind} {self.name!r} {dimensions} {self.values}>"


class Batch:
    """What one flush hands to one sink."""

    __slots__ = ("at", "namespace", "points")

    def __init__(self, namespace: str, at: float, points: list[Point]) -> None:
        self.namespace = namespace
        self.at = at
        self.points = points


class _Totals:
    """Records added up."""

    __slots__ = ("points", "values")

    def __init__(self) -> None:
        self.points: dict[Series, Point] = {}
        self.values = 0  # of all distributions

    def add(self, series: Series, values: list[Number], samples: int) -> None:
        """Add *values*, the later ones; drop them where there is no room."""
        spread = series.kind == DISTRIBUTION
        if spread and self.values + samples > MAX_VALUES:
            _overflow(series, samples, f"{MAX_VALUES} values")
            return
        point = self.points.get(series)
        if point is None:
            if len(self.points) >= MAX_SERIES:
                _overflow(series, samples, f"{MAX_SERIES} series")
                return
            self.points[series] = Point(series, values, samples)
        else:
            if spread:
                point.values += values
            elif series.kind == COUNT:
                point.values = [point.values[0] + values[0]]
            else:
                point.values = values
            point.samples += samples
        if spread:
            self.values += samples


class Buffer:
    """The records of all `Metrics` of a process, until their sinks have them."""

    __slots__ = ("_batches", "_holders", "_totals", "records")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self._totals: deque[_Totals] = deque()
        self._batches: deque[tuple[Sink, Batch]] = deque()
        self._holders: dict[Any, int] = {}  # token -> thread

    def clear(self) -> None:
        """Forget everything; the deque of records stays the same object."""
        self.records.clear()
        self._totals.clear()
        self._batches.clear()
        self._holders.clear()

    def compact(self) -> None:
        """Add up a part of the records: there are too many."""
        token = threading.Lock()
        try:
            self._hold(token)
            self._totals.append(self._take(PART))
        finally:
            self._let_go(token)

    def flush(self) -> None:
        """Hand what was recorded before to the sinks; never raises Exception."""
        try:
            self._flush()
            # First who holds something, then what was left here meanwhile: a
            # thread that lets go between the two is seen in the second.
            if self._holders or self._totals:
                until = clock.monotonic() + WAIT_S
                while self._wait(until) or self._totals:
                    self._flush()
                    if clock.monotonic() > until:
                        break  # others record faster than we flush
        except Exception:
            disclosure.failure("flush_failed")

    def _flush(self) -> None:
        if not (self.records or self._totals or self._batches):
            return
        token = threading.Lock()
        try:
            self._hold(token)
            totals = self._take(len(self.records))
            try:
                self._batches.extend(_batched(totals))
            except BaseException:
                self._totals.append(totals)
                raise
            for _ in range(len(self._batches)):
                try:
                    sink, batch = self._batches.popleft()
                except IndexError:  # another flush has it
                    break
                self._deliver(sink, batch)
        finally:
            self._let_go(token)

    def _take(self, limit: int) -> _Totals:
        """Take up to *limit* records, and add them to what was added up."""
        totals = _Totals()
        taken = 0
        try:
            while self._totals:
                self._merge(totals)
            for _ in range(limit):
                try:
                    record = self.records.popleft()
                except IndexError:  # another flush has it
                    break
                try:
                    _book(totals, record)
                except BaseException:
                    self.records.appendleft(record)
                    raise
                taken += 1
        except BaseException:
            self._totals.appendleft(totals)
            raise
        finally:
            if taken:
                tally.add({"recorded": taken})
        return totals

    def _merge(self, totals: _Totals) -> None:
        """Add what was added up earliest."""
        try:
            later = self._totals.popleft()
        except IndexError:  # another flush has it
            return
        for series, point in later.points.items():
            totals.add(series, point.values, point.samples)

    def _deliver(self, sink: Sink, batch: Batch) -> None:
        try:
            sink.accept(batch)
        except Exception:
            lost = sum([point.samples for point in batch.points])
            tally.drop("sink", lost, f"sink={type(sink).__qualname__}", exc_info=True)
        if getattr(sink, "backlog", False) and all(
            waiting is not sink for waiting, _ in self._batches.copy()
        ):
            self._batches.append((sink, Batch(batch.namespace, batch.at, [])))

    def _hold(self, token: Any) -> None:
        token.acquire()
        self._holders[token] = threading.get_ident()

    def _let_go(self, token: Any) -> None:
        if self._holders.pop(token, None) is not None:
            token.release()

    def _wait(self, until: float) -> bool:
        """Wait until no other thread holds anything; say whether one did."""
        me = threading.get_ident()
        waited = False
        for token, thread in list(self._holders.items()):
            left_s = until - clock.monotonic()
            if thread != me and left_s > 0 and token.acquire(timeout=left_s):
                token.release()
                waited = True
        return waited


def _book(totals: _Totals, record: Record) -> None:
    """Add one record to *totals*, or refuse it."""
    owner, kind, name, given, unit, dims = record
    try:
        series = owner._series(kind, name, unit, dims)
        its = type(given)
        if (its is not int and its is not float) or (
            not -MAX_VALUE <= given <= MAX_VALUE
        ):
            given = value(given)
    except MetricError as exc:
        tally.drop(exc.reason, 1, f"name={_shown(name)}: {exc}")
    except Exception:  # of a name or value with a mind of its own
        tally.drop("invalid", 1, f"name={_shown(name)}", exc_info=True)
    else:
        totals.add(series, [given], 1)


def refusal(record: Record) -> MetricError | None:
    """Return what strict mode raises for *record*: an error without a context."""
    owner, kind, name, given, unit, dims = record
    try:
        owner._series(kind, name, unit, dims)
        value(given)
    except MetricError as exc:
        return MetricError(f"metric {_shown(name)}: {exc}", reason=exc.reason)
    except Exception as exc:  # of a name or value with a mind of its own
        what = f"its name, unit or a dimension raised {type(exc).__qualname__}"
        return MetricError(f"metric {_shown(name)}: {what}", reason="invalid")
    return None


def _batched(totals: _Totals) -> Iterable[tuple[Sink, Batch]]:
    at = clock.wall()
    batches: dict[Owner, tuple[Sink, Batch]] = {}
    for series, point in totals.points.items():
        if len(point.values) == 1 and not -MAX_VALUE <= point.values[0] <= MAX_VALUE:
            message = f"name={_shown(series.name)}: the sum is too large"
            tally.drop("value", point.samples, message)
            continue
        owner = series.owner
        if owner in batches:
            batches[owner][1].points.append(point)
        else:
            namespace, sink = owner._where()
            batches[owner] = (sink, Batch(namespace, at, [point]))
    return batches.values()


def _overflow(series: Series, samples: int, limit: str) -> None:
    message = f"name={_shown(series.name)}: over {limit} between two flushes"
    tally.drop("overflow", samples, message)


def _shown(name: Any) -> str:
    """Return what a log line may say about *name*, whatever it is."""
    return repr(name[:80]) if type(name) is str else type(name).__qualname__
