"""A handler that is not decorated, after `lambda_ext.start()`, in a real process."""

from __future__ import annotations

import sys
import types

import pytest
from emulated import documents

import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import current, runtime_client
from lambda_ext.testing import FakeClock, MemorySink


@pytest.mark.process
class TestProcess:
    """What a decorated handler has, this one has too."""

    def test_metrics_are_flushed_after_each_answer(self, environment):
        """Before the freeze, also when the handler raises; with its properties."""
        emulator = environment(
            """
            lambda_ext.start()

            @lambda_ext.on_invoke
            def begun(invocation):
                metrics.annotate({"request": invocation.request_id})

            def handler(event, context):
                metrics.count("n", event)
                if event == 2:
                    raise ValueError
            """
        )
        requests = []
        seen = []
        for event in (1, 2, 3):
            requests.append(emulator.invoke(event).request_id)
            emulator.wait_frozen()
            seen.append([each["n"] for each in documents(emulator)])

        assert [[1], [1, 2], [1, 2, 3]] == seen
        assert requests == [each["request"] for each in documents(emulator)]

    def test_time_out_is_guarded(self, environment):
        """By the deadline that the runtime client has received."""
        emulator = environment(
            """
            lambda_ext.start()

            def handler(event, context):
                metrics.count("n")
                while event == "slow":
                    time.sleep(0.01)
            """,
            timeout_s=6,
            env={"LAMBDA_EXT_DISABLE": "extension", "LAMBDA_EXT_TIMEOUT_MARGIN": "3"},
        )
        assert "success" == emulator.invoke("quick").status
        late = emulator.invoke("slow")
        emulator.wait_frozen()

        assert "timeout" == late.status
        assert [1, 1, None] == [each.get("n") for each in documents(emulator)]
        last = documents(emulator)[-1]
        assert (1, late.request_id) == (last["TimeoutImminent"], last["request_id"])

    def test_sigterm_and_import_lose_nothing(self, environment):
        """What no invocation has flushed comes out at the end."""
        emulator = environment(
            """
            lambda_ext.start()
            metrics.count("imported")

            @lambda_ext.on_shutdown
            def end():
                metrics.count("ended")

            def handler(event, context):
                metrics.count("n")
            """
        )
        emulator.invoke({})
        emulator.wait_frozen()
        end = emulator.shutdown()

        names = ("imported", "n", "ended")
        assert (False, 0) == (end.killed, end.exit_status)
        assert [1, 1, 1] == [
            sum(each.get(name, 0) for each in documents(emulator)) for name in names
        ]


class Client:
    """The runtime client: each wait returns an invocation."""

    def wait_next_invocation(self):
        """Return what Lambda would send."""
        return types.SimpleNamespace(
            invoke_id="r-1",
            invoked_function_arn="arn",
            tenant_id=None,
            deadline_time_in_ms=str(1_700_000_003_000),
        )


@pytest.fixture(name="client")
def _client(monkeypatch):
    """Play the runtime client, inside Lambda, where no extension is registered."""
    module = types.SimpleNamespace(BaseLambdaRuntimeClient=type("C", (Client,), {}))
    monkeypatch.setitem(sys.modules, runtime_client.MODULE, module)
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    monkeypatch.setenv("LAMBDA_EXT_DISABLE", "extension,signals")
    with FakeClock():
        yield module.BaseLambdaRuntimeClient()


class TestPlayed:
    """When an invocation begins, and when it does not."""

    def test_is_begun_when_it_is_received(self, client):
        """With its id and its deadline, until the client waits again."""
        lambda_ext.start()
        with MemorySink() as sink:
            client.wait_next_invocation()
            state = current.state()
            inside = (state.inside, state.context.aws_request_id, state.timing[1])
            metrics.count("n")
            client.wait_next_invocation()
            flushed = sink.total("n")

        assert (True, "r-1", 3.0) == inside
        assert 1 == flushed
        assert 2 == lambda_ext.stats().lifecycle.invocations

    def test_decorated_handler_is_left_alone(self, client):
        """It begins by itself, once."""
        lambda_ext.start()
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
        with MemorySink() as sink:
            client.wait_next_invocation()
            before = current.state().inside
            handler({}, None)
            flushed = sink.total("n")
            client.wait_next_invocation()

        assert not before
        assert 1 == flushed
        assert 1 == lambda_ext.stats().lifecycle.invocations

    def test_what_it_cannot_read_is_no_deadline(self, client, monkeypatch):
        """Another version of the runtime client may send something else."""
        monkeypatch.setattr(type(client), "wait_next_invocation", lambda self: object())
        lambda_ext.start()
        client.wait_next_invocation()

        state = current.state()
        assert (True, None) == (state.inside, state.timing)
