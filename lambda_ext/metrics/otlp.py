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
    What several flushes have recorded of one series becomes one point before it
    is sent, of `MERGE_S` seconds at most, or of one second where the program gave
    the time: some receivers keep the last of several points of a series in one
    second only.
    A receiver that fails is asked again after a pause that doubles, `LONGEST_PAUSE_S`
    at most, however much waits: invocations do not wait for it each time.

Encoding
    protobuf.  JSON is there for receivers that take nothing else: two collectors
    that were tried (rotel, ddapm-test-agent) answer it with 200 and lose values.

Source: OTLP/HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp, and its
variables, https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from json import dumps

from ..aws import regions
from ..delivery import otlp_common, protobuf
from ..delivery.life import follow_life
from ..delivery.queue import Delivery, Item
from ..delivery.receiver import Receiver, label, lowered, seconds
from ..disclosure import quoted, raises_without_variables
from ..exceptions import ConfigurationError
from ..lifecycle import clock
from . import otlp_messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ..delivery.receiver import Text
    from ..typing import Batch, Point

    # A namespace, its points, and when their interval began and ended.
    Group = tuple[str, list[Point], int, int]

MAX_POINTS = 1_000  # of a request; CloudWatch takes no more
MAX_BYTES = 400_000  # of a request, before gzip; Datadog takes 500 KB
EVERY_S = 30.0  # between two requests while little is recorded
MERGE_S = 60.0  # that one point may stand for
SOON_S = 1.0  # after now: a time of the user's own
SECOND_NS = 10**9
LONGEST_PAUSE_S = 60.0  # between two tries of a receiver that fails
AROUND = 100  # bytes of a request that points of another time take more
VALUE_BYTES = 32  # that one value of a distribution takes until it is sent
PATH = "/v1/metrics"
SIGNAL = "METRICS"  # in the names of OpenTelemetry's variables


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
        protocol: "http/protobuf" or "http/json", which two receivers that were
            tried answer with 200 and lose values of; None:
            ``OTEL_EXPORTER_OTLP_[METRICS_]PROTOCOL``, else protobuf.  Presets of
            vendors always send protobuf.
        compression: "gzip" or "none"; None:
            ``OTEL_EXPORTER_OTLP_[METRICS_]COMPRESSION``, else gzip.
        timeout: Seconds that one request may take; None:
            ``OTEL_EXPORTER_OTLP_[METRICS_]TIMEOUT`` (milliseconds), else 10.
        every: Seconds between two requests while little is recorded; 0 sends at
            the end of each invocation.
        name: What statistics and log lines call it.
        sign: The service whose SigV4 signature a request needs, "" for none.
        region: For the signature; "" is the function's.
        clear: Whether plain HTTP may go to another machine; never with headers.

    Raises:
        ConfigurationError: one of these cannot be used; the message says what
            would do, and quotes no URL and no header.
    """

    __slots__ = (
        "__weakref__", "_delivery", "_disabled", "_due_at", "_every", "_failures",
        "_last", "_not_before", "_protocol", "_receiver", "name",
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
        region: str = "",
        clear: bool = False,
    ) -> None:
        self.name = name
        if endpoint is None:
            endpoint = otlp_common.configured_endpoint(SIGNAL, PATH)
            headers = {**otlp_common.headers_of(SIGNAL), **lowered(headers)}
        self._protocol = otlp_common.choice(
            SIGNAL, "protocol", protocol, "PROTOCOL", otlp_common.TYPES
        )
        compression = otlp_common.choice(
            SIGNAL, "compression", compression, "COMPRESSION", ("gzip", "none")
        )
        self._receiver = Receiver(
            name,
            endpoint,
            headers=headers,
            content_type=otlp_common.TYPES[self._protocol],
            compressed=compression == "gzip",
            timeout=otlp_common.timeout_of(SIGNAL, timeout),
            sign=sign,
            region=region,
            clear=clear,
            certificate=otlp_common.certificate_of(SIGNAL),
            client=otlp_common.client_of(SIGNAL),
        )
        otlp_common.tell_of_temporality(SIGNAL)
        self._every = every = seconds("every", every, zero=True)
        self._disabled = otlp_common.is_disabled()
        self._delivery = Delivery(name, self._send, combine=combined)
        # By namespace: when the interval of its last batch began and ended.
        self._last: dict[str, tuple[int, int]] = {}
        self._due_at = clock.now() + every
        self._failures = 0  # drains in a row that ended with a failure
        self._not_before = 0.0  # house time
        follow_life(self)
        otlp_common.follow_life()

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
        if self._disabled or not batch.points:
            return
        at_ns = int(batch.at * 1e9)
        start_ns, last_ns = self._last.get(batch.namespace, (_began_ns(),) * 2)
        if at_ns < last_ns or at_ns > int((clock.wall() + SOON_S) * 1e9):
            # A time of the user's own: it is no part of any interval.
            start_ns, last = at_ns - 1, None
        else:
            if at_ns > last_ns:  # else more of the same flush
                start_ns = last_ns
            last = (start_ns, at_ns)
        items = _items(batch.namespace, batch.points, start_ns, at_ns)
        self._delivery.offer(batch, items)
        if last is not None:
            self._last[batch.namespace] = last

    def is_due(self) -> bool:
        """
        Say whether what waits is old or large enough to be sent.

        Not while it is a pause after a failure, which doubles each time.
        """
        delivery, now = self._delivery, clock.now()
        if not delivery.bytes or now < self._not_before:
            return False
        return (
            now >= self._due_at
            or delivery.bytes >= MAX_BYTES
            or delivery.pending >= MAX_POINTS
        )

    def drain(self, ends_at: float) -> None:
        """Send what waits, before the run time *ends_at*; raises nothing."""
        self._due_at = clock.now() + self._every
        delivery = self._delivery
        delivery.drain(ends_at)
        if delivery.is_failing:
            self._failures += 1
            pause_s = min(2.0 ** min(self._failures, 10), LONGEST_PAUSE_S)
            self._not_before = clock.now() + pause_s
        else:
            self._failures = 0
            self._not_before = 0.0

    # One request -------------------------------------------------------------

    def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
        response = self._receiver.post(self._encoded(payload), ends_at)
        return otlp_common.rejected(
            response.body, response.headers.get("content-type", "")
        )

    def _encoded(self, payload: list[Group]) -> bytes:
        of = otlp_common.resource(otlp_common.instance(), otlp_common.service())
        tree, *others = [
            otlp_messages.request(
                namespace,
                points,
                start_ns=start_ns,
                at_ns=at_ns,
                of=of,
                version=otlp_common.version(),
            )
            for namespace, points, start_ns, at_ns in payload
        ]
        (resource,) = tree["resourceMetrics"]
        for other in others:
            resource["scopeMetrics"] += other["resourceMetrics"][0]["scopeMetrics"]
        if self._protocol == "http/json":
            message = protobuf.as_json(otlp_messages.METRICS, tree)
            return dumps(message, separators=(",", ":")).encode()
        return protobuf.encode(otlp_messages.METRICS, tree)

    # Life --------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; the next request opens one."""
        self._receiver.close()

    def restored(self) -> None:
        """Begin anew after a restore from a snapshot: other times, another instance."""
        self.close()
        self._last = {}
        self._due_at = clock.now() + self._every
        self._failures = 0
        self._not_before = 0.0

    def forked(self) -> None:
        """Leave connections and what waits to the parent."""
        self._receiver.forked()
        self._delivery.forked()
        self._last = {}
        self._failures = 0
        self._not_before = 0.0


