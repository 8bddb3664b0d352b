"""What went wrong in five other libraries, one test each, named after it.

The story is in the docstring: what the library did, then (after the colon)
what this one must do.  Bugs of decorators are in test_injection.py and
test_rotation.py, bugs of writes in the tests of the drop-in client.
"""

from __future__ import annotations

import builtins
import os
import threading
import time as machine_time
from types import SimpleNamespace

import pytest
from aws_model import Parameters, Secrets
from helpers import eventually, run_threads

from lambda_ext import config
from lambda_ext.exceptions import (
    AccessDeniedError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
    ThrottledError,
)
from lambda_ext.lifecycle import clock
from lambda_ext.testing import FakeSource
from lambda_ext.values import store
from lambda_ext.values.batches import (
    get_parameters,
    get_parameters_by_path,
    get_secrets,
)
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.sources import parameter_store, secrets_manager


@pytest.fixture
def secrets(monkeypatch):
    """Secrets Manager, as the library sees it."""
    way = Secrets({"db": ["previous", "current"], "db-backup": "backup", "s": "x"})
    monkeypatch.setattr(secrets_manager, "transport", lambda *a, **k: way)
    return way


@pytest.fixture
def parameters(monkeypatch):
    """Parameter Store, as the library sees it."""
    way = Parameters(
        {"/p": ["one", "two"], "/q": "q", "/d/x": "1", "/d/e/y": "2"},
        labels={"stable": 1},
    )
    way.secure = {"/p"}
    monkeypatch.setattr(parameter_store, "transport", lambda *a, **k: way)
    return way


