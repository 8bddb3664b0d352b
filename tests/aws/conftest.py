"""What the tests of the ways to AWS share."""

from __future__ import annotations

import pytest
from wire import Wire

from lambda_ext.aws import container_credentials, light, native, retries, signing

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"


def answer(request):
    """Answer as the three services do, with what the name of a value says."""
    operation = request.operation
    if operation == "StartConfigurationSession":
        return {"InitialConfigurationToken": "first/token+="}
    parameters = request.parameters
    if operation == "GetSecretValue":
        name = parameters["SecretId"]
        return {"ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
                "SecretString": f"value of {name}", "CreatedDate": 1.5e9,
                "VersionStages": ["AWSCURRENT"]}  # fmt: skip
    if operation == "GetParameter":
        return {"Parameter": {"Name": parameters["Name"], "Value": "1", "Version": 1}}
    return {"Parameters": [], "InvalidParameters": parameters.get("Names", [])}


@pytest.fixture(autouse=True)
def _fresh_light():
    yield
    light.reset()
    container_credentials.reset()
    signing.reset()


@pytest.fixture(name="pauses")
def _pauses(monkeypatch):
    """Pauses are noted, not made."""
    pauses = []
    monkeypatch.setattr(retries, "sleep", pauses.append)
    return pauses


@pytest.fixture(name="server")
def _server(monkeypatch, pauses):
    """A server that all services are at, in the clear."""
    with Wire(answer) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield wire


@pytest.fixture(name="kind", params=["private", "public"])
def _kind(request):
    """The private modules of C, and the public ones over them."""
    chosen = getattr(native, request.param)()
    native.use(chosen)
    yield chosen
    native.use(None)
