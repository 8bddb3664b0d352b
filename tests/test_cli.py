"""The command line: what it takes, what it refuses, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, eventually

from lambda_ext import __version__, cli
from lambda_ext.commands import arguments, init_command, run_command
from lambda_ext.local import inputs

SECRET = "hunter2-do-not-print"


def refused(capsys, *argv):
    """Run the command, which must refuse *argv*; return what it says."""
    try:
        status = cli.main(["run", *argv])
    except SystemExit as exc:  # argparse's way
        status = exc.code
    captured = capsys.readouterr()

    assert 2 == status
    assert "" == captured.out
    assert 1 == captured.err.count("\n")
    return captured.err


class TestArguments:
    """What argparse refuses."""

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            ([], "the following arguments are required: MODULE.HANDLER"),
            (["app"], "'app' is not MODULE.HANDLER; did you mean app.handler?"),
            (["app.py"], "'app.py' is not MODULE.HANDLER; did you mean app.handler?"),
            ([""], "'' is not MODULE.HANDLER; did you mean app.handler?"),
            (["app.py:"], "'app.py:' is not MODULE.HANDLER; did you mean app.handler?"),
            (["app.main()"], "not MODULE.HANDLER; did you mean app.main?"),
            (["app::main"], "not MODULE.HANDLER; did you mean app.main?"),
            (["../app.py"], "name the folder apart: app.handler --task-root .."),
            (
                ["/srv/shop/app.py:main"],
                "name the folder apart: app.main --task-root /srv/shop",
            ),
            (["app.handler", "--repeat", "0"], "not a whole number from 1 to 10000"),
            (["app.handler", "--repeat", "x"], "not a whole number from 1 to 10000"),
            (["app.handler", "--memory", "64"], "not a whole number from 128 to 10240"),
            (["app.handler", "--timeout", "0"], "not a number of seconds above 0"),
            (["app.handler", "--timeout", "901"], "not a number of seconds above 0"),
            (["app.handler", "--timeout", "nan"], "not a number of seconds above 0"),
            (["app.handler", "--env", "A"], "'A': write NAME=VALUE"),
            (["app.handler", "--env", "=" + SECRET], "'': write NAME=VALUE"),
            (["app.handler", "--env", "A-B=" + SECRET], "'A-B': write NAME=VALUE"),
            (["app.handler", "--function-name", " "], "it is blank"),
            (["app.handler", "--region", "EU"], "'EU' is not the name of a region"),
            (
                ["app.handler", "--sed", "x"],
                "lambda-ext run: unrecognized arguments: --sed x; did you mean --seed?",
            ),
            (["app.handler", "zzz"], "unrecognized arguments: zzz; see"),
        ],
    )
    def test_bad_argument_is_one_line(self, capsys, argv, says):
        """A bad argument gets one line that says what is wrong, and status 2."""
        message = refused(capsys, *argv)

        assert says in message
        assert SECRET not in message
        assert message.endswith("--help\n")

    @pytest.mark.parametrize(
        ("given", "handler"),
        [
            ("app.handler", "app.handler"),
            ("./app.handler", "app.handler"),
            ("././app.py:handler", "app.handler"),
            ("app:handler", "app.handler"),
            ("app.py:handler", "app.handler"),
            ("app.py.handler", "app.handler"),
            (" app.handler ", "app.handler"),
            ("src/orders/app.py:main", "src/orders/app.main"),
            ("src.orders.app.main", "src.orders.app.main"),
        ],
    )
    def test_handler_is_understood(self, given, handler):
        """A handler in the manner of other tools is the one that Lambda would have."""
        assert handler == arguments.handler(given)

    def test_help_says_what_is_not_contacted(self, capsys):
        """The help promises that AWS is left alone, and names the way out."""
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", "--help"])
        text = " ".join(capsys.readouterr().out.split())

        assert 0 == caught.value.code
        assert "AWS itself is never contacted" in text
        assert "unless you say --aws" in text

    def test_version_is_the_packages(self, capsys):
        """--version prints the version of the package."""
        with pytest.raises(SystemExit):
            cli.main(["--version"])

        assert f"lambda-ext {__version__}\n" == capsys.readouterr().out


class TestFiles:
    """What is refused before anything starts."""

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (f'{{"secrets": {{"db": "{SECRET}"', "not valid JSON"),
            (f'{{"secret": {{"db": "{SECRET}"}}}}', "did you mean 'secrets'?"),
            (f'{{"secrets": {{"db": ["{SECRET}"]}}}}', "the key 'db' is an array"),
        ],
    )
    def test_bad_seed_is_one_line_without_value(self, capsys, tmp_path, text, says):
        """A malformed seed gets one line with file and cause, and no value."""
        path = tmp_path / "seed.json"
        path.write_text(text)
        message = refused(capsys, "app.handler", "--seed", str(path))

        assert message.startswith(f"lambda-ext run: {path}")
        assert says in message
        assert SECRET not in message

    def test_bad_event_is_one_line(self, capsys, tmp_path):
        """A malformed event gets one line with file, line and column."""
        path = tmp_path / "event.json"
        path.write_text("{\n  id: 1}")
        message = refused(capsys, "app.handler", "--event", str(path))

        assert f"{path}, line 2, column 3: not valid JSON" in message

    def test_missing_file_is_named(self, capsys, tmp_path):
        """A file that is not there is named."""
        path = str(tmp_path / "none.json")

        assert path in refused(capsys, "app.handler", "--event", path)

    def test_missing_folder_is_named(self, capsys, tmp_path):
        """A task root that is not there is named."""
        path = str(tmp_path / "none")

        assert f"--task-root: there is no folder {path}" in refused(
            capsys, "app.handler", "--task-root", path
        )

    def test_standard_input_is_read_once(self, capsys):
        """Two events from the standard input are refused."""
        message = refused(capsys, "app.handler", "--event", "-", "--event", "-")

        assert "can be read only once" in message

    def test_seed_and_aws_exclude_each_other(self, capsys):
        """A seed would not reach AWS itself, so that both together are refused."""
        message = refused(capsys, "app.handler", "--aws", "--seed", "x.json")

        assert "leave it out with --aws" in message

    @pytest.mark.parametrize("name", sorted(run_command.OWN_VARIABLES))
    def test_own_variable_is_refused(self, capsys, name):
        """A variable that the run sets itself is refused, with what to use."""
        message = refused(capsys, "app.handler", "--env", f"{name}={SECRET}")

        assert f"--env {name}: the run sets it; use" in message
        assert SECRET not in message

    def test_snapshot_is_refused(self, capsys):
        """The run takes none: the runtime client would ask for its restore in vain."""
        snapstart = "AWS_LAMBDA_INITIALIZATION_TYPE=snap-start"
        message = refused(capsys, "app.handler", "--env", snapstart)

        assert "the run takes no snapshot; use lambda_ext.testing.simul" in message

    @pytest.mark.parametrize(
        "name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM", "AWS_PROFILE"]
    )
    def test_way_to_aws_is_refused(self, capsys, name):
        """A variable that leads to AWS needs --aws."""
        message = refused(capsys, "app.handler", "--env", f"{name}=x")

        assert "say --aws if you want that" in message

    def test_region_that_moto_lacks_is_told(self, capsys):
        """A region that moto does not know is refused by its name."""
        status = cli.main(["run", "app.handler", "--region", "mars-north-1"])

        assert 2 == status
        assert "moto plays no secretsmanager in 'mars-north-1'; choose another" in (
            capsys.readouterr().err
        )

    def test_seed_that_aws_refuses_is_told(self, capsys, tmp_path, monkeypatch):
        """What moto refuses of a seed is told by name and code."""
        monkeypatch.setattr(inputs, "PARAMETER_NAME", re.compile(".*"))
        path = tmp_path / "seed.json"
        path.write_text(json.dumps({"parameters": {"aws/x": SECRET}}))
        argv = ["run", "app.handler", "--seed", str(path)]
        status = cli.main(argv)
        message = capsys.readouterr().err

        assert 2 == status
        assert "PutParameter was refused for 'aws/x'" in message
        assert SECRET not in message

    def test_region_is_the_shells_only_with_aws(self, monkeypatch):
        """Without --aws nothing of this shell's account counts, also no region."""
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")

        assert ("us-east-1", "eu-west-3") == (
            run_command.default_region(aws=False),
            run_command.default_region(aws=True),
        )


