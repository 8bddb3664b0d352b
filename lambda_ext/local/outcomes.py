"""What the emulator takes and gives back: budgets, lines, calls, reports."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


OBSERVER = "observer"  # the source of what the function's process tells of itself


class EmulatorError(RuntimeError):
    """The emulator cannot do what it was asked; says what is needed."""


@dataclass(frozen=True)
class Budgets:
    """
    How long each phase may take, in seconds.

    Args:
        init_s:
            Init.  None means Lambda's own limit: 10 on demand, otherwise the
            larger of 130 and the function's time-out.

        restore_s: SnapStart, from the restore to the runtime's ``/next``.

        internal_s:
            Shutdown with internal extensions only: all of it is the runtime's.
            Also the runtime's share when there are external ones as well.

        external_s: Shutdown with external extensions, the runtime's share in it.

        external_share_s: The runtime's share if all extensions are external.

        instances_share_s: The runtime's share on Lambda Managed Instances.

        share:
            A fraction of the whole that is the runtime's share, with any kind of
            extension, as in the code that Lambda runs (0.3).  None means the
            documented shares above.

    Source: "Shutdown phase",
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
    """

    init_s: float | None = None
    restore_s: float = 10.0
    internal_s: float = 0.5
    external_s: float = 2.0
    external_share_s: float = 0.3
    instances_share_s: float = 0.6
    share: float | None = None

    def init(self, init_type: str, timeout_s: float) -> float:
        """Return how many seconds Init may take."""
        if self.init_s is not None:
            return self.init_s
        return 10.0 if init_type == "on-demand" else max(130.0, timeout_s)

    def shutdown(
        self, *, internal: bool, external: bool, instances: bool
    ) -> tuple[float, float]:
        """Return the Shutdown phase and the runtime's share of it, in seconds."""
        if not (internal or external):
            return 0.0, 0.0
        if instances:
            total, share = self.external_s, self.instances_share_s
        elif external:
            total = self.external_s
            share = self.internal_s if internal else self.external_share_s
        else:
            total = share = self.internal_s
        if self.share is not None:
            share = self.share * total
        return total, min(share, total)


@dataclass(frozen=True)
class Settings:
    """What stays the same from one environment to the next."""

    command: list[str]
    task_root: str
    variables: dict[str, str]
    function_name: str
    region: str
    handler: str
    timeout_s: float
    init_type: str
    budgets: Budgets
    freeze: bool
    term_before_thaw: bool
    extensions_dir: str | None
    max_concurrency: int | None
    observed: bool = False
    telemetry: bool = True
    redeliver: int = 0


@dataclass(frozen=True)
class Line:
    """One line that a process of the environment wrote."""

    source: str  # "stdout" or "stderr" of the runtime, or an extension's name
    text: str  # without the line end; what is not UTF-8 is escaped
    at: float  # seconds since the emulator was made
    request_id: str | None = None  # the invocation under way, or the last one
    complete: bool = True  # False: the process ended before the line did


@dataclass(frozen=True)
class Seen:
    """What the observer in the function's process told, see `observer`."""

    kind: str  # "import", "warning" or "end"
    at: float  # seconds since the emulator was made
    what: Mapping[str, Any]

    @property
    def text(self) -> str:
        """What the library logged; "" where it is no warning."""
        return str(self.what.get("text", ""))


@dataclass
class Call:
    """One request to the Runtime or Extensions API."""

    method: str
    path: str
    at: float  # seconds since the emulator was made
    agent: str | None = None  # the extension that called, if one did
    status: int | None = None  # None: parked, or dropped without an answer


@dataclass(frozen=True)
class Signal:
    """A signal that the emulator sent to a process group."""

    name: str  # SIGTERM, SIGKILL
    to: str  # "runtime", or an extension's name


@dataclass(frozen=True)
class Exit:
    """The end of a process, as the kernel tells it."""

    source: str  # "runtime", or an extension's name
    status: int | None  # negative: the signal that ended it


@dataclass(frozen=True)
class Registration:
    """One extension, as it registered."""

    name: str
    events: tuple[str, ...]
    internal: bool
    state: str  # Started, Registered, Ready, Running, InitError or ExitError
    error_type: str | None = None
    telemetry: tuple[str, ...] = ()  # the types of records that it subscribed to


@dataclass(frozen=True)
class Subscription:
    """What an extension wants of the Telemetry API."""

    name: str  # the extension's
    types: tuple[str, ...]
    schema: str  # the version of the records


@dataclass(frozen=True)
class Delivery:
    """One POST of telemetry to an extension, when it was answered."""

    name: str  # the extension's
    records: int
    bytes: int
    sequence_id: str
    status: int | None  # None: there was no answer
    at: float  # seconds since the emulator was made

    @property
    def taken(self) -> bool:
        """Whether it was answered with 200; else it is delivered again."""
        return self.status == 200


@dataclass(frozen=True)
class InitReport:
    """How one Init went."""

    status: str  # success, error (the runtime said so), failure (crash), timeout
    phase: str  # init, invoke (inside an invocation), snap-start
    init_type: str
    duration_s: float
    error_type: str | None = None
    error_payload: bytes | None = None  # what was posted to /runtime/init/error

    @property
    def error(self) -> Any:
        """What the runtime posted as its error, as JSON; None without one."""
        return _json(self.error_payload)


@dataclass(frozen=True)
class RestoreReport:
    """How one restore from a snapshot went."""

    status: str  # success, error, failure, timeout
    duration_s: float
    error_type: str | None = None
    error_payload: bytes | None = None

    @property
    def error(self) -> Any:
        """What the runtime posted as its error, as JSON; None without one."""
        return _json(self.error_payload)


@dataclass(frozen=True)
class Invocation:
    """The answer to one invocation, as its caller gets it."""

    request_id: str
    status: str  # success, error (the handler raised), timeout, failure
    payload: bytes
    duration_s: float  # until the answer; without Init, unless that was inside
    error_type: str | None = None
    init: InitReport | None = None  # the Init that this invocation brought about
    restore: RestoreReport | None = None
    content_type: str | None = None

    @property
    def value(self) -> Any:
        """The payload as JSON."""
        return json.loads(self.payload)


@dataclass(frozen=True)
class ExtensionEnd:
    """How one external extension ended."""

    name: str
    notified: bool  # it took the SHUTDOWN event
    exit_status: int | None  # negative: the signal that ended it
    killed: bool  # it was still there at the end of the phase


@dataclass(frozen=True)
class Shutdown:
    """How one environment ended."""

    reason: str  # spindown, timeout, failure
    budget_s: float
    share_s: float  # the runtime's share of the budget
    exit_status: int | None  # of the runtime; negative: a signal; None: no process
    signalled: bool  # it was sent SIGTERM
    killed: bool  # it had not ended by itself within its share
    duration_s: float  # from the signal to the runtime's end
    extensions: tuple[ExtensionEnd, ...] = field(default=())


def _json(payload: bytes | None) -> Any:
    """Return *payload* as JSON, None if it is none."""
    try:
        return json.loads(payload or b"null")
    except ValueError:
        return None
