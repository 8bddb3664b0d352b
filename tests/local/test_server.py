"""The wire, with the test as runtime and as extension."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from emulated import emulate, process
from helpers import eventually

from lambda_ext.local.server import Answer, Server

pytestmark = process

EXTENSION = "/2020-01-01/extension/"
NEXT = "/2018-06-01/runtime/invocation/next"


class Wire:
    """An emulator whose runtime process does nothing: the test speaks for it."""

    def __init__(self):
        self.emulator = emulate(command=["sleep", "600"], timeout_s=60, freeze=False)
        self.address = self.emulator._server.address

    def begin(self):
        """Start an invocation; return it when its Init waits for the runtime."""
        pending = self.emulator.invoke_async({"n": 1})
        eventually(lambda: self.emulator.pid)
        return pending

    def ask(self, method, path, body=None, headers=None):
        """Ask and return status, headers and body."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        connection.close()
        return answer

    def register(self, events):
        """Register an internal extension; return the header that identifies it."""
        body = json.dumps({"events": events})
        name = {"Lambda-Extension-Name": "inner"}
        _, headers, _ = self.ask("POST", EXTENSION + "register", body, name)
        identifier = "Lambda-Extension-Identifier"
        return {identifier: headers[identifier]}

    def poll_and_vanish(self, headers):
        """Ask for an event and hang up as soon as the question has arrived."""
        host, port = self.address.split(":")
        lines = [f"GET {EXTENSION}event/next HTTP/1.1", f"Host: {self.address}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.create_connection((host, int(port))) as client:
            client.sendall("\r\n".join([*lines, "", ""]).encode())
            eventually(lambda: self.emulator.agents[0].state == "Ready")

    def next(self):
        """Take an invocation; return its id."""
        return self.ask("GET", NEXT)[1]["Lambda-Runtime-Aws-Request-Id"]

    def respond(self, request_id, body=b"{}"):
        """Answer an invocation."""
        path = f"/2018-06-01/runtime/invocation/{request_id}/response"
        return self.ask("POST", path, body)


@pytest.fixture
def wire():
    """A wire to an emulator."""
    wire = Wire()
    with wire.emulator:
        yield wire


def test_event_for_a_client_that_hung_up_is_lost(wire):
    """A polling extension that is gone goes unnoticed, and may ask again."""
    pending = wire.begin()
    headers = wire.register(["INVOKE"])
    wire.poll_and_vanish(headers)
    request_id = wire.next()

    assert "Running" == wire.emulator.agents[0].state

    wire.respond(request_id)
    wire.poll_and_vanish(headers)

    assert "success" == pending.result(30).status
    assert "Ready" == wire.emulator.agents[0].state


def test_connection_is_kept_for_the_next_question(wire):
    """One connection carries request after request."""
    wire.begin()
    connection = http.client.HTTPConnection(wire.address, timeout=30)
    for _ in range(3):
        connection.request("GET", "/2018-06-01/ping")
        response = connection.getresponse()

        assert (200, b"pong") == (response.status, response.read())
    connection.close()


def test_body_in_chunks_is_one_body(wire):
    """A chunked response arrives whole."""
    pending = wire.begin()
    wire.respond(wire.next(), iter([b'{"a"', b": ", b"1}"]))

    assert {"a": 1} == pending.result(30).value


def test_poll_ends_without_an_answer_when_the_environment_does(wire):
    """A parked poll is cut off by the end, never answered."""
    wire.begin()
    headers = wire.register([])
    host, port = wire.address.split(":")
    lines = [f"GET {EXTENSION}event/next HTTP/1.1", f"Host: {wire.address}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        eventually(lambda: wire.emulator.agents[0].state == "Ready")
        wire.emulator.shutdown()

        assert b"" == client.recv(1)
    assert [None] == [
        call.status for call in wire.emulator.calls if "event" in call.path
    ]


def test_question_without_an_environment_gets_no_answer(wire):
    """Before the first process and after the last, no request is answered."""
    with pytest.raises(http.client.RemoteDisconnected):
        wire.ask("GET", NEXT)


class TestBadRequests:
    """What is no HTTP, or too much of it."""

    @pytest.fixture
    def served(self):
        """A server of small bodies, and what it was asked."""
        asked = []

        def respond(request):
            asked.append(request.body)
            return Answer(200, b"ok")

        server = Server(respond, max_body=1000)
        server.asked = asked
        yield server
        server.close()

    def raw(self, served, text):
        """Send *text* as it is; return all that comes until the server hangs up."""
        host, port = served.address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(text.replace("HOST", f"Host: {served.address}").encode())
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    @pytest.mark.parametrize(
        "head",
        [
            "Content-Length: x",
            "Content-Length: -1",
            "Content-Length: +1",
            "Content-Length: 1_0",
            "Content-Length: \u0661",
            "Content-Length:",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, chunked",
        ],
    )
    def test_bad_length_is_a_bad_request(self, served, head):
        """A length that is none is answered with 400, and the connection closes."""
        got = self.raw(served, f"POST / HTTP/1.1\r\nHOST\r\n{head}\r\n\r\n1")

        assert got.startswith("HTTP/1.1 400 ")
        assert "Connection: close" in got
        assert 1 == got.count("HTTP/1.1")
        assert [] == served.asked

    @pytest.mark.parametrize(
        ("chunks", "status"),
        [
            ("x\r\n", 400),
            ("-1\r\n", 400),
            ("\r\n", 400),
            ("1\r\nabc", 400),
            ("5\r\nab", 400),
            ("0\r\n" + "a: b\r\n" * 200, 400),
            ("f" * 2000, 400),
            ("ffffffff\r\n", 413),
            ("1f4\r\n" + "a" * 500 + "\r\n1f5\r\n", 413),
        ],
    )
    def test_bad_chunk_is_a_bad_request(self, served, chunks, status):
        """A chunk that is none gets 400, one too many 413."""
        head = "POST / HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n"

        assert self.raw(served, head + chunks).startswith(f"HTTP/1.1 {status} ")
        assert [] == served.asked

    def test_body_has_a_bound(self, served):
        """A body at the bound arrives; one byte more is refused, and not read."""
        text = "POST / HTTP/1.1\r\nHOST\r\nContent-Length: {}\r\n\r\n"

        assert self.raw(served, text.format(1000) + "a" * 1000).startswith(
            "HTTP/1.1 200 "
        )
        assert self.raw(served, text.format(1001)).startswith("HTTP/1.1 413 ")
        assert self.raw(served, text.format("9" * 5000)).startswith("HTTP/1.1 413 ")
        assert [1000] == [len(body) for body in served.asked]

    def test_body_that_was_cut_off_is_no_request(self, served):
        """A body shorter than announced is not delivered."""
        text = "POST / HTTP/1.1\r\nHOST\r\nContent-Length: 10\r\n\r\nabc"

        assert self.raw(served, text).startswith("HTTP/1.1 400 ")
        assert [] == served.asked

    def test_target_of_another_host_is_a_bad_request(self, served):
        """An absolute target, as for a proxy, is refused."""
        got = self.raw(served, "GET http://evil.example/ HTTP/1.1\r\nHOST\r\n\r\n")

        assert got.startswith("HTTP/1.1 400 ")
