"""Destinations of logs over HTTP: how records become requests."""

from __future__ import annotations

from ..delivery.life import follow_life
from ..delivery.receiver import Derived, Prefixed, text
from ..lifecycle.process import by_signal_handler
from . import redaction
from .entry import as_json
from .queued import Queued

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..delivery.receiver import Receiver
    from .entry import Entry

# Parts of the names of headers, and of members of a query, whose values are keys.
KEYS = ("auth", "key", "token", "secret", "pass", "cookie", "credential", "dsn",
        "honeycomb-team")  # fmt: skip
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
        self._note_keys()
        follow_life(self)

    def _note_keys(self) -> None:
        """Make `redaction` learn each key that is read later, when it is read."""
        receiver = self._receiver
        receiver.given = _noted(f"{self.name} address", receiver.given, whole=True)
        for header, value in receiver.headers.items():
            if _is_key(header):
                receiver.headers[header] = _noted(f"{self.name} {header}", value)

    def _protect(self) -> None:
        """Make `redaction` learn the keys that were given as plain text."""
        for header, value in self._receiver.headers.items():
            given = value.given if isinstance(value, Prefixed) else value
            if isinstance(given, str) and _is_key(header):
                redaction.protect(f"{self.name} {header}", _key(given))
        address = self._receiver.given
        if isinstance(address, str):
            for member in address.partition("?")[2].split("&"):
                name, _, given = member.partition("=")
                if _is_key(name.lower()):
                    redaction.protect(f"{self.name} {name}", given)

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Queue *entries*; they leave with a later `drain`."""
        run: list[Any] = []
        size = 0
        for entry in entries:
            try:
                data = self.encode(entry)
            except Exception as exc:  # of an entry that cannot be encoded
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


class _Noted(Derived):
    """A key that `redaction` takes out of lines, once it has been read."""

    __slots__ = ("_name", "_whole")

    def __init__(self, name: str, given: Any, *, whole: bool) -> None:
        super().__init__(given)
        self._name = name
        self._whole = whole

    @property
    def value(self) -> str:
        """Return the key."""
        found = text(self.given)
        redaction.know(self._name, found if self._whole else _key(found))
        return found


def _noted(name: str, given: Any, *, whole: bool = False) -> Any:
    """Return *given*, wrapped so that `redaction` learns each key that is read of it."""
    if isinstance(given, str):
        return given
    if isinstance(given, Derived):
        given.given = _noted(name, given.given, whole=whole)
        return given
    return _Noted(name, given, whole=whole)


def _is_key(name: str) -> bool:
    """Say whether what is called *name*, in small letters, is a key."""
    return any(part in name for part in KEYS)


def _key(header: str) -> str:
    """Return what is secret of the value of a header: "KEY" of "Bearer KEY"."""
    return header.strip().rpartition(" ")[2]
