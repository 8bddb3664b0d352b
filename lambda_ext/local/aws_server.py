"""
AWS on loopback: a small HTTP server that notes who asked, and players behind it.

    request ─▶ `AwsServer` (notes the call) ─▶ the player of its service ─▶ answer

A `Player` plays one or several services of AWS; `MotoPlayer` plays every
service that has no player of its own, Secrets Manager and Parameter Store
among them.  Every call is recorded with its operation, the *names* that it
asked for, the client that sent it and how it ended; values are never recorded.

Signatures are not checked.  Nothing is ever forwarded to AWS.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from . import aws_messages
from .moto_player import MotoPlayer
from .seeds import Parameter, Seed, SeedError
from .server import Answer, Request, Server

__all__ = ["AwsCall", "AwsServer", "Parameter", "Player", "Seed", "SeedError"]


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
    status: int
    errors: tuple[str, ...]  # error codes, of the call or of single names in it
    agent: str  # the client's User-Agent
    began_at: float  # time.monotonic()
    duration_s: float


class AwsServer:
    """
    Answer for AWS on a free port of 127.0.0.1, for as long as the `with` lasts.

    *latency_s* is added to every call that arrives by HTTP, as a network
    would.  *players* come before moto, which plays the rest.  One server a
    process at a time: moto's memory is process-wide, and is emptied when a
    server starts.
    """

    def __init__(
        self,
        *,
        seed: Seed | None = None,
        region: str = "us-east-1",
        latency_s: float = 0.0,
        players: Sequence[Player] = (),
    ) -> None:
        self.region = region
        self.latency_s = latency_s
        self.calls: list[AwsCall] = []
        self.moto = MotoPlayer(region)
        self._players: tuple[Player, ...] = (*players, self.moto)
        self._seed = seed or Seed()
        self._started: list[Player] = []
        self._http: Server | None = None

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

    def _answer(self, request: Request) -> Answer:
        began_at = time.monotonic()
        if self.latency_s:
            time.sleep(self.latency_s)
        service = aws_messages.service(request)
        player = next((p for p in self._players if service in p.services), self.moto)
        response = player.answer(request)
        self.calls.append(
            AwsCall(
                service=service,
                operation=aws_messages.operation(request),
                names=aws_messages.names(request),
                status=response.status,
                errors=aws_messages.error_codes(response),
                agent=request.headers.get("User-Agent") or "",
                began_at=began_at,
                duration_s=time.monotonic() - began_at,
            )
        )
        return response
