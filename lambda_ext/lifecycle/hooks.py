"""
Hooks: functions of the user's that are called in a phase, as public decorators.

    on_init ─▶ on_invoke ─▶ on_response ─▶ after_response ─▶ ... ─▶ on_shutdown
    with on_timeout, before_snapshot and after_restore on the side

`defer` is for one call after one response.

A hook may take the argument that its decorator names, or none: one with a
parameter that has no default gets it.  It may be an ``async def``, which is run
on the event loop of the environment.  Hooks are called by priority, low first,
then in order of registration.  One that raises, or calls ``sys.exit``, is logged
and counted, and stops neither the next one nor the handler.
"""

from __future__ import annotations

import functools

from ..disclosure import attribute, shown
from ..exceptions import ConfigurationError
from . import deadline, event_loop, invocations, phases, shutdown, snapstart
from .process import by_signal_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar, overload

    from .invocations import Invocation, Outcome

    P = ParamSpec("P")

    Hook = TypeVar("Hook", bound=Callable[[], object])
    OfInvocation = TypeVar(
        "OfInvocation", bound=Callable[[], object] | Callable[[Invocation], object]
    )
    OfOutcome = TypeVar(
        "OfOutcome", bound=Callable[[], object] | Callable[[Outcome], object]
    )
    OfSeconds = TypeVar(
        "OfSeconds", bound=Callable[[], object] | Callable[[float], object]
    )

MOST_S = 86_400  # for a hook; no invocation lasts that long
_GENERATOR = 0x20 | 0x200  # of a code object, asynchronous ones too; `inspect`
_VARARGS = 0x04
_ANY = -1  # arguments that a function takes, and needs none of
_NAMED = -2  # it needs some by name, which no hook gets


if TYPE_CHECKING:

    @overload
    def on_init(hook: Hook, /) -> Hook: ...
    @overload
    def on_init(*, priority: int = phases.USER) -> Callable[[Hook], Hook]: ...


def on_init(hook: Any = None, /, *, priority: int = phases.USER) -> Any:
    """
    Call the decorated function, without arguments, when INIT has come.

    That is once, when a handler is decorated or `lambda_ext.start()` is called,
    and for a function that is decorated later: at once.  Only inside Lambda.
    INIT waits for it.  What is declared is loaded at priority 50, the default.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int.
    """

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.INIT, listener, priority=_within(priority))
        if phases.calls[phases.INIT]:
            phases.call_one(phases.INIT, listener)

    return _decorated("on_init", hook, priority, None, add)


if TYPE_CHECKING:

    @overload
    def on_invoke(hook: OfInvocation, /) -> OfInvocation: ...
    @overload
    def on_invoke(
        *, priority: int = phases.USER, budget: float | None = None
    ) -> Callable[[OfInvocation], OfInvocation]: ...


def on_invoke(
    hook: Any = None,
    /,
    *,
    priority: int = phases.USER,
    budget: float | None = None,
) -> Any:
    """
    Call the decorated function when an invocation begins: of a decorated handler,
    or of any, where `lambda_ext.start()` was called and nothing is decorated.

    It may take one argument, the `lambda_ext.Invocation`.  The handler waits
    for it: without end, in its own thread, or for *budget* seconds (half of what
    is left, if that is less), while it runs on a thread of its own in a copy of the
    context variables.  One that is not done by then is left behind, counted and
    logged, and is not called again before it has returned.  An ``async def`` that is
    left behind goes on when the event loop runs again, beside its next call; while
    four such calls have not ended, they go on instead of a new call.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int; *budget* is no positive number.
    """

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.INVOKE, listener, priority=_within(priority))

    return _decorated(
        "on_invoke", hook, priority, invocations.Invocation, add,
        phase=phases.INVOKE, budget=budget,
    )  # fmt: skip


if TYPE_CHECKING:

    @overload
    def on_response(hook: OfOutcome, /) -> OfOutcome: ...
    @overload
    def on_response(
        *, priority: int = phases.EARLY, budget: float | None = None
    ) -> Callable[[OfOutcome], OfOutcome]: ...


