"""
How long do 20 secrets and 20 parameters take in INIT?

    python benchmarks/init_batch.py [--latency-ms 20] [--repeat 5]

A server on loopback answers after a fixed latency, over plain HTTP.  The
declared handles are loaded as `@handler` loads them (1 + 2 calls at a time);
next to them boto3 and Powertools (where installed), which ask in series.
Importing and making clients is not counted, the first connections are; see
cold_start.py for the former.  Least of several runs, in milliseconds.

Two more lines are of what may come later.  After an hour in which the
environment was frozen, all of them are read one after the other; that must
take three calls and at most 1.5 times as long as one call.  And Parameter Store
accepts connections and never answers: INIT must go on after 2 s, and a secret
be read as fast as if Parameter Store did not exist.

Exit status 1 if a number of calls or a ratio is exceeded.
"""

from __future__ import annotations

import argparse
import http.server
import json
import logging
import os
import socket
import sys
import threading
import time

SECRETS = [f"bench/secret-{number}" for number in range(20)]
PARAMETERS = [f"/bench/parameter-{number}" for number in range(20)]
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"


def secret(name):
    return {"ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
            "SecretString": "value", "VersionStages": ["AWSCURRENT"]}  # fmt: skip


def parameter(name):
    return {"ARN": "arn:" + name, "Name": name, "Value": "value", "Version": 1,
            "Type": "String"}  # fmt: skip


ANSWERS = {
    "GetSecretValue": lambda asked: secret(asked["SecretId"]),
    "BatchGetSecretValue": lambda asked: {
        "SecretValues": [secret(name) for name in asked["SecretIdList"]],
        "Errors": [],
    },
    "GetParameter": lambda asked: {"Parameter": parameter(asked["Name"])},
    "GetParameters": lambda asked: {
        "Parameters": [parameter(name) for name in asked["Names"]],
        "InvalidParameters": [],
    },
}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a kept connection costs +42 ms

    def log_message(self, *arguments):
        """Say nothing."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        self.server.calls.append(operation)
        time.sleep(self.server.latency_s)
        body = json.dumps(ANSWERS[operation](asked)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def ours(way):
    """Return a function that loads everything as INIT does."""
    import lambda_ext
    from lambda_ext.lifecycle import phases
    from lambda_ext.values import store

    def run():
        store.reset()
        phases.reset()
        lambda_ext.configure(transport=way)
        handles = [lambda_ext.Secret(name) for name in SECRETS]
        handles += [lambda_ext.Parameter(name) for name in PARAMETERS]
        yield
        phases.call(phases.INIT)
        assert all(handle.value == "value" for handle in handles)

    return run


def frozen(way):
    """Return a function that reads everything after an hour without CPU time."""
    import lambda_ext
    from lambda_ext.lifecycle import clock, phases
    from lambda_ext.values import store

    class Clock:
        """The machine's, with freezes."""

        frozen_s = 0.0
        monotonic = staticmethod(time.monotonic)

        def wall(self):
            return time.time() + self.frozen_s

    def run():
        store.reset()
        phases.reset()
        now = Clock()
        clock.install(now)
        lambda_ext.configure(transport=way)
        handles = [lambda_ext.Secret(name) for name in SECRETS]
        handles += [lambda_ext.Parameter(name) for name in PARAMETERS]
        phases.call(phases.INIT)
        for handle in handles:
            handle.value  # noqa: B018  a read
        now.frozen_s += 3600
        clock.begin_invocation(60.0)
        yield
        assert all(handle.value == "value" for handle in handles)
        clock.install(None)

    return run


def one_call(way):
    """Return a function that reads one secret over a connection that is open."""
    import lambda_ext
    from lambda_ext.lifecycle import phases
    from lambda_ext.values import store

    def run():
        store.reset()
        phases.reset()
        lambda_ext.configure(transport=way)
        lambda_ext.get_secret(SECRETS[0], max_age=0)
        yield
        lambda_ext.get_secret(SECRETS[0], max_age=0)

    return run


