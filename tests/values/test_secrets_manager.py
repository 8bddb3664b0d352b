"""Secrets in few calls, each matched to who asked for it."""

from __future__ import annotations

import pytest
from aws_model import Secrets

from lambda_ext.contracts import SourceContract
from lambda_ext.exceptions import (
    AccessDeniedError,
    NotFoundError,
    SourceError,
    ThrottledError,
)
from lambda_ext.lifecycle import clock, phases
from lambda_ext.testing import FakeClock
from lambda_ext.values import keys, secrets_manager, store
from lambda_ext.values.getters import get_secret


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
        found.update(source.fetch(call, None))
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
    """AWS answers under name and ARN, whatever was asked."""
    arn = way.arn("s01")
    wanted = named(source, "s01", arn, arn[:-7], "s02")
    found = fetch(source, wanted)

    assert ["v1", "v1", "v1", "v2"] == [found[key].value for key in wanted]
    assert {arn} == {found[key].arn for key in wanted[:3]}


def test_refused_parts_of_a_batch_are_errors_of_their_own(way, source):
    """HTTP 200 with Errors: the others are not lost, and nobody goes missing."""
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
        time.freeze(600)
        clock.begin_invocation()
        assert "new" == get_secret("s01")

        phases.call(phases.SNAPSHOT)
        assert 0 == store.snapshot().entries
