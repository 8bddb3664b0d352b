"""Values by name: arguments, copies, hits, and what a bad call is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lambda_ext import config
from lambda_ext.exceptions import ConfigurationError, DecodeError, NotFoundError
from lambda_ext.values import keys, store
from lambda_ext.values.batches import (
    get_parameters,
    get_parameters_by_path,
    get_secrets,
)
from lambda_ext.values.getters import get_parameter, get_secret

VALUES = {
    "db": '{"user": "me", "tags": ["a"]}',
    "port": "5432",
    "key": b"\x00",
    "/a/x": "1",
    "/a/y": "2",
    "/a/deep/z": "3",
}


class TestOne:
    """get_secret and get_parameter."""

    def test_arguments_by_position_and_by_keyword(self, source):
        """The order is Powertools', so that moving over changes an import."""
        assert {"user": "me", "tags": ["a"]} == get_secret("db", "json")
        assert {"user": "me", "tags": ["a"]} == get_secret("db", "json", True)
        assert 5432 == get_parameter("port", int, False, 60)
        assert 5432 == get_parameter(name="port", transform=int)
        assert "me" == get_secret("db", field="user")

    def test_each_way_to_read_it_is_one_request(self, source):
        """Transform, field and age make views of one entry."""
        get_secret("db")
        get_secret("db", "json")
        get_secret("db", field="user")
        get_secret("db", str.upper)
        get_secret("db", max_age=60)
        get_secret("db", max_age=timedelta(minutes=1))

        assert [("db",)] == source.calls

    def test_age_of_a_call_is_as_cheap_as_the_option(self, source, time):
        """A call with its own max_age is answered by the index of hits for that long."""
        get_secret("db", max_age=60)
        looked = store.loader.get
        store.loader.get = None  # a reader that gets there has not hit
        try:
            get_secret("db", max_age=60)
        finally:
            store.loader.get = looked
        source.rotate("db", "new")
        time.advance(60)

        assert "new" == get_secret("db", max_age=60)

    def test_transform_is_applied_once_per_version(self, source, time):
        """A load that brings what is known already transforms nothing."""
        made = []

        def make(raw):
            made.append(raw)
            return object()

        first = get_secret("port", make)
        time.advance(300)
        assert first is get_secret("port", make)
        assert 2 == len(source.calls)

        source.rotate("port", "5433")
        time.advance(300)
        assert first is not get_secret("port", make)
        assert ["5432", "5433"] == made

    def test_transforms_are_remembered_up_to_a_bound(self, source):
        """Each is applied once; of too many, those not used for longest go."""
        calls = []

        def numbered(number):
            return lambda text: calls.append(number) or int(text)

        transforms = [numbered(number) for number in range(store.MAX_DECODED + 8)]
        for transform in transforms:
            assert 5432 == get_parameter("port", transform)
        store.cache.expire_views()
        for transform in transforms[-store.MAX_DECODED :]:
            assert 5432 == get_parameter("port", transform)
        assert list(range(len(transforms))) == calls

        assert 5432 == get_parameter("port", transforms[0])
        assert [*range(len(transforms)), 0] == calls
        (slot,) = store.cache.slots.values()
        assert store.MAX_DECODED == len(slot.entry.decoded)

    def test_copies_are_the_callers(self, source):
        """Also those of a hit."""
        for _ in range(3):
            document = get_secret("db", "json")
            assert {"user": "me", "tags": ["a"]} == document
            document["tags"].append("b")

    def test_secret_and_parameter_of_one_name_are_two(self, source):
        """The two services share no entry."""
        get_secret("port")
        get_parameter("port")

        assert 2 == len(source.calls)

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda: get_secret(""), "name of a secret is empty"),
            (lambda: get_secret(["db"]), "must be text, not list"),
            (lambda: get_secret("db", "yaml"), "transform='yaml' of 'db'"),
            (lambda: get_secret("db", max_age=-1), "max_age of 'db'"),
            (lambda: get_secret("db", max_age="1"), None),
            (lambda: get_secret("db", field=""), "field of 'db'"),
            (lambda: get_parameter("x:"), "divides nothing"),
            (lambda: get_parameter("x", decrypt="maybe"), "decrypt of 'x'"),
            (lambda: get_parameters(["x"], decrypt=3), "decrypt of 'get_parameters'"),
            (lambda: get_parameters_by_path("/x", "maybe"), "recursive of '/x'"),
            (lambda: get_secrets([["db"]]), "takes names, which are text, not list"),
            (lambda: get_parameters_by_path("a"), "begin with a slash"),
            (lambda: get_secrets("db"), "several names, as a list, not str"),
            (lambda: get_secrets(3), "several names, as a list, not int"),
            (lambda: get_parameters(b"x"), "several names"),
            (lambda: get_parameters("/app"), r"not str; get_parameters_by_path\(\)"),
            (lambda: get_secrets(["db", ""]), "is empty"),
            (lambda: get_secrets(["db"], "yaml"), "transform='yaml'"),
            (lambda: get_secrets(["db"], max_age=-1), "max_age of 'db'"),
        ],
    )
    def test_bad_argument_is_refused_before_anything_is_asked(
        self, source, call, words
    ):
        """A specific error names the key and what to change."""
        if words is None:
            call()  # a number in a text is a number
            return
        with pytest.raises(ConfigurationError, match=words):
            call()
        assert [] == source.calls


