"""Consumers of batches: in order, apart from each other, bounded."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from lambda_ext import telemetry
from lambda_ext.lifecycle import real_threads
from lambda_ext.telemetry import dispatch, records


def batch(text, sequence_id=None):
    """Return a batch of one log line."""
    return records.Batch([records.Log("function", "", text)], sequence_id)


def texts(seen):
    """Return a consumer that appends the text of each batch to *seen*."""

    def consume(found):
        seen.append(found.records[0].record)

    return consume


class TestConsumers:
    """Each has its own order and its own thread."""

    def test_batches_arrive_in_order(self):
        """Each consumer sees every batch once, in the order of arrival."""
        first, second = [], []
        telemetry.consumers.append(texts(first))
        telemetry.consumers.append(texts(second))
        for number in range(100):
            dispatch.dispatch(batch(number))

        assert dispatch.drain(30)
        assert [[*range(100)]] * 2 == [first, second]

    def test_on_batch_is_a_decorator(self):
        """The function stays what it is, and is called."""
        seen = []

        @telemetry.on_batch
        def consume(found):
            seen.append(found.records[0].record)

        dispatch.dispatch(batch("a"))

        assert dispatch.drain(30)
        consume(batch("b"))
        assert ["a", "b"] == seen

    def test_nothing_begins_before_the_first_batch(self):
        """A consumer alone costs no thread."""
        before = {*threading.enumerate()}  # some of which may be ending
        telemetry.consumers.append(print)

        assert (True, 0, ()) == (
            {*threading.enumerate()} <= before,
            dispatch.pending(),
            dispatch.status(),
        )

    def test_one_that_hangs_delays_no_other(self):
        """The next consumer has all, while the first is in its first batch."""
        gate, inside, seen = threading.Event(), threading.Event(), []

        def hang(_):
            inside.set()
            gate.wait(30)

        telemetry.consumers.append(hang)
        done = threading.Event()
        telemetry.consumers.append(
            lambda found: (texts(seen)(found), len(seen) == 3 and done.set())
        )
        for text in "abc":
            dispatch.dispatch(batch(text))

        assert done.wait(30)
        assert inside.wait(30)
        assert ["a", "b", "c"] == seen
        assert not dispatch.drain(0)
        gate.set()
        assert dispatch.drain(30)

    @pytest.mark.logs
    @pytest.mark.parametrize(
        "error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt()]
    )
    def test_one_that_raises_goes_on(self, error, caplog):
        """Each batch is tried; the log tells class and place, three times at most."""
        seen = []

        def fail(found):
            seen.append(found.records[0].record)
            raise error

        telemetry.consumers.append(fail)
        for number in range(10):
            dispatch.dispatch(batch(number))

        assert dispatch.drain(30)
        (status,) = dispatch.status()
        assert ([*range(10)], 10, 10, 10, 0) == (
            seen,
            status.batches,
            status.records,
            status.failures,
            status.pending,
        )
        assert status.error.startswith(f"{type(error).__name__} at test_dispatch.py:")
        lines = [record.getMessage() for record in caplog.records]
        assert 3 == len(lines)
        assert all(
            line.startswith("lambda_ext.telemetry_consumer_failed") for line in lines
        )
        assert "secret" not in caplog.text


def test_no_thread_to_be_had(monkeypatch):
    """The batch waits; the next one finds a thread, and both are consumed."""
    seen = []
    start = real_threads.start

    def refuse(name, body):
        raise RuntimeError(name)

    telemetry.consumers.append(texts(seen))
    monkeypatch.setattr(real_threads, "start", refuse)
    dispatch.dispatch(batch("a"))
    assert (1, []) == (dispatch.pending(), seen)
    monkeypatch.setattr(real_threads, "start", start)
    dispatch.dispatch(batch("b"))

    assert dispatch.drain(30)
    assert ["a", "b"] == seen


class TestBounds:
    """A consumer that hangs costs so many bytes, and no more."""

    def test_what_does_not_fit_is_dropped_and_counted(self):
        """The batches that wait stay in order; the ones that find no room are gone."""
        gate, inside, seen = threading.Event(), threading.Event(), []

        def slow(found):
            inside.set()
            gate.wait(30)
            seen.append(found.records[0].record)

        telemetry.consumers.append(slow)
        dispatch.dispatch(
            batch("first"), dispatch.MAX_WAITING
        )  # larger than what is left
        assert inside.wait(30)
        for text in ("second", "third"):
            dispatch.dispatch(batch(text), 1)
        gate.set()

        assert dispatch.drain(30)
        (status,) = dispatch.status()
        assert (["first"], 2, 1) == (seen, status.dropped, status.records)

    def test_one_larger_than_the_bound_passes_alone(self):
        """A batch is not refused for its size where nothing waits."""
        seen = []
        telemetry.consumers.append(texts(seen))
        dispatch.dispatch(batch("large"), 10 * dispatch.MAX_WAITING)

        assert dispatch.drain(30)
        assert ["large"] == seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_has_the_consumers_and_none_of_the_batches():
    """What waits in the parent is consumed there, and not a second time."""
    gate, inside = threading.Event(), threading.Event()

    def slow(_):
        inside.set()
        gate.wait(30)

    telemetry.consumers.append(slow)
    dispatch.dispatch(batch("a"))
    assert inside.wait(30)

    child = os.fork()
    if child == 0:
        try:
            gate.set()
            waited = dispatch.pending()
            dispatch.dispatch(batch("b"))
            os._exit(0 if waited == 0 and dispatch.drain(30) else 1)
        finally:
            os._exit(2)
    _, code = os.waitpid(child, 0)
    gate.set()

    assert (0, True) == (os.waitstatus_to_exitcode(code), dispatch.drain(30))
    assert 1 == dispatch.status()[0].batches
    sys.stdout.flush()
