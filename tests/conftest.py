"""What every test begins with, and what must hold when it has ended."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import logging
import os
import pkgutil
import signal
import sys
import threading
import types
import warnings

import pytest
from hypothesis import HealthCheck, settings

# The same examples in each run, on each machine: what fails once fails again.  An
# example has no time limit: a busy machine is no failure.
settings.register_profile(
    "lambda_ext",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Other examples each time: pytest --hypothesis-profile=explore
settings.register_profile(
    "explore", settings.get_profile("lambda_ext"), derandomize=False
)
settings.load_profile("lambda_ext")

TESTS = os.path.dirname(__file__)
NOT_LOADED = ("lambda_ext.local", "lambda_ext.commands", "lambda_ext.__main__")
LEAST_S = 0.5  # for which a listener is waited for, however small its share

PREFIXES = ("AWS_", "LAMBDA_", "POWERTOOLS_", "SECRETS_MANAGER_", "SSM_",
            "PARAMETERS_SECRETS_", "_HANDLER", "DD_", "SSL_CERT_", "REQUESTS_CA_BUNDLE",
            "REQUEST_METHOD")  # fmt: skip


def _reset():
    """Bring all process-wide state back to what it was at import."""
    process = sys.modules.get("lambda_ext.lifecycle.process")
    if process is not None:
        process.reset()


INTERRUPTS = {"interruptions", "where_handlers_run", "setitimer", "alarm",
              "pthread_kill", "raise_signal", "interrupt_main"}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Measure no test that interrupts code: coverage's lock would stay locked."""
    known = {}
    for item in items:
        if item.function not in known:
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            used = [item.function, *(found.func for (*_, found) in fixtures)]
            known[item.function] = bool(INTERRUPTS & _names(used, item.cls))
        if known[item.function]:
            item.add_marker("no_cover")
            item.add_marker("interrupts")


def _names(functions, cls):
    """Return the names in *functions*, and in what they use below tests/."""
    names, seen, waiting = set(), set(), [*functions]
    while waiting:
        value = waiting.pop()
        code = getattr(inspect.unwrap(value), "__code__", value)
        if not isinstance(code, types.CodeType) or code in seen:
            continue
        seen.add(code)
        if not code.co_filename.startswith(TESTS):
            continue
        names.update(code.co_names)
        waiting += code.co_consts
        known = getattr(value, "__globals__", {})
        for name in _all_names(code):
            for found in (known.get(name), getattr(cls, name, None)):
                if isinstance(found, type):
                    waiting += vars(found).values()
                elif found is not None:
                    waiting.append(found)
    return names


def _all_names(code):
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return {*code.co_names, *(name for each in inner for name in _all_names(each))}


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their number: a response holds the time, an id may not."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


@functools.cache
def _load_all():
    """Load the library, but for the local run: what it loads late is interrupted, too."""
    import lambda_ext

    for module in pkgutil.walk_packages(lambda_ext.__path__, "lambda_ext."):
        if not module.name.startswith(NOT_LOADED):
            with contextlib.suppress(ImportError):  # of an optional package
                importlib.import_module(module.name)


@pytest.fixture(autouse=True)
def _loaded(request):
    """A test that interrupts code does not interrupt an import in some orders only."""
    if request.node.get_closest_marker("interrupts") is not None:
        _load_all()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No variable of the machine, and credentials that are worth nothing."""
    for name in list(os.environ):
        if name.startswith(PREFIXES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(autouse=True)
def _fresh_process(_clean_environment, caplog, request):
    """Process-wide state is new, and no warning was logged unexpectedly."""
    _reset()
    # Threads which an earlier test has left: what they log is not this one's.
    threads = sys.modules.get("lambda_ext.lifecycle.real_threads")
    left = set() if threads is None else {*threads.ours}
    left |= {each.ident for each in threading.enumerate()} - {threading.get_ident()}
    yield
    _reset()
    if request.node.get_closest_marker("logs") is None:
        loud = [
            record.getMessage()
            for phase in ("setup", "call")
            for record in caplog.get_records(phase)
            if record.name.startswith("lambda_ext")
            and record.levelno > logging.INFO
            and record.thread not in left
        ]
        assert [] == loud


@pytest.fixture(autouse=True)
def _no_socket_of_interrupted_code(request):
    """What interrupted code could not close is finalized here, not in a later test."""
    yield
    if request.node.get_closest_marker("interrupts") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch):
    """A listener is left behind because it hangs, not because its thread is not run."""
    phases = sys.modules.get("lambda_ext.lifecycle.phases")
    if phases is not None:
        wait = phases.wait
        monkeypatch.setattr(
            phases, "wait", lambda done, share_s: wait(done, max(share_s, LEAST_S))
        )


@pytest.fixture(autouse=True)
def _no_handler_of_the_users():
    """The handler of pytest-timeout does not decide which thread makes a call."""
    handler = signal.getsignal(signal.SIGALRM)
    if getattr(handler, "__module__", "") == "pytest_timeout":
        handler.__module__ = "lambda_ext"


@pytest.fixture(autouse=True)
def _no_thread_left():
    """Every thread that a test began has ended, or is one of the library's."""
    before = set(threading.enumerate())
    yield
    after = [
        thread.name
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith("lambda_ext")
        and thread.is_alive() and not thread.daemon
    ]  # fmt: skip
    assert [] == after


@pytest.fixture
def time(request):
    """A clock that stands still until the test moves it; begins at WALL of its file."""
    from lambda_ext.testing import FakeClock

    with FakeClock(getattr(request.module, "WALL", 1_700_000_000.0)) as fake:
        yield fake


@pytest.fixture
def source(request, time):
    """A source that answers for AWS: with VALUES of the test's file, or one secret."""
    from lambda_ext.testing import FakeSource

    with FakeSource(getattr(request.module, "VALUES", {"db": "one"})) as fake:
        yield fake
