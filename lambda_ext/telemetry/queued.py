"""
What every destination of logs has: a queue, and how records become requests.
"""

from __future__ import annotations

from .. import disclosure
from ..callables import looks_like_coroutine
from ..delivery.life import follow_life
from ..delivery.queue import Delivery, RefusedError, RetryError
from . import redaction
from .entry import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..delivery.receiver import Receiver
    from .entry import Entry

MAX_RECORDS = 1_000  # of a request
MAX_BYTES = 900_000  # of a request, before gzip


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

    def is_due(self) -> bool:
        """Say whether something waits, and the receiver asked for no pause."""
        return self._delivery.is_ready

    def drain(self, ends_at: float) -> None:
        """Send what waits, before the run time *ends_at*."""
        self._delivery.drain(ends_at)

    def end(self) -> None:
        """Have the next `drain` begin at once: the process ends."""
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
    entries are given to it once more, later.  Whatever else it raises drops them,
    and is counted by class and place.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[list[Entry]], object]) -> None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
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
        except OSError as exc:
            reason = disclosure.kind(exc)
            raise RetryError(reason) from None
        except BaseException as exc:  # SystemExit too
            reason = disclosure.kind(exc)
        if reason:
            raise RefusedError(reason)
        return 0, ""


class HttpDestination(Queued):
    """
    Sends records to an HTTP endpoint as NDJSON; base of those with another format.

    A subclass says how one record is encoded (`encode`), and how several make a
    body (`join`).
    """

    __slots__ = ("_max_bytes", "_max_records", "_receiver")

    def __init__(
        self,
        name: str,
        to: Receiver,
        *,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(name)
        self._receiver = to
        self._max_records = max_records
        self._max_bytes = max_bytes
        for header, value in to.headers.items():
            if isinstance(value, str):
                redaction.protect(f"{name} {header}", value.rpartition(" ")[2])
        follow_life(self)

    def accept_logs(self, entries: Sequence[Entry], /) -> None:
        """Queue *entries*; they leave with a later `drain`."""
        run: list[Any] = []
        size = 0
        for entry in entries:
            data = self.encode(entry)
            if len(data) > self._max_bytes:
                self._delivery.drop(1, "too_large")
                continue
            full = len(run) >= self._max_records
            if run and (full or size + len(data) > self._max_bytes):
                self._put(run)
                run, size = [], 0
            run.append(data)
            size += len(data) + 1
        if run:
            self._put(run)

    def encode(self, entry: Entry) -> bytes:
        """Return *entry* as the receiver takes it."""
        return as_json(entry.as_dict()).encode()

    def join(self, run: list[bytes]) -> bytes:
        """Return the body of a request with the records *run*."""
        return b"\n".join(run) + b"\n"

    def accepted(self, response: Any) -> tuple[int, str]:
        """Return how many records a 2xx *response* refuses, and why."""
        return 0, ""

    def _put(self, run: list[bytes]) -> None:
        body = self.join(run)
        self._delivery.put(body, len(run), len(body))

    def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
        return self.accepted(self._receiver.post(payload, ends_at))

    def close(self) -> None:
        """Close the connections; the next request opens one."""
        self._receiver.close()

    def restored(self) -> None:
        """Begin anew after a restore from a snapshot."""
        self.close()

    def forked(self) -> None:
        """Leave connections and what waits to the parent."""
        self._receiver.forked()
        super().forked()
