"""Secrets in few calls, each matched to who asked for it."""

from __future__ import annotations

import pytest
from aws_model import Secrets
from helpers import fetch_all

from lambda_ext.contracts import SourceContract
from lambda_ext.exceptions import (
    AccessDeniedError,
    NotFoundError,
    SourceError,
    ThrottledError,
)
from lambda_ext.lifecycle import clock, phases
from lambda_ext.testing import FakeClock
from lambda_ext.values import keys, store
from lambda_ext.values.batches import get_secrets
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Secret
from lambda_ext.values.sources import secrets_manager


@pytest.fixture
def way(monkeypatch):
    """Secrets Manager with thirty secrets."""
    way = Secrets({f"s{number:02}": f"v{number}" for number in range(30)})
    monkeypatch.setattr(secrets_manager, "transport", lambda *a, **k: way)
    return way


@pytest.fixture
def source(way):
    """The source over it."""
    return secrets_manager.SecretsManager()


class TestContract(SourceContract):
    """Secrets Manager is a source like any other."""

    @pytest.fixture
    def source(self, way):
        """The source, with the values of the contract."""
        way.secrets.update({"contract/a": ["one"], "contract/b": ["two"]})
        return secrets_manager.SecretsManager()


def fetch(source, wanted):
    """Fetch *wanted* as the loader does, and return all answers."""
    found = {}
    for call in source.plan(wanted):
        found.update(fetch_all(source, call))
    return found


def named(source, *names):
    """Return the keys of secrets."""
    return [keys.secret(source.scope, name) for name in names]


def test_thirty_secrets_are_two_calls(way, source):
    """Twenty go in one call."""
    wanted = named(source, *way.secrets)
    found = fetch(source, wanted)

    assert ["BatchGetSecretValue"] * 2 == way.operations
    assert [f"v{number}" for number in range(30)] == [
        found[key].value for key in wanted
    ]


def test_one_secret_is_asked_for_by_itself(way, source):
    """A single name needs no batch action."""
    fetch(source, named(source, "s01"))

    assert [("GetSecretValue", {"SecretId": "s01"})] == way.calls


def test_versions_are_asked_for_one_by_one(way, source):
    """A batch knows current versions only."""
    way.secrets["s01"] = ["old", "new"]
    previous = keys.secret(source.scope, "s01", None, "AWSPREVIOUS")
    by_id = keys.secret(source.scope, "s01", way.version_id("s01", 1))
    current, other = named(source, "s01", "s02")
    found = fetch(source, [previous, by_id, current, other])

    assert ["BatchGetSecretValue", "GetSecretValue", "GetSecretValue"] == sorted(
        way.operations
    )
    assert ["old", "old", "new", "v2"] == [
        found[key].value for key in (previous, by_id, current, other)
    ]


def test_name_arn_and_partial_arn_are_matched_to_their_askers(way, source):
    """AWS answers under name and ARN, for each of the two that was asked."""
    arn = way.arn("s01")
    wanted = named(source, "s01", arn, arn[:-7], "s02")
    found = fetch(source, wanted)

    assert ["v1", "v1", "v1", "v2"] == [found[key].value for key in wanted]
    assert {arn} == {found[key].arn for key in wanted[:3]}


def test_refused_parts_of_a_batch_are_errors_of_their_own(way, source):
    """HTTP 200 with Errors: the others are not lost, and none is missing."""
    way.denied_names.add("s02")
    way.deleted.add("s03")
    way.undecryptable.add("s04")
    wanted = named(source, "s01", "s02", "s03", "s04", "nope")
    found = fetch(source, wanted)

    assert 1 == len(way.calls)
    assert "v1" == found[wanted[0]].value
    assert [
        "AccessDeniedException",
        "InvalidRequestException",
        "DecryptionFailure",
        "ResourceNotFoundException",
    ] == [found[key].code for key in wanted[1:]]
    assert isinstance(found[wanted[1]], AccessDeniedError)
    assert isinstance(found[wanted[4]], NotFoundError)
    assert ["s02", "s03", "s04", "nope"] == [found[key].key for key in wanted[1:]]
    assert "looked for in eu-central-1" in str(found[wanted[4]])
    assert not any(found[key].transient for key in wanted[1:])


def test_role_without_the_batch_action_falls_back_once(way, source):
    """Denied the action itself, each is asked for, and it is remembered."""
    way.denied_operations.add("BatchGetSecretValue")
    wanted = named(source, "s01", "s02", "s03")

    found = fetch(source, wanted)
    assert ["v1", "v2", "v3"] == [found[key].value for key in wanted]
    assert ["BatchGetSecretValue", *["GetSecretValue"] * 3] == way.operations

    way.calls.clear()
    fetch(source, wanted)
    assert ["GetSecretValue"] * 3 == way.operations


