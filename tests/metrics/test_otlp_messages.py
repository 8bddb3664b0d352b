"""What metrics become in OTLP, read back by opentelemetry-proto."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

import lambda_ext
from lambda_ext.delivery import otlp_common, protobuf
from lambda_ext.metrics import otlp_messages as otlp

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(-1e12, 1e12, allow_nan=False)
)


class Point:
    """A point as a flush hands it over."""

    def __init__(self, kind, name, values, unit="None", dimensions=()):
        self.kind = kind
        self.name = name
        self.values = values
        self.unit = unit
        self.dimensions = dimensions
        self.samples = len(values)


def sent(points, **options):
    """Return the metrics that a receiver reads out of a request of *points*."""
    options = {"start_ns": 5, "at_ns": 9, "of": {}, "version": "1"} | options
    tree = otlp.request("Shop", points, **options)
    message = ExportMetricsServiceRequest.FromString(
        protobuf.encode(otlp.METRICS, tree)
    )
    (resource,) = message.resource_metrics
    (scope,) = resource.scope_metrics
    return resource.resource, scope


class TestRequest:
    """request()"""

    def test_count_is_a_delta_sum(self):
        """A counter is a monotonic delta sum over the time since the last flush."""
        dimensions = (("service", "orders"), ("shop", "web"))

        _, scope = sent([Point("count", "orders", [3], "Count", dimensions)])

        (metric,) = scope.metrics
        (point,) = metric.sum.data_points
        assert ("Shop", "orders", "1") == (scope.scope.name, metric.name, metric.unit)
        assert (1, True) == (
            metric.sum.aggregation_temporality,
            metric.sum.is_monotonic,
        )
        assert (5, 9, 3) == (
            point.start_time_unix_nano,
            point.time_unix_nano,
            point.as_int,
        )
        assert dimensions == tuple(
            (pair.key, pair.value.string_value) for pair in point.attributes
        )

    def test_negative_count_is_not_monotonic(self):
        """A sum that went down is not called monotonic, nor is it lost."""
        _, scope = sent([Point("count", "open", [-2], "Count")])

        (metric,) = scope.metrics
        assert (False, -2) == (
            metric.sum.is_monotonic,
            metric.sum.data_points[0].as_int,
        )

    def test_series_of_one_metric_share_it(self):
        """One metric holds all points of a name, a unit and a kind."""
        _, scope = sent(
            [
                Point("gauge", "depth", [1.5], "Count", (("q", "a"),)),
                Point("gauge", "depth", [2.5], "Count", (("q", "b"),)),
                Point("gauge", "depth", [3.5], "None", (("q", "b"),)),
            ]
        )

        assert [("1", [1.5, 2.5]), ("", [3.5])] == [
            (metric.unit, [point.as_double for point in metric.gauge.data_points])
            for metric in scope.metrics
        ]

    def test_value_on_a_bound_falls_below_it(self):
        """Bounds are inclusive, as OTLP defines them."""
        _, scope = sent([Point("distribution", "t", [5, 5.1, 1e9], "Milliseconds")])

        (point,) = scope.metrics[0].histogram.data_points
        assert 5.0 == point.explicit_bounds[0]
        assert (1, 1, 1) == (
            point.bucket_counts[0],
            point.bucket_counts[1],
            point.bucket_counts[-1],
        )
        assert (3, 5.0, 1e9) == (point.count, point.min, point.max)

    @given(st.lists(NUMBERS, min_size=1), st.sampled_from(["Seconds", "Bytes", "None"]))
    def test_nothing_is_lost_in_a_histogram(self, values, unit):
        """Buckets add up to the count, and each value is in the bucket of its size."""
        _, scope = sent([Point("distribution", "d", values, unit)])

        (point,) = scope.metrics[0].histogram.data_points
        bounds = [*point.explicit_bounds, float("inf")]
        expected = [0] * len(bounds)
        for value in values:
            expected[next(i for i, bound in enumerate(bounds) if value <= bound)] += 1
        assert expected == [*point.bucket_counts]
        assert len(values) == point.count == sum(point.bucket_counts)
        assert float(sum(values)) == point.sum

    @given(st.sampled_from(["count", "gauge"]), NUMBERS)
    def test_number_is_what_was_recorded(self, kind, value):
        """An integer stays one where OTLP can hold it, all else is a double."""
        _, scope = sent([Point(kind, "n", [value])])

        metric = scope.metrics[0]
        (point,) = (metric.sum if kind == "count" else metric.gauge).data_points
        fits = isinstance(value, int) and -(2**63) <= value < 2**63
        assert ("as_int" if fits else "as_double") == point.WhichOneof("value")
        assert (value if fits else float(value)) == (
            point.as_int if fits else point.as_double
        )


class TestUnit:
    """unit()"""

    @pytest.mark.parametrize(
        ("given_unit", "expected"),
        [
            ("Milliseconds", "ms"),
            ("Bytes/Second", "By/s"),
            ("Count", "1"),
            ("None", ""),
            ("Percent", "%"),
        ],
    )
    def test_is_ucum(self, given_unit, expected):
        """CloudWatch's words become those of OpenTelemetry."""
        assert expected == otlp.unit(given_unit)


