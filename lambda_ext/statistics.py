"""
`stats()`: what this library has done so far, as one typed object.

Every number is a plain counter since the process began, or was forked; none of
them holds a value of yours.  Reading them calls nothing, and takes no lock that is
held for long.

The states of the extension and of the shutdown are the `Status` objects of these
modules.  What goes on counting (sinks, consumers, routes) is copied into objects that
do not change.
"""

from __future__ import annotations

import sys

# All of it: `dataclasses` looks into what another thread has only begun to import.
import typing  # noqa: F401
from dataclasses import dataclass

from .aws import transport
from .lifecycle import clock, extension, phases, shutdown
from .metrics import recorder
from .values import counters, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


@dataclass(frozen=True)
class Phase:
    """How often a phase began, and what its listeners did."""

    calls: int
    failures: int  # listeners that raised
    abandoned: int  # listeners that took longer than their share of the time


@dataclass(frozen=True)
class Lifecycle:
    """Where this process stands in the life of its execution environment."""

    invocations: int
    generation: int  # changes whenever the process may have been frozen
    registration: extension.Status  # whether Lambda knows us as an extension
    shutdown: shutdown.Status  # how SIGTERM is seen, and what became of the end
    phases: Mapping[str, Phase]


@dataclass(frozen=True)
class Sink:
    """What became of the records that a sink was to have."""

    sent: int  # delivered
    dropped: int  # never to be delivered
    pending: int  # that wait for the sink, or in it
    error: str  # the last one; "" for none


@dataclass(frozen=True)
class Metrics:
    """Records taken, and those that never became a line, by reason and name."""

    recorded: int
    replayed: int  # left out: a durable function had made them before
    dropped: Mapping[str, int]
    dropped_by_name: Mapping[str, Mapping[str, int]]  # reason -> name -> records
    sinks: Mapping[str, Sink]  # by name


@dataclass(frozen=True)
class Flags:
    """Polls of AppConfig, and flags for which a default was served, by name."""

    polls: int  # calls of GetLatestConfiguration
    sessions: int  # calls of StartConfigurationSession
    unchanged: int  # polls that AppConfig answered without a document
    too_early: int  # polls that AppConfig did not want yet
    renewed: int  # sessions whose token was refused, and that began anew
    broken: int  # documents that could not be read and replaced no good one
    defaults: Mapping[str, int]


@dataclass(frozen=True)
class Deferred:
    """Calls that were deferred until after a response."""

    queued: int  # all that were accepted
    done: int
    failed: int  # that raised
    waiting: int
    left_behind: int  # times that an environment went on without the work
    dropped: int  # for which there was no room, or no time at the end


@dataclass(frozen=True)
class Consumer:
    """What became of telemetry for one consumer."""

    batches: int  # consumed
    records: int  # in them
    failures: int  # batches that it raised for
    dropped: int  # records for which there was no room
    pending: int  # batches that wait, or are being consumed
    error: str  # class and place of what it raised last; "" for none


@dataclass(frozen=True)
class Route:
    """What became of the records of a `telemetry.route`."""

    taken: int  # for which its predicates held, or raised
    handed: int  # that its sink has taken over
    waiting: int  # for the sink
    dropped: Mapping[str, int]  # that the sink never gets, by reason
    sent: int | None  # that the sink has delivered, of all its routes; None: unknown
    lost: Mapping[str, int]  # that the sink will not deliver, by reason
    pending: int  # that wait in the sink
    abandoned: int  # calls of the sink that took longer than their time
    error: str  # the last one; "" for none


@dataclass(frozen=True)
class Telemetry:
    """What Lambda's Telemetry API has delivered."""

    state: str  # "none", "subscribed", "unavailable", "refused", ...
    reason: str
    schema: str  # the version of the records; "" without a subscription
    batches: int  # accepted
    bytes: int  # of them
    redelivered: int  # batches that came again, and were not accepted again
    refused: int  # requests that were no deliveries
    malformed: int  # elements of batches that were no records
    dropped_by_platform: Mapping[str, int]  # as platform.logsDropped tells
    consumers: Mapping[str, Consumer]  # by name
    routes: Mapping[str, Route]  # by name


