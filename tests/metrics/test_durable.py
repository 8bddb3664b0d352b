"""Durable functions: each record counts once, however often the handler resumes.

With AWS's SDK and its testing package, which need Python 3.11.
"""

from __future__ import annotations

import json
import sys
import threading

import pytest
from helpers import python

import lambda_ext
from lambda_ext import configure, metrics
from lambda_ext.lifecycle import clock
from lambda_ext.metrics import durable, recorder
from lambda_ext.testing import MemorySink

sdk = pytest.importorskip("aws_durable_execution_sdk_python")
testing = pytest.importorskip("aws_durable_execution_sdk_python_testing.runner")

from aws_durable_execution_sdk_python import (  # noqa: E402  after importorskip
    durable_execution,
    durable_step,
    durable_with_child_context,
)
from aws_durable_execution_sdk_python.config import (  # noqa: E402
    Duration,
    MapConfig,
    NestingType,
    ParallelBranch,
    StepConfig,
)
from aws_durable_execution_sdk_python.exceptions import (  # noqa: E402
    SuspendExecution,
)
from aws_durable_execution_sdk_python.retries import (  # noqa: E402
    RetryStrategyConfig,
    create_retry_strategy,
)
from aws_durable_execution_sdk_python.waits import (  # noqa: E402
    WaitForConditionConfig,
    WaitForConditionDecision,
)

_loaded = sys.modules.pop(recorder.DURABLE_SDK)


@pytest.fixture(autouse=True)
def _sdk(monkeypatch):
    """The SDK is loaded in the tests of this file, and in no others."""
    monkeypatch.setitem(sys.modules, recorder.DURABLE_SDK, _loaded)


def run(handler, event="{}"):
    """Run a durable function to its end, skipping its waits; return its status."""
    runner = testing.DurableFunctionTestRunner(handler, poll_interval=0.005)
    try:
        result = runner.run(input=event, execution_timeout=60)
    finally:
        runner.close()
        runner._scheduler._loop.close()  # it leaves that to the garbage collector
    return result.status.value


def totals(sink):
    """Return the sum of each metric."""
    names = sorted({point.name for batch in sink.batches for point in batch.points})
    return {name: sink.total(name) for name in names}


def pause(context):
    """Suspend the execution, which resumes from the top."""
    context.wait(Duration.from_seconds(3))


def orders(event, context):
    """Record in all places of a handler with two waits and two branches."""
    metrics.count("begun")
    pause(context)
    metrics.count("after the first wait")

    def branch(name):
        def body(inner):
            metrics.count(f"{name} begun")
            pause(inner)
            metrics.count(f"{name} done")

        return body

    context.parallel([branch("left"), branch("right")])
    metrics.count("after the branches")
    pause(context)
    metrics.count("done")


ONCE = {
    "after the branches": 1,
    "after the first wait": 1,
    "begun": 1,
    "done": 1,
    "left begun": 1,
    "left done": 1,
    "right begun": 1,
    "right done": 1,
}


