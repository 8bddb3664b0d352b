"""MemorySink, which users of the library test their metrics with."""

from __future__ import annotations

import pytest

from lambda_ext import Metrics, configure, metrics
from lambda_ext.exceptions import MetricError
from lambda_ext.metrics import recorder
from lambda_ext.testing import MemorySink


class TestMemorySink:
    """What it keeps."""

    def test_block_collects_what_was_recorded_in_it(self, capsys):
        """What was recorded before the block goes where it would have gone."""
        metrics.count("n", 1)
        with MemorySink() as sink:
            metrics.count("n", 2)
            metrics.count("n", 3, shop="a")
        metrics.count("n", 4)
        metrics.flush()

        assert 5 == sink.total("n")
        assert 3 == sink.total("n", shop="a")
        assert 0 == sink.total("n", shop="b")
        assert 2 == len(capsys.readouterr().out.splitlines())

    def test_blocks_nest(self):
        """The inner one collects until it ends, the outer one the rest."""
        with MemorySink() as outer:
            with MemorySink() as inner:
                metrics.count("n", 1)
            metrics.count("n", 2)

        assert (1, 2) == (inner.total("n"), outer.total("n"))

    def test_it_is_a_sink_of_one_metrics(self):
        """Given to a Metrics it collects only what that one records."""
        sink = MemorySink()
        mine = Metrics("mine", sink=sink)
        with MemorySink() as rest:
            mine.distribution("d", 1.5)
            mine.distribution("d", 2.5)
            metrics.count("n")

        assert [1.5, 2.5] == sink.values("d")
        assert "mine" == sink.batches[0].namespace
        assert [] == rest.points("d")
        sink.clear()
        assert [] == sink.values("d")

    def test_bad_record_raises_inside(self):
        """In a test it is strict, independently of the option."""
        configure(strict=False)
        with MemorySink(), pytest.raises(MetricError, match="'n'"):
            metrics.count("n", "one")

    @pytest.mark.logs
    def test_switch_turns_that_off(self):
        """strict=False counts, and strict=None leaves it to the option."""
        configure(strict=True)
        with MemorySink(strict=False):
            metrics.count("n", "one")
            with MemorySink(strict=None), pytest.raises(MetricError):
                metrics.count("n", "one")
            metrics.count("n", "one")

        assert {"value": 2} == recorder.snapshot()["dropped"]

    def test_batch_that_is_offered_again_is_kept_once(self):
        """After a signal handler's exception the same batch may come again."""
        with MemorySink() as sink:
            metrics.count("n")
            metrics.flush()
            sink.accept(sink.batches[0])

        assert 1 == sink.total("n")


def test_repr_shows_what_is_there_and_what_waits():
    """A failing assertion prints it: a metric that was not flushed is no riddle."""
    with MemorySink() as sink:
        empty = repr(sink)
        metrics.count("orders", shop="a")
        waiting = repr(sink)
        metrics.flush()
        for number in range(12):
            metrics.count(f"n{number}")

    assert "<MemorySink with nothing>" == empty
    assert "<MemorySink with nothing; 1 record(s) wait for a flush>" == waiting
    assert repr(sink).startswith("<MemorySink with 'orders', ")
    assert repr(sink).endswith(" and 3 more>")
    assert "<Batch 'lambda_ext' of 1 points>" == repr(sink.batches[0])
