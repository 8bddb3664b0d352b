"""
Who is called in which phase of an execution environment's life.

    INIT ─▶ INVOKE ─▶ RESPONSE ─▶ (freeze / thaw) ─▶ ... ─▶ SHUTDOWN
    with SNAPSHOT and RESTORE (SnapStart) and FORK (in the child) on the side

The clockwork knows listeners, not metrics or caches: those register here.
A listener that raises is logged and counted and stops nobody else.

Forks
    A child begins with counters at zero.

Threads
    No lock: registering is one ``append``, so that a signal handler may do it
    at any instruction (the first metric registers); a call works on a copy.
"""

from __future__ import annotations

import os
import sys

from .. import disclosure
from ..exceptions import ConfigurationError
from . import interruption, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Listener = Callable[..., object]
    F = TypeVar("F", bound=Callable[[], object])
    G = TypeVar("G", bound=Callable[[Any], object])

INIT = "init"
INVOKE = "invoke"
RESPONSE = "response"
SHUTDOWN = "shutdown"
SNAPSHOT = "snapshot"
RESTORE = "restore"
FORK = "fork"
PHASES = (INIT, INVOKE, RESPONSE, SHUTDOWN, SNAPSHOT, RESTORE, FORK)

ESSENTIAL = 0  # priority: what must happen in the first moments of a shutdown
EARLY = 25  # priority: callbacks of the user that record what others flush
USER = 50  # priority: callbacks of the user, unless they say otherwise
NETWORK = 90  # priority: what waits for somebody else, hence comes last
PREVIOUS = 95  # priority: the SIGTERM handler that was there before ours
LAST = 1 << 62  # priority: the last flush, after any callback, perhaps repeated

CHILD = "multiprocessing started this process"  # why it does not join Lambda's life

# Of a code object: a generator, a coroutine or an async generator; `inspect`.
_ASYNC = 0x20 | 0x80 | 0x200

_listeners: dict[str, list[tuple[int, Listener]]] = {phase: [] for phase in PHASES}
calls = dict.fromkeys(PHASES, 0)  # how often each phase began
ended = dict.fromkeys(PHASES, 0)  # how often it ended
failures = dict.fromkeys(PHASES, 0)  # how many listeners raised in it


def listen(phase: str, listener: Listener, *, priority: int = USER) -> None:
    """Call *listener* in each *phase*, low priority first, then in order."""
    _listeners[phase].append((priority, listener))


def silence(phase: str, listener: Listener) -> None:
    """Stop calling *listener* in *phase*; nothing happens if it was not."""
    entries = _listeners[phase]
    for entry in entries.copy():
        if entry[1] == listener:
            entries.remove(entry)


def listeners(phase: str) -> tuple[tuple[int, Listener], ...]:
    """Return the (priority, listener) pairs of *phase*, in calling order."""
    return tuple(sorted(_listeners[phase], key=_priority))


def _priority(entry: tuple[int, Listener]) -> int:
    return entry[0]


def call(phase: str, *args: Any) -> None:
    """
    Call each listener of *phase*; what one raises is logged.

    A BaseException, or what a signal handler of the user's has raised
    meanwhile, is raised again once every listener was called.
    """
    calls[phase] += 1
    waiting: tuple[tuple[int, Listener], ...] | None = None
    raised: BaseException | None = None
    position = begun = -1
    try:
        while waiting is None or position < len(waiting):
            try:
                waiting = waiting or listeners(phase)
                while True:
                    position += 1
                    if position >= len(waiting):
                        break
                    begun = position
                    waiting[position][1](*args)
            except BaseException as exc:
                if isinstance(exc, Exception) and not interruption.by_signal_handler(
                    exc
                ):
                    failed(phase, (waiting or ((0, call),))[begun][1])
                else:
                    raised = raised or exc
                # A signal handler may also raise between two listeners: the one
                # that was not begun is called next.
                position = begun
    finally:
        ended[phase] += 1
    if raised is not None:
        raise raised


