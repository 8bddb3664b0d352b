"""The runtime's side under SnapStart and on Lambda Managed Instances."""

from __future__ import annotations

import json

from emulated import Gate, emulate, paths, process, states, texts
from helpers import eventually

from lambda_ext.local.emulator import Budgets

pytestmark = process

SNAPSHOT = {"init_type": "snap-start"}
INSTANCES = {"init_type": "lambda-managed-instances"}
PATIENT = Budgets(internal_s=30.0, external_s=30.0, instances_share_s=30.0)


class TestSnapStart:
    """Init, a snapshot, a restore, and then as ever."""

    def test_init_ends_in_the_snapshot(self):
        """The runtime parks in /restore/next after its hooks, and is stopped."""
        with emulate(env={"HOOKS": "print", "EXTENSION": "[]"}, **SNAPSHOT) as emulator:
            report = emulator.init()

            assert ("success", "snap-start") == (report.status, report.phase)
            assert "hook before" in texts(emulator)
            assert "hook after" not in texts(emulator)
            assert emulator.calls[-1].path.endswith("/next")
            assert "/2018-06-01/runtime/restore/next" in [
                c.path for c in emulator.calls
            ]
            assert {"T"} == states(emulator.pid)
            (agent,) = emulator.agents
            assert "Ready" == agent.state

    def test_restore_runs_the_hooks_and_comes_to_next(self):
        """restore() lets the runtime go on and waits for its first /next."""
        with emulate(env={"HOOKS": "print"}, **SNAPSHOT) as emulator:
            emulator.init()
            pid = emulator.pid
            report = emulator.restore()
            answer = emulator.invoke({"n": 1})

            assert ("success", None) == (report.status, report.error)
            assert [
                f"loading {pid}",
                "hook before",
                "hook after",
            ] == texts(emulator)[:3]
            assert (answer.status, answer.value["pid"]) == ("success", pid)
            assert answer.restore is None
            assert emulator.restores == [report]

    def test_invoke_restores_when_restore_was_not_called(self):
        """An invocation of a snapshot begins with its restore, once."""
        with emulate(env={"HOOKS": "print"}, **SNAPSHOT) as emulator:
            first = emulator.invoke({})
            second = emulator.invoke({})

            assert "snap-start" == first.init.phase
            assert "success" == first.restore.status
            assert second.restore is None
            assert 1 == len(emulator.restores)

    def test_hook_that_fails_before_fails_init(self):
        """An error before the snapshot is an error of Init."""
        with emulate(env={"HOOKS": "before"}, **SNAPSHOT) as emulator:
            report = emulator.init()

            assert "error" == report.status
            assert "Runtime.BeforeSnapshotError" == report.error_type
            assert "ValueError" == report.error["errorType"]
            assert 64 == emulator.shutdowns[0].exit_status

    def test_hook_that_fails_after_fails_the_restore(self):
        """An error after the restore fails it, and the environment is reset."""
        with emulate(env={"HOOKS": "after"}, **SNAPSHOT) as emulator:
            answer = emulator.invoke({})

            assert "error" == answer.status
            assert "error" == answer.restore.status
            assert "Runtime.AfterRestoreError" == answer.restore.error_type
            assert "ValueError" == answer.value["errorType"]
            assert 65 == emulator.shutdowns[0].exit_status
            assert emulator.pid is None

    def test_restore_that_hangs_times_out(self):
        """A restore past its limit is a time-out."""
        env = {"HOOKS": "hang"}
        with emulate(env=env, budgets=Budgets(restore_s=0.5), **SNAPSHOT) as emulator:
            emulator.init()
            report = emulator.restore()

            assert ("timeout", None) == (report.status, report.error_type)
            assert ["timeout"] == [end.reason for end in emulator.shutdowns]

    def test_function_has_no_credentials_in_its_variables(self):
        """They come from the container endpoint, not out of the snapshot."""
        with emulate(**SNAPSHOT) as emulator:
            seen = emulator.invoke({"do": "environment"}).value

            assert "AWS_ACCESS_KEY_ID" not in seen
            assert seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"].endswith(
                "/2021-04-23/credentials"
            )
            assert "1" == seen["AWS_LAMBDA_FUNCTION_VERSION"]


