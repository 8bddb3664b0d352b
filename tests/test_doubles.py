"""Doubles nest, let no read out of the process, and note what a thaw means."""

from __future__ import annotations

import contextlib
import json
import sys
from types import SimpleNamespace

import pytest

import lambda_ext
from lambda_ext import (
    Configuration,
    Flags,
    Parameter,
    Secret,
    get_parameter,
    get_secret,
    metrics,
)
from lambda_ext.aws.transport import transport
from lambda_ext.exceptions import ConfigurationError, NotFoundError, SourceError
from lambda_ext.lifecycle import clock
from lambda_ext.testing import (
    FakeClock,
    FakeSource,
    MemorySink,
    no_aws,
    simulate_sigterm,
)
from lambda_ext.values.batches import get_parameters_by_path, get_secrets
from lambda_ext.values.sources.aws_extension import AwsExtension


class TestNesting:
    """Leaving a double puts back the one before."""

    def test_sources(self):
        """An inner one ends with the outer one, not with AWS."""
        db = Secret("db")
        with FakeSource({"db": "outer"}) as outer:
            assert "outer" == db.value
            with FakeSource({"db": "inner"}) as inner:
                assert "inner" == db.value
                with outer:
                    assert "outer" == db.value
                assert "inner" == db.value
            assert "outer" == db.value
            assert "outer" == get_secret("db")
        assert 1 == len({inner.scope})

    def test_source_after_an_error(self):
        """A test that fails inside puts it back, too."""
        with FakeSource({"db": "outer"}):
            with contextlib.suppress(ZeroDivisionError), FakeSource({"db": "inner"}):
                raise ZeroDivisionError
            assert "outer" == get_secret("db")

    def test_clocks(self):
        """Time goes on where it was."""
        with FakeClock(wall=100.0) as outer:
            with FakeClock(wall=200.0):
                assert 200.0 == clock.now()
                with outer:
                    assert 100.0 == clock.now()
                assert 200.0 == clock.now()
            outer.advance(1)
            assert 101.0 == clock.now()
        assert clock.now() > 1_000_000_000

    def test_clock_without_a_block(self):
        """install() and uninstall() are a pair; one too many goes to the machine's."""
        outer = FakeClock(wall=100.0).install()
        FakeClock(wall=200.0).install().uninstall()
        assert 100.0 == clock.now()
        outer.uninstall()
        outer.uninstall()
        assert clock.now() > 1_000_000_000

    def test_sinks(self):
        """The inner one collects until it ends."""
        with MemorySink() as outer:
            with MemorySink() as inner, outer:
                metrics.count("n", 1)
            metrics.count("n", 2)

        assert (0, 3) == (inner.total("n"), outer.total("n"))


ASK = {
    "secret": (lambda: get_secret("prod/db"), "'prod/db'"),
    "parameter": (lambda: get_parameter("/limit"), "'/limit'"),
    "secrets": (lambda: get_secrets(["prod/db"]), "'prod/db'"),
    "path": (lambda: get_parameters_by_path("/orders"), "'/orders'"),
    "secret handle": (lambda: Secret("prod/db").value, "'prod/db'"),
    "parameter handle": (lambda: Parameter("/limit").value, "'/limit'"),
}


def boto3_client(service="secretsmanager"):
    """Return a client of boto3 that nothing stands for."""
    import boto3

    return boto3.client(service)


def cached_client(service):
    """Return a client of boto3 whose reads are kept."""
    return lambda_ext.cached(boto3_client(service))


CALLS = {
    "secret": (
        "secretsmanager",
        lambda client: client.get_secret_value(SecretId="prod/db"),
        "secretsmanager GetSecretValue 'prod/db'",
    ),
    "batch": (
        "secretsmanager",
        lambda client: client.batch_get_secret_value(SecretIdList=["a", "b"]),
        "secretsmanager BatchGetSecretValue 'a, b'",
    ),
    "paginator": (
        "ssm",
        lambda client: list(
            client.get_paginator("get_parameters_by_path").paginate(Path="/orders")
        ),
        "ssm GetParametersByPath '/orders'",
    ),
    "write": (
        "secretsmanager",
        lambda client: client.put_secret_value(SecretId="a", SecretString="hidden"),
        "secretsmanager PutSecretValue 'a'",
    ),
    "list": (
        "secretsmanager",
        lambda client: client.list_secrets(),
        "secretsmanager ListSecrets would",
    ),
}


