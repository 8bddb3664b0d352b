"""`@handler`: what an invocation begins with and ends with."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import signal
import sys
import threading
from unittest.mock import MagicMock, Mock

import pytest

import lambda_ext
from lambda_ext import config
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import clock, extension, phases, shutdown, signals
from lambda_ext.testing import FakeSource


class Context:
    """What Lambda passes as the second argument."""

    def __init__(self, remaining_ms=3000):
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self):
        """Return the milliseconds left."""
        return self.remaining_ms


@pytest.fixture(name="called")
def _called():
    """The phases that were called, in order."""
    called = []
    for phase in (phases.INIT, phases.INVOKE, phases.RESPONSE):
        phases.listen(phase, lambda *args, phase=phase: called.append(phase))
    return called


class Dotted(dict):
    """Has an answer for each attribute, as such classes of many programs do."""

    __getattr__ = dict.get


class Keyed(dict):
    """Raises KeyError for an attribute that it does not have."""

    __getattr__ = dict.__getitem__


class TestObjectsThatLookNamesUpThemselves:
    """What the library asks them changes nothing."""

    @pytest.mark.parametrize("kind", [Dotted, Keyed])
    def test_are_returned(self, kind):
        """By a handler, one within another, and an async one."""
        answer = kind(status=200)

        @lambda_ext.handler
        def inner(event, context):
            return answer

        @lambda_ext.handler
        def outer(event, context):
            return inner(event, context)

        @lambda_ext.handler
        async def later(event, context):
            return answer

        for handler in (inner, outer, later):
            assert answer is handler({}, Context())

    @pytest.mark.logs
    @pytest.mark.parametrize("kind", [Dotted, Keyed])
    def test_are_returned_by_hooks(self, kind, caplog):
        """And by what is done after the response."""

        def hook():
            return kind()

        lambda_ext.on_invoke(hook)
        lambda_ext.on_invoke(budget=30)(hook)
        lambda_ext.after_response(hook)

        @lambda_ext.handler
        def handler(event, context):
            lambda_ext.defer(hook)
            return "answer"

        assert "answer" == handler({}, Context())
        assert "" == caplog.text

    @pytest.mark.parametrize("kind", [Dotted, Keyed])
    def test_are_events_and_contexts(self, kind):
        """In any place; the deadline is that of Lambda's own."""

        @lambda_ext.handler
        def handler(*given, **named):
            return clock.remaining() is not None

        assert handler(kind(), Context())
        assert handler(kind(), Context(), kind())
        assert handler(event=kind(), context=Context())
        for given in ((kind(), None), (kind(), kind()), (None, kind()), (kind(),)):
            assert not handler(*given)
        assert not handler(event=kind(), context=None)


