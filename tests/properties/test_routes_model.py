"""Routes against a model: every record is handed over once, or counted with its reason."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_ext import telemetry
from lambda_ext.lifecycle import process
from lambda_ext.telemetry import records, routes

pytestmark = pytest.mark.logs  # a sink that raises is logged

LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", None]
NUMBERS = {"DEBUG": 10, "INFO": 20, None: 20, "WARN": 30, "ERROR": 40}


class Sink:
    """Keeps the numbers of the lines that it is given."""

    name = "sink"

    def __init__(self, broken):
        self.calls = []
        self.broken = broken  # numbers of the calls that raise
        self.count = 0

    def accept_logs(self, entries):
        self.count += 1
        if self.count in self.broken:
            raise ValueError
        self.calls.append([entry.body["n"] for entry in entries])


lines = st.tuples(
    st.sampled_from(LEVELS),
    st.integers(0, 3),  # which invocation
    st.integers(0, 4),  # which message
)
steps = st.lists(st.lists(lines, max_size=8) | st.just("flush"), max_size=12)


def batch(found, first):
    """Return a batch of *found*, whose lines are numbered from *first*."""
    elements = []
    for offset, (level, request, message) in enumerate(found):
        body = {
            "message": f"m{message}",
            "n": first + offset,
            "requestId": f"r{request}",
        }
        if level:
            body["level"] = level
        elements.append({"time": "", "type": "function", "record": body})
    return records.parse(json.dumps(elements))


@settings(deadline=None, max_examples=60)
@given(
    steps,
    st.sampled_from(["DEBUG", "WARN", "ERROR"]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from(["oldest", "newest"]),
    st.sets(st.integers(1, 6), max_size=2),
)
def test_every_record_has_one_outcome(
    script, level, sample, deduplicate, limit, max_records, drop, broken
):
    """In order, within the bounds, by the policy; and the numbers add up."""
    process.reset()
    sink = Sink(broken)
    route = telemetry.route(
        level=f">={level}", sample=sample, deduplicate=1.0 if deduplicate else 0
    ).to(sink, limit=limit, max_records=max_records, drop=drop, max_age=1e9)
    # Handed over by this test alone, so that the model knows when.
    route.outlet._not_before = math.inf
    expected, waiting, known = {"handed": [], "sink": 0}, [], set()
    dropped = {"sampled": 0, "duplicate": 0, "queue_full": 0}
    number = taken = calls = 0

    def hand_over():
        nonlocal calls
        while waiting:
            calls += 1
            size = min(max_records, limit)
            call, waiting[:] = waiting[:size], waiting[size:]
            if calls in broken:
                expected["sink"] += len(call)
                return
            expected["handed"].append(call)

    for step in script:
        if step == "flush":
            route.outlet._call(1e12, everything=True, last=False)
            route.outlet._not_before = math.inf
            hand_over()
            continue
        route(batch(step, number))
        for found, request, message in step:
            if NUMBERS[found] >= NUMBERS[level]:
                taken += 1
                if not routes.is_sampled(f"r{request}", sample) and sample < 1:
                    dropped["sampled"] += 1
                elif deduplicate and (found, message) in known:
                    dropped["duplicate"] += 1
                else:
                    known.add((found, message))
                    if len(waiting) < limit:
                        waiting.append(number)
                    else:
                        dropped["queue_full"] += 1
                        if drop == "oldest":
                            waiting[:] = [*waiting[1:], number]
            number += 1
    status = route.status()

    assert expected["handed"] == sink.calls
    counted = {**dropped, "sink": expected["sink"]}
    assert {reason: n for reason, n in counted.items() if n} == status.dropped
    assert (taken, len(waiting)) == (status.taken, status.waiting)
    assert status.taken == status.handed + status.waiting + sum(status.dropped.values())
    process.reset()