class TestPowertools:
    """aws_lambda_powertools 3.37.0, parameters."""

    def test_key_ignores_version_stage(self, secrets):
        """Asked for AWSPREVIOUS after AWSCURRENT it returned the current value."""
        assert "current" == get_secret("db")
        assert "previous" == get_secret("db", version_stage="AWSPREVIOUS")
        assert "previous" == get_secret("db", version_id=secrets.version_id("db", 1))
        assert "current" == get_secret("db")

    def test_key_ignores_decrypt(self, parameters):
        """Asked for the plain text after the ciphertext it returned that."""
        assert "cipher:two" == get_parameter("/p", decrypt=False)
        assert "two" == get_parameter("/p", decrypt=True)

    def test_key_ignores_recursive(self, parameters):
        """Asked for all levels after one level it returned the one."""
        assert {"/d/x": "1"} == get_parameters_by_path("/d", recursive=False)
        assert 2 == len(get_parameters_by_path("/d", recursive=True))

    def test_twenty_threads_make_twenty_calls(self, source):
        """Nothing kept threads from loading the same value at the same time."""
        source.hold()

        def release():
            assert eventually(lambda: store.loader.misses == 20)
            source.release()

        releasing = threading.Thread(target=release)
        releasing.start()
        run_threads(20, lambda _: get_secret("db"))
        releasing.join()

        assert 1 == len(source.calls)

    @pytest.mark.logs
    def test_throttling_after_expiry_raises(self, source, time):
        """One throttled call after five minutes was an error for the user."""
        get_secret("db")
        source.fail(ThrottledError("too many", transient=True))
        time.advance(301)

        assert "one" == get_secret("db")

    def test_age_is_counted_on_the_local_wall_clock(self, source, time):
        """A clock set back kept values alive, summer time made them expire."""
        get_secret("db")
        source.rotate("db", "two")
        time.step(-3600)
        time.advance(300)

        assert "two" == get_secret("db")

    def test_expired_entries_are_never_evicted(self, source):
        """Names that are asked for once stayed in memory for ever."""
        config.configure(cache_size=10)
        for number in range(100):
            source.rotate(f"n{number}", "x")
            get_secret(f"n{number}")

        assert 10 == store.snapshot().entries

    def test_cause_of_an_error_is_dropped(self, secrets):
        """Throttled, missing and denied differed by the text of a message."""
        secrets.denied_names = {"s"}
        with pytest.raises(AccessDeniedError) as raised:
            get_secret("s")
        assert ("AccessDeniedException", "s", "secrets_manager", False) == (
            raised.value.code,
            raised.value.key,
            raised.value.source,
            raised.value.transient,
        )
        with pytest.raises(NotFoundError):
            get_secret("nope")
        secrets.failures = [secrets.error("ThrottlingException")]
        with pytest.raises(ThrottledError):
            get_secret("db")

    def test_cached_dictionary_is_handed_out_by_reference(self, source):
        """A caller that changed its dictionary changed that of all callers."""
        source.rotate("db", '{"a": {"b": 1}}')
        get_secret("db", "json")["a"]["b"] = 2
        Secret("db", transform="json").value["a"]["b"] = 3

        assert {"a": {"b": 1}} == get_secret("db", "json")

    def test_batch_and_single_reads_do_not_share(self, parameters):
        """A value that came in a batch was fetched again by itself."""
        assert {"/p": "two", "/q": "q"} == get_parameters(["/p", "/q"])
        assert ("two", "q") == (get_parameter("/p"), get_parameter("/q"))
        get_parameters(["/q", "/p"])

        assert 1 == len(parameters.calls)

    def test_refused_key_in_a_batch_returns_nothing_and_raises_nothing(
        self, parameters
    ):
        """With raise_on_error it returned {} when KMS refused."""
        parameters.failures = [parameters.error("InvalidKeyId") for _ in range(3)]
        with pytest.raises(AccessDeniedError, match="InvalidKeyId"):
            get_parameters(["/p", "/q"])

    def test_version_in_a_batch_is_a_key_error(self, parameters):
        """AWS answers `name:3` under `name`, which it did not expect."""
        names = ["/p:1", "/p:stable", "/q"]

        assert dict(zip(names, ["one", "one", "q"], strict=True)) == get_parameters(
            names
        )

    def test_callers_arguments_are_changed(self, parameters):
        """It wrote its defaults into the dictionaries it was given."""
        names = ["/p", "/q", "/p"]
        get_parameters(names)

        assert ["/p", "/q", "/p"] == names

    def test_secure_strings_are_decrypted_one_by_one(self, parameters):
        """Decrypting some meant one call in series for each."""
        get_parameters(["/p", "/q", "/d/x"])

        assert ["GetParameters"] == parameters.operations

    def test_names_are_prefixes(self, secrets):
        """Asked for db it fetched, decrypted and returned db-backup as well."""
        assert {"db": "current", "s": "x"} == get_secrets(["db", "s"])
        assert {"SecretIdList": ["db", "s"]} == secrets.calls[0][1]

    def test_denied_secrets_go_missing_from_a_batch(self, secrets):
        """It did not look at `Errors`, so they were simply not there."""
        secrets.denied_names = {"s"}
        with pytest.raises(AccessDeniedError, match="'s'"):
            get_secrets(["db", "s"])
        assert "current" == get_secret("db")

    def test_more_than_ten_names_break(self, secrets):
        """A filter takes ten values."""
        secrets.secrets.update({f"n{number}": ["x"] for number in range(45)})
        names = [f"n{number}" for number in range(45)]

        assert dict.fromkeys(names, "x") == get_secrets(names)
        assert 3 == len(secrets.calls)

    def test_arns_are_not_found_in_a_batch(self, secrets):
        """A filter by name does not take an ARN."""
        arn = secrets.arn("s")

        assert {"db": "current", arn: "x"} == get_secrets(["db", arn])

    def test_only_the_last_chunk_is_returned(self, parameters):
        """For a while a batch of more than ten lost all but its end."""
        parameters.parameters.update({f"/n/{n}": [str(n)] for n in range(25)})
        names = [f"/n/{number}" for number in range(25)]

        assert {name: name[3:] for name in names} == get_parameters(names)

    def test_force_fetch_does_not_reach_the_batch(self, parameters):
        """The batch had no force_fetch, or took it for something else."""
        get_parameters(["/p", "/q"])
        parameters.parameters["/q"] = ["new"]
        assert {"/p": "two", "/q": "new"} == get_parameters(
            ["/p", "/q"], force_fetch=True
        )
        assert "new" == get_parameter("/q")

    def test_time_outs_outlast_the_function(self, source):
        """A call could wait for 60 s in a function of 3 s."""
        told = []
        fetch = source.fetch
        source.fetch = lambda keys, left: (told.append(left), fetch(keys, left))[1]
        clock.begin_invocation(3.0)
        get_secret("db")
        clock.begin_invocation(0.05)
        with pytest.raises(SourceTimeoutError):
            get_secret("other")

        assert [pytest.approx(2.9)] == told
        assert 1 == len(source.calls)

    def test_clearing_caches_rebuilds_clients(self, secrets):
        """It dropped the clients with the values: 159 ms for the next call."""
        get_secret("db")
        before = store.source_of("GetSecretValue")
        store.loader.clear()
        get_secret("db")

        assert before is store.source_of("GetSecretValue")


