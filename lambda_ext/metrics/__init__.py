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

    recorder, validation        what a program records with; what CloudWatch takes
    timers, properties          `timer`; what stands beside the metrics
    buffer, parcels             what is recorded and not yet in a sink; the flush
    aged                        `flush_every` as a time
    outlets                     which sinks there are: a new one gets a name in `NAMED`
    emf, emf_batches, stdout    the default sink: EMF, as whole lines on stdout
    otlp, otlp_messages         the sink for OTLP over HTTP
    datadog                     the sink for Datadog's extension and its Forwarder
    losses, tally, statuses     what was dropped, and what sinks have sent
    runtime, self_metrics, correlation
                                what this library records by itself, if asked to
    durable                     what a durable function has recorded before
"""

from __future__ import annotations

from .recorder import Metrics, default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .outlets import route as route
    from .properties import annotate as annotate
    from .statuses import Status as Status
else:

    def __getattr__(name):
        # Avoids what a program without them does not need.
        if name == "annotate":
            from . import properties as home
        elif name == "route":
            from . import outlets as home
        elif name == "Status":
            from . import statuses as home
        else:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__():
        return sorted({*globals(), "Status", "annotate", "route"})


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
