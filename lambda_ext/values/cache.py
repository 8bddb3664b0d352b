"""
What is remembered: for how long, how much of it, and until when a hit may return it.

    index: arguments of a call ─▶ View ─▶ value          the hit reads only this
    slots: Key ─▶ Slot ─▶ Entry ─▶ answer                the rest of this library
                    │       └────▶ Decoded               for one transform and field
                    └───▶ Load                           that readers may wait for

The hit itself is the first lines of `getters.get_secret` and `Secret.value`.

How old may a value be?  Its age counts from when its request was sent.

    0 ─────────── fresh ──────────┬────────── stale, if need be ─────────┬ dead
                      due here ▲  max_age                max_age + max_stale

Guarantees
    A hit takes no lock: it reads one dictionary (a handle not even that) and
    one clock.  A `View` never changes, except that `View.until` is set to
    "never" when the entry behind it is replaced or dropped.
    At most `size` slots.  SIEVE evicts when a new key comes: its hand moves on
    from the oldest slot, passes over slots that were hit since it last passed,
    and evicts the first that was not.  SIEVE's "visited" bit is the count of
    hits, so that one addition on the hit serves both.  A slot that a live
    handle reads is never evicted, even if that exceeds the bound.
    Keys that AWS answered with one ARN form a group: they get the same entry
    and lose it together, so that a name and its ARN agree.
    An entry is replaced only by one whose request was begun later; and the
    current number of a parameter by no lower one that was loaded meanwhile.

Time
    All instants are house time.  A hit compares ``monotonic() + lead``, so that
    it survives a freeze that was shorter than what was left to it.  All sequence
    numbers are those of loads, in the order in which they were begun.
    `Slot.floor` decides what may still be stored: nothing that was begun before
    an invalidation, or before what is stored.

Threads
    Every write happens in a function called by `Cache.change`, one at a time.
    No source, transform or callback is called there.

Signals
    A signal handler or a finalizer that reads may run in the middle of a
    change, in the thread that makes it: its own changes are refused (`change`
    returns None), and it gets what it reads without it being kept.  What it
    invalidates is dropped when the change under way has ended.  If a signal
    handler raises, the change is left half made; the next one repairs that.

Source of SIEVE: Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024.
"""

from __future__ import annotations

import math
import weakref

from ..lifecycle import clock, real_threads
from ..lifecycle.process import Lock
from .keys import goes_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, MutableMapping
    from typing import Any, Protocol, TypeVar

    from ..answer import Answer
    from ..exceptions import LambdaExtError
    from ..typing import Source
    from .keys import Key

    R = TypeVar("R")
    Memo = MutableMapping[Any, "Decoded"]

    class Batch(Protocol):
        """The loads that were begun together, see `calls`."""

        def is_alive(self) -> bool:
            """Say whether a thread will see to what is not settled yet."""
            ...

        def is_queued(self, load: Load) -> bool:
            """Say whether no thread has taken the call that carries *load*."""
            ...

        def claim_for(self, load: Load) -> Any:
            """Take the call that carries *load*, unless a thread has taken it."""
            ...


# How a read was answered: from memory, by a load, or with a value that is too old
# because the load failed.  `stats()` and drop-in responses tell them apart.
FRESH, LOADED, STALE = "fresh", "loaded", "stale"
NEVER = -math.inf
DUE_FROM = 0.70  # of max_age: a refresh takes along what is this old ...
DUE_SPREAD = 0.20  # ... and is begun by a hit up to this much later
NOT_FOUND_S = 5.0  # a secret that is being created may be asked for soon
BACKOFF_S = 1.0  # doubled at each failure, of which half to all is waited
LONGEST_BACKOFF_S = 60.0
WAKE_S = 0.5  # at most, until a reader notices that its load has no thread any more
MAX_VIEWS = 32  # of one slot: each inline lambda given as `transform` is one

protected: set[Any] = set()  # calls of `refresh_on` that are running, see `given`


