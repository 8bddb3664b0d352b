"""A runtime that asks the APIs everything, the wrong things above all.

    python probe.py SCENARIO ANSWERS.json

runs under any server of the Runtime and Extensions APIs and notes, question by
question, status, content type, headers of the API and body.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import sys
import threading

RUNTIME = "/2018-06-01/runtime/"
EXTENSION = "/2020-01-01/extension/"
NEXT = RUNTIME + "invocation/next"
NEXT_EVENT = EXTENSION + "event/next"
NAME = "Lambda-Extension-Name"
ID = "Lambda-Extension-Identifier"
TYPED = {"Lambda-Extension-Function-Error-Type": "Extension.Odd"}
LARGE = b'"' + b"x" * (6 * 1024 * 1024 + 99) + b'"'  # one byte above the limit


def call(method, path, body=None, headers=None):
    """Ask on a connection of its own; return status, headers and body."""
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), text


class Probe:
    """Asks, and notes the answers."""

    def __init__(self, path):
        self.path = path
        self.answers = {}
        self.registered = {}  # name -> the header that identifies it

    def ask(self, label, method, path, body=None, headers=None):
        """Ask and note the answer under *label*; return its headers."""
        status, got, text = call(method, path, body, headers)
        self.note(label, status, got, text)
        return got

    def note(self, label, status, got, text):
        """Note an answer."""
        try:
            text = json.loads(text)
        except ValueError:
            text = text.decode()
        kept = {
            name.lower(): value
            for name, value in got.items()
            if name.lower().startswith(("content-type", "lambda-"))
        }
        assert label not in self.answers, label
        self.answers[label] = {"status": status, "headers": kept, "body": text}

    def save(self):
        """Write the answers, whole or not at all."""
        with open(self.path + ".new", "w") as file:
            json.dump(self.answers, file)
        os.replace(self.path + ".new", self.path)

    def register(self, label, name, body=b"{}", headers=None):
        """Register, or try to."""
        named = {} if name is None else {NAME: name}
        got = self.ask(
            f"register {label}",
            "POST",
            EXTENSION + "register",
            body,
            {**named, **(headers or {})},
        )
        if ID in got:
            self.registered[name] = {ID: got[ID]}

    def poll(self, name):
        """Ask for an extension's next event; return the queue of its answer."""
        answers = queue.Queue()
        arguments = ("GET", NEXT_EVENT, None, self.registered[name])
        threading.Thread(
            target=lambda: answers.put(call(*arguments)), daemon=True
        ).start()
        return answers

    def poll_twice(self, label, name):
        """Poll twice; note what is refused; return the queue of the other."""
        answers = queue.Queue()
        arguments = ("GET", NEXT_EVENT, None, self.registered[name])
        for _ in range(2):
            threading.Thread(
                target=lambda: answers.put(call(*arguments)), daemon=True
            ).start()
        self.note(label, *answers.get())
        return answers

    def result(self, label, kind, request_id, body=b"{}", headers=None):
        """Post a result."""
        path = f"{RUNTIME}invocation/{request_id}/{kind}"
        return self.ask(label, "POST", path, body, headers)

    def next(self, label):
        """Ask for the next invocation; return its id."""
        return self.ask(label, "GET", NEXT)["Lambda-Runtime-Aws-Request-Id"]


