"""
Was a run good?  Every loss that was seen is a reason against it.

A run is bad when something failed, when a metric or a value of the seed did
not end where it should, or when the process ended otherwise than Lambda wants.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .journal import ANSWERED, INIT_DONE, SEEN, SHUTDOWN_DONE, SHUTDOWN_STARTED
from .leaks import Leaks
from .words import TRACEBACK, count, dropped_words, milliseconds, numbered, shortened

if TYPE_CHECKING:
    from .outcomes import Invocation, Shutdown
    from .run import Result

MOST_WARNINGS = 8  # of the library's, that the verdict repeats
NAME = "lambda_ext"  # with which the library registers as an extension
SUMMARY = "lambda_ext.metrics_dropped"
NOT_STARTED = "lambda_ext.not_started"
MANY_SERIES = "lambda_ext.many_series note: "
MANY_VALUES = 100  # of a dimension, before the bill is mentioned
# What the library logs and has dealt with: a value that it has serves on.
DEALT_WITH = ("lambda_ext.refresh_failed", "lambda_ext.stale_served")
STRAY = re.compile(
    r"Traceback \(most recent call last\)|^Exception ignored in"
    r"|exception was never retrieved|was never awaited|destroyed but it is pending"
)


@dataclass(frozen=True)
class Check:
    """Something that is claimed of a run, whether it holds, and the evidence."""

    claim: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a run was good; *reasons* say why it was not, *notes* the rest."""

    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons


def judge(result: Result, *, allow_errors: bool = False) -> Verdict:
    """
    Say whether *result* is good: no failure, nothing lost, a clean exit.

    An invocation whose handler raised counts against it unless *allow_errors*;
    a time-out, a process that died or an answer that Lambda refuses always does.
    """
    reasons: list[str] = []
    notes: list[str] = []
    if result.interrupted is not None:
        reasons.append(f"interrupted by {result.interrupted}: this is not all")
    elif result.init.status != "success":
        reasons.append(f"INIT ended with {result.init.status}")
    failed: dict[str, list[int]] = {}
    allowed: list[int] = []
    for number, invocation in enumerate(result.invocations, 1):
        if allow_errors and _raised(invocation):
            allowed.append(number)
        elif invocation.status != "success":
            failed.setdefault(invocation.status, []).append(number)
    if allowed:
        notes.append(f"{_invocations(allowed)} raised, which is allowed")
    reasons.extend(
        f"{_invocations(numbers)} ended with {status}"
        for status, numbers in failed.items()
    )
    reasons.extend(_deaths(result))
    bad = sum(bool(line.checked.problems) for line in result.emf)
    if bad:
        reasons.append(f"{count(bad, 'line')} of metrics CloudWatch would drop")
    reasons.extend(_losses(result))
    reasons.extend(_unreported(result))
    reasons.extend(_leaked(result))
    _judge_warnings(result, reasons, notes)
    notes.extend(_billed(result))
    if result.uses("lambda_ext.testing"):
        notes.append(
            "the function imports lambda_ext.testing, whose doubles stand in for AWS"
        )
    refused = sum(bool(call.errors) for call in result.calls)
    if refused:
        notes.append(f"{count(refused, 'call')} to AWS failed")
    if result.init.status == "success" and result.interrupted is None:
        _judge_registration(result, reasons, notes)
        _judge_decoration(result, reasons, notes)
        for end in (*result.resets, result.shutdown):
            if end.reason == "spindown":
                _judge_end(result, end, reasons, notes)
    return Verdict(tuple(reasons), tuple(notes))


def _invocations(numbers: list[int]) -> str:
    return f"invocation{'' if len(numbers) == 1 else 's'} {numbered(numbers)}"


def _raised(invocation: Invocation) -> bool:
    """Say whether the handler raised; an answer too large is another matter."""
    platforms = ("Runtime.", "Function.", "Sandbox.")
    return invocation.status == "error" and not (
        invocation.error_type or ""
    ).startswith(platforms)


