"""
Random records from eight threads, with flushes, freezes, time-outs and SIGTERMs.

A real process of the real runtime client, EMF on its stdout and a collector on
loopback: the sums at both are those of what was recorded.
"""

from __future__ import annotations

import os
import random

import collector
import emf_rules
import pytest
from helpers import ROOT
from random_records import expected

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process

APP = """
import json, os, queue, signal, sys, threading

import lambda_ext
from lambda_ext import metrics
from lambda_ext.metrics import otlp
from random_records import THREADS, records

lambda_ext.configure(sinks=["emf", otlp.OtlpSink(every=0)])
shop = lambda_ext.Metrics("Random", service="")
jobs = [queue.Queue() for _ in range(THREADS)]


def work(number):
    while True:
        seed, count = jobs[number].get()
        for kind, name, value, dimensions in records(seed, number, count):
            if kind == "flush":
                metrics.flush(timeout=value)
            else:
                getattr(shop, kind)(name, value, **dimensions)
        jobs[number].task_done()


for number in range(THREADS):
    threading.Thread(target=work, args=(number,), daemon=True).start()


def join():
    for each in jobs:
        each.join()


lambda_ext.on_shutdown(join)  # a program lets its work end


def told(signum, frame):
    # After all flushes and all waiting.
    sink = lambda_ext.stats().metrics.sinks["otlp"]
    os.write(2, b"pending %d dropped %d\\n" % (sink.pending, sink.dropped))
    sys.exit(0)


signal.signal(signal.SIGTERM, told)


@lambda_ext.handler
def handler(event, context):
    for each in jobs:
        each.put((event["seed"], event["count"]))
    if event["do"] == "linger":  # the freeze comes in the midst of it
        return
    if event["do"] == "time out":
        threading.Event().wait()
    join()
    if event["do"] == "raise":
        raise ValueError("as it was told")
"""
STEPS = ["return"] * 5 + ["raise"] * 2 + ["linger"] * 6 + ["time out", "SIGTERM"]
ATTEMPTS = 5  # where a machine is so busy that the time at the end is too short


def run(folder, seed):
    """Run the steps in an order by *seed*; return the jobs, the lines and the messages."""
    rng = random.Random(seed)
    steps = rng.sample(STEPS, len(STEPS))
    # SIGTERM, also the last one, comes in the midst of a job.
    steps.append("linger")
    jobs = []
    with (
        collector.Collector() as behind,
        Emulator(
            task_root=folder,
            env={
                "PYTHONPATH": os.pathsep.join([ROOT, os.path.join(ROOT, "tests")]),
                "OTEL_EXPORTER_OTLP_ENDPOINT": behind.url,
            },
            timeout_s=1.5,
            budgets=Budgets(internal_s=30.0),  # longer than Lambda's, for busy machines
        ) as emulator,
    ):
        for number, step in enumerate(steps):
            if step == "SIGTERM":
                emulator.shutdown()
                continue
            job = (f"{seed} {number}", rng.randrange(1, 400))
            jobs.append(job)
            event = {"do": step, "seed": job[0], "count": job[1]}
            answer = emulator.invoke(event)
            emulator.wait_frozen()
            outcome = {"time out": "timeout", "raise": "error"}.get(step, "success")
            if answer.status != outcome and step != "time out":
                return None  # timed out
        emulator.shutdown()
        lines = [line.text for line in emulator.lines]
        return jobs, lines, behind.sums()


def emf_sums(lines):
    """Return {(name, {(key, value), ...}): sum} of what is written."""
    text = "".join(f"{line}\n" for line in lines if line.startswith('{"_aws"'))
    return {
        (name, dimensions): sum(values)
        for (_, dimensions, name, _), values in emf_rules.values(text).items()
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_sums_at_the_sinks_are_those_of_what_was_recorded(tmp_path, seed):
    """For EMF and for OTLP, whatever happens in between."""
    (tmp_path / "app.py").write_text(APP)
    for _ in range(ATTEMPTS):
        ran = run(str(tmp_path), seed)
        if ran is None:
            continue
        jobs, lines, sums = ran
        ends = [line for line in lines if line.startswith("pending ")]
        slow = any("listener_abandoned" in line for line in lines)
        if not slow and ends == ["pending 0 dropped 0"] * 3:
            break

    assert ["pending 0 dropped 0"] * 3 == ends
    assert expected(jobs) == emf_sums(lines)
    assert expected(jobs) == sums
