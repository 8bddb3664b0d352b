"""What do the first secret and the first flag cost, from a loaded runtime client on?

    python benchmarks/cold_start.py [--rounds 15] [--check]

Each contender is a new process that loads awslambdaric, then reads one
secret, or one feature flag of AppConfig, from a server on loopback, over HTTPS with a test's authority.  The
contenders take turns, so that a busy moment of the machine hits all of them;
printed is the least of all rounds, which is what the work itself costs, and the
median of the peaks of memory (VmHWM), both beyond those of bare awslambdaric.
Ratios carry over to other machines, milliseconds do not.

The budget that it defends (--check makes a miss an exit status of 1): at most
1/9 of boto3's time (of `client()`, 1/8), at most 10 MB, `import lambda_ext` below 1 ms, and below
6 ms with handler, metrics and get_secret resolved.

Compiled modules go to a folder of their own and are there before anything is
measured, as in a package that was compiled before it was deployed.  The test's
authority lies beside Amazon's five roots, as each contender would have them: in a
directory for the light client, and for boto3, which takes none, in a bundle (of
the five; its own has some 140).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from wire import Wire, authority, late, response  # noqa: E402  it lies in tests/

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"
LATENCY_S = 0.02
SECRETS = [f"app/secret-{number}" for number in range(20)]
PARAMETERS = [f"/app/parameter-{number}" for number in range(20)]

FLAGS = json.dumps(
    {
        "on": {"enabled": True},
        "powertools": {"on": {"default": True}},  # its own form of a document
    }
).encode()
FRAME = """
import awslambdaric.bootstrap
import json, sys, time
begun = time.perf_counter()
{body}
took = time.perf_counter() - begun
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
print(json.dumps([took * 1e3, int(peak) / 1024]))
"""

DIRECTORY = "BENCHMARK_CA_DIRECTORY"
BARE = "bare awslambdaric"
LIGHT = "lambda_ext, light"
CLIENT = "lambda_ext.client"
BOTO3 = "boto3"
FIRST_SECRET = {
    BARE: "",
    LIGHT: "import lambda_ext; lambda_ext.get_secret('db')",
    CLIENT: (
        "import lambda_ext;"
        " lambda_ext.client('secretsmanager').get_secret_value(SecretId='db')"
    ),
    "lambda_ext, boto3": (
        "import lambda_ext; lambda_ext.configure(transport='boto3');"
        " lambda_ext.get_secret('db')"
    ),
    BOTO3: (
        "import boto3; boto3.client('secretsmanager').get_secret_value(SecretId='db')"
    ),
    "Powertools": (
        "from aws_lambda_powertools.utilities import parameters;"
        " parameters.get_secret('db')"
    ),
    "aws-secretsmanager-caching": (
        "from aws_secretsmanager_caching import SecretCache;"
        " SecretCache().get_secret_string('db')"
    ),
}
FIRST_FLAG = {
    BARE: "",
    LIGHT: (
        "import lambda_ext; assert lambda_ext.Flags('a', 'b', 'c').enabled('on', {})"
    ),
    "lambda_ext, boto3": (
        "import lambda_ext; lambda_ext.configure(transport='boto3');"
        " assert lambda_ext.Flags('a', 'b', 'c').enabled('on', {})"
    ),
    BOTO3: """
import boto3, json
client = boto3.client("appconfigdata")
session = client.start_configuration_session(ApplicationIdentifier="a",
    EnvironmentIdentifier="b", ConfigurationProfileIdentifier="c")
token = session["InitialConfigurationToken"]
answer = client.get_latest_configuration(ConfigurationToken=token)
assert json.loads(answer["Configuration"].read())["on"]["enabled"]
""",
    "Powertools": """
from aws_lambda_powertools.utilities.feature_flags import AppConfigStore, FeatureFlags
store = AppConfigStore("b", "a", "c", envelope="powertools")
assert FeatureFlags(store).evaluate(name="on", context={}, default=False)
""",
}
FACADE = {
    "import lambda_ext": "import lambda_ext",
    "with handler, metrics and get_secret": (
        "import lambda_ext;"
        " lambda_ext.handler, lambda_ext.metrics.count, lambda_ext.get_secret"
    ),
}
MANY = {
    LIGHT: f"""
import lambda_ext
secrets = [lambda_ext.Secret(name) for name in {SECRETS}]
parameters = [lambda_ext.Parameter(name) for name in {PARAMETERS}]
assert 40 == len([handle.value for handle in secrets + parameters])
""",
    "boto3, one by one": f"""
import boto3
secrets, parameters = boto3.client("secretsmanager"), boto3.client("ssm")
for name in {SECRETS}: secrets.get_secret_value(SecretId=name)
for name in {PARAMETERS}: parameters.get_parameter(Name=name, WithDecryption=True)
""",
    "Powertools, parameters in batches": f"""
