"""
A load, and a refresh: one per key, many keys per call.

    fresh   age < max_age            served; past ~80 % of it a hit wakes the
                                     worker, for which nobody waits
    stale   age ≥ max_age            one load, its callers wait; the old value
                                     serves only if that fails for a passing
                                     reason, for up to max_stale seconds
    dead    none, killed, too old    one load, its callers wait

Guarantees
    One load per key at a time, whoever asks: the others wait for it, and each
    raises an exception of its own, chained to the one that there was.
    A load that was begun before an invalidation, or before a possible freeze,
    blocks nobody who comes later and overwrites nothing newer.  Age counts
    from when the request was sent.  An error after a possible freeze means
    one more try.
    What does not pass (denied, deleted, KMS refused) kills the entry at once,
    also in the background.  "Not found" is remembered for `NOT_FOUND_S`, no
    other error is; back-off is kept only while a stale value can be served.
    No lock is held while a source, a transform or a callback runs.

Threads
    Everything here is guarded by the cache's lock.  A load runs on the thread
    of the first caller; what needs more than one call is spread over up to
    `WORKERS` threads, which end with it.  One daemon thread refreshes; it is
    begun by the first hit that is due and then parks.

Time
    A caller waits no longer than the invocation lasts, less `RESERVE_S`.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
from collections import deque

from ..exceptions import (
    LambdaExtError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
)
from ..lifecycle import clock
from .cache import NEVER, Answer, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    from ..typing import Source
    from .cache import Cache, Slot
    from .keys import Key

    E = TypeVar("E", bound=LambdaExtError)
    Outcome = Entry | LambdaExtError

WORKERS = 4  # calls at a time, of one caller
DUE_FROM = 0.75  # of max_age: a refresh takes along whatever is this old ...
DUE_SPREAD = 0.10  # ... and is begun by a hit up to this much later
NOT_FOUND_S = 5.0  # a secret that is being created may be asked for soon
BACKOFF_S = 1.0  # doubled at each failure, of which half to all is waited
LONGEST_BACKOFF_S = 60.0
RESERVE_S = 0.1  # of the invocation, for doing something about a failure

FRESH, LOADED, STALE = "fresh", "loaded", "stale"

_log = logging.getLogger("lambda_ext")


class Want:
    """What a caller wants: a key, from where, and how old it may be."""

    __slots__ = ("key", "max_age", "max_stale", "source")

    def __init__(
        self,
        source: Source,
        key: Key,
        max_age: float | None = 300.0,
        max_stale: float | None = 3600.0,
    ) -> None:
        self.source = source
        self.key = key
        self.max_age = max_age  # None: for ever; 0: not at all
        self.max_stale = max_stale  # None: without limit; 0: not at all

    def tolerates(self, age: float) -> bool:
        """Say whether an entry of that *age* may serve when AWS cannot."""
        if not self.max_age or self.max_stale == 0:
            return False
        return self.max_stale is None or age < self.max_age + self.max_stale


class Flight:
    """One load of one key, under way."""

    __slots__ = (
        "abandoned",
        "background",
        "done",
        "generation",
        "key",
        "leader",
        "order",
        "outcome",
        "source",
        "told",
        "void",
    )

    def __init__(
        self, source: Source, key: Key, order: int, *, background: bool
    ) -> None:
        self.source = source
        self.key = key
        self.order = order
        self.background = background
        self.generation = clock.generation
        self.leader = threading.get_ident()
        self.outcome: Outcome | None = None
        self.done = threading.Event()
        self.void = False  # invalidated meanwhile: what it brings is not kept
        self.abandoned = False  # its leader was interrupted: ask again
        self.told = False  # that a stale value is served instead

    def takes(self, generation: int) -> bool:
        """
        Say whether a caller may board.

        Not after a possible freeze, and not its own leader: a signal handler
        that interrupts a load, or a source that asks for what it is loading,
        would wait for itself.
        """
        return self.generation == generation and self.leader != threading.get_ident()


class Loader:
    """Loads and refreshes what the cache lacks, by sources handed to it."""

    def __init__(
        self,
        cache: Cache,
        is_transient: Callable[[BaseException], bool],
        on_update: Callable[[list[tuple[Slot, bool]]], None] = lambda slots: None,
    ) -> None:
        self.cache = cache
        self.is_transient = is_transient
        self.on_update = on_update
        self._flights: dict[Key, Flight] = {}  # which callers may board
        self._active: set[Flight] = set()  # and those that nobody may any more
        self._orders = itertools.count(1)
        self._wake: threading.Event | None = None  # of the worker, once begun
        self.misses = 0  # reads that waited for a load
        self.loads = 0  # calls of a source for which somebody waited
        self.refreshes = 0  # calls of a source for which nobody did
        self.stale_served = 0  # reads that got a value older than they wished
        self.errors: dict[str, int] = {}  # by class, of calls and of their parts

    def get(
        self,
        wants: Sequence[Want],
        *,
        force: bool = False,
        timeout_s: float | None = None,
    ) -> list[tuple[Outcome, str]]:
        """
        Return an entry, or the error why there is none, for each of *wants*.

        Beside it stands how it was had: FRESH, LOADED or STALE.  With *force*
        nothing that is remembered serves.  A load may take *timeout_s*.
        """
        now = clock.now()
        generation = clock.generation
        found: dict[int, tuple[Outcome, str]] = {}
        boarded: list[tuple[int, Flight]] = []
        led: dict[Key, Flight] = {}
        with self.cache.lock:
            for at, want in enumerate(wants):
                slot = self.cache.slots.get(want.key)
                if slot is not None and not force:
                    remembered = self._remembered(slot, want, now)
                    if remembered is not None:
                        found[at] = remembered
                        continue
                flight = led.get(want.key) or self._flights.get(want.key)
                alone = force or want.max_age == 0
                if want.key not in led and (
                    flight is None or alone or not flight.takes(generation)
                ):
                    flight = led[want.key] = self._begin(want.source, want.key)
                assert flight is not None
                boarded.append((at, flight))
            self.misses += len(boarded)
        if led:
            self._fly([*led.values()], timeout_s)
        for at, flight in boarded:
            own = led.get(flight.key) is flight
            found[at] = self._landed(flight, wants[at], timeout_s, own=own, force=force)
        return [found[at] for at in range(len(wants))]

    def good_until(self, slot: Slot, entry: Entry, want: Want, now: float) -> float:
        """
        Return the house time until which hits need not come back to us.

        The lock is held.
        """
        if want.max_age == 0:
            return NEVER
        if want.max_age is None:
            return math.inf
        expires_at = entry.born_at + want.max_age
        due_at = self._due_at(slot, entry, want.max_age)
        if now < due_at:
            return due_at
        if slot.wanted or slot.key in self._flights:
            return expires_at  # the end of the refresh hides the view
        return min(expires_at, max(slot.retry_at, now))

    def invalidate(self, concerned: Callable[[Key], bool]) -> int:
        """Drop what is *concerned*; no load under way brings it back."""
        with self.cache.lock:
            for flight in self._active:
                if concerned(flight.key):
                    flight.void = True
                    if self._flights.get(flight.key) is flight:
                        del self._flights[flight.key]
            return self.cache.invalidate(concerned)

    def clear(self) -> None:
        """Drop everything; no load under way brings any of it back."""
        with self.cache.lock:
            for flight in self._active:
                flight.void = True
            self._flights.clear()
            self.cache.clear()

    def forked(self) -> None:
        """Begin anew in a forked child, which has none of our threads."""
        self.cache.forked()
        self._flights = {}
        self._active = set()
        self._wake = None
        self.cache.clear()

    def close(self) -> None:
        """Let the worker end."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.set()

    # What is remembered ------------------------------------------------------

    def _remembered(
        self, slot: Slot, want: Want, now: float
    ) -> tuple[Outcome, str] | None:
        entry = slot.entry
        if entry is None:
            if slot.missing is not None and want.max_age != 0:
                error, asked_at = slot.missing
                if now - asked_at < min(NOT_FOUND_S, want.max_age or math.inf):
                    return again(error), FRESH
            return None
        age = now - entry.born_at
        if want.max_age is None:
            return entry, FRESH
        if age < want.max_age:
            self._heed(slot, entry, want.max_age, now)
            return entry, FRESH
        if now < slot.retry_at and want.tolerates(age):
            self.stale_served += 1
            return entry, STALE
        return None

    def _due_at(self, slot: Slot, entry: Entry, max_age: float) -> float:
        return entry.born_at + max_age * (DUE_FROM + DUE_SPREAD * entry.jitter)

    def _heed(self, slot: Slot, entry: Entry, max_age: float, now: float) -> None:
        """Note that the entry is read, and have it refreshed if it is due."""
        slot.refresh_from = min(slot.refresh_from, entry.born_at + max_age * DUE_FROM)
        if (
            now >= self._due_at(slot, entry, max_age)
            and now >= slot.retry_at
            and not slot.wanted
            and slot.key not in self._flights
        ):
            slot.wanted = True
            self._wake_worker()

    # Loads -------------------------------------------------------------------

    def _begin(self, source: Source, key: Key, *, background: bool = False) -> Flight:
        flight = Flight(source, key, next(self._orders), background=background)
        self._flights[key] = flight
        self._active.add(flight)
        return flight

    def _fly(self, flights: list[Flight], timeout_s: float | None) -> None:
        """Load the keys of *flights*, in as few calls as their sources plan."""
        calls: deque[tuple[Source, list[Flight]]] = deque()
        try:
            for part in _by_scope(flights):
                calls.extend(self._planned(part))
            for _ in range(min(len(calls), WORKERS) - 1):
                if not _start("lambda_ext-load", lambda: self._work(calls, timeout_s)):
                    break
            self._work(calls, timeout_s)
        except BaseException:
            self._abandon([flight for _, part in calls for flight in part])
            calls.clear()
            raise

    def _planned(self, flights: list[Flight]) -> list[tuple[Source, list[Flight]]]:
        source = flights[0].source
        by_key = {flight.key: flight for flight in flights}
        try:
            calls = [
                (source, [by_key.pop(key) for key in part])
                for part in source.plan([*by_key])
            ]
        except Exception as exc:
            self._settle(flights, dict.fromkeys(by_key, _broken(source, exc)), 0.0)
            return []
        if by_key:
            self._settle([*by_key.values()], {}, 0.0)
        return calls

    def _work(
        self, calls: deque[tuple[Source, list[Flight]]], timeout_s: float | None
    ) -> None:
        while True:
            try:
                source, flights = calls.popleft()
            except IndexError:
                return
            try:
                self._call(source, flights, timeout_s)
            except BaseException:
                self._abandon(flights)
                raise

    def _call(
        self, source: Source, flights: list[Flight], timeout_s: float | None
    ) -> None:
        """Ask *source* once, or once more if a freeze spoilt it, and settle."""
        keys = [flight.key for flight in flights]
        background = flights[0].background
        generation = clock.generation
        sent_at = clock.now()
        outcomes = self._ask(source, keys, timeout_s, background=background)
        failed = [key for key in keys if not isinstance(outcomes.get(key), Answer)]
        if failed and (clock.sync() or clock.generation != generation):
            if failed == keys:
                sent_at = clock.now()
            outcomes.update(self._ask(source, failed, timeout_s, background=background))
        self._settle(flights, outcomes, sent_at)

    def _ask(
        self,
        source: Source,
        keys: list[Key],
        timeout_s: float | None,
        *,
        background: bool,
    ) -> dict[Key, Answer | LambdaExtError]:
        left_s = timeout_s if background else _left(timeout_s)
        if left_s is not None and left_s <= 0:
            return {key: _too_late(key, source.name) for key in keys}
        with self.cache.lock:
            if background:
                self.refreshes += 1
            else:
                self.loads += 1
        try:
            return dict(source.fetch(keys, left_s))
        except LambdaExtError as exc:
            return dict.fromkeys(keys, exc)
        except Exception as exc:
            return dict.fromkeys(keys, _broken(source, exc))

    def _settle(
        self,
        flights: list[Flight],
        outcomes: Mapping[Key, Answer | LambdaExtError],
        sent_at: float,
    ) -> None:
        """Keep what was answered, and tell those who wait."""
        now = clock.now()
        jitter = _random()
        taken: list[tuple[Slot, bool]] = []
        asked = {flight.key for flight in flights}
        errors: dict[int, LambdaExtError] = {}
        with self.cache.lock:
            for flight in flights:
                result = outcomes.get(flight.key) or _unanswered(flight)
                if isinstance(result, Answer):
                    entry = Entry(result, sent_at, flight.order, jitter)
                    flight.outcome = entry
                    if not flight.void:
                        taken += self.cache.put(flight.key, flight.source, entry)
                else:
                    flight.outcome = _named(result, flight.key.label)
                    if id(result) not in errors:
                        errors[id(result)] = result
                        name = type(result).__name__
                        self.errors[name] = self.errors.get(name, 0) + 1
                    if not flight.void:
                        self._failed(flight, result, now)
                self._end(flight)
            void = any(flight.void for flight in flights)
            for key, answer in outcomes.items():  # what came along unasked
                if key not in asked and not void and isinstance(answer, Answer):
                    entry = Entry(answer, sent_at, flights[0].order, jitter)
                    taken += self.cache.put(key, flights[0].source, entry)
        for flight in flights:
            flight.done.set()
        if taken:
            self.on_update(taken)

    def _failed(self, flight: Flight, error: LambdaExtError, now: float) -> None:
        """Draw the consequences of *error* for the entry; the lock is held."""
        key = flight.key
        slot = self.cache.slots.get(key)
        entry = None if slot is None else slot.entry
        if entry is not None and entry.order > flight.order:
            return  # what it failed to replace is newer than itself
        if self.is_transient(error):
            if slot is None or entry is None:
                return  # nothing to serve: the next caller tries at once
            slot.failures += 1
            pause_s = min(BACKOFF_S * 2.0 ** (slot.failures - 1), LONGEST_BACKOFF_S)
            slot.retry_at = now + pause_s * (0.5 + 0.5 * _random())
            slot.wanted = False
            slot.hide()
            if flight.background:
                _log.warning(
                    "lambda_ext.refresh_failed key=%s source=%s error=%s code=%s",
                    key.label, flight.source.name, type(error).__name__,
                    getattr(error, "code", ""),
                )  # fmt: skip
            return
        self.cache.kill(key, flight.order)
        if isinstance(error, NotFoundError):
            slot = self.cache.slot(key, flight.source)
            slot.missing = (error, now)
        if flight.background:
            _log.warning(
                "lambda_ext.entry_killed key=%s source=%s error=%s code=%s",
                key.label, flight.source.name, type(error).__name__,
                getattr(error, "code", ""),
            )  # fmt: skip

    def _end(self, flight: Flight) -> None:
        self._active.discard(flight)
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _abandon(self, flights: list[Flight]) -> None:
        """Let those who wait ask for themselves: the leader was interrupted."""
        with self.cache.lock:
            for flight in flights:
                if not flight.done.is_set():
                    flight.abandoned = True
                    self._end(flight)
        for flight in flights:
            flight.done.set()

    def _landed(
        self,
        flight: Flight,
        want: Want,
        timeout_s: float | None,
        *,
        own: bool,
        force: bool,
    ) -> tuple[Outcome, str]:
        """Wait for *flight* and return what it brings to *want*."""
        left_s = _left(timeout_s)
        flight.done.wait(None if left_s is None else max(left_s, 0.0))
        if flight.abandoned:
            return self.get([want], force=force, timeout_s=timeout_s)[0]
        outcome = flight.outcome
        if outcome is None:
            outcome = _too_late(want.key, want.source.name)
        if isinstance(outcome, Entry):
            return outcome, LOADED
        if not force and self.is_transient(outcome):
            stale = self._stale(flight, want, outcome)
            if stale is not None:
                return stale, STALE
        return (outcome if own else again(outcome)), LOADED

    def _stale(self, flight: Flight, want: Want, error: LambdaExtError) -> Entry | None:
        """Return the old entry if it may serve, after *error*, counted."""
        now = clock.now()
        with self.cache.lock:
            slot = self.cache.slots.get(want.key)
            entry = None if slot is None else slot.entry
            if entry is None or not want.tolerates(now - entry.born_at):
                return None
            self.stale_served += 1
            told, flight.told = flight.told, True
        if not told:
            _log.warning(
                "lambda_ext.stale_served key=%s source=%s age_s=%.0f error=%s code=%s",
                want.key.label, want.source.name, now - entry.born_at,
                type(error).__name__, getattr(error, "code", ""),
            )  # fmt: skip
        return entry

    # Refreshes ---------------------------------------------------------------

    def _wake_worker(self) -> None:
        """Have the worker look for what is due; the lock is held."""
        wake = self._wake
        if wake is None:
            wake = threading.Event()
            if not _start("lambda_ext-refresh", lambda: self._refresh(wake)):
                return  # no threads any more: the interpreter is ending
            self._wake = wake
        wake.set()

    def _refresh(self, wake: threading.Event) -> None:
        """Refresh what is due whenever woken, until this is not our event."""
        while True:
            wake.wait()
            wake.clear()
            if self._wake is not wake:
                return
            try:
                self.refresh_due()
            except Exception:  # a listener's, or a bug: the worker lives on
                _log.warning("lambda_ext.refresh_broken", exc_info=True)

    def refresh_due(self) -> None:
        """Refresh, in one batch, whatever has been read and is due soon."""
        now = clock.now()
        generation = clock.generation
        with self.cache.lock:
            due = []
            for slot in self.cache.slots.values():
                if not slot.wanted and not (
                    slot.refresh_from <= now and slot.retry_at <= now
                ):
                    continue
                slot.wanted = False
                flight = self._flights.get(slot.key)
                if flight is None or flight.generation != generation:
                    due.append(self._begin(slot.source, slot.key, background=True))
        self._fly(due, None)


