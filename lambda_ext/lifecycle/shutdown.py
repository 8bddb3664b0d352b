"""
What is done at the end: on SIGTERM, and when the interpreter exits.

    SIGTERM ─▶ (signals) ─▶ our thread: essential ─▶ listeners ─▶ network
               ─▶ the user's own SIGTERM handler ─▶ last flush ─▶ os._exit
    exit    ─▶ atexit, the second path: the listeners, and Python goes on

Guarantees
    It is done once, whichever path comes first; the other waits for it.
    Every listener runs on a thread of its own: one that hangs, raises or
    exits costs its share of the budget and nothing else.  A share is what is
    left, divided by those who are still to come; what one does not use, the
    next ones have.  Only ``os._exit`` ends the process: ``sys.exit`` would
    join the thread in which the runtime client waits, which never ends.

The user's own SIGTERM handler
    Called once, after the flush, on our thread, as ``handler(SIGTERM, None)``;
    the code of a SystemExit becomes the exit status.  What only works in the
    main thread (`signal.signal`, an asyncio loop) does not work in it.
    One that replaced ours since `signals.rearm` is Python's to run, in the main
    thread: it has the rest of the budget for that, and may end the process.
    An asyncio loop that handles SIGTERM has the same, from after the flush.

Budget
    How long Lambda waits before SIGKILL is documented as 300 ms with external
    extensions and 500 ms with internal ones alone; code of AWS's that is
    public takes 30 % of 500.  Hence all in 300 ms, the essential in 150.
    A worker of a managed instance has 600 ms; the request in flight comes
    first there, for nobody has asked to break it off.

Source: Lambda runtime environment, "Shutdown phase",
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html;
Extensions API,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import atexit
import os
import sys

from .. import config, disclosure
from ..exceptions import ConfigurationError
from . import (
    clock,
    interruption,
    phases,
    process,
    real_threads,
    runtime_client,
    signals,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, overload

    F = TypeVar("F", bound=Callable[[], object])

BUDGET_S = 0.3  # from the signal to os._exit
ESSENTIAL_S = 0.15  # of which for listeners of priority ESSENTIAL
IN_FLIGHT_S = 0.25  # on managed instances, before that: the current request
STREAMS_S = 0.02  # for flushing stdout and stderr, at the very end
POLL_S = 0.001
ATTEMPTS = 10  # at exit, where signal handlers may raise at any moment
SWITCH_S = 0.0001  # between threads that want to run, from SIGTERM on

ADVICE = (
    ": decorate the handler with @lambda_ext.handler, or call lambda_ext.start(),"
    " at module scope"
)

_exit = os._exit


class Status:
    """
    How SIGTERM is seen, and what became of the end; a snapshot.

    *path* is "wakeup_fd", "chained" (the same, and somebody else's wakeup fd
    is served) or "off", with the *reason*; *begun* is None, "sigterm" or
    "exit"; *abandoned* counts listeners that used up their share.
    """

    __slots__ = ("abandoned", "begun", "path", "reason")

    def __init__(
        self, path: str, reason: str, begun: str | None, abandoned: int
    ) -> None:
        self.path = path
        self.reason = reason
        self.begun = begun
        self.abandoned = abandoned

    def __repr__(self) -> str:
        """Show the path, and the reason when there is one."""
        reason = f" {self.reason!r}" if self.reason else ""
        return f"<shutdown.Status {self.path}{reason}>"


_winner: dict[str, tuple[str, object]] = {}  # "end" -> the path that does the work
_done = real_threads.Event()
abandoned = 0
_of_user: list[Callable[[], object]] = []  # listeners of this process only
_follows_exit = False
_unheard: list[Callable[[], str]] = []  # what is lost where nothing has started

rearm = signals.rearm


def status() -> Status:
    """Return how SIGTERM is seen, and what became of the end."""
    path, reason = signals.path(), signals.reason
    if path == "off" and not reason:
        child = config.in_lambda() and phases.is_child_of_multiprocessing()
        reason = phases.CHILD if child else config.why_not("signals")
    begun = _winner["end"][0] if _winner else None
    return Status(path, reason, begun, abandoned)


def install() -> None:
    """Be called on SIGTERM; for inside Lambda, where it means the end."""
    signals.install(_terminate)


if TYPE_CHECKING:

    @overload
    def on_shutdown(listener: F, /) -> F: ...
    @overload
    def on_shutdown(*, priority: int = phases.USER) -> Callable[[F], F]: ...


def on_shutdown(
    listener: F | None = None, /, *, priority: int = phases.USER
) -> F | Callable[[F], F]:
    """
    Call the decorated function, without arguments, when Lambda shuts us down.

    It runs once: on SIGTERM, on a thread of this library and inside its
    budget of 300 ms (a function time-out included), or at interpreter exit.
    Low *priority* first (0 is the flush of metrics, 50 the default, 90 what
    uses the network), then in order of registration.  The time left is shared
    equally: one that takes longer than its share is left behind.  What it
    raises is logged and stops nothing else.  A forked child, or
    one that `multiprocessing` spawned, does not call it.

    Lambda sends SIGTERM only to an environment with a registered extension:
    decorate a handler with `lambda_ext.handler` or call `lambda_ext.start()`
    at module scope.

    Raises:
        ConfigurationError: what is decorated is no function, or an async one;
            *priority* is no int.

    Source: Lambda runtime environment, "Shutdown phase",
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
    """
    if isinstance(priority, bool) or not isinstance(priority, int):
        msg = (
            f"on_shutdown(priority=...) takes an int, such as 50, not {priority!r:.80}"
        )
        raise ConfigurationError(msg)

    def decorate(function: F) -> F:
        phases.checked(function, "on_shutdown")
        if phases.is_importing_worker():
            return function  # the parent's callback, imported once more
        phases.listen(phases.SHUTDOWN, function, priority=priority)
        _of_user.append(function)
        follow_exit()
        warn_unless_started(lambda: "on_shutdown callbacks")
        return function

    return decorate if listener is None else decorate(listener)


def follow_exit() -> None:
    """Have the listeners called when this process ends by itself."""
    global _follows_exit
    if _follows_exit:
        return
    _follows_exit = True
    atexit.register(_at_exit)
    if phases.is_worker():
        _follow_worker()


def warn_unless_started(lost: Callable[[], str]) -> None:
    """
    Log once, inside Lambda, what is lost because `start()` was never called.

    *lost* is called when the runtime client begins to wait; "" means nothing.
    """
    if config.in_lambda() and not phases.is_child_of_multiprocessing():
        _unheard.append(lost)
        runtime_client.before_wait(_warn_unless_started)


def _warn_unless_started() -> None:
    started = phases.calls[phases.INIT]
    found = [] if started else sorted({lost() for lost in _unheard} - {""})
    if started or found:
        runtime_client.forget(_warn_unless_started)
        _unheard.clear()
    if found:
        disclosure.warn("not_started", lost=f"{', '.join(found)}{ADVICE}")


def _terminate() -> None:
    """End this process.  On our thread, when SIGTERM has come."""
    # A handler that is busy in Python gives way every 5 ms, and we ask often.
    sys.setswitchinterval(SWITCH_S)
    deadline_at = clock.run_time() + BUDGET_S
    code = 0
    try:
        if _begin("sigterm", object()):
            _bounded(clock.sync, STREAMS_S)  # the process may have been frozen
            if os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY"):
                _until(_between_invocations, clock.run_time() + IN_FLIGHT_S)
                deadline_at = clock.run_time() + BUDGET_S
            code = _finish(deadline_at)
        else:
            # At exit, or in a second SIGTERM: let the first be done with it.
            _done.wait(max(deadline_at - clock.run_time(), 0))
    finally:
        _exit(code)


def _at_exit() -> None:
    """Call the shutdown listeners at interpreter exit, unless SIGTERM did."""
    raised: BaseException | None = None
    claimed: dict[int, object] = {}
    attempts = 0  # nothing is called before the `try`: a handler would run after it
    while attempts < ATTEMPTS:
        attempts += 1
        try:
            if _begin("exit", claimed):
                clock.sync()
                drain(claimed=claimed)
                _done.set()
            else:
                # Finalisation would stop our thread in the middle of the flush.
                _done.wait(BUDGET_S)
                _flush_late()
            break
        except BaseException as exc:  # a signal handler's; the listeners come first
            raised = exc
    _done.set()
    if raised is not None:
        raise raised


def _begin(path: str, token: object) -> bool:
    """Say whether the caller, known by *token*, is the one that does the work."""
    return _winner.setdefault("end", (path, token))[1] is token


def _finish(deadline_at: float) -> int:
    """Flush, have the user's own handler run, and return the exit status."""
    handler = signals.previous()
    replaced = signals.replaced() and callable(handler)
    code: list[int] = []

    def call_handler() -> None:
        try:
            handler(signals.SIGTERM, None)  # type: ignore[operator, misc]  # callable
        except SystemExit as exc:
            code.append(_exit_code(exc))

    ours = None if replaced or not callable(handler) else call_handler
    end_at = deadline_at - 2 * STREAMS_S
    drain(end_at - clock.run_time(), ours)
    _until(_flushed, end_at)
    if signals.forward():
        _until(_between_invocations, end_at)
    _bounded(_flush_streams, STREAMS_S)
    _done.set()
    if replaced:
        _until(lambda: runtime_client.waiting is True, end_at)
    # What the user's handler has recorded meanwhile, in the main thread.
    _bounded(_flush_late, STREAMS_S)
    _bounded(_dump_traceback, STREAMS_S)
    return code[0] if code else 0