class TestHandler:
    """The decorated handler as Lambda calls it."""

    def test_result_and_arguments_pass_unchanged(self):
        """What goes in and comes out is what it would be without us."""

        @lambda_ext.handler
        def handler(event, context, *, extra=None):
            return (event, context, extra)

        assert ({"a": 1}, None, "x") == handler({"a": 1}, None, extra="x")

    def test_phases_surround_the_handler(self, called):
        """INVOKE is called before the handler, RESPONSE after it."""
        handler = lambda_ext.handler(lambda event, context: called.append("handler"))

        handler({}, Context())

        assert ["invoke", "handler", "response"] == called

    def test_error_passes_unchanged(self, called):
        """The handler's own exception comes out, the same object, after RESPONSE."""
        error = KeyError("mine")

        @lambda_ext.handler
        def handler(event, context):
            raise error

        with pytest.raises(KeyError) as caught:
            handler({}, None)

        assert error is caught.value
        assert error.__context__ is sys.exc_info()[1]  # nothing of ours
        assert ["invoke", "response"] == called

    @pytest.mark.logs
    @pytest.mark.parametrize("phase", [phases.INVOKE, phases.RESPONSE])
    def test_broken_listener_changes_nothing(self, phase):
        """A listener that raises neither hides a result nor an error."""

        def listener(*_):
            raise ValueError("ours")

        phases.listen(phase, listener)
        assert 7 == lambda_ext.handler(lambda event, context: 7)({}, None)
        with pytest.raises(ZeroDivisionError):
            lambda_ext.handler(lambda event, context: 1 / 0)({}, None)

        assert 2 == phases.failures[phase]

    def test_system_exit_still_ends_the_invocation(self, called):
        """A handler that exits is flushed, and exits."""

        @lambda_ext.handler
        def handler(event, context):
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            handler({}, None)

        assert ["invoke", "response"] == called

    def test_signature_is_kept(self):
        """Name, docstring and signature are those of the handler."""

        def handler(event: dict, context: object) -> int:
            """Answer."""
            return 1

        decorated = lambda_ext.handler(handler)

        assert "handler" == decorated.__name__
        assert "Answer." == decorated.__doc__
        assert inspect.signature(handler) == inspect.signature(decorated)
        assert handler is decorated.__wrapped__

    def test_method_gets_its_object(self):
        """A decorated method is bound like any other."""

        class Service:
            name = "orders"

            @lambda_ext.handler
            def handle(self, event, context):
                return (self.name, event)

        assert ("orders", 1) == Service().handle(1, None)

    def test_callable_without_a_name_can_be_decorated(self):
        """A partial or an object with __call__ is a handler, too."""
        decorated = lambda_ext.handler(functools.partial(max, 3))

        assert 3 == decorated(1, 2)

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            (None, "without parentheses"),
            ({}, "a function, not dict"),
            ("app.handler", "a function, not str"),
            (classmethod(print), "below @classmethod"),
            (staticmethod(print), "below @staticmethod"),
        ],
    )
    def test_something_else_is_refused(self, wrong, says):
        """Parentheses or a non-function: the error says how to write it."""
        with pytest.raises(ConfigurationError, match=says):
            lambda_ext.handler(wrong)

    def test_class_is_refused(self):
        """Lambda would make an object of it, and throw it away."""

        class Service:
            def __init__(self, event, context):
                """Do the work here, as one might."""

        with pytest.raises(ConfigurationError, match="not the class Service"):
            lambda_ext.handler(Service)

    def test_function_itself_can_be_had(self):
        """Undecorated, and async as it was written."""

        def plain(event, context):
            return 1

        async def asynchronous(event, context):
            return 2

        assert plain is lambda_ext.handler(plain).undecorated
        assert 2 == asyncio.run(lambda_ext.handler(asynchronous).undecorated({}, None))

    def test_handler_inside_a_handler_is_one_invocation(self, called):
        """A decorated function that calls another one begins nothing new."""
        inner = lambda_ext.handler(lambda event, context: "inner")
        outer = lambda_ext.handler(lambda event, context: inner(event, context))

        assert "inner" == outer({}, None)
        assert ["invoke", "response"] == called
        assert 1 == phases.calls[phases.INVOKE]

    def test_deadline_lasts_as_long_as_the_invocation(self):
        """The time left is known inside, and unlimited outside."""
        seen = []
        handler = lambda_ext.handler(
            lambda event, context: seen.append(clock.remaining())
        )

        handler({}, Context(3000))

        assert 0 < seen[0] <= 3
        assert clock.remaining() is None

    def test_deadline_lasts_until_the_response_is_over(self):
        """What is flushed at the end has the invocation's time."""
        seen = []
        phases.listen(phases.RESPONSE, lambda: seen.append(clock.remaining()))
        lambda_ext.handler(lambda event, context: None)({}, Context(3000))

        assert 0 < seen[0] <= 3

    def test_signal_handler_installed_in_one_is_adopted_by_the_next(self):
        """Where nothing tells that the runtime client waits, in a custom runtime."""
        before = signal.getsignal(signal.SIGTERM)
        found = []

        def on_sigterm(signum, frame): ...

        @lambda_ext.handler
        def handler(event):
            found.append((signals.replaced(), signals.previous()))
            if event:
                signal.signal(signal.SIGTERM, on_sigterm)
                found.append((signals.replaced(), signals.previous()))

        try:
            signals.install(lambda: None)
            handler(True)
            handler(False)
        finally:
            signals.reset()
            signal.signal(signal.SIGTERM, before)

        assert found[1:] == [(True, on_sigterm), (False, on_sigterm)]

    def test_deadline_is_found_in_a_method_and_by_keyword(self):
        """The context is found wherever it stands among the arguments."""
        seen = []

        class Service:
            @lambda_ext.handler
            def handle(self, event, context):
                seen.append(clock.remaining())

        Service().handle({}, Context())
        Service().handle({}, context=Context())

        assert all(0 < left <= 3 for left in seen)
        assert 2 == len(seen)

    @pytest.mark.parametrize(
        "remaining_ms", [None, "3000", MagicMock(), True, math.nan, math.inf, 10**400]
    )
    def test_context_that_tells_no_number_is_no_deadline(self, remaining_ms):
        """A test double for a context does not break the handler."""
        context = Context(remaining_ms)

        assert lambda_ext.handler(lambda e, c: clock.remaining())({}, context) is None

    @pytest.mark.parametrize("double", [Mock, MagicMock])
    def test_mock_as_context_leaves_reads_alone(self, double):
        """A value is read without a deadline."""
        with FakeSource({"db": "hunter2"}):
            handler = lambda_ext.handler(lambda e, c: lambda_ext.get_secret("db"))

            assert "hunter2" == handler({}, double())


