"""A signal handler that raises in the middle of a call spoils no later one."""

from __future__ import annotations

import contextlib
import gc

import pytest
from interruptions import Interrupted, guard, interruptions

from lambda_ext.aws import connections, http1, light, retries, tls, transport, waiting
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
