"""
What CloudWatch would make of a line of log: a metric, nothing, or a mistake.

CloudWatch drops a bad EMF document and does not tell the program that wrote it.
`check()` compares a line with AWS's JSON schema and with the limits that the
schema leaves out; `Totals` adds up what arrived.

It shares no code with the encoder that it checks, only the numbers and
alphabets of `lambda_ext.limits`.

Source: the embedded metric format, its schema and the API that takes the
numbers in the end,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..limits import (
    DIMENSION_NAME,
    DIMENSION_VALUE,
    MAX_AGE_S,
    MAX_DIMENSIONS,
    MAX_LEAD_S,
    MAX_MAGNITUDE,
    MAX_METRICS,
    MAX_VALUES,
    METRIC_NAME,
    NAMESPACE,
    RESOLUTIONS,
    UNITS,
)

MAX_LINE_BYTES = 65_535  # a longer line leaves Lambda's pipe in two pieces
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

# Also inside a string, escaped once or several times, and as Python shows it.
_LOOKS_LIKE_EMF = re.compile(r"""\\*["']_aws\\*["']\s*:""")


@dataclass(frozen=True)
class Series:
    """One metric of CloudWatch's: what it bills, graphs and alarms on."""

    namespace: str
    dimensions: tuple[tuple[str, str], ...]
    name: str
    unit: str = "None"


@dataclass(frozen=True)
class Checked:
    """What one line holds: data points by series, and what is wrong with it."""

    points: tuple[tuple[Series, tuple[float, ...]], ...]
    problems: tuple[str, ...]
    document: dict[str, Any] | None = field(default=None, repr=False)


@dataclass
class Total:
    """The data points of one series that arrived."""

    count: int = 0
    sum: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf


class Totals(dict[Series, Total]):
    """The sum of many lines, by series, in order of first arrival."""

    def add(self, checked: Checked) -> None:
        """Add the points of one line, unless CloudWatch would refuse the line."""
        if checked.problems:
            return
        for series, values in checked.points:
            total = self.setdefault(series, Total())
            total.count += len(values)
            total.sum = math.fsum((total.sum, *values))
            total.minimum = min(total.minimum, *values)
            total.maximum = max(total.maximum, *values)


def check(
    line: str, *, now: float | None = None, log_level: str | None = None
) -> Checked | None:
    """
    Return what CloudWatch would read in *line*; None if it is plain log text.

    *now* is the wall clock in seconds (None: the machine's).  *log_level* is
    the function's application log level when its log format is JSON: Lambda
    then drops lines below it, and a line without "level" counts as INFO.
    """
    line = line.rstrip("\r\n")
    found: list[str] = []
    try:
        document = json.loads(
            line, object_pairs_hook=_unique(found), parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as exc:
        if not _LOOKS_LIKE_EMF.search(line):
            return None
        reason = str(exc) if isinstance(exc, _NotANumber) else "it is not valid JSON"
        return Checked((), (f"not one JSON document: {reason}",))
    if not isinstance(document, dict) or "_aws" not in document:
        if _LOOKS_LIKE_EMF.search(line):
            return Checked((), ('"_aws" is not at the root of the document',))
        return None
    problems = [*found, *_whole_line(line, document, log_level)]
    points: list[tuple[Series, tuple[float, ...]]] = []
    problems.extend(_metadata(document, points, time.time() if now is None else now))
    return Checked(tuple(points), tuple(problems), document)


def _whole_line(
    line: str, document: dict[str, Any], log_level: str | None
) -> Iterator[str]:
    size = len(line.encode("utf-8", "surrogatepass")) + 1
    if size > MAX_LINE_BYTES:
        yield f"{size} bytes: a line over {MAX_LINE_BYTES} may be split in two"
    if log_level in LEVELS:
        level = document.get("level")
        # Lambda takes a missing or unknown level for INFO.
        known = level.upper() if isinstance(level, str) else "INFO"
        rank = LEVELS.index(known) if known in LEVELS else LEVELS.index("INFO")
        if rank < LEVELS.index(log_level):
            yield f"Lambda drops it: its level is below {log_level}"


def _metadata(
    document: dict[str, Any],
    points: list[tuple[Series, tuple[float, ...]]],
    now: float,
) -> Iterator[str]:
    metadata = document["_aws"]
    if not isinstance(metadata, dict):
        yield "_aws is not an object"
        return
    yield from _timestamp(metadata, now)
    directives = metadata.get("CloudWatchMetrics")
    if not isinstance(directives, list):
        yield "_aws.CloudWatchMetrics is not an array"
        return
    resolutions: dict[str, int] = {}
    for number, directive in enumerate(directives):
        where = f"CloudWatchMetrics[{number}]"
        if not isinstance(directive, dict):
            yield f"{where} is not an object"
            continue
        namespace = directive.get("Namespace")
        yield from _namespace(where, namespace)
        sets: list[tuple[tuple[str, str], ...]] = []
        yield from _dimensions(where, directive.get("Dimensions"), document, sets)
        definitions = directive.get("Metrics")
        if not isinstance(definitions, list):
            yield f"{where}.Metrics is not an array"
            continue
        if len(definitions) > MAX_METRICS:
            yield f"{where} has {len(definitions)} metrics; {MAX_METRICS} are allowed"
        seen: set[str] = set()
        for definition in definitions:
            if not isinstance(definition, dict):
                yield f"{where}.Metrics holds something that is not an object"
                continue
            problems = list(_definition(where, definition, seen, resolutions))
            name = definition.get("Name")
            if isinstance(name, str):
                values: list[float] = []
                problems.extend(_values(name, document, values))
                unit = definition.get("Unit", "None")
                if not problems and isinstance(namespace, str):
                    points.extend(
                        (Series(namespace, dimensions, name, unit), tuple(values))
                        for dimensions in sets
                    )
            yield from problems
    if not any(isinstance(d, dict) and d.get("Metrics") for d in directives):
        yield "an empty document: it defines no metric"


def _timestamp(metadata: dict[str, Any], now: float) -> Iterator[str]:
    stamp = metadata.get("Timestamp")
    if isinstance(stamp, bool) or not (
        isinstance(stamp, int) or (isinstance(stamp, float) and stamp.is_integer())
    ):
        yield "_aws.Timestamp is not an integer"
        return
    age = now - stamp / 1_000
    if age > MAX_AGE_S:
        yield "_aws.Timestamp is more than two weeks old; are these milliseconds?"
    elif age < -MAX_LEAD_S:
        yield "_aws.Timestamp is more than two hours ahead"


def _text(
    what: str, text: str, rule: tuple[int, tuple[str, ...], frozenset[str]]
) -> Iterator[str]:
    """Yield what is wrong with *text*, held against one row of the limits."""
    longest, beginnings, alphabet = rule
    foreign = sorted({*text} - alphabet)
    if not text.strip():
        yield f"{what} is blank"
    elif len(text) > longest:
        yield f"{what} has more than {longest} characters"
    elif foreign:
        only = "" if text.isascii() else "; it takes ASCII only"
        yield f"{what} has characters that are not allowed, {foreign[0]!r}{only}"
    for beginning in beginnings:
        if text[: len(beginning)] == beginning:
            yield f"{what} begins with {beginning!r}"


def _namespace(where: str, namespace: Any) -> Iterator[str]:
    if not isinstance(namespace, str):
        yield f"{where}.Namespace is not a string"
    else:
        yield from _text(f"{where}.Namespace {namespace!r:.60}", namespace, NAMESPACE)


def _dimensions(
    where: str,
    dimensions: Any,
    document: dict[str, Any],
    sets: list[tuple[tuple[str, str], ...]],
) -> Iterator[str]:
    if not isinstance(dimensions, list) or not dimensions:
        yield f"{where}.Dimensions is not an array of at least one set"
        return
    for names in dimensions:
        if not isinstance(names, list):
            yield f"{where}.Dimensions holds something that is not an array"
            continue
        if len(names) > MAX_DIMENSIONS:
            yield f"{where} has {len(names)} dimensions; {MAX_DIMENSIONS} are allowed"
        problems = [
            problem for name in names for problem in _dimension(where, name, document)
        ]
        if not problems and len(set(names)) < len(names):
            problems.append(f"{where}.Dimensions names a dimension twice")
        yield from problems
        if not problems:
            sets.append(tuple((name, document[name]) for name in sorted(names)))


def _dimension(where: str, name: Any, document: dict[str, Any]) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"{where}.Dimensions holds a name that is not a string"
        return
    what = f"dimension {name!r:.60}"
    problems = list(_text(f"{what}: the name", name, DIMENSION_NAME))
    if problems:
        yield from problems
    elif name not in document:
        yield f"{what} is not in the document"
    elif not isinstance(document[name], str):
        yield f"{what}: the value is not a string"
    else:
        yield from _text(f"{what}: the value", document[name], DIMENSION_VALUE)


def _definition(
    where: str,
    definition: dict[str, Any],
    seen: set[str],
    resolutions: dict[str, int],
) -> Iterator[str]:
    name = definition.get("Name")
    if not isinstance(name, str):
        yield f"{where}.Metrics holds a name that is not a string"
        return
    yield from _text(f"metric {name!r:.60}: the name", name, METRIC_NAME)
    if name in seen:
        yield f"metric {name!r} is defined twice in one directive"
    seen.add(name)
    unit = definition.get("Unit", "None")
    if not isinstance(unit, str) or unit not in UNITS:
        yield f"metric {name!r}: {unit!r} is not a unit of CloudWatch's"
    resolution = definition.get("StorageResolution", 60)
    if isinstance(resolution, bool) or resolution not in RESOLUTIONS:
        yield f"metric {name!r}: StorageResolution is 1 or 60"
    elif resolutions.setdefault(name, resolution) != resolution:
        yield f"metric {name!r} has two resolutions in one document"


def _values(name: str, document: dict[str, Any], values: list[float]) -> Iterator[str]:
    if name == "_aws" or name not in document:
        yield f"metric {name!r} has no value in the document"
        return
    target = document[name]
    numbers = target if isinstance(target, list) else [target]
    if not numbers:
        yield f"metric {name!r} has an empty array of values"
    if len(numbers) > MAX_VALUES:
        yield f"metric {name!r} has {len(numbers)} values; {MAX_VALUES} are read"
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            yield f"metric {name!r} has a value that is not a number"
            return
        if not -MAX_MAGNITUDE <= number <= MAX_MAGNITUDE:
            yield f"metric {name!r} has a value beyond 2^360"
            return
        values.append(float(number))


class _NotANumber(ValueError):
    """NaN and Infinity: Python writes them, JSON has no such words."""


def _no_constant(word: str) -> None:
    msg = f"{word} is not JSON"
    raise _NotANumber(msg)


def _unique(found: list[str]) -> Any:
    """Make the hook that reports a member that an object has twice."""

    def build(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key, value in pairs:
            if key in built:
                found.append(f"{key!r} stands twice in one object")
            built[key] = value
        return built

    return build
