"""
The platform's records as spans of OpenTelemetry: INIT, INVOKE and what is in them.

    platform.start ... platform.report    one span, kind SERVER, of the invocation
        responseLatency, responseDuration, runtimeOverhead, extensionOverhead
                                          its children, as the platform measured them
    platform.initReport                   one span of the first invocation's trace
    platform.restoreReport                likewise

Trace and parent are those of the invocation's X-Ray header; an invocation
without one has a trace of its own.  Ids are made from the invocation's id, so
that a record that comes twice makes the same span.  A span leaves when its
invocation's report has come, which is with the next invocation; at the end of
the process, those leave whose report never came.

Source: Telemetry API schema reference, and OpenTelemetry's conventions for FaaS,
https://opentelemetry.io/docs/specs/semconv/faas/faas-spans/
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import OrderedDict

from ..delivery import otlp_common, protobuf
from ..disclosure import quoted
from ..exceptions import ConfigurationError
from .entry import trace_ids
from .otlp_logs import receiver, request
from .over_http import HttpDestination
from .records import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ..delivery.receiver import Text
    from .entry import Entry

SIGNAL = "TRACES"  # in the names of OpenTelemetry's variables
PATH = "/v1/traces"
MAX_BYTES = 900_000
MAX_RECORDS = 1_000
MOST = 1_000  # invocations whose report is waited for; the oldest leave as they are
LARGEST = 1e12  # milliseconds, or megabytes
INTERNAL, SERVER = 1, 2  # kinds of spans
OK, ERROR = 1, 2  # statuses
ATTRIBUTES = {  # of platform.report's metrics -> of the span
    "billedDurationMs": "aws.lambda.billed_duration_ms",
    "memorySizeMB": "aws.lambda.memory_size_mb",
    "maxMemoryUsedMB": "aws.lambda.max_memory_used_mb",
    "initDurationMs": "aws.lambda.init_duration_ms",
    "restoreDurationMs": "aws.lambda.restore_duration_ms",
}


class OtlpSpans(HttpDestination):
    """
    Sends spans to *endpoint* by OTLP over HTTP.

    Arguments are those of `otlp_logs.OtlpLogs`, with ``TRACES`` in the names of
    the variables, and:

    Args:
        sampled_only: Whether invocations that X-Ray does not sample make no span.
    """

    __slots__ = ("_disabled", "_init", "_json", "_open", "_sampled_only")

    def __init__(
        self,
        endpoint: Text | None = None,
        *,
        headers: Mapping[str, Text] | None = None,
        protocol: str | None = None,
        compression: str | None = None,
        timeout: float | None = None,
        name: str = "otlp_spans",
        sign: str = "",
        region: str = "",
        clear: bool = False,
        sampled_only: bool = False,
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
        given: object = sampled_only
        if not isinstance(given, bool):
            msg = f"{name}(sampled_only={quoted(given)}): say True or False"
            raise ConfigurationError(msg)
        self._disabled = otlp_common.is_disabled()
        self._sampled_only = sampled_only
        self._open: OrderedDict[str, _Invocation] = OrderedDict()
        self._init: list[tuple[str, dict[str, Any]]] = []  # that wait for a trace
        otlp_common.follow_life()
        super().__init__(name, to, max_records=MAX_RECORDS, max_bytes=MAX_BYTES)

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Queue the spans that *entries* complete."""
        if self._disabled:
            return
        spans: list[dict[str, Any]] = []
        for entry in entries:
            spans += self._spans(entry)
        self._queue(spans)

    def end(self) -> None:
        """Queue the spans of invocations whose report has not come."""
        spans: list[dict[str, Any]] = []
        while self._open:
            _, invocation = self._open.popitem(last=False)
            spans += self._closed(invocation)
        for seed, span in self._init:
            spans.append({"traceId": _id(seed, 16), **span})
        self._init = []
        self._queue(spans)
        super().end()

    def forked(self) -> None:
        """Leave connections and what waits to the parent."""
        super().forked()
        self._open = OrderedDict()
        self._init = []

    def join(self, run: list[bytes]) -> bytes:
        """Return a request with the spans *run*."""
        return request(run, "resourceSpans", "scopeSpans", "spans", json=self._json)

    def accepted(self, response: Any) -> tuple[int, str]:
        """Return how many spans the receiver has refused, and why."""
        kind = response.headers.get("content-type", "")
        return otlp_common.rejected(response.body, kind)

    def _queue(self, spans: list[dict[str, Any]]) -> None:
        for start in range(0, len(spans), self._max_records):
            run = []
            for tree in spans[start : start + self._max_records]:
                try:
                    data = protobuf.encode("Span", tree)
                except (struct.error, ValueError, TypeError) as exc:
                    self._delivery.drop(1, f"encoding: {type(exc).__name__}")
                    continue
                if self._json:
                    data = otlp_common.compact(protobuf.as_json("Span", tree))
                run.append(data)
            if run:
                self._put(run)

    def _spans(self, entry: Entry) -> Iterator[dict[str, Any]]:
        """Yield the spans that *entry* completes."""
        body: Any = entry.body if isinstance(entry.body, dict) else {}
        kind = entry.type
        if kind in ("platform.initReport", "platform.restoreReport"):
            name = "init" if kind == "platform.initReport" else "restore"
            self._began(name, entry, body)
            return
        if kind not in ("platform.start", "platform.runtimeDone", "platform.report"):
            return
        request_id = entry.request_id
        if request_id is None:
            return
        invocation = self._open.get(request_id)
        if invocation is None:
            invocation = self._open[request_id] = _Invocation(request_id)
            if len(self._open) > MOST:
                _, oldest = self._open.popitem(last=False)
                yield from self._closed(oldest)
        invocation.note(entry, body)
        if kind == "platform.start":
            yield from self._traced(invocation)
        elif kind == "platform.report":
            del self._open[request_id]
            yield from self._closed(invocation)

    def _began(self, name: str, entry: Entry, body: Mapping[str, Any]) -> None:
        """Keep a span of INIT or of a restore until its trace is known."""
        numbers = body.get("metrics")
        took_ms = numbers.get("durationMs") if isinstance(numbers, dict) else None
        if not _is_time(took_ms):
            return
        end_ns = _ns(entry.timestamp)
        seed = f"{otlp_common.instance()} {name} {entry.time}"
        span = {
            "spanId": _id(seed, 8),
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": end_ns - round(float(took_ms or 0) * 1e6),
            "endTimeUnixNano": end_ns,
            "attributes": protobuf.attributes(
                {
                    "aws.lambda.initialization_type": str(
                        body.get("initializationType", "")
                    ),
                    "aws.lambda.phase": str(body.get("phase", "")),
                }
            ),
            "status": _status(body.get("status"), body.get("errorType")),
        }
        self._init.append((seed, span))

    def _traced(self, invocation: _Invocation) -> Iterator[dict[str, Any]]:
        """Yield the spans of INIT that belong to *invocation*, the first after it."""
        waiting, self._init = self._init, []
        if not self._is_wanted(invocation):
            return
        for _, span in waiting:
            made = {"traceId": invocation.trace_id, **span}
            if invocation.parent:
                made["parentSpanId"] = invocation.parent
            yield made

    def _is_wanted(self, invocation: _Invocation) -> bool:
        return not self._sampled_only or invocation.sampled

    def _closed(self, invocation: _Invocation) -> Iterator[dict[str, Any]]:
        if self._is_wanted(invocation) and invocation.end_ns:
            yield from invocation.spans()


