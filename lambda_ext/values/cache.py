"""
What is remembered: how much of it, and until when a hit may return it.

    index: arguments of a call ─▶ View ─▶ value          the hit reads only this
    slots: Key ─▶ Slot ─▶ Entry ─▶ answer                the rest of this library

The hit itself is the first lines of `getters.get_secret` and `Secret.value`.

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
    it survives a freeze that was shorter than what was left to it.

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

from ..lifecycle.process import Lock
from .entries import NEVER, Slot
from .keys import goes_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any, TypeVar

    from .entries import Entry, View
    from .keys import Key

    R = TypeVar("R")

MAX_VIEWS = 32  # of one slot: each inline lambda given as `transform` is one

protected: set[Any] = set()  # calls of `refresh_on` that are running, see `given`


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
                # Only now: until the change has ended, a signal handler may add to it.
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
        """Make every read come to us once: the options changed."""

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
        Let hits find *view* until then, in *index* or else in a handle; in a change.

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
            self._former_hits += slot.hits
            slot.expire_views()
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
        slot.unheard = None
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
                if self._hand is spared:  # the hand goes from the oldest to the newest
                    self._hand = spared.next
                self.evictions += 1
                return True
            hand.mark = hand.hits
            hand = hand.next
        self._hand = hand
        return False
