"""
What is recorded and not yet flushed.

Recording is one `deque.append`; everything else, the validation included, is
done by the flush.  A flush takes the records, adds up what belongs together
and hands one batch per owner (a `Metrics`) to the owner's sink.

Guarantees
    A record is taken by exactly one flush: `popleft` is atomic.  When `flush`
    returns, what was recorded before it began has been handed over, also by
    another thread, for which it waits at most `WAIT_S`; it never waits for a
    flush that it interrupted in its own thread.
    Recording takes no lock, so that a signal handler or ``__del__`` may record
    at any instruction of another record or of a flush.
    Memory is bounded by count: past `MAX_RECORDS` the recording thread adds up
    a part of them; what then exceeds `MAX_SERIES` or `MAX_VALUES` is dropped
    and counted.
    Neither `flush` nor a sink that raises is felt by the caller.

Threads
    There is no lock.  Whoever holds records that are in no shared structure
    shows it by a token in ``_holders``, a locked lock on which others can wait.
    Counters are kept as a deque of small dicts, since ``+=`` is not atomic.

Not here
    Names and units (`Metrics` hands in the rules), and how a line looks (sinks).
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque

from ..exceptions import MetricError
from ..lifecycle import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from ..typing import Sink

    Number = int | float
    # kind, name, unit, dimensions
    Series = tuple[str, str, str, tuple[tuple[str, str], ...]]
    Record = tuple["Owner", str, Any, Any, Any, dict[str, Any]]
    # [sum, records] of a counter, [last, records] of a gauge, or the values
    Totals = dict[tuple["Owner", Series], list[Number]]
    Tally = dict[str, int]

    class Owner(Protocol):
        """Whose records these are: says what is valid and where it goes."""

        def series(
            self, kind: str, name: Any, unit: Any, dims: dict[str, Any]
        ) -> Series: ...
        def namespace(self) -> str: ...
        def sink(self) -> Sink: ...


MAX_RECORDS = 10_000  # not yet added up; about 4 MB
MAX_SERIES = 10_000  # added up; about 5 MB
MAX_VALUES = 100_000  # of distributions; about 3 MB
PART = 1_000  # how many records one recording thread adds up, about 1 ms
WAIT_S = 0.1  # for a flush in another thread; the essential shutdown has 0.15
MAX_VALUE = 2.0**360  # CloudWatch API, MetricDatum

COUNT = "count"
GAUGE = "gauge"
DISTRIBUTION = "distribution"

_log = logging.getLogger("lambda_ext")


class Point:
    """One series of a batch: what it is, and its values since the last flush."""

    __slots__ = ("dimensions", "kind", "name", "samples", "unit", "values")

    def __init__(self, series: Series, values: list[Number], samples: int) -> None:
        self.kind, self.name, self.unit, self.dimensions = series
        self.values = values
        self.samples = samples

    def __repr__(self) -> str:
        return (
            f"<Point {self.kind} {self.name!r} {dict(self.dimensions)} {self.values}>"
        )


class Batch:
    """What one flush hands to one sink."""

    __slots__ = ("at", "namespace", "points")

    def __init__(self, namespace: str, at: float, points: list[Point]) -> None:
        self.namespace = namespace
        self.at = at
        self.points = points


class Buffer:
    """Records of all `Metrics` of a process, from recording to the sinks."""

    __slots__ = ("_backlogs", "_holders", "_tallies", "_totals", "_warned", "records")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self._totals: deque[Totals] = deque()  # what compaction added up
        self._tallies: deque[Tally] = deque()
        self._holders: dict[Any, int] = {}  # token: thread
        self._backlogs: deque[Owner] = deque()  # whose sink has lines left over
        self._warned: set[str] = set()

    def clear(self) -> None:
        """Forget everything: records, counters and who holds what."""
        self.records.clear()  # in place: `Metrics` holds its append
        self._totals.clear()
        self._tallies.clear()
        self._holders.clear()
        self._backlogs.clear()
        self._warned.clear()

    def compact(self) -> None:
        """Add up a part of the records; called by who records one too many."""
        token = self._hold()
        try:
            self._totals.append(self._take(PART))
        finally:
            self._let_go(token)

    def flush(self) -> None:
        """Hand what was recorded before to the sinks; never raises Exception."""
        try:
            self._flush()
            while self._wait_for_others() and (self.records or self._totals):
                self._flush()
        except Exception:
            _log.warning("lambda_ext.flush_failed", exc_info=True)

    def snapshot(self) -> dict[str, int]:
        """Return how often each thing happened; "recorded" and reasons."""
        total: Tally = {}
        for tally in self._tallies.copy():
            _add(total, tally)
        return total

    def count(self, event: str, number: int = 1) -> None:
        """Count *number* of *event*, exactly, from any thread."""
        self._tallies.append({event: number})
        if len(self._tallies) > 16:
            total: Tally = {}
            for _ in range(len(self._tallies)):
                try:
                    _add(total, self._tallies.popleft())
                except IndexError:
                    break
            self._tallies.append(total)

    def refuse(self, reason: str, what: object, number: int = 1) -> None:
        """Count a refusal; log the first one of each reason."""
        self.count(reason, number)
        if reason not in self._warned:
            self._warned.add(reason)
            _log.warning("lambda_ext.metric_refused reason=%s %s", reason, what)

    def _hold(self) -> Any:
        token = threading.Lock()
        token.acquire()
        self._holders[token] = threading.get_ident()
        return token

    def _let_go(self, token: Any) -> None:
        self._holders.pop(token, None)
        token.release()

    def _wait_for_others(self) -> bool:
        """Wait until no other thread holds records; say whether one did."""
        if not self._holders:
            return False
        me = threading.get_ident()
        waited = False
        until = clock.monotonic() + WAIT_S
        for token, thread in list(self._holders.items()):
            if thread == me:
                continue
            if token.acquire(timeout=max(0.0, until - clock.monotonic())):
                token.release()
                waited = True
        return waited

    def _flush(self) -> None:
        if not (self.records or self._totals or self._backlogs):
            return
        token = self._hold()
        try:
            totals = self._take(len(self.records))
            try:
                batches = self._batches(totals)
            except BaseException:  # a signal handler raised: try again next time
                self._totals.append(totals)
                raise
            for owner, batch in batches:
                self._deliver(owner, batch)
        finally:
            self._let_go(token)

    def _take(self, limit: int) -> Totals:
        """Take up to *limit* records, and what was added up before."""
        try:
            totals = self._totals.pop()
        except IndexError:
            totals = {}
        try:
            while self._totals:
                self._merge(totals, self._totals.pop())
        except IndexError:
            pass
        taken = 0
        popleft = self.records.popleft
        try:
            for _ in range(limit):
                try:
                    record = popleft()
                except IndexError:
                    break
                taken += 1
                self._book(totals, record)
        except BaseException:
            self._totals.append(totals)
            raise
        finally:
            if taken:
                self.count("recorded", taken)
        return totals

    def _book(self, totals: Totals, record: Record) -> None:
        """Add one record to *totals*, or refuse it."""
        owner, kind, name, value, unit, dims = record
        try:
            series = owner.series(kind, name, unit, dims)
            kind_of = type(value)
            if (
                kind_of is not int and kind_of is not float
            ) or not -MAX_VALUE <= value <= MAX_VALUE:
                value = checked_value(value)
        except MetricError as exc:
            self.refuse(exc.reason, f"name={name!r:.80}: {exc}")
            return
        key = (owner, series)
        held = totals.get(key)
        if held is None:
            if len(totals) >= MAX_SERIES:
                self.refuse("overflow", f"name={name!r:.80}: too many series at once")
                return
            totals[key] = [value] if kind is DISTRIBUTION else [value, 1]
        elif kind is COUNT:
            held[0] += value
            held[1] += 1
        elif kind is DISTRIBUTION:
            held.append(value)
        else:
            held[0] = value
            held[1] += 1

    def _merge(self, totals: Totals, later: Totals) -> None:
        for key, values in later.items():
            held = totals.get(key)
            if held is None:
                totals[key] = values
            elif key[1][0] is COUNT:
                held[0] += values[0]
                held[1] += values[1]
            elif key[1][0] is DISTRIBUTION:
                held.extend(values)
            else:
                held[0] = values[0]
                held[1] += values[1]

    def _batches(self, totals: Totals) -> list[tuple[Owner, Batch]]:
        at = clock.wall()
        batches: dict[Owner, Batch] = {}
        for (owner, series), values in totals.items():
            if series[0] is DISTRIBUTION:
                point = Point(series, values, len(values))
            else:
                point = Point(series, values[:1], int(values[1]))
                if not -MAX_VALUE <= values[0] <= MAX_VALUE:
                    self.refuse(
                        "value", f"name={series[1]!r}: {_BAD_VALUE}", point.samples
                    )
                    continue
            batch = batches.get(owner)
            if batch is None:
                batch = batches[owner] = Batch(owner.namespace(), at, [])
            batch.points.append(point)
        for _ in range(len(self._backlogs)):
            try:
                owner = self._backlogs.popleft()
            except IndexError:
                break
            if owner not in batches:
                batches[owner] = Batch(owner.namespace(), at, [])
        return list(batches.items())

    def _deliver(self, owner: Owner, batch: Batch) -> None:
        sink = owner.sink()
        try:
            sink.accept(batch)
        except Exception:
            lost = sum(point.samples for point in batch.points)
            self.count("sink", lost)
            if "sink" not in self._warned:
                self._warned.add("sink")
                _log.warning("lambda_ext.sink_failed lost=%d", lost, exc_info=True)
        if getattr(sink, "backlog", False):
            self._backlogs.append(owner)


_BAD_VALUE = "expected a finite number within ±2**360"


def checked_value(value: Any) -> Number:
    """Return *value* as a plain int or float; True is 1, Decimal a float."""
    result: Number = math.nan
    try:
        if hasattr(value, "__index__"):
            result = int(value.__index__())
        elif hasattr(value, "__float__"):
            result = float(value)
    except Exception as exc:
        raise MetricError(_BAD_VALUE, reason="value") from exc
    if not -MAX_VALUE <= result <= MAX_VALUE:
        raise MetricError(_BAD_VALUE, reason="value")
    return result


def _add(total: Tally, tally: Mapping[str, int]) -> None:
    for event, number_ in tally.items():
        total[event] = total.get(event, 0) + number_
