"""
One load of one key, under way, and what can become of it.

Threads
    A flight is led by one thread and awaited by others through `Flight.done`;
    the loader's lock guards everything else about it.
"""

from __future__ import annotations

import threading

from .. import disclosure
from ..exceptions import LambdaExtError, SourceError, SourceTimeoutError
from ..lifecycle import clock
from .transforms import withheld

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from ..typing import Source
    from .cache import Entry
    from .keys import Key

    E = TypeVar("E", bound=LambdaExtError)
    Outcome = Entry | LambdaExtError


class Flight:
    """One load of one key, under way."""

    __slots__ = (
        "abandoned",
        "background",
        "done",
        "generation",
        "key",
        "leader",
        "order",
        "outcome",
        "source",
        "told",
        "void",
    )

    def __init__(
        self, source: Source, key: Key, order: int, *, background: bool
    ) -> None:
        self.source = source
        self.key = key
        self.order = order
        self.background = background
        self.generation = clock.generation
        self.leader = threading.get_ident()
        self.outcome: Outcome | None = None
        self.done = threading.Event()
        self.void = False  # invalidated meanwhile: what it brings is not kept
        self.abandoned = False  # its leader was interrupted: ask again
        self.told = False  # that a stale value is served instead

    def takes(self, generation: int) -> bool:
        """
        Say whether a caller may board.

        Not after a possible freeze, and not its own leader: a signal handler
        that interrupts a load, or a source that asks for what it is loading,
        would wait for itself.
        """
        return self.generation == generation and self.leader != threading.get_ident()


def again(error: E, *, chained: bool = True) -> E:
    """
    Return an exception of the caller's own, *chained* to *error*.

    Not chained, it keeps nothing alive: no traceback, hence nobody's variables.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    if chained:
        copy.__cause__ = error
    return copy


def named(error: LambdaExtError, label: str) -> LambdaExtError:
    """Return *error*, or what it means for this one key of a batch."""
    if not isinstance(error, SourceError) or error.key == label:
        return error
    named = again(error)
    named.key = label
    return named


def by_scope(flights: Iterable[Flight]) -> Iterable[list[Flight]]:
    """Divide *flights* by where they ask."""
    groups: dict[object, list[Flight]] = {}
    for flight in flights:
        groups.setdefault(flight.key.scope, []).append(flight)
    return groups.values()


def too_late(key: Key, source: str) -> SourceTimeoutError:
    """Return the error for a load that outlasts its caller's time."""
    msg = f"{key.label!r} did not come in the time that was left"
    return SourceTimeoutError(msg, key=key.label, source=source, transient=True)


def unanswered(flight: Flight) -> SourceError:
    """Return the error for a source that forgot a key."""
    msg = f"{flight.source.name} gave no answer for {flight.key.label!r}"
    return SourceError(msg, key=flight.key.label, source=flight.source.name)


def broken(source: Source, exc: Exception, keys: Iterable[Key]) -> SourceError:
    """Return the error for a source that raised what sources must not."""
    labels = [key.label for key in keys]
    asked = ", ".join(map(repr, labels[:3])) + (", ..." if labels[3:] else "")
    name = _name_of(source)
    msg = f"the source {name} raised {type(exc).__name__} when asked for {asked}"
    error = SourceError(msg, key=labels[0], source=name)
    error.__cause__ = withheld(exc)
    return error


def _name_of(source: Source) -> str:
    try:
        return str(source.name)
    except Exception:  # what is broken may be broken here, too
        return type(source).__name__


def tell(event: str, key: Key, source: Source, error: LambdaExtError) -> None:
    """Log what an error did to a value; never the value."""
    disclosure.warn(
        event,
        key=key.label,
        source=source.name,
        error=type(error).__name__,
        code=getattr(error, "code", ""),
    )
