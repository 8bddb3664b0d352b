"""What the first secret loads: the promise that boto3 is not needed for it."""

from __future__ import annotations

import json
import sys

import pytest
from helpers import amount_of_code, python
from wire import Wire, authority, response

SHA = "_sha2" if sys.version_info >= (3, 12) else "_sha256"
PROGRAM = """
import json, sys
import awslambdaric.bootstrap
before = set(sys.modules)
import lambda_ext
{body}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
LIGHT = {
    f"lambda_ext.aws.{name}"
    for name in ("connections", "credentials", "errors", "http1", "light", "native",
                 "regions", "retries", "signing", "tls", "transport", "waiting")
}  # fmt: skip


def answer(request):
    """Answer as the services do."""
    if request.operation == "StartConfigurationSession":
        return {"InitialConfigurationToken": "t"}
    if request.operation == "GetLatestConfiguration":
        return response(200, b"{}", Next_Poll_Configuration_Token="n")
    if request.operation == "GetParameter":
        return {"Parameter": {"Name": "/a", "Value": "1", "Version": 1, "Type": "String",
                              "ARN": "arn:aws:ssm:eu-central-1:1:parameter/a"}}  # fmt: skip
    return {"ARN": "arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf",
            "Name": "db", "SecretString": "x", "VersionId": "v" * 32,
            "VersionStages": ["AWSCURRENT"], "CreatedDate": 1.7e9}  # fmt: skip


def loaded_by(body, *, tls=True, env=None):
    """Return (the library's modules, the others) that *body* adds."""
    context = authority().server("localhost") if tls else None
    with Wire(answer, tls=context) as wire:
        place = {
            "AWS_ENDPOINT_URL": wire.url.replace("127.0.0.1", "localhost"),
            "AWS_CA_BUNDLE": authority().path,
            **(env or {}),
        }
        done = python(PROGRAM.format(body=body), env=place)
        assert 0 == done.returncode, done.stderr
        assert wire.requests
    names = set(json.loads(done.stdout.splitlines()[-1]))
    own = {name for name in names if name.partition(".")[0] == "lambda_ext"}
    # Small, and in all versions but 3.10 loaded by the runtime client.
    return own, names - own - {"contextlib"}


@pytest.mark.process
@pytest.mark.parametrize(
    "body",
    [
        "assert lambda_ext.get_secret('db') == 'x'",
        "assert lambda_ext.get_parameter('/a') == '1'",
        "assert lambda_ext.Secret('db').value == 'x'",
    ],
)
def test_first_value_loads_three_modules_of_python(body):
    """Sockets, TLS and a hash, from C; nothing else that was not there."""
    own, others = loaded_by(body)

    assert {"_socket", "_ssl", SHA} == others
    assert LIGHT == {name for name in own if name.startswith("lambda_ext.aws.")}


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "modules", "most"),
    [
        ("lambda_ext.get_secret('db')", 36, 45_000),
        ("lambda_ext.Secret('db').value", 36, 46_000),
        ("lambda_ext.get_parameter('/a')", 36, 46_000),
        (
            "lambda_ext.client('secretsmanager').get_secret_value(SecretId='db')",
            40,
            49_500,
        ),
        ("lambda_ext.Flags('a', 'b', 'c').names()", 40, 53_500),
    ],
    ids=["get_secret", "Secret", "get_parameter", "client", "Flags"],
)
def test_first_value_loads_so_much_of_the_library_at_most(body, modules, most):
    """The cold start grows with each module, and with what is in them."""
    own, _ = loaded_by(body)

    assert modules >= len(own)
    assert most > amount_of_code(own)


@pytest.mark.process
def test_first_configuration_loads_no_more():
    """AppConfig's two calls need what a secret needs."""
    own, others = loaded_by(
        "from lambda_ext.aws import transport\n"
        "way = transport.transport('appconfigdata')\n"
        "way.call('StartConfigurationSession', {'ApplicationIdentifier': 'a'})\n"
        "way._connections.close()\n"
        "way.call('GetLatestConfiguration', {'ConfigurationToken': 't'})"
    )

    assert {"_socket", "_ssl", SHA} == others
    assert LIGHT <= own


@pytest.mark.process
def test_first_response_of_a_client_loads_a_date_besides():
    """In UTC, as in Lambda, dateutil is not loaded, nor is `datetime`'s Python half."""
    _, others = loaded_by(
        "client = lambda_ext.client('secretsmanager')\n"
        "response = client.get_secret_value(SecretId='db')\n"
        "assert response['CreatedDate'].isoformat() == '2023-11-14T22:13:20+00:00'",
        env={"TZ": ":UTC"},
    )

    assert {"_socket", "_ssl", SHA, "_datetime"} == others


@pytest.mark.process
def test_kept_connection_loads_no_more():
    """To see whether a kept connection is quiet needs no module."""
    _, others = loaded_by(
        "lambda_ext.get_secret('db'); lambda_ext.get_secret('db', force_fetch=True)"
    )

    assert {"_socket", "_ssl", SHA} == others


@pytest.mark.process
def test_way_through_boto3_loads_boto3():
    """The cure for instrumented programs is a real one."""
    _, others = loaded_by(
        "lambda_ext.get_secret('db')", env={"LAMBDA_EXT_TRANSPORT": "boto3"}
    )

    assert {"boto3", "botocore"} <= others
