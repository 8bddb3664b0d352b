"""What the library records of itself, where it is asked to."""

from __future__ import annotations

import contextlib
import threading

import pytest

import lambda_ext
from lambda_ext import configure, get_secret, metrics
from lambda_ext.exceptions import ConfigurationError, SourceError
from lambda_ext.testing import MemorySink


def invoked(body=lambda event, context: None, times=1):
    """Return a sink with the metrics of some invocations."""
    handler = lambda_ext.handler(body)
    with MemorySink() as sink:
        for _ in range(times):
            with contextlib.suppress(ZeroDivisionError):
                handler({}, None)
    return sink


def recorded(sink):
    """Return (name, values) of all points, in order."""
    return [(p.name, p.values) for batch in sink.batches for p in batch.points]


class TestColdStart:
    """ColdStart, opt-in."""

    def test_off_by_default(self):
        """It costs money, so that it is not recorded unasked."""
        assert [] == invoked().batches

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            (None, [("ColdStart", [1])]),
            ("on-demand", [("ColdStart", [1])]),
            ("snap-start", [("ColdStart", [1])]),
            ("provisioned-concurrency", []),
            ("lambda-managed-instances", []),
        ],
    )
    def test_once_where_an_invocation_waited(self, monkeypatch, kind, expected):
        """Environments that are made ahead of the request are no cold start."""
        if kind is not None:
            monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
        configure(cold_start_metric=True)

        assert expected == recorded(invoked(times=3))

    def test_first_call_that_raises(self):
        """It was a cold start all the same."""
        configure(cold_start_metric=True)

        sink = invoked(lambda event, context: 1 / 0, times=2)

        assert [("ColdStart", [1])] == recorded(sink)

    def test_known_before_the_handler_runs(self):
        """A handler that never ends has it recorded."""
        configure(cold_start_metric=True)
        seen = []

        def body(event, context):
            metrics.flush()
            seen.extend(recorded(sink))

        handler = lambda_ext.handler(body)
        with MemorySink() as sink:
            handler({}, None)

        assert [("ColdStart", [1])] == seen

    @pytest.mark.parametrize(
        "name",
        ["COLD_START_METRIC", "SELF_METRICS", "RUNTIME_METRICS", "PROPERTIES",
         "OTEL_FLUSH"],
    )  # fmt: skip
    def test_unusable_variable_is_refused(self, monkeypatch, name):
        """Decorating raises, as for each variable that is needed then."""
        from otel_modules import load

        load(monkeypatch)
        monkeypatch.setenv(f"LAMBDA_EXT_{name}", "maybe")

        with pytest.raises(ConfigurationError, match=name):
            lambda_ext.handler(print)

    def test_environment_turns_it_on(self, monkeypatch):
        """LAMBDA_EXT_COLD_START_METRIC does, for a handler that records nothing."""
        monkeypatch.setenv("LAMBDA_EXT_COLD_START_METRIC", "true")

        assert [("ColdStart", [1])] == recorded(invoked())


class TestErrors:
    """Errors, with the other self-metrics."""

    def test_counted_when_the_handler_raises(self):
        """Once for each invocation that failed."""
        configure(self_metrics=True)
        outcomes = iter([0, 1, 0])

        sink = invoked(lambda event, context: 1 / next(outcomes), times=3)

        assert 2 == sink.total("Errors")

    def test_off_by_default(self):
        """Errors are Lambda's own metric, too."""
        assert [] == invoked(lambda event, context: 1 / 0).batches


class TestCache:
    """Reads of values."""

    def test_hits_and_misses_of_each_invocation(self, source):
        """What was counted since the last invocation ended."""
        configure(self_metrics=True)

        def body(event, context):
            for _ in range(3):
                get_secret("db")

        sink = invoked(body, times=2)

        found = [
            (name, values)
            for name, values in recorded(sink)
            if not name.endswith("Latency")
        ]
        assert [
            ("CacheHits", [2]),
            ("CacheMisses", [1]),
            ("CacheHits", [3]),
        ] == found

    @pytest.mark.logs
    def test_stale_and_latency(self, source, time):
        """A value that serves past its age, and the time of each call to AWS."""
        configure(self_metrics=True, max_age=10)

        def body(event, context):
            get_secret("db")
            time.advance(60)

        handler = lambda_ext.handler(body)
        with MemorySink() as sink:
            handler({}, None)
            source.fail(SourceError("busy", transient=True))
            handler({}, None)

        assert 1 == sink.total("CacheStale")
        assert [0, 0] == sink.values("LoadLatency")

    def test_refresh_is_no_load(self, source, time):
        """A call in the background, for which no caller waits, has its own name."""
        from lambda_ext.values import store

        configure(self_metrics=True, max_age=100)
        handler = lambda_ext.handler(lambda event, context: get_secret("db"))
        with MemorySink() as sink:
            handler({}, None)
            record, done = store.loader.observe, threading.Event()

            def observe(elapsed_s, *, waited):
                record(elapsed_s + 0.25, waited=waited)
                done.set()

            store.loader.observe = observe
            time.advance(95)
            get_secret("db")
            assert done.wait(60)
            metrics.flush()

        assert [0] == sink.values("LoadLatency")
        assert [250] == sink.values("RefreshLatency")
        assert "Milliseconds" == sink.points("RefreshLatency")[0].unit

    def test_turned_on_late(self, source):
        """What was counted before is not of the invocation."""
        handler = lambda_ext.handler(lambda event, context: get_secret("db"))
        handler({}, None)
        handler({}, None)

        configure(self_metrics=True)
        with MemorySink() as sink:
            handler({}, None)

        assert [("CacheHits", [1])] == recorded(sink)

    def test_another_option_is_set_in_an_invocation(self, source):
        """What was read before `configure()` belongs to the invocation, too."""
        configure(self_metrics=True)

        def body(event, context):
            get_secret("db")
            configure(max_stale=60)
            get_secret("db")

        sink = invoked(body, times=2)

        assert 1 == sink.total("CacheMisses")
        assert 3 == sink.total("CacheHits")

    def test_off_and_on_again(self, source):
        """What was read in between is not recorded."""
        configure(self_metrics=True)
        handler = lambda_ext.handler(lambda event, context: get_secret("db"))
        with MemorySink() as sink:
            handler({}, None)
            configure(self_metrics=False)
            handler({}, None)
            configure(self_metrics=True)
            handler({}, None)

        assert 1 == sink.total("CacheMisses")
        assert 1 == sink.total("CacheHits")

    def test_off_again(self, source):
        """Nothing is recorded, and the loader is not watched any more."""
        from lambda_ext.values import store

        configure(self_metrics=True)
        invoked(lambda event, context: get_secret("db"))
        configure(self_metrics=False)

        assert [] == invoked(lambda event, context: get_secret("db")).batches
        assert store.loader.observe is None
