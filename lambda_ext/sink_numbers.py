"""
What a sink, perhaps of the user's, says of itself in numbers.

Loaded by what asks for them, and not by a cold start.
"""

from __future__ import annotations

from .disclosure import attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def number(of: object, name: str, otherwise: Any = 0) -> Any:
    """Return the number that *of* has as *name*; *otherwise* where it is none."""
    found = attribute(of, name)
    return found if type(found) is int else otherwise


def losses(of: object) -> dict[str, int]:
    """Return what *of* has dropped, by reason: it has a number, or numbers by reason."""
    found = attribute(of, "dropped")
    if isinstance(found, dict):
        # Of a copy: another thread may add a reason meanwhile.
        numbers = dict(found).items()
        return {str(why): each for why, each in numbers if type(each) is int}
    return {"dropped": found} if type(found) is int and found else {}
