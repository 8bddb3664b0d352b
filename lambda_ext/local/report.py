"""
The report of a run, for the person who started it.

On a terminal it has colour and a spinner; elsewhere, and with NO_COLOR or
`plain`, it is text that reads the same in a log file.  Progress goes to the
standard error, the report to the standard output.

Names of secrets appear in it, values never: in what the function wrote, raised
or answered, the name of the secret stands in place of a value of the seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .journal import DELIVERED
from .leaks import Leaks
from .seeds import Seed
from .verdict import exit_words
from .words import (
    AS_ABOVE,
    client,
    count,
    delivered,
    dropped_words,
    error_lines,
    frame_lines,
    init_trouble,
    log_lines,
    milliseconds,
    missing,
    numbered,
    registered,
    series_rows,
    shortened,
    status_rows,
    tally,
)

if TYPE_CHECKING:
    from .aws_server import AwsCall
    from .outcomes import Invocation, Shutdown
    from .run import Progress, Result
    from .verdict import Check, Verdict

Cell = str | Text

MOST_LOGS = 60  # lines of output that are shown unasked
MOST_SERIES = 40
MOST_ERRORS = 5  # different ones
MANY = 20  # invocations; more are shown by status
PLAIN_ANSWER = 60  # characters of an answer in a row, where lines have no width
SHORT_ANSWER = 20  # what every row has room for
INDENT, GAP = 2, 2  # of what stands under a title; between columns
LEAST_SOFT = 16  # the least width of a column that is broken between words
PROGRESS_S = 3.0  # between two lines about steps of the same kind
BOILERPLATE = "LAMBDA_WARNING: Unhandled exception."  # the runtime client's advice
GOOD, BAD, FAINT, HEAD = "green", "bold red", "dim", "bold"


def consoles(*, plain: bool = False) -> tuple[Console, Console]:
    """Return the console of the report and that of progress."""
    return _console(sys.stdout, plain=plain), _console(sys.stderr, plain=plain)


class _Console(Console):
    """Lets the command decide what a reader means that has gone away."""

    def on_broken_pipe(self) -> None:
        """Raise what `rich` would make an exit of the interpreter."""
        raise BrokenPipeError


def _console(file: Any, *, plain: bool) -> Console:
    if plain or os.environ.get("NO_COLOR") or not file.isatty():
        return _Console(file=file, color_system=None, force_terminal=False)
    return _Console(file=file, highlight=False, emoji=False)


@contextlib.contextmanager
def progress(
    console: Console, now: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """
    Show the step under way: a spinner on a terminal, else lines.

    Of steps whose words begin alike, a line comes every `PROGRESS_S` seconds.
    """
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda step: status.update(escape(step))
        return
    last = ("", 0.0)

    def line(step: str) -> None:
        nonlocal last
        kind, at = step.split(" ", 1)[0], now()
        if kind != last[0] or at - last[1] >= PROGRESS_S:
            last = kind, at
            console.out(f"... {step}", highlight=False)

    yield line


class Report:
    """Prints a `Result`, section by section."""

    def __init__(self, console: Console, *, title: str | None = None) -> None:
        self.console = console
        self.fancy = console.is_terminal
        self._title_of_all = title
        self._leaks = Leaks(Seed())

    def all(
        self,
        result: Result,
        verdict: Verdict,
        *,
        logs: bool = False,
        responses: bool = False,
    ) -> None:
        """Print every section, and the verdict."""
        self.sections(result, verdict, logs=logs, responses=responses)
        self.verdict(verdict)

    def sections(
        self,
        result: Result,
        verdict: Verdict,
        *,
        logs: bool = False,
        responses: bool = False,
    ) -> None:
        """Print every section that has something to say, without the verdict."""
        self._leaks = Leaks(result.plan.seed)
        self.head(result)
        self.init(result)
        if result.invocations:
            self.invocations(result, responses=responses)
            self.cost(result)
        self.calls(result)
        if result.init.status == "success" or result.emf or result.dropped:
            self.metrics(result)
        self.telemetry(result)
        told = any("LOGS" in note for note in verdict.notes)
        if logs or told or not verdict.good or result.warnings:
            self.logs(result, everything=logs)
        if result.init.status == "success":
            self.end(result)

    def head(self, result: Result) -> None:
        """Print what was run, and where."""
        plan = result.plan
        title = self._title_of_all or f"lambda-ext run {plan.handler}"
        self.console.print(Text(title, HEAD), soft_wrap=True)
        where = "AWS itself" if plan.real_aws else "AWS on loopback"
        python = "Python " + platform.python_version()
        if plan.python != sys.executable:
            python = plan.python
        what = f"function {plan.function_name}"
        if self._title_of_all is not None:
            what = f"python -m awslambdaric {plan.handler}, {what}"
        self._line(
            f"{what}, {python}, {plan.memory_mb} MB,"
            f" time-out {plan.timeout_s:g} s, {'freezes' if plan.freeze else 'no freeze'}"
            f" between invocations, {where}"
        )

    def init(self, result: Result) -> None:
        """Print how INIT went, and what to change if it went wrong."""
        init = result.init
        self._title("INIT")
        self._line(
            Text.assemble(
                _status(init.status),
                f"  {milliseconds(init.duration_s)}",
                f"  extensions: {registered(result.extensions)}",
            )
        )
        if init.status not in ("success", "interrupted"):
            plan = result.plan
            for line in init_trouble(init, plan.handler, plan.task_root, plan.python):
                self._line(line)

    def invocations(self, result: Result, *, responses: bool = False) -> None:
        """Print each invocation, or each status if they are many, and the errors."""
        self._title("INVOKE")
        invocations = result.invocations
        if len(invocations) > MANY:
            self._table(
                ("status", ">number", ">cold", ">p50", ">p90", ">p99", ">max"),
                [
                    (_status(status), *cells)
                    for status, *cells in status_rows(invocations)
                ],
            )
        else:
            self._rows(invocations)
        shown: list[list[str]] = []
        for text, frames in self._errors(invocations):
            self._line(Text(text, BAD))
            for frame in [AS_ABOVE] if frames and frames in shown else frames:
                self._line(frame)
            shown.append(frames)
        if responses or len(invocations) == 1:
            for number, invocation in enumerate(invocations, 1):
                self._response(number, invocation, one=len(invocations) == 1)

    def _rows(self, invocations: Sequence[Invocation]) -> None:
        rows = [
            (
                str(number),
                invocation.request_id[:8],
                _status(invocation.status),
                milliseconds(invocation.duration_s),
                "cold" if number == 1 or invocation.init is not None else "",
                self._answer(invocation),
            )
            for number, invocation in enumerate(invocations, 1)
        ]
        columns = ("#", "request id", "status", ">duration", "", "*returned")
        taken = sum(
            max(len(name.strip(">*")), *(len(str(row[index])) for row in rows)) + GAP
            for index, name in enumerate(columns[:-1])
        )
        room = PLAIN_ANSWER
        if self.fancy:
            room = max(LEAST_SOFT, self.console.width - taken - INDENT)
        self._table(
            columns, [(*row[:-1], shortened(str(row[-1]), room)) for row in rows]
        )

    def _answer(self, invocation: Invocation) -> str:
        """Return what the handler returned, as text without values of the seed."""
        if invocation.status != "success":
            return ""
        return self._leaks.redacted(invocation.payload.decode("utf-8", "replace"))

    def _response(self, number: int, invocation: Invocation, *, one: bool) -> None:
        """Print all that the handler returned; nothing if its row shows it."""
        text = self._answer(invocation)
        if not text or (one and len(text) <= SHORT_ANSWER and "\n" not in text):
            return
        with contextlib.suppress(ValueError):  # other text stays as it is
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        self._line(f"{number} returned:")
        for line in text.splitlines():
            self._line("  " + line)

    def _errors(
        self, invocations: Sequence[Invocation]
    ) -> Iterator[tuple[str, list[str]]]:
        """Yield each different error once, with the numbers of its invocations."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, invocation in enumerate(invocations, 1):
            if invocation.status != "success":
                groups.setdefault(tuple(error_lines(invocation)), []).append(number)
        for (first, *frames), numbers in list(groups.items())[:MOST_ERRORS]:
            yield f"{numbered(numbers)}: {first}", frames
        if len(groups) > MOST_ERRORS:
            yield f"and {count(len(groups) - MOST_ERRORS, 'other error')}", []

    def cost(self, result: Result) -> None:
        """Print what the cold start cost, in time and memory."""
        parts = []
        if result.cold_start_s is not None:
            parts.append(f"cold start {milliseconds(result.cold_start_s)} with INIT")
        if result.peak_memory_mb is not None:
            parts.append(f"peak memory {result.peak_memory_mb:.0f} MB")
        if parts:
            self._line(", ".join(parts))

    def calls(self, result: Result) -> None:
        """Print the calls that AWS got, by operation, with names and errors."""
        self._title("AWS")
        if result.plan.real_aws:
            self._line("calls went to AWS itself; they are not recorded here")
            return
        if not result.calls:
            self._line("no call was made")
            return
        groups: dict[tuple[str, str], list[AwsCall]] = {}
        for call in result.calls:
            groups.setdefault((call.service, call.operation), []).append(call)
        self._table(
            ("service", "operation", ">calls", "*names"),
            [
                (
                    service,
                    operation,
                    str(len(calls)),
                    tally(name for call in calls for name in call.names),
                )
                for (service, operation), calls in groups.items()
            ],
        )
        for (_, operation), calls in groups.items():
            errors = tally(code for call in calls for code in call.errors)
            if errors:
                self._line(Text(f"{operation}: {errors}", BAD))
        for line in missing(result.calls, result.plan.seed):
            self._line(line)
        clients = dict.fromkeys(client(call.agent) for call in result.calls)
        self._line(f"called by {', '.join(clients)}")

    def metrics(self, result: Result) -> None:
        """Print each series that CloudWatch would have, and each bad line."""
        self._title("METRICS")
        for words in dropped_words(result.dropped):
            self._line(Text(f"dropped by the library: {words}", BAD))
        if result.forwarded:
            lines = count(result.forwarded, "line")
            self._line(f"{lines} of metrics for Datadog's Forwarder, not checked")
        if not result.emf:
            self._line("no metric was written" + " as EMF" * bool(result.forwarded))
            return
        bad = [line for line in result.emf if line.checked.problems]
        self._line(
            f"{count(len(result.emf), 'line')} of EMF checked:"
            f" {len(result.emf) - len(bad)} valid, {len(bad)} not"
        )
        if result.totals:
            rows = list(series_rows(result.totals))
            self._table(
                ("namespace", "name", "unit", "*dimensions", ">points", ">sum"),
                rows[:MOST_SERIES],
            )
            if len(rows) > MOST_SERIES:
                self._line(f"and {len(rows) - MOST_SERIES} more")
        for line in bad:
            for problem in line.checked.problems:
                self._line(Text(f"dropped by CloudWatch: {problem}", BAD))

    def telemetry(self, result: Result) -> None:
        """Print what was delivered to each extension that subscribed."""
        if not any(extension.telemetry for extension in result.extensions):
            return
        self._title("TELEMETRY")
        deliveries = result.journal.of(DELIVERED)
        for extension in result.extensions:
            mine = [each for each in deliveries if each.name == extension.name]
            if extension.telemetry:
                self._line(f"{extension.name}: {delivered(mine)}")
            bad = tally(
                "no answer" if each.status is None else str(each.status)
                for each in mine
                if not each.taken
            )
            if bad:
                self._line(Text(f"{extension.name} did not take all: {bad}", BAD))

    def logs(self, result: Result, *, everything: bool = True) -> None:
        """Print what the function wrote, without metrics and blank lines."""
        told = [
            list(error_lines(each))[1:]
            for each in result.invocations
            if each.status != "success"
        ]
        told.append(list(frame_lines(result.init.error)))
        lines = [
            (line.source, text)
            for line, text in log_lines(result.lines, told)
            if everything or BOILERPLATE not in text
        ]
        if not lines:
            return
        self._title("LOGS")
        shown = lines if everything else lines[-MOST_LOGS:]
        if len(shown) < len(lines):
            left_out = len(lines) - len(shown)
            self._line(f"({left_out} lines before these; --logs shows all)")
        for source, text in shown:
            self._line(Text(text, FAINT if source == "stdout" else ""))

    def end(self, result: Result) -> None:
        """Print what happened between SIGTERM and the exit, each time."""
        self._title("SHUTDOWN")
        for shutdown in (*result.resets, result.shutdown):
            if shutdown.exit_status is not None:
                self._line(_ended(shutdown))
        if result.interrupted is not None:
            self._line(f"{result.interrupted}: every process was killed")
        elif result.shutdown.exit_status is None:
            self._line("there was no process left to end")

    def verdict(self, verdict: Verdict) -> None:
        """Print whether all of that is good, and why not."""
        self._title("VERDICT")
        for note in verdict.notes:
            self._line(f"note: {note}")
        for reason in verdict.reasons:
            self._line(Text(f"bad: {reason}", BAD))
        if verdict.good:
            self._line(Text("good", f"bold {GOOD}"))

    def checks(self, title: str, checks: Sequence[Check]) -> None:
        """Print claims, and for each whether it holds and by what evidence."""
        self._title(title)
        self._table(
            ("", "claim", "*evidence"),
            [
                (
                    Text("yes", GOOD) if check.holds else Text("NO", BAD),
                    check.claim,
                    check.detail,
                )
                for check in checks
            ],
        )

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]
    ) -> None:
        """Print a table; a column whose name begins with ">" is aligned right."""
        self._title(title)
        self._table(columns, rows)

    def cold_starts(self, rows: Sequence[tuple[str, float, float | None]]) -> None:
        """Print (what, seconds, MB) side by side, and what each is beyond the first."""
        self._title("COLD START")
        _, base_s, base_mb = rows[0]
        table = []
        for what, seconds, memory_mb in rows:
            first = what == rows[0][0]
            more_mb = memory_mb is not None and base_mb is not None and not first
            table.append(
                (
                    what,
                    milliseconds(seconds),
                    "" if first else f"{(seconds - base_s) * 1000:+.1f} ms",
                    "" if memory_mb is None else f"{memory_mb:.0f} MB",
                    f"{(memory_mb or 0) - (base_mb or 0):+.0f} MB" if more_mb else "",
                )
            )
        self._table(
            ("", ">INIT + first invocation", ">beyond", ">peak memory", ">beyond"),
            table,
        )

    # How it looks.

    def _title(self, text: str) -> None:
        self.console.print()
        if self.fancy:
            self.console.rule(Text(text, HEAD), align="left", style=FAINT)
        else:
            self.console.out(text, highlight=False)

    def _line(self, content: str | Text) -> None:
        """Print one paragraph; only a terminal breaks it."""
        if isinstance(content, str):
            content = self._leaks.redacted(content)
        else:
            content = self._redacted(content)
        if self.fancy:
            self.console.print(Padding(content, (0, 0, 0, INDENT)), markup=False)
        else:
            self.console.out("  " + str(content), highlight=False)

    def _redacted(self, text: Text) -> Text:
        """Return *text* without values of the seed; then without inner styles."""
        plain = self._leaks.redacted(text.plain)
        return text if plain == text.plain else Text(plain, text.style)

    def _table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """
        Print *rows* under *columns*.

        ">" before a column's name puts it flush right.  On a terminal only the
        column with "*" is broken, between words; where there is no room for
        it, or for the others, each row is a list.
        """
        names = [name.lstrip(">*") for name in columns]
        right = [name.startswith(">") for name in columns]
        texts = [
            [
                self._redacted(cell if isinstance(cell, Text) else Text(cell))
                for cell in row
            ]
            for row in rows
        ]
        widths = [
            max([len(name), *(cell.cell_len for cell in cells)])
            for name, cells in zip(names, zip(*texts, strict=True), strict=True)
        ]
        if not self.fancy:
            for row in ([Text(name) for name in names], *texts):
                cells = (
                    cell.plain.rjust(width) if flush else cell.plain.ljust(width)
                    for cell, width, flush in zip(row, widths, right, strict=True)
                )
                self._line("  ".join(cells).rstrip())
            return
        soft = [name.startswith("*") for name in columns]
        rigid = sum(w for w, is_soft in zip(widths, soft, strict=True) if not is_soft)
        words = [
            len(word)
            for row in texts
            for cell, is_soft in zip(row, soft, strict=True)
            if is_soft
            for word in cell.plain.split()
        ]
        least = max([LEAST_SOFT, *words])
        gaps = GAP * (len(columns) - 1) + INDENT
        fits = rigid + gaps <= self.console.width
        apart = any(words) and fits and rigid + gaps + least > self.console.width
        table = Table(
            box=None, header_style=HEAD, pad_edge=False, padding=(0, GAP, 0, 0)
        )
        for name, flush, is_soft in zip(names, right, soft, strict=True):
            if not (apart and is_soft):
                justify: Literal["left", "right"] = "right" if flush else "left"
                table.add_column(
                    name, justify=justify, overflow="fold", no_wrap=fits and not is_soft
                )
        if not apart:
            for row in texts:
                table.add_row(*row)
            self.console.print(Padding(table, (0, 0, 0, INDENT)))
            return
        # What is soft stands under its row, where there is a whole line for it.
        for row in texts:
            both = zip(row, soft, strict=True)
            table.add_row(*(cell for cell, is_soft in both if not is_soft))
        lines = self.console.render_lines(table, pad=False)
        for number, line in enumerate(lines):
            self._line(Text.assemble(*((part.text, part.style or "") for part in line)))
            row = texts[number - 1] if number else []
            for cell, is_soft in zip(row, soft, strict=False):
                if is_soft and cell.plain:
                    self.console.print(Padding(cell, (0, 0, 0, 2 * INDENT)))


def _ended(shutdown: Shutdown) -> Text:
    if not shutdown.signalled:
        if shutdown.exit_status == -signal.SIGKILL and not shutdown.budget_s:
            return Text(
                f"{shutdown.reason}: killed without SIGTERM, since no extension is"
                " registered; what the process held in memory is lost"
            )
        how = exit_words(shutdown.exit_status).removeprefix("with ")
        return Text(f"{shutdown.reason}: it had ended before, {how}", BAD)
    took = f"{milliseconds(shutdown.duration_s)} of {milliseconds(shutdown.share_s)} allowed"
    if shutdown.killed:
        return Text.assemble(
            f"{shutdown.reason}: SIGTERM, ", (f"killed after {took}", BAD)
        )
    return Text.assemble(
        f"{shutdown.reason}: SIGTERM, ",
        ("ended by itself", GOOD),
        f" after {took}, exit status {shutdown.exit_status}",
    )


def _status(status: str) -> Text:
    return Text(status, GOOD if status == "success" else BAD)
