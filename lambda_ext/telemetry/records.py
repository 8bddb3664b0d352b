"""
The records of Lambda's Telemetry API, as objects.

    record.type         "platform.report", "function", ..., as AWS sends it
    record.time         such as "2022-08-02T12:01:23.521Z"; `timestamp` as a number
    record.record       what AWS sent under "record", unchanged

Guarantees
    Each element that arrives becomes a record or is counted: `Batch.of` raises nothing, and
    a malformed element of a batch does not concern the others, not even one that
    is no JSON or no UTF-8.  A type that
    this module does not know is a plain `Record`.  A property of a record whose
    member is missing or of another kind is None, so a filter needs no ``try``.

What a log record is
    A function whose log format is JSON sends objects; prints, and everything of
    functions with the format "text", are strings.  Schemas before 2022-12-13
    (and AWS's local emulator) send JSON lines as strings, too.  `fields`,
    `level`, `request_id` and `message` are the same for all three, and for the
    lines that the runtime writes in text format: ``[LEVEL] TAB time TAB request
    id TAB message``.

Source: Telemetry API schema reference,
https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

import functools
import json
import re
import weakref

from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FUNCTION = "function"
EXTENSION = "extension"
PLATFORM = "platform"

OURS = "lambda_ext"  # the logger of this library
LEVEL_NAMES = ("level", "severity", "levelname", "log_level")  # of JSON loggers
MESSAGE_NAMES = ("message", "msg")
REQUEST_ID_NAMES = (
    "requestId",  # the runtime's
    "AWSRequestId",
    "function_request_id",  # Powertools'
    "aws_request_id",
    "request_id",
)

# What the runtime client writes in text format; the second form is its own error.
_LINE = r"\[([A-Z]+)\](?:\t[^\t\n]*\t([^\t\n]*)\t| )"
# "lambda_ext.EVENT", where it begins the message in a format that is known, and
# anywhere when a field follows.  A line of the user's may begin with the name of
# the package, so without a field the event has to end the line or be followed by text.
_OURS = (
    r"(?:\[[A-Z]+\]\t[^\t\n]*\t[^\t\n]*\t|[A-Z]+:lambda_ext:)?"
    r"lambda_ext\.[a-z_]+(?:\s|$)"
)
_OURS_WITH_FIELD = r"\blambda_ext\.[a-z_]+ [a-z_]+="
_TIME = (
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|([+-])(\d\d):?(\d\d))?$"
)
_compiled = functools.cache(re.compile)  # not in INIT: 0.5 ms each
_parsing = process.Lock()
_NEXT = ',{"time":'  # how elements are told apart in a broken array
counted = {"malformed": 0}  # elements of batches that were no records, in this process
_LARGEST = 1e300  # Python's JSON reads "NaN", "Infinity" and any integer
_DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)  # before the month


class _Text:
    """A member of the record that is text; None where it is missing."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, record: Record, _: object = None) -> str | None:
        if record is None:
            return self  # type: ignore[unreachable]  # asked of the class, by a tool
        found = record._member(self.name)
        return found if isinstance(found, str) else None


class _Number:
    """A member of the record, or of its "metrics", that is a number; else None."""

    __slots__ = ("inside", "name")

    def __init__(self, name: str, inside: str = "") -> None:
        self.name = name
        self.inside = inside

    def __get__(self, record: Record, _: object = None) -> float | None:
        if record is None:
            return self  # type: ignore[unreachable]
        found = record._member(self.inside or self.name)
        if self.inside:
            found = found.get(self.name) if isinstance(found, dict) else None
        return found if _is_number(found) else None


