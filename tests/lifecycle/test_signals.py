"""SIGTERM is seen in any state of the main thread, beside other users of signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import types

import pytest
from helpers import eventually

from lambda_ext.lifecycle import real_threads, runtime_client, signals


@pytest.fixture(name="woken")
def _woken():
    """Install the watcher, and put back what was there."""
    before = signal.getsignal(signal.SIGTERM)
    fd = signal.set_wakeup_fd(-1)
    woken = threading.Semaphore(0)
    woken.install = lambda: signals.install(woken.release)
    yield woken
    signals.reset()
    runtime_client.reset()
    signal.signal(signal.SIGTERM, before)
    signal.set_wakeup_fd(fd)


def sigterm():
    """Send SIGTERM to this process."""
    os.kill(os.getpid(), signal.SIGTERM)


def wakeup_fd():
    """Return the present wakeup fd."""
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


class TestInstall:
    """signals.install()"""

    def test_wakes_on_a_thread_while_the_main_thread_is_in_c(self, woken):
        """The main thread runs no Python code between signal and wake."""
        woken.install()
        names = []
        signals._wake = lambda: names.append(threading.current_thread().name)
        sigterm()
        eventually(lambda: names)

        assert "lambda_ext_sigterm" == names[0]
        assert "wakeup_fd" == signals.path()

    def test_other_signals_wake_nothing(self, woken):
        """Every signal that Python handles writes its number; only 15 counts."""
        woken.install()
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.write(signals._write_fd, bytes(range(1, 15)))
            sigterm()
            assert woken.acquire(timeout=30)
        finally:
            signal.signal(signal.SIGUSR1, before)

        # The handler wrote the byte as well, at most.
        assert not (woken.acquire(timeout=0.05) and woken.acquire(timeout=0.05))

    @pytest.mark.logs
    def test_outside_the_main_thread_waits_for_rearm(self, woken, caplog):
        """Only the main thread may; the first rearm() there makes up for it."""
        thread = threading.Thread(target=woken.install)
        thread.start()
        thread.join()
        before = signals.path(), signals.reason
        signals.rearm()

        assert "off" == before[0]
        assert "main thread" in before[1]
        assert [f"lambda_ext.signals_off reason={before[1]}"] == caplog.messages
        assert ("wakeup_fd", "") == (signals.path(), signals.reason)

    @pytest.mark.logs
    def test_without_a_thread_to_spare_leaves_everything(self, woken, monkeypatch):
        """No pipe, no handler, a reason."""
        before = signal.getsignal(signal.SIGTERM)

        def refuse(*arguments):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(real_threads, "start_new_thread", refuse)
        woken.install()

        assert ("off", "can't start new thread") == (signals.path(), signals.reason)
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.logs
    def test_without_a_descriptor_to_spare_waits_for_rearm(self, woken, monkeypatch):
        """A handler that has opened too many files is not to fail for our pipe."""
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", lambda: os.open("/nowhere/at/all", os.O_RDONLY))
            woken.install()
            signals.rearm()
            before = signals.path(), signals.reason
        signals.rearm()

        assert (
            "off",
            "[Errno 2] No such file or directory: '/nowhere/at/all'",
        ) == before
        assert ("wakeup_fd", "") == (signals.path(), signals.reason)

    def test_full_pipe_is_no_error(self, woken):
        """The pipe never blocks the handler."""
        woken.install()
        release = threading.Event()
        signals._wake = lambda: release.wait(30)
        sigterm()
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(signals._write_fd, b"\x01" * 4096)
            signals._on_sigterm(signal.SIGTERM, None)
        finally:
            release.set()


class TestUsersHandler:
    """A SIGTERM handler of the user's own."""

    def test_that_was_there_is_the_previous_one(self, woken):
        """It is remembered, and not called by the signal."""
        seen = []
        user = lambda *_: seen.append(1)  # noqa: E731
        signal.signal(signal.SIGTERM, user)
        woken.install()
        sigterm()
        assert woken.acquire(timeout=30)
        found = signals.previous()
        signals.reset()
        back = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        assert (found, seen, back) == (user, [], user)

    def test_that_replaces_ours_is_adopted_by_rearm(self, woken):
        """From then on it is the previous one; until then it runs by itself."""
        woken.install()
        seen = []
        user = lambda *_: seen.append(1)  # noqa: E731
        signal.signal(signal.SIGTERM, user)
        before = signals.replaced(), signals.previous()
        sigterm()
        assert woken.acquire(timeout=30)
        ran = list(seen)
        signals.rearm()
        sigterm()
        assert woken.acquire(timeout=30)
        after = signals.replaced(), signals.previous()

        assert before == (True, user)
        assert [1] == ran
        assert after == (False, user)
        assert [1] == seen

    def test_rearm_elsewhere_than_in_the_main_thread_changes_nothing(self, woken):
        """It cannot, and does not complain."""
        woken.install()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        thread = threading.Thread(target=signals.rearm)
        thread.start()
        thread.join()
        found = signal.getsignal(signal.SIGTERM)
        signals.rearm()

        assert found == signal.SIG_IGN
        assert not signals.replaced()


