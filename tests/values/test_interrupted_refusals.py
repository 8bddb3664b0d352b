"""A signal handler that raises, anywhere in a protected call or a lease."""

from __future__ import annotations

import contextlib
import contextvars

from helpers import run_threads
from interruptions import interruptions

from lambda_ext import injection
from lambda_ext.injection import inject
from lambda_ext.testing import FakeClock, FakeSource
from lambda_ext.values import cache, derived, given, rotation
from lambda_ext.values.handles import Secret
from lambda_ext.values.rotation import refresh_on


class RefusedError(Exception):
    """The database does not take the password."""


def protected_call(interruption):
    """Interrupt a call whose credential was rotated, and call again."""
    with FakeClock() as time, FakeSource({"db": "old"}) as source:
        db = Secret("db")
        db.value
        source.rotate("db", "new")

        @refresh_on(RefusedError, db)
        def connect():
            if db.value != "new":
                raise RefusedError
            return db.value

        with interruption, contextlib.suppress(RefusedError):
            connect()
        running = set(cache.protected)
        time.advance(60)
        return running, run_threads(1, lambda _: connect())


def test_protected_call_leaves_nothing_behind():
    """No hit pays afterwards, and no other thread waits for a load."""
    outcomes = [
        (interruption.raised == interruption.happened, *outcome)
        for interruption in interruptions([rotation, given])
        for outcome in [contextvars.copy_context().run(protected_call, interruption)]
    ]

    assert [(True, set(), ["new"])] * len(outcomes) == outcomes
    assert len(outcomes) > 50


def leased(interruption):
    """Interrupt an exchange of the object while it is in use."""
    with FakeClock(), FakeSource({"db": "old"}) as source:
        db = Secret("db")
        closed = []
        pool = db.derive(lambda value: [value], close=closed.append)
        use = inject(p=pool)(lambda *, p: p)
        with pool as mine:
            with interruption:
                source.rotate("db", "new")
                db.invalidate()
                with pool:
                    pass
                use()
            db.invalidate()
            made = run_threads(1, lambda _: use())
            early = mine in closed
        return early, made


def test_lease_closes_nothing_early_and_locks_nothing():
    """What is in use stays open; another thread enters and makes."""
    outcomes = [
        (interruption.raised == interruption.happened, *outcome)
        for interruption in interruptions([derived, injection])
        for outcome in [contextvars.copy_context().run(leased, interruption)]
    ]

    assert [(True, False, [["new"]])] * len(outcomes) == outcomes
    assert len(outcomes) > 50