class _Invocation:
    """What the platform has said of one invocation."""

    __slots__ = (
        "attributes", "children", "end_ns", "error", "parent", "request_id", "sampled",
        "span_id", "start_ns", "status", "trace_id",
    )  # fmt: skip

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.trace_id = _id(f"trace {request_id}", 16)
        self.span_id = _id(f"span {request_id}", 8)
        self.parent = b""
        self.sampled = False
        self.start_ns = 0
        self.end_ns = 0
        self.status: object = None
        self.error: object = None
        self.children: dict[str, tuple[int, int]] = {}
        self.attributes: dict[str, Any] = {"faas.invocation_id": request_id}

    def note(self, entry: Entry, body: Mapping[str, Any]) -> None:
        """Add what *entry* says."""
        tracing = body.get("tracing")
        if isinstance(tracing, dict) and isinstance(tracing.get("value"), str):
            trace_id, parent = trace_ids(tracing["value"])
            if trace_id:
                self.trace_id = bytes.fromhex(trace_id)
                self.parent = bytes.fromhex(parent)
                self.sampled = "Sampled=1" in tracing["value"]
        numbers = body.get("metrics")
        numbers = numbers if isinstance(numbers, dict) else {}
        if entry.type == "platform.start":
            self.start_ns = _ns(entry.timestamp)
            if isinstance(body.get("version"), str):
                self.attributes["faas.version"] = body["version"]
        else:
            # The report comes last; both are sent once the invocation is over.
            took_ms: Any = numbers.get("durationMs")
            if self.start_ns and _is_time(took_ms):
                self.end_ns = self.start_ns + round(took_ms * 1e6)
            elif not self.end_ns:
                self.end_ns = _ns(entry.timestamp)
            self.status = body.get("status", self.status)
            self.error = body.get("errorType", self.error)
        for name, attribute in ATTRIBUTES.items():
            if _is_time(numbers.get(name)):
                self.attributes[attribute] = numbers[name]
        if "initDurationMs" in numbers:
            self.attributes["faas.coldstart"] = True
        found = body.get("spans")
        for span in found if isinstance(found, list) else ():
            self._note_child(span)

    def _note_child(self, span: Any) -> None:
        if not isinstance(span, dict) or not isinstance(span.get("name"), str):
            return
        began = seconds(span["start"]) if isinstance(span.get("start"), str) else None
        took_ms: Any = span.get("durationMs")
        if began is not None and _is_time(took_ms):
            start_ns = _ns(began)
            end_ns = start_ns + round(took_ms * 1e6)
            self.children[span["name"]] = (start_ns, end_ns)

    def spans(self) -> Iterator[dict[str, Any]]:
        """Yield the span of the invocation, and its children's."""
        end_ns = max([self.end_ns, *[end for _, end in self.children.values()]])
        start_ns = self.start_ns or end_ns
        name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME") or "invoke"
        own: dict[str, Any] = {"traceId": self.trace_id, "spanId": self.span_id}
        if self.parent:
            own["parentSpanId"] = self.parent
        own.update(
            {
                "name": name,
                "kind": SERVER,
                "startTimeUnixNano": start_ns,
                "endTimeUnixNano": end_ns,
                "attributes": protobuf.attributes(self.attributes),
                "status": _status(self.status, self.error),
            }
        )
        yield own
        for child, (begin, end) in self.children.items():
            yield {
                "traceId": self.trace_id,
                "spanId": _id(f"{child} {self.request_id}", 8),
                "parentSpanId": self.span_id,
                "name": child,
                "kind": INTERNAL,
                "startTimeUnixNano": begin,
                "endTimeUnixNano": end,
            }


def _status(status: object, error: object) -> dict[str, Any]:
    if status in (None, "success"):
        return {"code": OK} if status == "success" else {}
    return {"message": str(error or status), "code": ERROR}


def _is_time(value: Any) -> bool:
    """Say whether *value* is a plausible time; NaN and True are none."""
    return type(value) in (int, float) and 0 <= value <= LARGEST


def _ns(timestamp: float) -> int:
    """Return *timestamp* in nanoseconds; the platform's times are milliseconds."""
    return round(timestamp * 1000) * 1_000_000


def _id(seed: str, size: int) -> bytes:
    """Return *size* bytes that *seed* always gives; not zero, which is no id."""
    found = b""
    part = 0
    while len(found) < size:
        found += zlib.crc32(f"{part} {seed}".encode()).to_bytes(4, "big")
        part += 1
    return found if any(found) else b"\1" * size
