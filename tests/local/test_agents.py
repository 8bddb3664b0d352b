"""External extensions, from the folder to their end."""

from __future__ import annotations

import json
import re
import shutil
import threading

import pytest
from emulated import (
    EXTENSIONS,
    FUNCTION,
    LOCAL,
    OUTER,
    emulate,
    paths,
    process,
    states,
    texts,
)
from rie import Rie

from lambda_ext.local.agents import Agents

pytestmark = process


@pytest.fixture
def extensions(tmp_path):
    """A folder of extensions of its own: copy("name") adds one."""
    folder = tmp_path / "extensions"
    folder.mkdir()

    class Folder:
        path = str(folder)

        def copy(self, name):
            shutil.copy(EXTENSIONS + "/outer", folder / name)

    return Folder()


class TestLife:
    """An extension that behaves."""

    def test_registers_before_the_runtime_starts(self):
        """Init starts extensions first, then the runtime, then waits for all."""
        env = {"EVENTS": '["INVOKE", "SHUTDOWN"]'}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            report = emulator.init()
            sources = [line.source for line in emulator.lines]

            assert "success" == report.status
            assert "register" == paths(emulator)[0]
            assert sources.index("stdout") > sources.index("outer")
            (agent,) = emulator.agents
            assert ("outer", False) == (agent.name, agent.internal)
            assert ("INVOKE", "SHUTDOWN") == agent.events
            assert "Ready" == agent.state

    def test_gets_each_invocation_and_the_end(self):
        """INVOKE comes once per invocation and SHUTDOWN last."""
        env = {"EVENTS": '["INVOKE", "SHUTDOWN"]'}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            answers = [emulator.invoke({"n": n}) for n in range(2)]
            emulator.shutdown()
            events = [
                json.loads(text.partition(" ")[2])
                for text in texts(emulator, "outer")
                if text.startswith("got")
            ]

            assert [
                "INVOKE",
                "INVOKE",
                "SHUTDOWN",
            ] == [event["eventType"] for event in events]
            assert [event["requestId"] for event in events[:2]] == [
                answer.request_id for answer in answers
            ]
            assert {
                "eventType",
                "deadlineMs",
                "requestId",
                "invokedFunctionArn",
                "tracing",
            } == events[0].keys()
            assert events[0]["tracing"]["value"].startswith("Root=1-")

    def test_is_frozen_with_the_runtime(self, extensions):
        """Between invocations every process of the environment is stopped."""
        extensions.copy("outer")
        with emulate(env={"EVENTS": "[]"}, extensions_dir=extensions.path) as emulator:
            emulator.init()
            line = next(li for li in emulator.lines if li.text.startswith("pid"))

            assert {"T"} == states(int(line.text.split()[1]))
            assert {"T"} == states(emulator.pid)

    def test_has_no_variables_of_the_runtime(self):
        """It knows the API and the function, but neither handler nor log group."""
        env = {"EVENTS": "[]"}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            emulator.init()
            seen = json.loads(texts(emulator, "outer")[0].partition(" ")[2])

            assert "AWS_LAMBDA_RUNTIME_API" in seen
            assert "AWS_LAMBDA_FUNCTION_NAME" in seen
            assert seen.keys().isdisjoint(
                {
                    "_HANDLER",
                    "AWS_EXECUTION_ENV",
                    "AWS_LAMBDA_LOG_GROUP_NAME",
                    "AWS_LAMBDA_LOG_STREAM_NAME",
                    "LAMBDA_TASK_ROOT",
                }
            )

    def test_name_is_taken_for_internal_ones(self):
        """An internal extension of that name is refused: the file has it."""
        env = {"EVENTS": "[]", "EXTENSION": "[]", "NAME": "outer"}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            emulator.invoke({})
            (said,) = (t for t in texts(emulator, "stdout") if "registered" in t)

            assert said.startswith("registered 403")
            answer = json.loads(said.split(" ", 2)[2])
            assert "Extension.InvalidExtensionState" == answer["errorType"]
            assert ["outer"] == [agent.name for agent in emulator.agents]

    def test_counts_towards_the_ten(self, extensions):
        """With ten in the folder there is no room for an internal one."""
        for number in range(10):
            extensions.copy(f"outer{number}")
        env = {"EVENTS": "[]", "EXTENSION": "[]"}
        with emulate(env=env, extensions_dir=extensions.path) as emulator:
            emulator.init()
            (said,) = (t for t in texts(emulator, "stdout") if "registered" in t)

            assert "Extension.TooManyExtensions" in said
            assert 10 == len(emulator.agents)

    def test_folders_and_their_files_are_no_extensions(self, extensions):
        """Only files at the top of the folder are started."""
        extensions.copy("outer")
        shutil.copytree(LOCAL + "/function", extensions.path + "/lib")
        with emulate(env={"EVENTS": "[]"}, extensions_dir=extensions.path) as emulator:
            emulator.init()

            assert ["outer"] == [agent.name for agent in emulator.agents]


