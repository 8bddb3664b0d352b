"""The SIGTERM matrix: what the process does x who else handles signals.

One cell is one real process of the real runtime client: it records metrics
that no invocation flushes, is in some state when SIGTERM comes, and must lose
nothing, double nothing and end by itself.  Also a program, which leaves each
process the 500 ms that Lambda does, on any Python:

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
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read() or 0)
    except FileNotFoundError:  # the handler's module did not get so far
        return 0


class Cell:
    """One cell, wherever it runs: how it is told apart, and judged."""

    def __init__(self, folder, state, user, execution_env):
        self.folder = folder
        self.state = state
        self.user = user
        self.name = f"{state} {user} {execution_env}"
        self.mid_handler = state in MID_HANDLER
        self.notes = os.path.join(folder, self.name)  # how often it has recorded
        self.env = {"PYTHONPATH": ROOT, "CELL_USER": user, "CELL_NOTES": self.notes}
        self._noted = 0

    def wait(self):
        """Wait until the loop is well under way, if there is one."""
        if self.state == "record":
            eventually(lambda: noted(self.notes) > 1_000)
        self._noted = noted(self.notes)

    def wrong(self, lines):
        """Return what is wrong with what the process wrote."""
        expected = {"in": 3, "late": 5, "goodbye": 1}
        if self.mid_handler:
            expected = {"in": 6, "late": 5, "mid": 7, "goodbye": 1}
        found = totals(lines)
        loop = found.pop("loop", 0)
        most = noted(self.notes) + 1  # the last record may not have been noted
        if not self._noted <= loop <= most:
            yield f"{loop} of {self._noted} to {most} records came out"
        if found != expected:
            yield f"metrics {found}, expected {expected}"
        if lines.count("goodbye") != 1:
            yield f"the listener ran {lines.count('goodbye')} times"
        ran = sum(line.startswith("user ") for line in lines)
        if ran != (self.user in ("before", "after")):
            yield f"the user's handler ran {ran} times"
        for line in lines:
            # On a busy machine a share is used up before a flush is done; that
            # nothing is lost by it has been seen above.
            slow = "lambda_ext.listener_abandoned" in line
            if "Traceback" in line or ("lambda_ext." in line and not slow):
                yield f"an error was logged: {line}"

    def report(self, wrong, lines):
        """Return it in words, with everything that was written; "" if all is well."""
        wrong = "; ".join([*wrong, *self.wrong(lines)])
        return f"{self.name}: {wrong}\n  " + "\n  ".join(lines) if wrong else ""


def run_cell(folder, state, user, execution_env, python, share_s):
    """Run one cell in our emulator; return what was wrong, in words, or ""."""
    from lambda_ext.local.emulator import Budgets, Emulator

    cell = Cell(folder, state, user, execution_env)
    with Emulator(
        task_root=folder,
        command=(python, "-m", "awslambdaric", "app.handler"),
        execution_env=execution_env,
        env=cell.env,
        freeze=state in ("thawed", "before_thaw"),
        term_before_thaw=state == "before_thaw",
        timeout_s=60.0,
        budgets=Budgets(internal_s=share_s),
    ) as emulator:
        answer = emulator.invoke({"do": "idle"}, timeout=60.0)
        emulator.wait_frozen()
        if cell.mid_handler:
            emulator.invoke_async({"do": state})
            emulator.wait_for_line("ready")
        cell.wait()
        end = emulator.shutdown()
        lines = [line.text for line in emulator.lines]
    wrong = []
    if answer.status != "success":
        wrong.append(f"the invocation was a {answer.status}")
    if (end.killed, end.exit_status) != (False, 0):
        wrong.append(f"killed={end.killed} exit_status={end.exit_status}")
    return cell.report(wrong, lines)


def write_app(folder):
    """Put the handler's module into *folder*."""
    with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
        file.write(APP)


def run_cells(folder, execution_env, python=sys.executable, share_s=30.0):
    """Run all states and users in one environment; return what was wrong.

    That a process ended by itself can be seen in any *share_s* that is longer
    than its own budget; Lambda's is 0.5, too short for a test on a busy machine.
    """
    write_app(folder)
    cells = [(state, user) for state in STATES for user in USERS]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(
            lambda cell: run_cell(str(folder), *cell, execution_env, python, share_s),
            cells,
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
                wrong = run_cells(folder, execution_env, python, share_s=0.5)
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
