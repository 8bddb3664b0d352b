"""`make demo`, as a person starts it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys

import pytest
from helpers import ROOT

from lambda_ext.local.emf_check import Series, Total
from lambda_ext.local.run import Plan

DEMO = os.path.join(ROOT, "examples", "orders", "demo.py")


@pytest.fixture(scope="module")
def demo():
    """The demo as a module."""
    spec = importlib.util.spec_from_file_location("orders_demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(os.path.dirname(DEMO))
        spec.loader.exec_module(module)
    return module


@pytest.mark.process
def test_demo_proves_what_it_claims(tmp_path):
    """Status 0, each claim with a yes, both clients measured, no value shown."""
    environment = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "LAMBDA_EXT_DISABLE": "extension",  # of the shell: not for the demo
    }
    done = subprocess.run(
        [sys.executable, DEMO, "--rounds", "1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    out = done.stdout
    claims = re.findall(r"^  (yes|NO) +(.*?)  ", out.partition("PROVEN")[2], re.M)

    assert 0 == done.returncode, out + done.stderr
    assert [
        ("yes", "5 invocations, of which 1 raised"),
        ("yes", "every metric came out exactly once"),
        ("yes", "100 of them recorded after the last response, written at SIGTERM"),
        ("yes", "the secret was fetched once"),
        ("yes", "AWS was called without boto3"),
        ("yes", "the runtime ended by itself, within its budget"),
        ("yes", "a collector got the same metrics by OTLP"),
        ("yes", "a flag flipped between two invocations of one process"),
        ("yes", "no invocation waited for the poll that brought it"),
        ("yes", "metrics of a time-out survived, though SIGKILL ended the process"),
    ] == claims
    assert re.search(
        r"stock\.checked +Count +article=\(100 values\).* 100  100$", out, re.M
    )
    assert re.search(r"^  stock\.checked +sum +100 +100$", out, re.M)
    assert re.search(r"^  lambda_ext \(light\) +[\d.]+ ms", out, re.M)
    assert re.search(r"^  lambda_ext\.client\(\) +[\d.]+ ms", out, re.M)
    assert re.search(r"^  Boto3 [\d.]+ +[\d.]+ ms", out, re.M)
    assert out.endswith("good\n")
    assert "not-a-real-password" not in out + done.stderr
    assert "\x1b" not in out + done.stderr


@pytest.mark.process
def test_demo_fails_without_registration(demo):
    """Without the extension Lambda sends no SIGTERM, and the demo sees the loss."""
    plan = demo.orders_plan()
    environment = {**plan.environment, "LAMBDA_EXT_DISABLE": "extension"}
    plan = dataclasses.replace(plan, environment=environment)
    result = demo.run_orders(plan, lambda step: None)

    assert [
        ("5 invocations, of which 1 raised", True),
        ("every metric came out exactly once", False),
        ("100 of them recorded after the last response, written at SIGTERM", False),
        ("the secret was fetched once", True),
        ("AWS was called without boto3", True),
        ("the runtime ended by itself, within its budget", False),
    ] == [(check.claim, check.holds) for check in demo.proofs(result, plan.events)]


@pytest.mark.process
@pytest.mark.parametrize(
    ("way", "calls", "without_boto3"),
    [("boto3", 4, False), ("cached", 1, False), ("patch", 1, False), ("client", 1, True)],
)  # fmt: skip
def test_a_boto3_client_in_its_place(demo, way, calls, without_boto3):
    """Written for boto3, it passes with each drop-in: same answers, fewer calls."""
    plan = demo.orders_plan()
    reference = demo.run_orders(plan, lambda step: None)
    environment = {**plan.environment, "ORDERS_CLIENT": way}
    plan = dataclasses.replace(
        plan, handler="with_client.handler", environment=environment, timeout_s=30.0
    )
    result = demo.run_orders(plan, lambda step: None)

    assert answers(reference) == answers(result)
    assert [
        ("5 invocations, of which 1 raised", True),
        ("every metric came out exactly once", True),
        ("100 of them recorded after the last response, written at SIGTERM", True),
        ("the secret was fetched once", calls == 1),
        ("AWS was called without boto3", without_boto3),
        ("the runtime ended by itself, within its budget", True),
    ] == [(check.claim, check.holds) for check in demo.proofs(result, plan.events)]
    assert [("prod/orders/db",)] * calls == [call.names for call in result.calls]


def answers(result):
    """Return what each invocation answered, its error without the trace."""
    return [
        (each.value["order"], each.value["stored_by"])
        if each.status == "success" else (each.error_type, each.value["errorMessage"])
        for each in result.invocations
    ]  # fmt: skip


class TestProofs:
    """The demo's own judgement, on results that are not as they should be."""

    @pytest.mark.parametrize(
        ("sums", "holds"),
        [
            ({}, True),
            ({"007": 0.0}, False),
            ({"007": 2.0}, False),
            ({"007": 2.0, "008": 0.0}, False),
            ({"100": 1.0}, False),
        ],
    )
    def test_lost_or_doubled_metric_is_seen(self, demo, sums, holds):
        """One metric lost, doubled, unknown, or two that even out, is seen."""
        from types import SimpleNamespace

        event = {"channel": "web", "items": ["a"], "check_stock": True}
        totals = {}
        for (name, dimensions), value in demo.expected_sums([event]).items():
            article = dict(dimensions).get("article")
            total = Total(1, sums.get(article, value), 0.0, 0.0)
            totals[Series("orders", dimensions, name, "Count")] = total
        for article in sums.keys() - {f"{n:03}" for n in range(100)}:
            dimensions = (("article", article), ("service", "orders"))
            totals[Series("orders", dimensions, "stock.checked", "Count")] = Total(
                1, 1.0
            )
        result = SimpleNamespace(
            plan=Plan("app.handler"),
            totals=totals,
            invocations=(),
            calls=(),
            lines=(),
            emf=(),
            answered_at=(),
            shutdown=SimpleNamespace(
                signalled=True, killed=False, exit_status=0, duration_s=0, share_s=1
            ),
        )
        checks = {check.claim: check for check in demo.proofs(result, [event])}

        assert holds == checks["every metric came out exactly once"].holds


@pytest.mark.process
def test_interruption_ends_the_demo(tmp_path):
    """Ctrl-C ends the whole demo, with one word, and leaves no process behind."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += f"import runpy; runpy.run_path({DEMO!r}, run_name='__main__')"
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        # run_path() does not look beside the file, as python itself does.
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.path.dirname(DEMO)}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in command.stderr:
            if "invocation 1 of 5" in line:
                break
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
    finally:
        command.kill()

    assert 1 == command.returncode
    assert "" == out
    assert err.endswith("\ninterrupted\n")
    assert "Traceback" not in err
