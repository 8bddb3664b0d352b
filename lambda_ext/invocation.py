"""
One invocation, from cold start to flush.  Start reading here.

    @handler decorates   start(): SIGTERM hook ─▶ registration ─▶ INIT
    each invocation      clock ─▶ INVOKE ─▶ your handler ─▶ RESPONSE

INIT loads the declared values, RESPONSE flushes the metrics; both are only
listeners to this file, see `lifecycle.phases`.  Nothing of ours can change
what your handler returns or raises.

An ``async def`` handler runs to its end on the loop of `lifecycle.event_loop`.
"""

from __future__ import annotations

import functools
import sys

from . import config, disclosure
from .exceptions import ConfigurationError
from .lifecycle import (
    clock,
    current,
    phases,
    process,
    runtime_client,
    shutdown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, ParamSpec, TypeVar, overload

    from .callables import Handler

    P = ParamSpec("P")
    R = TypeVar("R")

_lock = process.Lock()  # held while one thread starts
_started = False
_decorates = False  # the program decorates a handler
# Those that have the providers of OpenTelemetry; `lifecycle.otel`.
OTEL = frozenset(
    ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
)
_on_invoke = phases.entries(phases.INVOKE)
_calls, _ended = phases.calls, phases.ended  # always the same
INVOKE = phases.INVOKE
# What handlers return as a rule; nothing of it can be awaited.
PLAIN = frozenset((dict, type(None), str, list))
MAX_MS, LEAST_MS = 1e12, -1e12  # no function runs for 30 years


def start() -> None:
    """
    Join the life of this execution environment; more calls change nothing.

    `lambda_ext.handler` does this when it decorates; call it at module scope
    in programs that decorate nothing.  Inside Lambda it takes over SIGTERM,
    registers an internal extension (about 1 ms, so that Lambda sends SIGTERM
    at all) and loads the declared secrets and parameters, for which it waits.
    Elsewhere it only arranges for a last flush at interpreter exit.

    Where nothing is decorated, each invocation begins when Lambda's runtime
    client has received it, and ends when its answer is sent: then hooks are
    called and metrics flushed, before the environment is frozen.  What the
    handler raised is not known then.

    Registration is open during INIT only, that is while your module is being
    imported.  What AWS refuses is logged once and never raised; values
    that could not be loaded raise where they are first used.

    Raises:
        ConfigurationError: an unusable ``LAMBDA_EXT_DISABLE``.

    Source: Lambda Extensions API,
    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
    """
    global _started
    if _started:
        return
    disabled = config.get("disable")
    _opt_in()
    try:
        with _lock:
            begins = _join(disabled)
        if begins and not _decorates:
            # In programs that decorate nothing only.
            from .lifecycle import undecorated

            undecorated.install(_begin_undecorated)
        if begins:
            phases.call(phases.INIT)
    except BaseException:  # a signal handler's: the next call makes up for it
        _started = phases.calls[phases.INIT] > 0
        raise


def _join(disabled: frozenset[str]) -> bool:
    """
    Join the life of this environment; say whether INIT is to follow.

    Each step may be repeated, after one that a signal handler has interrupted.
    """
    global _started
    if _started:  # by another thread
        return False
    # A process that `multiprocessing` started leaves all of it to its parent.
    in_lambda = config.in_lambda() and not phases.is_child_of_multiprocessing()
    if in_lambda and "signals" not in disabled:
        shutdown.install()
    if in_lambda and "extension" not in disabled:
        if config.get("after_response"):
            from .lifecycle import deferred  # only for work after the response

            deferred.ask()
        # Avoids 0.4 ms where there is none: in tests, in other programs.
        from .lifecycle import extension

        extension.register()
    if in_lambda and config.in_snapstart():
        # Avoids 0.1 ms where there is no snapshot.
        from .lifecycle import snapstart

        snapstart.install()
    if in_lambda:
        runtime_client.before_wait(_load_ahead)
    shutdown.follow_exit()
    # A signal handler may have started it meanwhile, and called INIT.
    begins = in_lambda and not _started
    _started = True
    return begins


def _load_ahead() -> None:
    """
    Load, when INIT ends, what the first invocation needs of what the program uses.

    INIT has more CPU than an invocation of a small function, and is ahead of any
    request with SnapStart and provisioned concurrency.
    """
    runtime_client.forget(_load_ahead)
    if f"{__package__}.metrics.recorder" in sys.modules:
        from .lifecycle import deadline  # noqa: F401  for the first deadline
    if f"{__package__}.values.store" in sys.modules:
        from .values import calls, loader  # noqa: F401  for the first read


def _opt_in() -> None:
    """Load what an option has turned on, and nothing else."""
    if config.get("properties"):
        from .metrics import correlation

        correlation.install()
    if config.get("runtime_metrics"):
        from .metrics import runtime

        runtime.install()
    if config.get("cold_start_metric") or config.get("self_metrics"):
        from .metrics import self_metrics

        self_metrics.install()
    phases.silence(phases.INVOKE, _look_for_otel)
    if not _look_for_otel():
        phases.listen_once(phases.INVOKE, _look_for_otel, priority=phases.ESSENTIAL)
    config.watch(_configured)


def _configured() -> None:
    """Follow options that were set, or taken back, after the start."""
    if not _started:
        return
    if config.is_configured("properties"):
        from .metrics import correlation

        correlation.install()
    if config.is_configured("runtime_metrics"):
        from .metrics import runtime

        runtime.install()
    if config.is_configured("cold_start_metric", "self_metrics"):
        from .metrics import self_metrics

        self_metrics.install()


def _look_for_otel() -> bool:
    """Flush OpenTelemetry, too, where it is loaded now, or by the first invocation."""
    phases.silence(phases.INVOKE, _look_for_otel)
    if OTEL.isdisjoint(sys.modules) or not config.get("otel_flush"):
        return False
    from .lifecycle import otel

    otel.install()
    return True


if TYPE_CHECKING:

    @overload
    def handler(
        function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Handler[P, R, Callable[P, Coroutine[Any, Any, R]]]: ...
    @overload
    def handler(function: Callable[P, R], /) -> Handler[P, R, Callable[P, R]]: ...


def handler(function: Any = None, /) -> Any:
    """
    Decorate a Lambda handler: cold start, flush, time-out and SIGTERM.

    Decorating calls `start()`, hence loads what is declared above it.  Each
    invocation then adjusts the clock for a freeze and, when the handler has
    returned or raised, flushes the metrics.  The handler's signature, types,
    result and exception stay as they are; failures of this library are logged
    and counted, never raised into it.

    An ``async def`` handler is run to its end on an event loop of its own, so
    that its type changes from ``Awaitable[R]`` to ``R``: that is what Lambda
    calls.  Works on functions and methods with any parameters; the object with
    ``get_remaining_time_in_millis`` among the arguments tells the deadline.
    Above or below the ``@durable_execution`` of AWS's SDK it does the same; an
    execution that suspends is no failed invocation.
    ``handler.undecorated`` is the function as it was written, for tests.

    Raises:
        ConfigurationError: what is decorated cannot be called, is a class, or
            an environment variable of this library cannot be used.
    """
    global _decorates
    if not callable(function) or isinstance(function, (staticmethod, type)):
        raise ConfigurationError(_refused(function))
    _decorates = True
    start()

    @functools.wraps(function, disclosure.wrappable(function))
    def invoke(*args: Any, **kwargs: Any) -> Any:
        try:
            state = current.local.state
        except AttributeError:
            state = current.state()
        if state.inside:
            result = function(*args, **kwargs)
            return _run(result) if hasattr(type(result), "__await__") else result
        state.inside = True
        try:
            try:
                _begin(state, args, kwargs)
                result = function(*args, **kwargs)
                if type(result) in PLAIN or not hasattr(type(result), "__await__"):
                    return result
                return _run(result)
            except BaseException as exc:
                state.error = current.error_of(exc)
                raise
            finally:
                phases.call(phases.RESPONSE)
                clock.deadline_at = None
        finally:
            state.inside = False
            state.context = state.timing = None

    invoke.undecorated = function  # type: ignore[attr-defined]
    return invoke


def _refused(function: object) -> str:
    """Return what to say about something that is no function."""
    if function is None:
        return (
            "@lambda_ext.handler decorates a function and takes no arguments:"
            " write it without parentheses"
        )
    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        return f"@lambda_ext.handler belongs below @{kind}: swap the two lines"
    if isinstance(function, type):
        return (
            f"@lambda_ext.handler decorates a function, not the class"
            f" {function.__name__}: decorate its method that Lambda is to call"
        )
    return f"@lambda_ext.handler decorates a function, not {type(function).__name__}"


def _begin(state: current.State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Begin an invocation: clock, signals, then the phase INVOKE."""
    ask = None
    if len(args) == 2:  # Lambda passes the event and the context
        context = args[1]
        try:
            ask = context.get_remaining_time_in_millis
        except AttributeError:
            pass
        except Exception as exc:  # its own, of an object that looks names up itself
            if process.by_signal_handler(exc):
                raise
    if ask is None:
        context, ask = _found_context(args, kwargs)
    remaining_s = None
    if ask is not None:
        try:
            remaining_ms = ask()
            kind = type(remaining_ms)
            # Any other type is a test double's, as is a number that is not finite.
            if (kind is int or kind is float) and LEAST_MS < remaining_ms < MAX_MS:
                remaining_s = remaining_ms / 1000
        except Exception as exc:
            if process.by_signal_handler(exc):
                raise
    state.begun_at = begun_at = clock.begin_invocation(remaining_s)
    state.context = context
    if remaining_s is not None:
        state.timing = (begun_at, remaining_s, clock.lead)
        if begun_at + remaining_s < clock.horizon and clock.alarm is not None:
            clock.alarm()
    state.is_cold_start = not _calls[INVOKE]
    state.error = None
    if runtime_client.waiting is None:  # else it was done before the wait
        shutdown.rearm()
    if _on_invoke:
        phases.call(INVOKE)
    else:
        _calls[INVOKE] += 1
        _ended[INVOKE] += 1


def _begin_undecorated(state: current.State, context: Any) -> None:
    """Begin an invocation that the runtime client has received."""
    if _decorates:  # it begins by itself
        state.inside = False
    else:
        _begin(state, (None, context), {})


def _found_context(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return Lambda's context, and its method that tells what is left; or None."""
    for candidate in (*reversed(args), *kwargs.values()):
        ask = _attribute(candidate, "get_remaining_time_in_millis")
        if ask is not None:
            return candidate, ask
    for candidate in args:  # AWS's durable context leads to Lambda's
        found = _attribute(candidate, "lambda_context")
        ask = _attribute(found, "get_remaining_time_in_millis")
        if ask is not None:
            return found, ask
    return None, None


def _attribute(of: Any, name: str) -> Any:
    """Return an attribute of an object of the user's; None where that fails."""
    try:
        return getattr(of, name, None)
    except Exception as exc:
        if process.by_signal_handler(exc):
            raise
        return None


def _run(awaitable: Any) -> Any:
    # Only for asynchronous handlers, like asyncio itself.
    from .lifecycle import event_loop

    return event_loop.run(awaitable)


@process.at_reset
def reset() -> None:
    """Forget that anything was started, as if this were just imported."""
    global _started, _decorates
    _started = _decorates = False
