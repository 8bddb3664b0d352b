"""
What is done at the end: on SIGTERM, and when the interpreter exits.

    SIGTERM ─▶ (signals) ─▶ our thread: essential ─▶ listeners ─▶ network
               ─▶ the user's own SIGTERM handler ─▶ last flush ─▶ os._exit
    exit    ─▶ atexit, the second path: the listeners, and Python goes on

Guarantees
    It is done once, by the path that comes first; the other waits for it.
    Every listener runs on a thread of its own: one that hangs, raises or
    exits costs its share of the budget and nothing else.  A share is the time
    left, divided by the number of listeners that are not called yet; time that one
    does not use is left to the next.  Only ``os._exit`` ends the process:
    ``sys.exit`` would join the thread in which the runtime client waits, which
    never ends.

The user's own SIGTERM handler
    Called once, after the flush, on our thread, as ``handler(SIGTERM, None)``;
    the code of a SystemExit becomes the exit status.  What only works in the
    main thread (`signal.signal`, an asyncio loop) does not work in it.
    A handler that replaced ours after the last `signals.rearm` is run by Python, in
    the main thread: it has the rest of the budget, and may end the process.  An
    asyncio loop that handles SIGTERM has the rest of the budget after the flush.

Budget
    How long Lambda waits before SIGKILL is documented as 300 ms with external
    extensions and 500 ms with internal ones alone; code of AWS's that is
    public takes 30 % of 500.  Hence all in 300 ms, the essential in 150.
    A worker of a managed instance has 600 ms; the request in flight comes
    first there: Lambda does not ask to break it off.

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
from . import clock, phases, process, real_threads, runtime_client, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET_S = 0.3  # from the signal to os._exit
IN_FLIGHT_S = 0.25  # on managed instances, before that: the current request
STREAMS_S = 0.02  # for each of: a look at the clock, stdout and stderr, late records
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

    *path* is "wakeup_fd", "chained" (the same, and another wakeup fd
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
_of_user: list[Callable[[], object]] = []  # listeners of this process only
_follows_exit = False
_at_last: list[Callable[[float], object]] = []  # called with the end of the budget
_unstarted: list[Callable[[], str]] = []  # what is lost where nothing has started

rearm = signals.rearm


def status() -> Status:
    """Return how SIGTERM is seen, and what became of the end."""
    path, reason = signals.path(), signals.reason
    if path == "off" and not reason:
        child = config.in_lambda() and phases.is_child_of_multiprocessing()
        reason = phases.CHILD if child else config.why_not("signals")
    begun = _winner["end"][0] if _winner else None
    return Status(path, reason, begun, phases.abandoned[phases.SHUTDOWN])


def has_begun() -> bool:
    """Say whether this process is ending."""
    return bool(_winner)


def install() -> None:
    """Have `_terminate` called on SIGTERM; for inside Lambda, where it means the end."""
    signals.install(_terminate)


def of_user(listener: Callable[[], object], priority: int) -> None:
    """Call *listener* at the end of this process, and of no forked child."""
    phases.listen(phases.SHUTDOWN, listener, priority=priority)
    _of_user.append(listener)
    follow_exit()
    warn_unless_started(lambda: "on_shutdown callbacks")


def follow_exit() -> None:
    """Call the listeners also when this process ends by itself."""
    global _follows_exit
    if _follows_exit:
        return
    _follows_exit = True
    atexit.register(_at_exit)
    if phases.is_worker():
        _follow_worker()


def at_last(function: Callable[[float], object]) -> None:
    """
    Call *function* after all listeners, with the run time at which the budget ends.

    It must return by then; what it records is flushed.
    """
    if function not in _at_last:
        _at_last.append(function)


def warn_unless_started(lost: Callable[[], str]) -> None:
    """
    Log once, inside Lambda, what is lost because `start()` was never called.

    *lost* is called when the runtime client begins to wait; "" means nothing.
    """
    if config.in_lambda() and not phases.is_child_of_multiprocessing():
        _unstarted.append(lost)
        runtime_client.before_wait(_warn_unless_started)


def _warn_unless_started() -> None:
    started = phases.calls[phases.INIT]
    found = [] if started else sorted({lost() for lost in _unstarted} - {""})
    if started or found:
        runtime_client.forget(_warn_unless_started)
        _unstarted.clear()
    if found:
        disclosure.warn("not_started", lost=f"{', '.join(found)}{ADVICE}")


def _terminate() -> None:
    """End this process.  On our thread, when SIGTERM has come."""
    real_threads.disown()  # it logs and calls the user's code beside the main thread
    # A handler that is busy in Python gives way every 5 ms, and we ask often.
    sys.setswitchinterval(SWITCH_S)
    deadline_at = clock.run_time() + BUDGET_S
    code = 0
    try:
        if _claim("sigterm", object()):
            _bounded(clock.sync)  # the process may have been frozen
            if os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY"):
                _until(_between_invocations, clock.run_time() + IN_FLIGHT_S)
                deadline_at = clock.run_time() + BUDGET_S
            code = _finish(deadline_at)
        else:
            # Python is exiting, or this is a second SIGTERM: wait for the first path.
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
            if _claim("exit", claimed):
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


def _claim(path: str, token: object) -> bool:
    """Claim the end of the process for *path*; False: another path has claimed it."""
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
    _bounded(_flush_streams)
    _done.set()
    if replaced:
        _until(lambda: runtime_client.waiting is True, end_at)
    # What the user's handler has recorded meanwhile, in the main thread.
    _bounded(_flush_late)
    _bounded(_dump_traceback)
    return code[0] if code else 0


def drain(
    budget_s: float = BUDGET_S,
    previous: Callable[[], object] | None = None,
    claimed: dict[int, object] | None = None,
) -> None:
    """
    Call the shutdown listeners in order, within *budget_s* seconds.

    *previous* is one of them, after those that use the network; for *claimed*
    see `phases.call_within`.
    """
    # The listeners may read values: those have aged in a freeze before SIGTERM.
    clock.sync()
    more = () if previous is None else ((phases.PREVIOUS, previous),)
    ends_at = clock.run_time() + budget_s
    phases.call_within(budget_s, phases.SHUTDOWN, more=more, claimed=claimed)
    for function in _at_last.copy():
        phases.call_one(phases.SHUTDOWN, function, ends_at - STREAMS_S)
        _bounded(_flush_late)


def _bounded(function: Callable[[], object]) -> None:
    """Call *function* on a thread; go on without it after `STREAMS_S` seconds."""
    phases.run_within(STREAMS_S, function, phases.SHUTDOWN)


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
    """Say whether no thread is flushing after an invocation."""
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
    global _winner, _done
    _winner = {}
    _done = real_threads.Event()


@process.at_reset
def reset() -> None:
    """Let go of SIGTERM, as if this were just imported."""
    global _follows_exit
    atexit.unregister(_at_exit)
    _follows_exit = False
    _of_user.clear()
    _at_last.clear()
    _unstarted.clear()
    signals.reset()
    _renew()
