"""AppConfig's data plane as it is played: what clients of AWS's own SDK see."""

from __future__ import annotations

import json

import boto3
import botocore.exceptions
import pytest

from lambda_ext.local.appconfig import AppConfigPlayer, served
from lambda_ext.local.aws_server import AwsServer
from lambda_ext.local.seeds import Seed
from lambda_ext.local.server import Server
from lambda_ext.local.steps import Deploy, Stage

NAME = {
    "ApplicationIdentifier": "a",
    "EnvironmentIdentifier": "b",
    "ConfigurationProfileIdentifier": "c",
}


@pytest.fixture(name="player")
def _player(time):
    player = AppConfigPlayer(clock=time.wall)
    player.deploy("a/b/c", "one", label="v1")
    return player


@pytest.fixture(name="client")
def _client(player):
    server = Server(player.answer)
    client = boto3.client("appconfigdata", endpoint_url=f"http://{server.address}")
    yield client
    client.close()
    server.close()


def start(client, **more):
    """Return the token of a new session."""
    return client.start_configuration_session(**NAME, **more)[
        "InitialConfigurationToken"
    ]


def latest(client, token):
    """Return (text, label, seconds until the next poll, next token)."""
    got = client.get_latest_configuration(ConfigurationToken=token)
    return (
        got["Configuration"].read().decode(),
        got.get("VersionLabel"),
        got["NextPollIntervalInSeconds"],
        got["NextPollConfigurationToken"],
    )


def refusal(call, *args):
    """Return the code of a refusal, and the problem that it names."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(*args)
    response = caught.value.response
    details = response.get("Details", {}).get("InvalidParameters", {})
    problems = [each["Problem"] for each in details.values()]
    return response["Error"]["Code"], problems


def test_session(client, player, time):
    """First the document, then nothing, then the next version."""
    text, label, interval_s, token = latest(client, start(client))
    assert ("one", "v1", 60) == (text, label, interval_s)
    time.advance(60)
    text, label, _, token = latest(client, token)
    assert ("", None) == (text, label)
    player.deploy("a/b/c", "two", label="v2")
    time.advance(60)

    assert ("two", "v2") == latest(client, token)[:2]


def test_token_serves_once(client, time):
    """A second use is refused."""
    token = start(client)
    latest(client, token)

    assert ("BadRequestException", ["Corrupted"]) == refusal(latest, client, token)


def test_token_expires(client, time):
    """After 24 hours a token is not valid."""
    token = start(client)
    time.advance(24 * 3600)

    assert ("BadRequestException", ["Expired"]) == refusal(latest, client, token)


def test_poll_that_comes_too_early(client, player, time):
    """It is refused, and the token serves later; the interval is the session's."""
    _, _, interval_s, token = latest(
        client, start(client, RequiredMinimumPollIntervalInSeconds=20)
    )
    assert 20 == interval_s
    time.advance(19)
    assert ("BadRequestException", ["PollIntervalNotSatisfied"]) == (
        refusal(latest, client, token)
    )
    time.advance(1)
    player.interval_s = 300

    assert 300 == latest(client, token)[2]


def test_what_is_not_deployed_is_not_found(client, player):
    """An unknown name, and one that was removed."""
    token = start(client)
    player.remove("a/b/c")

    assert "ResourceNotFoundException" == refusal(start, client)[0]
    assert "ResourceNotFoundException" == refusal(latest, client, token)[0]


def test_gradual_deployment(client, player):
    """A share of the sessions gets it, until it is finished or rolled back."""
    player.deploy("a/b/c", "two", percent=30)
    got = [latest(client, start(client))[0] for _ in range(100)]
    assert 30 == got.count("two")
    player.roll_back("a/b/c")
    assert "one" == latest(client, start(client))[0]
    player.deploy("a/b/c", "three", percent=0)
    assert "one" == latest(client, start(client))[0]
    player.finish("a/b/c")

    assert "three" == latest(client, start(client))[0]


def test_faults(client, player):
    """The next calls fail as told."""
    player.fail(404, "ResourceNotFoundException", "no", times=1)

    assert "ResourceNotFoundException" == refusal(start, client)[0]
    assert start(client)
    assert [404, 201] == [status for _, _, status in player.calls]


def test_feature_flags_are_served_without_rules():
    """Of variants only the last, of a disabled flag nothing else; sorted."""
    document = {
        "version": "1",
        "flags": {},
        "values": {
            "z": {"enabled": True, "color": "red", "_createdAt": "x"},
            "off": {"enabled": False, "color": "red"},
            "none": {},
            "empty": {"_variants": []},
            "a": {
                "_variants": [
                    {"name": "x", "enabled": True, "rule": "(and true true)"},
                    {"name": "y", "enabled": True, "attributeValues": {"n": 1}},
                ]
            },
        },
    }

    assert {
        "z": {"enabled": True, "color": "red"},
        "off": {"enabled": False},
        "none": {"enabled": False},
        "empty": {"enabled": False},
        "a": {"_variant": "y", "enabled": True, "n": 1},
    } == json.loads(served(document))


@pytest.mark.process
def test_seed_of_the_local_aws():
    """Seeded flags and configurations are there, and a step deploys another."""
    seed = Seed(
        configurations={"a/b/c": "text"}, flags={"a/b/f": {"on": {"enabled": True}}}
    )
    with AwsServer(seed=seed, region="eu-central-1") as aws:
        client = boto3.client("appconfigdata", endpoint_url=aws.url)
        assert "text" == latest(client, start(client))[0]
        Deploy("a/b/c", "new").perform(Stage(None, aws))
        assert "new" == latest(client, start(client))[0]
        Deploy(
            "a/b/c", {"on": {"enabled": True, "_createdAt": "x"}}, flags=True
        ).perform(Stage(None, aws))
        assert '{"on": {"enabled": true}}' == latest(client, start(client))[0]
        client.close()
    assert {"StartConfigurationSession", "GetLatestConfiguration"} >= {
        call.operation for call in aws.calls
    } or {call.service for call in aws.calls} == {"appconfig"}
