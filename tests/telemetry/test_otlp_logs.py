"""Logs by OTLP, held against opentelemetry-proto's own classes."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from log_entries import TIME, TRACE, TRACE_ID, Key, body_of, drained, entry
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from wire import Wire, failing, response, whole

from lambda_ext.delivery import queue
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.telemetry import destinations, otlp_logs

FAILED = pytest.mark.logs  # a failure is logged once a reason
AT_NS = 1767323045678 * 10**6


@pytest.fixture(name="receiver")
def _receiver(monkeypatch):
    monkeypatch.setattr(queue, "jitter", lambda _: 0.0)
    with Wire(lambda request: response(200, b"")) as wire:
        yield wire


def records_of(request):
    """Return the LogRecords that a receiver reads out of *request*."""
    found = ExportLogsServiceRequest.FromString(body_of(request))
    return [
        record
        for resource in found.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def value_of(value):
    """Return what an AnyValue says, as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value) for pair in value.kvlist_value.values}
    if kind == "array_value":
        return [value_of(part) for part in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def attributes_of(record):
    """Return the attributes of *record* as a dictionary."""
    return {pair.key: value_of(pair.value) for pair in record.attributes}


class TestRecords:
    """What becomes of a line."""

    def test_line_of_text_is_the_body(self, receiver):
        """Time, severity, invocation and trace stand where OpenTelemetry has them."""
        made = destinations.otlp(receiver.url + "/v1/logs")
        line = f"[ERROR]\t{TIME}\tr-1\tit failed\n"
        made.accept_logs([entry(line, trace=TRACE)])
        drained(made)

        ((record,), request) = records_of(receiver.requests[0]), receiver.requests[0]
        assert "application/x-protobuf" == request.headers["content-type"]
        assert ("it failed", 17, "ERROR", AT_NS) == (
            value_of(record.body),
            record.severity_number,
            record.severity_text,
            record.time_unix_nano,
        )
        assert (TRACE_ID, "53995c3f42cd8ad8") == (
            record.trace_id.hex(),
            record.span_id.hex(),
        )
        assert {
            "aws.lambda.record_type": "function",
            "faas.invocation_id": "r-1",
        } == attributes_of(record)

    def test_members_of_a_json_line_are_attributes(self, receiver):
        """The message is the body; level and time have places of their own."""
        made = destinations.otlp(receiver.url)
        body = {
            "level": "WARN", "message": "m", "timestamp": TIME, "requestId": "r",
            "n": 7, "deep": {"list": [1, "a", None, True, 1.5]},
        }  # fmt: skip
        made.accept_logs([entry(body)])
        drained(made)

        (record,) = records_of(receiver.requests[0])
        assert ("m", 13) == (value_of(record.body), record.severity_number)
        assert {
            "aws.lambda.record_type": "function", "faas.invocation_id": "r",
            "requestId": "r", "n": 7, "deep": {"list": [1, "a", None, True, 1.5]},
        } == attributes_of(record)  # fmt: skip

    def test_records_of_the_platform_are_the_body(self, receiver):
        """They have no severity."""
        made = destinations.otlp(receiver.url)
        body = {"requestId": "r", "metrics": {"durationMs": 1.5}}
        made.accept_logs([entry(body, "platform.report")])
        drained(made)

        (record,) = records_of(receiver.requests[0])
        assert (body, 0) == (value_of(record.body), record.severity_number)

    def test_line_without_a_level_is_info(self, receiver):
        """As Lambda's own filter has it; the text of the severity stays empty."""
        made = destinations.otlp(receiver.url)
        made.accept_logs([entry("hello")])
        drained(made)

        (record,) = records_of(receiver.requests[0])
        assert (9, "") == (record.severity_number, record.severity_text)

    def test_resource_is_this_environment(self, receiver, monkeypatch):
        """Function and instance stand on the resource, the library on the scope."""
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
        monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        made = destinations.otlp(receiver.url)
        made.accept_logs([entry()])
        drained(made)

        found = ExportLogsServiceRequest.FromString(body_of(receiver.requests[0]))
        (resource,) = found.resource_logs
        attributes = {p.key: value_of(p.value) for p in resource.resource.attributes}
        assert ("orders", "stream") == (
            attributes["faas.name"],
            attributes["faas.instance"],
        )
        assert "lambda_ext" == resource.scope_logs[0].scope.name

    def test_json_says_the_same(self, receiver):
        """protocol="http/json" is OTLP's JSON of the same records."""
        entries = [
            entry("a", trace=TRACE),
            entry({"level": "WARN", "message": "b", "n": 1}),
        ]
        for protocol in ("http/json", "http/protobuf"):
            made = destinations.otlp(receiver.url, protocol=protocol)
            made.accept_logs(entries)
            drained(made)

        as_json, as_protobuf = receiver.requests
        text = json.loads(body_of(as_json))
        # protobuf's JSON has ids in base64, OTLP's in hexadecimal.
        for record in text["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
            for name in ("traceId", "spanId"):
                record.pop(name, None)
        read = json_format.ParseDict(text, ExportLogsServiceRequest())
        other = ExportLogsServiceRequest.FromString(body_of(as_protobuf))
        for record in other.resource_logs[0].scope_logs[0].log_records:
            record.ClearField("trace_id")
            record.ClearField("span_id")
        assert "application/json" == as_json.headers["content-type"]
        assert other == read

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.text(max_size=10),
            st.recursive(
                st.none() | st.booleans() | st.text(max_size=20) | st.integers()
                | st.floats(allow_nan=False),
                lambda inner: st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                max_leaves=6,
            ),
            max_size=5,
        )
    )  # fmt: skip
    def test_any_json_line_can_be_read(self, body):
        """For each line the reference reads a record out of the bytes."""
        made = destinations.otlp("https://x.example")
        request = made.join([made.encode(entry({"message": "m", **body}))])
        found = ExportLogsServiceRequest.FromString(request)

        (record,) = found.resource_logs[0].scope_logs[0].log_records
        names = {name for name in body if name not in otlp_logs.PLACED}
        assert names <= {*attributes_of(record)}


