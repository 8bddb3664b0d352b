"""
A load, and a refresh: one per key, many keys per call.

    fresh   age < max_age            served; past ~80 % of it a hit wakes the
                                     worker, for which no caller waits
    stale   age ≥ max_age            one load, its callers wait; the old value
                                     serves only if that fails for a passing
                                     reason, for up to max_stale seconds
    dead    none, killed, too old    one load, its callers wait

Guarantees
    One load per key at a time: the other callers wait for it, and each
    raises an exception of its own, chained to the one that there was.
    A load that was begun before an invalidation, or before a possible freeze,
    blocks no later caller and overwrites nothing newer.  Age counts
    from when the request was sent.  An error after a possible freeze means
    one more try.
    A read that finds its value expired has loaded, in the same calls, what
    else was read since it was loaded, or is declared, and is due or expired.
    A caller waits only for the calls that carry what it asked for.
    What does not pass (denied, deleted, KMS refused) kills the entry at once,
    also in the background.  "Not found" is remembered for seconds, no other
    error is; back-off is kept only while a stale value can be served.
    No lock is held while a source, a transform or a callback runs.

Threads
    Every write is a `Cache.change`.  A load runs on the thread of the first
    caller, see `calls`; on another one where a signal handler of the user's
    may raise, so that its exception reaches the caller as it is.  One daemon
    thread refreshes; the first hit that is due starts it, and it waits between two
    refreshes.

Time
    A caller waits no longer than the invocation lasts, less a reserve.
"""

from __future__ import annotations

import itertools
import math

