"""
Where logs, platform metrics and spans go; each for ``telemetry.route(...).to(...)``.

    otlp() new_relic() sumo_logic() cloudwatch_logs() collector()    OTLP logs
    splunk_hec()      Splunk's HTTP Event Collector
    datadog()         Datadog's logs intake
    firehose()        Amazon Data Firehose
    http()            any HTTP endpoint, as lines of JSON (NDJSON)
    metrics()         platform records as metrics, to the sinks of metrics
    spans()           platform records as OTLP spans

Guarantees, of all that use a network
    `accept_logs` waits for nothing; `drain` returns at its deadline.
    What could not be sent stays in a bounded queue and is sent later; what the
    receiver refuses, or has no room, is counted by its reason.
    A key may be a `Secret`: it is read when it is needed, and once more where the
    receiver answers 401 or 403.  It goes over verified TLS only, or to this
    machine, and into no message, log line or repr, nor into what is shipped.
"""

from __future__ import annotations

from ..delivery.receiver import TIMEOUT_S, Receiver, lowered, seconds
from ..disclosure import quoted, raises_without_variables
from ..exceptions import ConfigurationError
from .over_http import HttpDestination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..delivery.receiver import Text
    from ..typing import Sink
    from .datadog_logs import DatadogLogs
    from .firehose import Firehose
    from .otlp_logs import OtlpLogs
    from .otlp_spans import OtlpSpans
    from .platform_metrics import PlatformMetrics
    from .splunk_hec import SplunkHec


@raises_without_variables
def http(
    url: Text,
    *,
    headers: Mapping[str, Text] | None = None,
    compression: str = "none",
    timeout: float = TIMEOUT_S,
    name: str = "http",
) -> HttpDestination:
    """
    Return a destination that POSTs lines of JSON (NDJSON) to *url*.

    Each line has "time" and "type", "level", "requestId" and "traceId" where they
    are known, and "message" (a line of text) or "record" (a JSON object).  2xx
    means that all were taken; 429, 502, 503, 504 and broken connections that all
    are sent again; anything else that they are dropped.

    Args:
        url: The whole address; a `Secret` if it is a key itself.
        headers: Names and values; a value may be a `Secret`.  A content type takes
            the place of "application/x-ndjson".
        compression: "gzip" or "none".
        timeout: Seconds that one request may take.
        name: What statistics and log lines call it.

    Raises:
        ConfigurationError: one of these cannot be used; plain HTTP goes to this
            machine only.
    """
    if compression not in ("gzip", "none"):
        msg = f"http(compression={quoted(compression)}): use 'gzip' or 'none'"
        raise ConfigurationError(msg)
    own_type = "content-type" in lowered(headers)
    to = Receiver(
        name,
        url,
        headers=headers,
        content_type="" if own_type else "application/x-ndjson",
        compressed=compression == "gzip",
        timeout=seconds("timeout", timeout),
    )
    return HttpDestination(name, to)


@raises_without_variables
def otlp(
    endpoint: Text | None = None,
    *,
    headers: Mapping[str, Text] | None = None,
    protocol: str | None = None,
    compression: str | None = None,
    timeout: float | None = None,
    name: str = "otlp_logs",
) -> OtlpLogs:
    """
    Return a destination for logs by OTLP over HTTP; see `otlp_logs.OtlpLogs`.

    *endpoint* None is what ``OTEL_EXPORTER_OTLP_[LOGS_]ENDPOINT`` says, else a
    collector on this machine.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.
    """
    from .otlp_logs import OtlpLogs

    return OtlpLogs(
        endpoint,
        headers=headers,
        protocol=protocol,
        compression=compression,
        timeout=timeout,
        name=name,
    )


@raises_without_variables
def new_relic(key: Text, *, region: str = "us") -> OtlpLogs:
    """
    Return a destination for New Relic; *key* is a license key.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "New Relic OTLP endpoint",
    https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/
    """
    from .otlp_logs import new_relic as made

    return made(key, region=region)


@raises_without_variables
def sumo_logic(url: Text) -> OtlpLogs:
    """
    Return a destination for a Sumo Logic OTLP/HTTP source.

    *url* is the source's address, as Sumo Logic shows it.  It is the key, too: with
    it any program may write, so keep it in a `Secret`.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "OTLP/HTTP Source",
    https://www.sumologic.com/help/docs/send-data/hosted-collectors/http-source/otlp/
    """
    from .otlp_logs import sumo_logic as made

    return made(url)