class TestMany:
    """get_secrets, get_parameters and get_parameters_by_path."""

    def test_order_is_the_callers(self, source):
        """The dictionary has the names in the order of the request."""
        assert ["port", "db"] == list(get_secrets(["port", "db", "port"]))
        assert [("port", "db")] == source.calls

    def test_nothing_is_nothing(self, source):
        """No names, no call."""
        assert {} == get_secrets([]) == get_parameters(iter(()))
        assert [] == source.calls

    def test_only_what_is_missing_is_asked_for(self, source):
        """What is fresh comes from memory."""
        get_secret("db")
        get_secrets(["db", "port"])

        assert [("db",), ("port",)] == source.calls

    def test_first_error_in_order_is_raised(self, source):
        """And the others are in memory all the same."""
        with pytest.raises(NotFoundError, match="'no-1'"):
            get_secrets(["db", "no-1", "no-2"])
        get_secret("db")

        assert 1 == len(source.calls)

    def test_transform_and_field_apply_to_each(self, source):
        """An error names the one that does not suit."""
        assert {"port": 5432} == get_secrets(["port"], int)
        assert {"db": "me"} == get_secrets(["db"], field="user")
        with pytest.raises(DecodeError, match="'key'"):
            get_secrets(["db", "key"])

    def test_path_is_a_hit(self, source):
        """A path is as cheap as a name once it is in memory."""
        assert {"/a/x": 1, "/a/y": 2} == get_parameters_by_path("/a", transform=int)
        hits = store.snapshot().hits
        for _ in range(3):
            found = get_parameters_by_path("/a", transform=int)
            found.clear()

        assert {"/a/x": 1, "/a/y": 2} == get_parameters_by_path("/a", transform=int)
        assert hits + 4 == store.snapshot().hits
        assert 1 == len(source.calls)

    def test_path_with_a_transform_that_cannot_be_hashed(self, source):
        """It is applied at each call."""

        class Length(list):
            def __call__(self, raw):
                return len(raw)

        assert {"/a/x": 1, "/a/y": 1} == get_parameters_by_path(
            "/a", transform=Length()
        )
        assert 3 == len(get_parameters_by_path("/a", recursive=True))

    def test_path_is_forced_and_ages(self, source, time):
        """force_fetch, max_age=0 and age are those of a name."""
        get_parameters_by_path("/a")
        get_parameters_by_path("/a", force_fetch=True)
        get_parameters_by_path("/a", max_age=0)
        time.advance(300)
        get_parameters_by_path("/a")

        assert 4 == len(source.calls)


class TestInvalidate:
    """What a write by name leaves in memory."""

    def test_every_form_and_version_of_it(self, source):
        """Names, ARNs, stages; nothing of another name."""
        arn = source.arn("db")
        readers = {
            "name": lambda: get_secret("db"),
            "arn": lambda: get_secret(arn),
            "stage": lambda: get_secret("db", version_stage="AWSCURRENT"),
            "other": lambda: get_secret("port"),
        }
        for read in readers.values():
            read()
        source.rotate("db", "new")

        assert 3 == store.invalidate("db", keys.SECRET)
        assert ["new", "new", "new", "5432"] == [read() for read in readers.values()]

    def test_of_another_scope_stays(self, source):
        """A write to one account says nothing of another's."""
        get_secret("db")

        assert 0 == store.invalidate("db", keys.SECRET, scope="elsewhere")
        assert 1 == store.invalidate("db", keys.SECRET, scope=source.scope)

    def test_parameter_takes_paths_along(self, source):
        """And no secret of the same name."""
        get_parameters_by_path("/a")
        get_parameter("/a/x")
        get_secret("/a/x")

        assert 2 == store.invalidate("/a/x", keys.PARAMETER)
        assert 1 == store.snapshot().entries

    def test_reference_to_a_secret_goes_with_the_secret(self, source):
        """A parameter may be a secret."""
        source.rotate("/aws/reference/secretsmanager/db", "x")
        get_parameter("/aws/reference/secretsmanager/db")

        assert 1 == store.invalidate("db", keys.SECRET)


def test_no_region_is_said_with_what_to_set(monkeypatch):
    """The first read of a program without a region says which variable."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for way in ("auto", "boto3"):
        config.configure(transport=way)
        with pytest.raises(ConfigurationError, match="set AWS_REGION"):
            get_secret("db")


def test_no_credentials_is_said_with_what_to_set(monkeypatch):
    """The first read of a program without credentials says which variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    for way in ("auto", "boto3"):
        config.configure(transport=way)
        with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
            get_secret("db")
