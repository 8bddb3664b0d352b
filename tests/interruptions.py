"""Do something at an exact instruction, as a signal handler does at any."""

from __future__ import annotations

import contextlib
import sys
import types

TOOL = 4  # of sys.monitoring; neither coverage nor a debugger takes it


def codes(modules):
    """Return the code of every function, method and property of *modules*."""
    found = []
    waiting = []
    paths = {module.__file__ for module in modules}
    for module in modules:
        for value in vars(module).values():
            inside = vars(value).values() if isinstance(value, type) else ()
            for member in (value, *inside):
                function = getattr(member, "fget", member)
                waiting.append(getattr(function, "__code__", None))
    while waiting:
        code = waiting.pop()
        if isinstance(code, types.CodeType) and code.co_filename in paths:
            found.append(code)
            waiting.extend(code.co_consts)
    return found


@contextlib.contextmanager
def before_each_instruction(modules, function):
    """Call *function* before each instruction of *modules*."""
    if sys.version_info >= (3, 12):
        monitoring = sys.monitoring
        event = monitoring.events.INSTRUCTION
        monitoring.use_tool_id(TOOL, "interrupt")
        monitoring.register_callback(TOOL, event, lambda *_: function())
        try:
            for code in codes(modules):
                monitoring.set_local_events(TOOL, code, event)
            yield
        finally:
            for code in codes(modules):
                monitoring.set_local_events(TOOL, code, 0)
            monitoring.register_callback(TOOL, event, None)
            monitoring.free_tool_id(TOOL)
        return

    paths = {module.__file__ for module in modules}

    def instruction(frame, event, _):
        if event == "opcode":
            function()
        return instruction

    def call(frame, *_):
        if frame.f_code.co_filename not in paths:
            return None
        frame.f_trace_opcodes = True
        return instruction

    former = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(former)