from .. import disclosure
from ..answer import Answer
from ..exceptions import LambdaExtError, NotFoundError, SourceError
from ..lifecycle import clock, real_threads
from ..lifecycle.process import by_signal_handler
from . import calls
from .cache import (
    FRESH,
    LOADED,
    STALE,
    Entry,
    Load,
    due_at,
    due_from,
    good_until,
    pause,
)
from .calls import (
    Batch,
    by_scope,
    copied,
    log_failure,
    named,
    source_error,
    too_late,
    unanswered,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    from ..typing import Source
    from .cache import Cache, Slot, Want
    from .calls import Call
    from .keys import Key

    R = TypeVar("R")
    Outcome = Entry | LambdaExtError
    Found = dict[int, tuple[Outcome, str]]


class Loader:
    """Loads and refreshes what the cache lacks, by sources handed to it."""

    def __init__(
        self,
        cache: Cache,
        is_transient: Callable[[BaseException], bool],
        on_update: Callable[[list[Slot]], None] = lambda slots: None,
        declared: Callable[[], Iterable[Want]] = lambda: (),
    ) -> None:
        self.cache = cache
        self.is_transient = is_transient
        self.on_update = on_update
        self.declared = declared
        self._sequence = itertools.count(1)
        self.worker = calls.Worker(self.refresh_due)
        self.loads = 0  # calls of a source for which a caller waits
        self.refreshes = 0  # calls of a source for which none does
        self.misses = 0  # reads that waited for a load
        self.stale_served = 0  # reads that got a value older than they wished
        self.errors: dict[str, int] = {}  # by class, of calls and of their parts
        # Called after each call of a source, with the seconds that it took.
        self.observe: Callable[..., object] | None = None

    def get(
        self,
        wants: Sequence[Want],
        *,
        along: Sequence[Want] = (),
        newer_than: float = 0,
        ends_at: float | None = None,
    ) -> list[tuple[Outcome, str]]:
        """
        Return an entry, or the error why there is none, for each of *wants*.

        With each comes how the read was answered: FRESH, LOADED or STALE.  With
        *newer_than*, the sequence number of a load, only loads begun after that one
        are accepted; infinity means that this call begins a load.  The caller waits
        until the run time *ends_at*, and does not wait for what is loaded *along*.
        """
        now = clock.now()
        found: Found = {}
        joined: list[tuple[int, Load]] = []
        batch = Batch(ends_at)
        try:
            with batch.held:
                # In a signal handler that found this thread holding the lock no
                # other thread could settle a load: this one makes it alone.
                held = self.cache.lock._is_owned()
                if not held and self.cache.change(
                    self._enter, wants, along, newer_than, now, batch, found, joined
                ):
                    if batch.loads:
                        self._dispatch(batch)
                else:  # in the middle of a change that this thread is making
                    self._enter_alone(wants, newer_than, now, batch, found, joined)
                    self._plan(batch)
                    self._work(batch, any_call=True)
        except BaseException:
            self._abandon(batch.loads, real_threads.get_ident())
            raise
        for at, load in joined:
            found[at] = self._outcome(load, wants[at], newer_than, batch)
        self.cache.change(self._note_read, wants, found, now)
        return [found[at] for at in range(len(wants))]

    def load_early(
        self, wants: Iterable[Want], timeout_s: float, patience_s: float
    ) -> list[Key]:
        """
        Load *wants* before they are read; return the keys that were late.

        A load may take *timeout_s* seconds, of which the caller waits for
        *patience_s* at most.  An error is told to the first reader.
        """
        batch = Batch(calls.ends_at(timeout_s))
        waits_until = calls.ends_at(patience_s)
        try:
            with batch.held:
                self.cache.change(self._enter_early, wants, batch)
                if batch.loads:
                    self._dispatch(batch, own=False)
        except BaseException:
            self._abandon(batch.loads, real_threads.get_ident())
            raise
        for load in batch.loads:
            load.wait(calls.remaining(waits_until))
        return [load.key for load in batch.loads if not load.is_over()]

    def holds(self, want: Want) -> bool:
        """Say whether *want* would be served from memory."""
        now = clock.now()
        with self.cache.lock:
            slot = self.cache.slots.get(want.key)
            entry = None if slot is None else slot.entry
            return entry is not None and want.accepts(now - entry.born_at)

    def good_until(self, slot: Slot, entry: Entry, want: Want, now: float) -> float:
        """
        Return the house time until which hits may use *entry*; call it in a change.
        """
        refreshing = slot.wanted or self._is_under_way(slot)
        return good_until(slot, entry, want, now, refreshing=refreshing)

    def invalidate(self, concerned: Callable[[Key], bool]) -> int:
        """Drop what is *concerned*; no load under way brings it back."""

        def drop() -> int:
            return self.cache.invalidate(concerned, next(self._sequence))

        dropped = self.cache.change(drop)
        if dropped is None:
            self.cache.change_later(drop)
        return dropped or 0

    def clear(self) -> None:
        """Drop everything; no load under way brings any of it back."""

        def drop() -> bool:
            self.cache.clear()
            return True

        if self.cache.change(drop) is None:
            self.cache.change_later(drop)

    def forked(self) -> None:
        """Begin anew in a forked child, which has none of our threads."""
        self.cache.forked()
        self.worker.forked()
        self.clear()

    def close(self) -> None:
        """Let the worker end."""
        self.worker.close()

    # What is remembered, and what must be loaded --------------------------------

    def _enter(
        self,
        wants: Sequence[Want],
        along: Sequence[Want],
        newer_than: float,
        now: float,
        batch: Batch,
        found: Found,
        joined: list[tuple[int, Load]],
    ) -> bool:
        """Find each of *wants* in memory, or a load of it, or begin one."""
        generation = clock.generation
        begun: dict[Key, Load] = {}
        expired = False
        for at, want in enumerate(wants):
            slot = self.cache.slots.get(want.key)
            if slot is not None:
                remembered = self._remembered(slot, want, now, newer_than)
                if remembered is not None:
                    found[at] = remembered
                    continue
            load = begun.get(want.key)
            if load is None:
                load = None if slot is None else slot.load
                floor = math.inf if want.max_age == 0 else newer_than
                if load is None or load.sequence <= floor or not load.takes(generation):
                    had = slot is not None and slot.entry is not None
                    expired |= had and not newer_than and want.max_age != 0
                    load = begun[want.key] = self._begin(want.source, want.key, batch)
                    load.remembers = want.keeps_errors
            joined.append((at, load))
        self.misses += len(joined)
        for want in along:
            self._begin_early(want, batch, background=True)
        if expired:
            self._take_along(batch, now)
        return True

    def _enter_alone(
        self,
        wants: Sequence[Want],
        newer_than: float,
        now: float,
        batch: Batch,
        found: Found,
        joined: list[tuple[int, Load]],
    ) -> None:
        """Do as `_enter` without writing; what is loaded is not kept."""
        for at, want in enumerate(wants):
            slot = self.cache.slots.get(want.key)
            entry = None if slot is None else slot.entry
            if entry is not None and (
                entry.sequence > newer_than
                if newer_than
                else want.accepts(now - entry.born_at)
            ):
                found[at] = entry, FRESH
                continue
            load = Load(want.source, want.key, next(self._sequence), batch)
            batch.alone = True
            batch.loads.append(load)
            joined.append((at, load))

    def _enter_early(self, wants: Iterable[Want], batch: Batch) -> bool:
        for want in wants:
            self._begin_early(want, batch, background=False)
        return True

    def _begin_early(self, want: Want, batch: Batch, *, background: bool) -> None:
        slot = self.cache.slots.get(want.key)
        if slot is not None and (
            slot.entry is not None
            or slot.missing is not None
            or self._is_under_way(slot)
        ):
            return
        self._begin(want.source, want.key, batch, background=background, early=True)

    def _begin(
        self,
        source: Source,
        key: Key,
        batch: Batch,
        *,
        background: bool = False,
        early: bool = False,
    ) -> Load:
        sequence = next(self._sequence)
        load = Load(source, key, sequence, batch, background=background, early=early)
        slot = load.slot = self.cache.slot(key, source)
        batch.loads.append(load)  # first: a reader that leaves early abandons these
        slot.load = load
        return load

    def _take_along(self, batch: Batch, now: float) -> None:
        """Begin to load what is due, since AWS is being asked anyway."""
        for slot in self._due(now):
            slot.wanted = False
            source = slot.source
            if source is not None:
                self._begin(source, slot.key, batch, background=True)
        for want in self.declared():
            if not want.max_age:
                continue
            declared = self.cache.slots.get(want.key)
            if (
                declared is not None
                and declared.entry is not None
                and due_from(declared.entry, want.max_age) <= now
                and declared.retry_at <= now
                and not self._is_under_way(declared)
            ):
                self._begin(want.source, want.key, batch, background=True)

    def _due(self, now: float) -> list[Slot]:
        """Return what was read since it was loaded, and is due or expired."""
        return [
            slot
            for slot in [*self.cache.slots.values()]
            if (slot.wanted or (slot.refresh_from <= now and slot.retry_at <= now))
            and not self._is_under_way(slot)
        ]

    def _remembered(
        self, slot: Slot, want: Want, now: float, newer_than: float
    ) -> tuple[Outcome, str] | None:
        entry = slot.entry
        if newer_than:
            if entry is not None and entry.sequence > newer_than:
                return entry, FRESH
            return None
        if entry is None:
            for remembered in (slot.missing, slot.init_error):
                if remembered is not None:
                    error, asked_at = remembered
                    slot.init_error = None
                    if want.remembers(now - asked_at):
                        return copied(error), FRESH
            return None
        age = now - entry.born_at
        if want.accepts(age):
            return entry, FRESH
        if now < slot.retry_at and want.tolerates(age):
            self.stale_served += 1
            return entry, STALE
        return None

    def _note_read(self, wants: Sequence[Want], found: Found, now: float) -> None:
        """Note what was read, and have refreshed what is due."""
        for at, want in enumerate(wants):
            entry = found[at][0]
            slot = self.cache.slots.get(want.key)
            if not want.max_age or slot is None or slot.entry is not entry:
                continue
            assert isinstance(entry, Entry)
            since = due_from(entry, want.max_age)
            slot.refresh_from = min(slot.refresh_from, since)
            if (
                now >= due_at(entry, want.max_age)
                and now >= slot.retry_at
                and not slot.wanted
                and not self._is_under_way(slot)
            ):
                slot.source = want.source  # the last one may be gone
                slot.wanted = True
                self.worker.wake()

    def _is_under_way(self, slot: Slot) -> bool:
        """Say whether it is being loaded, and not since before a freeze."""
        load = slot.load
        return load is not None and load.generation == clock.generation

    # Calls -----------------------------------------------------------------------

    def _dispatch(self, batch: Batch, *, own: bool = True) -> None:
        """Make the calls that *batch* needs, one of them on this thread if *own*."""
        if own and calls.may_be_interrupted():
            # On this thread an `except` of a source, or of boto3, might catch what the
            # user's signal handler raises.

            def carry_out() -> None:
                self._plan(batch)
                self._help(batch)

            batch.start(carry_out, 1)
            if batch.started:  # it may have ended by now
                return
        self._plan(batch)
        more = batch.calls() - own
        alive = more > 0 and batch.start(lambda: self._help(batch), more)
        if own or not alive:
            self._work(batch, any_call=False)

    def _plan(self, batch: Batch) -> None:
        """Divide the loads of *batch* into calls, as their sources wish."""
        for loads in by_scope(batch.loads):
            source = loads[0].source
            by_key = {load.key: load for load in loads}
            try:
                parts = [
                    [by_key.pop(key) for key in part] for part in source.plan([*by_key])
                ]
            except Exception as exc:
                if by_signal_handler(exc):
                    raise
                error = source_error(source, exc, [load.key for load in loads])
                self._settle(loads, dict.fromkeys((e.key for e in loads), error), 0.0)
                continue
            for part in filter(None, parts):  # an empty call asks for nothing
                batch.add(source, part)
            if by_key:
                self._settle([*by_key.values()], {}, 0.0)

    def _help(self, batch: Batch) -> None:
        """Make the calls that are queued, on a thread of its own."""
        batch.start(lambda: self._help(batch), batch.calls() - 1)
        self._work(batch, any_call=True)

    def _work(self, batch: Batch, *, any_call: bool) -> None:
        """Make the calls that are queued, those that are wanted or *any_call*."""
        while True:
            call = batch.claim(any_call=any_call)
            if call is None:
                break
            self._make(call, batch)
        if batch.others and not batch.start(lambda: self._help(batch), batch.calls()):
            left = [load for call in batch.others for load in call.loads]
            self._abandon(left, real_threads.get_ident())

    def _make(self, call: Call, batch: Batch) -> None:
        """Make *call*, once more if it failed after a freeze, and settle its loads."""
        try:
            self._make_and_settle(call, call.loads, batch)
        except BaseException:
            self._abandon(call.loads, real_threads.get_ident())
            raise

    def _make_and_settle(self, call: Call, loads: list[Load], batch: Batch) -> None:
        for load in loads:
            load.thread = real_threads.get_ident()
        keys = [load.key for load in loads]
        generation = clock.generation
        sent_at = clock.now()
        outcomes = self._ask(call, keys, batch.ends_at)
        failed = [key for key in keys if not isinstance(outcomes.get(key), Answer)]
        thawed = failed and (clock.sync() or clock.generation != generation)
        if thawed and disclosure.attribute(call.source, "repeats", True):
            if failed == keys:
                sent_at = clock.now()
            outcomes.update(self._ask(call, failed, batch.ends_at))
        answered = [load for load in loads if load.key in outcomes]
        if len(loads) == 1:
            answered = loads
        if answered:
            self._settle(answered, outcomes, sent_at)
        for load in loads:
            if load not in answered:
                batch.add(call.source, [load])
        if len(answered) < len(loads):
            batch.start(lambda: self._help(batch), batch.calls() - 1)

    def _ask(
        self, call: Call, keys: list[Key], ends_at: float | None
    ) -> dict[Key, Answer | LambdaExtError]:
        source = call.source
        left_s = calls.remaining(ends_at) if call.wanted else None
        if left_s is not None and left_s <= 0:
            return {key: too_late(key, source) for key in keys}
        if call.wanted:
            self.loads += 1
        else:
            self.refreshes += 1
        begun_at = clock.run_time()
        try:
            return dict(source.fetch(keys, left_s))
        except LambdaExtError as exc:
            return dict.fromkeys(keys, exc)
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            return dict.fromkeys(keys, source_error(source, exc, keys))
        except BaseException as exc:  # a cancellation of asyncio's, or sys.exit()
            if call.wanted or by_signal_handler(exc):
                raise
            return dict.fromkeys(keys, source_error(source, exc, keys))
        finally:
            observe = self.observe
            if observe is not None:
                observe(clock.run_time() - begun_at, waited=call.wanted)

    # Outcomes --------------------------------------------------------------------

    def _settle(
        self,
        loads: list[Load],
        outcomes: Mapping[Key, Answer | LambdaExtError],
        sent_at: float,
    ) -> None:
        """Keep what was answered, and release the readers that wait for it."""
        jitter = calls.random()
        taken: list[Slot] = []
        events: list[tuple[str, Load, LambdaExtError]] = []
        if not self.cache.change(
            self._keep, loads, outcomes, sent_at, jitter, taken, events
        ):
            for load in loads:  # begun in the middle of a change: kept nowhere
                result = outcomes.get(load.key)
                if isinstance(result, Answer):
                    load.outcome = Entry(result, sent_at, load.sequence, jitter)
                else:
                    error = result or unanswered(load.key, load.source)
                    load.outcome = named(error, load.key.label)
        for load in loads:
            if load.early and isinstance(load.outcome, LambdaExtError):
                disclosure.forget_variables(load.outcome)  # it is kept for a reader
            load.wake()
        for event, load, error in events:
            log_failure(event, load.key, load.source, error)
        try:
            if taken:
                self.on_update(taken)
        finally:
            for load in loads:
                load.finished = True
                load.wake()

    def _keep(
        self,
        loads: list[Load],
        outcomes: Mapping[Key, Answer | LambdaExtError],
        sent_at: float,
        jitter: float,
        taken: list[Slot],
        events: list[tuple[str, Load, LambdaExtError]],
    ) -> bool:
        """Store *outcomes* and end *loads*, in a change; fill *taken* and *events*."""
        now = clock.now()
        answered = next(self._sequence)
        asked = {load.key for load in loads}
        unasked = {key: outcomes[key] for key in outcomes if key not in asked}
        valid = not unasked or all(self._is_valid(load) for load in loads)
        counted: set[int] = set()
        for load in loads:
            result = outcomes.get(load.key)
            if isinstance(result, Answer):
                entry = Entry(result, sent_at, load.sequence, jitter)
                entry.answered = answered
                outcome = self._stored(load, entry, taken)
            else:
                if not isinstance(result, LambdaExtError):
                    result = unanswered(load.key, load.source)
                if id(result) not in counted:
                    counted.add(id(result))
                    name = type(result).__name__
                    self.errors[name] = self.errors.get(name, 0) + 1
                outcome = named(result, load.key.label)
                if self._is_valid(load):
                    event = self._failed(load, outcome, now)
                    if event and (load.background or load.early):
                        events.append((event, load, result))
            self._end(load)
            load.outcome = outcome
        for key, answer in unasked.items():
            if valid and isinstance(answer, Answer) and answer.keep:
                entry = Entry(answer, sent_at, loads[0].sequence, jitter)
                entry.answered = answered
                taken += self.cache.put(key, loads[0].source, entry)
        return True

    def _stored(self, load: Load, entry: Entry, taken: list[Slot]) -> Outcome:
        """Store what *load* brought; return it, or what is remembered if that is newer."""
        stored = entry.answer.keep and self._is_valid(load)
        if stored:
            taken += self.cache.put(load.key, load.source, entry)
        slot = self.cache.slots.get(load.key)
        newest = None if slot is None else slot.entry
        if (
            entry.answer.keep
            and newest is not None
            and (stored or newest.sequence >= load.sequence)
        ):
            return newest
        return entry

    def _is_valid(self, load: Load) -> bool:
        """Say whether what *load* brings may be kept: nothing was dropped since."""
        slot = load.slot
        return (
            slot is not None
            and load.sequence >= slot.floor
            and (self.cache.slots.get(load.key) is slot or not self.cache.size())
        )

    def _failed(self, load: Load, error: LambdaExtError, now: float) -> str:
        """Keep, expire or drop the entry as *error* demands; return the log's event name."""
        slot = load.slot
        assert slot is not None
        entry = slot.entry
        if entry is not None and entry.sequence > load.sequence:
            return ""  # what it failed to replace is newer than itself
        not_loaded = "not_loaded" if load.early else ""
        if isinstance(error, SourceError) and not error.keep:
            return not_loaded
        if self.is_transient(error):
            if entry is None:
                return not_loaded  # nothing to serve: the next caller tries at once
            slot.failures += 1
            slot.retry_at = now + pause(slot.failures, calls.random())
            slot.wanted = False
            slot.expire_views()
            return "refresh_failed"
        self.cache.drop_group(load.key, load.sequence)
        is_known = isinstance(error, NotFoundError) and error.original is None
        if is_known and load.remembers:
            slot.missing = (copied(error, chained=False), now)
            self.cache.trim(slot)
        elif load.early:
            slot.init_error = (error, now)
        return not_loaded or "entry_killed"

    def _end(self, load: Load) -> None:
        """Let no more readers join *load*; call it in a change."""
        slot = load.slot
        if slot is not None and slot.load is load:
            slot.load = None
            if (slot.entry, slot.missing, slot.init_error, slot.memo) == (None,) * 4:
                self.cache.remove(slot)

    def _abandon(self, loads: list[Load], thread: int) -> None:
        """Have the readers of *loads* begin loads of their own: *thread* makes none."""

        def end() -> bool:
            for load in loads:
                if load.outcome is None and load.thread == thread:
                    load.abandoned = load.finished = True
                    self._end(load)
            return True

        if self.cache.change(end) is None:
            for load in loads:
                load.abandoned = load.finished = True
        for load in loads:
            if load.is_over():
                load.wake()

    def _outcome(
        self, load: Load, want: Want, newer_than: float, batch: Batch
    ) -> tuple[Outcome, str]:
        """Wait for *load* and return what it brings to *want*."""
        ends_at = batch.ends_at
        taken = False
        if load.batch is not batch and not load.is_over():
            taken = self._take_over(load, ends_at)
        load.wait(calls.remaining(ends_at), listeners=load.batch is batch)
        outcome = load.outcome
        if outcome is None and (load.abandoned or not load.batch.is_alive()):
            if load.batch is batch and batch.error is not None:
                raise batch.error
            self._abandon([load], load.thread)
            return self.get([want], newer_than=newer_than, ends_at=ends_at)[0]
        if outcome is None:
            outcome = too_late(want.key, want.source)
        if isinstance(outcome, Entry):
            own = load.batch is batch
            if (
                own
                or outcome.answer.keep
                or disclosure.attribute(load.source, "repeats", True)
            ):
                return outcome, LOADED
            return self.get([want], newer_than=math.inf, ends_at=ends_at)[0]
        if not newer_than and self.is_transient(outcome):
            stale = self._stale(load, want, outcome)
            if stale is not None:
                return stale, STALE
        # An outcome of one reader alone, also where another thread made the call.
        own = taken or load.batch is batch
        return (outcome if own else copied(outcome)), LOADED

    def _take_over(self, load: Load, ends_at: float | None) -> bool:
        """
        Make the call of *load* if it is queued: its thread is busy with others.

        Say whether it was.
        """
        batch = Batch(ends_at)
        try:
            with batch.held:
                call = load.batch.claim_for(load)
                if call is None:
                    return False
                for each in call.loads:
                    each.thread = real_threads.get_ident()
                    each.batch = batch
                call.wanted = True
                batch.loads = call.loads
                batch.wanted.append(call)
                if not (
                    calls.may_be_interrupted()
                    and batch.start(lambda: self._help(batch), 1)
                ):
                    self._work(batch, any_call=False)
        except BaseException:
            self._abandon(batch.loads, real_threads.get_ident())
            raise
        return True

    def _stale(self, load: Load, want: Want, error: LambdaExtError) -> Entry | None:
        """Return the old entry if it may serve, after *error*, counted."""
        now = clock.now()
        with self.cache.lock:
            slot = self.cache.slots.get(want.key)
            entry = None if slot is None else slot.entry
            if entry is None or not want.tolerates(now - entry.born_at):
                return None
            self.stale_served += 1
            notified, load.notified = load.notified, True
        if not notified:
            log_failure("stale_served", want.key, want.source, error)
        return entry

    # Refreshes -------------------------------------------------------------------

    def refresh_due(self) -> None:
        """Refresh, in one batch, what has been read and is due soon."""
        batch = Batch()
        now = clock.now()

        def begin() -> bool:
            for slot in self._due(now):
                slot.wanted = False
                source = slot.source
                if source is not None:
                    self._begin(source, slot.key, batch, background=True)
            return True

        try:
            with batch.held:
                self.cache.change(begin)
                self._plan(batch)
                self._help(batch)
        except BaseException:
            self._abandon(batch.loads, real_threads.get_ident())
            raise
