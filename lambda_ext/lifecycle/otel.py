"""
OpenTelemetry's SDK, where the program has loaded it: flushed with our metrics.

Its processors export in threads of their own, every few seconds; between two
invocations the process is frozen, and Lambda ends it without telling them.
So ``force_flush`` of the three providers (spans, metrics, logs) is called at
the end of each invocation, before a time-out and a snapshot, at SIGTERM and at
exit, within the time that this library has there.  A provider without that
method (the API alone, or one that is not set up) is left alone.

Each provider is called on a thread of its own, all at once: the SDK's
processors do not keep to the time that they are given.  One that is late is left
behind, and not called again before it has returned.  What they raise is
logged, once until they succeed, and raised nowhere.

OpenTelemetry's own instrumentation of Lambda flushes spans and metrics by
itself after the handler: where it is on, the end of an invocation is left to
it, since one more flush would export each cumulative metric once more.

Nothing of OpenTelemetry is imported here: it is looked up in `sys.modules`.

Source: OpenTelemetry specification, ForceFlush,
https://opentelemetry.io/docs/specs/otel/trace/sdk/#forceflush
"""

from __future__ import annotations

import sys

from .. import disclosure
from . import clock, phases, process, real_threads, shutdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROVIDERS = (
    ("opentelemetry.trace", "get_tracer_provider"),
    ("opentelemetry.metrics", "get_meter_provider"),
    ("opentelemetry._logs", "get_logger_provider"),
)
INSTRUMENTATION = "opentelemetry.instrumentation.aws_lambda"
FLUSHED_BY_IT = frozenset(("opentelemetry.trace", "opentelemetry.metrics"))
RESPONSE_S = 2.0  # at most, at the end of an invocation
MARGIN_S = 0.05  # of the invocation's time, which is left
EXIT_S = 0.1  # where nothing says how long there is

_busy: dict[str, object] = {}  # providers that have not returned yet, by module
_failed: set[str] = set()  # those whose failure has been logged


def install() -> None:
    """Flush the providers from now on; more calls change nothing."""
    for phase, listener in (
        (phases.RESPONSE, _at_response),
        (phases.SNAPSHOT, _before_freeze),
        (phases.TIMEOUT, _within_share),
        (phases.SHUTDOWN, _within_share),
    ):
        phases.listen_once(phase, listener, priority=phases.NETWORK)
    shutdown.follow_exit()


def _at_response() -> None:
    _before_freeze(FLUSHED_BY_IT if _is_instrumented() else frozenset())


def _before_freeze(but: frozenset[str] = frozenset()) -> None:
    left_s = clock.remaining()
    budget_s = RESPONSE_S
    if left_s is not None:
        budget_s = min(budget_s, left_s - MARGIN_S)
    if budget_s > 0:
        flush(budget_s, but)


def _within_share() -> None:
    flush(phases.share_s() or EXIT_S)


def _is_instrumented() -> bool:
    """Say whether OpenTelemetry wraps the handler, and flushes after it."""
    module: Any = sys.modules.get(INSTRUMENTATION)
    if module is None:
        return False
    try:  # there is one instrumentor, however often it is made
        return bool(module.AwsLambdaInstrumentor().is_instrumented_by_opentelemetry)
    except Exception as exc:
        if process.by_signal_handler(exc):
            raise
        return False


def flush(budget_s: float, but: frozenset[str] = frozenset()) -> None:
    """Have all providers flushed *but* some; wait *budget_s* seconds at most."""
    ends_at = clock.run_time() + budget_s
    waiting = []
    for module, getter in PROVIDERS:
        force_flush = None if module in but else _force_flush(module, getter)
        if force_flush is not None and module not in _busy:
            done = real_threads.Event()
            _start(module, force_flush, budget_s, done)
            waiting.append((module, done))
    for module, done in waiting:
        if not done.wait(max(ends_at - clock.run_time(), 0.0)):
            _tell(module, f"it takes longer than {budget_s:.3g} s")


def _force_flush(module: str, getter: str) -> Callable[..., object] | None:
    api: Any = sys.modules.get(module)
    if api is None:
        return None
    try:
        found: Any = getattr(getattr(api, getter)(), "force_flush", None)
    except Exception as exc:  # of a provider that is set up by a variable
        if process.by_signal_handler(exc):
            raise
        _tell(module, disclosure.kind(exc))
        return None
    return found if callable(found) else None


def _start(
    module: str,
    force_flush: Callable[..., object],
    budget_s: float,
    done: real_threads.Event,
) -> None:
    def body() -> None:
        try:
            force_flush(timeout_millis=max(int(budget_s * 1000), 1))
        except BaseException as exc:
            _tell(module, disclosure.kind(exc))
        else:
            _failed.discard(module)
        finally:
            if _busy.get(module) is done:  # not of a fork's parent
                del _busy[module]
            done.set()

    try:
        _busy[module] = done
        real_threads.start("lambda_ext_otel", body)
    except BaseException as exc:
        none_to_be_had = isinstance(exc, (RuntimeError, MemoryError))
        if not none_to_be_had or process.by_signal_handler(exc):
            _busy.pop(module, None)  # before the thread has begun
            raise
        body()


def _tell(module: str, reason: str) -> None:
    if module not in _failed:
        _failed.add(module)
        disclosure.warn("otel_flush_failed", provider=module, reason=reason)


@process.at_fork
@process.at_reset
def reset() -> None:
    """Wait for no provider of before."""
    _busy.clear()
    _failed.clear()
