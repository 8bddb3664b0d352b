"""
What does a feature flag cost that is in memory?

    python benchmarks/flags.py [--repeat 7]

Defends these budgets, measured inside an invocation, in one run, interleaved:

    a plain flag        at most twice (a dictionary look-up + a call + one clock)
    a rule with three   at most 1/7 of Powertools' FeatureFlags over its
    conditions          AppConfigStore, at most 1/3 of its evaluator alone (a
                        store that hands over a dictionary), on the equivalent
                        rule; where Powertools is installed
    OpenFeature         its client with our provider at most 1 microsecond above
                        the same client with its own in-memory provider; where
                        the SDK is installed

Beside them stand flagd-core in process, where it is installed, and one HTTP
read from a server on loopback, which is what a flag costs that an agent
evaluates.  Then what a document of 1,000 flags with 50 variants each costs to
load, next to `json.loads` of it, and in memory.

    pip install aws-lambda-powertools boto3 openfeature-sdk openfeature-flagd-core

Figures are the least of several runs; ratios hold from machine to machine,
nanoseconds do not.  Exit status 1 if a budget is exceeded.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import http.server
import json
import os
import sys
import threading
import time
import timeit
import tracemalloc

os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")

import lambda_ext
from lambda_ext.flags.document import Document
from lambda_ext.lifecycle import clock
from lambda_ext.typing import Answer

CONTEXT = {"country": "DE", "age": 42, "tier": "gold"}
RULE = '(and (eq $country "DE") (gt $age 18) (begins_with $tier "go"))'
DOCUMENT = {
    "plain": {"enabled": True},
    "rule": {
        "_variants": [
            {"name": "on", "enabled": True, "rule": RULE},
            {"name": "off", "enabled": False},
        ]
    },
    "split": {
        "_variants": [
            {"name": "on", "enabled": True, "rule": "(split pct::100 by::$tier)"},
            {"name": "off", "enabled": False},
        ]
    },
}
THEIRS = {  # the same for Powertools
    "plain": {"default": True},
    "rule": {
        "default": False,
        "rules": {
            "on": {
                "when_match": True,
                "conditions": [
                    {"action": "EQUALS", "key": "country", "value": "DE"},
                    {"action": "KEY_GREATER_THAN_VALUE", "key": "age", "value": 18},
                    {"action": "STARTSWITH", "key": "tier", "value": "go"},
                ],
            }
        },
    },
}
FLAGD = {
    "flags": {
        "plain": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "on",
        },
        "rule": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "off",
            "targeting": {
                "if": [
                    {
                        "and": [
                            {"==": [{"var": "country"}, "DE"]},
                            {">": [{"var": "age"}, 18]},
                            {"starts_with": [{"var": "tier"}, "go"]},
                        ]
                    },
                    "on",
                    "off",
                ]
            },
        },
    }
}


class Source:
    """AppConfig that answers at once."""

    name = "memory"
    scope = ("memory",)

    def plan(self, wanted):
        """Answer all at once."""
        return [wanted]

    def fetch(self, wanted, timeout_s):
        """Answer with the document."""
        return {key: Answer(json.dumps(DOCUMENT), "1") for key in wanted}


def powertools():
    """Return Powertools' evaluator alone, and over its AppConfigStore; or None."""
    try:
        from aws_lambda_powertools.utilities import feature_flags
    except ImportError:
        return None

    class Store(feature_flags.StoreProvider):
        get_raw_configuration = THEIRS

        def get_configuration(self):
            return THEIRS

    class Client:
        def start_configuration_session(self, **parameters):
            return {"InitialConfigurationToken": "t"}

        def get_latest_configuration(self, **parameters):
            body = json.dumps(THEIRS).encode()

            class Body:
                def read(self):
                    return body

            return {"Configuration": Body(), "NextPollConfigurationToken": "t"}

    store = feature_flags.AppConfigStore("prod", "orders", "features", max_age=10**6)
    store._conf_store.client = Client()
    return feature_flags.FeatureFlags(Store()), feature_flags.FeatureFlags(store)


def openfeature(flags):
    """Return a client over our provider and one over the SDK's own, or None."""
    try:
        from openfeature import api
        from openfeature.provider.in_memory_provider import (
            InMemoryFlag,
            InMemoryProvider,
        )
    except ImportError:
        return None
    from lambda_ext.openfeature import AppConfigProvider

    memory = InMemoryProvider({"plain": InMemoryFlag("on", {"on": True, "off": False})})
    api.set_provider_and_wait(AppConfigProvider(flags), "ours")
    api.set_provider_and_wait(memory, "memory")
    return api.get_client("ours"), api.get_client("memory")


def flagd():
    """Return flagd's evaluator in process with the same flags, or None."""
    try:
        from openfeature.contrib.tools.flagd.core import FlagdCore
    except ImportError:
        return None
    core = FlagdCore()
    core.set_flags(json.dumps(FLAGD))
    return core


class Handler(http.server.BaseHTTPRequestHandler):
    """An agent that answers at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one segment

    def do_GET(self):
        """Answer with a flag."""
        body = b'{"_variant":"on","enabled":true}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


def loopback():
    """Return a function that reads one flag over HTTP on a kept connection."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)

    def read():
        connection.request("GET", "/flag", headers={"Context": "country=DE"})
        return json.loads(connection.getresponse().read())["enabled"]

    return read


def cheapest(statements, names, repeat, number=5_000):
    """Return nanoseconds per execution of each, least of interleaved runs."""
    timers = {
        label: (timeit.Timer(statement, globals=names), count or number)
        for label, (statement, count) in statements.items()
    }
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(repeat):
        for label, (timer, count) in timers.items():
            best[label] = min(best[label], timer.timeit(count) / count * 1e9)
    return best


