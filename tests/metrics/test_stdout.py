"""A document begins at the beginning of a line, beside all other output."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import textwrap
import threading
from array import array

import emf_rules
import pytest
from helpers import ROOT, forget_threads, python
from interruptions import guard, interruptions

from lambda_ext import metrics
from lambda_ext.lifecycle import phases, real_threads
from lambda_ext.local.emf_check import check
from lambda_ext.local.emulator import Emulator
from lambda_ext.metrics import recorder, stdout, tally
from lambda_ext.testing import FakeClock


def childless(*_):
    """Raise what `os.waitid` raises in a process without children."""
    raise ChildProcessError


@contextlib.contextmanager
def piped(monkeypatch):
    """Make stdout a pipe, with nothing unknown before; yield what reads it.

    Threads and children that other tests have left do not count, and may end.
    """
    forget_threads(monkeypatch)
    with contextlib.suppress(ChildProcessError):  # there are none
        stdout.waitid(os.P_ALL, 0, stdout.LOOK)
        monkeypatch.setattr(stdout, "waitid", childless)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", 0) as source:
        monkeypatch.setattr(sys, "stdout", stream)
        metrics.count("first")
        metrics.flush()
        source.read(1_000_000)
        yield lambda: (source.read(1_000_000) or b"").decode()
        monkeypatch.undo()


def flushed(read):
    """Count and flush; return what was written since the last time."""
    metrics.count("n")
    metrics.flush()
    return read()


class TestCertain:
    """Between two lines for certain: no newline of the document's own."""

    def test_document_follows_a_document(self, monkeypatch):
        """Without anything between them."""
        with piped(monkeypatch) as read:
            assert flushed(read).startswith('{"_aws"')
            assert flushed(read).startswith('{"_aws"')

    def test_document_follows_a_printed_line(self, monkeypatch):
        """A print() that ended its line, in one write or in two."""
        with piped(monkeypatch) as read:
            print("working")
            sys.stdout.write("more\n")

            assert flushed(read).startswith('working\nmore\n{"_aws"')

    def test_document_follows_a_line_of_bytes(self, monkeypatch):
        """Written past the text, which waits in front of them."""
        with piped(monkeypatch) as read:
            print("text")
            sys.stdout.buffer.write(b"bytes\n")
            sys.stdout.buffer.write(b"")

            assert flushed(read).startswith('bytes\ntext\n{"_aws"')

    def test_nothing_printed_changes_nothing(self, monkeypatch):
        """A print() of no text opens no line."""
        with piped(monkeypatch) as read:
            print("", end="")

            assert flushed(read).startswith('{"_aws"')

    def test_threads_of_ours_do_not_count(self, monkeypatch):
        """They write nothing there."""
        with piped(monkeypatch) as read:
            done = threading.Event()
            thread = real_threads.start("lambda_ext_worker", done.wait)
            try:
                assert flushed(read).startswith('{"_aws"')
            finally:
                done.set()
                thread.join()

    def test_thread_that_has_ended_does_not_count(self, monkeypatch):
        """What it wrote is known."""
        with piped(monkeypatch) as read:
            thread = threading.Thread(target=print, args=("said",))
            thread.start()
            thread.join()

            assert flushed(read).startswith('said\n{"_aws"')


