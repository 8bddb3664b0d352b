"""
The platform's side of the Telemetry API: who subscribed, and what is delivered.

    emit ─▶ each subscriber's events ─▶ a batch, when it is full or old enough ─▶ POST

Guarantees
    A delivery begins only while the environment runs; one that a freeze cuts in two
    goes on after the thaw, and frozen time counts for no time-out.
    A batch is delivered again, with the same ``Sequence-Id``, until it is answered with
    200, `ATTEMPTS` times; then it is dropped, and ``platform.logsDropped`` tells of it
    at the head of the next one.  So does what finds no room.
    What INIT produced before a subscription is in its first batch.

Threads
    ``_changed`` guards everything; each subscriber has a thread, which holds no
    lock while it sends.

Source: Telemetry API, https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api.html;
the texts of errors and the Sequence-Id are those of AWS's own emulator.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .journal import DELIVERED, SUBSCRIBED, Journal
from .outcomes import Delivery, Subscription
from .server import TEXT, Answer, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMAS = ("2022-07-01", "2022-12-13", "2025-01-29")
OBJECTS_SINCE = "2022-12-13"  # the schema from which on JSON lines are objects
TYPES = ("platform", "function", "extension")
# name -> the least, the most, what it is unless the subscriber says
BUFFERING = {
    "maxItems": (1_000, 10_000, 10_000),
    "maxBytes": (262_144, 1_048_576, 262_144),
    "timeoutMs": (25, 30_000, 1_000),
}
HOST = "sandbox.localdomain"
HOSTS = (HOST, "sandbox")  # AWS's emulator takes the second, too
RESERVED_PORT = 9001
ADDRESS = "127.0.0.1"

TIMEOUT_S = 1.0  # for an answer, without frozen time
ATTEMPTS = 5
PAUSE_S = 0.05  # before the second attempt; doubled for each that follows
ROOM = 10  # times maxBytes, for events that wait
TICK_S = 0.05
SLOW = (
    "Some logs were dropped because the downstream consumer is slower than the logs"
    " production rate"
)


class Event:
    """One record, ready to be delivered: with lines as text, and as objects."""

    __slots__ = ("as_object", "as_text", "kind")

    def __init__(self, kind: str, record: Any, parsed: Any, when: float) -> None:
        self.kind = kind.partition(".")[0]
        head = {"time": iso(when), "type": kind}
        self.as_text = _compact({**head, "record": record})
        self.as_object = self.as_text
        if parsed is not None:
            self.as_object = _compact({**head, "record": parsed})


class Telemetry:
    """The telemetry of one environment."""

    def __init__(
        self,
        journal: Journal,
        *,
        json_lines: bool,
        instances: bool,
        supported: bool = True,
        redeliver: int = 0,
    ) -> None:
        self.open = supported  # may one still subscribe?
        self.supported = supported
        self.running = True  # the environment is not frozen
        self.ending = False  # what there is, is delivered at once
        self.changed = threading.Condition()
        self.journal = journal
        self.instances = instances
        self.redeliver = redeliver  # every Nth batch comes twice
        self._json_lines = json_lines
        self._backlog: list[Event] = []
        self._subscribers: dict[str, Subscriber] = {}
        self._thawed_at: float | None = time.monotonic()
        self._ran_s = 0.0  # until the last freeze

    # What happens in the environment.

    def emit(self, kind: str, record: Any, parsed: Any = None) -> None:
        """Have a record of *kind* delivered; *parsed* is what a line holds as JSON."""
        if not self.supported:
            return
        with self.changed:
            if not self.open and not self._subscribers:
                return
            event = Event(kind, record, parsed, time.time())
            if self.open:
                self._backlog.append(event)
            for subscriber in self._subscribers.values():
                subscriber.add(event)
            self.changed.notify_all()

    def line(self, text: str, *, of_function: bool) -> None:
        """Have a line of output delivered."""
        parsed = None
        if self._json_lines and text.startswith("{"):
            with contextlib.suppress(ValueError):
                parsed = json.loads(text)
        self.emit("function" if of_function else "extension", text, parsed)

    def close(self) -> None:
        """Take no further subscription: INIT is over."""
        with self.changed:
            self.open = False
            self._backlog.clear()

    def freeze(self) -> None:
        """Begin no delivery until the thaw."""
        with self.changed:
            self.running = False
            self._ran_s, self._thawed_at = self._ran(), None

    def thaw(self) -> None:
        """Deliver again."""
        with self.changed:
            self.running = True
            if self._thawed_at is None:
                self._thawed_at = time.monotonic()
            self.changed.notify_all()

    def finish(self) -> None:
        """Deliver what there is, and from now on each record at once."""
        with self.changed:
            self.ending = True
            self.changed.notify_all()

    def end(self) -> None:
        """Deliver nothing more; return when all subscribers' threads have ended."""
        with self.changed:
            self.open = False
            subscribers = list(self._subscribers.values())
            for subscriber in subscribers:
                subscriber.over = True
            self.changed.notify_all()
        for subscriber in subscribers:
            subscriber.thread.join()

    def ran(self) -> float:
        """Return for how many seconds the environment has run, freezes left out."""
        with self.changed:
            return self._ran()

    def _ran(self) -> float:
        if self._thawed_at is None:
            return self._ran_s
        return self._ran_s + time.monotonic() - self._thawed_at

    # What extensions ask.

    def subscription(self, name: str) -> tuple[str, ...]:
        """Return the types of records that the extension *name* has subscribed to."""
        with self.changed:
            found = self._subscribers.get(name)
            return () if found is None else found.types

    def subscribe(self, name: str, body: bytes) -> Answer:
        """Answer ``PUT /telemetry`` of the extension *name*."""
        with self.changed:
            if not self.open:
                raise Refused(
                    403,
                    "Telemetry.SubscriptionClosed",
                    "Telemetry API subscription is closed",
                )
            wanted = _parsed(body, instances=self.instances)
            if isinstance(wanted, str):
                return _invalid(wanted)
            if name in self._subscribers:
                raise Refused(500, "InternalServerError", "Internal Server Error")
            subscriber = Subscriber(self, name, wanted)
            self._subscribers[name] = subscriber
            for event in self._backlog:
                subscriber.add(event)
            subscriber.thread.start()
        self.journal.note(
            SUBSCRIBED, Subscription(name, subscriber.types, subscriber.schema)
        )
        self.emit(
            "platform.telemetrySubscription",
            {"name": name, "state": "Subscribed", "types": list(subscriber.types)},
        )
        return Answer(200, b'"OK"', {"Content-Type": TEXT})


