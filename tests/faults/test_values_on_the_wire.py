"""What a secret's reader sees when the network or AWS fails, on both ways.

For each fault the documented outcome: with nothing in memory an error of the
class that fits; with an old value in memory that value, if the fault may pass,
and the error, if it stays.  Counted, and over with the next good answer.
"""

from __future__ import annotations

import _thread
import email.utils
import functools
import time

import boto3
import pytest
import wire as faults
from aws_model import Parameters, Secrets
from wire import Wire

import lambda_ext
from lambda_ext import exceptions
from lambda_ext.aws import light, native, retries

ANSWER = {
    "ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db-AbCdEf",
    "Name": "db",
    "VersionId": "v" * 32,
    "SecretString": "one",
    "VersionStages": ["AWSCURRENT"],
}
PASSING = {
    "throttled": (
        faults.refusing("ThrottlingException", "Rate exceeded"),
        exceptions.ThrottledError,
    ),
    "quota": (faults.failing(429), exceptions.ThrottledError),
    "internal": (
        faults.refusing("InternalServiceError", "", 500),
        exceptions.SourceError,
    ),
    "balancer": (faults.failing(503), exceptions.SourceError),
    "closed": (faults.vanish, exceptions.SourceError),
    "reset": (faults.reset, exceptions.SourceError),
    "reset in the body": (faults.cut(180, faults.reset), exceptions.SourceError),
    "cut in the body": (faults.cut(180), exceptions.SourceError),
    "garbage": (
        faults.instead(faults.response(200, b"<html>")),
        exceptions.SourceError,
    ),
    "empty": (faults.instead(faults.response(200)), exceptions.SourceError),
    "silent": (faults.silent, exceptions.SourceTimeoutError),
    "silent in the body": (
        faults.cut(180, faults.silent),
        exceptions.SourceTimeoutError,
    ),
}
LASTING = {
    "denied": ("AccessDeniedException", exceptions.AccessDeniedError),
    "KMS refuses": ("DecryptionFailure", exceptions.AccessDeniedError),
    "deleted": ("InvalidRequestException", exceptions.NotFoundError),
    "missing": ("ResourceNotFoundException", exceptions.NotFoundError),
    "expired": ("ExpiredTokenException", exceptions.AccessDeniedError),
    "unknown key": ("UnrecognizedClientException", exceptions.AccessDeniedError),
}


WALL = time.time()  # boto3 signs by the clock of the machine


@pytest.fixture(name="way", params=["light", "boto3"])
def _way(request, monkeypatch):
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    lambda_ext.configure(transport=request.param)
    yield request.param
    light.reset()


@pytest.fixture(name="aws")
def _aws(monkeypatch, way, time):
    with Wire(lambda request: ANSWER) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield wire


@pytest.fixture(name="break_")
def _break(aws, monkeypatch):
    """Break the server, with little patience where it is silent; None mends it."""
    patience_s = retries.BUDGET_S

    def break_(fault):
        aws.fault, cls = PASSING[fault] if fault else (faults.whole, None)
        short = cls is exceptions.SourceTimeoutError
        monkeypatch.setattr(retries, "BUDGET_S", 0.25 if short else patience_s)
        return cls

    return break_


def counted():
    """Return what was counted of values so far."""
    return lambda_ext.stats().values


@pytest.mark.parametrize("fault", sorted(PASSING))
def test_fault_that_passes_is_an_error_when_there_is_nothing_to_serve(
    break_, way, fault
):
    """The class fits, it says that it may pass, and the next read is well."""
    cls = break_(fault)

    with pytest.raises(exceptions.SourceError) as caught:
        lambda_ext.get_secret("db")
    assert cls is type(caught.value)
    assert (True, "db") == (caught.value.transient, caught.value.key)
    assert {cls.__name__: 1} == counted().errors
    assert way == lambda_ext.stats().transport["secretsmanager"].name

    break_(None)
    assert "one" == lambda_ext.get_secret("db")


@pytest.mark.logs
@pytest.mark.parametrize("fault", sorted(PASSING))
def test_fault_that_passes_serves_the_old_value(aws, break_, time, fault):
    """The reader notices nothing; it is counted, and later new again."""
    assert "one" == lambda_ext.get_secret("db")
    cls = break_(fault)
    aws.answer = lambda request: {**ANSWER, "SecretString": "two"}
    time.advance(301)

    assert "one" == lambda_ext.get_secret("db")
    assert 1 == counted().stale_served
    assert {cls.__name__: 1} == counted().errors

    break_(None)
    assert "two" == lambda_ext.get_secret("db", force_fetch=True)


@pytest.mark.parametrize("fault", sorted(LASTING))
def test_fault_that_stays_is_an_error_of_its_class(aws, fault):
    """One request is made, the class fits, and AWS's code is kept."""
    code, cls = LASTING[fault]
    aws.fault = faults.refusing(code, "Marked for deletion.")

    with pytest.raises(exceptions.SourceError) as caught:
        lambda_ext.get_secret("db")
    assert cls is type(caught.value)
    assert (False, code) == (caught.value.transient, caught.value.code)
    assert "'db'" in str(caught.value)
    assert 1 == len(aws.requests)