def on_response(
    hook: Any = None,
    /,
    *,
    priority: int = phases.EARLY,
    budget: float | None = None,
) -> Any:
    """
    Call the decorated function when the handler has returned or raised.

    That is before Lambda has the answer, which waits for it and does not change:
    without end, or for *budget* seconds, as in `on_invoke`.
    It may take one argument, the `lambda_ext.Outcome`.  Metrics are flushed at
    priority 50: what a hook of a lower one records (25 is the default) belongs
    to this invocation.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int; *budget* is no positive number.
    """

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.RESPONSE, listener, priority=_within(priority))

    return _decorated(
        "on_response", hook, priority, invocations.Outcome, add,
        phase=phases.RESPONSE, budget=budget,
    )  # fmt: skip


if TYPE_CHECKING:

    @overload
    def after_response(hook: OfOutcome, /) -> OfOutcome: ...
    @overload
    def after_response(
        *, priority: int = phases.USER
    ) -> Callable[[OfOutcome], OfOutcome]: ...


def after_response(hook: Any = None, /, *, priority: int = phases.USER) -> Any:
    """
    Call the decorated function when the caller of a decorated handler has its answer.

    It may take one argument, the `lambda_ext.Outcome`.  The next invocation waits
    for it, and Lambda bills its time.  It runs on a thread of its own: 0.5 seconds
    before the deadline of the invocation (the option ``timeout_margin``; half of
    what is left, if that is less) the environment goes on without it, which is
    counted and logged.  Metrics that it records are flushed afterwards.

    Where the runtime client of the function is not AWS's `awslambdaric`, the hook
    needs an INVOKE event: decorate it above the handler.  Outside Lambda, and where
    there is no event, it is called before the handler's answer.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int.

    Source: Lambda runtime API, "Next invocation",
    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
    """
    from . import deferred  # only for work after the response

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.AFTER, listener, priority=_within(priority))
        deferred.ask()
        deferred.follow()

    return _decorated(
        "after_response", hook, priority, deferred.outcome, add,
        run=deferred.await_,
    )  # fmt: skip


def defer(function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
    """
    Call *function* with these arguments once the caller has its answer.

    Inside a handler, that is after its own response; elsewhere after the next one.
    It runs in the context variables of now, after the `after_response` hooks and
    what was deferred before, on a thread of its own; an ``async def`` function runs
    on the event loop of the environment.  The next invocation waits for it, and
    Lambda bills its time; see `after_response` for when it is left behind, and
    where it runs if the end of an answer cannot be seen.  What is still queued at
    SIGTERM is called within the budget of 300 ms, in what shutdown hooks leave of it.

    Returns whether it is queued: False if 1,000 calls are waiting, which is counted
    in ``stats().deferred`` and logged once.  What *function* raises is logged.

    Raises:
        ConfigurationError: *function* cannot be called, or is a generator.
    """
    from . import deferred  # only for work after the response

    _check(function, "defer")
    return deferred.add(deferred.Call(function, args, kwargs))


if TYPE_CHECKING:

    @overload
    def on_timeout(hook: OfSeconds, /) -> OfSeconds: ...
    @overload
    def on_timeout(
        *, priority: int = phases.USER
    ) -> Callable[[OfSeconds], OfSeconds]: ...


def on_timeout(hook: Any = None, /, *, priority: int = phases.USER) -> Any:
    """
    Call the decorated function when an invocation is about to time out.

    That is 0.5 seconds before Lambda ends it (the option ``timeout_margin``; half
    of a shorter time-out), on a thread of this library, while the handler goes
    on.  It may take one argument, the seconds that it has: what is left is
    shared equally among those still to come, and one that takes longer is left
    behind.  Metrics need no hook: they are flushed before the first and after
    the last one.

    One thread serves all invocations.  Nothing happens in an invocation without
    a deadline.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int.
    """

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.TIMEOUT, listener, priority=_within(priority))
        deadline.watch()

    return _decorated(
        "on_timeout", hook, priority, phases.share_s, add, run=event_loop.run_beside
    )


