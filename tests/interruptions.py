"""
Interrupt code at an exact place, as a signal handler does.

`before_each_instruction` is stricter than CPython: it calls a function before
each instruction.  `where_handlers_run` and `interruptions` send a signal and
leave it to CPython where its handler runs: at the entry of a function, after a
call, at a jump backwards.
"""

from __future__ import annotations

import _thread
import contextlib
import dis
import functools
import gc
import itertools
import signal
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
        monitoring.restart_events()  # `_monitored` has disabled some of them
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


SIGNAL = signal.SIGUSR2
PLACES = ("CALL", "JUMP")  # in the names of instructions after which handlers run


class Interrupted(BaseException):
    """What the signal handler of `interruptions` raises."""


class Guarded(TimeoutError):
    """What a guard against a time-out raises: an OSError, which is easily caught."""


def guard():
    """Raise `Guarded`, as the action of `interruptions`."""
    raise Guarded


class Interruption:
    """
    One run of the code under test, as a context; swallows `Interrupted`, `Guarded`.

    sent: whether the signal was sent; happened: whether its handler ran in the
    code under test; raised: whether its exception arrived here; where: the name
    of the function that it interrupted, "" for none.
    """

    def __init__(self, modules, place, action=None):
        self.action = action
        self.modules = modules
        self.place = place
        self.sent = False
        self.happened = False
        self.raised = False
        self.where = ""
        self._stack = contextlib.ExitStack()

    def __repr__(self):
        return f"<Interruption at place {self.place}>"

    def __enter__(self):
        self._stack.enter_context(
            _signals(self.modules, self._is_mine, self._interrupt)
        )
        return self

    def __exit__(self, _, exception, __):
        self._stack.close()
        self.raised = isinstance(exception, (Interrupted, Guarded))
        return self.raised

    def _is_mine(self, place):
        if place == self.place:
            self.sent = True
        return place == self.place

    def _interrupt(self):
        self.happened = True
        self.where = sys._getframe(2).f_code.co_name  # which the handler came into
        if self.action is None:
            raise Interrupted
        self.action()


def interruptions(modules, action=None):
    """
    Yield an `Interruption` for each place where a handler may run in *modules*.

    The handler calls *action*, or else raises `Interrupted`.

    Ends when a run is over before its place was reached; fails if no run has
    reached any.  To be used in the main thread, the only one in which signal handlers run:

        for interruption in interruptions([loader, threading]):
            with interruption:
                run()
            assert ...
    """
    place = 0
    while True:
        interruption = Interruption(modules, place, action)
        yield interruption
        if not interruption.sent:
            assert place > 0, "no place of these modules was reached"
            return
        place += 1


@contextlib.contextmanager
def where_handlers_run(modules, function):
    """Call *function* in a signal handler at each place where one may run."""
    with _signals(modules, lambda place: True, function):
        yield


class _Trip:
    # An operator made of C functions.  Between it and the return to the code
    # under test there must be no call, after which the handler would run.
    __neg__ = staticmethod(functools.partial(_thread.interrupt_main, SIGNAL))


_trip = _Trip()


@contextlib.contextmanager
def _signals(modules, wanted, function):
    """Send a signal just before each place of *modules* whose number is *wanted*."""
    watching = _monitored(modules) if sys.version_info >= (3, 12) else _traced(modules)
    numbers = itertools.count()
    handling = False

    def place():
        if handling or not wanted(next(numbers)):
            return False
        pause()  # else the handler would run in the function that watches
        return True

    def handle(_, frame):
        nonlocal handling
        if frame is not None and frame.f_code.co_filename == __file__:
            return  # after the last place there was no check any more
        handling = True
        try:
            function()
        finally:
            handling = False
            resume(place)

    gc.disable()  # what a handler raises in a finalizer arrives nowhere
    pause, resume, end = watching
    former = signal.signal(SIGNAL, handle)
    resume(place)
    try:
        yield
    finally:
        pause()
        end()
        signal.signal(SIGNAL, former)
        gc.enable()


def _traced(modules):
    """Return how to pause, resume and end: at a place that *place* says, a signal."""
    paths = {module.__file__ for module in modules}
    place = None

    def instruction(frame, event, _):
        if event == "opcode" and frame.f_lasti in _places(frame.f_code) and place():
            -_trip
        return instruction

    def call(frame, *_):
        if frame.f_code.co_filename not in paths:
            return None
        frame.f_trace_opcodes = True
        if place():
            -_trip
        return instruction

    def resume(function):
        nonlocal place
        place = function
        sys.settrace(call)

    former = sys.gettrace()
    return lambda: sys.settrace(former), resume, bool


def _monitored(modules):
    """Return how to pause, resume and end: at a place that *place* says, a signal."""
    monitoring = sys.monitoring
    events = monitoring.events
    main = _thread.get_ident()

    def pause():
        if monitoring.get_tool(TOOL) is not None:
            monitoring.register_callback(TOOL, events.PY_START, None)
            monitoring.register_callback(TOOL, events.INSTRUCTION, None)
            monitoring.free_tool_id(TOOL)

    def resume(place):
        def start(*_):
            if _thread.get_ident() == main and place():
                -_trip

        def instruction(code, offset):
            # By identity: a code's hash goes through all of it.
            if offset not in places[id(code)]:
                return monitoring.DISABLE
            if _thread.get_ident() == main and place():
                -_trip
            return None

        if monitoring.get_tool(TOOL) is None:
            monitoring.use_tool_id(TOOL, "interrupt")
        if not begun:
            begun.append(True)
            for code in found:
                monitoring.set_local_events(
                    TOOL, code, events.PY_START | events.INSTRUCTION
                )
        monitoring.register_callback(TOOL, events.PY_START, start)
        monitoring.register_callback(TOOL, events.INSTRUCTION, instruction)

    def end():
        # Freeing the tool leaves the events, for all who take it later.
        monitoring.use_tool_id(TOOL, "interrupt")
        for code in found:
            monitoring.set_local_events(TOOL, code, 0)
        monitoring.free_tool_id(TOOL)

    found = codes(modules)
    places = {id(code): _places(code) for code in found}
    begun = []
    return pause, resume, end


@functools.cache
def _places(code):
    """Return the offsets of the instructions of *code* that end in a check."""
    return frozenset(
        instruction.offset
        for instruction in dis.get_instructions(code)
        if any(name in instruction.opname for name in PLACES)
    )
