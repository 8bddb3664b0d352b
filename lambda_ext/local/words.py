"""The texts and table rows of a report: no printing, no colour."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aws_server import AwsCall
    from .emf_check import Series, Total
    from .outcomes import Delivery, InitReport, Invocation, Line, Registration
    from .seeds import Seed

LIGHT = "lambda_ext (light)"  # the library's own client, which is not boto3
MOST_NUMBERS = 10  # of invocations, named one by one
TRACEBACK = "Traceback (most recent call last):"
AS_ABOVE = "(traceback as above)"
NOT_FOUND = ("ResourceNotFoundException", "ParameterNotFound", "NotFound")
MOST_ALIKE = 6  # series of one name, before they are shown as one row


def client(agent: str) -> str:
    """Return which client of AWS's a User-Agent belongs to."""
    name = agent.split(" ", 1)[0].replace("/", " ", 1) or "unknown"
    return LIGHT if name.split(" ")[0] == "lambda-ext" else name


def error_lines(invocation: Invocation) -> Iterator[str]:
    """Yield what the caller of a failed invocation was told, most telling last."""
    try:
        error = invocation.value
    except ValueError:
        error = None
    if not isinstance(error, dict):
        yield invocation.error_type or invocation.status
        return
    kind = error.get("errorType") or invocation.error_type
    message = _PREFIX.sub("", str(error.get("errorMessage") or ""))
    yield f"{kind}: {message}" if kind else str(message)
    yield from frame_lines(error)


def frame_lines(error: object) -> Iterator[str]:
    """Yield the traceback in what the runtime client posted, if there is one."""
    if isinstance(error, dict):
        for frame in error.get("stackTrace") or ():
            yield from str(frame).rstrip().splitlines()


# What the platform puts before its words, which is new in each invocation.
_PREFIX = re.compile(r"^(\S+Z )?[0-9a-f]{8}-[0-9a-f-]{27} |^RequestId: \S+ (Error: )?")


# Before a line of the runtime client's: level, time and request id; in INIT no id.
_LOGGED = re.compile(
    r"^\[(\w+)\]\t\d{4}-\d\d-\d\dT([\d:.]+)Z\t(?:([0-9a-f]{8})-[0-9a-f-]{27})?\t"
)


def _prefix(found: re.Match[str]) -> str:
    level, at, request_id = found.groups()
    return f"[{level}] {at} {request_id} " if request_id else f"[{level}] {at} "


def init_trouble(
    init: InitReport, handler: str, task_root: str, python: str
) -> Iterator[str]:
    """Yield why INIT went wrong, in the runtime's words, and what to change."""
    error = init.error if isinstance(init.error, dict) else {}
    kind = error.get("errorType") or init.error_type or ""
    message = str(error.get("errorMessage") or "")
    yield f"{kind}: {message}" if message else kind or "the process said nothing"
    yield from frame_lines(error)
    module, _, function = handler.rpartition(".")
    if kind == "Runtime.ImportModuleError":
        yield "-> " + _import_advice(message, module, task_root, python)
    elif kind == "Runtime.HandlerNotFound":
        yield f"-> define {function!r} in {module}, or name another MODULE.HANDLER"
    elif kind == "Runtime.MalformedHandlerName":
        yield "-> write the handler as MODULE.HANDLER, for example app.handler"
    elif kind == "Runtime.UserCodeSyntaxError":
        yield "-> correct the syntax error above"
    elif init.status == "timeout":
        seconds = f"{init.duration_s:.0f} seconds"
        yield f"-> Lambda allows {seconds} for INIT; do less at module level"
    elif message:
        yield f"-> this was raised while {module} was being imported"
    else:
        yield "-> the process ended during INIT; its output stands under LOGS"


def _import_advice(message: str, module: str, task_root: str, python: str) -> str:
    steps = module.replace("/", ".").split(".")
    own = (".".join(steps[: end + 1]) for end in range(len(steps)))
    if any(f"No module named '{name}'" in message for name in own):
        return (
            f"there is no {module!r} in {os.path.abspath(task_root)}; name the"
            " folder that holds it with --task-root"
        )
    return f"{module} was found, but not what it imports; install it for {python}"


