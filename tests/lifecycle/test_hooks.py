"""Functions of the user's, by phase: what they are given, and what they cannot do."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading

import pytest
from helpers import bare_threads, eventually

import lambda_ext
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import bounded, clock, deadline, event_loop, phases, shutdown
from lambda_ext.testing import (
    FakeClock,
    simulate_restore,
    simulate_sigterm,
    simulate_timeout,
)

NAMES = (
    "on_init", "on_invoke", "on_response", "on_timeout", "on_shutdown",
    "before_snapshot", "after_restore",
)  # fmt: skip
WITH_ARGUMENT = ("on_invoke", "on_response", "on_timeout", "on_shutdown")


class Context:
    """What Lambda passes as the second argument."""

    aws_request_id = "8476a536"
    invoked_function_arn = "arn:aws:lambda:eu-central-1:1:function:orders:live"
    tenant_id = "blue"

    def __init__(self, remaining_ms=3000):
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self):
        """Return the milliseconds left."""
        return self.remaining_ms


def everything():
    """Go through all phases once."""
    phases.call(phases.INIT)
    handler = lambda_ext.handler(lambda event, context: None)
    handler({}, Context())
    simulate_timeout(10.0)
    simulate_restore()
    simulate_sigterm(10.0)


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    """What holds for every hook."""

    def test_function_is_handed_back(self, name):
        """A decorated function stays what it is, with priority and without."""

        def function(): ...

        assert getattr(lambda_ext, name)(function) is function
        assert getattr(lambda_ext, name)(priority=3)(function) is function

    def test_is_called_once_in_its_phase(self, name):
        """And in no other."""
        seen = []
        getattr(lambda_ext, name)(lambda: seen.append(name))
        everything()

        assert seen == [name]

    def test_order_is_by_priority_then_registration(self, name):
        """Low first, in any order of registration."""
        seen = []
        for label, priority in (("a", 50), ("b", 90), ("c", 1), ("d", 50)):
            getattr(lambda_ext, name)(priority=priority)(
                functools.partial(seen.append, label)
            )
        everything()

        assert ["c", "a", "d", "b"] == seen

    @pytest.mark.parametrize("takes", [False, True])
    def test_async_one_is_run_to_its_end(self, name, takes):
        """With its argument or without."""
        seen = []

        async def plain():
            await asyncio.sleep(0)
            seen.append(name)

        async def with_argument(argument):
            await asyncio.sleep(0)
            seen.append(name)

        class Object:
            async def __call__(self):
                await plain()

        for hook in (Object(), functools.partial(plain)):
            getattr(lambda_ext, name)(hook)
        use_argument = takes and name in WITH_ARGUMENT
        getattr(lambda_ext, name)(with_argument if use_argument else plain)
        everything()

        assert seen == [name] * 3

    def test_plain_one_that_returns_a_coroutine_is_run_to_its_end(self, name):
        """As a decorator around an ``async def`` may, or a lambda."""
        seen = []

        async def later():
            await asyncio.sleep(0)
            seen.append(name)

        getattr(lambda_ext, name)(lambda: later())
        everything()

        assert seen == [name]

    @pytest.mark.logs
    def test_one_that_raises_is_logged_by_name_and_stops_nothing(self, name, caplog):
        """Neither the next one nor the handler."""
        seen = []

        async def bad(*argument):
            raise ValueError("no")

        getattr(lambda_ext, name)(bad)
        getattr(lambda_ext, name)(lambda: seen.append(name))
        everything()

        (message,) = caplog.messages
        assert seen == [name]
        assert "listener_failed" in message
        assert "bad" in message
        assert "ValueError: no" in message

    @pytest.mark.logs
    @pytest.mark.parametrize(
        "kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError]
    )
    def test_one_that_exits_is_logged_and_stops_nothing(self, name, kind, caplog):
        """It would end the runtime, or break the handler's answer off."""
        seen = []

        def leaves():
            raise kind

        getattr(lambda_ext, name)(leaves)
        getattr(lambda_ext, name)(lambda: seen.append(name))
        everything()

        (message,) = caplog.messages
        assert seen == [name]
        assert "listener_failed" in message
        assert "leaves" in message

    def test_any_priority_is_one(self, name):
        """What is called last is called once."""
        seen = []
        getattr(lambda_ext, name)(priority=1 << 80)(lambda: seen.append(name))
        everything()
        shutdown._flush_late()

        assert seen == [name]

    @pytest.mark.parametrize("value", [5, "a function", object()])
    def test_what_is_no_function_is_refused(self, name, value):
        """The error says which decorator, and what it was given."""
        with pytest.raises(ConfigurationError) as caught:
            getattr(lambda_ext, name)(value)

        assert str(caught.value).startswith(
            f"@lambda_ext.{name} decorates a function, not {value!r:.20}"
        )
        assert all(not phases.listeners(phase) for phase in phases.PHASES)

    def test_generators_are_refused(self, name):
        """They would be called, and their bodies would never run."""

        def generated():
            yield

        async def generated_asynchronously():
            yield

        for function in (generated, generated_asynchronously):
            with pytest.raises(ConfigurationError, match="a generator is not iterated"):
                getattr(lambda_ext, name)(function)

    @pytest.mark.parametrize("priority", ["x", 1.5, True, None])
    def test_priority_that_is_no_int_is_refused(self, name, priority):
        """It would end a phase in the middle of sorting."""
        with pytest.raises(ConfigurationError, match="takes an int"):
            getattr(lambda_ext, name)(priority=priority)


