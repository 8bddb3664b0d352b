"""Metrics of what the platform says of invocations."""

from __future__ import annotations

import io
import json

import pytest
from emf_rules import document as checked_document
from log_entries import SECONDS, TIME, TRACE, entry

import lambda_ext
from lambda_ext import metrics as lambda_metrics
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.metrics.emf import EmfSink
from lambda_ext.telemetry import destinations
from lambda_ext.testing import MemorySink

REPORT = {
    "requestId": "r-1",
    "status": "success",
    "metrics": {
        "durationMs": 12.5, "billedDurationMs": 13, "memorySizeMB": 128,
        "maxMemoryUsedMB": 64, "initDurationMs": 250.0,
    },
    "spans": [{"name": "extensionOverhead", "start": TIME, "durationMs": 3.5}],
}  # fmt: skip


class Sink:
    """Keeps the batches that it is given."""

    def __init__(self):
        self.batches = []

    def accept(self, batch):
        self.batches.append(batch)

    @property
    def points(self):
        return {
            point.name: (point.kind, point.unit, *point.values)
            for batch in self.batches
            for point in batch.points
        }


def measured(type, body):
    """Return the metrics that one record makes."""
    sink = Sink()
    destinations.metrics(sink).accept_logs([entry(body, type)])
    return sink.points


class TestRecords:
    """Which record makes which metrics."""

    def test_report(self):
        """Duration, billed duration, memory and overhead of one invocation."""
        assert {
            "platform.invocations": ("count", "Count", 1),
            "platform.duration": ("distribution", "Milliseconds", 12.5),
            "platform.billed_duration": ("distribution", "Milliseconds", 13),
            "platform.max_memory_used": ("distribution", "Megabytes", 64),
            "platform.memory_utilization": ("distribution", "Percent", 50.0),
            "platform.extension_overhead": ("distribution", "Milliseconds", 3.5),
        } == measured("platform.report", REPORT)

    @pytest.mark.parametrize(
        ("status", "name"),
        [
            ("timeout", "platform.timeouts"),
            ("error", "platform.errors"),
            ("failure", "platform.errors"),
        ],
    )
    def test_invocation_that_failed(self, status, name):
        """Errors and time-outs are counted."""
        found = measured("platform.report", {"requestId": "r", "status": status})

        assert {"platform.invocations", name} == {*found}

    @pytest.mark.parametrize(
        ("type", "body", "expected"),
        [
            (
                "platform.initReport",
                {"status": "success", "metrics": {"durationMs": 250.5}},
                {"platform.init_duration": ("distribution", "Milliseconds", 250.5)},
            ),
            (
                "platform.initReport",
                {"status": "error"},
                {"platform.init_errors": ("count", "Count", 1)},
            ),
            (
                "platform.restoreReport",
                {"metrics": {"durationMs": 15}},
                {"platform.restore_duration": ("distribution", "Milliseconds", 15)},
            ),
            (
                "platform.runtimeDone",
                {
                    "metrics": {"producedBytes": 7},
                    "spans": [
                        {"name": "responseLatency", "durationMs": 1.5},
                        {"name": "unknown", "durationMs": 2},
                    ],
                },
                {
                    "platform.produced_bytes": ("distribution", "Bytes", 7),
                    "platform.response_latency": ("distribution", "Milliseconds", 1.5),
                },
            ),
            (
                "platform.logsDropped",
                {"droppedRecords": 12, "droppedBytes": 99},
                {"platform.logs_dropped": ("count", "Count", 12)},
            ),
            ("platform.start", {"requestId": "r"}, {}),
            ("function", {"metrics": {"durationMs": 1}}, {}),
        ],
    )
    def test_others(self, type, body, expected):
        """What has a number makes a metric, nothing else does."""
        assert expected == measured(type, body)

    @pytest.mark.parametrize(
        "metrics",
        [None, [], {"durationMs": "12"}, {"durationMs": -1}, {"durationMs": True},
         {"durationMs": float("nan")}, {"maxMemoryUsedMB": 1, "memorySizeMB": 0}],
    )  # fmt: skip
    def test_nonsense_is_left_out(self, metrics):
        """A number that none is makes no metric, and stops no other."""
        found = measured("platform.report", {"requestId": "r", "metrics": metrics})

        assert "platform.duration" not in found
        assert "platform.invocations" in found


class TestWhereAndWhen:
    """Sinks, times and properties."""

    def test_time_is_the_records(self):
        """A report that arrives later counts for when the invocation was."""
        sink = Sink()
        destinations.metrics(sink).accept_logs([entry(REPORT, "platform.report")])

        assert [SECONDS] == [batch.at for batch in sink.batches]

    def test_property_is_the_reports_invocation(self):
        """Not the one that runs when the report arrives."""
        stream = io.StringIO()
        lambda_metrics.annotate({"request_id": "r-2"})
        made = destinations.metrics(
            EmfSink(stream), namespace="Platform", service="shop"
        )
        made.accept_logs([entry(REPORT, "platform.report", trace=TRACE)])

        (line,) = stream.getvalue().splitlines()
        document = json.loads(line)
        without = {
            n: v for n, v in document.items() if n not in ("request_id", "trace_id")
        }
        assert checked_document(json.dumps(without)) == without
        directive = document["_aws"]["CloudWatchMetrics"][0]
        assert round(SECONDS * 1000) == document["_aws"]["Timestamp"]
        assert ("r-1", "1-5759e988-bd862e3fe1be46a994272793", 12.5, "shop") == (
            document["request_id"],
            document["trace_id"],
            document["platform.duration"],
            document["service"],
        )
        assert ("Platform", [["service"]]) == (
            directive["Namespace"],
            directive["Dimensions"],
        )

    def test_default_is_where_metrics_go(self):
        """Without a sink they go where configure(sinks=...) says."""
        sink = Sink()
        lambda_ext.configure(sinks=[sink])
        made = destinations.metrics(dimensions={"stage": "prod"})
        made.accept_logs([entry(REPORT, "platform.report")])

        assert 12.5 == sink.points["platform.duration"][2]
        assert ("stage", "prod") in sink.batches[0].points[0].dimensions

    def test_memory_sink_sees_them(self):
        """A test sees them as it sees any metric."""
        with MemorySink() as sink:
            destinations.metrics().accept_logs([entry(REPORT, "platform.report")])

        assert [12.5] == sink.values("platform.duration")

    def test_sink_over_a_network_is_drained(self):
        """What a sink queues leaves when the route's turn comes, all of it at the end."""
        calls = []

        class Waiting(Sink):
            def is_due(self):
                return False

            def drain(self, ends_at):
                calls.append(ends_at)

        made = destinations.metrics(Waiting())
        made.accept_logs([entry(REPORT, "platform.report")])
        made.drain(1.0)
        early = [*calls]
        made.end()
        made.drain(2.0)

        assert ([], 1) == (early, len(calls))

    def test_metrics_of_the_handler_are_not_mixed_in(self):
        """What the handler records waits for the handler's own flush."""
        sink = Sink()
        lambda_ext.configure(sinks=[sink])
        lambda_metrics.count("orders")
        destinations.metrics().accept_logs([entry(REPORT, "platform.report")])
        early = {*sink.points}
        lambda_metrics.flush()

        assert "orders" not in early
        assert "orders" in sink.points

    def test_what_cannot_be_used_is_refused(self):
        """Arguments are those of Metrics."""
        with pytest.raises(ConfigurationError):
            destinations.metrics(namespace="AWS/Lambda")
        with pytest.raises(ConfigurationError):
            destinations.metrics(sink=3)
