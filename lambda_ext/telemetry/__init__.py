"""
Lambda's Telemetry API in the handler's process: logs and platform events, as records.

    from lambda_ext import telemetry

    telemetry.subscribe(platform=True, function=True)  # at module scope
    telemetry.consumers.append(ship)  # called with each `Batch`

    @telemetry.on_report
    def report(record, outcome):
        ...
"""

from __future__ import annotations

from .dispatch import consumers
from .records import Batch, Record
from .reports import on_report
from .subscription import Status, status, subscribe

__all__ = (
    "Batch",
    "Record",
    "Status",
    "consumers",
    "on_report",
    "status",
    "subscribe",
)
