"""
HTTP/1.1 as Lambda's APIs speak it, and no meaning: one `Request` in, one `Answer` out.

A connection has its own thread, is kept alive, and may be left without an
answer for as long as a poll lasts.  `Abandoned` closes it without one.
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
    from collections.abc import Callable
    from email.message import Message

TEXT = "text/plain; charset=utf-8"


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


class Server:
    """Serves *respond* on a free port of the loopback interface."""

    def __init__(self, respond: Callable[[Request], Answer]) -> None:
        self._http = _HTTPServer(("127.0.0.1", 0), _Connection)
        self._http.respond = respond
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
            daemon=True,  # an emulator that nobody closed must not hang the exit
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
        # A client that was killed in mid-sentence is everyday life here.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet
    server: _HTTPServer

    def _serve(self) -> None:
        request = Request(self.command, self.path, self.headers, self._body())
        try:
            answer = self.server.respond(request)
        except Refused as exc:
            answer = exc.answer()
        except Abandoned:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve  # noqa: N815  the base class's names

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()  # the client waits for it before it sends its body
        return going_on

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
        data = self.rfile.read(size)
        while self.rfile.readline() not in (b"\r\n", b"\n", b"") and not size:
            pass  # trailers
        return data

    def log_message(self, *args: Any) -> None:
        pass  # the emulator keeps its own record of calls