def _two(first, second): ...


def _named(*, hook): ...


def _optional(first=1, *, second=2): ...


class _Method:
    def two(self, first, second): ...


@pytest.mark.parametrize("name", NAMES)
class TestArguments:
    """What needs more than the hook passes is refused where it is decorated."""

    @pytest.mark.parametrize(
        ("function", "needed"),
        [(_two, "2"), (_named, "some by name"), (_Method().two, "2")],
    )
    def test_more_than_one_is_refused(self, name, function, needed):
        """It would raise TypeError in each invocation, and be logged only."""
        with pytest.raises(ConfigurationError, match=f"needs {needed}$") as caught:
            getattr(lambda_ext, name)(function)

        assert f"@lambda_ext.{name} passes" in str(caught.value)
        assert f"{function.__qualname__}()" in str(caught.value)
        assert all(not phases.listeners(phase) for phase in phases.PHASES)

    @pytest.mark.parametrize("function", [lambda: None, lambda *args: None, _optional])
    def test_what_needs_none_is_taken(self, name, function):
        """Defaults and ``*args`` are left to the function."""
        assert function is getattr(lambda_ext, name)(function)


@pytest.mark.parametrize("name", sorted({*NAMES} - {*WITH_ARGUMENT}))
def test_argument_that_a_hook_does_not_pass_is_refused(name):
    """`on_init` and the hooks of a snapshot pass none."""
    with pytest.raises(ConfigurationError, match="passes no argument"):
        getattr(lambda_ext, name)(lambda event: None)


@pytest.mark.parametrize("name", WITH_ARGUMENT)
def test_partial_that_needs_two_is_refused(name):
    """By its signature."""
    with pytest.raises(ConfigurationError, match="needs 2"):
        getattr(lambda_ext, name)(functools.partial(lambda a, b, c: None, 1))


