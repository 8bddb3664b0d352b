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
    also in the background.  "Not found" is remembered for seconds, no other
    error is; back-off is kept only while a stale value can be served.
    No lock is held while a source, a transform or a callback runs.

Threads
    Everything here is guarded by the cache's lock.  A load runs on the thread
    of the first caller; what needs more than one call is spread over a few
    threads, which end with it.  One daemon thread refreshes; it is begun by
    the first hit that is due and then parks.

Time
    A caller waits no longer than the invocation lasts, less a reserve.
"""

from __future__ import annotations

import itertools
import math

from ..exceptions import LambdaExtError, NotFoundError
from ..lifecycle import clock
from . import fanout, freshness
from .cache import Answer, Entry
from .dispatcher import Dispatcher
from .flights import Flight, again, named, tell, too_late, unanswered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..typing import Source
    from .cache import Cache, Slot
    from .flights import Outcome
    from .freshness import Want
    from .keys import Key

FRESH, LOADED, STALE = "fresh", "loaded", "stale"


class Loader:
    """Loads and refreshes what the cache lacks, by sources handed to it."""

    def __init__(
        self,
        cache: Cache,
        is_transient: Callable[[BaseException], bool],
        on_update: Callable[[list[Slot]], None] = lambda slots: None,
    ) -> None:
        self.cache = cache
        self.is_transient = is_transient
        self.on_update = on_update
        self._flights: dict[Key, Flight] = {}  # which callers may board
        self._active: set[Flight] = set()  # and those that nobody may any more
        self._orders = itertools.count(1)
        self.worker = fanout.Worker("lambda_ext-refresh", self.refresh_due)
        self.calls = Dispatcher(self)
        self.misses = 0  # reads that waited for a load
        self.stale_served = 0  # reads that got a value older than they wished
        self.errors: dict[str, int] = {}  # by class, of calls and of their parts

    def get(
        self,
        wants: Sequence[Want],
        *,
        newer_than: float = 0,
        timeout_s: float | None = None,
        ahead: bool = False,
    ) -> list[tuple[Outcome, str]]:
        """
        Return an entry, or the error why there is none, for each of *wants*.

        Beside it stands how it was had: FRESH, LOADED or STALE.  With
        *newer_than* only loads begun after that one will do, whatever is
        remembered; infinity means a load of one's own.  A load may take
        *timeout_s*.  What is loaded *ahead* counts as read when it is read.
        """
        now = clock.now()
        generation = clock.generation
        found: dict[int, tuple[Outcome, str]] = {}
        boarded: list[tuple[int, Flight]] = []
        led: dict[Key, Flight] = {}
        with self.cache.lock:
            for at, want in enumerate(wants):
                slot = self.cache.slots.get(want.key)
                if slot is not None:
                    remembered = self._remembered(slot, want, now, newer_than)
                    if remembered is not None:
                        found[at] = remembered
                        continue
                flight = led.get(want.key) or self._flights.get(want.key)
                floor = math.inf if want.max_age == 0 else newer_than
                if want.key not in led and (
                    flight is None
                    or flight.order <= floor
                    or not flight.takes(generation)
                ):
                    flight = led[want.key] = self._begin(want.source, want.key)
                assert flight is not None
                boarded.append((at, flight))
            self.misses += len(boarded)
        if led:
            self.calls.fly([*led.values()], timeout_s)
        for at, flight in boarded:
            own = led.get(flight.key) is flight
            found[at] = self._landed(flight, wants[at], newer_than, timeout_s, own=own)
        if not ahead:
            self._heed(wants, found, now)
        return [found[at] for at in range(len(wants))]

    def holds(self, want: Want) -> bool:
        """Say whether *want* would be served from memory."""
        now = clock.now()
        with self.cache.lock:
            slot = self.cache.slots.get(want.key)
            entry = None if slot is None else slot.entry
            return entry is not None and want.accepts(now - entry.born_at)

    def has_newer(self, key: Key, than: int) -> bool:
        """Say whether what is in memory was loaded after load *than*."""
        with self.cache.lock:
            slot = self.cache.slots.get(key)
            entry = None if slot is None else slot.entry
            return entry is not None and entry.order > than

    def good_until(self, slot: Slot, entry: Entry, want: Want, now: float) -> float:
        """
        Return the house time until which hits need not come back to us.

        The lock is held.
        """
        refreshing = slot.wanted or self._is_under_way(slot.key)
        return freshness.good_until(slot, entry, want, now, refreshing=refreshing)

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
        self.worker.forked()
        self.cache.clear()

    def close(self) -> None:
        """Let the worker end."""
        self.worker.close()

    # What is remembered ------------------------------------------------------

    def _remembered(
        self, slot: Slot, want: Want, now: float, newer_than: float
    ) -> tuple[Outcome, str] | None:
        entry = slot.entry
        if newer_than:
            if entry is not None and entry.order > newer_than:
                return entry, FRESH
            return None
        if entry is None:
            if slot.missing is not None:
                error, asked_at = slot.missing
                if want.remembers(now - asked_at):
                    return again(error), FRESH
            return None
        age = now - entry.born_at
        if want.accepts(age):
            return entry, FRESH
        if now < slot.retry_at and want.tolerates(age):
            self.stale_served += 1
            return entry, STALE
        return None

    def _heed(
        self,
        wants: Sequence[Want],
        found: Mapping[int, tuple[Outcome, str]],
        now: float,
    ) -> None:
        """Note what was read, and have refreshed what is due."""
        with self.cache.lock:
            for at, want in enumerate(wants):
                entry = found[at][0]
                slot = self.cache.slots.get(want.key)
                if not want.max_age or slot is None or slot.entry is not entry:
                    continue
                since = freshness.due_from(entry, want.max_age)
                slot.refresh_from = min(slot.refresh_from, since)
                if (
                    now >= freshness.due_at(entry, want.max_age)
                    and now >= slot.retry_at
                    and not slot.wanted
                    and not self._is_under_way(slot.key)
                ):
                    slot.wanted = True
                    self.worker.wake()

    # Loads -------------------------------------------------------------------

    def _begin(self, source: Source, key: Key, *, background: bool = False) -> Flight:
        flight = Flight(source, key, next(self._orders), background=background)
        self._flights[key] = flight
        self._active.add(flight)
        return flight

    def settle(
        self,
        flights: list[Flight],
        outcomes: Mapping[Key, Answer | LambdaExtError],
        sent_at: float,
    ) -> None:
        """Keep what was answered, and tell those who wait."""
        now = clock.now()
        landed = next(self._orders)
        jitter = fanout.random()
        taken: list[Slot] = []
        asked = {flight.key for flight in flights}
        errors: dict[int, LambdaExtError] = {}
        events: list[tuple[str, Flight, LambdaExtError]] = []
        with self.cache.lock:
            for flight in flights:
                result = outcomes.get(flight.key)
                if isinstance(result, Answer):
                    entry = Entry(result, sent_at, flight.order, jitter)
                    entry.landed = landed
                    flight.outcome = entry
                    if not flight.void:
                        taken += self.cache.put(flight.key, flight.source, entry)
                        # Whoever waits shall not get less than is remembered.
                        slot = self.cache.slots.get(flight.key)
                        flight.outcome = (slot and slot.entry) or entry
                else:
                    if not isinstance(result, LambdaExtError):
                        result = unanswered(flight)
                    flight.outcome = named(result, flight.key.label)
                    if id(result) not in errors:
                        errors[id(result)] = result
                        name = type(result).__name__
                        self.errors[name] = self.errors.get(name, 0) + 1
                    if not flight.void:
                        event = self._failed(flight, result, now)
                        if event and flight.background:
                            events.append((event, flight, result))
                self._end(flight)
            void = any(flight.void for flight in flights)
            for key, answer in outcomes.items():  # what came along unasked
                if key not in asked and not void and isinstance(answer, Answer):
                    order = flights[0].order
                    entry = Entry(answer, sent_at, order, jitter)
                    entry.landed = landed
                    taken += self.cache.put(key, flights[0].source, entry)
        for flight in flights:
            flight.done.set()
        for event, flight, error in events:
            tell(event, flight.key, flight.source, error)
        if taken:
            self.on_update(taken)

    def _failed(self, flight: Flight, error: LambdaExtError, now: float) -> str:
        """
        Draw the consequences of *error*, and return what to call them in the log.

        The lock is held.
        """
        slot = self.cache.slots.get(flight.key)
        entry = None if slot is None else slot.entry
        if entry is not None and entry.order > flight.order:
            return ""  # what it failed to replace is newer than itself
        if self.is_transient(error):
            if slot is None or entry is None:
                return ""  # nothing to serve: the next caller tries at once
            slot.failures += 1
            slot.retry_at = now + freshness.pause(slot.failures, fanout.random())
            slot.wanted = False
            slot.hide()
            return "refresh_failed"
        self.cache.kill(flight.key, flight.order)
        if isinstance(error, NotFoundError):
            slot = self.cache.slot(flight.key, flight.source)
            slot.missing = (again(error, chained=False), now)
        return "entry_killed"

    def _is_under_way(self, key: Key) -> bool:
        """Say whether *key* is being loaded, and not since before a freeze."""
        flight = self._flights.get(key)
        return flight is not None and flight.generation == clock.generation

    def _end(self, flight: Flight) -> None:
        self._active.discard(flight)
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def abandon(self, flights: list[Flight]) -> None:
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
        newer_than: float,
        timeout_s: float | None,
        *,
        own: bool,
    ) -> tuple[Outcome, str]:
        """Wait for *flight* and return what it brings to *want*."""
        left_s = fanout.left(timeout_s)
        flight.done.wait(None if left_s is None else max(left_s, 0.0))
        if flight.abandoned:
            return self.get([want], newer_than=newer_than, timeout_s=timeout_s)[0]
        outcome = flight.outcome
        if outcome is None:
            outcome = too_late(want.key, want.source.name)
        if isinstance(outcome, Entry):
            return outcome, LOADED
        if not newer_than and self.is_transient(outcome):
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
            tell("stale_served", want.key, want.source, error)
        return entry

    # Refreshes ---------------------------------------------------------------

    def refresh_due(self) -> None:
        """Refresh, in one batch, whatever has been read and is due soon."""
        now = clock.now()
        with self.cache.lock:
            due = []
            for slot in self.cache.slots.values():
                if not slot.wanted and not (
                    slot.refresh_from <= now and slot.retry_at <= now
                ):
                    continue
                slot.wanted = False
                if not self._is_under_way(slot.key):
                    due.append(self._begin(slot.source, slot.key, background=True))
        self.calls.fly(due, None)
