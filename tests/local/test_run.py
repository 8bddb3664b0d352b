"""A run from INIT to exit, and the verdict on it."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading

import pytest
from helpers import eventually

from lambda_ext.local import journal
from lambda_ext.local import run as run_module
from lambda_ext.local.aws_server import AwsCall, Parameter, Seed
from lambda_ext.local.emf_check import Totals, check
from lambda_ext.local.journal import Journal
from lambda_ext.local.leaks import Leak
from lambda_ext.local.outcomes import (
    InitReport,
    Invocation,
    Line,
    Registration,
    Seen,
    Shutdown,
)
from lambda_ext.local.run import EmfLine, Plan, Result, run
from lambda_ext.local.steps import (
    Break,
    Do,
    Freeze,
    Invoke,
    Kill,
    Repair,
    Rotate,
    StepError,
    Terminate,
    Throttle,
    Wait,
)
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


def warned(text):
    """Return what the observer tells of a warning."""
    return Seen("warning", 0.1, {"text": text})


def imported(name):
    """Return what the observer tells of an import."""
    return Seen("import", 0.1, {"name": name})


def ended_with(**metrics):
    """Return what the observer tells at the end."""
    return Seen("end", 0.2, {"metrics": metrics})


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

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            (
                {
                    "seen": (warned("lambda_ext.listener_failed phase=x\nTraceback"),)
                    * 2
                },
                "warned: lambda_ext.listener_failed phase=x (2 times)",
            ),
            (
                {
                    "seen": (
                        warned(
                            "lambda_ext.odd S raised Traceback (most recent call last):"
                            "\n  File x\nOSError: down\n"
                        ),
                    )
                },
                "warned: lambda_ext.odd S raised OSError: down",
            ),
            (
                {"seen": (ended_with(documents=2),)},
                "2 lines of metrics did not come out on the process's standard output",
            ),
            (
                {"seen": (ended_with(waiting=1),)},
                (
                    "1 record of metrics never flushed: the process ended by os._exit"
                    " before, or recorded to the end"
                ),
            ),
            (
                {"seen": (ended_with(dropped_by_name={"value": {"n": 2, "": 1}}),)},
                "3 records of metrics dropped: value: 'n' (2), 1",
            ),
            (
                {"seen": (ended_with(dropped={"sink": 1200}),)},
                "1200 records of metrics dropped: sink: 1,200",
            ),
            (
                {
                    "seen": (
                        warned(
                            'lambda_ext.metrics_dropped number=2 {"value": {"n": 2}}'
                        ),
                        warned(
                            'lambda_ext.metrics_dropped number=1 {"value": {"n": 1}}'
                        ),
                        warned("lambda_ext.metrics_dropped number=9 {cut off"),
                    )
                },
                "3 records of metrics dropped: value: 'n' (3)",
            ),
            (
                {"leaks": (Leak("secret 'db'", "db", "a log line"),) * 3},
                "the value of secret 'db' stands in a log line, 3 times",
            ),
            ({"interrupted": "SIGHUP"}, "interrupted by SIGHUP: this is not all"),
        ],
    )
    def test_loss_is_the_reason(self, changes, reason):
        """Each loss spoils the verdict, and is its only reason."""
        assert (reason,) == judge(with_(**changes)).reasons

    @pytest.mark.parametrize(
        ("story", "untold"),
        [
            ("init success end-failure", 1),
            ("init success error end-failure init success", 1),
            ("init failure end-failure", 0),
            ("init success end-failure init success end-failure", 2),
            ("init success failure end-failure", 0),
            ("init end-failure", 0),
            ("init success end-spindown", 0),
            ("init failure end-failure init end-failure error", 0),
        ],
    )
    def test_death_after_an_answer_is_a_reason(self, story, untold):
        """An end is told by an INIT or invocation that failed of it, or is a reason."""
        events = Journal()
        for word in story.split():
            kind, _, reason = word.partition("-")
            if kind == "init":
                events.note(journal.INIT_DONE, None)
            elif kind == "end":
                events.note(journal.SHUTDOWN_STARTED, reason)
                end = Shutdown(reason, 0, 0, -11, False, False, 0.0)
                events.note(journal.SHUTDOWN_DONE, end)
            else:
                events.note(journal.ANSWERED, Invocation("id", kind, b"", 0.1))

        assert (
            (
                "the process ended after it had answered, by signal 11 (Segmentation"
                " fault); what it held in memory is lost"
            ),
        ) * untold == judge(with_(journal=events)).reasons

    @pytest.mark.parametrize(
        ("seen", "reason"),
        [
            (
                [imported("lambda_ext.metrics.recorder")],
                "handler is not decorated with @lambda_ext.handler; its metrics are lost",
            ),
            (
                [
                    warned(
                        "lambda_ext.not_started lost=shutdown callbacks: decorate ..."
                    )
                ],
                (
                    "handler is not decorated with @lambda_ext.handler; its shutdown"
                    " callbacks are lost"
                ),
            ),
            (
                [warned("lambda_ext.extension_refused name=lambda_ext")],
                "warned: lambda_ext.extension_refused name=lambda_ext",
            ),
        ],
    )
    def test_missing_registration_is_the_reason(self, seen, reason):
        """The library without its extension loses what comes after the last flush."""
        result = with_(seen=(imported("lambda_ext"), *seen))

        assert (reason,) == judge(result).reasons

    def test_registered_library_is_good(self):
        """Registered under its name, the library loses nothing."""
        extension = Registration("lambda_ext", (), True, "Ready")
        seen = (imported("lambda_ext"), imported("lambda_ext.metrics.recorder"))

        assert judge(with_(seen=seen, extensions=(extension,))).good

    @pytest.mark.parametrize("event", ["refresh_failed", "stale_served"])
    def test_load_that_failed_is_a_note(self, event):
        """A value that serves on while AWS fails is no loss."""
        verdict = judge(with_(seen=(warned(f"lambda_ext.{event} key=x"),)))
        (note,) = verdict.notes

        assert () == verdict.reasons
        assert "1 warning of loads that failed while an older value served on" in note

    def test_many_series_are_a_note(self):
        """A dimension with many values is billed, and loses nothing."""
        text = "'user' has 1000 values so far; each is a billed metric"
        verdict = judge(with_(seen=(warned(f"lambda_ext.many_series note: {text}"),)))

        assert ((), (text,)) == (verdict.reasons, verdict.notes)

    def test_many_warnings_are_cut(self):
        """Eight different warnings are repeated, the others counted."""
        seen = tuple(warned(f"lambda_ext.odd_{n}") for n in range(11))
        reasons = judge(with_(seen=seen)).reasons

        assert 9 == len(reasons)
        assert "and 3 warnings more" == reasons[-1]

    def test_value_of_the_seed_is_not_repeated(self):
        """A warning that holds a value is told without it, cut or not."""
        plan = Plan("app.handler", seed=Seed({"db": "hunter2-" * 5}))
        text = "lambda_ext.odd " + "x" * 170 + " " + "hunter2-" * 5
        (reason,) = judge(with_(plan=plan, seen=(warned(text),))).reasons

        assert "hunter2" not in reason

    @pytest.mark.parametrize(
        "error_type", ["Function.ResponseSizeTooLarge", "Runtime.X"]
    )
    def test_error_of_the_platform_is_not_allowed(self, error_type):
        """What Lambda refuses was not raised by the handler."""
        invocation = Invocation("id", "error", b"{}", 0.1, error_type)

        assert not judge(with_(invocations=(invocation,)), allow_errors=True).good

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
        """While a step acts or waits, the environment is thawed and has answered all."""
        gate = tmp_path / "gate"

        def act(emulator):
            assert not emulator.frozen
            gate.touch()

        steps = [Invoke("thread"), Do("open", act), Wait("written later")]
        result = run(
            dataclasses.replace(plan, steps=steps, environment={"GATE": str(gate)})
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
        steps = [Invoke("die"), Do("nothing", lambda emulator: 1 / 0), Wait("never")]
        result = run(dataclasses.replace(plan, steps=steps))

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


STEPS_APP = """
import lambda_ext
from lambda_ext import get_parameter, get_secret