class TestUncertain:
    """A newline in the document's own write."""

    @pytest.mark.parametrize(
        "leave_open",
        [
            lambda: print("working...", end=""),
            lambda: sys.stdout.write("x"),
            lambda: sys.stdout.writelines(["a\n", "b"]),
            lambda: sys.stdout.buffer.write(b"x"),
            lambda: sys.stdout.buffer.write(memoryview(array("H", [2561]))[:1]),
            lambda: threading.Thread(target=print, args=("x", "y"), kwargs={"end": ""}),
        ],
        ids=["print", "write", "writelines", "bytes", "memory", "thread"],
    )
    def test_after_an_open_line(self, leave_open, monkeypatch):
        """It begins a line of its own, and what was open ends."""
        with piped(monkeypatch) as read:
            thread = leave_open()
            if isinstance(thread, threading.Thread):
                thread.start()
                thread.join()
            text = flushed(read)

            assert '\n{"_aws"' in text
            assert () == check(text.splitlines()[-1]).problems
            assert flushed(read).startswith('{"_aws"')

    def test_beside_a_thread_of_the_users(self, monkeypatch):
        """Which may be between the two writes of a print()."""
        with piped(monkeypatch) as read:
            done = threading.Event()
            thread = threading.Thread(target=done.wait)
            thread.start()
            try:
                beside = flushed(read)
            finally:
                done.set()
                thread.join()

            assert beside.startswith('\n{"_aws"')
            assert flushed(read).startswith('{"_aws"')

    def test_in_a_thread_of_the_users(self, monkeypatch):
        """The main thread is another thread, too."""
        with piped(monkeypatch) as read:
            found = []
            thread = threading.Thread(target=lambda: found.append(flushed(read)))
            thread.start()
            thread.join()

            assert found[0].startswith('\n{"_aws"')

    @pytest.mark.process
    @pytest.mark.parametrize("wait", [True, False])
    def test_after_a_child_was_started(self, wait, monkeypatch):
        """It may have left a line open, and may have a child of its own."""
        with piped(monkeypatch) as read:
            child = subprocess.Popen(
                ["printf", '{"ok":true}'], stdout=sys.stdout.fileno(), close_fds=True
            )
            if wait:
                child.wait()
            texts = flushed(read), flushed(read)
            child.wait()
            text = "".join(texts) + read()

            assert 2 == text.count('\n{"_aws"')
            assert sum(bool(line) for line in text.splitlines()) >= 3

    @pytest.mark.process
    def test_in_and_after_a_fork(self, monkeypatch):
        """Parent and child share stdout from then on."""
        with piped(monkeypatch) as read:
            child = os.fork()
            if not child:
                metrics.count("n")
                metrics.flush()
                os._exit(0)
            os.waitpid(child, 0)

            assert read().startswith('\n{"_aws"')
            assert flushed(read).startswith('\n{"_aws"')

    def test_first_document_of_a_process(self, monkeypatch):
        """Nothing is known of what was written before."""
        with piped(monkeypatch) as read:
            stdout.reset()

            assert flushed(read).startswith('\n{"_aws"')

    def test_stream_that_cannot_be_followed(self, monkeypatch):
        """Nothing is known of it, ever."""
        with piped(monkeypatch) as read:
            inner = sys.stdout

            class Slotted:
                __slots__ = ()
                fileno = inner.fileno
                flush = inner.flush

                def write(self, text):
                    return inner.write(text)

            monkeypatch.setattr(sys, "stdout", Slotted())

            assert flushed(read).startswith('\n{"_aws"')
            assert flushed(read).startswith('\n{"_aws"')

    def test_after_an_open_line_of_another_stream_to_the_same_file(self, monkeypatch):
        """As inside Lambda after ``sys.stdout = os.fdopen(os.dup(1), "w")``."""
        with piped(monkeypatch) as read:
            own = sys.stdout
            monkeypatch.setattr(sys, "__stdout__", own)
            stdout._stdout.in_lambda = True
            with os.fdopen(os.dup(own.fileno()), "w") as other:
                monkeypatch.setattr(sys, "stdout", other)

                for _ in range(3):
                    other.write("open")
                    assert flushed(read).startswith('open\n{"_aws"')


class TestWhole:
    """Documents beside four threads that print, open lines and children."""

    @pytest.mark.process
    def test_every_document_is_whole(self):
        """300 documents, each on a line of its own, in one write."""
        done = python(
            """
            import subprocess, sys, threading
            from lambda_ext import metrics

            stop = threading.Event()

            def talk():
                while not stop.is_set():
                    print("talk", "talk", "talk")

            threads = [threading.Thread(target=talk) for _ in range(4)]
            for thread in threads:
                thread.start()
            for number in range(300):
                metrics.count("n")
                if number % 3 == 0:
                    sys.stdout.write("open")
                    sys.stdout.flush()
                if number % 100 == 0:
                    subprocess.run(["printf", "child"], check=True)
                metrics.flush()
            stop.set()
            for thread in threads:
                thread.join()
            """.replace("\n            ", "\n"),
            timeout=120,
        )
        checked = [check(line) for line in done.stdout.splitlines()]

        assert 0 == done.returncode, done.stderr
        assert [each.problems for each in checked if each] == [()] * 300


