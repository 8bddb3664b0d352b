"""OTLP's messages, held against opentelemetry-proto's own classes."""

from __future__ import annotations

import json
import math

import pytest
from google.protobuf import json_format, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from lambda_ext.delivery import protobuf

REFERENCE = {
    "ExportMetricsServiceRequest": ExportMetricsServiceRequest,
    "ExportLogsServiceRequest": ExportLogsServiceRequest,
    "ExportTraceServiceRequest": ExportTraceServiceRequest,
}
SCALARS = {
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=20),
    "id": st.binary(min_size=8, max_size=16),
    "bool": st.booleans(),
    "enum": st.integers(0, 2),
    "int64": st.integers(-(1 << 63), (1 << 63) - 1),
    "double": st.floats(allow_nan=False) | st.just(math.nan),  # JSON has one NaN
    "fixed64": st.integers(0, (1 << 64) - 1),
    "sfixed64": st.integers(-(1 << 63), (1 << 63) - 1),
}
ONE_OF = ({"gauge", "sum", "histogram"}, {"asInt", "asDouble"})
DEEPEST = 2


def descriptors():
    """Yield each message of the table with the reference's descriptor of it."""
    waiting = [(name, cls.DESCRIPTOR) for name, cls in REFERENCE.items()]
    seen = set()
    while waiting:
        name, descriptor = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name, descriptor
        by_json = {field.json_name: field for field in descriptor.fields}
        for field, (_, kind) in protobuf.MESSAGES[name].items():
            if kind[0].isupper():
                waiting.append((kind.rstrip("*"), by_json[field].message_type))


def trees(message, depth=0):
    """Generate trees of *message*."""
    choices = {}
    for name, (_, kind) in protobuf.MESSAGES[message].items():
        plain = kind.rstrip("*")
        if plain[0].isupper():
            if depth >= DEEPEST:
                continue
            value = st.deferred(lambda plain=plain: trees(plain, depth + 1))
        else:
            value = SCALARS[plain]
        choices[name] = st.lists(value, max_size=2) if kind[-1] == "*" else value

    def one(tree):
        if message == "AnyValue":
            return dict([*tree.items()][:1])
        for group in ONE_OF:
            for name in [name for name in tree if name in group][1:]:
                del tree[name]
        return tree

    return st.fixed_dictionaries({}, optional=choices).map(one)


class TestTable:
    """protobuf.MESSAGES"""

    def test_numbers_and_types_are_those_of_the_reference(self):
        """Each field has opentelemetry-proto's number, name and type."""
        types = {
            "string": (9,), "bytes": (12,), "id": (12,), "bool": (8,), "enum": (14,),
            "int64": (3,), "double": (1,), "fixed64": (6,), "sfixed64": (16,),
        }  # fmt: skip
        wrong = []
        seen = set()
        for name, descriptor in descriptors():
            seen.add(name)
            by_json = {field.json_name: field for field in descriptor.fields}
            for field, (number, kind) in protobuf.MESSAGES[name].items():
                reference = by_json[field]
                plain = kind.rstrip("*")
                expected = (11,) if plain[0].isupper() else types[plain]
                if (
                    reference.number != number
                    or reference.type not in expected
                    or reference.is_repeated != (kind[-1] == "*")
                ):
                    wrong.append((name, field))

        assert [] == wrong
        assert seen == set(protobuf.MESSAGES)


