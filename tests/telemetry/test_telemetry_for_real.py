"""A subscribed handler in real processes: frozen, terminated, with bad consumers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from helpers import ROOT, eventually, installed
from rie import Rie, let_all_read
from telemetry_api import Wire, logs, request

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process

SIGSTOP, SIGCONT = 19, 18  # Linux's; the module `signal` marks tests that interrupt

# Each record goes into a file, for what a consumer prints is telemetry again.
APP = """
import json, os, sys, time
import lambda_ext
from lambda_ext import telemetry

received = os.open(os.environ["RECEIVED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def receive(batch):
    for record in batch:
        line = json.dumps([record.type, record.record, record.request_id])
        os.write(received, line.encode() + b"\\n")

telemetry.consumers.append(receive)

def wait_for(text):
    while True:
        with open(os.environ["RECEIVED"]) as file:
            if text in file.read():
                return
        time.sleep(0.01)

{more}
status = telemetry.subscribe(platform=True, function=True, timeout_ms={timeout_ms})
os.write(1, f"status {{status.state}} {{status.schema}}\\n".encode())

@lambda_ext.handler
def handler(event, context):
    for number in range(event.get("lines", 0)):
        line = event["name"] + " " + str(number) + chr(10)
        os.write(1, line.encode())  # at once: a consumer's thread may log, too
    wait_for(event.get("until", ""))
    return event.get("name")
"""


# For busy machines: the end may take longer than Lambda's, and than ours.
PATIENT = """
from lambda_ext.lifecycle import shutdown
from lambda_ext.telemetry import subscription
shutdown.BUDGET_S = 20
subscription.GRACE_S = 0.5
"""
BUDGETS = Budgets(internal_s=30.0)


class Function:
    """A folder with the handler, and what its consumer has received."""

    def __init__(self, folder, more="", timeout_ms=25, first=""):
        self.folder = str(folder)
        self.path = os.path.join(self.folder, "received")
        code = first + APP.format(more=textwrap.dedent(more), timeout_ms=timeout_ms)
        (folder / "app.py").write_text(code)
        self.env = {"PYTHONPATH": ROOT, "RECEIVED": self.path}

    def emulate(self, handler="app.handler", **options):
        options = {"timeout_s": 60, "budgets": BUDGETS, **options}
        return Emulator(handler, self.folder, env=self.env, **options)

    @property
    def received(self):
        """(type, record, request id) of each record that has arrived."""
        with open(self.path) as file:
            return [tuple(json.loads(line)) for line in file]

    def texts(self):
        """What the handler printed, as it arrived."""
        return [text for kind, text, _ in self.received if kind == "function"]

    def types(self):
        """The types of the platform's records that arrived, in order."""
        return [kind for kind, _, _ in self.received if kind.startswith("platform.")]


INIT = [
    "platform.initStart",
    "platform.telemetrySubscription",
    "platform.initRuntimeDone",
    "platform.extension",
    "platform.initReport",
]
INVOKE = ["platform.start", "platform.runtimeDone", "platform.report"]


@pytest.mark.parametrize(
    ("timeout_ms", "redeliver"), [(25, 0), (30_000, 0), (25, 2), (25, 1)]
)
def test_every_line_arrives_once_across_freezes_and_sigterm(
    tmp_path, timeout_ms, redeliver
):
    """In order, and so does the report of each invocation, the last one included.

    Also where the answer to each delivery is lost, so that it comes again.
    """
    function = Function(tmp_path, PATIENT, timeout_ms)
    with function.emulate(redeliver=redeliver) as emulator:
        ids = []
        for number in range(12):
            answer = emulator.invoke({"name": f"n{number}", "lines": 40})
            ids.append(answer.request_id)
            emulator.wait_frozen()
        end = emulator.shutdown()

    expected = [f"n{number} {line}" for number in range(12) for line in range(40)]
    assert ["status subscribed 2025-01-29", *expected] == function.texts()
    assert [*INIT, *INVOKE * 12] == function.types()
    assert ids == [
        request_id for kind, _, request_id in function.received
        if kind == "platform.report"
    ]  # fmt: skip
    assert (False, 0) == (end.killed, end.exit_status)
    ids = [each.sequence_id for each in emulator.deliveries]
    assert not redeliver or len(set(ids)) < len(ids)


REPORT = """
@telemetry.on_report
def report(record, outcome):
    found = [outcome.request_id, outcome.is_cold_start]
    line = json.dumps(["matched", found, record.request_id])
    os.write(received, line.encode() + b"\\n")
"""


def test_a_report_arrives_during_the_next_invocation(tmp_path):
    """The environment is frozen before; on_report() knows which one it was."""
    function = Function(tmp_path, PATIENT + REPORT)
    with function.emulate() as emulator:
        first = emulator.invoke({"name": "a"})
        emulator.wait_frozen()
        before = function.types()
        second = emulator.invoke({"name": "b", "until": '"matched"'})
        emulator.wait_frozen()
        emulator.shutdown()

    assert ("success", 0) == (second.status, before.count("platform.report"))
    assert [
        ("matched", [first.request_id, True], first.request_id),
        ("matched", [second.request_id, False], second.request_id),
    ] == [each for each in function.received if each[0] == "matched"]


@pytest.mark.parametrize(
    "consumer",
    [
        "time.sleep(600)",
        "while True: time.sleep(0.01)",
        "raise RuntimeError('no')",
        "sys.exit(3)",
        "raise KeyboardInterrupt",
    ],
)
def test_a_bad_consumer_delays_nothing(tmp_path, consumer):
    """Answers come, the other consumer has all, and SIGTERM ends in its budget."""
    function = Function(
        tmp_path,
        f"""
        def bad(batch):
            {consumer}

        telemetry.consumers.insert(0, bad)
        """,
    )
    with function.emulate() as emulator:
        answers = []
        for number in range(6):
            answers.append(emulator.invoke({"name": f"n{number}", "lines": 3}).status)
            emulator.wait_frozen()
        answers.append(emulator.invoke({"until": "n5 2"}).status)
        end = emulator.shutdown()

    assert ["success"] * 7 == answers
    assert [f"n{number} {line}" for number in range(6) for line in range(3)] == [
        text for text in function.texts() if text.startswith("n")
    ]
    assert (False, 0) == (end.killed, end.exit_status)


def test_snapstart(tmp_path):
    """The subscription is part of the snapshot; the restore is told of."""
    function = Function(tmp_path, PATIENT)
    with function.emulate(init_type="snap-start") as emulator:
        emulator.init()
        emulator.invoke({"name": "a", "lines": 1})
        emulator.wait_frozen()
        emulator.shutdown()

    restore = ["restoreStart", "restoreRuntimeDone", "restoreReport"]
    names = [f"platform.{name}" for name in restore]
    assert [*INIT, *names, *INVOKE] == function.types()
    assert "a 0" in function.texts()


WRITER = """
import threading
from lambda_ext import metrics
go, written = threading.Semaphore(0), threading.Semaphore(0)

def write(batch):
    while True:
        go.acquire()
        os.write(1, b"half a line")
        written.release()

telemetry.consumers.append(write)
"""
RECORDER = """
@lambda_ext.handler
def record(event, context):
    go.release()
    written.acquire()
    metrics.count("orders")
"""


def test_metrics_begin_a_line_beside_a_consumer_that_writes(tmp_path):
    """A consumer's thread is one of the user's, which may be within a line."""
    function = Function(tmp_path, PATIENT + WRITER)
    with open(os.path.join(function.folder, "app.py"), "a") as file:
        file.write(RECORDER)
    with function.emulate("app.record") as emulator:
        answers = [emulator.invoke({}).status for _ in range(3)]
        emulator.wait_frozen()
        texts = [line.text for line in emulator.lines]

    assert ["success"] * 3 == answers
    assert 3 == sum('"_aws"' in text for text in texts)
    assert 3 == sum(text.startswith('{"_aws"') for text in texts)


PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()\n",
    "eventlet": "import eventlet; eventlet.monkey_patch()\n",
}


@pytest.mark.parametrize("library", PATCHES)
def test_beside_green_threads(tmp_path, library):
    """The listener and the consumers are real threads, also in a patched program."""
    installed(library)
    function = Function(tmp_path, PATIENT + REPORT, first=PATCHES[library])
    command = (sys.executable, "-W", "ignore", "-m", "awslambdaric", "app.handler")
    with function.emulate(command=command) as emulator:
        answers = [emulator.invoke({"name": "a", "lines": 5}).status]
        emulator.wait_frozen()
        answers.append(emulator.invoke({"name": "b", "until": '"matched"'}).status)
        emulator.wait_frozen()
        end = emulator.shutdown()

    assert ["success", "success"] == answers
    assert [f"a {line}" for line in range(5)] == [
        text for text in function.texts() if text.startswith("a ")
    ]
    assert [*INIT, *INVOKE * 2] == function.types()
    assert (False, 0) == (end.killed, end.exit_status)


OUTER = """
import http.client, json, os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(os.environ["OUTER_RECEIVED"], "a") as file:
            for each in json.loads(body):
                file.write(json.dumps([each["type"], each["record"], None]) + chr(10))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

def call(method, path, body, **headers):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, json.dumps(body), named)
    response = connection.getresponse()
    response.read()
    return response

server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
answer = call("POST", "/2020-01-01/extension/register", {"events": ["SHUTDOWN"]},
              Lambda_Extension_Name=os.path.basename(__file__))
mine = {"Lambda_Extension_Identifier": answer.headers["Lambda-Extension-Identifier"]}
call("PUT", "/2022-07-01/telemetry", {
    "schemaVersion": "2022-12-13", "types": ["function", "extension"],
    "buffering": {"timeoutMs": 25},
    "destination": {"protocol": "HTTP",
                    "URI": f"http://sandbox.localdomain:{server.server_port}"}}, **mine)
print("outer is up", flush=True)
call("GET", "/2020-01-01/extension/event/next", None, **mine)
print("outer goes", flush=True)
while "outer goes" not in open(os.environ["OUTER_RECEIVED"]).read():
    pass
"""


def test_an_external_extension_subscribes_beside(tmp_path):
    """It has the function's lines and its own, the last ones during SHUTDOWN."""
    (tmp_path / "extensions").mkdir()
    outer = tmp_path / "extensions" / "outer"
    outer.write_text(f"#!{sys.executable}\n{OUTER}")
    outer.chmod(0o755)
    function = Function(tmp_path, PATIENT)
    other = Function(tmp_path)
    other.path += "-by-outer"
    function.env["OUTER_RECEIVED"] = other.path
    with function.emulate(
        extensions_dir=str(tmp_path / "extensions"),
        budgets=Budgets(internal_s=30.0, external_s=60.0),
    ) as emulator:
        emulator.invoke({"name": "a", "lines": 2})
        emulator.wait_frozen()
        agents = {agent.name: agent.telemetry for agent in emulator.agents}
        end = emulator.shutdown()

    assert {
        "lambda_ext": ("platform", "function"),
        "outer": ("function", "extension"),
    } == agents
    lines = ["status subscribed 2025-01-29", "a 0", "a 1"]
    assert lines == function.texts()
    assert lines == other.texts()
    assert ["outer is up", "outer goes"] == [
        text for kind, text, _ in other.received if kind == "extension"
    ]
    assert [(True, 0)] == [(each.notified, each.exit_status) for each in end.extensions]


HANG = """
@lambda_ext.handler
def hang(event, context):
    time.sleep(600)
"""


def test_a_time_out_is_told_of(tmp_path):
    """The platform's last words are consumed before the process ends."""
    function = Function(tmp_path, PATIENT + HANG)
    with function.emulate("app.hang", timeout_s=2) as emulator:
        answer = emulator.invoke({})
        emulator.wait_frozen()

    assert "timeout" == answer.status
    assert [*INIT, *INVOKE] == function.types()
    assert {"timeout"} == {
        record["status"]
        for kind, record, _ in function.received
        if kind in ("platform.runtimeDone", "platform.report")
    }


def test_managed_instances(tmp_path):
    """One worker has the telemetry of all; nothing is frozen."""
    function = Function(tmp_path)
    with function.emulate(init_type="lambda-managed-instances") as emulator:
        emulator.init()
        emulator.wait_idle()
        for name in "ab":
            emulator.invoke({"name": name, "lines": 2})
        eventually(lambda: function.types().count("platform.report") == 2)
        (agent,) = emulator.agents
        emulator.shutdown()

    assert ("platform", "function") == agent.telemetry
    assert ["a 0", "a 1", "b 0", "b 1"] == sorted(
        text for text in function.texts() if isinstance(text, str) and text[0] in "ab"
    )


def test_without_a_telemetry_api(tmp_path):
    """One log line, and the function works."""
    function = Function(tmp_path)
    with function.emulate(telemetry=False) as emulator:
        answer = emulator.invoke({"name": "a", "lines": 1})
        emulator.shutdown()
        texts = [line.text for line in emulator.lines]

    assert "success" == answer.status
    assert 1 == sum("lambda_ext.telemetry_unavailable" in text for text in texts)
    assert [] == function.received


def test_the_local_run_shows_the_subscription(tmp_path):
    """In the report and in the JSON document."""
    pytest.importorskip("moto")
    from lambda_ext.local.json_report import document
    from lambda_ext.local.run import Plan, run
    from lambda_ext.local.verdict import judge
    from lambda_ext.local.words import registered

    function = Function(tmp_path)
    plan = Plan(
        "app.handler",
        events=({"name": "a", "lines": 1},),
        task_root=function.folder,
        environment=function.env,
    )
    result = run(plan)
    told = json.loads(document(result, judge(result)))

    assert judge(result).good, judge(result).reasons
    assert "lambda_ext (internal, telemetry: platform function)" == registered(
        result.extensions
    )
    assert ["platform", "function"] == told["init"]["extensions"][0]["telemetry"]
    kinds = [event["kind"] for event in told["events"]]
    assert 1 == kinds.count("subscribed")
    assert kinds.count("delivered") >= 1


class TestFrozenInTheMiddle:
    """A listener's process is stopped while the platform delivers."""

    PROGRAM = """
import json, sys, threading
from lambda_ext.telemetry import listener

def accept(batch, size):
    # Short: until this returns, the platform has no answer.
    print([len(record.record) for record in batch], flush=True)

made = listener.Listener(accept, path="/secret", max_body=10_000_000)
made.start()
print(made.port, flush=True)
sys.stdin.read()
print("redelivered", made.counters.redelivered, flush=True)
"""

    @pytest.fixture(name="child")
    def _child(self):
        child = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            try:
                yield child
            finally:
                child.kill()

    @staticmethod
    def stop(child):
        """Stop the process, as a freeze does, and see it stopped."""
        child.send_signal(SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)

    def test_half_a_delivery_goes_on_after_the_thaw(self, child):
        """The platform waits, and is answered with 200 at last."""
        port = int(child.stdout.readline())
        data = request("/secret", logs("a" * 100_000))
        with Wire(port) as wire:
            wire.send(data[:5000])
            self.stop(child)
            wire.send(data[5000:])
            child.send_signal(SIGCONT)

            assert 200 == wire.status()
        assert "[100000]\n" == child.stdout.readline()

    def test_an_answer_that_comes_too_late_is_a_repetition_of_which_nothing_comes(
        self, child
    ):
        """The platform gave up while it was frozen, and delivers again."""
        port = int(child.stdout.readline())
        data = request("/secret", logs("once"), headers={"Sequence-Id": "s"})
        self.stop(child)
        with Wire(port) as wire:
            wire.send(data)
        child.send_signal(SIGCONT)
        with Wire(port) as wire:
            wire.send(data)
            assert 200 == wire.status()
        output, _ = child.communicate("", timeout=60)

        assert ["[4]", "redelivered 1"] == output.splitlines()


def idle(answer):
    """Return *answer*, None if no worker was idle: the next attempt may find one."""
    return None if b"Runtime.Unavailable" in answer[1] else answer


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Managed Instances: 3.13")
def test_awss_own_emulator_delivers(tmp_path):
    """Its code accepts the subscription of an internal extension, and delivers."""
    function = Function(tmp_path)
    open(function.path, "w").close()
    let_all_read(tmp_path)
    os.chmod(function.path, 0o666)
    with Rie(task_root=function.folder, env=function.env, instances=2) as rie:
        answers = [
            eventually(lambda: idle(rie.invoke({"name": name, "lines": 2})))  # noqa: B023
            for name in ("n0", "n1", "n2")
        ]
        eventually(lambda: function.types().count("platform.report") == 3)
        eventually(lambda: sum("n" in text for text in function.texts()) >= 6)
        rie.terminate()
        output = rie.output

    assert [(200, f'"n{number}"'.encode()) for number in range(3)] == answers
    # Another worker may be the first to ask for work, so their order varies.
    assert sorted(INIT) == sorted(function.types()[:5])
    assert 1 == output.count("status subscribed 2025-01-29")
    assert [f"n{number} {line}" for number in range(3) for line in range(2)] == [
        text.rstrip("\n") for text in function.texts() if text.startswith("n")
    ]


def test_awss_own_emulator_without_telemetry(tmp_path):
    """In its classic mode it answers 202: one log line, and the function works."""
    function = Function(tmp_path)
    with Rie(task_root=function.folder, env=function.env) as rie:
        answer = rie.invoke({"name": "a", "lines": 1})
        rie.terminate()
        output = rie.output

    assert (200, b'"a"') == answer
    assert 1 == output.count("lambda_ext.telemetry_unavailable")