def _deaths(result: Result) -> Iterator[str]:
    """Yield each end of the process that no status of INIT or invocation tells."""
    last = ""  # how the latest INIT or invocation ended
    begun = False  # an end that no report has shown
    for event in result.journal.events:
        if event.kind == INIT_DONE:
            last = "INIT"
        elif event.kind == ANSWERED:
            last = event.what.status
        elif event.kind == SHUTDOWN_STARTED:
            begun = event.what == "failure" and last in ("success", "error")
        elif event.kind == SHUTDOWN_DONE and begun:
            yield (
                "the process ended after it had answered,"
                f" {exit_words(event.what.exit_status)}; what it held in memory is lost"
            )


def exit_words(status: int | None) -> str:
    """Say how a process ended."""
    if status is None or status >= 0:
        return f"with exit status {status}"
    return f"by signal {-status} ({signal.strsignal(-status) or 'unknown'})"


def _losses(result: Result) -> Iterator[str]:
    """Yield what the library counted and what never came out."""
    ends = [seen.what.get("metrics") for seen in result.seen if seen.kind == "end"]

    def total_of(counter: str) -> int:
        numbers = (end.get(counter) for end in ends if isinstance(end, dict))
        return sum(number for number in numbers if isinstance(number, int))

    written, waiting = total_of("documents"), total_of("waiting")
    if waiting:
        yield (
            f"{count(waiting, 'record')} of metrics never flushed: the process ended"
            " by os._exit before, or recorded to the end"
        )
    # What is imported may be unused: `from lambda_ext import *` imports it.
    doubled = any("MemorySink" in str(end.get("sinks")) for end in ends if end)
    if doubled and total_of("recorded") and not result.emf:
        yield "a double of lambda_ext.testing has taken the metrics"
    arrived = len(result.emf) + result.forwarded
    if not result.resets and arrived < written:
        yield (
            f"{count(written - arrived, 'line')} of metrics did not come out"
            " on the process's standard output"
        )
    dropped = result.dropped
    if dropped:
        total = sum(number for names in dropped.values() for number in names.values())
        yield (
            f"{count(total, 'record')} of metrics dropped:"
            f" {shortened('; '.join(dropped_words(dropped)), 300)}"
        )


def _unreported(result: Result) -> Iterator[str]:
    """Yield each orderly end of which the process has not told what it lost."""
    reported = False
    for event in result.journal.events:
        if event.kind == SEEN and event.what.kind == "end":
            metrics = event.what.what.get("metrics", {})
            # A forked child counts no documents.
            reported = reported or not metrics or "documents" in metrics
        elif event.kind == SHUTDOWN_DONE:
            if _is_orderly(event.what) and not reported:
                yield (
                    "the process has not told what it lost: the function closed a"
                    " descriptor that is not its own, or replaced the process"
                )
            reported = False


def _is_orderly(end: Shutdown) -> bool:
    return end.reason == "spindown" and end.signalled and end.exit_status == 0


def _leaked(result: Result) -> Iterator[str]:
    """Yield each value of the seed that stands where it should not."""
    found = Counter((leak.what, leak.where) for leak in result.leaks)
    for (what, where), number in found.items():
        times = f", {number} times" if number > 1 else ""
        yield f"the value of {what} stands in {where}{times}"


def _judge_warnings(result: Result, reasons: list[str], notes: list[str]) -> None:
    """Add a line for each thing that the library warned of."""
    redacted = Leaks(result.plan.seed).redacted
    found = Counter(
        shortened(_first_line(redacted(text)), 200) for text in result.warnings
    )
    for text in list(found):
        # The losses, and the registration, have reasons of their own.
        if text.startswith((SUMMARY, NOT_STARTED)):
            del found[text]
        elif text.startswith(MANY_SERIES):  # a bill, no loss
            del found[text]
            if not any(_billed(result)):  # the metrics went elsewhere
                notes.append(text.removeprefix(MANY_SERIES))
    grave = [text for text in found if not text.startswith(DEALT_WITH)]
    for text in grave[:MOST_WARNINGS]:
        times = f" ({found[text]} times)" if found[text] > 1 else ""
        reasons.append(f"warned: {text}{times}")
    if len(grave) > MOST_WARNINGS:
        reasons.append(f"and {count(len(grave) - MOST_WARNINGS, 'warning')} more")
    mild = sum(found.values()) - sum(found[text] for text in grave)
    if mild:
        notes.append(
            f"{count(mild, 'warning')} of loads that failed while an older value"
            " served on, see LOGS"
        )
    strays = sum(bool(STRAY.search(line.text)) for line in result.lines)
    failed = result.init.status != "success" or any(
        invocation.status != "success" for invocation in result.invocations
    )
    if strays and not failed and not grave:
        notes.append("there is a traceback in LOGS, although no invocation failed")