def drain(
    budget_s: float = BUDGET_S,
    previous: Callable[[], object] | None = None,
    claimed: dict[int, object] | None = None,
) -> None:
    """
    Call the shutdown listeners in order, within *budget_s* seconds.

    Those of priority ESSENTIAL share the first half, the rest what is left;
    *previous* is one of them, after those that use the network.  What is in
    *claimed*, by id, was called before, and is not called again.
    """
    global abandoned
    phases.calls[phases.SHUTDOWN] += 1
    begun_at = clock.run_time()
    extra = [] if previous is None else [(phases.PREVIOUS, previous)]
    claimed = {} if claimed is None else claimed
    seen: list[int] = []
    hung: list[Any] = []
    while True:
        # Looked up anew: the first metric may be recorded by a listener.
        known = sorted([*phases.listeners(phases.SHUTDOWN), *extra], key=_priority)
        ahead = [
            entry
            for entry in known
            if id(entry) not in claimed and id(entry) not in seen
        ]
        if not ahead:
            break
        spent_s = clock.run_time() - begun_at
        end_s = budget_s
        if ahead[0][0] <= phases.ESSENTIAL and spent_s < ESSENTIAL_S:
            end_s = min(ESSENTIAL_S, budget_s)
            ahead = [entry for entry in ahead if entry[0] <= phases.ESSENTIAL]
        share_s = (end_s - spent_s) / len(ahead)
        listener = ahead[0][1]
        if not _bounded(_claiming(ahead[0], claimed), share_s, listener):
            hung.append(listener)
        seen.append(id(ahead[0]))
    if hung:
        abandoned += len(hung)
        _bounded(lambda: _report(hung), STREAMS_S)
    phases.ended[phases.SHUTDOWN] += 1


