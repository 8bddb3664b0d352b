"""
When routes hand over what they have, and how long that may take.

    route's queue ─▶ sink.accept_logs(entries) ─▶ sink.drain(ends_at)

What a sink is
    An object with ``accept_logs(entries)``, or a function of a list of entries.
    An optional ``drain(ends_at)`` sends what was accepted before the run time
    *ends_at*; an optional ``is_due()`` says whether it wants to; an optional
    ``end()`` is called once all was accepted, when the process ends.  ``name``,
    ``sent``, ``pending``, ``dropped`` and ``error`` are for `Route.status`.

Guarantees
    A sink is called on a thread of its own, by one at a time.  One that hangs,
    raises or calls ``sys.exit`` is reported by its name, once for each reason.  It
    does not delay the other sinks, and the answer no longer than the budget:
    `BUDGET_S` of an invocation, never its last `MARGIN_S`.
    A sink that was left behind is not waited for again by invocations before it has
    returned, only by `flush`, before a time-out and a snapshot, and at the end; a
    sink whose receiver fails is called again after a pause that doubles.
    At SIGTERM everything that waits is handed over, within the share of the
    shutdown, and so is what the platform delivers meanwhile.  The log says, by sink,
    what is left then.

When
    At the end of an invocation, what is due by age, count or bytes; also while
    one runs, as records arrive, beside the handler.  Before a time-out, a
    snapshot, and at SIGTERM, everything.
"""

from __future__ import annotations

import contextvars
import logging
import math

from .. import config, disclosure, sink_numbers
from ..callables import refuse_coroutine
from ..exceptions import ConfigurationError
from ..lifecycle import clock, phases, process, real_threads, shutdown
from . import dispatch, redaction, subscription
from .records import EXTENSION, FUNCTION, PLATFORM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .entry import Entry

    class Queue(Protocol):
        """A route, from which a sink is fed."""

        name: str

        @property
        def waiting(self) -> int: ...
        @property
        def places(self) -> frozenset[str]: ...
        def is_due(self) -> bool: ...
        def take(self) -> list[Entry]: ...
        def settle(self, count: int, *, taken: bool) -> None: ...


PLACES = (FUNCTION, PLATFORM, EXTENSION)
BUDGET_S = 1.0  # at the end of an invocation, for all sinks together
MARGIN_S = 0.05  # of the invocation's time, which they leave
EXIT_S = 0.1  # at the end, where nothing says how long there is
QUIET_S = 0.01  # without a new batch, until no more is expected at the end
POLL_S = 0.002
LONGEST_PAUSE_S = 60.0  # between two tries of a sink that fails
BESIDE_S = 10.0  # for a sink that is called beside a running handler
CLIENTS = (
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "urllib3",
)  # loggers of HTTP clients
MAX_WARNINGS = 10  # different ones of one sink


class _Call:
    """One call of a sink, on a thread of its own."""

    __slots__ = ("_has_begun", "done", "is_late")

    def __init__(self) -> None:
        self.done = real_threads.Event()
        self.is_late = False  # it was left behind once
        # Set once: True by the thread that begins, False by the caller that gives up.
        self._has_begun: dict[int, bool] = {}

    def begins(self) -> bool:
        """Say whether the thread is to go on; False: its caller has given up."""
        return self._has_begun.setdefault(0, True)

    def wait_for(self, seconds: float) -> bool:
        """Wait until it has returned; say whether it has."""
        return self.done.wait(max(seconds, 0.0))

    def given_up(self) -> bool:
        """Say whether the thread has not begun, and now never will."""
        return not self._has_begun.setdefault(0, False)