if TYPE_CHECKING:

    @overload
    def on_shutdown(hook: OfSeconds, /) -> OfSeconds: ...
    @overload
    def on_shutdown(
        *, priority: int = phases.USER
    ) -> Callable[[OfSeconds], OfSeconds]: ...


def on_shutdown(hook: Any = None, /, *, priority: int = phases.USER) -> Any:
    """
    Call the decorated function when Lambda shuts this environment down.

    It runs once: on SIGTERM, on a thread of this library and inside its budget
    of 300 ms (a function time-out included), or at interpreter exit.  It may
    take one argument, the seconds that it has.

    Low *priority* first (0 is the flush of metrics, 50 the default, 90 what uses
    the network).  Those of priority 0 and below share the first 150 ms, the rest
    what is left; one that takes longer than its share is left behind.  A forked
    child, or one that `multiprocessing` spawned, does not call it.

    Lambda sends SIGTERM only to an environment with a registered extension:
    decorate a handler with `lambda_ext.handler` or call `lambda_ext.start()`
    at module scope.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int.

    Source: Lambda runtime environment, "Shutdown phase",
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
    """

    def add(listener: Callable[[], object]) -> None:
        # A spawned child imports the parent's hook once more.
        if not phases.is_importing_worker():
            shutdown.of_user(listener, _within(priority))

    return _decorated(
        "on_shutdown", hook, priority, phases.share_s, add, run=event_loop.run_beside
    )


if TYPE_CHECKING:

    @overload
    def before_snapshot(hook: Hook, /) -> Hook: ...
    @overload
    def before_snapshot(*, priority: int = phases.USER) -> Callable[[Hook], Hook]: ...


def before_snapshot(hook: Any = None, /, *, priority: int = phases.USER) -> Any:
    """
    Call the decorated function, without arguments, before the snapshot.

    For what must not be in it: close connections, forget what is secret.  Cached
    values and connections of this library are let go of anyway.  Only under
    SnapStart, before the runtime asks for its first invocation.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int.

    Source: Lambda SnapStart runtime hooks,
    https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    """

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.SNAPSHOT, listener, priority=_within(priority))
        snapstart.install()

    return _decorated("before_snapshot", hook, priority, None, add)


if TYPE_CHECKING:

    @overload
    def after_restore(hook: Hook, /) -> Hook: ...
    @overload
    def after_restore(*, priority: int = phases.USER) -> Callable[[Hook], Hook]: ...


def after_restore(hook: Any = None, /, *, priority: int = phases.USER) -> Any:
    """
    Call the decorated function, without arguments, after a restore.

    For what must be unique or fresh: identifiers, random state, connections.
    By then this library's clock has moved on, and values loaded earlier are dead.
    Lambda allows 10 seconds for all of it.  Only under SnapStart.

    Raises:
        ConfigurationError: what is decorated is no function, a generator, or
            needs more arguments than it gets;
            *priority* is no int.

    Source: Lambda SnapStart runtime hooks,
    https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    """

    def add(listener: Callable[[], object]) -> None:
        phases.listen(phases.RESTORE, listener, priority=_within(priority))
        snapstart.install()

    return _decorated("after_restore", hook, priority, None, add)


def _decorated(
    name: str,
    hook: Any,
    priority: int,
    argument: Callable[[], object] | None,
    add: Callable[[Callable[[], object]], None],
    *,
    run: Callable[[Any], object] = event_loop.run,
    phase: str = "",
    budget: float | None = None,
) -> Any:
    """Register *hook*, or return what does so for the function below ``@name(...)``."""
    if budget is not None and not _is_positive(budget):
        msg = f"{name}(budget=...) takes seconds, such as 0.2, not {shown(budget)}"
        raise ConfigurationError(msg)
    if isinstance(priority, bool) or not isinstance(priority, int):
        msg = f"{name}(priority=...) takes an int, such as 50, not {shown(priority)}"
        raise ConfigurationError(msg)

    def decorate(function: Any) -> Any:
        _check(function, name)
        needed = _arguments_of(function, by_signature=argument is not None)
        most = 0 if argument is None else 1
        if needed > most or needed == _NAMED:
            what = "one argument at most" if most else "no argument"
            shown_as = attribute(function, "__qualname__") or type(function).__name__
            wanted = "some by name" if needed == _NAMED else needed
            msg = f"@lambda_ext.{name} passes {what}, {shown_as}() needs {wanted}"
            raise ConfigurationError(msg)
        given = argument if needed else None
        listener: Callable[[], object] = function
        # Any Python code may return something to be awaited, C code does not.
        if given is not None or _code(function) is not None:
            listener = _Call(function, given, run)
        if budget is not None:
            from .bounded import Bounded  # only for hooks with a budget

            listener = Bounded(function, given, phase, budget)
        phases.hooks.append(listener)
        add(listener)
        return function

    return decorate if hook is None else decorate(hook)


