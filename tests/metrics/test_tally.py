"""Counting what was dropped is exact from anywhere, and is told."""

from __future__ import annotations

import json
import logging
import signal

import interruptions
import pytest
from helpers import python, run_threads

from lambda_ext.lifecycle import process
from lambda_ext.metrics import losses, tally

pytestmark = pytest.mark.logs


@pytest.fixture(autouse=True)
def _clean():
    tally.reset()
    yield
    tally.reset()


class TestProcess:
    """Losses of a process, also where none has been counted: `tally` is not loaded."""

    @pytest.mark.parametrize(
        ("then", "left"),
        [
            ("", {"stdout": 2}),
            ("os.fork() and os._exit(0)", {}),
            ("process.reset()", {}),
            ("lambda_ext.stats(); os.fork() and os._exit(0)", {}),
            ("lambda_ext.stats(); process.reset()", {}),
        ],
        ids=["counted", "forked", "reset", "counted and forked", "counted and reset"],
    )
    def test_are_those_of_one_process(self, then, left):
        """A child has none of its parent's, nor has what begins anew."""
        run = python(
            f"""
import os, sys
import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import process
from lambda_ext.metrics import losses

metrics.count("first")
metrics.flush()
losses.uncounted.append(("stdout", "n", 2, "why"))
assert "lambda_ext.metrics.tally" not in sys.modules
{then}
print(lambda_ext.stats().metrics.dropped)
"""
        )

        assert str(left) == run.stdout.splitlines()[-1]


class TestCounting:
    """Counters that many threads share."""

    @pytest.mark.parametrize(
        ("ask", "answer"),
        [
            (tally.refused, 1),
            (tally.dropped, {"name": 1}),
            (tally.dropped_by_name, {"name": {"n": 1}}),
        ],
        ids=["refused", "dropped", "by name"],
    )
    def test_whatever_is_asked_first_is_counted(self, ask, answer):
        """Also what could not be counted when it was refused."""
        losses.uncounted.extend((("", "", 1, ""), ("name", "n", 1, "why")))

        assert answer == ask()

    def test_many_threads_lose_nothing(self):
        """What 8 threads drop while others add it up comes out exactly."""

        def body(index):
            for number in range(500):
                tally.refuse("a", "why", name="n")
                tally.drop("b", 2, "why", name=str(index))
                if number % 50 == 0:
                    tally.dropped()

        assert [None] * 8 == run_threads(8, body)
        assert {"a": 4_000, "b": 8_000} == tally.dropped()
        assert 4_000 == tally.refused()
        assert tally.dropped_by_name() == {
            "a": {"n": 4_000},
            "b": {str(index): 1_000 for index in range(8)},
        }

    def test_names_are_bounded(self, monkeypatch):
        """Past the bound all other names are one."""
        monkeypatch.setattr(tally, "MAX_NAMES", 3)
        for name in "abcde":
            tally.drop("r", 1, "why", name=name)

        assert {"r": {"a": 1, "b": 1, "c": 1, "...": 2}} == tally.dropped_by_name()

    def test_signal_handlers_that_raise_lose_nothing(self):
        """An exception at any place leaves the number right."""
        found = []
        for interruption in interruptions.interruptions([tally, process]):
            tally.reset()
            losses.uncounted += [("r", "n", 1, "why")] * 3
            with interruption:
                tally.tell()
            tally.tell()
            found.append(tally.dropped())

        assert len(found) > 20
        assert all(one == {"r": 3} for one in found)

    def test_signal_handlers_that_count_lose_and_double_nothing(self):
        """A handler that drops at each place is counted, and what it interrupts."""
        handled = 0

        def handle():
            nonlocal handled
            handled += 1
            tally.drop("r", 1, "why", name="handler")

        with interruptions.where_handlers_run([tally, process], handle):
            tally.drop("r", 1, "why", name="outside")
            tally.tell()

        assert handled > 10
        assert tally.dropped_by_name() == {"r": {"handler": handled, "outside": 1}}

    @pytest.mark.parametrize(
        "drop",
        [
            lambda: tally.drop("r", 1, "why", name="handler"),
            lambda: losses.uncounted.append(("r", "handler", 1, "why")),
        ],
    )
    def test_handler_that_counts_at_one_place_is_told_once(self, caplog, drop):
        """What a handler drops while losses are added up is counted and told once."""
        inside = set()
        for interruption in interruptions.interruptions([tally, process], drop):
            tally.reset()
            caplog.clear()
            losses.uncounted += [("r", name, 1, "why") for name in "abc"]
            with interruption:
                tally.tell()
            tally.tell()
            inside.add(interruption.where)
            told = [
                json.loads(record.getMessage().split(" ", 2)[2])["r"]
                for record in caplog.records
                if "metrics_dropped" in record.getMessage()
            ]
            handled = int(interruption.happened)

            first = [
                record.getMessage()
                for record in caplog.records
                if "metric_dropped" in record.getMessage()
            ]

            assert {"r": 3 + handled} == tally.dropped()
            assert 3 + handled == sum(sum(names.values()) for names in told)
            assert len(first) >= 3
            assert len({*first}) == len(first)

        assert {"_fold_all", "tell"} <= inside