class TestAsyncHandler:
    """An ``async def`` handler, called as Lambda calls it."""

    def test_coroutine_runs_to_its_end(self, called):
        """The result comes back, and RESPONSE is called after the coroutine."""

        @lambda_ext.handler
        async def handler(event, context):
            await asyncio.sleep(0)
            called.append("done")
            return event

        assert 5 == handler(5, None)
        assert ["invoke", "done", "response"] == called

    def test_loop_is_kept_between_invocations(self):
        """What an invocation made on the loop works in the next one."""
        loops = []

        @lambda_ext.handler
        async def handler(event, context):
            loops.append(asyncio.get_running_loop())

        handler({}, None)
        handler({}, None)

        assert loops[0] is loops[1]

    def test_error_comes_out(self):
        """An exception of the coroutine is the handler's exception."""

        @lambda_ext.handler
        async def handler(event, context):
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            handler({}, None)

    def test_call_inside_a_loop_is_explained(self):
        """Called where a loop runs already, it says what to do instead."""

        @lambda_ext.handler
        async def handler(event, context):
            raise AssertionError("never begun")

        async def main():
            handler({}, None)

        with pytest.raises(ConfigurationError, match=r"handler\.undecorated"):
            asyncio.run(main())

    def test_call_during_another_is_explained(self):
        """One loop serves one invocation at a time; the first goes on."""
        refused = []

        @lambda_ext.handler
        async def handler(event, context):
            if event == "first":
                done = asyncio.Event()
                over = functools.partial(
                    asyncio.get_running_loop().call_soon_threadsafe, done.set
                )
                thread = threading.Thread(target=second, args=(over,))
                thread.start()
                await done.wait()
                thread.join()
            return event

        def second(over):
            with pytest.raises(ConfigurationError, match="in another thread"):
                handler("second", None)
            refused.append(True)
            over()

        assert "first" == handler("first", None)
        assert [True] == refused


class TestStart:
    """`start()` and what it switches on, where."""

    @pytest.fixture(name="parts")
    def _parts(self, monkeypatch):
        """The parts that were started, without starting them."""
        parts = []
        monkeypatch.setattr(shutdown, "install", lambda: parts.append("signals"))
        monkeypatch.setattr(extension, "register", lambda: parts.append("extension"))
        phases.listen(phases.INIT, lambda: parts.append("init"))
        return parts

    def test_outside_lambda_only_exit_is_arranged(self, parts):
        """On a developer's machine no signal is taken and nothing is called."""
        lambda_ext.start()

        assert [] == parts

    def test_inside_lambda_signals_come_before_registration(self, parts, monkeypatch):
        """Once we are registered SIGTERM may come, so its handler stands first."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")

        lambda_ext.start()

        assert ["signals", "extension", "init"] == parts

    @pytest.mark.parametrize(
        ("disable", "expected"),
        [
            ("signals", ["extension", "init"]),
            ("extension", ["signals", "init"]),
            ("signals,extension", ["init"]),
            (" Extension , ", ["signals", "init"]),
        ],
    )
    def test_parts_can_be_switched_off(self, parts, monkeypatch, disable, expected):
        """LAMBDA_EXT_DISABLE leaves out what it names."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", disable)

        lambda_ext.start()

        assert expected == parts

    def test_configure_switches_off_too(self, parts, monkeypatch):
        """configure(disable=...) is the same in code."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
        lambda_ext.configure(disable=["signals"])

        lambda_ext.start()

        assert ["extension", "init"] == parts

    def test_unknown_part_is_named(self, monkeypatch):
        """A misspelt part is an error that lists the parts."""
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signal")

        with pytest.raises(ConfigurationError, match=r"LAMBDA_EXT_DISABLE.*'signal'"):
            lambda_ext.start()

    def test_second_start_changes_nothing(self, parts, monkeypatch):
        """Handlers and start() together start everything once."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")

        lambda_ext.start()
        lambda_ext.handler(print)
        lambda_ext.handler(print)

        assert ["signals", "extension", "init"] == parts

    def test_bad_option_does_not_count_as_started(self, parts, monkeypatch):
        """Once the variable is corrected, everything starts."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signal")
        with pytest.raises(ConfigurationError):
            lambda_ext.start()
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signals")

        lambda_ext.start()

        assert ["extension", "init"] == parts

    def test_start_inside_start_changes_nothing(self, parts, monkeypatch):
        """A signal handler, or a fork, in the middle of it cannot dead-lock."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
        get = config.get

        def interrupted(*args):
            monkeypatch.setattr(config, "get", get)
            lambda_ext.start()
            return get(*args)

        monkeypatch.setattr(config, "get", interrupted)

        lambda_ext.start()

        assert ["signals", "extension", "init"] == parts

    def test_threads_start_it_once(self, parts, monkeypatch):
        """Sixteen threads that start at once start everything once."""
        from helpers import run_threads

        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")

        run_threads(16, lambda _: lambda_ext.start())

        assert ["signals", "extension", "init"] == parts


def test_concurrent_invocations_are_all_counted_in():
    """Handlers called from several threads each have a beginning and an end."""
    called = []
    phases.listen(phases.RESPONSE, lambda: called.append(threading.get_ident()))
    handler = lambda_ext.handler(lambda event, context: event)

    threads = [threading.Thread(target=handler, args=(i, None)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8 == len(called)
