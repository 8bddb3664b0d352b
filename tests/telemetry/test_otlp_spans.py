"""Spans of what the platform measured, held against opentelemetry-proto."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from log_entries import TRACE, TRACE_ID, body_of, drained, entry
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from wire import Wire, response

from lambda_ext.telemetry import destinations, otlp_spans

PARENT = "53995c3f42cd8ad8"


def test_odd_numbers_lose_no_other():
    """A span that cannot be encoded is dropped and counted, and its neighbours are sent."""
    with Wire(lambda request: response(200, b"")) as wire:
        made = destinations.spans(wire.url + "/v1/traces")
        entries = [start("r-1"), start("r-2"), start("r-3"), start("r-4")]
        for request_id, took_ms in (
            ("r-1", float("inf")), ("r-2", 1e300), ("r-3", float("nan")), ("r-4", 5.0),
        ):  # fmt: skip
            found = report(request_id)
            found.body["metrics"]["durationMs"] = took_ms
            found.body["spans"] = [
                {"name": "responseLatency", "start": at(1.0), "durationMs": took_ms}
            ]
            entries.append(found)
        made.accept_logs(entries)
        made.end()
        sent, dropped, pending = drained(made)
        made.close()
        bodies = b"".join(body_of(request) for request in wire.requests)

    assert (0, True) == (pending, b"r-4" in bodies)
    assert sent + sum(dropped.values()) >= 4


def at(second):
    """Return a time of the platform's."""
    return f"2026-01-02T03:04:{second:06.3f}Z"


def start(request_id="r-1", trace=TRACE, second=1.0):
    """Return platform.start."""
    body = {"requestId": request_id, "version": "$LATEST"}
    if trace:
        body["tracing"] = {"type": "X-Amzn-Trace-Id", "value": trace}
    return entry(body, "platform.start", time=at(second))


def done(request_id="r-1", second=1.2):
    """Return platform.runtimeDone."""
    return entry(
        {
            "requestId": request_id,
            "status": "success",
            "metrics": {"durationMs": 200.0, "producedBytes": 3},
            "spans": [
                {"name": "responseLatency", "start": at(1.0), "durationMs": 150.0},
                {"name": "responseDuration", "start": at(1.15), "durationMs": 1.0},
            ],
        },
        "platform.runtimeDone",
        time=at(second),
    )


def report(request_id="r-1", status="success", second=1.5, **more):
    """Return platform.report."""
    return entry(
        {
            "requestId": request_id,
            "status": status,
            "metrics": {
                "durationMs": 400.0, "billedDurationMs": 400, "memorySizeMB": 128,
                "maxMemoryUsedMB": 64,
            },
            "spans": [{"name": "extensionOverhead", "start": at(1.2), "durationMs": 200.0}],
            **more,
        },
        "platform.report",
        time=at(second),
    )  # fmt: skip


def init(second=0.5):
    """Return platform.initReport."""
    return entry(
        {
            "initializationType": "on-demand", "phase": "init", "status": "success",
            "metrics": {"durationMs": 250.0},
        },
        "platform.initReport",
        time=at(second),
    )  # fmt: skip


@pytest.fixture(name="receiver")
def _receiver():
    with Wire(lambda request: response(200, b"")) as wire:
        yield wire


