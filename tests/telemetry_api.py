"""
A platform with a Telemetry API, for tests of who subscribes to it.

    with Platform() as platform:
        telemetry.subscribe(function=True)
        platform.deliver(platform.log("a line"))
    platform.subscriptions     # what was asked for, as JSON

Deliveries are made of bytes by hand, so that a test can break any of them.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TIME = "2022-08-02T12:01:23.521Z"


def element(type_, record, time=TIME):
    """Return one element of a delivery."""
    return {"time": time, "type": type_, "record": record}


def body_of(*elements):
    """Return the body of a delivery."""
    return json.dumps(elements).encode()


def logs(*texts):
    """Return the body of a delivery of lines that a function wrote."""
    return body_of(*(element("function", text) for text in texts))


def sequence(body):
    """Return the Sequence-Id as AWS's code makes it."""
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


class Platform:
    """
    Answers on loopback: registration, ``/event/next`` (never), subscriptions.

    Args:
        answers: (status, JSON or bytes) for one subscription each, and the last one
            for all others; None never answers.
    """

    def __init__(self, *answers):
        self.answers = list(answers) or [(200, "OK")]
        self.subscriptions = []
        self.calls = []
        self._released = threading.Event()
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self):
                size = int(self.headers.get("Content-Length") or 0)
                platform._answer(self, self.rfile.read(size))

            do_GET = do_POST = do_PUT = _serve

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler, body):
        path = handler.path
        self.calls.append(path)
        if path.endswith("/extension/register"):
            self._send(handler, 200, {}, {"Lambda-Extension-Identifier": "the-id"})
        elif path == "/2022-07-01/telemetry":
            asked = json.loads(body)
            asked["identifier"] = handler.headers["Lambda-Extension-Identifier"]
            self.subscriptions.append(asked)
            answer = self.answers[0]
            if len(self.answers) > 1:
                self.answers.pop(0)
            if answer is None:
                self._released.wait(60)
                handler.close_connection = True
            else:
                self._send(handler, *answer)
        else:
            self._released.wait(60)
            handler.close_connection = True

    @staticmethod
    def _send(handler, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response_only(status)
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    @property
    def destination(self):
        """Where the last subscriber wants its deliveries: (port, path)."""
        uri = urlsplit(self.subscriptions[-1]["destination"]["URI"])
        return uri.port, uri.path

    def deliver(self, body, *, sequence_id=True):
        """Deliver *body* over a connection of its own; return the status."""
        headers = {"Content-Type": "application/json"}
        if sequence_id:
            named = sequence_id if isinstance(sequence_id, str) else sequence(body)
            headers["Sequence-Id"] = named
        port, path = self.destination
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()


class Wire:
    """A connection to a listener, byte by byte."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._file.close()
        self._socket.close()

    def send(self, data):
        """Send bytes as they are."""
        self._socket.sendall(data)

    def status(self):
        """Read an answer; return its status, None where the connection ends."""
        line = self._file.readline()
        if not line:
            return None
        size = 0
        while header := self._file.readline().strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        self._file.read(size)
        return int(line.split()[1])

    def ended(self):
        """Say whether the other side has closed the connection."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


def request(path, body=b"", *, method="POST", headers=(), version="HTTP/1.1"):
    """Return the bytes of a request with a Content-Length."""
    named = {
        "Host": "sandbox.localdomain",
        "Content-Length": len(body),
        **dict(headers),
    }
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode() + body
