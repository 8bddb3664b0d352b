"""What every test begins with, and what must hold when it has ended."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import pytest

PREFIXES = ("AWS_", "LAMBDA_", "POWERTOOLS_", "SECRETS_MANAGER_", "SSM_",
            "PARAMETERS_SECRETS_", "_HANDLER", "DD_", "SSL_CERT_", "REQUESTS_CA_BUNDLE",
            "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")  # fmt: skip


def _reset():
    """Bring all process-wide state back to what it was at import."""
    process = sys.modules.get("lambda_ext.lifecycle.process")
    if process is not None:
        process.reset()


def pytest_collection_modifyitems(items):
    """Measure no test that interrupts code: coverage's lock would stay locked."""
    for item in items:
        if {"interruptions", "signal"} & _imported(item.module):
            item.add_marker("no_cover")
            item.add_marker("interrupts")


def _imported(module):
    """Return the names of the modules from which *module* has something."""
    return {
        getattr(value, "__module__", None) or getattr(value, "__name__", "")
        for value in vars(module).values()
    }


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their number: a response holds the time, an id may not."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No variable of the machine, and credentials that are worth nothing."""
    for name in list(os.environ):
        if name.startswith(PREFIXES):
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
    yield
    _reset()
    if request.node.get_closest_marker("logs") is None:
        loud = [
            record.getMessage()
            for phase in ("setup", "call")
            for record in caplog.get_records(phase)
            if record.name.startswith("lambda_ext") and record.levelno > logging.INFO
        ]
        assert [] == loud


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
def time():
    """A clock that stands still until the test moves it."""
    from lambda_ext.testing import FakeClock

    with FakeClock() as fake:
        yield fake


@pytest.fixture
def source(request, time):
    """A source that answers for AWS: with VALUES of the test's file, or one secret."""
    from lambda_ext.testing import FakeSource

    with FakeSource(getattr(request.module, "VALUES", {"db": "one"})) as fake:
        yield fake
