"""
Lambda's Telemetry API in the handler's process: logs and platform events, as records.

    from lambda_ext import telemetry

    telemetry.subscribe(platform=True, function=True)  # at module scope

    @telemetry.on_batch
    def ship(batch):
        ...

    @telemetry.on_report
    def report(record, outcome):
        ...

    telemetry.route(where="function", level=">=WARN").to(
        telemetry.destinations.splunk_hec(url, Secret("splunk/hec"))
    )

    subscription, listener      `subscribe`; the server to which Lambda delivers
    records, dispatch, reports  what a record says; `on_batch`; `on_report`
    routes, predicates          `route`: which records a sink gets
    entry, redaction            a log line on its way to a sink; secrets taken out of it
    shipping                    when routes hand over what they have
    destinations                where records may go, by function; a new one goes here,
                                with a file beside the following
    over_http, queued           what destinations share
    otlp_logs, otlp_spans, splunk_hec, datadog_logs, firehose, platform_metrics
                                one destination each
"""

from __future__ import annotations

from .dispatch import consumers, on_batch
from .records import Batch, Record
from .reports import on_report
from .subscription import Status, status, subscribe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import destinations as destinations
    from .entry import Entry as Entry
    from .routes import Route as Route
    from .routes import route as route
    from .shipping import flush as flush

__all__ = (
    "Batch",
    "Entry",
    "Record",
    "Route",
    "Status",
    "consumers",
    "destinations",
    "flush",
    "on_batch",
    "on_report",
    "route",
    "status",
    "subscribe",
)

# Name -> the module that defines it: a program that only consumes batches loads no routes.
_LAZY = {"Entry": "entry", "Route": "routes", "flush": "shipping", "route": "routes"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "destinations":
        return import_module(".destinations", __name__)
    if name in _LAZY:
        found = getattr(import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = found
        return found
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
