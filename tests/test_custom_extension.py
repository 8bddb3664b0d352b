"""examples/custom_extension, as a person runs it."""

from __future__ import annotations

import ast
import http.server
import json
import os
import shlex
import subprocess
import sys
import threading

import pytest
from helpers import ROOT


@pytest.fixture(name="collector")
def _collector():
    """An HTTP server that keeps what it is sent."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            bodies.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.bodies = bodies
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.process
def test_every_invocation_is_shipped_at_the_end(collector, tmp_path):
    """Once, in order, with what failed; the run is good but for that."""
    events = tmp_path / "events.jsonl"
    events.write_text('{"name": "Ada"}\n{}\n{"name": "Grace"}\n')
    done = subprocess.run(
        [
            sys.executable, "-m", "lambda_ext", "run", "app.handler", "--allow-errors",
            "--task-root", os.path.join(ROOT, "examples", "custom_extension"),
            "--event", str(events),
            "--env", f"COLLECTOR=http://127.0.0.1:{collector.server_port}/",
        ],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    (shipped,) = collector.bodies
    begun, ended = shipped[::2], shipped[1::2]

    assert 0 == done.returncode, done.stdout + done.stderr
    assert [True, False, False] == [each["cold"] for each in begun]
    assert [each["begun"] for each in begun] == [each["ended"] for each in ended]
    assert 3 == len({each["begun"] for each in begun})
    assert [None, "KeyError", None] == [each["error"] for each in ended]
    assert all(each["s"] >= 0 for each in ended)


@pytest.mark.process
def test_documented_command_is_good(collector):
    """The one in the docstring, but for the port."""
    folder = os.path.join(ROOT, "examples", "custom_extension")
    with open(os.path.join(folder, "app.py"), encoding="utf-8") as file:
        text = ast.get_docstring(ast.parse(file.read())) or ""
    command = text.partition("lambda-ext ")[2].replace(
        "127.0.0.1:8080", f"127.0.0.1:{collector.server_port}"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lambda_ext",
            *shlex.split(command.replace("\\\n", " ")),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert [6] == [len(body) for body in collector.bodies]
