"""
The server to which Lambda's platform delivers telemetry: HTTP over bare sockets.

`http.server` would cost 30 ms of every cold start; this needs ``_socket`` alone,
and two threads that block in C while nothing arrives.

Guarantees
    A delivery is answered with 200 as soon as it is here and queued, in the order of
    arrival, before anything is parsed or consumed.  One that was accepted before (by its ``Sequence-Id``, where
    the platform sends one) is answered with 200, counted, and not accepted again: the
    platform repeats a delivery whose answer was lost.  One that did not arrive
    whole is not accepted, so the platform repeats it.
    Only deliveries to the secret path are accepted.  What others may send costs
    `MAX_HEAD` bytes and one of `MAX_CONNECTIONS` threads; when those are all
    taken, a connection that has delivered nothing gives way to the next.
    The memory for one delivery is allocated once its length is known and allowed.
    No part of it measures time: a delivery that a freeze cuts in two goes on
    after the thaw, however much later.

Forks
    A child closes its copies of the sockets; the parent's go on.

Source: Telemetry API, destinations and delivery,
https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api.html
"""

from __future__ import annotations

import _socket
import contextlib
from collections import deque

from ..lifecycle import clock, process, real_threads, runtime_api
from .records import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD = 16 * 1024  # bytes of a request line and its headers
MAX_CONNECTIONS = 8
BACKLOG = 128  # connections that wait to be accepted; more would be retried by TCP
MAX_KNOWN = 1_000  # Sequence-Ids of deliveries that are remembered
LONGEST_ID = 200  # characters of a Sequence-Id; AWS's have 44
CHUNK = 64 * 1024
RESERVED_PORT = 9001  # Lambda's own
LOOPBACK = "127.0.0.1"
FRAMING = ("content-length", "transfer-encoding")  # headers that say where a body ends

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Counters:
    """What has arrived, in numbers."""

    __slots__ = ("batches", "bytes", "redelivered", "refused")

    def __init__(self) -> None:
        self.batches = 0  # accepted
        self.bytes = 0  # of their bodies
        self.redelivered = 0  # accepted before, and not again
        self.refused = 0  # requests that were no deliveries, or not allowed


