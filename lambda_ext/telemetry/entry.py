"""
What leaves the process of a record: an `Entry`, which transforms and sinks see.

A record belongs to all consumers and is read-only.  An entry belongs to one
route, with all that is in it: it has the invocation that the record belongs to,
also where a line does not name it, and after the redaction no secret that this
process knows.
"""

from __future__ import annotations

from json import JSONEncoder, dumps

from ..lifecycle.process import by_signal_handler
from .records import PLATFORM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .records import Record

DEEPEST = 50  # levels of a JSON line that is shipped as one
LONGEST = 10_000  # characters of what is below them
_encode = JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode
MOST = 200  # invocations whose trace is remembered
AROUND = 120  # bytes that the members of an entry take beside its body


class Entry:
    """
    One log line or platform event on its way to a sink.

    Attributes:
        type: As AWS sends it: "platform.report", "function", "extension", ...
        time: When it happened, as AWS sends it.
        timestamp: The same in seconds since the epoch.
        level: "WARN", "ERROR", ...; None where the line has none.
        request_id: The invocation that it belongs to; None outside of any.
        trace: The invocation's trace header, "Root=...;Parent=..."; None without.
        body: The line as text, or its JSON object, or the platform's members.
        message: The text without the runtime's level, time and request id.
    """

    __slots__ = (
        "body", "level", "message", "request_id", "size", "time", "timestamp",
        "trace", "type",
    )  # fmt: skip

    def __init__(
        self,
        record: Record,
        request_id: str | None = None,
        trace: str | None = None,
    ) -> None:
        self.type = record.type
        self.time = record.time
        self.timestamp = record.timestamp
        self.level = record.level
        self.request_id = request_id or record.request_id
        self.trace = trace
        fields: Any = record.fields if record.where != PLATFORM else record.record
        self.body: Any = record.record
        if isinstance(fields, dict) and fields:
            self.body = plain(fields) if is_deep(fields) else copied(fields)
        elif isinstance(self.body, str):
            self.body = self.body.removesuffix("\n")
        self.message = record.message
        self.size = 0  # bytes, about; set when it is queued

    @property
    def where(self) -> str:
        """What wrote it: "platform", "function" or "extension"."""
        return self.type.partition(".")[0]

    def __repr__(self) -> str:
        """Show which one it is; what it says may be a secret of the user's."""
        return f"<Entry {self.type} {self.time}>"

    def copy(self) -> Entry:
        """Return one like it, which may be changed."""
        made = object.__new__(Entry)
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        made.body = copied(self.body)
        return made

    def say(self, body: Any) -> None:
        """Replace its body by *body*, text or a JSON object, and its message accordingly."""
        nested = isinstance(body, (dict, list))
        self.body = plain(body) if nested and is_deep(body) else body
        self.size = 0
        if isinstance(body, dict):
            found = body.get("message", body.get("msg"))
            self.message = found if isinstance(found, str) else as_json(body)
        else:
            self.message = str(body)

    def text(self) -> str:
        """Return its body as text, and remember about how many bytes it takes."""
        body = self.body
        text = body if isinstance(body, str) else as_json(body)
        self.size = len(text) + AROUND
        return text

    def as_dict(self) -> dict[str, Any]:
        """
        Return it as an object for JSON: what a line of NDJSON is.

        "time" and "type" are always there, "level", "requestId" and "traceId" where
        they are known; "message" for a line of text, "record" for an object.
        """
        found: dict[str, Any] = {"time": self.time, "type": self.type}
        if self.level:
            found["level"] = self.level
        if self.request_id:
            found["requestId"] = self.request_id
        trace_id = trace_ids(self.trace)[0]
        if trace_id:
            found["traceId"] = trace_id
        if isinstance(self.body, str):
            found["message"] = self.message
        else:
            found["record"] = self.body
        return found


def as_json(value: Any) -> str:
    """
    Return *value* as JSON in one line; raises nothing.

    What JSON has no word for becomes text, and so does what is nested too deeply.
    """
    try:
        return _encode(value)
    except Exception as exc:  # of what JSON has no word for, or the user's own __str__
        if by_signal_handler(exc):
            raise
        return dumps(plain(value), separators=(",", ":"))


def plain(value: Any, depth: int = 0) -> Any:
    """Return *value* as JSON takes it, at most `DEEPEST` levels of it."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if depth < DEEPEST:
        if isinstance(value, dict):
            return {str(key): plain(part, depth + 1) for key, part in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(part, depth + 1) for part in value]
    try:
        return str(value)[:LONGEST]
    except Exception as exc:  # of the user's own __str__, or nested too deeply
        if by_signal_handler(exc):
            raise
        return f"<{type(value).__name__}>"


def copied(value: Any) -> Any:
    """Return *value*, JSON that is not too deep, with objects and lists of its own."""
    if type(value) is dict:
        return {
            name: copied(part) if type(part) in (dict, list) else part
            for name, part in value.items()
        }
    if type(value) is list:
        return [copied(part) for part in value]
    return value


def is_deep(value: Any, levels: int = DEEPEST) -> bool:
    """Say whether *value*, a JSON object or list, is nested more than *levels* deep."""
    for part in value.values() if isinstance(value, dict) else value:
        if type(part) in (dict, list) and (levels == 0 or is_deep(part, levels - 1)):
            return True
    return False


def trace_ids(header: str | None) -> tuple[str, str]:
    """
    Return (trace id, parent's span id) of X-Ray's *header*, as W3C writes them.

    That is 32 and 16 hexadecimal digits; "" where the header has none.

    Source: "Tracing header", https://docs.aws.amazon.com/xray/latest/devguide/
    xray-concepts.html#xray-concepts-tracingheader
    """
    trace_id = parent = ""
    for part in (header or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "Root":
            version, _, rest = value.partition("-")
            joined = rest.replace("-", "")
            if version == "1" and _is_hex(joined, 32):
                trace_id = joined.lower()
        elif name in ("Parent", "Self") and _is_hex(value, 16) and not parent:
            parent = value.lower()
    return trace_id, parent


def root(header: str | None) -> str:
    """Return the trace id of X-Ray's *header* as X-Ray writes it, "" without one."""
    trace_id = trace_ids(header)[0]
    return f"1-{trace_id[:8]}-{trace_id[8:]}" if trace_id else ""


def _is_hex(text: str, digits: int) -> bool:
    return (
        len(text) == digits
        and not text.strip("0123456789abcdefABCDEF")
        and bool(text.strip("0"))
    )


class Requests:
    """
    Which invocation a record belongs to, as one consumer sees them pass.

    A line that names no invocation belongs to the one that began last: an
    execution environment has one at a time, and the platform sends in order.  A
    managed instance has several at once, so there it belongs to none.
    """

    __slots__ = ("_concurrent", "_current", "_traces")

    def __init__(self, *, concurrent: bool) -> None:
        self._concurrent = concurrent
        self._current: str | None = None
        self._traces: dict[str, str] = {}  # headers by invocation, the oldest first

    def follow(self, record: Record) -> tuple[str | None, str | None]:
        """Return (request id, trace header) of *record*, which comes next."""
        named = record.request_id
        header = header_of(record)
        if record.type == "platform.start" and named is not None:
            self._current = named
            if header is not None:
                self._traces[named] = header
                if len(self._traces) > MOST:
                    del self._traces[next(iter(self._traces))]
        if named is None and not self._concurrent and record.where != PLATFORM:
            named = self._current
        return named, header or self._traces.get(named or "")


def header_of(record: Record) -> str | None:
    """Return the trace header in *record*, one of the platform's; None without."""
    found = getattr(record, "tracing", None)
    return None if found is None else found.value
