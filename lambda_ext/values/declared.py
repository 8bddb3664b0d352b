"""
Which handles there are, and which of them are not loaded yet.

A handle lives as long as the program holds it: one that is gone is neither
loaded nor remembered here.

Threads
    Each step is one operation of a dictionary; a lock makes one thread take
    all that is to be loaded.
"""

from __future__ import annotations

import weakref

from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .entries import Entry
    from .freshness import Want
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
            """Ask anew what the options say."""
            ...

        def _drop(self) -> None:
            """Let go of every value."""
            ...

        def _listens(self) -> bool:
            """Say whether a listener waits for new versions."""
            ...


_lock = process.Lock()
_handles: dict[weakref.ref[Declared], bool] = {}  # whether it is to be loaded


def add(handle: Declared) -> None:
    """Note that *handle* was declared, and is to be loaded."""
    # The callback is C code, which no signal handler can interrupt.
    _handles[weakref.ref(handle, _handles.pop)] = True


def live() -> list[Declared]:
    """Return the handles that the program still holds."""
    return [handle for ref in [*_handles] if (handle := ref()) is not None]


def wants() -> list[Want]:
    """Return what live handles want, as far as they have been read or loaded."""
    return [handle._want for handle in live() if handle._want is not None]


def take_pending() -> list[Declared]:
    """Return the handles that are not loaded yet, in order, once."""
    with _lock:
        return _taken()


def _taken() -> list[Declared]:
    pending = []
    for ref, is_pending in [*_handles.items()]:
        handle = ref() if is_pending else None
        if handle is not None:
            pending.append(handle)
            _handles[ref] = False
    return pending


def forked() -> None:
    """Have all loaded again in a forked child, where nothing has been loaded."""
    for ref in [*_handles]:
        _handles[ref] = True


def reset() -> None:
    """Forget every handle, as if this were just imported."""
    _handles.clear()
