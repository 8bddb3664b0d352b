"""
CloudWatch's embedded metric format (EMF): one JSON document a line, on stdout.

Guarantees
    Each line is valid, shorter than `MAX_BYTES` (a pipe is read in pieces of
    64 KiB, and half a line is no metric), and no longer than a pipe takes at
    once without mixing it with what others write (`stdout.PIPE_BUF`, 4,096
    bytes), wherever a document can be divided.  One metric with long
    dimensions or properties cannot.  There is no document without a metric.
    A line comes out whole, or is kept for the next flush, or is counted as
    dropped (see `stdout`); `EmfSink.accept` never raises an Exception.
    A batch that is offered again, because a signal handler's exception has
    interrupted `accept`, is written once.

Written by hand, from templates, because json.dumps costs more than the rest of
a flush.

Source: embedded metric format specification,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import os
import time
from json import dumps
from json.encoder import encode_basestring_ascii as quote

from ..limits import MAX_METRICS, MAX_VALUES
from .buffer import DIRECT
from .losses import uncounted
from .stdout import PIPE_BUF, Line, Writer, line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..typing import Batch, Point
    from .buffer import Series
    from .losses import Loss

    Dimensions = tuple[tuple[str, str], ...]
    # Of each line: its template, which of the series are in it, their dimensions.
    Plan = tuple[tuple[str, tuple[int, ...], Dimensions], ...]

MAX_BYTES = 60_000  # of a line; EMF allows 1 MB
MAX_TEMPLATES = 200
MAX_TEMPLATE = 4_000  # bytes; a longer one is not worth its memory
OFFERED = 8  # batches that are known when they come again
_START = '{"_aws":{"Timestamp":'

# The function's log level drops what is below it.  Lambda takes a line without
# a valid level and timestamp for INFO.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
ABOVE_INFO = ("WARN", "ERROR", "FATAL")


class EmfSink:
    """Writes to *stream*; None is stdout, see `stdout`."""

    __slots__ = (
        "_level", "_offered", "_plans", "_shapes", "_singles", "_templates", "writer",
    )  # fmt: skip

    direct: object = DIRECT  # a buffer may put lines into `writer`, see `encode`

    def __init_subclass__(cls) -> None:
        """Have batches go through `accept`, which the subclass may have replaced."""
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
        if batch not in self._offered:
            losses: list[Loss] = []
            lines = self.lines(batch, losses)
            offered, waiting, dropped = self._offered, self.writer.lines, uncounted
            records = sum([point.samples for point in batch.points])
            records -= sum([number for _, _, number, _ in losses])
            # One step.
            waiting += lines
            self.writer.accepted += records
            dropped += losses
            offered += (batch,)
            del offered[:-OFFERED]
        self.writer.write()

    def encode(
        self,
        found: Sequence[tuple[Series, object, int]],
        at: float,
        properties: Mapping[str, Any],
    ) -> list[Line] | None:
        """
        Return lines of *found*, or None where that takes `lines`.

        *found* is what a flush has of each series: its text or number, and how
        many records that is.  The documents are those of `lines`.
        """
        if self._level is None:
            self._level = level()
        at_ms = int(at * 1000)
        extra = _stamp(self._level, at_ms) if self._level else ""
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
                more += _members(properties, dimensions, here)
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
        extra = _stamp(self._level, at_ms).encode("ascii") if self._level else b""
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

    def lines(self, batch: Batch, losses: list[Loss]) -> list[Line]:
        """Encode *batch*; add to *losses* what no line can hold."""
        if self._level is None:
            self._level = level()
        at_ms = int(batch.at * 1000)
        extra = _stamp(self._level, at_ms) if self._level else ""
        groups: dict[Dimensions, list[Point]] = {}
        for point in batch.points:
            if point.dimensions in groups:
                groups[point.dimensions].append(point)
            else:
                groups[point.dimensions] = [point]
        lines: list[Line] = []
        common = extra
        for dimensions, points in groups.items():
            if batch.properties:
                extra = common + _members(batch.properties, dimensions, points)
            line = self._one(batch.namespace, dimensions, points, (at_ms, extra))
            if line is None:
                head, middle = _around(batch.namespace, dimensions)
                head, middle = f"{_START}{at_ms}{head}", f"]}}]}},{extra}{middle}"
                _pack(lines, points, head, middle, losses)
            else:
                lines.append(line)
        return lines

    def _one(
        self,
        namespace: str,
        dimensions: Dimensions,
        points: list[Point],
        first: tuple[int, str],
    ) -> Line | None:
        """Fill *points* in a template; None when one line is not enough."""
        layout: Any = [namespace, dimensions]
        texts: list[object] = [*first]
        names = []
        for point in points:
            values = point.values
            if len(values) == 1:
                texts.append(values[0])
            elif len(values) <= MAX_VALUES:
                texts.append(_array(values))
            else:
                return None
            layout += point.name, point.unit, point.resolution
            names.append((point.name, point.samples))
        layout = tuple(layout)
        template = self._templates.get(layout)
        if template is None:
            if len(points) > MAX_METRICS or len({p.name for p in points}) < len(points):
                return None
            template = self._template(layout, dimensions, points)
            if len(template) <= MAX_TEMPLATE:
                if len(self._templates) >= MAX_TEMPLATES:
                    self._templates.clear()
                self._templates[layout] = template
        data = (template % tuple(texts)).encode("ascii")
        return line_of(data, names) if len(data) < PIPE_BUF else None

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
            around = _shape(layout[0], dimensions, points)
            if len(around[0]) + len(around[1]) <= MAX_TEMPLATE:
                if len(self._shapes) >= MAX_TEMPLATES:
                    self._shapes.clear()
                self._shapes[shape] = around
        members = "".join(
            [f"{quote(name)}:{quote(value)}," for name, value in dimensions]
        )
        return f"{around[0]}{members.replace('%', '%%')}{around[1]}"


def _stamp(level: str, at_ms: int) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
    return f'"level":"{level}","timestamp":"{at}.{at_ms % 1000:03}Z",'


def _members(
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


def _around(namespace: str, dimensions: Dimensions) -> tuple[str, str]:
    """Return what stands before the metrics, and between them and the values."""
    names = ",".join([quote(name) for name, _ in dimensions])
    members = [f"{quote(name)}:{quote(value)}," for name, value in dimensions]
    head = (
        f',"CloudWatchMetrics":[{{"Namespace":{quote(namespace)},'
        f'"Dimensions":[[{names}]],"Metrics":['
    )
    return head, "".join(members)


def _definition(point: Point | Series) -> str:
    more = "" if point.unit == "None" else f',"Unit":{quote(point.unit)}'
    if point.resolution != 60:
        more += f',"StorageResolution":{point.resolution}'
    return f'{{"Name":{quote(point.name)}{more}}}'


def _array(values: Sequence[float]) -> str:
    return f"[{','.join(map(repr, values))}]"


def _shape(
    namespace: str, dimensions: Dimensions, points: Sequence[Point | Series]
) -> tuple[str, str]:
    """Return what stands in a template before the dimensions' members, and after."""
    head, _ = _around(namespace, dimensions)
    definitions = ",".join([_definition(point) for point in points])
    before = f"{head}{definitions}]}}]}},".replace("%", "%%")
    keys = [quote(point.name).replace("%", "%%") + ":%s" for point in points]
    return f"{_START}%s{before}%s", f"{','.join(keys)}}}\n"


