"""
The keys to sign with that the container's endpoint hands out.

Under SnapStart Lambda gives no keys in variables but an endpoint on loopback,
so that a restored environment does not carry the keys of its snapshot.

Guarantees
    Keys are asked for again before they expire, and after a restore, a thaw
    past their expiry, or a refusal.  While new ones cannot be had, those that
    still hold are used, and the endpoint gets no more than half of the time.
    The endpoint is on this machine or on a link-local address that AWS
    documents; the token is sent nowhere else.

Threads
    ``_lock`` is held while new keys are fetched; the other threads use the
    old ones as long as they hold, and wait only when there are none.

Source: "Container credential provider",
https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

from __future__ import annotations

import json
import os
import re

from ..exceptions import ConfigurationError
from ..lifecycle import clock, process
from . import connections, http1, regions, retries, signing
from .signing import Keys, UnavailableError, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")  # ECS, EKS
EARLY_S = 300.0  # before the expiry that new keys are asked for
AGAIN_S = 30.0  # between two times that they are asked for early
LONGEST = 65536  # characters of a key or a token; AWS sets no limit
# Compiled when the first keys come.
EXPIRY = r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|[+-]00:?00)"


class Container:
    """The keys that the container's endpoint hands out."""

    __slots__ = (
        "_again_at", "_connections", "_drops", "_endpoint", "_keys", "_lock", "_query"
    )  # fmt: skip

    def __init__(self, url: str) -> None:
        address, mark, query = url.partition("?")
        self._endpoint = regions.parse(address)
        self._query = mark + query
        self._connections = connections.Connections(self._endpoint)
        self._lock = process.Lock()
        self._keys: Keys | None = None
        self._drops = 0  # how often the keys were forgotten
        self._again_at = 0.0

    def __repr__(self) -> str:
        return f"<credentials of {self._endpoint.url}>"

    @property
    def identity(self) -> object:
        """Return what stands for the role, whose keys change: this object."""
        return self

    def keys(self, ends_at: float) -> Keys:
        """Return the keys; the caller waits while there are none."""
        now = clock.now()
        keys = self._keys
        if keys is not None and (keys.expires_at is None or now < self._again_at):
            return keys
        holds = keys is not None and now < (keys.expires_at or 0.0)
        patience_s = 0.0 if holds else max(ends_at - clock.monotonic(), 0.0)
        acquired: list[bool] = []
        try:
            # Stored by the C call that acquires: a signal handler's exception cannot
            # come in between and leave the lock taken.
            acquired.extend(map(self._lock.acquire, (True,), (patience_s,)))
            if not acquired[0]:
                if keys is not None and holds:
                    return keys
                raise UnavailableError("another thread still waits for them")
            if self._keys is not keys and self._keys is not None:
                return self._keys  # another thread was faster
            return self._fetched(keys if holds else None, ends_at)
        finally:
            if acquired and acquired[0]:
                self._lock.release()

    def renewed(self, refused: Keys, ends_at: float) -> bool:
        """Say whether there are other keys than those *refused*."""
        if self._keys is refused:
            self._keys = None
        return not self.keys(ends_at).same(refused)

    def drop(self) -> None:
        """Forget the keys: an environment restored from a snapshot has others."""
        self._drops += 1
        self._keys = None
        self._connections.close()

    def forked(self) -> None:
        """Drop the connections, in a forked child."""
        self._connections.close()

    def _fetched(self, old: Keys | None, ends_at: float) -> Keys:
        drops = self._drops
        if old is not None:  # the call itself needs time as well
            left_s = max(ends_at - clock.monotonic(), 0.0)
            ends_at -= max(left_s / 2, left_s - retries.CONNECT_S)
        try:
            keys = _read(self._connections.exchange(self._request, ends_at))
        except (OSError, UnavailableError, http1.ProtocolError) as exc:
            if process.by_signal_handler(exc):
                raise
            if old is None:
                msg = f"{self._endpoint.url}: {_why(exc)}"
                raise UnavailableError(msg) from exc
            keys = old
        now = clock.now()
        expires_at = keys.expires_at or now
        # Early, but not all the time where the endpoint has none newer yet.
        self._again_at = min(max(expires_at - EARLY_S, now + AGAIN_S), expires_at)
        self._keys = keys
        if self._drops != drops:  # before a snapshot: for this call only
            self._keys = None
        return keys

    def _request(self) -> bytes:
        path = (self._endpoint.path or "/") + self._query
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {self._endpoint.authority}",
            "Accept: application/json",
            "User-Agent: lambda-ext",
        ]
        token = _token()
        if token:
            lines.append(f"Authorization: {token}")
        return "\r\n".join((*lines, "", "")).encode("latin-1")


def is_documented(url: str) -> bool:
    """Say whether *url* is an endpoint for credentials that AWS documents."""
    address, _, query = url.partition("?")
    try:
        endpoint = regions.parse(address)
    except ConfigurationError:
        return False
    if not (query.isascii() and query.isprintable()) or " " in query:
        return False  # it becomes part of the request's first line
    return not endpoint.tls and (endpoint.local or endpoint.host in HOSTS)


_containers: dict[str, Container] = {}


def container(url: str) -> Container:
    """Return the provider at *url*: one for all services."""
    return _containers.setdefault(url, Container(url))


@process.at_reset
def reset() -> None:
    """Forget the providers, as if this were just imported."""
    for known in [*_containers.values()]:
        known.drop()
    _containers.clear()


@process.at_fork
def _forked() -> None:
    for known in [*_containers.values()]:
        known.forked()


def _why(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _token() -> str:
    path = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    if path:
        try:
            with open(path, "rb") as file:  # an error of decoding would hold it
                token = file.read(LONGEST + 1).strip().decode("latin-1")
        except (OSError, ValueError) as exc:
            if process.by_signal_handler(exc):
                raise
            msg = f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {path!r} cannot be read"
            raise ConfigurationError(msg) from exc
    else:
        return variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if not (token.isascii() and token.isprintable() and len(token) <= LONGEST):
        msg = f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {path!r} holds no token"
        raise ConfigurationError(msg)
    return token


def _read(response: http1.Response) -> Keys:
    if response.status != 200:
        msg = f"it answered with status {response.status}"
        raise UnavailableError(msg)
    try:
        answer: Mapping[str, Any] = json.loads(response.body)
        expiration = answer.get("Expiration")
        return Keys(
            _word(answer["AccessKeyId"]),
            _word(answer["SecretAccessKey"]),
            _word(answer.get("Token") or "-").removeprefix("-"),
            None if expiration is None else _expiry(expiration),
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        pass  # raised below: as the context it would keep the answer
    raise UnavailableError("its answer holds none")


def _word(value: str) -> str:
    if not (value.isascii() and value.isprintable() and 0 < len(value) <= LONGEST):
        raise ValueError
    return value


def _expiry(text: str) -> float:
    match = re.fullmatch(EXPIRY, text, re.ASCII)
    if match is None:
        raise ValueError
    return signing.epoch(match.groups())
