"""
A hit: what is remembered, how much of it, and until when it may be served.

    front: arguments of a call ─▶ View ─▶ value          the hit reads only this
    slots: Key ─▶ Slot ─▶ Entry ─▶ answer                the rest of this library

Guarantees
    A hit takes no lock: it reads one dictionary (a handle not even that) and
    one clock.  What it finds is never changed but in `View.until`, which goes
    to "never" when the entry behind it is replaced or dropped.
    At most `size` slots.  Who goes is decided by SIEVE when a new one comes:
    a hand goes round from the oldest, spares who was hit since it last came
    by, and takes the first who was not.  Its "visited" bit is our count of
    hits, so that one addition on the hit serves both.  Slots that a live
    handle reads are spared always, even if that exceeds the bound.
    Keys that AWS answered with one ARN form a group: they get the same entry
    and lose it together, so that a name and its ARN agree.
    An entry is replaced only by one whose request was begun later; and the
    current number of a parameter by no lower one that was loaded meanwhile.

Time
    `born_at` is house time; `View.until` is raw monotonic time, so that a hit
    needs no offset.  `forget_views` is called when the two have moved apart.

Threads
    ``lock`` guards every write.  It is re-entrant: a watcher of the clock or
    a finalizer may run in the middle of our own work.  No clock, source,
    transform or callback is called while it is held.  When all views are to be
    forgotten at once (at each thaw, say), that costs nothing for each slot.

Source of SIEVE: Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024.
"""

from __future__ import annotations

import math
import threading

from .keys import goes_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, MutableMapping
    from typing import Any

    from ..exceptions import LambdaExtError
    from .keys import Key
    from .transforms import Decoded

NEVER = -math.inf
MAX_VIEWS = 32  # of one slot: each inline lambda given as `transform` is one


class Answer:
    """
    What a source answers: the raw value and what AWS says about it.

    *value* is text or bytes, below a path a dictionary of texts.  *version*
    tells two values apart ("" if the source has none), *arn* is the same for
    every name of one thing ("" if it has none).
    """

    __slots__ = ("arn", "value", "version")

    def __init__(self, value: Any, version: str = "", arn: str = "") -> None:
        if not all(isinstance(text, str) for text in (version, arn)):
            msg = "version and arn of an Answer are text"
            raise TypeError(msg)
        if not isinstance(value, (str, bytes)) and not (
            isinstance(value, dict)
            and all(isinstance(text, str) for each in value.items() for text in each)
        ):
            msg = "the value of an Answer is text or bytes, or texts by name"
            raise TypeError(msg)
        self.value: Any = value
        self.version = version
        self.arn = arn

    def __repr__(self) -> str:
        return f"<Answer version={self.version!r}>"  # never the value

    def same(self, other: Answer) -> bool:
        """Say whether *other* is the same version of the same value."""
        return self.version == other.version and self.value == other.value


class Entry:
    """One answer and the age of it; replaced, never changed."""

    __slots__ = ("answer", "born_at", "decoded", "jitter", "landed", "order")

    def __init__(
        self, answer: Answer, born_at: float, order: int, jitter: float = 0.0
    ) -> None:
        self.answer = answer
        self.born_at = born_at  # when its request was sent
        self.order = order  # its load is the how-manieth that was begun
        self.landed = 0  # of loads begun later, the answer came before it
        self.jitter = jitter  # 0..1, of the instant when it is refreshed
        self.decoded: MutableMapping[
            Any, Decoded
        ] = {}  # a memo, shared by equal versions

    def __repr__(self) -> str:
        return f"<Entry version={self.answer.version!r} born_at={self.born_at:.3f}>"


class View:
    """A value as it is handed out, valid while ``clock.monotonic() < until``."""

    __slots__ = ("copy", "entry", "seat", "slot", "until", "value")

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
        self.seat: tuple[dict[Any, View], Any] | None = None  # where it is in front

    def __repr__(self) -> str:
        return f"<View until={self.until:.3f}>"  # never the value

    def give(self) -> Any:
        """Return the value, or a copy of it that the caller may change."""
        return self.value if self.copy is None else self.copy()


class Slot:
    """What is known about a key: its entry, its troubles, its popularity."""

    __slots__ = (
        "entry",
        "epoch",
        "failures",
        "group",
        "hits",
        "key",
        "mark",
        "missing",
        "next",
        "refresh_from",
        "retry_at",
        "source",
        "views",
        "wanted",
    )

    def __init__(self, key: Key, source: Any) -> None:
        self.key = key
        self.source = source
        self.entry: Entry | None = None
        self.group: Key = key  # the key by ARN, once AWS has told it
        self.hits = 0  # reads by get_*; handles count nothing
        self.mark = 0  # what `hits` was when the hand last came by
        self.next: Slot = self
        self.views: list[View] = []
        self.epoch = 0  # of the cache's, in which the views were shown
        self.missing: tuple[LambdaExtError, float] | None = None  # and asked when
        self.failures = 0  # passing ones in a row
        self.retry_at = NEVER  # house time before which a stale value is served
        self.refresh_from = math.inf  # house time; never if nobody has read it
        self.wanted = False  # the worker has been asked to refresh it

    def __repr__(self) -> str:
        return f"<Slot {self.key.label!r} {self.entry}>"

    def hide(self) -> None:
        """Make every view of it worthless; the next read comes to us."""
        views, self.views = self.views, []
        for view in views:
            view.until = NEVER
            if view.seat is not None:
                front, seat = view.seat
                if front.get(seat) is view:
                    del front[seat]