def _first_line(text: str) -> str:
    """Return the first line; where a traceback begins in it, with the error."""
    first, *others = text.strip().split("\n")
    if others and first.endswith(TRACEBACK):
        return first.removesuffix(TRACEBACK) + others[-1]
    return first


def _judge_registration(result: Result, reasons: list[str], notes: list[str]) -> None:
    """Say what is lost because the library is not registered as an extension."""
    if any(each.name.startswith(NAME) for each in result.extensions):
        return
    if not result.uses():
        return
    if any(text.startswith("lambda_ext.extension_") for text in result.warnings):
        return  # the warning says why, and is a reason already
    lost = _unstarted(result)
    if "extension" in _variable(result, "LAMBDA_EXT_DISABLE"):
        reasons.append(
            "LAMBDA_EXT_DISABLE: no extension is registered, so that Lambda sends no"
            " SIGTERM; what is recorded after the last flush is lost"
        )
    elif lost:
        reasons.append(
            f"handler is not decorated with @lambda_ext.handler; its {lost} are lost"
        )
    else:
        notes.append(
            "handler is not decorated with @lambda_ext.handler: values are not loaded"
            " during INIT, and SIGTERM is not seen"
        )


def _judge_decoration(result: Result, reasons: list[str], notes: list[str]) -> None:
    """Say what is lost because a function is decorated that Lambda does not call."""
    if not any(seen.what.get("begun") == 0 for seen in result.seen):
        return
    text = (
        f"{result.plan.handler} is not decorated with @lambda_ext.handler, though another"
        " function is: nothing is flushed at the end of an invocation, and no hook called"
    )
    lost = result.uses("lambda_ext.metrics.recorder")
    (reasons if lost else notes).append(text)


def _unstarted(result: Result) -> str:
    """Name what an undecorated handler loses; "" where it is nothing."""
    for text in result.warnings:
        if text.startswith(NOT_STARTED):
            return text.partition("lost=")[2].partition(":")[0] or "metrics"
    return "metrics" if result.uses("lambda_ext.metrics.recorder") else ""


def _variable(result: Result, name: str) -> str:
    """Return a variable of the function, which has this shell's too."""
    return result.plan.environment.get(name, os.environ.get(name)) or ""


def _billed(result: Result) -> Iterator[str]:
    """Yield the dimensions that have so many values that they cost a noticeable amount."""
    values: dict[str, set[str]] = {}
    for series in result.totals:
        for name, value in series.dimensions:
            values.setdefault(name, set()).add(value)
    for name, different in values.items():
        if len(different) > MANY_VALUES:
            yield f"{name!r} has {len(different):,} values; each is a billed metric"


def _judge_end(
    result: Result, shutdown: Shutdown, reasons: list[str], notes: list[str]
) -> None:
    if shutdown.exit_status is None:
        return  # it had ended before, for which there is a reason already
    if not shutdown.signalled and shutdown.exit_status != -9:
        reasons.append(
            f"the process ended of itself, with exit status {shutdown.exit_status}"
        )
    elif not shutdown.signalled:
        notes.append("Lambda kills this process without SIGTERM, see SHUTDOWN")
    elif shutdown.killed:
        reasons.append(
            f"the runtime was still there {milliseconds(shutdown.share_s)} after SIGTERM"
            " and was killed"
        )
    elif shutdown.exit_status == -signal.SIGTERM:
        if result.uses():
            reasons.append(
                "nothing handles SIGTERM, so that the process died of it at once;"
                " what was recorded after the last flush is lost"
            )
        else:
            notes.append("nothing handles SIGTERM: the process died of it at once")
    elif shutdown.exit_status != 0:
        reasons.append(f"the runtime ended {exit_words(shutdown.exit_status)}")
