"""
OTLP's messages as protobuf and as JSON, from one tree and one table.

A message is a dictionary by the names of OTLP's JSON mapping ("startTimeUnixNano")
with plain Python values: integers stay integers, ids and bytes are bytes.
`encode` gives protobuf, `as_json` the tree that `json.dumps` takes.  The table
`MESSAGES` holds field numbers and types, and nothing else knows them.

Pure.  Importing the OpenTelemetry SDK for this would cost about 130 ms and 10 MB.

Source: opentelemetry-proto, https://github.com/open-telemetry/opentelemetry-proto
(field numbers and the JSON mapping), and the protobuf wire format,
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import binascii
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types

# Message -> field -> (number, type).  "*" marks a repeated field; a name with a
# capital letter is a message.  A field of which only one may be set (AnyValue's,
# "asInt" and "asDouble") is written even if it is zero, as is each field that the
# dictionary holds.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ExportMetricsServiceRequest": {"resourceMetrics": (1, "ResourceMetrics*")},
    "ResourceMetrics": {"resource": (1, "Resource"), "scopeMetrics": (2, "ScopeMetrics*")},
    "ScopeMetrics": {"scope": (1, "InstrumentationScope"), "metrics": (2, "Metric*")},
    "Metric": {
        "name": (1, "string"),
        "unit": (3, "string"),
        "gauge": (5, "Gauge"),
        "sum": (7, "Sum"),
        "histogram": (9, "Histogram"),
    },
    "Gauge": {"dataPoints": (1, "NumberDataPoint*")},
    "Sum": {
        "dataPoints": (1, "NumberDataPoint*"),
        "aggregationTemporality": (2, "enum"),
        "isMonotonic": (3, "bool"),
    },
    "Histogram": {
        "dataPoints": (1, "HistogramDataPoint*"),
        "aggregationTemporality": (2, "enum"),
    },
    "NumberDataPoint": {
        "startTimeUnixNano": (2, "fixed64"),
        "timeUnixNano": (3, "fixed64"),
        "asDouble": (4, "double"),
        "asInt": (6, "sfixed64"),
        "attributes": (7, "KeyValue*"),
    },
    "HistogramDataPoint": {
        "startTimeUnixNano": (2, "fixed64"),
        "timeUnixNano": (3, "fixed64"),
        "count": (4, "fixed64"),
        "sum": (5, "double"),
        "bucketCounts": (6, "fixed64*"),
        "explicitBounds": (7, "double*"),
        "attributes": (9, "KeyValue*"),
        "min": (11, "double"),
        "max": (12, "double"),
    },
    "ExportLogsServiceRequest": {"resourceLogs": (1, "ResourceLogs*")},
    "ResourceLogs": {"resource": (1, "Resource"), "scopeLogs": (2, "ScopeLogs*")},
    "ScopeLogs": {"scope": (1, "InstrumentationScope"), "logRecords": (2, "LogRecord*")},
    "LogRecord": {
        "timeUnixNano": (1, "fixed64"),
        "severityNumber": (2, "enum"),
        "severityText": (3, "string"),
        "body": (5, "AnyValue"),
        "attributes": (6, "KeyValue*"),
        "traceId": (9, "id"),
        "spanId": (10, "id"),
        "observedTimeUnixNano": (11, "fixed64"),
    },
    "ExportTraceServiceRequest": {"resourceSpans": (1, "ResourceSpans*")},
    "ResourceSpans": {"resource": (1, "Resource"), "scopeSpans": (2, "ScopeSpans*")},
    "ScopeSpans": {"scope": (1, "InstrumentationScope"), "spans": (2, "Span*")},
    "Span": {
        "traceId": (1, "id"),
        "spanId": (2, "id"),
        "parentSpanId": (4, "id"),
        "name": (5, "string"),
        "kind": (6, "enum"),
        "startTimeUnixNano": (7, "fixed64"),
        "endTimeUnixNano": (8, "fixed64"),
        "attributes": (9, "KeyValue*"),
        "status": (15, "Status"),
    },
    "Status": {"message": (2, "string"), "code": (3, "enum")},
    "Resource": {"attributes": (1, "KeyValue*")},
    "InstrumentationScope": {"name": (1, "string"), "version": (2, "string")},
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "AnyValue": {
        "stringValue": (1, "string"),
        "boolValue": (2, "bool"),
        "intValue": (3, "int64"),
        "doubleValue": (4, "double"),
        "arrayValue": (5, "ArrayValue"),
        "kvlistValue": (6, "KeyValueList"),
        "bytesValue": (7, "bytes"),
    },
    "ArrayValue": {"values": (1, "AnyValue*")},
    "KeyValueList": {"values": (1, "KeyValue*")},
}  # fmt: skip

_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_sfixed64 = struct.Struct("<q").pack
MASK = (1 << 64) - 1  # negative integers are sent as their two's complement


def encode(message: str, tree: Mapping[str, Any]) -> bytes:
    """Return *tree*, a *message* of the table, as protobuf."""
    parts: list[bytes] = []
    fields = MESSAGES[message]
    for name, value in tree.items():
        number, kind = fields[name]
        if kind[-1] != "*":
            parts.append(_field(number, kind, value))
        elif kind[0].isupper():
            parts.extend([_field(number, kind[:-1], part) for part in value])
        elif value:  # numbers are packed
            pack = _SCALARS[kind[:-1]][1]
            parts.append(delimited(number, b"".join(map(pack, value))))
    return b"".join(parts)


def as_json(message: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return *tree*, a *message* of the table, in the shape of OTLP's JSON."""
    fields = MESSAGES[message]
    return {name: _json(fields[name][1], value) for name, value in tree.items()}


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return *values* as a list of KeyValue."""
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def any_value(value: Any) -> dict[str, Any]:
    """Return *value* as an AnyValue; what OTLP has no type for becomes its text."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return {"intValue": value}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": value}
    if isinstance(value, dict):
        pairs = {str(key): part for key, part in value.items()}
        return {"kvlistValue": {"values": attributes(pairs)}}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [any_value(part) for part in value]}}
    return {} if value is None else {"stringValue": str(value)}


