"""When are two requests the same request?"""

from __future__ import annotations

import enum

import pytest

from lambda_ext.exceptions import ConfigurationError
from lambda_ext.values import aliases, keys

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:prod/db-AbCdEf"
PARAMETER_ARN = "arn:aws:ssm:eu-central-1:123456789012:parameter/a/b"


class TestSecret:
    """Keys of secrets."""

    def test_stage_that_is_given_makes_another_request(self):
        """A policy may allow AWSCURRENT only where the request names it."""
        given = keys.secret("s", "db", None, "AWSCURRENT")

        assert "AWSCURRENT" == given.stage
        assert given != keys.secret("s", "db")

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


class Names(str, enum.Enum):
    """Names as programs like to keep them."""

    DB = "/prod/db"
    STAGE = "AWSPREVIOUS"


def test_member_of_an_enum_is_its_text():
    """What is sent, and what messages say, is the text."""
    made = [
        keys.secret("s", Names.DB, None, Names.STAGE),
        keys.parameter("s", Names.DB),
        keys.path("s", Names.DB),
    ]

    assert ["/prod/db"] * 3 == [str(key.name) for key in made]
    assert "AWSPREVIOUS" == str(made[0].stage)
    assert "/prod/db (AWSPREVIOUS)" == made[0].label


PLACE = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
ABROAD = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:"
SHARED = "arn:aws:ssm:eu-central-1:999999999999:parameter"


