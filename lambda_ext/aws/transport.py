"""
Which transport a service uses: the light client, or boto3.

Decided once per service, when it is first needed: a client or a session of
the user's means boto3, else the option ``transport`` says, and "auto" means
the light client unless the environment asks for more than it can do.

Guarantees
    Both transports answer in boto3's shape and raise the errors of this
    library.  boto3 is not loaded before a transport over it is first used.

Lifecycle
    Before a snapshot connections are closed; after it, clients are made anew.
    A forked child shares no connection with its parent.

Threads
    ``_lock`` guards the memo; any number of threads may use a transport.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref

from .. import config
from ..disclosure import raises_without_variables
from ..exceptions import ConfigurationError
from ..lifecycle import phases, process
from . import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    class Transport(Protocol):
        """What asks one service of AWS."""

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
            timeout_s: float | None = None,
        ) -> dict[str, Any]:
            """
            Call *operation* ("GetSecretValue") and return its answer's fields.

            The caller waits, retries included, for at most *timeout_s*
            seconds, what is left of the invocation, and 8 s.  Blobs are
            bytes; dates are as the wire has them.

            Raises:
                SourceError: of the class that fits, from what caused it.
                ConfigurationError: there is no region, or no credentials.
            """
            ...


_lock = process.Lock()
_transports: dict[tuple[str, str], Transport] = {}
# By the id of a session, which its transport keeps alive.  Not weakref's dictionary,
# whose `setdefault` is Python code: a signal handler may come in the middle.
_of_sessions: dict[tuple[str, int, bool], weakref.ref[Transport]] = {}
_status: dict[str, tuple[str, str]] = {}
_all: set[weakref.ref[Any]] = set()
_listening = False


@raises_without_variables
def transport(service: str, *, client: Any = None, session: Any = None) -> Transport:
    """
    Return the transport of *service*, by its endpoint prefix ("secretsmanager").

    A *client* or a *session* of boto3 chooses boto3.  Without them there is
    one transport per service, shared by all callers.  Nothing is sent yet.

    Raises:
        ConfigurationError: no such service; or ``transport="light"`` in an
            environment that asks for more; the message says what it is.
    """
    if service not in errors.SOURCES:
        known = ", ".join(errors.SOURCES)
        msg = f"there is no transport to the service {service!r}; known: {known}"
        raise ConfigurationError(msg)
    if client is not None or session is not None:
        return _given(service, client, session)
    wanted = config.get("transport")
    found = _transports.get((service, wanted))
    if found is None:
        with _lock:
            found = _transports.get((service, wanted))
            if found is None:
                made, reason = _chosen(service, wanted)
                # A signal handler may have asked meanwhile: the first one stays.
                found = _transports.setdefault((service, wanted), _registered(made))
                _status[service] = (found.name, reason)
    return found


def _given(service: str, client: Any, session: Any) -> Transport:
    """Return the transport over a client of the user's, or one per session."""
    if client is not None:
        with _lock:
            return _registered(_through_boto3(service, client, None))
    in_the_clear = config.get("transport") == "boto3"
    with _lock:
        memo = (service, id(session), in_the_clear)
        known = _of_sessions.get(memo)
        found = None if known is None else known()
        if found is None:
            made = _through_boto3(
                service,
                session=session,
                reason="session= was passed",
                in_the_clear=in_the_clear,
            )
            found = _first_of(memo, _registered(made))
        return found


def _first_of(memo: tuple[str, int, bool], made: Transport) -> Transport:
    """Return what a signal handler has made meanwhile for *memo*, or else *made*."""
    reference = weakref.ref(made, functools.partial(_let_go, memo))
    while True:
        kept = _of_sessions.setdefault(memo, reference)
        found = kept()
        if found is not None:
            return found
        _let_go(memo, kept)  # of another session, which has just died


def _let_go(memo: tuple[str, int, bool], reference: weakref.ref[Transport]) -> None:
    # One step.
    if memo in _of_sessions and _of_sessions[memo] is reference:
        del _of_sessions[memo]


def status() -> dict[str, tuple[str, str]]:
    """Return, for each service in use, the name of its transport and the reason."""
    with _lock:
        return dict(_status)


@process.at_reset
def reset() -> None:
    """Forget every transport, as if this were just imported."""
    global _listening
    with _lock:
        _close()
        _transports.clear()
        _status.clear()
        _of_sessions.clear()
        _all.clear()
        _listening = False


def _chosen(service: str, wanted: str) -> tuple[Transport, str]:
    """Return the transport of *service*, and why it is this one."""
    if wanted == "boto3":
        reason = "transport='boto3'"
        return _through_boto3(service, reason=reason, in_the_clear=True), reason
    # A program under test: moto answers for botocore only.
    if wanted == "auto" and "moto" in sys.modules and not config.in_lambda():
        reason = "moto is loaded"
        return _through_boto3(service, reason=reason), reason
    return _light(service, wanted)


def _light(service: str, wanted: str) -> tuple[Transport, str]:
    # Avoids 3 ms where boto3 was chosen.
    from . import light

    reason = light.reason_for_boto3(service)
    if not reason:
        return light.Light(service), f"transport={wanted!r}"
    if wanted == "auto":
        return _through_boto3(service, reason=reason), reason
    msg = f"transport='light' cannot reach {service}: {reason}; use 'auto' or 'boto3'"
    raise ConfigurationError(msg)


def _through_boto3(
    service: str,
    client: Any = None,
    session: Any = None,
    *,
    reason: str = "",
    in_the_clear: bool = False,
) -> Transport:
    # Avoids 1 ms where the light client is used; boto3 itself comes later still.
    from . import boto

    return boto.Boto(service, client, session, reason=reason, in_the_clear=in_the_clear)


def _registered(found: Transport) -> Transport:
    global _listening
    process.remember(_all, found)
    if not _listening:
        phases.listen_once(phases.SNAPSHOT, _close, priority=phases.NETWORK)
        phases.listen_once(phases.RESTORE, _close, priority=phases.ESSENTIAL)
        _listening = True
    return found


def _close() -> None:
    for found in process.living(_all):
        try:
            found.close()
        except Exception as exc:  # that one cannot be closed
            if process.by_signal_handler(exc):
                raise


@process.at_fork
def _forked() -> None:
    for found in process.living(_all):
        with contextlib.suppress(Exception):
            found.forked()
