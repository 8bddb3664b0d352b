"""What runs in the function's process beside the runtime client."""

from __future__ import annotations

import json
import os

import pytest
from helpers import ROOT, python

LOCAL = os.path.join(ROOT, "lambda_ext", "local")


@pytest.mark.process
def test_imports_nothing_that_the_runtime_client_does_not():
    """The cold start that a run measures has no import of the observer's."""
    code = "import json, sys; {}; print(json.dumps(sorted(sys.modules)))"
    observer, client = (
        set(json.loads(python(code.format(statement)).stdout))
        for statement in (
            f"sys.path.insert(0, {LOCAL!r}); import observer",
            "import awslambdaric.__main__, runpy",
        )
    )

    assert {"observer"} == observer - client


def observed(code):
    """Run *code* with an observer that writes to a pipe; return what it told."""
    done = python(
        f"""
import json, os, sys
sys.path.insert(0, {LOCAL!r})
import observer
read, write = os.pipe()
os.set_inheritable(write, True)
teller = observer.Teller(write)
{code}
os.close(write)
told = b""
while True:
    part = os.read(read, 65536)
    if not part:
        break
    told += part
sys.stderr.write(told.decode())
"""
    )
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_closed_descriptor_is_not_written_to():
    """A descriptor that the function closed and used anew stays the function's."""
    told = observed(
        """
import tempfile
file = tempfile.TemporaryFile()
keep = os.dup(write)
os.dup2(file.fileno(), write)
teller.tell("lost")
assert os.fstat(file.fileno()).st_size == 0
os.dup2(keep, write)
os.close(keep)
teller.tell("back", text="yes")
"""
    )

    assert [("back", "yes")] == [(each["saw"], each["text"]) for each in told]


def test_what_cannot_be_told_is_kept_quiet():
    """Neither an object that is no JSON nor a full or closed pipe raises."""
    told = observed(
        """
teller.tell("bad", text=object())
other, end = os.pipe()
broken = observer.Teller(end)
os.close(other)
import signal
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
broken.tell("no process reads it")
teller.tell("good")
"""
    )

    assert ["good"] == [each["saw"] for each in told]


def test_warnings_are_told_once_and_bounded():
    """Each way of logging tells once, with its text, however logging is set up."""
    told = observed(
        """
import logging
observer.follow_warnings(teller)
log = logging.getLogger("lambda_ext")
logging.disable(logging.CRITICAL)
log.info("not told")
log.warning("one %s", 1)
log.error("two")
log.critical("three")
log.log(logging.WARNING, "four")
log.warning("bad %d", "format")
log.warning("x" * 10_000)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("five")
assert log.isEnabledFor(logging.WARNING)
assert not log.isEnabledFor(logging.INFO)
"""
    )

    assert [
        ("WARNING", "one 1"),
        ("ERROR", "two"),
        ("CRITICAL", "three"),
        ("WARNING", "four"),
        ("WARNING", "bad %d"),
        ("WARNING", "x" * 1_000 + "\n...\n" + "x" * 1_000),
        ("ERROR", "five"),
    ] == [(each["level"], each["text"]) for each in told]
