"""
Random records from eight threads, with flushes, freezes, time-outs and SIGTERMs.

A real process of the real runtime client, EMF on its stdout and a collector on
loopback: the sums at both are those of what was recorded.
"""

from __future__ import annotations

import json
import os
import random

import collector
import pytest
from helpers import PATIENT, ROOT
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
    """
    Run the steps in an order by *seed*; return the jobs, the lines and OTLP's sums.

    None where the machine was too busy to do so in the time that there is.
    """
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
            timeout_s=3.0,
            budgets=Budgets(internal_s=30.0),  # longer than Lambda's, for busy machines
        ) as emulator,
    ):
        for number, step in enumerate(steps):
            if step == "SIGTERM":
                emulator.shutdown()
                continue
            # What is under way at SIGTERM has to end in a part of 300 ms.
            most = 40 if steps[number + 1 :][:1] in ([], ["SIGTERM"]) else 400
            job = (f"{seed} {number}", rng.randrange(1, most))
            jobs.append(job)
            event = {"do": step, "seed": job[0], "count": job[1]}
            answer = emulator.invoke(event)
            emulator.wait_frozen()
            outcome = {"time out": "timeout", "raise": "error"}.get(step, "success")
            if answer.status != outcome:
                return None  # timed out: the machine is busy
        emulator.shutdown()
        lines = [line.text for line in emulator.lines]
        processes = len(emulator.inits)
        sums = behind.sums()
    # Not what the library records by itself before a time-out.
    sums = {key: value for key, value in sums.items() if "." in key[0]}
    ends = [line for line in lines if line.startswith("pending ")]
    slow = any("listener_abandoned" in line for line in lines)
    if slow or ends != ["pending 0 dropped 0"] * processes:
        return None  # the time at the end was too short
    return jobs, lines, sums


def emf_sums(lines):
    """Return {(name, {(key, value), ...}): sum} of what is written."""
    found = {}
    for line in lines:
        document = json.loads(line) if line.startswith('{"_aws"') else None
        if document is None:
            continue
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        if directive["Namespace"] != "Random":
            continue
        (names,) = directive["Dimensions"]
        dimensions = frozenset((name, document[name]) for name in names)
        for metric in directive["Metrics"]:
            value = document[metric["Name"]]
            key = (metric["Name"], dimensions)
            total = sum(value) if isinstance(value, list) else value
            found[key] = found.get(key, 0) + total
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_at_the_sinks_are_those_of_what_was_recorded(tmp_path, seed):
    """For EMF and for OTLP, with all that happens in between."""
    (tmp_path / "app.py").write_text(PATIENT + APP)
    for _ in range(ATTEMPTS):
        ran = run(str(tmp_path), seed)
        if ran is not None:
            break
    assert ran is not None
    jobs, lines, sums = ran

    assert expected(jobs) == emf_sums(lines)
    assert expected(jobs) == sums
