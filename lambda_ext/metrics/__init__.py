"""
Metrics, recorded in memory and written at the end of each invocation.

    from lambda_ext import metrics

    metrics.count("orders")
    metrics.count("bytes", 512, unit="Bytes", tenant="acme")
    with metrics.timer("db.query"):
        ...

These are the methods of one default `Metrics`, as in `random`.  A decorated
handler flushes, also shortly before a time-out; so do SIGTERM and the
interpreter's exit.
"""

from __future__ import annotations

from .buffer import Status
from .recorder import Metrics, annotate, default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .outlets import route as route
else:

    def __getattr__(name):
        if name != "route":
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg, name=name)
        # Avoids 0.2 ms where metrics go to EMF alone.
        from .outlets import route

        globals()["route"] = route
        return route

    def __dir__():
        return sorted({*globals(), "route"})


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