class TestInstances:
    """Several workers in one environment that is never frozen."""

    def test_each_worker_imports_the_handler(self):
        """N workers are N processes that wait for work, and none is stopped."""
        with emulate(max_concurrency=3, **INSTANCES) as emulator:
            report = emulator.init()
            emulator.wait_idle()
            pids = {text.split()[1] for text in loaded(emulator)}

            assert (
                "success",
                "lambda-managed-instances",
            ) == (report.status, report.init_type)
            assert 3 == len(pids)
            assert str(emulator.pid) not in pids
            assert not emulator.frozen
            assert 3 == paths(emulator).count("next")

    def test_invocations_run_side_by_side(self, tmp_path):
        """As many invocations as workers are under way at once."""
        gates = [Gate(tmp_path, str(n)) for n in range(2)]
        with emulate(timeout_s=60, max_concurrency=2, **INSTANCES) as emulator:
            emulator.init()
            emulator.wait_idle()
            pending = [
                emulator.invoke_async({"do": "wait", "gate": gate.path})
                for gate in gates
            ]
            eventually(lambda: len(handled(emulator)) == 2)

            assert [False, False] == [one.done() for one in pending]
            refused = emulator.invoke({})
            assert "failure" == refused.status
            assert {"errorType": "Runtime.Unavailable"} == refused.value

            for gate in gates:
                gate.open()
            answers = [one.result(30) for one in pending]

            assert ["success", "success"] == [answer.status for answer in answers]
            assert 2 == len({answer.value["pid"] for answer in answers})

    def test_time_out_is_the_callers_alone(self, tmp_path):
        """A worker that takes too long goes on, and nothing is reset."""
        gate = Gate(tmp_path)
        env = {"GATE": gate.path}
        with emulate(env=env, timeout_s=3, max_concurrency=1, **INSTANCES) as emulator:
            emulator.init()
            emulator.wait_idle()
            late = emulator.invoke({"do": "wait"})
            gate.open()
            emulator.wait_idle()
            again = emulator.invoke({"n": 2})

            assert "timeout" == late.status
            assert 2 == again.value["n"]
            assert [] == emulator.shutdowns

    def test_one_registration_brings_sigterm_to_all(self):
        """Every worker gets the signal, although one of them registered."""
        env = {"EXTENSION": "[]", "ON_TERM": "exit"}
        with emulate(
            env=env, budgets=PATIENT, max_concurrency=3, **INSTANCES
        ) as emulator:
            emulator.init()
            emulator.wait_idle()
            workers = {text.split()[1] for text in loaded(emulator)}
            end = emulator.shutdown()
            signalled = {
                text.split()[1]
                for text in texts(emulator)
                if text.startswith("SIGTERM")
            }

            assert workers == signalled
            assert 1 == len([a for a in emulator.agents if a.state == "Ready"])
            assert (True, False) == (end.signalled, end.killed)

    def test_internal_extension_may_ask_for_no_event(self):
        """There are no INVOKE events, and asking for one is refused."""
        env = {"EXTENSION": '["INVOKE"]'}
        with emulate(env=env, max_concurrency=1, **INSTANCES) as emulator:
            emulator.init()
            emulator.wait_idle()
            (said,) = (text for text in texts(emulator) if "registered" in text)

            assert {
                "errorType": "Extension.InvalidEventType",
                "errorMessage": "No events allowed for internal extensions",
            } == json.loads(said.split(" ", 2)[2])

    def test_crashed_worker_leaves_the_others(self):
        """A worker that dies takes its invocation along and nothing else."""
        with emulate(timeout_s=3, max_concurrency=2, **INSTANCES) as emulator:
            emulator.init()
            emulator.wait_idle()
            lost = emulator.invoke({"do": "exit", "status": 3})
            answer = emulator.invoke({"n": 1})

            assert "timeout" == lost.status
            assert 1 == answer.value["n"]

    def test_variables_tell_of_it(self):
        """The number of workers is how the runtime client knows; logs are JSON."""
        with emulate(max_concurrency=1, **INSTANCES) as emulator:
            emulator.init()
            emulator.wait_idle()
            seen = emulator.invoke({"do": "environment"}).value

            assert "1" == seen["AWS_LAMBDA_MAX_CONCURRENCY"]
            assert "JSON" == seen["AWS_LAMBDA_LOG_FORMAT"]


def loaded(emulator):
    """Return the lines in which processes say that they import the handler."""
    return [text for text in texts(emulator) if text.startswith("loading")]


def handled(emulator):
    """Return the lines in which workers say that they have an invocation."""
    return [text for text in texts(emulator) if text.startswith("handling")]