class TestNoAws:
    """A read that would leave the process is an error that names it."""

    @pytest.mark.parametrize("ask", ASK)
    @pytest.mark.parametrize("way", ["auto", "boto3", "light"])
    @pytest.mark.parametrize("region", ["eu-central-1", ""])
    def test_read_is_refused(self, ask, way, region, monkeypatch):
        """For every value, and whether or not AWS could be reached."""
        if region == "":
            monkeypatch.delenv("AWS_DEFAULT_REGION")
            monkeypatch.setitem(__import__("sys").modules, "moto", None)
            monkeypatch.delitem(__import__("sys").modules, "moto")
        read, name = ASK[ask]
        lambda_ext.configure(transport=way)
        with no_aws(), pytest.raises(ConfigurationError, match="outside") as info:
            read()
        assert name in str(info.value)
        assert "no_aws()" in str(info.value)

    def test_handle_with_a_client_is_refused_in_a_fake_source_too(self):
        """It asks its client, which the source does not stand for."""
        db = Secret("prod/db", client=boto3_client())
        with FakeSource({"prod/db": "fake"}):
            with pytest.raises(ConfigurationError, match=r"'prod/db'.*a FakeSource"):
                db.value

    def test_transports_are_refused(self):
        """What reads by other means than handles goes the same two ways."""
        with no_aws():
            for way in ("light", "boto3"):
                lambda_ext.configure(transport=way)
                with pytest.raises(ConfigurationError, match="ssm '/limit'"):
                    transport("ssm").call("GetParameter", {"Name": "/limit"})

    def test_layer_is_refused(self, monkeypatch):
        """AWS's own extension is another process."""
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
        with FakeSource():
            with pytest.raises(ConfigurationError, match="'prod/db'"):
                Secret("prod/db", source=AwsExtension()).value
        lambda_ext.configure(source="aws_extension")
        with no_aws(), pytest.raises(ConfigurationError, match="'prod/db'"):
            get_secret("prod/db")

    def test_stubbed_client_answers(self):
        """botocore's Stubber stays in this process."""
        from botocore.stub import Stubber

        client = boto3_client()
        with Stubber(client) as stubber, no_aws():
            stubber.add_response("get_secret_value", {"SecretString": "stubbed"})
            assert "stubbed" == Secret("prod/db", client=client).value

    def test_moto_answers(self):
        """So does moto."""
        from moto import mock_aws

        with mock_aws():
            client = boto3_client()
            client.create_secret(Name="prod/db", SecretString="mocked")
            with no_aws():
                assert "mocked" == get_secret("prod/db")
                assert "mocked" == Secret("prod/db", client=client).value

    def test_two_mocks_share_nothing(self):
        """Each test has its own ``mock_aws()``, and what is there, and what is not."""
        from moto import mock_aws

        db, limit = Secret("prod/db"), Parameter("/limit")
        for number in ("1", "2", "3"):
            with mock_aws():
                with pytest.raises(NotFoundError):
                    get_secret("later")
                boto3_client().create_secret(Name="prod/db", SecretString=number)
                assert number == db.value == get_secret("prod/db")
                boto3_client().put_secret_value(SecretId="prod/db", SecretString="x")
                assert number == db.value == get_secret("prod/db")
                with pytest.raises(NotFoundError):
                    assert not limit.value
        with mock_aws():
            boto3_client().create_secret(Name="later", SecretString="here")
            assert "here" == get_secret("later")
        with no_aws(), pytest.raises(ConfigurationError):
            assert not Secret("later", client=boto3_client()).value

    @pytest.mark.parametrize("double", [no_aws, FakeSource])
    @pytest.mark.parametrize("make", [lambda_ext.client, cached_client])
    @pytest.mark.parametrize("credentials", [True, False])
    @pytest.mark.parametrize("call", CALLS)
    def test_drop_in_is_refused(self, call, credentials, make, double, monkeypatch):
        """Reads, paginators and writes, before anything asks for credentials."""
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        if not credentials:
            monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        service, ask, named = CALLS[call]
        client = make(service)
        with double(), pytest.raises(ConfigurationError, match="outside") as info:
            ask(client)
        assert named in str(info.value)
        assert "hidden" not in str(info.value)

    def test_advice_is_the_double_for_it(self):
        """Flags have one of their own."""
        flags = Flags("orders", "prod", "features")
        limits = Configuration("orders", "prod", "limits")
        for read in (lambda: flags.enabled("x"), lambda: limits.value):
            with no_aws(), pytest.raises(ConfigurationError, match="into a FakeFlags"):
                read()
        with no_aws(), pytest.raises(ConfigurationError, match="into a FakeSource"):
            get_secret("prod/db")

    def test_light_client_is_refused_without_boto3(self, monkeypatch):
        """The read is the error; boto3, which might ask too, is not loaded for it."""
        monkeypatch.setitem(sys.modules, "boto3", None)
        lambda_ext.configure(transport="light")
        for service, ask, named in (CALLS["secret"], CALLS["batch"]):
            client = lambda_ext.client(service)
            with no_aws(), pytest.raises(ConfigurationError, match="outside") as info:
                ask(client)
            assert named in str(info.value)
            assert "answer it with botocore's Stubber" in str(info.value)

    def test_drop_in_with_an_answer_inside_is_served(self):
        """By Stubber, by moto, and by a handler of botocore's events."""
        from botocore.awsrequest import AWSResponse
        from botocore.stub import Stubber
        from moto import mock_aws

        stubbed, replayed = (cached_client("secretsmanager") for _ in range(2))
        with Stubber(stubbed) as stubber, no_aws():
            stubber.add_response("get_secret_value", {"SecretString": "stubbed"})
            assert "stubbed" == stubbed.get_secret_value(SecretId="a")["SecretString"]
        with mock_aws():
            mocked = cached_client("secretsmanager")
            mocked.create_secret(Name="a", SecretString="mocked")
            with no_aws():
                for client in (mocked, lambda_ext.client("secretsmanager")):
                    response = client.get_secret_value(SecretId="a")
                    assert "mocked" == response["SecretString"]

        def replay(request, **_):
            raw = SimpleNamespace(stream=lambda: iter([b'{"SecretString":"replayed"}']))
            return AWSResponse(request.url, 200, {}, raw)

        replayed.meta.events.register("before-send.secrets-manager", replay)
        with no_aws():
            response = replayed.get_secret_value(SecretId="b")
            assert "replayed" == response["SecretString"]

    @pytest.mark.parametrize("double", [no_aws, FakeSource])
    def test_drop_in_needs_no_region_to_be_refused(self, monkeypatch, double):
        """The error names what was asked, not what boto3 needs to make a client."""
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        client = lambda_ext.client("secretsmanager")

        with double(), pytest.raises(ConfigurationError, match="'prod/db'") as caught:
            client.get_secret_value(SecretId="prod/db")
        assert "answer it with botocore's Stubber or moto" in str(caught.value)

    def test_drop_in_asks_again_afterwards(self, monkeypatch):
        """What was refused inside is not remembered, and nothing stays in the way."""
        from botocore.exceptions import EndpointConnectionError

        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        for make in (cached_client, lambda_ext.client):
            client = make("secretsmanager")
            with no_aws(), pytest.raises(ConfigurationError):
                client.get_secret_value(SecretId="a")
            with pytest.raises(EndpointConnectionError):
                client.get_secret_value(SecretId="a")

    def test_file_answers(self, tmp_path):
        """A file for development is no call."""
        file = tmp_path / "values.json"
        file.write_text(json.dumps({"secrets": {"prod/db": "filed"}}))
        lambda_ext.configure(source=f"file:{file}")
        with no_aws():
            assert "filed" == get_secret("prod/db")

    def test_fake_source_answers_inside_and_outside(self):
        """What it holds is read; what it lacks is not found."""
        with no_aws(), FakeSource({"prod/db": "fake"}):
            assert "fake" == get_secret("prod/db")
        with FakeSource({"prod/db": "fake"}), no_aws():
            assert "fake" == get_secret("prod/db")

    def test_it_ends(self, monkeypatch):
        """A client that was refused asks again afterwards."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        db = Secret("prod/db", client=boto3_client())
        with no_aws(), no_aws():
            with pytest.raises(ConfigurationError):
                db.value
            with pytest.raises(ConfigurationError):
                get_secret("prod/db")
        with pytest.raises(SourceError):
            db.value
        with pytest.raises(SourceError):
            get_secret("prod/db")

    def test_clock_and_sink_forbid_nothing(self, monkeypatch):
        """They stand for no source."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with FakeClock(), MemorySink(), pytest.raises(SourceError):
            get_secret("prod/db")