def _is_positive(seconds: object) -> bool:
    return (
        isinstance(seconds, (int, float))
        and not isinstance(seconds, bool)
        and 0 < seconds <= MOST_S
    )


def _within(priority: int) -> int:
    """Return the *priority* of a hook: none comes after the last flush."""
    return min(priority, phases.LAST - 1)


class _Call:
    """A hook with its argument, awaited if need be."""

    __slots__ = ("argument", "run", "wrapped")

    def __init__(
        self,
        function: Callable[..., object],
        argument: Callable[[], object] | None,
        run: Callable[[Any], object],
    ) -> None:
        self.wrapped = function  # what a log line names
        self.argument = argument
        self.run = run

    def __call__(self) -> None:
        argument = self.argument
        result = self.wrapped() if argument is None else self.wrapped(argument())
        if hasattr(type(result), "__await__"):
            self.run(result)


def _check(hook: object, name: str) -> None:
    """Refuse what could not be called, or not to its end, when its time comes."""
    what = (
        "lambda_ext.defer calls" if name == "defer" else f"@lambda_ext.{name} decorates"
    )
    if not callable(hook):
        msg = f"{what} a function, not {shown(hook)}"
        raise ConfigurationError(msg)
    if getattr(_code(hook), "co_flags", 0) & _GENERATOR:
        msg = (
            f"{what} a function that runs to its end: a"
            " generator is not iterated; write def or async def, without yield"
        )
        raise ConfigurationError(msg)


def _code(hook: Any) -> Any:
    """Return the code that runs when *hook* is called; None for C code."""
    while type(hook) is functools.partial:
        hook = hook.func
    code = attribute(attribute(hook, "__func__", hook), "__code__")
    if code is None:
        code = attribute(getattr(type(hook), "__call__", None), "__code__")  # noqa: B004  its code
    return code


def _arguments_of(hook: Any, *, by_signature: bool) -> int:
    """
    Return how many arguments *hook* must be given by position.

    `_NAMED` where one must be given by name, `_ANY` where there are only ``*args``.
    Where only a signature could tell, 0 unless *by_signature*.
    """
    function = attribute(hook, "__func__", hook)
    if attribute(function, "__code__") is None:
        return _arguments_by_signature(hook) if by_signature else 0
    code = function.__code__
    bound = function is not hook
    if code.co_kwonlyargcount > len(function.__kwdefaults__ or ()):
        return _NAMED
    required: int = code.co_argcount - len(function.__defaults__ or ()) - bound
    return max(required, 0) or (_ANY if code.co_flags & _VARARGS else 0)


def _arguments_by_signature(hook: Any) -> int:
    import inspect  # 6 ms that only partials, builtins and callable objects cost

    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):  # C code that does not say
        return 0
    except Exception as exc:  # of a ``__getattr__`` of the user's
        if by_signal_handler(exc):
            raise
        call = type(hook).__call__.__get__(hook)
        return _arguments_of(call, by_signature=True)
    needed, most = 0, 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = _ANY
        elif parameter.default is parameter.empty:
            if parameter.kind is parameter.KEYWORD_ONLY:
                return _NAMED
            if parameter.kind is not parameter.VAR_KEYWORD:
                needed += 1
    return needed or most
