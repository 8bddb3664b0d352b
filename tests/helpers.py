"""What several test files need, and nothing that a user would."""

from __future__ import annotations

import _thread
import ast
import contextlib
import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading
import time
import warnings

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# For a program that ends in a test: a process on a busy machine that is not run for
# a while keeps its budgets all the same.  Ten times those within which Lambda kills,
# and more.
PATIENT = """
from lambda_ext.lifecycle import phases, shutdown
from lambda_ext.metrics import recorder
phases.ESSENTIAL_S, phases.REPORT_S = 1.5, 0.2
shutdown.BUDGET_S, shutdown.STREAMS_S, shutdown.IN_FLIGHT_S = 3.0, 0.5, 2.5
recorder.ESSENTIAL_S = 1.2
"""


def run_threads(count, function, timeout=60.0):
    """Run function(index) in *count* threads that start together; return all.

    A result is what the function returned, or the exception that it raised.
    """
    results = [None] * count
    barrier = threading.Barrier(count)

    def body(index):
        barrier.wait(timeout)
        try:
            results[index] = function(index)
        except BaseException as exc:
            results[index] = exc

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive(), "a thread hangs"
    return results


@contextlib.contextmanager
def port_for_a_program():
    """
    Yield a TCP port that a program can be told to listen on, for as long as that.

    A port that the kernel has just given and taken back may be another's before the
    program has it.  This one is outside of the range from which the kernel chooses, and
    the name of a socket keeps other tests from it.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        lowest_given = int(file.read().split()[0])
    numbers = random.SystemRandom()
    name = None
    while name is None:
        port = numbers.randrange(min(10_000, lowest_given - 1000), lowest_given)
        name = _reserved(port)
    with name:
        yield port


def _reserved(port):
    """Return a socket whose name stands for *port*; None where it is taken."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0lambda_ext port {port}")
        # Not tried by listening on it: a process that is forked meanwhile would do so
        # for a moment, too.
        with socket.socket() as probe:
            free = probe.connect_ex(("127.0.0.1", port)) != 0
    except OSError:
        free = False
    if free:
        return name
    name.close()
    return None


def amount_of_code(modules):
    """Return how many nodes the syntax trees of these modules of ours have.

    Text counts as one node, of any length, and a comment as none; the number
    is the same in every version of Python.
    """
    nodes = 0
    for name in modules:
        path = os.path.join(ROOT, *name.split("."))
        path = (
            os.path.join(path, "__init__.py") if os.path.isdir(path) else path + ".py"
        )
        with open(path, encoding="utf-8") as file:
            nodes += sum(1 for _ in ast.walk(ast.parse(file.read())))
    return nodes


def forget_threads(monkeypatch):
    """Know the library's threads and those that begin from now on: others may end."""
    from lambda_ext.lifecycle import real_threads

    def known():  # a dummy stands for a bare thread, and may outlive it
        dummy = threading._DummyThread
        return {each for each in threading.enumerate() if not isinstance(each, dummy)}

    left = {each for each in known() if each.ident not in real_threads.ours}

    def count():
        return len(known() - left) + len(real_threads.bare)

    monkeypatch.setattr(_thread, "_count", count)


def bare_threads(name, *, begun):
    """Return [*name*, ...], one for each thread; *begun*, one of them, may just begin."""
    from lambda_ext.lifecycle import real_threads

    def found():
        return [each for each in [*real_threads.bare.values()] if each == name]

    if begun is not None and begun.is_alive():
        eventually(found)
    return found()


def fetch_all(source, wanted):
    """Ask *source* for *wanted* in one call, and singly for what it leaves out."""
    found = dict(source.fetch(wanted, None))
    for key in wanted:
        if key not in found:
            found.update(source.fetch([key], None))
    return found


def ring(cache):
    """Return the slots of *cache* from the oldest to the newest."""
    slots, slot = [], cache._newest
    for _ in cache.slots:
        slot = slot.next
        slots.append(slot)
    assert slot is cache._newest
    return slots


def loads_under_way():
    """Return the loads that readers may wait for."""
    from lambda_ext.values import store

    slots = [*store.cache.slots.values()]
    return [slot.load for slot in slots if slot.load is not None]


def eventually(condition, timeout=30.0):
    """Wait until condition() is true; only for processes that are not ours."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.005)
    raise AssertionError("it never became true")


def python(code, *, env=None, timeout=60.0, executable=sys.executable):
    """Run *code* in a new interpreter and return the completed process."""
    environment = {**os.environ, "PYTHONPATH": ROOT, **(env or {})}
    return subprocess.run(
        [executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def interrupted(run, operation):
    """Call operation() in an `interruptions` run, and see its exception arrive."""
    from interruptions import Interrupted

    arrived = False
    try:
        with run:
            operation()
    except Interrupted:  # CPython had not looked for signals before the end
        arrived = True
        run.__exit__(None, None, None)
    assert run.happened == (arrived or run.raised)


def in_child(check, *locks):
    """Say whether check() is true in a forked child, while a thread holds *locks*."""
    held, done = threading.Event(), threading.Event()

    def hold():
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait(60)
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        with warnings.catch_warnings():
            # Python 3.12 warns of forks in a process with threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            code = 1
            try:
                code = 0 if check() else 2
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0
    finally:
        done.set()
        thread.join(60)


def installed(library):
    """Skip the test where *library* is not installed; never load it in here.

    eventlet, once loaded, warns of every fork of this process.
    """
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
