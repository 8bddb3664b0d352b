"""Lines: whole, in order, none lost, none held up."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from emulated import emulate, process, texts

from lambda_ext.local.processes import Process

pytestmark = process


@pytest.fixture
def run(tmp_path):
    """Run Python code as a process of an environment; return it and its lines."""
    started = []

    def start(code):
        lines = []
        changed = threading.Condition()
        child = Process(
            [sys.executable, "-c", code],
            env=dict(os.environ),
            cwd=str(tmp_path),
            sources=("stdout", "stderr"),
            changed=changed,
            note=lambda *line: lines.append(line) or (lambda: None),
            ended=lambda process: None,
        )
        started.append(child)
        return child, lines

    yield start
    for child in started:
        if child._popen.returncode is None:
            child.close()


class TestLines:
    """What is a line."""

    def test_end_is_a_newline_alone(self, run):
        r"""Only ``\n`` ends a line; carriage returns stay inside."""
        child, lines = run(r"import os; os.write(1, b'a\rb\r\nc\x0bd\n\n')")
        child.wait()
        child.close()

        assert [
            ("stdout", b"a\rb\r", True),
            ("stdout", b"c\x0bd", True),
            ("stdout", b"", True),
        ] == lines

    def test_last_one_may_be_incomplete(self, run):
        """What is written without a line end is a line that says so."""
        child, lines = run("import os; os.write(1, b'a\\nb'); os.write(2, b'c')")
        child.wait()
        child.close()

        assert [
            ("stderr", b"c", False),
            ("stdout", b"a", True),
            ("stdout", b"b", False),
        ] == sorted(lines)

    def test_pieces_become_one_line(self, run):
        """A line that was written in pieces comes once, when it is complete."""
        code = "import os, time\nfor _ in range(1000): os.write(1, b'x' * 100)\n"
        child, lines = run(code + "os.write(1, b'\\n')")
        child.wait()
        child.close()

        assert [("stdout", b"x" * 100_000, True)] == lines

    def test_bytes_that_are_no_utf8_are_escaped(self):
        """A line shows bytes that are no text, and goes on."""
        with emulate() as emulator:
            emulator.invoke({"do": "write", "hex": "ff41c3a40a"})
            emulator.shutdown()

            assert "\\xffAä" == texts(emulator)[-1]

    def test_of_a_killed_process_are_complete(self):
        """Everything written before SIGKILL is there after shutdown()."""
        with emulate() as emulator:
            emulator.invoke({"do": "write", "hex": "780a", "times": 20_000})
            emulator.shutdown()

            assert 20_000 == texts(emulator).count("x")


class TestProcess:
    """Signals and statuses."""

    def test_stop_returns_when_it_has_stopped(self, run):
        """stop() is over when the process stands still, cont lets it go on."""
        code = "import time\nwhile True: print('tick', flush=True); time.sleep(0.001)"
        child, lines = run(code)
        child.stop()
        child.drain()
        seen = len(lines)
        child.drain()

        assert len(lines) == seen
        with open(f"/proc/{child.pid}/stat") as file:
            assert "T" == file.read().rpartition(")")[2].split()[0]

    def test_stop_of_one_that_ended_returns(self, run):
        """A process that ended cannot be stopped, and is not waited for."""
        child, _ = run("")
        child.wait()
        child.stop()

        assert 0 == child.exit_status

    @pytest.mark.parametrize(
        ("code", "status", "words"),
        [
            ("", 0, "exited without providing a reason"),
            ("import os; os._exit(3)", 3, "exited with error: exit status 3"),
            (
                "import os; os.kill(os.getpid(), 15)",
                -15,
                "exited with error: signal: terminated",
            ),
        ],
    )
    def test_status_says_how_it_ended(self, run, code, status, words):
        """An exit status is positive, a signal negative, as in subprocess."""
        child, _ = run(code)
        child.wait()

        assert child.exit_status == status
        assert child.exit_words == words

    def test_is_not_reaped_before_its_group_was_killed(self, run):
        """Its id stays taken until close(), so no signal reaches a stranger."""
        child, _ = run("")
        child.wait()

        with open(f"/proc/{child.pid}/stat") as file:
            assert "Z" == file.read().rpartition(")")[2].split()[0]
        child.close()
        assert not os.path.exists(f"/proc/{child.pid}")
