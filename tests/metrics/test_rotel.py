"""A real OTLP collector, rotel, takes what the sink sends, and passes it on.

Source: rotel, https://github.com/streamfold/pyrotel
"""

from __future__ import annotations

import time

import collector
import pytest
from helpers import eventually
from real_collector import running

from lambda_ext import Metrics, configure, metrics
from lambda_ext.metrics.buffer import Series
from lambda_ext.metrics.otlp import OtlpSink
from lambda_ext.metrics.parcels import Batch, Point
from lambda_ext.testing import FakeClock

pytestmark = pytest.mark.process


def ordered(message):
    """Return *message* with everything in it in one order."""
    for resource in message.resource_metrics:
        resource.resource.attributes.sort(key=lambda pair: pair.key)
        for scope in resource.scope_metrics:
            scope.metrics.sort(key=lambda metric: metric.name)
    return message


def test_rotel_passes_on_what_was_recorded(tmp_path):
    """Counters, gauges, distributions, dimensions and times arrive as they were sent."""
    with (
        collector.Collector() as behind,
        collector.Collector() as direct,
        running(behind.url, str(tmp_path)) as endpoint,
        FakeClock(wall=time.time()) as clock,
    ):
        sinks = OtlpSink(endpoint), OtlpSink(direct.endpoint)
        configure(sinks=[*sinks])
        shop = Metrics("Shop", service="checkout", dimensions={"region": "eu"})
        for number in range(100):
            shop.count("orders", number % 7, channel="web" if number % 2 else "app")
            shop.distribution("latency", number * 1.5, unit="Milliseconds")
        shop.count("change", -3)
        shop.gauge("depth", 2.5, unit="Percent")
        clock.advance(1)
        result = metrics.flush(timeout=60)
        eventually(lambda: behind.requests)
        told = [(one.sent, one.dropped, one.pending) for one in result.values()]

        assert [(202, 0, 0)] * 2 == told
        assert [ordered(each) for each in direct.messages()] == [
            ordered(each) for each in behind.messages()
        ]
        everything = frozenset({("service", "checkout"), ("region", "eu")})
        assert {
            ("orders", everything | {("channel", "web")}): sum(
                n % 7 for n in range(1, 100, 2)
            ),
            ("orders", everything | {("channel", "app")}): sum(
                n % 7 for n in range(0, 100, 2)
            ),
            ("latency", everything): sum(n * 1.5 for n in range(100)),
            ("change", everything): -3,
        } == behind.sums()


def test_rotel_takes_a_large_request(tmp_path):
    """A thousand series, compressed, in one request; each value arrives once."""
    with (
        collector.Collector() as behind,
        running(behind.url, str(tmp_path)) as endpoint,
    ):
        sink = OtlpSink(endpoint)
        points = [
            Point(Series("Shop", "count", f"n{n}", "Count", (("d", str(n)),)), [n])
            for n in range(1_000)
        ]
        sink.accept(Batch("Shop", time.time(), points))
        sink.drain(time.monotonic() + 60)
        expected = {(f"n{n}", frozenset({("d", str(n))})): n for n in range(1_000)}

        assert (1_000, {}, 0) == (sink.sent, sink.dropped, sink.pending)
        assert expected == eventually(
            lambda: len(behind.sums()) == 1_000 and behind.sums()
        )