def registrations(probe):
    """Register rightly and wrongly: ten in the end."""
    probe.register("without a name", None)
    probe.register("an empty name", "")
    probe.register("without a body", "a", b"")
    probe.register("no JSON", "a", b"{")
    probe.register("a list", "a", b"[]")
    probe.register("events of a wrong type", "a", b'{"events":"INVOKE"}')
    probe.register("events of wrong types", "a", b'{"events":[1]}')
    probe.register("configurationKeys", "a", b'{"configurationKeys":["x"]}')
    for events in (["SHUTDOWN"], ["INVOKE", "SHUTDOWN"], ["FOO"], ["FOO", "SHUTDOWN"]):
        probe.register(f"for {events}", "a", json.dumps({"events": events}).encode())
    account = {"Lambda-Extension-Accept-Feature": "odd, accountId"}
    probe.register("silently", "silent", b'{"events":[]}', account)
    probe.register("an odd name", "with space/odd+name", b'{"events":["INVOKE"]}')
    probe.register("a name twice", "silent")
    probe.register("for null", "null", b'{"events":null}')
    probe.register("nothing", "failing")
    for count in range(5, 11):
        probe.register(f"number {count}", str(count), b'{"unknown":1}')
    probe.register("number 11", "11")
    probe.register("number 11, a name twice", "silent")
    probe.register("number 11, wrongly", "11", b'{"events":["FOO"]}')


def strangers(probe):
    """Call as an extension that is none."""
    callers = {
        "an unknown caller": None,
        "odd": {ID: "odd"},
        "stranger": {ID: "8c8a3bb1-3b3b-4b3b-8b3b-3b3b3b3b3b3b"},
    }
    for method, what in (
        ("GET", "event/next"),
        ("POST", "init/error"),
        ("POST", "exit/error"),
    ):
        for who, headers in callers.items():
            probe.ask(f"{what} by {who}", method, EXTENSION + what, None, headers)


def others(probe):
    """Ask for what is not there, or not quite."""
    probe.ask("ping", "GET", "/2018-06-01/ping")
    probe.ask("nothing", "GET", "/nothing")
    probe.ask("nothing of the runtime", "GET", RUNTIME + "nothing")
    probe.ask("nothing of extensions", "GET", EXTENSION + "nothing")
    probe.ask("register by GET", "GET", EXTENSION + "register")
    probe.ask("next by POST", "POST", NEXT, b"{}")
    probe.ask("response by GET", "GET", RUNTIME + "invocation/1/response")
    probe.ask("telemetry", "PUT", "/2022-07-01/telemetry", b"{}")
    probe.ask("logs", "PUT", "/2020-08-15/logs", b"{}")


def extension_error(probe, label, kind, name, headers=None):
    """Report an extension's error."""
    named = {**probe.registered[name], **(headers or {})}
    probe.ask(label, "POST", f"{EXTENSION}{kind}/error", b"{}", named)


def classic(probe):
    """Ask all that one runtime with internal extensions can ask."""
    registrations(probe)
    strangers(probe)
    extension_error(probe, "init/error untyped", "init", "failing")
    extension_error(probe, "exit/error untyped", "exit", "failing")
    waking = probe.poll_twice("event/next twice, INVOKE", "with space/odd+name")
    for name in probe.registered:
        if not name.isdigit() and name != "with space/odd+name":
            probe.poll_twice(f"event/next twice, {name}", name)
        elif name.isdigit():
            probe.poll(name)
    extension_error(probe, "init/error when Ready", "init", "silent", TYPED)
    others(probe)
    probe.ask("restore/next", "GET", RUNTIME + "restore/next")
    probe.ask("restore/error", "POST", RUNTIME + "restore/error", b"{}")
    probe.ask("credentials", "GET", "/2021-04-23/credentials")
    probe.result("response too early", "response", "1")
    probe.result("error too early", "error", "1")

    first = probe.next("next")
    again = probe.next("next again")
    probe.answers["next again"]["same"] = again == first
    probe.note("INVOKE", *waking.get())
    probe.register("too late", "late")
    probe.register("wrongly and too late", "late", b"{")
    probe.register("a name twice and too late", "silent")
    probe.result("response to a stranger", "response", "1")
    probe.result("error to a stranger", "error", "1")
    probe.ask("init/error when Running", "POST", RUNTIME + "init/error", b"{}")
    probe.result("response", "response", first, b'{"done":1}')
    probe.result("response twice", "response", first)
    probe.result("error after the response", "error", first)
    waking = probe.poll("with space/odd+name")

    second = probe.next("next, the second")
    probe.note("INVOKE, the second", *waking.get())
    probe.result("response too large", "response", second, LARGE)
    probe.result("response after one too large", "response", second)
    waking = probe.poll("with space/odd+name")

    third = probe.next("next, the third")
    probe.note("INVOKE, the third", *waking.get())
    extension_error(probe, "exit/error", "exit", "failing", TYPED)
    extension_error(probe, "exit/error twice", "exit", "failing", TYPED)
    probe.ask(
        "event/next after exit/error", "GET", NEXT_EVENT, None,
        probe.registered["failing"],
    )  # fmt: skip
    typed = {"Lambda-Runtime-Function-Error-Type": "Function.Odd"}
    body = b'{"errorMessage":"no","errorType":"Odd"}'
    probe.result("error", "error", third, body, typed)
    probe.result("error twice", "error", third)
    probe.result("response after the error", "response", third)
    probe.poll("with space/odd+name")
    probe.save()
    call("GET", NEXT)


