"""
What is wanted and remembered of one request, how old it may be, what is under way.

    Slot ─▶ Entry ─▶ answer      what is known of a key, its entry, its answer
              └────▶ Decoded     what was made of it, for one transform and field
      ├──▶ View ─▶ value         what hits find: a value as one caller wants it
      └──▶ Load                  the load that readers may wait for

How old may a value be?  Its age counts from when its request was sent.

    0 ─────────── fresh ──────────┬────────── stale, if need be ─────────┬ dead
                      due here ▲  max_age                max_age + max_stale

All instants are house time, all sequence numbers those of loads in the order in
which they were begun.  `Slot.floor` decides what may still be stored: nothing
that was begun before an invalidation, or before what is stored.
"""

from __future__ import annotations

import math

from ..lifecycle import clock, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any, Protocol

    from ..answer import Answer
    from ..exceptions import LambdaExtError
    from ..typing import Source
    from .keys import Key

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


NEVER = -math.inf
DUE_FROM = 0.70  # of max_age: a refresh takes along what is this old ...
DUE_SPREAD = 0.20  # ... and is begun by a hit up to this much later
NOT_FOUND_S = 5.0  # a secret that is being created may be asked for soon
BACKOFF_S = 1.0  # doubled at each failure, of which half to all is waited
LONGEST_BACKOFF_S = 60.0
WAKE_S = 0.5  # at most, until a reader notices that no thread leads its load


class Want:
    """What a caller wants: a key, from where, and how old it may be."""

    __slots__ = ("key", "max_age", "max_stale", "source")

    keeps_errors = True  # a "not found" of its load is remembered, for seconds

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
        self.answered = 0  # sequence when the answer arrived: later loads overlap none
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
        "entry",
        "failures",
        "floor",
        "group",
        "hits",
        "key",
        "load",
        "mark",
        "memo",
        "missing",
        "next",
        "previous",
        "refresh_from",
        "retry_at",
        "source",
        "unheard",
        "views",
        "wanted",
    )

    def __init__(self, key: Key, source: Any) -> None:
        self.key = key
        self.source = source
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
        # Of a load before the first read, and when; told to the first reader.
        self.unheard: tuple[LambdaExtError, float] | None = None
        self.failures = 0  # passing ones in a row
        self.retry_at = NEVER  # house time before which a stale value is served
        self.refresh_from = math.inf  # house time; never if it has not been read
        self.wanted = False  # the worker has been asked to refresh it

    def __repr__(self) -> str:
        return f"<Slot {self.key.label!r} {self.entry}>"

    def expire_views(self) -> None:
        """Let no hit find a view of it any more; the next read looks here."""
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
        self.batch = batch  # whose threads see to it
        self.background = background  # no reader waits for it
        self.early = early  # of what is declared, before its first read
        self.generation = clock.generation
        self.thread = real_threads.get_ident()  # that makes its call, or will
        self.call: Any = None  # that carries it
        self.slot: Slot | None = None  # None: what it brings is not kept
        self.outcome: Entry | LambdaExtError | None = None
        self.abandoned = False  # its thread was interrupted: ask again
        self.finished = False  # and listeners have been told
        self.notified = False  # that a stale value is served instead is logged
        self.remembers = True  # a "not found", for seconds
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
        Wait until it is over, and *listeners* told, for *left_s* seconds at most.

        Returns at once when it has no thread any more.
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
        """Let the readers go on that wait for it."""
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

    Alike for all that came in one call, so that they go in one call again,
    and different from environment to environment.
    """
    return entry.born_at + max_age * (DUE_FROM + DUE_SPREAD * entry.jitter)


def good_until(
    slot: Slot, entry: Entry, want: Want, now: float, *, refreshing: bool
) -> float:
    """
    Return the house time until which hits need not come back to us.

    That is until the value is due, while it is being refreshed until it
    expires (the end of the refresh hides it), and after a refresh that failed
    until the next may be tried.
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
    """Return the seconds to leave AWS alone after so many *failures*."""
    longest_s = min(BACKOFF_S * 2.0 ** (failures - 1), LONGEST_BACKOFF_S)
    return longest_s * (0.5 + 0.5 * jitter)