def again(error: E) -> E:
    """Return an exception of the caller's own, chained to *error*."""
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error
    return copy


def each(
    keys: Iterable[Key], ask: Callable[[Key], Answer | LambdaExtError]
) -> dict[Key, Answer | LambdaExtError]:
    """Ask for *keys* one by one, up to `WORKERS` at a time; for sources."""
    queue = deque(keys)
    found: dict[Key, Answer | LambdaExtError] = {}

    def work() -> None:
        while True:
            try:
                key = queue.popleft()
            except IndexError:
                return
            try:
                found[key] = ask(key)
            except LambdaExtError as exc:
                found[key] = exc

    threads = [
        threading.Thread(target=work, name="lambda_ext-load", daemon=True)
        for _ in range(min(len(queue), WORKERS) - 1)
    ]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    return found


def instant(left_s: float | None) -> float | None:
    """Return when *left_s* seconds will be over; None for never."""
    return None if left_s is None else clock.monotonic() + left_s


def until(ends_at: float | None) -> float | None:
    """Return the seconds from now to *ends_at*; None without limit."""
    return None if ends_at is None else ends_at - clock.monotonic()


def _named(error: LambdaExtError, label: str) -> LambdaExtError:
    """Return *error*, or what it means for this one key of a batch."""
    if not isinstance(error, SourceError) or error.key == label:
        return error
    named = again(error)
    named.key = label
    return named