class _Refusal(Exception):
    """The request is answered with a status, and the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Gone(Exception):
    """The other side has closed the connection."""


class Listener:
    """
    Accepts deliveries on a free port, from `start` until `close`.

    Args:
        accept: Called with each new batch and its size in bytes, from several
            threads; must not wait.
        path: The secret one, to which the platform delivers.
        max_body: Bytes of one delivery; a longer one is answered with 413.
        host: An IPv4 address of this machine.
        drops_path: Whether this platform delivers to "/", not to the path of the subscription.

    Raises:
        OSError: there is no port to be had.
    """

    def __init__(
        self,
        accept: Callable[[Batch, int], object],
        *,
        path: str,
        max_body: int,
        host: str = LOOPBACK,
        drops_path: bool = False,
    ) -> None:
        self.counters = Counters()
        self.path = path
        self.schema = ""  # the version of the records that are delivered
        self.types: tuple[str, ...] = ()
        self.paths = (path, "/") if drops_path else (path,)
        self.max_body = max_body
        self._accept = accept
        self._lock = process.Lock()
        self._known: dict[str, None] = {}  # Sequence-Ids, the oldest first
        self._connections: deque[_Connection] = deque()  # the oldest first
        self._closed = False
        self._started = False
        self._server = _bound(host)
        self.port: int = self._server.getsockname()[1]

    def start(self) -> None:
        """
        Begin to accept connections; until then they wait.

        Raises:
            RuntimeError: there is no thread to be had.
        """
        real_threads.start("lambda_ext_telemetry_listener", self._serve)
        self._started = True

    def close(self) -> None:
        """End all connections and their threads; what was accepted stays accepted."""
        self._closed = True
        # The thread closes the socket: a descriptor that is closed here might be
        # another file's by the time that thread waits at it.
        with contextlib.suppress(OSError):
            self._server.shutdown(runtime_api.SHUT_RDWR)
        if not self._started:
            self._server.close()
        for connection in self._connections.copy():
            connection.end()

    def let_go(self) -> None:
        """Close this process's copies of the sockets, in a child."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._server.close()
        for connection in self._connections.copy():
            connection.let_go()
        self._connections.clear()

    @property
    def busy(self) -> bool:
        """Whether a delivery is arriving."""
        return any(each.busy for each in self._connections.copy())

    def _serve(self) -> None:
        try:
            self._accept_all()
        finally:
            self._server.close()

    def _accept_all(self) -> None:
        while not self._closed:
            try:
                number, _ = self._server._accept()  # type: ignore[attr-defined]
            except OSError:
                # No descriptor is to be had, for example: the next one may be.
                if not self._closed:
                    real_threads.pause(0.05)
                continue
            made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, number)
            made.setblocking(True)
            connection = _Connection(self, made)
            with self._lock:
                if len(self._connections) >= MAX_CONNECTIONS:
                    self._give_way()
                self._connections.append(connection)
            if self._is_closed():  # meanwhile: `close` may not have seen it
                connection.end()
            try:
                real_threads.start("lambda_ext_telemetry", connection.serve)
            except (RuntimeError, MemoryError):  # the platform tries again
                self.forget(connection)
                made.close()

    def _is_closed(self) -> bool:
        return self._closed

    def _give_way(self) -> None:
        """End one connection: one that has delivered nothing, or the oldest."""
        others = [each for each in self._connections if not each.busy]
        strangers = [each for each in others if not each.known]
        chosen = (strangers or others or self._connections)[0]
        self._connections.remove(chosen)
        chosen.end()

    def forget(self, connection: _Connection) -> None:
        """Take *connection*, which has ended, from the list."""
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(connection)

    def take(self, body: bytearray, sequence_id: str | None) -> None:
        """Hand on what has arrived, unless it was accepted before."""
        with (
            self._lock
        ):  # also for the order: of two connections, the first one's first
            if sequence_id is not None and sequence_id in self._known:
                self.counters.redelivered += 1
                return
            batch = Batch.of(body, sequence_id, received_at=clock.wall())
            self._accept(batch, len(body))
            self.counters.batches += 1
            self.counters.bytes += len(body)
            # Last: what could not be accepted is not known when it comes again.
            if sequence_id is not None:
                if len(self._known) >= MAX_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[sequence_id] = None

    def count_refused(self) -> None:
        """Count a request that was no delivery."""
        with self._lock:
            self.counters.refused += 1


def _bound(host: str) -> _socket.socket:
    """Return a socket that listens on a free port, which is not Lambda's own."""
    server = _listening(host)
    if server.getsockname()[1] != RESERVED_PORT:
        return server
    with contextlib.closing(server):  # held meanwhile: it cannot be chosen again
        return _listening(host)


def _listening(host: str) -> _socket.socket:
    server = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0)
    try:
        server.bind((host, 0))
        server.listen(BACKLOG)
    except BaseException:
        server.close()
        raise
    return server