def _claiming(entry: Any, claimed: dict[int, object]) -> Callable[[], None]:
    """Return what calls the listener of *entry*, unless another has claimed it."""

    def call() -> None:
        # Where a signal handler interrupts `drain` and it begins again, two threads
        # may be here for one listener: `setdefault` lets one of them go on.
        token = object()
        try:
            mine = claimed.setdefault(id(entry), token) is token
        except BaseException:  # a signal handler's, without threads
            if claimed.get(id(entry)) is token:
                del claimed[id(entry)]
            raise
        if mine:
            entry[1]()

    return call


def _flush_late() -> None:
    """Call once more what flushes after all callbacks."""
    for priority, listener in phases.listeners(phases.SHUTDOWN):
        if priority >= phases.LAST:
            listener()


def _dump_traceback() -> None:
    """Write the traceback that ``faulthandler.register(SIGTERM)`` asked for."""
    faulthandler = sys.modules.get("faulthandler")
    if faulthandler is not None and faulthandler.unregister(signals.SIGTERM):
        faulthandler.dump_traceback(all_threads=True)


def _priority(entry: tuple[int, object]) -> int:
    return entry[0]


def _bounded(
    function: Callable[[], object], share_s: float, listener: Any = None
) -> bool:
    """Call *function* for *listener*; say if it was done within *share_s* seconds."""
    ended = real_threads.Event()
    raised: list[BaseException] = []

    def body() -> None:
        try:
            function()
        except BaseException as exc:  # SystemExit too: only this module ends us
            if interruption.by_signal_handler(exc):
                raised.append(exc)
            else:
                phases.failed(phases.SHUTDOWN, listener or function)
        finally:
            ended.set()

    try:
        real_threads.start("lambda_ext_shutdown", body)
    except (RuntimeError, MemoryError):  # no thread to be had, or Python is ending
        body()
        if raised:
            raise raised[0] from None
    else:
        ended.wait(max(share_s, 0))
    return ended.is_set()


