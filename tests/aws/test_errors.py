"""What AWS's error codes mean."""

from __future__ import annotations

import pytest
from reference import COMMON, DENIED, EXPECTED, MISSING, OPERATIONS, OTHER, THROTTLED

from lambda_ext import exceptions
from lambda_ext.aws import errors


def modelled():
    """Return every error code of the seven operations in botocore's models."""
    from botocore.session import Session

    session = Session()
    codes = set()
    for service, operations in OPERATIONS.items():
        model = session.get_service_model(service)
        for operation in operations:
            for shape in model.operation_model(operation).error_shapes:
                codes.add(shape.error_code)
    return codes


def test_table_knows_every_code_of_the_service_models():
    """No error of an operation that we use falls through to its status."""
    assert set(EXPECTED) == modelled()


@pytest.mark.parametrize("code", sorted(EXPECTED | COMMON))
def test_code_gives_the_class_that_fits(code):
    """A code becomes one class, passing or not, and keeps its facts."""
    cls, transient = (EXPECTED | COMMON)[code]

    error = errors.from_code(
        code, "Why.", service="ssm", key="/a", status=400, region="eu-west-1"
    )

    assert cls is type(error)
    assert transient is error.transient
    assert (code, "/a", "parameter_store") == (error.code, error.key, error.source)
    where = " (looked for in eu-west-1)" if cls is MISSING else ""
    assert f"parameter '/a': {code}: Why.{where}" == str(error)


@pytest.mark.parametrize(
    ("status", "cls", "transient"),
    [
        (400, OTHER, False),
        (401, DENIED, False),
        (403, DENIED, False),
        (404, OTHER, False),
        (408, exceptions.SourceTimeoutError, True),
        (429, THROTTLED, True),
        (500, OTHER, True),
        (503, OTHER, True),
    ],
)
def test_unknown_code_is_judged_by_its_status(status, cls, transient):
    """An unknown code is taken for what its status says."""
    error = errors.from_code("Brandnew", "", service="ssm", key="a", status=status)

    assert (cls, transient) == (type(error), error.transient)


@pytest.mark.parametrize("code", ["InternalFailure", "501", "Brandnew"])
def test_operation_that_the_server_lacks_does_not_pass(code):
    """An emulator says 501 with the code of a failure that would pass."""
    error = errors.from_code(code, "", service="ssm", key="a", status=501)

    assert not error.transient
    assert errors.lacks_operation(error)
    assert errors.lacks_operation(errors.UnknownOperationError("no"))
    assert not errors.lacks_operation(
        errors.from_code("InternalFailure", "", service="ssm", key="a", status=500)
    )


@pytest.mark.parametrize("code", ["", "400", "403", "502"])
def test_text_without_a_code_is_not_quoted(code):
    """Where the status stands for the code, the text may be any body."""
    error = errors.from_code(code, "s3cr3t", service="ssm", key="a", status=400)

    assert "s3cr3t" not in repr(error) + str(vars(error))


@pytest.mark.parametrize(
    "text",
    [
        "You can't perform this operation: the secret was marked for deletion.",
        "You tried to use a secret that's currently marked deleted.",
    ],
)
def test_secret_scheduled_for_deletion_says_what_to_change(text):
    """It is not there, AWS's code is kept, and RestoreSecret brings it back."""
    error = errors.from_code(
        "InvalidRequestException", text, service="secretsmanager", key="db"
    )

    assert exceptions.NotFoundError is type(error)
    assert (False, "InvalidRequestException") == (error.transient, error.code)
    assert "'db'" in str(error)
    assert "scheduled for deletion: call RestoreSecret" in str(error)
    assert text in str(error)


def test_other_invalid_request_is_what_it_was():
    """Not every request that AWS finds invalid is for a deleted secret."""
    error = errors.from_code(
        "InvalidRequestException", "No.", service="secretsmanager", key="db"
    )

    assert exceptions.SourceError is type(error)


@pytest.mark.parametrize(
    "wire",
    [
        "ParameterNotFound",
        "com.amazonaws.ssm#ParameterNotFound",
        "ParameterNotFound:http://internal.amazon.com/coral/com.amazonaws.ssm/",
    ],
)
def test_code_may_come_with_a_namespace_or_an_address(wire):
    """The three forms in which AWS writes a code mean the same."""
    error = errors.from_code(wire, "", service="ssm", key="a")

    assert "ParameterNotFound" == error.code
    assert "there is none of this name" in str(error)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (exceptions.ThrottledError("a", transient=True), True),
        (exceptions.SourceTimeoutError("a"), False),
        (exceptions.NotFoundError("a"), False),
        (exceptions.ConfigurationError("a"), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (OSError(), False),
        (ValueError(), False),
    ],
)
def test_only_what_may_pass_is_transient(error, transient):
    """The judge of stale-if-error goes by the flag, or by Python's classes."""
    assert transient is errors.is_transient(error)


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"SecretId": "a", "VersionStage": "AWSPREVIOUS"}, "a"),
        ({"Name": "/a:3", "WithDecryption": True}, "/a:3"),
        ({"Names": ["/a", "/b"]}, "/a, /b"),
        ({"SecretIdList": ["a"]}, "a"),
        ({"Path": "/a"}, "/a"),
        (
            {
                "ApplicationIdentifier": "shop",
                "EnvironmentIdentifier": "prod",
                "ConfigurationProfileIdentifier": "flags",
            },
            "shop/prod/flags",
        ),
        ({"ConfigurationToken": "opaque"}, ""),
    ],
)
def test_key_names_what_was_asked_for(parameters, key):
    """A message names the secret, the parameter or the profile, no token."""
    assert key == errors.key_of(parameters)


def test_details_of_a_bad_request_say_what_is_wrong_with_the_token():
    """An expired token of AppConfig's can be told from a corrupted one."""
    answer = {
        "Reason": "InvalidParameters",
        "Details": {
            "InvalidParameters": {"ConfigurationToken": {"Problem": "Expired"}}
        },
    }

    assert " (ConfigurationToken: Expired)" == errors.problems(answer)


@pytest.mark.parametrize(
    "answer",
    [{}, {"Details": None}, {"Details": {"InvalidParameters": [1]}},
     {"Details": {"InvalidParameters": {"a": 1}}}],
)  # fmt: skip
def test_details_that_are_none_add_nothing(answer):
    """Details of a shape that we do not know leave the message as it is."""
    assert "" == errors.problems(answer)


@pytest.mark.parametrize(
    ("environment", "host", "hint"),
    [
        (
            {"AWS_REGION": "eu-nowhere-1"},
            "ssm.eu-nowhere-1.amazonaws.com",
            "AWS_REGION",
        ),
        (
            {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-nowhere-1"},
            "ssm.eu-nowhere-1.amazonaws.com",
            "AWS_DEFAULT_REGION",
        ),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "ssm.eu-nowhere-1.amazonaws.com", ""),
        ({"AWS_DEFAULT_REGION": "local"}, "localhost:4566", ""),
    ],
    ids=["lambda's own", "default", "another region", "no region in the host"],
)
def test_unreachable_host_of_a_region_names_its_variable(
    environment, host, hint, monkeypatch
):
    """A region that does not exist is looked for where it was set."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    reason = f"{host}: Name or service not known"

    error = errors.unreachable(reason, service="ssm", key="/a")

    told = f" (the region is from {hint})" if hint else ""
    assert f"parameter '/a': AWS could not be reached: {reason}{told}" == str(error)