class Cache:
    """
    Slots by key, at most *size* of them; 0 remembers nothing.

    *size* and *pinned* (the keys that live handles read) are asked when a new
    key comes.  *fronts* are where views are shown.
    """

    def __init__(
        self,
        size: Callable[[], int] = lambda: 1000,
        pinned: Callable[[], Container[Key]] = frozenset,
        fronts: tuple[dict[Any, View], ...] = (),
    ) -> None:
        self.size = size
        self.pinned = pinned
        self._fronts = fronts
        self._epoch = 0
        self._loose: dict[Any, View] = {}  # the front of those in handles
        self.lock = threading.RLock()
        self.slots: dict[Key, Slot] = {}
        self._groups: dict[Key, dict[Key, Slot]] = {}
        self._newest: Slot | None = None  # its `next` is the oldest
        self._before: Slot | None = None  # the hand points to its `next`
        self._former_hits = 0  # of slots that are gone
        self.evictions = 0

    def __len__(self) -> int:
        return sum(slot.entry is not None for slot in [*self.slots.values()])

    @property
    def hits(self) -> int:
        """Reads by get_* that were answered from memory."""
        return self._former_hits + sum(slot.hits for slot in [*self.slots.values()])

    def slot(self, key: Key, source: Any) -> Slot:
        """Return the slot of *key*, made if need be; the lock is held."""
        slot = self.slots.get(key)
        if slot is None:
            slot = Slot(key, source)
            size = self.size()
            if size:
                while len(self.slots) >= size and self._evict():
                    pass
                self._insert(slot)
        return slot

    def put(self, key: Key, source: Any, entry: Entry) -> list[Slot]:
        """
        Remember *entry* for *key* and all that share its ARN.

        Return the slots that took it.  The lock is held.
        """
        slot = self.slot(key, source)
        arn = entry.answer.arn
        self._regroup(slot, key.at(arn) if arn else key)
        taken = []
        for each in self._members(slot):
            former = each.entry
            if former is not None:
                if former.order > entry.order or (
                    former.landed > entry.order  # they overlapped
                    and goes_back(key, former.answer.version, entry.answer.version)
                ):
                    continue
                if former.answer.same(entry.answer):
                    entry.decoded = former.decoded
            self._drop(each)
            each.entry = entry
            taken.append(each)
        return taken

    def kill(self, key: Key, order: float = math.inf) -> None:
        """Drop what is known of *key*'s group, unless it is newer than *order*."""
        slot = self.slots.get(key)
        if slot is not None:
            for each in self._members(slot):
                if each.entry is None or each.entry.order <= order:
                    self._drop(each)

    def invalidate(self, concerned: Callable[[Key], bool]) -> int:
        """Drop every entry whose key is *concerned*, and return how many."""
        dropped = 0
        for slot in [*self.slots.values()]:
            if concerned(slot.key):
                for each in self._members(slot):
                    dropped += each.entry is not None
                    self._drop(each)
        return dropped

    def clear(self) -> None:
        """Drop everything but the counters."""
        for slot in self.slots.values():
            self._former_hits += slot.hits
            slot.entry = None
            slot.hide()
        self.forget_views()
        self.slots.clear()
        self._groups.clear()
        self._newest = self._before = None

    def forget_views(self) -> None:
        """Make every read come to us once: the clocks or the options changed."""
        with self.lock:
            self._epoch += 1
            for front in self._fronts:
                front.clear()
            for view in self._loose.values():
                view.until = NEVER
            self._loose.clear()

    def show(
        self,
        view: View,
        until: float,
        front: dict[Any, View] | None = None,
        seat: Any = None,
    ) -> None:
        """
        Let hits find *view* until then; in *front*, or else in a handle.

        Nothing happens when the entry behind it is no longer the slot's.
        The lock is held.
        """
        slot = view.slot
        assert slot is not None
        if slot.entry is not view.entry or self.slots.get(slot.key) is not slot:
            return
        if slot.epoch != self._epoch:
            slot.epoch = self._epoch
            slot.views.clear()  # nobody can find them any more
        elif len(slot.views) >= MAX_VIEWS:
            kept = slot.views[1:]
            slot.views = slot.views[:1]
            slot.hide()
            slot.views = kept
        if front is None:
            front, seat = self._loose, view
        view.seat = (front, seat)
        front[seat] = view
        slot.views.append(view)
        view.until = until

    def order(self) -> Iterator[Slot]:
        """Yield the slots from the oldest to the newest."""
        slot = self._newest
        for _ in range(len(self.slots)):
            assert slot is not None
            slot = slot.next
            yield slot

    def forked(self) -> None:
        """Replace the lock, which another thread may have held at the fork."""
        self.lock = threading.RLock()

    def _drop(self, slot: Slot) -> None:
        slot.entry = None
        slot.missing = None
        slot.failures = 0
        slot.retry_at = NEVER
        slot.refresh_from = math.inf
        slot.wanted = False
        slot.hide()

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

    def _insert(self, slot: Slot) -> None:
        newest = self._newest
        if newest is None:
            self._before = slot
        else:
            slot.next = newest.next
            newest.next = slot
            if self._before is newest:  # the hand stays on the oldest
                self._before = slot
        self._newest = slot
        self.slots[slot.key] = slot

    def _evict(self) -> bool:
        """Let go of one slot; False when every one is pinned, or there is none."""
        before = self._before
        if before is None:
            return False
        pinned = self.pinned()
        for _ in range(2 * len(self.slots)):
            hand = before.next
            if hand.hits == hand.mark and hand.key not in pinned:
                break
            hand.mark = hand.hits
            before = self._before = hand
        else:
            return False
        if hand is before:
            self._newest = self._before = None
        else:
            before.next = hand.next
            if hand is self._newest:
                self._newest = before
        del self.slots[hand.key]
        self._ungroup(hand)
        self._former_hits += hand.hits
        self.evictions += 1
        hand.entry = None
        hand.hide()
        return True
