"""
The OTLP sink: metrics over HTTP to a collector, or to a vendor's intake.

    accept ─▶ queue (`delivery`) ─▶ drain: encode ─▶ gzip ─▶ POST ─▶ outcome

Presets name the address and the header of those who take OTLP: `new_relic`,
`splunk`, `sumo_logic`, `datadog`, `cloudwatch` and `collector`.  A key may be a
`Secret`: it is read when it is needed, and once more where the receiver answers
401 or 403, since such keys are rotated.

Guarantees
    `OtlpSink.accept` waits for nothing and sends nothing.
    A key goes over verified TLS only, and into no message, log line or repr;
    neither does a URL, which may be a key itself (Sumo Logic's is).
    429, 502, 503, 504 and broken connections are tried again with the original
    times; 2xx is final, also with an empty body; everything else is dropped and
    counted.
    Requests have at most `MAX_POINTS` points and about `MAX_BYTES` bytes.

Encoding
    protobuf.  JSON is there for receivers that take nothing else: two collectors
    that were tried (rotel, ddapm-test-agent) answer it with 200 and lose values.

Source: OTLP/HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp, and its
variables, https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
import zlib
from json import dumps

from .. import config
from ..aws import connections, credentials, http1, regions, retries, signing, tls
from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock, phases, process
from . import otlp_messages, protobuf
from .delivery import Delivery, RefusedError, RetryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from ..typing import Batch, Point

    class Handle(Protocol):
        """A value that is read when it is needed: a `Secret`, a `Parameter`."""

        @property
        def value(self) -> str:
            """Return the value."""
            ...

        def invalidate(self) -> None:
            """Forget it, so that the next `value` is new."""
            ...

    Text = str | Handle | Callable[[], str]

MAX_POINTS = 1_000  # of a request; CloudWatch takes no more
MAX_BYTES = 400_000  # of a request, before gzip; Datadog takes 500 KB
WORTH_GZIP = 1_000  # bytes
EVERY_S = 30.0  # between two requests while little is recorded
TIMEOUT_S = 10.0  # OTEL_EXPORTER_OTLP_TIMEOUT's default
LOCAL = "http://localhost:4318"  # where a collector listens
PATH = "/v1/metrics"
PASSING = (429, 502, 503, 504)
DENIED = (401, 403)
TYPES = {"http/protobuf": "application/x-protobuf", "http/json": "application/json"}

_instance = ""  # of this execution environment, once it was needed


class OtlpSink:
    """
    Sends metrics to *endpoint* by OTLP over HTTP.

    Nothing is sent when metrics are recorded, nor by `accept`: requests leave at
    the end of an invocation once *every* seconds have passed, or `MAX_POINTS`
    points or `MAX_BYTES` bytes wait; before a time-out, at SIGTERM and at exit.
    Then the process waits, within what is left of its time.

    Args:
        endpoint: The whole URL, or what has one as its ``value``.  None: what
            ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`` or
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, else a collector on this machine;
            then ``OTEL_EXPORTER_OTLP_[METRICS_]HEADERS`` count, too.
        headers: Names and values; a value may be a `Secret`, another object with
            ``value`` and ``invalidate()``, or a function.
        protocol: "http/protobuf" or "http/json"; None:
            ``OTEL_EXPORTER_OTLP_[METRICS_]PROTOCOL``, else protobuf.
        compression: "gzip" or "none"; None:
            ``OTEL_EXPORTER_OTLP_[METRICS_]COMPRESSION``, else gzip.
        timeout: Seconds that one request may take; None:
            ``OTEL_EXPORTER_OTLP_[METRICS_]TIMEOUT`` (milliseconds), else 10.
        every: Seconds between two requests while little is recorded; 0 sends at
            the end of each invocation.
        name: What statistics and log lines call it.
        sign: The service whose SigV4 signature a request needs, "" for none.
        clear: Whether plain HTTP may go to another machine; never with headers.

    Raises:
        ConfigurationError: one of these cannot be used; the message says what
            would do, and quotes no URL and no header.
    """

    __slots__ = (
        "__weakref__", "_certificate", "_clear", "_compression", "_connections",
        "_delivery", "_disabled", "_due_at", "_endpoint", "_every", "_headers",
        "_last", "_protocol", "_region", "_seen", "_sign", "_timeout", "_url",
        "name",
    )  # fmt: skip

    def __init__(
        self,
        endpoint: Text | None = None,
        *,
        headers: Mapping[str, Text] | None = None,
        protocol: str | None = None,
        compression: str | None = None,
        timeout: float | None = None,
        every: float = EVERY_S,
        name: str = "otlp",
        sign: str = "",
        clear: bool = False,
    ) -> None:
        self.name = name
        if endpoint is None:
            endpoint = _configured_endpoint()
            headers = {**otlp_messages.pairs(_variable("HEADERS")), **(headers or {})}
        self._endpoint = endpoint
        self._headers = {key.lower(): value for key, value in (headers or {}).items()}
        for key, value in self._headers.items():
            _check_header(key, value if isinstance(value, str) else "")
        self._protocol = _choice("protocol", protocol, "PROTOCOL", TYPES)
        self._compression = _choice(
            "compression", compression, "COMPRESSION", ("gzip", "none")
        )
        self._timeout = _timeout(timeout)
        self._every = every
        self._sign = sign
        self._clear = clear
        self._certificate = _variable("CERTIFICATE")
        if self._certificate and not os.path.exists(self._certificate):
            msg = (
                "OTEL_EXPORTER_OTLP_CERTIFICATE is not the path of a file:"
                f" {self._certificate!r:.200}"
            )
            raise ConfigurationError(msg)
        self._disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        self._delivery = Delivery(name, self._send)
        self._connections: connections.Connections | None = None
        self._url = ""
        self._region = ""
        self._last: dict[str, int] = {}  # by namespace: when its last batch ended
        self._seen: Batch | None = None
        self._due_at = clock.now() + every
        if isinstance(endpoint, str):
            self._parsed(endpoint)
        _follow_life(self)

    def __repr__(self) -> str:
        return f"<OtlpSink {self.name!r}, {self.pending} records pending>"

    @property
    def sent(self) -> int:
        """The number of records that the receiver has taken."""
        return self._delivery.sent

    @property
    def dropped(self) -> dict[str, int]:
        """The number of records that will not be sent, by reason."""
        return dict(self._delivery.dropped)

    @property
    def pending(self) -> int:
        """The number of records that wait to be sent."""
        return self._delivery.pending

    @property
    def error(self) -> str:
        """What went wrong with the last attempt; "" if it succeeded."""
        return self._delivery.error

    def accept(self, batch: Batch, /) -> None:
        """Queue *batch*; it leaves with a later `drain`."""
        if self._disabled or batch is self._seen or not batch.points:
            return
        at_ns = int(batch.at * 1e9)
        start_ns = self._last.get(batch.namespace, _began_ns())
        start_ns = min(start_ns, at_ns)
        for points, size in _divided(batch.points):
            count = sum(point.samples for point in points)
            payload = (batch.namespace, points, start_ns, at_ns)
            self._delivery.put(payload, count, size)
        self._last[batch.namespace] = at_ns
        self._seen = batch  # one that a signal handler interrupted comes again

    def is_due(self) -> bool:
        """Say whether what waits is old or large enough to be sent."""
        delivery = self._delivery
        if not delivery.bytes:
            return False
        return (
            clock.now() >= self._due_at
            or delivery.bytes >= MAX_BYTES
            or delivery.pending >= MAX_POINTS
        )

    def drain(self, ends_at: float) -> None:
        """Send what waits, before the run time *ends_at*; raises nothing."""
        self._due_at = clock.now() + self._every
        self._delivery.drain(ends_at)

    # One request -------------------------------------------------------------

    def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
        ends_at = min(ends_at, clock.monotonic() + self._timeout)
        body = self._encoded(*payload)
        response = self._posted(body, ends_at)
        if response.status in DENIED and self._renewed(ends_at):
            response = self._posted(body, ends_at)
        status = response.status
        if 200 <= status < 300:
            return otlp_messages.rejected(
                response.body, response.headers.get("content-type", "")
            )
        if status in PASSING:
            after = response.headers.get("retry-after")
            raise RetryError(f"HTTP {status}", retries.retry_after(after))
        raise RefusedError(f"HTTP {status}")

    def _encoded(
        self, namespace: str, points: list[Point], start_ns: int, at_ns: int
    ) -> bytes:
        tree = otlp_messages.request(
            namespace,
            points,
            start_ns=start_ns,
            at_ns=at_ns,
            of=otlp_messages.resource(instance(), _service()),
            version=_version(),
        )
        if self._protocol == "http/json":
            message = protobuf.as_json(otlp_messages.METRICS, tree)
            return dumps(message, separators=(",", ":")).encode()
        return protobuf.encode(otlp_messages.METRICS, tree)

    def _posted(self, body: bytes, ends_at: float) -> http1.Response:
        """Send *body* once; what may pass is a RetryError without a chain."""
        reason = ""
        try:
            url = _text(self._endpoint)
            if url != self._url or self._connections is None:
                self._parsed(url)
            headers = {key: _text(value) for key, value in self._headers.items()}
            for key, value in headers.items():
                _check_header(key, value)
            assert self._connections is not None
            return self._connections.exchange(
                lambda: self._request(body, headers, ends_at), ends_at
            )
        except ConfigurationError as exc:
            reason = str(exc)
        except LambdaExtError as exc:  # of a key that cannot be read just now
            reason = f"its key cannot be read: {type(exc).__name__}"
        except TimeoutError:
            reason = "no answer in time"
        except http1.ProtocolError as exc:
            reason = str(exc)
        except (credentials.MissingError, credentials.UnavailableError):
            reason = "no credentials to sign with"
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
        raise RetryError(reason)

    def _request(self, body: bytes, headers: dict[str, str], ends_at: float) -> bytes:
        endpoint = regions.parse(self._url)
        path, _, query = endpoint.path.partition("?")
        all_headers = {"host": endpoint.authority, **headers}
        all_headers["content-type"] = TYPES[self._protocol]
        if self._sign:
            # Not compressed: CloudWatch's answer to gzip under a signature is open.
            all_headers.update(self._signed(path, query, all_headers, body, ends_at))
        elif self._compression == "gzip" and len(body) >= WORTH_GZIP:
            body = gzipped(body)
            all_headers["content-encoding"] = "gzip"
        all_headers["content-length"] = str(len(body))
        all_headers["user-agent"] = "lambda-ext"
        lines = [f"POST {endpoint.path or '/'} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in all_headers.items()]
        return "\r\n".join((*lines, "", "")).encode("latin-1") + body

    def _signed(
        self,
        path: str,
        query: str,
        headers: dict[str, str],
        body: bytes,
        ends_at: float,
    ) -> dict[str, str]:
        """Return the headers that sign the request, made when it is sent."""
        provider = credentials.provider()
        if provider is None:
            raise credentials.MissingError
        keys = provider.keys(ends_at)
        signed = {"x-amz-date": signing.timestamp(signing.skew_s)}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        signed["authorization"] = signing.authorization(
            "POST",
            path or "/",
            query,
            {**headers, **signed},
            body,
            keys=keys,
            region=regions.region(self._sign),
            service=self._sign,
        )
        return signed

    def _renewed(self, ends_at: float) -> bool:
        """Have the key read anew; say whether there is one that can be."""
        if self._sign:
            provider = credentials.provider()
            return provider is not None and provider.renewed(
                provider.keys(ends_at), ends_at
            )
        handles = [
            value
            for value in (self._endpoint, *self._headers.values())
            if not isinstance(value, str)
        ]
        for handle in handles:
            forget = getattr(handle, "invalidate", None)
            if forget is not None:
                forget()
        return bool(handles)

    def _parsed(self, url: str) -> None:
        """Make ready to send to *url*, or say what is wrong with it."""
        endpoint = _endpoint(url, self.name)
        plain = not (endpoint.tls or endpoint.local)
        if plain and (not self._clear or self._headers):
            msg = (
                f"the sink {self.name!r} would send in the clear to another machine:"
                " use https; only a collector that needs no key may do without"
            )
            raise ConfigurationError(msg)
        former, self._connections = (
            self._connections,
            connections.Connections(endpoint, stores=self._stores, clear=self._clear),
        )
        self._url = url
        if former is not None:
            former.close()

    def _stores(self, host: str) -> tuple[str, ...]:
        """Return whom to trust: the machine's whole store, or a file of the user's."""
        return (self._certificate or tls.SYSTEM,)

    # Life --------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; the next request opens one."""
        if self._connections is not None:
            self._connections.close()

    def restored(self) -> None:
        """Begin anew after a restore from a snapshot: other times, another instance."""
        self.close()
        self._last = {}
        self._due_at = clock.now() + self._every

    def forked(self) -> None:
        """Leave connections and what waits to the parent."""
        self._connections = None
        self._url = ""
        self._delivery.forked()
        self._last = {}