class TestThaw:
    """What was frozen has aged at the next read."""

    @pytest.mark.parametrize("wall", [1_000.0, 4_000_000_000.0])
    def test_value_that_was_read_before_ages_too(self, wall):
        """Another clock tells nothing of its age: it is read anew, and ages."""
        db = Secret("db")
        with FakeSource({"db": "one"}) as source:
            assert "one" == db.value
            with FakeClock(wall=wall) as clock:
                assert "one" == db.value == get_secret("db")
                source.rotate("db", "two")
                assert "one" == db.value == get_secret("db")
                clock.freeze(3600)
                assert "two" == db.value == get_secret("db")
                source.rotate("db", "three")
                clock.advance(301)
                assert "three" == db.value == get_secret("db")
                source.rotate("db", "four")
            assert "four" == db.value == get_secret("db")

    def test_freeze_is_noted(self):
        """Without another invocation, and in the middle of one."""
        db = Secret("db")
        with FakeClock() as time, FakeSource({"db": "old"}) as source:

            @lambda_ext.handler
            def handler(event, context):
                before = db.value
                if event:
                    source.rotate("db", "new")
                    time.freeze(400)
                return before, db.value, get_secret("db")

            assert ("old", "old", "old") == handler({}, None)
            assert ("old", "new", "new") == handler({"freeze": 1}, None)
            source.rotate("db", "newer")
            time.freeze(400)
            assert ("newer", "newer") == (db.value, get_secret("db"))

    def test_freeze_and_the_invocation_after_it_are_one_change(self):
        """As in Lambda, where the invocation brings the thaw."""
        with FakeClock() as time:
            clock.begin_invocation()
            before = clock.generation
            time.freeze(60)
            clock.begin_invocation()
            assert 1 == clock.generation - before
            clock.begin_invocation()
            assert 2 == clock.generation - before

    def test_shutdown_looks_at_the_clock_first(self):
        """SIGTERM may be what ends a freeze: no invocation has noted it."""

        class Clock:
            run = 1000.0
            time = 1_700_000_000.0

            def monotonic(self):
                return self.run

            def wall(self):
                return self.time

        machine = Clock()
        seen = []
        db = Secret("db")
        clock.install(machine)
        try:
            with FakeSource({"db": "old"}) as source:
                lambda_ext.on_shutdown(lambda: seen.append(db.value))
                lambda_ext.handler(lambda event, context: db.value)({}, None)
                source.rotate("db", "new")
                machine.time += 3600
                simulate_sigterm()
        finally:
            clock.install(None)
        assert ["new"] == seen


def test_dimension_that_is_no_text_is_found():
    """As it was recorded: a number becomes text."""
    with MemorySink() as sink:
        metrics.count("f", shard=0)
        metrics.count("f", 2, shard=1, stage="a")

    assert (1, 2) == (sink.total("f", shard=0), sink.total("f", shard=1))
    assert [2] == sink.values("f", stage="a")
    assert 1 == len(sink.points("f", shard=0))


def test_statistics_are_json_as_a_dictionary():
    """Every part, with the names that it has as an attribute."""
    with FakeSource({"db": "hunter2"}):
        get_secret("db")
        with contextlib.suppress(ConfigurationError):
            cached_client("secretsmanager").get_secret_value(SecretId="db")
        found = lambda_ext.stats().as_dict()

    text = json.dumps(found)
    assert json.loads(text) == found
    assert 2 == found["values"]["loads"]
    assert (
        1
        == found["clients"]["GetSecretValue"]["misses"]
        + (found["clients"]["GetSecretValue"]["passed"])
    )
    assert "none" == found["lifecycle"]["registration"]["state"]
    assert 0 == found["lifecycle"]["phases"]["invoke"]["calls"]
    assert "hunter2" not in text
