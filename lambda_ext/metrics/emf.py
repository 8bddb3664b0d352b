"""
CloudWatch embedded metric format (EMF): one JSON document a line, on stdout.

Written by hand, since json.dumps takes longer than all the rest of a flush;
a test holds every line against json.dumps and AWS's own schema.

Guarantees
    Each line is one ``write(2)`` of less than `MAX_BYTES`: a pipe is read in
    pieces of 64 KiB, and a line that is cut in two is no metric.
    A line leaves whole, or is written again, after a newline, or is counted as
    lost; `accept` never raises.  There is no document without a metric.

Why not ``sys.stdout.write``
    Its buffer takes a lock, and raises when a signal handler interrupts it.
    So the line goes to the file descriptor of `sys.stdout`, after what is
    buffered there; a stdout without one (redirected to memory) is written to.

Threads
    One thread writes at a time.  Others leave their lines in ``_lines`` and
    the writer takes them too; nobody waits here.

Source: Embedded metric format specification,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from json.encoder import encode_basestring_ascii as quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..typing import Batch, Point

    Dimensions = tuple[tuple[str, str], ...]
    Line = tuple[bytes, int]  # and how many records are in it

MAX_BYTES = 60_000  # of a line, with its newline
MAX_METRICS = 100  # in a document; EMF specification
MAX_VALUES = 100  # of a metric in a document; more are silently ignored
STALL_S = 0.1  # how long a flush waits for a stdout that takes nothing
MAX_BACKLOG = 1_000  # lines that stdout did not take, kept for the next flush
MEMO = 1_000  # prepared heads, and prepared names

# Lambda drops what is below the function's level, and takes a line without a
# valid level and timestamp for INFO.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
ABOVE_INFO = ("WARN", "ERROR", "FATAL")


class EmfSink:
    """Writes each batch to stdout, as it is at that moment, or to *stream*."""

    __slots__ = (
        "_heads",
        "_level",
        "_lines",
        "_names",
        "_stream",
        "_torn",
        "_writing",
        "bytes",
        "documents",
        "lost",
        "too_large",
    )  # fmt: skip

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream
        self._lines: deque[Line] = deque()
        self._writing = threading.Lock()
        self._torn = False  # the last line ended early
        self._level: str | None = None
        self._heads: dict[tuple[str, Dimensions], tuple[str, str]] = {}
        self._names: dict[tuple[str, str], tuple[str, str]] = {}
        self.documents = 0
        self.bytes = 0
        self.lost = 0  # records
        self.too_large = 0  # records

    @property
    def backlog(self) -> bool:
        """Whether there are lines that stdout did not take."""
        return bool(self._lines)

    def accept(self, batch: Batch, /) -> None:
        """Write *batch*, in as many lines as the limits ask for."""
        self._lines.extend(self.lines(batch))
        while self._lines and self._writing.acquire(blocking=False):
            try:
                if not self._write_all():
                    break
            finally:
                self._writing.release()

    def lines(self, batch: Batch) -> Iterator[Line]:
        """Encode *batch*; each line stands for so many records."""
        if self._level is None:
            self._level = _level()
        at_ms = int(batch.at * 1000)
        root = ""
        if self._level:
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000))
            root = f'"level":"{self._level}","timestamp":"{at}.{at_ms % 1000:03}Z",'
        groups: dict[Dimensions, list[Point]] = {}
        for point in batch.points:
            groups.setdefault(point.dimensions, []).append(point)
        for dimensions, points in groups.items():
            head, members = self._head(batch.namespace, dimensions)
            yield from self._pack(
                f'{{"_aws":{{"Timestamp":{at_ms}{head}',
                f"]}}]}},{root}{members}",
                points,
            )

    def _head(self, namespace: str, dimensions: Dimensions) -> tuple[str, str]:
        """Return what is before the metrics and what is behind them."""
        found = self._heads.get((namespace, dimensions))
        if found is None:
            names = ",".join([quote(name) for name, _ in dimensions])
            members = [f"{quote(name)}:{quote(value)}," for name, value in dimensions]
            opening = (
                f',"CloudWatchMetrics":[{{"Namespace":{quote(namespace)},'
                f'"Dimensions":[[{names}]],"Metrics":['
            )
            found = (opening, "".join(members))
            if len(self._heads) >= MEMO:
                self._heads.clear()
            self._heads[namespace, dimensions] = found
        return found

    def _name(self, name: str, unit: str) -> tuple[str, str]:
        """Return the definition of a metric and the key of its values."""
        found = self._names.get((name, unit))
        if found is None:
            quoted = quote(name)
            suffix = "" if unit == "None" else f',"Unit":"{unit}"'
            found = (f'{{"Name":{quoted}{suffix}}}', quoted + ":")
            if len(self._names) >= MEMO:
                self._names.clear()
            self._names[name, unit] = found
        return found

    def _pack(self, head: str, middle: str, points: list[Point]) -> Iterator[Line]:
        """Put *points*, which have the same dimensions, in as few lines."""
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
                definition, key = self._name(point.name, point.unit)
                values = point.values[start : start + MAX_VALUES]
                text, taken = _values(values, left - len(definition) - len(key) - 2)
                if not taken:
                    if definitions:
                        later.append((point, start))
                    else:  # its dimensions alone fill a line
                        self.too_large += point.samples
                    continue
                names.add(point.name)
                definitions.append(definition)
                targets.append(key + text)
                left -= len(definition) + len(key) + len(text) + 2
                if len(point.values) == 1:
                    samples += point.samples
                else:
                    samples += taken
                if start + taken < len(point.values):
                    later.append((point, start + taken))
            if definitions:
                line = f"{head}{','.join(definitions)}{middle}{','.join(targets)}}}\n"
                yield line.encode("ascii"), samples
            waiting = later

    def _write_all(self) -> bool:
        """Write what waits; False when stdout takes nothing for the moment."""
        stream = sys.stdout if self._stream is None else self._stream
        try:
            descriptor = stream.fileno()
        except Exception:
            descriptor = None
        with contextlib.suppress(Exception):
            stream.flush()  # what the user wrote comes first
        while self._lines:
            try:
                line, samples = self._lines.popleft()
            except IndexError:
                break
            try:
                if descriptor is None:
                    stream.write(line.decode("ascii"))
                    stream.flush()
                elif not self._write(descriptor, line):
                    self._lines.appendleft((line, samples))
                    return False
            except Exception:  # closed, broken, full: nobody will read it
                self.lost += samples
                continue
            self.documents += 1
            self.bytes += len(line)
        return True

    def _write(self, descriptor: int, line: bytes) -> bool:
        os.write(descriptor, line)
        return True


def _values(values: Any, room: int) -> tuple[str, int]:
    """Write as many *values* as fit in *room* bytes; return how many."""
    if len(values) == 1:
        text = repr(values[0])
        return (text, 1) if len(text) <= room else ("", 0)
    texts = [repr(value) for value in values]
    size = sum(map(len, texts)) + len(texts) + 1
    while texts and size > room:
        size -= len(texts.pop()) + 1
    return f"[{','.join(texts)}]", len(texts)


def _level() -> str:
    """Return the level that a line must have to come through; mostly ""."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() != "JSON":
        return ""
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return level if level in ABOVE_INFO else ""
