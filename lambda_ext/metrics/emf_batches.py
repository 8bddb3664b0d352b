"""
EMF documents of a batch: what the usual flush does not write.

When a flush makes batches is said in `parcels`, which loads this.  A batch is divided
into as few lines as can be.  The guarantees are those of `emf`.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quote

from ..limits import MAX_METRICS, MAX_VALUES
from .losses import uncounted
from .stdout import MAX_BYTES, PIPE_BUF, line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..typing import Batch, Point
    from .losses import Loss
    from .stdout import Line

    Dimensions = tuple[tuple[str, str], ...]
    EmfSink = Any  # of `emf`, which imports this module

MAX_TEMPLATES = 200  # of a sink
MAX_TEMPLATE = 4_000  # bytes; a longer one is not worth its memory
OFFERED = 8  # batches that are known when they come again


def accept(sink: EmfSink, batch: Batch) -> None:
    """Write *batch* to *sink*, and before it what stdout did not take the last time."""
    if batch not in sink._offered:
        losses: list[Loss] = []
        encoded = lines(sink, batch, losses)
        offered, waiting, dropped = sink._offered, sink.writer.lines, uncounted
        records = sum([point.samples for point in batch.points])
        records -= sum([number for _, _, number, _ in losses])
        # One step.
        waiting += encoded
        sink.writer.accepted += records
        dropped += losses
        offered += (batch,)
        del offered[:-OFFERED]
    sink.writer.write()


def lines(sink: EmfSink, batch: Batch, losses: list[Loss]) -> list[Line]:
    """Encode *batch*; add to *losses* what no line can hold."""
    at_ms = int(batch.at * 1000)
    extra = sink._stamp(at_ms)
    groups: dict[Dimensions, list[Point]] = {}
    for point in batch.points:
        if point.dimensions in groups:
            groups[point.dimensions].append(point)
        else:
            groups[point.dimensions] = [point]
    made: list[Line] = []
    common = extra
    for dimensions, points in groups.items():
        if batch.properties:
            extra = common + sink._members(batch.properties, dimensions, points)
        line = _one(sink, batch.namespace, dimensions, points, (at_ms, extra))
        if line is None:
            head, middle = sink._frame(batch.namespace, dimensions)
            head, middle = f"{sink._START}{at_ms}{head}", f"]}}]}},{extra}{middle}"
            _pack(sink, made, points, head, middle, losses)
        else:
            made.append(line)
    return made


def _one(
    sink: EmfSink,
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
    template = sink._templates.get(layout)
    if template is None:
        if len(points) > MAX_METRICS or len({p.name for p in points}) < len(points):
            return None
        template = sink._template(layout, dimensions, points)
        if len(template) <= MAX_TEMPLATE:
            if len(sink._templates) >= MAX_TEMPLATES:
                sink._templates.clear()
            sink._templates[layout] = template
    data = (template % tuple(texts)).encode("ascii")
    return line_of(data, names) if len(data) < PIPE_BUF else None


def _array(values: Sequence[float]) -> str:
    return f"[{','.join(map(repr, values))}]"


def _pack(
    sink: EmfSink,
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
            definition, key = sink._definition(point), quote(point.name) + ":"
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