def test_deep_line_is_sent():
    """A line that is nested too deeply for an encoder is sent with its end as text."""
    deep = {"message": "deep"}
    for _ in range(800):
        deep = {"message": "deep", "inner": deep}
    made = destinations.otlp("https://x.example")
    made.accept_logs([entry(deep), entry("b")])

    assert (2, {}) == (made.pending, made.dropped)


class TestReceiver:
    """What a receiver answers."""

    @FAILED
    def test_partial_success_is_counted_and_not_repeated(self, receiver):
        """Refused records are dropped, in protobuf and in JSON."""
        message = ExportLogsServiceResponse()
        message.partial_success.rejected_log_records = 2
        message.partial_success.error_message = "bad"
        text = b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"bad"}}'
        for body, kind in (
            (message.SerializeToString(), "application/x-protobuf"),
            (text, "application/json"),
        ):
            receiver.answer = lambda request, body=body, kind=kind: response(
                200, body, Content_Type=kind
            )
            made = destinations.otlp(receiver.url)
            made.accept_logs([entry(each) for each in "abc"])

            assert (1, {"refused": 2}, 0) == drained(made)
            assert "bad" == made.error
        assert 2 == len(receiver.requests)

    @FAILED
    def test_passing_status_is_tried_again(self, receiver):
        """503 keeps the same bytes."""
        receiver.faults += [failing(503), whole]
        made = destinations.otlp(receiver.url)
        made.accept_logs([entry()])

        assert (1, {}, 0) == drained(made)
        first, second = receiver.requests
        assert first.body == second.body

    def test_requests_are_bounded(self, receiver):
        """No request has more than 900 KB before gzip, and nothing is lost."""
        made = destinations.otlp(receiver.url, compression="none")
        made.accept_logs([entry("x" * 10_000) for _ in range(200)])

        assert (200, {}, 0) == drained(made)
        assert 200 == sum(len(records_of(request)) for request in receiver.requests)
        assert 1_000_000 >= max(len(request.body) for request in receiver.requests)


