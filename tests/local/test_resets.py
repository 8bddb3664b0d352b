"""Resets: what a time-out, a crash or a failed Init does to the next invocation."""

from __future__ import annotations

import signal
import sys
import threading

import pytest
from emulated import Gate, emulate, paths, process, states, texts
from helpers import eventually, run_threads

from lambda_ext.local.emulator import Budgets, EmulatorError

pytestmark = process

PATIENT = Budgets(internal_s=30.0, external_s=30.0, external_share_s=30.0)


class TestTimeout:
    """A handler that takes too long."""

    def test_answers_and_resets(self):
        """The caller is told, the runtime killed, and the next Init is inside."""
        with emulate(timeout_s=4) as emulator:
            emulator.init()
            late = emulator.invoke({"do": "sleep"})
            again = emulator.invoke({"n": 1})

            assert "timeout" == late.status
            assert {"errorMessage"} == late.value.keys()
            assert late.value["errorMessage"].endswith(
                f"{late.request_id} Task timed out after 4.00 seconds"
            )
            assert late.init is None
            (end,) = emulator.shutdowns
            assert (end.reason, end.exit_status) == ("timeout", -signal.SIGKILL)
            assert (False, True) == (end.signalled, end.killed)
            assert "success" == again.status
            assert ["init", "invoke"] == [init.phase for init in emulator.inits]
            assert again.init is emulator.inits[1]

    def test_with_an_extension_the_runtime_gets_sigterm(self):
        """A registered extension turns the kill into SIGTERM and a budget."""
        env = {"EXTENSION": "[]", "ON_TERM": "exit"}
        with emulate(timeout_s=0.5, env=env, budgets=PATIENT) as emulator:
            late = emulator.invoke({"do": "sleep"})
            emulator.wait_frozen()

            assert "timeout" == late.status
            (end,) = emulator.shutdowns
            assert ("timeout", True, False) == (end.reason, end.signalled, end.killed)
            assert 0 == end.exit_status
            assert "SIGTERM" in texts(emulator)[-1]

    def test_of_an_extension_resets_after_the_answer(self, tmp_path):
        """An extension that works past the time-out costs the environment."""
        gate = Gate(tmp_path)
        env = {"GATE": gate.path, "EXTENSION": '["INVOKE"]', "ON_TERM": "exit"}
        with emulate(timeout_s=3, env=env, budgets=PATIENT) as emulator:
            answer = emulator.invoke({"n": 1})
            emulator.wait_frozen()

            assert "success" == answer.status
            assert ["timeout"] == [end.reason for end in emulator.shutdowns]
            assert emulator.pid is None


