"""
What became of the records that sinks were to have, as numbers.

Loaded by what asks for them: `Metrics.flush`, `stats()`, a test.
"""

from __future__ import annotations

from ..disclosure import words
from ..sink_numbers import losses, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .buffer import Buffer, Outlet
    from .parcels import Parcel


class Status:
    """
    What became of the records that a sink was to have.

    Attributes:
        sent: Records that it has delivered.
        dropped: Records that it will not deliver.
        pending: Records that wait for it, or in it.
        error: What went wrong the last time; "" for nothing.
    """

    __slots__ = ("dropped", "error", "pending", "sent")

    def __init__(self, sent: int, dropped: int, pending: int, error: str) -> None:
        self.sent = sent
        self.dropped = dropped
        self.pending = pending
        self.error = error

    def __repr__(self) -> str:
        return (
            f"<Status sent={self.sent} dropped={self.dropped}"
            f" pending={self.pending} error={self.error!r}>"
        )

    def since(self, before: Status | None) -> Status:
        """Return what has changed, with what is pending now."""
        if before is None:
            return self
        sent, dropped = self.sent - before.sent, self.dropped - before.dropped
        return Status(sent, dropped, self.pending, self.error)


def _of_outlet(outlet: Outlet, parcels: list[Parcel]) -> Status:
    """Return what became of its records; *parcels* are those that wait."""
    sink: Any = outlet.sink
    waiting = sum([p.samples for p in parcels if p.outlet is outlet and not p.done])
    return Status(
        number(sink, "sent", outlet.sent),
        outlet.dropped + sum(losses(sink).values()),
        waiting + number(sink, "pending"),
        words(sink, "error") or outlet.error,
    )


def of(buffer: Buffer) -> dict[str, Status]:
    """Return what became of the records of each sink of *buffer*, by name."""
    parcels = buffer.parcels.copy()
    used = [*buffer.outlets, *buffer.served, *[p.outlet for p in parcels]]
    found: dict[str, Status] = {}
    for outlet in dict.fromkeys(used):
        name, number = outlet.name, 2
        while name in found:
            name, number = f"{outlet.name}-{number}", number + 1
        found[name] = _of_outlet(outlet, parcels)
    return found
