"""OpenTelemetry's providers are flushed when our metrics are, within our time."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from emulated import Gate, emulate, process, texts
from helpers import PATIENT, eventually, in_child, python
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from otel_modules import MODULES, load

import lambda_ext
from lambda_ext import configure
from lambda_ext.lifecycle import otel, phases
from lambda_ext.local.emulator import Budgets

NEVER_MS = 3_600_000  # the processors' own threads export nothing meanwhile


@pytest.fixture(autouse=True)
def _loaded(monkeypatch):
    """OpenTelemetry is loaded."""
    load(monkeypatch)


class Memory(MetricExporter):
    """Keeps the names of the metrics that are exported."""

    def __init__(self):
        super().__init__()
        self.names = []

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                self.names += [metric.name for metric in scope.metrics]
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass


class Sdk:
    """The three providers, each with a processor that exports when it must."""

    def __init__(self, monkeypatch):
        self.spans = InMemorySpanExporter()
        self.metrics = Memory()
        self.logs = InMemoryLogRecordExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(
            BatchSpanProcessor(self.spans, schedule_delay_millis=NEVER_MS)
        )
        reader = PeriodicExportingMetricReader(
            self.metrics, export_interval_millis=NEVER_MS
        )
        self.meter_provider = MeterProvider([reader], shutdown_on_exit=False)
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(
            BatchLogRecordProcessor(self.logs, schedule_delay_millis=NEVER_MS)
        )
        for module, getter, provider in (
            (trace, "get_tracer_provider", self.tracer_provider),
            (metrics, "get_meter_provider", self.meter_provider),
            (_logs, "get_logger_provider", self.logger_provider),
        ):
            monkeypatch.setattr(module, getter, lambda found=provider: found)
        self.counter = self.meter_provider.get_meter("t").create_counter("orders")

    def record(self, event=None, context=None):
        """Make one span, one count and one log record."""
        with self.tracer_provider.get_tracer("t").start_as_current_span("work"):
            self.counter.add(1)
        self.logger_provider.get_logger("t").emit(_logs.LogRecord(body="said"))

    def exported(self):
        """Return how many spans, metrics and log records were exported."""
        return (
            len(self.spans.get_finished_spans()),
            len(self.metrics.names),
            len(self.logs.get_finished_logs()),
        )

    def close(self):
        for each in (self.tracer_provider, self.meter_provider, self.logger_provider):
            each.shutdown()


@pytest.fixture(name="sdk")
def _sdk(monkeypatch):
    sdk = Sdk(monkeypatch)
    yield sdk
    sdk.close()


class Provider:
    """Stands for a provider: counts calls, and does what the test says."""

    def __init__(self, do=lambda: None):
        self.do = do
        self.calls = []

    def force_flush(self, timeout_millis):
        self.calls.append(timeout_millis)
        self.do()


@pytest.fixture(name="providers")
def _providers(monkeypatch):
    """Three providers that do nothing, by module."""
    found = {}
    for module, getter in otel.PROVIDERS:
        found[module] = provider = Provider()
        monkeypatch.setattr(MODULES[module], getter, lambda provider=provider: provider)
    return found


class Context:
    """Lambda's context, with the time that is left."""

    def __init__(self, remaining_ms):
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self):
        return self.remaining_ms


def calls(providers):
    """Return how often each was called."""
    return [len(provider.calls) for provider in providers.values()]


