"""
A guard of the user's against a time-out: a signal handler that raises an Exception.

It arrives wherever it is raised, also where the library, for the sake of code of
the user's that it calls, catches what that code raises.
"""

from __future__ import annotations

import pytest
from interruptions import guard, interruptions

import lambda_ext
from lambda_ext import Flags, disclosure, invocation, metrics
from lambda_ext.delivery import queue
from lambda_ext.flags import document, flags, rules
from lambda_ext.lifecycle import clock, phases
from lambda_ext.metrics import recorder, validation
from lambda_ext.testing import FakeSource, MemorySink
from lambda_ext.values import derived, handles

DOCUMENT = """{"on": {"_variants": [
    {"name": "a", "enabled": true, "rule": "(eq $n 1)"},
    {"name": "b", "enabled": false}
]}}"""


class Number:
    """A number of the user's."""

    def __init__(self, index):
        if index:
            self.__class__ = WithIndex

    def __float__(self):
        return float("1.5")


class WithIndex(Number):
    """One that has both, of which one works."""

    def __index__(self):
        raise TypeError


class Context(dict):
    """A context of the user's, whose look-up is Python code."""

    def get(self, name, default=None):
        return dict.get(self, name, default)


def arrives(modules, operation, *, least=5):
    """Call operation() with a guard at each place; each time its exception arrives."""
    swallowed = []
    happened = 0
    for run in interruptions(modules, guard):
        with run:
            operation()
        happened += run.happened
        if run.happened != run.raised:
            swallowed.append(run.where)

    assert [] == swallowed
    assert happened > least


@pytest.mark.logs
class TestArrives:
    """Wherever CPython runs the handler."""

    def test_in_a_log_line(self, monkeypatch):
        """Also in a filter of the user's, which may fail by itself."""
        logger = disclosure.logging.getLogger("lambda_ext")
        monkeypatch.setattr(logger, "filters", [lambda record: "x" in str(record.msg)])

        arrives([disclosure], lambda: disclosure.warn("event", "a\nb", key="x"))

    def test_in_a_record(self):
        """Of a number of the user's, and of a dimension that is none."""
        with MemorySink(strict=False):

            def record():
                metrics.distribution("a", 1.5)
                metrics.distribution("b", Number(index=False))
                metrics.gauge("c", Number(index=True))
                metrics.count("d", 1, dimensions=[("k", "v")])
                metrics.count("e", 1, dimensions=7)

            arrives([recorder, validation], record)

    def test_in_an_evaluation(self):
        """Of a context of the user's, with a listener that is told of it."""

        class Memory:
            name = "memory"
            scope = ("memory",)
            polled = False

            def plan(self, wanted):
                return [wanted]

            def fetch(self, wanted, *_):
                return {key: lambda_ext.typing.Answer(DOCUMENT, "1") for key in wanted}

        one = Flags("a", "b", "c", source=Memory())
        one.on_evaluation(lambda exposure: None)
        assert one.enabled("on", {"n": 1})

        arrives(
            [flags, document, rules, __import__(__name__)],
            lambda: one.enabled("on", Context(n=1)),
        )

    def test_in_a_delivery(self):
        """What was under way stays in the queue."""
        sent = []

        def send(payload, ends_at):
            sent.append(payload)
            return 0, ""

        def deliver():
            one.put("a", 1, 1)
            one.drain(clock.monotonic() + 10)

        one = queue.Delivery("x", send)
        arrives([queue], deliver)
        one.drain(clock.monotonic() + 10)

        assert {} == one.dropped
        assert 0 == one.pending

    def test_in_an_invocation(self):
        """Of a handler that does nothing."""
        handler = lambda_ext.handler(lambda event, context: None)

        class Lambda:
            def get_remaining_time_in_millis(self):
                return 1000

        handler({}, Lambda())
        arrives([invocation, clock, phases], lambda: handler({}, Lambda()))

    def test_where_something_is_closed(self):
        """What was made of a value is closed by a function of the user's."""
        with FakeSource({"db": "v"}):
            made = handles.Secret("db").derive(str.upper, close=lambda value: None)

            def close():
                assert "V" == made.value
                derived._snapshot()

            arrives([derived], close)
