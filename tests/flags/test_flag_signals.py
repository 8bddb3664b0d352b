"""A signal handler that raises in the middle of a poll or an evaluation."""

from __future__ import annotations

import json

from interruptions import interruptions

from lambda_ext import Flags
from lambda_ext.exceptions import SourceError
from lambda_ext.flags import document, flags, rules, session
from lambda_ext.lifecycle import process
from lambda_ext.typing import Answer

BODY = json.dumps({"on": {"_variants": [
    {"name": "a", "enabled": True, "rule": "(eq $n 1)"},
    {"name": "b", "enabled": False},
]}})  # fmt: skip


class FakeTransport:
    """AppConfig, without a socket: single-use tokens, polls at any time."""

    scope = ("way",)

    def __init__(self):
        self.count = 0
        self.valid = set()
        self.refused = 0
        self.told = set()

    def token(self, number):
        """Return a token of the session *number*."""
        self.count += 1
        token = f"{number}/{self.count}"
        self.valid.add(token)
        return token

    def call(self, operation, parameters, timeout_s=None):
        """Answer as AppConfig does."""
        if operation == "StartConfigurationSession":
            return {"InitialConfigurationToken": self.token(self.count)}
        token = parameters["ConfigurationToken"]
        if token not in self.valid:
            self.refused += 1
            raise SourceError("Corrupted", code="BadRequestException")
        self.valid.remove(token)
        number = token.partition("/")[0]
        body = b"" if number in self.told else BODY.encode()
        self.told.add(number)
        return {
            "Configuration": body,
            "VersionLabel": "1" if body else "",
            "NextPollIntervalInSeconds": 0,
            "NextPollConfigurationToken": self.token(number),
        }


def is_free(lock):
    """Say whether no thread holds *lock*."""
    return not lock._is_owned()


def test_interrupted_poll():
    """Wherever it is interrupted the next poll works and no token is sent twice."""
    reached = 0
    for interruption in interruptions([session, process]):
        way = FakeTransport()
        one = session.Session(way, "a/b/c")
        one.latest()
        with interruption:
            one.latest()
        reached += interruption.happened

        assert is_free(one.lock)
        assert BODY == one.latest().value
        assert 0 == way.refused
    assert reached > 20


def test_interrupted_first_poll():
    """Wherever the first poll is interrupted, the next one brings the document."""
    for interruption in interruptions([session, process]):
        way = FakeTransport()
        one = session.Session(way, "a/b/c")
        with interruption:
            one.latest()

        assert is_free(one.lock)
        assert BODY == one.latest().value
        assert 0 == way.refused


class Source:
    """A source that answers at once."""

    name = "memory"
    scope = ("memory",)
    polled = False

    def plan(self, wanted):
        """Answer all at once."""
        return [wanted]

    def fetch(self, wanted, *_):
        """Answer with the document."""
        return {key: Answer(BODY, "1") for key in wanted}


def test_interrupted_evaluation():
    """Wherever the first look at a flag is interrupted, the next one is right."""
    for interruption in interruptions([flags, document, rules]):
        one = Flags("a", "b", "c", source=Source())
        with interruption:
            assert one.enabled("on", {"n": 1})

        assert one.enabled("on", {"n": 1})
        assert not one.enabled("on", {"n": 2})
        assert "DEFAULT" == one.evaluate("on", {}).reason
