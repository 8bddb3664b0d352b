"""The queue that each destination of logs has, and functions as destinations."""

from __future__ import annotations

from .. import disclosure
from ..callables import looks_like_coroutine
from ..delivery.queue import Delivery, RefusedError, RetryError
from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .entry import Entry


class Queued:
    """The half of a destination that every one with a queue has."""

    __slots__ = ("__weakref__", "_delivery", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._delivery = Delivery(name, self._send)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {self.pending} records pending>"

    @property
    def sent(self) -> int:
        """The number of records that the receiver has taken."""
        return self._delivery.sent

    @property
    def dropped(self) -> dict[str, int]:
        """The number of records that will not be sent, by reason."""
        return dict(self._delivery.dropped)

    @property
    def pending(self) -> int:
        """The number of records that wait to be sent."""
        return self._delivery.pending

    @property
    def error(self) -> str:
        """What went wrong with the last attempt; "" if it succeeded."""
        return self._delivery.error

    @property
    def has_little_room(self) -> bool:
        """Whether it is to be drained before it is given more."""
        return self._delivery.has_little_room

    def is_due(self) -> bool:
        """Say whether something waits, and the receiver asked for no pause."""
        return self._delivery.is_ready

    def drain(self, ends_at: float) -> None:
        """Send what waits, before the run time *ends_at*."""
        self._delivery.drain(ends_at)

    def end(self) -> None:
        """Make the next `drain` send at once, without a pause: the process ends."""
        self._delivery.hurry()

    def forked(self) -> None:
        """Leave what waits to the parent."""
        self._delivery.forked()

    if TYPE_CHECKING:  # what each destination does in its own manner

        def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
            """Make one attempt; see `Delivery`."""
            ...


class FunctionDestination(Queued):
    """
    A function of a list of entries, as a destination.

    OSError, which includes time-outs and broken connections, means that the same
    entries are given to it once more, later.  If it raises anything else, they are
    dropped, and counted by the class and place of the exception.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[list[Entry]], object]) -> None:
        name = disclosure.words(function, "__qualname__") or type(function).__qualname__
        super().__init__(name)
        self.function = function

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Queue *entries*."""
        self._delivery.put(entries, len(entries), sum([e.size for e in entries]))

    def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
        reason = ""
        try:
            result = self.function(payload)
            if looks_like_coroutine(result):
                result.close()  # type: ignore[attr-defined]
                reason = "it returned a coroutine, which is not awaited"
        except BaseException as exc:  # SystemExit too
            if process.by_signal_handler(exc):
                raise
            reason = disclosure.kind(exc)
            if isinstance(exc, OSError):
                raise RetryError(reason) from None
        if reason:
            raise RefusedError(reason)
        return 0, ""
