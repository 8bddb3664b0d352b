"""
CloudWatch's embedded metric format (EMF): one JSON document a line, on stdout.

Guarantees
    Each line is valid, shorter than `MAX_BYTES` (a pipe is read in pieces of
    64 KiB, and half a line is no metric), and one ``write(2)`` wherever stdout
    takes it whole.  There is no document without a metric.
    A line comes out whole, or is kept for the next flush and then begins on a
    line of its own, or is counted as dropped; `EmfSink.accept` never raises.

Why not ``sys.stdout.write``
    Its buffer takes a lock, and raises when a signal handler interrupts it;
    and what it does with half a line nobody can tell.  So the line goes to the
    file descriptor of `sys.stdout`, behind what is buffered there.  A stdout
    without a descriptor (in memory, for tests) is written to as it is.

Threads
    One thread writes at a time.  Others leave their lines to it and return;
    `buffer` waits for it.

Written by hand, from templates, because json.dumps costs more than the rest of
a flush.

Source: embedded metric format specification,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import deque
from json.encoder import encode_basestring_ascii as quote

from ..lifecycle import clock, phases
from . import tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..typing import Batch, Point

    Dimensions = tuple[tuple[str, str], ...]
    Line = tuple[bytes, int]  # and how many records are in it

MAX_BYTES = 60_000  # of a line; EMF allows 1 MB
MAX_METRICS = 100  # of a document; EMF specification
MAX_VALUES = 100  # of a metric in a document; more are ignored in silence
MAX_KEPT = 1_000_000  # bytes that stdout did not take, for the next flush
STALL_S = 0.1  # how long one flush waits for a stdout that takes nothing
MAX_TEMPLATES = 200
MAX_TEMPLATE = 4_000  # bytes; a longer one is not worth its memory
_START = '{"_aws":{"Timestamp":'

# The class with which AWS's runtime client logs on stdout where Lambda gave it
# no log of its own (images, emulators).  It ends no line after a traceback.
LOG_SINK = "StandardLogSink"

# The function's log level drops what is below it.  Lambda takes a line without
# a valid level and timestamp for INFO.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
ABOVE_INFO = ("WARN", "ERROR", "FATAL")


class EmfSink:
    """Writes to *stream*; None is `sys.stdout`, as it is at each flush."""

    __slots__ = (
        "_left", "_level", "_lines", "_process", "_stalled", "_stream", "_templates",
        "_torn", "_until", "_writer",
    )  # fmt: skip

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream
        self._level: str | None = None  # not yet known
        self._templates: dict[tuple[object, ...], str] = {}
        self._begin()

    def _begin(self) -> None:
        """Start without lines, in this process."""
        self._process = os.getpid()
        self._lines: deque[Line] = deque()
        # Who writes: a lock would stay locked for ever when a signal handler
        # raises between taking it and the next instruction.
        self._writer: dict[int, object] = {}
        self._left = b""  # of the line that is just being written
        self._torn = False  # the last thing written was a part of a line
        self._stalled = False  # the last flush could not write all
        self._until: float | None = None  # when the writer gives up waiting

    @property
    def backlog(self) -> bool:
        """Whether there are lines that stdout did not take."""
        return bool(self._lines)

    def accept(self, batch: Batch, /) -> None:
        """Write *batch*, and before it what stdout did not take the last time."""
        if self._process != os.getpid():  # what the parent has is the parent's
            self._begin()
        me = self.lines(batch)
        self._lines.extend(me)
        try:
            while self._lines and self._writer.setdefault(0, me) is me:
                if not self._write_lines():
                    break
                del self._writer[0]
        finally:
            if self._writer.get(0) is me:
                del self._writer[0]

    def lines(self, batch: Batch) -> list[Line]:
        """Encode *batch*; each line stands for so many records."""
        if self._level is None:
            self._level = _level()
        at_ms = int(batch.at * 1000)
        level = ""
        if self._level:
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
            level = f'"level":"{self._level}","timestamp":"{at}.{at_ms % 1000:03}Z",'
        groups: dict[Dimensions, list[Point]] = {}
        for point in batch.points:
            if point.dimensions in groups:
                groups[point.dimensions].append(point)
            else:
                groups[point.dimensions] = [point]
        lines: list[Line] = []
        for dimensions, points in groups.items():
            line = self._one(batch.namespace, dimensions, points, (at_ms, level))
            if line is None:
                head, middle = _around(batch.namespace, dimensions)
                _pack(
                    lines, points, f"{_START}{at_ms}{head}", f"]}}]}},{level}{middle}"
                )
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
        what: Any = [namespace, dimensions]
        texts: list[object] = [*first]
        samples = 0
        for point in points:
            values = point.values
            if len(values) == 1:
                texts.append(values[0])
            elif len(values) <= MAX_VALUES:
                texts.append(_array(values))
            else:
                return None
            what += point.name, point.unit
            samples += point.samples
        what = tuple(what)
        template = self._templates.get(what)
        if template is None:
            if len(points) > MAX_METRICS or len({p.name for p in points}) < len(points):
                return None
            template = _template(namespace, dimensions, points)
            if len(template) <= MAX_TEMPLATE:
                if len(self._templates) >= MAX_TEMPLATES:
                    self._templates.clear()
                self._templates[what] = template
        line = (template % tuple(texts)).encode("ascii")
        return (line, samples) if len(line) < MAX_BYTES else None

    def _write_lines(self) -> bool:
        """Write all lines; return False when stdout takes nothing for now."""
        stream = sys.stdout if self._stream is None else self._stream
        try:
            descriptor = stream.fileno()
        except Exception:
            descriptor = -1
        _flush(stream)
        if self._stream is None and _line_is_open():
            self._torn = True
        self._until = None
        documents = size = 0
        lines = self._lines
        try:
            while lines:
                line, samples = waiting = lines.popleft()
                self._left = line
                try:
                    if descriptor < 0:
                        stream.write(line.decode("ascii"))
                        self._left = b""
                    elif not self._write(descriptor):
                        lines.appendleft(waiting)
                        self._stall()
                        return False
                except Exception as exc:  # closed, broken or full
                    tally.drop("stdout", samples, f"{type(exc).__name__}: {exc}")
                    continue
                except BaseException:  # a signal handler raised
                    self._torn = True
                    if self._left:
                        lines.appendleft(waiting)
                    raise
                documents += 1
                size += len(line)
            if descriptor < 0:
                _flush(stream)
        finally:
            tally.add({"documents": documents, "bytes": size})
        self._stalled = False
        return True

    def _write(self, descriptor: int) -> bool:
        """Write what is left of a line; False when that takes too long."""
        # Cut short by SIGTERM, somebody may be in the middle of a line: print()
        # makes several writes, and a logged traceback often ends without "\n".
        if self._torn or phases.calls[phases.SHUTDOWN]:
            self._left = b"\n" + self._left
        while self._left:
            try:
                self._left = self._left[os.write(descriptor, self._left) :]
            except BlockingIOError:
                if not self._writable(descriptor):
                    return False
            else:
                self._torn = bool(self._left)
        return True

    def _writable(self, descriptor: int) -> bool:
        """Wait until stdout takes more; only a non-blocking one gets here."""
        import select  # a process that shares our stdout made it so

        if self._until is None:
            self._until = clock.monotonic() + (0.0 if self._stalled else STALL_S)
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(max(0.0, self._until - clock.monotonic()) * 1000))

    def _stall(self) -> None:
        """Keep what waits for the next flush, but not more than `MAX_KEPT`."""
        self._stalled = True
        size = sum([len(line) for line, _ in self._lines.copy()])
        while size > MAX_KEPT:
            line, samples = self._lines.popleft()
            size -= len(line)
            tally.drop("stdout", samples, "it takes nothing")


class _Log:
    """A log sink's method `log` that knows whether it has ended its line."""

    __slots__ = ("_log", "open")

    def __init__(self, log: Any) -> None:
        self._log = log
        self.open = False

    def __call__(self, message: str, *args: Any, **kwargs: Any) -> Any:
        result = self._log(message, *args, **kwargs)
        self.open = message[-1:] != "\n"
        return result


