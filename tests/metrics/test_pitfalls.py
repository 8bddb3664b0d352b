"""What goes wrong in other libraries of metrics, and must not here.

Each test is named after what was wrong.
"""

from __future__ import annotations

import json
import math
import socket
import time

import collector
import emf_rules
import pytest
from helpers import python, run_threads

import lambda_ext
from lambda_ext import Metrics, metrics
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.metrics import buffer, otlp, recorder
from lambda_ext.metrics.datadog import DatadogSink
from lambda_ext.metrics.otlp import OtlpSink
from lambda_ext.testing import FakeClock, simulate_timeout


def test_threads_published_more_than_was_added(capfd):
    """A buffer that threads share published values twice.

    https://github.com/aws-powertools/powertools-lambda-python/issues/7467
    """
    run_threads(16, lambda _: [metrics.distribution("d", 1) for _ in range(2_000)])
    metrics.flush()
    (values,) = emf_rules.values(capfd.readouterr().out).values()

    assert [1] * 32_000 == values


def test_arrays_were_longer_than_a_hundred(capfd):
    """CloudWatch ignores values past the hundredth in silence."""
    run_threads(4, lambda _: [metrics.distribution("d", 1) for _ in range(165)])
    metrics.flush()
    lengths = [
        len(values) if isinstance(values, list) else 1
        for line in capfd.readouterr().out.splitlines()
        if line
        for values in [json.loads(line)["d"]]
    ]

    assert max(lengths) <= 100
    assert 660 == sum(lengths)


def test_two_namespaces_shared_one_buffer(capfd):
    """The one that flushed first published both under its own namespace."""
    one, two = Metrics("one"), Metrics("two")
    one.count("n", 1)
    two.count("n", 2)
    one.flush()
    found = emf_rules.values(capfd.readouterr().out)

    assert [
        ("one", [1]),
        ("two", [2]),
    ] == sorted((key[0], values) for key, values in found.items())


def test_empty_flush_leaked_dimensions_into_the_next_invocation(capfd):
    """A dimension set in one invocation came out on a metric of the next."""
    metrics.count("first", tenant="a")
    metrics.flush()
    metrics.flush()
    metrics.count("second")
    metrics.flush()
    documents = emf_rules.documents(capfd.readouterr().out)

    assert [
        ["first", "tenant"],
        ["second"],
    ] == [sorted(set(d) - {"_aws", "service"}) for d in documents]


def test_empty_flush_printed_a_document_without_metrics(capfd):
    """Or warned each time; a flush of nothing is silent."""
    metrics.flush()
    metrics.count("n")
    metrics.flush()
    capfd.readouterr()
    metrics.flush()

    assert ("", "") == capfd.readouterr()


@pytest.mark.logs
def test_flush_error_replaced_the_error_of_the_handler():
    """An exception of the flush hid what the handler had raised."""

    class Broken:
        def accept(self, batch, /):
            raise OSError("the sink")

    mine = Metrics("ns", sink=Broken())

    @lambda_ext.handler
    def handler(event, context):
        mine.count("n")
        raise KeyError("the handler")

    with pytest.raises(KeyError, match="the handler"):
        handler({}, None)

    assert {"sink": 1} == recorder.snapshot()["dropped"]


@pytest.mark.logs
def test_bad_metric_raised_from_the_path_of_the_handler():
    """A wrong unit raised a validation error in production."""

    @lambda_ext.handler
    def handler(event, context):
        metrics.count("n", unit="Milisecond")
        return "answer"

    assert "answer" == handler({}, None)


@pytest.mark.logs
def test_nan_was_printed(capfd):
    """NaN is not JSON: the whole document was lost, with all its metrics."""
    metrics.count("bad", math.nan)
    metrics.distribution("bad", math.inf)
    metrics.count("good")
    metrics.flush()
    (document,) = emf_rules.documents(capfd.readouterr().out)

    assert 1 == document["good"]
    assert "bad" not in document


def test_bool_was_printed(capfd):
    """true is no value of a metric; True counts as 1."""
    metrics.count("n", True)
    metrics.flush()
    (document,) = emf_rules.documents(capfd.readouterr().out)

    assert (type(document["n"]), document["n"]) == (int, 1)


def test_second_unit_of_a_name_changed_the_values_before(capfd):
    """The last unit won, also for values that had been recorded with another."""
    metrics.distribution("size", 1, unit="Kilobytes")
    metrics.distribution("size", 1024, unit="Bytes")
    metrics.distribution("size", 2, unit="Kilobytes")
    metrics.flush()
    found = emf_rules.values(capfd.readouterr().out)

    assert {
        "Kilobytes": [1, 2],
        "Bytes": [1024],
    } == {key[3]: values for key, values in found.items()}


