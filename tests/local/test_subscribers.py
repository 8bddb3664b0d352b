"""Batches, repetitions and drops of the emulated Telemetry API, without processes."""

from __future__ import annotations

import json
import threading

import pytest
from helpers import eventually

from lambda_ext.local import subscribers
from lambda_ext.local.journal import Journal
from lambda_ext.local.server import Answer, Refused, Server
from lambda_ext.local.subscribers import Telemetry


class Receiver:
    """A subscriber's server: answers 200, or what *answers* say, and keeps all."""

    def __init__(self, *answers):
        self.requests = []
        self.answers = list(answers)
        self.came = threading.Condition()
        self._server = Server(self._respond)
        self.port = int(self._server.address.partition(":")[2])

    def _respond(self, request):
        with self.came:
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else 200
            self.came.notify_all()
        return Answer(answer)

    @property
    def bodies(self):
        """All that was delivered, as JSON."""
        return [json.loads(request.body) for request in self.requests]

    @property
    def records(self):
        """The records of all deliveries, in order."""
        return [each["record"] for body in self.bodies for each in body]

    def wait_for(self, count):
        """Wait until so many deliveries have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= count, 30)

    def close(self):
        self._server.close()


@pytest.fixture(name="loopback", autouse=True)
def _loopback(monkeypatch):
    """Name the host as the server of the emulator wants it, its own address."""
    monkeypatch.setattr(subscribers, "HOST", "127.0.0.1")
    monkeypatch.setattr(subscribers, "HOSTS", ("127.0.0.1",))


@pytest.fixture(name="receiver")
def _receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(name="telemetry")
def _telemetry():
    made = Telemetry(Journal(), json_lines=False, instances=False)
    yield made
    made.end()


def subscribe(telemetry, port, *types, schema="2025-01-29", **limits):
    """Subscribe; a batch is delivered when the test says so."""
    return telemetry.subscribe(
        "me",
        json.dumps(
            {
                "schemaVersion": schema,
                "types": types or ["function"],
                "buffering": {"timeoutMs": 30_000, **limits},
                "destination": {
                    "protocol": "HTTP",
                    "URI": f"http://{subscribers.HOST}:{port}/path?query",
                },
            }
        ).encode(),
    )


class TestBatches:
    """When a batch is full, old enough, or the last."""

    def test_a_thousand_records_are_a_batch(self, telemetry, receiver):
        """The rest waits for its time."""
        subscribe(telemetry, receiver.port, maxItems=1000)
        for number in range(1500):
            telemetry.line(str(number), of_function=True)
        receiver.wait_for(1)

        assert [1000] == [len(body) for body in receiver.bodies]
        telemetry.finish()
        receiver.wait_for(2)
        assert [str(number) for number in range(1500)] == receiver.records

    def test_bytes_are_a_batch(self, telemetry, receiver):
        """As many records as reach the limit."""
        subscribe(telemetry, receiver.port, maxBytes=262_144)
        for _ in range(3):
            telemetry.line("x" * 131_072, of_function=True)
        receiver.wait_for(1)

        assert [2] == [len(body) for body in receiver.bodies]

    def test_age_is_a_batch(self, telemetry, receiver):
        """The time of the first record counts."""
        subscribe(telemetry, receiver.port, timeoutMs=25)
        telemetry.line("a", of_function=True)
        receiver.wait_for(1)

        assert ["a"] == receiver.records

    def test_what_a_delivery_looks_like(self, telemetry, receiver):
        """Method, path, headers and elements as AWS's code sends them."""
        subscribe(telemetry, receiver.port, timeoutMs=25)
        telemetry.line("a", of_function=True)
        receiver.wait_for(1)
        (request,) = receiver.requests
        ((element,),) = receiver.bodies

        assert ("POST", "/path?query", "application/json") == (
            request.method,
            request.path,
            request.headers["Content-Type"],
        )
        assert 44 == len(request.headers["Sequence-Id"])
        assert ["time", "type", "record"] == [*element]
        assert ("function", 24, "Z") == (
            element["type"],
            len(element["time"]),
            element["time"][-1],
        )

    def test_types_and_the_backlog_of_init(self, telemetry, receiver):
        """What was there before the subscription is delivered, of the types wanted."""
        telemetry.emit("platform.initStart", {"phase": "init"})
        telemetry.line("of the function", of_function=True)
        telemetry.line("of an extension", of_function=False)
        subscribe(telemetry, receiver.port, "platform", "extension")
        telemetry.finish()
        receiver.wait_for(1)

        assert [
            {"phase": "init"},
            "of an extension",
            {"name": "me", "state": "Subscribed", "types": ["platform", "extension"]},
        ] == [each["record"] for body in receiver.bodies for each in body]

    @pytest.mark.parametrize(
        ("schema", "json_lines", "expected"),
        [
            ("2025-01-29", True, [{"level": "INFO"}, "{x", "[1]"]),
            ("2022-12-13", True, [{"level": "INFO"}, "{x", "[1]"]),
            ("2022-07-01", True, ['{"level":"INFO"}', "{x", "[1]"]),
            ("2025-01-29", False, ['{"level":"INFO"}', "{x", "[1]"]),
        ],
    )
    def test_json_lines(self, receiver, schema, json_lines, expected):
        """Objects where the log format is JSON and the schema knows them."""
        telemetry = Telemetry(Journal(), json_lines=json_lines, instances=False)
        subscribe(telemetry, receiver.port, schema=schema)
        for text in ('{"level":"INFO"}', "{x", "[1]"):
            telemetry.line(text, of_function=True)
        telemetry.finish()
        receiver.wait_for(1)
        telemetry.end()

        assert expected == receiver.records

    def test_a_line_that_is_no_text(self, telemetry, receiver):
        """A lone surrogate does not end the deliveries."""
        subscribe(telemetry, receiver.port)
        telemetry.line("\udcff", of_function=True)
        telemetry.finish()
        receiver.wait_for(1)

        assert ["\udcff"] == receiver.records


