"""When are two requests the same request?"""

from __future__ import annotations

import pytest

from lambda_ext.exceptions import ConfigurationError
from lambda_ext.values import keys

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:prod/db-AbCdEf"
PARAMETER_ARN = "arn:aws:ssm:eu-central-1:123456789012:parameter/a/b"


class TestSecret:
    """Keys of secrets."""

    def test_no_version_means_the_current_one(self):
        """Asking for nothing and for AWSCURRENT is the same request."""
        assert keys.secret("s", "db") == keys.secret("s", "db", None, "AWSCURRENT")

    def test_version_id_alone_is_not_bound_to_a_stage(self):
        """An id with AWSCURRENT fails where the id alone does not."""
        one = "0" * 32

        assert keys.secret("s", "db", one) != keys.secret("s", "db", one, "AWSCURRENT")

    @pytest.mark.parametrize(
        "other",
        [
            keys.secret("t", "db"),
            keys.secret("s", "DB"),
            keys.secret("s", "db", "0" * 32),
            keys.secret("s", "db", None, "AWSPREVIOUS"),
            keys.parameter("s", "db"),
        ],
    )
    def test_whatever_changes_the_answer_changes_the_key(self, other):
        """Scope, name, id, stage and operation are in the key."""
        assert keys.secret("s", "db") != other

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("",), "is empty"),
            (("  ",), "is empty"),
            ((None,), "must be text, not NoneType"),
            ((b"db",), "must be text, not bytes"),
            (("x" * 2049,), "1 to 2048 characters"),
            (("db", "short"), "version_id of the secret 'db' must have 32 to 64"),
            (("db", 3), "version_id of the secret 'db' must be text"),
            (("db", None, ""), "version_stage of the secret 'db' is empty"),
        ],
    )
    def test_bad_argument_is_refused(self, arguments, words):
        """What AWS would refuse is refused at once, and says which argument."""
        with pytest.raises(ConfigurationError, match=words):
            keys.secret("s", *arguments)

    def test_label_reads_as_one_would_say_it(self):
        """Messages and log lines name the request, not the whole key."""
        assert "db" == keys.secret("s", "db").label
        assert "db (AWSPREVIOUS)" == keys.secret("s", "db", None, "AWSPREVIOUS").label
        assert "s" not in repr(keys.secret("s", "db").label)


class TestParameter:
    """Keys of parameters."""

    def test_selector_belongs_to_the_request(self):
        """A version is a number, everything else a label."""
        key = keys.parameter("s", "/a/b:3")
        assert ("/a/b", "3", None) == (key.name, key.version, key.stage)

        key = keys.parameter("s", "/a/b:prod")
        assert ("/a/b", None, "prod") == (key.name, key.version, key.stage)

        key = keys.parameter("s", PARAMETER_ARN + ":3")
        assert (PARAMETER_ARN, "3", None) == (key.name, key.version, key.stage)

    def test_leading_zeros_are_the_same_version(self):
        """AWS takes x:01 for x:1."""
        assert keys.parameter("s", "x:01") == keys.parameter("s", "x:1")

    def test_arn_without_selector_has_none(self):
        """The colons of an ARN divide no version from it."""
        key = keys.parameter("s", PARAMETER_ARN)

        assert (PARAMETER_ARN, "") == (key.name, key.selector)

    def test_decryption_changes_the_answer(self):
        """The ciphertext and the plain text are two values."""
        assert keys.parameter("s", "x") != keys.parameter("s", "x", decrypt=False)

    @pytest.mark.parametrize("name", ["x:", ":3", ":", PARAMETER_ARN + ":"])
    def test_colon_that_divides_nothing_is_refused(self, name):
        """AWS refuses it, too, with a ValidationException."""
        with pytest.raises(ConfigurationError, match="name:version"):
            keys.parameter("s", name)


class TestPath:
    """Keys of paths."""

    def test_trailing_slash_changes_nothing(self):
        """A path is the same with and without one."""
        assert keys.path("s", "/a/") == keys.path("s", "/a")
        assert "/" == keys.path("s", "/").name

    def test_recursion_changes_the_answer(self):
        """All levels and one level are two requests."""
        assert keys.path("s", "/a") != keys.path("s", "/a", recursive=True)

    def test_path_begins_with_a_slash(self):
        """AWS refuses it otherwise."""
        with pytest.raises(ConfigurationError, match="begin with a slash"):
            keys.path("s", "a")


class TestConcerns:
    """Which answers a write may change."""

    @pytest.mark.parametrize("asked", ["prod/db", ARN, ARN[:-7]])
    @pytest.mark.parametrize("written", ["prod/db", ARN, ARN[:-7]])
    @pytest.mark.parametrize("stage", [None, "AWSPREVIOUS"])
    def test_secret_in_every_form_and_version(self, asked, written, stage):
        """Name, ARN and partial ARN mean one secret, and all its versions."""
        assert keys.concerns(keys.secret("s", asked, None, stage), written)

    @pytest.mark.parametrize("asked", ["/a/b", "/a/b:3", PARAMETER_ARN])
    @pytest.mark.parametrize("written", ["/a/b", PARAMETER_ARN])
    def test_parameter_in_every_form(self, asked, written):
        """Name and ARN mean one parameter."""
        assert keys.concerns(keys.parameter("s", asked), written)

    @pytest.mark.parametrize(
        ("path", "written", "expected"),
        [
            ("/a", "/a/b", True),
            ("/a", PARAMETER_ARN, True),
            ("/", "/a/b", True),
            ("/a/b", "/a/b", False),
            ("/a/b", "/a/bc", False),
        ],
    )
    def test_path_above_it(self, path, written, expected):
        """What lies below a path changes the path."""
        assert expected == keys.concerns(keys.path("s", path), written)

    def test_reference_to_a_secret(self):
        """A parameter that is a secret changes with it."""
        key = keys.parameter("s", "/aws/reference/secretsmanager/prod/db")

        assert keys.concerns(key, "prod/db")
        assert not keys.concerns(key, "prod/dc")

    def test_similar_names_are_others(self):
        """A prefix is not a name, and six characters of it no suffix of AWS's."""
        assert not keys.concerns(keys.secret("s", "prod/db-backup"), "prod/db")
        assert not keys.concerns(keys.secret("s", "prod/db-abcdef"), "prod/db")


@pytest.mark.parametrize(
    ("arn", "name", "expected"),
    [
        (ARN, ARN, True),
        (ARN, ARN[:-7], True),
        (ARN, "prod/db", True),
        (ARN, "prod/db-AbCdEf", False),
        (ARN, "db", False),
        (ARN, ARN[:-8], False),
    ],
)
def test_is_arn_of(arn, name, expected):
    """A partial ARN is the ARN without AWS's own suffix, nothing shorter."""
    assert expected == keys.is_arn_of(arn, name)
