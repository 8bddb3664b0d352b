"""
AppConfig's data plane, played: sessions, single-use tokens, deployments.

    player = AppConfigPlayer()
    player.deploy("orders/prod/features", '{"new-checkout": {"enabled": true}}')

What it does as AWS does
    A token serves once; a second use, and one that was never issued, is "Corrupted".
    After 24 hours it is "Expired".  A poll before the seconds that the last
    answer gave is "PollIntervalNotSatisfied" and uses no token up.  What has
    not changed since the last answer of the session comes empty, without a
    label.  Names that nothing was deployed to are not found.

What AWS leaves open, and what is done here: whether a token that came too
early is used up.  Signatures are not checked.

Source: https://docs.aws.amazon.com/appconfig/2019-10-09/APIReference/API_appconfigdata_GetLatestConfiguration.html
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from .server import Answer, Request

if TYPE_CHECKING:
    from .seeds import Seed

TOKEN_S = 24 * 3600.0  # for which a token is valid
INTERVAL_S = 60  # between polls, unless the session asked for something else
JSON = "application/json"


@dataclass(frozen=True)
class Deployed:
    """One version of a configuration."""

    label: str
    body: bytes
    content_type: str


@dataclass
class Session:
    """One client's session: what it was served last, and when it may ask again."""

    number: int
    name: str
    required_s: int | None
    last_served: Deployed | None = None
    not_before: float = 0.0


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, body: Mapping[str, Any]) -> None:
        super().__init__(code)
        self.answer = Answer.json(status, body, x_amzn_ErrorType=code)


class AppConfigPlayer:
    """
    Answers for AppConfig's data plane; a `Player` of the local AWS.

    *clock* gives seconds; with *interval_s* every answer asks for that many
    until the next poll, else for what the session asked for, or 60.  Both may
    be changed at any time.  ``calls`` holds (operation, configuration, HTTP
    status) of each call.
    """

    services = ("appconfig",)

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: int | None = None,
    ) -> None:
        self.clock = clock
        self.interval_s = interval_s
        self.calls: list[tuple[str, str, int]] = []
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._versions = itertools.count(1)
        self._tokens: dict[str, tuple[Session, float]] = {}
        self._deployed: dict[str, Deployed] = {}
        self._rollouts: dict[str, tuple[Deployed, float]] = {}
        self._faults: list[Answer] = []

    # What AWS holds ----------------------------------------------------------

    def start(self, seed: Seed) -> None:
        """Hold what *seed* says and nothing else."""
        with self._lock:
            self._tokens.clear()
            self._deployed.clear()
            self._rollouts.clear()
            self._faults.clear()
        for name, value in seed.configurations.items():
            self.deploy(name, value)
        for name, document in seed.flags.items():
            self.deploy(name, served(document))

    def stop(self) -> None:
        """Let go of nothing."""

    def deploy(
        self,
        name: str,
        body: str | bytes,
        *,
        label: str | None = None,
        content_type: str = JSON,
        percent: float = 100.0,
    ) -> str:
        """
        Make *body* what *name* ("app/env/profile") is; return its label.

        With *percent* below 100 only for that share of the sessions, until
        `finish`, or `roll_back`.
        """
        content = body.encode() if isinstance(body, str) else body
        label = str(next(self._versions)) if label is None else label
        deployed = Deployed(label, content, content_type)
        with self._lock:
            if percent >= 100:
                self._deployed[name] = deployed
                self._rollouts.pop(name, None)
            else:
                self._rollouts[name] = deployed, percent
        return label

    def deploy_flags(self, name: str, document: Any, **options: Any) -> str:
        """Deploy a flag document as a feature flag profile: served without rules."""
        return self.deploy(name, served(document), **options)

    def finish(self, name: str) -> None:
        """Give to all clients what a gradual deployment gave to some."""
        with self._lock:
            self._deployed[name], _ = self._rollouts.pop(name)

    def roll_back(self, name: str) -> None:
        """End a gradual deployment: all clients have what was there before."""
        with self._lock:
            self._rollouts.pop(name)

    def remove(self, name: str) -> None:
        """Let *name* be not found."""
        with self._lock:
            del self._deployed[name]

    def forget_tokens(self) -> None:
        """Accept no token that was given out so far."""
        with self._lock:
            self._tokens.clear()

    def fail(self, status: int, code: str, message: str = "", times: int = 1) -> None:
        """Answer the next *times* calls with an error."""
        refusal = Answer.json(status, {"Message": message}, x_amzn_ErrorType=code)
        with self._lock:
            self._faults += [refusal] * times

    def operations(self) -> list[str]:
        """Return the operations that were called, in order."""
        return [operation for operation, _, _ in self.calls]

    # What clients ask ----------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """Answer one request, as AWS would."""
        path, _, query = request.path.partition("?")
        operation, name = f"{request.method} {path}", ""
        try:
            with self._lock:
                if operation == "POST /configurationsessions":
                    operation = "StartConfigurationSession"
                    name = _name(request.body)
                    answer = self._fault() or self._start(name, request.body)
                elif operation == "GET /configuration":
                    operation = "GetLatestConfiguration"
                    token = parse_qs(query).get("configuration_token", [""])[0]
                    if token in self._tokens:
                        name = self._tokens[token][0].name
                    answer = self._fault() or self._latest(token)
                else:
                    body = {"Message": "no such operation"}
                    answer = Answer.json(
                        404, body, x_amzn_ErrorType="UnknownOperationException"
                    )
        except Refusal as refusal:
            answer = refusal.answer
        self.calls.append((operation, name, answer.status))
        return answer

    def _fault(self) -> Answer | None:
        return self._faults.pop(0) if self._faults else None

    def _start(self, name: str, body: bytes) -> Answer:
        if name not in self._deployed and name not in self._rollouts:
            missing = {
                "Message": "nothing is deployed there",
                "ResourceType": "Deployment",
                "ReferencedBy": {},
            }
            raise Refusal(404, "ResourceNotFoundException", missing)
        required = json.loads(body).get("RequiredMinimumPollIntervalInSeconds")
        if required is not None and not 15 <= required <= 86_400:
            raise _bad("RequiredMinimumPollIntervalInSeconds", "Corrupted")
        session = Session(next(self._numbers), name, required)
        return Answer.json(201, {"InitialConfigurationToken": self._token(session)})

    def _latest(self, token: str) -> Answer:
        session, given_at = self._tokens.get(token, (None, 0.0))
        now = self.clock()
        if session is None:
            raise _bad("ConfigurationToken", "Corrupted")
        if now - given_at >= TOKEN_S:
            raise _bad("ConfigurationToken", "Expired")
        if now < session.not_before:
            raise _bad("ConfigurationToken", "PollIntervalNotSatisfied")
        deployed = self._for(session)
        if deployed is None:
            missing = {"Message": "it was removed", "ResourceType": "Deployment"}
            raise Refusal(404, "ResourceNotFoundException", missing)
        del self._tokens[token]
        interval_s = self.interval_s or session.required_s or INTERVAL_S
        session.not_before = now + interval_s
        headers = {
            "Next-Poll-Configuration-Token": self._token(session),
            "Next-Poll-Interval-In-Seconds": str(interval_s),
            "Content-Type": deployed.content_type,
        }
        if session.last_served == deployed:
            return Answer(200, b"", headers)
        session.last_served = deployed
        headers["Version-Label"] = deployed.label
        return Answer(200, deployed.body, headers)

    def _for(self, session: Session) -> Deployed | None:
        """Return what *session* gets; a rollout reaches some of them first."""
        rollout, percent = self._rollouts.get(session.name, (None, 0.0))
        if rollout is not None and session.number * 61 % 100 < percent:
            return rollout
        return self._deployed.get(session.name)

    def _token(self, session: Session) -> str:
        # With what a URL has to escape.
        token = base64.b64encode(os.urandom(18)).decode() + "+/="
        self._tokens[token] = session, self.clock()
        return token