class TestTriggers:
    """When it is called."""

    def test_end_of_an_invocation(self, sdk):
        """What was recorded in an invocation is exported before it ends."""
        handler = lambda_ext.handler(sdk.record)

        handler({}, None)
        assert (1, 1, 1) == sdk.exported()
        handler({}, None)
        assert (2, 2, 2) == sdk.exported()

    def test_handler_that_raises(self, sdk):
        """What was recorded before it raised is exported, too."""

        @lambda_ext.handler
        def handler(event, context):
            sdk.record()
            raise ValueError("no")

        with pytest.raises(ValueError):
            handler({}, None)

        assert (1, 1, 1) == sdk.exported()

    @pytest.mark.parametrize("phase", [phases.SNAPSHOT, phases.RESPONSE])
    def test_phase(self, providers, phase):
        """A snapshot comes before a freeze, too."""
        lambda_ext.start()

        phases.call(phase)

        assert [1, 1, 1] == calls(providers)

    @pytest.mark.parametrize("phase", [phases.SHUTDOWN, phases.TIMEOUT])
    def test_phase_within_a_budget(self, providers, phase):
        """At the end each has what is left of the time."""
        lambda_ext.start()

        phases.call_within(30.0, phase)

        assert [1, 1, 1] == calls(providers)
        (given,) = set().union(*(p.calls for p in providers.values()))
        assert 1_000 < given <= 30_000

    def test_loaded_by_the_first_invocation(self, providers, monkeypatch):
        """OpenTelemetry may be imported after the handler was decorated."""
        with monkeypatch.context() as before:
            for name in MODULES:
                before.delitem(sys.modules, name)
            handler = lambda_ext.handler(lambda event, context: None)

        handler({}, None)
        handler({}, None)

        assert [2, 2, 2] == calls(providers)

    def test_never_loaded(self, monkeypatch):
        """Then the first invocation looks once, and nothing is imported."""
        for name in MODULES:
            monkeypatch.delitem(sys.modules, name)
        handler = lambda_ext.handler(lambda event, context: None)
        handler({}, None)

        assert () == phases.listeners(phases.RESPONSE)
        assert () == phases.listeners(phases.INVOKE)

    @pytest.mark.parametrize(
        ("is_on", "expected"),
        [(True, [0, 0, 1]), (False, [1, 1, 1]), (None, [1, 1, 1])],
    )
    def test_instrumentation_of_lambda(self, providers, monkeypatch, is_on, expected):
        """It flushes spans and metrics at the end of an invocation by itself."""

        class Instrumentor:
            is_instrumented_by_opentelemetry = is_on

        class Module:
            pass

        if is_on is not None:
            Module.AwsLambdaInstrumentor = Instrumentor
        monkeypatch.setitem(sys.modules, otel.INSTRUMENTATION, Module)
        lambda_ext.handler(lambda event, context: None)({}, None)
        assert expected == calls(providers)

        phases.call_within(30.0, phases.SHUTDOWN)
        assert [n + 1 for n in expected] == calls(providers)

    def test_option_turns_it_off(self, providers):
        """With otel_flush=False the SDK is left to itself."""
        configure(otel_flush=False)

        lambda_ext.handler(lambda event, context: None)({}, None)

        assert [0, 0, 0] == calls(providers)


class TestBudget:
    """How long it may take."""

    def test_invocation_has_little_time_left(self, providers, time):
        """What is left, less a margin, is what they get."""
        handler = lambda_ext.handler(lambda event, context: time.advance(0.5))

        handler({}, Context(1_500))

        (given,) = set().union(*(p.calls for p in providers.values()))
        assert given in (949, 950)  # of 1 second, less 50 ms, in binary fractions

    def test_invocation_has_much_time(self, providers):
        """Two seconds are the most."""
        handler = lambda_ext.handler(lambda event, context: None)

        handler({}, Context(900_000))

        assert {2_000} == set().union(*(p.calls for p in providers.values()))

    def test_no_time_left(self, providers, time):
        """Then none is called."""
        handler = lambda_ext.handler(lambda event, context: None)

        handler({}, Context(40))

        assert [0, 0, 0] == calls(providers)

    @pytest.mark.logs
    def test_one_that_hangs(self, providers, caplog):
        """It is left behind, not called again, and keeps the others from nothing."""
        gate = threading.Event()
        lambda_ext.start()
        hung = providers["opentelemetry.trace"]
        hung.do = lambda: gate.wait(60)
        with pytest.MonkeyPatch.context() as alone:
            for name in list(MODULES)[1:]:
                alone.delitem(sys.modules, name)
            otel.flush(0.01)

        otel.flush(30)
        otel.flush(30)
        gate.set()

        assert [1, 2, 2] == calls(providers)
        (record,) = caplog.records
        assert "otel_flush_failed provider=opentelemetry.trace" in record.getMessage()

    def test_one_that_came_back(self, providers):
        """After it has returned it is called as before."""
        lambda_ext.start()
        otel.flush(30)
        otel.flush(30)

        assert [2, 2, 2] == calls(providers)
        assert {} == otel._busy

    @pytest.mark.logs
    def test_without_threads(self, providers, monkeypatch):
        """Where no thread is to be had, they are called in the caller's."""

        def refuse(*args, **kwargs):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(otel.real_threads, "start", refuse)
        me = []
        providers["opentelemetry.metrics"].do = lambda: me.append(threading.get_ident())

        otel.flush(1)

        assert [threading.get_ident()] == me

    def test_signal_handler_raises_before_the_thread_begins(
        self, providers, monkeypatch
    ):
        """Its exception arrives, and the provider is called by the next flush."""

        class Interrupted(BaseException):
            pass

        def interrupt(*args, **kwargs):
            raise Interrupted

        with monkeypatch.context() as once:
            once.setattr(otel.real_threads, "start", interrupt)
            with pytest.raises(Interrupted):
                otel.flush(30)
        otel.flush(30)

        assert [1, 1, 1] == calls(providers)


