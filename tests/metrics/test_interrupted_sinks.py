"""A signal handler raises anywhere in a sink's accept(): nothing lost, nothing doubled."""

from __future__ import annotations

import json

import pytest
from interruptions import interruptions

from lambda_ext.delivery import queue
from lambda_ext.delivery.queue import Delivery, Item
from lambda_ext.lifecycle import clock, process
from lambda_ext.metrics import datadog, otlp, stdout
from lambda_ext.metrics.buffer import Series
from lambda_ext.metrics.datadog import DatadogSink
from lambda_ext.metrics.otlp import OtlpSink
from lambda_ext.metrics.parcels import Batch, Point


def batch(*names, dimensions=()):
    """Return a batch of one counter for each of *names*."""
    points = [
        Point(Series("Shop", "count", name, "Count", dimensions), [1]) for name in names
    ]
    return Batch("Shop", clock.wall(), points)


def test_queue_takes_a_batch_once():
    """Delivery.offer(): all items of a batch or none, and each of them once."""
    for run in interruptions([queue, process]):
        sent = []
        delivery = Delivery(
            "x", lambda item, _, sent=sent: sent.append(item) or (0, "")
        )
        one = object()
        items = [Item("a", 1, 1), Item("b", 2, 1)]
        with run:
            delivery.offer(one, items)
        pending = delivery.pending
        delivery.offer(one, items)
        delivery.drain(clock.monotonic() + 60)

        assert pending in (0, 3)
        assert (["a", "b"], 3, 0) == (sent, delivery.sent, delivery.bytes)


def test_otlp_takes_a_batch_once(monkeypatch):
    """OtlpSink.accept(), of a batch that becomes several requests."""
    monkeypatch.setattr(otlp, "MAX_POINTS", 2)
    for run in interruptions([otlp, queue, process]):
        sink = OtlpSink("http://localhost:1/v1/metrics")
        one = batch("a", "b", "c")
        with run:
            sink.accept(one)
        sink.accept(one)

        assert (3, 2) == (sink.pending, sink._delivery.items)
        process.reset()


def test_queue_combines_all_that_there_is():
    """Delivery.drain(): what is combined is neither lost nor doubled."""

    def combine(items):
        total = sum(item.payload for item in items)
        return [Item(total, sum(item.count for item in items), 1)]

    for run in interruptions([queue, process]):
        sent = []
        delivery = Delivery(
            "x",
            lambda item, _, sent=sent: sent.append(item) or (0, ""),
            combine=combine,
        )
        for number in (1, 2, 4):
            delivery.put(number, 1, 1)
        with run:
            delivery.drain(clock.monotonic() + 60)
        delivery.drain(clock.monotonic() + 60)

        # What was under way may have been sent before the handler raised.
        assert sent in ([7], [7, 7])
        assert (3, 0, 0) == (delivery.sent, delivery.pending, delivery.bytes)


def test_queue_combines_while_a_handler_queues():
    """What a signal handler queues meanwhile is sent, too."""

    def combine(items):
        return [Item(sum(item.payload for item in items), len(items), 1)]

    waiting = []
    for run in interruptions([queue], action=lambda: waiting[-1].put(8, 1, 1)):
        sent = []
        delivery = Delivery(
            "x",
            lambda item, _, sent=sent: sent.append(item) or (0, ""),
            combine=combine,
        )
        waiting.append(delivery)
        for number in (1, 2, 4):
            delivery.put(number, 1, 1)
        with run:
            delivery.drain(clock.monotonic() + 60)
        delivery.drain(clock.monotonic() + 60)

        assert 7 + 8 * run.happened == sum(sent)
        assert 0 == delivery.pending


def test_queue_counts_what_a_handler_drops_while_it_counts():
    """Delivery.drain() of what is partly refused, and drop() in a signal handler."""
    delivery, handled = None, 0

    def drop():
        nonlocal handled
        handled += 1
        delivery.drop(1, "queue_full")

    for run in interruptions([queue], action=drop):
        delivery, handled = Delivery("x", lambda *_: (2, "bad")), 0
        delivery._warned.add("bad")  # no line is logged
        delivery.put("a", 3, 1)
        with run:
            delivery.drain(clock.monotonic() + 60)

        assert run.happened == handled
        assert {"refused": 2, "queue_full": handled} == {
            "queue_full": 0,
            **delivery.dropped,
        }
        assert (1, 0, 0) == (delivery.sent, delivery.pending, delivery.bytes)


@pytest.mark.logs
def test_datadog_writes_a_batch_once(capfd):
    """DatadogSink.accept() of lines; what it drops is counted once, too."""
    for run in interruptions([datadog, stdout, process]):
        sink = DatadogSink(flush_to_log=True)
        one = batch("a", "aws.lambda.enhanced.b", "c")
        with run:
            sink.accept(one)
        sink.accept(one)
        out = capfd.readouterr().out.splitlines()

        assert ["a", "c"] == [json.loads(line)["m"] for line in out if line]
        assert (2, {"reserved_name": 1}, 0) == (sink.sent, sink.dropped, sink.pending)
        process.reset()
