"""SIGTERM with 10,000 records waiting and a collector that hangs: EMF is complete."""

from __future__ import annotations

import json

import collector
import emulated
import pytest
from helpers import ROOT
from wire import cut, silent

from lambda_ext.local.emulator import Emulator

pytestmark = pytest.mark.process

RECORDS = 10_000  # as many as wait before the recording thread flushes
APP = f"""
import os
import threading

import lambda_ext
from lambda_ext import metrics


@lambda_ext.handler
def handler(event, context):
    threading.Thread(target=late, args=(event["kind"],)).start()


def late(kind):
    # After the invocation's flush; no other one comes before SIGTERM.
    with open(os.environ["GATE"]):
        pass
    for number in range({RECORDS}):
        if kind == "series":
            metrics.count("n", 1, shop=f"shop-{{number % 2_000}}", page=number % 2)
        else:
            metrics.distribution("n", 1)
    print("recorded")
"""
ATTEMPTS = 5  # a machine may be so busy that Lambda's budget is not enough


@pytest.mark.parametrize("external", [False, True], ids=["500ms", "2s"])
@pytest.mark.parametrize("fault", [silent, cut(20, silent)], ids=["silent", "cut"])
@pytest.mark.parametrize("kind", ["series", "values"])
def test_process_ends_by_itself_and_emf_is_complete(tmp_path, kind, fault, external):
    """Within Lambda's budgets, without and with an external extension."""
    (tmp_path / "app.py").write_text(APP)
    for attempt in range(ATTEMPTS):
        gate = emulated.Gate(str(tmp_path), f"gate{attempt}")
        with collector.Collector() as hanging:
            hanging.fault = fault
            with Emulator(
                task_root=str(tmp_path),
                env={
                    **emulated.OUTER,
                    "EVENTS": '["SHUTDOWN"]',
                    "GATE": gate.path,
                    "PYTHONPATH": ROOT,
                    "LAMBDA_EXT_SINKS": "emf,otlp",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": hanging.url,
                },
                timeout_s=60.0,
                freeze=False,
                extensions_dir=emulated.EXTENSIONS if external else None,
            ) as emulator:
                emulator.invoke({"kind": kind})
                gate.open()
                emulator.wait_for_line("recorded")
                end = emulator.shutdown()
                written = total(emulated.texts(emulator, "stdout"))
            asked = len(hanging.requests)
        if (end.killed, written, asked) == (False, RECORDS, 1):
            break
        print(f"attempt {attempt}: {end}, {written} records came out")

    assert (False, 0, RECORDS, 1) == (end.killed, end.exit_status, written, asked)


def total(lines):
    """Return the sum of the metric "n" over all documents among *lines*."""
    found = 0
    for line in lines:
        if line.startswith('{"_aws"'):
            value = json.loads(line)["n"]
            found += sum(value) if isinstance(value, list) else value
    return found
