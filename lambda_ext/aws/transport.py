"""
Which way to AWS a service takes, decided once.

Guarantees
    Every way answers in boto3's shape and raises the errors of this library.
    boto3 is not loaded before a way through it is first used.

Lifecycle
    Before a snapshot connections are closed; after it, clients are made anew.
    A forked child shares no connection with its parent.

Threads
    ``_lock`` guards the memo; ways may be used by any number of threads.
"""

from __future__ import annotations

import threading
import weakref

from ..exceptions import ConfigurationError
from ..lifecycle import phases
from . import boto, errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    class Transport(Protocol):
        """One way to one service of AWS."""

        @property
        def name(self) -> str:
            """Return "light" or "boto3"."""
            ...

        @property
        def scope(self) -> tuple[object, ...]:
            """
            Return what its answers depend on besides the request.

            Hashable: service, region, endpoint and whose credentials.
            Computed once; ConfigurationError when there is no region.
            """
            ...

        def call(
            self,
            operation: str,
            parameters: Mapping[str, Any],
            *,
            deadline_s: float | None = None,
        ) -> dict[str, Any]:
            """
            Call *operation* ("GetSecretValue") and return its answer's fields.

            The caller waits, retries included, for at most *deadline_s*
            seconds, what is left of the invocation, and 6 s.  Blobs are
            bytes; dates are as the wire has them.

            Raises:
                SourceError: of the class that fits, from what caused it.
                ConfigurationError: there is no region, or no credentials.
            """
            ...


_lock = threading.Lock()
_ways: dict[str, Transport] = {}
_reasons: dict[str, str] = {}
_all: weakref.WeakSet[Any] = weakref.WeakSet()
_listening = False


def transport(service: str, *, client: Any = None, session: Any = None) -> Transport:
    """
    Return the way to *service*, by its endpoint prefix ("secretsmanager").

    A *client* or a *session* of boto3 chooses boto3.  Without them there is
    one way per service, shared by everybody.  Nothing is sent yet.
    """
    if service not in errors.SOURCES:
        known = ", ".join(errors.SOURCES)
        msg = f"there is no way to the service {service!r}; known: {known}"
        raise ConfigurationError(msg)
    if client is not None or session is not None:
        with _lock:
            return _registered(boto.Boto(service, client, session))
    with _lock:
        way = _ways.get(service)
        if way is None:
            way = _ways[service] = _registered(boto.Boto(service))
            _reasons[service] = "the only way"
        return way


def status() -> dict[str, tuple[str, str]]:
    """Return, for each service in use, the name of its way and the reason."""
    with _lock:
        return {name: (way.name, _reasons[name]) for name, way in _ways.items()}


def reset() -> None:
    """Forget every way, as if this were just imported."""
    global _listening
    with _lock:
        _close()
        _ways.clear()
        _reasons.clear()
        _all.clear()
        _listening = False


def _registered(way: boto.Boto) -> Transport:
    global _listening
    _all.add(way)
    if not _listening:
        _listening = True
        phases.listen(phases.SNAPSHOT, _close, priority=phases.NETWORK)
        phases.listen(phases.RESTORE, _close, priority=phases.ESSENTIAL)
        phases.listen(phases.FORK, _forked, priority=phases.ESSENTIAL)
    return way


def _close() -> None:
    for way in list(_all):
        way.close()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    for way in list(_all):
        way.forked()
