"""
Durable functions: whether the code that records has run before.

A durable handler runs again from the top each time its execution resumes, and
AWS's SDK answers for what is done already.  So the same record is made once for
each resume.  The SDK knows, for each durable context (the handler's, a child's,
a branch's), whether the code in it replays; nothing says which context a piece
of code is in.  The stack does: the innermost frame of the SDK has called that
code, with the context as an argument.

    your code  ◀─ metrics.count()
    your branch(context)          the context that is asked
    aws_durable_execution_sdk_python....execute_item
    ...

In the body of a step, or of a condition, there is none to ask: the SDK runs it
only when its result is not known.  Where no context is found the record counts:
counting it twice is preferred to losing it.

Cost
    This module is imported when the SDK is (see `recorder`); a record then
    takes a few microseconds, for a walk up the stack.

Limits
    A thread that the handler starts by itself has no frame of the SDK: what it
    records counts each time.  A step that is retried counts for each attempt.
    What stands between ``create_callback()`` and ``.result()`` counts twice,
    and what stands behind the last operation of a flat (virtual) branch counts
    at each resume until its siblings are done: the SDK reports no replay there.

Source: AWS Durable Execution SDK for Python, ``DurableContext.is_replaying``,
https://github.com/aws/aws-durable-execution-sdk-python
"""

from __future__ import annotations

import sys

from .. import disclosure
from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

SDK = "aws_durable_execution_sdk_python"
_INSIDE = SDK + "."
# Call the body of a step or of a condition, and no code that replays.
_ONCE = frozenset((SDK + ".operation.step", SDK + ".operation.wait_for_condition"))
# Hold the lock of a context, which is not re-entrant.
_LOCKED = frozenset(("is_replaying", "_set_replay_status_new"))
_VARARGS = 0x04  # of a code object; `inspect`

replayed = 0  # records that were left out
_lock = process.Lock()


class Unseen(dict):  # type: ignore[type-arg]
    """What a `Metrics` remembers, for `get` only: by index it is never found."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)


def replays() -> bool:
    """Say whether the innermost durable context of the calling code replays."""
    inner: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if type(module) is str and module.startswith(_INSIDE):
            if module in _ONCE or frame.f_code.co_name in _LOCKED:
                return False
            context = None if inner is None else _argument(inner)
            if context is None:
                context = _argument(frame) or _variable(frame)
            is_replaying = disclosure.attribute(context, "is_replaying")
            return is_replaying is not None and bool(is_replaying())
        inner = frame
        frame = frame.f_back
    return False


def note() -> None:
    """Count a record that was left out."""
    global replayed
    with _lock:
        replayed += 1


def is_suspension(raised: type[BaseException] | None) -> bool:
    """Say whether *raised* is the SDK's way to suspend an execution."""
    exceptions: Any = sys.modules.get(SDK + ".exceptions")
    suspension = getattr(exceptions, "SuspendExecution", None)
    return (
        raised is not None and suspension is not None and issubclass(raised, suspension)
    )


def _argument(frame: FrameType) -> Any:
    """Return the durable context among the arguments of *frame*; else None."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[: count + bool(code.co_flags & _VARARGS)]
    kind = _kind()
    values = frame.f_locals
    for name in names:
        value = values.get(name)
        if name != "self" and isinstance(value, kind):
            return value
        if type(value) is tuple:
            for each in value:
                if isinstance(each, kind):
                    return each
    return None


def _variable(frame: FrameType) -> Any:
    """Return a durable context among all variables of a frame of the SDK."""
    kind = _kind()
    for name, value in frame.f_locals.items():
        # `self` is the context that made a child, whose answer may be another.
        if name != "self" and isinstance(value, kind):
            return value
    return None


def _kind() -> Any:
    context: Any = sys.modules.get(SDK + ".context")
    return getattr(context, "DurableContext", ())


@process.at_fork
@process.at_reset
def reset() -> None:
    """Start again from zero."""
    global replayed
    replayed = 0
