"""Forked children end without ending their parent, and flush nothing twice."""

from __future__ import annotations

import sys
import textwrap

import pytest
from helpers import PATIENT, ROOT
from sigterm_cells import totals

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process

BUDGETS = Budgets(internal_s=30.0)  # longer than Lambda's, for busy machines
PREAMBLE = (
    PATIENT
    + """
import multiprocessing, os, signal, subprocess, sys, threading, time, warnings
import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import extension, shutdown

# Python 3.12 warns of forks in a process with threads, which is ours.
warnings.simplefilter("ignore", DeprecationWarning)


@lambda_ext.on_shutdown
def goodbye():
    metrics.count("goodbye")


def still_here():
    metrics.count("after")
    return "still here"
"""
)


@pytest.fixture(params=["AWS_Lambda_python3.13", None])
def run(request, tmp_path):
    """Run a handler's body once, end the environment, and return both reports."""

    def run(body, expected, head=""):
        (tmp_path / "app.py").write_text(
            PREAMBLE
            + textwrap.dedent(head)
            + "\n\n@lambda_ext.handler\ndef handler(event, context):\n"
            + textwrap.indent(textwrap.dedent(body), "    ")
        )
        with Emulator(
            task_root=str(tmp_path),
            command=(sys.executable, "-m", "awslambdaric", "app.handler"),
            execution_env=request.param,
            env={"PYTHONPATH": ROOT},
            timeout_s=30.0,
            budgets=BUDGETS,
        ) as emulator:
            answer = emulator.invoke({}, timeout=30.0)
            emulator.wait_frozen()
            end = emulator.shutdown()
            lines = [line.text for line in emulator.lines]

        assert "still here" == answer.value, (answer.payload, lines)
        assert (False, 0) == (end.killed, end.exit_status), lines
        assert totals(lines) == {"after": 1, "goodbye": 1, **expected}, lines
        return lines

    return run


def test_terminated_pool_leaves_its_parent_alone(run):
    """multiprocessing's pool.terminate() sends SIGTERM to every worker."""
    run(
        """
        metrics.count("before")
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert pool.map(abs, range(-8, 0)) == list(range(8, 0, -1))
            pool.terminate()
            pool.join()
        return still_here()
        """,
        {"before": 1},
    )


def test_child_terminated_as_soon_as_it_exists_dies_alone(run):
    """SIGTERM before the child has run any code ends the child, and only it."""
    run(
        """
        context = multiprocessing.get_context("fork")
        for _ in range(20):
            child = context.Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join(20)
            assert child.exitcode == -signal.SIGTERM, child.exitcode
        for _ in range(20):
            pid = os.fork()
            if not pid:
                time.sleep(60)
                os._exit(3)
            os.kill(pid, signal.SIGTERM)
            assert os.waitpid(pid, 0)[1] == signal.SIGTERM
        return still_here()
        """,
        {},
    )


def test_users_handler_is_back_in_the_child(run):
    """A child handles SIGTERM as it would without this library."""
    run(
        """
        child = multiprocessing.get_context("fork").Process(target=wait)
        child.start()
        ready.wait(20)
        child.terminate()
        child.join(20)
        assert child.exitcode == 42, child.exitcode
        return still_here()
        """,
        {},
        head="""
        ready = multiprocessing.get_context("fork").Event()
        parent = os.getpid()


        def on_sigterm(signum, frame):
            if os.getpid() != parent:
                os._exit(42)


        signal.signal(signal.SIGTERM, on_sigterm)


        def wait():
            ready.set()
            while True:
                time.sleep(0.01)
        """,
    )


def test_child_that_ends_flushes_its_own_records_only(run):
    """The parent's buffer is the parent's; a worker's is written at its end."""
    run(
        """
        metrics.count("parents", 3)
        child = multiprocessing.get_context("fork").Process(
            target=metrics.count, args=("childs",)
        )
        child.start()
        child.join(20)
        assert child.exitcode == 0, child.exitcode
        pid = os.fork()
        if not pid:
            metrics.count("childs")
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return still_here()
        """,
        {"parents": 3, "childs": 2},
    )


