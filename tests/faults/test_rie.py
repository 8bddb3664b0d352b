"""SIGTERM from AWS's own Runtime Interface Emulator: the same flush, nothing lost.

It never freezes, and leaves the runtime 600 ms; all the rest of the matrix of
test_sigterm.py holds here as well.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import ROOT, eventually
from rie import Rie, binary, let_all_read
from sigterm_cells import EXECUTION_ENVS, STATES, USERS, Cell, totals, write_app

pytestmark = pytest.mark.process

# The emulator does not tell how its runtime ended; the shell around it does.
STATUS = 'trap : TERM; "$@"; echo "status $?"'


def command(python=sys.executable):
    """Return the runtime's command."""
    return ["sh", "-c", STATUS, "sh", python, "-m", "awslambdaric", "app.handler"]


def call_until_the_end(rie, state):
    """Invoke the function, which does not answer."""
    with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError):
        rie.invoke({"do": state})


def run_cell(folder, state, user, execution_env):
    """Run one cell; return what was wrong, in words, or ""."""
    cell = Cell(folder, state, user, execution_env)
    env = {**cell.env, "AWS_EXECUTION_ENV": execution_env}
    with Rie(task_root=folder, command=command(), env=env, timeout_s=60) as rie:
        status, _ = rie.invoke({"do": "idle"})
        if cell.mid_handler:
            caller = threading.Thread(target=call_until_the_end, args=(rie, state))
            caller.start()
            eventually(lambda: "ready" in rie.output)
        cell.wait()
        rie.terminate()
        output = rie.output
        if cell.mid_handler:
            caller.join()
    wrong = [] if status == 200 else [f"the invocation was answered with {status}"]
    if "status 0" not in output:  # its writers' lines may be merged
        wrong.append("the runtime did not end by itself with status 0")
    return cell.report(wrong, output.splitlines())


@pytest.mark.parametrize("execution_env", EXECUTION_ENVS)
def test_nothing_is_lost_and_nothing_doubled(execution_env, tmp_path):
    """In every state that it knows, beside every other user of signals."""
    binary()  # skips here, not in a thread
    write_app(tmp_path)
    folder = str(tmp_path)
    states = [state for state in STATES if "thaw" not in state]
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(
                lambda cell: run_cell(folder, *cell, execution_env),
                [(state, user) for state in states for user in USERS],
            )
        )

    assert [] == [result for result in results if result]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Managed Instances: 3.13")
def test_workers_of_a_managed_instance_all_flush(tmp_path):
    """One of them registers; SIGTERM reaches all, and each writes what it has."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            """
            import os

            import lambda_ext
            from lambda_ext import metrics

            @lambda_ext.on_shutdown
            def goodbye():
                metrics.count("goodbye")

            @lambda_ext.handler
            def handler(event, context):
                return "answer"

            metrics.count("imported")
            os.write(1, b"up\\n")
            """
        )
    )
    let_all_read(tmp_path)
    with Rie(task_root=str(tmp_path), env={"PYTHONPATH": ROOT}, instances=2) as rie:
        status, body = rie.invoke({})
        eventually(lambda: rie.output.count("up\n") == 2)
        rie.terminate()
        found = totals(line.strip() for line in rie.output.splitlines())

    assert (200, b'"answer"') == (status, body)
    assert {"imported": 2, "goodbye": 2} == found
