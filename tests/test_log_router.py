"""examples/log_router in real processes: every line once, or counted."""

from __future__ import annotations

import collections
import json
import os
import threading

import pytest
from helpers import ROOT
from log_entries import body_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from wire import Wire, failing, response

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process

EXAMPLE = os.path.join(ROOT, "examples", "log_router", "app.py")
# The example itself, with more time at the end than Lambda grants: what is tested is
# what becomes of each line, and not how fast a busy machine is.
PATIENT = f"""
from lambda_ext.lifecycle import shutdown
from lambda_ext.telemetry import subscription

shutdown.BUDGET_S = 25.0
subscription.GRACE_S = 1.0
with open({EXAMPLE!r}) as file:
    exec(compile(file.read(), {EXAMPLE!r}, "exec"))
"""
INVOCATIONS, LINES = 50, 200


class Receiver(Wire):
    """Takes errors, logs and spans, each at a path of its own."""

    def __init__(self, folder):
        (folder / "app.py").write_text(PATIENT)
        self.folder = str(folder)
        self.lines = collections.defaultdict(collections.Counter)
        self.spans = []
        self._guard = threading.Lock()
        super().__init__(self.take)

    def take(self, request):
        with self._guard:
            if request.target == "/v1/traces":
                found = ExportTraceServiceRequest.FromString(body_of(request))
                for resource in found.resource_spans:
                    for scope in resource.scope_spans:
                        self.spans += scope.spans
            else:
                for line in body_of(request).splitlines():
                    found = json.loads(line)
                    message = found.get("record", found)["message"]
                    self.lines[request.target][message] += 1
        return response(200, b"")

    def emulate(self, **env):
        return Emulator(
            "app.handler",
            self.folder,
            timeout_s=60.0,
            budgets=Budgets(internal_s=30.0),
            env={
                "PYTHONPATH": ROOT,
                "ERRORS": self.url + "/errors",
                "LOGS": self.url + "/logs",
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
                **env,
            },
        )


def run(emulator):
    """Make the invocations, with freezes between them, and end with SIGTERM."""
    for number in range(INVOCATIONS):
        name = f"n{number}"
        answer = emulator.invoke({"name": name, "lines": LINES})
        assert name == json.loads(answer.payload)
        if number % 5 == 0:
            emulator.wait_frozen()
    emulator.wait_frozen()
    return emulator.shutdown()


def accounts(emulator):
    """Return what the function says of its routes in its last line."""
    (line,) = [
        line.text for line in emulator.lines if line.text.startswith('{"routes"')
    ]
    return json.loads(line)["routes"]


def documents(emulator):
    """Return the metrics of the platform that the function wrote."""
    return [
        json.loads(line.text)
        for line in emulator.lines
        if line.text.startswith('{"_aws"') and "platform." in line.text
    ]


def expected(error):
    """Return the messages of all errors, or of all other lines."""
    return {
        f"n{number} {line}"
        for number in range(INVOCATIONS)
        for line in range(LINES)
        if (line % 10 == 9) == error
    }


def test_every_line_arrives_once_where_it_belongs(tmp_path):
    """10,000 lines in bursts, with freezes and a SIGTERM: none is lost, none is doubled."""
    with Receiver(tmp_path) as receiver, receiver.emulate() as emulator:
        end = run(emulator)
        routes = accounts(emulator)
        measured = documents(emulator)

    assert (False, 0) == (end.killed, end.exit_status)
    assert expected(error=True) == {*receiver.lines["/errors"]}
    assert expected(error=False) == {*receiver.lines["/logs"]}
    assert {1} == {
        *receiver.lines["/errors"].values(),
        *receiver.lines["/logs"].values(),
    }
    assert (1_000, 9_000) == (routes["errors"]["sent"], routes["logs"]["sent"])
    # One document for each report, with the time and the invocation of that report.
    reports = [each for each in measured if "platform.duration" in each]
    assert INVOCATIONS == len({each["request_id"] for each in reports})
    assert INVOCATIONS == len(reports)
    # One span for each invocation, and one for INIT.
    names = collections.Counter(span.name for span in receiver.spans)
    assert len(receiver.spans) == len({span.span_id for span in receiver.spans})
    assert 1 == names["init"]
    assert INVOCATIONS in names.values()


def test_what_the_policy_drops_is_counted(tmp_path):
    """With little room and a receiver that fails, what arrived and what was dropped add up."""
    with Receiver(tmp_path) as receiver:
        receiver.faults += [failing(503)] * 3
        with receiver.emulate(LIMIT="300") as emulator:
            run(emulator)
            routes = accounts(emulator)

    logs = routes["logs"]
    arrived = receiver.lines["/logs"]
    assert {1} == {*arrived.values()}
    assert logs["sent"] == len(arrived)
    assert 9_000 == logs["taken"] == (
        len(arrived) + sum(logs["dropped"].values()) + sum(logs["lost"].values())
        + logs["waiting"] + logs["pending"]
    )  # fmt: skip
    assert 1_000 == len(receiver.lines["/errors"]) + routes["errors"]["pending"] + sum(
        routes["errors"]["lost"].values()
    )