class TestArgument:
    """Which functions get it."""

    @pytest.mark.parametrize("name", WITH_ARGUMENT)
    def test_goes_to_what_must_have_it(self, name):
        """Functions, methods, objects, partials and builtins; not to defaults."""
        seen = []

        class Object:
            def method(self, argument):
                seen.append("method")

            def plain(self):
                seen.append("plain method")

            def __call__(self, argument):
                seen.append("object")

        def default(argument="default"):
            seen.append(argument)

        def keyword(*, argument="keyword"):
            seen.append(argument)

        for hook in (
            lambda argument: seen.append("function"),
            lambda *arguments: seen.append(f"{len(arguments)} arguments"),
            Object().method,
            Object().plain,
            Object(),
            functools.partial(lambda first, argument: seen.append(first), "partial"),
            functools.partial(seen.append, "full partial"),
            default,
            keyword,
        ):
            getattr(lambda_ext, name)(hook)
        builtin = []
        getattr(lambda_ext, name)(builtin.append)
        everything()

        assert [
            "function", "1 arguments", "method", "plain method", "object", "partial",
            "full partial", "default", "keyword",
        ] == seen  # fmt: skip
        assert 1 == len(builtin)

    def test_of_on_invoke_is_the_invocation(self, monkeypatch):
        """Read from Lambda's context, the environment and the clock."""
        monkeypatch.setenv(
            "_X_AMZN_TRACE_ID", "Root=1-5759e988-bd86;Parent=5;Sampled=1"
        )
        seen = []
        lambda_ext.on_invoke(seen.append)
        handler = lambda_ext.handler(lambda event, context: None)
        context = Context()
        with FakeClock() as time:
            handler({}, context)
            handler({}, context)
            wall = time.wall()

        first, second = seen
        assert isinstance(first, lambda_ext.Invocation)
        assert ("8476a536", "blue") == (first.request_id, first.tenant_id)
        assert first.function_arn == Context.invoked_function_arn
        assert "1-5759e988-bd86" == first.trace_id
        assert first.deadline == pytest.approx(wall + 3)
        assert first.context is context
        assert (True, False) == (first.is_cold_start, second.is_cold_start)
        assert "<Invocation 8476a536>" == repr(first)

    def test_of_on_invoke_is_empty_without_a_context(self):
        """As in a unit test that passes None."""
        seen = []
        lambda_ext.on_invoke(seen.append)
        lambda_ext.handler(lambda event, context: None)({}, None)
        (found,) = seen

        assert [None] * 7 == [found.context, found.request_id, found.function_arn, found.tenant_id,
                found.trace_id, found.deadline, found.remaining]  # fmt: skip

    def test_of_on_response_is_the_outcome(self):
        """How long it took, and what it raised."""
        seen = []
        lambda_ext.on_response(seen.append)

        @lambda_ext.handler
        def handler(event, context):
            time.advance(0.25)
            if event:
                raise event

        with FakeClock() as time:
            handler(None, Context())
            with pytest.raises(KeyError):
                handler(KeyError(), Context())

        assert [outcome.error for outcome in seen] == [None, KeyError]
        assert [0.25, 0.25] == [outcome.duration for outcome in seen]
        assert seen[0].remaining is None
        assert "8476a536" == seen[0].request_id

    def test_of_on_shutdown_is_its_share(self):
        """Of the first half for what is essential, else of the rest."""
        seen = {}
        for number in range(20):
            lambda_ext.on_shutdown(lambda budget, n=number: seen.update({n: budget}))
        lambda_ext.on_shutdown(priority=0)(lambda budget: seen.update(flush=budget))
        with FakeClock():
            shutdown.drain(0.3)

        # Without the essential half it would be a 21st part of the budget.
        assert 0.15 == pytest.approx(seen["flush"])
        assert 0.3 / 20 == pytest.approx(seen[0])
        assert 21 == len(seen)


class TestInit:
    """on_init"""

    def test_that_is_over_is_made_up_for(self):
        """A hook below the handler's decorator is called at once."""
        seen = []
        lambda_ext.on_init(lambda: seen.append("early"))
        phases.call(phases.INIT)
        lambda_ext.on_init(lambda: seen.append("late"))

        assert ["early", "late"] == seen


class TestResponse:
    """on_response"""

    def test_comes_before_what_flushes(self):
        """What it records belongs to the invocation."""
        seen = []
        phases.listen(phases.RESPONSE, lambda: seen.append("flush"))
        lambda_ext.on_response(lambda: seen.append("user"))
        phases.call(phases.RESPONSE)

        assert ["user", "flush"] == seen

    def test_is_within_the_invocation(self):
        """Its deadline still holds."""
        seen = []
        lambda_ext.on_response(lambda: seen.append(clock.remaining()))
        lambda_ext.handler(lambda event, context: None)({}, Context())

        assert 0 < seen[0] <= 3


