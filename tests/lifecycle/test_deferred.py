"""Work after the response: when it is done, in what order, and what it cannot do."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import os
import threading
import weakref

import pytest
from emulated import Gate, texts
from helpers import eventually, python

import lambda_ext
from lambda_ext import metrics
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import (
    clock,
    deferred,
    extension,
    phases,
    runtime_client,
    shutdown,
)
from lambda_ext.local.emulator import Budgets, Emulator
from lambda_ext.testing import FakeClock, MemorySink, simulate_sigterm

# Half of it is for the work, which must have begun by then, on a busy machine too.
SHORT_MS = 400


class Context:
    """What Lambda passes as the second argument."""

    aws_request_id = "8476a536"

    def __init__(self, remaining_ms=3000):
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self):
        """Return the milliseconds left."""
        return self.remaining_ms


def handled(function, context=None):
    """Call *function* in an invocation of a decorated handler; return its result."""
    return lambda_ext.handler(lambda event, context: function())({}, context)


def rounds_over():
    """Wait until no thread that was left behind is at work."""
    for each in deferred._rounds.copy():
        assert each.over.wait(30)


class TestDefer:
    """One call after one response."""

    def test_call_has_its_arguments_and_comes_after_the_handler(self):
        """In the order in which they were deferred."""
        seen = []

        def handler():
            assert lambda_ext.defer(seen.append, "a")
            assert lambda_ext.defer(seen.extend, ["b", "c"])
            assert lambda_ext.defer(lambda *, key: seen.append(key), key="d")
            seen.append("handler")
            return "answer"

        assert "answer" == handled(handler)
        assert ["handler", "a", "b", "c", "d"] == seen

    def test_once_is_once(self):
        """The next invocation does not repeat it."""
        seen = []
        handled(lambda: lambda_ext.defer(seen.append, 1))
        handled(lambda: None)

        assert [1] == seen

    def test_call_that_defers_another(self):
        """Both come after the same response."""
        seen = []
        handled(lambda: lambda_ext.defer(lambda_ext.defer, seen.append, 1))

        assert [1] == seen

    def test_context_variables_are_those_of_the_handler(self):
        """Which a tracer, or a logger, reads."""
        variable = contextvars.ContextVar("variable", default="none")
        seen = []

        def handler():
            token = variable.set("of the handler")
            lambda_ext.defer(lambda: seen.append(variable.get()))
            variable.reset(token)

        handled(handler)
        assert ["of the handler"] == seen

    @pytest.mark.parametrize("of", ["handler", "plain"])
    def test_coroutine_function_is_run_on_the_loop(self, of):
        """The one that an async handler has."""
        loops = []

        async def work():
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())

        async def handler(event, context):
            loops.append(asyncio.get_running_loop())
            lambda_ext.defer(work)

        if of == "handler":
            lambda_ext.handler(handler)({}, None)
        else:
            handled(lambda: [lambda_ext.defer(work), lambda_ext.defer(work)])
        assert 2 == len(loops)
        assert loops[0] is loops[1]

    def test_metrics_are_flushed(self):
        """What it records belongs to the invocation."""
        with MemorySink() as sink:
            handled(lambda: lambda_ext.defer(metrics.count, "late"))
            assert 1 == sink.total("late")

    def test_after_an_error_of_the_handler(self):
        """It is called all the same, and the error arrives."""
        seen = []

        def handler():
            lambda_ext.defer(seen.append, 1)
            raise KeyError

        with pytest.raises(KeyError):
            handled(handler)
        assert [1] == seen

    @pytest.mark.logs
    @pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
    def test_what_it_raises_is_logged_and_stops_nothing(self, kind, caplog):
        """Neither the next call nor the answer."""
        seen = []

        def fails():
            raise kind

        def handler():
            lambda_ext.defer(fails)
            lambda_ext.defer(seen.append, 1)
            return "answer"

        assert "answer" == handled(handler)
        assert [1] == seen
        assert "fails" in caplog.text
        found = lambda_ext.stats().deferred
        assert (2, 1, 1, 0) == (found.queued, found.done, found.failed, found.waiting)
        assert 1 == lambda_ext.stats().lifecycle.phases[phases.AFTER].failures

    @pytest.mark.logs
    def test_queue_is_bounded(self, caplog):
        """What finds no room is counted, and logged once."""
        seen = []
        assert all(lambda_ext.defer(seen.append, n) for n in range(deferred.MOST))
        assert not lambda_ext.defer(seen.append, "no room")
        assert not lambda_ext.defer(seen.append, "no room")

        handled(lambda: None)
        assert [*range(deferred.MOST)] == seen
        assert 2 == lambda_ext.stats().deferred.dropped
        assert 1 == caplog.text.count("deferred_dropped")

    @pytest.mark.parametrize("given", [None, "send", 3])
    def test_what_cannot_be_called_is_refused(self, given):
        """In the handler, not when it is too late."""
        with pytest.raises(ConfigurationError, match="defer calls a function"):
            lambda_ext.defer(given)

    def test_generator_is_refused(self):
        """It would not be iterated."""

        def work():
            yield

        with pytest.raises(ConfigurationError, match="defer calls a function that"):
            lambda_ext.defer(work)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_forked_child_has_none_of_it(self):
        """The parent does it."""
        seen = []
        lambda_ext.defer(seen.append, 1)
        child = os.fork()
        if not child:
            os._exit(deferred.waiting())
        assert 0 == os.waitpid(child, 0)[1]
        handled(lambda: None)
        assert [1] == seen


class TestHook:
    """`@after_response`: after each response."""

    def test_outcome_is_that_of_the_invocation(self):
        """With the request id, the duration and the error."""
        seen = []

        @lambda_ext.after_response
        def hook(outcome):
            seen.append((outcome.request_id, outcome.error, outcome.duration >= 0))

        def fails():
            raise KeyError

        handled(lambda: None, Context())
        with pytest.raises(KeyError):
            handled(fails, Context())
        assert [("8476a536", None, True), ("8476a536", KeyError, True)] == seen

    def test_order(self):
        """By priority, after on_response, before what was deferred."""
        seen = []
        lambda_ext.after_response(lambda: seen.append("hook"))
        lambda_ext.after_response(priority=10)(lambda: seen.append("first"))
        lambda_ext.on_response(lambda: seen.append("on_response"))
        handled(lambda: lambda_ext.defer(seen.append, "deferred"))

        assert ["on_response", "first", "hook", "deferred"] == seen

    def test_coroutine_function(self):
        """Is awaited."""
        seen = []

        @lambda_ext.after_response
        async def hook(outcome):
            await asyncio.sleep(0)
            seen.append(outcome.request_id)

        handled(lambda: None, Context())
        assert ["8476a536"] == seen

    @pytest.mark.parametrize("priority", [-(1 << 80), 1 << 62, 1 << 80])
    def test_any_priority_is_one(self, priority):
        """The last flush comes after it all the same."""
        seen = []
        lambda_ext.after_response(priority=priority)(seen.append)
        with MemorySink() as sink:
            lambda_ext.after_response(priority=priority)(lambda: metrics.count("late"))
            handled(lambda: None, Context())
            assert 1 == sink.total("late")

        assert ["8476a536"] == [outcome.request_id for outcome in seen]

    def test_outcome_tells_what_is_left(self):
        """Of the invocation, as in a hook before the answer."""
        seen = []
        lambda_ext.on_response(lambda outcome: seen.append(outcome.remaining))
        lambda_ext.after_response(lambda outcome: seen.append(outcome.remaining))
        handled(lambda: None, Context(60_000))

        assert 60 > seen[0] > seen[1] > 0

    def test_nothing_of_an_invocation_is_kept(self):
        """Its context, and what was deferred, end with the work."""
        lambda_ext.after_response(lambda outcome: None)
        context = Context()
        kept = [weakref.ref(context)]

        class Order:
            """Of a customer."""

        def handler():
            order = Order()
            kept.append(weakref.ref(order))
            lambda_ext.defer(id, order)
            lambda_ext.defer(lambda: order)

        handled(handler, context)
        del context
        assert [None, None] == [reference() for reference in kept]


@pytest.mark.logs
class TestOverrun:
    """Work that takes longer than the invocation has."""

    def test_it_is_left_behind_and_takes_nothing_with_it(self, caplog):
        """The rest of its queue comes after the next response."""
        gate = threading.Event()
        seen = []

        def handler():
            lambda_ext.defer(gate.wait, 30)
            lambda_ext.defer(seen.append, 1)
            return "answer"

        try:
            assert "answer" == handled(handler, Context(SHORT_MS))
            assert [] == seen
            found = lambda_ext.stats().deferred
            assert (1, 1) == (found.left_behind, found.waiting)
            assert "listener_abandoned" in caplog.text
        finally:
            gate.set()
        rounds_over()
        assert [] == seen  # the thread that was left behind has taken no more
        handled(lambda: None, Context())
        assert [1] == seen

    def test_hooks_after_one_that_hangs_are_told(self, caplog):
        """They are not called after a later response, in place of its own."""
        gate = threading.Event()
        seen = []

        @lambda_ext.after_response
        def hangs(outcome):
            if outcome.remaining < 1:
                gate.wait(30)

        @lambda_ext.after_response
        def second(outcome):
            seen.append(outcome.context)

        later = Context()
        try:
            handled(lambda: None, Context(SHORT_MS))
            assert ["hangs", "second"] == [
                message.rpartition(".")[2] for message in caplog.messages
            ]
            assert 2 == lambda_ext.stats().lifecycle.phases[phases.AFTER].abandoned
        finally:
            gate.set()
        rounds_over()
        handled(lambda: None, later)
        assert [later] == seen

    def test_is_no_time_out(self):
        """The answer comes in time: no hook of time-outs is called, no metric sent."""
        gate = threading.Event()
        seen = []
        lambda_ext.on_timeout(lambda: seen.append(1))
        try:
            with MemorySink() as sink:

                def handler():
                    metrics.count("orders")
                    lambda_ext.defer(gate.wait, 30)

                handled(handler, Context(200))
                assert 0 == sink.total("TimeoutImminent")
            assert [] == seen
        finally:
            gate.set()
        rounds_over()

    def test_is_told_by_the_name_of_what_a_partial_calls(self, caplog):
        """Not as functools.partial."""
        gate = threading.Event()

        def slow(seconds):
            gate.wait(seconds)

        try:
            handled(
                lambda: lambda_ext.defer(functools.partial(slow, 30)), Context(SHORT_MS)
            )
        finally:
            gate.set()
        rounds_over()
        assert "slow" in caplog.text

    def test_threads_left_behind_are_bounded(self):
        """Then what is queued waits."""
        gate = threading.Event()
        seen = []
        try:
            for _ in range(deferred.MOST_LEFT):
                handled(lambda: lambda_ext.defer(gate.wait, 30), Context(SHORT_MS))
            handled(lambda: lambda_ext.defer(seen.append, 1), Context())
            assert [] == seen
        finally:
            gate.set()
        rounds_over()
        handled(lambda: None)
        assert [1] == seen
        assert deferred.MOST_LEFT == lambda_ext.stats().deferred.left_behind

    def test_hook_for_which_there_is_no_time_is_told(self, caplog):
        """The invocation has ended at its deadline."""
        lambda_ext.after_response(lambda: pytest.fail("was called"))
        handled(lambda: None, Context(0))

        assert 1 == lambda_ext.stats().lifecycle.phases[phases.AFTER].abandoned
        assert "listener_abandoned" in caplog.text

    def test_coroutine_goes_on_in_a_later_invocation(self, monkeypatch):
        """As a task of the loop, which the next async handler has."""
        monkeypatch.setattr(deferred, "RELEASE_S", 30)
        seen = []

        async def work():
            await gate.wait()
            seen.append("done")

        async def first(event, context):
            nonlocal gate
            gate = asyncio.Event()
            lambda_ext.defer(work)

        async def second(event, context):
            gate.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "answer"

        gate = None
        lambda_ext.handler(first)({}, Context(SHORT_MS))
        assert [] == seen
        assert "answer" == lambda_ext.handler(second)({}, Context())
        assert ["done"] == seen

    def test_coroutine_that_blocks_leaves_the_next_handler_a_loop(self):
        """Of its own, while the thread is stuck in the other."""
        gate = threading.Event()

        async def work():
            gate.wait(30)

        async def handler(event, context):
            return "answer"

        try:
            handled(lambda: lambda_ext.defer(work), Context(SHORT_MS))
            assert "answer" == lambda_ext.handler(handler)({}, Context())
        finally:
            gate.set()
        rounds_over()


class TestLeftCoroutine:
    """A coroutine that is left behind, as a task of the loop."""

    def left(self, work):
        """Have *work* left behind, on a loop."""
        handled(lambda: lambda_ext.defer(work), Context(SHORT_MS))
        rounds_over()

    @pytest.mark.logs
    @pytest.mark.parametrize("error", [None, ValueError])
    def test_is_counted_when_it_is_done(self, monkeypatch, error, caplog):
        """Not when it is left; what it raises is logged."""
        monkeypatch.setattr(deferred, "RELEASE_S", 30)
        gate = None

        async def work():
            nonlocal gate
            gate = asyncio.Event()
            await gate.wait()
            if error:
                raise error

        async def handler(event, context):
            gate.set()
            for _ in range(5):
                await asyncio.sleep(0)

        self.left(work)
        found = lambda_ext.stats().deferred
        assert (1, 0, 0) == (found.left_behind, found.done, found.failed)
        lambda_ext.handler(handler)({}, None)
        found = lambda_ext.stats().deferred
        assert ((0, 1) if error else (1, 0)) == (found.done, found.failed)
        assert bool(error) == ("listener_failed" in caplog.text)

    @pytest.mark.logs
    def test_that_begins_after_it_was_left_takes_no_loop(self):
        """The next async handler has it, and the coroutine is a task there."""
        gate = threading.Event()
        seen = []
        late = None

        async def rest():
            nonlocal late
            late = asyncio.Event()
            await late.wait()
            seen.append("rest")

        def work():
            gate.wait(30)
            return rest()

        async def handler(event, context):
            while late is None:  # noqa: ASYNC110  made by another task
                await asyncio.sleep(0)
            late.set()
            while not seen:  # noqa: ASYNC110
                await asyncio.sleep(0)
            return "answer"

        handled(lambda: lambda_ext.defer(work), Context(SHORT_MS))
        gate.set()
        rounds_over()
        assert "answer" == lambda_ext.handler(handler)({}, None)
        assert ["rest"] == seen
        assert 1 == lambda_ext.stats().deferred.done

    @pytest.mark.logs
    def test_end_of_one_that_was_stuck_leaves_another_releasable(self, monkeypatch):
        """Each round has its own way off the loop."""
        gate = threading.Event()

        async def stuck():
            gate.wait(30)

        handled(lambda: lambda_ext.defer(stuck), Context(SHORT_MS))
        (first,) = deferred._rounds
        monkeypatch.setattr(deferred, "RELEASE_S", 30)

        async def work():
            gate.set()
            while not first.over.is_set():  # noqa: ASYNC110  a thread's
                await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()

        async def handler(event, context):
            return "answer"

        handled(lambda: lambda_ext.defer(work), Context(2000))
        assert "answer" == lambda_ext.handler(handler)({}, None)


class TestByEvent:
    """Where the end of an answer is known by an event only."""

    def test_work_waits_for_the_answer_of_its_own_invocation(self, monkeypatch):
        """Not for one that came after the event of an earlier invocation."""
        seen = []

        class Second(Context):
            aws_request_id = "2"

        lambda_ext.defer(seen.append, 1)
        monkeypatch.setattr(deferred, "_is_decorated", lambda: True)
        monkeypatch.setattr(deferred, "_mode", deferred.EVENT)
        monkeypatch.setattr(deferred, "_has_events", lambda: True)
        event = {"eventType": "INVOKE", "requestId": "2"}
        event["deadlineMs"] = (clock.wall() + 2.0) * 1000

        handled(lambda: None, Context())
        deferred._at_event(event)
        assert [] == seen
        handled(lambda: None, Second())
        deferred._at_event(event)
        assert [1] == seen


class TestEnd:
    """SIGTERM, or exit, before the response."""

    def test_what_waits_is_done(self):
        """Within the budget."""
        seen = []
        lambda_ext.defer(seen.append, 1)
        with MemorySink() as sink:
            lambda_ext.defer(metrics.count, "late")
            simulate_sigterm(10.0)
            assert [1] == seen
            assert 1 == sink.total("late")

    @pytest.mark.logs
    def test_what_is_not_done_is_counted_and_logged(self, caplog):
        """One call hangs."""
        gate = threading.Event()
        lambda_ext.defer(gate.wait, 30)
        lambda_ext.defer(print, "never")
        try:
            simulate_sigterm(1.0)
        finally:
            gate.set()
        rounds_over()
        assert "deferred_lost number=1" in caplog.text
        assert 1 == lambda_ext.stats().deferred.dropped

    @pytest.mark.logs
    def test_what_was_left_behind_holds_nothing_up(self):
        """What waits is done first."""
        gate = threading.Event()
        seen = []
        try:
            handled(lambda: lambda_ext.defer(gate.wait, 30), Context(SHORT_MS))
            lambda_ext.defer(seen.append, 1)
            simulate_sigterm(1.0)
            assert [1] == seen
        finally:
            gate.set()
        rounds_over()

    def test_what_others_leave_of_the_budget_is_for_the_work(self):
        """Its share is small beside many hooks, which need little of theirs."""
        gate = threading.Event()
        seen = []

        def work():
            gate.wait(30)
            metrics.count("late")

        lambda_ext.defer(work)
        lambda_ext.defer(seen.append, 1)
        for _ in range(20):
            lambda_ext.on_shutdown(lambda: None)
        lambda_ext.on_shutdown(priority=99)(gate.set)
        with MemorySink() as sink:
            metrics.count("early")
            simulate_sigterm(4.0)
            assert (1, 1) == (sink.total("early"), sink.total("late"))
        assert [1] == seen
        found = lambda_ext.stats().deferred
        assert (2, 0, 0) == (found.done, found.left_behind, found.dropped)

    def test_answer_beside_the_end_begins_no_second_work(self, monkeypatch):
        """What waits is done in order, by the thread of the end."""
        begun, gate = threading.Event(), threading.Event()
        seen = []
        monkeypatch.setattr(shutdown, "_winner", {"end": ("sigterm", None)})

        def work():
            begun.set()
            gate.wait(30)
            seen.append("first")

        lambda_ext.defer(work)
        ending = threading.Thread(target=simulate_sigterm, args=(30.0,))
        ending.start()
        begun.wait(30)
        lambda_ext.after_response(lambda: seen.append("hook"))
        handled(lambda: lambda_ext.defer(seen.append, "second"))
        gate.set()
        ending.join()
        assert ["first", "second", "hook"] == seen

    @pytest.mark.logs
    def test_call_behind_one_that_hangs_is_not_begun(self):
        """It would run beside it."""
        gate = threading.Event()
        seen = []
        lambda_ext.defer(gate.wait, 30)
        lambda_ext.defer(seen.append, 1)

        begun = threading.Event()
        lambda_ext.after_response(begun.set)

        def end():
            begun.wait(30)
            simulate_sigterm(0.3)
            try:
                eventually(lambda: seen or not deferred.waiting())
            finally:
                gate.set()

        ending = threading.Thread(target=end)
        handler = lambda_ext.handler(lambda event, context: ending.start())
        with FakeClock():  # a wait may end a moment early: here, no time passes
            handler({}, None)
            ending.join()
        assert [] == seen
        assert 1 == lambda_ext.stats().deferred.dropped

    @pytest.mark.logs
    def test_what_hangs_is_told_by_its_name(self, caplog):
        """And is not a hang of this library's."""
        gate = threading.Event()

        def slow():
            gate.wait(30)

        lambda_ext.defer(slow)
        try:
            simulate_sigterm(2.0)
        finally:
            gate.set()
        rounds_over()
        assert "slow" in caplog.text
        assert "_at_shutdown" not in caplog.text
        assert 1 == lambda_ext.stats().deferred.left_behind


