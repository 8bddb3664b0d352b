"""
The traceback of a failure, as a log line shows it.

Loaded by the first failure that is logged with one.
"""

from __future__ import annotations

import traceback

LONGEST = 100  # lines


def lines_of(exc: BaseException | None) -> list[str]:
    """Return the traceback of *exc*, which is being handled, or its ends, as lines."""
    if exc is None:
        return []
    shown = traceback.TracebackException.from_exception(exc)
    _leave_out_the_callers(exc, shown)
    lines = "".join(shown.format()).rstrip().split("\n")
    if len(lines) > LONGEST:
        half = LONGEST // 2
        lines[half:-half] = ["  ..."]
    return lines


def _leave_out_the_callers(
    exc: BaseException, shown: traceback.TracebackException
) -> None:
    """
    Take from *shown* what was being handled before the call that raised *exc*.

    A hook that fails after the handler has raised: the handler's exception is the
    context of the hook's, is not its cause, and is logged by the runtime.
    """
    callers = set()
    step = exc.__traceback__
    frame = None if step is None else step.tb_frame.f_back
    while frame is not None:
        callers.add(frame)
        frame = frame.f_back
    context, of_shown = exc.__context__, shown.__context__
    while context is not None and of_shown is not None:
        step = context.__traceback__
        if step is not None and step.tb_frame in callers:
            shown.__context__ = None
            return
        shown = of_shown
        context, of_shown = context.__context__, of_shown.__context__
