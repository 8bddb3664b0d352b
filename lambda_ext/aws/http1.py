"""
A reader of HTTP/1.1 responses: as much of it as AWS's endpoints need.

Status line, headers, Content-Length, chunks with trailers, bodies that end
with the connection, interim responses, limits.  It is strict where
`http.client` is lenient: what it accepts, `http.client` reads the same way.
(The run of tests/aws/test_http1.py with HTTP1_CASES=150000 on CPython 3.11.7:
150,000 generated responses in random fragments, no difference.  150,000
mutilated ones, no hang; 34,608 were accepted, and `http.client` reads them the
same way, but for 3 with an interim response, of which it knows only 100.)
Not importing `http.client` saves 15 to 25 ms and 2 MB, most of it `email`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Receive = Callable[[int], bytes]

MAX_HEAD = 64 * 1024  # bytes of a status line with its headers, or of trailers
MAX_HEADERS = 100  # as `http.client`
MAX_BODY = 16 * 1024 * 1024  # 20 secrets of 64 KB, each byte escaped, are 8 MB
MAX_INTERIM = 8  # responses 1xx before the real one
AT_ONCE = 64 * 1024

# Sets of bytes for `bytes.translate`; four regular expressions would cost 0.6 ms.
TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEXADECIMAL = b"0123456789ABCDEFabcdef"
CONTROL = bytes((*range(9), *range(10, 32), 127))  # all but the tab


class ProtocolError(Exception):
    """This is not a response that can be relied on; the message quotes none."""


class NothingReceivedError(ProtocolError):
    """The connection was closed before the first byte of a response."""


class CutError(ProtocolError):
    """The connection was closed in the middle of a response."""


class Response:
    """A whole response; header names are in small letters."""

    __slots__ = ("body", "headers", "reusable", "status")

    def __init__(
        self, status: int, headers: dict[str, str], body: bytes, reusable: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.reusable = reusable  # whether the connection can take another request

    def __repr__(self) -> str:
        return f"<response {self.status}, {len(self.body)} bytes>"


def read(receive: Receive) -> Response:
    """
    Read one response from *receive*, which returns b"" at the end.

    Raises:
        NothingReceivedError: the connection was closed at once.
        ProtocolError: the response is cut, malformed, or past a limit.
    """
    source = _Source(receive)
    if not source.more():
        raise NothingReceivedError("the connection was closed without an answer")
    for _ in range(MAX_INTERIM + 1):
        version, status, headers = _head(source)
        if status >= 200:
            break
        if status == 101:
            raise ProtocolError("the protocol was switched without being asked")
    else:
        raise ProtocolError("too many interim responses")
    body, delimited = _body(source, version, status, headers)
    reusable = (
        delimited
        and version == b"1"
        and not source.buffer  # more than was asked for, of unknown meaning
        and "close" not in _tokens(headers.get("connection", ""))
    )
    return Response(status, headers, body, reusable)


class _Source:
    """What was received and not yet read."""

    __slots__ = ("buffer", "receive")

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.buffer = bytearray()

    def more(self) -> bool:
        """Receive something; False at the end of the connection."""
        data = self.receive(AT_ONCE)
        self.buffer += data
        return bool(data)

    def until(self, end: bytes, limit: int) -> bytes:
        """Return what comes before *end*, and skip both."""
        start = 0
        while (at := self.buffer.find(end, start)) < 0:
            if len(self.buffer) > limit:
                raise ProtocolError("a line or a head is too long")
            start = max(0, len(self.buffer) - len(end) + 1)
            self.need()
        if at > limit:
            raise ProtocolError("a line or a head is too long")
        found = bytes(self.buffer[:at])
        del self.buffer[: at + len(end)]
        return found

    def exactly(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        while len(self.buffer) < count:
            self.need()
        found = bytes(self.buffer[:count])
        del self.buffer[:count]
        return found

    def need(self) -> None:
        """Receive something; the end of the connection is an error."""
        if not self.more():
            raise CutError("the answer was cut")


def _head(source: _Source) -> tuple[bytes, int, dict[str, str]]:
    while len(source.buffer) < 7:
        source.need()
    if not source.buffer.startswith(b"HTTP/1."):  # do not wait for the rest of it
        raise ProtocolError("this is not HTTP")
    line, *lines = source.until(b"\r\n\r\n", MAX_HEAD).split(b"\r\n")
    version, status, reason = line[7:8], line[9:12], line[12:]
    if (
        version not in (b"0", b"1")
        or line[8:9] != b" "
        or not (len(status) == 3 and status.isdigit() and b"100" <= status < b"600")
        or reason[:1] not in (b"", b" ")
        or not _is_text(reason)
    ):
        raise ProtocolError("the status line is malformed")
    return version, int(status), _headers(lines)


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise ProtocolError("there are too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        raw, colon, rest = line.partition(b":")
        if not (raw and colon and _is_text(rest)) or raw.translate(None, TOKEN):
            raise ProtocolError("a header is malformed")
        name = raw.decode("ascii").lower()
        value = rest.strip(b" \t").decode("latin-1")
        if name in headers:
            if name in ("content-length", "transfer-encoding"):
                raise ProtocolError(f"there are two headers {name}")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _is_text(value: bytes) -> bool:
    return len(value.translate(None, CONTROL)) == len(value)


def _body(
    source: _Source, version: bytes, status: int, headers: dict[str, str]
) -> tuple[bytes, bool]:
    """Return the body, and whether it ended before the connection did."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None or version != b"1":
            raise ProtocolError("the transfer coding is not understood")
        if status in (204, 304):
            raise ProtocolError("there is a body where there can be none")
        return _chunks(source), True
    if length is not None and not (
        length.isascii() and length.isdigit() and len(length) < 16
    ):
        raise ProtocolError("the content length is malformed")
    if status in (204, 304):
        return b"", True
    if length is not None:
        if int(length) > MAX_BODY:
            raise ProtocolError(f"the body is longer than {MAX_BODY} bytes")
        return source.exactly(int(length)), True
    while source.more():
        if len(source.buffer) > MAX_BODY:
            raise ProtocolError(f"the body is longer than {MAX_BODY} bytes")
    body = bytes(source.buffer)
    source.buffer.clear()
    return body, False


def _chunks(source: _Source) -> bytes:
    body = bytearray()
    while True:
        line = source.until(b"\r\n", MAX_HEAD)
        digits = line.partition(b";")[0].rstrip(b" \t")
        # `int` alone would also take "0x5", "+5" and "1_0".
        if not 0 < len(digits) < 16 or digits.translate(None, HEXADECIMAL):
            raise ProtocolError("the size of a chunk is malformed")
        if not _is_text(line):
            raise ProtocolError("the extension of a chunk is malformed")
        size = int(digits, 16)
        if size == 0:
            break
        if len(body) + size > MAX_BODY:
            raise ProtocolError(f"the body is longer than {MAX_BODY} bytes")
        body += source.exactly(size)
        if source.exactly(2) != b"\r\n":
            raise ProtocolError("a chunk does not end where it should")
    trailers: list[bytes] = []
    while line := source.until(b"\r\n", MAX_HEAD):
        trailers.append(line)
        if len(trailers) > MAX_HEADERS:
            break
    _headers(trailers)
    return bytes(body)


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]
