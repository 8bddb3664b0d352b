"""The handler of the emulator's tests: it does what the event and the variables say.

EXTENSION   JSON list of events: register an internal extension, poll in a thread
GATE        a FIFO: a function that opens it waits until the test writes to it
ON_TERM     what SIGTERM does, besides being printed: exit, linger, wait (at LAST)
FAIL        raise, hang, exit: what happens at import
HOOKS       print, before, after, hang: SnapStart hooks; which one raises
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time

EXTENSION = "/2020-01-01/extension/"


def say(*words):
    """Write a line whole, also while other threads write."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def call(method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, EXTENSION + path, body, headers or {})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def wait(gate="GATE", path=None):
    with open(path or os.environ[gate]) as opened:
        opened.read()


def poll(headers):
    while True:
        event = json.loads(call("GET", "event/next", None, headers)[2])
        say("extension got", event["eventType"], event["requestId"])
        wait()
        say("extension done")


def extend(events):
    body = json.dumps({"events": events})
    name = {"Lambda-Extension-Name": os.environ.get("NAME", "inner")}
    status, got, text = call("POST", "register", body, name)
    say("registered", status, text.decode().strip())
    if status == 200:
        headers = {"Lambda-Extension-Identifier": got["Lambda-Extension-Identifier"]}
        if os.environ.get("POLL") != "never":
            threading.Thread(target=poll, args=(headers,), daemon=True).start()


def follow_signals(action):
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(write)

    def follow():
        os.read(read, 1)
        say("SIGTERM", os.getpid())
        if action == "wait":
            wait("LAST")
        if action != "linger":
            os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


def add_hooks(which):
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    def hook(name):
        say("hook", name)
        if name == "after" and which == "hang":
            time.sleep(600)
        if name == which:
            raise ValueError(name)

    register_before_snapshot(hook, "before")
    register_after_restore(hook, "after")


say("loading", os.getpid())
if "EXTENSION" in os.environ:
    extend(json.loads(os.environ["EXTENSION"]))
if "ON_TERM" in os.environ:
    follow_signals(os.environ["ON_TERM"])
if "HOOKS" in os.environ:
    add_hooks(os.environ["HOOKS"])
if os.environ.get("FAIL") == "raise":
    raise RuntimeError("not today")
if os.environ.get("FAIL") == "exit":
    os._exit(4)
if os.environ.get("FAIL") == "hang":
    time.sleep(600)


def handler(event, context):
    say("handling", json.dumps(event), os.getpid())
    do = event.get("do")
    if do == "wait":
        wait(path=event.get("gate"))
    elif do == "raise":
        raise ValueError("no")
    elif do == "exit":
        os._exit(event["status"])
    elif do == "kill":
        os.kill(os.getpid(), event["signal"])
    elif do == "keep":
        with open(os.environ["KEEP"], "w") as file:
            file.write(str(os.getpid()))
    elif do == "kept":
        with open(os.environ["KEEP"]) as file:
            return {"kept": file.read(), "pid": os.getpid()}
    elif do == "exit later":  # by a thread that first runs when this has returned
        threading.Thread(target=lambda: (wait(), os._exit(event["status"]))).start()
    elif do == "sleep":
        time.sleep(600)
    elif do == "child":  # one that outlives the handler
        code = "import sys, time; print('child', flush=True); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code], **event.get("options", {}))
    elif do == "write":
        os.write(1, bytes.fromhex(event["hex"]) * event.get("times", 1))
    elif do == "environment":
        return dict(os.environ)
    return {
        "n": event.get("n"),
        "pid": os.getpid(),
        "id": context.aws_request_id,
        "now": time.time(),
        "left": context.get_remaining_time_in_millis(),
        "arn": context.invoked_function_arn,
    }
