"""A real OTLP collector, rotel, takes logs and spans, and passes them on."""

from __future__ import annotations

import pytest
from helpers import eventually
from log_entries import TRACE, body_of, drained, entry
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from real_collector import running
from wire import Wire, response

from lambda_ext.telemetry import destinations

pytestmark = pytest.mark.process


def log_records(receiver):
    """Return the log records that *receiver* has, in one order each."""
    found = []
    for request in receiver.requests:
        message = ExportLogsServiceRequest.FromString(body_of(request))
        for resource in message.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    record.attributes.sort(key=lambda pair: pair.key)
                    found.append(record)
    return found


def spans(receiver):
    """Return the spans that *receiver* has, in one order each."""
    found = []
    for request in receiver.requests:
        message = ExportTraceServiceRequest.FromString(body_of(request))
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    span.attributes.sort(key=lambda pair: pair.key)
                    found.append(span)
    return sorted(found, key=lambda span: span.span_id)


@pytest.fixture(name="receivers")
def _receivers():
    """One behind the collector, and one without it."""
    with (
        Wire(lambda request: response(200, b"")) as behind,
        Wire(lambda request: response(200, b"")) as direct,
    ):
        yield behind, direct


def test_logs_arrive_as_they_were_sent(receivers, tmp_path):
    """Times, severities, bodies, attributes and traces, also in a compressed request."""
    behind, direct = receivers
    entries = [
        entry("hello"),
        entry("[ERROR]\t2026-01-02T03:04:05.678Z\tr-1\tfailed\n", trace=TRACE),
        entry({"level": "WARN", "message": "m", "n": 7, "deep": {"a": [1, None, "x"]}}),
        entry({"requestId": "r", "metrics": {"durationMs": 1.5}}, "platform.report"),
        *[entry(f"line {number} " + "x" * 100) for number in range(500)],
    ]
    with running(behind.url, str(tmp_path), "/v1/logs") as endpoint:
        for url in (endpoint, direct.url):
            made = destinations.otlp(url)
            made.accept_logs(entries)
            assert (504, {}, 0) == drained(made)
        eventually(lambda: len(log_records(behind)) == 504)

    assert log_records(direct) == log_records(behind)


def test_spans_arrive_as_they_were_sent(receivers, tmp_path):
    """Trace, parent, kind, times, attributes and status."""
    behind, direct = receivers
    tracing = {"type": "X-Amzn-Trace-Id", "value": TRACE}
    entries = [
        entry({"phase": "init", "metrics": {"durationMs": 250.5}}, "platform.initReport"),
        entry({"requestId": "r", "tracing": tracing}, "platform.start"),
        entry(
            {
                "requestId": "r", "status": "error", "errorType": "Runtime.ExitError",
                "metrics": {"durationMs": 12.5, "billedDurationMs": 13},
                "spans": [
                    {
                        "name": "extensionOverhead", "durationMs": 1.5,
                        "start": "2026-01-02T03:04:05.690Z",
                    }
                ],
            },
            "platform.report",
        ),
    ]  # fmt: skip
    with running(behind.url, str(tmp_path), "/v1/traces") as endpoint:
        for url in (endpoint, direct.url):
            made = destinations.spans(url)
            made.accept_logs(entries)
            assert (3, {}, 0) == drained(made)
        eventually(lambda: len(spans(behind)) == 3)

    assert spans(direct) == spans(behind)