class Subscriber:
    """One extension that is delivered to."""

    def __init__(
        self, telemetry: Telemetry, name: str, wanted: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.schema: str = wanted["schemaVersion"]
        self.types = tuple(dict.fromkeys(wanted["types"]))
        given = wanted.get("buffering") or {}
        limits = {
            part: given.get(part, default)
            for part, (_, _, default) in BUFFERING.items()
        }
        self.over = False
        self._telemetry = telemetry
        self._max_items: int = limits["maxItems"]
        self._max_bytes: int = limits["maxBytes"]
        self._timeout_s: float = limits["timeoutMs"] / 1000
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._batches = 0  # answered at once
        self._first_at: float | None = None  # of the oldest event, in monotonic time
        self._dropped = [0, 0]  # records, bytes, that no logsDropped has told
        destination = urlsplit(wanted["destination"]["URI"])
        self._path = destination.path or "/"
        if destination.query:
            self._path += "?" + destination.query
        self._wire = _Wire(telemetry, destination.port or 80, lambda: self.over)
        self.thread = threading.Thread(
            target=self._run, name="emulator-telemetry", daemon=True
        )

    def add(self, event: Event) -> None:
        """Have *event* delivered, if it is wanted; under the lock."""
        if event.kind not in self.types:
            return
        data = event.as_object if self.schema >= OBJECTS_SINCE else event.as_text
        if self._bytes + len(data) > ROOM * self._max_bytes:
            self._count_dropped(1, len(data))
            return
        if self._first_at is None:
            self._first_at = time.monotonic()
        self._events.append(data)
        self._bytes += len(data)

    def _count_dropped(self, records: int, size: int) -> None:
        self._dropped[0] += records
        self._dropped[1] += size

    def _run(self) -> None:
        with contextlib.closing(self._wire):
            while True:
                with self._telemetry.changed:
                    while not self._due():
                        if self.over:
                            return
                        self._telemetry.changed.wait(self._wait_s())
                    batch = self._batch()
                self._deliver(batch)

    def _due(self) -> bool:
        if self.over or not self._telemetry.running or self._first_at is None:
            return False
        return (
            self._telemetry.ending
            or len(self._events) >= self._max_items
            or self._bytes >= self._max_bytes
            or time.monotonic() >= self._first_at + self._timeout_s
        )

    def _wait_s(self) -> float | None:
        if self._first_at is None or not self._telemetry.running:
            return None
        return max(0.0, self._first_at + self._timeout_s - time.monotonic())

    def _batch(self) -> list[bytes]:
        """Take the next batch."""
        batch: list[bytes] = []
        size = 0
        records, dropped_bytes = self._dropped
        if records:
            self._dropped = [0, 0]
            told = {
                "droppedRecords": records,
                "droppedBytes": dropped_bytes,
                "reason": SLOW,
            }
            event = Event("platform.logsDropped", told, None, time.time())
            batch.append(event.as_text)
        while self._events and len(batch) < self._max_items and size < self._max_bytes:
            data = self._events.popleft()
            size += len(data)
            batch.append(data)
        self._bytes -= size
        self._first_at = time.monotonic() if self._events else None
        return batch

    def _deliver(self, batch: list[bytes]) -> None:
        body = b"[" + b",".join(batch) + b"]"
        sequence_id = base64.b64encode(hashlib.sha256(body).digest()).decode()
        for attempt in range(ATTEMPTS):
            if attempt and not self._pause(PAUSE_S * 2 ** (attempt - 1)):
                break
            status = self._wire.post(self._path, body, sequence_id)
            self._note(len(batch), len(body), sequence_id, status)
            if status == 200 and not (attempt == 0 and self._loses_answer()):
                return
        with self._telemetry.changed:
            self._count_dropped(len(batch), sum(map(len, batch)))

    def _loses_answer(self) -> bool:
        """Say whether the answer to the batch just delivered is to be lost."""
        self._batches += 1
        every = self._telemetry.redeliver
        return every > 0 and self._batches % every == 0

    def _note(
        self, records: int, size: int, sequence_id: str, status: int | None
    ) -> None:
        self._telemetry.journal.make(
            DELIVERED,
            lambda at: Delivery(self.name, records, size, sequence_id, status, at),
        )

    def _pause(self, seconds: float) -> bool:
        """Let the environment run for *seconds*; say whether to go on."""
        telemetry = self._telemetry
        end = telemetry.ran() + seconds
        with telemetry.changed:
            while not self.over:
                left = end - telemetry._ran()
                if left <= 0:
                    return True
                telemetry.changed.wait(left if telemetry.running else None)
        return False


class _Wire:
    """A connection to a subscriber, kept alive; only frozen time is free."""

    def __init__(self, telemetry: Telemetry, port: int, over: Any) -> None:
        self._telemetry = telemetry
        self._port = port
        self._over = over
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def post(self, path: str, body: bytes, sequence_id: str) -> int | None:
        """Deliver *body*; return the status, None without an answer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\n"
            "User-Agent: Go-http-client/1.1\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n"
            f"Sequence-Id: {sequence_id}\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        kept = self._socket is not None
        status = self._once(head.encode() + body)
        if status is None and kept:  # it was closed meanwhile
            status = self._once(head.encode() + body)
        return status

    def _once(self, data: bytes) -> int | None:
        try:
            return self._exchange(data)
        except (OSError, ValueError):
            self.close()
            return None

    def _exchange(self, data: bytes) -> int:
        ends_at = self._telemetry.ran() + TIMEOUT_S
        if self._socket is None:
            self._socket = socket.create_connection((ADDRESS, self._port), TIMEOUT_S)
            self._socket.settimeout(TICK_S)
        view = memoryview(data)
        while view:
            with self._patience(ends_at):
                view = view[self._socket.send(view) :]
        answer = b""
        while b"\r\n\r\n" not in answer:
            with self._patience(ends_at):
                answer += self._received()
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        missing = int(headers.get("content-length", 0)) - len(rest)
        while missing > 0:
            with self._patience(ends_at):
                missing -= len(self._received())
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(first.split()[1])

    def _received(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError
        return data

    @contextlib.contextmanager
    def _patience(self, ends_at: float) -> Any:
        """Try again after a tick, until the environment has run for long enough."""
        try:
            yield
        except TimeoutError:
            if self._over() or self._telemetry.ran() >= ends_at:
                raise ConnectionAbortedError from None


def iso(when: float) -> str:
    """Return a time since the epoch as AWS writes it."""
    moment = dt.datetime.fromtimestamp(when, dt.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(
        errors="backslashreplace"
    )


def _invalid(problem: str) -> Answer:
    """Refuse a subscription, in the form of AWS's own emulator."""
    # With blanks after the colons, and as text.
    told = json.dumps({"errorType": "ValidationError", "errorMessage": problem})
    return Answer(400, told.encode(), {"Content-Type": TEXT})


def _parsed(body: bytes, *, instances: bool) -> dict[str, Any] | str:
    """Return what is asked for; a text is what is wrong with it."""
    try:
        wanted = json.loads(body)
    except ValueError as exc:
        return f"failed to parse JSON: {exc}"
    if not isinstance(wanted, dict):
        return "failed to parse JSON: not a JSON object"
    problem = _violation(wanted, SCHEMAS[-1:] if instances else SCHEMAS)
    if problem is not None:
        place, rule, words = problem
        return (
            f"schema validation error: jsonschema: '{place}' does not validate with"
            f" telemetry-subscription-schema.json#{rule}: {words}"
        )
    try:
        destination = urlsplit(wanted["destination"]["URI"])
        host, port = destination.hostname, destination.port
    except ValueError as exc:
        return f"Invalid destination: {exc}"
    if host not in HOSTS:
        return f"Invalid destination: destination.URI host must be {HOST}"
    if destination.scheme != "http":
        return "Invalid destination: destination.URI scheme must be http"
    if port is None:
        return "Invalid destination: destination.URI must have a port"
    if port == RESERVED_PORT:
        return f"Invalid destination: port {RESERVED_PORT} is reserved"
    return wanted


def _violation(
    wanted: dict[str, Any], schemas: tuple[str, ...]
) -> tuple[str, str, str] | None:
    """Return the first member that is wrong: its place, the rule that it breaks, a message."""
    missing = [
        repr(name)
        for name in ("schemaVersion", "types", "destination")
        if name not in wanted
    ]
    if missing:
        return "", "/required", "missing properties: " + ", ".join(missing)
    if wanted["schemaVersion"] not in schemas:
        rule = "/properties/schemaVersion/enum"
        return "/schemaVersion", rule, "value must be " + _one_of(schemas)
    types = wanted["types"]
    if not isinstance(types, list):
        return _type("/types", "array", types)
    if not types:
        rule = "/properties/types/minItems"
        return "/types", rule, "minimum 1 items required, but found 0 items"
    for number, name in enumerate(types):
        if name not in TYPES:
            rule = "/properties/types/items/enum"
            return f"/types/{number}", rule, "value must be " + _one_of(TYPES)
    return _wrong_buffering(wanted) or _wrong_destination(wanted["destination"])


def _wrong_buffering(wanted: dict[str, Any]) -> tuple[str, str, str] | None:
    buffering = wanted.get("buffering", {})
    if not isinstance(buffering, dict):
        return _type("/buffering", "object", buffering)
    for name, (least, most, _) in BUFFERING.items():
        place = f"/buffering/{name}"
        value = buffering.get(name, least)
        rule = f"/properties/buffering/properties/{name}/"
        if type(value) is not int:
            return _type(place, "integer", value)
        if value < least:
            return place, rule + "minimum", f"must be >= {least} but found {value}"
        if value > most:
            return place, rule + "maximum", f"must be <= {most} but found {value}"
    return None


def _wrong_destination(destination: Any) -> tuple[str, str, str] | None:
    place, rule = "/destination", "/properties/destination/oneOf/0"
    if not isinstance(destination, dict):
        return _type(place, "object", destination)
    if destination.get("protocol") != "HTTP":
        return (
            place + "/protocol",
            rule + "/properties/protocol/enum",
            'value must be "HTTP"',
        )
    if not isinstance(destination.get("URI"), str):
        return place, rule + "/required", "missing properties: 'URI'"
    return None


def _one_of(values: tuple[str, ...]) -> str:
    names = ", ".join(f'"{value}"' for value in values)
    return names if len(values) == 1 else "one of " + names


def _type(place: str, expected: str, value: Any) -> tuple[str, str, str]:
    names = {str: "string", list: "array", dict: "object", type(None): "null"}
    names |= {bool: "boolean", float: "number", int: "integer"}
    rule = place.replace("/", "/properties/") + "/type"
    found = names.get(type(value), "unknown")
    return place, rule, f"expected {expected}, but got {found}"