def _line_is_open() -> bool:
    """Say whether the runtime client's log has left stdout within a line."""
    found = False
    for handler in logging.root.handlers:
        sink: Any = getattr(handler, "log_sink", None)
        if type(sink).__name__ != LOG_SINK:
            continue
        log = getattr(sink, "log", None)
        if type(log) is _Log:
            found = found or log.open
            log.open = False
        else:
            found = True  # nobody knows what it wrote before
            with contextlib.suppress(AttributeError):  # then it is asked each time
                sink.log = _Log(log)
    return found


def _flush(stream: Any) -> None:
    """Let what others wrote go first; the write tells what matters."""
    try:  # noqa: SIM105  suppress() takes 0.4 microseconds
        stream.flush()
    except Exception:  # noqa: S110
        pass


def _around(namespace: str, dimensions: Dimensions) -> tuple[str, str]:
    """Return what stands before the metrics, and between them and the values."""
    names = ",".join([quote(name) for name, _ in dimensions])
    members = [f"{quote(name)}:{quote(value)}," for name, value in dimensions]
    head = (
        f',"CloudWatchMetrics":[{{"Namespace":{quote(namespace)},'
        f'"Dimensions":[[{names}]],"Metrics":['
    )
    return head, "".join(members)


def _definition(point: Point) -> str:
    unit = "" if point.unit == "None" else f',"Unit":{quote(point.unit)}'
    return f'{{"Name":{quote(point.name)}{unit}}}'


