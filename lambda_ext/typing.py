"""The protocols that a user may implement, and names for annotations."""

from __future__ import annotations

from typing import Protocol

__all__ = ("Clock",)


class Clock(Protocol):
    """Two clocks, in seconds; `lambda_ext.testing.FakeClock` is one."""

    def monotonic(self) -> float:
        """Return run time: never goes back, may stop during a freeze."""
        ...

    def wall(self) -> float:
        """Return wall time since the epoch: may step either way."""
        ...
