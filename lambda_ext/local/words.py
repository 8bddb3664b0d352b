"""What a run says, in words and rows: no printing, no colour."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .emf_check import Series, Total
    from .outcomes import InitReport, Invocation, Registration

LIGHT = "lambda_ext (light)"  # the library's own client, which is not boto3
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
    message = error.get("errorMessage") or ""
    yield f"{kind}: {message}" if kind else str(message)
    for frame in error.get("stackTrace") or ():
        yield from str(frame).rstrip().splitlines()


def init_trouble(
    init: InitReport, handler: str, task_root: str, python: str
) -> Iterator[str]:
    """Yield why INIT went wrong, in the runtime's words, and what to change."""
    error = init.error if isinstance(init.error, dict) else {}
    kind = error.get("errorType") or init.error_type or ""
    message = str(error.get("errorMessage") or "")
    yield f"{kind}: {message}" if message else kind or "the process said nothing"
    for frame in error.get("stackTrace") or ():
        yield from str(frame).rstrip().splitlines()
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


def registered(extensions: Iterable[Registration]) -> str:
    """Name the extensions of the environment."""
    names = (
        f"{extension.name} ({'internal' if extension.internal else 'external'})"
        for extension in extensions
    )
    return ", ".join(names) or "none"


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
