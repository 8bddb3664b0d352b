"""An Extensions API that refuses, hangs, lies or is not there: the handler works."""

from __future__ import annotations

import contextlib
import json
import multiprocessing.process
import socket
import sys
import threading

import pytest
from helpers import ROOT, eventually
from sigterm_cells import totals

from lambda_ext.lifecycle import extension, real_threads, runtime_api
from lambda_ext.local.emulator import Emulator

OK = (
    b"HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id\r\nContent-Length: 2\r\n\r\n{}"
)


def refusal(error_type, message="why", status=403):
    """Return an answer as AWS refuses."""
    body = json.dumps({"errorMessage": message, "errorType": error_type}).encode()
    head = f"HTTP/1.1 {status} Forbidden\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Api:
    """An Extensions API that answers with the given bytes, one per connection."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self._open = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            self.requests.append(data)
            answer = self.answers.pop(0) if self.answers else None
            if answer is not None:  # None hangs
                with contextlib.suppress(OSError):  # it may have had enough
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for connection in self._open:
            connection.close()


@pytest.fixture
def api(monkeypatch):
    """Return a function that starts an API and points the library to it."""
    made = []

    def start(*answers):
        made.append(Api(*answers))
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", made[-1].address)
        return made[-1]

    yield start
    extension.reset()
    for one in made:
        one.close()


def test_registers_for_no_event_and_asks_once_for_the_next(api):
    """One register, one parked event/next with the identifier, no third call."""
    server = api(OK, None)
    extension.register()
    extension.register()
    eventually(lambda: len(server.requests) == 2)
    register, following = server.requests

    assert register.startswith(b"POST /2020-01-01/extension/register HTTP/1.1\r\n")
    assert b"\r\nLambda-Extension-Name: lambda_ext\r\n" in register
    assert register.endswith(b'\r\n\r\n{"events":[]}')
    assert following.startswith(b"GET /2020-01-01/extension/event/next HTTP/1.1\r\n")
    assert b"\r\nLambda-Extension-Identifier: id\r\n" in following
    assert "registered" == extension.status().state
    assert "<extension.Status registered>" == repr(extension.status())


@pytest.mark.logs
@pytest.mark.parametrize(
    "error_type",
    [
        "Extension.InvalidExtensionName",
        "InvalidRequestFormat",
        "Extension.InvalidEventType",
        "Extension.RegistrationClosed",
        "Extension.TooManyExtensions",
    ],
)
def test_refusal_is_logged_once_and_kept_as_the_reason(api, caplog, error_type):
    """AWS's own words stand in one log line and in the status."""
    server = api(refusal(error_type, "as it is"))
    extension.register()
    found = extension.status()

    advice = ""
    if error_type == "Extension.RegistrationClosed":
        advice = (
            ": decorate the handler with @lambda_ext.handler, or call"
            " lambda_ext.start(), at module scope"
        )

    assert (found.state, found.error_type) == ("refused", error_type)
    assert found.reason == "as it is (HTTP 403)" + advice
    assert [
        (
            f"lambda_ext.extension_refused name=lambda_ext error_type={error_type}"
            f" reason=as it is (HTTP 403){advice}"
        )
    ] == [record.getMessage() for record in caplog.records]
    assert 1 == len(server.requests)


@pytest.mark.logs
def test_name_that_is_taken_is_as_good_as_ours(api, caplog):
    """An extension of our name is registered: Lambda will send SIGTERM."""
    api(refusal("Extension.InvalidExtensionState"))
    extension.register()

    assert "shared" == extension.status().state
    assert 1 == len(caplog.records)


def test_process_of_multiprocessing_leaves_it_to_its_parent(api, monkeypatch):
    """A spawned one imports the handler again: it would be told it is too late."""
    server = api(OK, None)
    monkeypatch.setattr(multiprocessing.process, "parent_process", object)
    extension.register()

    assert "forked" == extension.status().state
    assert [] == server.requests

    extension.reset()
    monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "4")  # its parent is AWS's
    extension.register()

    assert "registered" == extension.status().state


@pytest.mark.parametrize(
    "error_type", ["Extension.InvalidExtensionState", "Extension.RegistrationClosed"]
)
def test_worker_of_a_managed_instance_does_not_complain(api, monkeypatch, error_type):
    """All but one of N workers come too late, as it should be."""
    monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "4")
    api(refusal(error_type))
    extension.register()

    assert "shared" == extension.status().state
    assert "at module scope" not in extension.status().reason


@pytest.mark.logs
def test_external_extension_of_our_name_is_left_alone(api, monkeypatch, tmp_path):
    """To register would be to speak for it; its presence brings SIGTERM."""
    (tmp_path / "lambda_ext").write_text("#!/bin/sh\n")
    monkeypatch.setattr(extension, "FOLDER", str(tmp_path))
    server = api(OK)
    extension.register()

    assert "shared" == extension.status().state
    assert [] == server.requests


@pytest.mark.logs
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b"HTTP/1.1 500 \r\n\r\n\xff\xfe",
        b'HTTP/1.1 403 \r\nContent-Length: 6\r\n\r\n["no"]',
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=["nothing", "not_http", "no_status", "no_identifier", "cut_short",
         "not_text", "not_an_object", "without_end"],
)  # fmt: skip
def test_nonsense_is_logged_once_and_survived(api, caplog, answer):
    """For any answer, register() returns and says so in one line."""
    api(answer)
    extension.register()

    assert extension.status().state in ("refused", "unreachable")
    assert extension.status().reason
    assert 1 == len(caplog.records)