@dataclass(frozen=True)
class Calls:
    """What became of the calls of one operation by cached boto3 clients."""

    hits: int  # answered from memory
    misses: int  # answered by a call for which the caller waited
    passed: int  # answered by the client's own method; nothing of it is kept
    stored: int  # answers from the wire that were kept, refreshes included
    invalidated: int  # values that a write dropped


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
    flags: Flags
    telemetry: Telemetry
    deferred: Deferred
    clients: Mapping[str, Calls]  # by operation, such as "GetSecretValue"
    transport: Mapping[str, Way]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as dictionaries, text and numbers, as JSON takes them."""
        found = _plain(self)
        assert isinstance(found, dict)
        return found


def _plain(part: object) -> Any:
    """Return *part* as JSON takes it."""
    if isinstance(part, dict):
        return {str(name): _plain(each) for name, each in part.items()}
    if isinstance(part, (list, tuple)):
        return [_plain(each) for each in part]
    names = getattr(part, "__dataclass_fields__", None) or getattr(
        type(part), "__slots__", None
    )
    if names is None:
        return part
    return {name: _plain(getattr(part, name)) for name in names}


def stats() -> Statistics:
    """
    Return what this library has done so far in this process.

    Makes no call to AWS and waits for none; the object does not change afterwards.
    It holds names and numbers, never a value, so it can be logged as it is.
    """
    recorded = recorder.snapshot()
    return Statistics(
        lifecycle=Lifecycle(
            invocations=phases.calls[phases.INVOKE],
            generation=clock.generation,
            registration=extension.status(),
            shutdown=shutdown.status(),
            phases={
                phase: Phase(
                    phases.calls[phase], phases.failures[phase], phases.abandoned[phase]
                )
                for phase in phases.PHASES
            },
        ),
        values=store.snapshot(),
        metrics=Metrics(
            recorded["recorded"],
            recorded["replayed"],
            recorded["dropped"],
            recorded["dropped_by_name"],
            {
                name: Sink(sink.sent, sink.dropped, sink.pending, sink.error)
                for name, sink in recorded["sinks"].items()
            },
        ),
        flags=_flags(),
        telemetry=_telemetry(),
        deferred=_deferred(),
        clients=_clients(),
        transport={
            service: Way(name, reason)
            for service, (name, reason) in transport.status().items()
        },
    )


def _flags() -> Flags:
    # What was never imported has done nothing.
    session = sys.modules.get(f"{__package__}.flags.session")
    flags = sys.modules.get(f"{__package__}.flags.flags")
    counted = None if session is None else session.counters
    names = ("polls", "sessions", "unchanged", "too_early", "renewed", "broken")
    return Flags(
        **{name: getattr(counted, name, 0) for name in names},
        defaults={} if flags is None else dict(flags.defaulted),
    )


def _telemetry() -> Telemetry:
    # What was never imported has done nothing.
    package = f"{__package__}.telemetry"
    subscription = sys.modules.get(f"{package}.subscription")
    dispatch = sys.modules.get(f"{package}.dispatch")
    records = sys.modules.get(f"{package}.records")
    status = None if subscription is None else subscription.status()
    counted = None if subscription is None else subscription.counters()
    names = ("batches", "bytes", "redelivered", "refused")
    return Telemetry(
        state=getattr(status, "state", "none"),
        reason=getattr(status, "reason", ""),
        schema=getattr(status, "schema", ""),
        **{name: getattr(counted, name, 0) for name in names},
        malformed=0 if records is None else records.counted["malformed"],
        dropped_by_platform=(
            {"reports": 0, "records": 0, "bytes": 0}
            if subscription is None
            else dict(subscription.dropped_by_platform)
        ),
        consumers=(
            {}
            if dispatch is None
            else {
                status.name: Consumer(
                    status.batches,
                    status.records,
                    status.failures,
                    status.dropped,
                    status.pending,
                    status.error,
                )
                for status in dispatch.status()
            }
        ),
        routes=_routes(),
    )


def _routes() -> dict[str, Route]:
    routes = sys.modules.get(f"{__package__}.telemetry.routes")
    found = {} if routes is None else routes.statuses()
    names = Route.__dataclass_fields__
    return {
        name: Route(**{each: getattr(status, each) for each in names})
        for name, status in found.items()
    }


def _deferred() -> Deferred:
    # What was never imported has done nothing.
    deferred = sys.modules.get(f"{__package__}.lifecycle.deferred")
    names = ("queued", "done", "failed", "left_behind", "dropped")
    counted = dict.fromkeys(names, 0) if deferred is None else deferred.counters
    return Deferred(**counted, waiting=0 if deferred is None else deferred.waiting())


def _clients() -> dict[str, Calls]:
    tallies = sys.modules.get(f"{__package__}.dropin.tallies")
    counted = {} if tallies is None else tallies.counters()
    return {operation: Calls(**numbers) for operation, numbers in counted.items()}
