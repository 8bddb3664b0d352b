"""
`subscribe()`: have Lambda deliver its telemetry to this process.

    the internal extension is registered ─▶ the listener is up ─▶ PUT /telemetry

Guarantees
    A platform that has no Telemetry API, refuses, hangs or answers nonsense
    costs one log line and the telemetry, nothing else: INIT goes on, after
    `TIMEOUT_S` seconds at most, and no socket and no thread stay behind.
    The newest schema that the platform takes is used.
    Nothing of it is loaded or begun outside Lambda, or without a call.

When records arrive
    Lambda delivers while the environment runs, in batches, up to *timeout_ms* after a
    record was made.  Between invocations the environment is frozen, so what is
    made at the end of an invocation (its last log lines, ``platform.runtimeDone``
    and ``platform.report``) arrives during the next one, perhaps hours later, or
    while the environment ends.

Source: Telemetry API reference,
https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api-reference.html
"""

from __future__ import annotations

import json
import logging
import os

from .. import config, disclosure
from ..exceptions import ConfigurationError, ExtensionError
from ..lifecycle import (
    clock,
    current,
    extension,
    phases,
    process,
    real_threads,
    runtime_api,
    shutdown,
)
from . import dispatch, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .listener import Counters, Listener

API = "/2022-07-01"
SCHEMAS = ("2025-01-29", "2022-12-13", "2022-07-01")  # the newest first
HOST = "sandbox.localdomain"  # what AWS's documentation calls this environment
HOSTS_FILE = "/etc/hosts"
LOOPBACK = "127.0.0.1"
LAMBDAS_OWN_API = "127.0.0.1:9001"  # emulators choose other ports, or set less
TIMEOUT_S = 1.0  # for all of it; the platform answers within milliseconds
GRACE_S = 0.05  # at a shutdown, for the platform's last delivery to begin

# What AWS allows.  Source: "Buffering", the reference above.
MAX_ITEMS = (1_000, 10_000)
MAX_BYTES = (262_144, 1_048_576)
TIMEOUT_MS = (25, 30_000)

LOST = "records of telemetry"  # where nothing says that invocations or processes end
LOGS_DROPPED = b"platform.logsDropped"


class Status:
    """
    Where the subscription stands; a snapshot.

    *state* is "none" (not asked for, or not in Lambda, see *reason*), "subscribed",
    "unavailable" (the platform has no Telemetry API, or cannot be reached),
    "refused" (by Lambda), "unregistered" (this process is no extension, see
    *reason*) or "forked" (this is a child of the subscribed process).
    *schema* is the version of the records, *duration_s* what subscribing took.
    """

    __slots__ = ("duration_s", "error_type", "reason", "schema", "state", "types")

    def __init__(
        self,
        state: str = "none",
        *,
        reason: str = "",
        error_type: str = "",
        schema: str = "",
        types: tuple[str, ...] = (),
        duration_s: float = 0.0,
    ) -> None:
        self.state = state
        self.reason = reason
        self.error_type = error_type
        self.schema = schema
        self.types = types
        self.duration_s = duration_s

    def __repr__(self) -> str:
        """Show the state, and the reason when there is one."""
        reason = f" {self.reason!r}" if self.reason else ""
        return f"<telemetry.Status {self.state}{reason}>"


class _Refused(ExtensionError):
    """The platform's answer was not 200."""

    status = 0


_status = Status()
_asked: dict[str, Any] | None = None  # what `subscribe` was called with
_listener: Listener | None = None  # to which the platform delivers
_made: list[Listener] = []  # all whose thread may have begun
_lock = process.Lock()
dropped_by_platform = {"records": 0, "bytes": 0, "reports": 0}


