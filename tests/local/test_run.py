"""A run from INIT to exit, and the verdict on it."""

from __future__ import annotations

import dataclasses
import os

import pytest

from lambda_ext.local import run as run_module
from lambda_ext.local.aws_server import AwsCall, Seed
from lambda_ext.local.emf_check import Totals, check
from lambda_ext.local.outcomes import InitReport, Invocation, Line, Shutdown
from lambda_ext.local.run import EmfLine, Plan, Result, run
from lambda_ext.local.verdict import judge

GOOD = Result(
    plan=Plan("app.handler"),
    init=InitReport("success", "init", "on-demand", 0.1),
    invocations=(Invocation("id-1", "success", b"null", 0.02),),
    shutdown=Shutdown("spindown", 0.5, 0.5, 0, True, False, 0.003),
    resets=(),
    extensions=(),
    calls=(),
    lines=(),
    emf=(),
    totals=Totals(),
    peak_memory_mb=20.0,
    answered_at=(0.12,),
)


def with_(**changes):
    return dataclasses.replace(GOOD, **changes)


def ended(**changes):
    return with_(shutdown=dataclasses.replace(GOOD.shutdown, **changes))


class TestJudge:
    """What makes a run good."""

    def test_clean_run_is_good(self):
        """Nothing wrong and nothing to note."""
        verdict = judge(GOOD)

        assert ((), (), True) == (verdict.reasons, verdict.notes, verdict.good)

    @pytest.mark.parametrize(
        ("result", "reason"),
        [
            (
                with_(init=InitReport("error", "init", "on-demand", 0.1)),
                "INIT ended with error",
            ),
            (
                with_(invocations=(Invocation("id", "timeout", b"", 3.0),)),
                "invocation 1 ended with timeout",
            ),
            (
                with_(emf=(EmfLine(Line("stdout", "", 0.0), check('{"_aws": 1}')),)),
                "1 line of metrics CloudWatch would drop",
            ),
            (
                ended(killed=True, exit_status=-9),
                "the runtime was still there 500.0 ms after SIGTERM and was killed",
            ),
            (ended(exit_status=3), "the runtime ended with exit status 3"),
            (
                ended(signalled=False, exit_status=0),
                "the process ended of itself, with exit status 0",
            ),
        ],
    )
    def test_fault_is_the_reason(self, result, reason):
        """Each fault spoils the verdict, and is its only reason."""
        assert (reason,) == judge(result).reasons

    def test_handler_error_counts_unless_allowed(self):
        """A handler that raised spoils the verdict, or is noted if allowed."""
        result = with_(invocations=(Invocation("id", "error", b"{}", 0.1),))

        assert ("invocation 1 ended with error",) == judge(result).reasons
        assert judge(result, allow_errors=True).good

    def test_allowing_errors_allows_no_time_out(self):
        """A time-out is not the handler's error."""
        result = with_(invocations=(Invocation("id", "timeout", b"", 3.0),))

        assert not judge(result, allow_errors=True).good

    @pytest.mark.parametrize(
        ("result", "note"),
        [
            (
                ended(signalled=False, killed=True, exit_status=-9, budget_s=0.0),
                "Lambda kills this process without SIGTERM, see SHUTDOWN",
            ),
            (
                ended(exit_status=-15),
                "nothing handles SIGTERM: the process died of it at once",
            ),
            (
                with_(
                    calls=(
                        AwsCall("ssm", "GetParameter", ("a",), 400, ("X",), "", 0, 0),
                    )
                ),
                "1 call to AWS failed",
            ),
        ],
    )
    def test_oddity_is_noted(self, result, note):
        """What is no fault, but worth knowing, is noted."""
        verdict = judge(result)

        assert ((), (note,)) == (verdict.reasons, verdict.notes)

    def test_cold_start_needs_success(self):
        """A cold start is INIT and the first invocation, if both went well."""
        failed = with_(init=InitReport("error", "init", "on-demand", 0.1))

        assert pytest.approx(0.12) == GOOD.cold_start_s
        assert failed.cold_start_s is None
        assert with_(invocations=()).cold_start_s is None
        assert (
            with_(invocations=(Invocation("id", "timeout", b"", 3.0),)).cold_start_s
            is None
        )


APP = """
import json, os, sys, threading, time

def handler(event, context):
    if event == "environment":
        return dict(os.environ)
    if event == "die":
        os._exit(7)
    if event == "aws":
        import urllib.request
        request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], data=b'{"SecretId": "db"}',
            headers={"X-Amz-Target": "secretsmanager.GetSecretValue", "User-Agent": "by hand/1",
                "Content-Type": "application/x-amz-json-1.1",
                "Authorization": "AWS4-HMAC-SHA256 Credential=x/1/us-east-1/secretsmanager/aws4_request"})
        return json.load(urllib.request.urlopen(request))["SecretString"]
    if event == "thread":
        threading.Thread(target=later, daemon=True).start()
    print("event", event)

def later():
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.002)
    print("written later")
"""


