"""Destinations of logs over HTTP: how records become requests."""

from __future__ import annotations

from ..delivery.life import follow_life
from ..delivery.receiver import Prefixed
from ..lifecycle.process import by_signal_handler
from . import redaction
from .entry import as_json
from .queued import Queued

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..delivery.receiver import Receiver
    from .entry import Entry

# Parts of the names of headers whose values are keys.
KEYS = ("auth", "key", "token", "secret", "pass", "cookie", "credential")
MAX_RECORDS = 1_000  # of a request
MAX_BYTES = 900_000  # of a request, before gzip


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
        self._protect()
        follow_life(self)

    def _protect(self) -> None:
        """Have keys that were given as plain text taken out of what is shipped."""
        for header, value in self._receiver.headers.items():
            given = value.given if isinstance(value, Prefixed) else value
            if isinstance(given, str) and any(part in header for part in KEYS):
                redaction.protect(f"{self.name} {header}", given.rpartition(" ")[2])

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Queue *entries*; they leave with a later `drain`."""
        run: list[Any] = []
        size = 0
        for entry in entries:
            try:
                data = self.encode(entry)
            except Exception as exc:  # of one that could not be foreseen
                if by_signal_handler(exc):
                    raise
                self._delivery.drop(1, f"encoding: {type(exc).__name__}")
                continue
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
        """Begin anew after a restore from a snapshot, which knew no secret."""
        self.close()
        self._protect()

    def forked(self) -> None:
        """Leave connections and what waits to the parent."""
        self._receiver.forked()
        super().forked()