def subscribe(
    *,
    platform: bool = True,
    function: bool = False,
    extension: bool = False,
    max_items: int = MAX_ITEMS[1],
    max_bytes: int = MAX_BYTES[0],
    timeout_ms: int = 1_000,
) -> Status:
    """
    Have Lambda deliver telemetry to what consumes it; say how that went.

    Call it once, at module scope: Lambda takes subscriptions during INIT only.  It
    registers the internal extension if need be, opens a port on loopback, and asks AWS
    once (a few milliseconds, for which the caller waits; a second at most).
    Where telemetry is not to be had, one line is logged and nothing is raised.
    Outside Lambda nothing happens.  On managed instances it belongs above
    `lambda_ext.handler`; what asks for work after the response (`after_response`), which
    may need to register for INVOKE, belongs above both.

    Args:
        platform: Records of the platform's: "platform.start", "platform.report", ...
        function: What the function logs and prints, this library's lines included:
            a consumer that logs or prints for each batch would never end.
        extension: What external extensions log.
        max_items: Records after which a batch is delivered, 1,000 to 10,000.
        max_bytes: Bytes after which it is delivered, 262,144 to 1,048,576.
        timeout_ms: Milliseconds after which it is delivered, 25 to 30,000.

    Raises:
        ConfigurationError: a limit is out of range, a kind of record is neither True
            nor False, none is wanted, or it was called before with other arguments.
        ExtensionError: an invocation has begun, so that INIT is over.

    Source: Telemetry API reference,
    https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api-reference.html
    """
    global _asked, _status
    wanted: dict[str, object] = {
        "platform": platform,
        "function": function,
        "extension": extension,
    }
    for name, chosen in wanted.items():
        if not isinstance(chosen, bool):  # "false" would count as true
            msg = f"subscribe({name}={disclosure.quoted(chosen)}): say True or False"
            raise ConfigurationError(msg)
    types = tuple(name for name, chosen in wanted.items() if chosen)
    if not types:
        msg = "subscribe() to nothing: say platform, function or extension=True"
        raise ConfigurationError(msg)
    buffering = {
        "maxItems": _within("max_items", max_items, MAX_ITEMS),
        "maxBytes": _within("max_bytes", max_bytes, MAX_BYTES),
        "timeoutMs": _within("timeout_ms", timeout_ms, TIMEOUT_MS),
    }
    asked = {"types": list(types), "buffering": buffering}
    if current.state().inside or phases.calls[phases.INVOKE]:
        msg = (
            "telemetry.subscribe() is too late: Lambda takes subscriptions during INIT"
            " only; call it at module scope, not in the handler"
        )
        raise ExtensionError(msg)
    with _lock:
        if _listener is not None and _status.state == "none":  # it was interrupted
            _status = _listener_status(_listener)
        if _asked is not None:
            if _asked != asked:
                msg = (
                    "telemetry.subscribe() was called before with other arguments:"
                    " call it once, with all that is wanted"
                )
                raise ConfigurationError(msg)
            return _status
        if not config.in_lambda():
            return Status(reason="outside Lambda")
        _asked = asked
        try:
            _status = _subscribed(asked)
        except BaseException:  # a signal handler's: the next call makes up for it
            if _listener is None:
                _asked = None
            raise
        return _status


def status() -> Status:
    """Return where the subscription stands."""
    return _status


def counters() -> Counters | None:
    """Return what has arrived, in numbers; None without a listener."""
    return None if _listener is None else _listener.counters


def _within(name: str, value: int, limits: tuple[int, int]) -> int:
    low, high = limits
    if type(value) is not int or not low <= value <= high:
        msg = f"{name}={disclosure.shown(value)}: Lambda takes a whole number from {low:,} to {high:,}"
        raise ConfigurationError(msg)
    return value


def _subscribed(asked: dict[str, Any]) -> Status:
    """Subscribe, and return how that went; logs what did not."""
    begun_at = clock.run_time()
    found: list[Status] = []

    def ask(identifier: str) -> None:
        found.append(_attempt(identifier, asked, begun_at))

    if "extension" in config.get("disable"):
        reason = 'the part "extension" is disabled, and only extensions may subscribe'
        return _unregistered(reason)
    # INIT ends, and takes no more subscriptions, when the runtime and all extensions
    # ask for what is next.  On a managed instance another worker may be the first.
    extension.register(between=ask)
    if not found and extension.identifier():  # it was registered before
        ask(extension.identifier())
    if not found:
        registration = extension.status()
        if registration.state == "forked":  # its parent has the telemetry
            return Status("forked", reason=registration.reason)
        return _unregistered(f"{registration.state}: {registration.reason}")
    (status,) = found
    status.duration_s = clock.run_time() - begun_at
    return status


def _attempt(identifier: str, asked: dict[str, Any], begun_at: float) -> Status:
    """Listen, and ask the platform to deliver."""
    global _listener
    try:
        made = _listen(asked["buffering"]["maxBytes"])
        made.types = tuple(asked["types"])
        made.schema = _put(identifier, asked, made, begun_at + TIMEOUT_S)
        phases.silence(phases.SHUTDOWN, _finish)
        phases.listen(phases.SHUTDOWN, _finish, priority=phases.EARLY)
        _listener = made
        shutdown.warn_unless_started(lambda: LOST if dispatch.consumers else "")
    except BaseException as exc:
        _listener = None
        _close_all()
        if not isinstance(exc, Exception) or process.by_signal_handler(exc):
            raise
        return _failure(exc)
    return _listener_status(made)


def _listener_status(listener: Listener) -> Status:
    return Status("subscribed", schema=listener.schema, types=listener.types)


def _close_all() -> None:
    """Close every listener that was made."""
    while _made:
        _made[-1].close()
        _made.pop()


def _listen(max_bytes: int) -> Listener:
    """Return a listener that accepts deliveries already."""
    from . import listener  # without a subscription there is nothing to listen to

    made = listener.Listener(
        _accept,
        path=f"/{records.OURS}/{os.urandom(16).hex()}",
        # "Up to twice maxBytes, and metadata" (the API's reference), and JSON takes
        # up to six characters for one.
        max_body=12 * max_bytes + 1_048_576,
        host=_own_address(),
        drops_path=extension.one_of_many(),  # AWS's code for managed instances does
    )
    # From here on `_close_all` finds it, also where a signal handler raises.
    _made.append(made)
    made.start()
    return made


