"""
Records that were dropped: those not counted yet, and the totals.

What drops a record appends to `uncounted`, in the same step as the record leaves
where it was; `tally` counts and logs it.
"""

from __future__ import annotations

from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Reason, name, how many records, and what to say when it is seen first.
    Loss = tuple[str, str, int, str]
    Numbers = dict[tuple[str, str], int]

uncounted: list[Loss] = []


class State:
    """Totals, each replaced as a whole; `version` is another one after each change."""

    __slots__ = ("logged", "refused", "totals", "untold", "version")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start again from zero; what is being counted meanwhile sees the version."""
        self.version: object = object()
        self.totals: Numbers = {}
        self.untold: Numbers = {}  # of which no log line has told yet
        self.logged: set[tuple[str, str]] = set()
        self.refused = 0  # records that never came into the buffer


state = State()


@process.at_fork
@process.at_reset
def reset() -> None:
    """Start again from zero, and log each reason and name again."""
    uncounted.clear()
    state.clear()
