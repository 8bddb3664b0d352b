"""Runtime metrics: what an invocation used, by the names of Lambda Insights."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest
from emulated import emulate, process, texts
from helpers import ROOT

import lambda_ext
from lambda_ext import config, configure, metrics
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import phases, runtime_client
from lambda_ext.metrics import runtime
from lambda_ext.parsers import RUNTIME
from lambda_ext.testing import MemorySink

UNITS = {
    "cpu_system_time": "Milliseconds",
    "cpu_total_time": "Milliseconds",
    "cpu_user_time": "Milliseconds",
    "duration": "Milliseconds",
    "fd_max": "Count",
    "fd_use": "Count",
    "memory_utilization": "Percent",
    "rx_bytes": "Bytes",
    "threads_max": "Count",
    "tmp_free": "Bytes",
    "tmp_max": "Bytes",
    "tmp_used": "Bytes",
    "total_memory": "Megabytes",
    "total_network": "Bytes",
    "tx_bytes": "Bytes",
    "used_memory_max": "Megabytes",
}
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0
{}"""
LINE = "  {}: {} 5 0 0 0 0 0 0 {} 7 0 0 0 0 0 0\n"

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/net/dev"), reason="there is no /proc"
)


@pytest.fixture(name="function", autouse=True)
def _function(monkeypatch):
    """A function of 128 MB, whose name is the dimension."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "fn")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")


@pytest.fixture(name="network")
def _network(tmp_path, monkeypatch):
    """A file in place of /proc/net/dev, with what the test writes into it."""
    path = tmp_path / "dev"
    monkeypatch.setattr(runtime, "NETWORK", str(path))

    def write(**interfaces):
        lines = [LINE.format(name, *numbers) for name, numbers in interfaces.items()]
        path.write_text(NET.format("".join(lines)))

    write(eth0=(0, 0))
    return write


def invoked(body=lambda event, context: None, times=1):
    """Return a sink with the metrics of some invocations."""
    handler = lambda_ext.handler(body)
    with MemorySink() as sink:
        for _ in range(times):
            handler({}, None)
    return sink


def units(sink):
    """Return the unit of each metric by its name."""
    return {point.name: point.unit for batch in sink.batches for point in batch.points}


class TestNames:
    """What is recorded."""

    def test_off_by_default(self):
        """Without the option nothing is recorded."""
        assert [] == invoked().batches

    def test_names_and_units_are_those_of_lambda_insights(self):
        """Each is recorded once for an invocation, with its unit."""
        configure(runtime_metrics=True)

        sink = invoked(times=2)

        assert UNITS == units(sink)
        assert [2] * len(UNITS) == [len(sink.values(name)) for name in UNITS]
        assert set(RUNTIME) == {*UNITS, "init_duration", "cold_start"}

    def test_dimension_is_the_function(self):
        """They have one dimension, and the user's metrics keep theirs."""
        configure(runtime_metrics="duration", service="shop")

        sink = invoked(lambda event, context: metrics.count("orders"))

        assert 1 == len(sink.points("duration", function_name="fn"))
        assert [(("function_name", "fn"),)] == [
            point.dimensions for point in sink.points("duration")
        ]
        assert 1 == sink.total("orders", service="shop")

    def test_environment_turns_it_on(self, monkeypatch):
        """LAMBDA_EXT_RUNTIME_METRICS takes a switch, or names."""
        monkeypatch.setenv("LAMBDA_EXT_RUNTIME_METRICS", "duration, fd_use")

        assert {"duration", "fd_use"} == set(units(invoked()))

    @pytest.mark.parametrize("given", ["durations", ["duration", 5], 7, object()])
    def test_unknown_name_is_refused(self, given):
        """What is no switch and no name of a metric raises."""
        with pytest.raises(ConfigurationError, match="runtime_metrics"):
            configure(runtime_metrics=given)

    @pytest.mark.parametrize("given", [False, "off", "", ()])
    def test_off_again(self, given):
        """An option that is taken back ends it, as none of the names does."""
        configure(runtime_metrics=True)
        assert invoked().batches
        configure(runtime_metrics=given)

        assert [] == invoked().batches

    def test_turned_on_in_an_invocation(self):
        """What is measured begins with the next one."""
        sink = invoked(
            lambda event, context: configure(runtime_metrics="duration"), times=2
        )

        assert 1 == len(sink.values("duration"))

    def test_handler_that_raises(self):
        """An invocation that fails has used something, too."""
        configure(runtime_metrics="duration")

        @lambda_ext.handler
        def handler(event, context):
            raise ValueError("no")

        with MemorySink() as sink:
            with pytest.raises(ValueError):
                handler({}, None)

        assert 1 == len(sink.values("duration"))


