"""
The internal extension: what makes Lambda send us SIGTERM at all.

Lambda kills an environment without extensions outright.  With one that is
registered, even for no event, SIGTERM comes first and leaves 300 to 500 ms.

Guarantees
    `register` is synchronous, for registration closes when the handler module
    has been imported and a thread would lose that race.  It takes about 1 ms,
    and a second at most: an Extensions API that refuses, hangs, is absent or
    answers nonsense costs one log line and the shutdown hook, nothing else.
    After a 200 the one ``/event/next`` is sent before `register` returns, for
    Lambda waits for it before INIT ends.  It never gets an
    answer, because we subscribe to no event; it is never repeated, and a daemon
    thread stays blocked in recv().  One exception: `on_event`.
    ``/init/error`` and ``/exit/error`` are never called: with the process
    alive they hang the environment.

The name
    Names are unique in an environment.  Where ours is taken, another process, or
    another import of this library, has registered it, and SIGTERM comes because of
    that registration: so it is for all workers of a managed instance but one.  Other
    processes that `multiprocessing` starts do not try to register, since their parent
    has.  A file of our name in /opt/extensions is an external extension: registering
    would act in its name, so it is left out.

Source: Lambda Extensions API,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import json
import logging
import os

from .. import config, disclosure
from ..exceptions import ExtensionError
from . import clock, phases, process, real_threads, runtime_api, shutdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Any

NAME = "lambda_ext"
FOLDER = "/opt/extensions"
TIMEOUT_S = 1.0  # for the whole registration; AWS answers within 1 ms

TOO_LATE = "Extension.RegistrationClosed"


class Status:
    """
    Where the registration stands; a snapshot.

    *state* is "none" (not tried, see *reason*), "registered", "shared" (an extension of
    our name is, which serves as well), "refused" (by Lambda), "unreachable",
    "ended" (``/event/next`` was answered, which it should never be) or
    "forked" (this is a child of the registered process).  *error_type* is
    AWS's, "" where it has none; *duration_s* what registering took, in
    seconds.
    """

    __slots__ = ("duration_s", "error_type", "name", "reason", "state")

    def __init__(
        self,
        state: str = "none",
        *,
        reason: str = "",
        error_type: str = "",
        duration_s: float = 0.0,
    ) -> None:
        self.name = NAME
        self.state = state
        self.reason = reason
        self.error_type = error_type
        self.duration_s = duration_s

    def __repr__(self) -> str:
        """Show the state, and the reason when there is one."""
        reason = f" {self.reason!r}" if self.reason else ""
        return f"<extension.Status {self.state}{reason}>"


# Called with each event.  Where it is set, the extension subscribes to INVOKE, and
# Lambda waits for it in each invocation.  Only `deferred` sets it, where the runtime
# client does not tell when an answer was posted.
on_event: Callable[[dict[str, Any]], object] | None = None

_registering = process.Lock()
_status = Status()
_connection: socket | None = None
_identifier = ""  # AWS's, of this registration


def status() -> Status:
    """Return where the registration stands."""
    if _status.state != "none":
        return _status
    if config.in_lambda() and phases.is_child_of_multiprocessing():
        return Status("forked", reason=phases.CHILD)
    return Status(reason=config.why_not("extension"))


def identifier() -> str:
    """Return what AWS knows this extension by; "" unless this process registered."""
    return _identifier


def register(between: Callable[[str], object] | None = None) -> None:
    """
    Register with the Extensions API, once per process; never raises.

    *between* is called, if this call registers, with AWS's identifier and before
    ``/event/next`` is sent: INIT cannot end meanwhile, so that what AWS takes during INIT
    only (a subscription to telemetry) is not too late.  What it raises is raised when
    the registration is complete.
    """
    if _status.state == "none":
        with _registering:
            _register(between)


def _register(between: Callable[[str], object] | None) -> None:
    """Do as `register`, one thread at a time."""
    global _status, on_event
    if _status.state != "none":
        return
    if phases.is_child_of_multiprocessing():
        _status = Status("forked", reason=phases.CHILD)
        return
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API", "")
    if on_event is not None and not _has_thread():
        on_event = None
    begun_at = clock.run_time()
    raised: BaseException | None = None
    try:
        raised = _join(address, between)
    except ExtensionError as exc:
        shared = _is_shared(exc.error_type)
        advice = shutdown.ADVICE if exc.error_type == TOO_LATE and not shared else ""
        _status = Status(
            "shared" if shared else "refused",
            reason=f"{exc}{advice}",
            error_type=exc.error_type,
        )
    except Exception as exc:
        if process.by_signal_handler(exc):
            raise
        _status = Status("unreachable", reason=f"{type(exc).__name__}: {exc}")
    else:
        _status = Status("registered")
    _status.duration_s = clock.run_time() - begun_at
    if _status.state == "registered":
        _park()
    else:
        _report(_status)
    if raised is not None:
        raise raised


def _join(
    address: str, between: Callable[[str], object] | None
) -> BaseException | None:
    """Register, ask for the event that never comes; return what *between* raised."""
    global _connection, _identifier
    if os.path.lexists(os.path.join(FOLDER, NAME)):
        # What AWS would answer, had the file registered before us.
        msg = f"{FOLDER}/{NAME} is an external extension of the same name"
        raise ExtensionError(msg, error_type="Extension.InvalidExtensionState")
    reply = runtime_api.call(
        address,
        "POST",
        "/extension/register",
        {"Lambda-Extension-Name": NAME, "Content-Type": "application/json"},
        b'{"events":[]}' if on_event is None else b'{"events":["INVOKE"]}',
        timeout_s=TIMEOUT_S,
    )
    _check(reply)
    found = reply.headers.get("lambda-extension-identifier", "")
    if not found:
        msg = "the answer names no Lambda-Extension-Identifier"
        raise runtime_api.ProtocolError(msg)
    _identifier = found
    raised: BaseException | None = None
    try:
        if between is not None:
            between(found)
    except BaseException as exc:  # INIT waits for what follows
        raised = exc
    _connection = _ask_for_next(address, found)
    return raised


def _ask_for_next(address: str, identifier: str) -> socket:
    """Send the request for the next event, and return the connection."""
    return runtime_api.send(
        address,
        "GET",
        "/extension/event/next",
        {"Lambda-Extension-Identifier": identifier},
        timeout_s=TIMEOUT_S,
    )


def _check(reply: runtime_api.Reply) -> None:
    """Raise what AWS answered instead of 200, in its own words."""
    if reply.status == 200:
        return
    error_type = message = ""
    try:
        body = json.loads(reply.body)
        error_type = str(body.get("errorType", ""))
        message = str(body.get("errorMessage", ""))
    except (ValueError, AttributeError):
        pass  # not AWS's JSON; the status says it
    msg = f"{message or 'no reason given'} (HTTP {reply.status})"
    raise ExtensionError(msg, error_type=error_type)


def _has_thread() -> bool:
    """Say whether a thread can be started: without one, no event would be answered."""
    try:
        real_threads.start("lambda_ext_extension", lambda: None, is_quiet=True)
    except RuntimeError as exc:
        if process.by_signal_handler(exc):
            raise
        return False
    return True


def _park() -> None:
    """Wait for the event that never comes, so that its refusal is noticed."""
    connection = _connection
    assert connection is not None
    try:
        real_threads.start(
            "lambda_ext_extension", lambda: _wait(connection), is_quiet=True
        )
    except RuntimeError as exc:  # none to spare: the request stands all the same
        if process.by_signal_handler(exc):
            raise


def _wait(connection: socket) -> None:
    """Read the answer to ``/event/next``; it ends with the process."""
    global _connection, _status
    reason, error_type = "Lambda sent an event that was not asked for", ""
    try:
        while True:
            reply = runtime_api.receive(connection, deadline_at=None)
            real_threads.introduce()
            _check(reply)
            if on_event is None or connection is not _connection:
                break
            _tell(reply.body)
            address = os.environ.get("AWS_LAMBDA_RUNTIME_API", "")
            following = _ask_for_next(address, _identifier)
            runtime_api.hang_up(connection)
            connection = _connection = following
    except ExtensionError as exc:
        reason, error_type = str(exc), exc.error_type
    except Exception as exc:
        reason, error_type = f"{type(exc).__name__}: {exc}", ""
    if connection is not _connection:
        return  # reset, or a fork of another thread
    duration_s = _status.duration_s
    _status = Status(
        "ended", reason=reason, error_type=error_type, duration_s=duration_s
    )
    if error_type:  # a refusal; else the API has gone, and so shall we
        _report(_status)


def _tell(body: bytes) -> None:
    """Call `on_event` with an event; Lambda waits until the next one is asked for."""
    try:
        event = json.loads(body)
        if on_event is not None and isinstance(event, dict):
            on_event(event)
    except Exception:
        disclosure.failure("listener_failed", phase="event", listener="on_event")


def _is_shared(error_type: str) -> bool:
    """Say whether *error_type* means that an extension of our name is registered."""
    if error_type == TOO_LATE:
        return one_of_many()  # closed by the first worker, who has registered
    return error_type == "Extension.InvalidExtensionState"


def one_of_many() -> bool:
    """Say whether this is a worker of a managed instance: one of N registers."""
    return bool(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY"))


def _report(found: Status) -> None:
    """Log, once, why there may be no SIGTERM."""
    as_it_should_be = found.state == "shared" and one_of_many()
    level = logging.DEBUG if as_it_should_be else logging.WARNING
    disclosure.log(
        level,
        f"extension_{found.state}",
        name=found.name,
        error_type=found.error_type or "-",
        reason=found.reason,
    )


@process.at_fork
def _forked() -> None:
    """Let go of the parent's connection; it stays open in the parent."""
    global _connection, _identifier, _status
    if _connection is not None:
        _connection.close()
        _connection = None
    _identifier = ""
    if _status.state != "none":
        _status = Status("forked", reason="a child of the registered process")


@process.at_reset
def reset() -> None:
    """Forget the registration, as if this were just imported."""
    global _connection, _identifier, _status, on_event
    connection, _connection = _connection, None
    _identifier = ""
    _status = Status()
    on_event = None
    if connection is not None:
        runtime_api.hang_up(connection)
