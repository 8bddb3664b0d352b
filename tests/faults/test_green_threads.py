"""gevent and eventlet: the library's threads are real ones, and nothing hangs."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest
from helpers import PATIENT, ROOT, installed
from sigterm_cells import totals

from lambda_ext.local.emulator import Budgets, Emulator

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

APP = """
import json, logging, os, signal, sys, threading, time
{before}
import lambda_ext
from lambda_ext import Secret, metrics
from lambda_ext.lifecycle import clock
{after}
{patient}

db = Secret("db", max_age=60)

@lambda_ext.on_shutdown
def goodbye():
    metrics.count("goodbye")

@lambda_ext.handler
def handler(event, context):
    metrics.count("served")
    found = []
    greenlets = [threading.Thread(target=lambda: found.append(db.value))
                 for _ in range(3)]
    for greenlet in greenlets:
        greenlet.start()
    for greenlet in greenlets:
        greenlet.join()
    status = lambda_ext.stats().lifecycle
    return [found, status.registration.state, status.shutdown.path]
"""


@pytest.fixture(name="environment")
def _environment(tmp_path):
    """Return a function that starts an environment around a program."""
    made = []
    (tmp_path / "seed.json").write_text(json.dumps({"secrets": {"db": "hunter2"}}))

    def make(program):
        (tmp_path / "app.py").write_text(textwrap.dedent(program))
        emulator = Emulator(
            task_root=str(tmp_path),
            command=(sys.executable, "-W", "ignore", "-m", "awslambdaric",
                     "app.handler"),
            env={
                "PYTHONPATH": ROOT,
                "LAMBDA_EXT_SOURCE": f"file:{tmp_path / 'seed.json'}",
                "LAMBDA_EXT_LOCAL_FILE_IN_LAMBDA": "1",
            },
            timeout_s=30.0,
            budgets=Budgets(internal_s=30.0, instances_share_s=30.0),
        )  # fmt: skip
        made.append(emulator)
        return emulator

    yield make
    for emulator in made:
        emulator.close()


@pytest.mark.process
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("library", PATCHES)
def test_environment_with_green_threads_lives_and_ends(library, moment, environment):
    """INIT, invocations, reads in greenlets and SIGTERM work as without a patch."""
    installed(library)
    patch = {"before": "", "after": "", moment: PATCHES[library]}
    emulator = environment(APP.format(**patch, patient=PATIENT))
    report = emulator.init()
    answers = [emulator.invoke({}).value for _ in range(2)]
    end = emulator.shutdown()

    assert "success" == report.status
    assert [[["hunter2"] * 3, "registered", "wakeup_fd"]] * 2 == answers
    assert (False, 0) == (end.killed, end.exit_status)
    assert {
        "served": 2,
        "goodbye": 1,
    } == totals([line.text for line in emulator.lines])


REFRESH = """
import sys, time
{before}
import lambda_ext
from lambda_ext import Secret, stats
from lambda_ext.testing import FakeClock, FakeSource
{after}

clock = FakeClock().__enter__()
source = FakeSource({{"db": "old"}}).__enter__()
db = Secret("db", max_age=100)

@lambda_ext.handler
def handler(event, context):
    first = db.value
    source.rotate("db", "new")
    clock.advance(95)
    second = db.value  # past 90 %: a refresh begins, and this hit waits for nothing
    for _ in range(3000):
        if stats().values.refreshes:
            break
        time.sleep(0.01)
    clock.advance(10)
    return [first, second, db.value]
"""


@pytest.mark.process
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("library", PATCHES)
def test_refresh_in_the_background_needs_no_greenlet(library, moment, environment):
    """The worker is a real thread: a hit that is due wakes it and goes on."""
    installed(library)
    patch = {"before": "", "after": "", moment: PATCHES[library]}
    emulator = environment(REFRESH.format(**patch))
    answer = emulator.invoke({})
    end = emulator.shutdown()

    assert ["old", "old", "new"] == answer.value
    assert (False, 0) == (end.killed, end.exit_status)
