"""A run as one JSON document, for programs: what the report says, and every event."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import journal
from .leaks import Leaks
from .words import client

if TYPE_CHECKING:
    from .outcomes import Invocation, Shutdown
    from .run import Result
    from .verdict import Verdict

VERSION = 1  # of the document; members may be added within one


def document(result: Result, verdict: Verdict) -> str:
    """Return JSON text in ASCII, for any terminal; it holds no value of the seed."""
    plan = result.plan
    first = result.invocations[0] if result.invocations else None
    whole = {
        "version": VERSION,
        "verdict": {
            "good": verdict.good,
            "reasons": verdict.reasons,
            "notes": verdict.notes,
        },
        "interrupted": result.interrupted,
        "handler": plan.handler,
        "function": plan.function_name,
        "region": plan.region,
        "init": {
            "status": result.init.status,
            "duration_s": result.init.duration_s,
            "error_type": result.init.error_type,
            "error": result.init.error,
            "extensions": [dataclasses.asdict(each) for each in result.extensions],
        },
        "cold_start_s": result.cold_start_s,
        "peak_memory_mb": result.peak_memory_mb,
        "invocations": [
            _invocation(invocation, cold=invocation is first or bool(invocation.init))
            for invocation in result.invocations
        ],
        "aws": None
        if plan.real_aws
        else [
            {**dataclasses.asdict(call), "client": client(call.agent)}
            for call in result.calls
        ],
        "metrics": {
            "lines": len(result.emf),
            "dropped": result.dropped,
            "problems": [p for line in result.emf for p in line.checked.problems],
            "series": [
                {
                    "namespace": series.namespace,
                    "name": series.name,
                    "unit": series.unit,
                    "dimensions": dict(series.dimensions),
                    "points": total.count,
                    "sum": total.sum,
                    "minimum": total.minimum,
                    "maximum": total.maximum,
                }
                for series, total in result.totals.items()
            ],
        },
        "warnings": result.warnings,
        "leaks": [dataclasses.asdict(leak) for leak in result.leaks],
        "logs": [dataclasses.asdict(line) for line in result.lines],
        "shutdowns": [_shutdown(end) for end in (*result.resets, result.shutdown)],
        "events": [
            {"at": event.at, "kind": event.kind, **_about(event)}
            for event in result.journal.events
        ],
    }
    leaks = Leaks(plan.seed)
    return json.dumps(_redacted(whole, leaks), allow_nan=False)


def _invocation(invocation: Invocation, *, cold: bool) -> dict[str, Any]:
    try:
        payload = json.loads(invocation.payload or b"null")
    except ValueError:
        payload = invocation.payload.decode("utf-8", "replace")
    return {
        "request_id": invocation.request_id,
        "status": invocation.status,
        "duration_s": invocation.duration_s,
        "cold": cold,
        "error_type": invocation.error_type,
        "payload": payload,
    }


def _shutdown(end: Shutdown) -> dict[str, Any]:
    return dataclasses.asdict(end)


def _about(event: journal.Event) -> dict[str, Any]:
    """Return what an event holds, as far as it stands nowhere else in the document."""
    what = event.what
    if event.kind == journal.ANSWERED:
        return {"request_id": what.request_id, "status": what.status}
    if event.kind in (journal.INIT_DONE, journal.RESTORE_DONE):
        return {"status": what.status, "duration_s": what.duration_s}
    if event.kind == journal.SHUTDOWN_DONE:
        return {"reason": what.reason, "exit_status": what.exit_status}
    if event.kind == journal.STEP:
        return {"step": type(what).__name__.lower(), "title": what.title()}
    if event.kind == journal.SEEN:
        return {"saw": what.kind, **what.what}
    if event.kind == journal.AWS_CALL:
        return {"service": what.service, "operation": what.operation}
    if event.kind == journal.LINE:
        return {"source": what.source, "text": what.text}
    if event.kind in (journal.INVOKE_STARTED, journal.INVOKE_DONE):
        return {"request_id": what}
    if event.kind in (journal.INIT_STARTED, journal.SHUTDOWN_STARTED):
        return {"why": what}
    if dataclasses.is_dataclass(what) and not isinstance(what, type):
        return {k: v for k, v in dataclasses.asdict(what).items() if k != "at"}
    return {}


def _redacted(value: Any, leaks: Leaks) -> Any:
    """Return *value* as JSON can hold it, without values of the seed."""
    if isinstance(value, str):
        return leaks.redacted(value)
    if isinstance(value, bytes):
        return leaks.redacted(value.decode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return {
            leaks.redacted(str(name)): _redacted(member, leaks)
            for name, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(member, leaks) for member in value]
    if isinstance(value, float) and value - value != 0:  # infinite, or no number
        return str(value)
    return value