class Outlet:
    """A sink of routes, its calls, and what became of them."""

    __slots__ = (
        "_calls", "_failures", "_not_before", "_warned", "abandoned", "error",
        "failures", "name", "routes", "sink",
    )  # fmt: skip

    def __init__(self, sink: Any, name: str) -> None:
        self.sink = sink
        self.name = name
        self.routes: list[Queue] = []
        self.error = ""  # of the sink's own, the last; "" after a success
        self.failures = 0  # calls that raised
        self.abandoned = 0  # calls that took longer than their time
        self._calls: dict[int, _Call] = {}  # claimed and released by one C call each
        self._failures = 0  # in a row
        self._not_before = 0.0  # house time
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"<Outlet {self.name}>"

    @property
    def waits(self) -> bool:
        """Whether anything waits for the sink, or in it."""
        return self.has_waiting or self._pending() > 0

    @property
    def has_waiting(self) -> bool:
        """Whether a route has records that the sink did not get yet."""
        return any(route.waiting for route in self.routes)

    @property
    def is_busy(self) -> bool:
        """Whether the sink is being called."""
        return bool(self._calls)

    @property
    def has_little_room(self) -> bool:
        """Whether the sink has to send before it is given more."""
        return bool(disclosure.attribute(self.sink, "has_little_room"))

    def is_due(self) -> bool:
        """Say whether the sink is to be called now."""
        if clock.now() < self._not_before:
            return False
        if any(route.is_due() for route in self.routes):
            return True
        try:
            is_due = disclosure.attribute(self.sink, "is_due")
            return self._pending() > 0 if is_due is None else bool(is_due())
        except Exception as exc:
            if process.by_signal_handler(exc):
                raise
            self._failed(exc)
            return False

    def begin(
        self, ends_at: float, *, everything: bool = False, last: bool = False
    ) -> bool:
        """
        Have the sink called before the run time *ends_at*; False: it is busy.

        *everything*: not only of the routes that are due.  *last*: the process ends.
        """
        calls, call = self._calls, _Call()

        def body() -> None:
            if call.begins():
                real_threads.disown()  # it may write, and stdout be within a line
                try:
                    self._call(ends_at, everything=everything, last=last)
                finally:
                    _release(calls, call)

        try:
            if calls.setdefault(0, call) is not call:
                return False
            real_threads.start("lambda_ext_route", body)
        except BaseException as exc:
            if calls.get(0) is call and call.given_up():
                _release(calls, call)
            passing = isinstance(exc, (RuntimeError, MemoryError))
            if not passing or process.by_signal_handler(exc):
                raise
            # No thread is to be had.  The next call may have one, if there is a next.
            return last and self._called_here(ends_at)
        return True

    def _called_here(self, ends_at: float) -> bool:
        """Call the sink in this thread, since Python is ending; False: it is busy."""
        calls, call = self._calls, _Call()
        try:
            if calls.setdefault(0, call) is not call:
                return False
            self._call(ends_at, everything=True, last=True)
        finally:
            if calls.get(0) is call:
                _release(calls, call)
        return True

    def wait(self, ends_at: float, *, again: bool = False) -> bool:
        """
        Wait for the call under way, and say if it is done.

        For one that was left behind only *again*.
        """
        call = self._calls.get(0)
        if call is None:
            return True
        if call.is_late and not again:
            return False
        if call.wait_for(ends_at - clock.run_time()):
            return True
        if not call.is_late:
            call.is_late = True
            self.abandoned += 1
            self._warn("sink_left_behind", "it took longer than its time")
        return False

    def forked(self) -> None:
        """Let go of the parent's thread, and count from zero."""
        self._calls = {}
        self.failures = self.abandoned = self._failures = 0
        self.error = ""
        self._not_before = 0.0
        forked = disclosure.attribute(self.sink, "forked")
        if forked is not None and disclosure.attribute(self.sink, "restored") is None:
            forked()  # others follow forks by themselves

    def _call(self, ends_at: float, *, everything: bool, last: bool) -> None:
        _hush()
        token = _calling.set(True)
        try:
            self._call_all(ends_at, everything=everything, last=last)
        finally:
            _calling.reset(token)

    def _call_all(self, ends_at: float, *, everything: bool, last: bool) -> None:
        failed = False
        for route in self.routes.copy():
            if everything or route.is_due():
                failed |= not self._hand_over(route, ends_at)
        if last:
            failed |= not self._has_done("end")
        failed |= not self._has_done("drain", ends_at)
        # Without an error what waits in a sink may wait for its time.
        if failed or (self._pending() > 0 and self._tells_of_an_error()):
            self._failures += 1
            pause_s = min(2.0 ** min(self._failures, 10), LONGEST_PAUSE_S)
            self._not_before = clock.now() + pause_s
        else:
            self._failures = 0
            self._not_before = 0.0
            self.error = ""

    def _has_done(self, name: str, *args: float) -> bool:
        """Call the sink's function *name*, if it has one; False: it raised."""
        function = disclosure.attribute(self.sink, name)
        if function is not None:
            try:
                function(*args)
            except BaseException as exc:  # SystemExit too
                if process.by_signal_handler(exc):
                    raise
                self._failed(exc)
                return False
        return True

    def _hand_over(self, route: Queue, ends_at: float) -> bool:
        """
        Hand over what waits in *route*; False: the sink raised.

        What has no room in a sink that cannot send just now stays in the route.
        """
        while True:
            if self.has_little_room:
                if not self._has_done("drain", ends_at):
                    return False
                if self.has_little_room:
                    return True
            entries = route.take()
            if not entries:
                return True
            try:
                refuse_coroutine(self.sink.accept_logs(entries), "accept_logs")
            except BaseException as exc:  # SystemExit too: it would end this thread
                route.settle(len(entries), taken=False)
                if process.by_signal_handler(exc):
                    raise
                self._failed(exc)
                return False
            route.settle(len(entries), taken=True)

    def _pending(self) -> int:
        found: int = sink_numbers.number(self.sink, "pending")
        return found

    def _tells_of_an_error(self) -> bool:
        """Say whether what waits in the sink waits because something failed."""
        try:
            return bool(getattr(self.sink, "error", "unknown"))
        except Exception as exc:
            if process.by_signal_handler(exc):
                raise
            return True

    def _failed(self, exc: BaseException) -> None:
        self.failures += 1
        self.error = disclosure.kind(exc)
        self._warn("sink_failed", self.error)

    def _warn(self, event: str, reason: str) -> None:
        if reason not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(reason)
            disclosure.warn(event, sink=self.name, error=reason)


