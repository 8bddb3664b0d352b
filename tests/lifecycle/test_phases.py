"""Who is called when, in which order, and what one does to the others."""

from __future__ import annotations

import logging
import os

import pytest

import lambda_ext
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import phases


class TestOrder:
    """Low priority first, then the order of registration."""

    def test_priority_then_registration(self):
        """The sort is stable."""
        seen = []
        for name, priority in (("a", 50), ("b", 90), ("c", 0), ("d", 50), ("e", 0)):
            phases.listen(
                phases.INVOKE, lambda name=name: seen.append(name), priority=priority
            )
        phases.call(phases.INVOKE)

        assert seen == ["c", "e", "a", "d", "b"]

    def test_registration_during_a_call_counts_from_the_next(self):
        """A call works on the listeners that there were when it began."""
        seen = []

        def first():
            seen.append("first")
            phases.listen(phases.INVOKE, lambda: seen.append("late"))

        phases.listen(phases.INVOKE, first)
        phases.call(phases.INVOKE)

        assert seen == ["first"]

    def test_silenced_listener_is_not_called(self):
        """silence() takes away what listen() added, and nothing else."""
        seen = []
        first = lambda: seen.append(1)  # noqa: E731
        phases.listen(phases.INVOKE, first)
        phases.listen(phases.INVOKE, lambda: seen.append(2))
        phases.silence(phases.INVOKE, first)
        phases.silence(phases.RESPONSE, first)
        phases.call(phases.INVOKE)

        assert seen == [2]


class TestIsolation:
    """One listener's failure is its own."""

    @pytest.mark.logs
    def test_failure_is_logged_and_counted_and_stops_nobody(self, caplog):
        """The next one runs, and the log names who failed, with a traceback."""
        seen = []

        def bad():
            raise ValueError("no")

        phases.listen(phases.RESPONSE, bad)
        phases.listen(phases.RESPONSE, lambda: seen.append(1))
        phases.call(phases.RESPONSE)

        assert seen == [1]
        assert phases.calls[phases.RESPONSE] == 1
        assert phases.ended[phases.RESPONSE] == 1
        assert phases.failures[phases.RESPONSE] == 1
        (record,) = caplog.records
        assert "listener_failed phase=response" in record.getMessage()
        assert "bad" in record.getMessage()
        assert "ValueError: no" in record.getMessage()

    def test_logging_filter_that_raises_is_no_matter(self):
        """The others are called though nobody can be told of the failure."""
        seen = []

        def refuse(record):
            raise ValueError("of the filter")

        def bad():
            raise ValueError("of the listener")

        logger = logging.getLogger("lambda_ext")
        logger.addFilter(refuse)
        try:
            phases.listen(phases.RESPONSE, bad)
            phases.listen(phases.RESPONSE, lambda: seen.append(1))
            phases.call(phases.RESPONSE)
        finally:
            logger.removeFilter(refuse)

        assert (seen, phases.failures[phases.RESPONSE]) == ([1], 1)

    def test_exit_passes_and_the_phase_has_ended(self):
        """SystemExit is no failure to swallow."""

        def leave():
            raise SystemExit(3)

        phases.listen(phases.INVOKE, leave)
        with pytest.raises(SystemExit):
            phases.call(phases.INVOKE)

        assert phases.ended[phases.INVOKE] == 1

    def test_many_threads_register_and_none_is_lost(self):
        """Registration is one append."""
        from helpers import run_threads

        run_threads(
            16,
            lambda index: [
                phases.listen(phases.INVOKE, lambda: None) for _ in range(100)
            ],
        )

        assert len(phases.listeners(phases.INVOKE)) == 1_600