# Presets ---------------------------------------------------------------------


@raises_without_variables
def new_relic(key: Text, *, region: str = "us", every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for New Relic; *key* is a license key, *region* "us", "eu" or "gov".

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "New Relic OTLP endpoint",
    https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/
    """
    hosts = {
        "us": "otlp.nr-data.net",
        "eu": "otlp.eu01.nr-data.net",
        "gov": "gov-otlp.nr-data.net",
    }
    if region not in hosts:
        msg = f"new_relic(region={quoted(region)}): use one of {', '.join(hosts)}"
        raise ConfigurationError(msg)
    url = f"https://{hosts[region]}{PATH}"
    return OtlpSink(
        url,
        headers={"api-key": key},
        protocol=otlp_common.PROTOBUF,
        every=every,
        name="new_relic",
    )


@raises_without_variables
def splunk(token: Text, *, realm: str, every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for Splunk Observability Cloud; *token* is an access token.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "Splunk Observability Cloud ingest API",
    https://dev.splunk.com/observability/reference/api/ingest_data/latest
    """
    url = f"https://ingest.{label('realm', realm)}.observability.splunkcloud.com"
    return OtlpSink(
        f"{url}/v2/datapoint/otlp",
        headers={"x-sf-token": token},
        protocol=otlp_common.PROTOBUF,
        every=every,
        name="splunk",
    )


@raises_without_variables
def sumo_logic(url: Text, *, every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for a Sumo Logic OTLP/HTTP source.

    *url* is the source's address, as Sumo Logic shows it.  It is the key, too: with
    it any program may write, so keep it in a `Secret`.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "OTLP/HTTP Source",
    https://www.sumologic.com/help/docs/send-data/hosted-collectors/http-source/otlp/
    """
    if isinstance(url, str):
        target: Text = otlp_common.below(url, PATH)
    else:
        target = otlp_common.Below(url, PATH)
    return OtlpSink(
        target, protocol=otlp_common.PROTOBUF, every=every, name="sumo_logic"
    )


@raises_without_variables
def datadog(
    key: Text, *, site: str = "datadoghq.com", every: float = EVERY_S
) -> OtlpSink:
    """
    Return a sink for Datadog's OTLP intake; *key* is an API key.

    `lambda_ext.metrics.datadog` needs no key where Datadog's extension or its
    Forwarder is there.  Of counters and gauges that several environments have sent
    for one second, with the same tags, Datadog keeps the last only; distributions
    add up, as all metrics do that go by its extension or its Forwarder.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "OTLP Metrics Intake Endpoint",
    https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/metrics/
    """
    url = f"https://otlp.{label('site', site)}{PATH}"
    return OtlpSink(
        url,
        headers={"dd-api-key": key},
        protocol=otlp_common.PROTOBUF,
        every=every,
        name="datadog",
    )


def cloudwatch(region: str | None = None, *, every: float = EVERY_S) -> OtlpSink:
    """
    Return a sink for CloudWatch's OTLP endpoint, signed with the role's keys.

    The role needs ``cloudwatch:PutMetricData``.  *region* None is the function's.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.

    Source: "OTLP Endpoints", https://docs.aws.amazon.com/AmazonCloudWatch/
    latest/monitoring/CloudWatch-OTLPEndpoint.html
    """
    name = regions.region("monitoring") if region is None else label("region", region)
    suffix = next(end for start, end in regions.SUFFIXES if name.startswith(start))
    return OtlpSink(
        f"https://monitoring.{name}.{suffix}{PATH}",
        protocol=otlp_common.PROTOBUF,
        sign="monitoring",
        region=name,
        every=every,
        name="cloudwatch",
    )


@raises_without_variables
def collector(
    url: str = otlp_common.LOCAL,
    *,
    headers: Mapping[str, Text] | None = None,
    every: float = EVERY_S,
) -> OtlpSink:
    """
    Return a sink for an OpenTelemetry collector at *url*, without the path.

    Plain HTTP may go to another machine, for example inside a VPC, as long as
    there are no *headers*, which may hold a key.

    Raises:
        ConfigurationError: an argument cannot be used; the message quotes no key.
    """
    return OtlpSink(
        otlp_common.below(url, PATH),
        headers=headers,
        every=every,
        name="collector",
        clear=True,
    )


def _began_ns() -> int:
    """Return when the first interval began: now, where nothing was sent before."""
    return int((clock.wall() - 1) * 1e9)


class _Merged:
    """What several flushes have recorded of one series."""

    __slots__ = ("dimensions", "kind", "name", "samples", "unit", "values")

    def __init__(self, point: Point) -> None:
        self.kind = point.kind
        self.name = point.name
        self.unit = point.unit
        self.dimensions = point.dimensions
        self.values = [*point.values]
        self.samples = point.samples

    def add(self, point: Point) -> None:
        """Add what was recorded later."""
        if self.kind == "count":
            self.values = [sum(self.values) + sum(point.values)]
        elif self.kind == "gauge":
            self.values = [*point.values]
        else:
            self.values += point.values
        self.samples += point.samples


class _Interval:
    """The series of a namespace in an interval, or at a time of the user's own."""

    __slots__ = ("at_ns", "namespace", "own", "series", "size", "start_ns")

    def __init__(self, namespace: str, start_ns: int, at_ns: int) -> None:
        self.namespace = namespace
        self.start_ns = start_ns
        self.at_ns = at_ns
        self.own = at_ns - start_ns <= 1
        self.size = 0  # bytes of the values of distributions
        self.series: dict[Any, _Merged] = {}

    def takes(self, start_ns: int, at_ns: int) -> bool:
        """Say whether another interval is the same, or follows soon enough."""
        if self.size >= MAX_BYTES:
            return False
        if self.own or (start_ns, at_ns) == (self.start_ns, self.at_ns):
            return True
        longest_ns = int(MERGE_S * 1e9)
        return start_ns == self.at_ns and at_ns - self.start_ns <= longest_ns

    def add(self, at_ns: int, points: list[Point]) -> None:
        """Add *points* to those of the same series."""
        if self.own:
            self.at_ns = max(self.at_ns, at_ns)
            self.start_ns = self.at_ns - 1
        else:
            self.at_ns = at_ns
        for point in points:
            key = (point.kind, point.name, point.unit, point.dimensions)
            known = self.series.get(key)
            if known is None:
                self.series[key] = _Merged(point)
            else:
                known.add(point)
            self.size += _kept(point)


def combined(items: list[Item]) -> list[Item]:
    """Return what is to be sent instead of *items*: one point of each series."""
    intervals: list[_Interval] = []
    last: dict[Any, _Interval] = {}  # by namespace, or by a time of the user's own
    for item in items:
        for namespace, points, start_ns, at_ns in item.payload:
            own = at_ns - start_ns <= 1
            where = (namespace, at_ns // SECOND_NS) if own else namespace
            interval = last.get(where)
            if interval is None or not interval.takes(start_ns, at_ns):
                interval = last[where] = _Interval(namespace, start_ns, at_ns)
                intervals.append(interval)
            interval.add(at_ns, points)
    return [
        *_together([each for each in intervals if each.own]),
        *[
            item
            for each in intervals
            if not each.own
            for item in _items(
                each.namespace, each.series.values(), each.start_ns, each.at_ns
            )
        ],
    ]


def _together(intervals: list[_Interval]) -> Iterator[Item]:
    """Yield what is queued of *intervals*, as many in one request as it can have."""
    payload: list[Group] = []
    count = size = kept = samples = 0
    for each in intervals:
        for item_points, bytes_, more in _divided(each.series.values()):
            around = AROUND + len(each.namespace)
            if payload and (
                count + len(item_points) > MAX_POINTS
                or size + bytes_ + around > MAX_BYTES
            ):
                yield Item(payload, samples, kept)
                payload, count, size, kept, samples = [], 0, 0, 0, 0
            payload.append((each.namespace, item_points, each.start_ns, each.at_ns))
            count += len(item_points)
            size += bytes_ + around
            kept += bytes_ + around + more
            samples += sum([point.samples for point in item_points])
    if payload:
        yield Item(payload, samples, kept)


def _items(namespace: str, points: Any, start_ns: int, at_ns: int) -> list[Item]:
    """Return *points* as what is queued, each small enough for one request."""
    return [
        Item(
            [(namespace, run, start_ns, at_ns)],
            sum([point.samples for point in run]),
            size + kept,
        )
        for run, size, kept in _divided(points)
    ]


def _kept(point: Any) -> int:
    """Return how many bytes the values of *point* take until they are added up."""
    return VALUE_BYTES * len(point.values) if point.kind == "distribution" else 0


def _divided(points: Any) -> Any:
    """Yield runs of *points* for one request, its bytes, and those of their values."""
    run: list[Point] = []
    size = kept = 0
    for point in points:
        # Field heads, times, and a histogram's 15 buckets and bounds.
        bytes_ = 300 if point.kind == "distribution" else 60
        bytes_ += len(point.name) + len(point.unit)
        for key, value in point.dimensions:
            bytes_ += 12 + len(key) + len(value)
        if run and (len(run) >= MAX_POINTS or size + bytes_ > MAX_BYTES):
            yield run, size, kept
            run, size, kept = [], 0, 0
        run.append(point)
        size += bytes_
        kept += _kept(point)
    if run:
        yield run, size, kept