def _by_scope(flights: Iterable[Flight]) -> Iterable[list[Flight]]:
    groups: dict[object, list[Flight]] = {}
    for flight in flights:
        groups.setdefault(flight.key.scope, []).append(flight)
    return groups.values()


def _left(timeout_s: float | None) -> float | None:
    """Return the seconds that a caller may wait; None without limit."""
    remaining_s = clock.remaining()
    if remaining_s is None:
        return timeout_s
    remaining_s -= RESERVE_S
    return remaining_s if timeout_s is None else min(timeout_s, remaining_s)


def _random() -> float:
    # Not `random`: it costs 3 ms to import, and all that are restored from one
    # snapshot would draw the same numbers.
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _start(name: str, body: Callable[[], object]) -> bool:
    """Run *body* on a daemon thread; False if there can be none."""
    try:
        threading.Thread(target=body, name=name, daemon=True).start()
    except RuntimeError:
        return False
    return True


def _too_late(key: Key, source: str) -> SourceTimeoutError:
    msg = f"{key.label!r} did not come in the time that was left"
    return SourceTimeoutError(msg, key=key.label, source=source, transient=True)


def _unanswered(flight: Flight) -> SourceError:
    msg = f"{flight.source.name} gave no answer for {flight.key.label!r}"
    return SourceError(msg, key=flight.key.label, source=flight.source.name)


def _broken(source: Source, exc: Exception) -> SourceError:
    """Return the error for a source that raised what sources must not."""
    msg = f"the source {source.name} raised {type(exc).__name__}"
    error = SourceError(msg, source=source.name)
    error.__cause__ = exc
    return error