APP = """
import os
{first}
import lambda_ext
from lambda_ext import metrics


def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\\n")


def work(gate):
    note("begun")
    with open(gate) as file:
        file.read()
    metrics.count("late")
    note("done")


{decorated}
def handler(event, context):
    note("handler")
    if event:
        lambda_ext.defer(work, event["gate"])
    return "answer"
"""
# Another runtime client, as far as can be seen.
HIDDEN = """
import awslambdaric.lambda_runtime_client as client
del client.BaseLambdaRuntimeClient, client.LambdaRuntimeClient
"""


@pytest.mark.process
class TestInLambda:
    """With the real runtime client, on the emulator."""

    @pytest.fixture
    def notes(self, tmp_path):
        """What reads the notes of the function."""
        path = tmp_path / "notes"
        return lambda: path.read_text().split() if path.exists() else []

    def emulator(self, folder, *, first="", decorated="@lambda_ext.handler", **options):
        (folder / "app.py").write_text(APP.format(first=first, decorated=decorated))
        env = {"NOTES": str(folder / "notes"), **options.pop("env", {})}
        budgets = Budgets(internal_s=30.0)  # longer than Lambda's, for busy machines
        return Emulator("app.handler", str(folder), env=env, budgets=budgets, **options)

    WAYS = pytest.mark.parametrize(
        ("first", "decorated", "env"),
        [
            ("", "@lambda_ext.handler", {}),
            ("", "lambda_ext.start()", {}),
            (HIDDEN, "@lambda_ext.handler", {"LAMBDA_EXT_AFTER_RESPONSE": "1"}),
        ],
        ids=["decorated", "started", "by event"],
    )

    @WAYS
    def test_caller_has_the_answer_before_the_work_is_done(
        self, tmp_path, notes, first, decorated, env
    ):
        """And the next invocation waits until it is; then its metrics are out."""
        gate = Gate(tmp_path)
        with self.emulator(
            tmp_path, first=first, decorated=decorated, env=env, timeout_s=60
        ) as emulator:
            # With the gate closed: an answer that waited for the work would not come.
            assert "answer" == emulator.invoke({"gate": gate.path}).value
            pending = emulator.invoke_async({})
            assert not pending.done()
            gate.open()
            assert "answer" == pending.result().value
            emulator.wait_frozen()
            emulator.drain()
            assert ["handler", "begun", "done", "handler"] == notes()
            lines = [json.loads(t) for t in texts(emulator) if t.startswith('{"_aws"')]
            assert [1] == [line["late"] for line in lines]
            assert 0 == emulator.shutdown().exit_status

    @WAYS
    def test_work_that_overruns_is_left_behind(
        self, tmp_path, notes, first, decorated, env
    ):
        """The environment lives on, and the work goes on in the next invocation."""
        gate = Gate(tmp_path)
        with self.emulator(
            tmp_path,
            first=first,
            decorated=decorated,
            env={**env, "LAMBDA_EXT_TIMEOUT_MARGIN": "2"},  # for what is told of it
            timeout_s=4,
        ) as emulator:
            assert "success" == emulator.invoke({"gate": gate.path}).status
            pid = emulator.pid
            second = emulator.invoke({})

            assert ("success", "answer") == (second.status, second.value)
            assert pid == emulator.pid
            assert ["handler", "begun", "handler"] == notes()
            emulator.wait_for_line("listener_abandoned")
            assert 1 == len([t for t in texts(emulator) if "listener_abandoned" in t])
            emulator.wait_frozen()
            emulator.thaw()
            gate.open()
            eventually(lambda: notes()[-1] == "done")

    @pytest.mark.parametrize("decorated", ["@lambda_ext.handler", "lambda_ext.start()"])
    def test_hook_is_called_after_each_response(self, tmp_path, notes, decorated):
        """With the outcome of the invocation that has its answer, not of another."""
        first = (
            "import lambda_ext\n"
            "@lambda_ext.after_response\n"
            "def hook(outcome): note(outcome.request_id)\n"
        )
        with self.emulator(tmp_path, first=first, decorated=decorated) as emulator:
            ids = [emulator.invoke({}).request_id for _ in range(3)]
            emulator.wait_frozen()
            emulator.drain()

        assert [line for each in ids for line in ("handler", each)] == notes()

    @pytest.mark.parametrize("decorated", ["@lambda_ext.handler", "lambda_ext.start()"])
    def test_hook_is_told_what_is_left(self, tmp_path, notes, decorated):
        """Of its invocation, which has a limit after its answer, too."""
        first = (
            "import lambda_ext\n"
            "@lambda_ext.after_response\n"
            "def hook(outcome): note(0 < outcome.remaining < 60 and 'left' or 'none')\n"
        )
        with self.emulator(
            tmp_path, first=first, decorated=decorated, timeout_s=60
        ) as emulator:
            emulator.invoke({})
            emulator.wait_frozen()
        assert ["handler", "left"] == notes()

    def test_without_a_way_it_is_done_before_the_answer(self, tmp_path, notes):
        """With one warning, which says what to set."""
        gate = Gate(tmp_path)
        with self.emulator(tmp_path, first=HIDDEN, timeout_s=60) as emulator:
            pending = emulator.invoke_async({"gate": gate.path})
            gate.open()
            assert "answer" == pending.result().value
            assert ["handler", "begun", "done"] == notes()
            pending = emulator.invoke_async({"gate": gate.path})
            gate.open()
            pending.result()
            emulator.wait_frozen()
            emulator.drain()
            warned = [t for t in texts(emulator) if "deferred_before_response" in t]
            assert [True] == ["LAMBDA_EXT_AFTER_RESPONSE=1" in t for t in warned]

    @pytest.mark.parametrize("why", ["disabled", "refused"])
    def test_without_events_it_is_done_before_the_answer(self, tmp_path, notes, why):
        """Lambda was to send them, and does not: no work is lost."""
        first = (
            f"{HIDDEN}\nimport lambda_ext\n"
            "@lambda_ext.after_response\n"
            "def hook(outcome): note('hook')\n"
        )
        env = {"LAMBDA_EXT_DISABLE": "extension"}
        if why == "refused":
            env = {}
            # A file of this name is another extension.
            first += (
                "from lambda_ext.lifecycle import extension\n"
                "extension.FOLDER = os.environ['LAMBDA_TASK_ROOT']\n"
                "extension.NAME = 'app.py'\n"
            )
        with self.emulator(tmp_path, first=first, env=env) as emulator:
            emulator.invoke({})
            emulator.invoke({})
            assert ["handler", "hook"] * 2 == notes()

    def test_sigterm_beside_the_work(self, tmp_path, notes):
        """What is done is flushed once; the rest is told, and the process ends."""
        first = (
            "import lambda_ext\n"
            "@lambda_ext.after_response\n"
            "def hook(): metrics.count('first')\n"
            "@lambda_ext.after_response\n"
            "def another(): lambda_ext.defer(note, 'never')\n"
        )
        gate = Gate(tmp_path)
        with self.emulator(tmp_path, first=first, timeout_s=60) as emulator:
            assert "answer" == emulator.invoke({"gate": gate.path}).value
            eventually(lambda: notes()[-1] == "begun")
            assert 0 == emulator.shutdown().exit_status
            lines = [json.loads(t) for t in texts(emulator) if t.startswith('{"_aws"')]
            assert [1] == [line["first"] for line in lines if "first" in line]

    @pytest.mark.parametrize("ends", ["sigterm", "exit"])
    def test_what_a_late_hook_defers_is_done(self, ends):
        """It is called when what waited before was."""
        code = (
            "import lambda_ext\n"
            "from lambda_ext.lifecycle import shutdown\n"
            "lambda_ext.defer(print, 'early', flush=True)\n"
            "@lambda_ext.on_shutdown(priority=99)\n"
            "def hook():\n"
            "    lambda_ext.defer(print, 'late', flush=True)\n"
        )
        if ends == "sigterm":
            code += "shutdown._terminate()\n"
        assert ["early", "late"] == python(code).stdout.splitlines()

    def test_what_is_deferred_too_late_is_told(self):
        """By what Python calls after this library's end: it is refused."""
        ended = python(
            "import atexit\n"
            "@atexit.register\n"
            "def last():\n"
            "    print(lambda_ext.defer(print, 'too late'))\n"
            "    print(lambda_ext.stats().deferred.dropped)\n"
            "import lambda_ext\n"
            "lambda_ext.defer(print, 'in time')\n"
        )
        assert ["in time", "False", "1"] == ended.stdout.splitlines()
        assert 1 == ended.stderr.count("deferred_dropped")

    def test_event_is_not_asked_for_where_the_runtime_client_tells(self, tmp_path):
        """Lambda would wait for one more answer in each invocation."""
        env = {"LAMBDA_EXT_AFTER_RESPONSE": "1"}
        with self.emulator(tmp_path, env=env) as emulator:
            emulator.invoke({})
            assert [()] == [agent.events for agent in emulator.agents]

    def test_undecorated_handler_holds_no_event_up(self, tmp_path, notes):
        """Where nothing tells that it has ended, an event ends at once."""
        with self.emulator(
            tmp_path,
            first=HIDDEN,
            decorated="lambda_ext.start()",
            env={"LAMBDA_EXT_AFTER_RESPONSE": "1"},
            timeout_s=60,
        ) as emulator:
            assert [("INVOKE",)] == (
                emulator.invoke({}) and [agent.events for agent in emulator.agents]
            )
            assert "answer" == emulator.invoke({}).value
            assert ["handler", "handler"] == notes()


def test_nothing_is_loaded_until_it_is_used():
    """Neither by the hooks nor by a decorated handler."""
    code = (
        "import sys, lambda_ext\n"
        "lambda_ext.on_response(lambda: None)\n"
        "lambda_ext.handler(lambda e, c: None)({}, None)\n"
        "print('lambda_ext.lifecycle.deferred' in sys.modules)\n"
    )
    assert "False" == python(code).stdout.strip()


def test_deadline_of_the_runtime_client_may_be_anything(monkeypatch):
    """What is no number is no deadline."""
    for given, expected in (("1700000000500", 1700000000.5), (None, None), ("x", None)):
        monkeypatch.setattr(runtime_client, "_deadline_ms", given)
        assert runtime_client.ends_at() == expected


def test_no_event_is_asked_for_outside_lambda():
    """Nor is anything else."""
    deferred.ask()
    assert extension.on_event is None