def test_busy_extension_is_told_of_the_end_when_it_asks():
    """SHUTDOWN waits for a subscriber that still works on something else."""
    changed = threading.Condition()
    agents = Agents(changed, instances=False, gone=lambda: False)
    with changed:
        agent = agents.launched("outer")
        agents.register("outer", b'{"events": ["INVOKE", "SHUTDOWN"]}', {})
        agent.state = "Running"
        agents.tell_shutdown("timeout", 1)
        answer = agents.next(agent.id)

    assert {
        "eventType": "SHUTDOWN",
        "deadlineMs": 1,
        "shutdownReason": "timeout",
    } == json.loads(answer.body)
    assert agent.notified


class TestCrash:
    """An extension that ends where it should not."""

    @pytest.mark.parametrize("when", ["early", "registered"])
    def test_during_init_fails_it(self, when):
        """Whether before or after registering, Init fails as Extension.Crash."""
        env = {"EVENTS": "[]", "CRASH": when}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            report = emulator.init()

            assert ("failure", "Extension.Crash") == (report.status, report.error_type)
            assert emulator.pid is None
            (outer,) = emulator.shutdowns[0].extensions
            assert 5 == outer.exit_status

    def test_is_the_answer_if_it_comes_again(self):
        """An extension that fails Init twice fails the invocation."""
        env = {"EVENTS": "[]", "CRASH": "early"}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            answer = emulator.invoke({})

            assert ("failure", "Extension.Crash") == (answer.status, answer.error_type)
            assert "Extension outer exited" in answer.value["errorMessage"]

    def test_during_an_invocation_resets(self):
        """The environment is reset, and the next invocation begins with Init."""
        env = {"EVENTS": '["INVOKE"]', "CRASH": "invoke"}
        with emulate(env=env, extensions_dir=EXTENSIONS) as emulator:
            emulator.invoke({"n": 1})
            emulator.wait_frozen()

            assert ["failure"] == [end.reason for end in emulator.shutdowns]
            assert emulator.pid is None

            emulator.invoke({"n": 2})
            assert ["init", "invoke"] == [init.phase for init in emulator.inits]

    def test_that_cannot_be_started_is_a_launch_error(self, extensions):
        """A file that is not executable fails Init as Extension.LaunchError."""
        with open(extensions.path + "/plain", "w") as file:
            file.write("not a program")
        with emulate(extensions_dir=extensions.path) as emulator:
            report = emulator.init()

            assert "failure" == report.status
            assert "Extension.LaunchError" == report.error_type
            assert "plain" in emulator.invoke({}).value["errorMessage"]


class TestAwssOwnEmulator:
    """What an extension sees there is what it sees here."""

    def test_sends_the_same_events(self):
        """The same answers to registration, INVOKE and SHUTDOWN, field by field."""
        env = {"EVENTS": '["INVOKE", "SHUTDOWN"]'}
        with emulate(
            env=env, extensions_dir=EXTENSIONS, function_name="test_function"
        ) as emulator:
            emulator.invoke({})
            emulator.wait_frozen()
            emulator.shutdown("spindown")
            mine = heard("\n".join(texts(emulator, "outer")))
        with Rie(
            task_root=FUNCTION, env={**OUTER, **env}, extensions_dir=EXTENSIONS
        ) as rie:
            rie.invoke({}, headers={"X-Amzn-Trace-Id": "Root=1-2-3"})
            rie.terminate()
            theirs = heard(rie.output)
        # Lambda says spindown, timeout or failure.
        assert "SandboxTerminated" == theirs[-1].pop("shutdownReason")
        assert "spindown" == mine[-1].pop("shutdownReason")

        assert [
            None,
            "INVOKE",
            "SHUTDOWN",
        ] == [event.get("eventType") for event in mine]
        assert mine == theirs


def heard(output):
    """Return what an extension was told, without what is never the same."""
    told = []
    for match in re.finditer(r"(registered 200|got) (?={)", output):
        event, _ = json.JSONDecoder().raw_decode(output, match.end())
        for name in {"deadlineMs", "requestId", "invokedFunctionArn"} & event.keys():
            event[name] = type(event[name])
        if "tracing" in event:
            event["tracing"]["value"] = "Root"
        told.append(event)
    return told