class TestChain:
    """A wakeup fd of another library."""

    @pytest.fixture(name="other")
    def _other(self):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(30)
        yield ours, theirs
        ours.close()
        theirs.close()

    def test_that_was_there_gets_every_other_byte_at_once(self, woken, other):
        """asyncio goes on to hear of its signals; of SIGTERM after the flush."""
        signal.set_wakeup_fd(other[0].fileno(), warn_on_full_buffer=False)
        woken.install()
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            first = other[1].recv(10)
            sigterm()
            assert woken.acquire(timeout=30)
            assert signals.forward()
            second = other[1].recv(10)
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert "chained" == signals.path()
        assert first == bytes((signal.SIGUSR1,))
        assert second == bytes((signal.SIGTERM,))

    def test_that_was_there_is_put_back_by_reset(self, woken, other):
        """What was taken is given back."""
        signal.set_wakeup_fd(other[0].fileno(), warn_on_full_buffer=False)
        woken.install()
        signals.reset()

        assert wakeup_fd() == other[0].fileno()

    def test_that_is_full_is_not_waited_for(self, woken, other):
        """Its owner is about to look anyway."""
        signal.set_wakeup_fd(other[0].fileno(), warn_on_full_buffer=False)
        woken.install()
        with contextlib.suppress(BlockingIOError):
            while True:
                other[0].send(b"x" * 4096)

        assert not signals.forward()

    def test_that_was_closed_is_forgotten(self, woken, other):
        """As asyncio closes it with its loop."""
        signal.set_wakeup_fd(other[0].fileno(), warn_on_full_buffer=False)
        woken.install()
        signals.rearm()
        chained = signals.path()
        other[0].close()

        assert ("chained", "wakeup_fd") == (chained, signals.path())
        assert not signals.forward()

    def test_that_took_over_is_chained_by_rearm(self, woken, other):
        """And gives way to ours."""
        woken.install()
        ours = wakeup_fd()
        signal.set_wakeup_fd(other[0].fileno(), warn_on_full_buffer=False)
        signals.rearm()

        assert wakeup_fd() == ours
        assert "chained" == signals.path()

    def test_that_was_removed_is_ours_again(self, woken):
        """As asyncio leaves it at -1 when its last handler is removed."""
        woken.install()
        ours = wakeup_fd()
        signal.set_wakeup_fd(-1)
        signals.rearm()

        assert wakeup_fd() == ours
        assert "wakeup_fd" == signals.path()

    def test_number_that_is_another_files_by_now_is_never_written(
        self, woken, other, tmp_path
    ):
        """The descriptor of a closed loop may be another file's."""
        number = other[0].fileno()
        signal.set_wakeup_fd(number, warn_on_full_buffer=False)
        woken.install()
        path = tmp_path / "precious"
        with open(path, "w") as file:
            kept = os.dup(number)
            os.dup2(file.fileno(), number)
            written = signals.forward(b"\x0f")
            found = signals.path()
            os.dup2(kept, number)
            os.close(kept)

        assert (False, "wakeup_fd") == (written, found)
        assert b"" == path.read_bytes()

    def test_real_asyncio_loop_hears_its_signals_through_us(self, woken):
        """A loop that lives on between invocations is served."""
        import asyncio

        woken.install()
        loop = asyncio.new_event_loop()
        seen = []

        async def run():
            done = asyncio.Event()

            def heard():
                seen.append(1)
                done.set()

            loop.add_signal_handler(signal.SIGUSR1, heard)
            signals.rearm()
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(done.wait(), 30)

        try:
            loop.run_until_complete(run())
        finally:
            loop.close()

        assert [1] == seen


