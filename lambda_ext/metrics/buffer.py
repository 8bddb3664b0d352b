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

import logging
import threading
from collections import deque

from ..exceptions import MetricError
from ..lifecycle import clock
from . import tally
from .validation import MAX_VALUE, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ..typing import Sink
    from .validation import Number

    # kind, name, unit, dimensions
    Series = tuple[str, str, str, tuple[tuple[str, str], ...]]
    # whose, then as given: kind, name, value, unit, dimensions
    Record = tuple["Owner", str, Any, Any, Any, dict[Any, Any]]

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

_log = logging.getLogger("lambda_ext")


class Point:
    """One series of a batch, with its values since the last flush."""

    __slots__ = ("dimensions", "kind", "name", "samples", "unit", "values")

    def __init__(self, series: Series, values: list[Number], samples: int) -> None:
        self.kind, self.name, self.unit, self.dimensions = series
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
    """Records added up: the values of each series, and how many records."""

    __slots__ = ("entries", "values")

    def __init__(self) -> None:
        self.entries: dict[tuple[Owner, Series], tuple[list[Number], int]] = {}
        self.values = 0  # of distributions

    def add(
        self, key: tuple[Owner, Series], values: list[Number], samples: int
    ) -> None:
        """Add *values*, the later ones; drop them where there is no room."""
        kind = key[1][0]
        if kind == DISTRIBUTION:
            self.values += len(values)
            if self.values > MAX_VALUES:
                self.values -= len(values)
                return _overflow(key[1], samples, f"{MAX_VALUES} values")
        held = self.entries.get(key)
        if held is None:
            if len(self.entries) >= MAX_SERIES:
                return _overflow(key[1], samples, f"{MAX_SERIES} series")
            self.entries[key] = (values, samples)
            return None
        if kind == COUNT:
            values = [held[0][0] + values[0]]
        elif kind == DISTRIBUTION:
            held[0].extend(values)
            values = held[0]
        self.entries[key] = (values, held[1] + samples)
        return None


class Buffer:
    """The records of all `Metrics` of a process, until their sinks have them."""

    __slots__ = ("_batches", "_holders", "_totals", "records")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self._totals: deque[_Totals] = deque()
        self._batches: deque[tuple[Owner, Batch]] = deque()
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
            _log.warning("lambda_ext.flush_failed", exc_info=True)

    def _flush(self) -> None:
        if not (self.records or self._totals or self._batches):
            return
        token = threading.Lock()
        try:
            self._hold(token)
            totals = self._take(len(self.records))
            try:
                self._batches.extend(self._batched(totals))
            except BaseException:
                self._totals.append(totals)
                raise
            for _ in range(len(self._batches)):
                try:
                    owner, batch = self._batches.popleft()
                except IndexError:  # another flush has it
                    break
                self._deliver(owner, batch)
        finally:
            self._let_go(token)

    def _take(self, limit: int) -> _Totals:
        """Take up to *limit* records, and add them to what was added up."""
        try:
            totals = self._totals.popleft()
        except IndexError:
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
                    self._book(totals, record)
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
        try:
            later = self._totals.popleft()
        except IndexError:
            return
        for key, (values, samples) in later.entries.items():
            totals.add(key, values, samples)

    def _book(self, totals: _Totals, record: Record) -> None:
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
            totals.add((owner, series), [given], 1)

    def _batched(self, totals: _Totals) -> list[tuple[Owner, Batch]]:
        at = clock.wall()
        batches: dict[Owner, Batch] = {}
        for (owner, series), (values, samples) in totals.entries.items():
            if len(values) == 1 and not -MAX_VALUE <= values[0] <= MAX_VALUE:
                name = _shown(series[1])
                tally.drop("value", samples, f"name={name}: the sum is too large")
                continue
            if owner not in batches:
                batches[owner] = Batch(owner._where()[0], at, [])
            batches[owner].points.append(Point(series, values, samples))
        return list(batches.items())

    def _deliver(self, owner: Owner, batch: Batch) -> None:
        namespace, sink = owner._where()
        try:
            sink.accept(batch)
        except Exception:
            lost = sum([point.samples for point in batch.points])
            tally.drop("sink", lost, f"sink={type(sink).__qualname__}", exc_info=True)
        if getattr(sink, "backlog", False):
            rest = Batch(namespace, batch.at, [])
            if all(waiting is not owner for waiting, _ in self._batches.copy()):
                self._batches.append((owner, rest))

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


def _overflow(series: Series, samples: int, limit: str) -> None:
    message = f"name={_shown(series[1])}: over {limit} between two flushes"
    tally.drop("overflow", samples, message)


def _shown(name: Any) -> str:
    """Return what a log line may say about *name*, whatever it is."""
    return repr(name[:80]) if type(name) is str else type(name).__qualname__