class TestOnce:
    """What is recorded in a durable handler counts once for an execution."""

    @pytest.mark.parametrize(
        "decorate",
        [
            durable_execution,
            lambda function: lambda_ext.handler(durable_execution(function)),
            lambda function: durable_execution(lambda_ext.handler(function)),
        ],
        ids=["undecorated", "ours outside", "ours inside"],
    )
    def test_two_waits_and_two_branches(self, decorate):
        """Each of eight counts is one, in either order of the decorators."""
        with MemorySink() as sink:
            assert "SUCCEEDED" == run(decorate(orders))
            metrics.flush()

        assert ONCE == totals(sink)
        assert lambda_ext.stats().metrics.replayed > 0

    def test_each_branch_asks_its_own_context(self):
        """A branch that is new counts while its sibling and the root replay."""
        calls = []

        @durable_execution
        def handler(event, context):
            def slow(inner):
                for name in ("a", "b", "c"):
                    metrics.count(f"slow {name}")
                    pause(inner)

            def quick(inner):
                calls.append(inner.is_replaying())
                metrics.count("quick")

            context.parallel([slow, quick])

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert {"quick": 1, "slow a": 1, "slow b": 1, "slow c": 1} == totals(sink)

    @pytest.mark.parametrize(
        ("nesting", "names"),
        [
            (NestingType.NESTED, ["x begun", "x done", "y begun", "y done"]),
            # A flat branch is not remembered as done: its end counts each time.
            (NestingType.FLAT, ["x begun", "y begun"]),
        ],
    )
    def test_items_of_a_map(self, nesting, names):
        """Each item counts once, before and after its wait."""

        @durable_execution
        def handler(event, context):
            def body(inner, item, index, items):
                metrics.count(f"{item} begun")
                pause(inner)
                metrics.count(f"{item} done")

            context.map(["x", "y"], body, config=MapConfig(nesting_type=nesting))
            pause(context)

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert dict.fromkeys(names, 1) == {name: sink.total(name) for name in names}

    def test_children_and_helpers(self):
        """Child contexts count once: plain, decorated, partial, with *args, nested."""
        import functools

        @durable_with_child_context
        def decorated(inner, name):
            metrics.count(name)
            pause(inner)

        def bound(name, inner):
            metrics.count(name)
            pause(inner)

        def starred(*args):
            metrics.count("starred")
            pause(*args)

        def rebinding(inner):
            pause(inner)
            inner = None
            metrics.count("rebinding")

        class Callable:
            def __call__(self, inner):
                metrics.count("object")
                inner.run_in_child_context(functools.partial(bound, "nested"))

        @durable_execution
        def handler(event, context):
            context.run_in_child_context(decorated("decorated"))
            context.run_in_child_context(functools.partial(bound, "partial"))
            context.run_in_child_context(starred)
            context.run_in_child_context(rebinding)
            context.run_in_child_context(Callable())
            context.parallel([ParallelBranch(func=starred, name="named")])

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert {
            "decorated": 1,
            "nested": 1,
            "object": 1,
            "partial": 1,
            "rebinding": 1,
            "starred": 2,
        } == totals(sink)

    def test_distributions_and_timers(self):
        """They count once, too; a gauge keeps its last value anyway."""

        @durable_execution
        def handler(event, context):
            metrics.distribution("size", 5)
            metrics.gauge("depth", 7)
            with metrics.timer("step"):
                pass

            @metrics.timer("function")
            def function():
                return None

            function()
            pause(context)
            pause(context)

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        found = {name: len(sink.values(name)) for name in ("size", "step", "function")}
        assert {"size": 1, "step": 1, "function": 1} == found
        assert {7} == set(sink.values("depth"))

    def test_a_timer_around_a_wait_is_one_record(self):
        """The suspension ends no block: it ends after the execution has resumed."""

        @durable_execution
        def handler(event, context):
            @metrics.timer("function")
            def waits():
                pause(context)

            with metrics.timer("block"):
                pause(context)
            waits()

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert [1, 1] == [len(sink.values("block")), len(sink.values("function"))]


class TestSteps:
    """The body of a step runs when it is due, and is never left out."""

    def test_step_after_a_wait(self):
        """A step that runs after a resume counts, once."""

        @durable_step
        def charge(step):
            metrics.count("charged")

        @durable_execution
        def handler(event, context):
            pause(context)
            context.step(charge())
            context.step(lambda _: metrics.count("lambda"))
            pause(context)

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert {"charged": 1, "lambda": 1} == totals(sink)

    def test_retried_step_counts_each_attempt(self):
        """A step that fails once and is retried counts two."""
        attempts = []

        def flaky(step):
            metrics.count("attempts")
            attempts.append(step.attempt)
            if len(attempts) == 1:
                raise ValueError("once")

        strategy = create_retry_strategy(RetryStrategyConfig(max_attempts=3))

        @durable_execution
        def handler(event, context):
            context.step(flaky, config=StepConfig(retry_strategy=strategy))

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert {"attempts": 2} == totals(sink)

    def test_condition_counts_each_look(self):
        """A check of wait_for_condition counts as often as it looks."""

        def strategy(state, attempt):
            if state >= 3:
                return WaitForConditionDecision.stop_polling()
            return WaitForConditionDecision.continue_waiting(Duration.from_seconds(2))

        def look(state, context):
            metrics.count("looks")
            return state + 1

        @durable_execution
        def handler(event, context):
            config = WaitForConditionConfig(wait_strategy=strategy, initial_state=0)
            context.wait_for_condition(look, config)

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert {"looks": 3} == totals(sink)


class TestLimits:
    """What the SDK does not tell."""

    def test_between_a_callback_and_its_result(self):
        """What stands there counts twice; what stands before and behind, once."""

        @durable_execution
        def handler(event, context):
            metrics.count("before")
            callback = context.create_callback(name="paid")
            metrics.count("between")
            callback.result()
            metrics.count("behind")

        runner = testing.DurableFunctionTestRunner(handler, poll_interval=0.005)
        try:
            with MemorySink() as sink:
                arn = runner.run_async(input="{}", execution_timeout=60)
                callback = runner.wait_for_callback(arn, name="paid")
                runner.send_callback_success(callback, b'"yes"')
                runner.wait_for_result(arn)
                metrics.flush()
        finally:
            runner.close()
            runner._scheduler._loop.close()

        assert {"before": 1, "behind": 1, "between": 2} == totals(sink)

    def test_thread_of_the_users_own(self):
        """It has no durable context, so that what it records counts each time."""

        @durable_execution
        def handler(event, context):
            thread = threading.Thread(target=metrics.count, args=("thread",))
            thread.start()
            thread.join()
            pause(context)

        with MemorySink() as sink:
            run(handler)
            metrics.flush()

        assert {"thread": 2} == totals(sink)


