"""The emulator as its users see it: Init, invocations, freeze, thaw, lines."""

from __future__ import annotations

import os
import re
import sys

import pytest
from emulated import FUNCTION, Gate, children, emulate, paths, process, states, texts
from helpers import eventually

from lambda_ext.local import emulator as module
from lambda_ext.local.emulator import Emulator, EmulatorError

pytestmark = process


class TestInit:
    """Init by itself."""

    def test_success_freezes_after_the_runtimes_first_next(self):
        """Init ends when the runtime polls, and every thread of it is stopped."""
        with emulate() as emulator:
            report = emulator.init()

            assert "success" == report.status
            assert ("init", "on-demand") == (report.phase, report.init_type)
            assert report.error is None
            assert ["next"] == paths(emulator)
            assert emulator.frozen
            assert {"T"} == states(emulator.pid)
            assert [] == emulator.agents

    def test_twice_is_once(self):
        """A second init() starts nothing and returns the same report."""
        with emulate() as emulator:
            first, pid = emulator.init(), emulator.pid

            assert emulator.init() is first
            assert pid == emulator.pid
            assert emulator.inits == [first]

    def test_missing_module_shows_the_runtimes_error(self, tmp_path):
        """What awslambdaric posts about a wrong handler path is in the report."""
        with emulate(task_root=str(tmp_path)) as emulator:
            report = emulator.init()

            assert "error" == report.status
            assert "Runtime.ImportModuleError" == report.error_type
            assert "Runtime.ImportModuleError" == report.error["errorType"]
            assert "No module named 'app'" in report.error["errorMessage"]
            assert emulator.pid is None
            assert 1 == emulator.shutdowns[0].exit_status

    def test_crash_at_import_is_a_failure(self):
        """A runtime that exits without a word fails Init as Runtime.ExitError."""
        with emulate(env={"FAIL": "exit"}) as emulator:
            report = emulator.init()

            assert (
                "failure",
                "Runtime.ExitError",
            ) == (report.status, report.error_type)
            assert report.error_payload is None
            assert 4 == emulator.shutdowns[0].exit_status

    @pytest.mark.parametrize("init_type", ["on-demand", "provisioned-concurrency"])
    def test_type_is_what_the_function_sees(self, init_type):
        """The function is told how it was initialised."""
        with emulate(init_type=init_type) as emulator:
            seen = emulator.invoke({"do": "environment"}).value

            assert seen["AWS_LAMBDA_INITIALIZATION_TYPE"] == init_type
            assert emulator.inits[0].init_type == init_type


class TestInvoke:
    """One invocation after the other."""

    def test_value_is_what_the_handler_returned(self):
        """The answer carries the payload, the request id and the deadline."""
        with emulate(
            timeout_s=7, function_name="orders", region="eu-west-1"
        ) as emulator:
            answer = emulator.invoke({"n": 1})

            assert "success" == answer.status
            assert 1 == answer.value["n"]
            assert answer.value["id"] == answer.request_id
            assert 0 < answer.value["left"] <= 7000
            assert re.fullmatch(
                r"arn:aws:lambda:eu-west-1:\d{12}:function:orders", answer.value["arn"]
            )
            assert answer.init is emulator.inits[0]
            assert 2 == emulator.invoke(b'{"n": 2}').value["n"]
            assert 1 == len(emulator.inits)

    def test_error_of_the_handler_resets_nothing(self):
        """A handler that raises is answered as error, and its process lives on."""
        with emulate() as emulator:
            emulator.init()
            pid = emulator.pid
            answer = emulator.invoke({"do": "raise"})

            assert "error" == answer.status
            assert "ValueError" == answer.value["errorType"]
            assert emulator.invoke({"n": 1}).value["pid"] == pid

    def test_lines_of_the_handler_are_there_with_the_answer(self):
        """What was printed before the response is known when invoke() returns."""
        with emulate() as emulator:
            for n in range(3):
                answer = emulator.invoke({"n": n})
                line = next(li for li in emulator.lines if f'"n": {n}' in li.text)

                assert line.request_id == answer.request_id
                assert "stdout" == line.source

    def test_invocations_wait_for_each_other(self, tmp_path):
        """Of two invocations at the same time, one begins after the other's end."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, timeout_s=60) as emulator:
            first = emulator.invoke_async({"do": "wait", "n": 1})
            emulator.wait_for_line("handling")
            second = emulator.invoke_async({"n": 2})

            assert not first.done()
            assert not second.done()
            assert 1 == len([text for text in texts(emulator) if "handling" in text])

            gate.open()

            assert 1 == first.result(30).value["n"]
            assert 2 == second.result(30).value["n"]

    def test_result_with_a_timeout_raises(self, tmp_path):
        """Waiting for an answer can be bounded; the invocation goes on."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, timeout_s=60) as emulator:
            pending = emulator.invoke_async({"do": "wait"})

            with pytest.raises(TimeoutError):
                pending.result(0)
            gate.open()

            assert pending.result(30).request_id == pending.request_id

    def test_event_that_is_no_json_is_refused(self):
        """An event that cannot be JSON is a TypeError, and nothing starts."""
        with emulate() as emulator:
            with pytest.raises(TypeError):
                emulator.invoke(object())

            assert emulator.pid is None