def test_expired_token_is_not_mistaken_for_a_missing_permission(way, source):
    """Credentials that AWS does not take would not be better one by one."""
    way.failures.append(way.error("ExpiredTokenException"))
    with pytest.raises(AccessDeniedError):
        fetch(source, named(source, "s01", "s02"))

    assert 1 == len(way.calls)
    fetch(source, named(source, "s01", "s02"))
    assert "BatchGetSecretValue" == way.operations[-1]


def test_throttled_batch_is_not_taken_apart(way, source):
    """Twenty calls instead of one would be the wrong answer to throttling."""
    way.failures.append(way.error("ThrottlingException"))
    with pytest.raises(ThrottledError):
        fetch(source, named(source, "s01", "s02"))

    assert 1 == len(way.calls)


def test_one_impossible_name_does_not_spoil_the_others(way, source):
    """Where AWS refuses a batch for its content, each is asked for by itself."""
    way.failures.append(way.error("ValidationException", "a name"))
    wanted = named(source, "s01", "s02")

    found = fetch(source, wanted)
    assert ["v1", "v2"] == [found[key].value for key in wanted]
    way.calls.clear()
    fetch(source, wanted)
    assert ["BatchGetSecretValue"] == way.operations


def test_unmatched_answer_is_asked_for_by_itself(way, source, monkeypatch):
    """A request that the batch does not answer is neither lost nor guessed."""
    monkeypatch.setattr(
        way, "BatchGetSecretValue", lambda **_: {"SecretValues": [], "Errors": []}
    )
    wanted = named(source, "s01", "s02")

    found = fetch(source, wanted)
    assert ["v1", "v2"] == [found[key].value for key in wanted]


def test_name_and_arn_of_another_account_never_share_a_call(way, source):
    """Both answers have one name, and nothing else to tell them apart by."""
    abroad = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:s01-BBBBBB"
    wanted = named(source, "s01", abroad, abroad[:-7], "s02")
    calls = [{key.name for key in call} for call in source.plan(wanted)]

    assert not any({"s01", abroad} <= call or {"s01", abroad[:-7]} <= call
                   or {abroad, abroad[:-7]} <= call for call in calls)  # fmt: skip
    assert 3 == len(calls)


@pytest.mark.parametrize("order", [sorted, lambda arns: sorted(arns, reverse=True)])
def test_secret_of_another_account_is_not_taken_for_the_own(way, order):
    """In either order, under its name and its ARN."""
    abroad = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:s01-BBBBBB"
    way.foreign = {abroad: "abroad"}
    way.order = order

    assert {"s01": "v1", abroad: "abroad"} == get_secrets(["s01", abroad])
    assert {"s01": "v1", abroad: "abroad"} == {
        name: get_secret(name) for name in ("s01", abroad)
    }


def test_suffix_that_reads_like_a_name(way):
    """The ARN of "s01" may end in -secret, and "s01-secret" be another one."""
    way.secrets["s01-secret"] = ["another"]
    way.suffixes = {"s01": "secret"}
    arn = way.arn("s01")

    assert {arn: "v1", "s01-secret": "another"} == get_secrets([arn, "s01-secret"])


def test_partial_arns_are_matched_to_what_the_batch_brought(way, source):
    """The ARN in the answer is longer by what AWS appended, and by no more."""
    wanted = named(source, way.arn("s01")[:-7], way.arn("s02")[:-7])
    found = fetch(source, wanted)

    assert ["v1", "v2"] == [found[key].value for key in wanted]
    assert ["BatchGetSecretValue"] == way.operations


def test_arn_without_a_suffix_is_no_longer_than_it_is(way, source, monkeypatch):
    """Emulators append none, and seven characters of a name are no suffix."""
    arns = [way.arn("s01")[:-7] + tail for tail in ("", "production")]
    values = [{"ARN": arns[1], "Name": "s01production", "SecretString": "another"}]
    monkeypatch.setattr(
        way, "BatchGetSecretValue", lambda **_: {"SecretValues": values}
    )
    wanted = named(source, arns[1][:-7], "s02")
    monkeypatch.setattr(
        way, "GetSecretValue", lambda SecretId: {"SecretString": SecretId}
    )
    found = fetch(source, wanted)

    assert [arns[1][:-7], "s02"] == [found[key].value for key in wanted]


def test_versions_are_read_singly_by_a_caller_that_plans_nothing(way, source):
    """A batch would bring the current one for each."""
    way.secrets["s01"] = ["old", "new"]
    previous = keys.secret(source.scope, "s01", None, "AWSPREVIOUS")
    (other,) = named(source, "s02")

    for wanted in ([previous, other], [other, previous]):
        found = fetch_all(source, wanted)
        assert ["old", "v2"] == [found[previous].value, found[other].value]