@pytest.mark.logs
def test_metric_named_like_a_dimension_overwrote_it(capfd):
    """One key of a document is either; here one is refused, others are apart."""
    metrics.count("service")
    metrics.count("tenant", 1)
    metrics.count("n", 2, tenant="a")
    metrics.flush()
    documents = emf_rules.documents(capfd.readouterr().out)

    assert [
        ("unknown_service", 1, None),
        ("unknown_service", "a", 2),
    ] == [(d["service"], d["tenant"], d.get("n")) for d in documents]
    assert {"name_clash": 1} == recorder.snapshot()["dropped"]


def test_metric_of_a_block_that_raised_was_lost(capfd):
    """A context manager printed null, and what it measured was gone."""
    with pytest.raises(ZeroDivisionError), metrics.timer("t"):
        1 / 0
    metrics.flush()
    (document,) = emf_rules.documents(capfd.readouterr().out)

    assert document["t"] >= 0


def test_long_line_was_printed_whole(capfd):
    """A line of 2 MB is cut by the pipe's reader, and is no metric then."""
    for i in range(3_000):
        metrics.distribution(f"a_rather_long_name_of_a_metric_{i % 120}", i / 7)
        metrics.count("n" * 200 + str(i))
    metrics.flush()
    out = capfd.readouterr().out
    found = emf_rules.values(out)

    assert max(map(len, out.splitlines())) < 60_000
    assert 6_000 == sum(map(len, found.values()))


def test_timestamp_outlived_the_flush(capfd):
    """The time of one invocation stood on the metrics of the next."""
    with FakeClock() as clock:
        for _ in range(2):
            metrics.count("n")
            metrics.flush()
            clock.step(60)
    stamps = [
        document["_aws"]["Timestamp"]
        for document in emf_rules.documents(capfd.readouterr().out)
    ]

    assert 60_000 == stamps[1] - stamps[0]


def test_async_handler_was_flushed_before_it_ran(capfd):
    """The decorator flushed when the coroutine was made, not when it was done."""

    @lambda_ext.handler
    async def handler(event, context):
        metrics.count("n")

    handler({}, None)

    assert 1 == emf_rules.total(capfd.readouterr().out, "n")


def test_reserved_namespace_was_taken():
    """CloudWatch drops what is written to AWS/*, in silence."""
    with pytest.raises(ConfigurationError, match="AWS/"):
        Metrics("AWS/Lambda")


def test_empty_flush_leaked_metadata_into_the_next_invocation(capfd):
    """What an invocation without a metric had said stood on the metrics of the next."""

    @lambda_ext.handler
    def handler(event, context):
        if event["order"] == 1:
            metrics.annotate({"order": event["order"]})
        else:
            metrics.count("n")

    handler({"order": 1}, None)
    handler({"order": 2}, None)
    (document,) = emf_rules.documents(capfd.readouterr().out)

    assert {"_aws", "service", "n"} == {*document}


def test_scope_without_a_metric_printed_a_line(capfd):
    """A scope that recorded nothing wrote a document that held nothing."""
    with metrics.scope(tenant="a"):
        pass
    metrics.flush()

    assert "" == capfd.readouterr().out


def test_dimensions_were_added_unasked(capfd):
    """Three default dimensions, each set a bill of its own; here it is `service`."""
    metrics.count("n")
    metrics.flush()
    (document,) = emf_rules.documents(capfd.readouterr().out)

    assert [["service"]] == document["_aws"]["CloudWatchMetrics"][0]["Dimensions"]


def test_flush_was_a_coroutine(capfd):
    """Code outside a loop could not call it, and inside one forgot to await it."""
    import asyncio

    async def inside():
        metrics.count("n", 1)
        return metrics.flush()["emf"].sent

    metrics.count("n", 2)
    sent = metrics.flush()["emf"].sent, asyncio.run(inside())

    assert (1, 1) == sent
    assert 3 == emf_rules.total(capfd.readouterr().out, "n")


def test_time_out_lost_the_metrics_of_the_invocation(capfd):
    """Lambda ends the process then; what was recorded has been written before.

    https://github.com/awslabs/aws-embedded-metrics-python/issues/36
    """
    seen = []

    @lambda_ext.handler
    def handler(event, context):
        metrics.count("n")
        simulate_timeout()
        seen.append(capfd.readouterr().out)

    handler({}, None)
    (found,) = [json.loads(line) for line in seen[0].splitlines() if '"n"' in line]

    assert 1 == found["n"]