class _Connection:
    """One connection, of the platform or of another process on this machine."""

    __slots__ = ("_buffer", "_listener", "_socket", "busy", "known")

    def __init__(self, listener: Listener, socket: _socket.socket) -> None:
        self._listener = listener
        self._socket = socket
        self._buffer = bytearray()
        self.known = False  # it has named the secret path
        self.busy = False  # with a delivery

    def end(self) -> None:
        """Close the connection, and wake the thread that is waiting in it."""
        # Its thread closes the socket, see `Listener.close`.
        with contextlib.suppress(OSError):
            self._socket.shutdown(runtime_api.SHUT_RDWR)

    def let_go(self) -> None:
        """Close this process's copy of the socket, in a child."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def serve(self) -> None:
        """Serve requests until either side ends the connection."""
        try:
            self._serve_all()
        except _Refusal as exc:
            self._listener.count_refused()
            self._refuse(exc)
        except (OSError, _Gone, MemoryError):  # the platform tries again
            pass
        finally:
            self.busy = False
            self._listener.forget(self)
            self._socket.close()

    def _serve_all(self) -> None:
        while self._request():
            pass

    def _request(self) -> bool:
        """Serve one request; say whether another may follow."""
        head = self._head()
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            raise _Refusal(400, "Bad Request")
        if path.partition("?")[0] not in self._listener.paths:
            raise _Refusal(404, "Not Found")
        if method != "POST":
            raise _Refusal(405, "Method Not Allowed")
        self.known = self.busy = True
        headers = _headers(lines)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refusal(415, "Unsupported Media Type")
        body = self._body(headers)
        sequence_id = headers.get("sequence-id")
        # Before the answer: from then on the platform may deliver the next one over
        # another connection.
        self._listener.take(body, sequence_id[:LONGEST_ID] if sequence_id else None)
        self._socket.sendall(_OK)
        self.busy = False
        kept = headers.get("connection", "").lower()
        return kept != "close" and (version != "HTTP/1.0" or kept == "keep-alive")

    def _refuse(self, refusal: _Refusal) -> None:
        answer = (
            f"HTTP/1.1 {refusal.status} {refusal.reason}\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            self._socket.sendall(answer.encode())
            self._socket.shutdown(1)  # SHUT_WR: all is said
            self._read_the_rest()

    def _read_the_rest(self) -> None:
        # What the client still sends, read up to a bound: closing at once would
        # reset the connection and lose the answer.
        for _ in range(16):
            if not self._socket.recv(CHUNK):
                break

    def _head(self) -> str:
        """Return a request line and its headers, without the blank line."""
        buffer = self._buffer
        start = 0
        while True:
            end = buffer.find(b"\r\n\r\n", start)
            if 0 <= end <= MAX_HEAD:
                head = bytes(buffer[:end]).lstrip(b"\r\n")
                del buffer[: end + 4]
                return head.decode("latin-1")
            if end >= 0 or len(buffer) > MAX_HEAD:
                raise _Refusal(431, "Request Header Fields Too Large")
            start = max(0, len(buffer) - 3)
            self._receive()

    def _body(self, headers: dict[str, str]) -> bytearray:
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None and (coding.lower() != "chunked" or length is not None):
            raise _Refusal(400, "Bad Request")
        size = 0
        if coding is None:
            if length is None:
                raise _Refusal(411, "Length Required")
            size = self._size(length, 10)
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(_CONTINUE)
        return self._exactly(size) if coding is None else self._chunks()

    def _size(self, text: str, base: int, taken: int = 0) -> int:
        """Return the number that *text* is; refuse what is none or too large."""
        allowed = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
        if not text or text.strip(allowed):
            raise _Refusal(400, "Bad Request")
        size = int(text, base) if len(text) <= 15 else self._listener.max_body + 1
        if size + taken > self._listener.max_body:
            raise _Refusal(413, "Content Too Large")
        return size

    def _chunks(self) -> bytearray:
        body = bytearray()
        while True:
            size = self._size(self._line().partition(";")[0].strip(), 16, len(body))
            if not size:
                break
            body += self._exactly(size)
            if self._line():
                raise _Refusal(400, "Bad Request")
        for _ in range(100):  # trailers
            if not self._line():
                return body
        raise _Refusal(400, "Bad Request")

    def _line(self) -> str:
        buffer = self._buffer
        while True:
            end = buffer.find(b"\r\n")
            if end >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 2]
                return line.decode("latin-1")
            if len(buffer) > MAX_HEAD:
                raise _Refusal(400, "Bad Request")
            self._receive()

    def _exactly(self, size: int) -> bytearray:
        """Return the next *size* bytes."""
        body = bytearray(size)
        have = min(size, len(self._buffer))
        body[:have] = self._buffer[:have]
        del self._buffer[:have]
        with memoryview(body) as view:
            self._fill(view, have)
        return body

    def _fill(self, view: memoryview, have: int) -> None:
        while have < len(view):
            count = self._socket.recv_into(view[have:])
            if not count:
                raise _Gone
            have += count

    def _receive(self) -> None:
        chunk = self._socket.recv(CHUNK)
        if not chunk:
            raise _Gone
        self._buffer += chunk


def _headers(lines: list[str]) -> dict[str, str]:
    """Return headers by lower-case name; refuse two that contradict each other."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or not name or name != name.strip():
            raise _Refusal(400, "Bad Request")
        if name in FRAMING and headers.get(name, value) != value:
            raise _Refusal(400, "Bad Request")
        headers[name] = value
    return headers