class TestTimeout:
    """on_timeout"""

    def test_is_called_while_the_handler_goes_on(self):
        """Once, on another thread, with what is left; the handler's answer stays."""
        seen = []
        called = threading.Event()

        @lambda_ext.on_timeout
        def hurry(remaining):
            seen.append((remaining, threading.current_thread().name))
            called.set()

        @lambda_ext.handler
        def handler(event, context):
            return called.wait(30)

        assert handler({}, Context(50))
        ((remaining, thread),) = seen
        assert 0 <= remaining <= 0.05
        assert "lambda_ext_timeout" == thread

    def test_is_not_called_in_time(self):
        """Nor without a deadline; one thread watches all invocations."""
        seen = []
        lambda_ext.on_timeout(lambda: seen.append(1))
        handler = lambda_ext.handler(
            lambda event, context: seen.extend(deadline_threads()[1:])
        )
        for context in (Context(60_000), None, Context(30_000), Context(90_000)):
            handler({}, context)

        assert [] == seen
        assert 1 == len(deadline_threads())

    def test_sees_an_earlier_deadline_of_a_later_invocation(self):
        """The thread that sleeps for a minute is woken."""
        called = threading.Event()
        lambda_ext.on_timeout(called.set)
        handler = lambda_ext.handler(
            lambda event, context: called.wait(30) if event else None
        )
        handler(None, Context(60_000))

        assert handler("wait", Context(20))

    def test_begins_no_thread_unasked(self):
        """Without a hook there is nothing to watch for."""
        lambda_ext.handler(lambda event, context: None)({}, Context())

        assert [] == deadline_threads()
        assert deadline._thread is None


def deadline_threads():
    """Return the names of the threads that watch deadlines."""
    return bare_threads("lambda_ext_deadline", begun=deadline._thread)