def spans(receiver):
    """Return the spans that the receiver has, by name."""
    return {
        span.name: span
        for request in receiver.requests
        for resource in ExportTraceServiceRequest.FromString(
            body_of(request)
        ).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def sent(receiver, *entries, end=False, **options):
    """Have the receiver get the spans of *entries*, and return them."""
    made = destinations.spans(receiver.url + "/v1/traces", **options)
    for each in entries:  # one at a time, as batches come
        made.accept_logs([each])
    if end:
        made.end()
    drained(made)
    return spans(receiver)


class TestInvocation:
    """The span of an invocation, and those in it."""

    def test_has_the_trace_of_its_header(self, receiver, monkeypatch):
        """Trace and parent are X-Ray's, in W3C's form; the children hang below."""
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
        found = sent(receiver, start(), done(), report())
        own = found["orders"]

        assert {
            "orders",
            "responseLatency",
            "responseDuration",
            "extensionOverhead",
        } == {*found}
        assert {TRACE_ID} == {span.trace_id.hex() for span in found.values()}
        assert PARENT == own.parent_span_id.hex()
        assert {own.span_id} == {
            span.parent_span_id for name, span in found.items() if name != "orders"
        }
        assert 4 == len({span.span_id for span in found.values()})

    def test_has_the_times_that_were_measured(self, receiver, monkeypatch):
        """From its start for its duration, and each part where it was."""
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
        found = sent(receiver, start(), done(), report())

        def milliseconds(name):
            span = found[name]
            begin = span.start_time_unix_nano // 10**6 % 60_000
            return begin - 5_000 + 5_000, span.end_time_unix_nano // 10**6 % 60_000

        assert (1_000, 1_400) == milliseconds("orders")
        assert (1_000, 1_150) == milliseconds("responseLatency")
        assert (1_200, 1_400) == milliseconds("extensionOverhead")

    def test_has_what_the_report_says(self, receiver):
        """Memory, billing and the invocation are attributes; the status is one."""
        found = sent(receiver, start(), report(metrics={
            "durationMs": 1.0, "billedDurationMs": 2, "initDurationMs": 250.5,
        }))  # fmt: skip
        attributes = {
            pair.key: getattr(pair.value, pair.value.WhichOneof("value"))
            for pair in found["invoke"].attributes
        }

        assert {
            "faas.invocation_id": "r-1", "faas.version": "$LATEST",
            "aws.lambda.billed_duration_ms": 2, "aws.lambda.init_duration_ms": 250.5,
            "faas.coldstart": True,
        } == attributes  # fmt: skip
        assert (1, 2) == (found["invoke"].status.code, found["invoke"].kind)

    def test_error_is_its_status(self, receiver):
        """A time-out or an error has the platform's word for it."""
        found = sent(
            receiver, start(), report(status="error", errorType="Runtime.ExitError")
        )

        status = found["invoke"].status
        assert (2, "Runtime.ExitError") == (status.code, status.message)

    def test_without_a_header_it_has_a_trace_of_its_own(self, receiver):
        """Ids are made of the invocation's: the same record makes the same span."""
        first = sent(receiver, start(trace=None), report())["invoke"]
        again = sent(receiver, start(trace=None), report())["invoke"]
        other = sent(receiver, start("r-2", trace=None), report("r-2"))["invoke"]

        assert (first.trace_id, first.span_id) == (again.trace_id, again.span_id)
        assert first.trace_id != other.trace_id
        assert (16, 8, b"") == (
            len(first.trace_id),
            len(first.span_id),
            first.parent_span_id,
        )

    @pytest.mark.parametrize("sampled", ["0", "1"])
    def test_sampling_of_x_ray_is_obeyed_on_request(self, receiver, sampled):
        """sampled_only=True leaves out what X-Ray does not sample."""
        trace = TRACE.replace("Sampled=1", f"Sampled={sampled}")
        found = sent(receiver, init(), start(trace=trace), report(), sampled_only=True)

        assert (sampled == "1") == bool(found)

    def test_overlapping_invocations_are_kept_apart(self, receiver):
        """On a managed instance several are under way at once."""
        found = sent(receiver, start("a"), start("b"), report("b"), end=False)

        assert ["b"] == [
            pair.value.string_value
            for pair in found["invoke"].attributes
            if pair.key == "faas.invocation_id"
        ]

    def test_those_without_a_report_leave_at_the_end(self, receiver):
        """The last report may never come: then runtimeDone tells when it ended."""
        found = sent(receiver, start(), done(), end=True)

        assert (
            200
            == (
                found["invoke"].end_time_unix_nano
                - found["invoke"].start_time_unix_nano
            )
            // 10**6
        )

    def test_number_that_is_waited_for_is_bounded(self, receiver, monkeypatch):
        """The oldest leaves as it is."""
        monkeypatch.setattr(otlp_spans, "MOST", 2)
        made = destinations.spans(receiver.url)
        for request_id in "abc":
            made.accept_logs([start(request_id), done(request_id)])

        assert (2, 3) == (len(made._open), drained(made)[0])


class TestInit:
    """The span of INIT."""

    def test_belongs_to_the_first_invocation(self, receiver):
        """It has that invocation's trace and parent, and its own time."""
        found = sent(receiver, init(), start(), report())

        assert (TRACE_ID, PARENT) == (
            found["init"].trace_id.hex(),
            found["init"].parent_span_id.hex(),
        )
        assert (
            250
            == (found["init"].end_time_unix_nano - found["init"].start_time_unix_nano)
            // 10**6
        )

    def test_is_sent_once(self, receiver):
        """Later invocations have none, and neither has the end."""
        made = destinations.spans(receiver.url)
        made.accept_logs([init(), start("a"), report("a"), start("b"), report("b")])
        made.end()

        # init, and for each invocation itself and the overhead of extensions
        assert (5, {}, 0) == drained(made)

    def test_without_an_invocation_it_leaves_at_the_end(self, receiver):
        """An environment that was never used has a span of INIT, too."""
        found = sent(receiver, init(), end=True)

        assert ["init"] == [*found]
        assert 16 == len(found["init"].trace_id)


def test_json_says_the_same(receiver):
    """protocol="http/json" is OTLP's JSON of the same spans."""
    for protocol in ("http/json", "http/protobuf"):
        made = destinations.spans(receiver.url, protocol=protocol)
        made.accept_logs([start(), done(), report()])
        drained(made)

    as_json, as_protobuf = receiver.requests
    text = json.loads(body_of(as_json))
    other = ExportTraceServiceRequest.FromString(body_of(as_protobuf))
    for span in text["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        assert 32 == len(span["traceId"])
        for name in ("traceId", "spanId", "parentSpanId"):
            del span[name]
    for span in other.resource_spans[0].scope_spans[0].spans:
        for name in ("trace_id", "span_id", "parent_span_id"):
            span.ClearField(name)
    assert other == json_format.ParseDict(text, ExportTraceServiceRequest())


def test_other_records_make_no_span(receiver):
    """Log lines, and records of the platform without an id, are ignored."""
    odd = [
        entry("hello"),
        entry({}, "platform.start"),
        entry({"requestId": 3}, "platform.report"),
        entry("text", "platform.report"),
        entry({"metrics": None}, "platform.initReport"),
        entry(
            {"requestId": "r", "spans": [None, {"name": 3}], "metrics": []},
            "platform.report",
        ),
    ]
    found = sent(receiver, *odd)

    assert ["invoke"] == [*found]
