"""
Logs by OTLP over HTTP, with presets for those who take them.

A line of text is the body.  Of a JSON line the message is the body, and its
other members are attributes; a platform's record is the body as it came.
``faas.invocation_id`` is the invocation, and the trace is the invocation's.

Source: OpenTelemetry's logs data model, https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

from __future__ import annotations

from ..aws import regions
from ..delivery import otlp_common, protobuf
from ..delivery.receiver import Receiver, label, lowered
from ..disclosure import quoted
from ..exceptions import ConfigurationError
from . import redaction
from .entry import trace_ids
from .over_http import HttpDestination
from .predicates import LEVELS
from .records import PLATFORM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..delivery.receiver import Text
    from .entry import Entry

SIGNAL = "LOGS"  # in the names of OpenTelemetry's variables
PATH = "/v1/logs"
LOGS = "ExportLogsServiceRequest"
MAX_BYTES = 900_000  # of a request, before gzip; CloudWatch and New Relic take 1 MB
MAX_RECORDS = 2_000
NEW_RELIC = {
    "us": "otlp.nr-data.net",
    "eu": "otlp.eu01.nr-data.net",
    "gov": "gov-otlp.nr-data.net",
}
# The number of Lambda's level -> OpenTelemetry's severity
SEVERITIES = {5: 1, 10: 5, 20: 9, 30: 13, 40: 17, 50: 21}
# Members of a JSON line that have a place of their own.
PLACED = frozenset(("message", "msg", "level", "timestamp"))


class OtlpLogs(HttpDestination):
    """
    Sends logs to *endpoint* by OTLP over HTTP.

    Args:
        endpoint: The whole URL, or what has one as its ``value``.  None: what
            ``OTEL_EXPORTER_OTLP_LOGS_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_ENDPOINT``
            says, else a collector on this machine; then
            ``OTEL_EXPORTER_OTLP_[LOGS_]HEADERS`` count, too.
        headers: Names and values; a value may be a `Secret`.
        protocol: "http/protobuf" or "http/json"; None:
            ``OTEL_EXPORTER_OTLP_[LOGS_]PROTOCOL``, else protobuf.
        compression: "gzip" or "none"; None:
            ``OTEL_EXPORTER_OTLP_[LOGS_]COMPRESSION``, else gzip.
        timeout: Seconds that one request may take; None:
            ``OTEL_EXPORTER_OTLP_[LOGS_]TIMEOUT`` (milliseconds), else 10.
        name: What statistics and log lines call it.
        sign: The service whose SigV4 signature a request needs, "" for none.
        region: For the signature; "" is the function's.
        clear: Whether plain HTTP may go to another machine; never with headers.

    Raises:
        ConfigurationError: one of these cannot be used; the message says what
            would do, and quotes no URL and no header.
    """

    __slots__ = ("_disabled", "_json")

    def __init__(
        self,
        endpoint: Text | None = None,
        *,
        headers: Mapping[str, Text] | None = None,
        protocol: str | None = None,
        compression: str | None = None,
        timeout: float | None = None,
        name: str = "otlp_logs",
        sign: str = "",
        region: str = "",
        clear: bool = False,
    ) -> None:
        to, self._json = receiver(
            SIGNAL,
            PATH,
            endpoint,
            headers=headers,
            protocol=protocol,
            compression=compression,
            timeout=timeout,
            name=name,
            sign=sign,
            region=region,
            clear=clear,
        )
        self._disabled = otlp_common.is_disabled()
        otlp_common.follow_life()
        super().__init__(name, to, max_records=MAX_RECORDS, max_bytes=MAX_BYTES)

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Queue *entries*, unless OpenTelemetry's variables turn everything off."""
        if not self._disabled:
            super().accept_logs(entries)

    def encode(self, entry: Entry) -> bytes:
        """Return *entry* as a LogRecord."""
        tree = log_record(entry)
        if self._json:
            return otlp_common.compact(protobuf.as_json("LogRecord", tree))
        return protobuf.encode("LogRecord", tree)

    def join(self, run: list[bytes]) -> bytes:
        """Return a request with the records *run*."""
        return request(run, "resourceLogs", "scopeLogs", "logRecords", json=self._json)

    def accepted(self, response: Any) -> tuple[int, str]:
        """Return how many records the receiver has refused, and why."""
        kind = response.headers.get("content-type", "")
        return otlp_common.rejected(response.body, kind)


class _SumoLogic(OtlpLogs):
    """Sends to an address that is a key."""

    __slots__ = ()

    def _protect(self) -> None:
        super()._protect()
        given = self._receiver.given
        if isinstance(given, str):
            address = given.partition("?")[0].removesuffix(PATH)
            last = address.rpartition("/")[2]
            found = last if len(last) >= redaction.LINE else address
            redaction.protect("sumo_logic address", found)


