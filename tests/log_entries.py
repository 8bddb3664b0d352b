"""Entries as routes make them, for tests of destinations."""

from __future__ import annotations

import gzip
import json

from lambda_ext.lifecycle import clock
from lambda_ext.telemetry import Entry, records

TIME = "2026-01-02T03:04:05.678Z"
SECONDS = 1767323045.678
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
TRACE_ID = "5759e988bd862e3fe1be46a994272793"


def entry(body="hello", type="function", request_id=None, trace=None, time=TIME):
    """Return one entry, measured as a route does."""
    found = records.make({"time": time, "type": type, "record": body})
    made = Entry(found, request_id, trace)
    made.text()
    return made


def drained(destination, seconds=30.0):
    """Drain *destination* and return what it says of itself."""
    destination.drain(clock.monotonic() + seconds)
    return destination.sent, destination.dropped, destination.pending


def body_of(request):
    """Return the body of *request*, decompressed."""
    if request.headers.get("content-encoding") == "gzip":
        return gzip.decompress(request.body)
    return request.body


def concatenated(text):
    """Return the JSON objects that stand one after the other in *text*."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


class Key:
    """A secret whose value changes when it is read anew."""

    def __init__(self, *values):
        self.values = [*values]

    def __repr__(self):
        return "Key(SECRET)"

    @property
    def value(self):
        return self.values[0]

    def invalidate(self):
        if len(self.values) > 1:
            del self.values[0]
