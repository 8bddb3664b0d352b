"""Sinks of logs that hang, raise or exit, in a real runtime with freezes and SIGTERM."""

from __future__ import annotations

import json
import os

import pytest
from helpers import ROOT

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process

APP = """
import os, sys, threading, time
import lambda_ext
from lambda_ext import telemetry
from lambda_ext.lifecycle import shutdown
from lambda_ext.telemetry import shipping, subscription

# More time at the end than Lambda grants: machines may be busy.
shutdown.BUDGET_S = 6.0
subscription.GRACE_S = 0.5
received = os.open(os.environ["RECEIVED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def good(entries):
    for entry in entries:
        os.write(received, entry.message.encode() + b"\\n")


def bad(entries):
    {bad}


telemetry.route(where="function").to(bad, max_age=0)
telemetry.route(where="function").to(good, max_age=0)
telemetry.subscribe(platform=True, function=True, timeout_ms=25)


@lambda_ext.handler
def handler(event, context):
    for number in range(20):
        os.write(1, f"{{event['name']}} {{number}}\\n".encode())
    return event["name"]
"""


@pytest.mark.parametrize(
    "bad",
    [
        "time.sleep(600)",
        "while True: time.sleep(0.001)",
        "raise RuntimeError('SECRET')",
        "sys.exit(3)",
        "raise KeyboardInterrupt",
        "raise ConnectionError",
        "threading.Event().wait()",
    ],
)
def test_one_that_fails_stops_no_other(tmp_path, bad):
    """Every answer comes, the other sink has every line once, and the end is regular."""
    (tmp_path / "app.py").write_text(APP.format(bad=bad))
    path = tmp_path / "received"
    env = {"PYTHONPATH": ROOT, "RECEIVED": str(path)}
    with Emulator(
        "app.handler", str(tmp_path), env=env, timeout_s=60.0,
        budgets=Budgets(internal_s=30.0),
    ) as emulator:  # fmt: skip
        answers = []
        for number in range(6):
            answer = emulator.invoke({"name": f"n{number}"})
            answers.append((answer.status, json.loads(answer.payload)))
            if number % 2:
                emulator.wait_frozen()
        end = emulator.shutdown()
        log = "\n".join(line.text for line in emulator.lines)

    assert [("success", f"n{number}") for number in range(6)] == answers
    lines = [line for line in path.read_text().splitlines() if line[:1] == "n"]
    assert [f"n{number} {line}" for number in range(6) for line in range(20)] == lines
    assert (False, 0) == (end.killed, end.exit_status)
    assert "sink=bad" in log
    assert "SECRET" not in log
    assert os.path.exists(path)
