"""Destinations of metrics as a user writes them: checked, never executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lambda_ext
from lambda_ext import Metrics, Secret
from lambda_ext.metrics import otlp, route
from lambda_ext.metrics.datadog import DatadogSink
from lambda_ext.testing import MemorySink

if TYPE_CHECKING:
    from lambda_ext.typing import Batch, Sink


class Mine:
    def accept(self, batch: Batch, /) -> None:
        for point in batch.points:
            print(batch.namespace, point.name, sum(point.values))


def function(batch: Batch) -> int:
    return len(batch.points)


sinks: list[Sink] = [
    DatadogSink(tags=["team:a"], prefix="shop", flush_to_log=True),
    otlp.OtlpSink("https://otlp.example.com/v1/metrics", headers={"k": Secret("key")}),
    otlp.new_relic(Secret("vendors/new-relic"), region="eu"),
    otlp.splunk("token", realm="eu0"),
    otlp.sumo_logic(Secret("vendors/sumo")),
    otlp.datadog(lambda: "key"),
    otlp.cloudwatch(),
    otlp.collector(),
    MemorySink(),
    Mine(),
]
lambda_ext.configure(sinks=["emf", "datadog", *sinks, function])
lambda_ext.configure(sinks=[route(function, include="a.*"), route("otlp", exclude="a")])
lambda_ext.configure(sinks="emf,otlp", flush_every=1)
Metrics("Shop", sink=DatadogSink()).count("orders")
Metrics("Shop", sink="datadog")  # type: ignore[arg-type]