@pytest.mark.process
class TestUnderTheRuntimeClient:
    """In a process of AWS's runtime client."""

    def run(self, folder, body, invocations=5, env=None):
        """Invoke a handler with this body; return the checked lines and all text."""
        (folder / "app.py").write_text(
            "import contextlib, io, json, logging, os, subprocess, sys, threading\n"
            "import lambda_ext\n"
            "from lambda_ext import metrics\n"
            "@lambda_ext.handler\n"
            "def handler(event, context):\n"
            "    metrics.count('n')\n" + textwrap.indent(textwrap.dedent(body), "    ")
        )
        with Emulator(
            task_root=str(folder),
            command=(sys.executable, "-m", "awslambdaric", "app.handler"),
            env={"PYTHONPATH": ROOT, **(env or {})},
            timeout_s=30.0,
            freeze=False,
        ) as emulator:
            for _ in range(invocations):
                assert "success" == emulator.invoke({}).status
            emulator.shutdown()
            lines = [line.text for line in emulator.lines]
        checked = [each for each in map(check, lines) if each is not None]
        return checked, lines

    @pytest.mark.parametrize(
        "body",
        [
            "print('working...', end='')",
            "sys.stdout.write('x')",
            "sys.__stdout__.write('x')",
            "sys.stdout.buffer.write(b'x')",
            """subprocess.run(["printf", '{"ok":true}'], check=True)""",
            "logging.getLogger().warning('no newline')",
            "try: 1 / 0\nexcept Exception: logging.getLogger().exception('failed')",
        ],
        ids=["print", "write", "dunder", "bytes", "child", "log", "traceback"],
    )
    @pytest.mark.parametrize("format", ["Text", "JSON"])
    def test_all_documents_arrive(self, tmp_path, body, format):
        """Five invocations, five documents, though the handler leaves lines open."""
        env = {"AWS_LAMBDA_LOG_FORMAT": format}
        checked, _ = self.run(tmp_path, body, env=env)

        assert [each.problems for each in checked] == [()] * 5

    def test_well_behaved_handler_costs_one_empty_line_at_most(self, tmp_path):
        """Before the first document; afterwards it is certain."""
        checked, lines = self.run(tmp_path, "print('one'); print('two')")

        assert [each.problems for each in checked] == [()] * 5
        assert lines.count("") <= 1

    def test_redirected_stdout_loses_nothing(self, tmp_path):
        """Inside Lambda documents go to the process's stdout, also where print() does not."""
        checked, lines = self.run(
            tmp_path,
            """
            with contextlib.redirect_stdout(io.StringIO()) as caught:
                print("hidden")
                metrics.flush()
            assert caught.getvalue() == "hidden\\n", caught.getvalue()
            """,
        )

        assert [each.problems for each in checked] == [()] * 5
        assert "hidden" not in lines


@pytest.mark.logs
class TestCounting:
    """What is counted."""

    def test_record_that_a_closed_stdout_refuses_is_counted_once(self, monkeypatch):
        """Also when the log, which goes there too, raises."""
        with piped(monkeypatch):
            import logging

            class Log(logging.Handler):
                def emit(self, record):
                    raise OSError("of a closed stdout")

            log = logging.getLogger("lambda_ext")
            handler = Log()
            log.addHandler(handler)
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdout.fileno())
                metrics.count("n")
                metrics.flush()
                metrics.flush()
            finally:
                log.removeHandler(handler)

            assert {"stdout": {"n": 1}} == recorder.snapshot()["dropped_by_name"]

    def test_handler_that_is_interrupted_by_itself_writes_in_order(self, monkeypatch):
        """A flush in the middle of a write leaves its line to the outer one."""
        with piped(monkeypatch):
            texts = []

            class Stream:
                def write(self, text):
                    texts.append(json.loads(text))
                    if len(texts) == 1:
                        writer.lines.append(
                            stdout.line_of(b'{"inner":1}\n', [("inner", 1)])
                        )
                        writer.write()

            writer = stdout.Writer(Stream())
            writer.lines.append(stdout.line_of(b'{"outer":1}\n', [("outer", 1)]))
            writer.write()

            assert [{"outer": 1}, {"inner": 1}] == texts

    def test_forked_child_has_no_lines(self):
        """Those of the parent are the parent's."""
        writer = stdout.Writer()
        writer.lines.append(stdout.line_of(b"{}\n", [("n", 1)]))
        stdout.forked()

        assert [] == writer.lines


