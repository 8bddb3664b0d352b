"""AppConfig's two calls, on both ways, with tokens that serve only once."""

from __future__ import annotations

import boto3
import pytest
from wire import Wire, failing, refusing, response, vanish

from lambda_ext import exceptions
from lambda_ext.aws import light, transport

SESSION = {
    "ApplicationIdentifier": "shop",
    "EnvironmentIdentifier": "prod",
    "ConfigurationProfileIdentifier": "flags",
}


class AppConfig:
    """A service that numbers its tokens and takes each of them once."""

    def __init__(self):
        self.count = 0
        self.valid = set()
        self.told = None  # the version that this session was told last
        self.document = b'{"checkout": {"enabled": true}}'

    def token(self):
        self.count += 1
        token = f"{self.count}/+=\u00e9 token"
        self.valid.add(token)
        return token

    def __call__(self, request):
        if request.operation == "StartConfigurationSession":
            self.told = None
            return response(201, {"InitialConfigurationToken": self.token()})
        import urllib.parse

        query = urllib.parse.urlsplit(request.target).query
        ((name, token),) = urllib.parse.parse_qsl(query)
        if name != "configuration_token" or token not in self.valid:
            invalid = {"ConfigurationToken": {"Problem": "Corrupted"}}
            return response(
                400,
                {"Reason": "InvalidParameters", "Message": "No.",
                 "Details": {"InvalidParameters": invalid}},
                x_amzn_ErrorType="BadRequestException",
                Content_Type="application/json",
            )  # fmt: skip
        self.valid.remove(token)
        body = b"" if self.told == self.document else self.document
        self.told = self.document
        return response(
            200,
            body,
            Next_Poll_Configuration_Token=self.token().encode().decode("latin-1"),
            Next_Poll_Interval_In_Seconds="60",
            Content_Type="application/json",
            Version_Label="v1",
        )


@pytest.fixture(name="appconfig")
def _appconfig(monkeypatch, pauses):
    appconfig = AppConfig()
    with Wire(appconfig) as wire:
        appconfig.wire = wire
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield appconfig


@pytest.fixture(name="way", params=["light", "boto3"])
def _way(request, appconfig):
    if request.param == "light":
        way = light.Light("appconfigdata")
    else:
        session = boto3.session.Session()
        way = transport.transport("appconfigdata", session=session)
    yield way
    way.close()


def latest(way, token):
    """Return what the service says of the session that *token* continues."""
    return way.call("GetLatestConfiguration", {"ConfigurationToken": token})


def test_session_goes_from_token_to_token(way, appconfig):
    """Each answer gives the next token; what has not changed comes empty."""
    token = way.call("StartConfigurationSession", SESSION)["InitialConfigurationToken"]
    seen = []
    for document in (appconfig.document, appconfig.document, b'{"new": {}}'):
        appconfig.document = document
        answer = latest(way, token)
        token = answer["NextPollConfigurationToken"].encode("latin-1").decode()
        seen.append(answer["Configuration"])

    assert [b'{"checkout": {"enabled": true}}', b"", b'{"new": {}}'] == seen
    assert (60, "application/json", "v1") == (
        answer["NextPollIntervalInSeconds"],
        answer["ContentType"],
        answer["VersionLabel"],
    )


def test_token_that_was_used_is_refused_at_once(way, appconfig):
    """The refusal does not pass, says what is wrong, and costs one request."""
    token = way.call("StartConfigurationSession", SESSION)["InitialConfigurationToken"]
    latest(way, token)
    before = len(appconfig.wire.requests)

    with pytest.raises(exceptions.SourceError, match="Corrupted") as caught:
        latest(way, token)
    assert (False, "BadRequestException") == (caught.value.transient, caught.value.code)
    assert before + 1 == len(appconfig.wire.requests)


@pytest.mark.parametrize(
    "fault", [failing(503), refusing("ThrottlingException"), vanish]
)
def test_failure_before_the_token_is_taken_uses_none_up(way, appconfig, fault):
    """A second try with the same token is answered."""
    token = way.call("StartConfigurationSession", SESSION)["InitialConfigurationToken"]
    appconfig.wire.faults.append(fault)

    assert appconfig.document == latest(way, token)["Configuration"]
