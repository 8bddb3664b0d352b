"""
Which handles there are, and which of them nobody has loaded yet.

Handles are held by whoever declared them: one that is gone is neither loaded
nor remembered here.

Threads
    ``_lock`` guards both; it is re-entrant, since a finalizer may declare.
"""

from __future__ import annotations

import weakref

from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_lock = process.Lock()
_handles: dict[weakref.ref[Any], None] = {}
_pending: dict[weakref.ref[Any], None] = {}  # declared, and not yet loaded


def add(handle: Any) -> None:
    """Note that *handle* was declared, and is to be loaded."""
    with _lock:
        ref = weakref.ref(handle, _gone)
        _handles[ref] = _pending[ref] = None


def live() -> list[Any]:
    """Return the handles that somebody still holds."""
    with _lock:
        return [handle for ref in [*_handles] if (handle := ref()) is not None]


def take_pending() -> list[Any]:
    """Return the handles that nobody has loaded, in order, once."""
    with _lock:
        pending = [handle for ref in [*_pending] if (handle := ref()) is not None]
        _pending.clear()
    return pending


def forked() -> None:
    """Begin anew in a forked child, where nothing has been loaded yet."""
    for handle in live():
        add(handle)


def reset() -> None:
    """Forget every handle, as if this were just imported."""
    with _lock:
        _handles.clear()
        _pending.clear()


def _gone(ref: weakref.ref[Any]) -> None:
    _handles.pop(ref, None)
    _pending.pop(ref, None)