def _pack(
    lines: list[Line],
    points: list[Point],
    head: str,
    middle: str,
    losses: list[Loss],
) -> None:
    """Append *points*, which have the same dimensions, in as few lines as can be."""
    around = len(head) + len(middle) + len("}\n")
    room = MAX_BYTES - 1 - around
    # What surrounds the metrics cannot be divided: where it is long, lines are.
    short = PIPE_BUF - 1 - around if around < PIPE_BUF // 2 else room
    waiting = [(point, 0) for point in points]
    while waiting:
        later: list[tuple[Point, int]] = []
        known: set[str] = set()
        definitions: list[str] = []
        targets: list[str] = []
        names: list[tuple[str, int]] = []
        left = short
        for index, (point, start) in enumerate(waiting):
            if len(definitions) == MAX_METRICS:
                later += waiting[index:]
                break
            if point.name in known:  # another unit: one key has one value
                later.append((point, start))
                continue
            definition, key = _definition(point), quote(point.name) + ":"
            values = point.values[start : start + MAX_VALUES]
            around = len(definition) + len(key) + 2
            text, taken = _fit(values, left - around)
            if not taken and not definitions:
                text, taken = _fit(values, room - around)
            if taken:
                known.add(point.name)
                definitions.append(definition)
                targets.append(key + text)
                left -= around + len(text)
                names.append((point.name, _samples(point, taken)))
                if start + taken < len(point.values):
                    later.append((point, start + taken))
            elif definitions:
                later.append((point, start))
            else:  # not even alone
                lost = _samples(point, len(point.values) - start)
                message = f"its dimensions fill a line of {MAX_BYTES} bytes"
                losses.append(("too_large", point.name, lost, message))
        if definitions:
            line = f"{head}{','.join(definitions)}{middle}{','.join(targets)}}}\n"
            lines.append(line_of(line.encode("ascii"), names))
        waiting = later


def _fit(values: Sequence[float], room: int) -> tuple[str, int]:
    """Return the text of as many *values* as fit in *room* bytes, and how many."""
    if len(values) == 1:
        text = repr(values[0])
        return (text, 1) if len(text) <= room else ("", 0)
    texts = [repr(value) for value in values]
    size = sum(map(len, texts)) + len(texts) + 1
    while texts and size > room:
        size -= len(texts.pop()) + 1
    return f"[{','.join(texts)}]", len(texts)


def _samples(point: Point, values: int) -> int:
    """Return how many records are in so many *values* of *point*."""
    return point.samples if len(point.values) == 1 else values


def level() -> str:
    """Return the level that a line must have to come through; mostly ""."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() != "JSON":
        return ""
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return level if level in ABOVE_INFO else ""
