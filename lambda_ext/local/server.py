"""
HTTP/1.1 as Lambda's APIs speak it, and no meaning: one `Request` in, one `Answer` out.

A connection has its own thread, is kept alive, and may be left without an
answer for as long as a poll lasts.  `Abandoned` closes it without one.

Web pages
    A page in a browser on this machine can send requests to any port of it.
    What such requests carry (``Origin``, ``Sec-Fetch-Site``, or the name of
    another host in ``Host``, after DNS rebinding) is answered with 403.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message

TEXT = "text/plain; charset=utf-8"
LOOPBACK = ("127.0.0.1", "localhost")  # what Host may name, with our port
MAX_BODY = 64 * 1024 * 1024  # bytes of a request; Lambda's largest payload is 6 MB
MAX_CHUNK_LINE = 1024  # bytes of a chunk's head, or of a trailer
MAX_TRAILERS = 100


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Message[str, str]
    body: bytes


@dataclass
class Answer:
    """What it is told."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, value: Any, **headers: str) -> Answer:
        """Make an answer of JSON that ends in a newline, as Go's encoder does."""
        body = json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, body.encode(), {"Content-Type": "application/json", **named})

    @classmethod
    def accepted(cls) -> Answer:
        """Make the answer that says: noted."""
        return cls.json(202, {"status": "OK"})


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message

    def answer(self) -> Answer:
        """Return what the client reads."""
        return Answer.json(
            self.status,
            {"errorMessage": self.message, "errorType": self.error_type},
        )


class Abandoned(Exception):
    """The environment is gone: the connection closes without an answer."""


class Unreadable(Exception):
    """A request that is no HTTP: the connection closes after the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.answer = Answer(status, (why + "\n").encode(), {"Content-Type": TEXT})


class Server:
    """
    Serves *respond* on a free port of the loopback interface.

    A body of more than *max_body* bytes is answered with 413, and not read.
    """

    def __init__(
        self, respond: Callable[[Request], Answer], *, max_body: int = MAX_BODY
    ) -> None:
        self._http = _HTTPServer(("127.0.0.1", 0), _Connection)
        self._http.respond = respond
        self._http.max_body = max_body
        self.address = f"127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="emulator-server",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end every connection and its thread."""
        self._http.shutdown()
        self._thread.join()
        self._http.hang_up()
        self._http.server_close()


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 64
    respond: Callable[[Request], Answer]
    max_body: int

    def __init__(self, *args: Any) -> None:
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(*args)

    def server_bind(self) -> None:
        # The base class asks DNS for this machine's name.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="emulator-connection",
            daemon=True,  # an emulator that was not closed must not hang the exit
        )
        with self._lock:
            self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake every connection that waits for its client, and see it end."""
        with self._lock:
            connections = dict(self._open)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that are killed in the middle of a request are no error here.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet
    server: _HTTPServer

    def _serve(self) -> None:
        try:
            self._refuse_web_pages()
            request = Request(self.command, self.path, self.headers, self._body())
        except Unreadable as exc:
            self.close_connection = True  # where the next request begins is unknown
            self._send(exc.answer)
            return
        try:
            answer = self.server.respond(request)
        except Refused as exc:
            answer = exc.answer()
        except Abandoned:
            self.close_connection = True
            return
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _refuse_web_pages(self) -> None:
        """Refuse what a page in a browser may have sent."""
        hosts = self.headers.get_all("Host") or []
        port = self.server.server_port
        own = {f"{name}:{port}" for name in LOOPBACK}
        if len(hosts) != 1 or hosts[0].strip().lower() not in own:
            raise Unreadable(403, "this server answers for its own address only")
        if not self.path.startswith("/"):
            raise Unreadable(400, "the target of a request begins with a slash")
        if "Origin" in self.headers or "Sec-Fetch-Site" in self.headers:
            raise Unreadable(403, "this server answers no web page")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _serve  # noqa: N815  the base class's names

    def handle_expect_100(self) -> bool:
        """Say that the body is welcome, unless the request will be refused."""
        try:
            self._refuse_web_pages()
            self._length()
        except Unreadable:
            return True  # the refusal follows, and the body is not read
        going_on = super().handle_expect_100()
        self.wfile.flush()  # the client waits for it before it sends its body
        return going_on

    def _body(self) -> bytes:
        length = self._length()
        if length is None:
            return b"".join(self._chunks())
        return self._exactly(length)

    def _length(self) -> int | None:
        """Return the length of the body; None where it comes in chunks."""
        lengths = set(self.headers.get_all("Content-Length") or [])
        codings = self.headers.get_all("Transfer-Encoding") or []
        if codings:
            if lengths or [text.strip().lower() for text in codings] != ["chunked"]:
                raise Unreadable(400, "a bad Transfer-Encoding")
            return None
        if not lengths:
            return 0
        text = lengths.pop().strip()
        if lengths or not (text.isascii() and text.isdigit()):
            raise Unreadable(400, "a bad Content-Length")
        if len(text) > 18 or int(text) > self.server.max_body:
            raise self._too_large()
        return int(text)

    def _too_large(self) -> Unreadable:
        return Unreadable(413, f"a body has at most {self.server.max_body} bytes")

    def _chunks(self) -> Iterator[bytes]:
        """Yield the chunks of a body."""
        left = self.server.max_body
        while True:
            text = self._line().split(b";")[0].strip()
            if not text or len(text) > 16 or text.strip(b"0123456789abcdefABCDEF"):
                raise Unreadable(400, "a bad chunk")
            size = int(text, 16)
            if not size:
                break
            left -= size
            if left < 0:
                raise self._too_large()
            yield self._exactly(size)
            if self._line():
                raise Unreadable(400, "a bad chunk")
        for _ in range(MAX_TRAILERS):
            if not self._line():
                return
        raise Unreadable(400, "too many trailers")

    def _line(self) -> bytes:
        """Return one line between chunks, without its end."""
        line = self.rfile.readline(MAX_CHUNK_LINE)
        if not line.endswith(b"\n"):
            raise Unreadable(400, "a bad chunk")
        return line.rstrip(b"\r\n")

    def _exactly(self, size: int) -> bytes:
        """Return the next *size* bytes; less is a client that went away."""
        data = self.rfile.read(size)
        if len(data) < size:
            raise Unreadable(400, "the body is shorter than announced")
        return data

    def log_message(self, *args: Any) -> None:
        pass  # the emulator keeps its own record of calls