class TestNumbers:
    """What the numbers are."""

    def test_network_is_that_of_the_invocation(self, network):
        """Bytes received and sent meanwhile, loopback left out."""
        configure(runtime_metrics=True)
        network(eth0=(1_000, 200), eth1=(10, 20))

        sink = invoked(lambda event, context: network(eth0=(1_500, 250), eth1=(11, 22)))

        names = ("rx_bytes", "tx_bytes", "total_network")
        assert [501, 52, 553] == [sink.total(name) for name in names]

    @pytest.mark.parametrize("name", ["vinternal_1", "vint_runtime", "Ceth1"])
    def test_interface_of_lambda_alone_counts(self, network, name):
        """Where Lambda's own interface is, others are its plumbing."""
        configure(runtime_metrics=True)
        network(**{"eth0": (1, 1), name: (100, 10)})

        sink = invoked(
            lambda event, context: network(**{"eth0": (9, 9), name: (150, 30)})
        )

        assert [50, 20] == [sink.total("rx_bytes"), sink.total("tx_bytes")]

    def test_counters_that_begin_again_count_nothing(self, network):
        """After a restore an interface may be new."""
        configure(runtime_metrics=True)
        network(eth0=(1_000, 1_000))

        sink = invoked(lambda event, context: network(eth0=(5, 5)))

        assert [0, 0] == [sink.total("rx_bytes"), sink.total("tx_bytes")]

    def test_cpu_is_the_sum_of_both(self):
        """cpu_total_time is what was used in user and in system mode."""
        configure(runtime_metrics=True)

        sink = invoked(lambda event, context: sum(range(300_000)))

        found = [
            sink.total(name)
            for name in ("cpu_user_time", "cpu_system_time", "cpu_total_time")
        ]
        assert found[2] == pytest.approx(found[0] + found[1])
        assert found[2] > 0

    def test_memory_is_in_proportion(self):
        """memory_utilization is what was used of the function's memory."""
        configure(runtime_metrics=True)

        sink = invoked()

        used, total = sink.total("used_memory_max"), sink.total("total_memory")
        assert 128 == total
        assert sink.total("memory_utilization") == pytest.approx(used / 1.28, abs=0.02)
        assert 5 < used < 5_000

    def test_memory_is_that_since_the_process_began(self, monkeypatch, tmp_path):
        """Not that of the program which the process was before exec()."""
        path = tmp_path / "status"
        path.write_text("Name:\tpython\nVmHWM:\t   20480 kB\nThreads:\t3\n")
        monkeypatch.setattr(runtime, "STATUS", str(path))
        configure(runtime_metrics=True)

        sink = invoked()

        names = ("used_memory_max", "memory_utilization", "threads_max")
        assert [20, 15.62, 3] == [sink.total(name) for name in names]

    def test_memory_of_the_function_may_be_unknown(self, monkeypatch):
        """Outside Lambda there is no proportion."""
        monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        configure(runtime_metrics=True)

        names = set(units(invoked()))

        assert {"memory_utilization", "total_memory"} == set(UNITS) - names

    def test_folder(self):
        """What is used and what is free of /tmp make up all of it."""
        configure(runtime_metrics=True)

        sink = invoked()

        parts = sink.total("tmp_used") + sink.total("tmp_free")
        assert sink.total("tmp_max") == parts
        assert sink.total("tmp_max") > 0

    def test_descriptors_and_threads(self):
        """They are counted at the end of the invocation."""
        configure(runtime_metrics=True)
        done = threading.Event()
        open_now = []

        def body(event, context):
            open_now.append(socket.socket())
            thread = threading.Thread(target=done.wait, args=(60,))
            thread.start()
            open_now.append(thread)

        before = invoked(times=1)
        after = invoked(body)
        done.set()
        open_now[1].join()
        open_now[0].close()

        used = [sink.total("fd_use") for sink in (before, after)]
        threads = [sink.total("threads_max") for sink in (before, after)]
        assert [1, 1] == [used[1] - used[0], threads[1] - threads[0]]
        assert after.total("fd_max") >= used[1]

    def test_init_duration_comes_with_a_cold_start(self, monkeypatch):
        """Once, when it is known when the process asked for its first invocation."""
        monkeypatch.setattr(config, "in_lambda", lambda: True)
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signals,extension")
        configure(runtime_metrics=True)
        handler = lambda_ext.handler(lambda event, context: None)
        for function in runtime_client._before.copy():
            function()

        with MemorySink() as sink:
            handler({}, None)
            handler({}, None)

        (found,) = sink.values("init_duration")
        assert found > 0
        assert [] == [f for f in runtime_client._before if f is runtime._end_of_init]

    def test_no_init_duration_under_snapstart(self, monkeypatch):
        """There the process began long before."""
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")

        runtime._end_of_init()

        assert runtime._init_ms is None

    def test_cold_start_is_a_property(self):
        """It costs nothing, and is true once."""
        configure(runtime_metrics="duration,cold_start")

        sink = invoked(times=2)

        assert [True, False] == [b.properties["cold_start"] for b in sink.batches]
        assert {"duration"} == set(units(sink))


