"""A function that times out, in a real process of the real runtime client."""

from __future__ import annotations

import sys

import pytest
from emulated import documents

pytestmark = pytest.mark.process


HANDLER = """
@lambda_ext.handler
def handler(event, context):
    metrics.count("n")
    while event.get("hang"):
        time.sleep(0.01)
"""


class TestKilled:
    """Lambda sends SIGKILL where no extension is registered: SIGTERM saves nothing."""

    def test_what_was_recorded_is_out_before(self, environment):
        """And that time was running out, with the id of the request."""
        emulator = environment(
            HANDLER,
            timeout_s=6,
            env={"LAMBDA_EXT_DISABLE": "extension", "LAMBDA_EXT_TIMEOUT_MARGIN": "3"},
        )
        late = emulator.invoke({"hang": True})
        emulator.wait_frozen()

        assert "timeout" == late.status
        (end,) = emulator.shutdowns
        assert (False, True) == (end.signalled, end.killed)
        first, second = documents(emulator)
        assert 1 == first["n"]
        assert (1, late.request_id) == (second["TimeoutImminent"], second["request_id"])
        assert "request_id" not in first

    def test_later_invocation_is_guarded_too(self, environment):
        """By the thread that slept through the first ones."""
        emulator = environment(
            HANDLER,
            timeout_s=6,
            env={"LAMBDA_EXT_DISABLE": "extension", "LAMBDA_EXT_TIMEOUT_MARGIN": "3"},
        )
        for _ in range(3):
            assert "success" == emulator.invoke({}).status
        emulator.invoke({"hang": True})
        emulator.wait_frozen()

        assert [1, 1, 1, 1, None] == [each.get("n") for each in documents(emulator)]
        assert 1 == documents(emulator)[-1]["TimeoutImminent"]

    def test_switched_off_it_is_lost(self, environment):
        """A margin of 0 is off."""
        emulator = environment(
            HANDLER,
            timeout_s=2,
            env={"LAMBDA_EXT_DISABLE": "extension", "LAMBDA_EXT_TIMEOUT_MARGIN": "0"},
        )
        emulator.invoke({"hang": True})
        emulator.wait_frozen()

        assert [] == documents(emulator)


class TestTerminated:
    """With an extension, SIGTERM follows."""

    def test_each_record_is_written_once(self, environment):
        """What is recorded after the guard's flush is flushed at SIGTERM."""
        emulator = environment(
            """
            imminent = []
            lambda_ext.on_timeout(lambda: imminent.append(1))

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("n")
                while not imminent:
                    time.sleep(0.01)
                metrics.count("n", 10)
                time.sleep(60)
            """,
            timeout_s=6,
            env={"LAMBDA_EXT_TIMEOUT_MARGIN": "3"},
        )
        emulator.invoke({})
        emulator.wait_frozen()

        assert [1, None, 10] == [each.get("n") for each in documents(emulator)]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Managed Instances: 3.13")
class TestManagedInstances:
    """Nothing freezes there: each worker flushes, and goes on flushing."""

    def test_worker_writes_what_comes_between_invocations(self, environment):
        """When it is old enough, by the thread that watches deadlines."""
        emulator = environment(
            """
            import threading

            def later():
                time.sleep(0.05)
                metrics.count("later")

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("n")
                threading.Thread(target=later).start()
                return os.getpid()
            """,
            timeout_s=60,
            env={"LAMBDA_EXT_FLUSH_EVERY": "200ms"},
            init_type="lambda-managed-instances",
        )
        emulator.init()
        emulator.wait_idle()
        emulator.invoke({})
        emulator.wait_for_line('"later":1')

        assert 1 == sum(each.get("n", 0) for each in documents(emulator))

    def test_each_of_two_requests_at_once_is_guarded(self, environment):
        """Both come near their deadline, each in a worker of its own."""
        emulator = environment(
            """
            imminent = []
            lambda_ext.on_timeout(lambda: imminent.append(1))

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("n")
                while not imminent:
                    time.sleep(0.01)
            """,
            timeout_s=8,
            env={"LAMBDA_EXT_TIMEOUT_MARGIN": "7"},
            init_type="lambda-managed-instances",
        )
        emulator.init()
        emulator.wait_idle()
        pending = [emulator.invoke_async({}) for _ in range(2)]
        requests = {each.result().request_id for each in pending}
        emulator.shutdown()

        assert 2 == sum(each.get("n", 0) for each in documents(emulator))
        assert requests == {
            each["request_id"]
            for each in documents(emulator)
            if "TimeoutImminent" in each
        }