class TestPipe:
    """A program that closes every descriptor."""

    def test_is_made_again_by_rearm(self, woken):
        """SIGTERM is seen again from the next invocation on."""
        woken.install()
        write_fd = signals._write_fd
        signal.set_wakeup_fd(-1)
        os.close(write_fd)
        eventually(lambda: signals.path() == "off")
        reason = signals.reason
        signals.rearm()
        sigterm()

        assert "closed" in reason
        assert woken.acquire(timeout=30)
        assert "wakeup_fd" == signals.path()


class TestRuntimeClient:
    """The private place where the runtime client waits."""

    @pytest.fixture(name="client")
    def _client(self, monkeypatch):
        class Client:
            def __init__(self):
                self.seen = []

            def wait_next_invocation(self, *args):
                self.seen.append((runtime_client.waiting, signals.replaced(), args))
                if args == ("error",):
                    raise KeyError
                return "request"

        module = types.ModuleType(runtime_client.MODULE)
        module.BaseLambdaRuntimeClient = Client
        monkeypatch.setitem(sys.modules, runtime_client.MODULE, module)
        return Client

    def test_is_idle_and_armed_while_it_waits(self, woken, client):
        """A handler installed since is adopted before the wait."""
        original = client.wait_next_invocation
        woken.install()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        instance = client()
        before = runtime_client.waiting
        answer = instance.wait_next_invocation("x")
        after = runtime_client.waiting
        runtime_client.reset()

        assert (False, "request", False) == (before, answer, after)
        assert [(True, False, ("x",))] == instance.seen
        assert client.wait_next_invocation is original

    def test_error_passes(self, woken, client):
        """What the runtime client raises is its own."""
        woken.install()
        with pytest.raises(KeyError):
            client().wait_next_invocation("error")

        assert runtime_client.waiting is False

    def test_that_has_no_such_place_is_done_without(self, woken, client):
        """Then it is not known whether it is idle."""
        del client.wait_next_invocation
        woken.install()

        assert runtime_client.waiting is None
        assert "wakeup_fd" == signals.path()


def test_reset_ends_the_thread_and_closes_the_pipe(woken):
    """As if it had never been installed."""
    woken.install()
    thread = signals._thread
    fds = signals._read_fd, signals._write_fd
    signals.reset()
    thread.join(30)

    assert not thread.is_alive()
    assert -1 == wakeup_fd()
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_reset_lets_the_thread_finish_what_it_does(woken, monkeypatch):
    """What one SIGTERM set off does not reach into what comes after the reset."""
    seen = []
    awaited = threading.Event()

    def joined(timeout=None):
        awaited.set()
        join(timeout)

    def wake():
        seen.append("begun")
        awaited.wait(30)
        seen.append("ended")

    signals.install(wake)
    join = signals._thread.join
    monkeypatch.setattr(signals._thread, "join", joined)
    sigterm()
    eventually(lambda: seen)
    signals.reset()
    found = list(seen)
    awaited.set()

    assert found.count("begun") == found.count("ended") > 0