class Unbuffered:
    """What Lambda's runtime client puts in the place of sys.stdout."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)


class Elsewhere(io.TextIOWrapper):
    """A stream that tells a descriptor of its own."""

    def fileno(self):
        return 2


class Raw(io.FileIO):
    """A file that does."""

    fileno = Elsewhere.fileno


def buffered(kind=io.FileIO):
    """Return what a text stream writes to."""
    return io.BufferedWriter(kind(os.devnull, "w"))


STREAMS = {
    "text": lambda: io.TextIOWrapper(buffered()),
    "wrapped": lambda: Unbuffered(io.TextIOWrapper(buffered())),
    "unbuffered": lambda: io.TextIOWrapper(
        io.FileIO(os.devnull, "w"), write_through=True
    ),
    "own": lambda: Elsewhere(buffered()),
    "own raw": lambda: io.TextIOWrapper(buffered(Raw)),
    "raw": lambda: io.FileIO(os.devnull, "w"),
}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_descriptor_is_that_of_the_stream(make):
    """Asked of whichever layer, and of a closed stream there is none."""
    stream = make()
    fileno = stdout._fileno_of(stream)

    assert stream.fileno() == fileno()

    stream.close()
    try:
        expected = stream.fileno()
    except ValueError:
        expected = None
    if expected is None:
        with pytest.raises(ValueError, match="closed file"):
            fileno()
    else:
        assert expected == fileno()


ALL, BROKEN = 1_000_000, -1


def taken(monkeypatch, rooms):
    """
    Count and flush for each of *rooms*, the bytes that stdout takes then; and once more.

    Return what came out, how many documents that is, and how many were dropped.
    """
    recorder.reset()
    tally.reset()
    phases.reset()
    came = []
    room = ALL

    def write(_, data):
        nonlocal room
        if room == BROKEN:
            raise BrokenPipeError
        if not room:
            raise BlockingIOError
        came.append(data[:room])
        room -= len(came[-1])
        return len(came[-1])

    with FakeClock(), piped(monkeypatch):
        before = stdout.documents()
        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(stdout.Writer, "_writable", lambda *_: False)
        for room in (*rooms, ALL):  # noqa: B007  `write` looks at it
            metrics.count("n")
            metrics.flush()
    found = recorder.snapshot()
    documents = found["documents"] - before
    return b"".join(came), documents, found["dropped"].get("stdout", 0)


@pytest.mark.logs
@pytest.mark.parametrize(
    "rooms", [*itertools.product([ALL, BROKEN, 0, 1, 100], repeat=3)], ids=str
)
def test_whatever_stdout_takes_each_record_is_out_or_dropped(rooms, monkeypatch):
    """Of four records, each is in one whole line, or counted as dropped."""
    came, documents, dropped = taken(monkeypatch, rooms)

    whole = []
    for line in came.decode("ascii").split("\n"):
        with contextlib.suppress(ValueError):  # a line of which stdout took a part
            whole.append(emf_rules.document(line)["n"])
    assert documents == len(whole)
    assert 4 == sum(whole) + dropped
    if BROKEN not in rooms:
        assert 0 == dropped


def test_encoder_writes_nothing_that_the_checker_refuses(monkeypatch):
    """Names and dimensions with every character that is accepted."""
    with piped(monkeypatch) as read:
        name = "".join(map(chr, range(0x20, 0x7F)))
        metrics.count(name, dimensions={"a" + name: name})
        metrics.count(":a")
        metrics.flush()
        checked = [check(line) for line in read().splitlines() if line]

        assert [(), ()] == [each.problems for each in checked]
        assert 0 == emf_rules.total("", "n")


def test_parked_thread_of_the_library_costs_no_empty_line():
    """One that `threading` does not know, as refreshes use it, is none of the user's."""
    done = python(
        "from lambda_ext import metrics\n"
        "from lambda_ext.lifecycle import real_threads\n"
        "from lambda_ext.values import calls\n"
        "print('said')\n"
        "metrics.count('n')\n"
        "metrics.flush()\n"
        "begun, gate = real_threads.Event(), real_threads.Event()\n"
        "calls.spawn(lambda: (begun.set(), gate.wait(30)), [])\n"
        "begun.wait(30)\n"
        "for _ in range(3):\n"
        "    print('said')\n"
        "    metrics.count('n')\n"
        "    metrics.flush()\n"
        "gate.set()\n"
    )
    lines = done.stdout.split("\n")

    assert "" == done.stderr
    assert 4 == len([line for line in lines if line.startswith("{")])
    assert "" not in lines[2:-1]


CHILDREN = """
import os, subprocess, sys, threading
from lambda_ext import metrics
from lambda_ext.lifecycle import phases, real_threads
from lambda_ext.metrics import stdout

asked = []
waitid = stdout.waitid
stdout.waitid = lambda *given: (asked.append(1), waitid(*given))[1]


def child():
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE)


def flushed():
    metrics.count("n")
    metrics.flush()


print("said")
flushed()
flushed()
asked.clear()
"""