def test_second_resolution_of_a_name_changed_the_values_before(capfd):
    """The last resolution won; one name cannot have two in a document."""
    metrics.count("n", 1)
    Metrics(resolution=1).count("n", 2)
    metrics.flush()
    found = {
        document["_aws"]["CloudWatchMetrics"][0]["Metrics"][0].get(
            "StorageResolution", 60
        ): document["n"]
        for document in emf_rules.documents(capfd.readouterr().out)
    }

    assert {60: 1, 1: 2} == found


def test_metrics_that_were_off_were_printed_or_kept_for_ever(monkeypatch, capfd):
    """A full buffer printed although metrics were off, or grew without a bound."""
    monkeypatch.setattr(buffer, "MAX_RECORDS", 100)
    lambda_ext.configure(sinks=[], flush_every=100)
    for _ in range(1_000):
        metrics.count("n")
    waiting = len(recorder._buffer.records)
    metrics.flush()

    assert waiting <= 100
    assert ([], []) == (recorder._buffer.records, recorder._buffer.parcels)
    assert "" == capfd.readouterr().out


def test_exit_of_the_handler_became_a_success(capfd):
    """`except BaseException` without a raise: sys.exit() returned None to the caller."""

    @lambda_ext.handler
    def handler(event, context):
        metrics.count("n")
        raise event

    for raised in (SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(type(raised)):
            handler(raised, None)

    assert 2 == emf_rules.total(capfd.readouterr().out, "n")


@pytest.mark.logs
def test_flush_that_failed_was_told_at_debug(caplog):
    """Metrics were lost, and only a log level that is never on said so."""
    sink = OtlpSink("http://127.0.0.1:1/v1/metrics")
    lambda_ext.configure(sinks=[sink])
    metrics.count("n")
    status = metrics.flush(timeout=0.1)["otlp"]
    levels = {
        record.levelname
        for record in caplog.records
        if "delivery_failed sink=otlp" in record.getMessage()
    }

    assert (0, 1) == (status.sent, status.pending)
    assert status.error
    assert {"WARNING"} == levels


@pytest.mark.parametrize("to_log", [True, False])
def test_metric_with_a_timestamp_was_lost(capfd, to_log):
    """In front of Datadog's extension it took a way that nothing flushed.

    https://github.com/DataDog/datadog-lambda-python/issues/514
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as extension:
        extension.bind(("127.0.0.1", 0))
        port = extension.getsockname()[1]
        sink = DatadogSink(flush_to_log=to_log, port=port)
        at = int(time.time()) - 60
        Metrics("ns", service="", sink=sink, timestamp=at).count("n")
        metrics.flush()
        if to_log:
            line = json.loads(capfd.readouterr().out)
            told = line["m"], line["v"], line["e"]
        else:
            extension.settimeout(30)
            told = extension.recv(2_000)

    assert told == (("n", 1, at) if to_log else b"n:1|d|T%d" % at)


def test_each_invocation_made_a_request():
    """A round trip at the end of each invocation, which the caller waits for."""

    @lambda_ext.handler
    def handler(event, context):
        metrics.count("n")

    with collector.Collector() as receiver, FakeClock() as clock:
        lambda_ext.configure(sinks=[OtlpSink(receiver.endpoint)])
        for _ in range(10):
            handler({}, None)
        before = len(receiver.requests)
        clock.advance(60)
        handler({}, None)

    assert (0, [11]) == (before, [*receiver.sums().values()])


def test_key_was_fetched_while_the_module_was_imported():
    """A blocking call in INIT, for a key that was never read again."""
    reads = []

    class Key:
        @property
        def value(self):
            reads.append(1)
            return "key"

        def invalidate(self):
            pass

    lambda_ext.configure(sinks=[otlp.new_relic(Key())])
    metrics.count("n")

    assert [] == reads


def test_where_no_file_can_be_opened_nothing_is_raised():
    """Recording and flushing go on without what they would load; it is told later."""
    run = python(
        """
import resource, sys
from lambda_ext import metrics
metrics.count("first")
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
try:
    import colorsys
except OSError:
    print("no file", file=sys.stderr)
metrics.count("bad name \\n")
metrics.count("second")
assert {} == metrics.flush()
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
metrics.count("third")
assert metrics.flush()
"""
    )

    assert 0 == run.returncode, run.stderr
    assert "no file\n" in run.stderr
    found = [emf_rules.total(run.stdout, name) for name in ("first", "second", "third")]
    assert [1, 1, 1] == found
    assert 1 == run.stderr.count("metrics_dropped number=1")
