"""
``platform.report`` of an invocation, beside what this process knows of it.

A report is made when the environment is about to freeze, so it arrives during
the next invocation: `current` then describes another one.  Here each report finds
the outcome of the invocation that it is about, by request id.

Guarantees
    The last `MAX_OUTCOMES` outcomes are kept; none without a call of `on_report` or
    `follow`.
    Each function gets each report, in the order of arrival, also where
    the invocation is not known.  A function is a consumer of its own, see `dispatch`.
"""

from __future__ import annotations

from ..callables import refuse_coroutine
from ..lifecycle import invocations, phases, process
from . import dispatch, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

MAX_OUTCOMES = 100

_outcomes: dict[str, invocations.Outcome] = {}  # by request id, the oldest first
_lock = process.Lock()
_follows = False


def follow() -> None:
    """Keep the outcome of each invocation from now on, until its report arrives."""
    global _follows
    if not _follows:
        phases.listen_once(phases.RESPONSE, _note, priority=phases.EARLY)
        _follows = True


def outcome_of(request_id: str | None) -> invocations.Outcome | None:
    """Return what is known of an invocation; None if it is not, or no longer."""
    return None if request_id is None else _outcomes.get(request_id)


def on_report(function: F) -> F:
    """
    Call *function* with each ``platform.report`` and the outcome it belongs to.

        @telemetry.on_report
        def report(record, outcome):
            print(record.request_id, record.billed_duration_ms)

    It is called on a thread of its own, during a later invocation than the one
    that is reported, or while the environment ends; *outcome* (`lambda_ext.Outcome`,
    None where the invocation is not known here) tells which one it was.  The
    platform's records have to be subscribed to: ``telemetry.subscribe()``.

    Raises:
        ConfigurationError: what is decorated cannot be called, or has to be awaited.
    """
    dispatch.refuse_unless_plain(function, "on_report")
    follow()
    dispatch.consumers.append(_consumer(function))
    return function


def _note() -> None:
    """Keep the outcome of the invocation that ends in this thread."""
    outcome = invocations.Outcome()
    request_id = outcome.request_id
    if request_id is None:
        return
    with _lock:
        _outcomes[request_id] = outcome
        _make_room()


def _make_room() -> None:
    while len(_outcomes) > MAX_OUTCOMES:
        del _outcomes[next(iter(_outcomes))]


def _consumer(function: Callable[..., object]) -> dispatch.Consumer:
    """Return what hands the reports of a batch to *function*."""

    def consume(batch: records.Batch) -> None:
        raised: BaseException | None = None
        for record in batch:
            if isinstance(record, records.Report):
                try:
                    outcome = outcome_of(record.request_id)
                    refuse_coroutine(function(record, outcome), "the consumer")
                except BaseException as exc:  # the next report is handed on, too
                    raised = exc
        if raised is not None:
            raise raised  # where it is counted and logged

    consume.wrapped = function  # type: ignore[attr-defined]  # whose name is logged
    return consume


@process.at_fork
def _forked() -> None:
    """Forget all outcomes, in a forked child: the invocations are the parent's."""
    _outcomes.clear()


@process.at_reset
def reset() -> None:
    """Follow no invocation, as if this were just imported."""
    global _follows
    _follows = False
    _outcomes.clear()
