"""
What does telemetry cost: CPU for records, memory, and time in INIT?

    python benchmarks/telemetry.py [--repeat 9]

Measured in one run, interleaved, each server in a process of its own, to which
batches of 1,000 log records (about 190 bytes each) are delivered over one connection:

    bare http.server    reads each body and answers 200: what any receiver costs
    listener            `lambda_ext`'s, with nothing that consumes
    parsed              a consumer that asks for the records: JSON, and an object each
    read                a consumer that asks each for type, level, request id, message
    routed              a route by level, with five secrets to look for, to a function

Defends: the listener alone costs no more CPU than the bare http.server; subscribing adds
to INIT at most half of what a bare http.server would, and 25 ms, beside the 3.5 s that
users of an OpenTelemetry layer report for its receiver; a subscribed process is at most
6 MB larger.

CPU and memory are medians of the runs; ratios hold from machine to machine, figures do
not.  Exit status 1 if a budget is exceeded.
"""

from __future__ import annotations

import argparse
import compileall
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile

from lambda_ext.local.emulator import Emulator

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BATCHES = 50
RECORDS = 1_000  # a batch

REPORT = """
import sys, time

def memory():
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024

def report(port, done):
    print(port, flush=True)
    before = time.process_time()
    sys.stdin.readline()
    done()
    print(time.process_time() - before, memory(), flush=True)
"""

BARE = """
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
report(server.server_port, lambda: None)
"""

LISTENER = """
from lambda_ext.telemetry import consumers, dispatch, listener

def parsed(batch):
    len(batch.records)

def read(batch):
    for record in batch.records:
        record.type, record.level, record.request_id, record.message

consumers.extend({consumers})
server = listener.Listener(dispatch.dispatch, path="/", max_body=10_000_000)
server.start()
report(server.port, lambda: dispatch.drain(60))
"""

ROUTED = """
from lambda_ext import telemetry
from lambda_ext.telemetry import dispatch, listener, redaction, shipping

for number in range(5):
    redaction.protect(f"secret-{number}", f"value-of-a-secret-{number}")
telemetry.route(where="function", level=">=INFO").to(
    lambda entries: None, limit=1_000_000, limit_bytes=1_000_000_000
)
server = listener.Listener(dispatch.dispatch, path="/", max_body=10_000_000)
server.start()
report(server.port, lambda: dispatch.drain(60) and shipping.flush(60))
"""

SERVERS = {
    "bare http.server": BARE,
    "listener": LISTENER.format(consumers="[]"),
    "  parsed": LISTENER.format(consumers="[parsed]"),
    "  read": LISTENER.format(consumers="[read]"),
    "  routed": ROUTED,
}

HANDLER = """
import lambda_ext
{more}
@lambda_ext.handler
def handler(event, context):
    return event
"""
SUBSCRIBED = """
from lambda_ext import telemetry
telemetry.on_batch(len)
telemetry.subscribe(platform=True, function=True)
"""
RECEIVER = """
import threading
from http.server import ThreadingHTTPServer, BaseHTTPRequestHandler
server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""
HANDLERS = {
    "decorated handler": HANDLER.format(more=""),
    "with a bare http.server": HANDLER.format(more=RECEIVER),
    "with telemetry": HANDLER.format(more=SUBSCRIBED),
}


def body(number):
    """Return one delivery."""
    line = {
        "timestamp": "2026-01-01T00:00:00.000Z",
        "level": "INFO",
        "requestId": "5c5dbf6f-6d0d-4b8c-8b0d-7c1f0d3f2b7e",
        "message": f"order {number} was taken",
    }
    element = {"time": "2026-01-01T00:00:00.000Z", "type": "function", "record": line}
    return json.dumps([element] * RECORDS).encode()


def served(program, bodies):
    """Return CPU milliseconds for 1,000 records, and MB, of one server."""
    child = subprocess.Popen(
        [sys.executable, "-c", REPORT + program],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(child.stdout.readline()), timeout=60
        )
        for number, each in enumerate(bodies):
            connection.request("POST", "/", each, {"Sequence-Id": str(number)})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
        child.stdin.write("done\n")
        child.stdin.flush()
        cpu_s, memory_mb = map(float, child.stdout.readline().split())
        connection.close()
        child.stdin.close()
    return cpu_s * 1e3 / len(bodies) / (RECORDS / 1_000), memory_mb


def started(folder, name, program):
    """Return the milliseconds of INIT, and MB after an invocation."""
    root = os.path.join(folder, name.replace(" ", "_"))
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, "app.py"), "w", encoding="utf-8") as file:
        file.write(program)
    with Emulator(task_root=root, env={"PYTHONPATH": ROOT}, timeout_s=60.0) as emulator:
        duration_s = emulator.init().duration_s
        assert emulator.invoke(1).status == "success"
        emulator.wait_frozen()
        with open(f"/proc/{emulator.pid}/status", encoding="utf-8") as file:
            (memory,) = [line for line in file if line.startswith("VmRSS:")]
    return duration_s * 1e3, int(memory.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=9, help="processes per line")
    repeat = parser.parse_args().repeat
    over = []

    def budget(what, value, limit):
        if value > limit:
            over.append(f"{what}: {value:.2f} is over {limit:.2f}")

    # As it is installed: an import that compiles is another thing.
    compileall.compile_dir(os.path.join(ROOT, "lambda_ext"), quiet=2)
    bodies = [body(number) for number in range(BATCHES)]
    cpu = {name: [] for name in SERVERS}
    memory = {name: [] for name in SERVERS}
    for _ in range(repeat):
        for name, program in SERVERS.items():
            cpu_ms, memory_mb = served(program, bodies)
            cpu[name].append(cpu_ms)
            memory[name].append(memory_mb)
    size_kb = len(bodies[0]) / 1024
    print(f"Python {sys.version.split()[0]}; 1,000 records are {size_kb:.0f} KB\n")
    print("                          CPU for 1,000 records      RSS")
    for name in SERVERS:
        cpu[name], memory[name] = map(statistics.median, (cpu[name], memory[name]))
        print(f"  {name:<24}{cpu[name]:18.3f} ms{memory[name]:12.1f} MB")
    budget("CPU of the listener, ms", cpu["listener"], cpu["bare http.server"])

    inits = {name: [] for name in HANDLERS}
    sizes = {name: [] for name in HANDLERS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            for name, program in HANDLERS.items():
                init_ms, memory_mb = started(folder, name, program)
                inits[name].append(init_ms)
                sizes[name].append(memory_mb)
    base, base_mb = (
        statistics.median(found["decorated handler"]) for found in (inits, sizes)
    )
    print("\n                              INIT       beyond      RSS       beyond")
    for name in HANDLERS:
        init_ms, memory_mb = map(statistics.median, (inits[name], sizes[name]))
        print(
            f"  {name:<24}{init_ms:8.1f} ms{init_ms - base:+9.1f} ms"
            f"{memory_mb:8.1f} MB{memory_mb - base_mb:+8.1f} MB"
        )
    added, other = (
        statistics.median(inits[name]) - base
        for name in ("with telemetry", "with a bare http.server")
    )
    budget("ms added to INIT", added, min(25, other / 2))
    budget("MB added", statistics.median(sizes["with telemetry"]) - base_mb, 6)
    print("\n" + ("\n".join(over) if over else "all within their budgets"))
    return bool(over)


if __name__ == "__main__":
    sys.exit(main())
