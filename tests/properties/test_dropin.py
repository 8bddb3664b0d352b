"""Bare, cached, patched and light clients answer alike, for all calls in any order."""

from __future__ import annotations

import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moto import mock_aws
from moto.server import ThreadedMotoServer

from lambda_ext.dropin import tallies
from lambda_ext.dropin.light_client import LightClient, client
from lambda_ext.dropin.mixin import cached
from lambda_ext.dropin.patching import patch

NAMES = st.sampled_from(["a", "b", "prod/a", "missing"])
PARAMETERS = st.sampled_from(["/p/a", "/p/b", "/p/q/c", "plain", "/missing"])
TEXTS = st.sampled_from(["1", "2", "3"])
STAGES = st.sampled_from([None, "AWSCURRENT", "AWSPREVIOUS", "nope"])
totals = {"hits": 0, "reads": 0, "light": 0, "boto3": 0}


def normal(value):
    """Return a response or an error without what differs between two calls."""
    if isinstance(value, dict):
        return {
            name: normal(part)
            for name, part in value.items()
            if name not in ("ResponseMetadata", "NextToken")
        }
    if isinstance(value, list):
        parts = [normal(part) for part in value]
        if all(isinstance(part, dict) and "Name" in part for part in parts):
            parts.sort(key=lambda part: (part["Name"], part.get("Version", 0)))
        elif all(isinstance(part, str) for part in parts):
            parts.sort()
        return parts
    return value


def outcome(client, operation, parameters):
    """Return what calling *operation* gives: its response, or its error."""
    try:
        return normal(getattr(client, operation)(**parameters))
    except ClientError as exc:
        return type(exc), str(exc), normal(exc.response), exc.operation_name
    except ParamValidationError as exc:
        return type(exc), str(exc)


