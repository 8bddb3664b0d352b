"""
Whether an exception was raised by a signal handler, or by the code it passed.

A signal handler of the user's (a guard against a time-out, say) may raise
wherever it runs, also inside this library, and its exception must arrive where
the user expects it.  Code of the user's that this library calls (a sink, a
number's ``__float__``) may raise on its own, a BaseException too, which must
not end the runtime.  So code that catches exceptions of such code asks here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal` (0.7 ms)
import functools
import itertools
import sys

from . import real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

_VARARGS = 0x04  # of a code object; `inspect`


def by_signal_handler(exception: BaseException) -> bool:
    """
    Say whether a signal handler raised *exception*, as far as can be told.

    It did if its traceback has a frame of a handler that is installed, or one
    that was called as handlers are, with a signal's number and a frame.  So
    did Python's own handler of SIGINT, which has no frame, if no ``raise``
    statement raised a KeyboardInterrupt.
    """
    if not real_threads.in_main_thread():
        return False  # handlers run in the main thread only
    codes = []
    for number in _signal.valid_signals():
        handler = _signal.getsignal(number)
        if handler is _signal.default_int_handler:
            if isinstance(exception, KeyboardInterrupt) and not _stated(exception):
                return True
        elif callable(handler):
            codes.append(_code(handler))
    traceback = exception.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if any(frame.f_code is code for code in codes) or _is_handler(frame):
            return True
        traceback = traceback.tb_next
    return False


def _code(handler: Any) -> object:
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)
    if code is None:
        code = getattr(type(handler).__call__, "__code__", None)
    return code


def _is_handler(frame: FrameType) -> bool:
    """Say whether *frame* is of a function called with a signal and a frame."""
    code = frame.f_code
    count = code.co_argcount
    names = code.co_varnames[: count + bool(code.co_flags & _VARARGS)]
    given: list[Any] = []
    for name in names:
        value = frame.f_locals.get(name)
        if name in names[count:]:
            given += value if isinstance(value, tuple) else ()
        else:
            given.append(value)
    return any(
        isinstance(first, int) and isinstance(second, type(sys._getframe()))
        for first, second in itertools.pairwise(given)
    )


def _stated(exception: BaseException) -> bool:
    """Say whether a ``raise`` statement raised *exception*."""
    import opcode  # only a KeyboardInterrupt pays for it

    traceback = exception.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return code[traceback.tb_lasti] == opcode.opmap["RAISE_VARARGS"]
