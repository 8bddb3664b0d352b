"""The server in the handler's process: what it takes, from whom, and what it costs."""

from __future__ import annotations

import os
import threading

import pytest
from helpers import eventually
from telemetry_api import Wire, body_of, logs, request, sequence

from lambda_ext.lifecycle import real_threads
from lambda_ext.telemetry import listener

PATH = "/lambda_ext/secret"


class Taken(list):
    """What a listener handed on: (texts, Sequence-Id) of each batch."""

    def __init__(self):
        super().__init__()
        self.came = threading.Condition()
        self.sizes = []

    def __call__(self, batch, size):
        with self.came:
            self.append(([record.record for record in batch], batch.sequence_id))
            self.sizes.append(size)
            self.came.notify_all()

    def wait_for(self, count):
        """Wait until so many batches have come; return the texts of all."""
        with self.came:
            assert self.came.wait_for(lambda: len(self) >= count, 30)
            return [texts for texts, _ in self]


@pytest.fixture(name="taken")
def _taken():
    return Taken()


@pytest.fixture(name="served")
def _served(taken):
    made = listener.Listener(taken, path=PATH, max_body=10_000)
    made.start()
    yield made
    made.close()


@pytest.fixture(name="wire")
def _wire(served):
    with Wire(served.port) as wire:
        yield wire