class Clients(RuleBasedStateMachine):
    """Writes go through one of the cached clients; reads are compared."""

    def __init__(self):
        super().__init__()
        self.begin_aws()
        self.bare = {name: boto3.client(name) for name in ("secretsmanager", "ssm")}
        with patch():
            patched = {name: boto3.client(name) for name in ("secretsmanager", "ssm")}
        self.cached = [
            {name: cached(client) for name, client in self.bare.items()},
            patched,
        ]
        self.arns = {}

    def begin_aws(self):
        """Begin with an empty account, in this process."""
        self.mock = mock_aws()
        self.mock.start()

    def teardown(self):
        self.mock.stop()

    def readers(self, service):
        """Return the clients that are to answer as the bare one."""
        return [clients[service] for clients in self.cached]

    def compare(self, service, operation, **parameters):
        """Read twice by each cached client; each answers as the bare one."""
        parameters = {k: v for k, v in parameters.items() if v is not None}
        expected = outcome(self.bare[service], operation, parameters)
        for _ in range(2):
            for reader in self.readers(service):
                totals["reads"] += 1
                found = outcome(reader, operation, parameters)

                assert expected == found
                self.note_read(reader)

    def note_read(self, reader):
        """Learn which client has been read from."""

    def write(self, service, operation, who, **parameters):
        """Write by cached client *who*; a refused write changes nothing."""
        return outcome(self.cached[who][service], operation, parameters)

    def form(self, name, form):
        """Return the name, its ARN or its partial ARN, if there is one."""
        arn = self.arns.get(name)
        return {"name": name, "arn": arn, "partial": arn and arn[:-7]}[form] or name

    FORMS = st.sampled_from(["name", "arn", "partial"])
    WHO = st.sampled_from([0, 1])

    @initialize()
    def begin(self):
        for name in ("a", "prod/a"):
            self.create_secret(name, "1", 0)
        for name in ("/p/a", "/p/q/c", "plain"):
            self.put_parameter(name, "1", 0, "String")

    @rule(name=NAMES, text=TEXTS, who=WHO)
    def create_secret(self, name, text, who):
        if name != "missing":
            made = self.write(
                "secretsmanager", "create_secret", who, Name=name, SecretString=text
            )
            if isinstance(made, dict):
                self.arns[name] = made["ARN"]

    @rule(name=NAMES, text=TEXTS, who=WHO, form=FORMS)
    def put_secret(self, name, text, who, form):
        self.write(
            "secretsmanager",
            "put_secret_value",
            who,
            SecretId=self.form(name, form),
            SecretString=text,
        )

    @rule(name=NAMES, who=WHO)
    def delete_secret(self, name, who):
        self.write("secretsmanager", "delete_secret", who, SecretId=name)

    @rule(name=NAMES, who=WHO)
    def restore_secret(self, name, who):
        self.write("secretsmanager", "restore_secret", who, SecretId=name)

    @rule(name=NAMES, stage=STAGES, form=FORMS)
    def get_secret(self, name, stage, form):
        self.compare(
            "secretsmanager",
            "get_secret_value",
            SecretId=self.form(name, form),
            VersionStage=stage,
        )

    @rule(names=st.lists(NAMES, min_size=1, max_size=4))
    def batch_get(self, names):
        self.compare("secretsmanager", "batch_get_secret_value", SecretIdList=names)

    @rule(
        name=PARAMETERS,
        text=TEXTS,
        who=WHO,
        kind=st.sampled_from(["String", "SecureString"]),
    )
    def put_parameter(self, name, text, who, kind):
        if name != "/missing":
            self.write(
                "ssm", "put_parameter", who,
                Name=name, Value=text, Type=kind, Overwrite=True,
            )  # fmt: skip

    @rule(name=PARAMETERS, who=WHO)
    def delete_parameter(self, name, who):
        self.write("ssm", "delete_parameter", who, Name=name)

    @rule(names=st.lists(PARAMETERS, min_size=1, max_size=3), who=WHO)
    def delete_parameters(self, names, who):
        self.write("ssm", "delete_parameters", who, Names=names)

    @rule(name=PARAMETERS, who=WHO, version=st.integers(1, 3))
    def label(self, name, who, version):
        found = outcome(self.bare["ssm"], "get_parameter", {"Name": name})
        if not isinstance(found, dict) or found["Parameter"]["Version"] < version:
            return  # moto answers with an IndexError of its own
        self.write(
            "ssm", "label_parameter_version", who,
            Name=name, ParameterVersion=version, Labels=["live"],
        )  # fmt: skip

    @rule(
        name=PARAMETERS,
        selector=st.sampled_from(["", ":1", ":2", ":live", ":01", ":"]),
        decrypt=st.sampled_from([None, True, False, 1]),
    )
    def get_parameter(self, name, selector, decrypt):
        self.compare(
            "ssm", "get_parameter", Name=name + selector, WithDecryption=decrypt
        )

    @rule(
        names=st.lists(PARAMETERS, min_size=1, max_size=4),
        decrypt=st.sampled_from([None, True]),
    )
    def get_parameters(self, names, decrypt):
        self.compare("ssm", "get_parameters", Names=names, WithDecryption=decrypt)

    @rule(
        path=st.sampled_from(["/p", "/", "/p/q", "/none", "/p/"]),
        recursive=st.sampled_from([None, True]),
        most=st.sampled_from([None, 1, 10, 0]),
    )
    def get_path(self, path, recursive, most):
        self.compare(
            "ssm",
            "get_parameters_by_path",
            Path=path,
            Recursive=recursive,
            MaxResults=most,
        )

    @invariant()
    def note_hits(self):
        counted = tallies.counters().values()
        totals["hits"] = sum(each["hits"] for each in counted)


class LightClients(Clients):
    """The same over HTTP, and a new client() for each read, which boto3 must not make."""

    url = ""  # of a server that plays AWS

    def begin_aws(self):
        request = urllib.request.Request(self.url + "/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    def teardown(self):
        pass

    def readers(self, service):
        return [*super().readers(service), client(service)]

    def note_read(self, reader):
        if type(reader) is LightClient:
            totals["light" if reader._real is None else "boto3"] += 1


def run(machine, examples):
    """Run *machine*, and count reads and hits in `totals`."""
    totals.update(hits=0, reads=0, light=0, boto3=0)
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    machine.TestCase().runTest()


@pytest.mark.logs
def test_clients_answer_alike():
    """Any mix of reads and writes: same responses, same errors, and most from memory."""
    run(Clients, 12)

    assert totals["hits"] > totals["reads"] / 4


@pytest.mark.logs
@pytest.mark.process
def test_light_clients_answer_alike(monkeypatch):
    """So does a client() that has not made boto3's, for all but what is refused there."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    LightClients.url = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", LightClients.url)
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")  # moto is loaded in here
    try:
        run(LightClients, 8)
    finally:
        server.stop()

    assert totals["hits"] > totals["reads"] / 4
    assert totals["light"] > totals["boto3"] / 3
