"""
An OpenTelemetry collector of 100 lines: takes metrics by OTLP, and adds them up.

It reads protobuf by itself, field by field, so that it shares no code with the
library that wrote it.

Source: opentelemetry/proto/metrics/v1/metrics.proto,
https://github.com/open-telemetry/opentelemetry-proto
"""

import gzip
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = {5: "gauge", 7: "sum", 9: "histogram"}  # field numbers of a Metric


class Collector:
    """Listens on this machine while it is used as a context manager."""

    def __init__(self):
        self.sums = Counter()  # (metric, dimensions): sum
        self.points = Counter()  # (metric, kind): points
        self.requests = []  # bytes of each
        self._lock = threading.Lock()
        handler = type("Handler", (Handler,), {"collector": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self._server.shutdown()
        self._server.server_close()

    def take(self, body):
        """Add up the points of one request."""
        with self._lock:
            self.requests.append(len(body))
            for resource in members(body, 1):
                for scope in members(resource, 2):
                    for metric in members(scope, 2):
                        self._add(metric)

    def _add(self, metric):
        (name,) = members(metric, 1)
        for number, kind in KINDS.items():
            for data in members(metric, number):
                for point in members(data, 1):
                    value = value_of(point, kind)
                    self.sums[name.decode(), dimensions_of(point, kind)] += value
                    self.points[name.decode(), kind] += 1


class Handler(BaseHTTPRequestHandler):
    """Answers each request with 200 and an empty body, which takes all of it."""

    protocol_version = "HTTP/1.1"
    collector: Collector

    def do_POST(self):
        """Take one request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.collector.take(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        """Print nothing."""


def value_of(point, kind):
    """Return the value of a point; of a histogram its sum."""
    if kind == "histogram":
        return next(members(point, 5))
    # as_int or as_double
    return next(members(point, 6), None) or next(members(point, 4), 0)


def dimensions_of(point, kind):
    """Return ((name, value), ...) of a point."""
    return tuple(
        (
            next(members(pair, 1)).decode(),
            next(members(next(members(pair, 2)), 1)).decode(),
        )
        for pair in members(point, 9 if kind == "histogram" else 7)
    )


def members(message, wanted):
    """Yield the value of each field of *message* whose number is *wanted*."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, form = key >> 3, key & 7
        if form == 0:
            value, at = varint(message, at)
        elif form == 1:  # a double, or the integer of a point
            layout = "<q" if number == 6 else "<d"
            (value,) = struct.unpack_from(layout, message, at)
            at += 8
        else:
            size, at = varint(message, at)
            value = message[at : at + size]
            at += size
        if number == wanted:
            yield value


def varint(message, at):
    """Return the number that begins at *at*, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