class TestFreezes:
    """Deliveries begin only while the environment runs."""

    def test_nothing_is_delivered_while_frozen(self, telemetry, receiver):
        """What is due then is delivered at the thaw."""
        subscribe(telemetry, receiver.port, timeoutMs=25)
        telemetry.freeze()
        telemetry.line("a", of_function=True)
        telemetry.finish()
        assert [] == receiver.requests
        telemetry.thaw()
        receiver.wait_for(1)

        assert ["a"] == receiver.records

    def test_frozen_time_does_not_count(self, telemetry):
        """The clock of time-outs stands still."""
        telemetry.freeze()
        first = telemetry.ran()

        assert first == telemetry.ran()
        telemetry.thaw()
        eventually(lambda: telemetry.ran() > first)


class TestFailures:
    """What is not answered with 200 comes again, and is told of when it is dropped."""

    def test_a_refused_batch_is_repeated_with_its_id(
        self, telemetry, receiver, monkeypatch
    ):
        """The same bytes, the same Sequence-Id, and the next batch after it."""
        monkeypatch.setattr(subscribers, "PAUSE_S", 0.0)
        receiver.answers = [500, 404, 200]
        subscribe(telemetry, receiver.port, timeoutMs=25)
        telemetry.line("a", of_function=True)
        receiver.wait_for(3)

        assert 1 == len({request.body for request in receiver.requests})
        assert 1 == len(
            {request.headers["Sequence-Id"] for request in receiver.requests}
        )
        eventually(lambda: len(telemetry.journal.of("delivered")) == 3)
        assert [(500, 1), (404, 1), (200, 1)] == [
            (each.status, each.records) for each in telemetry.journal.of("delivered")
        ]

    def test_dropped_records_are_told_of(self, telemetry, receiver, monkeypatch):
        """The next batch begins with how many records and bytes are gone."""
        monkeypatch.setattr(subscribers, "PAUSE_S", 0.0)
        receiver.answers = [500] * subscribers.ATTEMPTS
        subscribe(telemetry, receiver.port, timeoutMs=25)
        telemetry.line("gone", of_function=True)
        eventually(
            lambda: len(telemetry.journal.of("delivered")) == subscribers.ATTEMPTS
        )
        telemetry.line("next", of_function=True)
        receiver.wait_for(subscribers.ATTEMPTS + 1)
        dropped, following = receiver.bodies[-1]

        assert ("platform.logsDropped", "next") == (
            dropped["type"],
            following["record"],
        )
        assert (1, subscribers.SLOW) == (
            dropped["record"]["droppedRecords"],
            dropped["record"]["reason"],
        )

    def test_what_finds_no_room_is_dropped(self, telemetry, receiver, monkeypatch):
        """A subscriber that takes nothing costs so many bytes."""
        monkeypatch.setattr(subscribers, "ROOM", 1)
        subscribe(telemetry, receiver.port)
        telemetry.freeze()
        for _ in range(5):
            telemetry.line("x" * 100_000, of_function=True)
        telemetry.finish()
        telemetry.thaw()
        receiver.wait_for(1)

        assert [3, "x" * 100_000, "x" * 100_000] == [
            each["record"]
            if each["type"] == "function"
            else each["record"]["droppedRecords"]
            for each in receiver.bodies[0]
        ]

    def test_no_process_listens(self, telemetry, monkeypatch):
        """The deliveries fail, and the end comes all the same."""
        monkeypatch.setattr(subscribers, "PAUSE_S", 0.0)
        receiver = Receiver()
        receiver.close()
        subscribe(telemetry, receiver.port, timeoutMs=25)
        telemetry.line("a", of_function=True)
        eventually(lambda: telemetry.journal.of("delivered"))

        assert {None} == {each.status for each in telemetry.journal.of("delivered")}

    def test_an_answer_that_never_comes(self, telemetry, monkeypatch):
        """It is waited for while the environment runs, and given up then."""
        monkeypatch.setattr(subscribers, "PAUSE_S", 0.0)
        monkeypatch.setattr(subscribers, "TICK_S", 0.001)
        monkeypatch.setattr(subscribers, "TIMEOUT_S", 0.05)
        gate = threading.Event()

        def never(request):
            gate.wait(60)
            return Answer(200)

        server = Server(never)
        subscribe(telemetry, int(server.address.partition(":")[2]), timeoutMs=25)
        telemetry.line("a", of_function=True)
        eventually(lambda: telemetry.journal.of("delivered"))
        gate.set()
        telemetry.end()
        server.close()

        assert telemetry.journal.of("delivered")[0].status is None