def varint(value: int) -> bytes:
    """Return *value* in base 128, least first; a negative one takes 10 bytes."""
    value &= MASK
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """
    Return the (number, value) pairs of a message whose types are not known.

    Varints and fixed numbers are integers, everything delimited is bytes.

    Raises:
        ValueError: *data* is no protobuf.
    """
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _read_varint(data, at)
            found.append((number, value))
            continue
        if wire == DELIMITED:
            size, at = _read_varint(data, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(wire, len(data) + 1)
        part = data[at : at + size]
        if len(part) != size or not number:
            msg = "this is no protobuf"
            raise ValueError(msg)
        at += size
        found.append(
            (number, part if wire == DELIMITED else int.from_bytes(part, "little"))
        )
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & MASK, at + shift // 7
    msg = "this is no protobuf"
    raise ValueError(msg)


def delimited(number: int, data: bytes) -> bytes:
    """Return *data*, an encoded message or a text, as the field of this number."""
    return varint(number << 3 | DELIMITED) + varint(len(data)) + data


def _field(number: int, kind: str, value: Any) -> bytes:
    if kind[0].isupper():
        return delimited(number, encode(kind, value))
    wire, pack = _SCALARS[kind]
    data = pack(value)
    if wire == DELIMITED:
        return delimited(number, data)
    return varint(number << 3 | wire) + data


def _text(value: str) -> bytes:
    # A lone surrogate has no UTF-8, and a receiver would refuse the whole request.
    return value.encode("utf-8", "replace")


_SCALARS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "string": (DELIMITED, _text),
    "bytes": (DELIMITED, bytes),
    "id": (DELIMITED, bytes),
    "bool": (VARINT, varint),
    "enum": (VARINT, varint),
    "int64": (VARINT, varint),
    "double": (FIXED64, _double),
    "fixed64": (FIXED64, _fixed64),
    "sfixed64": (FIXED64, _sfixed64),
}


def _json(kind: str, value: Any) -> Any:
    if kind[-1] == "*":
        return [_json(kind[:-1], part) for part in value]
    if kind[0].isupper():
        return as_json(kind, value)
    if kind in ("int64", "fixed64", "sfixed64"):
        return str(value)
    if kind == "id":
        return value.hex()
    if kind == "bytes":
        return binascii.b2a_base64(value, newline=False).decode()
    if kind == "double" and value - value != 0:  # protobuf's JSON for what JSON lacks
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
    return value
