"""A signal handler that raises while the main thread subscribes, or notes an outcome."""

from __future__ import annotations

import gc
import threading

import pytest
from helpers import eventually
from interruptions import Interrupted, interruptions
from telemetry_api import Platform, logs

import lambda_ext
from lambda_ext import telemetry
from lambda_ext.lifecycle import extension, process
from lambda_ext.telemetry import dispatch, listener, reports, subscription


def ours():
    """Return the threads of a listener that live."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("lambda_ext_telemetry")
    ]


# A socket that nothing refers to yet is closed by its finalizer, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_subscription_can_be_made_again(monkeypatch):
    """The exception arrives, no listener is left alone, and the next call subscribes."""
    with Platform() as platform:
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", platform.address)
        extension.register()
        before = ours()
        happened = 0
        for run in interruptions([subscription, listener]):
            arrived = False
            try:
                with run:
                    telemetry.subscribe(function=True)
            except Interrupted:  # CPython had not looked for signals before the end
                arrived = True
                run.__exit__(None, None, None)
            happened += run.happened

            assert run.happened == (arrived or run.raised)
            assert "subscribed" == telemetry.subscribe(function=True).state
            assert 200 == platform.deliver(logs("a"))
            assert 1 == listeners(before)
            subscription.reset()
            for thread in ours():
                thread.join(30)
            assert [] == [thread for thread in ours() if thread not in before]

    gc.collect()  # the sockets that tracebacks hold: here their warnings are expected
    assert happened > 50


def listeners(before):
    """Return how many listeners accept connections; those that end have ended."""
    new = [each for each in ours() if each not in before]
    accepting = [each for each in new if each.name.endswith("_listener")]
    if subscription._listener is not None and len(accepting) > 1:
        # One that was closed is about to end.
        eventually(lambda: sum(each.is_alive() for each in accepting) <= 1)
        accepting = [each for each in accepting if each.is_alive()]
    return len(accepting)


class Context:
    """Lambda's context object."""

    aws_request_id = "r"

    @staticmethod
    def get_remaining_time_in_millis():
        return 3_000


@pytest.mark.parametrize("known", [0, 3])
def test_an_interrupted_outcome_is_whole_or_none(monkeypatch, known):
    """The exception arrives, the lock is free, and the next outcome is noted."""
    monkeypatch.setattr(reports, "MAX_OUTCOMES", 3)
    reports.follow()
    handle = lambda_ext.handler(lambda event, context: None)
    for number in range(known):
        reports._outcomes[str(number)] = None
    for run in interruptions([reports]):
        with run:
            handle({}, Context())

        assert run.happened == run.raised
        found = reports.outcome_of("r")
        assert found is None or found.request_id == "r"
        handle({}, Context())
        assert "r" == reports.outcome_of("r").request_id
        assert len(reports._outcomes) <= 3 + 1
        del reports._outcomes["r"]


def test_an_interrupted_decorator_registers_once_or_not(monkeypatch):
    """on_batch() has appended the function, or has not."""
    for run in interruptions([dispatch]):
        with run:
            telemetry.on_batch(print)

        assert run.happened == run.raised
        assert telemetry.consumers in ([], [print])
        process.reset()
