"""A signal handler that raises while records are handed over: none lost, none doubled."""

from __future__ import annotations

import threading

import pytest
from interruptions import Interrupted, interruptions

from lambda_ext import telemetry
from lambda_ext.lifecycle import process
from lambda_ext.telemetry import records, routes, shipping

pytestmark = pytest.mark.logs  # a busy machine may leave the sink behind


class Sink:
    """Keeps what it is given; notes when two threads are in it at once."""

    def __init__(self):
        self.name = "sink"
        self.messages = []
        self.overlaps = 0
        self._inside = threading.Lock()

    def accept_logs(self, entries):
        if not self._inside.acquire(blocking=False):
            self.overlaps += 1
            return
        self.messages += [entry.message for entry in entries]
        self._inside.release()


def runs(operation):
    """Yield (interruption, sink) after *operation*, for each place to interrupt."""
    for interruption in interruptions([shipping, routes]):
        process.reset()
        sink = Sink()
        route = telemetry.route().to(sink, max_age=0)
        for message in "abc":
            entry = telemetry.Entry(
                records.make({"time": "", "type": "function", "record": message})
            )
            route._put(entry)
        try:
            with interruption:
                operation()
        except Interrupted:
            pass
        yield interruption, sink, route


def check(operation):
    count = 0
    for interruption, sink, route in runs(operation):
        assert interruption.happened == interruption.raised, interruption
        assert telemetry.flush(30), interruption
        assert "abc" == "".join(sorted(sink.messages)), interruption
        assert (0, 3, 0) == (sink.overlaps, route.handed, route.waiting), interruption
        count += 1
    assert count > 20


def test_end_of_an_invocation():
    """Wherever the handler interrupts, the next flush hands over each record once."""
    check(shipping._at_response)


def test_flush():
    """The same of flush(), which waits."""
    check(lambda: telemetry.flush(30))