def _hush() -> None:
    """
    Have HTTP clients log nothing below WARNING in the context of a call of a sink.

    At DEBUG botocore logs whole bodies: what it sends for a sink would come back as
    a line that holds all others.
    """
    # Those that a first call makes are found before the second one.
    for name, logger in logging.root.manager.loggerDict.copy().items():
        if name.partition(".")[0] in CLIENTS and isinstance(logger, logging.Logger):
            logger.addFilter(_is_wanted)  # once, however often it is asked for


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not _calling.get()


def _release(calls: dict[int, _Call], call: _Call) -> None:
    """Take *call*, which has ended, from *calls*, and wake the threads that wait for it."""
    calls.pop(0, None)
    call.done.set()


# Whether a sink is being called; boto3's calls have a thread, and the caller's context.
_calling: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "lambda_ext_calling_sink", default=False
)
_outlets: dict[int, Outlet] = {}  # by the id of the sink, which the outlet keeps
_lock = process.Lock()
_joined = False
_checked = False  # whether what routes want is subscribed to
arrived_at = 0.0  # run time of the last batch


def outlet_of(sink: Any, name: str) -> Outlet:
    """Return the outlet of *sink*, which several routes may share."""
    with _lock:
        found = _outlets.get(id(sink))
        if found is None:
            found = _outlets[id(sink)] = Outlet(sink, _unique(name))
        return found


def _unique(name: str) -> str:
    taken = {outlet.name for outlet in [*_outlets.values()]}
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def outlets() -> list[Outlet]:
    """Return every outlet that routes lead to."""
    return [outlet for outlet in [*_outlets.values()] if outlet.routes]


def arrived(outlet: Outlet) -> None:
    """Note that records came for *outlet*, and begin if it is due."""
    global arrived_at
    arrived_at = clock.run_time()
    if not outlet.is_busy and outlet.is_due():
        outlet.begin(arrived_at + BESIDE_S)


def flush(budget_s: float) -> bool:
    """
    Hand over everything to the sinks of all routes; say whether nothing waits.

    The caller waits for *budget_s* seconds at most, 0 for none.  What a sink has not
    taken by then stays in its queue.

    Raises:
        ConfigurationError: *budget_s* is no number of seconds from 0.
    """
    given: object = budget_s  # not every caller checks types
    if type(given) not in (int, float) or not 0 <= budget_s < math.inf:
        msg = f"telemetry.flush() takes seconds, such as 0.5, not {disclosure.quoted(given)}"
        raise ConfigurationError(msg)
    ends_at = clock.run_time() + budget_s
    dispatch.drain(budget_s / 2)
    return _run([*outlets()], ends_at, everything=True)


