"""
CloudWatch's embedded metric format (EMF): one JSON document a line, on stdout.

Guarantees
    Each line is valid, shorter than `stdout.MAX_BYTES` (a pipe is read in pieces
    of 64 KiB, and half a line is no metric), and no longer than a pipe takes at
    once without mixing it with what others write (`stdout.PIPE_BUF`, 4,096
    bytes), wherever a document can be divided.  One metric with long
    dimensions or properties cannot.  There is no document without a metric.
    A line comes out whole, or is kept for the next flush, or is counted as
    dropped (see `stdout`); `EmfSink.accept` never raises an Exception.
    A batch that is offered again, because a signal handler's exception has
    interrupted `accept`, is written once.

Written by hand, from templates, because json.dumps costs more than the rest of
a flush.  `EmfSink.encode` makes the lines of the usual flush; those of a batch, which
may have to be divided, are made by `emf_batches`, from the same parts.

Source: embedded metric format specification,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import os
import time
from json import dumps
from json.encoder import encode_basestring_ascii as quote

from ..limits import MAX_METRICS
from .buffer import DIRECT
from .stdout import PIPE_BUF, Line, Writer, line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..typing import Batch, Point
    from .buffer import Series

    Dimensions = tuple[tuple[str, str], ...]
    # Of each line: its template, which of the series are in it, their dimensions.
    Plan = tuple[tuple[str, tuple[int, ...], Dimensions], ...]

MAX_TEMPLATES = 200
MAX_TEMPLATE = 4_000  # bytes; a longer one is not worth its memory

# The function's log level drops what is below it.  Lambda takes a line without
# a valid level and timestamp for INFO.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
ABOVE_INFO = ("WARN", "ERROR", "FATAL")


class EmfSink:
    """Writes to *stream*; None is stdout, see `stdout`."""

    # Slots: an `accept` that is set on an object would not be called, see `direct`.
    __slots__ = (
        "_level", "_offered", "_plans", "_shapes", "_singles", "_templates", "writer",
    )  # fmt: skip

    direct: object = DIRECT  # a buffer may put lines into `writer`, see `encode`
    _START = '{"_aws":{"Timestamp":'

    def __init_subclass__(cls) -> None:
        """Pass batches to `accept`, which the subclass may have replaced."""
        cls.direct = None

    def __init__(self, stream: Any = None) -> None:
        self._level: str | None = None  # not yet known
        self._plans: dict[Series | tuple[Series, ...], Plan] = {}
        # Of a line with one series: room for time, extra and number, in bytes.
        self._singles: dict[Series, bytes] = {}
        self._templates: dict[tuple[object, ...], str] = {}
        # Of templates that differ in nothing but the values of dimensions.
        self._shapes: dict[tuple[object, ...], tuple[str, str]] = {}
        self._offered: list[Batch] = []
        self.writer = Writer(stream)

    @property
    def backlog(self) -> bool:
        """Whether there are lines that stdout did not take."""
        return bool(self.writer.lines)

    @property
    def pending(self) -> int:
        """The number of records in lines that stdout did not take."""
        return self.writer.pending

    @property
    def dropped(self) -> int:
        """The number of records in lines that were lost."""
        return self.writer.lost

    @property
    def sent(self) -> int:
        """The number of records in lines that are out."""
        return self.writer.sent

    def accept(self, batch: Batch, /) -> None:
        """Write *batch*, and before it what stdout did not take the last time."""
        # The usual flush makes no batch.
        from . import emf_batches

        emf_batches.accept(self, batch)

    def encode(
        self,
        found: Sequence[tuple[Series, object, int]],
        at: float,
        properties: Mapping[str, Any],
    ) -> list[Line] | None:
        """
        Return lines of *found*, or None where that takes a batch.

        *found* is what a flush has of each series: its text or number, and how
        many records that is.  The documents are those of `emf_batches`.
        """
        at_ms = int(at * 1000)
        extra = self._stamp(at_ms)
        key: Any = found[0][0]
        if len(found) > 1:
            key = tuple([series for series, _, _ in found])
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= MAX_TEMPLATES:
                self._plans.clear()
                self._singles.clear()
            plan = self._plans[key] = self._plan([series for series, _, _ in found])
        lines: list[Line] = []
        for template, places, dimensions in plan:
            parts = found if len(places) == len(found) else [found[i] for i in places]
            more = extra
            if properties:
                here = [series for series, _, _ in parts]
                more += self._members(properties, dimensions, here)
            if len(parts) == 1:
                ((series, value, samples),) = parts
                data = (template % (at_ms, more, value)).encode("ascii")
                names: tuple[tuple[str, int], ...] = ((series.name, samples),)
            else:
                values = [value for _, value, _ in parts]
                data = (template % (at_ms, more, *values)).encode("ascii")
                names = tuple([(each.name, samples) for each, _, samples in parts])
            if len(data) >= PIPE_BUF:
                return None
            lines.append(line_of(data, names))
        return lines or None

    def encode_one(
        self, series: Series, value: object, samples: int, at: float
    ) -> list[Line] | None:
        """Do what `encode` does for a number of a series that is known, alone."""
        template = self._singles.get(series)
        if template is None or type(value) is str:
            return None
        at_ms = int(at * 1000)
        extra = self._stamp(at_ms).encode("ascii") if self._level else b""
        data = template % (at_ms, extra, value)
        if len(data) >= PIPE_BUF:
            return None
        line = Line()  # as `line_of` does, with one call less
        line.data = data
        line.names = ((series.name, samples),)
        return [line]

    def abandon(self, reason: str) -> None:
        """Count what stdout did not take as dropped: the process ends."""
        self.writer.abandon(reason)

    def _plan(self, series: list[Series]) -> Plan:
        """Return the lines that *series* make: template and places; () for others."""
        groups: dict[Any, list[int]] = {}
        for index, each in enumerate(series):
            if each.outlet is not None or each.at is not None:
                return ()
            groups.setdefault((each.namespace, each.dimensions), []).append(index)
        plan = []
        for (namespace, dimensions), places in groups.items():
            here = [series[index] for index in places]
            if len(here) > MAX_METRICS or len({each.name for each in here}) < len(here):
                return ()
            layout: list[Any] = [namespace, dimensions]
            for each in here:
                layout += each.name, each.unit, each.resolution
            template = self._template(tuple(layout), dimensions, here)
            if len(template) > MAX_TEMPLATE:
                return ()
            if len(series) == 1:
                parts = (template % ("\0", "\0", "\0")).replace("%", "%%").split("\0")
                single = "{}%d{}%b{}%a{}".format(*parts)
                self._singles[series[0]] = single.encode("ascii")
            plan.append((template, tuple(places), dimensions))
        return tuple(plan)

    def _template(
        self, layout: Any, dimensions: Dimensions, points: Sequence[Point | Series]
    ) -> str:
        """Return a line with room for time, level and the values of *points*."""
        names = [name for name, _ in dimensions]
        shape = (layout[0], *names, layout[2:])
        around = self._shapes.get(shape)
        if around is None:
            around = self._shape(layout[0], dimensions, points)
            if len(around[0]) + len(around[1]) <= MAX_TEMPLATE:
                if len(self._shapes) >= MAX_TEMPLATES:
                    self._shapes.clear()
                self._shapes[shape] = around
        members = "".join(
            [f"{quote(name)}:{quote(value)}," for name, value in dimensions]
        )
        return f"{around[0]}{members.replace('%', '%%')}{around[1]}"

    def _shape(
        self, namespace: str, dimensions: Dimensions, points: Sequence[Point | Series]
    ) -> tuple[str, str]:
        """Return what stands in a template before the dimensions' members, and after."""
        head, _ = self._frame(namespace, dimensions)
        definitions = ",".join([self._definition(point) for point in points])
        before = f"{head}{definitions}]}}]}},".replace("%", "%%")
        keys = [quote(point.name).replace("%", "%%") + ":%s" for point in points]
        return f"{self._START}%s{before}%s", f"{','.join(keys)}}}\n"

    # Parts of a document, for `emf_batches`, too -----------------------------

    def _stamp(self, at_ms: int) -> str:
        """Return the members that the function's log level asks for; mostly ""."""
        if self._level is None:
            self._level = level()
        if not self._level:
            return ""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
        return f'"level":"{self._level}","timestamp":"{at}.{at_ms % 1000:03}Z",'

    def _members(
        self,
        properties: Mapping[str, Any],
        dimensions: Dimensions,
        points: Sequence[Point | Series],
    ) -> str:
        """Return the text of *properties* that have no dimension's or metric's name."""
        taken = {name for name, _ in dimensions}
        taken.update([point.name for point in points])
        return "".join(
            [
                f"{quote(name)}:{dumps(held, separators=(',', ':'), allow_nan=False)},"
                for name, held in properties.items()
                if name not in taken
            ]
        )

    def _frame(self, namespace: str, dimensions: Dimensions) -> tuple[str, str]:
        """Return what stands before the metrics, and between them and the values."""
        names = ",".join([quote(name) for name, _ in dimensions])
        members = [f"{quote(name)}:{quote(value)}," for name, value in dimensions]
        head = (
            f',"CloudWatchMetrics":[{{"Namespace":{quote(namespace)},'
            f'"Dimensions":[[{names}]],"Metrics":['
        )
        return head, "".join(members)

    def _definition(self, point: Point | Series) -> str:
        """Return how a directive defines the metric of *point*."""
        more = "" if point.unit == "None" else f',"Unit":{quote(point.unit)}'
        if point.resolution != 60:
            more += f',"StorageResolution":{point.resolution}'
        return f'{{"Name":{quote(point.name)}{more}}}'


def level() -> str:
    """Return the level that a line must have to come through; mostly ""."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() != "JSON":
        return ""
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return level if level in ABOVE_INFO else ""