class TestCrash:
    """A runtime that ends where it should not."""

    @pytest.mark.parametrize(
        ("event", "words"),
        [
            ({"do": "exit", "status": 3}, "exited with error: exit status 3"),
            ({"do": "exit", "status": 0}, "exited without providing a reason"),
            ({"do": "kill", "signal": 9}, "exited with error: signal: killed"),
        ],
    )
    def test_in_the_handler_fails_the_invocation(self, event, words):
        """The caller gets Runtime.ExitError with how the process ended."""
        with emulate() as emulator:
            emulator.init()
            answer = emulator.invoke(event)

            assert "failure" == answer.status
            assert {
                "errorType": "Runtime.ExitError",
                "errorMessage": f"RequestId: {answer.request_id} Error: Runtime {words}",
            } == answer.value
            assert "Runtime.ExitError" == answer.error_type
            emulator.wait_frozen()
            (end,) = emulator.shutdowns
            assert ("failure", False, False) == (end.reason, end.signalled, end.killed)

    def test_is_followed_by_an_init_inside_the_invocation(self, tmp_path):
        """The next invocation starts a new process, in the same /tmp."""
        env = {"KEEP": str(tmp_path / "kept")}
        with emulate(env=env) as emulator:
            first = emulator.invoke({"do": "keep"})
            emulator.invoke({"do": "exit", "status": 1})
            again = emulator.invoke({"do": "kept"})

            assert again.value["kept"] == str(first.value["pid"])
            assert again.value["pid"] != first.value["pid"]
            assert ["init", "invoke"] == [init.phase for init in emulator.inits]

    def test_while_idle_fails_the_next_invocation(self, tmp_path):
        """A process that ended between invocations is found by the next one."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, freeze=False) as emulator:
            emulator.invoke({"do": "exit later", "status": 7})
            emulator.wait_frozen()
            pid = emulator.pid
            gate.open()
            eventually(lambda: states(pid) <= {"Z"})
            answer = emulator.invoke({"n": 1})

            assert "failure" == answer.status
            assert "exit status 7" in answer.value["errorMessage"]
            assert emulator.invoke({"n": 2}).value["pid"] != pid


class TestFailedInit:
    """An Init that fails is repeated inside the invocation."""

    def test_error_is_the_answer(self):
        """A handler that raises at import is tried twice; its error is the answer."""
        with emulate(env={"FAIL": "raise"}) as emulator:
            answer = emulator.invoke({})

            assert "error" == answer.status
            assert "RuntimeError" == answer.value["errorType"]
            assert "not today" == answer.value["errorMessage"]
            assert [
                ("init", "error"),
                ("invoke", "error"),
            ] == [(init.phase, init.status) for init in emulator.inits]
            assert answer.init is emulator.inits[1]

    def test_crash_is_the_answer(self):
        """A runtime that exits at import twice is a failure."""
        with emulate(env={"FAIL": "exit"}) as emulator:
            answer = emulator.invoke({})

            assert "failure" == answer.status
            assert "Runtime.ExitError" == answer.value["errorType"]
            assert "exit status 4" in answer.value["errorMessage"]

    def test_command_that_is_not_there_fails_init(self):
        """A runtime that cannot be started is a failure that names it."""
        with emulate(command=["/nowhere/runtime"]) as emulator:
            report = emulator.init()

            assert "failure" == report.status
            assert "Runtime.InvalidEntrypoint" == report.error_type
            assert "/nowhere/runtime" in emulator.invoke({}).value["errorMessage"]

    def test_time_out_gets_the_functions_time(self, tmp_path):
        """An Init past its limit is repeated with the function's time-out."""
        script = 'test -e "$0" && exec "$@"; touch "$0"; exec sleep 600'
        runtime = [sys.executable, "-m", "awslambdaric", "app.handler"]
        command = ["sh", "-c", script, str(tmp_path / "tried"), *runtime]
        budgets = Budgets(init_s=0.5)
        with emulate(command=command, budgets=budgets, timeout_s=60) as emulator:
            answer = emulator.invoke({"n": 1})

            assert "success" == answer.status
            assert [
                ("init", "timeout"),
                ("invoke", "success"),
            ] == [(init.phase, init.status) for init in emulator.inits]
            assert ["timeout"] == [end.reason for end in emulator.shutdowns]
            assert answer.value["left"] > 30_000

    def test_time_out_inside_the_invocation_is_the_invocations(self):
        """An Init that hangs again times the invocation out."""
        env = {"FAIL": "hang"}
        with emulate(env=env, budgets=Budgets(init_s=0.2), timeout_s=0.3) as emulator:
            answer = emulator.invoke({"n": 1})

            assert "timeout" == answer.status
            assert ["timeout", "timeout"] == [init.status for init in emulator.inits]

    def test_extension_that_never_polls_stalls_it(self):
        """Init is not over before every registered extension asked for an event."""
        with emulate(env={"EXTENSION": "[]", "POLL": "never"}) as emulator:
            pending = emulator.invoke_async({})
            eventually(lambda: "next" in paths(emulator))

            assert ["Registered"] == [agent.state for agent in emulator.agents]
            assert [] == emulator.inits
            assert not pending.done()

    def test_limits_are_lambdas(self):
        """10 s on demand, else the larger of 130 s and the function's time-out."""
        limits = Budgets()

        assert 10 == limits.init("on-demand", 900)
        assert 130 == limits.init("provisioned-concurrency", 3)
        assert 900 == limits.init("snap-start", 900)
        assert 130 == limits.init("lambda-managed-instances", 3)
        assert 1.5 == Budgets(init_s=1.5).init("on-demand", 3)