@lambda_ext.handler
def handler(event, context):
    try:
        if "parameter" in event:
            return get_parameter(event["parameter"], force_fetch=True)
        return get_secret("db", force_fetch=True)
    except lambda_ext.exceptions.LambdaExtError as exc:
        return type(exc).__name__
"""


@pytest.mark.process
class TestSteps:
    """What may happen between two invocations."""

    def told(self, tmp_path, *steps, load_timeout="20"):
        """Run *steps*; return the answers, and the result."""
        (tmp_path / "app.py").write_text(STEPS_APP)
        seed = Seed({"db": "one"}, {"/p": Parameter("1")})
        result = run(
            Plan(
                "app.handler",
                task_root=str(tmp_path),
                seed=seed,
                steps=steps,
                timeout_s=30,
                environment={
                    "LAMBDA_EXT_LOAD_TIMEOUT": load_timeout,
                    "LAMBDA_EXT_MAX_STALE": "0",
                },
            )
        )
        return [i.value for i in result.invocations if i.status == "success"], result

    def test_rotation_is_seen(self, tmp_path):
        """A secret and a parameter have another value after their rotation."""
        values, result = self.told(
            tmp_path,
            Invoke(),
            Rotate("db", "two"),
            Rotate("/p", Parameter("2")),
            Invoke(),
            Invoke({"parameter": "/p"}),
        )

        assert ["one", "two", "2"] == values
        assert ["Invoke", "Rotate", "Rotate", "Invoke", "Invoke", "Terminate"] == [
            type(step).__name__ for step in result.journal.of(journal.STEP)
        ]
        assert "two" not in repr(result.journal.of(journal.STEP))

    @pytest.mark.parametrize(
        ("fault", "error", "code"),
        [
            (Throttle(), "ThrottledError", "ThrottlingException"),
            (Break("error"), "SourceError", "InternalServiceError"),
            (Break("close"), "SourceError", "no answer"),
            (Break("hang"), "SourceTimeoutError", "no answer"),
        ],
    )
    def test_fault_ends_with_the_repair(self, tmp_path, fault, error, code):
        """A fault is what every call gets, until it is repaired."""
        values, result = self.told(
            tmp_path, Invoke(), fault, Invoke(), Repair(), Invoke(), load_timeout="2"
        )

        assert "one" == values[0]
        assert values[1] in (error, "SourceTimeoutError")
        assert "one" == values[-1]
        assert {code} == {e for call in result.calls for e in call.errors}

    def test_fault_hits_so_many_calls_of_one_operation(self, tmp_path):
        """A fault can be of one operation, and a number of times."""
        values, result = self.told(
            tmp_path,
            Throttle(1, "GetParameter"),
            Invoke(),
            Invoke({"parameter": "/p"}),
        )

        assert ["one", "1"] == values
        assert [("GetSecretValue", ()), ("GetParameter", ("ThrottlingException",)),
                ("GetParameter", ())] == [
            (call.operation, call.errors) for call in result.calls
        ]  # fmt: skip

    def test_killed_process_fails_the_next_invocation(self, tmp_path):
        """A signal from nowhere fails the invocation that follows; then all is new."""
        _, result = self.told(tmp_path, Invoke(), Kill(), Invoke(), Invoke())

        assert ["success", "failure", "success"] == [
            i.status for i in result.invocations
        ]
        assert result.invocations[2].init is not None

    def test_environment_can_end_in_between(self, tmp_path):
        """After an end by a step comes a cold start; both ends are judged."""
        values, result = self.told(tmp_path, Invoke(), Terminate(), Invoke())

        assert ["one", "one"] == values
        assert result.invocations[1].init is not None
        assert [("spindown", 0), ("spindown", 0)] == [
            (end.reason, end.exit_status) for end in (*result.resets, result.shutdown)
        ]
        assert judge(result).good

    def test_events_stand_in_one_order_on_one_clock(self, tmp_path):
        """The journal has every phase once, in order, and no time goes back."""
        _, result = self.told(tmp_path, Invoke(), Freeze(0.0), Invoke())
        kinds = [
            event.kind
            for event in result.journal.events
            if event.kind not in (journal.CALL, journal.SEEN, journal.LINE)
        ]
        times = [event.at for event in result.journal.events]

        assert sorted(times) == times
        assert [
            *("init_started", "init_done", "frozen"),
            *("step", "thawed", "invoke_started", "aws_call", "answered"),
            *("invoke_done", "frozen", "step", "frozen"),
            *("step", "thawed", "invoke_started", "aws_call", "answered"),
            *("invoke_done", "frozen", "step", "shutdown_started", "thawed"),
            *("signal", "exited", "shutdown_done"),
        ] == kinds

    def test_what_needs_the_aws_here_says_so(self, tmp_path):
        """With AWS itself nothing is rotated or broken."""
        (tmp_path / "app.py").write_text(APP)
        plan = Plan(
            "app.handler",
            task_root=str(tmp_path),
            real_aws=True,
            steps=[Rotate("db", "x")],
        )

        with pytest.raises(StepError, match="rotating 'db': only with the AWS on"):
            run(plan)


@pytest.mark.process
class TestInterruption:
    """Ctrl-C, or a signal that the command turns into one."""

    @pytest.mark.parametrize("during", ["import", "handler"])
    def test_what_was_seen_is_the_result(self, tmp_path, monkeypatch, during):
        """The function is killed, nothing stays behind, and the result says why."""
        hang = "\n    print('hanging', os.getpid(), flush=True); time.sleep(600)"
        source = "import os, time\n"
        if during == "import":
            source += "if True:" + hang + "\n"
        source += "def handler(event, context):\n    if event: return 1" + hang
        (tmp_path / "app.py").write_text(source)
        wait = threading.Event.wait

        def interrupted(event, timeout=None):
            performance = next(
                (
                    frame.f_locals["performance"]
                    for frame in [sys._getframe(1)]
                    if "performance" in frame.f_locals
                ),
                None,
            )
            if performance is None or event is not performance.done:
                return wait(event, timeout)
            asked.append(performance)
            if len(asked) == 2:
                raise KeyboardInterrupt("SIGHUP")
            if len(asked) > 2:
                return wait(event, timeout)
            eventually(
                lambda: any(
                    "hanging" in line.text
                    for line in performance.journal.of(journal.LINE)
                )
            )
            raise KeyboardInterrupt("SIGTERM")

        asked = []
        monkeypatch.setattr(threading.Event, "wait", interrupted)
        result = run(
            Plan("app.handler", task_root=str(tmp_path), events=(1, 0, 1), timeout_s=60)
        )
        pid = int(
            next(li.text for li in result.lines if "hanging" in li.text).split()[1]
        )

        assert "SIGTERM" == result.interrupted
        assert (0 if during == "import" else 1) == len(result.invocations)
        assert ("interrupted by SIGTERM: this is not all",) == judge(result).reasons
        assert not os.path.exists(f"/proc/{pid}")


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


def test_interruption_that_comes_as_the_run_ends_is_told(monkeypatch):
    """Ctrl-C in the last moment of a run is not lost: the result says so."""

    class Ended(threading.Event):
        """Is set, and interrupted while it is waited for."""

        def is_set(self):
            former, self.asked = getattr(self, "asked", False), True
            return former

        def wait(self, timeout=None):
            raise KeyboardInterrupt

    class Performance:
        """A run that is over at once."""

        error = interrupted = None

        def __init__(self, plan, progress):
            self.done = Ended()

        def run(self):
            """Do nothing."""

        def result(self):
            """Return what the run knows of an interruption."""
            return self.interrupted

    monkeypatch.setattr(run_module, "_Performance", Performance)

    assert "SIGINT" == run_module.run(None)
