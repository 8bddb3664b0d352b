"""SIGKILL: what `flush_every=1` has written is whole, and all of it is there."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading

import pytest
from helpers import ROOT

pytestmark = pytest.mark.process

KILLS = 20
PROGRAM = """
import os, sys, threading

import lambda_ext

told = int(sys.argv[1])  # a descriptor that tells which records have returned
shop = lambda_ext.Metrics("Kill", service="")


def record(thread):
    number = 0
    while True:
        number += 1
        shop.count("n", number, thread=thread)
        os.write(told, b"%d %d\\n" % (thread, number))


for thread in range(1, int(sys.argv[2])):
    threading.Thread(target=record, args=(thread,), daemon=True).start()
record(0)
"""


def killed(threads, count):
    """Kill a process once *count* records have returned; return what it wrote and told."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(write), str(threads)],
            env={**os.environ, "PYTHONPATH": ROOT, "LAMBDA_EXT_FLUSH_EVERY": "1"},
            stdout=subprocess.PIPE,
            pass_fds=[write],
        )
        os.close(write)
        written = []
        reader = threading.Thread(target=lambda: written.append(process.stdout.read()))
        reader.start()
        try:
            lines = [told.readline() for _ in range(count)]
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
        return b"".join(written), [*lines, *told.readlines()]


def numbers(written):
    """Return the values of each thread's metric, in the order of the lines."""
    assert written.endswith(b"\n")
    found = {}
    for line in written.splitlines():
        if line:
            document = json.loads(line)
            value = document["n"]
            of = found.setdefault(int(document["thread"]), [])
            of += value if isinstance(value, list) else [value]
    return found


def test_nothing_is_missing_before_the_last_record_that_returned():
    """Twenty kills at random moments: whole lines, in order, each record once."""
    rng = random.Random(9)
    for _ in range(KILLS):
        written, told = killed(1, rng.randrange(1, 400))
        (found,) = numbers(written).values()
        returned = int(told[-1].split()[1])

        assert [*range(1, len(found) + 1)] == found
        # The last one may be written, and not have returned yet.
        assert returned <= len(found) <= returned + 1


def test_threads_write_whole_lines_without_gaps():
    """Records of several threads share lines; nothing in between is missing."""
    rng = random.Random(9)
    for _ in range(KILLS // 4):
        written, told = killed(4, rng.randrange(1, 400))
        read, recorded = {}, {}
        for line in told:
            thread, number = map(int, line.split())
            recorded[thread] = number
        for thread, total in numbers(written).items():
            read[thread] = total

        for thread, values in read.items():
            sums = [sum(range(1, n + 1)) for n in range(recorded.get(thread, 0) + 2)]
            assert sum(values) in sums


def test_what_is_older_than_flush_every_is_out():
    """In the middle of a call that takes long, and records nothing more."""
    program = (
        "import time\n"
        "from lambda_ext import metrics\n"
        "metrics.count('n')\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": ROOT, "LAMBDA_EXT_FLUSH_EVERY": "100ms"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [line for line in (process.stdout.readline(),) if line.strip()]
        lines = lines or [process.stdout.readline()]  # after one that ends another's
    finally:
        process.kill()
        rest = process.communicate()[0]

    assert [1] == [json.loads(line)["n"] for line in lines]
    assert "" == rest