class Want:
    """What a caller wants: a key, from where, and how old it may be."""

    __slots__ = ("changes_before", "key", "max_age", "max_stale", "source")

    changes = 0  # of options, or of sources, in this process
    keeps_errors = True  # a "not found" of its load is remembered, for seconds

    def __init__(
        self,
        source: Source,
        key: Key,
        max_age: float | None = 300.0,
        max_stale: float | None = 3600.0,
        *,
        changes_before: int | None = None,
    ) -> None:
        # What `changes` was before *source* and *key* were chosen, if options choose them.
        self.changes_before = Want.changes if changes_before is None else changes_before
        self.source = source
        self.key = key
        self.max_age = max_age  # None: for ever; 0: not at all
        self.max_stale = max_stale  # None: without limit; 0: not at all

    def is_outdated(self) -> bool:
        """Say whether options have changed since it was made: no hit may use its result."""
        return self.changes_before != Want.changes

    def accepts(self, age: float) -> bool:
        """Say whether an entry of that *age* is fresh."""
        return self.max_age is None or age < self.max_age

    def remembers(self, age: float) -> bool:
        """Say whether a "not found" of that *age* still counts."""
        if self.max_age == 0:
            return False
        return age < min(NOT_FOUND_S, self.max_age or math.inf)

    def tolerates(self, age: float) -> bool:
        """Say whether an entry of that *age* may serve when AWS cannot."""
        if not self.max_age or self.max_stale == 0:
            return False
        return self.max_stale is None or age < self.max_age + self.max_stale


class Entry:
    """One answer and the age of it; replaced, never changed."""

    __slots__ = ("answer", "answered", "born_at", "decoded", "jitter", "sequence")

    def __init__(
        self, answer: Answer, born_at: float, sequence: int, jitter: float = 0.0
    ) -> None:
        self.answer = answer
        self.born_at = born_at  # when its request was sent
        self.sequence = sequence  # of its load
        self.answered = 0  # sequence number when the answer arrived; loads with a
        # lower one had begun by then
        self.jitter = jitter  # 0..1, of the instant when it is refreshed
        self.decoded: Memo = {}  # by transform and field, shared by equal versions

    def __repr__(self) -> str:
        return f"<Entry version={self.answer.version!r} born_at={self.born_at:.3f}>"


class Decoded:
    """A value as a caller wants it, and how to copy it (None: no need to)."""

    __slots__ = ("copy", "value")

    def __init__(self, value: Any, copy: Callable[[], Any] | None = None) -> None:
        self.value = value
        self.copy = copy

    def __repr__(self) -> str:
        return "<Decoded>"  # never the value

    def copied(self) -> Any:
        """Return the value, or a copy of it that the caller may change."""
        return self.value if self.copy is None else self.copy()


class View:
    """A value as it is handed out, valid while house time is below ``until``."""

    __slots__ = ("copy", "entry", "place", "slot", "until", "value")

    def __init__(
        self,
        value: Any = None,
        copy: Callable[[], Any] | None = None,
        slot: Slot | None = None,
        entry: Entry | None = None,
    ) -> None:
        self.until = NEVER
        self.value = value
        self.copy = copy
        self.slot = slot
        self.entry = entry
        # Which index of hits holds it, and by which arguments; None: a handle.
        self.place: tuple[dict[Any, View], Any] | None = None

    def __repr__(self) -> str:
        return f"<View until={self.until:.3f}>"  # never the value

    def copied(self) -> Any:
        """Return the value, or a copy of it that the caller may change."""
        return self.value if self.copy is None else self.copy()


class Slot:
    """What is known about a key: its entry, its failures, how often it was read."""

    __slots__ = (
        "_source",
        "entry",
        "failures",
        "floor",
        "group",
        "hits",
        "init_error",
        "key",
        "load",
        "mark",
        "memo",
        "missing",
        "next",
        "previous",
        "refresh_from",
        "retry_at",
        "views",
        "wanted",
    )

    def __init__(self, key: Key, source: Any) -> None:
        self.key = key
        self.source = source  # asked by a refresh
        self.entry: Entry | None = None
        self.group: Key = key  # the key by ARN, once AWS has told it
        self.hits = 0  # reads by get_*; handles count nothing
        self.mark = 0  # what `hits` was when SIEVE's hand last passed
        self.next: Slot = self
        self.previous: Slot = self
        self.views: list[View] = []
        self.load: Load | None = None  # that readers may wait for
        self.floor = 0  # sequence number below which nothing may be stored
        self.memo: tuple[Answer, Memo] | None = None  # of the last entry it had
        self.missing: tuple[LambdaExtError, float] | None = None  # and asked when
        # Of a load before the first read, and when; raised to the first reader.
        self.init_error: tuple[LambdaExtError, float] | None = None
        self.failures = 0  # passing ones in a row
        self.retry_at = NEVER  # house time before which a stale value is served
        self.refresh_from = math.inf  # house time; never if it has not been read
        self.wanted = False  # the worker has been asked to refresh it

    def __repr__(self) -> str:
        return f"<Slot {self.key.label!r} {self.entry}>"

    @property
    def source(self) -> Any:
        """
        The source of the last load or read that asked for a refresh; None if gone.

        Not held here: with it a client, or a session, of the user's would stay.
        """
        return self._source()

    @source.setter
    def source(self, source: Any) -> None:
        try:
            self._source: Callable[[], Any] = weakref.ref(source)
        except TypeError:  # of a user's class with slots
            self._source = lambda: source

    def expire_views(self) -> None:
        """Have no hit find a view of this slot; the next read asks the loader."""
        views = self.views
        while views:
            # It leaves the list last: a signal handler may raise in between.
            view = views[-1]
            view.until = NEVER
            if view.place is not None:
                index, arguments = view.place
                if index.get(arguments) is view:
                    del index[arguments]
            views.pop()


