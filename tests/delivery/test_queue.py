"""A bounded queue to one receiver: retries, deadlines, and what a signal does."""

from __future__ import annotations

import threading

import pytest
from helpers import run_threads

from lambda_ext.delivery import queue as delivery
from lambda_ext.delivery.queue import Delivery, RefusedError, RetryError
from lambda_ext.lifecycle import clock
from lambda_ext.testing import FakeClock

FAILED = pytest.mark.logs  # a failure is logged once a reason


class Receiver:
    """Takes what is sent; *answers* are raised or returned, one an attempt."""

    def __init__(self, *answers):
        self.answers = [*answers]
        self.attempts = []
        self.taken = []

    def __call__(self, payload, ends_at):
        self.attempts.append(payload)
        answer = self.answers.pop(0) if self.answers else (0, "")
        if isinstance(answer, BaseException):
            raise answer
        self.taken.append(payload)
        return answer


@pytest.fixture(name="fake")
def _fake(monkeypatch):
    with FakeClock() as fake:
        monkeypatch.setattr(delivery, "sleep", fake.advance)
        yield fake


def numbers(queue):
    """Return what a delivery says of itself."""
    return queue.sent, queue.dropped, queue.pending


def soon(seconds=1.0):
    """Return a deadline."""
    return clock.monotonic() + seconds


def test_dropped_connection_keeps_no_descriptor():
    """A connection that an exception took away is closed with its last reference."""
    from lambda_ext.aws import connections, native

    sock = native.modules().Socket(2, 1)
    connection = connections.Connection(sock, None)
    before = sock.fileno()
    del connection

    assert (True, -1) == (before >= 0, sock.fileno())


@pytest.mark.usefixtures("fake")
class TestDrain:
    """Delivery.drain()"""

    def test_sends_the_oldest_first(self):
        """Everything that was queued is sent, in its order."""
        receiver = Receiver()
        queue = Delivery("x", receiver)
        queue.put("a", 2, 10)
        queue.put("b", 3, 10)

        assert queue.drain(soon())
        assert (["a", "b"], (5, {}, 0)) == (receiver.taken, numbers(queue))

    @FAILED
    def test_attempt_that_may_pass_is_made_again(self):
        """After a passing failure the same item is sent again, within the deadline."""
        receiver = Receiver(RetryError("HTTP 503"))
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)

        assert queue.drain(soon(5))
        assert (["a", "a"], ["a"]) == (receiver.attempts, receiver.taken)
        assert "" == queue.error

    @FAILED
    def test_failure_keeps_the_item_for_the_next_drain(self, fake):
        """What was not taken stays in the queue, uncounted, and is sent later."""
        receiver = Receiver(*[RetryError("HTTP 503")] * delivery.ATTEMPTS)
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)

        assert not queue.drain(soon(100))
        assert ((0, {}, 1), "HTTP 503") == (numbers(queue), queue.error)

        fake.advance(60)

        assert queue.drain(soon())
        assert (1, {}, 0) == numbers(queue)

    @FAILED
    def test_no_attempt_earlier_than_the_receiver_asked(self, fake):
        """Retry-After that exceeds the deadline ends the drain, and is kept."""
        receiver = Receiver(RetryError("HTTP 429", after_s=30))
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)

        assert not queue.drain(soon(5))
        assert not queue.drain(soon(5))
        assert ["a"] == receiver.attempts

        fake.advance(30)

        assert queue.drain(soon(5))
        assert ["a"] == receiver.taken

    @FAILED
    def test_pause_after_a_success_is_a_first_one_again(self, fake, monkeypatch):
        """It grows with failures in a row only."""
        seen = []
        monkeypatch.setattr(delivery, "jitter", lambda n: seen.append(n) or 0.1)
        failed = RetryError("HTTP 503")
        queue = Delivery("x", Receiver(failed, failed, (0, ""), failed))
        queue.put("a", 1, 10)
        queue.put("b", 1, 10)
        queue.drain(soon(60))
        queue.drain(soon(60))

        assert [1, 2, 1] == seen
        assert (2, {}, 0) == numbers(queue)

    @FAILED
    def test_retry_after_of_days_is_cut(self, fake):
        """A receiver cannot silence a sink for longer than five minutes."""
        receiver = Receiver(RetryError("HTTP 429", after_s=1e9))
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)
        queue.drain(soon(5))

        fake.advance(delivery.LONGEST_PAUSE_S)

        assert queue.drain(soon(5))

    @FAILED
    def test_refused_item_is_dropped_and_the_next_is_sent(self):
        """A final refusal is counted by its reason and stops nothing."""
        receiver = Receiver(RefusedError("HTTP 400"))
        queue = Delivery("x", receiver)
        queue.put("a", 2, 10)
        queue.put("b", 3, 10)

        assert queue.drain(soon())
        assert (["b"], (3, {"HTTP 400": 2}, 0)) == (receiver.taken, numbers(queue))

    @FAILED
    def test_partial_success_is_not_sent_again(self):
        """What a receiver refused of an item is counted, the rest is sent."""
        receiver = Receiver((2, "bad name"))
        queue = Delivery("x", receiver)
        queue.put("a", 5, 10)

        assert queue.drain(soon())
        assert (["a"], (3, {"refused": 2}, 0)) == (receiver.attempts, numbers(queue))
        assert "bad name" == queue.error

    @FAILED
    @pytest.mark.parametrize(("refused", "sent"), [(-5, 3), (0, 3), (2, 1), (99, 0)])
    def test_counts_add_up_whatever_is_said_to_be_refused(self, refused, sent):
        """No more than all, and no less than none, of an item was refused."""
        queue = Delivery("x", Receiver((refused, "so it says")))
        queue.put("a", 3, 10)
        queue.drain(soon())
        dropped = {"refused": 3 - sent} if sent < 3 else {}

        assert (sent, dropped, 0) == numbers(queue)

    @FAILED
    def test_bug_of_a_sink_drops_the_item_only(self):
        """What else is raised counts as refused, by its class."""
        queue = Delivery("x", Receiver(ZeroDivisionError("secret")))
        queue.put("a", 1, 10)

        assert queue.drain(soon())
        assert (0, {"ZeroDivisionError": 1}, 0) == numbers(queue)

    @FAILED
    def test_failure_after_a_freeze_is_repeated_at_once(self, fake):
        """A connection that died in a freeze costs no pause."""
        before = []

        def send(payload, ends_at):
            if not before:
                before.append(clock.now())
                fake.step(60)
                raise RetryError("reset", after_s=30)
            return 0, ""

        queue = Delivery("x", send)
        queue.put("a", 1, 10)

        assert queue.drain(soon(5))

    def test_nothing_is_sent_past_the_deadline(self):
        """A drain whose time is over makes no attempt."""
        receiver = Receiver()
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)

        assert not queue.drain(clock.monotonic())
        assert ([], 1) == (receiver.attempts, queue.pending)

    @FAILED
    def test_warning_is_logged_once_a_reason(self, caplog):
        """A receiver that is down for an hour writes one line, not thousands."""
        receiver = Receiver(*[RefusedError("HTTP 400")] * 50)
        queue = Delivery("x", receiver)
        for _ in range(50):
            queue.put("a", 1, 10)
        queue.drain(soon(100))

        assert ["lambda_ext.delivery_failed sink=x error=HTTP 400"] == [
            record.getMessage() for record in caplog.records
        ]

    def test_interrupted_send_is_repeated_and_blocks_nothing(self):
        """What a signal handler raises arrives, and the item is sent later."""
        receiver = Receiver(KeyboardInterrupt())
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)

        with pytest.raises(KeyboardInterrupt):
            queue.drain(soon())

        assert queue.drain(soon())
        assert (["a"], (1, {}, 0)) == (receiver.taken, numbers(queue))


