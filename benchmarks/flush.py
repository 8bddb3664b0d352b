"""
What does a metric cost, recorded and flushed?

    python benchmarks/flush.py [--repeat 40]

Defends, measured in one run, interleaved:

    a record               at most 1,000 ns, with a dimension or without
    a decorated handler    with one metric, flushed to a pipe at the end of each
                           invocation: less than Powertools' @log_metrics, where
                           that is installed (pip install aws-lambda-powertools)

and shows what the decorator costs without a metric (it looks at the clocks and
the deadline, too), and that 16 threads lose nothing.  All write to the same
stdout, wrapped as Lambda's runtime client wraps it.  Figures are the least of
many runs; ratios hold from machine to machine, microseconds do not.  Exit
status 1 if a budget is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import timeit

os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "benchmark")
os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "benchmark")

import lambda_ext
from lambda_ext import metrics
from lambda_ext.metrics import recorder
from lambda_ext.testing import MemorySink


class Context:
    """What a handler gets from Lambda."""

    function_name = "benchmark"
    aws_request_id = "0"

    @staticmethod
    def get_remaining_time_in_millis():
        return 3_000


class Unbuffered:
    """sys.stdout as Lambda's runtime client makes it."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self.stream.write(text)
        self.stream.flush()


class Pipe:
    """A stdout that another process reads, as in Lambda; keeps what it read."""

    def __enter__(self):
        self.file = tempfile.TemporaryFile()
        self.reader = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=self.file, text=True
        )
        self.former, sys.stdout = sys.stdout, Unbuffered(self.reader.stdin)
        return self

    def __exit__(self, *exc_info):
        sys.stdout = self.former
        self.reader.stdin.close()
        self.reader.wait(60)
        self.file.seek(0)
        self.lines = self.file.read().splitlines()
        self.file.close()


def idle():
    """Return a handler of ours without any metric."""

    @lambda_ext.handler
    def handler(event, context):
        pass

    return handler


def ours():
    """Return a handler of ours with one metric."""

    @lambda_ext.handler
    def handler(event, context):
        metrics.count("orders")

    return handler


def powertools():
    """Return a handler of Powertools' with one metric, None without it."""
    try:
        from aws_lambda_powertools import Metrics
        from aws_lambda_powertools.metrics import MetricUnit
    except ImportError:
        return None
    their = Metrics()

    @their.log_metrics
    def handler(event, context):
        their.add_metric("orders", MetricUnit.Count, 1)

    return handler


def least(statements, names, repeat, number):
    """Return microseconds per execution of each, least of interleaved runs."""
    timers = {k: timeit.Timer(v, globals=names) for k, v in statements.items()}
    best = dict.fromkeys(statements, float("inf"))
    for _ in range(repeat):
        for label, timer in timers.items():
            best[label] = min(best[label], timer.timeit(number) / number * 1e6)
            recorder._buffer.records.clear()
    return best


def threads():
    """Count 16 x 5,000 with a flush going on all the time; return sum and time."""
    done = threading.Event()
    workers = [
        threading.Thread(target=lambda: [metrics.count("n") for _ in range(5_000)])
        for _ in range(16)
    ]

    def flush():
        while not done.is_set():
            metrics.flush()

    flusher = threading.Thread(target=flush)
    with MemorySink() as sink:
        begun = time.perf_counter()
        for thread in (flusher, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        elapsed = time.perf_counter() - begun
        done.set()
        flusher.join()
    return sink.total("n"), elapsed / 80_000 * 1e9


def main():
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=40)
    repeat = parser.parse_args().repeat
    failed = []

    def row(label, value, unit, budget=None):
        verdict = ""
        if budget is not None:
            verdict = f"budget {budget:,.0f} {unit}"
            if value > budget:
                failed.append(label)
                verdict += "  EXCEEDED"
        print(f"{label:<44}{value:>10,.1f} {unit:<4}{verdict}")

    names = {"count": metrics.count, "distribution": metrics.distribution}
    statements = {
        "count(name)": "count('orders')",
        "count(name, value, unit=...)": "count('size', 512, unit='Bytes')",
        "count(name, tenant=...)": "count('orders', tenant='a')",
        "distribution(name, value)": "distribution('d', 1.5)",
    }
    for label, us in least(statements, names, repeat, 1_000).items():
        row(label, us * 1_000, "ns", 1_000)

    handlers = {"none, lambda_ext": idle(), "one, lambda_ext": ours()}
    theirs = powertools()
    if theirs is not None:
        handlers["one, Powertools"] = theirs
    names = {f"h{i}": handler for i, handler in enumerate(handlers.values())}
    names["context"] = Context()
    statements = {k: f"h{i}(None, context)" for i, k in enumerate(handlers)}
    with Pipe() as pipe:
        found = least(statements, names, repeat, 300)
    for label, us in found.items():
        row(f"decorated handler, metrics: {label}", us, "us")
    written = len([None for line in pipe.lines if json.loads(line)["orders"]])
    expected = (len(handlers) - 1) * repeat * 300
    print(f"{'lines written':<44}{written:>10,} of {expected:,}")
    if written != expected:
        failed.append("lines written")
    if theirs is None:
        print("Powertools is not installed: no ratio")
    else:
        ratio = found["one, Powertools"] / found["one, lambda_ext"]
        print(f"{'Powertools / lambda_ext':<44}{ratio:>10.1f} x   budget at least 1")
        if ratio < 1:
            failed.append("ratio")

    total, ns = threads()
    print(f"{'16 threads x 5,000, flushed meanwhile':<44}{total:>10,} records")
    row("a record of these", ns, "ns")
    if total != 80_000:
        failed.append("16 threads")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