class _Texts:
    """A member of the record that is a list of texts; empty where it is missing."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, record: Record, _: object = None) -> tuple[str, ...]:
        if record is None:
            return self  # type: ignore[unreachable]
        found = record._member(self.name)
        if not isinstance(found, list):
            return ()
        return tuple(each for each in found if isinstance(each, str))


class Span:
    """
    A part of what the platform measured, such as "responseLatency".

    Attributes:
        name: AWS's name of it.
        start: When it began, as AWS sends it; `timestamp` in seconds since the epoch.
        duration_ms: How long it took, in milliseconds.
    """

    __slots__ = ("duration_ms", "name", "start")

    def __init__(self, name: str, start: str, duration_ms: float) -> None:
        self.name = name
        self.start = start
        self.duration_ms = duration_ms

    @property
    def timestamp(self) -> float | None:
        """When it began, in seconds since the epoch; None where AWS does not say."""
        return seconds(self.start)

    def __repr__(self) -> str:
        """Show all of it."""
        return f"<Span {self.name} {self.start} {self.duration_ms} ms>"


class Tracing:
    """
    The trace that an invocation belongs to.

    Attributes:
        type: "X-Amzn-Trace-Id".
        value: Such as "Root=1-...;Parent=...;Sampled=1".
        span_id: Of the platform's own segment; None where AWS does not say.
    """

    __slots__ = ("span_id", "type", "value")

    def __init__(self, type: str, value: str, span_id: str | None) -> None:
        self.type = type
        self.value = value
        self.span_id = span_id

    def __repr__(self) -> str:
        """Show all of it."""
        return f"<Tracing {self.value} {self.span_id}>"


class Record:
    """
    One record of the Telemetry API; read-only.

    Attributes:
        type: As AWS sends it: "platform.report", "function", "extension", ...
        time: When it happened, as AWS sends it.
        record: What AWS sent under "record": a dict for "platform.*", a dict or
            text for logs.  All consumers share it, so don't change it.
    """

    __slots__ = ("_fields", "_received_at", "record", "time", "type")

    type: str
    time: str
    record: Any
    _received_at: float
    _fields: dict[str, Any] | None

    def __init__(
        self,
        type: str,
        time: str,
        record: Any,
        received_at: float = 0.0,
    ) -> None:
        _set_type(self, type)
        _set_time(self, time)
        _set_record(self, record)
        _set_received_at(self, received_at)
        _set_fields(self, None)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: several consumers have the same record."""
        msg = f"a telemetry record is read-only: {name!r} cannot be set"
        raise AttributeError(msg, name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        """Refuse, as for setting it."""
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copy and pickle make it anew."""
        made = (self.type, self.time, self.record, self._received_at)
        return type(self), made

    def __repr__(self) -> str:
        """Show its type and time; what it says may be a secret of the user's."""
        return f"<{type(self).__name__} {self.type} {self.time}>"

    @property
    def timestamp(self) -> float:
        """`time` in seconds since the epoch; where it is none, when it arrived."""
        found = seconds(self.time)
        return self._received_at if found is None else found

    @property
    def where(self) -> str:
        """What wrote it: "platform", "function" or "extension"."""
        return self.type.partition(".")[0]

    @property
    def request_id(self) -> str | None:
        """The invocation that it belongs to; None where the record does not say."""
        found = self._member("requestId")
        return found if isinstance(found, str) and found else None

    @property
    def fields(self) -> dict[str, Any]:
        """The members of the record, or of the JSON line that it is; else empty."""
        return self.record if isinstance(self.record, dict) else {}

    @property
    def level(self) -> str | None:
        """The level of a log record, in capitals: "WARN", "ERROR"; None without one."""
        return None

    @property
    def message(self) -> str:
        """The text of a log record; of others the record as JSON."""
        return self.record if isinstance(self.record, str) else _as_json(self.record)

    @property
    def is_ours(self) -> bool:
        """Whether it is a log line of this library's: shipping it would make more."""
        return False

    @property
    def is_emf(self) -> bool:
        """Whether it is a metric in the embedded metric format, not a log."""
        return False

    def _member(self, name: str) -> Any:
        record = self.record
        return record.get(name) if isinstance(record, dict) else None


# The C functions that set the slots: `__setattr__` refuses, and a record is cheap.
_slots: Any = vars(Record)
_set_type = _slots["type"].__set__
_set_time = _slots["time"].__set__
_set_record = _slots["record"].__set__
_set_received_at = _slots["_received_at"].__set__
_set_fields = _slots["_fields"].__set__


class Log(Record):
    """A log record: "function" or "extension"."""

    __slots__ = ()

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object that was logged, also where it came as text; else empty."""
        record = self.record
        if isinstance(record, dict):
            return record
        found = self._fields
        if found is None:
            found = _object(record)
            _set_fields(self, found)
        return found

    @property
    def request_id(self) -> str | None:
        """The invocation that wrote it; None where the line does not say."""
        fields = self.fields
        for name in REQUEST_ID_NAMES:
            found = fields.get(name)
            if isinstance(found, str) and found:
                return found
        line = self._line()
        return None if line is None else line[2] or None

    @property
    def level(self) -> str | None:
        """The level, in capitals: "WARN", "WARNING", "ERROR"; None without one."""
        fields = self.fields
        for name in LEVEL_NAMES:
            found = fields.get(name)
            if isinstance(found, str) and found:
                return found.upper()
        line = self._line()
        return None if line is None else line[1]

    @property
    def message(self) -> str:
        """The text, without the runtime's level, time and request id in front."""
        fields = self.fields
        for name in MESSAGE_NAMES:
            if name in fields:
                found = fields[name]
                return found if isinstance(found, str) else _as_json(found)
        record = self.record
        if not isinstance(record, str):
            return _as_json(record)
        line = self._line()
        found = record if line is None or line[2] is None else record[line.end() :]
        return found.removesuffix("\n")

    @property
    def is_ours(self) -> bool:
        """Whether it is a log line of this library's: shipping it would make more."""
        record = self.record
        if isinstance(record, str) and OURS not in record:
            return False
        fields = self.fields
        if fields:
            text = self.message
            if _is_our_name(fields.get("logger")):
                return True
            # A "name" is a logger's in some formats, and anything in a log of facts.
            if _is_our_name(fields.get("name")) and f"{OURS}." in text:
                return True
        else:
            text = record if isinstance(record, str) else ""
        return bool(
            _compiled(_OURS).match(text) or _compiled(_OURS_WITH_FIELD).search(text)
        )

    @property
    def is_emf(self) -> bool:
        """Whether it is a metric in the embedded metric format, not a log."""
        record = self.record
        if isinstance(record, str) and '"_aws"' not in record:
            return False
        found = self.fields.get("_aws")
        return isinstance(found, dict) and "CloudWatchMetrics" in found

    def _line(self) -> re.Match[str] | None:
        record = self.record
        return _compiled(_LINE).match(record) if isinstance(record, str) else None


class Platform(Record):
    """A record of the platform's."""

    __slots__ = ()

    status = _Text("status")
    error_type = _Text("errorType")

    @property
    def spans(self) -> tuple[Span, ...]:
        """What the platform measured; empty where it did not."""
        found = self._member("spans")
        return tuple(_spans(found)) if isinstance(found, list) else ()

    @property
    def tracing(self) -> Tracing | None:
        """The trace that it belongs to; None without one."""
        found = self._member("tracing")
        if not isinstance(found, dict) or not isinstance(found.get("value"), str):
            return None
        span_id = found.get("spanId")
        return Tracing(
            str(found.get("type", "")),
            found["value"],
            span_id if isinstance(span_id, str) else None,
        )


class InitStart(Platform):
    """platform.initStart: the INIT phase begins; *phase* tells a repeated one."""

    __slots__ = ()

    initialization_type = _Text("initializationType")
    phase = _Text("phase")  # "init", "invoke" (repeated in an invocation), "snap-start"
    runtime_version = _Text("runtimeVersion")
    runtime_version_arn = _Text("runtimeVersionArn")
    function_name = _Text("functionName")
    function_version = _Text("functionVersion")
    function_arn = _Text("functionArn")
    instance_id = _Text("instanceId")
    instance_max_memory = _Number("instanceMaxMemory")  # bytes


class InitRuntimeDone(Platform):
    """platform.initRuntimeDone: the handler's module has been imported, or has not."""

    __slots__ = ()

    initialization_type = _Text("initializationType")
    phase = _Text("phase")


class InitReport(Platform):
    """platform.initReport: the INIT phase is over."""

    __slots__ = ()

    initialization_type = _Text("initializationType")
    phase = _Text("phase")
    duration_ms = _Number("durationMs", "metrics")


class Start(Platform):
    """platform.start: an invocation begins."""

    __slots__ = ()

    version = _Text("version")
    tenant_id = _Text("tenantId")
    function_arn = _Text("functionArn")


class RuntimeDone(Platform):
    """platform.runtimeDone: the runtime is done with an invocation."""

    __slots__ = ()

    duration_ms = _Number("durationMs", "metrics")
    produced_bytes = _Number("producedBytes", "metrics")
    tenant_id = _Text("tenantId")


class Report(Platform):
    """
    platform.report: an invocation is over, extensions included.

    It is sent once the environment may freeze, so it arrives with the next
    invocation, or when the environment ends.
    """

    __slots__ = ()

    duration_ms = _Number("durationMs", "metrics")
    billed_duration_ms = _Number("billedDurationMs", "metrics")
    memory_size_mb = _Number("memorySizeMB", "metrics")
    max_memory_used_mb = _Number("maxMemoryUsedMB", "metrics")
    init_duration_ms = _Number("initDurationMs", "metrics")
    restore_duration_ms = _Number("restoreDurationMs", "metrics")


class End(Platform):
    """platform.end: an invocation is over, in old schemas."""

    __slots__ = ()


class RestoreStart(Platform):
    """platform.restoreStart: a SnapStart snapshot is being restored."""

    __slots__ = ()

    function_name = _Text("functionName")
    function_version = _Text("functionVersion")
    runtime_version = _Text("runtimeVersion")
    runtime_version_arn = _Text("runtimeVersionArn")
    instance_id = _Text("instanceId")
    instance_max_memory = _Number("instanceMaxMemory")  # bytes


class RestoreRuntimeDone(Platform):
    """platform.restoreRuntimeDone: the after-restore hooks are done."""

    __slots__ = ()


class RestoreReport(Platform):
    """platform.restoreReport: a SnapStart snapshot has been restored."""

    __slots__ = ()

    duration_ms = _Number("durationMs", "metrics")


class Extension(Platform):
    """platform.extension: how an extension is registered, told when INIT ends."""

    __slots__ = ()

    name = _Text("name")
    state = _Text("state")
    events = _Texts("events")


class TelemetrySubscription(Platform):
    """platform.telemetrySubscription: an extension has subscribed."""

    __slots__ = ()

    name = _Text("name")
    state = _Text("state")
    types = _Texts("types")


class LogsDropped(Platform):
    """platform.logsDropped: the platform has dropped records of this subscriber's."""

    __slots__ = ()

    dropped_bytes = _Number("droppedBytes")
    dropped_records = _Number("droppedRecords")
    reason = _Text("reason")


class Fault(Platform):
    """platform.fault: what ended an invocation, as a text; see `message`."""

    __slots__ = ()

    @property
    def message(self) -> str:
        """What the platform says."""
        found = self._member("fault")
        return found if isinstance(found, str) else super().message

    @property
    def request_id(self) -> str | None:
        """The invocation that failed, which the text names."""
        found = re.search(r"RequestId: (\S+)", self.message)
        return super().request_id if found is None else found[1]


KINDS: dict[str, type[Record]] = {
    FUNCTION: Log,
    EXTENSION: Log,
    "platform.initStart": InitStart,
    "platform.initRuntimeDone": InitRuntimeDone,
    "platform.initReport": InitReport,
    "platform.start": Start,
    "platform.runtimeDone": RuntimeDone,
    "platform.report": Report,
    "platform.end": End,
    "platform.restoreStart": RestoreStart,
    "platform.restoreRuntimeDone": RestoreRuntimeDone,
    "platform.restoreReport": RestoreReport,
    "platform.extension": Extension,
    "platform.telemetrySubscription": TelemetrySubscription,
    "platform.logsDropped": LogsDropped,
    "platform.fault": Fault,
}


class Records(list[Record]):
    """The records of a batch, as several consumers share them; a list."""

    __slots__ = ("__weakref__",)


class Batch:
    """
    The records of one delivery, in the platform's order.

    A batch that was delivered keeps what the platform sent, and its records as long as
    a consumer has them: a batch that waits costs its size on the wire, not a multiple.

    Attributes:
        sequence_id: AWS's ``Sequence-Id`` of the delivery; None where it sends none.
        received_at: When it arrived, in seconds since the epoch.
    """

    __slots__ = (
        "_body", "_given", "_malformed", "_parsed", "received_at", "sequence_id",
    )  # fmt: skip

    def __init__(
        self,
        records: list[Record],
        sequence_id: str | None = None,
        *,
        received_at: float = 0.0,
    ) -> None:
        self._body: bytes | bytearray | str = b"[]"
        self._given: list[Record] | None = records
        self._malformed: int | None = 0  # None: it was never parsed
        self._parsed: weakref.ref[Records] | None = None
        self.sequence_id = sequence_id
        self.received_at = received_at

    @classmethod
    def of(
        cls,
        body: bytes | bytearray | str,
        sequence_id: str | None = None,
        *,
        received_at: float = 0.0,
    ) -> Batch:
        """
        Return the batch that *body*, the text of a JSON array, is.

        A body that is no JSON is a batch without records, and one malformed element.

        Raises:
            TypeError: *body* is no text.
        """
        known: object = body  # not every test checks types
        if not isinstance(known, (bytes, bytearray, str)):
            msg = (
                "Batch.of() takes the JSON text of a delivery, not"
                f" {type(known).__name__}: json.dumps() makes it"
            )
            raise TypeError(msg)
        batch = cls([], sequence_id, received_at=received_at)
        batch._body = body
        batch._given = batch._malformed = None
        return batch

    @property
    def records(self) -> list[Record]:
        """What was delivered; read it only, other consumers have the same list."""
        if self._given is not None:
            return self._given
        with _parsing:  # consumers of the same batch parse it once
            found = None if self._parsed is None else self._parsed()
            if found is None:
                found = self._parse()
                self._parsed = weakref.ref(found)
        return found

    @property
    def malformed(self) -> int:
        """How many elements of it were no records."""
        if self._malformed is None:
            _ = self.records
        return self._malformed or 0

    def contains(self, text: bytes) -> bool:
        """Say whether *text* stands in what was delivered, before it is parsed."""
        body = self._body
        return not isinstance(body, str) and text in body

    def _parse(self) -> Records:
        elements = _elements(self._body)
        made = (make(element, self.received_at) for element in elements)
        found = Records(record for record in made if record is not None)
        malformed = len(elements) - len(found)
        if self._malformed is None:
            self._malformed = malformed  # first: then it is counted once at most
            counted["malformed"] += malformed
        return found

    def __iter__(self) -> Iterator[Record]:
        """Yield its records."""
        return iter(self.records)

    def __len__(self) -> int:
        """Return how many records it has."""
        return len(self.records)

    def __repr__(self) -> str:
        """Show how much it is."""
        return f"<Batch of {len(self.records)} records, {self.sequence_id}>"


def make(element: object, received_at: float = 0.0) -> Record | None:
    """Return the record that *element* of a batch is; None if it is none."""
    if not isinstance(element, dict):
        return None
    kind = element.get("type")
    if not isinstance(kind, str):
        return None
    time = element.get("time")
    made = KINDS.get(kind)
    if made is None:
        made = Platform if kind.startswith("platform.") else Record
    return made(
        kind, time if isinstance(time, str) else "", element.get("record"), received_at
    )


parse = Batch.of


def _elements(body: bytes | bytearray | str) -> list[Any]:
    """Return the elements of *body*; what is none is one that is no record."""
    text = body if isinstance(body, str) else body.decode(errors="replace")
    try:
        elements = json.loads(text)
    except (ValueError, RecursionError):
        return _salvaged(text)
    if isinstance(elements, dict):  # one record alone
        return [elements]
    return elements if isinstance(elements, list) else [None]


def _salvaged(text: str) -> list[Any]:
    """Return the elements of a broken array; None for each that is broken."""
    decode = json.JSONDecoder().raw_decode
    elements: list[Any] = []
    position = text.find("[") + 1
    while position:
        start = text.find("{", position)
        if start < 0:
            break
        try:
            element, position = decode(text, start)
        except (ValueError, RecursionError):
            element = None
            position = text.find(_NEXT, start + 1) + 1
        elements.append(element)
    return elements or [None]


def seconds(time: str) -> float | None:
    """Return an RFC 3339 *time* in seconds since the epoch; None if it is none."""
    found = _compiled(_TIME).match(time)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    past = year - (month <= 2)  # the last year whose leap day is over
    leaps = past // 4 - past // 100 + past // 400 - 477  # since 1970
    days = (year - 1970) * 365 + leaps + _DAYS[month - 1] + day - 1
    whole = ((days * 24 + hour) * 60 + minute) * 60 + second
    if found[8]:
        offset = int(found[9]) * 3600 + int(found[10]) * 60
        whole += -offset if found[8] == "+" else offset
    return whole + float(found[7] or 0)


def _is_our_name(value: object) -> bool:
    """Say whether *value* names the logger of this library."""
    return isinstance(value, str) and value.partition(".")[0] == OURS


def _is_number(value: Any) -> bool:
    """Say whether *value* can be computed with: no bool, and no NaN."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def _spans(found: list[Any]) -> Iterator[Span]:
    for each in found:
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            start: Any = each.get("start")
            duration_ms: Any = each.get("durationMs")
            if isinstance(start, str) and _is_number(duration_ms):
                yield Span(each["name"], start, duration_ms)


def _object(text: object) -> dict[str, Any]:
    """Return the JSON object that *text* is, {} for other text."""
    if not isinstance(text, str) or text[:1] != "{":
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        return ""


@process.at_fork
def _forked() -> None:
    """Begin to count anew."""
    counted["malformed"] = 0


process.at_reset(_forked)