class TestShutdown:
    """The end, in the middle of things."""

    def test_in_the_handler_fails_the_invocation(self, tmp_path):
        """Without a response before the end, the caller is told so."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, timeout_s=60) as emulator:
            pending = emulator.invoke_async({"do": "wait"})
            emulator.wait_for_line("handling")
            end = emulator.shutdown()

            assert (end.reason, end.exit_status) == ("spindown", -signal.SIGKILL)
            assert "failure" == pending.result(0).status
            assert "Sandbox.Failure" == pending.result(0).error_type

    def test_lets_a_response_through(self, tmp_path):
        """A response posted within the budget reaches its caller."""
        gate, last = Gate(tmp_path), Gate(tmp_path, "last")
        env = {
            "GATE": gate.path,
            "EXTENSION": "[]",
            "ON_TERM": "wait",
            "LAST": last.path,
        }
        with emulate(env=env, budgets=PATIENT, timeout_s=60) as emulator:
            pending = emulator.invoke_async({"do": "wait", "n": 1})
            emulator.wait_for_line("handling")
            ending = threading.Thread(target=emulator.shutdown)
            ending.start()
            emulator.wait_for_line("SIGTERM")
            gate.open()

            assert 1 == pending.result(30).value["n"]

            last.open()
            ending.join()
            (end,) = emulator.shutdowns

            assert (0, False) == (end.exit_status, end.killed)

    def test_during_init_ends_it(self):
        """An Init under way is given up, and so is its invocation."""
        with emulate(env={"FAIL": "hang"}) as emulator:
            pending = emulator.invoke_async({})
            emulator.wait_for_line("loading")
            emulator.shutdown()

            assert "Sandbox.Failure" == pending.result(0).error_type
            assert ["ending"] == [init.status for init in emulator.inits]

    def test_is_followed_by_a_cold_start(self):
        """The invocation after it begins with an ordinary Init."""
        with emulate() as emulator:
            first = emulator.invoke({})
            emulator.shutdown()
            again = emulator.invoke({})

            assert first.value["pid"] != again.value["pid"]
            assert ["init", "init"] == [init.phase for init in emulator.inits]

    def test_after_a_reset_is_a_cold_start_as_well(self):
        """What was owed after a crash is forgotten with the environment."""
        with emulate() as emulator:
            emulator.invoke({"do": "exit", "status": 1})
            emulator.wait_frozen()
            emulator.shutdown()
            emulator.invoke({})

            assert ["init", "init"] == [init.phase for init in emulator.inits]

    def test_of_nothing_is_nothing(self):
        """Without an environment there is neither a budget nor a status."""
        with emulate() as emulator:
            end = emulator.shutdown("timeout")

            assert ("timeout", 0.0, None) == (end.reason, end.budget_s, end.exit_status)
            assert [] == emulator.shutdowns

    def test_twice_at_the_same_time_is_once(self):
        """The second caller gets what the first brought about."""
        with emulate() as emulator:
            emulator.invoke({})
            ends = run_threads(4, lambda index: emulator.shutdown())

            assert 1 == len(emulator.shutdowns)
            assert emulator.shutdowns[0] in ends


def test_restore_without_a_snapshot_is_an_error():
    """Only a runtime that waits in /restore/next can be restored."""
    with emulate() as emulator:
        emulator.init()

        with pytest.raises(EmulatorError, match="snapshot"):
            emulator.restore()


class TestClose:
    """The end of the emulator itself."""

    def test_lets_no_queued_invocation_start(self, tmp_path):
        """A thread that waits for its turn is told that the emulator is closed."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, timeout_s=60) as emulator:
            first = emulator.invoke_async({"do": "wait"})
            emulator.wait_for_line("handling")
            second = emulator.invoke_async({"n": 2})

        assert "Sandbox.Failure" == first.result(0).error_type
        with pytest.raises(EmulatorError, match="closed"):
            second.result(0)
        with pytest.raises(EmulatorError, match="closed"):
            emulator.invoke({})