def odd_mode(probe):
    """Respond in a mode that there is not: nothing helps after that."""
    first = probe.next("next")
    odd = {"Lambda-Runtime-Function-Response-Mode": "odd"}
    probe.result("response in an odd mode", "response", first, headers=odd)
    probe.result("response", "response", first)
    probe.result("error", "error", first)
    probe.ask("init/error", "POST", RUNTIME + "init/error", b"{}")
    probe.ask("next again", "GET", NEXT)
    probe.save()


def streaming(probe):
    """Respond in a stream, which breaks off."""
    first = probe.next("next")
    mode = {"Lambda-Runtime-Function-Response-Mode": "streaming"}
    probe.result("response", "response", first, iter([b"one ", b"two"]), mode)
    probe.save()
    call("GET", NEXT)


def init_error(probe):
    """Report that Init failed, and go on asking."""
    probe.register("silently", "silent", b'{"events":[]}')
    extension_error(probe, "init/error of an extension", "init", "silent", TYPED)
    extension_error(probe, "init/error of it twice", "init", "silent", TYPED)
    extension_error(probe, "exit/error after init/error", "exit", "silent", TYPED)
    probe.ask(
        "event/next after init/error", "GET", NEXT_EVENT, None,
        probe.registered["silent"],
    )  # fmt: skip
    body = b'{"errorMessage":"no","errorType":"Odd"}'
    typed = {"Lambda-Runtime-Function-Error-Type": "Runtime.Odd"}
    probe.ask("init/error", "POST", RUNTIME + "init/error", body, typed)
    probe.ask("init/error twice", "POST", RUNTIME + "init/error", body, typed)
    probe.ask("next after init/error", "GET", NEXT)
    probe.save()
    sys.exit(1)


