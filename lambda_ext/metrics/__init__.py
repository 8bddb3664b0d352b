"""
Metrics, recorded in memory and written at the end of each invocation.

    from lambda_ext import metrics

    metrics.count("orders")
    metrics.count("bytes", 512, unit="Bytes", tenant="acme")
    with metrics.timer("db.query"):
        ...

These are the methods of one default `Metrics`, as in `random`.  A decorated
handler flushes; so do SIGTERM and the interpreter's exit.
"""

from __future__ import annotations

from .buffer import Status
from .outlets import route
from .recorder import Metrics, annotate, default

__all__ = (
    "Metrics",
    "Status",
    "annotate",
    "count",
    "distribution",
    "flush",
    "gauge",
    "route",
    "scope",
    "timer",
)

count = default.count
gauge = default.gauge
distribution = default.distribution
timer = default.timer
scope = default.scope
flush = default.flush
