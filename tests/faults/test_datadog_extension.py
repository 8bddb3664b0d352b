"""A real process beside Datadog's extension: what SIGTERM finds is sent to it."""

from __future__ import annotations

import collections
import socket

import emulated
import pytest
from helpers import PATIENT, ROOT

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process

APP = """
import os
import threading

import lambda_ext
from lambda_ext import metrics
from lambda_ext.metrics.datadog import DatadogSink

lambda_ext.configure(
    sinks=["emf", DatadogSink(flush_to_log=False, port=int(os.environ["PORT"]))]
)


@lambda_ext.handler
def handler(event, context):
    metrics.count("orders", 2, channel=event)
    if event == "last":
        threading.Thread(target=late).start()


def late():
    with open(os.environ["GATE"]):  # after the invocation's flush
        pass
    for number in range(100):
        metrics.count("late", number, article=number)
    print("recorded")


@lambda_ext.on_shutdown
def goodbye():
    metrics.count("goodbye")
"""


def test_nothing_is_lost_on_the_way_to_the_extension(tmp_path):
    """At the end of invocations, across freezes and at SIGTERM, each record once."""
    (tmp_path / "app.py").write_text(PATIENT + APP)
    gate = emulated.Gate(str(tmp_path))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as extension:
        extension.bind(("127.0.0.1", 0))
        with Emulator(
            task_root=str(tmp_path),
            env={
                "GATE": gate.path,
                "PORT": str(extension.getsockname()[1]),
                "PYTHONPATH": ROOT,
            },
            timeout_s=60.0,
            budgets=Budgets(internal_s=30.0),  # longer than Lambda's: busy machines
        ) as emulator:
            for event in ("web", "shop", "last"):
                emulator.invoke(event)
                emulator.wait_frozen()
            emulator.thaw()
            gate.open()
            emulator.wait_for_line("recorded")
            end = emulator.shutdown()
        expected = {"orders": 6, "late": sum(range(100)), "goodbye": 1}
        found = collections.Counter()
        extension.settimeout(30)
        while found != expected:  # else it times out
            for line in extension.recv(2_000).decode().split("\n"):
                name, value = line.partition("|d|#")[0].split(":")
                found[name] += int(value)
        extension.settimeout(0)

        assert (False, 0) == (end.killed, end.exit_status)
        with pytest.raises(BlockingIOError):
            extension.recv(2_000)
