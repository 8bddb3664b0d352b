"""Objects with connections: what happens to them at a snapshot, a restore and a fork."""

from __future__ import annotations

from ..lifecycle import phases, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from typing import Any, Protocol

    class Living(Protocol):
        """What a snapshot, a restore and a fork concern."""

        def close(self) -> None: ...
        def restored(self) -> None: ...
        def forked(self) -> None: ...


_living: set[weakref.ref[Any]] = set()


@process.at_fork
def _forked() -> None:
    for each in process.living(_living):
        each.forked()


def follow_life(of: Living) -> None:
    """Close *of* before a snapshot, and tell it of a restore and of a fork."""
    phases.listen(phases.SNAPSHOT, of.close, priority=phases.NETWORK)
    phases.listen(phases.RESTORE, of.restored, priority=phases.ESSENTIAL)
    process.remember(_living, of)
