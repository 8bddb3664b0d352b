"""The reader of HTTP/1.1 responses, held against the standard library's.

HTTP1_CASES=150000 makes the run that its docstring speaks of.
"""

from __future__ import annotations

import http.client
import io
import os
import random

import pytest

from lambda_ext.aws import http1

CASES = int(os.environ.get("HTTP1_CASES", "300"))
HEAD = b"HTTP/1.1 200 OK\r\n"


class Flood(Exception):
    """The reader asked for more than the limit."""


def feed(data, random_=None):
    """Return a receive function that gives *data*, in random fragments."""
    left = io.BytesIO(data)
    calls = 0

    def receive(count):
        nonlocal calls
        calls += 1
        if calls > 2 * len(data) + 10:
            raise Flood
        return left.read(random_.randint(1, min(count, 40)) if random_ else count)

    return receive


def ours(data, random_=None):
    """Return (status, headers, body) as our reader has them."""
    response = http1.read(feed(data, random_))
    return response.status, response.headers, response.body


def theirs(data):
    """Return (status, headers, body) as `http.client` has them."""

    class Socket:
        """As much of a socket as `http.client` needs."""

        def makefile(self, mode):
            return io.BytesIO(data)

    response = http.client.HTTPResponse(Socket())
    response.begin()
    body = response.read()
    headers = {}
    for name, value in response.getheaders():
        key = name.lower()
        text = value.strip(" \t")  # RFC 9110 has it so, `email` keeps the end
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return response.status, headers, body


def generated(random_):
    """Return the bytes of a valid response of any of the kinds."""
    body = random_.randbytes(random_.choice((0, 1, 2, 17, 300)))
    status = random_.choice((200, 200, 201, 204, 301, 304, 400, 403, 429, 500, 503))
    version = random_.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
    empty = status in (204, 304)
    lines = []
    for _ in range(random_.randint(0, 6)):
        name = "".join(random_.choices("abcXYZ019-_.!", k=random_.randint(1, 9)))
        value = "".join(random_.choices('abc ,;:="\t\u00e9', k=random_.randint(0, 12)))
        lines.append(f"X-{name}:{random_.choice(('', ' ', '  '))}{value.strip()}")
    kind = random_.choice(("length", "chunked", "close"))
    if kind == "chunked" and version == b"1.1" and not empty:
        lines.append(random_.choice(("Transfer-Encoding", "transfer-encoding"))
                     + ": " + random_.choice(("chunked", "Chunked")))  # fmt: skip
        wire = chunked(body, random_)
    elif kind == "close" or empty:
        if random_.random() < 0.5:
            lines.append("Connection: close")
        wire = b"" if empty else body
    else:
        lines.append(f"Content-Length: {len(body)}")
        wire = body
    random_.shuffle(lines)
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * random_.choice((0, 0, 0, 1, 2))
    reason = random_.choice((b" OK", b" ", b"", b" Not \xe9 found"))
    head = b"HTTP/%b %d%b" % (version, status, reason)
    text = "\r\n".join(("", *lines, "", "")).encode("latin-1")
    return interim + head + text + wire


def chunked(body, random_):
    """Return *body* in chunks of random sizes, with extensions and trailers."""
    wire = b""
    while body:
        size = random_.randint(1, len(body))
        style = random_.choice((b"%x", b"%X", b"000%x"))
        extension = random_.choice((b"", b"", b";a=b", b" ;x", b'; y="z"'))
        wire += style % size + extension + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailers = random_.choice((b"", b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"))
    return wire + random_.choice((b"0", b"00")) + b"\r\n" + trailers + b"\r\n"


def mutilated(data, random_):
    """Return *data* with some of it lost, doubled, moved or replaced."""
    data = bytearray(data)
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(data) + 1)
        end = min(len(data), at + random_.choice((1, 1, 1, 4, 40)))
        kind = random_.randrange(6)
        if kind == 0:
            del data[at:end]
        elif kind == 1:
            data[at:at] = data[at:end]
        elif kind == 2:
            data[at:at] = random_.choice(
                (b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"-1", b"\x85",
                 b"HTTP/1.1 200 OK\r\n\r\n", b"Content-Length: 3\r\n",
                 b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"+", b"0x", b"_")
            )  # fmt: skip
        elif kind == 3:
            data[at:end] = random_.randbytes(end - at)
        elif kind == 4:
            del data[at:]
        else:
            other = random_.randrange(len(data) + 1)
            piece = data[at:end]
            del data[at:end]
            data[other:other] = piece
    return bytes(data)


def test_valid_responses_are_read_as_http_client_reads_them():
    """Any valid response, in any fragments, means the same to both readers."""
    random_ = random.Random(1)
    for _ in range(CASES):
        data = generated(random_)

        assert theirs(data) == ours(data, random_), data


def test_mutilated_responses_are_refused_or_read_as_http_client_reads_them():
    """Nothing is accepted that `http.client` would read otherwise; no hang."""
    random_ = random.Random(2)
    accepted = 0
    for _ in range(CASES):
        data = mutilated(generated(random_), random_)
        try:
            found = ours(data, random_)
        except http1.ProtocolError:
            continue
        accepted += 1
        reference = theirs(data)
        if reference[0] < 200:
            continue  # of the interim responses `http.client` knows only 100

        assert reference == found, data
    assert 0 < accepted < CASES


@pytest.mark.parametrize(
    "size", [b"0x5", b"+5", b"-5", b"5_0", b"", b" 5", b"5 5", b"\xd9\xa5", b"f" * 16]
)
def test_size_of_a_chunk_is_hexadecimal_digits_alone(size):
    """What `int` would take for a number is no size of a chunk."""
    data = (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    )

    with pytest.raises(http1.ProtocolError):
        ours(data)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: 5_0",
        b"Content-Length: ",
        b"Content-Length: -1",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length : 5",
        b"X: a\r\n folded",
        b"X: a\rb",
        b"X: a\nb",
        b"X: a\0b",
        b"no colon",
        b": no name",
        b"X: \x7f",
    ],
)
def test_headers_that_two_readers_may_read_differently_are_refused(headers):
    """An ambiguous length, a folded line or a bare line end is an error."""
    with pytest.raises(http1.ProtocolError):
        ours(HEAD + headers + b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "start",
    [b"HTTP/2 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1 99 OK", b"HTTP/1.1 600 OK",
     b"HTTP/1.1 2000 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1  200 OK", b"http/1.1 200 OK",
     b"HTTP/1.1 101 Switching", b"<html><body>", b"\r\nHTTP/1.1 200 OK", b"SSH-2.0-x"],
)  # fmt: skip
def test_status_line_that_is_none_is_refused(start):
    """Only HTTP/1.0 and 1.1 with a status of three digits is understood."""
    with pytest.raises(http1.ProtocolError):
        ours(start + b"\r\n\r\n")


