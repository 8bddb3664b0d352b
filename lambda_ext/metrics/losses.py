"""
Records that were dropped, until `tally` has counted them and a log line tells.

What drops a record appends to `uncounted`, in the same step as the record leaves
where it was.
"""

from __future__ import annotations

from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Reason, name, how many records, and what to say when it is seen first.
    Loss = tuple[str, str, int, str]
    Numbers = dict[tuple[str, str], int]  # of records, by reason and name

uncounted: list[Loss] = []
unlogged: list[Numbers] = []  # one at most: what is counted, and in no log line yet


@process.at_fork
@process.at_reset
def forget() -> None:
    """Forget both; `tally` forgets what it has counted."""
    uncounted.clear()
    unlogged.clear()