@pytest.mark.logs
def test_api_that_hangs_costs_its_timeout_once(api, caplog, monkeypatch):
    """A second at most (here less), and never again."""
    monkeypatch.setattr(extension, "TIMEOUT_S", 0.05)
    server = api(None)
    extension.register()
    extension.register()

    assert "unreachable" == extension.status().state
    assert extension.status().reason.startswith("TimeoutError")
    assert 1 == len(caplog.records)
    eventually(lambda: server.requests)
    assert 1 == len(server.requests)


@pytest.mark.logs
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "a:b:c", ":"])
def test_api_that_is_not_there_is_logged_once(caplog, monkeypatch, address):
    """No listener, no port, no host: one line."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", address)
    monkeypatch.setattr(runtime_api, "PORT", 1)
    extension.register()

    assert "unreachable" == extension.status().state
    assert 1 == len(caplog.records)


@pytest.mark.logs
def test_refused_event_next_is_noticed(api, caplog):
    """The thread sees it and says so; it does not ask again."""
    server = api(OK, refusal("Extension.UnknownExtensionIdentifier"))
    extension.register()
    eventually(lambda: extension.status().state == "ended" and caplog.records)

    assert "Extension.UnknownExtensionIdentifier" == extension.status().error_type
    assert 1 == len(caplog.records)
    assert 2 == len(server.requests)


def test_end_of_the_api_is_no_news(api):
    """When the API goes away, so does the environment: nothing is logged."""
    api(OK, b"")
    extension.register()
    eventually(lambda: extension.status().state == "ended")

    assert "" == extension.status().error_type


def test_without_a_thread_to_spare_the_request_stands(api, monkeypatch):
    """Lambda waits for event/next in INIT: it is sent without any thread."""

    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    server = api(OK, None)
    with monkeypatch.context() as patch:
        patch.setattr(real_threads, "start_new_thread", refuse)
        extension.register()
    eventually(lambda: len(server.requests) == 2)

    assert "registered" == extension.status().state


@pytest.mark.process
class TestFunction:
    """A function in a world without our extension works as if we were not there."""

    APP = """
import lambda_ext
from lambda_ext import metrics
{extra}

@lambda_ext.handler
def handler(event, context):
    metrics.count("invoked")
    return "answer"
"""

    @pytest.fixture
    def run(self, tmp_path):
        """Run the function once; return the answer and what it wrote."""

        def run(extra="", **options):
            (tmp_path / "app.py").write_text(self.APP.format(extra=extra))
            with Emulator(
                task_root=str(tmp_path),
                command=(sys.executable, "-m", "awslambdaric", "app.handler"),
                env={"PYTHONPATH": ROOT},
                timeout_s=30.0,
                **options,
            ) as emulator:
                answer = emulator.invoke({}, timeout=30.0)
                emulator.wait_frozen()
                lines = [line.text for line in emulator.lines]
            return answer, lines

        return run

    def warnings(self, lines):
        """Return our log lines."""
        return [line for line in lines if "lambda_ext." in line]

    def test_with_an_api_that_is_absent_answers(self, run):
        """One log line, the answer and the metrics of each invocation."""
        extra = """
import os
address = os.environ["AWS_LAMBDA_RUNTIME_API"]
os.environ["AWS_LAMBDA_RUNTIME_API"] = "127.0.0.1:1"
lambda_ext.start()
os.environ["AWS_LAMBDA_RUNTIME_API"] = address
"""
        answer, lines = run(extra)

        assert "answer" == answer.value
        assert {"invoked": 1} == totals(lines)
        assert 1 == len(self.warnings(lines))
        assert "extension_unreachable" in self.warnings(lines)[0]

    def test_with_a_name_that_is_taken_answers(self, run):
        """The other one's registration serves."""
        extra = """
import os
from lambda_ext.lifecycle import runtime_api
other = runtime_api.call(
    os.environ["AWS_LAMBDA_RUNTIME_API"], "POST", "/extension/register",
    {"Lambda-Extension-Name": "lambda_ext"}, b'{"events":[]}', timeout_s=5.0)
parked = runtime_api.send(
    os.environ["AWS_LAMBDA_RUNTIME_API"], "GET", "/extension/event/next",
    {"Lambda-Extension-Identifier": other.headers["lambda-extension-identifier"]},
    timeout_s=5.0)
"""
        answer, lines = run(extra)

        assert "answer" == answer.value
        assert {"invoked": 1} == totals(lines)
        assert 1 == len(self.warnings(lines))
        assert "Extension.InvalidExtensionState" in self.warnings(lines)[0]

    def test_as_the_eleventh_extension_answers(self, run):
        """Ten is Lambda's limit."""
        extra = """
import os
from lambda_ext.lifecycle import runtime_api
parked = []
for index in range(10):
    other = runtime_api.call(
        os.environ["AWS_LAMBDA_RUNTIME_API"], "POST", "/extension/register",
        {"Lambda-Extension-Name": f"other-{index}"}, b'{"events":[]}', timeout_s=5.0)
    parked.append(runtime_api.send(
        os.environ["AWS_LAMBDA_RUNTIME_API"], "GET", "/extension/event/next",
        {"Lambda-Extension-Identifier": other.headers["lambda-extension-identifier"]},
        timeout_s=5.0))
"""
        answer, lines = run(extra)

        assert "answer" == answer.value
        assert 1 == len(self.warnings(lines))
        assert "Extension.TooManyExtensions" in self.warnings(lines)[0]

    def test_when_started_too_late_answers(self, run):
        """Registration is closed inside the handler: one line, no harm."""
        (answer, lines) = run(
            """
handler_of = lambda_ext.handler
lambda_ext.handler = lambda f: lambda e, c: handler_of(f)(e, c)
"""
        )

        assert "answer" == answer.value
        assert {"invoked": 1} == totals(lines)
        assert 1 == len(self.warnings(lines))
        assert "Extension.RegistrationClosed" in self.warnings(lines)[0]
