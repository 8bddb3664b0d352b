"""The whole way to AWS's imitation: sources, transport, matching, errors."""

from __future__ import annotations

import urllib.request

import boto3
import pytest
from moto.server import ThreadedMotoServer

from lambda_ext.aws import transport
from lambda_ext.exceptions import NotFoundError, SourceError
from lambda_ext.lifecycle import phases
from lambda_ext.values import keys, store
from lambda_ext.values.batches import (
    get_parameters,
    get_parameters_by_path,
    get_secrets,
)
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Parameter, Secret

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def endpoint():
    """A moto server on a port of this machine, in a thread of this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["boto3", "light"])
def transport_name(request, monkeypatch):
    """The way to AWS that these tests take."""
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", request.param)
    return request.param


@pytest.fixture
def aws(transport_name, endpoint, monkeypatch):
    """A new account with nothing in it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    request = urllib.request.Request(endpoint + "/moto-api/reset", method="POST")
    urllib.request.urlopen(request, timeout=30).close()
    yield
    if store.snapshot().loads:
        ways = {name for name, _ in transport.status().values()}
        assert ways in ({transport_name}, {transport_name, "boto3"})


@pytest.fixture
def secrets(aws):
    """A client of Secrets Manager that knows nothing of us."""
    client = boto3.client("secretsmanager")
    yield client
    client.close()


@pytest.fixture
def parameters(aws):
    """A client of Parameter Store that knows nothing of us."""
    client = boto3.client("ssm")
    yield client
    client.close()


def test_declared_values_are_three_calls(secrets, parameters):
    """Twenty secrets and twenty parameters: 1 + 2 calls in INIT."""
    for number in range(20):
        secrets.create_secret(Name=f"s{number}", SecretString=f"v{number}")
        parameters.put_parameter(Name=f"/p/{number}", Value=f"w{number}", Type="String")
    declared = [Secret(f"s{number}") for number in range(20)]
    declared += [Parameter(f"/p/{number}") for number in range(20)]
    phases.call(phases.INIT)

    assert 3 == store.snapshot().loads
    values = [f"v{number}" for number in range(20)]
    values += [f"w{number}" for number in range(20)]
    assert values == [handle.value for handle in declared]
    assert 3 == store.snapshot().loads


def test_secret_by_name_arn_and_partial_arn(secrets):
    """Three ways to say it, one value, and no more than one call each."""
    arn = secrets.create_secret(Name="prod/db", SecretString="one")["ARN"]
    names = ["prod/db", arn, arn[:-7]]
    assert dict.fromkeys(names, "one") == get_secrets(names)

    secrets.put_secret_value(SecretId="prod/db", SecretString="two")
    assert "two" == get_secret(arn, force_fetch=True)
    assert ["two"] * 3 == [get_secret(name) for name in names]


def test_versions_of_a_secret(secrets):
    """By stage and by id."""
    first = secrets.create_secret(Name="db", SecretString="one")["VersionId"]
    secrets.put_secret_value(SecretId="db", SecretString="two")

    assert "two" == get_secret("db")
    assert "one" == get_secret("db", version_stage="AWSPREVIOUS")
    assert "one" == get_secret("db", version_id=first)
    assert first == Secret("db", version_id=first).version_id


def test_binary_secret(secrets):
    """Bytes come back as they went."""
    secrets.create_secret(Name="key", SecretBinary=b"\x00\xff")

    assert b"\x00\xff" == get_secret("key", "binary")
    assert [b"\x00\xff"] * 2 == [
        get_secrets(["key", "key"], "binary")["key"] for _ in range(2)
    ]


def test_errors_of_a_batch_name_their_secret(secrets):
    """Missing and deleted ones among good ones."""
    secrets.create_secret(Name="good", SecretString="x")
    secrets.create_secret(Name="gone", SecretString="x")
    secrets.delete_secret(SecretId="gone")
    handles = {name: Secret(name) for name in ("good", "gone", "nope")}
    phases.call(phases.INIT)

    assert "x" == handles["good"].value
    with pytest.raises(NotFoundError, match="'nope'"):
        handles["nope"].value
    with pytest.raises(SourceError) as raised:
        handles["gone"].value
    assert ("InvalidRequestException", "gone", False) == (
        raised.value.code,
        raised.value.key,
        raised.value.transient,
    )


def test_parameters_by_name_version_label_and_arn(parameters):
    """Every way to say it, single and in a batch."""
    parameters.put_parameter(Name="/a/x", Value="one", Type="String")
    parameters.put_parameter(Name="/a/x", Value="two", Type="String", Overwrite=True)
    parameters.label_parameter_version(
        Name="/a/x", ParameterVersion=1, Labels=["stable"]
    )
    arn = parameters.get_parameter(Name="/a/x")["Parameter"]["ARN"]
    expected = {
        "/a/x": "two",
        "/a/x:1": "one",
        "/a/x:01": "one",
        "/a/x:stable": "one",
        arn: "two",
    }

    assert expected == get_parameters(expected)
    store.loader.clear()
    assert expected == {name: get_parameter(name) for name in expected}


def test_secure_strings(parameters):
    """Decrypted unless asked otherwise, and never mistaken for each other."""
    parameters.put_parameter(Name="/key", Value="plain", Type="SecureString")

    assert "plain" == get_parameter("/key")
    assert "plain" != get_parameter("/key", decrypt=False)
    assert "plain" == get_parameter("/key")


def test_path(parameters):
    """More than a page, one level and all."""
    for number in range(23):
        parameters.put_parameter(Name=f"/p/{number}", Value=str(number), Type="String")
    parameters.put_parameter(Name="/p/deep/x", Value="x", Type="String")
    one = get_parameters_by_path("/p", transform=int)
    calls = store.snapshot().loads

    assert {f"/p/{number}": number for number in range(23)} == one
    assert 24 == len(get_parameters_by_path("/p/", recursive=True))
    assert "7" == get_parameter("/p/7")
    assert calls + 1 == store.snapshot().loads


def test_secret_through_parameter_store(secrets, parameters):
    """Parameter Store's references to secrets are parameters like others."""
    secrets.create_secret(Name="db", SecretString="x")

    assert "x" == get_parameter("/aws/reference/secretsmanager/db")


def test_missing_parameter_names_itself(aws):
    """Name, version and label."""
    for name in ("/nope", "/nope:3", "/nope:label"):
        with pytest.raises(NotFoundError, match=f"'{name}'"):
            get_parameter(name)
    with pytest.raises(NotFoundError) as raised:
        get_parameters(["/nope", "/neither"])
    assert "/nope" == raised.value.key


def test_own_client_is_asked(secrets):
    """A handle may have a client of its own, with an account and region of its own."""
    there = boto3.client("secretsmanager", region_name="us-east-1")
    there.create_secret(Name="db", SecretString="there")
    secrets.create_secret(Name="db", SecretString="here")

    assert "there" == Secret("db", client=there).value
    assert "here" == Secret("db").value
    assert "here" == get_secret("db")
    session = boto3.Session(region_name="us-east-1")
    assert "there" == Secret("db", session=session).value


def test_no_value_is_in_a_scope_or_key(secrets):
    """Keys hold an access key id at most, and do not show it."""
    secrets.create_secret(Name="db", SecretString="hunter2")
    get_secret("db")
    (slot,) = store.cache.slots.values()

    assert "hunter2" not in repr(tuple(slot.key))
    assert "testing" not in repr(slot.key) + repr(slot)
    assert keys.SECRET == slot.key.operation
