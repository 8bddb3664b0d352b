"""What a sink or a destination cannot use is refused when it is made, in its words."""

from __future__ import annotations

import pytest

import lambda_ext
from lambda_ext import Metrics, metrics, telemetry
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.metrics import datadog, otlp
from lambda_ext.telemetry import destinations
from lambda_ext.testing import FakeSource

URL = "https://receiver.example/x"
# As `os.environ.get` returns it for a variable that is not set, and other slips.
PLACES = {
    "otlp.splunk": lambda bad: otlp.splunk("k", realm=bad),
    "otlp.datadog": lambda bad: otlp.datadog("k", site=bad),
    "otlp.collector": lambda bad: otlp.collector(bad),
    "otlp.cloudwatch": lambda bad: otlp.cloudwatch(region=bad or 5),
    "destinations.collector": lambda bad: destinations.collector(bad or 5),
    "destinations.datadog": lambda bad: destinations.datadog("k", site=bad),
    "its service": lambda bad: destinations.datadog("k", service=bad or 5),
    "its source": lambda bad: destinations.datadog("k", source=bad),
    "its tags": lambda bad: destinations.datadog("k", tags=bad),
    "cloudwatch_logs": lambda bad: destinations.cloudwatch_logs("g", "s", region=bad or 5),
}  # fmt: skip


@pytest.mark.parametrize("bad", [None, 5, b"us1"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_text_is_refused(place, bad, monkeypatch):
    """With a `ConfigurationError`, as a key or an address is."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with pytest.raises(ConfigurationError):
        PLACES[place](bad)


KEYS = {
    "otlp.new_relic": otlp.new_relic,
    "otlp.splunk": lambda key: otlp.splunk(key, realm="us1"),
    "otlp.datadog": otlp.datadog,
    "new_relic": destinations.new_relic,
    "splunk_hec": lambda key: destinations.splunk_hec(URL, key),
    "datadog": destinations.datadog,
}


@pytest.mark.parametrize("key", ["", " "])
@pytest.mark.parametrize("place", KEYS)
def test_empty_key_is_refused(place, key):
    """As `os.environ.get(name, "")` returns it: each request would be refused."""
    with pytest.raises(ConfigurationError, match="is empty"):
        KEYS[place](key)


@pytest.mark.parametrize(
    "options", [{"tags": 5}, {"tags": [5]}, {"flush_to_log": "no"}, {"flush_to_log": 1}]
)
def test_options_of_datadogs_sink_are_checked(options):
    """ "no" counted as true."""
    with pytest.raises(ConfigurationError):
        datadog.DatadogSink(**options)


@pytest.mark.parametrize("name", [5, None])
def test_name_of_a_route_is_text(name):
    """Statistics call it by that."""
    with pytest.raises(ConfigurationError, match="name= is text"):
        lambda_ext.metrics.route("emf", name=name)


@pytest.mark.parametrize("body", [[{"type": "function"}], {}, None])
def test_batch_of_what_is_no_text_is_refused(body):
    """In a test of a consumer, where it is made, instead of where it is read."""
    with pytest.raises(TypeError, match=r"JSON text of a delivery, not .*json\.dumps"):
        telemetry.Batch.of(body)


@pytest.mark.parametrize(
    "options", [{"attribute": 5}, {"targeting_key": None}, {"on_track": 5}]
)
def test_options_of_the_openfeature_provider_are_checked(options):
    """They failed in the first evaluation, which returned its default."""
    openfeature = pytest.importorskip("lambda_ext.openfeature")
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        openfeature.AppConfigProvider(lambda_ext.Flags("a", "b", "c"), **options)


def test_waiting_for_calls_says_how_many_came():
    """The error of a test that waits is an AssertionError, as pytest shows it."""
    with pytest.raises(AssertionError, match="0 calls instead of 1"):
        FakeSource().wait_for_calls(1, timeout=0.01)


KEY = "key-of-a-vendor"


class Late:
    """A sink that must not be one, and whose repr says what it holds."""

    async def accept(self, batch):
        """Never be awaited."""

    accept_logs = accept

    def __repr__(self):
        return f"Late(key={KEY!r})"


@pytest.mark.parametrize(
    "given", [{"key": KEY}, [KEY], Late()], ids=["dict", "list", "object"]
)
@pytest.mark.parametrize(
    "use",
    [
        lambda given: Metrics(sink=given),
        lambda given: lambda_ext.configure(sinks=[given]),
        metrics.route,
        lambda given: telemetry.route().to(given),
    ],
    ids=["Metrics", "configure", "metrics.route", "telemetry.route"],
)
def test_refusal_names_the_type_and_shows_no_content(use, given):
    """What is meant as a sink may hold a key."""
    with pytest.raises(ConfigurationError) as refused:
        use(given)

    assert f"an object of type {type(given).__name__}" in str(refused.value)
    assert KEY not in str(refused.value)
