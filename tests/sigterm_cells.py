"""The SIGTERM matrix: what the process does x who else handles signals.

One cell is one real process of the real runtime client: it records metrics
that no invocation flushes, is in some state when SIGTERM comes, and must lose
nothing, double nothing and end by itself.  Also a program, for every Python:

    python tests/sigterm_cells.py python3.10 python3.13
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from helpers import ROOT, eventually

STATES = ("idle", "busy", "sleep", "thawed", "before_thaw", "record", "c_call")
MID_HANDLER = ("busy", "sleep", "record", "c_call")
USERS = ("none", "before", "after", "asyncio")
EXECUTION_ENVS = ("AWS_Lambda_python3.11", "AWS_Lambda_python3.12",
                  "AWS_Lambda_Image", None)  # fmt: skip

APP = '''
import hashlib, os, signal, sys, time

import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import phases

USER = os.environ["CELL_USER"]


def on_sigterm(signum, frame):
    os.write(1, b"user %d\\n" % signum)
    sys.exit(0)


if USER == "before":
    signal.signal(signal.SIGTERM, on_sigterm)


@lambda_ext.on_shutdown
def goodbye():
    metrics.count("goodbye")
    os.write(1, b"goodbye\\n")


def late():
    """After the flush of the invocation: the buffer is full when it freezes."""
    for _ in range(5):
        metrics.count("late")


phases.listen(phases.RESPONSE, late, priority=phases.NETWORK)


def work(state):
    metrics.count("in", 3)
    if state == "idle":
        return
    metrics.count("mid", 7)
    os.write(1, b"ready\\n")
    while True:
        if state == "busy":
            sum(i for i in range(1000))
        elif state == "sleep":
            time.sleep(60)
        elif state == "c_call":
            sum(range(1_000_000))  # holds the GIL, about 20 ms
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 100_000)  # lets go, 50 ms
        elif state == "record":
            for _ in range(100):
                metrics.count("loop")
                progress[0] += 1
                os.pwrite(notes, b"%12d" % progress[0], 0)


progress = [0]
notes = os.open(os.environ["CELL_NOTES"], os.O_RDWR | os.O_CREAT)


@lambda_ext.handler
def handler(event, context):
    if USER != "asyncio":
        return work(event["do"])
    import asyncio

    async def inside():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
        work(event["do"])

    return asyncio.run(inside())


if USER == "after":
    signal.signal(signal.SIGTERM, on_sigterm)
'''


def metric_lines(lines):
    """Return the EMF documents among *lines*."""
    return [json.loads(text) for text in lines if text.startswith('{"_aws"')]


def totals(lines):
    """Return the sum of each metric over all documents among *lines*."""
    found = {}
    for document in metric_lines(lines):
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for metric in directive["Metrics"]:
                name = metric["Name"]
                found[name] = found.get(name, 0) + document[name]
    return found


def noted(path):
    """Return the number in the file at *path*, 0 without one."""
    with open(path, encoding="ascii") as file:
        return int(file.read() or 0)


def run_cell(folder, state, user, execution_env, python=sys.executable):
    """Run one cell; return what was wrong, in words, or ""."""
    from lambda_ext.local.emulator import Emulator

    name = f"{state} {user} {execution_env}"
    done = 1 if state not in MID_HANDLER else 2  # invocations that began
    notes = os.path.join(folder, name)  # how often the loop has recorded
    with Emulator(
        task_root=folder,
        command=(python, "-m", "awslambdaric", "app.handler"),
        execution_env=execution_env,
        env={"PYTHONPATH": ROOT, "CELL_USER": user, "CELL_NOTES": notes},
        freeze=state in ("thawed", "before_thaw"),
        term_before_thaw=state == "before_thaw",
        timeout_s=60.0,
    ) as emulator:
        answer = emulator.invoke({"do": "idle"}, timeout=60.0)
        emulator.wait_frozen()
        if done == 2:
            emulator.invoke_async({"do": state})
            emulator.wait_for_line("ready")
        if state == "record":
            eventually(lambda: noted(notes) > 1_000)
        before = noted(notes)
        end = emulator.shutdown()
        lines = [line.text for line in emulator.lines]
    expected = {"in": 3 * done, "late": 5, "goodbye": 1}
    if done == 2:
        expected["mid"] = 7
    found = totals(lines)
    loop = found.pop("loop", 0)
    wrong = []
    if not before <= loop <= noted(notes) + 1:
        wrong.append(f"{loop} of {before} to {noted(notes) + 1} records came out")
    if answer.status != "success":
        wrong.append(f"the invocation was a {answer.status}")
    if found != expected:
        wrong.append(f"metrics {found}, expected {expected}")
    if (end.killed, end.exit_status) != (False, 0):
        wrong.append(f"killed={end.killed} exit_status={end.exit_status}")
    if lines.count("goodbye") != 1:
        wrong.append(f"the listener ran {lines.count('goodbye')} times")
    ran = sum(line.startswith("user ") for line in lines)
    if ran != (user in ("before", "after")):
        wrong.append(f"the user's handler ran {ran} times")
    if any("Traceback" in line or "lambda_ext." in line for line in lines):
        wrong.append("errors were logged")
    return f"{name}: {'; '.join(wrong)}\n  " + "\n  ".join(lines) if wrong else ""


def run_cells(folder, execution_env, python=sys.executable, at_once=4):
    """Run all states and users in one environment; return what was wrong."""
    with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
        file.write(APP)
    cells = [(state, user) for state in STATES for user in USERS]
    with ThreadPoolExecutor(at_once) as pool:
        results = pool.map(
            lambda cell: run_cell(str(folder), *cell, execution_env, python), cells
        )
        return [result for result in results if result]


def main(pythons):
    """Run the whole matrix on each of *pythons* and print a table."""
    import tempfile
    import time

    status = 0
    for python in pythons:
        for execution_env in EXECUTION_ENVS:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                wrong = run_cells(folder, execution_env, python)
            cells = len(STATES) * len(USERS)
            print(
                f"{python} AWS_EXECUTION_ENV={execution_env or '-'}:"
                f" {cells - len(wrong)} of {cells} cells"
                f" in {time.monotonic() - began:.1f} s",
                flush=True,
            )
            for text in wrong:
                status = 1
                print("  " + text)
    return status


if __name__ == "__main__":
    sys.path.insert(0, ROOT)
    sys.exit(main(sys.argv[1:] or [sys.executable]))
