"""Functions that lose or show something, and a run that is not fooled by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
from helpers import ROOT

from lambda_ext.local.emulator import Emulator
from lambda_ext.local.json_report import document
from lambda_ext.local.run import Plan, run
from lambda_ext.local.seeds import Parameter, Seed
from lambda_ext.local.verdict import judge

pytestmark = pytest.mark.process

PASSWORD = "hunter2-s3cret/with+signs"
PEM = """\
-----BEGIN KEY-----
MIIEowIBAAKCAQEA7w
2dQ8f0Xk3sJqv1Zb
-----END KEY-----
"""
SEED = Seed(
    secrets={
        "prod/db": json.dumps(
            {
                "username": "kim",
                "password": PASSWORD,
                "pin": 48213,
                "retries": 30000,
                "other": "changeme",
                "words": "my-secret-password-please",
            }
        ),
        "prod/key": PEM,
        "prod/token": "tok-" + "1234567890abcdef" * 2,
        "prod/bytes": b"\x00\x01raw-key-bytes\xff",
    },
    parameters={
        "/plain": Parameter("not so secret"),
        "/placeholder": Parameter("password", "SecureString"),
        "/encrypted": Parameter("much-more-secret", "SecureString"),
    },
)
HEAD = """
import base64, json, logging, os, signal, sys, threading, time
import lambda_ext
from lambda_ext import Secret, Parameter, get_secret, metrics
db = Secret("prod/db", transform="json")
"""
DIES = """
import awslambdaric.lambda_runtime_client as client
answer = client.LambdaRuntimeClient.post_invocation_result
def die(*args, **kwargs):
    answer(*args, **kwargs)
    {}
client.LambdaRuntimeClient.post_invocation_result = die
"""
SINK = """
class Sink:
    def accept(self, batch):
        raise OSError("collector down")
m = lambda_ext.Metrics("n", sink=Sink())
"""


def handler(body, before=""):
    """Return the source of a module with a decorated handler."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return (
        f"{HEAD}\n{before}\n@lambda_ext.handler\n"
        f"def handler(event, context):\n    metrics.count('a')\n{lines}\n    return 1\n"
    )


def judged(tmp_path, source, *, allow_errors=False, **changes):
    """Run the module *source*; return its result and the verdict."""
    (tmp_path / "app.py").write_text(source)
    result = run(Plan("app.handler", task_root=str(tmp_path), seed=SEED, **changes))
    return result, judge(result, allow_errors=allow_errors)


