"""The wire: requests as Lambda wants them, answers in pieces of any size."""

from __future__ import annotations

import _socket
import os
import socket
import threading

import pytest

from lambda_ext.lifecycle import clock, runtime_api


@pytest.fixture(name="pair")
def _pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def receive(pair, *chunks, end=True):
    """Return the reply to an answer that comes in *chunks*."""
    ours, theirs = pair

    def send():
        for chunk in chunks:
            theirs.sendall(chunk)
        if end:
            theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return runtime_api.receive(ours, deadline_at=clock.run_time() + 10)
    finally:
        thread.join()


def test_names_of_the_private_module_are_there():
    """What is used of _socket exists and does what `socket`'s does."""
    made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0)
    try:
        assert (_socket.AF_INET, _socket.SOCK_STREAM) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
        )
        assert runtime_api.SHUT_RDWR == socket.SHUT_RDWR
        assert not os.get_inheritable(made.fileno())
        for name in ("connect", "sendall", "recv", "settimeout", "shutdown", "close"):
            assert callable(getattr(made, name))
    finally:
        made.close()


def test_time_out_of_the_private_module_is_a_timeout_error():
    """Its exception is the builtin one, which is an OSError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0)
        try:
            made.connect(server.getsockname())
            made.settimeout(0.001)
            with pytest.raises(TimeoutError):
                made.recv(1)
        finally:
            made.close()


def test_answer_in_single_bytes_is_read(pair):
    """The head may come in any pieces; names of headers ignore case."""
    answer = b"HTTP/1.1 202 Accepted\r\nX-Some: value \r\ncontent-LENGTH: 3\r\n\r\nabc"
    reply = receive(pair, *(answer[i : i + 1] for i in range(len(answer))), end=False)

    assert 202 == reply.status
    assert "value" == reply.headers["x-some"]
    assert b"abc" == reply.body


def test_answer_without_length_ends_with_the_connection(pair):
    """As HTTP/1.0 does it."""
    reply = receive(pair, b"HTTP/1.0 200\r\n\r\n", b"abc")

    assert (200, b"abc") == (reply.status, reply.body)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 -1\r\n\r\n",
     b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 200\r\ncontent-length: 9\r\n\r\nabc",
     b"x" * (runtime_api.LIMIT + 1)],
)  # fmt: skip
def test_what_is_not_http_raises(pair, answer):
    """Never a wrong reply, never a wait for more."""
    with pytest.raises(runtime_api.ProtocolError):
        receive(pair, answer)


def test_answer_that_trickles_ends_at_the_deadline(pair):
    """The time-out is for the whole answer, not for each piece."""
    ours, theirs = pair
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.005):
            theirs.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            runtime_api.receive(ours, deadline_at=clock.run_time() + 0.05)
    finally:
        stop.set()
        thread.join()
