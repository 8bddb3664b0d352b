"""
A real OTLP collector, rotel, as a process on loopback.

Source: rotel, https://github.com/streamfold/pyrotel
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess

import pytest
from helpers import eventually, port_for_a_program

rotel = pytest.importorskip(
    "rotel", reason="rotel has wheels for some Pythons and machines only"
)


@contextlib.contextmanager
def running(endpoint, folder, path="/v1/metrics"):
    """Run rotel, which passes on to *endpoint*; yield the address that it serves."""
    log = os.path.join(folder, "rotel.log")
    with port_for_a_program() as port:
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [os.path.join(os.path.dirname(rotel.__file__), "rotel-agent"), "start"],
                cwd=folder,
                env={
                    "ROTEL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{port}",
                    "ROTEL_OTLP_GRPC_ENDPOINT": "127.0.0.1:0",
                    "ROTEL_OTLP_EXPORTER_ENDPOINT": endpoint,
                    "ROTEL_OTLP_EXPORTER_PROTOCOL": "http",
                    "ROTEL_BATCH_TIMEOUT": "20ms",
                },
                stdout=output,
                stderr=output,
            )
        try:
            state = eventually(functools.partial(_state, process, port))
            with open(log, encoding="utf-8", errors="replace") as file:
                assert "serves" == state, f"rotel does not start: {file.read()}"
            yield f"http://127.0.0.1:{port}{path}"
        finally:
            process.kill()
            process.wait()


def _state(process, port):
    """Return "over", "serves", or None as long as it is neither."""
    if process.poll() is not None:
        return "over"
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return None
    return "serves"
