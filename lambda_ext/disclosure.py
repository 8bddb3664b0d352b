"""
What the library shows besides values: log lines, error texts, tracebacks.

Guarantees
    A log line is one line of bounded length for every name and every
    error code of AWS's, and logging raises nothing but what a signal handler
    of the user's raises meanwhile: a filter or a log handler that fails does
    not end a load or a flush.
    `forget_variables` empties the variables of a traceback's finished frames:
    tools that print or send them (Sentry, Rollbar, `traceback` with
    ``capture_locals``) find no token, key or value there.  The traceback
    itself, with its files, lines and functions, stays.

What an object of the user's has as an attribute is read here, too (`attribute`,
`words`; its numbers by `sink_numbers`): it may be anything, or raise.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys

from .lifecycle.process import by_signal_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

LONGEST = 1000  # characters of one field
MOST_BITS = 256  # of an int that a message quotes
_PACKAGE = __name__.partition(".")[0]
_SUSPENDABLE = 0x20 | 0x80 | 0x200  # generators and coroutines, in co_flags


def printable(value: object, longest: int = LONGEST) -> str:
    """
    Return *value* as text of one line, *longest* characters at most.

    What cannot be printed (line breaks, escapes of a terminal, marks that
    change the direction of writing) is escaped, as `repr` does.
    """
    text = str(value)
    if len(text) > longest:
        text = f"{text[:longest]}... ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def shown(number: object) -> str:
    """Return *number*, a wrong argument, as a message quotes it; no int is too large."""
    if isinstance(number, int) and number.bit_length() > MOST_BITS:
        return f"an int of {number.bit_length()} bits"  # `repr` may refuse it
    return quoted(number)


def log(level: int, event: str, text: object = "", /, **fields: object) -> None:
    """Log "lambda_ext.EVENT name=value ... TEXT" as one line; see the guarantees."""
    _write(level, event, text, fields)


def warn(event: str, text: object = "", /, **fields: object) -> None:
    """Log a warning, see `log`."""
    _write(logging.WARNING, event, text, fields)


def inform(event: str, text: object = "", /, **fields: object) -> None:
    """Log for information, see `log`."""
    _write(logging.INFO, event, text, fields)


def failure(event: str, text: object = "", /, **fields: object) -> None:
    """
    Log a warning, and the traceback of the exception that is being handled.

    Not for exceptions that may quote a value: `kind` is what to say of those.
    """
    _write(logging.WARNING, event, text, fields, traced=True)


def kind(exc: BaseException) -> str:
    """Return the class of *exc* and where it was raised, without its message."""
    return f"{type(exc).__name__} at {place(exc)}"


def _write(
    level: int,
    event: str,
    text: object,
    fields: dict[str, object],
    *,
    traced: bool = False,
) -> None:
    # Not made earlier: `dictConfig` disables the loggers that there are.
    logger = logging.getLogger(_PACKAGE)
    if not logger.isEnabledFor(level):
        return
    template = f"lambda_ext.{event}" + "".join(f" {name}=%s" for name in fields)
    try:
        shown = [printable(value) for value in fields.values()]
        if text != "":
            template += " %s"
            shown.append(printable(text))
        if traced:
            # Not exc_info: on a plain stdout the runtime client ends no line after
            # a traceback, and an EMF document would begin in the middle of one.
            template += "\n%s"
            shown.append(_traceback())
        logger.log(level, template, *shown, stacklevel=3)
    except Exception as exc:  # of a filter or a log handler of the user's
        if by_signal_handler(exc):
            raise


def _traceback() -> str:
    exc = sys.exc_info()[1]
    try:
        # Only a failure needs it.
        from .tracebacks import lines_of
    except Exception as failed:
        # No file can be opened; perhaps it is *exc* that says so.
        if exc is None or by_signal_handler(failed):
            raise
        return printable(f"{kind(exc)}: {exc}")

    return "\n".join(map(printable, lines_of(exc)))


def place(exc: BaseException) -> str:
    """
    Return where *exc* was raised, as "file.py:12 in function".

    For exceptions whose message may quote a value.
    """
    step = exc.__traceback__
    if step is None:
        return "an unknown place"
    while step.tb_next is not None:
        step = step.tb_next
    code = step.tb_frame.f_code
    return f"{os.path.basename(code.co_filename)}:{step.tb_lineno} in {code.co_name}"


def forget_variables(exc: BaseException) -> None:
    """
    Empty the variables of the finished frames that *exc* leads to.

    For the `except` clause of a public function, before ``raise``: of the
    exceptions that *exc* was raised from or during, those are left alone that
    began in the user's own code.
    """
    seen = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        waiting += (found.__cause__, found.__context__)
        step = found.__traceback__
        if step is None or not _is_ours(step.tb_frame):
            continue
        while step is not None:
            _forget(step.tb_frame)
            step = step.tb_next


def raises_without_variables(function: F) -> F:
    """Decorate *function* with `forget_variables` for all that it raises."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as exc:
            forget_variables(exc)
            args, kwargs = (), {}  # this frame's own, which may hold a key
            raise

    return call  # type: ignore[return-value]  # of the same type


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__") or ""
    return isinstance(name, str) and name.partition(".")[0] == _PACKAGE


def _forget(frame: FrameType) -> None:
    if frame.f_code.co_flags & _SUSPENDABLE and not _is_ours(frame):
        return  # one that waits would be ended
    with contextlib.suppress(RuntimeError):  # it is running, or waits
        frame.clear()


# Attributes of the user's objects, which may be anything --------------


def words(of: object, name: str) -> str:
    """Return the text that *of* has as *name*; "" where it is none."""
    found = attribute(of, name)
    return found if isinstance(found, str) else ""


def attribute(of: object, name: str, otherwise: Any = None) -> Any:
    """
    Return the attribute *name* of *of*; *otherwise* where it cannot be had.

    `getattr` hides an AttributeError only, and a ``__getattr__`` that is a look-up
    raises a KeyError.
    """
    try:
        return getattr(of, name, otherwise)
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        return otherwise


def wrappable(function: object) -> tuple[str, ...]:
    """Return the names of what `functools.wraps` can take over from *function*."""
    absent = object()
    return tuple(
        [
            name
            for name in functools.WRAPPER_ASSIGNMENTS
            if attribute(function, name, absent) is not absent
        ]
    )


def quoted(given: object) -> str:
    """Return the beginning of the `repr` of *given*; its type where that fails."""
    try:
        return f"{given!r:.80}"
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        return f"an object of type {type(given).__qualname__}"