class TestProviders:
    """Which providers there are."""

    def test_api_alone(self):
        """Without the SDK there is nothing to flush."""
        handler = lambda_ext.handler(lambda event, context: "done")

        assert "done" == handler({}, None)
        assert {} == otel._busy

    @pytest.mark.parametrize("lacking", [name for name, _ in otel.PROVIDERS])
    def test_one_is_missing(self, providers, monkeypatch, lacking):
        """A module that is not loaded, or a provider without the method, is skipped."""
        monkeypatch.delitem(sys.modules, lacking)
        lambda_ext.start()

        otel.flush(30)

        expected = [int(name != lacking) for name in providers]
        assert expected == calls(providers)

    @pytest.mark.logs
    @pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1)])
    def test_one_that_raises(self, providers, caplog, error):
        """It is logged once, without its message, until it succeeds."""

        def do():
            raise error

        provider = providers["opentelemetry.trace"]
        provider.do = do
        handler = lambda_ext.handler(lambda event, context: "done")

        assert ["done", "done"] == [handler({}, None), handler({}, None)]
        (record,) = caplog.records
        assert type(error).__name__ in record.getMessage()
        assert "secret" not in record.getMessage()
        provider.do = lambda: None
        handler({}, None)
        provider.do = do
        handler({}, None)
        assert 2 == len(caplog.records)
        assert [4, 4, 4] == calls(providers)

    @pytest.mark.logs
    def test_one_that_cannot_be_made(self, providers, monkeypatch, caplog):
        """A variable may name a provider that is not installed."""

        def fail():
            raise RuntimeError("no such provider")

        monkeypatch.setattr(trace, "get_tracer_provider", fail)
        lambda_ext.start()

        otel.flush(30)

        assert [0, 1, 1] == calls(providers)
        assert 1 == len(caplog.records)

    def test_forked_child(self, providers):
        """It waits for no provider of its parent's."""
        otel._busy["opentelemetry.trace"] = object()

        assert in_child(lambda: not otel._busy)


PROGRAM = """
import sys
import lambda_ext
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

class Printing(SpanExporter):
    def export(self, spans):
        for span in spans:
            print("exported", span.name, flush=True)
        return SpanExportResult.SUCCESS

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(Printing(), schedule_delay_millis=3600000))
trace.set_tracer_provider(provider)
"""

FUNCTION = (
    PROGRAM
    + """
import threading, time, os

def record(event, context):
    with trace.get_tracer("t").start_as_current_span("in the invocation"):
        pass
    def later():
        with open(os.environ["GATE"]) as opened:
            opened.read()
        with trace.get_tracer("t").start_as_current_span("afterwards"):
            pass
        print("recorded", flush=True)
    threading.Thread(target=later, daemon=True).start()

handler = lambda_ext.handler(record)
"""
)


class TestProcesses:
    """Real processes."""

    def test_exit(self):
        """What is recorded last is exported when the interpreter ends."""
        done = python(
            PROGRAM
            + "lambda_ext.start()\n"
            + "with trace.get_tracer('t').start_as_current_span('last'): pass\n"
        )

        assert ("exported last\n", "") == (done.stdout, done.stderr)

    @process
    def test_sigterm(self, tmp_path):
        """What is recorded after the last invocation is exported at SIGTERM."""
        (tmp_path / "app.py").write_text(PATIENT + FUNCTION)
        gate = Gate(tmp_path)
        root = os.path.dirname(os.path.dirname(lambda_ext.__file__))
        env = {"GATE": gate.path, "PYTHONPATH": root}
        with emulate(
            task_root=str(tmp_path),
            env=env,
            freeze=False,
            budgets=Budgets(internal_s=30.0),
        ) as emulator:
            emulator.invoke({})
            gate.open()
            eventually(lambda: "recorded" in texts(emulator))
            emulator.shutdown()

            said = [text for text in texts(emulator) if text.startswith("exported")]

        assert ["exported in the invocation", "exported afterwards"] == said