LOSING = {
    "segfault after the answer": (
        handler("", DIES.format("import ctypes; ctypes.string_at(0)")),
        "the process ended after it had answered, by signal 11",
    ),
    "exit after the answer": (
        handler("", DIES.format("os._exit(0)")),
        "the process ended after it had answered, with exit status 0",
    ),
    "refused metric": (
        handler("metrics.count('x', user=None)"),
        "1 record of metrics dropped: dimension_value: ",
    ),
    "refused metric, logging off": (
        handler("logging.disable(logging.CRITICAL); metrics.count('a b\\n')"),
        "warned: lambda_ext.metric_dropped",
    ),
    "refused metric, logger replaced": (
        handler(
            "metrics.count('a b\\n')",
            "logging.getLogger().handlers.clear()\n"
            "logging.getLogger('lambda_ext').propagate = False",
        ),
        "warned: lambda_ext.metric_dropped",
    ),
    "sink raises": (
        handler("m.count('b')", SINK),
        "1 record of metrics dropped: sink: ",
    ),
    "init callback raises": (
        handler("", "@lambda_ext.on_init\ndef load():\n    raise OSError('no')"),
        "warned: lambda_ext.listener_failed phase=init listener=app.load",
    ),
    "response callback raises": (
        handler("", "@lambda_ext.on_response\ndef save():\n    raise OSError('no')"),
        "warned: lambda_ext.listener_failed phase=response listener=app.save",
    ),
    "shutdown callback raises": (
        handler("", "@lambda_ext.on_shutdown\ndef save():\n    raise OSError('no')"),
        "warned: lambda_ext.listener_failed phase=shutdown listener=app.save",
    ),
    "shutdown callback hangs": (
        handler(
            "",
            # Earlier, for a busy machine: there is more time to tell of it.
            "from lambda_ext.lifecycle import phases, shutdown\n"
            "phases.REPORT_S, shutdown.BUDGET_S = 0.3, 0.15\n"
            "@lambda_ext.on_shutdown\ndef save():\n    time.sleep(60)",
        ),
        "warned: lambda_ext.listener_abandoned phase=shutdown listener=app.save",
    ),
    "stdout of the process leads elsewhere": (
        handler("os.dup2(os.open(os.devnull, os.O_WRONLY), 1)"),
        "1 line of metrics did not come out",
    ),
    "descriptors that are not its own closed": (
        handler("os.closerange(0, 64)"),
        "the process has not told what it lost",
    ),
    "shutdown callback raises, logging off": (
        handler(
            "logging.disable(logging.CRITICAL)",
            "@lambda_ext.on_shutdown\ndef save():\n    raise OSError('no')",
        ),
        "warned: lambda_ext.listener_failed phase=shutdown listener=app.save",
    ),
    "callback ends the process": (
        handler(
            "",
            "@lambda_ext.on_shutdown\ndef save():\n"
            "    metrics.count('saved')\n    os._exit(0)",
        ),
        "1 record of metrics never flushed",
    ),
    "forked child ends without a flush": (
        handler(
            """
            pid = os.fork()
            if pid == 0:
                metrics.count('lost')
                os._exit(0)
            os.waitpid(pid, 0)
            """
        ),
        "1 record of metrics never flushed",
    ),
    "double of a test left in": (
        handler(
            "", "from lambda_ext.testing import MemorySink\nMemorySink().__enter__()"
        ),
        "a double of lambda_ext.testing has taken the metrics",
    ),
    "descriptor of stdout closed": (handler("os.close(1)"), "metrics d"),
    "stdout closed": (handler("sys.stdout.close()"), "metrics d"),
    "not decorated, with a callback": (
        HEAD + "@lambda_ext.on_shutdown\ndef save():\n    pass\n"
        "def handler(event, context):\n    pass\n",
        "handler is not decorated with @lambda_ext.handler; its",
    ),
    "not decorated": (
        HEAD + "def handler(event, context):\n    metrics.count('a')\n",
        "handler is not decorated with @lambda_ext.handler; its metrics are lost",
    ),
    "registration refused": (
        handler("").replace(
            "\n@lambda_ext.handler",
            """
import http.client
for number in range(10):
    there = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    there.request("POST", "/2020-01-01/extension/register", b'{"events": []}',
                  {"Lambda-Extension-Name": f"other-{number}"})
    made = there.getresponse(); made.read()
    def poll(there=there, made=made):
        there.request("GET", "/2020-01-01/extension/event/next", headers={
            "Lambda-Extension-Identifier": made.headers["Lambda-Extension-Identifier"]})
        there.getresponse()
    threading.Thread(target=poll, daemon=True).start()
@lambda_ext.handler""",
        ),
        "warned: lambda_ext.extension_refused",
    ),
    "metric escaped inside a log line": (
        handler(
            """print(json.dumps({"message": json.dumps({"_aws": {"Timestamp": 1,
            "CloudWatchMetrics": []}})}))"""
        ),
        "1 line of metrics CloudWatch would drop",
    ),
    "metric as Python shows it": (
        handler(
            """print({"_aws": {"Timestamp": 1, "CloudWatchMetrics": []}, "n": 1})"""
        ),
        "1 line of metrics CloudWatch would drop",
    ),
}


@pytest.mark.parametrize("name", LOSING)
def test_loss_is_a_reason(tmp_path, name):
    """What is lost, also where the function hides it, is a line in the verdict."""
    source, reason = LOSING[name]
    _, verdict = judged(tmp_path, source)

    assert [] != [text for text in verdict.reasons if reason in text], verdict


@pytest.mark.parametrize("disabled", ["extension", "signals", "signals,extension"])
def test_disabled_hook_is_a_reason(tmp_path, disabled):
    """Without registration or without the signal something is lost at the end."""
    _, verdict = judged(
        tmp_path, handler(""), environment={"LAMBDA_EXT_DISABLE": disabled}
    )

    assert 1 == len(verdict.reasons)
    assert "what" in verdict.reasons[0]
    assert "is lost" in verdict.reasons[0]


def test_answer_that_lambda_refuses_is_no_allowed_error(tmp_path):
    """An answer above 6 MB spoils the verdict, also where errors are allowed."""
    source = handler("return 'x' * 7_000_000")
    _, verdict = judged(tmp_path, source, allow_errors=True)

    assert "invocation 1 ended with error" == verdict.reasons[0]


