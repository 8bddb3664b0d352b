"""
An OTLP collector on loopback that decodes with opentelemetry-proto.

Over `wire.Wire`, so that it can misbehave in any way that a server can.
"""

from __future__ import annotations

import contextlib
import gzip

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from wire import Wire, response


class Collector(Wire):
    """Answers 200 with an empty body; *faults* go before, as those of a `Wire`."""

    def __init__(self, answer=lambda request: response(200, b"")):
        super().__init__(answer)

    @property
    def endpoint(self):
        """The whole URL for metrics."""
        return f"{self.url}/v1/metrics"

    def messages(self):
        """Return the message of each request that came, decoded."""
        return [decoded(request) for request in self.requests]

    def sums(self):
        """Return {(name, {(key, value), ...}): sum} of all requests that came."""
        return sums(self.messages())


def decoded(request):
    """Return what a receiver reads out of *request*."""
    body = request.body
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return ExportMetricsServiceRequest.FromString(body)


def points(messages):
    """Yield (metric's name, kind, point) of *messages*."""
    for message in messages:
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        yield metric.name, kind, point


def dimensions(point):
    """Return the attributes of *point* as a set of pairs."""
    return frozenset((pair.key, pair.value.string_value) for pair in point.attributes)


def number(kind, point):
    """Return the value of *point*, the sum of a histogram's."""
    if kind == "histogram":
        return point.sum
    which = point.WhichOneof("value")
    return getattr(point, which)


def sums(messages):
    """Return {(name, {(key, value), ...}): sum} of counters and histograms."""
    found = {}
    for name, kind, point in points(messages):
        if kind != "gauge":
            key = (name, dimensions(point))
            found[key] = found.get(key, 0) + number(kind, point)
    return found


@contextlib.contextmanager
def closed_port():
    """Yield a port of this machine on which nothing listens, for now."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # not listening: connections are refused
        yield held.getsockname()[1]