def served(document: Any) -> str:
    """
    Return a flag document as a feature flag profile serves it to a plain client.

    Of a flag with variants only the last one; a disabled flag has no attributes.
    """
    parsed = json.loads(document) if isinstance(document, (str, bytes)) else document
    values = parsed.get("values", {}) if "values" in parsed else parsed
    found: dict[str, Any] = {}
    for name, value in sorted(values.items()):
        one = dict(value)
        if "_variants" in value:
            last = (value["_variants"] or [{}])[-1]
            one = {**last.get("attributeValues", {}), "enabled": last.get("enabled")}
            if "name" in last:
                one["_variant"] = last["name"]
        for member in ("_createdAt", "_updatedAt"):
            one.pop(member, None)
        if one.get("enabled") is not True:
            variant = {"_variant": one["_variant"]} if "_variant" in one else {}
            one = {**variant, "enabled": False}
        found[name] = one
    return json.dumps(found, sort_keys=True)


def _name(body: bytes) -> str:
    try:
        asked = json.loads(body)
        parts = [
            str(asked[f"{part}Identifier"])
            for part in ("Application", "Environment", "ConfigurationProfile")
        ]
    except (KeyError, TypeError, ValueError):
        raise _bad("ApplicationIdentifier", "Corrupted") from None
    return "/".join(parts)


def _bad(parameter: str, problem: str) -> Refusal:
    messages = {
        "Corrupted": "Token not valid",
        "Expired": "Token has expired",
        "PollIntervalNotSatisfied": "Request too early",
    }
    return Refusal(
        400,
        "BadRequestException",
        {
            "Message": messages[problem],
            "Reason": "InvalidParameters",
            "Details": {"InvalidParameters": {parameter: {"Problem": problem}}},
        },
    )
