"""
What was dropped of the records of this process, counted exactly, and logged.

Two log lines tell of it:

    lambda_ext.metric_dropped reason=value name='size': a value is ...

once for each reason and name (at most `MAX_LOGGED` of them), when it is first
seen: what was given, as a type, and what to change; and

    lambda_ext.metrics_dropped number=3000 {"value": {"size": 2000, "n": 1000}}

once for each flush that finds new ones: how many records were dropped since
the last such line, and how many of each reason and name, as JSON.  The sum of
all these lines is what `stats()` says.

Exactness
    ``+=`` on a number in a dictionary loses counts when a thread or a signal
    handler comes between its read and its write.  So each loss is appended to
    a list, `losses.uncounted`, and `_fold` moves it into totals by plain assignments,
    between which no signal handler and no other thread can run.

Loaded when the first loss is logged, or `stats()` is called.
"""

from __future__ import annotations

import json
import logging

from .. import disclosure
from ..lifecycle import process
from ..lifecycle.process import by_signal_handler
from . import losses
from .losses import uncounted, unlogged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .losses import Numbers

MAX_LOGGED = 100  # log lines of the first kind
MAX_NAMES = 1_000  # that are told apart in the totals of a process
MAX_SHOWN = 20  # names of a reason in a log line of the second kind
OTHERS = "..."  # stands for the names beyond

# Not the fault of a name: logged once for all names.
WHOLESALE = frozenset(("internal", "overflow", "shutdown", "sink", "stdout"))

_log = logging.getLogger("lambda_ext")
_lock = process.Lock()


class State:
    """Totals, each replaced as a whole; `version` is another one after each change."""

    __slots__ = ("logged", "refused", "totals", "version")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start again from zero; what is being counted meanwhile sees the version."""
        self.version: object = object()
        self.totals: Numbers = {}
        self.logged: set[tuple[str, str]] = set()
        self.refused = 0  # records that never came into the buffer


state = State()


def drop(reason: str, number: int, message: str, *, name: str = "") -> None:
    """Count *number* dropped records; log *message* once for *reason* and *name*."""
    uncounted.append((reason, name, number, message))
    tell_first()


def refuse(reason: str, message: str, *, name: str = "") -> None:
    """Count one record that is refused where it is recorded; log as `drop` does."""
    uncounted.append(("", "", 1, ""))
    drop(reason, 1, message, name=name)


def tell_first() -> None:
    """Count what is in `uncounted`, and log those seen for the first time."""
    for reason, name, message in _fold():
        logged = state.logged
        if len(logged) < MAX_LOGGED and (reason, name) not in logged:
            logged.add((reason, name))
            called = f" name={name!r}" if name else ""
            first, _, trace = message.partition("\n")
            text = disclosure.printable(f"reason={reason}{called}: {first}")
            _warn(f"lambda_ext.metric_dropped {text}{trace and chr(10)}{trace}")


def dropped() -> dict[str, int]:
    """Return how many records were dropped, by reason."""
    tell_first()
    return {
        reason: sum(names.values()) for reason, names in _nested(state.totals).items()
    }


def dropped_by_name() -> dict[str, dict[str, int]]:
    """Return how many records were dropped, by reason and name.

    A name that is no text is ``<its type>``; past `MAX_NAMES` all others are
    one, `OTHERS`; what is dropped without regard to names is "".
    """
    tell_first()
    return _nested(state.totals)


def refused() -> int:
    """Return how many records were refused where they were recorded."""
    tell_first()
    return state.refused


def _fold() -> list[tuple[str, str, str]]:
    """Move `uncounted` into the totals; return those not logged yet."""
    first: dict[tuple[str, str], str] = {}
    with _lock:
        _fold_all(first)
    return [(reason, name, message) for (reason, name), message in first.items()]


def _fold_all(first: dict[tuple[str, str], str]) -> None:
    now = state
    while uncounted:
        version = now.version
        count = len(uncounted)
        totals, refused = {**now.totals}, now.refused
        waiting: Numbers = {}
        for numbers in [*unlogged]:
            waiting.update(numbers)
        for reason, name, number, message in uncounted[:count]:
            if not reason:
                refused += number
                continue
            what = (reason, name)
            if what not in totals and len(totals) >= MAX_NAMES:
                what = (reason, OTHERS)
            totals[what] = totals.get(what, 0) + number
            waiting[what] = waiting.get(what, 0) + number
            if reason in WHOLESALE:
                what = (reason, "")
            if what not in now.logged:
                first.setdefault(what, message)
        after, counted = object(), [waiting] if waiting else []
        if now.version is version:  # else a signal handler did it meanwhile
            now.version = after
            now.totals = totals
            unlogged[:] = counted
            now.refused = refused
            del uncounted[:count]


@process.at_fork
@process.at_reset
def reset() -> None:
    """Count from zero again, and log each reason and name again."""
    losses.forget()
    state.clear()


def _nested(numbers: Numbers) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (reason, name), number in numbers.items():
        nested.setdefault(reason, {})[name] = number
    return nested


def _shortened(nested: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Keep the most frequent names of each reason."""
    short = {}
    for reason, names in nested.items():
        most = sorted(names.items(), key=_number, reverse=True)
        short[reason] = dict(most[:MAX_SHOWN])
        if most[MAX_SHOWN:]:
            rest = sum([number for _, number in most[MAX_SHOWN:]])
            short[reason][OTHERS] = rest + short[reason].get(OTHERS, 0)
    return short


def _number(pair: tuple[str, int]) -> int:
    return pair[1]


def _warn(text: str) -> None:
    """Log; a handler or filter of the user's that raises is not our caller's."""
    try:
        _log.warning("%s", text)
    except Exception as exc:
        if by_signal_handler(exc):
            raise


# Last: what finds it finds all of this module, also in the middle of its import.
def tell() -> None:
    """Log how many records were dropped since the last time, if any were."""
    if uncounted:
        tell_first()
    if not unlogged:
        return
    after = object()
    with _lock:
        waiting = [*unlogged]
        del unlogged[:]
        state.version = after
    for numbers in waiting:
        text = json.dumps(_shortened(_nested(numbers)))
        number = sum(numbers.values())
        _warn(f"lambda_ext.metrics_dropped number={number} {text}")
