"""subscribe(): what the platform is asked, and what becomes of its answers."""

from __future__ import annotations

import _socket
import json
import os
import threading

import pytest
from helpers import eventually
from telemetry_api import Platform, body_of, element, logs

import lambda_ext
from lambda_ext import telemetry
from lambda_ext.exceptions import ConfigurationError, ExtensionError
from lambda_ext.lifecycle import extension, phases, runtime_api
from lambda_ext.telemetry import dispatch, listener, records, subscription

NAMES = {"newest": "2025-01-29", "middle": "2022-12-13", "oldest": "2022-07-01"}
BAD_SCHEMA = (400, {"errorType": "ValidationError", "errorMessage": "schemaVersion?"})


@pytest.fixture(name="platform")
def _platform(monkeypatch):
    """Return a function that starts a platform and points the library to it."""
    made = []

    def start(*answers):
        made.append(Platform(*answers).__enter__())
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", made[-1].address)
        return made[-1]

    yield start
    subscription.reset()
    extension.reset()
    for one in made:
        one.__exit__()


def threads():
    """Return the names of this room's threads."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("lambda_ext_telemetry")]


class TestAsking:
    """What goes over the wire."""

    def test_everything_that_was_asked_for_is_sent(self, platform):
        """Types, limits, and a destination that is this process."""
        server = platform()
        status = telemetry.subscribe(
            platform=False,
            function=True,
            extension=True,
            max_items=1000,
            max_bytes=300_000,
            timeout_ms=25,
        )
        (asked,) = server.subscriptions
        port, path = server.destination
        destination = asked.pop("destination")

        assert {
            "schemaVersion": NAMES["newest"],
            "types": ["function", "extension"],
            "buffering": {"maxItems": 1000, "maxBytes": 300_000, "timeoutMs": 25},
            "identifier": "the-id",
        } == asked
        assert "HTTP" == destination["protocol"]
        assert f"http://sandbox.localdomain:{port}{path}" == destination["URI"]
        assert len("/lambda_ext/") + 32 == len(path)
        assert ("subscribed", NAMES["newest"], ("function", "extension")) == (
            status.state,
            status.schema,
            status.types,
        )
        assert status is telemetry.status()
        assert "<telemetry.Status subscribed>" == repr(status)

    def test_defaults_are_those_of_aws(self, platform):
        """The platform's records only, with AWS's documented limits."""
        server = platform()
        telemetry.subscribe()

        assert (["platform"], [10_000, 262_144, 1_000]) == (
            server.subscriptions[0]["types"],
            [*server.subscriptions[0]["buffering"].values()],
        )

    def test_registration_comes_first_and_the_next_event_last(self, platform):
        """INIT cannot end between the registration and the subscription."""
        server = platform()
        telemetry.subscribe()
        lambda_ext.handler(print)  # changes nothing
        eventually(lambda: len(server.calls) == 3)

        assert [
            "/2020-01-01/extension/register",
            "/2022-07-01/telemetry",
            "/2020-01-01/extension/event/next",
        ] == server.calls

    def test_an_extension_that_is_registered_subscribes(self, platform):
        """subscribe() may also stand below the handler."""
        server = platform()
        extension.register()
        eventually(lambda: len(server.calls) == 2)

        assert "subscribed" == telemetry.subscribe().state
        assert "the-id" == server.subscriptions[0]["identifier"]

    def test_a_second_call_changes_nothing(self, platform):
        """With the same arguments it returns what is; with others it is refused."""
        server = platform()
        first = telemetry.subscribe(function=True)

        assert first is telemetry.subscribe(function=True)
        with pytest.raises(ConfigurationError, match="call it once, with all"):
            telemetry.subscribe()
        assert 1 == len(server.subscriptions)

    @pytest.mark.parametrize(("refused", "name"), [*enumerate(NAMES)])
    def test_an_older_schema_is_taken(self, platform, refused, name):
        """Each schema that the platform refuses is followed by the one before it."""
        server = platform(*[BAD_SCHEMA] * refused, (200, "OK"))
        status = telemetry.subscribe()

        assert NAMES[name] == status.schema
        assert [*NAMES.values()][: refused + 1] == [
            asked["schemaVersion"] for asked in server.subscriptions
        ]

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            (
                "127.0.0.1 localhost\n169.254.100.1 x sandbox.localdomain y\n",
                "169.254.100.1",
            ),
            ("::1 sandbox.localdomain\n", "127.0.0.1"),
            ("# 1.2.3.4 sandbox.localdomain\n\n", "127.0.0.1"),
            (None, "127.0.0.1"),
        ],
    )
    def test_address_of_the_sandbox(self, tmp_path, monkeypatch, text, address):
        """The name is looked up where the environment defines it, not in DNS."""
        hosts = tmp_path / "hosts"
        if text is not None:
            hosts.write_text(text)
        monkeypatch.setattr(subscription, "HOSTS_FILE", str(hosts))

        assert address == subscription._own_address()

    @pytest.mark.parametrize(
        ("api", "init_type", "known", "address"),
        [
            ("127.0.0.1:9001", "on-demand", True, "169.254.1.1"),
            ("127.0.0.1:9001", "on-demand", False, "127.0.0.1"),
            ("127.0.0.1:9001", None, True, "127.0.0.1"),
            ("127.0.0.1:4711", "on-demand", True, "127.0.0.1"),
        ],
    )
    def test_a_name_that_is_defined_elsewhere(
        self, tmp_path, monkeypatch, api, init_type, known, address
    ):
        """Lambda itself knows the name; an emulator is not asked to look for it."""

        def resolve(name):
            if known:
                return "169.254.1.1"
            raise OSError(name)

        monkeypatch.setattr(_socket, "gethostbyname", resolve)
        monkeypatch.setattr(subscription, "HOSTS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", api)
        if init_type is not None:
            monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", init_type)

        assert address == subscription._own_address()


class TestArguments:
    """A mistake in the program is told at once, inside and outside Lambda."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_items": 999}, "max_items=999: .* 1,000 to 10,000"),
            ({"max_items": 10_001}, "max_items"),
            ({"max_bytes": 262_143}, "max_bytes=262143: .* 262,144 to 1,048,576"),
            ({"max_bytes": 1_048_577}, "max_bytes"),
            ({"timeout_ms": 24}, "timeout_ms=24: .* 25 to 30,000"),
            ({"timeout_ms": 30_001}, "timeout_ms"),
            ({"timeout_ms": 25.0}, "whole number"),
            ({"timeout_ms": True}, "whole number"),
            ({"timeout_ms": None}, "whole number"),
            ({"platform": False}, "to nothing"),
            ({"platform": "false"}, "platform='false'.*: say True or False"),
            ({"function": 1}, "function=1.*: say True or False"),
            ({"extension": None}, "extension=None.*: say True or False"),
        ],
    )
    def test_limits(self, arguments, message):
        """What Lambda would refuse is refused with what to say instead."""
        with pytest.raises(ConfigurationError, match=message):
            telemetry.subscribe(**arguments)

    def test_too_late(self, platform):
        """In the handler it is a mistake: INIT is over."""
        server = platform()

        @lambda_ext.handler
        def handle(event, context):
            telemetry.subscribe()

        with pytest.raises(ExtensionError, match="at module scope, not in the handler"):
            handle({}, None)
        with pytest.raises(ExtensionError, match="too late"):
            telemetry.subscribe()
        assert [] == server.subscriptions

    def test_outside_lambda_nothing_happens(self):
        """A test or a script may import the handler's module."""
        begun = {*threading.enumerate()}
        status = telemetry.subscribe(function=True)

        assert ("none", "outside Lambda", set()) == (
            status.state,
            status.reason,
            {*threading.enumerate()} - begun,
        )