def test_error_of_a_name_is_not_covered_by_an_arn_with_that_name(way, source):
    """A caller that plans nothing gets what each is worth."""
    abroad = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:s01-BBBBBB"
    way.foreign = {abroad: "abroad"}
    way.denied_names.add("s01")
    own, other = named(source, "s01", abroad)
    found = fetch_all(source, [own, other])

    assert isinstance(found[own], AccessDeniedError)
    assert "abroad" == found[other].value


def test_stage_that_is_given_is_sent(way):
    """A policy may ask for it; without it nothing is."""
    get_secret("s01")
    get_secret("s01", version_stage="AWSCURRENT")
    get_secret("s01", version_stage="AWSCURRENT", version_id=way.version_id("s01", 1))

    number = way.version_id("s01", 1)
    assert [
        {"SecretId": "s01"},
        {"SecretId": "s01", "VersionStage": "AWSCURRENT"},
        {"SecretId": "s01", "VersionId": number, "VersionStage": "AWSCURRENT"},
    ] == [parameters for _, parameters in way.calls]


def test_version_that_lost_its_stage_is_an_error(way):
    """An id with AWSCURRENT means: only if it is the current one."""
    way.secrets["s01"] = ["old", "new"]
    with pytest.raises(SourceError, match="InvalidParameterException"):
        get_secret(
            "s01", version_id=way.version_id("s01", 1), version_stage="AWSCURRENT"
        )


def test_stage_that_is_given_is_read_singly(way, source):
    """A batch has no stage; each of the others goes with it."""
    wanted = [
        *named(source, "s01", "s02"),
        keys.secret(source.scope, "s01", None, "AWSCURRENT"),
    ]
    found = fetch(source, wanted)

    assert ["v1", "v2", "v1"] == [found[key].value for key in wanted]
    assert ["BatchGetSecretValue", "GetSecretValue"] == way.operations


@pytest.mark.parametrize("code", ["UnknownOperationException", "InvalidAction"])
def test_server_without_batches_is_asked_singly(way, source, code):
    """An emulator of AWS may not know the operation; that is remembered."""
    way.failures.append(way.error(code))
    wanted = named(source, "s01", "s02")

    assert ["v1", "v2"] == [fetch(source, wanted)[key].value for key in wanted]
    way.calls.clear()
    fetch(source, wanted)
    assert ["GetSecretValue"] * 2 == way.operations


class Client:
    """As a client of an old boto3, or a thin stand-in for one."""

    class meta:
        """Where it asks."""

        region_name, endpoint_url = "eu-central-1", "https://example.com"

    def get_secret_value(self, SecretId):
        """Answer with the name."""
        return {"SecretString": "value of " + SecretId}


class Mocked(Client):
    """As a mock, which takes every call and answers few."""

    def batch_get_secret_value(self, SecretIdList):
        """Answer with something that no client answers with."""
        return object()


@pytest.mark.parametrize("client", [Client(), Mocked()])
def test_client_without_batches_is_asked_singly(client):
    """What works for one handle works for two."""
    handles = [Secret(name, client=client) for name in ("a", "b")]

    assert ["value of a", "value of b"] == [handle.value for handle in handles]


GARBAGE = [
    {"SecretString": 5},
    {"SecretString": {"a": "b"}},
    {"SecretString": ["x"], "SecretBinary": b"x"},
    {"SecretBinary": "text"},
    {"SecretBinary": [1]},
    {"SecretString": "x", "VersionId": [1]},
    {"SecretString": "x", "ARN": 5},
    {"SecretString": None},
]


@pytest.mark.parametrize("answer", GARBAGE)
@pytest.mark.logs
def test_answer_of_a_wrong_shape_passes(way, monkeypatch, answer):
    """It is an error that may pass: the value that is remembered serves."""
    with FakeClock() as time:
        assert "v1" == get_secret("s01")
        monkeypatch.setattr(way, "GetSecretValue", lambda **_: answer)
        time.advance(301)
        assert "v1" == get_secret("s01")
        with pytest.raises(SourceError, match="could not be read") as raised:
            get_secret("s02")
        assert raised.value.transient