def big_document(flags=1000, variants=50):
    """Return the text of a document with so many flags and variants."""
    values = {
        f"flag-{number}": {
            "_variants": [
                *(
                    {
                        "name": f"variant-{each}",
                        "enabled": True,
                        "rule": f'(and (eq $country "C{each}") (gt $age {each}))',
                        "attributeValues": {"limit": each, "color": "blue"},
                    }
                    for each in range(variants - 1)
                ),
                {"name": "default", "enabled": False},
            ]
        }
        for number in range(flags)
    }
    return json.dumps({"version": "1", "flags": {}, "values": values})


def load(text, repeat):
    """Print what a big document costs."""

    def least(function):
        best = float("inf")
        for _ in range(repeat):
            gc.collect()
            begun = time.perf_counter()
            function()
            best = min(best, time.perf_counter() - begun)
        return best * 1e3

    def memory(function):
        gc.collect()
        tracemalloc.start()
        kept = function()
        size = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        del kept
        return size

    def all_parsed():
        document = Document(text, "1")
        for name in document:
            document.flag(name)
        return document

    parsing = least(lambda: json.loads(text))
    loading = least(lambda: Document(text, "1"))
    document = Document(text, "1")
    begun = time.perf_counter()
    document.flag("flag-7")
    first = (time.perf_counter() - begun) * 1e3
    print(f"\n  a document of 1,000 flags with 50 variants, {len(text) / 1e6:.1f} MB")
    print(
        f"  {'json.loads':<44}{parsing:>9.1f} ms {memory(lambda: json.loads(text)):>7.1f} MB"
    )
    print(
        f"  {'loaded':<44}{loading:>9.1f} ms {memory(lambda: Document(text, '1')):>7.1f} MB"
    )
    print(f"  {'the first look at one flag (49 rules)':<44}{first:>9.2f} ms")
    print(
        f"  {'every flag looked at (49,000 rules)':<44}{'':>9}    {memory(all_parsed):>7.1f} MB"
    )
    return loading / parsing


def main():
    """Measure, print, and return 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()

    flags = lambda_ext.Flags("a", "b", "c", source=Source(), poll_interval=86_400)
    names = {
        "flags": flags,
        "context": CONTEXT,
        "memory": {"plain": True},
        "monotonic": time.monotonic,
        "look": lambda name, memory={"plain": True}, now=time.monotonic: (
            now() and memory[name]
        ),
        "read": loopback(),
    }
    statements = {
        "a dictionary, a call and a clock": ("look('plain')", 0),
        "flags.enabled, plain": ("flags.enabled('plain')", 0),
        "flags.enabled, three conditions": ("flags.enabled('rule', context)", 0),
        "flags.enabled, a split": ("flags.enabled('split', context)", 0),
        "flags.evaluate, three conditions": ("flags.evaluate('rule', context)", 0),
        "one HTTP read on loopback": ("read()", 200),
    }
    theirs = powertools()
    if theirs is not None:
        names["alone"], names["store"] = theirs
        call = "{}.evaluate(name='rule', context=context, default=False)"
        statements["Powertools, evaluator alone"] = (call.format("alone"), 1000)
        statements["Powertools, AppConfigStore"] = (call.format("store"), 500)
    clients = openfeature(flags)
    if clients is not None:
        names["ours"], names["in_memory"] = clients
        call = "{}.get_boolean_value('plain', False)"
        statements["OpenFeature, our provider"] = (call.format("ours"), 1000)
        statements["OpenFeature, in-memory provider"] = (call.format("in_memory"), 1000)
    core = flagd()
    if core is not None:
        names["core"] = core
        from openfeature.evaluation_context import EvaluationContext

        names["evaluation_context"] = EvaluationContext("u", CONTEXT)
        call = "core.resolve_boolean_value('{}', False, evaluation_context)"
        statements["flagd-core, plain"] = (call.format("plain"), 1000)
        statements["flagd-core, three conditions"] = (call.format("rule"), 500)
    for _ in range(2):
        for statement, _ in statements.values():
            assert eval(statement, names) is not False
    clock.begin_invocation()
    best = cheapest(statements, names, options.repeat)
    if clients is not None:
        # The client takes a hundred times what divides the two: many short runs.
        pair = {
            label: (statement, 200)
            for label, (statement, _) in statements.items()
            if label.startswith("OpenFeature")
        }
        best.update(cheapest(pair, names, options.repeat * 20))
    print(f"Python {sys.version.split()[0]}, nanoseconds\n")
    for label, cost in best.items():
        print(f"  {label:<44}{cost:>9.0f}")
    load(big_document(), options.repeat)

    print()
    failed = False

    def judge(what, ratio, budget):
        nonlocal failed
        failed |= ratio > budget
        print(f"{what}: {ratio:.3f}, budget {budget:.3f}")

    look = best["a dictionary, a call and a clock"]
    rule = best["flags.enabled, three conditions"]
    judge("plain / (dictionary + call + clock)", best["flags.enabled, plain"] / look, 2)
    if theirs is not None:
        alone, store = (
            best[f"Powertools, {what}"]
            for what in ("evaluator alone", "AppConfigStore")
        )
        judge("three conditions / Powertools with its store", rule / store, 1 / 7)
        judge("three conditions / Powertools' evaluator", rule / alone, 1 / 3)
    if clients is not None:
        above = (
            best["OpenFeature, our provider"] - best["OpenFeature, in-memory provider"]
        )
        judge("OpenFeature, microseconds above in-memory", above / 1000, 1)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
