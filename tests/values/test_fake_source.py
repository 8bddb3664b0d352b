"""The double that ships: a source in memory."""

from __future__ import annotations

import pytest

from lambda_ext.contracts import SourceContract
from lambda_ext.exceptions import AccessDeniedError, NotFoundError, ThrottledError
from lambda_ext.testing import FakeFlags, FakeSource
from lambda_ext.values.batches import get_parameters_by_path, get_secrets
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Secret


class TestContract(SourceContract):
    """The double is a source like any other."""

    @pytest.fixture
    def source(self):
        """A double with the values of the contract."""
        return FakeSource({"contract/a": "one", "contract/b": "two"})


def test_answers_for_aws_as_long_as_it_is_entered(tmp_path):
    """Leaving it, nothing of it is left."""
    db = Secret("db")
    with FakeSource({"db": "x"}):
        assert "x" == db.value
    with FakeSource({"db": "y"}):
        assert "y" == db.value


@pytest.mark.parametrize("kind", [get_secret, get_parameter])
@pytest.mark.parametrize("id", ["a1b2c3d4-5678-90ab-cdef-EXAMPLE11111", "0" * 31 + "9"])
def test_unknown_version_is_not_found(kind, id):
    """Of any form: AWS's ids are no numbers."""
    with FakeSource({"db": "one"}), pytest.raises(NotFoundError):
        kind("db", version_id=id) if kind is get_secret else kind(f"db:{id[-3:]}")


@pytest.mark.parametrize("value", [{"user": "kim"}, 20, None, ["a"], bytearray(b"a")])
def test_value_that_no_source_holds_is_refused_at_once(value):
    """Where the test is written, not where its handler reads."""
    with pytest.raises(TypeError, match=r"the value of 'db' is text or bytes"):
        FakeSource({"db": value})
    with pytest.raises(TypeError, match=r"json.dumps\(\) or str\(\)"):
        FakeSource().rotate("db", value)
    with pytest.raises(TypeError, match="the name of a value is text, not int"):
        FakeSource({5: "value"})


@pytest.mark.parametrize("error", [ValueError("x"), ThrottledError, None, "busy"])
@pytest.mark.parametrize("double", [FakeSource, FakeFlags])
def test_error_that_no_source_raises_is_refused_at_once(double, error):
    """A class, or an error of boto3."""
    with pytest.raises(TypeError, match=r"takes an error of lambda_ext\.exceptions"):
        double().fail(error)


def test_rotation_moves_the_stages():
    """The new version is current, the one before previous."""
    with FakeSource({"db": "one"}) as source:
        second = source.rotate("db", "two")
        third = source.rotate("db", "three")

        assert "three" == get_secret("db", version_id=third)
        assert "two" == get_secret("db", version_stage="AWSPREVIOUS")
        assert "two" == get_secret("db", version_id=second)
        assert "one" == get_parameter("db:1")
        with pytest.raises(NotFoundError):
            get_secret("db", version_stage="AWSPENDING")


def test_removed_value_is_not_found():
    """As if it had never been."""
    with FakeSource({"db": "one"}) as source:
        source.remove("db")
        with pytest.raises(NotFoundError, match="'db'"):
            get_secret("db")


def test_failures_of_calls_and_of_names():
    """For some times, or until it recovers."""
    with FakeSource({"a": "1", "b": "2"}) as source:
        source.fail(ThrottledError("too many", transient=True), times=2)
        for _ in range(2):
            with pytest.raises(ThrottledError):
                get_secret("a")
        assert "1" == get_secret("a")

        source.fail(AccessDeniedError("no"), name="b")
        with pytest.raises(AccessDeniedError):
            get_secrets(["a", "b"])
        source.recover()
        assert {"a": "1", "b": "2"} == get_secrets(["a", "b"])


def test_path():
    """Names below it, one level or all."""
    with FakeSource({"/a/x": "1", "/a/b/y": "2", "/c": "3"}):
        assert {"/a/x": "1"} == get_parameters_by_path("/a")
        assert 3 == len(get_parameters_by_path("/", recursive=True))


def test_waiting_ends_with_an_error():
    """A test that waits in vain fails instead of hanging."""
    source = FakeSource()
    with pytest.raises(AssertionError, match="0 calls instead of 1"):
        source.wait_for_calls(1, timeout=0.01)
    source.wait_for_answers(timeout=0.01)


def test_repr_shows_no_value():
    """It says how many names it knows."""
    assert "<FakeSource 'fake' with 1 name(s)>" == repr(FakeSource({"db": "x"}))


def test_what_is_missing_is_told_beside_what_is_there():
    """By name, ten at most; a value is in no message."""
    db = Secret("prod/bd")
    with (
        FakeSource({"prod/db": "hunter2"}),
        pytest.raises(
            NotFoundError,
            match=r"no 'prod/bd' in this FakeSource, which has 'prod/db'$",
        ),
    ):
        _ = db.value
    many = {f"n{number}": "x" for number in range(12)}
    with FakeSource(many), pytest.raises(NotFoundError, match=r"'n9' and 2 more$"):
        _ = db.value
    with FakeSource(), pytest.raises(NotFoundError, match=r"which has nothing$"):
        _ = db.value