def test_what_is_not_http_is_refused_without_waiting_for_the_rest():
    """A server of another protocol, which then waits, does not make us wait."""
    pieces = [b"220 mail", b"server"]

    with pytest.raises(http1.ProtocolError, match="not HTTP"):
        http1.read(lambda count: pieces.pop(0))
    assert [b"server"] == pieces


def test_close_before_the_first_byte_can_be_told_apart():
    """Nothing at all is another error than a response that was cut."""
    with pytest.raises(http1.NothingReceivedError):
        ours(b"")
    with pytest.raises(http1.ProtocolError, match="cut") as caught:
        ours(b"H")
    assert http1.CutError is type(caught.value)


@pytest.mark.parametrize(
    "data",
    [HEAD + b"Content-Length: 5\r\n\r\nhello",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"],
    ids=["length", "chunked"],
)  # fmt: skip
def test_response_cut_anywhere_is_an_error(data):
    """There is no byte after which a delimited response may end early."""
    assert b"hello" == ours(data)[2]
    for count in range(len(data)):
        with pytest.raises(http1.ProtocolError):
            ours(data[:count])


@pytest.mark.parametrize(
    "data",
    [HEAD + b"X: " + b"a" * http1.MAX_HEAD + b"\r\n\r\n",
     HEAD + b"A: b\r\n" * (http1.MAX_HEADERS + 1) + b"\r\n",
     HEAD + b"Content-Length: %d\r\n\r\n" % (http1.MAX_BODY + 1),
     HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (http1.MAX_BODY + 1),
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 200,
     HEAD + b"\r\n" + b"a" * (http1.MAX_BODY + 1),
     b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + HEAD + b"\r\n"],
    ids=["head", "headers", "length", "digits", "chunk", "trailers", "close", "interim"],
)  # fmt: skip
def test_limits_hold(data):
    """The reader keeps no more than the limits say."""
    with pytest.raises(http1.ProtocolError):
        http1.read(io.BytesIO(data).read)


def test_endless_head_is_given_up():
    """A server that never ends its headers is not listened to for ever."""
    received = 0

    def receive(count):
        nonlocal received
        received += 1000
        return b"HTTP/1.1 200 OK\r\nA: " if received == 1000 else b"a" * 1000

    with pytest.raises(http1.ProtocolError):
        http1.read(receive)
    assert received < 2 * http1.MAX_HEAD


@pytest.mark.parametrize(
    ("data", "reusable"),
    [
        (HEAD + b"Content-Length: 0\r\n\r\n", True),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 204 \r\n\r\n", True),
        (HEAD + b"Content-Length: 0\r\nConnection: Close\r\n\r\n", False),
        (HEAD + b"Content-Length: 0\r\nConnection: x, close\r\n\r\n", False),
        (HEAD + b"\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (HEAD + b"Content-Length: 0\r\n\r\n" + HEAD, False),
    ],
)
def test_connection_is_kept_only_after_a_response_read_to_its_end(data, reusable):
    """Bytes that were not asked for, or an end by closing, end the connection."""
    assert reusable is http1.read(feed(data)).reusable


def test_repr_shows_no_body():
    """A response that is printed does not tell what is in it."""
    response = http1.read(feed(HEAD + b"Content-Length: 6\r\n\r\nsecret"))

    assert "<response 200, 6 bytes>" == repr(response)
