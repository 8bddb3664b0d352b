"""The protocols that a user may implement, and names for annotations."""

from __future__ import annotations

from typing import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Batch", "Clock", "Point", "Sink")


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


class Sink(Protocol):
    """
    Where metrics go; `lambda_ext.testing.MemorySink` is one.

    `accept` is called by whoever flushes, possibly by two threads at once, and
    at SIGTERM with less than 300 ms left.  What it raises is counted and
    logged once, never felt by the handler; the batch is lost then.  A sink
    that keeps what it could not deliver has a true attribute ``backlog``: then
    the next flush calls it even if nothing was recorded, with no points.
    """

    def accept(self, batch: Batch, /) -> None:
        """Take *batch*, which belongs to the sink from now on."""
        ...