class TestSecretsManagerCaching:
    """aws_secretsmanager_caching 1.2.0."""

    def test_cold_read_is_two_calls(self, secrets):
        """It described each secret before it got it, and at each refresh."""
        get_secret("db")
        get_secret("db", force_fetch=True)

        assert ["GetSecretValue"] * 2 == secrets.operations

    def test_forced_refresh_sleeps_for_seconds(self, source, monkeypatch):
        """refresh_secret_now slept 2.5 to 10 s."""
        slept = []
        monkeypatch.setattr(machine_time, "sleep", slept.append)
        get_secret("db")
        get_secret("db", force_fetch=True)

        assert [] == slept

    def test_readers_stall_behind_a_refresh(self, source, time):
        """Its lock was held over the network call."""
        db = Secret("db")
        db.value
        source.hold()
        thread = threading.Thread(target=lambda: get_secret("db", force_fetch=True))
        thread.start()
        source.wait_for_calls(2)

        assert ("one", "one") == (db.value, get_secret("db"))
        source.release()
        thread.join()

    @pytest.mark.parametrize(
        "error",
        [
            AccessDeniedError("no", code="AccessDeniedException"),
            SourceError("marked for deletion", code="InvalidRequestException"),
        ],
    )
    def test_revoked_secret_goes_on_working(self, source, time, error):
        """Any failure after a success served the old value: no log, no end."""
        get_secret("db")
        source.fail(error)
        time.advance(300)
        with pytest.raises(type(error)):
            get_secret("db")

    @pytest.mark.logs
    def test_stale_value_has_no_end(self, source, time, caplog):
        """An outage of days went unnoticed, with credentials of days ago."""
        get_secret("db")
        source.fail(ThrottledError("too many", transient=True))
        time.advance(301)
        assert "one" == get_secret("db")
        assert "lambda_ext.stale_served" in caplog.text

        time.advance(3600)
        with pytest.raises(ThrottledError):
            get_secret("db")

    def test_exception_is_remembered_and_raised_again(self, source):
        """The same exception object, for up to an hour, for every kind of error."""
        source.fail(AccessDeniedError("no"), times=1)
        with pytest.raises(AccessDeniedError):
            get_secret("db")

        assert "one" == get_secret("db")

    def test_no_room_is_an_attribute_error(self, source):
        """With max_cache_size=0 put then get returned None."""
        config.configure(cache_size=0)

        assert "one" == get_secret("db")

    def test_fractions_of_seconds_are_a_value_error(self, source):
        """A float as interval did not work."""
        assert "one" == get_secret("db", max_age=0.5)
        assert "one" == Secret("db", max_age=1.5).value


class TestSsmCache:
    """ssm-cache 3.0.0."""

    def test_group_of_two_is_two_calls(self, parameters, time):
        """A grouped parameter refreshed the group, and then itself again."""
        handles = [Parameter("/p"), Parameter("/q")]
        assert ["two", "q"] == [handle.value for handle in handles]
        assert 1 == len(parameters.calls)

    def test_arn_is_a_value_error(self, parameters):
        """A parameter could not be named by its ARN."""
        assert "q" == get_parameter(parameters.arn("/q"))

    def test_label_is_an_invalid_version(self, parameters):
        """Only numbers were taken after the colon."""
        assert "one" == get_parameter("/p:stable")

    def test_no_age_means_for_ever(self, source, time):
        """max_age None and 0 both meant: never again."""
        assert "one" == get_secret("db", max_age=0)
        source.rotate("db", "two")
        assert "two" == get_secret("db", max_age=0)