class TestSubscribing:
    """What table tests of the endpoints do not reach."""

    def test_after_init_it_is_closed(self, telemetry):
        """The backlog is gone, too."""
        telemetry.close()

        with pytest.raises(Refused, match="subscription is closed"):
            subscribe(telemetry, 8080)

    @pytest.mark.parametrize(
        ("uri", "why"),
        [
            ("http://sandbox.localdomain:8080/", None),
            ("http://sandbox:8080", None),
            ("http://sandbox.localdomain", "must have a port"),
            ("http://sandbox.localdomain:9001", "9001 is reserved"),
            ("https://sandbox.localdomain:8080", "scheme must be http"),
            ("http://127.0.0.1:8080", "host must be sandbox.localdomain"),
            ("http://sandbox.localdomain:x", "Invalid destination"),
        ],
    )
    def test_destinations(self, telemetry, monkeypatch, uri, why):
        """Only this environment, and not the port of the APIs."""
        monkeypatch.undo()
        destination = {"protocol": "HTTP", "URI": uri}
        wanted = {"schemaVersion": "2022-07-01", "types": ["function"]}
        answer = telemetry.subscribe(
            "me", json.dumps({**wanted, "destination": destination}).encode()
        )

        assert answer.status == (200 if why is None else 400)
        assert (why or "OK") in answer.body.decode()

    def test_schemas_of_instances(self):
        """Managed Instances know the newest one only."""
        telemetry = Telemetry(Journal(), json_lines=True, instances=True)

        assert 400 == subscribe(telemetry, 8080, schema="2022-12-13").status
        assert 200 == subscribe(telemetry, 8080).status
        assert (("function",), ()) == (
            telemetry.subscription("me"),
            telemetry.subscription("other"),
        )
        telemetry.end()

    def test_without_the_api_nothing_is_kept(self):
        """An emulator without it collects no records."""
        telemetry = Telemetry(
            Journal(), json_lines=False, instances=False, supported=False
        )
        telemetry.emit("platform.initStart", {})

        assert [] == telemetry._backlog
