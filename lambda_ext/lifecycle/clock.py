"""
The only file that asks what time it is.

House time is monotonic run time plus the largest lead that wall time ever
had over it.  A freeze may stop the monotonic clock but not the wall clock, so
after a thaw the lead has grown, and with it the age of everything.  When wall
time steps back nothing happens; when it steps forward, entries only age early.

Guarantees
    `now` never goes back.  The lead grows in steps of at least `STEP_S`, so
    that the slewing of a clock changes nothing.

Who looks at the wall clock
    `begin_invocation`, once per invocation of a decorated handler; from then
    on `monotonic` is the bare clock.  Before that, and in programs without a
    decorated handler, `monotonic` itself looks (about 100 ns more).

Generations
    `generation` changes whenever the process may have been frozen: at each
    invocation that follows another, when the lead grew, after a restore.
    Work that remembers the generation it began in can tell that it is late.

Threads
    The lead grows under ``_lock``; readers read one attribute and take none.
    The lock is re-entrant, and what is written under it are absolute values:
    a signal handler may ask for the time in the middle of a `sync`, or raise.
    An invocation that finds no freeze takes no lock: numbers of generations
    come from a counter, so that none is given twice.
"""

from __future__ import annotations

import itertools
import math
import time

from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..typing import Clock

STEP_S = 0.05  # a smaller growth of the lead is slewing, not a freeze

_lock = process.Lock()
_run_time: Callable[[], float] = time.monotonic
wall_time: Callable[[], float] = time.time  # `wall`, with one call less; never kept
lead = time.time() - time.monotonic()  # of house time over run time; only grows
deadline_at: float | None = None  # of the invocation under way, in run time
_installed: Clock | None = None
_thawed = False  # `thawed` has noted the freeze that precedes the next invocation

generation = 0
_generations = itertools.count(1)

# Set by `deadline`: an invocation whose deadline, in run time, is earlier than the
# horizon calls the alarm when it begins.
horizon = -math.inf
alarm: Callable[[], None] | None = None


def now() -> float:
    """Return house time in seconds; about the epoch, never going back."""
    return monotonic() + lead


def run_time() -> float:
    """Return run time in seconds, for budgets; a freeze may not count."""
    return _run_time()


def wall() -> float:
    """Return wall time in seconds since the epoch, for what goes on a wire."""
    return wall_time()


def _watchful() -> float:
    """Return run time in seconds, having looked for a freeze first."""
    run = _run_time()
    if wall_time() - run > lead + STEP_S:
        sync()
    return run


# Seconds of run time, comparable only to itself.  A cache hit adds `lead`, which
# is read after it: in programs without a decorated handler this call may raise it.
monotonic: Callable[[], float] = _watchful


def sync() -> float:
    """
    Compare the two clocks, and return by how many seconds the lead grew.

    Mostly that is 0.0.  Otherwise the generation changes.
    """
    global lead, generation
    with _lock:
        before = lead
        found = wall_time() - _run_time()
        grew_s = found - before if found - before >= STEP_S else 0.0
        after = next(_generations) if grew_s else generation
        # One step: nothing is called in between.
        if grew_s:
            lead = found
            generation = after
    return grew_s


def begin_invocation(remaining_s: float | None = None) -> float:
    """Begin an invocation of up to *remaining_s* seconds; return run time."""
    global lead, monotonic, generation, deadline_at, _thawed
    run = _run_time()
    if wall_time() - run - lead >= STEP_S or _thawed or monotonic is not _run_time:
        with _lock:
            found = wall_time() - run
            grew = found - lead >= STEP_S
            after = generation if _thawed and not grew else next(_generations)
            # One step: nothing is called in between.
            if grew:
                lead = found
            generation = after
            _thawed = False
            monotonic = _run_time
    else:
        generation = next(_generations)
    deadline_at = None if remaining_s is None else run + remaining_s
    return run


def thawed() -> None:
    """Note a thaw ahead of the invocation that follows it; for test doubles."""
    global _thawed
    if sync():
        _thawed = True


def remaining() -> float | None:
    """Return the seconds left in this invocation; None when unlimited."""
    at = deadline_at
    return None if at is None else at - _run_time()


def restored() -> None:
    """Begin a new generation: the process was restored from a snapshot."""
    global generation
    sync()
    with _lock:
        generation = next(_generations)


def install(clock: Clock | None) -> Clock | None:
    """
    Take the time from *clock*; None goes back to the machine's clocks.

    Return the one that it was taken from before.
    """
    global _run_time, wall_time, lead, monotonic, generation, deadline_at
    global _installed, _thawed
    with _lock:
        former, _installed = _installed, clock
        _thawed = False
        _run_time = time.monotonic if clock is None else clock.monotonic
        wall_time = time.time if clock is None else clock.wall
        lead = wall_time() - _run_time()
        monotonic = _watchful
        generation = next(_generations)
        deadline_at = None
    return former


@process.at_reset
def reset() -> None:
    """Go back to the machine's clocks, as if this were just imported."""
    global horizon, alarm
    install(None)
    horizon, alarm = -math.inf, None