@pytest.mark.logs
class TestRefusals:
    """One log line, no thread, no exception."""

    @pytest.mark.parametrize(
        ("answer", "state", "reason"),
        [
            (
                (
                    202,
                    {
                        "errorType": "Telemetry.NotSupported",
                        "errorMessage": "not supported",
                    },
                ),
                "unavailable",
                "not supported (HTTP 202)",
            ),
            (
                (404, b"404 page not found\n"),
                "unavailable",
                "404 page not found (HTTP 404)",
            ),
            ((501, b""), "unavailable", "no reason given (HTTP 501)"),
            ((500, []), "unavailable", "[] (HTTP 500)"),
            (
                (400, b'{"errorMessage": "must be "x""}'),
                "refused",
                '{"errorMessage": "must be "x""} (HTTP 400)',
            ),
            (
                (
                    403,
                    {
                        "errorType": "Telemetry.SubscriptionClosed",
                        "errorMessage": "closed",
                    },
                ),
                "refused",
                "closed (HTTP 403)",
            ),
            (
                (400, {"errorType": "ValidationError", "errorMessage": "why"}),
                "refused",
                "why (HTTP 400)",
            ),
        ],
    )
    def test_an_answer_that_is_not_200(self, platform, caplog, answer, state, reason):
        """Its words stand in the log and in the status; nothing stays behind."""
        platform(answer)
        status = telemetry.subscribe()
        (line,) = [record.getMessage() for record in caplog.records]

        assert (state, reason) == (status.state, status.reason)
        assert line.startswith(f"lambda_ext.telemetry_{state} error_type=")
        assert line.endswith(f"reason={reason}")
        eventually(lambda: threads() == [])
        assert status is telemetry.subscribe()

    def test_a_platform_that_hangs(self, platform, monkeypatch):
        """It costs the time that subscribing may take, and the telemetry."""
        monkeypatch.setattr(subscription, "TIMEOUT_S", 0.05)
        platform(None)

        assert "unavailable" == telemetry.subscribe().state
        assert telemetry.status().reason.startswith("TimeoutError")
        assert "registered" == extension.status().state

    def test_no_port_and_no_thread(self, platform, monkeypatch):
        """Neither stops INIT, and the extension is registered all the same."""
        server = platform()

        def refuse(*_):
            raise OSError("no sockets here")

        monkeypatch.setattr(listener, "_listening", refuse)
        status = telemetry.subscribe()
        eventually(lambda: len(server.calls) == 2)

        assert ("unavailable", "OSError: no sockets here") == (
            status.state,
            status.reason,
        )
        assert "registered" == extension.status().state
        assert [] == server.subscriptions

    def test_a_process_that_is_no_extension(self, monkeypatch):
        """Nothing listens: neither registration nor subscription."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
        status = telemetry.subscribe()

        assert "unregistered" == status.state
        assert status.reason.startswith("unreachable: ")

    def test_a_part_that_is_disabled(self, platform, monkeypatch):
        """Without registration there is no telemetry."""
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "extension")
        server = platform()
        status = telemetry.subscribe()

        assert "unregistered" == status.state
        assert "disabled" in status.reason
        assert [] == server.calls

    def test_other_workers_of_a_managed_instance_say_nothing(
        self, platform, monkeypatch, caplog
    ):
        """One of them has the telemetry of all."""
        monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "2")
        platform()
        monkeypatch.setattr(extension, "_status", extension.Status("shared"))
        status = telemetry.subscribe()

        assert ("unregistered", []) == (
            status.state,
            [record for record in caplog.records if record.levelname != "DEBUG"],
        )

    def test_an_interruption_leaves_nothing(self, platform, monkeypatch):
        """What a signal handler raises arrives, and the next call subscribes."""
        server = platform()
        call = runtime_api.call
        asked = []

        def interrupted(*args, **kwargs):
            if "/telemetry" in args and not asked:
                asked.append(1)
                raise KeyboardInterrupt
            return call(*args, **kwargs)

        monkeypatch.setattr(runtime_api, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            telemetry.subscribe()
        eventually(lambda: threads() == [])
        assert "/2020-01-01/extension/event/next" in eventually(
            lambda: server.calls[1:]
        )

        assert "subscribed" == telemetry.subscribe().state


class TestDeliveries:
    """From the platform to a consumer, and into the statistics."""

    def test_batches_reach_consumers(self, platform):
        """The whole way: a POST, a batch, the consumer's thread."""
        seen, came = [], threading.Event()

        def consume(batch):
            seen.extend(batch)
            came.set()

        telemetry.consumers.append(consume)
        server = platform()
        telemetry.subscribe(function=True)

        assert 200 == server.deliver(logs("hello"))
        assert came.wait(30)
        assert ["hello"] == [record.message for record in seen]
        assert abs(seen[0]._received_at) > 1e9

    def test_statistics_count_it(self, platform):
        """Batches, repetitions, refusals, malformed elements, drops, consumers."""
        telemetry.consumers.extend([lambda batch: None, lambda batch: None])
        server = platform()
        telemetry.subscribe(function=True)
        body = body_of(
            element("platform.logsDropped", {"droppedBytes": 50, "droppedRecords": 2}),
            element("platform.logsDropped", {"droppedBytes": 5, "droppedRecords": 1}),
            7,
            element("function", "platform.logsDropped"),
        )
        for _ in range(2):
            assert 200 == server.deliver(body)
        assert 200 == server.deliver(logs("a"))
        eventually(lambda: [each.batches for each in dispatch.status()] == [2, 2])
        found = lambda_ext.stats().telemetry

        assert ("subscribed", "", NAMES["newest"]) == (
            found.state,
            found.reason,
            found.schema,
        )
        assert (2, len(body) + len(logs("a")), 1, 0, 1) == (
            found.batches,
            found.bytes,
            found.redelivered,
            found.refused,
            found.malformed,
        )
        assert {"reports": 2, "records": 3, "bytes": 55} == found.dropped_by_platform
        assert ["<lambda>", "<lambda> (2)"] == [
            name.rpartition(".")[2] for name in found.consumers
        ]
        for consumer in found.consumers.values():
            assert (2, 4, 0, 0, 0, "") == (
                consumer.batches,
                consumer.records,
                consumer.failures,
                consumer.dropped,
                consumer.pending,
                consumer.error,
            )
        assert json.dumps(lambda_ext.stats().as_dict())

    def test_statistics_without_telemetry(self):
        """Zeroes, and no module loaded for them."""
        found = lambda_ext.stats().telemetry

        assert ("none", 0, {}) == (found.state, found.batches, found.consumers)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_child_has_no_subscription(self, platform):
        """The parent's goes on; the child's subscribe() says why not."""
        seen, came = [], threading.Semaphore(0)
        telemetry.consumers.append(lambda batch: (seen.extend(batch), came.release()))
        server = platform()
        telemetry.subscribe(function=True)
        child = os.fork()
        if child == 0:
            ok = (
                telemetry.status().state == "forked"
                and telemetry.subscribe(function=True).state == "forked"
                and lambda_ext.stats().telemetry.batches == 0
            )
            os._exit(0 if ok else 1)
        _, code = os.waitpid(child, 0)

        assert 0 == os.waitstatus_to_exitcode(code)
        assert 200 == server.deliver(logs("parent"))
        assert came.acquire(timeout=30)
        assert ["parent"] == [record.record for record in seen]