class TestPacked:
    """Which requests share a call."""

    @pytest.mark.parametrize(
        ("one", "other", "together"),
        [
            ("a", "b", True),
            ("a", "A", True),
            ("a", "/a", True),
            ("a", PLACE + "a-AbCdEf", False),
            ("a", PLACE + "a", False),
            ("a", ABROAD + "a-AbCdEf", False),
            ("a-AbCdEf", PLACE + "a-AbCdEf", False),  # may be a partial ARN
            ("a-b", PLACE + "a-AbCdEf", True),
            (PLACE + "a", PLACE + "a-AbCdEf", False),
            (PLACE + "a-AbCdEf", ABROAD + "a-AbCdEf", True),
            (PLACE + "a-AbCdEf", PLACE + "b-AbCdEf", True),
            ("a", "a", False),
        ],
    )
    def test_secrets(self, one, other, together):
        """Two that may be one secret go apart, in both orders."""
        for names in ((one, other), (other, one)):
            wanted = [keys.secret("s", name) for name in names]
            expected = [wanted] if together else [[key] for key in wanted]
            assert expected == aliases.packed(wanted, 20)

    @pytest.mark.parametrize(
        ("one", "other", "together"),
        [
            ("/a/b", "/a/c", True),
            ("/a/b", "/a/b:1", False),
            ("/a/b:1", "/a/b:2", False),
            ("/a/b", PARAMETER_ARN, False),
            ("/a/b", PARAMETER_ARN + ":1", False),
            ("/a/b", SHARED + "/a/b", False),
            (PARAMETER_ARN, SHARED + "/a/b", True),
            (PARAMETER_ARN, PARAMETER_ARN + ":1", False),
            ("x", "/x", False),
            ("x", SHARED + "/x", False),
            ("/x", SHARED + "/x", False),
        ],
    )
    def test_parameters(self, one, other, together):
        """Two that may be one parameter go apart, in both orders."""
        for names in ((one, other), (other, one)):
            wanted = [keys.parameter("s", name) for name in names]
            expected = [wanted] if together else [[key] for key in wanted]
            assert expected == aliases.packed(wanted, 10)

    @pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 40, 41])
    def test_runs_are_full(self, count):
        """As few calls as there can be, and every request in one of them."""
        wanted = [keys.secret("s", str(number)) for number in range(count)]
        runs = aliases.packed(wanted, 20)

        assert wanted == [key for run in runs for key in run]
        assert [20] * (count // 20) == [len(run) for run in runs[: count // 20]]
        assert -(-count // 20) == len(runs)

    def test_what_clashes_fills_the_runs_of_others(self):
        """Twenty names and their ARNs are two calls, not twenty-one."""
        wanted = [
            keys.secret("s", name)
            for number in range(20)
            for name in (f"n{number}", f"{PLACE}n{number}-AbCdEf")
        ]

        assert [20, 20] == [len(run) for run in aliases.packed(wanted, 20)]


@pytest.mark.parametrize(
    ("arn", "asked", "name", "expected"),
    [
        (PARAMETER_ARN, "/a/b", "/a/b", True),
        (PARAMETER_ARN, "/a/b", None, True),
        (PARAMETER_ARN, PARAMETER_ARN, "/a/b", True),
        (PARAMETER_ARN, PARAMETER_ARN, None, False),
        (PARAMETER_ARN, SHARED + "/a/b", "/a/b", False),
        (PARAMETER_ARN, "/a/b", "/a/c", False),
        (PARAMETER_ARN, "/b", "/b", False),
        (PARAMETER_ARN, "/c/a/b", "/c/a/b", False),
        (SHARED + "/x", "/x", "/x", False),
        (SHARED + "/x", "x", "x", False),
        (SHARED + "/x", SHARED + "/x", "x", False),
        (SHARED + "/a/b", "a/b", "a/b", False),
        ("", "/a/b", "/a/b", False),
    ],
)
def test_is_arn_of_parameter(arn, asked, name, expected):
    """Only below the root does an ARN tell which parameter it is."""
    assert expected == keys.is_arn_of_parameter(arn, asked, name)


class TestConcerns:
    """Which answers a write may change."""

    @pytest.mark.parametrize("asked", ["prod/db", ARN, ARN[:-7]])
    @pytest.mark.parametrize("written", ["prod/db", ARN, ARN[:-7]])
    @pytest.mark.parametrize("stage", [None, "AWSPREVIOUS"])
    def test_secret_in_every_form_and_version(self, asked, written, stage):
        """Name, ARN and partial ARN mean one secret, and all its versions."""
        assert aliases.concerns(keys.secret("s", asked, None, stage), written)

    @pytest.mark.parametrize("asked", ["/a/b", "/a/b:3", PARAMETER_ARN])
    @pytest.mark.parametrize("written", ["/a/b", PARAMETER_ARN])
    def test_parameter_in_every_form(self, asked, written):
        """Name and ARN mean one parameter."""
        assert aliases.concerns(keys.parameter("s", asked), written)

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
        assert expected == aliases.concerns(keys.path("s", path), written)

    def test_reference_to_a_secret(self):
        """A parameter that is a secret changes with it."""
        key = keys.parameter("s", "/aws/reference/secretsmanager/prod/db")

        assert aliases.concerns(key, "prod/db")
        assert not aliases.concerns(key, "prod/dc")

    def test_similar_names_are_others(self):
        """A prefix is not a name, and six characters of it no suffix of AWS's."""
        assert not aliases.concerns(keys.secret("s", "prod/db-backup"), "prod/db")
        assert not aliases.concerns(keys.secret("s", "prod/db-abcdef"), "prod/db")


@pytest.mark.parametrize(
    ("asked", "former", "version", "expected"),
    [
        ("/a", "2", "1", True),
        ("/a", "1", "2", False),
        ("/a", "2", "2", False),
        ("/a", "10", "9", True),
        ("/a:1", "2", "1", True),
        ("/a:label", "2", "1", False),
        ("/a", "", "1", False),
        ("/a", "2", "", False),
        ("/a", "b", "a", False),
    ],
)
def test_goes_back(asked, former, version, expected):
    """Numbers of a parameter have an order; labels and secrets have none."""
    key = keys.parameter("s", asked)

    assert expected == keys.goes_back(key, former, version)
    assert not keys.goes_back(keys.secret("s", "a"), former, version)


def test_names_that_read_like_parts_of_arns_are_names():
    """A secret may be called "parameter/x", and a parameter "/secret"."""
    for name in ("parameter/x", "secret-AbCdEf"):
        assert aliases.concerns(keys.secret("s", name), name)
        for other in ("x", "/x", "secret"):
            assert not aliases.concerns(keys.secret("s", name), other)
    wanted = [keys.secret("s", name) for name in ("parameter/x", "x", "/x")]
    assert [wanted] == aliases.packed(wanted, 20)
    unknown = "arn:aws:other:eu-central-1:123456789012:secrets/x-AbCdEf"
    assert aliases.concerns(keys.secret("s", unknown), unknown)
    assert not aliases.concerns(keys.secret("s", unknown), "x")
    assert not aliases.concerns(keys.secret("s", unknown), "x-AbCdEf")


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
