"""What an answer of AWS must be, and whose it is."""

from __future__ import annotations

import pytest

from lambda_ext.values import keys
from lambda_ext.values.sources import answers

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db-AbCdEf"
PARAMETER_ARN = "arn:aws:ssm:eu-central-1:123456789012:parameter/a/b"


def forms(value):
    """Return the names of a value."""
    return value["ARN"], value["ARN"][:-7], value["Name"]


def entry(arn, name, **more):
    """Return a value of a batch."""
    return {"ARN": arn, "Name": name, **more}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "it has no value"),
        ({"SecretString": None, "SecretBinary": None}, "it has no value"),
        ({"SecretString": 5}, "neither text nor bytes"),
        ({"SecretString": 5, "SecretBinary": b"x"}, "neither text nor bytes"),
        ({"SecretBinary": "x"}, "neither text nor bytes"),
        ({"SecretString": "x", "VersionId": 5}, "version or its ARN is not text"),
        ({"SecretString": "x", "ARN": [1]}, "version or its ARN is not text"),
    ],
)
def test_secret_that_is_none(document, words):
    """The error says what is wrong, and quotes nothing."""
    error = answers.secret(document, keys.secret("s", "db"))

    assert str(error).startswith("secret 'db': the answer could not be read: it")
    assert str(error).endswith(words)
    assert error.transient


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"SecretString": ""}, ""),
        ({"SecretBinary": b""}, b""),
        ({"SecretString": None, "SecretBinary": bytearray(b"x")}, b"x"),
        ({"SecretString": "text", "SecretBinary": b"x"}, "text"),
        ({"SecretString": "x", "VersionId": None, "ARN": None}, "x"),
    ],
)
def test_secret_that_is_one(document, expected):
    """Text comes before bytes, and an empty value is one."""
    answer = answers.secret(document, keys.secret("s", "db"))

    assert (expected, type(expected)) == (answer.value, type(answer.value))
    assert ("", "") == (answer.version, answer.arn)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("db", ARN), (ARN, ARN), (ARN[:-7], ARN), ("other", ""), (ARN[:-8], "")],
)
def test_arn_of_a_secret_is_passed_on_where_it_belongs(name, expected):
    """Names with one ARN share what is remembered."""
    document = {"SecretString": "x", "ARN": ARN, "VersionId": "7"}
    answer = answers.secret(document, keys.secret("s", name))

    assert (expected, "7") == (answer.arn, answer.version)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ({}, "it has no value"),
        ({"Value": 5}, "its value is not text"),
        ({"Value": b"x"}, "its value is not text"),
        ({"Value": "x", "Version": [1]}, "its version is not a number"),
        ({"Value": "x", "Version": True}, "its version is not a number"),
        ({"Value": "x", "Version": 1.5}, "its version is not a number"),
        ({"Value": "x", "ARN": 5}, "its ARN is not text"),
    ],
)
def test_parameter_that_is_none(document, words):
    """The error says what is wrong, and quotes nothing."""
    error = answers.parameter(document, keys.parameter("s", "/a"))

    assert str(error).startswith("parameter '/a': the answer could not be read: it")
    assert str(error).endswith(words)
    assert error.transient


@pytest.mark.parametrize(
    ("version", "expected"), [(3, "3"), ("3", "3"), (None, ""), (0, "")]
)
def test_parameter_that_is_one(version, expected):
    """A version is a number or its digits."""
    document = {"Value": "", "Version": version}
    answer = answers.parameter(document, keys.parameter("s", "/a"))

    assert ("", expected, "") == (answer.value, answer.version, answer.arn)


