"""
How old may a value be?  Pure: what is fresh, what is due, what may be stale.

    0 ─────────── fresh ──────────┬────────── stale, if need be ─────────┬ dead
                      due here ▲  max_age                max_age + max_stale

The age of a value counts from when its request was sent.
"""

from __future__ import annotations

import math

from .entries import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..typing import Source
    from .entries import Entry, Slot
    from .keys import Key

DUE_FROM = 0.70  # of max_age: a refresh takes along what is this old ...
DUE_SPREAD = 0.20  # ... and is begun by a hit up to this much later
NOT_FOUND_S = 5.0  # a secret that is being created may be asked for soon
BACKOFF_S = 1.0  # doubled at each failure, of which half to all is waited
LONGEST_BACKOFF_S = 60.0


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


class ClientWant(Want):
    """What a boto3-shaped client wants: no error is remembered for it."""

    __slots__ = ()

    def remembers(self, age: float) -> bool:
        """Say that it is asked for again, also where a handle has it."""
        return False


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
