"""
From flights to calls: which keys go together, on which thread, how often.

A source says how to divide what is wanted into calls.  The first is made by
the caller's own thread, the rest by others beside it.

Threads
    No state but two counters; `settle` and `abandon` are the loader's, which
    takes its lock.
"""

from __future__ import annotations

from collections import deque

from ..exceptions import LambdaExtError
from ..lifecycle import clock
from . import fanout
from .cache import Answer
from .flights import broken, by_scope, too_late

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from ..typing import Source
    from .flights import Flight
    from .keys import Key

    class Tower(Protocol):
        """Who is told what became of flights."""

        def settle(
            self,
            flights: list[Flight],
            outcomes: Mapping[Key, Answer | LambdaExtError],
            sent_at: float,
        ) -> None:
            """Keep what was answered to *flights*."""
            ...

        def abandon(self, flights: list[Flight]) -> None:
            """Note that whoever led *flights* was interrupted."""
            ...


class Dispatcher:
    """Makes the calls that flights need."""

    def __init__(self, tower: Tower) -> None:
        self._tower = tower
        self.loads = 0  # calls of a source for which somebody waits
        self.refreshes = 0  # calls of a source for which nobody does

    def fly(self, flights: list[Flight], timeout_s: float | None) -> None:
        """Load the keys of *flights*, in as few calls as their sources plan."""
        calls: deque[tuple[Source, list[Flight]]] = deque()
        try:
            for part in by_scope(flights):
                calls.extend(self._planned(part))
            for _ in range(min(len(calls), fanout.WORKERS) - 1):
                if not fanout.start(
                    "lambda_ext-load", lambda: self._work(calls, timeout_s)
                ):
                    break
            self._work(calls, timeout_s)
        except BaseException:
            # Also what a helper is about to bring, or what was not planned yet.
            self._tower.abandon(flights)
            calls.clear()
            raise

    def _planned(self, flights: list[Flight]) -> list[tuple[Source, list[Flight]]]:
        source = flights[0].source
        keys = [flight.key for flight in flights]
        by_key = dict(zip(keys, flights, strict=True))
        try:
            calls = [
                (source, [by_key.pop(key) for key in part])
                for part in source.plan([*keys])
            ]
        except Exception as exc:
            error = broken(source, exc, keys)
            self._tower.settle(flights, dict.fromkeys(keys, error), 0.0)
            return []
        if by_key:
            self._tower.settle([*by_key.values()], {}, 0.0)
        return calls

    def _work(
        self, calls: deque[tuple[Source, list[Flight]]], timeout_s: float | None
    ) -> None:
        while True:
            try:
                source, flights = calls.popleft()
            except IndexError:
                return
            try:
                self._call(source, flights, timeout_s)
            except BaseException:
                self._tower.abandon(flights)
                raise

    def _call(
        self, source: Source, flights: list[Flight], timeout_s: float | None
    ) -> None:
        """Ask *source* once, or once more if a freeze spoilt it, and settle."""
        keys = [flight.key for flight in flights]
        background = flights[0].background
        generation = clock.generation
        sent_at = clock.now()
        outcomes = self._ask(source, keys, timeout_s, background=background)
        failed = [key for key in keys if not isinstance(outcomes.get(key), Answer)]
        if failed and (clock.sync() or clock.generation != generation):
            if failed == keys:
                sent_at = clock.now()
            outcomes.update(self._ask(source, failed, timeout_s, background=background))
        self._tower.settle(flights, outcomes, sent_at)

    def _ask(
        self,
        source: Source,
        keys: list[Key],
        timeout_s: float | None,
        *,
        background: bool,
    ) -> dict[Key, Answer | LambdaExtError]:
        left_s = timeout_s if background else fanout.left(timeout_s)
        if left_s is not None and left_s <= 0:
            return {key: too_late(key, source.name) for key in keys}
        if background:
            self.refreshes += 1
        else:
            self.loads += 1
        try:
            return dict(source.fetch(keys, left_s))
        except LambdaExtError as exc:
            return dict.fromkeys(keys, exc)
        except Exception as exc:
            return dict.fromkeys(keys, broken(source, exc, keys))
