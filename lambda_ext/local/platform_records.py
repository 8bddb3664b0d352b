"""
What the platform tells of an environment: the records of the Telemetry API.

Source: Telemetry API schema reference,
https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .subscribers import iso
from .variables import version

if TYPE_CHECKING:
    from .outcomes import Registration, Settings
    from .workers import Work

PYTHON = "AWS_Lambda_python"  # how AWS_EXECUTION_ENV begins


def _function(settings: Settings) -> dict[str, Any]:
    variables = settings.variables
    memory_mb = int(variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or 128)
    told: dict[str, Any] = {
        "functionName": settings.function_name,
        "functionVersion": version(settings.init_type),
        "instanceId": variables.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
        "instanceMaxMemory": memory_mb * 1024 * 1024,
    }
    runtime = variables.get("AWS_EXECUTION_ENV", "")
    if runtime.startswith(PYTHON):
        told["runtimeVersion"] = "python:" + runtime[len(PYTHON) :]
    return told


def init_started(settings: Settings, phase: str) -> dict[str, Any]:
    """Return the record of ``platform.initStart``."""
    head = {"initializationType": settings.init_type, "phase": phase}
    return {**head, **_function(settings)}


def restore_started(settings: Settings) -> dict[str, Any]:
    """Return the record of ``platform.restoreStart``."""
    return _function(settings)


def outcome(
    status: str, error_type: str | None, duration_s: float | None = None
) -> dict[str, Any]:
    """Return how a phase went, as its records tell it."""
    # "ending" is this emulator's: the phase was interrupted by a shutdown.
    told: dict[str, Any] = {"status": "failure" if status == "ending" else status}
    if error_type:
        told["errorType"] = error_type
    if duration_s is not None:
        told["metrics"] = {"durationMs": _ms(duration_s)}
    return told


def extension(registration: Registration) -> dict[str, Any]:
    """Return the record of ``platform.extension``."""
    told: dict[str, Any] = {
        "name": registration.name,
        "state": registration.state,
        "events": list(registration.events),
    }
    if registration.error_type:
        told["errorType"] = registration.error_type
    return told


def start(settings: Settings, work: Work) -> dict[str, Any]:
    """Return the record of ``platform.start``."""
    return {
        "requestId": work.id,
        "version": version(settings.init_type),
        "tracing": _tracing(work),
    }


def runtime_done(work: Work, status: str) -> dict[str, Any]:
    """Return the record of ``platform.runtimeDone``."""
    metrics: dict[str, Any] = {"durationMs": _ms(work.runtime_done_at - work.began_at)}
    told = {"requestId": work.id, **outcome(status, work.error_type)}
    told["tracing"] = _tracing(work)
    told["metrics"] = metrics
    if work.answered_at:
        metrics["producedBytes"] = len(work.payload)
        told["spans"] = [
            *_response(work),
            _span("runtimeOverhead", work.answered_at, work.runtime_done_at),
        ]
    return told


def report(
    work: Work,
    status: str,
    settings: Settings,
    init_s: float | None,
    peak_mb: int,
) -> dict[str, Any]:
    """Return the record of ``platform.report``; *init_s* is of a cold start."""
    done_at = work.runtime_done_at
    all_done_at = max(work.finished_at, done_at)
    memory_mb = int(settings.variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or 128)
    metrics: dict[str, Any] = {"durationMs": _ms(all_done_at - work.began_at)}
    billed_s = all_done_at - work.began_at + (init_s or 0)
    metrics["billedDurationMs"] = math.ceil(billed_s * 1000)
    metrics["memorySizeMB"] = memory_mb
    metrics["maxMemoryUsedMB"] = peak_mb
    if init_s is not None:
        metrics["initDurationMs"] = _ms(init_s)
    told = {"requestId": work.id, **outcome(status, work.error_type)}
    told["metrics"] = metrics
    told["tracing"] = _tracing(work)
    if all_done_at - done_at >= 0.001:
        told["spans"] = [_span("extensionOverhead", done_at, all_done_at)]
    return told


def report_of_instance(work: Work, status: str) -> dict[str, Any]:
    """Return the record of ``platform.report`` on Lambda Managed Instances."""
    ended_at = work.answered_at or work.finished_at
    told = {"requestId": work.id, **outcome(status, work.error_type)}
    told["metrics"] = {"durationMs": _ms(ended_at - work.began_at)}
    if work.answered_at:
        told["spans"] = _response(work)
    return told


def _response(work: Work) -> list[dict[str, Any]]:
    # This emulator takes a response in one piece: it has no duration.
    return [
        _span("responseLatency", work.began_at, work.answered_at),
        _span("responseDuration", work.answered_at, work.answered_at),
    ]


def _span(name: str, began_at: float, ended_at: float) -> dict[str, Any]:
    return {
        "name": name,
        "start": iso(began_at),
        "durationMs": _ms(ended_at - began_at),
    }


def _tracing(work: Work) -> dict[str, str]:
    return {"type": "X-Amzn-Trace-Id", "value": work.trace_id}


def _ms(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1000, 3)