class TestSurroundings:
    """What the machine lacks."""

    def test_other_platform_is_told(self, capsys, monkeypatch):
        """Elsewhere than on Linux the command says why it cannot run."""
        monkeypatch.setattr(sys, "platform", "darwin")

        assert "this is darwin, and Lambda is Linux" in refused(capsys, "app.handler")

    @pytest.mark.parametrize("package", ["moto", "rich"])
    def test_missing_extra_names_the_command(self, package):
        """Without the extra, the missing package and the pip command are named."""
        code = (
            "import sys\n"
            f"sys.modules[{package!r}] = None\n"
            "from lambda_ext.cli import main\n"
            "sys.exit(main(['run', 'app.handler']))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            check=False,
        )

        assert 2 == done.returncode
        assert 1 == done.stderr.count("\n")
        assert package in done.stderr
        assert 'pip install "lambda-ext[local]"' in done.stderr

    def test_python_without_runtime_client_is_told(self, capsys, tmp_path):
        """A Python without awslambdaric is refused with the pip command."""
        fake = tmp_path / "python"
        fake.write_text("#!/bin/sh\necho False\n")
        fake.chmod(0o755)
        cli.main(["run", "app.handler", "--python", str(fake)])
        message = capsys.readouterr().err

        assert f"{fake} has no awslambdaric" in message
        assert 'pip install "lambda-ext[local]"' in message

    def test_interrupt_is_no_traceback(self, capsys, monkeypatch):
        """Ctrl-C ends the command with status 130 and one line."""

        def interrupted(arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(run_command, "make_plan", interrupted)

        assert 130 == cli.main(["run", "app.handler"])
        assert "lambda-ext run: interrupted" in capsys.readouterr().err

    def test_unwritable_report_is_no_traceback(self, capsys, monkeypatch):
        """A full disk under the report gets one line, and status 2."""

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("lambda_ext.local.run.run", lambda *args: None)
        monkeypatch.setattr(
            "lambda_ext.local.verdict.judge", lambda *args, **kwargs: None
        )
        monkeypatch.setattr("lambda_ext.local.report.Report.all", full)

        message = refused(capsys, "app.handler")

        expected = (
            "lambda-ext run: the report cannot be written: No space left on device\n"
        )
        assert expected == message


APP = """
import json, os, sys, time

def handler(event, context):
    print("log of the function", event)
    print(json.dumps({
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [
            {"Namespace": "shop", "Dimensions": [[]], "Metrics": [{"Name": "n"}]}]},
        "n": event.get("n", 1)}))
    if event.get("fail"):
        raise ValueError("this one fails")
    return os.environ["STAGE"]

def hang(event, context):
    time.sleep(60)
"""


@pytest.fixture
def app(tmp_path):
    """A folder with a function and its events."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "syntax.py").write_text("def handler(:\n")
    (tmp_path / "needs.py").write_text("import not_installed\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('no luck')\n")
    (tmp_path / "exits.py").write_text("import os; os._exit(3)\n")
    (tmp_path / "good.json").write_text('{"n": 2}')
    (tmp_path / "fail.json").write_text('{"fail": true}')
    (tmp_path / "bad.json").write_text('{"n": "two"}')
    return tmp_path


def ran(capsys, app, handler, *argv):
    """Run a handler of *app*; return the status and the report."""
    status = cli.main(
        ["run", handler, "--task-root", str(app), "--env", "STAGE=test", *argv]
    )
    return status, capsys.readouterr().out


class TestInit:
    """`lambda-ext init`."""

    def test_files_are_written_and_the_next_commands_told(
        self, capsys, tmp_path, monkeypatch
    ):
        """Four files of ten lines, and the two commands that use them."""
        monkeypatch.chdir(tmp_path)
        status = cli.main(["init"])
        out = capsys.readouterr().out

        assert 0 == status
        assert ["app.py", "event.json", "seed.json", "test_app.py"] == sorted(
            os.listdir(tmp_path)
        )
        assert [10, 10, 10, 10] == [
            len((tmp_path / name).read_text().splitlines())
            for name in os.listdir(tmp_path)
        ]
        assert (
            "wrote app.py, event.json, seed.json, test_app.py\n"
            "\n"
            "lambda-ext run app.handler --event event.json --seed seed.json\n"
            "python -m pytest\n"
        ) == out

    @pytest.mark.parametrize("name", init_command.FILES)
    def test_nothing_is_overwritten(self, capsys, tmp_path, name):
        """One file that is there, and nothing is written."""
        (tmp_path / name).write_text("mine")
        status = cli.main(["init", str(tmp_path)])

        assert 2 == status
        assert f"lambda-ext init: {tmp_path / name}: already there" in (
            capsys.readouterr().err
        )
        assert [name] == os.listdir(tmp_path)
        assert "mine" == (tmp_path / name).read_text()

    def test_link_that_leads_nowhere_is_there(self, capsys, tmp_path):
        """A broken link is not followed, and nothing is written through it."""
        (tmp_path / "app.py").symlink_to(tmp_path / "elsewhere")

        assert 2 == cli.main(["init", str(tmp_path)])
        assert not (tmp_path / "elsewhere").exists()
        assert "already there" in capsys.readouterr().err

    def test_folder_that_is_a_file_is_told(self, capsys, tmp_path):
        """A name that is a file's is refused with one line."""
        (tmp_path / "shop").write_text("")

        assert 2 == cli.main(["init", str(tmp_path / "shop")])
        message = capsys.readouterr().err
        assert "nothing was written" in message
        assert 1 == message.count("\n")

    def test_what_was_written_goes_when_the_disk_is_full(
        self, capsys, tmp_path, monkeypatch
    ):
        """An error in the middle leaves no file behind."""
        broken = {**init_command.FILES, "zzz/none": "x"}
        monkeypatch.setattr(init_command, "FILES", broken)

        assert 2 == cli.main(["init", str(tmp_path)])
        assert [] == os.listdir(tmp_path)
        assert "nothing was written" in capsys.readouterr().err

    @pytest.mark.process
    @pytest.mark.parametrize("folder", [".", "my shop"])
    def test_what_it_says_works(self, capsys, tmp_path, monkeypatch, folder):
        """Both commands that it prints end well, as they stand there."""
        monkeypatch.chdir(tmp_path)
        cli.main(["init", folder])
        run, test = capsys.readouterr().out.splitlines()[-2:]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        done = [
            subprocess.run(
                [sys.executable, *prefix, *shlex.split(line)[skip:]],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            for line, prefix, skip in ((run, ["-m", "lambda_ext"], 1), (test, [], 1))
        ]

        assert [0, 0] == [each.returncode for each in done], done
        assert "good" == done[0].stdout.split()[-1]
        assert '{"connected_as": "kim"}' in done[0].stdout
        assert "orders.placed" in done[0].stdout
        assert "not-a-real" not in done[0].stdout
        assert "1 passed" in done[1].stdout

    def test_what_it_writes_is_strictly_typed(self, tmp_path):
        """mypy --strict has nothing to say about what was written."""
        mypy = pytest.importorskip("mypy.api")
        cli.main(["init", str(tmp_path)])
        out, err, status = mypy.run(
            [
                *("--strict", "--no-incremental", "--cache-dir", os.devnull),
                *(str(tmp_path / "app.py"), str(tmp_path / "test_app.py")),
            ]
        )

        assert ("", 0) == (err, status), out


def with_signals(**handlers):
    """Return the command `lambda-ext` under a parent that has set signals."""
    code = "".join(
        f"signal.signal(signal.{name}, signal.{handler})\n"
        for name, handler in handlers.items()
    )
    code = (
        f"import os, signal, sys\n{code}"
        "os.execv(sys.executable, [sys.executable, '-m', 'lambda_ext', *sys.argv[1:]])"
    )
    return [sys.executable, "-c", code]


@pytest.mark.process
class TestSignals:
    """A run that a terminal or a CI job ends."""

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_what_is_known_is_printed_and_nothing_stays(self, app, name):
        """The function is killed, stopped or not; what was seen is printed."""
        (app / "stop.py").write_text(
            "import os, time\n"
            "def handler(event, context):\n"
            "    if event: return 'first answer'\n"
            "    print('function', os.getpid(), flush=True)\n"
            "    os.kill(os.getppid(), 0)\n"
            "    open('ready', 'w').close()\n"
            "    time.sleep(600)\n"
        )
        (app / "events.jsonl").write_text('{"n": 1}\n\n{}\n')
        command = subprocess.Popen(
            [
                *with_signals(SIGINT="default_int_handler", SIGHUP="SIG_DFL"),
                *("run", "stop.handler", "--event", "events.jsonl"),
                *("--timeout", "900"),
            ],
            cwd=app,
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        number = signal.Signals[name]
        try:
            eventually((app / "ready").exists)
            command.send_signal(number)
            out, err = command.communicate(timeout=60)
        finally:
            command.kill()
        pid = re.search(r"^  function (\d+)$", out, re.M).group(1)

        assert 128 + number == command.returncode, err
        assert '"first answer"' in out
        assert f"bad: interrupted by {name}: this is not all" in out
        assert "Traceback" not in out + err
        assert not os.path.exists(f"/proc/{pid}")

    def test_ignored_signal_stays_ignored(self, app):
        """Under nohup a hang-up ends nothing."""
        (app / "slow.py").write_text(
            "import os, signal\n"
            "def handler(event, context):\n"
            "    os.kill(os.getppid(), signal.SIGHUP)\n"
            "    return 'survived'\n"
        )
        done = subprocess.run(
            [*with_signals(SIGHUP="SIG_IGN"), "run", "slow.handler"],
            cwd=app,
            env={**os.environ, "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            check=False,
        )

        assert 0 == done.returncode, done
        assert '"survived"' in done.stdout


@pytest.mark.process
class TestOutput:
    """What else the command prints."""

    @pytest.mark.parametrize("more", [[], ["--json"]])
    def test_reader_that_leaves_is_no_failure(self, app, more):
        """Piped into what reads nothing, the command ends as the run did, in silence."""
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "lambda_ext", "run", "app.handler"),
                *("--env", "STAGE=x", *more),
            ],
            cwd=app,
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        command.stdout.close()
        errors = command.stderr.read()
        command.stderr.close()

        assert 0 == command.wait(60)
        assert errors.splitlines() == [
            line for line in errors.splitlines() if line.startswith("... ")
        ]

    def test_traceback_of_a_good_run_is_shown(self, capsys, app):
        """What a note speaks of stands in LOGS, although the run was good."""
        (app / "thread.py").write_text(
            "import threading\n"
            "def handler(event, context):\n"
            "    t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()\n"
        )
        status, out = ran(capsys, app, "thread.handler")

        assert 0 == status
        assert "note: there is a traceback in LOGS" in out
        assert "  ZeroDivisionError: division by zero\n" in out

    def test_json_is_one_document(self, capsys, app):
        """--json prints one document with verdict, answers and every event."""
        (app / "events.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"fail": true}')
        status, out = ran(
            capsys,
            app,
            "app.handler",
            *("--event", str(app / "events.jsonl"), "--json"),
        )
        told = json.loads(out)

        assert 1 == status
        assert [("success", "test"), ("success", "test")] == [
            (each["status"], each["payload"]) for each in told["invocations"][:2]
        ]
        assert "ValueError" == told["invocations"][2]["payload"]["errorType"]
        assert not told["verdict"]["good"]
        assert ["invocation 3 ended with error"] == told["verdict"]["reasons"]
        assert 4.0 == told["metrics"]["series"][0]["sum"]
        times = [event["at"] for event in told["events"]]
        assert sorted(times) == times
        assert {"init_done", "answered", "frozen", "thawed", "exited", "line"} <= {
            event["kind"] for event in told["events"]
        }

    def test_value_of_the_seed_is_in_no_output(self, capsys, app, tmp_path):
        """Neither the report nor the document shows a secret that the function does."""
        (app / "show.py").write_text(
            "import sys\n"
            "def handler(event, context):\n"
            f"    print('out', {SECRET!r}); print('err', {SECRET!r}, file=sys.stderr)\n"
            f"    if event: raise ValueError({SECRET!r})\n"
            f"    return [{SECRET!r}]\n"
        )
        (app / "seed.json").write_text(json.dumps({"secrets": {"db": SECRET}}))
        (app / "two.jsonl").write_text("{}\n1\n")
        outputs = [
            ran(
                capsys,
                app,
                "show.handler",
                *("--seed", str(app / "seed.json"), "--event", str(app / "two.jsonl")),
                *more,
            )[1]
            for more in ([], ["--responses", "--logs"], ["--json"])
        ]

        assert [False] * 3 == [SECRET in text for text in outputs]
        assert [True] * 3 == ["[secret 'db']" in text for text in outputs]

    def test_answer_is_shown_in_a_row_or_as_a_whole(self, capsys, app):
        """One invocation shows all of its answer; several a line each, unless asked."""
        (app / "long.py").write_text(
            "def handler(event, context):\n    return {'items': list(range(50))}\n"
        )
        (app / "two.jsonl").write_text("{}\n{}\n")
        _, one = ran(capsys, app, "long.handler")
        many = ("--event", str(app / "two.jsonl"))
        _, two = ran(capsys, app, "long.handler", *many)
        _, asked = ran(capsys, app, "long.handler", *many, "--responses")

        assert "      49\n" in one
        assert 2 == len(re.findall(r'  {"items": \[0, 1, .*\.\.\.$', two, re.M))
        assert "      49\n" not in two
        assert 2 == asked.count("      49\n")

    def test_missing_secret_names_the_seed_and_its_form(self, capsys, app):
        """A secret that is not there tells how to give it."""
        (app / "miss.py").write_text(
            "import lambda_ext\n"
            "db = lambda_ext.Secret('prod/db')\n"
            "page = lambda_ext.Parameter('/page')\n"
            "@lambda_ext.handler\n"
            "def handler(event, context):\n"
            "    try: page.value\n"
            "    except LookupError: pass\n"
            "    return db.value\n"
        )
        status, out = ran(capsys, app, "miss.handler")

        assert 1 == status
        assert (
            "not there: give it with --seed FILE.json, whose form is"
            ' {"secrets": {"prod/db": "..."}, "parameters": {"/page": "..."}}'
        ) in out

    def test_many_invocations_are_a_row_a_status(self, capsys, app):
        """More than 20 are told by status; errors once; progress in a few lines."""
        (app / "events.ndjson").write_text('{"n": 1}\n{"fail": true}\n' * 15)
        status = cli.main(
            [
                *("run", "app.handler", "--task-root", str(app), "--env", "STAGE=x"),
                *("--event", str(app / "events.ndjson")),
            ]
        )
        captured = capsys.readouterr()

        assert 1 == status
        assert re.search(r"^  success +15 +1( +[\d.]+ ms){4}$", captured.out, re.M)
        assert re.search(r"^  error +15 +0( +[\d.]+ ms){4}$", captured.out, re.M)
        assert 1 == captured.out.count("  2 and 14 more: ValueError: this one fails")
        assert "bad: invocations 2 and 14 more ended with error" in captured.out
        assert captured.err.count("... invocation") < 15


@pytest.mark.process
class TestRun:
    """The command with a function, the emulator and the real runtime client."""

    def test_good_run_ends_with_0(self, capsys, app):
        """All well: status 0, each invocation and the sum of its metrics."""
        status, out = ran(
            capsys,
            app,
            "app.handler",
            "--event",
            str(app / "good.json"),
            "--repeat",
            "3",
        )

        assert 0 == status
        assert 3 == len(
            re.findall(r"^  \d  [0-9a-f]{8}    success .* \"test\"$", out, re.M)
        )
        assert re.search(r"^  shop +n +None +3 +6$", out, re.M)
        assert out.rstrip().endswith("good")
        assert "log of the function" not in out
        assert "\x1b" not in out

    def test_raising_handler_ends_with_1_and_shows_logs(self, capsys, app):
        """A handler that raises spoils the verdict; its logs are shown."""
        status, out = ran(capsys, app, "app.handler", "--event", str(app / "fail.json"))

        assert 1 == status
        assert "1: ValueError: this one fails" in out
        assert "log of the function {'fail': True}" in out
        assert "bad: invocation 1 ended with error" in out

    def test_allowed_error_is_no_failure(self, capsys, app):
        """With --allow-errors a handler may raise; --logs shows its output."""
        status, out = ran(
            capsys,
            app,
            "app.handler",
            "--allow-errors",
            "--logs",
            "--event",
            str(app / "fail.json"),
        )

        assert 0 == status
        assert "note: invocation 1 raised, which is allowed" in out
        assert "log of the function {'fail': True}" in out

    def test_bad_metric_ends_with_1(self, capsys, app):
        """A line that CloudWatch would drop spoils the verdict, and is explained."""
        status, out = ran(capsys, app, "app.handler", "--event", str(app / "bad.json"))

        assert 1 == status
        assert "dropped by CloudWatch: metric 'n' has a value that is not a" in out

    def test_time_out_ends_with_1(self, capsys, app):
        """A function that times out spoils the verdict."""
        status, out = ran(capsys, app, "app.hang", "--timeout", "0.3")

        assert 1 == status
        assert "Task timed out after 0.30 seconds" in out
        assert "bad: invocation 1 ended with timeout" in out

    @pytest.mark.parametrize(
        ("handler", "cause", "cure"),
        [
            (
                "nowhere.handler",
                "Unable to import module 'nowhere': No module named 'nowhere'",
                "name the folder that holds it with --task-root",
            ),
            (
                "needs.handler",
                "No module named 'not_installed'",
                "needs was found, but not what it imports; install it for",
            ),
            (
                "app.nothing",
                "Handler 'nothing' missing on module 'app'",
                "define 'nothing' in app, or name another MODULE.HANDLER",
            ),
            ("syntax.handler", "Syntax error in module 'syntax'", "correct the syntax"),
            ("raises.handler", "RuntimeError: no luck", "while raises was being"),
            ("exits.handler", "Runtime.ExitError", "the process ended during INIT"),
        ],
    )
    def test_bad_handler_shows_cause_and_cure(self, capsys, app, handler, cause, cure):
        """A handler that does not load is told in the runtime's words, with a cure."""
        status, out = ran(capsys, app, handler)

        assert 1 == status
        assert cause in out
        assert cure in out
        assert "bad: INIT ended with" in out

    def test_function_meets_aws_itself_only_if_asked(self, capsys, app, monkeypatch):
        """With --aws the function gets this shell's account, and no seed."""
        (app / "who.py").write_text(
            "import os\n"
            "def handler(event, context):\n"
            "    print('profile', os.environ.get('AWS_PROFILE'))\n"
            "    print('endpoint', os.environ.get('AWS_ENDPOINT_URL'))\n"
        )
        monkeypatch.setenv("AWS_PROFILE", "development")
        _, with_aws = ran(capsys, app, "who.handler", "--logs", "--aws")
        _, without = ran(capsys, app, "who.handler", "--logs")

        assert "  profile development\n  endpoint None\n" in with_aws
        assert "  profile None\n  endpoint http://127.0.0.1:" in without

    def test_line_that_never_comes_is_told(self, capsys, app, monkeypatch):
        """A line that is waited for and does not come ends the run with 1."""
        monkeypatch.setattr("lambda_ext.local.run.WAIT_S", 0.05)
        status = cli.main(
            [
                *("run", "app.handler", "--task-root", str(app), "--env", "STAGE=x"),
                *("--wait-for", "never written"),
            ]
        )

        assert 1 == status
        assert "did not write 'never written' within 0.05 seconds" in (
            capsys.readouterr().err
        )

    def test_program_is_the_module_too(self, app):
        """`python -m lambda_ext` is the same command, from any folder."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "lambda_ext", "run", "app.handler"),
                *("--plain", "--env", "STAGE=x"),
            ],
            cwd=app,
            env={**os.environ, "PYTHONPATH": ROOT},
            capture_output=True,
            text=True,
            check=False,
        )

        assert (0, True) == (done.returncode, done.stdout.rstrip().endswith("good"))
        assert "... INIT" in done.stderr