class TestDeliveries:
    """Every form in which HTTP may bring a batch."""

    def test_a_batch_arrives_with_its_sequence_id(self, wire, taken, served):
        """It is answered with 200 and handed on once, with its size."""
        body = logs("a", "b")
        wire.send(request(PATH, body, headers={"Sequence-Id": "s"}))

        assert 200 == wire.status()
        taken.wait_for(1)
        assert ([(["a", "b"], "s")], [len(body)]) == (taken, taken.sizes)
        assert (1, len(body), 0, 0) == (
            served.counters.batches,
            served.counters.bytes,
            served.counters.redelivered,
            served.counters.refused,
        )

    def test_a_connection_is_kept(self, wire, taken):
        """Many deliveries come over one connection, in order, pipelined too."""
        wire.send(b"".join(request(PATH, logs(n)) for n in range(5)))

        assert [200] * 5 == [wire.status() for _ in range(5)]
        assert [[n] for n in range(5)] == taken.wait_for(5)

    def test_connections_take_turns(self, served, taken):
        """What follows an answer over another connection is handed on after it."""
        with Wire(served.port) as one, Wire(served.port) as other:
            for number in range(200):
                wire = (one, other)[number % 2]
                wire.send(request(PATH, logs(number)))
                assert 200 == wire.status()

        assert [[number] for number in range(200)] == taken.wait_for(200)

    def test_delivery_that_is_not_taken_is_taken_when_it_comes_again(self, monkeypatch):
        """Without memory for it there is no answer, and the platform repeats it."""
        failures = [MemoryError()]
        taken = []

        def accept(batch, size):
            if failures:
                raise failures.pop()
            taken.append(batch.sequence_id)

        monkeypatch.setattr(threading, "excepthook", lambda args: None)
        made = listener.Listener(accept, path=PATH, max_body=1_000_000)
        made.start()
        data = request(PATH, logs("a"), headers={"Sequence-Id": "s"})
        with Wire(made.port) as wire:
            wire.send(data)
            cut = wire.ended()
        with Wire(made.port) as wire:
            wire.send(data + data)
            statuses = [wire.status(), wire.status()]
        made.close()

        assert (True, [200, 200], ["s"]) == (cut, statuses, taken)

    def test_single_bytes(self, wire, taken):
        """The pieces in which TCP brings it do not matter."""
        data = request(PATH, logs("slow"))
        for position in range(len(data)):
            wire.send(data[position : position + 1])

        assert 200 == wire.status()
        assert [["slow"]] == taken.wait_for(1)

    @pytest.mark.parametrize("pieces", [1, 7, 10_000])
    def test_chunks(self, wire, taken, pieces):
        """A body without a length, in chunks, with extensions and trailers."""
        body = logs("a" * 100, "b")
        chunks = [body[at : at + pieces] for at in range(0, len(body), pieces)]
        data = b"".join(b"%X;x=1\r\n%s\r\n" % (len(each), each) for each in chunks)
        head = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        wire.send(request(PATH, headers=head) + data + b"0\r\nX: y\r\n\r\n")

        assert 200 == wire.status()
        assert [["a" * 100, "b"]] == taken.wait_for(1)
        wire.send(request(PATH, logs("next")))
        assert 200 == wire.status()

    def test_expect_100(self, wire, taken):
        """A client that asks before it sends the body is told to."""
        data = request(PATH, logs("a"), headers={"Expect": "100-continue"})
        head, _, body = data.partition(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")

        assert 100 == wire.status()
        wire.send(body)
        assert 200 == wire.status()
        assert [["a"]] == taken.wait_for(1)

    @pytest.mark.parametrize(
        ("version", "connection", "ended"),
        [
            ("HTTP/1.1", "close", True),
            ("HTTP/1.1", "Close", True),
            ("HTTP/1.0", None, True),
            ("HTTP/1.0", "Keep-Alive", False),
        ],
    )
    def test_end_of_a_connection(self, wire, version, connection, ended):
        """The client says whether it goes on."""
        head = {} if connection is None else {"Connection": connection}
        wire.send(request(PATH, logs("a"), headers=head, version=version))

        assert 200 == wire.status()
        if ended:
            assert wire.ended()
        else:
            wire.send(request(PATH, logs("b"), version=version))
            assert 200 == wire.status()

    def test_what_is_no_batch_is_taken_and_counted_later(self, wire, taken):
        """The platform is not asked to send nonsense again."""
        wire.send(request(PATH, b"{nonsense"))

        assert 200 == wire.status()
        assert [[]] == taken.wait_for(1)

    def test_an_empty_delivery(self, wire, taken):
        """An empty array is a batch of nothing."""
        wire.send(request(PATH, body_of()))

        assert 200 == wire.status()
        assert [[]] == taken.wait_for(1)


class TestRedelivery:
    """What was accepted is not accepted again; what was not, is."""

    def test_same_sequence_id_is_answered_and_not_handed_on(self, served, taken):
        """The answer was lost: the platform sends it again, over a new connection."""
        body = logs("once")
        for _ in range(3):
            with Wire(served.port) as wire:
                wire.send(request(PATH, body, headers={"Sequence-Id": sequence(body)}))
                assert 200 == wire.status()

        assert [["once"]] == taken.wait_for(1)
        assert (1, 2) == (served.counters.batches, served.counters.redelivered)

    def test_a_delivery_whose_answer_cannot_be_sent_is_accepted(self, served, taken):
        """The platform went away after the body: it may come again, and is known."""
        data = request(PATH, logs("a"), headers={"Sequence-Id": "s"})
        with Wire(served.port) as wire:
            wire.send(data)
        assert [["a"]] == taken.wait_for(1)
        with Wire(served.port) as wire:
            wire.send(data)
            assert 200 == wire.status()

        assert (1, 1) == (len(taken), served.counters.redelivered)

    def test_a_delivery_that_is_cut_is_not_accepted(self, served, taken):
        """Its repetition is, with the same id."""
        data = request(PATH, logs("whole"), headers={"Sequence-Id": "s"})
        with Wire(served.port) as wire:
            wire.send(data[:-5])
        with Wire(served.port) as wire:
            wire.send(data)
            assert 200 == wire.status()

        assert [["whole"]] == taken.wait_for(1)
        assert 0 == served.counters.redelivered

    def test_without_an_id_nothing_is_a_repetition(self, wire, taken):
        """Two equal bodies may be two deliveries."""
        for _ in range(2):
            wire.send(request(PATH, logs("same")))
            assert 200 == wire.status()

        assert [["same"]] * 2 == taken.wait_for(2)

    def test_known_ids_are_bounded(self, served, wire, monkeypatch):
        """The oldest is forgotten."""
        monkeypatch.setattr(listener, "MAX_KNOWN", 3)
        for name in ("a" * 1000, "b", "c", "d", "d"):
            wire.send(request(PATH, logs("x"), headers={"Sequence-Id": name}))
            assert 200 == wire.status()

        assert ["b", "c", "d"] == [*served._known]
        assert 1 == served.counters.redelivered


class TestStrangers:
    """Only the platform knows the path."""

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (request("/", b"x"), 404),
            (request("/lambda_ext/", b"x"), 404),
            (request(PATH + "/", b"x"), 404),
            (request("http://127.0.0.1" + PATH, b"x"), 404),
            (request(PATH, method="GET"), 405),
            (request(PATH, method="PUT"), 405),
            (request(PATH, version="HTTP/2"), 400),
            (b"nonsense\r\n\r\n", 400),
            (b"\r\n\r\n\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
            (b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n", 411),
            (request(PATH, headers={"Content-Length": "-1"}), 400),
            (request(PATH, headers={"Content-Length": "0x1"}), 400),
            (request(PATH, headers={"Content-Length": "1_0"}), 400),
            (request(PATH, headers={"Content-Length": ""}), 400),
            (request(PATH, headers={"Content-Length": "10001"}), 413),
            (request(PATH, headers={"Content-Length": "9" * 5000}), 413),
            (request(PATH, headers={"content-length": "5"}), 400),
            (request(PATH, headers={"Transfer-Encoding": "chunked"}), 400),
            (
                request(
                    PATH,
                    headers={
                        "Content-Length": None,
                        "Transfer-Encoding": "gzip, chunked",
                    },
                ),
                400,
            ),
            (request(PATH, b"x", headers={"Content-Encoding": "gzip"}), 415),
            (request(PATH, b"x", headers={"Content-Length ": "1"}), 400),
            (b"POST " + b"x" * 20_000, 431),
            (request(PATH, headers={"X": "y" * 20_000}), 431),
        ],
    )
    def test_what_is_no_delivery_is_refused(self, wire, taken, served, data, status):
        """The connection ends, nothing is handed on, and the next one is served."""
        wire.send(data)

        assert status == wire.status()
        assert wire.ended()
        assert 1 == served.counters.refused
        with Wire(served.port) as other:
            other.send(request(PATH, logs("good")))
            assert 200 == other.status()
        assert [["good"]] == taken.wait_for(1)

    @pytest.mark.parametrize(
        ("chunks", "status"),
        [
            (b"x\r\n", 400),
            (b"\r\n", 400),
            (b"-1\r\n", 400),
            (b"2\r\nabc\r\n", 400),
            (b"2711\r\n", 413),
            (b"1388\r\n" + b"a" * 5000 + b"\r\n1389\r\n", 413),
            (b"f" * 40 + b"\r\n", 413),
            (b"0\r\n" + b"X: y\r\n" * 101, 400),
        ],
    )
    def test_bad_chunks_are_refused(self, wire, taken, chunks, status):
        """Too much, or nonsense between the chunks."""
        head = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        wire.send(request(PATH, headers=head) + chunks)

        assert status == wire.status()
        assert wire.ended()
        assert [] == taken

    def test_the_platform_of_managed_instances_drops_the_path(self, taken):
        """Where that is known, "/" is taken, and nothing else."""
        served = listener.Listener(taken, path=PATH, max_body=100, drops_path=True)
        served.start()
        try:
            for path, status in (("/", 200), (PATH, 200), ("/x", 404)):
                with Wire(served.port) as wire:
                    wire.send(request(path, logs("a")))
                    assert status == wire.status()
        finally:
            served.close()

    def test_silent_connections_do_not_keep_the_platform_out(self, served, taken):
        """The one that has said nothing for longest gives way."""
        with Wire(served.port) as platform:
            platform.send(request(PATH, logs("a")))
            assert 200 == platform.status()
            silent = [Wire(served.port) for _ in range(3 * listener.MAX_CONNECTIONS)]
            with Wire(served.port) as late:
                late.send(request(PATH, logs("b")))
                assert 200 == late.status()
                platform.send(request(PATH, logs("c")))
                assert 200 == platform.status()
                open_ones = [each for each in silent[:16] if not each.ended()]
            for each in silent:
                each.__exit__()

        assert [["a"], ["b"], ["c"]] == taken.wait_for(3)
        assert [] == open_ones
        eventually(lambda: len(served._connections) == 0)


class TestLife:
    """Threads and sockets, from start to close."""

    def test_close_ends_all_threads(self, served, taken):
        """A connection that waits, one in the middle of a body, and the listener."""
        with Wire(served.port) as waits, Wire(served.port) as middle:
            waits.send(request(PATH, logs("a")))
            assert 200 == waits.status()
            middle.send(request(PATH, logs("b"))[:-3])
            eventually(lambda: served.busy)
            served.close()

            assert waits.ended()
            assert middle.ended()
        eventually(
            lambda: (
                not [
                    thread
                    for thread in threading.enumerate()
                    if thread.name.startswith("lambda_ext_telemetry")
                ]
            )
        )
        assert [["a"]] == taken.wait_for(1)

    def test_no_thread_for_a_connection(self, served, monkeypatch, taken):
        """The platform is hung up on, and tries again later."""
        start = real_threads.start

        def refuse(name, body):
            raise RuntimeError(name)

        monkeypatch.setattr(real_threads, "start", refuse)
        with Wire(served.port) as wire:
            assert wire.ended()
        monkeypatch.setattr(real_threads, "start", start)
        with Wire(served.port) as wire:
            wire.send(request(PATH, logs("a")))
            assert 200 == wire.status()
        assert [["a"]] == taken.wait_for(1)

    def test_port_is_not_the_reserved_one(self, monkeypatch, taken):
        """A port that Lambda uses itself is given back for another one."""
        ports = []
        listening = listener._listening

        def reserve(host):
            made = listening(host)
            ports.append(made.getsockname()[1])
            if len(ports) == 1:
                monkeypatch.setattr(listener, "RESERVED_PORT", ports[0])
            return made

        monkeypatch.setattr(listener, "_listening", reserve)
        made = listener.Listener(taken, path=PATH, max_body=1)
        try:
            assert 2 == len(ports)
            assert ports[1] == made.port
        finally:
            made.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_child_lets_go_of_the_sockets(self, served, taken):
        """The parent goes on, and the connection's end is seen by the platform."""
        with Wire(served.port) as wire:
            wire.send(request(PATH, logs("a")))
            assert 200 == wire.status()
            child = os.fork()
            if child == 0:
                served.let_go()
                os._exit(0 if served._server.fileno() == -1 else 1)
            _, code = os.waitpid(child, 0)
            wire.send(request(PATH, logs("b")))

            assert (0, 200) == (os.waitstatus_to_exitcode(code), wire.status())
        assert [["a"], ["b"]] == taken.wait_for(2)