class TestDecorators:
    """on_init, on_invoke, on_response, on_shutdown."""

    def test_functions_are_handed_back(self):
        """A decorated function stays what it is."""

        def function(*args): ...

        for decorator in (
            lambda_ext.on_init,
            lambda_ext.on_invoke,
            lambda_ext.on_response,
            lambda_ext.on_shutdown,
            lambda_ext.on_shutdown(priority=3),
            lambda_ext.before_snapshot,
            lambda_ext.after_restore,
        ):
            assert decorator(function) is function

    def test_init_that_is_over_is_made_up_for(self):
        """on_init below the handler's decorator is called at once."""
        seen = []
        lambda_ext.on_init(lambda: seen.append("early"))
        phases.call(phases.INIT)
        lambda_ext.on_init(lambda: seen.append("late"))

        assert seen == ["early", "late"]

    def test_invocation_tells_the_context_and_the_end(self):
        """on_invoke gets the context, on_response comes last, whatever happens."""
        seen = []
        lambda_ext.on_invoke(lambda context: seen.append(context))
        lambda_ext.on_response(lambda: seen.append("response"))

        class Context:
            def get_remaining_time_in_millis(self):
                return 3000

        @lambda_ext.handler
        def handler(event, context):
            seen.append("handler")
            raise KeyError(event)

        context = Context()
        with pytest.raises(KeyError):
            handler("event", context)

        assert seen == [context, "handler", "response"]

    def test_response_comes_before_what_flushes(self):
        """What on_response records belongs to the invocation."""
        seen = []
        phases.listen(phases.RESPONSE, lambda: seen.append("flush"))
        lambda_ext.on_response(lambda: seen.append("user"))
        phases.call(phases.RESPONSE)

        assert seen == ["user", "flush"]


async def awaited():
    """Nobody awaits this."""


def generated():
    """Nobody iterates over this."""
    yield


@pytest.mark.parametrize(
    "name",
    [
        "on_init",
        "on_invoke",
        "on_response",
        "on_shutdown",
        "before_snapshot",
        "after_restore",
    ],
)
class TestRefusal:
    """What would do nothing, or fail when it is too late, is refused at once."""

    @pytest.mark.parametrize("value", [5, "a function", object()])
    def test_what_is_no_function_is_named(self, name, value):
        """The error says which decorator, and what it was given."""
        with pytest.raises(ConfigurationError) as caught:
            getattr(lambda_ext, name)(value)

        assert str(caught.value).startswith(
            f"@lambda_ext.{name} decorates a function, not {value!r:.20}"
        )
        assert all(not phases.listeners(phase) for phase in phases.PHASES)

    @pytest.mark.parametrize("function", [awaited, generated])
    def test_what_nobody_awaits_or_iterates_is_refused(self, name, function):
        """It would be called, and its body would never run."""
        with pytest.raises(ConfigurationError, match="write def, without yield"):
            getattr(lambda_ext, name)(function)


@pytest.mark.parametrize("priority", ["x", 1.5, True, None])
def test_priority_that_is_no_int_is_refused(priority):
    """It would end the shutdown in the middle of sorting."""
    with pytest.raises(ConfigurationError, match="takes an int"):
        lambda_ext.on_shutdown(priority=priority)


class TestFork:
    """What a forked child begins with."""

    def child(self, check):
        """Run check() in a forked child; say whether it was true."""
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = 0 if check() else 2
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0

    def test_listeners_are_told_in_the_child_only(self):
        """FORK is a phase of the child's life."""
        seen = []
        phases.listen(phases.FORK, lambda: seen.append(os.getpid()))

        assert self.child(lambda: seen == [os.getpid()])
        assert seen == []

    def test_counters_begin_at_zero(self):
        """An invocation of the parent's is not under way in the child."""
        phases.listen(phases.FORK, lambda: None)
        phases.call(phases.INVOKE)

        assert self.child(lambda: phases.calls[phases.INVOKE] == 0)
        assert phases.calls[phases.INVOKE] == 1

    def test_shutdown_callbacks_of_the_user_stay_behind(self):
        """They belong to the process that registered them; the library's don't."""
        lambda_ext.on_shutdown(lambda: None)
        ours = lambda: None  # noqa: E731
        phases.listen(phases.SHUTDOWN, ours)

        assert self.child(
            lambda: [call for _, call in phases.listeners(phases.SHUTDOWN)] == [ours]
        )
        assert len(phases.listeners(phases.SHUTDOWN)) == 2

    def test_registration_may_interrupt_a_registration(self):
        """A signal handler that registers in the middle of sorting gets through."""

        class Priority(int):
            def __lt__(self, other):
                phases.listen(phases.INVOKE, print)
                return int(self) < int(other)

        for _ in range(2):
            phases.listen(phases.INIT, print, priority=Priority(1))

        assert len(phases.listeners(phases.INIT)) == 2
        assert len(phases.listeners(phases.INVOKE)) > 0
