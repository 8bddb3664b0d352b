"""A signal handler that raises in the middle of a call spoils no later one."""

from __future__ import annotations

import contextlib
import gc
import signal

import pytest
from interruptions import Interrupted, guard, interruptions
from wire import authority

from lambda_ext.aws import (
    connections,
    http1,
    light,
    native,
    retries,
    tls,
    transport,
    waiting,
)
from lambda_ext.exceptions import LambdaExtError

# A socket that has no owner yet is closed by its finalizer, which warns; and what
# is raised in a finalizer arrives nowhere.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
CODE = (connections, http1, light, retries, tls, transport, waiting)


@pytest.fixture(autouse=True)
def _collected():
    """Have sockets that tracebacks hold finalized here, not in a later test."""
    yield
    gc.collect()


@pytest.fixture(name="secrets")
def _secrets(server):
    way = light.Light("secretsmanager")
    yield way
    way.close()


def interrupted(run, operation, *args):
    """Call operation() in an `interruptions` run, also in its finalizers."""
    with contextlib.suppress(Interrupted), run:
        operation(*args)


def get(way, name):
    return way.call("GetSecretValue", {"SecretId": name})["SecretString"]


def test_answer_of_an_interrupted_call_is_not_the_next_ones(secrets, server):
    """Wherever the exception comes, the next call has its own answer."""
    count = 0
    for run in interruptions(CODE):
        interrupted(run, get, secrets, f"old{count}")
        assert f"value of new{count}" == get(secrets, f"new{count}")
        assert len(secrets._connections._idle) <= 1
        count += 1

    assert count > 100


def test_interrupted_choice_leaves_a_transport(server, monkeypatch):
    """Wherever the exception comes, the transport can be had afterwards."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.replace("127.0.0.1", "localhost"))
    count = 0
    for run in interruptions(CODE):
        transport.reset()
        interrupted(run, lambda: get(transport.transport("secretsmanager"), "old"))
        assert "value of new" == get(transport.transport("secretsmanager"), "new")
        count += 1

    assert count > 100


def test_guard_that_raises_a_timeout_error_is_not_taken_for_a_time_out(secrets):
    """It arrives as it is, also on a kept connection; nothing is sent again for it."""
    swallowed = []
    count = 0
    for run in interruptions((connections, http1, light, retries), guard):
        get(secrets, "kept")  # an interrupted call leaves no connection
        try:
            with run:
                get(secrets, "old")
        except LambdaExtError as exc:
            swallowed.append((run.where, exc))
        if run.happened != run.raised:
            swallowed.append(run.where)
        count += 1

    assert [] == swallowed
    assert count > 50


def raised(function):
    """Return what *function* raises, None if it returns."""
    try:
        function()
    except BaseException as exc:
        return exc
    return None


@pytest.mark.parametrize("store", [tls.AMAZON, "a bundle"])
@pytest.mark.parametrize("error", [TimeoutError, OSError])
def test_guard_that_raises_while_roots_are_loaded_is_no_fault_of_theirs(
    store, error, monkeypatch
):
    """It arrives as it is, and no context without roots is kept for it."""

    def fail(signum, frame):
        raise error("of the guard")

    def load(*_):
        signal.raise_signal(signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, fail)
    made = native.modules()
    broken = type("Context", (), {"load_verify_locations": load})()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(native.Modules, "context", lambda _: broken)
            found = raised(lambda: tls.context(store))
    finally:
        signal.signal(signal.SIGUSR1, former)

    assert (error, ("of the guard",)) == (type(found), found.args)
    assert (made.kind, store) not in tls._contexts


@pytest.mark.parametrize("is_amazon", [True, False])
def test_guard_that_raises_a_timeout_error_is_no_failure_of_a_store(is_amazon):
    """It arrives as it is, wherever it comes while a context is made."""
    store = tls.AMAZON if is_amazon else authority().path
    swallowed = []
    count = 0
    for run in interruptions((native, tls), guard):
        tls.reset()
        try:
            with run:
                tls.context(store)
        except LambdaExtError as exc:
            swallowed.append((run.where, exc))
        if run.happened != run.raised:
            swallowed.append(run.where)
        count += 1

    assert [] == swallowed
    assert count > 10


def test_guard_arrives_from_the_choice_of_a_context():
    """For each exception of it: no error is taken for the lack of one."""

    def fail():
        raise IndexError("of the guard")

    count = 0
    for run in interruptions((native,), fail):
        native.use(None)
        modules = native.modules()

        def choose(run=run, modules=modules):
            with run:
                modules.context()

        arrived = raised(choose)
        if run.happened:
            count += 1
            assert IndexError is type(arrived)

    assert count