class TestPresets:
    """The addresses of vendors."""

    @pytest.mark.parametrize(
        ("make", "url", "headers"),
        [
            (
                lambda: destinations.new_relic("key-0123", region="eu"),
                "https://otlp.eu01.nr-data.net/v1/logs",
                ["api-key"],
            ),
            (
                lambda: destinations.sumo_logic("https://x.example/receiver/abc"),
                "https://x.example/receiver/abc/v1/logs",
                [],
            ),
            (
                lambda: destinations.cloudwatch_logs(
                    "group", "stream", region="cn-north-1"
                ),
                "https://logs.cn-north-1.amazonaws.com.cn/v1/logs",
                ["x-aws-log-group", "x-aws-log-stream"],
            ),
            (destinations.collector, "http://localhost:4318/v1/logs", []),
            (destinations.otlp, "http://localhost:4318/v1/logs", []),
        ],
    )
    def test_know_the_address(self, make, url, headers):
        """Each preset has its vendor's URL and the names of its headers."""
        made = make()

        assert (url, headers) == (made._receiver._url, [*made._receiver.headers])

    def test_variables_of_opentelemetry(self, receiver, monkeypatch):
        """The endpoint of logs, its headers, and the general ones."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "api-key=a%20b")
        made = destinations.otlp()
        made.accept_logs([entry()])
        drained(made)

        (request,) = receiver.requests
        assert ("/v1/logs", "a b") == (request.target, request.headers["api-key"])

    def test_disabled_sdk_takes_nothing(self, receiver, monkeypatch):
        """OTEL_SDK_DISABLED=true turns it off."""
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        made = destinations.otlp(receiver.url)
        made.accept_logs([entry()])

        assert (0, {}, 0) == drained(made)

    def test_sumo_logics_address_may_be_a_secret(self, receiver):
        """The address is read when it is needed, and gets the path."""
        made = destinations.sumo_logic(Key(receiver.url + "/receiver/SECRET"))
        made.accept_logs([entry()])
        drained(made)

        assert "/receiver/SECRET/v1/logs" == receiver.requests[0].target
        assert "SECRET" not in repr(made)

    def test_cloudwatch_is_signed_for_its_region(self, receiver):
        """Group and stream are headers, and are signed."""
        made = otlp_logs.OtlpLogs(
            receiver.url,
            headers={"x-aws-log-group": "g"},
            sign="logs",
            region="eu-west-1",
        )
        made.accept_logs([entry("x" * 2000)])
        drained(made)

        (request,) = receiver.requests
        authorization = request.headers["authorization"]
        assert "/eu-west-1/logs/aws4_request" in authorization
        assert "x-aws-log-group" in authorization
        assert "content-encoding" not in request.headers

    @pytest.mark.parametrize(
        "make",
        [
            lambda: destinations.new_relic("key-0123", region="mars"),
            lambda: destinations.cloudwatch_logs("", "s"),
            lambda: destinations.cloudwatch_logs("g", None),
            lambda: destinations.cloudwatch_logs("g", "s", region="eu west"),
            lambda: destinations.otlp(protocol="grpc"),
            lambda: destinations.otlp(timeout=0),
            lambda: destinations.otlp(timeout=10**400),
            lambda: destinations.http("https://x.example", timeout=float("inf")),
            lambda: destinations.spans(sampled_only="no"),
            lambda: destinations.otlp("nonsense"),
        ],
    )
    def test_refuse_what_cannot_be(self, make):
        """A region is part of a host name, or an error."""
        with pytest.raises(ConfigurationError):
            make()
