"""
AWS on loopback: a small HTTP server that notes each call, and players behind it.

    request ─▶ `AwsServer` (notes the call) ─▶ the player of its service ─▶ answer

A `Player` plays one or several services of AWS: `AppConfigPlayer` AppConfig's
data plane, and `MotoPlayer` every service that has no player of its own, Secrets
Manager and Parameter Store among them.  Every call is recorded with its
operation, the *names* that it asked for, the client that sent it and how it
ended; values are never recorded.

Signatures are not checked.  Nothing is ever forwarded to AWS.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from . import aws_messages
from .appconfig import AppConfigPlayer
from .journal import AWS_CALL, Journal
from .moto_player import MotoPlayer
from .seeds import Parameter, Seed, SeedError
from .server import Abandoned, Answer, Request, Server

__all__ = ["AwsCall", "AwsServer", "Fault", "Parameter", "Player", "Seed", "SeedError"]


class Player(Protocol):
    """
    Plays services of AWS.

    *services* are the names for which requests to them are signed, such as
    "appconfig" (in the Authorization header: ``Credential=ID/DATE/REGION/SERVICE/
    aws4_request``).  Methods are called in the threads of the connections.
    """

    @property
    def services(self) -> tuple[str, ...]:
        """The signing names of what it plays."""
        ...

    def start(self, seed: Seed) -> None:
        """Hold what *seed* says and nothing else; SeedError if it cannot."""
        ...

    def stop(self) -> None:
        """Let go of what `start` took."""
        ...

    def answer(self, request: Request) -> Answer:
        """Answer *request* as AWS would."""
        ...


@dataclass(frozen=True)
class AwsCall:
    """One request: what was asked for and how it ended; never a value."""

    service: str
    operation: str
    names: tuple[str, ...]
    status: int  # 0: no answer
    errors: tuple[str, ...]  # error codes, of the call or of single names in it
    agent: str  # the client's User-Agent
    began_at: float  # seconds since the journal began
    duration_s: float


@dataclass(frozen=True)
class Fault:
    """
    How the next calls to AWS fail.

    *how* is "throttle" (400, ThrottlingException), "error" (500), "close" (the
    connection closes without an answer) or "hang" (no answer until the server
    ends).  *times* is how many calls fail, None all; *operation* which ones,
    None all of them.
    """

    how: str = "error"
    times: int | None = None
    operation: str | None = None

    def __post_init__(self) -> None:
        if self.how not in ("throttle", "error", "close", "hang"):
            raise ValueError(f"how: {self.how!r} is no way to fail")


class AwsServer:
    """
    Answer for AWS on a free port of 127.0.0.1, for as long as the `with` lasts.

    *latency_s* is added to every call that arrives by HTTP, as a network
    would.  *poll_interval_s* is what AppConfig asks clients to wait between two
    polls; None is as AWS does.  *players* come before moto, which plays the
    rest.  Calls are noted in *journal* (None is a new one).  One server a
    process at a time: moto's memory is process-wide, and is emptied when a
    server starts.
    """

    def __init__(
        self,
        *,
        seed: Seed | None = None,
        region: str = "us-east-1",
        latency_s: float = 0.0,
        poll_interval_s: int | None = None,
        players: Sequence[Player] = (),
        journal: Journal | None = None,
    ) -> None:
        self.region = region
        self.latency_s = latency_s
        self.journal = Journal() if journal is None else journal
        self._faults: list[list[Any]] = []  # [fault, how often it is still to come]
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.moto = MotoPlayer(region)
        self.appconfig = AppConfigPlayer(interval_s=poll_interval_s)
        self._players: tuple[Player, ...] = (*players, self.appconfig, self.moto)
        self._seed = seed or Seed()
        self._started: list[Player] = []
        self._http: Server | None = None

    @property
    def calls(self) -> list[AwsCall]:
        """The calls that were answered, or failed."""
        return self.journal.of(AWS_CALL)

    @property
    def url(self) -> str:
        """The endpoint, for AWS_ENDPOINT_URL."""
        assert self._http is not None, "the server has not been started"
        return f"http://{self._http.address}"

    def environment(self) -> dict[str, str]:
        """Return the variables that send every AWS client here, and only here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_SESSION_TOKEN": "local",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def __enter__(self) -> AwsServer:
        try:
            for player in self._players:
                player.start(self._seed)
                self._started.append(player)
        except BaseException:
            self._stop()
            raise
        self._http = Server(self._answer)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._http is not None
        self._over.set()
        self._http.close()
        self._stop()

    def _stop(self) -> None:
        while self._started:
            self._started.pop().stop()

    def put_secret(self, name: str, value: str | bytes) -> None:
        """Create the secret, or give it a new version; not recorded as a call."""
        self.moto.put_secret(name, value)

    def put_parameter(self, name: str, parameter: Parameter) -> None:
        """Create the parameter, or overwrite it; not recorded as a call."""
        self.moto.put_parameter(name, parameter)

    def deploy(self, name: str, value: Any, *, flags: bool = False) -> None:
        """
        Make *value* what the configuration "app/env/profile" is from now on.

        With *flags* it is a flag document, served without its rules.
        """
        if flags:
            self.appconfig.deploy_flags(name, value)
        else:
            self.appconfig.deploy(name, value)

    def fail(self, fault: Fault) -> None:
        """Let calls fail from now on, as *fault* says; the first that fits counts."""
        with self._lock:
            self._faults.append([fault, fault.times])

    def repair(self) -> None:
        """Let every call succeed again."""
        with self._lock:
            self._faults.clear()

    def _answer(self, request: Request) -> Answer:
        began_at = self.journal.now()
        if self.latency_s:
            time.sleep(self.latency_s)
        service = aws_messages.service(request)
        operation = aws_messages.operation(request)
        fault = self._fault(operation)
        if fault is None:
            player = next(
                (p for p in self._players if service in p.services), self.moto
            )
            answer = player.answer(request)
        elif fault.how == "throttle":
            answer = _error(400, "ThrottlingException", "Rate exceeded")
        elif fault.how == "error":
            answer = _error(500, "InternalServiceError", "a fault of this run")
        else:
            if fault.how == "hang":
                self._over.wait()
            answer = Answer(0)
        errors = aws_messages.error_codes(answer) if answer.status else ("no answer",)
        self.journal.make(
            AWS_CALL,
            lambda at: AwsCall(
                service=service,
                operation=operation,
                names=aws_messages.names(request),
                status=answer.status,
                errors=errors,
                agent=request.headers.get("User-Agent") or "",
                began_at=began_at,
                duration_s=at - began_at,
            ),
        )
        if not answer.status:
            raise Abandoned
        return answer

    def _fault(self, operation: str) -> Fault | None:
        """Return how this call is to fail, and count it."""
        with self._lock:
            return self._next_fault(operation)

    def _next_fault(self, operation: str) -> Fault | None:
        for entry in self._faults:
            fault, left = entry
            if fault.operation in (None, operation) and left != 0:
                entry[1] = None if left is None else left - 1
                return cast("Fault", fault)
        return None


def _error(status: int, code: str, message: str) -> Answer:
    error = {"__type": code, "message": message}
    return Answer.json(status, error, X_Amzn_Errortype=code)
