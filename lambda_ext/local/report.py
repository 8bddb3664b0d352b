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
import os
import platform
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .leaks import Leaks
from .seeds import Seed
from .words import (
    client,
    count,
    error_lines,
    init_trouble,
    milliseconds,
    registered,
    series_rows,
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
BOILERPLATE = "LAMBDA_WARNING: Unhandled exception."  # the runtime client's advice
GOOD, BAD, FAINT, HEAD = "green", "bold red", "dim", "bold"


def consoles(*, plain: bool = False) -> tuple[Console, Console]:
    """Return the console of the report and that of progress."""
    return _console(sys.stdout, plain=plain), _console(sys.stderr, plain=plain)


def _console(file: Any, *, plain: bool) -> Console:
    if plain or os.environ.get("NO_COLOR") or not file.isatty():
        return Console(file=file, color_system=None, force_terminal=False)
    return Console(file=file, highlight=False, emoji=False)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Show the step under way: a spinner on a terminal, else a line each."""
    if not console.is_terminal:
        yield lambda step: console.out(f"... {step}", highlight=False)
        return
    with console.status("starting") as status:
        yield lambda step: status.update(escape(step))


class Report:
    """Prints a `Result`, section by section."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.fancy = console.is_terminal
        self._leaks = Leaks(Seed())

    def all(self, result: Result, verdict: Verdict, *, logs: bool = False) -> None:
        """Print every section, and the verdict."""
        self.sections(result, verdict, logs=logs)
        self.verdict(verdict)

    def sections(self, result: Result, verdict: Verdict, *, logs: bool = False) -> None:
        """Print every section that has something to say, without the verdict."""
        self._leaks = Leaks(result.plan.seed)
        self.head(result)
        self.init(result)
        if result.invocations:
            self.invocations(result.invocations)
            self.cost(result)
        self.calls(result)
        if result.init.status == "success":
            self.metrics(result)
        if logs or not verdict.good or result.warnings:
            self.logs(result, everything=logs)
        if result.init.status == "success":
            self.end(result)

    def head(self, result: Result) -> None:
        """Print what was run, and where."""
        plan = result.plan
        self.console.print(Text(f"lambda-ext run {plan.handler}", HEAD), soft_wrap=True)
        where = "AWS itself" if plan.real_aws else "AWS on loopback"
        python = "Python " + platform.python_version()
        if plan.python != sys.executable:
            python = plan.python
        self._line(
            f"function {plan.function_name}, {python}, {plan.memory_mb} MB,"
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
        if init.status != "success":
            plan = result.plan
            for line in init_trouble(init, plan.handler, plan.task_root, plan.python):
                self._line(line)

    def invocations(self, invocations: Sequence[Invocation]) -> None:
        """Print a row for each invocation, and the errors under them."""
        self._title("INVOKE")
        self._table(
            ("#", "request id", "status", ">duration", ""),
            [
                (
                    str(number),
                    invocation.request_id,
                    _status(invocation.status),
                    milliseconds(invocation.duration_s),
                    "cold" if number == 1 or invocation.init is not None else "",
                )
                for number, invocation in enumerate(invocations, 1)
            ],
        )
        for number, invocation in enumerate(invocations, 1):
            if invocation.status != "success":
                first, *frames = error_lines(invocation)
                self._line(Text(f"{number}: {first}", BAD))
                for frame in frames:
                    self._line(frame)

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
        groups: dict[tuple[str, str, str], list[AwsCall]] = {}
        for call in result.calls:
            key = (call.service, call.operation, client(call.agent))
            groups.setdefault(key, []).append(call)
        self._table(
            ("service", "operation", ">calls", "names", "errors", "by"),
            [
                (
                    service,
                    operation,
                    str(len(calls)),
                    tally(name for call in calls for name in call.names),
                    Text(tally(code for call in calls for code in call.errors), BAD),
                    by,
                )
                for (service, operation, by), calls in groups.items()
            ],
        )

    def metrics(self, result: Result) -> None:
        """Print each series that CloudWatch would have, and each bad line."""
        self._title("METRICS")
        if not result.emf:
            self._line("no metric was written")
            return
        bad = [line for line in result.emf if line.checked.problems]
        self._line(
            f"{count(len(result.emf), 'line')} of EMF checked:"
            f" {len(result.emf) - len(bad)} valid, {len(bad)} not"
        )
        if result.totals:
            rows = list(series_rows(result.totals))
            self._table(
                ("namespace", "name", "unit", "dimensions", ">points", ">sum"),
                rows[:MOST_SERIES],
            )
            if len(rows) > MOST_SERIES:
                self._line(f"and {len(rows) - MOST_SERIES} more")
        for line in bad:
            for problem in line.checked.problems:
                self._line(Text(f"dropped by CloudWatch: {problem}", BAD))

    def logs(self, result: Result, *, everything: bool = True) -> None:
        """Print what the function wrote, without the metrics."""
        lines = [
            line for line in result.lines if everything or BOILERPLATE not in line.text
        ]
        if not lines:
            return
        self._title("LOGS")
        shown = lines if everything else lines[-MOST_LOGS:]
        if len(shown) < len(lines):
            left_out = len(lines) - len(shown)
            self._line(f"({left_out} lines before these; --logs shows all)")
        for line in shown:
            # The runtime client writes "\r" where a record has several lines.
            for text in line.text.replace("\r", "\n").splitlines() or [""]:
                self._line(Text(text, FAINT if line.source == "stdout" else ""))

    def end(self, result: Result) -> None:
        """Print what happened between SIGTERM and the exit, each time."""
        self._title("SHUTDOWN")
        for shutdown in (*result.resets, result.shutdown):
            if shutdown.exit_status is not None:
                self._line(_ended(shutdown))
        if result.shutdown.exit_status is None:
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
            ("", "claim", "evidence"),
            [
                (
                    Text("yes", GOOD) if check.holds else Text("NO", BAD),
                    check.claim,
                    check.detail,
                )
                for check in checks
            ],
        )

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
                    "" if first else f"+{milliseconds(seconds - base_s)}",
                    "" if memory_mb is None else f"{memory_mb:.0f} MB",
                    f"+{(memory_mb or 0) - (base_mb or 0):.0f} MB" if more_mb else "",
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
            self.console.print(Padding(content, (0, 0, 0, 2)), markup=False)
        else:
            self.console.out("  " + str(content), highlight=False)

    def _redacted(self, text: Text) -> Text:
        """Return *text* without values of the seed; then without inner styles."""
        plain = self._leaks.redacted(text.plain)
        return text if plain == text.plain else Text(plain, text.style)

    def _table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Print *rows*; a column whose name begins with ">" is flush right."""
        rows = [
            [
                self._redacted(cell if isinstance(cell, Text) else Text(cell))
                for cell in row
            ]
            for row in rows
        ]
        names = [name.removeprefix(">") for name in columns]
        right = [name.startswith(">") for name in columns]
        if self.fancy:
            table = Table(box=box.SIMPLE_HEAD, header_style=HEAD, pad_edge=False)
            for name, flush in zip(names, right, strict=True):
                justify: Literal["left", "right"] = "right" if flush else "left"
                table.add_column(name, justify=justify, overflow="fold")
            for row in rows:
                table.add_row(*row)
            self.console.print(Padding(table, (0, 0, 0, 2)))
            return
        texts = [names, *([str(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for text in texts:
            cells = (
                cell.rjust(width) if flush else cell.ljust(width)
                for cell, width, flush in zip(text, widths, right, strict=True)
            )
            self._line("  ".join(cells).rstrip())


def _ended(shutdown: Shutdown) -> Text:
    if not shutdown.signalled:
        if shutdown.exit_status == -signal.SIGKILL:
            return Text(
                f"{shutdown.reason}: killed without SIGTERM, since no extension is"
                " registered; what the process held in memory is lost"
            )
        return Text(
            f"{shutdown.reason}: it had ended before, exit status"
            f" {shutdown.exit_status}",
            BAD,
        )
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
