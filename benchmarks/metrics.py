"""
What does a metric cost, recorded and flushed, beside other libraries?

    python benchmarks/metrics.py [--repeat 300]

Measured in one run, interleaved, with stdout on /dev/null, wrapped as Lambda's
runtime client wraps it.  Aims:

    count()            with its share of a flush of 50: at most 1/15 of
                       Powertools' add_metric
    one metric         a decorated handler that records one, and its flush: at
                       most 1/2.5 of Powertools' @log_metrics
    no metric          a decorated handler that records nothing: at most 1.8
                       microseconds above a bare one
    runtime metrics    all of them, with their share of a flush: at most 200
                       microseconds an invocation

Where the time goes: of an invocation with one metric about a fifth is what an
invocation without one takes, and more than a quarter are two system calls that look
whether this process has, or had, a child that may have left stdout within a line (a
line of its own shows the price without them; where `subprocess` was never imported,
which boto3 does, it is one call, and the ratio about 3).  The rest is the price of writing each record exactly once, also
where a signal handler raises.  The guard against a time-out costs a comparison.

The other libraries are measured where they are installed (pip install
aws-lambda-powertools aws-embedded-metrics datadog-lambda).  Figures are the
least of many runs; ratios hold from machine to machine, microseconds do not.
With --strict the exit status is 1 if an aim is missed; it always is if 16
threads that count while others flush lose a record.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import timeit

os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "benchmark")
os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "benchmark")
os.environ.setdefault("AWS_EMF_ENVIRONMENT", "Lambda")
os.environ.setdefault("DD_FLUSH_TO_LOG", "true")

import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import process
from lambda_ext.metrics import recorder, stdout
from lambda_ext.testing import MemorySink

COUNTS = 50


class Context:
    """What a handler gets from Lambda."""

    function_name = "benchmark"
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:b"
    aws_request_id = "0"
    memory_limit_in_mb = 128
    function_version = "1"

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


@contextlib.contextmanager
def silent():
    """Have stdout go nowhere."""
    former = sys.stdout
    with open(os.devnull, "w") as stream:
        sys.stdout = Unbuffered(stream)
        try:
            yield
        finally:
            sys.stdout = former


def bare(event, context):
    """Do nothing."""


def ours():
    """Return what is measured of this library."""

    @lambda_ext.handler
    def idle(event, context):
        pass

    @lambda_ext.handler
    def one(event, context):
        metrics.count("orders")

    def many():
        for _ in range(COUNTS):
            metrics.count("orders")
        recorder._buffer.flush()

    def many_with_a_dimension():
        for _ in range(COUNTS):
            metrics.count("orders", tenant="a")
        recorder._buffer.flush()

    def alone():
        for _ in range(COUNTS):
            metrics.count("orders")
        recorder._buffer.records.clear()

    return {
        "no metric": (lambda: idle(None, Context), 1),
        "one metric": (lambda: one(None, Context), 1),
        "count": (many, COUNTS),
        "count, one dimension": (many_with_a_dimension, COUNTS),
        "count without a flush": (alone, COUNTS),
    }


def powertools():
    """Return what is measured of Powertools."""
    from aws_lambda_powertools import Metrics
    from aws_lambda_powertools.metrics import MetricUnit

    their = Metrics()

    @their.log_metrics
    def one(event, context):
        their.add_metric("orders", MetricUnit.Count, 1)

    def many():
        for _ in range(COUNTS):
            their.add_metric("orders", MetricUnit.Count, 1)
        their.flush_metrics()

    return {
        "one metric": (lambda: one({}, Context), 1),
        "count": (many, COUNTS),
    }


def embedded():
    """Return what is measured of aws-embedded-metrics."""
    from aws_embedded_metrics import metric_scope

    @metric_scope
    def one(metrics):
        metrics.put_metric("orders", 1, "Count")

    @metric_scope
    def many(metrics):
        for _ in range(COUNTS):
            metrics.put_metric("orders", 1, "Count")

    return {"one metric": (one, 1), "count": (many, COUNTS)}


def datadog():
    """Return what is measured of datadog-lambda: its line for the Forwarder."""
    from datadog_lambda.metric import lambda_metric

    def many():
        for _ in range(COUNTS):
            lambda_metric("orders", 1)

    return {"count": (many, COUNTS)}


def least(statements, repeat):
    """Return microseconds per execution of each, least of interleaved runs."""
    timers = {}
    for label, (function, share) in statements.items():
        timer = timeit.Timer(function)
        number, took = timer.autorange()
        number = max(1, int(number * 0.002 / took))
        timers[label] = (timer, number, share)
    best = dict.fromkeys(statements, float("inf"))
    for _ in range(repeat):
        for label, (timer, number, share) in timers.items():
            us = timer.timeit(number) / number / share * 1e6
            best[label] = min(best[label], us)
    return best


@contextlib.contextmanager
def without_children():
    """Have stdout not look whether this process has children: two system calls."""
    former = stdout._has_children
    stdout._has_children = lambda: False
    try:
        yield
    finally:
        stdout._has_children = former


def threads():
    """Count 16 x 5,000 with a flush going on all the time; return the sum."""
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
        for thread in (flusher, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        done.set()
        flusher.join()
    return sink.total("n")


def main():
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    missed = []

    statements = {"bare handler": (lambda: bare(None, Context), 1)}
    with silent():
        for label, what in ours().items():
            statements[f"lambda_ext: {label}"] = what
        for name, make in (
            ("Powertools", powertools),
            ("aws-embedded-metrics", embedded),
            ("datadog-lambda", datadog),
        ):
            try:
                made = make()
            except ImportError:
                continue
            for label, what in made.items():
                statements[f"{name}: {label}"] = what
        found = least(statements, options.repeat)
        with without_children():
            unseen = {"children": statements["lambda_ext: one metric"]}
            unseen = least(unseen, options.repeat)["children"]
        lambda_ext.configure(timeout_margin=0)
        unguarded = {"guard": statements["lambda_ext: no metric"]}
        unguarded = least(unguarded, options.repeat)["guard"]
        process.reset()
        lambda_ext.configure(runtime_metrics=True)
        measured = {"runtime": ours()["one metric"]}
        runtime = least(measured, options.repeat)["runtime"]
        process.reset()

    for label, us in found.items():
        print(f"{label:<44}{us:>10.2f} us")
    print(f"{'lambda_ext: no metric, without the guard':<44}{unguarded:>10.2f} us")
    print(f"{'lambda_ext: one metric, children unseen':<44}{unseen:>10.2f} us")
    print(f"{'lambda_ext: one metric, runtime metrics':<44}{runtime:>10.2f} us")

    def aim(label, value, least_value, unit):
        verdict = "" if value >= least_value else "  MISSED"
        if verdict:
            missed.append(label)
        print(f"{label:<44}{value:>10.1f} {unit} (aim: {least_value:g}){verdict}")

    above = found["lambda_ext: no metric"] - found["bare handler"]
    print(f"{'no metric, above a bare handler':<44}{above:>10.2f} us (aim: 1.8)")
    if above > 1.8:
        missed.append("no metric")
    cost = runtime - found["lambda_ext: one metric"]
    print(f"{'runtime metrics, an invocation':<44}{cost:>10.2f} us (aim: 200)")
    if cost > 200:
        missed.append("runtime metrics")
    for label, least_ratio in (("count", 15), ("one metric", 2.5)):
        theirs = found.get(f"Powertools: {label}")
        if theirs is not None:
            ratio = theirs / found[f"lambda_ext: {label}"]
            aim(f"Powertools / lambda_ext: {label}", ratio, least_ratio, "x ")
    total = threads()
    print(f"{'16 threads x 5,000, flushed meanwhile':<44}{total:>10,} records")
    return int(total != 80_000 or (options.strict and bool(missed)))


if __name__ == "__main__":
    sys.exit(main())