@pytest.mark.parametrize("name", ["on_invoke", "on_response"])
class TestBudget:
    """A hook that an invocation waits for no longer than it says."""

    def hooked(self, name, hook, budget=30.0):
        """Return a handler with *hook*, which has a budget."""
        getattr(lambda_ext, name)(budget=budget)(hook)
        return lambda_ext.handler(lambda event, context: "answer")

    def test_it_is_called_with_its_invocation(self, name):
        """On a thread of its own, which sees the context variables."""
        variable = contextvars.ContextVar("variable")
        seen = []

        def hook(invocation):
            thread = threading.current_thread()
            seen.append((invocation.request_id, variable.get(), thread.name))

        handler = self.hooked(name, hook)
        token = variable.set("of the invocation")
        assert "answer" == handler({}, Context())
        variable.reset(token)
        assert [("8476a536", "of the invocation")] == [each[:2] for each in seen]
        assert threading.main_thread().name not in seen[0]

    @pytest.mark.logs
    def test_one_that_hangs_is_left_behind(self, name, caplog):
        """Told by its name, and not called again before it has returned."""
        gate, over, seen = threading.Event(), threading.Event(), []

        def hanging():
            seen.append(1)
            gate.wait(30)
            over.set()

        handler = self.hooked(name, hanging, 0.01)
        try:
            assert ["answer"] * 3 == [handler({}, Context()) for _ in range(3)]
            eventually(lambda: seen)
            assert [1] == seen
            found = lambda_ext.stats().lifecycle.phases
            assert 3 == sum(each.abandoned for each in found.values())
            assert 1 == caplog.text.count("listener_abandoned")
            assert "hanging" in caplog.text
        finally:
            gate.set()
        assert over.wait(30)
        eventually(lambda: handler({}, Context()) and len(seen) > 1)

    @pytest.mark.logs
    def test_coroutines_that_hang_are_few(self, name, monkeypatch):
        """No task is left for each invocation; each that ends makes room."""
        monkeypatch.setattr(bounded, "RELEASE_S", 30.0)  # for a busy machine
        seen, gates = [], []

        async def hanging():
            seen.append("begun")
            gates.append(asyncio.Event())
            await gates[-1].wait()
            seen.append("done")

        handler = self.hooked(name, hanging, 0.05)
        handler({}, Context())
        eventually(lambda: handler({}, Context()) and len(seen) == 4)
        assert ["answer"] * 4 == [handler({}, Context()) for _ in range(4)]
        assert ["begun"] * 4 == seen

        gates[0].set()
        eventually(lambda: handler({}, Context()) and len(seen) > 5)
        assert ["begun"] * 4 + ["done", "begun"] == seen[:6]

    @pytest.mark.logs
    @pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
    def test_what_it_raises_is_logged_and_stops_nothing(self, name, kind, caplog):
        """Neither the next hook nor the handler."""
        seen = []

        def fails():
            raise kind

        getattr(lambda_ext, name)(budget=30)(fails)
        handler = self.hooked(name, lambda: seen.append(1))
        assert "answer" == handler({}, Context())
        assert [1] == seen
        assert "fails" in caplog.text

    @pytest.mark.logs
    def test_no_more_than_half_of_what_is_left(self, name):
        """A budget beyond the deadline does not hold."""
        gate = threading.Event()
        try:
            handler = self.hooked(name, lambda: gate.wait(30), 900)
            assert "answer" == handler({}, Context(40))
        finally:
            gate.set()

    @pytest.mark.logs
    def test_coroutine_that_hangs_leaves_the_loop_to_the_handlers(self, name):
        """It goes on as a task."""
        seen = []

        async def hook():
            await asyncio.sleep(0)
            await gate.wait()
            seen.append("done")

        async def handler(event, context):
            gate.set()
            for _ in range(5):
                await asyncio.sleep(0)
            return "answer"

        async def made():
            return asyncio.Event()

        gate = event_loop.run(made())
        self.hooked(name, hook, 0.5)
        handler = lambda_ext.handler(handler)
        answers = [handler({}, Context()) for _ in range(2)]
        assert ["answer"] * 2 == answers
        assert seen

    @pytest.mark.logs
    def test_coroutine_that_was_left_behind_goes_on_beside_its_next_call(self, name):
        """It holds up no later call, and both come to their end."""
        seen = []

        async def hook():
            call = seen.count("begun")
            seen.append("begun")
            if call:
                gate.set()
            await gate.wait()
            seen.append(f"done {call}")

        async def made():
            return asyncio.Event()

        gate = event_loop.run(made())
        handler = self.hooked(name, hook, 0.2)
        assert "answer" == handler({}, Context())
        eventually(lambda: seen)
        eventually(lambda: handler({}, Context()) and {"done 0", "done 1"} <= {*seen})

        assert ["begun", "begun"] == seen[:2]

    @pytest.mark.parametrize(
        "budget",
        [
            0,
            -1,
            True,
            "1",
            float("nan"),
            float("inf"),
            pytest.param(10**5000, id="huge"),
        ],
    )
    def test_what_is_no_budget_is_refused(self, name, budget):
        """With an example."""
        with pytest.raises(ConfigurationError, match="takes seconds, such as"):
            getattr(lambda_ext, name)(budget=budget)


class TestLogOfAFailure:
    """What the log shows of a hook that raises."""

    @pytest.mark.logs
    def test_errors_of_the_handler_are_not_shown(self, caplog):
        """They are no cause of the hook's, and the runtime logs them."""

        @lambda_ext.on_response
        def hook():
            try:
                raise LookupError("the hook's first")
            except LookupError:
                raise RuntimeError("the hook's")  # noqa: B904  a context

        @lambda_ext.handler
        def handler(event, context):
            try:
                raise OSError("the handler's first")
            except OSError:
                raise ValueError("the handler's")  # noqa: B904  a context

        with pytest.raises(ValueError, match="the handler's") as caught:
            handler({}, None)
        (message,) = caplog.messages

        assert "LookupError: the hook's first" in message
        assert message.endswith("RuntimeError: the hook's")
        assert "the handler's" not in message
        assert "the handler's first" == str(caught.value.__context__)