class TestTelling:
    """What is logged."""

    @pytest.mark.parametrize(
        "ask", [tally.refused, tally.dropped, tally.dropped_by_name]
    )
    def test_loss_that_was_asked_for_is_told_all_the_same(self, caplog, ask):
        """By both lines, each once, though it has been counted before the flush."""
        losses.uncounted.append(("r", "n", 2, "why"))
        ask()
        tally.tell()
        tally.tell()

        assert [
            "lambda_ext.metric_dropped reason=r name='n': why",
            'lambda_ext.metrics_dropped number=2 {"r": {"n": 2}}',
        ] == caplog.messages

    def test_more_lines_than_one_are_those_of_a_traceback(self, caplog):
        """They come after what is told, as they are."""
        tally.drop("sink", 1, "it raised:\n  File\nValueError")
        tally.drop("unit", 1, "why")

        assert [
            "lambda_ext.metric_dropped reason=sink: it raised:\n  File\nValueError",
            "lambda_ext.metric_dropped reason=unit: why",
        ] == caplog.messages

    def test_names_that_are_known_are_told_apart_from_the_rest(self, monkeypatch):
        """Past the bound those that come first are the rest."""
        monkeypatch.setattr(tally, "MAX_NAMES", 2)
        for name in "abca":
            tally.drop("unit", 1, "why", name=name)

        assert {"unit": {"a": 2, "b": 1, "...": 1}} == tally.dropped_by_name()

    def test_each_reason_and_name_is_logged_once(self, caplog):
        """The second drop for the same reason and name is counted, not logged."""
        tally.drop("unit", 1, "first", name="n")
        tally.drop("unit", 2, "second", name="n")
        tally.drop("unit", 1, "third", name="m")
        tally.drop("name", 1, "fourth", name="<list>")

        assert {"unit": 4, "name": 1} == tally.dropped()
        assert [
            "lambda_ext.metric_dropped reason=unit name='n': first",
            "lambda_ext.metric_dropped reason=unit name='m': third",
            "lambda_ext.metric_dropped reason=name name='<list>': fourth",
        ] == [record.getMessage() for record in caplog.records]

    def test_sum_of_the_lines_is_what_was_dropped(self, caplog):
        """One line for each time of telling, none when nothing is new."""
        for number in (3, 4):
            tally.drop("unit", number, "why", name='a "b"\n')
            tally.drop("value", 1, "why", name="n")
            tally.tell()
            tally.tell()
        lines = [
            record.getMessage()
            for record in caplog.records
            if "metrics_dropped" in record.getMessage()
        ]
        told = [json.loads(line.split(" ", 2)[2]) for line in lines]

        assert [
            ["lambda_ext.metrics_dropped", "number=4"],
            ["lambda_ext.metrics_dropped", "number=5"],
        ] == [line.split(" ")[:2] for line in lines]
        assert [
            {"unit": {'a "b"\n': 3}, "value": {"n": 1}},
            {"unit": {'a "b"\n': 4}, "value": {"n": 1}},
        ] == told
        assert not any("\n" in line for line in lines)

    def test_line_is_bounded(self, caplog):
        """Of many names the most frequent are told, the rest as one number."""
        for index in range(50):
            tally.drop("unit", 1 + (index == 49), "why", name=f"n{index}")
        tally.tell()
        (line,) = [
            record.getMessage()
            for record in caplog.records
            if "metrics_dropped" in record.getMessage()
        ]
        names = json.loads(line.split(" ", 2)[2])["unit"]

        assert (21, 2, 30) == (len(names), names["n49"], names["..."])

    def test_number_of_lines_is_bounded(self, caplog):
        """Names that are never the same do not fill the log."""
        for index in range(1_000):
            tally.drop("name", 1, "why", name=f"n{index}")

        assert len(caplog.records) == tally.MAX_LOGGED
        assert {"name": 1_000} == tally.dropped()

    def test_what_a_signal_handler_raises_while_it_is_logged_arrives(self):
        """It is not the log handler's."""

        class Sends(logging.Handler):
            def emit(self, record):
                signal.raise_signal(signal.SIGUSR1)

        def handle(*_):
            raise interruptions.Guarded

        log = logging.getLogger("lambda_ext")
        handler = Sends()
        former = signal.signal(signal.SIGUSR1, handle)
        log.addHandler(handler)
        try:
            with pytest.raises(interruptions.Guarded):
                tally.drop("stdout", 1, "why", name="n")
        finally:
            log.removeHandler(handler)
            signal.signal(signal.SIGUSR1, former)

        assert {"stdout": 1} == tally.dropped()

    def test_log_that_raises_changes_no_number(self):
        """A log handler of the user's that raises is felt nowhere, counted once."""

        class Raising(logging.Handler):
            def emit(self, record):
                raise ValueError("I/O operation on closed file")

        log = logging.getLogger("lambda_ext")
        handler = Raising()
        log.addHandler(handler)
        try:
            tally.drop("stdout", 1, "why", name="n")
            tally.tell()
        finally:
            log.removeHandler(handler)

        assert {"stdout": 1} == tally.dropped()