# Presets ---------------------------------------------------------------------


def new_relic(key: Text, *, region: str = "us", every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for New Relic; *key* is a license key, *region* "us", "eu" or "gov".

    Source: "New Relic OTLP endpoint",
    https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/
    """
    hosts = {
        "us": "otlp.nr-data.net",
        "eu": "otlp.eu01.nr-data.net",
        "gov": "gov-otlp.nr-data.net",
    }
    if region not in hosts:
        msg = f"new_relic(region={region!r:.80}): use one of {', '.join(hosts)}"
        raise ConfigurationError(msg)
    url = f"https://{hosts[region]}{PATH}"
    return OtlpSink(url, headers={"api-key": key}, every=every, name="new_relic")


def splunk(token: Text, *, realm: str, every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for Splunk Observability Cloud; *token* is an access token.

    Source: "Splunk Observability Cloud ingest API",
    https://dev.splunk.com/observability/reference/api/ingest_data/latest
    """
    url = f"https://ingest.{_label('realm', realm)}.observability.splunkcloud.com"
    return OtlpSink(
        f"{url}/v2/datapoint/otlp",
        headers={"x-sf-token": token},
        every=every,
        name="splunk",
    )


def sumo_logic(url: Text, *, every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for a Sumo Logic OTLP/HTTP source.

    *url* is the source's address, as Sumo Logic shows it; who knows it may write,
    so keep it in a `Secret`.

    Source: "OTLP/HTTP Source",
    https://www.sumologic.com/help/docs/send-data/hosted-collectors/http-source/otlp/
    """
    if isinstance(url, str):
        target: Text = _below(url, PATH)
    else:
        target = _Suffixed(url)
    return OtlpSink(target, every=every, name="sumo_logic")


def datadog(
    key: Text, *, site: str = "datadoghq.com", every: float = EVERY_S
) -> OtlpSink:
    """
    Return a sink for Datadog's OTLP intake; *key* is an API key.

    `lambda_ext.metrics.datadog` needs no key where Datadog's extension or its
    Forwarder is there.

    Source: "OTLP Metrics Intake Endpoint",
    https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/metrics/
    """
    url = f"https://otlp.{_label('site', site)}{PATH}"
    return OtlpSink(url, headers={"dd-api-key": key}, every=every, name="datadog")


def cloudwatch(region: str | None = None, *, every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for CloudWatch's OTLP endpoint, signed with the role's keys.

    The role needs ``cloudwatch:PutMetricData``.  *region* None is the function's.

    Source: "OTLP Endpoints", https://docs.aws.amazon.com/AmazonCloudWatch/
    latest/monitoring/CloudWatch-OTLPEndpoint.html
    """
    name = regions.region("monitoring") if region is None else _label("region", region)
    suffix = next(end for start, end in regions.SUFFIXES if name.startswith(start))
    return OtlpSink(
        f"https://monitoring.{name}.{suffix}{PATH}",
        sign="monitoring",
        every=every,
        name="cloudwatch",
    )


def collector(
    url: str = LOCAL,
    *,
    headers: Mapping[str, Text] | None = None,
    every: float = EVERY_S,
) -> OtlpSink:
    """
    Return a sink for an OpenTelemetry collector at *url*, without the path.

    Plain HTTP may go to another machine, for example inside a VPC, as long as
    there are no *headers*, which may hold a key.
    """
    return OtlpSink(
        _below(url, PATH), headers=headers, every=every, name="collector", clear=True
    )


class _Suffixed:
    """An address that is read when it is needed, with the path of metrics."""

    __slots__ = ("_url",)

    def __init__(self, url: Any) -> None:
        self._url = url

    @property
    def value(self) -> str:
        return _below(_text(self._url), PATH)

    def invalidate(self) -> None:
        forget = getattr(self._url, "invalidate", None)
        if forget is not None:
            forget()


# Process-wide ----------------------------------------------------------------


def instance() -> str:
    """Return what tells this execution environment from all others."""
    global _instance
    if not _instance:
        made = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME") or os.urandom(8).hex()
        kind = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "")
        # There, several processes share one stream.
        _instance = (
            f"{made}/{os.getpid()}" if kind == "lambda-managed-instances" else made
        )
    return _instance


_sinks: weakref.WeakSet[OtlpSink] = weakref.WeakSet()


@process.at_fork
@process.at_reset
def _another_instance() -> None:
    global _instance
    _instance = ""


@process.at_fork
def _forked() -> None:
    for sink in list(_sinks):
        sink.forked()


def _follow_life(sink: OtlpSink) -> None:
    phases.listen(phases.SNAPSHOT, sink.close, priority=phases.NETWORK)
    phases.listen(phases.RESTORE, sink.restored, priority=phases.ESSENTIAL)
    phases.listen(phases.RESTORE, _another_instance, priority=phases.ESSENTIAL)
    _sinks.add(sink)


def _began_ns() -> int:
    """Return when the first interval began: now, where nothing was sent before."""
    return int((clock.wall() - 1) * 1e9)


def _version() -> str:
    version: str = sys.modules[__name__.partition(".")[0]].__version__
    return version


def _service() -> str:
    name: str = config.get("service") or os.environ.get(
        "AWS_LAMBDA_FUNCTION_NAME", "unknown_service"
    )
    return name


# What was given --------------------------------------------------------------


def gzipped(body: bytes) -> bytes:
    """Return *body* as gzip; the module of that name costs 1.3 ms."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


def _divided(points: Any) -> Any:
    """Yield runs of *points* that fit into one request, with their size in bytes."""
    run: list[Point] = []
    size = 0
    for point in points:
        # Field heads, times, and a histogram's 15 buckets and bounds.
        bytes_ = 300 if point.kind == "distribution" else 60
        bytes_ += len(point.name) + len(point.unit)
        for key, value in point.dimensions:
            bytes_ += 12 + len(key) + len(value)
        if run and (len(run) >= MAX_POINTS or size + bytes_ > MAX_BYTES):
            yield run, size
            run, size = [], 0
        run.append(point)
        size += bytes_
    if run:
        yield run, size


def _text(given: Any) -> str:
    value = given if isinstance(given, str) else None
    if value is None:
        value = given() if callable(given) else given.value
    if not isinstance(value, str):
        msg = "a key or an address of a sink is not text"
        raise ConfigurationError(msg)
    return value


def _below(url: str, path: str) -> str:
    return url if url.endswith(path) else url.rstrip("/") + path


def _endpoint(url: str, name: str) -> regions.Endpoint:
    endpoint = None
    with contextlib.suppress(ConfigurationError):  # quotes the URL, maybe a key
        endpoint = regions.parse(url)
    if endpoint is None:
        msg = (
            f"the endpoint of the sink {name!r} is no URL such as"
            " https://otlp.example.com/v1/metrics"
        )
        raise ConfigurationError(msg)
    return endpoint


def _configured_endpoint() -> str:
    own = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    return own or _below(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or LOCAL, PATH)


def _variable(name: str) -> str:
    environ = os.environ
    own = environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}")
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def _choice(argument: str, given: str | None, variable: str, choices: Any) -> str:
    chosen = given or _variable(variable) or next(iter(choices))
    if chosen not in choices:
        where = argument if given else f"OTEL_EXPORTER_OTLP_{variable}"
        msg = f"{where}={chosen!r:.80} is not supported: use {' or '.join(choices)}"
        raise ConfigurationError(msg)
    return chosen


def _timeout(given: float | None) -> float:
    if given is not None:
        if not given > 0:
            msg = f"timeout={given!r:.80} must be a number of seconds above 0"
            raise ConfigurationError(msg)
        return float(given)
    text = _variable("TIMEOUT")
    if text.isascii() and text.isdigit() and int(text):
        return int(text) / 1000
    return TIMEOUT_S


def _check_header(name: str, value: str) -> None:
    """Refuse what cannot be a header, without quoting its value."""
    token = name.encode("utf-8", "replace")
    if not token or token.translate(None, http1.TOKEN):
        msg = f"{name!r:.80} cannot be the name of a header"
        raise ConfigurationError(msg)
    latin = value.encode("latin-1", "replace")
    if latin.decode("latin-1") != value or len(
        latin.translate(None, http1.CONTROL)
    ) != len(latin):
        msg = f"the value of the header {name!r} has characters that none may have"
        raise ConfigurationError(msg)


def _label(argument: str, value: str) -> str:
    """Return *value*, which becomes part of a host name."""
    plain = value.replace("-", "").replace(".", "")
    if (
        not (plain.isascii() and plain.isalnum())
        or value[0] in "-."
        or value[-1] in "-."
    ):
        msg = f"{argument}={value!r:.80} cannot be part of a host name"
        raise ConfigurationError(msg)
    return value
