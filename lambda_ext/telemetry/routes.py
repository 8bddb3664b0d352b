"""
Routes: which records of the Telemetry API go where, and what becomes of them.

    telemetry.route(where="function", level=">=WARN").to(sink)

    record ─▶ wanted? ─▶ sampled ─▶ known already? ─▶ transform ─▶ redact ─▶ queue

A record may go to any number of routes.  Lines of this library, documents in
the embedded metric format and blank lines go to none: the first would make new
ones when they are shipped, and the second are metrics.

Guarantees
    A record that a route takes is handed to its sink once, or counted under the
    reason for which it was not.  A batch that the platform sends again is known
    by its ``Sequence-Id``.
    The queue is bounded by records and by bytes; what has no room is dropped by
    the route's policy, and counted.
    What the functions of a route raise concerns that record and that route only:
    it is counted, and logged by class and place.
    What is shipped holds no secret that this process knows, see `redaction`.

Threads
    Each route is a consumer of batches on a thread of its own (see `dispatch`);
    its sink is called on another one (see `shipping`).  `_lock` guards the queue.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict, deque

from .. import disclosure, sink_numbers
from ..callables import named, refuse_async, refuse_coroutine
from ..exceptions import ConfigurationError
from ..lifecycle import clock, process
from . import dispatch, redaction, shipping
from .entry import Entry, Requests
from .predicates import Predicates
from .records import PLATFORM

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Literal, Protocol, TypedDict

    from typing_extensions import Unpack

    from .records import Batch, Record

    # A value to equal, or a function of what is there.
    Plain = str | int | float | list[Any] | dict[str, Any] | None
    Field = Plain | Callable[[Any], object]

    class LogSink(Protocol):
        """What takes the entries of a route; see `shipping` for what else it may have."""

        def accept_logs(self, entries: list[Entry], /) -> object:
            """Take *entries*, which belong to the sink from now on."""
            ...

    class Options(TypedDict, total=False):
        """What `Selection.to` takes by name."""

        name: str
        max_records: int
        max_bytes: int
        max_age: float
        limit: int
        limit_bytes: int
        drop: Literal["oldest", "newest"]


MAX_RECORDS = 1_000  # of one call of a sink, and that make it due
MAX_BYTES = 256 * 1024
LARGEST_CALL = 512 * 1024  # bytes: JSON may take six for one, and a sink holds 4 MB
MAX_AGE_S = 5.0
LIMIT = 20_000  # records that wait
LIMIT_BYTES = 4 * 1024 * 1024
WINDOW = 10_000  # messages that deduplication remembers
BATCHES = 1_000  # sequence ids that are remembered
MAX_LOGGED = 3  # failures of a route's functions that are logged
POLICIES = ("oldest", "newest")


class Status:
    """
    What became of the records of one route; a snapshot.

    Attributes:
        taken: Records for which the predicates held, or raised.
        handed: Records that the sink has taken over.
        waiting: Records in the route's queue, or being handed over.
        dropped: Records that the sink never gets, by reason: "sampled",
            "duplicate", "transform" (it returned None), "failed" (a function of the
            route raised), "queue_full", "sink" (it raised).
        sent: Records that the sink has delivered, of all its routes; None where
            it does not say.
        lost: Records that the sink will not deliver, by its own reasons.
        pending: Records that wait in the sink.
        abandoned: Calls of the sink that took longer than their time.
        error: What went wrong the last time, "" for nothing.
    """

    __slots__ = (
        "abandoned", "dropped", "error", "handed", "lost", "pending", "sent", "taken",
        "waiting",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        outlet: shipping.Outlet = route.outlet
        sink = outlet.sink
        self.taken = route.taken
        self.handed = route.handed
        self.waiting = route.waiting
        self.dropped = dict(route.dropped)
        self.sent: int | None = sink_numbers.number(sink, "sent", None)
        self.lost: dict[str, int] = sink_numbers.losses(sink)
        self.pending: int = sink_numbers.number(sink, "pending")
        self.abandoned = outlet.abandoned
        self.error: str = route.error or outlet.error or disclosure.words(sink, "error")

    def __repr__(self) -> str:
        """Show all of it."""
        members = [f"{name}={getattr(self, name)!r}" for name in self.__slots__]
        return f"<routes.Status {' '.join(members)}>"


def route(
    *,
    where: str | Iterable[str] = (),
    type: str | Iterable[str] = (),
    level: str | Iterable[str] = (),
    request_id: str | Iterable[str] = (),
    fields: Mapping[str, Field] | None = None,
    matches: str | re.Pattern[str] | None = None,
    when: Callable[[Record], object] | None = None,
    sample: float = 1.0,
    deduplicate: float = 0.0,
    transform: Callable[[Entry], Any] | None = None,
    emf: bool = False,
) -> Selection:
    """
    Return a selection of records; ``.to(sink)`` makes a route of it.

    Nothing is subscribed to by that: `telemetry.subscribe` says what the platform
    sends.  All that is given must hold for a record.

    Args:
        where: "function", "extension", "platform", or several of them.
        type: Types such as "platform.report"; "platform.*" for all that begin so.
        level: A level such as "ERROR", several, or a bound such as ">=WARN".
            A log line without a level counts as INFO.
        request_id: An invocation, or several.  A line that names none belongs to
            the invocation that began last, if platform records are subscribed to.
        fields: Members of a JSON line, or of a platform's record, by name or path
            ("user.id"): a value, several of which one must fit, or a function of
            the value.
        matches: A regular expression, searched in the first 4,000 characters of
            the message.  Text that could take exponential time is refused; a
            compiled one is taken as it is, and holds up the whole process while
            it searches: beware of nested repeats.
        when: A function of the record; the route takes it if that returns a true
            value.
        sample: The share of invocations whose records are taken, from 0 to 1: an
            invocation is taken whole, and by every route with this share or a
            larger one.  Records of no invocation are always taken.
        deduplicate: Seconds for which a line with the same level and message as
            one that was taken is dropped; 0 is off.
        transform: A function of a copy of the `Entry`: it returns the entry, other
            text or another JSON object to be sent in its place, or None to drop it.
        emf: Whether documents in the embedded metric format count as log lines.

    Raises:
        ConfigurationError: one of these cannot be used, or two contradict each
            other; the message says what to change.
    """
    wanted = Predicates(
        where=where,
        type=type,
        level=level,
        request_id=request_id,
        fields=fields,
        matches=matches,
        when=when,
    )
    if not _is_number(sample) or not 0 <= sample <= 1:
        msg = (
            f"telemetry.route(sample={disclosure.quoted(sample)}): a share of all invocations is a"
            " number from 0 to 1"
        )
        raise ConfigurationError(msg)
    if not _is_number(deduplicate) or not deduplicate >= 0:  # NaN
        msg = (
            f"telemetry.route(deduplicate={disclosure.quoted(deduplicate)}): a window is a number of"
            " seconds, 0 for none"
        )
        raise ConfigurationError(msg)
    if transform is not None:
        _check_transform(transform)
    if not _is_flag(emf):
        msg = f"telemetry.route(emf={disclosure.quoted(emf)}): say True or False"
        raise ConfigurationError(msg)
    return Selection(wanted, sample, deduplicate, transform, emf=emf)


def _check_transform(given: Any) -> None:
    if not callable(given):
        msg = f"telemetry.route(transform={disclosure.quoted(given)}): that is no function of an entry"
        raise ConfigurationError(msg)
    refuse_async(given, "transform= of a route")


def _check_bounds(name: Any, max_age: Any, drop: Any, **numbers: Any) -> None:
    for argument, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"to({argument}={value!r:.80}) takes an int above 0"
            raise ConfigurationError(msg)
    if not _is_number(max_age) or not max_age >= 0:  # NaN
        msg = f"to(max_age={max_age!r:.80}) takes a number of seconds, 0 or more"
        raise ConfigurationError(msg)
    if drop not in POLICIES:
        msg = f"to(drop={drop!r:.80}): use {' or '.join(map(repr, POLICIES))}"
        raise ConfigurationError(msg)
    if not isinstance(name, str):
        msg = f"to(name={name!r:.80}) takes text"
        raise ConfigurationError(msg)


class Selection:
    """Which records, and what is made of them; see `route`."""

    __slots__ = ("_deduplicate", "_emf", "_sample", "_transform", "_wanted")

    def __init__(
        self,
        wanted: Predicates,
        sample: float,
        deduplicate: float,
        transform: Callable[[Entry], Any] | None,
        *,
        emf: bool,
    ) -> None:
        self._wanted = wanted
        self._sample = sample
        self._deduplicate = deduplicate
        self._transform = transform
        self._emf = emf

    def to(
        self,
        sink: LogSink | Callable[[list[Entry]], object],
        *,
        name: str = "",
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE_S,
        limit: int = LIMIT,
        limit_bytes: int = LIMIT_BYTES,
        drop: Literal["oldest", "newest"] = "oldest",
    ) -> Route:
        """
        Hand the records that are selected to *sink*, from now on.

        Args:
            sink: A log destination (see `telemetry.destinations`), an object with
                a method accept_logs(entries), or a function of a list of entries.
                It must not log, nor print: each line would come back to it.
            name: What `stats` and log lines call it; else the sink's own name.
            max_records: Records that make it due, and of one call at most.
            max_bytes: Bytes, about, likewise; a call has 512 KiB at most, or one
                record.
            max_age: Seconds after which a record is due; 0: at the end of each
                invocation.
            limit: Records that wait at most.
            limit_bytes: Bytes, about, likewise.
            drop: What goes when there is no room: the "oldest" or the "newest".

        Raises:
            ConfigurationError: *sink* is no sink of logs, or a number is out of
                range; the message says what to change.
        """
        _check_bounds(
            name,
            max_age,
            drop,
            max_records=max_records,
            max_bytes=max_bytes,
            limit=limit,
            limit_bytes=limit_bytes,
        )
        made = Route(
            self,
            checked(sink),
            name,
            # One that has little room is due before it must drop.
            bounds=(
                min(max_records, limit),
                min(max_bytes, limit_bytes),
                max_age,
                limit,
                limit_bytes,
            ),
            newest=drop == "newest",
        )
        made._begin()
        return made


def checked(sink: Any) -> Any:
    """Return *sink* as an object with accept_logs(), or say what would do."""
    if not isinstance(sink, type):
        accept = disclosure.attribute(sink, "accept_logs")
        if callable(accept):
            refuse_async(accept, f"accept_logs of the sink {named(sink)}")
            return sink
        if callable(disclosure.attribute(sink, "accept")):
            msg = (
                f"{named(sink)} is a sink of metrics: route platform records to"
                " telemetry.destinations.metrics(sink=...), and logs to one of the"
                " other telemetry.destinations"
            )
            raise ConfigurationError(msg)
        if callable(sink):
            refuse_async(sink, f"the sink {named(sink)}")
            for outlet in shipping.outlets():
                if disclosure.attribute(outlet.sink, "function") == sink:
                    return outlet.sink  # which is called by one thread at a time
            # Loaded only by those that have no destination of their own.
            from .queued import FunctionDestination

            return FunctionDestination(sink)
    msg = (
        f"{named(sink)} is no sink of logs: use one of telemetry.destinations, an object"
        " with a method accept_logs(entries), or a function of a list of entries"
    )
    raise ConfigurationError(msg)


class Route:
    """A selection on its way to a sink; see `Selection.to`."""

    __slots__ = (
        "_bounds", "_bytes", "_deduplicate", "_emf", "_handing", "_known", "_lock",
        "_logged", "_newest", "_queue", "_requests", "_sample", "_selection",
        "_sequences", "_transform", "_wanted", "dropped", "error", "handed", "name",
        "outlet", "taken",
    )  # fmt: skip

    def __init__(
        self,
        selection: Selection,
        sink: Any,
        name: str,
        *,
        bounds: tuple[int, int, float, int, int],
        newest: bool,
    ) -> None:
        self._selection = selection
        self._wanted = selection._wanted
        self._sample = selection._sample
        self._deduplicate = selection._deduplicate
        self._transform = selection._transform
        self._emf = selection._emf
        self._bounds = bounds
        self._newest = newest
        own = disclosure.words(sink, "name") or type(sink).__qualname__
        self.outlet = shipping.outlet_of(sink, own)
        taken: set[str] = {each.name for each in _routes}
        self.name: str = name or self.outlet.name
        number = 2
        while self.name in taken:
            self.name = f"{name or self.outlet.name}-{number}"
            number += 1
        self._logged = 0
        self._lock = process.Lock()
        self._empty()

    def _empty(self) -> None:
        self.taken = 0
        self.handed = 0
        self.dropped: dict[str, int] = {}
        self.error = ""  # of the route's own functions
        self._queue: deque[tuple[Entry, float]] = deque()
        self._bytes = 0
        self._handing = 0  # records that are being handed over
        self._known: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._sequences: OrderedDict[str, None] = OrderedDict()
        concurrent = bool(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY"))
        self._requests = Requests(concurrent=concurrent)

    def __repr__(self) -> str:
        return f"<Route to {self.name}, {self.waiting} records waiting>"

    @property
    def places(self) -> frozenset[str]:
        """What the records that it takes may be written by."""
        return self._wanted.places

    @property
    def consumer_name(self) -> str:
        """What `dispatch` calls it: two routes are two consumers."""
        return f"route {self.name}"

    @property
    def waiting(self) -> int:
        """The number of records that are not handed over yet."""
        return len(self._queue) + self._handing

    def status(self) -> Status:
        """Return what became of its records."""
        return Status(self)

    def to(
        self,
        sink: LogSink | Callable[[list[Entry]], object],
        **options: Unpack[Options],
    ) -> Route:
        """Hand the same records to *sink*, too; see `Selection.to`."""
        return self._selection.to(sink, **options)

    def stop(self) -> None:
        """Take no more records; what waits is still handed over."""
        if self in _routes:
            _routes.remove(self)
        if self in dispatch.consumers:
            dispatch.consumers.remove(self)

    def _begin(self) -> None:
        shipping.join()
        self.outlet.routes.append(self)
        _routes.append(self)
        dispatch.consumers.append(self)

    # Batches -----------------------------------------------------------------

    def __call__(self, batch: Batch) -> None:
        """Take what the route wants of *batch*; see `dispatch`."""
        if batch.sequence_id is not None:
            if batch.sequence_id in self._sequences:
                return
            self._sequences[batch.sequence_id] = None
            if len(self._sequences) > BATCHES:
                self._sequences.popitem(last=False)
        redaction.refresh()
        for record in batch:
            request_id, trace = self._requests.follow(record)
            try:
                entry = self._entry(record, request_id, trace)
                if entry is not None:
                    self._put(redaction.clean(entry))
            except BaseException as exc:  # SystemExit too: it would end this thread
                self._failed(exc)
        if self._queue:
            shipping.arrived(self.outlet)

    def _entry(
        self, record: Record, request_id: str | None, trace: str | None
    ) -> Entry | None:
        """Return what *record* becomes; None if the route does not take it."""
        if record.is_ours or (record.is_emf and not self._emf):
            return None
        if record.where != PLATFORM and record.record in ("", "\n"):
            return None
        try:
            if not self._wanted(record, request_id):
                return None
        except BaseException:  # it is counted as failed
            self.taken += 1
            raise
        self.taken += 1
        if self._sample < 1 and not is_sampled(request_id, self._sample):
            self._drop("sampled")
            return None
        if self._deduplicate and self._is_known(record):
            self._drop("duplicate")
            return None
        entry = Entry(record, request_id, trace)
        if self._transform is None:
            return entry
        made = self._transform(entry)
        refuse_coroutine(made, "transform= of a route")
        if made is None:
            self._drop("transform")
        elif isinstance(made, Entry):
            return made
        else:
            entry.say(made)
            return entry
        return None

    def _is_known(self, record: Record) -> bool:
        """Say whether the same line came a short time ago, by its own time."""
        at = record.timestamp
        key = (record.type, record.level, hash(record.message), len(record.message))
        known = self._known
        last = known.get(key)
        if last is not None and abs(at - last) < self._deduplicate:
            return True
        known[key] = at
        known.move_to_end(key)
        if len(known) > WINDOW:
            known.popitem(last=False)
        return False

    def _drop(self, reason: str, count: int = 1) -> None:
        with self._lock:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _failed(self, exc: BaseException) -> None:
        self._drop("failed")
        self.error = disclosure.kind(exc)
        self._logged += 1
        if self._logged <= MAX_LOGGED:
            disclosure.warn("route_failed", route=self.name, error=self.error)

    # The queue ---------------------------------------------------------------

    def _put(self, entry: Entry) -> None:
        if not entry.size:
            entry.text()
        size = entry.size
        with self._lock:
            if self._has_room(size):
                self._queue.append((entry, clock.now()))
                self._bytes += size

    def _has_room(self, size: int) -> bool:
        """Drop the oldest for *size* bytes more; or say that these are to be dropped."""
        _, _, _, limit, limit_bytes = self._bounds
        while self._queue and (
            len(self._queue) >= limit or self._bytes + size > limit_bytes
        ):
            if self._newest:
                self._drop("queue_full")
                return False
            oldest, _ = self._queue.popleft()
            self._bytes -= oldest.size
            self._drop("queue_full")
        return True

    def is_due(self) -> bool:
        """Say whether what waits is old or large enough to be handed over."""
        max_records, max_bytes, max_age, _, _ = self._bounds
        with self._lock:
            queue = self._queue
            return bool(queue) and (
                len(queue) >= max_records
                or self._bytes >= max_bytes
                or clock.now() - queue[0][1] >= max_age
            )

    def take(self) -> list[Entry]:
        """Return the records of the next call of the sink; see `settle`."""
        with self._lock:
            found = self._taken()
            self._bytes -= sum([entry.size for entry in found])
            self._handing += len(found)
        return found

    def _taken(self) -> list[Entry]:
        max_records, max_bytes, _, _, _ = self._bounds
        max_bytes = min(max_bytes, LARGEST_CALL)
        found: list[Entry] = []
        size = 0
        queue = self._queue
        while queue and len(found) < max_records:
            entry = queue[0][0]
            if found and size + entry.size > max_bytes:
                break
            queue.popleft()
            size += entry.size
            found.append(entry)
        return found

    def settle(self, count: int, *, taken: bool) -> None:
        """Count what became of *count* records that `take` returned."""
        with self._lock:
            self._handing -= count
            if taken:
                self.handed += count
            else:
                self._drop("sink", count)


def is_sampled(request_id: str | None, share: float) -> bool:
    """Say whether the invocation *request_id* is in the sample, a *share* of all."""
    if request_id is None:
        return True
    return zlib.crc32(request_id.encode("utf-8", "replace")) < share * 2**32


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_routes: list[Route] = []


def statuses() -> dict[str, Status]:
    """Return what became of the records of each route, by its name."""
    return {each.name: each.status() for each in [*_routes]}


@process.at_fork
def _forked() -> None:
    """Leave what waits to the parent, who hands it over, and count from zero."""
    for each in [*_routes]:
        each._empty()


@process.at_reset
def reset() -> None:
    """Forget every route, as if this were just imported."""
    _routes.clear()
