"""Random records by seed: made by a function under test, and added up by the test."""

from __future__ import annotations

import random

THREADS = 8


def records(seed, thread, count):
    """Yield (kind, name, value, dimensions) of each record; "flush" comes in between."""
    rng = random.Random(f"{seed} {thread}")
    for _ in range(count):
        if rng.random() < 0.02:
            yield "flush", "", rng.choice((0.0, 0.05)), {}
        kind = rng.choice(("count", "distribution"))
        dimensions = {"shop": f"{rng.randrange(3)}"} if rng.random() < 0.7 else {}
        yield kind, f"{kind}.{rng.randrange(4)}", rng.randrange(1, 1_000), dimensions


def expected(jobs):
    """Return {(name, {(key, value), ...}): sum} of all threads of (seed, count) *jobs*."""
    sums = {}
    for seed, count in jobs:
        for thread in range(THREADS):
            for kind, name, value, dimensions in records(seed, thread, count):
                if kind != "flush":
                    key = (name, frozenset(dimensions.items()))
                    sums[key] = sums.get(key, 0) + value
    return sums