def log_record(entry: Entry) -> dict[str, Any]:
    """Return *entry* as the tree of a LogRecord."""
    at_ns = round(entry.timestamp * 1000) * 1_000_000
    attributes: dict[str, Any] = {"aws.lambda.record_type": entry.type}
    if entry.request_id:
        attributes["faas.invocation_id"] = entry.request_id
    body: Any = entry.message
    if isinstance(entry.body, dict):
        if entry.where == PLATFORM:
            body = entry.body
        else:
            attributes.update(
                {
                    str(name): part
                    for name, part in entry.body.items()
                    if name not in PLACED
                }
            )
    level = entry.level or ("INFO" if entry.where != PLATFORM else "")
    tree: dict[str, Any] = {"timeUnixNano": at_ns}
    severity = SEVERITIES.get(LEVELS.get(level, 0))
    if severity:
        tree["severityNumber"] = severity
    if entry.level:
        tree["severityText"] = entry.level
    tree["body"] = protobuf.any_value(body)
    tree["attributes"] = protobuf.attributes(attributes)
    trace_id, parent = trace_ids(entry.trace)
    if trace_id:
        tree["traceId"] = bytes.fromhex(trace_id)
        if parent:
            tree["spanId"] = bytes.fromhex(parent)
    tree["observedTimeUnixNano"] = at_ns
    return tree


def receiver(
    signal: str,
    path: str,
    endpoint: Text | None,
    *,
    headers: Mapping[str, Text] | None,
    protocol: str | None,
    compression: str | None,
    timeout: float | None,
    name: str,
    sign: str,
    region: str,
    clear: bool,
) -> tuple[Receiver, bool]:
    """Return the receiver of *signal*, and whether it gets JSON."""
    if endpoint is None:
        endpoint = otlp_common.configured_endpoint(signal, path)
        headers = {**otlp_common.headers_of(signal), **lowered(headers)}
    chosen = otlp_common.choice(
        signal, "protocol", protocol, "PROTOCOL", otlp_common.TYPES
    )
    compressed = otlp_common.choice(
        signal, "compression", compression, "COMPRESSION", ("gzip", "none")
    )
    to = Receiver(
        name,
        endpoint,
        headers=headers,
        content_type=otlp_common.TYPES[chosen],
        compressed=compressed == "gzip",
        timeout=otlp_common.timeout_of(signal, timeout),
        sign=sign,
        region=region,
        clear=clear,
        certificate=otlp_common.certificate_of(signal),
        client=otlp_common.client_of(signal),
    )
    return to, chosen == "http/json"


def request(
    run: list[bytes], outer: str, inner: str, member: str, *, json: bool
) -> bytes:
    """Return the request with the encoded messages *run*, of this environment."""
    of = otlp_common.resource(otlp_common.instance(), otlp_common.service())
    resource = {"attributes": protobuf.attributes(of)}
    scope = {"name": "lambda_ext", "version": otlp_common.version()}
    if json:
        around = {
            "resource": protobuf.as_json("Resource", resource),
            inner: [
                {"scope": protobuf.as_json("InstrumentationScope", scope), member: []}
            ],
        }
        head, _, tail = otlp_common.compact({outer: [around]}).rpartition(b"[]")
        return head + b"[" + b",".join(run) + b"]" + tail
    delimited = protobuf.delimited
    # Field numbers are the same for logs and spans: resource 1, scope group 2;
    # scope 1, records 2.
    group = delimited(1, protobuf.encode("InstrumentationScope", scope))
    group += b"".join([delimited(2, data) for data in run])
    of_resource = delimited(1, protobuf.encode("Resource", resource))
    return delimited(1, of_resource + delimited(2, group))


# Presets ---------------------------------------------------------------------


def new_relic(key: Text, *, region: str = "us") -> OtlpLogs:
    """Return a destination for New Relic; see `destinations.new_relic`."""
    if region not in NEW_RELIC:
        msg = f"new_relic(region={quoted(region)}): use one of {', '.join(NEW_RELIC)}"
        raise ConfigurationError(msg)
    url = f"https://{NEW_RELIC[region]}{PATH}"
    return OtlpLogs(
        url,
        headers={"api-key": key},
        protocol=otlp_common.PROTOBUF,
        name="new_relic",
    )


def sumo_logic(url: Text) -> OtlpLogs:
    """Return a destination for Sumo Logic; see `destinations.sumo_logic`."""
    address: Text
    if isinstance(url, str):
        address = otlp_common.below(url, PATH)
    else:
        address = otlp_common.Below(url, PATH)
    return _SumoLogic(address, protocol=otlp_common.PROTOBUF, name="sumo_logic")


def cloudwatch_logs(
    log_group: str, log_stream: str, *, region: str | None = None
) -> OtlpLogs:
    """Return a destination for CloudWatch Logs; see `destinations.cloudwatch_logs`."""
    value: Any
    for name, value in (("log_group", log_group), ("log_stream", log_stream)):
        if not isinstance(value, str) or not value:
            msg = f"cloudwatch_logs({name}={quoted(value)}) takes the name of one"
            raise ConfigurationError(msg)
    name = regions.region("logs") if region is None else label("region", region)
    suffix = next(end for start, end in regions.SUFFIXES if name.startswith(start))
    return OtlpLogs(
        f"https://logs.{name}.{suffix}{PATH}",
        headers={"x-aws-log-group": log_group, "x-aws-log-stream": log_stream},
        protocol=otlp_common.PROTOBUF,
        name="cloudwatch_logs",
        sign="logs",
        region=name,
    )


def collector(
    url: str | None = None, *, headers: Mapping[str, Text] | None = None
) -> OtlpLogs:
    """Return a destination for a collector; see `destinations.collector`."""
    address = otlp_common.below(otlp_common.LOCAL if url is None else url, PATH)
    return OtlpLogs(address, headers=headers, name="collector", clear=True)
