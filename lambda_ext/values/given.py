"""
Which values were given to a call that `refresh_on` protects.

A call that is refused must know the newest value that it was given, in
any way: by a handle, by `get_secret`, by what was derived or injected,
in nested calls, tasks and ``asyncio.to_thread``.  A context variable tells
which calls are running here; plain threads and pools do not see it.

Why this costs a hit nothing
    A hit notes nothing of the value that was current when the call began: the
    call itself has noted that one.  Every other value is read by `store.read`
    while a call is running.  The view of such a value gets the function of
    `noting` as its `View.copy`, which a hit calls anyway when it is set.  The
    first hit after the last call has ended puts the former `View.copy` back.
    `Derived` has no views: it calls `note` while `cache.protected` is not empty.

Nothing here holds a value: what is noted is the number of its load and a token
of its version.

Threads
    ``_lock`` guards what is noted: tasks and threads of one call share it.
"""

from __future__ import annotations

from contextvars import ContextVar

from ..lifecycle.process import Lock
from .cache import protected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .cache import Entry, View
    from .keys import Key

    Token = tuple[str, int]

_lock = Lock()
_innermost: ContextVar[Call | None] = ContextVar("lambda_ext_call", default=None)


class Given:
    """A value that was given: the number of its load, and a token of its version."""

    __slots__ = ("sequence", "token")

    def __init__(self, sequence: int, token: Token | None) -> None:
        self.sequence = sequence
        self.token = token

    def __repr__(self) -> str:
        return f"<Given by load {self.sequence}>"


NONE = Given(0, None)  # where no value was given


def given_of(entry: Entry | None) -> Given:
    """Return what is noted of *entry* when it is given; `NONE` without one."""
    return NONE if entry is None else Given(entry.sequence, token_of(entry))


def token_of(entry: Entry) -> Token:
    """Return what tells the version of *entry* from others in this process."""
    value = entry.answer.value
    # A hash tells nothing: it is salted, and the version alone may come again.
    return entry.answer.version, hash(value) if isinstance(value, (str, bytes)) else 0


class Call:
    """One protected call that is running, within others perhaps."""

    __slots__ = ("newest", "parent", "passed", "refused")

    def __init__(self) -> None:
        parent: Call | None = _innermost.get()
        while parent is not None and parent not in protected:
            parent = parent.parent  # it has ended: a task of it lives on
        self.parent: Call | None = parent
        self.newest: dict[Key, Given] = {}  # given to it, by group of keys
        self.refused: dict[Key, int] = {}  # the load refused at the first attempt
        # The error that a call within it raised at both attempts, and its keys.
        self.passed: tuple[BaseException, set[Key]] | None = None

    def __repr__(self) -> str:
        return f"<Call with {len(self.newest)} value(s)>"

    def note(self, group: Key, value: Given) -> None:
        """Note that *value* was given."""
        with _lock:
            newest = self.newest.get(group)
            if newest is None or newest.sequence < value.sequence:
                self.newest[group] = value

    def enter(self) -> None:
        """Make this the innermost call of the current context."""
        _innermost.set(self)

    def leave(self) -> None:
        """Make the call around this one the innermost of this context, if it is in it."""
        # A coroutine that was dropped may be closed in the context of another call.
        if _innermost.get() is self:
            _innermost.set(self.parent)


def note(group: Key, entry: Entry) -> None:
    """Note that *entry* is being given to the calls that are running here."""
    call = _innermost.get()
    if call is None:
        return
    value = given_of(entry)
    while call is not None:
        call.note(group, value)
        call = call.parent


def noting(
    view: View, group: Key, entry: Entry, copy: Callable[[], Any] | None
) -> Callable[[], Any]:
    """Return a `View.copy` that does as *copy*, and notes what is given."""

    def copy_out() -> Any:
        if protected:
            note(group, entry)
        else:
            view.copy = copy
        return view.value if copy is None else copy()

    return copy_out


def was_refused(group: Key, sequence: int) -> bool:
    """Say whether a call that is running here was refused with load *sequence*."""
    call = _innermost.get()
    while call is not None:
        if call.refused.get(group, -1) >= sequence:
            return True
        call = call.parent
    return False


def still_running() -> set[Call]:
    """Return the calls that are running in this context."""
    calls = set()
    call = _innermost.get()
    while call is not None:
        calls.add(call)
        call = call.parent
    return calls