class TestThreads:
    """Several threads at one delivery."""

    def test_each_item_is_sent_once(self):
        """Ten threads that drain send each item once."""
        receiver = Receiver()
        queue = Delivery("x", receiver)
        for number in range(200):
            queue.put(number, 1, 10)

        run_threads(10, lambda _: queue.drain(soon(30)))

        assert [*range(200)] == receiver.taken

    def test_drain_waits_for_another_only_until_its_deadline(self):
        """A server that hangs under one thread holds no other thread longer."""
        under_way, release = threading.Event(), threading.Event()

        def send(payload, ends_at):
            under_way.set()
            release.wait(30)
            return 0, ""

        queue = Delivery("x", send)
        queue.put("a", 1, 10)
        thread = threading.Thread(target=queue.drain, args=(soon(60),))
        thread.start()
        under_way.wait(30)
        drained = queue.drain(soon(0.01))
        release.set()
        thread.join()

        assert not drained
        assert (1, {}, 0) == numbers(queue)

    def test_item_under_way_is_not_dropped_for_room(self):
        """A full queue drops what waits, not what is being sent."""
        sent = []

        def send(payload, ends_at):
            sent.append(payload)
            if payload == "a":
                queue.put("b", 1, 10)
                queue.put("c", 1, 10)
            return 0, ""

        queue = Delivery("x", send, max_items=2)
        queue.put("a", 1, 10)

        assert queue.drain(soon())
        assert (["a", "c"], (2, {"queue_full": 1}, 0)) == (sent, numbers(queue))


class TestPut:
    """Delivery.put()"""

    def test_oldest_goes_where_there_is_no_room(self):
        """The bound of items holds, and what went is counted."""
        receiver = Receiver()
        queue = Delivery("x", receiver, max_items=2)
        for number in range(5):
            queue.put(number, 1, 10)

        assert queue.drain(soon())
        assert ([3, 4], {"queue_full": 3}) == (receiver.taken, queue.dropped)

    def test_bytes_are_bounded(self):
        """Large items leave earlier; one that is larger than all room is dropped."""
        receiver = Receiver()
        queue = Delivery("x", receiver, max_bytes=100)
        queue.put("a", 1, 60)
        queue.put("b", 1, 60)

        assert (60, 1) == (queue.bytes, queue.pending)

        queue.put("c", 1, 101)

        assert (0, {"queue_full": 3}) == (queue.bytes, queue.dropped)

    def test_child_leaves_the_queue_to_its_parent(self):
        """A forked child sends nothing that its parent will send."""
        receiver = Receiver()
        queue = Delivery("x", receiver)
        queue.put("a", 1, 10)
        queue.forked()

        assert queue.drain(soon())
        assert [] == receiver.attempts

    @FAILED
    def test_what_a_receiver_says_is_bounded(self):
        """Its words become no statistics of a megabyte."""
        queue = Delivery(
            "x", Receiver((1, "no " * 1_000_000), RefusedError("a" * 10**6))
        )
        for _ in range(2):
            queue.put("a", 1, 10)
            queue.drain(soon())

            assert 10 <= len(queue.error) <= 1_000
        assert 2_000 >= len(repr(queue.dropped))

    @FAILED
    def test_child_counts_from_zero(self):
        """What the parent has sent and dropped is no number of its child's."""
        queue = Delivery("x", Receiver((0, ""), RefusedError("bad")))
        for _ in range(2):
            queue.put("a", 1, 10)
        queue.drain(soon())
        before = (*numbers(queue), queue.error)
        queue.forked()

        assert (1, {"bad": 1}, 0, "bad") == before
        assert (0, {}, 0, "") == (*numbers(queue), queue.error)
