"""The wire, with the test as runtime and as extension."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from emulated import emulate, process
from helpers import eventually

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
        lines = [f"GET {EXTENSION}event/next HTTP/1.1", "Host: x"]
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
    """Nobody notices that a polling extension is gone; it may ask anew after."""
    pending = wire.begin()
    headers = wire.register(["INVOKE"])
    wire.poll_and_vanish(headers)
    request_id = wire.next()

    assert wire.emulator.agents[0].state == "Running"

    wire.respond(request_id)
    wire.poll_and_vanish(headers)

    assert pending.result(30).status == "success"
    assert wire.emulator.agents[0].state == "Ready"


def test_connection_is_kept_for_the_next_question(wire):
    """One connection carries request after request."""
    wire.begin()
    connection = http.client.HTTPConnection(wire.address, timeout=30)
    for _ in range(3):
        connection.request("GET", "/2018-06-01/ping")
        response = connection.getresponse()

        assert (response.status, response.read()) == (200, b"pong")
    connection.close()


def test_body_in_chunks_is_one_body(wire):
    """A chunked response arrives whole."""
    pending = wire.begin()
    wire.respond(wire.next(), iter([b'{"a"', b": ", b"1}"]))

    assert pending.result(30).value == {"a": 1}


def test_poll_ends_without_an_answer_when_the_environment_does(wire):
    """A parked poll is cut off by the end, never answered."""
    wire.begin()
    headers = wire.register([])
    host, port = wire.address.split(":")
    lines = [f"GET {EXTENSION}event/next HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        eventually(lambda: wire.emulator.agents[0].state == "Ready")
        wire.emulator.shutdown()

        assert client.recv(1) == b""
    assert [call.status for call in wire.emulator.calls if "event" in call.path] == [
        None
    ]


def test_question_without_an_environment_gets_no_answer(wire):
    """Before the first process and after the last, nobody answers."""
    with pytest.raises(http.client.RemoteDisconnected):
        wire.ask("GET", NEXT)