def dropped_words(dropped: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield each reason, with the names that were dropped for it and how many of each."""
    for reason, names in dropped.items():
        shown = ", ".join(
            f"{name!r} ({number:,})" if name else f"{number:,}"
            for name, number in names.items()
        )
        yield f"{reason}: {shown}"


def numbered(numbers: Sequence[int]) -> str:
    """Name some invocations by their numbers, the first of them if they are many."""
    if len(numbers) <= MOST_NUMBERS:
        return ", ".join(map(str, numbers))
    return f"{numbers[0]} and {len(numbers) - 1} more"


def status_rows(invocations: Sequence[Invocation]) -> Iterator[tuple[str, ...]]:
    """Yield (status, number, cold, p50, p90, p99, max) of the durations."""
    groups: dict[str, list[Invocation]] = {}
    for invocation in invocations:
        groups.setdefault(invocation.status, []).append(invocation)
    for status, group in groups.items():
        durations = sorted(invocation.duration_s for invocation in group)
        cold = sum(i is invocations[0] or i.init is not None for i in group)
        shown = [percentile(durations, part) for part in (0.5, 0.9, 0.99, 1.0)]
        yield status, str(len(group)), str(cold), *map(milliseconds, shown)


def percentile(durations: Sequence[float], part: float) -> float:
    """Return the least of sorted *durations* that *part* of them do not exceed."""
    return durations[max(0, math.ceil(part * len(durations)) - 1)]


def missing(calls: Iterable[AwsCall], seed: Seed) -> Iterator[str]:
    """Say how to give what AWS was asked for and does not hold."""
    secrets: dict[str, None] = {}
    parameters: dict[str, None] = {}
    profiles: dict[str, None] = {}
    kinds = {"secretsmanager": secrets, "ssm": parameters, "appconfig": profiles}
    for call in calls:
        wanted = kinds.get(call.service)
        if wanted is not None and any(code in NOT_FOUND for code in call.errors):
            wanted.update(dict.fromkeys(map(_bare, call.names)))
    lacking: dict[str, dict[str, Any]] = {
        "secrets": {name: "..." for name in secrets if name not in seed.secrets},
        "parameters": {n: "..." for n in parameters if n not in seed.parameters},
        "flags": {
            name: {"my-flag": {"enabled": True}}
            for name in profiles
            if name not in seed.flags and name not in seed.configurations
        },
    }
    form = {kind: names for kind, names in lacking.items() if names}
    if form:
        yield (
            "not there: give it with --seed FILE.json, whose form is "
            + json.dumps(form, ensure_ascii=False)
        )


def _bare(name: str) -> str:
    """Return the name in an ARN, without the six characters AWS adds to secrets'."""
    if not name.startswith("arn:"):
        return name
    kind, _, rest = name.split(":", 5)[-1].partition(":")
    if kind == "secret":
        return re.sub(r"-[A-Za-z0-9]{6}$", "", rest)
    return "/" + kind.partition("/")[2]


def log_lines(
    lines: Iterable[Line], told: Iterable[Iterable[str]] = ()
) -> Iterator[tuple[Line, str]]:
    """
    Yield what was written, line by line, without blank lines.

    A traceback that has been shown, in *told* or before, is one line.  What the
    runtime client puts before a line is shortened: no date, 8 characters of the
    request id.
    """
    seen = set(map(_frames, told))
    frames: list[tuple[Line, str]] = []
    inside = False
    # The runtime client writes "\r" where a record has several lines, and indents
    # with spaces that do not break.
    texts = (
        (line, text.replace("\xa0", " "))
        for line in lines
        for text in line.text.replace("\r", "\n").splitlines()
    )
    for line, text in texts:
        if inside and text[:1].isspace():
            frames.append((line, text))
            continue
        if inside:
            yield from _traceback(frames, seen)
        inside = text.startswith(TRACEBACK)
        frames = [(line, text)] if inside else []
        if not inside and text.strip():
            yield line, _LOGGED.sub(_prefix, text)
    if inside:
        yield from _traceback(frames, seen)


def _traceback(
    frames: Sequence[tuple[Line, str]], seen: set[str]
) -> Iterator[tuple[Line, str]]:
    """Yield a traceback, or one line if it is known."""
    key = _frames(text for _, text in frames[1:])
    if key in seen and key:
        yield frames[0][0], AS_ABOVE
        return
    seen.add(key)
    yield from ((line, text) for line, text in frames if text.strip())


def _frames(lines: Iterable[str]) -> str:
    """Return a traceback's lines as they compare; without marks under the code."""
    stripped = (line.strip() for line in lines)
    return "\n".join(line for line in stripped if line.strip("^~ "))


def registered(extensions: Iterable[Registration]) -> str:
    """Name the extensions of the environment."""
    return ", ".join(map(_registered, extensions)) or "none"


def _registered(extension: Registration) -> str:
    kind = "internal" if extension.internal else "external"
    if extension.telemetry:
        kind += ", telemetry: " + " ".join(extension.telemetry)
    return f"{extension.name} ({kind})"


def delivered(deliveries: Sequence[Delivery]) -> str:
    """Say how many records were delivered, each counted once."""
    taken = [each for each in deliveries if each.taken]
    records = count(sum(each.records for each in taken), "record")
    number = len(taken)
    return f"{records} in {number} {'delivery' if number == 1 else 'deliveries'}"


def series_rows(totals: Mapping[Series, Total]) -> Iterator[tuple[str, ...]]:
    """
    Yield a row for each series; for those that differ in a value only, one.

    More than `MOST_ALIKE` series with the same name and the same dimension
    names are shown together, with how many values each dimension had.
    """
    families: dict[tuple[object, ...], list[tuple[Series, Total]]] = {}
    for series, total in totals.items():
        names = tuple(name for name, _ in series.dimensions)
        key = (series.namespace, series.name, series.unit, names)
        families.setdefault(key, []).append((series, total))
    for family in families.values():
        if len(family) <= MOST_ALIKE:
            yield from (_row([member]) for member in family)
        else:
            yield _row(family)


def _row(family: Sequence[tuple[Series, Total]]) -> tuple[str, ...]:
    first = family[0][0]
    dimensions = []
    for position, (name, value) in enumerate(first.dimensions):
        values = {series.dimensions[position][1] for series, _ in family}
        shown = value if len(values) == 1 else f"({len(values)} values)"
        dimensions.append(f"{name}={shown}")
    return (
        first.namespace,
        first.name,
        first.unit,
        ", ".join(dimensions),
        str(sum(total.count for _, total in family)),
        f"{math.fsum(total.sum for _, total in family):.10g}",
    )


def tally(names: Iterable[str]) -> str:
    """Name each once, with how often it came if that was more than once."""
    return ", ".join(
        name if number == 1 else f"{name} ({number})"
        for name, number in Counter(names).items()
    )


def count(number: int, noun: str) -> str:
    """Say how many."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def milliseconds(seconds: float) -> str:
    """Say how long."""
    return f"{seconds * 1000:.1f} ms"


def shortened(text: str, most: int) -> str:
    """Return at most *most* characters of *text*, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
