"""
What `store` knows of a handle, for type checkers; a program never loads it.
"""

from __future__ import annotations

from typing import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Entry, Want
    from .keys import Key


class Declared(Protocol):
    """What the store knows of a handle."""

    name: str
    _key: Key
    _want: Want | None

    def _bind(self) -> Want:
        """Return what is wanted, now that source and options can be known."""
        ...

    def _loaded(self, entry: Entry) -> None:
        """Note that *entry* was loaded for the key of `_want`."""
        ...

    def _forget(self) -> None:
        """Forget what was chosen by options; the next read asks them again."""
        ...

    def _drop(self) -> None:
        """Let go of every value."""
        ...

    def _listens(self) -> bool:
        """Say whether a listener waits for new versions."""
        ...