class TestInvocation:
    """Our handler around, and inside, a durable one."""

    def test_deadline_comes_from_the_context_of_lambda(self):
        """Inside, the durable context leads to Lambda's, with its time."""
        found = []

        @durable_execution
        @lambda_ext.handler
        def handler(event, context):
            found.append(clock.remaining())

        @lambda_ext.on_invoke
        def hook(invocation):
            found.append(invocation.request_id)

        class Given:
            aws_request_id = "r-1"

            @staticmethod
            def get_remaining_time_in_millis():
                return 10_000_000

        class Durable:
            lambda_context = Given

        handler.__wrapped__({}, Durable())

        assert "r-1" == found[0]
        assert 9_000 < found[1] <= 10_000

    def test_suspension_is_no_error(self):
        """An invocation that ends by SuspendExecution has not failed."""
        outcomes = []

        @lambda_ext.on_response
        def hook(outcome):
            outcomes.append((outcome.error, threading.current_thread().name[:11]))

        @durable_execution
        @lambda_ext.handler
        def handler(event, context):
            pause(context)

        assert "SUCCEEDED" == run(handler)
        assert [(None, "dex-handler"), (None, "dex-handler")] == outcomes

    def test_suspension_passes(self):
        """Our decorator lets it through."""

        @lambda_ext.handler
        def handler(event, context):
            raise SuspendExecution("later")

        with pytest.raises(SuspendExecution):
            handler({}, None)

    def test_an_error_is_one(self):
        """What the handler raises is the outcome's error."""
        outcomes = []

        @lambda_ext.on_response
        def hook(outcome):
            outcomes.append(outcome.error)

        @durable_execution
        @lambda_ext.handler
        def handler(event, context):
            raise ValueError("no")

        assert "FAILED" == run(handler)
        assert [ValueError] == outcomes


class TestSwitch:
    """When records are looked at, and when not."""

    def test_option_turns_it_off(self):
        """With skip_replays=False a record counts as often as it runs."""
        configure(skip_replays=False)

        with MemorySink() as sink:
            run(durable_execution(orders))
            metrics.flush()

        assert totals(sink)["begun"] > 1
        assert 0 == lambda_ext.stats().metrics.replayed

    def test_outside_a_durable_function_all_count(self):
        """With the SDK loaded, plain code records as ever, in any thread."""
        with MemorySink() as sink:
            metrics.count("n")
            thread = threading.Thread(target=metrics.count, args=("n",))
            thread.start()
            thread.join()
            metrics.flush()

        assert {"n": 2} == totals(sink)
        assert 0 == lambda_ext.stats().metrics.replayed

    def test_record_before_the_sdk_is_loaded(self, monkeypatch):
        """A record at import, before the SDK's, does not turn it off for good."""
        with monkeypatch.context() as before:
            before.delitem(sys.modules, recorder.DURABLE_SDK)
            metrics.count("early")
        assert recorder._replays is None

        @durable_execution
        @lambda_ext.handler
        def handler(event, context):
            metrics.count("n")
            pause(context)

        run(handler)

        counted = lambda_ext.stats().metrics
        assert (2, 1) == (counted.recorded, counted.replayed)

    def test_record_while_the_sdk_changes_its_state(self):
        """A record in the midst of is_replaying() does not ask it again."""
        from aws_durable_execution_sdk_python.context import DurableContext

        class Watching:
            def __enter__(self):
                assert not durable.replays()

            def __exit__(self, *exc_info):
                pass

        context = DurableContext.__new__(DurableContext)
        context._replay_status_lock = Watching()
        context._replay_status = None

        assert not context.is_replaying()

    def test_nothing_is_loaded_without_the_sdk(self):
        """Without the SDK neither it nor our module for it is imported."""
        done = python(
            """
import json, sys
import lambda_ext
from lambda_ext import metrics
lambda_ext.handler(lambda event, context: metrics.count("n"))({}, None)
metrics.flush()
print(json.dumps([name for name in sys.modules if "durable" in name]))
""",
            env={"LAMBDA_EXT_SINKS": ""},
        )

        assert [] == json.loads(done.stdout.splitlines()[-1]), done.stderr
