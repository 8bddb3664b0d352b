"""
What happened, in order, on one clock.

Everything that a run sees goes here once: phases of the environment, freezes
and thaws, requests to the Lambda APIs and to AWS, lines of output, signals,
exits, steps.  Reports are views of it; `Journal.of` is the simplest one.

Threads
    `note` takes the time and the place in one step, so that the order of the
    list is that of the times.  Entries are never changed or removed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# Kinds of events, and what each one holds.
STEP = "step"  # the step that begins, see `steps`
INIT_STARTED = "init_started"  # the phase: init, invoke, snap-start
INIT_DONE = "init_done"  # InitReport
RESTORE_STARTED = "restore_started"
RESTORE_DONE = "restore_done"  # RestoreReport
INVOKE_STARTED = "invoke_started"  # the request id
ANSWERED = "answered"  # Invocation: the caller has its answer
INVOKE_DONE = "invoke_done"  # the request id: runtime and extensions are idle
FROZEN = "frozen"
THAWED = "thawed"
SIGNAL = "signal"  # Signal
EXITED = "exited"  # Exit
SHUTDOWN_STARTED = "shutdown_started"  # the reason
SHUTDOWN_DONE = "shutdown_done"  # Shutdown
CALL = "call"  # Call: a request to the Runtime or Extensions API
AWS_CALL = "aws_call"  # AwsCall: a request to AWS, when it was answered
LINE = "line"  # Line
SUBSCRIBED = "subscribed"  # Subscription: an extension wants telemetry
DELIVERED = "delivered"  # Delivery: telemetry, to an extension
SEEN = "seen"  # Seen: what the observer told


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    at: float  # seconds since the journal began
    kind: str
    what: Any = None


class Journal:
    """An ordered list of events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.began_wall = time.time()  # the wall clock when it began
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._of: dict[str, list[Any]] = {}

    def now(self) -> float:
        """Return the time: seconds since the journal began."""
        return time.monotonic() - self._began

    def note(self, kind: str, what: Any = None) -> None:
        """Add an event that happens now."""
        self.make(kind, lambda at: what)

    def make(self, kind: str, make: Callable[[float], T]) -> T:
        """Add what *make* returns, which is given the time, and return it."""
        with self._lock:
            at = self.now()
            what = make(at)
            self.events.append(Event(at, kind, what))
            self._of.setdefault(kind, []).append(what)
        return what

    def of(self, kind: str) -> list[Any]:
        """Return what the events of *kind* hold; the list grows with the journal."""
        with self._lock:
            return self._of.setdefault(kind, [])

    def after(self, at: float, *kinds: str) -> list[Event]:
        """Return the events from *at* on, of *kinds* or of all."""
        return [
            event
            for event in self.events.copy()
            if event.at >= at and (not kinds or event.kind in kinds)
        ]