SHOWING = {
    "logged": ("print(db.value)", "member 'password'", "a log line"),
    "member that is a number": ("print(db.value['pin'])", "member 'pin'", "a log line"),
    "stderr": (
        "print('at', db.value['password'], file=sys.stderr)",
        "member 'password'",
        "a line of stderr",
    ),
    "answered": (
        "return {'is': db.value['password']}",
        "member 'password'",
        "the answer to invocation 1",
    ),
    "raised": (
        "raise ValueError(f'cannot connect as {db.value}')",
        "member 'password'",
        "the answer to invocation 1",
    ),
    "in base64 with something before it": (
        "print(base64.b64encode(f\"kim:{db.value['password']}\".encode()).decode())",
        "member 'password'",
        "a log line",
    ),
    "quoted for a URL": (
        "from urllib.parse import quote_plus; print(quote_plus(db.value['password']))",
        "member 'password'",
        "a log line",
    ),
    "escaped twice": (
        "print(json.dumps(json.dumps(get_secret('prod/db'))))",
        "member 'password'",
        "a log line",
    ),
    "one line of several": (
        "print(get_secret('prod/key').splitlines()[2])",
        "secret 'prod/key'",
        "a log line",
    ),
    "half of a key": (
        "print('token is', get_secret('prod/token')[:20] + '...')",
        "secret 'prod/token'",
        "a log line",
    ),
    "bytes": (
        "print(get_secret('prod/bytes', transform=bytes).hex())",
        "secret 'prod/bytes'",
        "a log line",
    ),
    "encrypted parameter": (
        "print(Parameter('/encrypted').value)",
        "parameter '/encrypted'",
        "a log line",
    ),
    "a dimension of a metric": (
        "metrics.count('logins', by=db.value['password'])",
        "member 'password'",
        "a log line",
    ),
    "the name of another secret": (
        """
        try:
            get_secret(db.value['password'].partition('/')[0] + '/with+signs')
        except Exception:
            pass
        """,
        "member 'password'",
        "the name that a call to AWS asked for",
    ),
}


@pytest.mark.parametrize("name", SHOWING)
def test_value_of_the_seed_is_a_reason(tmp_path, name):
    """A value that stands in output or an answer is told by its name, not shown."""
    body, what, where = SHOWING[name]
    _, verdict = judged(tmp_path, handler(body), allow_errors=True)
    said = "\n".join((*verdict.reasons, *verdict.notes))

    assert f"the value of {what}" in said
    assert where in said
    assert PASSWORD not in said