@pytest.mark.parametrize(
    ("asked", "name", "expected"),
    [
        ("/a/b", "/a/b", PARAMETER_ARN),
        (PARAMETER_ARN, "/a/b", PARAMETER_ARN),
        ("/a/c", "/a/c", ""),
        (PARAMETER_ARN, "/a/c", ""),
    ],
)
def test_arn_of_a_parameter_is_passed_on_where_it_belongs(asked, name, expected):
    """Names with one ARN share what is remembered."""
    document = {"Value": "x", "ARN": PARAMETER_ARN, "Name": name}

    assert expected == answers.parameter(document, keys.parameter("s", asked)).arn


class TestMatched:
    """An entry goes to the one request that may have brought it."""

    def test_names_and_arns(self):
        """Each by the form in which it was asked for."""
        wanted = [keys.secret("s", name) for name in ("db", "x" + ARN[:-7], "nothing")]
        values = [entry(ARN, "db"), entry("x" + ARN, "other")]

        assert dict(zip(wanted[:2], values, strict=True)) == answers.matched(
            wanted, values, forms
        )

    def test_entry_that_two_may_have_brought_goes_to_none(self):
        """A name and a partial ARN of one secret, or of two."""
        wanted = [keys.secret("s", name) for name in ("db", ARN[:-7])]

        assert {} == answers.matched(wanted, [entry(ARN, "db")], forms)

    def test_exact_arn_comes_first(self):
        """It cannot be another one's, and the name beside it is left open."""
        wanted = [keys.secret("s", name) for name in ("db", ARN)]
        value = entry(ARN, "db")

        assert {wanted[1]: value} == answers.matched(wanted, [value], forms)

    def test_two_entries_for_one_name_are_none(self):
        """Which of them was meant only AWS knows."""
        wanted = [keys.secret("s", "db")]
        values = [entry(ARN, "db"), entry("x" + ARN, "db")]

        assert {} == answers.matched(wanted, values, forms)

    def test_exact_arn_comes_before_what_it_may_be_a_part_of(self):
        """An ARN may look like the partial ARN of another secret."""
        longer = ARN + "-ZZZZZZ"
        wanted = [keys.secret("s", ARN)]
        values = [entry(longer, "db-AbCdEf"), entry(ARN, "db")]

        for found in (values, values[::-1]):
            assert {wanted[0]: values[1]} == answers.matched(wanted, found, forms)

    def test_arn_in_two_versions_is_not_exact(self):
        """Where nothing says which version an entry is, neither gets it."""
        wanted = [keys.parameter("s", PARAMETER_ARN + tail) for tail in (":a", ":b")]
        value = entry(PARAMETER_ARN, "/a/b")

        assert {} == answers.matched(wanted, [value], forms)
        assert {wanted[1]: value} == answers.matched(
            wanted, [value], forms, lambda value, key: key.stage == "b"
        )

    def test_twin_entries_of_an_exact_arn(self):
        """The first is as good as the second."""
        wanted = [keys.secret("s", ARN)]
        values = [entry(ARN, "db", at=1), entry(ARN, "db", at=2)]

        assert {wanted[0]: values[0]} == answers.matched(wanted, values, forms)


class TestEntries:
    """An array of objects with names, or an error that may pass."""

    @pytest.mark.parametrize(
        "found", [[], [{}], [{"Name": None, "ARN": "x"}], [{"Name": "x", "ARN": None}]]
    )
    def test_what_is_one(self, found):
        """Names need not be there."""
        document = {"Values": found}

        assert found == answers.entries(document, "Values", "ssm", "a, b")
        assert [] == answers.entries({}, "Values", "ssm", "a, b")

    @pytest.mark.parametrize(
        "document",
        [
            None, [], {"Values": 5}, {"Values": {}}, {"Values": [1]},
            {"Values": [{}, 1]}, {"Values": [{"Name": 5}]}, {"Values": [{"ARN": 5}]},
        ],
    )  # fmt: skip
    def test_what_is_none(self, document):
        """The error names what was asked for, and quotes nothing."""
        with pytest.raises(
            answers.errors.SourceError, match="Values is no array"
        ) as error:
            answers.entries(document, "Values", "ssm", "a, b")

        assert error.value.transient
