"""
What metrics become in OTLP: points, histograms and the resource they belong to.

    count          Sum, delta; monotonic unless a value of the request is negative
    gauge          Gauge
    distribution   Histogram, delta, with explicit bounds and count, sum, min, max

The namespace is the name of the instrumentation scope, dimensions are
attributes, CloudWatch's units become UCUM's.  Temporality is always delta: an
execution environment never lives long enough for cumulative sums to add up.

Pure.

Source: OpenTelemetry protocol and its semantic conventions for FaaS and cloud,
https://opentelemetry.io/docs/specs/otlp/
https://opentelemetry.io/docs/specs/semconv/resource/faas/
"""

from __future__ import annotations

import bisect

from ..delivery import protobuf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ..typing import Point

DELTA = 1  # of AggregationTemporality
METRICS = "ExportMetricsServiceRequest"

# CloudWatch's units -> UCUM's, which OpenTelemetry uses.
UNITS = {
    "None": "", "Count": "1", "Percent": "%",
    "Seconds": "s", "Milliseconds": "ms", "Microseconds": "us",
    "Bytes": "By", "Kilobytes": "kBy", "Megabytes": "MBy", "Gigabytes": "GBy",
    "Terabytes": "TBy",
    "Bits": "bit", "Kilobits": "kbit", "Megabits": "Mbit", "Gigabits": "Gbit",
    "Terabits": "Tbit",
}  # fmt: skip
# Upper bounds of a histogram's buckets, inclusive, by unit.
SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip  # semantic conventions, http.server.request.duration
GENERAL = (
    0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0,
    5000.0, 7500.0, 10000.0,
)  # fmt: skip  # the default of OpenTelemetry's SDKs
BOUNDS = {
    "s": SECONDS,
    "ms": tuple(bound * 1e3 for bound in SECONDS),
    "us": tuple(bound * 1e6 for bound in SECONDS),
    "By": tuple(1024.0 * 4**power for power in range(12)),  # 1 KiB to 4 GiB
}
INT64 = 1 << 63


def unit(name: str) -> str:
    """Return CloudWatch's unit *name* in UCUM."""
    plain, per, _ = name.partition("/")
    return UNITS.get(plain, plain) + ("/s" if per else "")


def request(
    namespace: str,
    points: Sequence[Point],
    *,
    start_ns: int,
    at_ns: int,
    of: Mapping[str, Any],
    version: str,
) -> dict[str, Any]:
    """
    Return the tree of one request with *points*, recorded from *start_ns* to *at_ns*.

    *of* is the resource, *version* this library's.
    """
    scope = {"name": namespace, "version": version}
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": protobuf.attributes(of)},
                "scopeMetrics": [
                    {"scope": scope, "metrics": [*_metrics(points, start_ns, at_ns)]}
                ],
            }
        ]
    }


def _metrics(
    points: Iterable[Point], start_ns: int, at_ns: int
) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.kind, point.name, point.unit), []).append(point)
    for (kind, name, cloudwatch), members in groups.items():
        ucum = unit(cloudwatch)
        metric: dict[str, Any] = {"name": name, "unit": ucum}
        if kind == "count":
            metric["sum"] = {
                "dataPoints": [_number(p, at_ns, start_ns) for p in members],
                "aggregationTemporality": DELTA,
                "isMonotonic": all(value >= 0 for p in members for value in p.values),
            }
        elif kind == "gauge":
            metric["gauge"] = {"dataPoints": [_number(p, at_ns) for p in members]}
        else:
            bounds = BOUNDS.get(ucum, GENERAL)
            metric["histogram"] = {
                "dataPoints": [_histogram(p, at_ns, start_ns, bounds) for p in members],
                "aggregationTemporality": DELTA,
            }
        yield metric


def _number(point: Point, at_ns: int, start_ns: int | None = None) -> dict[str, Any]:
    value = point.values[-1] if point.kind == "gauge" else sum(point.values)
    made: dict[str, Any] = {} if start_ns is None else {"startTimeUnixNano": start_ns}
    made["timeUnixNano"] = at_ns
    if isinstance(value, int) and -INT64 <= value < INT64:
        made["asInt"] = value
    else:
        made["asDouble"] = float(value)
    made["attributes"] = protobuf.attributes(dict(point.dimensions))
    return made


def _histogram(
    point: Point, at_ns: int, start_ns: int, bounds: tuple[float, ...]
) -> dict[str, Any]:
    counts = [0] * (len(bounds) + 1)
    for value in point.values:
        counts[bisect.bisect_left(bounds, value)] += 1
    return {
        "startTimeUnixNano": start_ns,
        "timeUnixNano": at_ns,
        "count": len(point.values),
        "sum": float(sum(point.values)),
        "bucketCounts": counts,
        "explicitBounds": bounds,
        "attributes": protobuf.attributes(dict(point.dimensions)),
        "min": float(min(point.values)),
        "max": float(max(point.values)),
    }
