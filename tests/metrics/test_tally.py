"""Counting is exact from anywhere."""

from __future__ import annotations

import pytest
from helpers import run_threads

from lambda_ext.metrics import tally


@pytest.fixture(autouse=True)
def _clean():
    tally.reset()
    yield
    tally.reset()


class TestTally:
    """Counters that many threads share."""

    def test_many_threads_lose_nothing(self):
        """What 8 threads count while others add it up comes out exactly."""
        run_threads(8, lambda _: [tally.add({"a": 1, "b": 2}) for _ in range(2_000)])

        assert tally.events() == {"a": 16_000, "b": 32_000}

    def test_memory_stays_small(self):
        """Ten thousand events leave a few dozen entries behind."""
        for _ in range(10_000):
            tally.add({"a": 1})

        assert len(tally._gathered) <= tally.FOLD

    @pytest.mark.logs
    def test_each_reason_is_logged_once(self, caplog):
        """The second drop for the same reason is counted and not logged."""
        tally.drop("unit", 1, "first")
        tally.drop("unit", 2, "second")
        tally.drop("name", 1, "third")

        assert tally.dropped() == {"unit": 3, "name": 1}
        assert [record.getMessage() for record in caplog.records] == [
            "lambda_ext.metric_dropped reason=unit first",
            "lambda_ext.metric_dropped reason=name third",
        ]