def _report(hung: list[Any]) -> None:
    for listener in hung:
        disclosure.warn(
            "listener_abandoned",
            phase=phases.SHUTDOWN,
            listener=phases.name_of(listener),
        )


def _exit_code(exc: SystemExit) -> int:
    """Return the status that Python would exit with for *exc*."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    print(exc.code, file=sys.stderr)  # noqa: T201  as Python does
    return 1


def _between_invocations() -> bool:
    """Say whether no decorated handler is running, nor its answer on its way."""
    if runtime_client.waiting is not None:
        return runtime_client.waiting
    return phases.calls[phases.INVOKE] <= phases.calls[phases.RESPONSE]


def _flushed() -> bool:
    """Say whether no thread is in the midst of the flush after an invocation."""
    return phases.calls[phases.RESPONSE] <= phases.ended[phases.RESPONSE]


def _until(condition: Callable[[], bool], deadline_at: float) -> None:
    """Wait until condition() holds, or the deadline has come."""
    while not condition() and clock.run_time() < deadline_at:
        real_threads.pause(POLL_S)


def _flush_streams() -> None:
    # The interrupted main thread may hold their locks; we are bounded.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


@process.at_fork
def _forked() -> None:
    """Begin anew in this child, which ends on its own."""
    _renew()
    _forget_users()
    if not _follows_exit:
        return
    workers = sys.modules.get("multiprocessing.util")
    if workers is not None:  # else it is no worker, and has atexit as we do
        workers.register_after_fork(_follow_worker, _follow_worker)


def _follow_worker(anchor: object = None) -> None:
    """Call `_at_exit` in a worker process, which may end without atexit."""
    workers = sys.modules["multiprocessing.util"]
    workers.Finalize(None, _at_exit, exitpriority=-100)


def _forget_users() -> None:
    for listener in _of_user:
        phases.silence(phases.SHUTDOWN, listener)
    _of_user.clear()


def _renew() -> None:
    global _winner, _done, abandoned
    _winner = {}
    _done = real_threads.Event()
    abandoned = 0


@process.at_reset
def reset() -> None:
    """Let go of SIGTERM, as if this were just imported."""
    global _follows_exit
    atexit.unregister(_at_exit)
    _follows_exit = False
    _of_user.clear()
    _unheard.clear()
    signals.reset()
    _renew()