class TestResource:
    """resource()"""

    def test_names_the_function_and_the_environment(self, monkeypatch):
        """What Lambda's variables say stands in the resource, memory in bytes."""
        for name, value in {
            "AWS_LAMBDA_FUNCTION_NAME": "orders",
            "AWS_LAMBDA_FUNCTION_VERSION": "7",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_REGION": "eu-west-1",
            "AWS_LAMBDA_LOG_STREAM_NAME": "s",
        }.items():
            monkeypatch.setenv(name, value)

        found = otlp_common.resource("abc", "shop")

        assert {
            "service.name": "shop",
            "cloud.provider": "aws",
            "cloud.platform": "aws_lambda",
            "cloud.region": "eu-west-1",
            "faas.name": "orders",
            "faas.version": "7",
            "faas.max_memory": 268435456,
            "aws.log.stream.names": ["s"],
            "faas.instance": "abc",
        } == found

    @pytest.mark.parametrize(
        ("arn", "account", "resource"),
        [
            ("arn:aws:lambda:eu-west-1:1234:function:f:live", "1234",
             "arn:aws:lambda:eu-west-1:1234:function:f"),
            ("arn:aws:lambda:eu-west-1:1234:function:f", "1234",
             "arn:aws:lambda:eu-west-1:1234:function:f"),
            (None, None, None),
            ("f", None, None),
        ],
    )  # fmt: skip
    def test_account_is_known_from_the_first_invocation_on(
        self, arn, account, resource
    ):
        """From the ARN in the context, without version or alias."""

        class Context:
            invoked_function_arn = arn

            def get_remaining_time_in_millis(self):
                return 3000

        otlp_common.follow_life()
        before = otlp_common.resource("abc", "shop")
        lambda_ext.handler(lambda event, context: None)({}, Context())
        after = otlp_common.resource("abc", "shop")

        assert "cloud.account.id" not in before
        assert after.get("cloud.account.id") == account
        assert after.get("cloud.resource_id") == resource

    def test_variables_of_opentelemetry_come_first(self, monkeypatch):
        """OTEL_RESOURCE_ATTRIBUTES adds and replaces, OTEL_SERVICE_NAME wins."""
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb,service.name=x, ,=y")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "checkout")

        found = otlp_common.resource("abc", "shop")

        assert {
            "service.name": "checkout",
            "faas.instance": "abc",
            "team": "a,b",
        } == found


class TestPairs:
    """pairs()"""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", {}),
            ("a=1,b=2", {"a": "1", "b": "2"}),
            (" api-key = x=y ", {"api-key": "x=y"}),
            ("a=%C5%81%zz%", {"a": "Ł%zz%"}),
            ("novalue,=v,a=", {"a": ""}),
        ],
    )
    def test_reads_a_list(self, text, expected):
        """Values are percent-decoded, what is no pair is left out."""
        assert expected == otlp_common.pairs(text)


class TestRejected:
    """rejected()"""

    def test_partial_success_is_counted(self):
        """Refused points and the reason are read from protobuf and from JSON."""
        response = ExportMetricsServiceResponse()
        response.partial_success.rejected_data_points = 3
        response.partial_success.error_message = "bad"
        text = json.dumps(
            {"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "bad"}}
        )

        assert (3, "bad") == otlp_common.rejected(
            response.SerializeToString(), "application/x-protobuf"
        )
        assert (3, "bad") == otlp_common.rejected(text.encode(), "application/json")

    @pytest.mark.parametrize(
        "body", [b"", b"\xff", b"[]", b"{", b"null", b'{"partialSuccess": 3}']
    )
    @pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf"])
    def test_what_cannot_be_read_is_a_success(self, body, kind):
        """After a 2xx nothing is sent again, for every body."""
        assert (0, "") == otlp_common.rejected(body, kind)