class Load:
    """One load of one key, under way."""

    __slots__ = (
        "abandoned",
        "background",
        "batch",
        "call",
        "early",
        "finished",
        "generation",
        "key",
        "notified",
        "outcome",
        "remembers",
        "sequence",
        "slot",
        "source",
        "thread",
        "waiters",
    )

    def __init__(
        self,
        source: Source,
        key: Key,
        sequence: int,
        batch: Batch,
        *,
        background: bool = False,
        early: bool = False,
    ) -> None:
        self.source = source
        self.key = key
        self.sequence = sequence
        self.batch = batch  # whose threads make its call and settle it
        self.background = background  # no reader waits for it
        self.early = early  # of a declared value, before its first read
        self.generation = clock.generation
        self.thread = real_threads.get_ident()  # that makes its call, or will
        self.call: Any = None  # that carries it
        self.slot: Slot | None = None  # None: its answer is not kept
        self.outcome: Entry | LambdaExtError | None = None
        self.abandoned = False  # its thread was interrupted: readers ask for themselves
        self.finished = False  # it is over, and listeners have been called
        self.notified = False  # the log says that a stale value is served instead
        self.remembers = True  # whether a "not found" is remembered, for seconds
        self.waiters: list[real_threads.LockType] = []

    def __repr__(self) -> str:
        return f"<Load {self.sequence} of {self.key.label!r}>"

    def is_over(self) -> bool:
        """Say whether there is nothing to wait for any more."""
        return self.outcome is not None or self.abandoned

    def takes(self, generation: int) -> bool:
        """
        Say whether a reader may wait for it.

        Not after a possible freeze, and not the thread that makes its call: a
        signal handler that interrupts a load, or a source that asks for what
        it is loading, would wait for itself.  A call that is queued is made by
        no thread yet; the thread that has queued it may make it.
        """
        return self.generation == generation and (
            self.thread != real_threads.get_ident() or self.batch.is_queued(self)
        )

    def wait(self, left_s: float | None, *, listeners: bool = False) -> None:
        """
        Wait for *left_s* seconds at most until it is over.

        With *listeners*, until `on_change` listeners have been called, too.  Returns
        at once when it has no thread any more.
        """
        while not (self.finished if listeners else self.is_over()) and (
            left_s is None or left_s > 0
        ):
            # One lock for each reader, and no Event: a signal handler that
            # raises inside of an Event leaves it locked.
            waiter = real_threads.allocate_lock()
            waiter.acquire()
            self.waiters.append(waiter)
            if (
                self.finished
                or (self.is_over() and not listeners)
                or not self.batch.is_alive()
            ):
                return
            step_s = WAKE_S if left_s is None else min(left_s, WAKE_S)
            if not waiter.acquire(timeout=step_s) and left_s is not None:
                left_s -= step_s

    def wake(self) -> None:
        """Wake the readers that wait for it."""
        try:
            while True:
                self.waiters.pop().release()
        except IndexError:  # two threads may do this at once
            return


# Freshness -------------------------------------------------------------------


def due_from(entry: Entry, max_age: float) -> float:
    """Return the house time from which a refresh takes *entry* along."""
    return entry.born_at + max_age * DUE_FROM


def due_at(entry: Entry, max_age: float) -> float:
    """
    Return the house time from which a hit has *entry* refreshed.

    All entries that came in one call have the same jitter, so that one call
    refreshes them; each execution environment has another one.
    """
    return entry.born_at + max_age * (DUE_FROM + DUE_SPREAD * entry.jitter)


def good_until(
    slot: Slot, entry: Entry, want: Want, now: float, *, refreshing: bool
) -> float:
    """
    Return the house time until which hits may use *entry* without asking the loader.

    That is until the value is due; while it is being refreshed, until it
    expires (the refresh replaces the view when it ends); and after a refresh that
    failed, until the next one may be tried.
    """
    if want.max_age == 0:
        return NEVER
    if want.max_age is None:
        return math.inf
    expires_at = entry.born_at + want.max_age
    hit_at = due_at(entry, want.max_age)
    if now < hit_at:
        return hit_at
    if refreshing:
        return expires_at
    return min(expires_at, max(slot.retry_at, now))