class TestShutdown:
    """What the platform delivers last is consumed before others flush."""

    def test_a_delivery_that_is_arriving_is_waited_for(self, platform, monkeypatch):
        """Its records are consumed before the listeners that come later."""
        monkeypatch.setattr(subscription, "GRACE_S", 0.0)
        order = []
        gate = threading.Event()

        def consume(batch):
            gate.wait(30)
            order.append("consumed")

        telemetry.consumers.append(consume)
        server = platform()
        telemetry.subscribe(function=True)
        phases.listen(
            phases.SHUTDOWN, lambda: order.append("flush"), priority=phases.NETWORK
        )
        assert 200 == server.deliver(logs("last"))
        eventually(dispatch.pending)
        pause = subscription.real_threads.pause
        monkeypatch.setattr(
            subscription.real_threads, "pause", lambda s: (gate.set(), pause(s))
        )
        phases.call_within(60, phases.SHUTDOWN)

        assert ["consumed", "flush"] == order

    @pytest.mark.logs
    def test_a_consumer_that_hangs_costs_its_share(self, platform):
        """The next listeners have their time, and the budget is kept."""
        gate, inside = threading.Event(), threading.Event()
        order = []

        def hang(batch):
            inside.set()
            gate.wait(60)

        telemetry.consumers.append(hang)
        server = platform()
        telemetry.subscribe(function=True)
        phases.listen(
            phases.SHUTDOWN, lambda: order.append("flush"), priority=phases.NETWORK
        )
        assert 200 == server.deliver(logs("last"))
        assert inside.wait(30)
        phases.call_within(0.2, phases.SHUTDOWN)
        gate.set()

        assert ["flush"] == order
        assert 0 == phases.abandoned[phases.SHUTDOWN]

    def test_the_last_delivery_has_a_moment_to_begin(self, platform, monkeypatch):
        """It may come after SIGTERM: until the grace has passed it is waited for."""
        monkeypatch.setattr(subscription, "GRACE_S", 60.0)
        seen = []
        server = platform()

        def consume(batch):
            seen.extend(batch)
            monkeypatch.setattr(subscription.clock, "run_time", lambda: 1e12)

        telemetry.consumers.append(consume)
        telemetry.subscribe(function=True)
        delivered = threading.Thread(target=server.deliver, args=(logs("late"),))
        pause = subscription.real_threads.pause

        def begin(seconds):
            if delivered.ident is None:
                delivered.start()
            pause(seconds)

        monkeypatch.setattr(subscription.real_threads, "pause", begin)
        phases.call_within(100, phases.SHUTDOWN)
        delivered.join(30)

        assert ["late"] == [record.record for record in seen]


def test_records_of_an_earlier_init_are_in_the_first_batch(platform):
    """The platform replays what INIT has made so far; nothing is special about it."""
    seen, came = [], threading.Event()
    telemetry.consumers.append(lambda batch: (seen.extend(batch), came.set()))
    server = platform()
    telemetry.subscribe()
    server.deliver(body_of(element("platform.initStart", {"phase": "init"})))

    assert came.wait(30)
    assert [records.InitStart] == [type(record) for record in seen]