def silent(way):
    """Return the seconds of INIT, and milliseconds of a read, beside a silent source."""
    import lambda_ext
    from lambda_ext.aws import transport
    from lambda_ext.lifecycle import clock, phases
    from lambda_ext.values import store

    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(50)  # accepts, and never answers
    os.environ["AWS_ENDPOINT_URL_SSM"] = f"http://127.0.0.1:{hole.getsockname()[1]}"
    try:
        for module in (store, phases, transport):
            module.reset()
        lambda_ext.configure(transport=way)
        lambda_ext.get_secret(SECRETS[1], max_age=0)  # the connection
        first = lambda_ext.Secret(SECRETS[0])
        kept = [first, lambda_ext.Parameter(PARAMETERS[0])]
        begun = time.perf_counter()
        phases.call(phases.INIT)
        init_s = time.perf_counter() - begun
        kept += [lambda_ext.Secret(SECRETS[2]), lambda_ext.Parameter(PARAMETERS[1])]
        clock.begin_invocation(3.0)
        begun = time.perf_counter()
        assert kept[2].value == "value"
        read_ms = (time.perf_counter() - begun) * 1000
        clock.deadline_at = None
        assert first.value == "value"
    finally:
        del os.environ["AWS_ENDPOINT_URL_SSM"]
        store.reset()
        hole.close()
    return init_s, read_ms


def plain():
    """Return a function that loads everything with boto3, one by one."""
    import boto3

    secrets, parameters = boto3.client("secretsmanager"), boto3.client("ssm")

    def run():
        yield
        for name in SECRETS:
            secrets.get_secret_value(SecretId=name)
        for name in PARAMETERS:
            parameters.get_parameter(Name=name, WithDecryption=True)

    return run


def powertools():
    """Return the same with Powertools, or None where it is not installed."""
    try:
        from aws_lambda_powertools.utilities import parameters
    except ImportError:
        return None

    def run():
        yield
        for name in SECRETS:
            parameters.get_secret(name, force_fetch=True)
        for name in PARAMETERS:
            parameters.get_parameter(name, decrypt=True, force_fetch=True)

    return run


def measured(run):
    """Return the milliseconds from the yield to the end."""
    steps = run()
    next(steps)
    begun = time.perf_counter()
    next(steps, None)
    return (time.perf_counter() - begun) * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.calls = []
    server.latency_s = options.latency_ms / 1000
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    logging.getLogger("lambda_ext").setLevel(logging.ERROR)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_address[1]}",
        AWS_ACCESS_KEY_ID="AKIDEXAMPLE",
        AWS_SECRET_ACCESS_KEY="example",
        AWS_DEFAULT_REGION="eu-central-1",
        AWS_REGION="eu-central-1",
        AWS_EC2_METADATA_DISABLED="true",
    )
    try:
        contestants = {
            "lambda_ext, light": ours("light"),
            "lambda_ext through boto3": ours("boto3"),
            "boto3, in series": plain(),
            "Powertools, in series": powertools(),
        }
        print(
            f"Python {sys.version.split()[0]}, {len(SECRETS)} secrets and"
            f" {len(PARAMETERS)} parameters at {options.latency_ms:g} ms\n"
        )
        failed = False
        for label, run in contestants.items():
            if run is None:
                continue
            times = []
            for _ in range(options.repeat):
                server.calls.clear()
                times.append(measured(run))
            calls = len(server.calls)
            print(f"  {label:<28}{calls:>4} calls{min(times):>10.1f} ms")
            failed |= label.startswith("lambda_ext") and calls != 3

        print(f"\n  after an hour frozen: 20 + 20 values at {options.latency_ms:g} ms")
        for way in ("light", "boto3"):
            best = {}
            calls = 0
            for label, run in (("one", one_call(way)), ("all", frozen(way))):
                times = []
                for _ in range(options.repeat):
                    server.calls.clear()
                    before = len(SECRETS) // 20 + len(PARAMETERS) // 10
                    times.append(measured(run))
                    calls = len(server.calls) - before
                best[label] = min(times)
            ratio = best["all"] / best["one"]
            print(
                f"    {way:<26}{calls:>4} calls{best['all']:>10.1f} ms,"
                f" {ratio:.2f} x one call, budget 1.5"
            )
            failed |= calls != 3 or ratio > 1.5
        print("\n  one source hangs")
        for way in ("light", "boto3"):
            init_s, read_ms = silent(way)
            print(
                f"    {way:<26}INIT {init_s:.2f} s, budget 2.2; read {read_ms:.1f} ms"
            )
            failed |= init_s > 2.2 or read_ms > 1000
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