def _call(phase: str, listener: Listener, *args: Any) -> None:
    try:
        listener(*args)
    except Exception as exc:
        if interruption.by_signal_handler(exc):
            raise
        failed(phase, listener)


def failed(phase: str, listener: Listener) -> None:
    """Log and count the exception that *listener* is just raising; raise nothing."""
    failures[phase] += 1
    disclosure.failure("listener_failed", phase=phase, listener=name_of(listener))


def name_of(listener: Listener) -> str:
    """Return what to call *listener* in a log line."""
    module = getattr(listener, "__module__", "")
    name = getattr(listener, "__qualname__", type(listener).__qualname__)
    return f"{module}.{name}" if module else str(name)


@process.at_reset
def reset() -> None:
    """Forget every listener and counter, as if this were just imported."""
    for entries in _listeners.values():
        entries.clear()
    _zero()


def _zero() -> None:
    for counters in (calls, ended, failures):
        counters.update(dict.fromkeys(PHASES, 0))


@process.at_fork
def _forked() -> None:
    """Tell those who listen, with counters at zero."""
    _zero()
    call(FORK)


def is_worker() -> bool:
    """Say whether this process was started by `multiprocessing`."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is None:
        return False
    return (
        processes.parent_process() is not None
        # While a spawned child imports what it is to run, it has no parent yet.
        or is_importing_worker()
    )


def is_importing_worker() -> bool:
    """Say whether this process was spawned, and imports what it is to run."""
    processes = sys.modules.get("multiprocessing.process")
    return bool(
        processes is not None
        and getattr(processes.current_process(), "_inheriting", False)
    )


def is_child_of_multiprocessing() -> bool:
    """Say whether another process of `multiprocessing` has joined Lambda's life."""
    # A worker of a managed instance is one, too, and joins by itself.
    return is_worker() and not os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY")


def checked(listener: object, decorator: str) -> None:
    """Refuse what could not be called, or not be awaited, when its time comes."""
    if not callable(listener):
        msg = f"@lambda_ext.{decorator} decorates a function, not {listener!r:.80}"
        raise ConfigurationError(msg)
    code = getattr(listener, "__code__", None)
    if getattr(code, "co_flags", 0) & _ASYNC:
        msg = (
            f"@lambda_ext.{decorator} decorates a plain function: nobody awaits an"
            " async def or iterates a generator; write def, without yield"
        )
        raise ConfigurationError(msg)


def on_init(listener: F, /) -> F:
    """
    Call the decorated function, without arguments, when INIT has come.

    That is once, when a handler is decorated or `lambda_ext.start()` is
    called, and for a function that is decorated later: at once.  Only inside
    Lambda.  What it raises is logged and stops nothing.

    Raises:
        ConfigurationError: what is decorated is no function, or an async one.
    """
    checked(listener, "on_init")
    listen(INIT, listener)
    if calls[INIT]:
        _call(INIT, listener)
    return listener


def on_invoke(listener: G, /) -> G:
    """
    Call the decorated function when an invocation of a decorated handler begins.

    It gets one argument, Lambda's context object (None where the handler has
    none), and the handler waits for it.  What it raises is logged and stops
    nothing.

    Raises:
        ConfigurationError: what is decorated is no function, or an async one.
    """
    checked(listener, "on_invoke")
    listen(INVOKE, listener)
    return listener


def on_response(listener: F, /) -> F:
    """
    Call the decorated function, without arguments, when the handler is done.

    That is after each invocation of a decorated handler, whether it returned
    or raised, before Lambda has its answer, and before metrics are flushed:
    what it records belongs to this invocation.  What it raises is logged and
    changes nothing of the answer.

    Raises:
        ConfigurationError: what is decorated is no function, or an async one.
    """
    checked(listener, "on_response")
    listen(RESPONSE, listener, priority=EARLY)
    return listener