def _run(
    chosen: list[Outlet], ends_at: float, *, everything: bool, last: bool = False
) -> bool:
    busy = [
        outlet
        for outlet in chosen
        if not outlet.begin(ends_at, everything=everything, last=last)
    ]
    for outlet in chosen:
        done = outlet.wait(ends_at, again=everything)
        # Again, for what the call that was under way has left.
        if done and everything and outlet in busy:
            outlet.begin(ends_at, everything=True, last=last)
            outlet.wait(ends_at, again=True)
    return not any(outlet.waits for outlet in chosen)


def join() -> None:
    """Register the functions that hand records over in each phase, once."""
    global _joined
    with _lock:
        if _joined:
            return
        for phase, priority, listener in (
            (phases.RESPONSE, phases.NETWORK, _at_response),
            (phases.TIMEOUT, phases.NETWORK, _before_timeout),
            (phases.SNAPSHOT, phases.USER, _before_snapshot),
            (phases.SHUTDOWN, phases.NETWORK, _at_shutdown),
        ):
            phases.listen_once(phase, listener, priority=priority)
        # A sink gets what is due at the end of an invocation, and of the process.
        shutdown.warn_unless_started(lambda: subscription.LOST)
        _joined = True


def _at_response() -> None:
    global _checked
    if not _checked:
        _checked = True
        _check_subscription()
    due = [outlet for outlet in outlets() if outlet.is_busy or outlet.is_due()]
    if due:
        ends_at = _until(BUDGET_S)
        if ends_at > clock.run_time():  # else the next invocation has more time
            _run(due, ends_at, everything=False)


def _check_subscription() -> None:
    """Log once which routes get nothing, since no subscription has their records."""
    found = subscription.status()
    if not config.in_lambda() or found.state not in ("none", "subscribed"):
        return  # the subscription has said why there is none
    for outlet in outlets():
        for route in outlet.routes:
            if not route.places.intersection(found.types):
                first = next(place for place in PLACES if place in route.places)
                disclosure.warn(
                    "route_without_records",
                    f"call telemetry.subscribe({first}=True) at module scope",
                    route=route.name,
                )


def _until(most_s: float) -> float:
    """Return the run time until which the end of an invocation may wait."""
    left_s = clock.remaining()
    if left_s is not None:
        most_s = min(most_s, max(left_s - MARGIN_S, 0.0))
    return clock.run_time() + most_s


def _before_timeout() -> None:
    flush(phases.share_s() or EXIT_S)


def _before_snapshot() -> None:
    flush(BUDGET_S)
    redaction.reset()


def _at_shutdown() -> None:
    """Hand over what there is, and what the platform sends meanwhile."""
    begun_at = clock.run_time()
    share_s = (phases.share_s() or EXIT_S) * 0.9
    ends_at = begun_at + share_s
    # The process may have been frozen since the last batch was sent to it.
    for _ in range(int(share_s / POLL_S)):  # also where a clock stands still
        for outlet in outlets():
            if outlet.has_waiting and not (outlet.is_busy or outlet.has_little_room):
                outlet.begin(ends_at, everything=True)
        now = clock.run_time()
        quiet_s = now - max(arrived_at, begun_at)
        if now >= ends_at or (quiet_s >= QUIET_S and not dispatch.pending()):
            break
        real_threads.pause(POLL_S)
    _run(outlets(), ends_at, everything=True, last=True)
    for outlet in outlets():
        if outlet.waits:
            disclosure.warn(
                "route_unsent",
                sink=outlet.name,
                records=sum(route.waiting for route in outlet.routes)
                + outlet._pending(),
            )


@process.at_fork
def _forked() -> None:
    _calling.set(False)
    for outlet in [*_outlets.values()]:
        outlet.forked()


@process.at_reset
def reset() -> None:
    """Forget every sink, as if this were just imported."""
    global _joined, _checked, arrived_at
    _outlets.clear()
    _joined = _checked = False
    arrived_at = 0.0
