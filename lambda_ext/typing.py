"""The protocols that a user may implement, and names for annotations."""

from __future__ import annotations

from typing import Literal, Protocol

from .answer import Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import Any

__all__ = ("Answer", "Batch", "Clock", "Point", "Request", "Sink", "Source", "Unit")

# CloudWatch's units, all of them.  Source: PutMetricData, MetricDatum
Unit = Literal[
    "Seconds", "Microseconds", "Milliseconds",
    "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes",
    "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count",
    "Bytes/Second", "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second",
    "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second",
    "Gigabits/Second", "Terabits/Second", "Count/Second", "None",
]  # fmt: skip


class Clock(Protocol):
    """Two clocks, in seconds; `lambda_ext.testing.FakeClock` is one."""

    def monotonic(self) -> float:
        """Return run time: never goes back, may stop during a freeze."""
        ...

    def wall(self) -> float:
        """Return wall time since the epoch: may step either way."""
        ...


class Point(Protocol):
    """One series of a `Batch`: a metric with its dimensions and new values."""

    @property
    def kind(self) -> str:
        """ "count" (values are increments), "gauge" or "distribution"."""
        ...

    @property
    def name(self) -> str:
        """The metric's name."""
        ...

    @property
    def unit(self) -> str:
        """One of CloudWatch's units; "None" for none."""
        ...

    @property
    def resolution(self) -> int:
        """Seconds that CloudWatch keeps apart: 60, or 1 for high resolution."""
        ...

    @property
    def dimensions(self) -> tuple[tuple[str, str], ...]:
        """Names and values, each name once."""
        ...

    @property
    def values(self) -> Sequence[float]:
        """A counter's sum, a gauge's last value, or each of a distribution."""
        ...

    @property
    def samples(self) -> int:
        """How many records are in *values*."""
        ...


class Batch(Protocol):
    """What one flush hands to one sink."""

    @property
    def namespace(self) -> str:
        """CloudWatch's namespace."""
        ...

    @property
    def at(self) -> float:
        """When it was flushed: wall time in seconds since the epoch."""
        ...

    @property
    def points(self) -> Sequence[Point]:
        """What is new since the last flush."""
        ...

    @property
    def properties(self) -> Mapping[str, Any]:
        """What is said beside the metrics and is no dimension: a request id."""
        ...


class Sink(Protocol):
    """
    Where metrics go; `lambda_ext.testing.MemorySink` is one.

    `accept` is called by the thread that flushes, by one at a time, and at
    SIGTERM with less than 300 ms left.  A flush of many metrics calls it
    several times.  What it raises is logged once, and never raised into the
    handler; the batch is lost then, and counted.  When a signal handler of the
    user's raises while `accept` runs, that exception ends the call, and the
    same batch object is offered again: a sink that has it already ignores it.
    A sink that keeps what it could not deliver has a true attribute
    ``backlog``: then the next flush calls it even if nothing was recorded,
    with no points.
    """

    def accept(self, batch: Batch, /) -> None:
        """
        Take *batch*, which belongs to the sink from now on.

        So do its points, their values and the dictionary of its properties: other
        sinks have their own.
        """
        ...


class Request(Protocol):
    """What is asked of a `Source`: hashable, and equal if the answer is."""

    @property
    def operation(self) -> str:
        """ "GetSecretValue", "GetParameter" or "GetParametersByPath"."""
        ...

    @property
    def name(self) -> str:
        """A name or an ARN, without a version; or a path."""
        ...

    @property
    def version(self) -> str | None:
        """The id of a secret's version, or the number of a parameter's."""
        ...

    @property
    def stage(self) -> str | None:
        """
        A secret's version stage, or a parameter's label.

        None where none was given: without *version*, too, the current one.
        """
        ...

    @property
    def decrypt(self) -> bool:
        """Whether a SecureString is to be decrypted; True for secrets."""
        ...

    @property
    def recursive(self) -> bool:
        """Whether a path means all levels below it."""
        ...

    @property
    def label(self) -> str:
        """The request as it reads in a message."""
        ...


class Source(Protocol):
    """
    Where values come from; `lambda_ext.testing.FakeSource` is one.

    Called by any number of threads at once, never with a lock held.  Caching,
    freshness, one load per key and stale values are the loader's business: a
    source asks, and says what it was told.  It needs no import but
    `lambda_ext.typing.Answer` and `lambda_ext.exceptions.SourceError`.

    One that must not be asked in INIT has a false attribute ``at_init``: then
    what is declared is loaded by its first read.  One whose calls are the
    caller's own has a false attribute ``repeats``: it is not asked once more
    after a freeze, and what is not to be kept goes to the caller of its call
    only.
    """

    @property
    def name(self) -> str:
        """What errors, log lines and statistics call it: "vault"."""
        ...

    @property
    def scope(self) -> Hashable:
        """What its answers depend on besides the request: an address, whose
        credentials, a file.  Part of every key, so two sources differ in it
        unless they answer alike.  Read once."""
        ...

    def plan(self, wanted: Sequence[Any], /) -> Iterable[Sequence[Any]]:
        """Divide the requests *wanted* into calls of `fetch`, each in one."""
        ...

    def fetch(
        self, wanted: Sequence[Any], timeout_s: float | None, /
    ) -> Mapping[Any, Any]:
        """
        Return, for each of *wanted*, an `Answer` or a `SourceError`.

        May take *timeout_s* seconds, None for its own limit.  A `SourceError`
        that is raised is the outcome of all; its ``transient`` decides whether
        an old value may serve instead.  Requests that are left out are asked
        for one by one, each in a call of its own; those that were not asked
        for may be answered along with them.
        """
        ...
