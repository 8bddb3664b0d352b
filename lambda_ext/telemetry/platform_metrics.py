"""
The platform's records as metrics: what an invocation took, and what it cost.

    platform.initReport       platform.init_duration
    platform.runtimeDone      platform.produced_bytes, platform.response_latency,
                              platform.response_duration, platform.runtime_overhead
    platform.report           platform.duration, platform.billed_duration,
                              platform.max_memory_used, platform.memory_utilization,
                              platform.extension_overhead, platform.invocations,
                              platform.errors, platform.timeouts
    platform.restoreReport    platform.restore_duration
    platform.logsDropped      platform.logs_dropped

Durations are milliseconds, memory megabytes and percent.  Each has the time of
the record that it came with, and in EMF the invocation's ``request_id`` and
``trace_id`` as properties, under the names that ``configure(properties=...)`` has.  What the platform does not say is left out.

Source: Telemetry API schema reference,
https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

from .. import disclosure
from ..metrics import buffer as buffers
from ..metrics import recorder, statuses
from .entry import root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..typing import Sink
    from .entry import Entry

    Measured = tuple[str, str, str, float]  # kind, name, unit, value

PREFIX = "platform."
SPANS = {  # of the platform -> metric
    "responseLatency": "response_latency",
    "responseDuration": "response_duration",
    "runtimeOverhead": "runtime_overhead",
    "extensionOverhead": "extension_overhead",
}
LARGEST = 1e15  # a number above it is taken for an error of the platform


class PlatformMetrics:
    """Makes metrics of platform records; see `destinations.metrics`."""

    __slots__ = ("_buffer", "_ended", "_metrics", "_own", "dropped", "name", "sent")

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        namespace: str | None = None,
        service: str | None = None,
        dimensions: Mapping[str, str | int] | None = None,
    ) -> None:
        self.name = "metrics"
        self.sent = 0  # records of the platform that became metrics, or held none
        self.dropped: dict[str, int] = {}
        self._metrics = recorder.Metrics(
            namespace, service=service, dimensions=dimensions, sink=sink
        )
        self._own = None if sink is None else buffers.outlet_of(sink)
        # Apart from the buffer of the handler's metrics, whose properties are those
        # of the invocation under way.
        self._buffer = buffers.Buffer()
        self._ended = False

    def __repr__(self) -> str:
        """Show how many records it has seen."""
        return f"<PlatformMetrics {self.sent} records>"

    @property
    def pending(self) -> int:
        """The number of metrics that no sink has taken yet."""
        return sum([status.pending for status in statuses.of(self._buffer).values()])

    @property
    def error(self) -> str:
        """Always "": `stats().metrics.sinks` says how sinks of metrics have failed."""
        return ""

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Write the metrics that *entries* hold."""
        buffer = self._buffer
        buffer.outlets = recorder.outlets() if self._own is None else (self._own,)
        namespace, dimensions = self._metrics._options()
        pairs = tuple(dimensions.items())
        for entry in entries:
            found = [
                (
                    buffers.Series(
                        namespace, kind, name, unit, pairs, at=entry.timestamp
                    ),
                    value,
                )
                for kind, name, unit, value in measured(entry)
            ]
            if found:
                known = {"request_id": entry.request_id, "trace_id": root(entry.trace)}
                buffer.properties = {name: each for name, each in known.items() if each}
                buffer.records += found
                buffer.flush()
            self.sent += 1

    def is_due(self) -> bool:
        """Say whether a sink that uses a network wants to send."""
        return any(
            disclosure.attribute(outlet.sink, "is_due", _always)()
            for outlet in self._buffer.draining
        )

    def drain(self, ends_at: float) -> None:
        """Have sinks that use a network send what they took, before *ends_at*."""
        self._buffer.flush()
        self._buffer.drain(ends_at, due_only=not self._ended)

    def end(self) -> None:
        """Make the next `drain` send everything: the process ends."""
        self._ended = True

    def forked(self) -> None:
        """Leave what waits to the parent, and count from zero."""
        self.sent = 0
        self._buffer = buffers.Buffer()


def _always() -> bool:
    return True


def measured(entry: Entry) -> Iterator[Measured]:
    """Yield (kind, name, unit, value) of each metric that *entry* holds."""
    read = READERS.get(entry.type)
    if read is None or not isinstance(entry.body, dict):
        return
    for kind, name, unit, value in read(entry.body):
        if type(value) in (int, float) and 0 <= value <= LARGEST:
            yield kind, PREFIX + name, unit, value


def _ms(name: str, value: Any) -> tuple[str, str, str, Any]:
    return buffers.DISTRIBUTION, name, "Milliseconds", value


def _count(name: str, value: Any = 1) -> tuple[str, str, str, Any]:
    return buffers.COUNT, name, "Count", value


def _numbers(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found = body.get("metrics")
    return found if isinstance(found, dict) else {}


def _spans(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    found = body.get("spans")
    for span in found if isinstance(found, list) else ():
        if isinstance(span, dict) and span.get("name") in SPANS:
            yield _ms(SPANS[span["name"]], span.get("durationMs"))


def _of_init(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    yield _ms("init_duration", _numbers(body).get("durationMs"))
    if body.get("status") not in (None, "success"):
        yield _count("init_errors")


def _of_restore(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    yield _ms("restore_duration", _numbers(body).get("durationMs"))


def _of_done(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    produced = _numbers(body).get("producedBytes")
    yield buffers.DISTRIBUTION, "produced_bytes", "Bytes", produced
    yield from _spans(body)


def _of_report(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    numbers = _numbers(body)
    yield _count("invocations")
    yield _ms("duration", numbers.get("durationMs"))
    yield _ms("billed_duration", numbers.get("billedDurationMs"))
    used: Any = numbers.get("maxMemoryUsedMB")
    size: Any = numbers.get("memorySizeMB")
    yield buffers.DISTRIBUTION, "max_memory_used", "Megabytes", used
    if type(used) in (int, float) and type(size) in (int, float) and size:
        share = round(100 * used / size, 2)
        yield buffers.DISTRIBUTION, "memory_utilization", "Percent", share
    yield from _spans(body)
    status = body.get("status")
    if status == "timeout":
        yield _count("timeouts")
    elif status in ("error", "failure"):
        yield _count("errors")


def _of_logs_dropped(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    yield _count("logs_dropped", body.get("droppedRecords"))


READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Any]]] = {
    "platform.initReport": _of_init,
    "platform.restoreReport": _of_restore,
    "platform.runtimeDone": _of_done,
    "platform.report": _of_report,
    "platform.logsDropped": _of_logs_dropped,
}