class TestLimits:
    """Where it cannot be done."""

    @pytest.mark.logs
    def test_refused_beside_lambda_insights(self, monkeypatch, tmp_path, caplog):
        """With its layer, nothing of ours goes into its namespace."""
        monkeypatch.setattr(runtime, "AGENT", str(tmp_path))
        configure(runtime_metrics=True, namespace="LambdaInsights")

        sink = invoked(times=2)

        assert [] == sink.batches
        (record,) = caplog.records
        assert "lambda_ext.runtime_metrics_refused" in record.getMessage()

    @pytest.mark.parametrize(
        ("namespace", "agent"), [("shop", True), ("LambdaInsights", False)]
    )
    def test_not_refused_otherwise(self, monkeypatch, tmp_path, namespace, agent):
        """Another namespace is free, and that one is without the layer."""
        monkeypatch.setattr(runtime, "AGENT", str(tmp_path if agent else "/none"))
        configure(runtime_metrics="duration", namespace=namespace)

        sink = invoked()

        assert [namespace] == [batch.namespace for batch in sink.batches]

    @pytest.mark.logs
    def test_no_proc(self, monkeypatch, caplog):
        """What cannot be read is left out, and said once."""
        for name in ("NETWORK", "DESCRIPTORS", "STATUS"):
            monkeypatch.setattr(runtime, name, "/none/of/it")
        configure(runtime_metrics=True)

        sink = invoked(times=2)

        missing = {
            "fd_max", "fd_use", "rx_bytes", "threads_max", "total_network", "tx_bytes",
        }  # fmt: skip
        assert missing == set(UNITS) - set(units(sink))
        (record,) = caplog.records
        assert "network, descriptors, status" in record.getMessage()

    def test_not_imported_without_the_option(self):
        """A handler that does not ask for it does not load it."""
        from helpers import python

        done = python(
            "import sys, lambda_ext\n"
            "lambda_ext.handler(print)\n"
            "print('lambda_ext.metrics.runtime' in sys.modules)"
        )

        assert ("False\n", "") == (done.stdout, done.stderr)

    @process
    def test_in_the_emulator(self, tmp_path):
        """All of them come from a real process, and its INIT took some time."""
        (tmp_path / "app.py").write_text(
            "import lambda_ext\n"
            "@lambda_ext.handler\n"
            "def handler(event, context): pass\n"
        )
        env = {"PYTHONPATH": ROOT, "LAMBDA_EXT_RUNTIME_METRICS": "true"}
        with emulate(task_root=str(tmp_path), env=env) as emulator:
            emulator.invoke({})
            emulator.invoke({})
            found = [json.loads(text) for text in texts(emulator) if "_aws" in text]

        names = [set(document) & set(RUNTIME) for document in found]
        assert [set(RUNTIME), set(RUNTIME) - {"init_duration"}] == names
        assert found[0]["init_duration"] > 0
        assert [True, False] == [document["cold_start"] for document in found]

    def test_reset(self):
        """After a reset nothing is measured."""
        configure(runtime_metrics=True)
        invoked()
        phases.reset()
        runtime.reset()
        config.reset()

        assert [] == invoked().batches
