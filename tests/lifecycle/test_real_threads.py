"""Threads and events of the operating system, also where `threading` was replaced."""

from __future__ import annotations

import _thread
import threading

import pytest
from helpers import eventually, installed, interrupted, python, run_threads
from interruptions import interruptions

from lambda_ext.lifecycle import real_threads, signals

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


class TestEvent:
    """real_threads.Event"""

    def test_set_lets_every_waiter_go_on(self):
        """Also those that come later, until it is cleared."""
        event = real_threads.Event()
        threads = [threading.Thread(target=event.wait, args=(30,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(event._waiters) == 8)
        event.set()
        for thread in threads:
            thread.join(30)

        assert [False] * 8 == [thread.is_alive() for thread in threads]
        assert (True, True, []) == (event.is_set(), event.wait(), event._waiters)

    def test_serves_again_after_clear(self):
        """Set, cleared and set, as often as one likes."""
        event = real_threads.Event()
        for _ in range(3):
            event.set()
            assert event.wait(30)
            event.clear()
            assert (False, False) == (event.wait(0), event.wait(0.001))
            assert [] == event._waiters

    def test_waiting_and_setting_at_once_hang_no_thread(self):
        """A waiter that comes while it is being set goes on, too."""
        for _ in range(200):
            event = real_threads.Event()

            def either(index, event=event):
                return event.set() if index == 0 else event.wait(30)

            assert [None, True, True, True] == run_threads(4, either)

    def test_interrupted_set_has_let_all_go_on_or_none_know(self):
        """Where a signal handler raises, there is no waiter left behind a set event."""
        threads = []

        for interruption in interruptions((real_threads,)):
            event = real_threads.Event()
            thread = threading.Thread(target=event.wait, args=(30,))
            thread.start()
            threads.append(thread)
            eventually(lambda event=event: event._waiters)
            interrupted(interruption, event.set)
            assert event.is_set() == (not event._waiters)
            event.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


class TestStart:
    """real_threads.start()"""

    def test_runs_a_daemon_of_that_name(self):
        """As `threading` shows it."""
        seen = []

        def body():
            thread = threading.current_thread()
            seen.append((thread.name, thread.daemon, real_threads.in_main_thread()))

        real_threads.start("lambda_ext_test", body).join(30)

        assert [("lambda_ext_test", True, False)] == seen
        assert real_threads.in_main_thread()

    def test_quiet_thread_is_known_before_it_begins(self):
        """It is not alive yet, and waiting for its end takes no time."""
        before, ran = [], []

        def keep(thread):
            thread.join()
            before.append((thread, thread.is_alive(), list(ran)))

        thread = real_threads.start(
            "lambda_ext_test", lambda: ran.append(1), is_quiet=True, before=keep
        )
        thread.join(30)

        assert [(thread, False, [])] == before
        assert ([1], False) == (ran, thread.is_alive())

    def test_quiet_thread_that_cannot_begin_is_not_alive(self, monkeypatch):
        """What keeps it may try again."""
        kept = []

        def refuse(*arguments):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(real_threads, "start_new_thread", refuse)
        with pytest.raises(RuntimeError):
            real_threads.start(
                "lambda_ext_test", list, is_quiet=True, before=kept.append
            )
        (thread,) = kept
        thread.join()

        assert not thread.is_alive()

    def test_quiet_thread_begins_without_threading(self, monkeypatch):
        """It is known by name here, and there once it has introduced itself."""
        monkeypatch.setattr(threading.Thread, "start", None)
        seen, gate = [], real_threads.Event()

        def body():
            gate.wait(30)
            ident = real_threads.get_ident()
            seen.append(ident in real_threads.quiet & real_threads.ours)
            real_threads.introduce()
            seen.append(threading.current_thread().name)

        thread = real_threads.start("lambda_ext_test", body, is_quiet=True)
        eventually(lambda: "lambda_ext_test" in real_threads.bare.values())
        names = [each.name for each in threading.enumerate()]
        alive = thread.is_alive()
        gate.set()
        thread.join(30)

        assert [True, "lambda_ext_test"] == seen
        assert (
            False, True, False
        ) == ("lambda_ext_test" in names, alive, thread.is_alive())  # fmt: skip
        assert "lambda_ext_test" not in real_threads.bare.values()

    @pytest.mark.logs
    def test_unknown_replacement_switches_off_with_a_reason(self, monkeypatch, caplog):
        """Where no real thread is to be had, nothing is begun that could hang."""

        def start_new_thread(*args):
            raise AssertionError

        monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
        monkeypatch.setattr(real_threads, "start_new_thread", real_threads._refuse)
        try:
            signals.install(lambda: None)
            found = signals.path(), signals.reason
        finally:
            signals.reset()

        reason = f"{__name__} has replaced the threads of this process"
        assert found == ("off", reason)
        assert [f"lambda_ext.signals_off reason={reason}"] == caplog.messages


@pytest.mark.process
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("library", PATCHES)
def test_are_real_where_greenlets_replaced_them(library, moment):
    """They run while the caller's thread blocks in C, and share locks with it."""
    installed(library)
    lines = [
        "import warnings; warnings.simplefilter('ignore')",
        "from lambda_ext.lifecycle import process, real_threads",
        "lock = process.Lock()",
    ]
    lines.insert(1 if moment == "before" else 3, PATCHES[library])
    done = python(
        "\n".join(lines) + "\n"
        "import posix, _thread\n"
        "assert real_threads.patched()\n"
        "assert not hasattr(type(lock).__enter__, '__code__')\n"
        "read, write = posix.pipe()\n"
        "ended = real_threads.Event()\n"
        "def body():\n"
        "    with lock:\n"
        "        posix.write(write, b'x')\n"
        "    ended.set()\n"
        "with lock:\n"
        "    thread = real_threads.start('beside', body)\n"
        "    assert not ended.wait(0.01)\n"
        "print(posix.read(read, 1), ended.wait(30), thread.join(30), thread.is_alive())"
    )

    assert ("b'x' True None False\n", "") == (done.stdout, done.stderr)