@pytest.fixture
def plan(tmp_path):
    """A plan for the function above."""
    (tmp_path / "app.py").write_text(APP)
    return Plan("app.handler", task_root=str(tmp_path), seed=Seed({"db": "s3cret"}))


@pytest.mark.process
class TestRun:
    """The real runtime client, from INIT to exit."""

    def test_calls_and_lines_are_seen_from_outside(self, plan):
        """Answers, output and AWS calls of every invocation are in the result."""
        steps = []
        result = run(dataclasses.replace(plan, events=("aws", 1, 2)), steps.append)

        assert ["success"] * 3 == [i.status for i in result.invocations]
        assert "s3cret" == result.invocations[0].value
        assert [("GetSecretValue", ("db",), "by hand/1")] == [
            (call.operation, call.names, call.agent) for call in result.calls
        ]
        assert ["event 1", "event 2"] == [line.text for line in result.lines]
        assert 3 == len(result.answered_at)
        assert [
            "starting AWS on loopback",
            "INIT",
            "invocation 1 of 3",
            "invocation 2 of 3",
            "invocation 3 of 3",
            "SIGTERM",
        ] == steps

    def test_idle_function_runs_until_it_has_written(self, plan, tmp_path):
        """While `idle` runs, the environment is thawed and has answered all."""
        gate = tmp_path / "gate"

        def idle(emulator):
            assert not emulator.frozen
            gate.touch()
            return emulator.wait_for_line("written later")

        result = run(
            dataclasses.replace(
                plan, events=("thread",), environment={"GATE": str(gate)}
            ),
            idle=idle,
        )

        assert "written later" == result.lines[-1].text
        assert result.answered_at[-1] < result.lines[-1].at

    def test_dead_process_starts_anew(self, plan):
        """A process that died is a failure, and the next event a cold start."""
        result = run(dataclasses.replace(plan, events=("die", 1)))

        assert ["failure", "success"] == [i.status for i in result.invocations]
        assert result.invocations[1].init is not None
        assert [("failure", 7)] == [(r.reason, r.exit_status) for r in result.resets]
        assert ("invocation 1 ended with failure",) == judge(result).reasons

    def test_process_that_died_last_is_no_exit(self, plan):
        """If the last event killed the process, there is no shutdown to judge."""
        result = run(
            dataclasses.replace(plan, events=("die",)), idle=lambda emulator: None
        )

        assert result.shutdown.exit_status is None
        assert ("invocation 1 ended with failure",) == judge(result).reasons

    def test_account_of_this_shell_is_kept_from_the_function(self, plan, monkeypatch):
        """The function gets worthless credentials and no other way to AWS."""
        monkeypatch.setenv("AWS_PROFILE", "production")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPRODUCTION")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", "https://example.com")
        (invocation,) = run(
            dataclasses.replace(plan, events=("environment",))
        ).invocations
        environment = invocation.value

        assert "local" == environment["AWS_ACCESS_KEY_ID"]
        assert environment["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
        assert set() == {"AWS_PROFILE", "AWS_ENDPOINT_URL_SSM"} & set(environment)

    def test_relative_python_path_means_this_folder(self, plan, monkeypatch, tmp_path):
        """A relative PYTHONPATH is from where the run was started."""
        monkeypatch.chdir(tmp_path)
        path = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv(
            "PYTHONPATH", os.pathsep.join(["lib", os.path.abspath(path)])
        )
        (invocation,) = run(
            dataclasses.replace(plan, events=("environment",))
        ).invocations

        assert str(tmp_path / "lib") == invocation.value["PYTHONPATH"].split(":")[0]

    def test_real_aws_passes_the_account_through(self, plan, monkeypatch):
        """With *real_aws* the function has this shell's account, and no more."""
        monkeypatch.setenv("AWS_PROFILE", "development")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "not-this-one")
        monkeypatch.setenv("AWS_REGION", "us-west-2")
        (invocation,) = run(
            dataclasses.replace(
                plan, events=("environment",), real_aws=True, region="eu-west-3"
            )
        ).invocations
        environment = invocation.value

        assert "development" == environment["AWS_PROFILE"]
        assert "local" == environment["AWS_LAMBDA_FUNCTION_NAME"]
        assert "eu-west-3" == environment["AWS_REGION"]
        assert set() == {
            name
            for name in environment
            if name.startswith(("AWS_ACCESS", "AWS_SECRET", "AWS_SESSION"))
            or "ENDPOINT" in name
        }


class TestLogLevel:
    """When Lambda filters lines by their level."""

    @pytest.mark.parametrize(
        ("environment", "level"),
        [
            ({}, None),
            ({"AWS_LAMBDA_LOG_LEVEL": "WARN"}, None),
            ({"AWS_LAMBDA_LOG_FORMAT": "JSON"}, "INFO"),
            ({"AWS_LAMBDA_LOG_FORMAT": "json", "AWS_LAMBDA_LOG_LEVEL": "warn"}, "WARN"),
        ],
    )
    def test_level_counts_with_json_only(self, environment, level):
        """Only the JSON log format has a filter."""
        assert level == run_module._log_level(environment)