class TestEncode:
    """protobuf.encode() and as_json()"""

    @pytest.mark.parametrize("message", protobuf.MESSAGES)
    def test_reference_reads_what_was_written(self, message):
        """protobuf and JSON decode to the same message, field by field."""
        cls = message_factory.GetMessageClass(dict(descriptors())[message])

        @settings(max_examples=40, deadline=None)
        @given(trees(message))
        def check(tree):
            from_binary = cls.FromString(protobuf.encode(message, tree))
            text = json.dumps(protobuf.as_json(message, tree))
            from_text = otlp_json(text, cls())

            assert from_text.SerializeToString(deterministic=True) == (
                from_binary.SerializeToString(deterministic=True)
            )

        check()

    def test_reference_writes_the_same_bytes(self):
        """In the order of the field numbers the bytes are the reference's."""
        tree = {
            "resourceMetrics": [
                {
                    "resource": {
                        "attributes": protobuf.attributes(
                            {"service.name": "checkout", "n": -3, "b": True, "d": 0.5}
                        )
                    },
                    "scopeMetrics": [
                        {
                            "metrics": [
                                {
                                    "name": "latency",
                                    "unit": "ms",
                                    "histogram": {
                                        "dataPoints": [
                                            {
                                                "startTimeUnixNano": 1,
                                                "timeUnixNano": 2,
                                                "count": 3,
                                                "sum": 4.5,
                                                "bucketCounts": [1, 2],
                                                "explicitBounds": [1.0],
                                                "min": 0.0,
                                                "max": 4.0,
                                            }
                                        ],
                                        "aggregationTemporality": 1,
                                    },
                                }
                            ]
                        }
                    ],
                }
            ]
        }
        data = protobuf.encode("ExportMetricsServiceRequest", tree)

        message = ExportMetricsServiceRequest.FromString(data)
        point = message.resource_metrics[0].scope_metrics[0].metrics[0].histogram
        assert data == message.SerializeToString(deterministic=True)
        assert [1, 2] == point.data_points[0].bucket_counts
        assert (0.0, 4.0) == (point.data_points[0].min, point.data_points[0].max)

    def test_lone_surrogate_does_not_spoil_the_request(self):
        """What has no UTF-8 is replaced, so that a receiver takes the rest."""
        tree = {"stringValue": "a\ud800b"}

        assert b"\x0a\x03a?b" == protobuf.encode("AnyValue", tree)


class TestAnyValue:
    """protobuf.any_value()"""

    @pytest.mark.parametrize(
        ("given_value", "expected"),
        [
            ("x", {"stringValue": "x"}),
            (True, {"boolValue": True}),
            (3, {"intValue": 3}),
            (1 << 63, {"stringValue": str(1 << 63)}),
            (0.5, {"doubleValue": 0.5}),
            (b"x", {"bytesValue": b"x"}),
            (None, {}),
            ([1, "x"], {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "x"}]}}),
            (
                {1: "x"},
                {"kvlistValue": {"values": [{"key": "1", "value": {"stringValue": "x"}}]}},
            ),
        ],
    )  # fmt: skip
    def test_has_the_type_of_the_value(self, given_value, expected):
        """Each Python type has one of OTLP's, an integer too large is text."""
        assert expected == protobuf.any_value(given_value)


class TestFields:
    """protobuf.fields()"""

    def test_reads_a_response(self):
        """A partial success is found in what a receiver answers."""
        response = ExportMetricsServiceResponse()
        response.partial_success.rejected_data_points = 3
        response.partial_success.error_message = "bad"

        ((number, inner),) = protobuf.fields(response.SerializeToString())

        assert (1, [(1, 3), (2, b"bad")]) == (number, protobuf.fields(inner))

    @given(st.binary(max_size=40))
    def test_returns_pairs_or_refuses(self, data):
        """Any bytes are read to their end, or are a ValueError."""
        try:
            found = protobuf.fields(data)
        except ValueError:
            return
        assert all(isinstance(value, (int, bytes)) for _, value in found)
        assert (not data) == (not found)

    @pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x80" * 11, b"\x0b"])
    def test_refuses_what_is_cut(self, data):
        """A message that ends too early, or of unknown type, is refused."""
        with pytest.raises(ValueError, match="protobuf"):
            protobuf.fields(data)


def otlp_json(text, message):
    """Parse OTLP's JSON, which writes ids in hexadecimal, not in base64."""
    import base64

    def convert(node):
        if isinstance(node, dict):
            return {
                key: base64.b64encode(bytes.fromhex(value)).decode()
                if key in ("traceId", "spanId", "parentSpanId")
                else convert(value)
                for key, value in node.items()
            }
        return [convert(part) for part in node] if isinstance(node, list) else node

    return json_format.ParseDict(convert(json.loads(text)), message)


def test_not_a_number_is_written_as_protobufs_json():
    """Infinity and NaN, which JSON has no words for, are strings."""
    tree = {"explicitBounds": [math.inf, -math.inf, math.nan]}

    assert ["Infinity", "-Infinity", "NaN"] == protobuf.as_json(
        "HistogramDataPoint", tree
    )["explicitBounds"]
