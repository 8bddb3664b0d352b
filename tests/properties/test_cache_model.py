"""
Cache and loader against a model: a dictionary, and a list of times.

`REACHED` counts what a read found in each state that matters; the test fails
if a run has seen any of them less than a few hundred times.
"""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from lambda_ext.exceptions import AccessDeniedError, NotFoundError, ThrottledError
from lambda_ext.lifecycle import clock, phases
from lambda_ext.testing import FakeClock, FakeSource
from lambda_ext.values import calls, store
from lambda_ext.values.getters import get_secret

ALL = ("a", "b", "c", "d")
NAMES = st.sampled_from(ALL)
AGES = st.sampled_from([300.0, 300.0, 300.0, 60.0, 0.0, None])  # 300: the option's
# Binary fractions: model and library add them up from different beginnings.
TIMES = st.sampled_from([0.5, 1.0, 5.0, 30.0, 70.0, 240.0, 301.0, 4000.0])
MAX_STALE = 3600.0
JITTER = 0.5  # so a value is due at 80 % of its age
READS = st.lists(st.tuples(NAMES, AGES), min_size=1, max_size=6)

STATES = ("fresh", "due", "expired", "expired while throttled", "taken along", "dead")
REACHED = Counter()

pytestmark = pytest.mark.logs


class Entry:
    """What the model knows of one value."""

    def __init__(self, value, born):
        self.value = value
        self.born = born
        self.failures = 0
        self.retry_at = -math.inf
        self.read_from = math.inf  # when a refresh takes it along
        self.wanted = False


