"""A signal handler that raises costs one exception, and nothing of the lifecycle."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading

import pytest
from helpers import interrupted
from interruptions import Interrupted, interruptions

import lambda_ext
from lambda_ext import invocation
from lambda_ext.aws import waiting
from lambda_ext.lifecycle import (
    clock,
    deadline,
    deferred,
    extension,
    otel,
    phases,
    process,
    real_threads,
    runtime_client,
    shutdown,
    signals,
    snapstart,
)
from lambda_ext.testing import FakeClock
from lambda_ext.values import calls

MODULES = (
    clock, extension, invocation, phases, process, runtime_client, shutdown, signals,
    snapstart,
)  # fmt: skip


def everywhere(modules, prepare, operation):
    """Interrupt *operation* at each place in turn; yield what prepare() returned.

    It is yielded after the interruption, which has arrived at the caller.
    """
    for run in interruptions(modules):
        state = prepare()
        interrupted(run, lambda state=state: operation(state))
        if run.happened:
            yield state


class Guard:
    """Handlers of each kind that Python accepts."""

    def method(self, signum, frame):
        raise TimeoutError

    def __call__(self, signum, frame):
        raise TimeoutError


def function(signum, frame, more=None):
    raise TimeoutError


@pytest.fixture(name="signalled")
def _signalled():
    """Return a function that has *handler* handle a signal, and sends one."""
    before = signal.getsignal(signal.SIGUSR1)

    def send(handler):
        signal.signal(signal.SIGUSR1, handler)
        os.kill(os.getpid(), signal.SIGUSR1)

    yield send
    signal.signal(signal.SIGUSR1, before)


class TestOfSignalHandler:
    """process.by_signal_handler()"""

    @pytest.mark.parametrize(
        "handler",
        [function, Guard().method, Guard(), functools.partial(function, more=1),
         functools.partial(Guard().method)],
    )  # fmt: skip
    def test_is_known_by_the_handler_in_the_traceback(self, signalled, handler):
        """For each kind of callable that a handler may be."""
        with pytest.raises(TimeoutError) as caught:
            signalled(handler)

        assert process.by_signal_handler(caught.value)

    def test_is_not_what_code_raises_by_itself(self, signalled):
        """Also while handlers are installed."""
        signalled(lambda *_: None)
        with pytest.raises(TimeoutError) as caught:
            raise TimeoutError

        assert not process.by_signal_handler(caught.value)

    def test_is_ctrl_c_in_the_main_thread_only(self, request):
        """CPython runs handlers nowhere else."""
        # A shell that starts a job in the background has it ignore SIGINT.
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, former))
        found = []
        thread = threading.Thread(
            target=lambda: found.append(process.by_signal_handler(KeyboardInterrupt()))
        )
        thread.start()
        thread.join()

        assert process.by_signal_handler(KeyboardInterrupt())
        assert [False] == found


class TestPhases:
    """phases.call()"""

    def test_guard_that_raises_in_a_listener_arrives_and_the_rest_is_called(
        self, signalled
    ):
        """An Exception, which is no failure of the listener's."""
        seen = []
        phases.listen(phases.RESPONSE, lambda: signalled(function))
        phases.listen(phases.RESPONSE, lambda: seen.append(1))

        with pytest.raises(TimeoutError):
            phases.call(phases.RESPONSE)
        assert ([1], 0) == (seen, phases.failures[phases.RESPONSE])

    def test_no_listener_is_lost_or_called_twice(self):
        """Wherever the exception comes in the middle of the call."""

        def prepare():
            phases.reset()
            seen = []
            for name in "abc":
                phases.listen(phases.RESPONSE, functools.partial(seen.append, name))
            return seen

        # At the very entry nothing has begun.
        results = [
            (seen, phases.calls[phases.RESPONSE] - phases.ended[phases.RESPONSE])
            for seen in everywhere(
                (phases,), prepare, lambda _: phases.call(phases.RESPONSE)
            )
        ]

        complete = (["a", "b", "c"], 0)
        assert results[0] in (([], 0), complete)
        assert results[1:] == [complete] * len(results[1:])
        assert len(results) > 5


class TestClock:
    """clock.sync() and clock.begin_invocation()"""

    @pytest.mark.parametrize("operation", [clock.sync, clock.begin_invocation,
                                           clock.restored])  # fmt: skip
    def test_freeze_ages_everything_after_all(self, operation):
        """The next look at the clock sees what an interrupted one has missed."""
        with FakeClock() as time:

            def prepare():
                before = clock.now(), clock.generation
                time.step(100)
                return before

            count = 0
            for now, generation in everywhere((clock,), prepare, lambda _: operation()):
                clock.sync()
                assert 100 <= clock.now() - now
                assert generation < clock.generation
                count += 1

        assert count > 2


@pytest.fixture(name="others")
def _others():
    """A wakeup fd and a SIGTERM handler of the user's."""
    before = signal.getsignal(signal.SIGTERM)
    fd = signal.set_wakeup_fd(-1)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours.fileno(), function
    signals.reset()
    signal.signal(signal.SIGTERM, before)
    signal.set_wakeup_fd(fd)
    ours.close()
    theirs.close()


class TestSignals:
    """signals.rearm()"""

    def test_what_was_replaced_is_not_forgotten(self, others):
        """The chain and the previous handler are those of the user."""
        signals.install(lambda: None)

        def prepare():
            signals._chained_file = None
            signals._previous = signal.SIG_DFL
            signal.signal(signal.SIGTERM, others[1])
            signal.set_wakeup_fd(others[0], warn_on_full_buffer=False)

        count = 0
        for _ in everywhere((signals,), prepare, lambda _: signals.rearm()):
            signals.rearm()
            assert (signals.path(), signals.previous()) == ("chained", others[1])
            assert not signals.replaced()
            count += 1

        assert count > 2