HARMLESS = {
    "user name": "return db.value['username']",
    "plain parameter": "print(Parameter('/plain').value)",
    "what the event holds too": "print(event['echo'])",
    "a number like it": "print(1482139, 'a48213')",
    "a number that counts": "print(db.value['retries'])",
    "a placeholder": "print(db.value['other'], Parameter('/placeholder').value)",
    "half of some words": "print('reset-password-please')",
    "nothing": "",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_secret_is_good(tmp_path, name):
    """A user name, a plain parameter, a coincidence or the caller's own is no leak."""
    source = handler(HARMLESS[name])
    _, verdict = judged(tmp_path, source, events=[{"echo": "much-more-secret"}])

    assert ((), ()) == (verdict.reasons, verdict.notes)


def test_dimension_with_many_values_is_noted(tmp_path):
    """More than a hundred values of a dimension are told: each is billed."""
    source = handler("for n in range(101): metrics.count('b', user=f'u{n}')")
    _, verdict = judged(tmp_path, source)

    assert ((), ("'user' has 101 values; each is a billed metric",)) == (
        verdict.reasons,
        verdict.notes,
    )


def test_import_of_the_doubles_takes_no_metrics(tmp_path):
    """One of everything does so; a sink of the function's own has them."""
    own = "from lambda_ext import *\nlambda_ext.configure(sinks=[lambda batch: None])"
    _, verdict = judged(tmp_path, handler("metrics.count('b')", own))

    assert () == verdict.reasons


def test_lines_for_datadog_are_no_loss(tmp_path):
    """They come out beside EMF, or instead of it, and are no EMF."""
    for sinks, documents in (("['emf', 'datadog']", 1), ("['datadog']", 0)):
        source = handler("metrics.count('b')", f"lambda_ext.configure(sinks={sinks})")
        result, verdict = judged(tmp_path, source)

        assert ((), ()) == (verdict.reasons, verdict.notes)
        assert (documents, 2) == (len(result.emf), result.forwarded)


def test_many_thousand_values_are_written_and_noted(tmp_path):
    """The library warns of them, too; nothing is lost, so the verdict is good."""
    source = handler("for n in range(15_000): metrics.count('b', user=f'u{n}')")
    result, verdict = judged(tmp_path, source)

    assert 15_000 == sum('"user"' in each.line.text for each in result.emf)
    assert ((), ("'user' has 15,000 values; each is a billed metric",)) == (
        verdict.reasons,
        verdict.notes,
    )


def test_each_dropped_name_is_counted(tmp_path):
    """However many they are, the log has a line a reason and name, and one in all."""
    body = (
        "for n in range(1_000):"
        " metrics.count('a', 'x'); metrics.gauge('b', float('nan'));"
        " metrics.count('c', city='\\u0141\\xf3d\\u017a')"
    )
    result, verdict = judged(tmp_path, handler(body))
    logged = [line.text for line in result.lines if "lambda_ext.metric" in line.text]

    assert (
        "3000 records of metrics dropped: value: 'a' (1,000), 'b' (1,000);"
        " dimension_value: 'c' (1,000)"
    ) == verdict.reasons[0]
    assert 4 == len(logged)
    assert "number=3000" in logged[-1]


def test_allowed_name_is_good(tmp_path):
    """A value may stand anywhere if its name is allowed; others may not."""
    source = handler("print(db.value, Parameter('/encrypted').value)")
    _, verdict = judged(tmp_path, source, allow_shown=["prod/db"])

    assert (
        "the value of parameter '/encrypted' stands in a log line",
    ) == verdict.reasons


def test_started_by_hand_is_good(tmp_path):
    """A handler that is not decorated loses nothing when start() was called."""
    source = (
        HEAD + "lambda_ext.start()\ndef handler(event, context):\n"
        "    metrics.count('a')\n"
    )
    _, verdict = judged(tmp_path, source)

    assert () == verdict.reasons


def test_values_alone_need_no_decorator(tmp_path):
    """A plain handler that only reads values loses nothing, and is told what it misses."""
    source = HEAD.replace(", metrics", "") + (
        "def handler(event, context):\n    return db.value['username']\n"
    )
    _, verdict = judged(tmp_path, source)

    assert () == verdict.reasons
    assert "values are not loaded during INIT" in verdict.notes[0]


@pytest.mark.parametrize(
    "body",
    [
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()",
        "async def f(): pass\nf()",
        "class D:\n    def __del__(self): 1 / 0\nD()",
    ],
)
def test_traceback_of_a_thread_is_noted(tmp_path, body):
    """An exception that no caller sees is a note."""
    source = handler(body)
    _, verdict = judged(tmp_path, source)

    assert ((), True) == (verdict.reasons, "traceback" in verdict.notes[0])


def test_each_log_record_ends_its_line(tmp_path):
    """To Lambda a record is an event of its own: nothing is printed into it."""
    metric = json.dumps(
        {
            "_aws": {
                "Timestamp": int(time.time() * 1000),
                "CloudWatchMetrics": [
                    {"Namespace": "n", "Dimensions": [[]], "Metrics": [{"Name": "p"}]}
                ],
            },
            "p": 1,
        }
    )
    body = f"""
        try: 1 / 0
        except ZeroDivisionError: logging.exception("failed")
        print({metric!r})
        logging.getLogger().handlers[0].setFormatter(logging.Formatter("my %(message)s"))
        for n in (1, 2): logging.error(n)
    """
    result, verdict = judged(tmp_path, handler(body))
    texts = [line.text for line in result.lines]

    assert () == verdict.reasons
    assert 2 == len(result.emf)
    assert ["ZeroDivisionError: division by zero", "my 1", "my 2"] == texts[-3:]


def test_observer_leaves_the_function_alone(tmp_path):
    """Name, arguments, path and logging are those of a plain start."""
    source = """
import logging, os, sys
logging.getLogger("lambda_ext").warning("of %s", "mine")
import lambda_ext
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append([record.filename, record.getMessage()])
logging.getLogger("lambda_ext").addHandler(Keep())
logging.getLogger("lambda_ext").warning("of %s", "yours")
logging.getLogger("lambda_ext").log(logging.ERROR, "gone")
def handler(event, context):
    return [sys.argv, sys.path[0], sys.modules["__main__"].__name__, records,
            [os.get_inheritable(fd) for fd in map(int, os.listdir("/proc/self/fd"))
             if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")
             and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe")]]
"""
    result, _ = judged(tmp_path, source)
    argv, path, main, records, inheritable = result.invocations[0].value

    assert "app.handler" == argv[-1]
    assert str(tmp_path) == path
    assert "__main__" == main
    assert [["app.py", "of yours"], ["app.py", "gone"]] == records
    assert [False] == inheritable
    assert ("of yours", "gone") == result.warnings


DAEMON = """
import os, subprocess, sys
def begin(**how):
    return subprocess.Popen(["sleep", "99"], stdin=-3, stdout=-3, stderr=-3, **how).pid
def twice(**how):
    told, tell = os.pipe()
    if not os.fork():
        os.setsid()
        os.environ.clear()
        os.write(tell, str(begin(**how)).encode())
        os._exit(0)
    os.wait()
    return int(os.read(told, 20))
"""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "how",
    [
        "begin(start_new_session=True)",
        "begin(start_new_session=True, env={})",
        "begin(process_group=0, env={})" if sys.version_info >= (3, 11) else "begin()",
        "twice()",
        "twice(env={}, cwd='/', start_new_session=True)",
    ],
)
def test_daemon_ends_with_the_run(tmp_path, how):
    """What left the process group is gone when the run is over, and nothing else is."""
    other = subprocess.Popen(["sleep", "99"], start_new_session=True, env={})
    source = DAEMON + handler(f"return {how}")
    try:
        result, _ = judged(tmp_path, source)
        pid = result.invocations[0].value

        assert isinstance(pid, int)
        assert (False, True) == (is_alive(pid), is_alive(other.pid))
    finally:
        other.kill()
        other.wait()


