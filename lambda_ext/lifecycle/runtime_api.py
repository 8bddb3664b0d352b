"""
HTTP with Lambda's Runtime API: the wire, and no policy.

Two calls of one short life each, over a bare socket: `http.client` would cost
25 ms of every cold start, and even `socket` 3 to 5 (it builds enumerations of
all address families).  ``_socket`` is the part of it written in C, is there on
every CPython, and loads in 0.2 ms; tests/lifecycle/test_runtime_api.py holds
the few names of it that are used here to what they must do.

Source: Lambda Extensions API reference,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import contextlib

from . import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping

VERSION = "/2020-01-01"  # of the Extensions API, the first part of the path
LIMIT = 64 * 1024  # bytes of an answer; AWS's have a few hundred
PORT = 80  # of an address without one
SHUT_RDWR = 2  # POSIX


class Reply:
    """What was answered: a status, headers by lower-case name, a body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class ProtocolError(Exception):
    """The answer is not HTTP/1.1 as this module understands it."""


def call(
    address: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    timeout_s: float,
    version: str = VERSION,
) -> Reply:
    """
    Send one request and return its answer, all within *timeout_s* seconds.

    Raises:
        OSError: nothing listens there, or no answer in time (TimeoutError).
        ProtocolError: what came is not HTTP.
    """
    deadline_at = clock.run_time() + timeout_s
    connection = send(
        address, method, path, headers, body, timeout_s=timeout_s, version=version
    )
    try:
        return receive(connection, deadline_at=deadline_at)
    finally:
        connection.close()


def send(
    address: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    timeout_s: float,
    version: str = VERSION,
) -> socket:
    """Send one request within *timeout_s* seconds and return the connection."""
    import _socket  # 0.2 ms, and only in Lambda

    host, _, port = address.partition(":")
    lines = [f"{method} {version}{path} HTTP/1.1", f"Host: {address}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    try:
        number = int(port or PORT)
    except ValueError:
        msg = f"{address!r} is not host:port"
        raise OSError(msg) from None
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0)
    try:
        connection.settimeout(timeout_s)
        connection.connect((host, number))
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
    except BaseException:
        connection.close()
        raise
    return connection


def receive(connection: socket, *, deadline_at: float | None) -> Reply:
    """Return the answer; *deadline_at* in run time, None waits for ever."""
    data = bytearray()
    reply: Reply | None = None
    while reply is None:
        if deadline_at is None:
            connection.settimeout(None)
        else:
            # Not 0, which would mean "do not block"; the next recv is the last.
            connection.settimeout(max(deadline_at - clock.run_time(), 0.001))
        chunk = connection.recv(8192)
        data += chunk
        if len(data) > LIMIT:
            msg = f"an answer of more than {LIMIT} bytes"
            raise ProtocolError(msg)
        reply = _parsed(data, ended=not chunk)
    return reply


def hang_up(connection: socket) -> None:
    """Close *connection*, and wake the thread that is waiting in it."""
    with contextlib.suppress(OSError):  # it may not be connected any more
        connection.shutdown(SHUT_RDWR)
    connection.close()


def _parsed(data: bytearray, *, ended: bool) -> Reply | None:
    """Return the answer in *data*; None when there is more of it to come."""
    head, blank, body = bytes(data).partition(b"\r\n\r\n")
    if not blank:
        if ended:
            msg = "the connection ended before an answer" if not data else "not HTTP"
            raise ProtocolError(msg)
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
        msg = "the answer is not HTTP/1.1"
        raise ProtocolError(msg)
    headers = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "")
    if length.isdecimal():
        if len(body) < int(length):
            if ended:
                msg = "the answer was cut short"
                raise ProtocolError(msg)
            return None
        body = body[: int(length)]
    elif not ended:
        return None
    return Reply(int(status[:3]), headers, body)