class TestLambdaCache:
    """lambda-cache 0.8.1."""

    def test_key_is_the_text_after_the_last_slash(self, secrets, parameters):
        """/dev/password, /prod/password and the secret prod/password were one."""
        parameters.parameters.update({"/dev/pw": ["dev"], "/prod/pw": ["prod"]})
        secrets.secrets["prod/pw"] = ["secret"]

        assert ("dev", "prod", "secret") == (
            get_parameter("/dev/pw"),
            get_parameter("/prod/pw"),
            get_secret("prod/pw"),
        )

    def test_each_miss_makes_a_client(self, monkeypatch):
        """A new client for each value that was not in memory."""
        made = []
        way = Secrets({"a": "1", "b": "2"})
        monkeypatch.setattr(
            secrets_manager, "transport", lambda *a, **k: made.append(1) or way
        )
        get_secret("a")
        get_secret("b")

        assert [1] == made

    def test_invalid_names_are_dropped(self, parameters):
        """A parameter that does not exist was simply not in the result."""
        with pytest.raises(NotFoundError, match="'/nope'"):
            get_parameters(["/p", "/nope"])


class TestSecretsCache:
    """secrets-cache 0.3.2."""

    def test_values_are_written_to_the_disk(self, source, monkeypatch):
        """In clear text, to a file in the home directory."""
        opened = []
        real = builtins.open
        monkeypatch.setattr(
            builtins, "open", lambda *a, **k: opened.append(a) or real(*a, **k)
        )
        descriptors = set(os.listdir("/proc/self/fd"))
        get_secret("db")

        assert [] == opened
        assert descriptors == set(os.listdir("/proc/self/fd"))

    def test_errors_are_printed_and_none_is_returned(self, source, capsys):
        """The caller went on with None; only the log told of the error."""
        with pytest.raises(NotFoundError):
            get_secret("nope")
        assert ("", "") == capsys.readouterr()

    def test_region_is_not_in_the_key(self):
        """The value of one region was returned for another."""
        here, there = FakeSource({"db": "here"}), FakeSource({"db": "there"})

        assert "here" == Secret("db", source=here).value
        assert "there" == Secret("db", source=there).value

    def test_credentials_are_not_in_the_key(self, monkeypatch):
        """Two roles of one account shared what only one of them may read."""
        ways = {
            identity: Secrets({"db": identity}, identity=identity)
            for identity in ("one", "two")
        }
        monkeypatch.setattr(
            secrets_manager,
            "transport",
            lambda service, client, session: ways[client.meta],
        )

        assert ("one", "two", "one") == tuple(
            Secret(
                "db", client=SimpleNamespace(meta=identity, get_secret_value=print)
            ).value
            for identity in ("one", "two", "one")
        )


class TestMiddy:
    """middy 7.8.0, in another language, with the same traps."""

    def test_false_values_are_fetched_again(self, secrets, parameters):
        """`if (cached)` took an empty value for none."""
        parameters.parameters["/empty"] = [""]
        secrets.secrets["null"] = ["null"]
        for _ in range(3):
            assert "" == get_parameter("/empty")
            assert get_secret("null", "json") is None
        assert 1 == len(parameters.calls)
        assert 1 == len(secrets.calls)

    def test_failed_refresh_replaces_the_good_value(self, source, time):
        """The rejected promise took the place of the value."""
        db = Secret("db")
        db.value
        source.fail(ThrottledError("too many", transient=True))
        with pytest.raises(ThrottledError):
            get_secret("db", force_fetch=True)

        assert "one" == db.value

    def test_one_expiry_fetches_everything_again(self, source, time):
        """The soonest expiry of a middleware was that of all its values."""
        source.rotate("long", "x")
        short, long = Secret("db", max_age=10), Secret("long", max_age=1000)
        short.value, long.value
        time.advance(10)
        short.value, long.value

        assert ("db",) == source.calls[-1]

    def test_long_age_is_taken_for_a_date(self, source, time):
        """More than 24 hours was read as a time stamp."""
        week = Secret("db", max_age=7 * 86400)
        week.value
        time.advance(5 * 86400)
        week.value

        assert 1 == len(source.calls)

    def test_binary_secrets_and_versions_are_ignored(self, secrets):
        """Only the current SecretString was ever read."""
        secrets.secrets["key"] = [b"old", b"new"]

        assert b"new" == get_secret("key", "binary")
        assert b"old" == get_secret("key", "binary", version_stage="AWSPREVIOUS")