MEETING = """
import os, pathlib, time
import lambda_ext
from lambda_ext import Parameter, metrics
who = Parameter("/who")
@lambda_ext.handler
def handler(event, context):
    metrics.count("met")
    pathlib.Path(f"{who.value}.here").touch()
    while not all(pathlib.Path(f"{name}.here").exists() for name in "abc"):
        time.sleep(0.01)
    return [who.value, os.environ["AWS_LAMBDA_LOG_STREAM_NAME"], context.log_stream_name]
"""


def test_runs_at_once_in_one_folder_do_not_meet(tmp_path):
    """Each has an AWS, a Lambda, a seed and an identity of its own, and leaves nothing."""
    (tmp_path / "app.py").write_text(MEETING)
    started = []
    for name in "abc":
        seed = json.dumps({"parameters": {"/who": name}})
        (tmp_path / f"{name}.json").write_text(seed)
        command = [sys.executable, "-m", "lambda_ext", "run", "app.handler", "--json"]
        command += ["--seed", f"{name}.json", "--timeout", "60"]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        started.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE
            )
        )
    documents = [json.loads(each.communicate()[0]) for each in started]
    answers = [each["invocations"][0]["payload"] for each in documents]

    assert [0, 0, 0] == [each.returncode for each in started]
    assert list("abc") == [who for who, _, _ in answers]
    assert 3 == len({stream for _, stream, _ in answers})
    assert all(stream == told and "/[$LATEST]" in stream for _, stream, told in answers)
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__", "app.py"}
    assert {f"{name}.{end}" for name in "abc" for end in ("json", "here")} == left


def test_daemon_of_another_run_goes_on(tmp_path):
    """Two runs at once, in one folder: the end of one ends nothing of the other."""
    source = (
        DAEMON
        + "import lambda_ext"
        + handler("return begin(start_new_session=True, env={})")
    )
    (tmp_path / "app.py").write_text(source)
    outer = Emulator(handler="app.handler", task_root=str(tmp_path))
    with outer:
        outer.init()
        pid = outer.invoke({}).value
        result, _ = judged(tmp_path, source)

        assert (False, True) == (is_alive(result.invocations[0].value), is_alive(pid))
        outer.shutdown()
    assert not is_alive(pid)


def test_answer_with_half_a_character_is_json(tmp_path):
    """The document can be written and read, for each answer of a handler."""
    result, verdict = judged(tmp_path, handler("return '\\ud800'"))
    text = document(result, verdict)

    found = json.loads(text.encode())["invocations"][0]["payload"]
    if sys.version_info >= (3, 12):  # whose runtime client cannot send it, and ends
        assert "Runtime.ExitError" == found["errorType"]
    else:
        assert "\ud800" == found
    assert text.isascii()


ANOTHER = (
    HEAD + "@lambda_ext.handler\ndef other(event, context):\n    pass\n"
    "def handler(event, context):\n    {body}\n"
)


def test_another_function_that_is_decorated_is_none(tmp_path):
    """The function that Lambda calls is not: its metrics wait for the end."""
    _, verdict = judged(tmp_path, ANOTHER.format(body="metrics.count('a')"))

    assert [True] == ["not decorated" in text for text in verdict.reasons]
    assert "though another function is" in verdict.reasons[0]


def test_handler_that_calls_a_decorated_function_is_good(tmp_path):
    """As one of a framework does, or a decorator above ours."""
    _, verdict = judged(tmp_path, ANOTHER.format(body="other(event, context)"))

    assert () == verdict.reasons
