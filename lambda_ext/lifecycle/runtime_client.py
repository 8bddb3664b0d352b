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

_before: list[Callable[[], object]] = []
_after: list[Callable[[Any], object]] = []
_unhook: Callable[[], None] | None = None


def before_wait(function: Callable[[], object]) -> None:
    """Call *function* each time before the runtime client waits, in its thread."""
    if function not in _before:
        _before.append(function)
    _hook()


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
    module = sys.modules.get(MODULE)
    for name in CLASSES:
        client: Any = getattr(module, name, None)
        wait = getattr(client, "wait_next_invocation", None)
        if wait is not None:
            break
    else:
        return

    @functools.wraps(wait)
    def wait_next_invocation(*args: Any, **kwargs: Any) -> Any:
        global waiting
        for function in _before.copy():
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


def _forked() -> None:
    """Call nothing of the parent's; a child that waits is not known to do so."""
    global waiting
    _before.clear()
    _after.clear()
    waiting = None


@process.at_reset
def reset() -> None:
    """Put back the method that was replaced."""
    global _unhook, waiting
    unhook, _unhook = _unhook, None
    if unhook is not None:
        unhook()
    _before.clear()
    _after.clear()
    waiting = None


process.at_fork(_forked)