@pytest.mark.logs
@pytest.mark.parametrize("fault", sorted(LASTING))
def test_fault_that_stays_kills_the_old_value(aws, time, fault):
    """What is denied, deleted or not decrypted is not served from memory."""
    assert "one" == lambda_ext.get_secret("db")
    code, cls = LASTING[fault]
    aws.fault = faults.refusing(code, "Marked for deletion.")
    time.advance(301)

    with pytest.raises(cls):
        lambda_ext.get_secret("db")
    assert 0 == counted().stale_served


def test_connections_that_died_in_a_freeze_are_no_fault(aws, time):
    """After a thaw the value is read anew over a new connection."""
    assert "one" == lambda_ext.get_secret("db")
    aws.hang_up()
    time.step(3600)

    assert "one" == lambda_ext.get_secret("db")
    assert {} == counted().errors


def test_clock_that_is_wrong_is_no_fault_of_the_light_way(aws, time, way):
    """AWS's own time corrects the signature; boto3's way tells the refusal."""
    ahead = email.utils.formatdate(time.wall() + 900, usegmt=True)
    aws.faults.append(faults.refusing("RequestTimeTooSkewed", Date=ahead))

    if way == "light":
        assert "one" == lambda_ext.get_secret("db")
    else:
        try:
            told = lambda_ext.get_secret("db")
        except exceptions.AccessDeniedError as error:
            told = error.code
        assert told in ("one", "RequestTimeTooSkewed")  # newer botocores correct it


def test_name_server_that_fails_is_a_fault_that_passes(aws, time, way, monkeypatch):
    """A name that does not resolve may resolve again."""
    import socket

    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    modules = native.private()
    modules.getaddrinfo = fail
    native.use(modules)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "https://nowhere.invalid")
        patch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(exceptions.SourceError) as caught:
            lambda_ext.get_secret("db")

    assert caught.value.transient


ABROAD = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:s0-BBBBBB"
SHARED = "arn:aws:ssm:eu-central-1:999999999999:parameter/p/0"


@pytest.mark.parametrize("backwards", [False, True])
def test_batch_gives_no_value_to_another_name(aws, backwards):
    """Names beside ARNs of other accounts, past the size of a call, in any order."""
    order = functools.partial(sorted, reverse=backwards)
    secrets = Secrets({f"s{number}": f"v{number}" for number in range(41)})
    secrets.foreign = {ABROAD: "abroad"}
    secrets.order = order
    parameters = Parameters({f"/p/{number}": f"w{number}" for number in range(21)})
    parameters.foreign = {SHARED: "shared"}
    parameters.order = order
    aws.answer = lambda request: (
        parameters if "Parameter" in request.operation else secrets
    ).call(request.operation, request.parameters)

    own = {f"s{number}": f"v{number}" for number in range(41)}
    expected = {ABROAD: "abroad", **own, secrets.arn("s0"): "v0"}
    assert expected == lambda_ext.get_secrets([*expected])
    assert expected == {name: lambda_ext.get_secret(name) for name in expected}

    own = {f"/p/{number}": f"w{number}" for number in range(21)}
    expected = {SHARED: "shared", **own, parameters.arn("/p/0"): "w0"}
    assert expected == lambda_ext.get_parameters([*expected])
    assert expected == {name: lambda_ext.get_parameter(name) for name in expected}


def test_server_without_batches_is_asked_once(aws):
    """501 is no transient failure, for every code; it is remembered."""
    secrets = Secrets({name: name for name in ("a", "b", "c", "d")})
    aws.answer = lambda request: secrets.call(request.operation, request.parameters)
    aws.faults.append(faults.refusing("InternalFailure", "not supported", 501))

    assert {"a": "a", "b": "b"} == lambda_ext.get_secrets(["a", "b"])
    assert {"c": "c", "d": "d"} == lambda_ext.get_secrets(["c", "d"])
    operations = [request.operation for request in aws.requests]
    assert ["BatchGetSecretValue", *["GetSecretValue"] * 4] == operations


@pytest.mark.logs
@pytest.mark.parametrize(
    "answer",
    [
        {"SecretString": 5},
        {"SecretString": {"a": "b"}},
        {"SecretBinary": 5},
        {"SecretString": "x", "VersionId": [1]},
    ],
)
def test_json_of_a_wrong_shape_passes(aws, time, answer):
    """The old value serves, and nothing of it is handed out."""
    assert "one" == lambda_ext.get_secret("db")
    aws.answer = lambda request: answer
    time.advance(301)

    assert "one" == lambda_ext.get_secret("db")
    with pytest.raises(exceptions.SourceError) as caught:
        lambda_ext.get_secret("other")
    assert caught.value.transient


def test_hundred_readers_of_a_silent_server_all_come_back(aws, break_):
    """No caller hangs, and one request at a time is made for all of them."""
    from helpers import run_threads

    break_("silent")

    results = run_threads(100, lambda index: lambda_ext.get_secret("db"))

    assert {exceptions.SourceTimeoutError} == set(map(type, results))
    assert 100 == len(set(map(id, results)))
    assert len(aws.requests) <= retries.ATTEMPTS * 2
    assert _thread._count() < 50