class TestFreeze:
    """The processes stand still between invocations."""

    def test_follows_each_invocation(self):
        """After an invocation, an error or not, every thread is stopped."""
        with emulate() as emulator:
            for event in {"n": 1}, {"do": "raise"}:
                emulator.invoke(event)
                emulator.wait_frozen()

                assert {"T"} == states(emulator.pid)

    def test_off_leaves_the_runtime_running(self):
        """With freeze=False nothing is ever stopped."""
        with emulate(freeze=False) as emulator:
            emulator.invoke({})
            emulator.wait_frozen()

            assert not emulator.frozen
            assert "T" not in states(emulator.pid)

    def test_by_hand_holds_a_busy_handler(self, tmp_path):
        """freeze() stops a handler in its middle, thaw() lets it finish."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, timeout_s=60) as emulator:
            pending = emulator.invoke_async({"do": "wait", "n": 1})
            emulator.wait_for_line("handling")
            emulator.freeze()

            assert {"T"} == states(emulator.pid)
            assert not pending.done()

            emulator.thaw()
            gate.open()

            assert 1 == pending.result(30).value["n"]

    def test_stops_the_processes_children(self):
        """A subprocess of the handler is frozen with it."""
        with emulate() as emulator:
            emulator.invoke({"do": "child"})
            emulator.wait_frozen()
            (child,) = children(emulator.pid)

            assert {"T"} == states(emulator.pid)
            assert eventually(lambda: states(child) == {"T"})

    def test_without_an_environment_is_an_error(self):
        """There is nothing to freeze before Init."""
        with emulate() as emulator:
            with pytest.raises(EmulatorError, match="init"):
                emulator.freeze()


class TestExtensionsAtWork:
    """The caller does not wait for extensions, the next invocation does."""

    def test_answer_comes_before_an_invoke_extension_is_done(self, tmp_path):
        """The response is the caller's at once; freeze and successor wait."""
        gate = Gate(tmp_path)
        env = {"GATE": gate.path, "EXTENSION": '["INVOKE"]'}
        with emulate(env=env, timeout_s=60) as emulator:
            assert "success" == emulator.invoke({"n": 1}).status
            second = emulator.invoke_async({"n": 2})
            emulator.wait_for_line("extension got INVOKE")

            assert not emulator.frozen
            assert not second.done()

            gate.open()

            assert "success" == second.result(30).status
            gate.open()
            emulator.wait_frozen()
            assert {"T"} == states(emulator.pid)
            done = texts(emulator).index("extension done")
            assert done < next(
                i for i, text in enumerate(texts(emulator)) if '"n": 2' in text
            )

    def test_silent_extension_is_neither_woken_nor_waited_for(self):
        """An extension without events polls once and never gets an answer."""
        with emulate(env={"EXTENSION": "[]"}) as emulator:
            emulator.invoke({"n": 1})
            emulator.invoke({"n": 2})
            emulator.wait_frozen()
            (agent,) = emulator.agents
            polls = [
                call for call in emulator.calls if call.path.endswith("event/next")
            ]

            assert ("inner", (), True) == (agent.name, agent.events, agent.internal)
            assert "Ready" == agent.state
            assert [("inner", None)] == [(call.agent, call.status) for call in polls]
            assert emulator.frozen

    def test_event_carries_the_invocation(self, tmp_path):
        """INVOKE names the request that the runtime works on."""
        gate = Gate(tmp_path)
        env = {"GATE": gate.path, "EXTENSION": '["INVOKE"]'}
        with emulate(env=env, timeout_s=60) as emulator:
            answer = emulator.invoke({})

            emulator.wait_for_line(f"extension got INVOKE {answer.request_id}")
            gate.open()