def pause(failures: int, jitter: float) -> float:
    """Return the seconds for which AWS is not asked after so many *failures*."""
    longest_s = min(BACKOFF_S * 2.0 ** (failures - 1), LONGEST_BACKOFF_S)
    return longest_s * (0.5 + 0.5 * jitter)


# The slots -------------------------------------------------------------------


class Cache:
    """
    Slots by key, at most *size* of them; 0 remembers nothing.

    *size* and *pinned* (the keys that live handles read) are asked when a new
    key comes.
    """

    def __init__(
        self,
        size: Callable[[], int] = lambda: 1000,
        pinned: Callable[[], Container[Key]] = frozenset,
    ) -> None:
        self.size = size
        self.pinned = pinned
        self.lock = Lock()
        self._changing = False
        self._torn = False  # a change was left half made
        self._later: list[Callable[[], object]] = []  # changes that were refused
        self.slots: dict[Key, Slot] = {}
        self._groups: dict[Key, dict[Key, Slot]] = {}
        self._newest: Slot | None = None  # of a ring; its `next` is the oldest
        self._hand: Slot | None = None  # which is looked at next, to make room
        self._former_hits = 0  # of slots that are gone
        self.evictions = 0

    def __len__(self) -> int:
        return sum(slot.entry is not None for slot in [*self.slots.values()])

    @property
    def hits(self) -> int:
        """Reads by get_* that were answered from memory."""
        return self._former_hits + sum(slot.hits for slot in [*self.slots.values()])

    def change(self, function: Callable[..., R], *args: Any) -> R | None:
        """
        Return function(*args), called while no other thread reads or writes.

        None, and it is not called, if this thread is in the middle of a change.
        """
        with self.lock:
            if self._changing:
                return None
            try:
                return self._changed(function, *args)
            finally:
                # Here: until the change has ended, a signal handler may add to `_later`.
                if self._later:
                    self._catch_up()

    def _changed(self, function: Callable[..., R], *args: Any) -> R:
        try:
            self._changing = True
            if self._torn:
                self._repair()
                self._torn = False
            return function(*args)
        except BaseException:
            self._torn = True
            raise
        finally:
            self._changing = False

    def _catch_up(self) -> None:
        while self._later:
            function = self._later[0]
            self._changed(function)
            # One step; not if a signal handler's change has caught up meanwhile.
            if self._later and self._later[0] is function:
                del self._later[0]

    def change_later(self, function: Callable[[], object]) -> None:
        """Call *function* at the end of the change that this thread is making."""
        self._later.append(function)

    def slot(self, key: Key, source: Any) -> Slot:
        """
        Return the slot of *key*, made if need be, in a change.

        It counts towards the bound when `trim` is called.
        """
        slot = self.slots.get(key)
        if slot is None:
            slot = Slot(key, source)
            if self.size():
                self.slots[key] = slot
                self._groups.setdefault(slot.group, {})[key] = slot
                self._link(slot)
        return slot

    def trim(self, spared: Slot) -> None:
        """Drop as many slots as there are too many, but *spared*; in a change."""
        size = self.size()
        while len(self.slots) > size and self._evict(spared):
            pass

    def put(self, key: Key, source: Any, entry: Entry) -> list[Slot]:
        """
        Remember *entry* for *key* and all that share its ARN, in a change.

        Return the slots that took it.
        """
        slot = self.slot(key, source)
        arn = entry.answer.arn
        self._regroup(slot, key.at(arn) if arn else key)
        taken = []
        for each in self._members(slot):
            if entry.sequence < each.floor:
                continue
            former = each.entry
            if (
                former is not None
                and former.answered > entry.sequence  # they overlapped
                and goes_back(key, former.answer.version, entry.answer.version)
            ):
                continue
            memo = each.memo
            if memo is not None and memo[0].same(entry.answer):
                entry.decoded = memo[1]
            self._drop(each)
            each.entry = entry
            each.memo = (entry.answer, entry.decoded)
            each.floor = entry.sequence
            taken.append(each)
        self.trim(slot)
        return taken

    def kill(self, key: Key, sequence: float = math.inf) -> None:
        """Drop what is known of *key*'s group, unless it is newer than load *sequence*."""
        self.change(self.drop_group, key, sequence)

    def drop_group(self, key: Key, sequence: float) -> None:
        """Do as `kill`, in a change."""
        slot = self.slots.get(key)
        if slot is not None:
            for each in self._members(slot):
                if each.entry is None or each.entry.sequence <= sequence:
                    self._drop(each)
                    if sequence != math.inf:
                        each.floor = max(each.floor, int(sequence))

    def invalidate(self, concerned: Callable[[Key], bool], floor: int) -> int:
        """
        Drop every entry whose key is *concerned*, in a change; return how many.

        No load whose sequence number is below *floor* brings any of it back.
        """
        dropped = 0
        for slot in [*self.slots.values()]:
            if concerned(slot.key):
                for each in self._members(slot):
                    each.floor = floor
                    each.load = None
                    dropped += each.entry is not None
                    self._drop(each)
        return dropped

    def clear(self) -> None:
        """Drop everything but the counters, in a change."""
        for slot in [*self.slots.values()]:
            slot.load = None
            self.remove(slot)

    def expire_views(self) -> None:
        """Have the next read of each value ask the loader: the options have changed."""

        def forget() -> bool:
            for slot in [*self.slots.values()]:
                slot.expire_views()
            return True

        if self.change(forget) is None:
            self.change_later(forget)

    def publish(
        self,
        view: View,
        until: float,
        index: dict[Any, View] | None = None,
        arguments: Any = None,
    ) -> None:
        """
        Let hits find *view* until the house time *until*; call it in a change.

        They find it in *index* by *arguments*; without an index, in a handle.

        Nothing happens when the entry behind it is no longer the slot's.
        """
        slot = view.slot
        assert slot is not None
        if slot.entry is not view.entry or self.slots.get(slot.key) is not slot:
            return
        if len(slot.views) >= MAX_VIEWS:
            slot.expire_views()
        slot.views.append(view)
        if index is not None:
            view.place = (index, arguments)
            index[arguments] = view
        view.until = until

    def forked(self) -> None:
        """Let go, in a forked child, of what another thread was changing."""
        self._changing = False
        self._torn = True
        self._later.clear()

    def remove(self, slot: Slot) -> None:
        """Forget *slot*, in a change."""
        if self.slots.get(slot.key) is slot:
            slot.expire_views()  # first: no hit counts for it any more
            self._former_hits += slot.hits
            del self.slots[slot.key]
            self._unlink(slot)
            self._ungroup(slot)
            slot.entry = slot.memo = None

    def _repair(self) -> None:
        """Derive from `slots` all that a change may have left half made."""
        self._newest = self._hand = None
        self._groups.clear()
        for slot in [*self.slots.values()]:
            slot.expire_views()
            self._link(slot)
            self._groups.setdefault(slot.group, {})[slot.key] = slot

    def _drop(self, slot: Slot) -> None:
        slot.expire_views()  # first: what hits find must not outlive the entry
        slot.entry = None
        slot.missing = None
        slot.init_error = None
        slot.failures = 0
        slot.retry_at = NEVER
        slot.refresh_from = math.inf
        slot.wanted = False

    def _members(self, slot: Slot) -> list[Slot]:
        return [*self._groups.get(slot.group, {slot.key: slot}).values()]

    def _regroup(self, slot: Slot, group: Key) -> None:
        if self.slots.get(slot.key) is not slot:
            return  # of a cache that remembers nothing
        self._ungroup(slot)
        slot.group = group
        self._groups.setdefault(group, {})[slot.key] = slot

    def _ungroup(self, slot: Slot) -> None:
        members = self._groups.get(slot.group)
        if members is not None:
            members.pop(slot.key, None)
            if not members:
                del self._groups[slot.group]

    def _link(self, slot: Slot) -> None:
        """Make *slot* the newest of the ring."""
        newest = self._newest
        if newest is None:
            slot.next = slot.previous = self._hand = slot
        else:
            slot.previous, slot.next = newest, newest.next
            newest.next.previous = slot
            newest.next = slot
        self._newest = slot

    def _unlink(self, slot: Slot) -> None:
        if slot.next is slot:
            self._newest = self._hand = None
            return
        if self._hand is slot:
            self._hand = slot.next
        if self._newest is slot:
            self._newest = slot.previous
        slot.previous.next = slot.next
        slot.next.previous = slot.previous

    def _evict(self, spared: Slot) -> bool:
        """Drop one slot but *spared*; False when there is none to drop."""
        pinned = self.pinned()
        hand = self._hand
        for _ in range(2 * len(self.slots)):
            assert hand is not None
            if (
                hand.hits == hand.mark
                and hand.load is None
                and hand is not spared
                and hand.key not in pinned
            ):
                self._hand = hand
                self.remove(hand)
                if self._hand is spared:  # the hand moves from the oldest to the newest
                    self._hand = spared.next
                self.evictions += 1
                return True
            hand.mark = hand.hits
            hand = hand.next
        self._hand = hand
        return False