BATCHES_OF_GARBAGE = [
    {"SecretValues": [1], "Errors": []},
    {"SecretValues": 5},
    {"SecretValues": "x", "Errors": []},
    {"SecretValues": [], "Errors": [1]},
    {"SecretValues": [], "Errors": 5},
    {"SecretValues": [{"Name": 5, "SecretString": "x"}]},
    {"SecretValues": [{"Name": "s01", "ARN": 5, "SecretString": "x"}]},
    {"SecretValues": [], "Errors": [{"SecretId": "s01"}, {"SecretId": "s02"}]},
    {"SecretValues": [], "Errors": [{"SecretId": name, "ErrorCode": 5}
                                    for name in ("s01", "s02")]},
    {"SecretValues": [{"Name": name, "SecretString": 5} for name in ("s01", "s02")]},
]  # fmt: skip


@pytest.mark.parametrize("answer", BATCHES_OF_GARBAGE)
@pytest.mark.logs
def test_batch_of_a_wrong_shape_passes(way, monkeypatch, answer):
    """What is remembered outlives it, and nothing of it is handed out."""
    with FakeClock() as time:
        expected = {"s01": "v1", "s02": "v2"}
        assert expected == get_secrets(["s01", "s02"])
        monkeypatch.setattr(way, "BatchGetSecretValue", lambda **_: answer)
        monkeypatch.setattr(way, "GetSecretValue", lambda **_: {"SecretString": 5})
        time.advance(301)
        assert expected == get_secrets(["s01", "s02"])
        with pytest.raises(SourceError, match="could not be read") as raised:
            get_secrets(["s01", "s02"], force_fetch=True)
        assert raised.value.transient


def test_batch_without_one_of_its_members_is_complete(way, source, monkeypatch):
    """Neither array has to be there."""
    values = [{"Name": name, "SecretString": "of " + name} for name in ("s01", "s02")]
    error = {"SecretId": "s01", "ErrorCode": "AccessDeniedException"}
    other = {"SecretId": "s02", "ErrorCode": "ResourceNotFoundException"}
    wanted = named(source, "s01", "s02")
    monkeypatch.setattr(
        way, "BatchGetSecretValue", lambda **_: {"SecretValues": values}
    )
    assert ["of s01", "of s02"] == [fetch(source, wanted)[key].value for key in wanted]

    monkeypatch.setattr(
        way, "BatchGetSecretValue", lambda **_: {"Errors": [error, other]}
    )
    assert [AccessDeniedError, NotFoundError] == [
        type(fetch(source, wanted)[key]) for key in wanted
    ]
    assert "GetSecretValue" not in way.operations


def test_two_stand_ins_are_two_accounts():
    """Clients that say nothing of whose they are share no value."""

    class Other(Client):
        def get_secret_value(self, SecretId):
            return {"SecretString": "another " + SecretId}

    handles = [Secret("a", client=Client()), Secret("a", client=Other())]

    assert ["value of a", "another a"] == [handle.value for handle in handles]


def test_arn_of_something_else_joins_nothing(way, monkeypatch):
    """Stand-ins for AWS answer with one ARN for every name."""
    answer = {"ARN": way.arn("any"), "Name": "any"}
    monkeypatch.setattr(
        way,
        "GetSecretValue",
        lambda SecretId: {**answer, "SecretString": "of " + SecretId},
    )
    names = ["s01", "s02", way.arn("s03")]

    assert ["of " + name for name in names] == [get_secret(name) for name in names]
    assert ["of " + name for name in names] == [get_secret(name) for name in names]


def test_binary_secret_comes_as_bytes(way, source):
    """SecretBinary is as good a value as SecretString."""
    way.secrets["s01"] = [b"\x00\xff"]
    (key,) = named(source, "s01")

    assert b"\x00\xff" == fetch(source, [key])[key].value


def test_empty_value_is_a_value(way, source):
    """A peer asked again and again for values that are false."""
    way.secrets["s01"] = [b""]
    (key,) = named(source, "s01")

    assert b"" == fetch(source, [key])[key].value


def test_answer_without_a_value_is_an_error(way, source, monkeypatch):
    """Garbage from a proxy is no secret."""
    monkeypatch.setattr(way, "GetSecretValue", lambda **_: {"ARN": "x", "Name": "s01"})
    (key,) = named(source, "s01")
    error = fetch(source, [key])[key]

    assert isinstance(error, SourceError)
    assert error.transient
    assert "s01" == error.key


def test_repr_shows_no_credentials(source):
    """The scope holds an access key id, which has no place in a log."""
    assert "AKID" not in repr(source)


def test_program_without_handles_follows_the_life_of_its_environment(way):
    """get_secret alone is enough for snapshots, thaws and forks to be seen."""
    with FakeClock() as time:
        assert "v1" == get_secret("s01")
        clock.begin_invocation()
        way.secrets["s01"] = ["new"]
        time.step(600)
        clock.begin_invocation()
        assert "new" == get_secret("s01")

        phases.call(phases.SNAPSHOT)
        assert 0 == store.snapshot().entries