class TestLines:
    """What the processes write."""

    def test_wait_finds_what_is_there_and_what_comes(self):
        """A wait is over with the first line that matches, from where one says."""
        with emulate(freeze=False) as emulator:
            emulator.invoke({"n": 1})
            first = emulator.wait_for_line("handling")
            start = emulator.lines.index(first) + 1
            emulator.invoke_async({"n": 2})
            second = emulator.wait_for_line(
                lambda li: "handling" in li.text, start=start
            )

            assert '"n": 1' in first.text
            assert '"n": 2' in second.text
            assert first.at <= second.at

    def test_wait_that_fails_shows_the_last_lines(self):
        """The error of a wait tells what came instead."""
        with emulate() as emulator:
            emulator.init()

            with pytest.raises(TimeoutError, match=r"(?s)never.*loading"):
                emulator.wait_for_line("never", timeout=0)

    def test_callback_gets_each_line(self):
        """on_line is called with each line, in order."""
        seen = []
        with emulate(on_line=seen.append) as emulator:
            emulator.invoke({"n": 1})
            emulator.shutdown()

            assert seen == emulator.lines
            assert len(seen) >= 2

    def test_callback_that_raises_stops_no_line(self, capsys):
        """An error of on_line is shown and the lines still arrive."""

        def fail(line):
            raise ValueError("callback")

        with emulate(on_line=fail) as emulator:
            emulator.invoke({"n": 1})
            emulator.shutdown()

            assert [
                "loading",
                "handling",
            ] == [text.split()[0] for text in texts(emulator)]
        assert "ValueError: callback" in capsys.readouterr().err


class TestArguments:
    """What cannot work is refused with what to change."""

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"task_root": "/nowhere"}, "task_root"),
            ({"extensions_dir": "/nowhere"}, "extensions_dir"),
            ({"init_type": "warm"}, "init_type"),
            ({"timeout_s": 0}, "timeout_s"),
            ({"timeout_s": float("nan")}, "timeout_s"),
            ({"max_concurrency": 2}, "max_concurrency"),
            ({"init_type": "lambda-managed-instances", "max_concurrency": 0},
             "max_concurrency"),
        ],
    )  # fmt: skip
    def test_out_of_range_is_named(self, options, name):
        """A bad argument is a ValueError that names it."""
        with pytest.raises(ValueError, match="^" + name):
            Emulator(**options)

    def test_python_without_the_runtime_client(self, tmp_path):
        """A Python that lacks awslambdaric is refused with how to install it."""
        bare = tmp_path / "python"
        bare.write_text("#!/bin/sh\necho False\n")
        bare.chmod(0o755)

        with pytest.raises(EmulatorError, match=r'pip install "lambda-ext\[local\]"'):
            Emulator(python=str(bare))

    def test_python_that_does_not_run(self):
        """A Python that is not there is named."""
        with pytest.raises(EmulatorError, match="/nowhere/python"):
            Emulator(python="/nowhere/python")

    def test_other_systems_are_told_what_is_needed(self, monkeypatch):
        """Elsewhere than on Linux, making one says what is needed."""
        monkeypatch.setattr(module.sys, "platform", "darwin")

        with pytest.raises(EmulatorError, match="Linux"):
            Emulator()

    def test_variables_are_added_replaced_and_taken_away(self, monkeypatch):
        """env comes last; None takes away; AWS's names of this machine stay out."""
        monkeypatch.setenv("AWS_PROFILE", "production")
        monkeypatch.setenv("LAMBDA_EXT_NAMESPACE", "mine")
        shells = ("LC_ALL", "LANGUAGE", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE")
        for name in shells:
            monkeypatch.setenv(name, "C")
        monkeypatch.setenv("LANG", "C")
        monkeypatch.setenv("LANGUAGES_SPOKEN", "2")
        env = {"AWS_LAMBDA_FUNCTION_VERSION": None, "TZ": ":CET", "EXTRA": "1"}
        with emulate(env=env, execution_env=None, memory_mb=256) as emulator:
            seen = emulator.invoke({"do": "environment"}).value

            assert "AWS_PROFILE" not in seen
            assert [] == [name for name in shells if name in seen]
            assert ("en_US.UTF-8", "2") == (seen["LANG"], seen["LANGUAGES_SPOKEN"])
            assert "AWS_LAMBDA_FUNCTION_VERSION" not in seen
            assert "AWS_EXECUTION_ENV" not in seen
            assert "mine" == seen["LAMBDA_EXT_NAMESPACE"]
            assert (":CET", "1") == (seen["TZ"], seen["EXTRA"])
            assert "256" == seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
            assert "testing" == seen["AWS_ACCESS_KEY_ID"]
            assert seen["LAMBDA_TASK_ROOT"] == FUNCTION

    def test_execution_env_follows_the_python(self):
        """By default the environment is the managed runtime of that Python."""
        with emulate() as emulator:
            seen = emulator.invoke({"do": "environment"}).value

        minor = "{}.{}".format(*sys.version_info[:2])
        assert seen["AWS_EXECUTION_ENV"] == "AWS_Lambda_python" + minor

    def test_block_kills_what_it_started(self, tmp_path):
        """After the block, no process is left, also with an invocation under way."""
        gate = Gate(tmp_path)
        with emulate(env={"GATE": gate.path}, timeout_s=60) as emulator:
            pending = emulator.invoke_async({"do": "wait"})
            emulator.wait_for_line("handling")
            pid = emulator.pid

        assert "failure" == pending.result(0).status
        assert not os.path.exists(f"/proc/{pid}")
        assert [] == emulator.shutdowns
