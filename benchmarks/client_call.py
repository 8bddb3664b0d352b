"""
What does a call of a cached boto3 client cost?

    python benchmarks/client_call.py [--repeat 5]

Defends: a hit of `cached(client)`, of a patched one and of `client()` at most
1/200 of boto3's own call to a server on loopback, measured in the same run,
interleaved; and shows what a call that is not kept (DescribeSecret) costs more
through a cached client than through a bare one.  Figures are the least of several
runs, in microseconds; ratios hold from machine to machine, microseconds do not.
Exit status 1 if the budget is exceeded.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import timeit

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from wire import Wire, response  # noqa: E402  it lies in tests/

SECRET = {
    "ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db-AbCdEf",
    "Name": "db",
    "VersionId": "0" * 32,
    "SecretString": '{"user": "kim", "password": "p"}',
    "VersionStages": ["AWSCURRENT"],
    "CreatedDate": 1.7e9,
}


def answer(request):
    """Answer as Secrets Manager does."""
    return response(
        200, SECRET, x_amzn_RequestId="r", Content_Type="application/x-amz-json-1.1"
    )


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with Wire(answer) as wire:
        os.environ.update(
            AWS_ENDPOINT_URL=wire.url,
            AWS_ACCESS_KEY_ID="testing",
            AWS_SECRET_ACCESS_KEY="testing",
            AWS_DEFAULT_REGION="eu-central-1",
        )
        import boto3

        import lambda_ext

        bare = boto3.client("secretsmanager")
        cached = lambda_ext.cached(bare)
        logging.disable(logging.WARNING)  # of the bare client, which stays so
        with lambda_ext.patch():
            patched = boto3.client("secretsmanager")
        light = lambda_ext.client("secretsmanager")
        read = {
            "boto3": lambda: bare.get_secret_value(SecretId="db"),
            "cached(client), from memory": lambda: cached.get_secret_value(
                SecretId="db"
            ),
            "patch(), from memory": lambda: patched.get_secret_value(SecretId="db"),
            "client(), from memory": lambda: light.get_secret_value(SecretId="db"),
        }
        other = {
            "boto3, DescribeSecret": lambda: bare.describe_secret(SecretId="db"),
            "cached(client), DescribeSecret": lambda: cached.describe_secret(
                SecretId="db"
            ),
        }
        least = {}
        for _ in range(options.repeat):
            for name, function in {**read, **other}.items():
                number = 5000 if "memory" in name else 200
                function()
                took = timeit.timeit(function, number=number) / number * 1e6
                least[name] = min(took, least.get(name, took))
    print(f"Python {sys.version.split()[0]}, the least of {options.repeat} runs\n")
    print(f"{'':36}{'us':>9}{'of boto3':>12}")
    over = False
    for name, took in least.items():
        boto = least["boto3"] if name in read else least["boto3, DescribeSecret"]
        ratio = f"1/{boto / took:.0f}" if took < boto / 2 else f"{took / boto:.3f}"
        exceeded = "memory" in name and took * 200 > boto
        over = over or exceeded
        print(f"{name:36}{took:9.2f}{ratio:>12}{'   <- over 1/200' * exceeded}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