def snap_start(probe):
    """Ask all that is asked around a snapshot whose restore fails."""
    token = {"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]}
    probe.ask("credentials", "GET", "/2021-04-23/credentials", None, token)
    probe.ask("credentials without a token", "GET", "/2021-04-23/credentials")
    odd = {"Authorization": "odd"}
    probe.ask("credentials by an odd one", "GET", "/2021-04-23/credentials", None, odd)
    probe.ask("restore/error too early", "POST", RUNTIME + "restore/error", b"{}")
    probe.ask("restore/next", "GET", RUNTIME + "restore/next")
    probe.register("too late", "late")
    probe.ask("restore/next twice", "GET", RUNTIME + "restore/next")
    probe.result("response when Restoring", "response", "1")
    probe.ask("restore/error", "POST", RUNTIME + "restore/error", b"{}")
    probe.ask("restore/error twice", "POST", RUNTIME + "restore/error", b"{}")
    probe.ask("init/error after it", "POST", RUNTIME + "init/error", b"{}")
    probe.ask("next after it", "GET", NEXT)
    probe.save()
    sys.exit(1)


def restore_init_error(probe):
    """Report a failed restore where a failed Init is reported."""
    probe.ask("restore/next", "GET", RUNTIME + "restore/next")
    probe.ask("init/error", "POST", RUNTIME + "init/error", b"{}")
    probe.ask("restore/error", "POST", RUNTIME + "restore/error", b"{}")
    probe.ask("next after it", "GET", NEXT)
    probe.save()
    sys.exit(1)


def instances(probe):
    """Ask what is answered differently on managed instances."""
    probe.register("for INVOKE", "a", b'{"events":["INVOKE"]}')
    probe.register("for SHUTDOWN", "a", b'{"events":["SHUTDOWN"]}')
    probe.register("for FOO", "a", b'{"events":["FOO"]}')
    probe.register("silently", "silent", b'{"events":[]}')
    probe.poll_twice("event/next twice", "silent")
    probe.ask("restore/next", "GET", RUNTIME + "restore/next")
    probe.ask("nothing", "GET", "/nothing")
    probe.result("response too early", "response", "1")
    first = probe.next("next")
    probe.register("too late", "late")
    probe.result("response to a stranger", "response", "1")
    probe.result("error to a stranger", "error", "1")
    probe.result("response", "response", first, b'{"done":1}')
    probe.result("response twice", "response", first)
    second = probe.next("next, the second")
    body = b'{"errorMessage":"no","errorType":"Odd"}'
    typed = {"Lambda-Runtime-Function-Error-Type": "Function.Odd"}
    probe.result("error", "error", second, body, typed)
    probe.result("error twice", "error", second)
    probe.save()
    call("GET", NEXT)


def subscription(**changes):
    """Return the body of a subscription that is right but for *changes*."""
    destination = {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/x"}
    buffering = {"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25}
    asked = {"schemaVersion": "2025-01-29", "types": ["platform"]}
    asked |= {"buffering": buffering, "destination": destination, **changes}
    return json.dumps({k: v for k, v in asked.items() if v is not None}).encode()


def telemetry(probe):
    """Ask for telemetry, wrongly and rightly."""
    probe.register("silently", "silent", b'{"events":[]}')
    named = probe.registered["silent"]

    def ask(label, body, headers=named):
        probe.ask(label, "PUT", "/2022-07-01/telemetry", body, headers)

    ask("by nobody", b"{}", None)
    ask("by odd", b"{}", {ID: "odd"})
    ask("by a stranger", b"{}", {ID: "8c8a3bb1-3b3b-4b3b-8b3b-3b3b3b3b3b3b"})
    ask("no JSON", b"{")
    ask("a list", b"[]")
    ask("nothing", b"{}")
    ask("an old schema", subscription(schemaVersion="2022-12-13"))
    ask("no types", subscription(types=[]))
    ask("a wrong type", subscription(types=["platform", "logs"]))
    ask("types that are text", subscription(types="platform"))
    for name, least, most in (
        ("maxItems", 999, 10_001),
        ("maxBytes", 262_143, 1_048_577),
        ("timeoutMs", 24, 30_001),
    ):
        ask(f"too little {name}", subscription(buffering={name: least}))
        ask(f"too much {name}", subscription(buffering={name: most}))
    ask("text as a limit", subscription(buffering={"maxItems": "1000"}))
    ask("a list as buffering", subscription(buffering=[]))
    ask("no destination", subscription(destination=None))
    ask("another protocol", subscription(destination={"protocol": "UDP"}))
    ask("no URI", subscription(destination={"protocol": "HTTP"}))
    elsewhere = {"protocol": "HTTP", "URI": "http://example.com:8080"}
    ask("another host", subscription(destination=elsewhere))
    ask("rightly", subscription())
    ask("a second time", subscription())
    probe.poll("silent")
    first = probe.next("next")
    ask("too late", subscription())
    probe.result("response", "response", first, b'{"done":1}')
    probe.save()
    call("GET", NEXT)


if __name__ == "__main__":
    scenario, path = sys.argv[1:]
    probe = Probe(path)
    try:
        globals()[scenario](probe)
    except Exception:
        probe.answers["failed"] = True
        probe.save()
        raise