def _array(values: Sequence[float]) -> str:
    return f"[{','.join([repr(value) for value in values])}]"


def _template(namespace: str, dimensions: Dimensions, points: list[Point]) -> str:
    """Return a line with room for time, level and the values of *points*."""
    head, middle = _around(namespace, dimensions)
    definitions = ",".join([_definition(point) for point in points])
    before = f"{head}{definitions}]}}]}},".replace("%", "%%")
    keys = [quote(point.name).replace("%", "%%") + ":%s" for point in points]
    return f"{_START}%s{before}%s{middle.replace('%', '%%')}{','.join(keys)}}}\n"


def _pack(lines: list[Line], points: list[Point], head: str, middle: str) -> None:
    """Append *points*, which have the same dimensions, in as few lines as can be."""
    room = MAX_BYTES - 1 - len(head) - len(middle) - len("}\n")
    waiting = [(point, 0) for point in points]
    while waiting:
        later: list[tuple[Point, int]] = []
        names: set[str] = set()
        definitions: list[str] = []
        targets: list[str] = []
        samples = 0
        left = room
        for index, (point, start) in enumerate(waiting):
            if len(definitions) == MAX_METRICS:
                later += waiting[index:]
                break
            if point.name in names:  # another unit: one key has one value
                later.append((point, start))
                continue
            definition, key = _definition(point), quote(point.name) + ":"
            values = point.values[start : start + MAX_VALUES]
            text, taken = _fit(values, left - len(definition) - len(key) - 2)
            if taken:
                names.add(point.name)
                definitions.append(definition)
                targets.append(key + text)
                left -= len(definition) + len(key) + len(text) + 2
                samples += _samples(point, taken)
                if start + taken < len(point.values):
                    later.append((point, start + taken))
            elif definitions:
                later.append((point, start))
            else:  # not even alone
                lost = _samples(point, len(point.values) - start)
                message = f"name={point.name[:80]!r}: over {MAX_BYTES} bytes"
                tally.drop("too_large", lost, message)
        if definitions:
            line = f"{head}{','.join(definitions)}{middle}{','.join(targets)}}}\n"
            lines.append((line.encode("ascii"), samples))
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


def _level() -> str:
    """Return the level that a line must have to come through; mostly ""."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() != "JSON":
        return ""
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return level if level in ABOVE_INFO else ""