class TestShutdown:
    """The end of the process, in the main thread."""

    @pytest.mark.logs  # a busy machine may take longer than a share of the budget
    def test_every_listener_is_called_once_at_exit(self):
        """The exception comes after them."""

        def prepare():
            shutdown.reset()
            phases.reset()
            seen = []
            for name in "abc":
                lambda_ext.on_shutdown(functools.partial(seen.append, name))
            return seen

        results = list(
            everywhere((shutdown, phases), prepare, lambda _: shutdown._at_exit())
        )

        # At the very entry nothing can be done.
        assert results[1:] == [["a", "b", "c"]] * len(results[1:])
        assert len(results) > 20

    @pytest.mark.logs  # a busy machine may take longer than a share of the budget
    def test_every_listener_is_called_once_without_threads(self, monkeypatch):
        """As at the exit of Python 3.12, which starts no thread any more."""

        def refuse(name, body):
            raise RuntimeError("can't create new thread at interpreter shutdown")

        monkeypatch.setattr(real_threads, "start", refuse)
        self.test_every_listener_is_called_once_at_exit()


class TestInvocation:
    """A decorated handler."""

    def test_has_ended_and_the_next_one_is_complete(self):
        """It is not taken for an invocation that goes on."""
        seen = []
        phases.listen(phases.INVOKE, lambda: None)
        phases.listen(phases.RESPONSE, lambda: None)
        handler = lambda_ext.handler(lambda event: seen.append(event))

        count = 0
        for _ in everywhere(MODULES, seen.clear, lambda _: handler("first")):
            handler("second")
            assert phases.calls[phases.INVOKE] <= phases.calls[phases.RESPONSE]
            assert phases.calls[phases.RESPONSE] == phases.ended[phases.RESPONSE]
            assert "second" == seen[-1]
            count += 1

        assert count > 10

    def test_start_that_was_interrupted_is_made_up_for(self, monkeypatch):
        """The next one goes through all steps that are missing."""
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
        parts = []
        monkeypatch.setattr(shutdown, "install", lambda: parts.append("signals"))
        monkeypatch.setattr(extension, "register", lambda: parts.append("extension"))

        def prepare():
            process.reset()
            parts.clear()
            # C code: a hook that is interrupted at its own entry has begun.
            phases.listen(phases.INIT, functools.partial(parts.append, "init"))

        count = 0
        for _ in everywhere((invocation,), prepare, lambda _: lambda_ext.start()):
            lambda_ext.start()
            assert {"signals", "extension", "init"} == set(parts)
            assert 1 == parts.count("init")
            count += 1

        assert count > 5


class TestDeadline:
    """The thread that watches deadlines."""

    def test_is_one_wherever_its_beginning_is_interrupted(self, monkeypatch):
        """The next one who wants it does not begin a second one beside it."""
        monkeypatch.setattr(deadline, "TIMER_S", 30.0)
        wrong = []
        count = 0
        for run in interruptions((deadline, real_threads)):
            deadline.reset()
            called, done = [], threading.Event()

            def call(called=called, done=done):
                called.append(1)
                done.set()

            def due(called=called):
                return None if called else 0.0

            interrupted(run, lambda due=due, call=call: deadline.look(due, call))
            deadline.look(due, call)
            assert done.wait(30)
            deadline.reset()
            if [1] != called:
                wrong.append((run.where, called))
            count += 1

        assert [] == wrong
        assert count > 20


def after_response(function):
    deferred._waiting.append(deferred.Call(function, (), {}))
    deferred._go_on(clock.run_time() + 30)


@pytest.mark.parametrize(
    "begin",
    [
        lambda function: waiting.within(30.0, function, "lambda_ext_test"),
        lambda function: phases.run_within(30.0, function, phases.RESPONSE),
        lambda function: calls.spawn(function, []),
        lambda function: deadline.look(lambda: 0.0, function),
        lambda function: otel._start("a", function, 30.0, real_threads.Event()),
        lambda function: extension._has_thread(),
        signals.install,
        after_response,
    ],
    ids=["within", "phase", "helper", "deadline", "otel", "extension", "sigterm",
         "after"],
)  # fmt: skip
def test_guard_that_raises_a_runtime_error_is_no_lack_of_threads(
    begin, signalled, monkeypatch
):
    """It arrives where a thread is begun; the work is not done in this one for it."""
    done = []

    def fail(signum, frame):
        raise RuntimeError("of the guard")

    def guarded(*_, **__):
        signalled(fail)

    monkeypatch.setattr(real_threads, "start", guarded)
    monkeypatch.setattr(real_threads, "start_new_thread", guarded)
    with pytest.raises(RuntimeError, match="of the guard"):
        begin(lambda *_, **__: done.append(1))

    assert [] == done


def test_real_alarms_lose_no_listener(signalled):
    """Hundreds of interruptions by a timer, at any place: each phase is complete."""
    seen = []
    for _ in range(5):
        phases.listen(phases.RESPONSE, lambda: seen.append(1))

    def alarm(signum, frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, alarm)
    rounds = 500
    try:
        for number in range(rounds):
            with pytest.raises(Interrupted):  # noqa: PT012  the timer is part of it
                signal.setitimer(signal.ITIMER_REAL, 5e-5 + number * 1e-7)
                while True:
                    phases.call(phases.RESPONSE)
    finally:
        signal.signal(signal.SIGALRM, before)

    ended = phases.ended[phases.RESPONSE]
    assert phases.calls[phases.RESPONSE] == ended
    # One that is interrupted at its very entry has done nothing.
    assert 5 * ended - rounds <= len(seen) <= 5 * ended
