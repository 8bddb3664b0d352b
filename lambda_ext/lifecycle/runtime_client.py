"""
Lambda's runtime client (`awslambdaric`): where it waits for an invocation.

The method that waits is private to AWS.  It is found by name and replaced by
one that calls `before_wait` functions first and `after_wait` functions last;
where it is not found, nothing is replaced and `waiting` stays None.
"""

from __future__ import annotations

import contextlib
import functools
import sys

from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MODULE = "awslambdaric.lambda_runtime_client"
CLASSES = ("BaseLambdaRuntimeClient", "LambdaRuntimeClient")

waiting: bool | None = None  # for an invocation; None: it is not known
_deadline_ms: object = None  # of the last invocation, as the runtime client has it

_before: list[Callable[[], object]] = []
_last: list[Callable[[], object]] = []
_after: list[Callable[[Any], object]] = []
_unhook: Callable[[], None] | None = None


def before_wait(function: Callable[[], object], *, last: bool = False) -> bool:
    """
    Call *function* each time before the runtime client waits, in its thread.

    The answer to the last invocation has been posted by then.  With *last* it is
    called when all the others were.  Say whether the runtime client's wait can be seen.
    """
    functions = _last if last else _before
    if function not in functions:
        functions.append(function)
    _hook()
    return _unhook is not None


def is_known() -> bool:
    """Say whether this is a runtime client whose wait can be seen."""
    return _client_that_waits() is not None


def ends_at() -> float | None:
    """Return when Lambda ends the last invocation, in seconds since the epoch."""
    try:
        return float(_deadline_ms) / 1000  # type: ignore[arg-type]  # see below
    except (TypeError, ValueError):
        return None


def after_wait(function: Callable[[Any], object]) -> None:
    """Call *function* with what the runtime client has received, in its thread."""
    if function not in _after:
        _after.append(function)
    _hook()


def forget(function: Callable[[], object]) -> None:
    """Call *function* no more; nothing happens if it was not called."""
    with contextlib.suppress(ValueError):
        _before.remove(function)


def _hook() -> None:
    global _unhook, waiting
    if _unhook is not None:
        return
    client = _client_that_waits()
    if client is None:
        return
    wait = client.wait_next_invocation

    @functools.wraps(wait)
    def wait_next_invocation(*args: Any, **kwargs: Any) -> Any:
        global _deadline_ms, waiting
        for function in (*_before, *_last):
            try:
                function()
            except Exception as exc:  # none of it may end the runtime
                if process.by_signal_handler(exc):
                    raise
        waiting = True
        try:
            received = wait(*args, **kwargs)
        finally:
            waiting = False
        _deadline_ms = getattr(received, "deadline_time_in_ms", None)
        for after in _after.copy():
            try:
                after(received)
            except Exception as exc:
                if process.by_signal_handler(exc):
                    raise
        return received

    def unhook() -> None:
        client.wait_next_invocation = wait

    client.wait_next_invocation = wait_next_invocation
    _unhook = unhook
    waiting = False


def _client_that_waits() -> Any:
    """Return the class whose method waits for an invocation; None if there is none."""
    module = sys.modules.get(MODULE)
    for name in CLASSES:
        client = getattr(module, name, None)
        if getattr(client, "wait_next_invocation", None) is not None:
            return client
    return None


def _forked() -> None:
    """Call nothing of the parent's; a child that waits is not known to do so."""
    global _deadline_ms, waiting
    _before.clear()
    _last.clear()
    _after.clear()
    _deadline_ms = waiting = None


@process.at_reset
def reset() -> None:
    """Put back the method that was replaced."""
    global _unhook
    unhook, _unhook = _unhook, None
    if unhook is not None:
        unhook()
    _forked()


process.at_fork(_forked)