from aws_lambda_powertools.utilities import parameters
for name in {SECRETS}: parameters.get_secret(name)
parameters.get_parameters_by_name({ {name: {} for name in PARAMETERS} }, decrypt=True)
""",
}


def answer(request):
    """Answer as Secrets Manager, Parameter Store and AppConfig do."""
    if request.operation == "StartConfigurationSession":
        return response(201, {"InitialConfigurationToken": "first"})
    if request.operation == "GetLatestConfiguration":
        return response(200, FLAGS, Next_Poll_Configuration_Token="next",
                        Next_Poll_Interval_In_Seconds="60", Version_Label="1",
                        Content_Type="application/json")  # fmt: skip
    asked = request.parameters
    if request.operation == "BatchGetSecretValue":
        found = [secret(name) for name in asked["SecretIdList"]]
        return {"SecretValues": found, "Errors": []}
    if request.operation == "DescribeSecret":
        return {"ARN": ARN.format(asked["SecretId"]), "Name": asked["SecretId"],
                "VersionIdsToStages": {"v" * 32: ["AWSCURRENT"]}}  # fmt: skip
    if request.operation == "GetSecretValue":
        return secret(asked["SecretId"])
    if request.operation == "GetParameters":
        found = [parameter(name) for name in asked["Names"]]
        return {"Parameters": found, "InvalidParameters": []}
    if request.operation == "GetParameter":
        return {"Parameter": parameter(asked["Name"])}
    return response(400, {"__type": "UnknownOperationException"})


def secret(name):
    """Return a secret as the service describes it."""
    return {"ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
            "SecretString": '{"user": "app", "password": "secret"}',
            "VersionStages": ["AWSCURRENT"], "CreatedDate": 1.7e9}  # fmt: skip


def parameter(name):
    """Return a parameter as the service describes it."""
    return {"Name": name, "Type": "SecureString", "Value": "1", "Version": 1,
            "ARN": f"arn:aws:ssm:eu-central-1:123456789012:parameter{name}",
            "LastModifiedDate": 1.7e9, "DataType": "text"}  # fmt: skip


def measured(contenders, rounds, environment):
    """Return {contender: (least ms, median peak MB)} of those that are installed."""
    samples = {name: [] for name in contenders}
    for number in range(rounds + 1):  # the first round compiles
        for name in list(samples):
            done = subprocess.run(
                [sys.executable, "-c", FRAME.format(body=contenders[name])],
                env=of_light(environment) if name in (LIGHT, CLIENT) else environment,
                cwd=environment["HOME"],  # `-c` looks for modules there first
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode and "ModuleNotFoundError" in done.stderr:
                print(f"{name}: not installed, left out")
                del samples[name]
            elif done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            elif number:
                samples[name].append(json.loads(done.stdout))
    return {
        name: (min(took), statistics.median(peak))
        for name, values in samples.items()
        for took, peak in [tuple(zip(*values, strict=True))]
    }


def environment(wire, folder):
    """Return the environment of a function, with its services at *wire*."""
    bundle, directory = os.path.join(folder, "ca.pem"), os.path.join(folder, "ca")
    shutil.copytree(os.path.join(ROOT, "lambda_ext", "aws", "roots"), directory)
    shutil.copytree(authority().directory, directory, dirs_exist_ok=True)
    with open(bundle, "wb") as file:
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), "rb") as root:
                file.write(root.read())
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "PYTHONDONT", "LAMBDA_"))
    }
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "t" * 800,
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": bundle,
        DIRECTORY: directory,
        "AWS_ENDPOINT_URL": f"https://localhost:{wire.port}",
        "HOME": folder,
        "PYTHONPATH": ROOT,
        "PYTHONPYCACHEPREFIX": os.path.join(folder, "compiled"),
    }


def of_light(environment):
    """Return *environment* with the directory in place of the bundle."""
    return {**environment, "AWS_CA_BUNDLE": environment[DIRECTORY]}


def main():
    """Measure and print; with --check, exit with 1 when a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    missed = []

    def check(what, fine):
        if not fine:
            missed.append(what)
        return "" if fine else "   <- over its budget"

    with tempfile.TemporaryDirectory() as folder:
        context = authority().server("localhost")
        with Wire(answer, tls=context) as wire:
            place = environment(wire, folder)
            first = measured(FIRST_SECRET, options.rounds, place)
            flag = measured(FIRST_FLAG, options.rounds, place)
            facade = measured(FACADE, options.rounds, place)
            wire.fault = late(LATENCY_S)
            wire.requests.clear()
            many = measured(MANY, max(3, options.rounds // 5), place)

    print(f"Python {sys.version.split()[0]}, the least of {options.rounds} rounds")
    _, bare = first.pop(BARE)
    print(f"MB and ms are beyond bare awslambdaric, which has {bare:.1f} MB\n")
    flag.pop(BARE)
    for title, found in (("secret", first), ("flag", flag)):
        subject = f"the first {title}, over HTTPS"
        print(f"{subject:42}{'ms':>8}{'of boto3':>10}{'MB':>8}")
        boto3 = found[BOTO3][0]
        for name, (took, peak) in found.items():
            ratio = f"1/{boto3 / took:.1f}" if took < boto3 else f"{took / boto3:.2f}"
            note = ""
            if name == LIGHT:
                note += check(f"{title}: 1/9 of boto3", took * 9 <= boto3)
                note += check(f"{title}: 10 MB", peak - bare <= 10)
            if name == CLIENT:
                note += check("client(): 1/8 of boto3", took * 8 <= boto3)
                note += check("client(): 10 MB", peak - bare <= 10)
            print(f"{name:42}{took:8.1f}{ratio:>10}{peak - bare:+8.1f}{note}")
        print()
    print(f"{'loading':42}{'ms':>8}")
    for (name, (took, _)), budget in zip(facade.items(), (1.0, 6.0), strict=True):
        print(f"{name:42}{took:8.2f}{check(name, took < budget)}")
    title = f"20 secrets + 20 parameters at {LATENCY_S * 1e3:.0f} ms latency"
    print(f"\n{title:42}{'ms':>8}")
    for name, (took, _) in many.items():
        print(f"{name:42}{took:8.1f}")
    if missed:
        print(f"\nover budget: {', '.join(missed)}")
    return int(bool(missed) and options.check)


if __name__ == "__main__":
    sys.exit(main())
