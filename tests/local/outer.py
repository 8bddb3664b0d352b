"""An external extension: registers for EVENTS and does with each as told.

CRASH       early, registered, invoke: when it exits, with status 5
LINGER      it does not end at SHUTDOWN
"""

import http.client
import json
import os
import sys
import time

EXTENSION = "/2020-01-01/extension/"


def call(method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, EXTENSION + path, body, headers or {})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def say(*words):
    """Write a line at once: print() is several writes, and others write, too."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def crash(when):
    if os.environ.get("CRASH") == when:
        sys.exit(5)


(name,) = sys.argv[1:]
say("starting", json.dumps(dict(os.environ)))
say("pid", os.getpid())
crash("early")
body = json.dumps({"events": json.loads(os.environ["EVENTS"])})
status, got, text = call("POST", "register", body, {"Lambda-Extension-Name": name})
say("registered", status, text.decode().strip())
crash("registered")
identifier = {"Lambda-Extension-Identifier": got["Lambda-Extension-Identifier"]}
while True:
    event = json.loads(call("GET", "event/next", None, identifier)[2])
    say("got", json.dumps(event))
    crash("invoke")
    if event["eventType"] == "SHUTDOWN":
        if "LINGER" in os.environ:
            time.sleep(600)
        break