def cloudwatch_logs(
    log_group: str, log_stream: str, *, region: str | None = None
) -> OtlpLogs:
    """
    Return a destination for a log group of CloudWatch, signed with the role's keys.

    The group and the stream must be there; the role needs ``logs:PutLogEvents``.
    *region* None is the function's.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "OTLP Endpoints", https://docs.aws.amazon.com/AmazonCloudWatch/
    latest/monitoring/CloudWatch-OTLPEndpoint.html
    """
    from .otlp_logs import cloudwatch_logs as made

    return made(log_group, log_stream, region=region)


@raises_without_variables
def collector(
    url: str | None = None, *, headers: Mapping[str, Text] | None = None
) -> OtlpLogs:
    """
    Return a destination for an OpenTelemetry collector at *url*, without the path.

    None is this machine.  Plain HTTP may go to another machine, for example inside
    a VPC, as long as there are no *headers*, which may hold a key.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.
    """
    from .otlp_logs import collector as made

    return made(url, headers=headers)


@raises_without_variables
def splunk_hec(
    url: Text,
    token: Text,
    *,
    index: str | None = None,
    source: str | None = None,
    sourcetype: str | None = None,
    host: str | None = None,
) -> SplunkHec:
    """
    Return a destination for Splunk's HTTP Event Collector.

    Args:
        url: The collector, such as "https://http-inputs-acme.splunkcloud.com";
            with or without "/services/collector/event".
        token: A HEC token, best a `Secret`.  Indexer acknowledgement must be off
            for it.
        index: Splunk's index; None is the token's.
        source: Splunk's source; None is "lambda:FUNCTION".
        sourcetype: Splunk's source type; None is "_json".
        host: Splunk's host; None is the execution environment's log stream.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "Format events for HTTP Event Collector",
    https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector
    """
    from .splunk_hec import SplunkHec

    return SplunkHec(
        url, token, index=index, source=source, sourcetype=sourcetype, host=host
    )


@raises_without_variables
def datadog(
    key: Text,
    *,
    site: str = "datadoghq.com",
    service: str | None = None,
    tags: Sequence[str] = (),
    source: str = "lambda",
) -> DatadogLogs:
    """
    Return a destination for Datadog's logs intake; *key* is an API key.

    *site* is Datadog's, such as "datadoghq.eu" or "us5.datadoghq.com"; *service*
    None is as for metrics; *tags* are texts such as "env:prod".

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.
    """
    from .datadog_logs import DatadogLogs

    return DatadogLogs(key, site=site, service=service, tags=tags, source=source)


def firehose(stream: str) -> Firehose:
    """
    Return a destination for the Amazon Data Firehose stream *stream*.

    Each record is a line of JSON, as `http` sends it.  The role needs
    ``firehose:PutRecordBatch``.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: PutRecordBatch,
    https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html
    """
    from .firehose import Firehose

    return Firehose(stream)


def metrics(
    sink: Sink | None = None,
    *,
    namespace: str | None = None,
    service: str | None = None,
    dimensions: Mapping[str, str | int] | None = None,
) -> PlatformMetrics:
    """
    Return a destination that makes metrics of the platform's records.

    Arguments are those of `lambda_ext.Metrics`; *sink* None is where
    ``configure(sinks=...)`` says.  See `platform_metrics` for the names.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.
    """
    from .platform_metrics import PlatformMetrics

    return PlatformMetrics(
        sink, namespace=namespace, service=service, dimensions=dimensions
    )


@raises_without_variables
def spans(
    endpoint: Text | None = None,
    *,
    headers: Mapping[str, Text] | None = None,
    protocol: str | None = None,
    compression: str | None = None,
    timeout: float | None = None,
    name: str = "otlp_spans",
    sampled_only: bool = False,
) -> OtlpSpans:
    """
    Return a destination that makes OTLP spans of the platform's records.

    *endpoint* None is what ``OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT`` says, else a
    collector on this machine; see `otlp_spans.OtlpSpans`.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.
    """
    from .otlp_spans import OtlpSpans

    return OtlpSpans(
        endpoint,
        headers=headers,
        protocol=protocol,
        compression=compression,
        timeout=timeout,
        name=name,
        sampled_only=sampled_only,
    )


__all__ = (
    "cloudwatch_logs",
    "collector",
    "datadog",
    "firehose",
    "http",
    "metrics",
    "new_relic",
    "otlp",
    "spans",
    "splunk_hec",
    "sumo_logic",
)