class Machine(RuleBasedStateMachine):
    """Reads at random times of values that change, fail and come back."""

    @initialize()
    def begin(self):
        clock.reset()
        phases.reset()
        store.reset()
        self.patches = [
            mock.patch.object(calls, "random", return_value=JITTER),
            mock.patch.object(calls, "may_be_interrupted", return_value=False),
            mock.patch.object(
                store.loader,
                "worker",
                SimpleNamespace(wake=lambda: None, close=lambda: None),
            ),
        ]
        for patch in self.patches:
            patch.start()
        self.time = FakeClock().install()
        self.source = FakeSource()
        store.use(self.source)
        self.now = 0.0
        self.server = {}
        self.number = 0
        self.mode = "ok"
        self.entries = {}
        self.missing = {}
        self.calls = 0
        for name in ALL:
            self.rotate(name)

    def teardown(self):
        store.use(None)
        for patch in self.patches:
            patch.stop()
        self.time.uninstall()
        store.reset()

    # The world ----------------------------------------------------------------

    @rule(seconds=TIMES)
    def time_goes_by(self, seconds):
        self.time.advance(seconds)
        self.now += seconds

    @rule(seconds=TIMES)
    def environment_is_frozen(self, seconds):
        self.time.step(seconds)
        self.now += seconds
        clock.begin_invocation()

    @rule(name=NAMES)
    def value_is_rotated(self, name):
        self.rotate(name)

    def rotate(self, name):
        self.number += 1
        self.server[name] = f"{name}{self.number}"
        self.source.rotate(name, self.server[name])

    @rule(name=NAMES)
    def value_is_deleted(self, name):
        if self.server.pop(name, None) is not None:
            self.source.remove(name)

    @rule(mode=st.sampled_from(["ok", "ok", "throttled", "denied"]))
    def aws_changes_its_mind(self, mode):
        self.mode = mode
        self.source.recover()
        if mode == "throttled":
            self.source.fail(ThrottledError("too many", transient=True))
        elif mode == "denied":
            self.source.fail(AccessDeniedError("no"))

    # What the library does ----------------------------------------------------

    @rule(reads=READS)
    def read_several(self, reads):
        for name, max_age in reads:
            self.read(name, max_age)

    @rule(reads=READS, seconds=st.sampled_from([245.0, 301.0, 900.0]))
    def read_after_a_while(self, reads, seconds):
        for name in ALL:
            self.read(name, 300.0)
        self.time_goes_by(seconds)
        self.read_several(reads)

    @rule(reads=READS, seconds=st.sampled_from([209.0, 215.0, 245.0]))
    def read_what_is_due(self, reads, seconds):
        """Values that were just loaded come near their end."""
        self.aws_changes_its_mind("ok")
        for name, _ in reads:
            self.rotate(name)
            self.read_by_force(name)
        self.time_goes_by(seconds)
        for name, _ in reads:
            self.read(name, 300.0)

    @rule(reads=READS, pause=st.sampled_from([0.125, 0.875, 2.0]))
    def outage(self, reads, pause):
        """AWS throttles while values expire, and is asked again and again."""
        self.aws_changes_its_mind("ok")
        for name, max_age in reads:
            self.rotate(name)
            self.read(name, max_age)
        self.aws_changes_its_mind("throttled")
        self.time_goes_by(301.0)
        self.read_several(reads)
        self.time_goes_by(pause)
        self.read_several(reads)

    def read(self, name, max_age):
        expected = self.model_read(name, max_age)
        if max_age == 300.0:
            assert expected == self.outcome(lambda: get_secret(name))
        else:
            assert expected == self.outcome(lambda: get_secret(name, max_age=max_age))

    @rule(name=NAMES)
    def read_by_force(self, name):
        expected = self.model_load(name)
        if name in self.entries and not isinstance(expected, type):
            self.model_note_read(self.entries[name], 300.0)
        assert expected == self.outcome(lambda: get_secret(name, force_fetch=True))

    @rule(name=NAMES)
    def invalidate(self, name):
        store.invalidate(name, "GetSecretValue")
        self.entries.pop(name, None)
        self.missing.pop(name, None)

    @rule()
    def snapshot_and_restore(self):
        phases.call(phases.SNAPSHOT)
        phases.call(phases.RESTORE)
        self.entries.clear()
        self.missing.clear()

    @rule()
    def refresh(self):
        store.loader.refresh_due()
        due = self.model_due()
        if due:
            self.calls += 1
        for name in due:
            self.entries[name].wanted = False
            self.model_settle(name)

    @invariant()
    def as_many_calls_as_the_model_makes(self):
        if hasattr(self, "source"):
            assert self.calls == len(self.source.calls)

    @staticmethod
    def outcome(read):
        try:
            return read()
        except (AccessDeniedError, NotFoundError, ThrottledError) as exc:
            return type(exc)

    # The model ----------------------------------------------------------------

    def model_settle(self, name):
        """A call of AWS for *name* ends now; return its outcome."""
        if self.mode == "throttled":
            entry = self.entries.get(name)
            if entry is not None:
                entry.failures += 1
                pause = min(2.0 ** (entry.failures - 1), 60.0)
                entry.retry_at = self.now + pause * (0.5 + 0.5 * JITTER)
                entry.wanted = False  # AWS is left alone for that long
            return ThrottledError
        self.entries.pop(name, None)
        self.missing.pop(name, None)
        if self.mode == "denied":
            return AccessDeniedError
        if name not in self.server:
            self.missing[name] = self.now
            return NotFoundError
        self.entries[name] = Entry(self.server[name], self.now)
        return self.server[name]

    def model_due(self, but=None):
        """Return the names that a refresh, or an expired read, takes along."""
        return [
            name
            for name, entry in self.entries.items()
            if name != but
            and (
                entry.wanted
                or (entry.read_from <= self.now and entry.retry_at <= self.now)
            )
        ]

    def model_load(self, name):
        self.calls += 1
        return self.model_settle(name)

    def model_read(self, name, max_age):
        entry = self.entries.get(name)
        if entry is None:
            asked_at = self.missing.get(name)
            if asked_at is not None and max_age != 0:
                limit = 5.0 if max_age is None else min(5.0, max_age)
                if self.now - asked_at < limit:
                    return NotFoundError
        else:
            age = self.now - entry.born
            if max_age is None or age < max_age:
                due = max_age and age >= max_age * (0.70 + 0.20 * JITTER)
                REACHED["due" if due else "fresh"] += 1
                self.model_note_read(entry, max_age)
                return entry.value
            tolerable = bool(max_age) and age < max_age + MAX_STALE
            if tolerable and self.now < entry.retry_at:
                REACHED["expired while throttled"] += 1
                self.model_note_read(entry, max_age)
                return entry.value
        REACHED["dead" if entry is None else "expired"] += 1
        along = self.model_due(name) if entry is not None and max_age != 0 else ()
        outcome = self.model_load(name)
        for other in along:  # in the same call
            REACHED["taken along"] += 1
            self.entries[other].wanted = False
            self.model_settle(other)
        entry = self.entries.get(name)
        limit = max_age + MAX_STALE if max_age else 0
        throttled = outcome is ThrottledError and entry is not None
        if throttled and self.now - entry.born < limit:
            self.model_note_read(entry, max_age)
            return entry.value
        if entry is not None and outcome is not ThrottledError:
            self.model_note_read(entry, max_age)
        return outcome

    def model_note_read(self, entry, max_age):
        if max_age:
            entry.read_from = min(entry.read_from, entry.born + max_age * 0.70)
            due = self.now >= entry.born + max_age * (0.70 + 0.20 * JITTER)
            if due and self.now >= entry.retry_at:
                entry.wanted = True


def test_reads_are_what_the_model_says():
    """For all events in all orders; each state is reached hundreds of times."""
    REACHED.clear()
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=120, stateful_step_count=40, deadline=None),
    )

    assert {} == {state: REACHED[state] for state in STATES if REACHED[state] < 200}
