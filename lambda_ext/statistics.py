"""
`stats()`: what this library has done so far, as one typed object.

Every number is a plain counter since the process began, or since `fork`; none
of them holds a value of yours.  Reading them calls nobody and waits for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from .aws import transport
from .lifecycle import clock, extension, phases, shutdown
from .metrics import recorder
from .values import counters, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Registration:
    """Whether Lambda knows this process as an extension, and why not."""

    state: str  # "registered", "shared", "refused", "unreachable", "none", ...
    reason: str  # in words; "" when registered
    error_type: str  # AWS's, such as "Extension.RegistrationClosed"; else ""
    duration_s: float  # what registering took


@dataclass(frozen=True)
class Shutdown:
    """How SIGTERM is seen, and what became of the end."""

    path: str  # "wakeup_fd", "chained" (somebody else's is served too) or "off"
    reason: str  # why it is "off"; "" when it is not
    begun: str | None  # "sigterm", "exit", or None while we live
    abandoned: int  # listeners that used up their share of the budget


@dataclass(frozen=True)
class Phase:
    """How often a phase began, and how many of its listeners raised."""

    calls: int
    failures: int


@dataclass(frozen=True)
class Lifecycle:
    """The clockwork."""

    invocations: int
    generation: int  # changes whenever the process may have been frozen
    registration: Registration
    shutdown: Shutdown
    phases: Mapping[str, Phase]


@dataclass(frozen=True)
class Metrics:
    """Records taken, and those that never became a line, by reason."""

    recorded: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Way:
    """How a service of AWS is reached, and why that way."""

    name: str  # "light" or "boto3"
    reason: str


@dataclass(frozen=True)
class Statistics:
    """What this library has done so far in this process."""

    lifecycle: Lifecycle
    values: counters.Snapshot
    metrics: Metrics
    transport: Mapping[str, Way]


def stats() -> Statistics:
    """
    Return what this library has done so far in this process.

    Calls nobody and waits for nobody; the object does not change afterwards.
    It holds names and numbers, never a value, so it can be logged as it is.
    """
    registered = extension.status()
    end = shutdown.status()
    recorded = recorder.snapshot()
    return Statistics(
        lifecycle=Lifecycle(
            invocations=phases.calls[phases.INVOKE],
            generation=clock.generation,
            registration=Registration(
                state=registered.state,
                reason=registered.reason,
                error_type=registered.error_type,
                duration_s=registered.duration_s,
            ),
            shutdown=Shutdown(
                path=end.path,
                reason=end.reason,
                begun=end.begun,
                abandoned=end.abandoned,
            ),
            phases={
                phase: Phase(phases.calls[phase], phases.failures[phase])
                for phase in phases.PHASES
            },
        ),
        values=store.snapshot(),
        metrics=Metrics(recorded["recorded"], recorded["dropped"]),
        transport={
            service: Way(name, reason)
            for service, (name, reason) in transport.status().items()
        },
    )