def _own_address() -> str:
    """Return the address that `HOST` stands for in this environment."""
    try:
        with open(HOSTS_FILE, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as exc:
        if process.by_signal_handler(exc):
            raise
        lines = []
    for line in lines:
        address, *names = line.partition("#")[0].split() or ("",)
        if HOST in names and address.count(".") == 3:
            return address
    # In Lambda itself the name has an address, wherever it is defined.  An emulator
    # may not know it, and a resolver without a network takes seconds to say so.
    environ = os.environ
    is_lambda = environ.get("AWS_LAMBDA_RUNTIME_API") == LAMBDAS_OWN_API
    if is_lambda and environ.get("AWS_LAMBDA_INITIALIZATION_TYPE"):
        import _socket  # the listener loads it anyway

        try:
            return _socket.gethostbyname(HOST)
        except OSError:
            pass
    return LOOPBACK


def _put(
    identifier: str, asked: dict[str, Any], made: Listener, deadline_at: float
) -> str:
    """Subscribe with the newest schema that the platform takes; return which."""
    first: _Refused | None = None
    for schema in SCHEMAS:
        uri = f"http://{HOST}:{made.port}{made.path}"
        body = {
            "schemaVersion": schema,
            **asked,
            "destination": {"protocol": "HTTP", "URI": uri},
        }
        reply = runtime_api.call(
            os.environ.get("AWS_LAMBDA_RUNTIME_API", ""),
            "PUT",
            "/telemetry",
            {
                "Lambda-Extension-Identifier": identifier,
                "Content-Type": "application/json",
            },
            json.dumps(body).encode(),
            timeout_s=max(deadline_at - clock.run_time(), 0.001),
            version=API,
        )
        if reply.status == 200:
            return schema
        refusal = _refusal(reply)
        first = first or refusal
        # 400 is what an unknown schema gets, and any other mistake: the platform's
        # first words are then the ones that tell of it.
        if reply.status != 400:
            break
    assert first is not None
    raise first


def _refusal(reply: runtime_api.Reply) -> _Refused:
    """Return what the platform answered instead of 200, in its own words."""
    error_type = message = ""
    try:
        body = json.loads(reply.body)
        error_type = str(body.get("errorType") or "")
        message = str(body.get("errorMessage") or "")
    except (ValueError, AttributeError):
        # Not AWS's JSON, or AWS's own emulator's, which escapes no quotes.
        message = reply.body.decode(errors="replace").strip()
    msg = f"{message or 'no reason given'} (HTTP {reply.status})"
    refusal = _Refused(msg, error_type=error_type)
    refusal.status = reply.status
    return refusal


def _failure(exc: Exception) -> Status:
    """Log why the platform delivers nothing, once; return it as a status."""
    if isinstance(exc, _Refused):
        # 202 is "not supported" of AWS's own emulator; others have no such path.
        state = "refused" if exc.status in (400, 403) else "unavailable"
        error_type, reason = exc.error_type, str(exc)
    else:
        state, error_type = "unavailable", ""
        reason = f"{type(exc).__name__}: {exc}"
    disclosure.warn(f"telemetry_{state}", error_type=error_type or "-", reason=reason)
    return Status(state, reason=reason, error_type=error_type)


def _unregistered(reason: str) -> Status:
    """Log, once, that this process is no extension; return it as a status."""
    # Of a managed instance one worker is the extension, and has the telemetry.
    usual = extension.one_of_many()
    disclosure.log(
        logging.DEBUG if usual else logging.WARNING,
        "telemetry_unregistered",
        reason=reason,
    )
    return Status("unregistered", reason=reason)


def _accept(batch: records.Batch, size: int) -> None:
    """Take a batch from the listener."""
    if batch.contains(LOGS_DROPPED):
        for record in batch:
            if isinstance(record, records.LogsDropped):
                with _lock:
                    dropped_by_platform["reports"] += 1
                    dropped_by_platform["records"] += int(record.dropped_records or 0)
                    dropped_by_platform["bytes"] += int(record.dropped_bytes or 0)
    dispatch.dispatch(batch, size)


def _finish() -> None:
    """Wait for the platform's last delivery, and until consumers are done with it."""
    share_s = phases.share_s() * 0.8
    begun_at = clock.run_time()
    ends_at = begun_at + share_s
    waits_until = begun_at + min(GRACE_S, share_s)
    while True:
        now = clock.run_time()
        listener = _listener
        if listener is None and not dispatch.pending():
            return
        busy = listener is not None and listener.busy
        if now >= ends_at:
            return
        if not busy and now >= waits_until and not dispatch.pending():
            return
        real_threads.pause(0.002)


@process.at_fork
def _forked() -> None:
    """Leave the subscription to the parent."""
    global _listener, _status
    _listener = None
    for listener in _made:
        listener.let_go()
    _made.clear()
    if _status.state != "none":
        _status = Status("forked", reason="a child of the subscribed process")
    dropped_by_platform.update(dict.fromkeys(dropped_by_platform, 0))


@process.at_reset
def reset() -> None:
    """Forget the subscription, as if this were just imported."""
    global _asked, _listener, _status
    _asked, _listener, _status = None, None, Status()
    _close_all()
    dropped_by_platform.update(dict.fromkeys(dropped_by_platform, 0))