STARTS = {
    "main": "running = child()",
    # Of a thread that has ended for Python, and a moment later for the kernel.
    "ended": """
        found = []
        thread = threading.Thread(target=lambda: found.append(child()))
        thread.start()
        thread.join()
        running = found[0]
        """,
    # Of a thread of the library that calls code of the user's.
    "ours": """
        found = []
        begun, gate = real_threads.Event(), real_threads.Event()

        def body():
            found.append(child())
            begun.set()
            gate.wait(30)

        real_threads.start("lambda_ext_timeout", body)
        begun.wait(30)
        running = found[0]
        """,
    # After the program has closed what is not its own.
    "closed": "os.closerange(3, 100)\nrunning = child()",
}


def after_children(program):
    r"""Run *program*; return what it wrote after a line "now", of 2 and more flushes."""
    done = python(CHILDREN + textwrap.dedent(program))
    assert "" == done.stderr
    return done.stdout.partition("now\n")[2]


class TestFirstLook:
    """Before `resource` is loaded the kernel's file tells of children."""

    def test_without_the_file_resource_is_asked(self, monkeypatch):
        """It knows the same number."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        stdout.reset()
        monkeypatch.setattr(stdout, "STAT", "/nowhere/stat")

        assert usage.ru_minflt == stdout._usage(resource.RUSAGE_CHILDREN).ru_minflt
        assert resource.getrusage is stdout._stdout.usage

    def test_guard_that_raises_a_timeout_error_arrives(self):
        """Wherever it comes; it is no file that cannot be opened."""
        swallowed = []
        count = 0
        for run in interruptions((stdout,), guard):
            stdout.reset()
            with run:
                stdout._usage(resource.RUSAGE_CHILDREN)
            if run.happened != run.raised:
                swallowed.append(run.where)
            count += 1

        assert [] == swallowed
        assert count > 5


@pytest.mark.process
class TestChildren:
    """Children that this process has started are seen, in each way of starting them."""

    def test_without_any_one_look_is_enough(self):
        """The kernel is asked once for each flush."""
        text = after_children(
            """
            print("now")
            for _ in range(5):
                flushed()
            print(len(asked))
            """
        )

        assert text.endswith("}\n5\n")
        assert 5 == text.count('{"_aws"')
        assert "\n\n" not in text

    def test_first_look_loads_nothing(self):
        """Later ones have `resource`, as has what follows the first invocation."""
        done = python(
            "import sys\n"
            "from lambda_ext import metrics\n"
            "for _ in range(3):\n"
            "    metrics.count('n')\n"
            "    metrics.flush()\n"
            "    print('resource' in sys.modules)\n"
        )
        said = [line for line in done.stdout.splitlines() if line[:1] not in ("", "{")]

        assert (["False", "False", "True"], "") == (said, done.stderr)

    def test_first_look_sees_one_that_has_ended(self):
        """It counts what `resource` counts, page faults of children."""
        done = python(
            "import os, resource, subprocess\n"
            "from lambda_ext.metrics import stdout\n"
            "stdout.watch()\n"
            "before = stdout._stdout.faults\n"
            "subprocess.run(['true'])\n"
            "after = stdout._usage(-1).ru_minflt\n"
            "there = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt\n"
            "print(before < after == there, stdout._stdout.looks)\n"
        )

        assert ("True 2\n", "") == (done.stdout, done.stderr)

    def test_look_that_fails_is_as_if_there_were_one(self):
        """No descriptor to spare at the first flush: an empty line, and no loss."""
        done = python(
            "import os, resource\n"
            "from lambda_ext import metrics\n"
            "print('said')\n"
            "metrics.count('n')\n"
            "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))\n"
            "metrics.flush()\n"
            "metrics.count('n')\n"
            "metrics.flush()\n"
        )

        assert (
            ["said", "", "{", "", "{"],
            "",
        ) == ([line if line[:1] != "{" else "{" for line in done.stdout.splitlines()],
              done.stderr)  # fmt: skip

    @pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
    def test_living_one_is_seen(self, start):
        """It may leave a line open, and so it is for ever."""
        text = after_children(
            f"print('now')\n{textwrap.dedent(start)}\n"
            "flushed()\nrunning.communicate()\nflushed()\n"
        )

        assert ["", "{", "", "{"] == [line[:1] for line in text.splitlines()]