def test_fork_of_another_thread_is_no_different(run):
    """The child of a worker thread lets go of everything, too."""
    run(
        """
        codes = []

        def fork():
            pid = os.fork()
            if not pid:
                time.sleep(60)
                os._exit(3)
            os.kill(pid, signal.SIGTERM)
            codes.append(os.waitpid(pid, 0)[1])

        threads = [threading.Thread(target=fork) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [signal.SIGTERM] * 8, codes
        return still_here()
        """,
        {},
    )


def test_subprocess_inherits_no_blocked_signal_and_no_descriptor(run):
    """What is started sees SIGTERM and none of our pipes and sockets."""
    lines = run(
        """
        ours = [signals._read_fd, signals._write_fd, extension._connection.fileno()]
        assert [os.get_inheritable(fd) for fd in ours] == [False] * 3
        program = (
            "import os, signal;"
            "print('mask', signal.pthread_sigmask(signal.SIG_BLOCK, []),"
            " signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
        )
        for options in ({}, {"preexec_fn": int}, {"close_fds": False}):
            subprocess.run([sys.executable, "-c", program], check=True, **options)
        for _ in range(10):
            child = subprocess.Popen(["sleep", "60"], preexec_fn=int)
            child.terminate()
            assert child.wait(20) == -signal.SIGTERM
        return still_here()
        """,
        {},
        head="from lambda_ext.lifecycle import signals",
    )

    assert ["mask set() True"] * 3 == [
        line for line in lines if line.startswith("mask")
    ]


def test_child_knows_that_it_is_not_the_extension(run):
    """The registration is the parent's; the child says so."""
    lines = run(
        """
        pid = os.fork()
        if not pid:
            text = f"child {extension.status().state} {shutdown.status().path}\\n"
            os.write(1, text.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return still_here()
        """,
        {},
    )

    assert "child forked off" in lines


def test_sigterm_in_the_middle_of_forking_flushes_once(tmp_path):
    """The parent flushes and ends by itself; a child takes nothing of it along."""
    (tmp_path / "app.py").write_text(
        PREAMBLE
        + textwrap.dedent(
            """
            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                os.write(1, b"ready\\n")
                while True:
                    pid = os.fork()
                    if not pid:
                        time.sleep(60)
                        os._exit(3)
                    os.kill(pid, signal.SIGTERM)
                    os.waitpid(pid, 0)
            """
        )
    )
    with Emulator(
        task_root=str(tmp_path),
        command=(sys.executable, "-m", "awslambdaric", "app.handler"),
        env={"PYTHONPATH": ROOT},
        timeout_s=30.0,
        budgets=BUDGETS,
    ) as emulator:
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        end = emulator.shutdown()
        lines = [line.text for line in emulator.lines]

    # Not `killed`: a child that is forked after the signal never hears of it.
    assert 0 == end.exit_status
    assert {"begun": 1, "goodbye": 1} == totals(lines)


def test_spawned_child_joins_nothing(tmp_path):
    """It imports the handler: no registration, no signal handler, no callback."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, signal
            import lambda_ext

            @lambda_ext.on_shutdown
            def goodbye():
                os.write(1, b"goodbye %d\\n" % os.getpid())

            @lambda_ext.handler
            def handler(event, context):
                spawn = multiprocessing.get_context(event)
                ours, theirs = spawn.Pipe()
                child = spawn.Process(target=work, args=(theirs,))
                child.start()
                found = ours.recv()
                child.join()
                return [os.getpid(), child.exitcode, *found]

            def work(pipe):
                status = lambda_ext.stats().lifecycle
                pipe.send([status.registration.state, status.shutdown.path,
                           signal.getsignal(signal.SIGTERM) == signal.SIG_DFL])
            """
        )
    )
    with Emulator(
        task_root=str(tmp_path),
        command=(sys.executable, "-m", "awslambdaric", "app.handler"),
        env={"PYTHONPATH": ROOT},
        timeout_s=60.0,
        budgets=BUDGETS,
    ) as emulator:
        answers = [emulator.invoke(way).value for way in ("spawn", "forkserver")]
        emulator.shutdown()
        lines = [line.text for line in emulator.lines]

    pid = answers[0][0]
    assert answers == [[pid, 0, "forked", "off", True]] * 2
    assert [] == [line for line in lines if "lambda_ext" in line]
    assert [f"goodbye {pid}"] == [line for line in lines if "goodbye" in line]
