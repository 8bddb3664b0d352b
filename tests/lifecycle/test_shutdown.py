"""The end: once, in order, within its budget, also when a listener misbehaves."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading

import pytest
from helpers import eventually, python
from sigterm_cells import totals

import lambda_ext
from lambda_ext.lifecycle import clock, phases, shutdown, signals
from lambda_ext.testing import FakeClock, FakeSource


@pytest.fixture(name="held")
def _held():
    """Return an event that listeners hang on until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(name="exits")
def _exits(monkeypatch):
    """Collect exit statuses instead of ending this process."""
    exits = []
    monkeypatch.setattr(shutdown, "_exit", exits.append)
    return exits


class TestDrain:
    """shutdown.drain()"""

    def test_order_is_priority_then_registration(self):
        """Essential, then the user's, then the network's."""
        seen = []
        for name, priority in (
            ("network", phases.NETWORK),
            ("user 1", phases.USER),
            ("essential", phases.ESSENTIAL),
            ("user 2", phases.USER),
        ):
            phases.listen(
                phases.SHUTDOWN,
                lambda name=name: seen.append(name),
                priority=priority,
            )
        shutdown.drain(10.0, lambda: seen.append("previous"))

        assert ["essential", "user 1", "user 2", "network", "previous"] == seen

    def test_listener_that_joins_late_is_called(self):
        """The first metric may be recorded by a listener, and flushed yet."""
        seen = []

        @lambda_ext.on_shutdown
        def first():
            seen.append("first")
            phases.listen(phases.SHUTDOWN, lambda: seen.append("late"), priority=0)
            phases.listen(phases.SHUTDOWN, lambda: seen.append("last"), priority=99)

        lambda_ext.on_shutdown(lambda: seen.append("second"))
        shutdown.drain(10.0)

        assert ["first", "late", "second", "last"] == seen

    @pytest.mark.logs
    def test_hanging_listener_costs_its_share_only(self, held, caplog):
        """The others run; it is counted and named."""
        seen = []
        lambda_ext.on_shutdown(lambda: seen.append("before"))

        @lambda_ext.on_shutdown
        def hanging():
            held.wait(30)

        lambda_ext.on_shutdown(lambda: seen.append("after"))
        shutdown.drain(0.1)

        assert ["before", "after"] == seen
        assert 1 == shutdown.status().abandoned
        (record,) = caplog.records
        assert "listener_abandoned phase=shutdown" in record.getMessage()
        assert "hanging" in record.getMessage()

    @pytest.mark.logs
    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_raising_listener_is_logged_and_counted(self, error, caplog):
        """Also when it tries to exit: only this module ends the process."""
        seen = []

        @lambda_ext.on_shutdown
        def raising():
            raise error

        lambda_ext.on_shutdown(lambda: seen.append("after"))
        shutdown.drain(10.0)

        assert ["after"] == seen
        assert 1 == phases.failures[phases.SHUTDOWN]
        assert 1 == len(caplog.records)

    @pytest.mark.logs
    def test_all_hanging_leaves_each_a_turn(self, held):
        """What is left is divided by those who are still to come."""
        begun = []

        def hanging():
            begun.append(1)
            held.wait(30)

        for _ in range(5):
            lambda_ext.on_shutdown(lambda: hanging())
        shutdown.drain(0.1)

        assert 5 == len(begun)
        assert 5 == shutdown.status().abandoned

    @pytest.mark.parametrize(
        "error", [RuntimeError("can't start new thread"), MemoryError()]
    )
    def test_without_a_thread_to_spare_listeners_run_on_this_one(
        self, monkeypatch, error
    ):
        """Unbounded is better than not at all."""
        threads = []

        def refuse(thread):
            raise error

        lambda_ext.on_shutdown(lambda: threads.append(threading.current_thread()))
        monkeypatch.setattr(threading.Thread, "start", refuse)
        shutdown.drain(10.0)

        assert threads == [threading.current_thread()]

    def test_freeze_that_came_before_has_aged_what_listeners_read(self):
        """SIGTERM may follow a freeze that no invocation has noticed."""
        seen = []
        with FakeClock() as fake, FakeSource({"db": "old"}) as source:
            seen.append(lambda_ext.get_secret("db", max_age=300))
            clock.begin_invocation()  # from now on a hit looks at one clock
            fake.step(301)
            source.rotate("db", "new")
            lambda_ext.on_shutdown(
                lambda: seen.append(lambda_ext.get_secret("db", max_age=300))
            )
            shutdown.drain(10.0)

        assert ["old", "new"] == seen


class TestSigterm:
    """What the signal sets off."""

    @pytest.fixture(autouse=True)
    def _put_back(self):
        before = signal.getsignal(signal.SIGTERM), sys.getswitchinterval()
        yield
        shutdown.reset()
        signal.signal(signal.SIGTERM, before[0])
        sys.setswitchinterval(before[1])

    def sigterm(self, exits):
        """Send SIGTERM to this process and wait for its exit."""
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(lambda: exits)

    def test_ends_the_process_with_status_zero(self, exits):
        """After the listeners, from our thread."""
        seen = []
        lambda_ext.on_shutdown(lambda: seen.append(list(exits)))
        shutdown.install()
        self.sigterm(exits)

        assert ([[]], 0) == (seen, exits[0])
        assert "sigterm" == shutdown.status().begun

    @pytest.mark.parametrize(
        ("code", "status"),
        [(None, 0), (0, 0), (7, 7), (256, 0), (-1, 255), ("text", 1)],
    )
    def test_users_exit_code_is_the_status(self, exits, code, status, capsys):
        """As Python would have it; text goes to stderr."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
        shutdown.install()
        self.sigterm(exits)

        assert exits[0] == status
        assert capsys.readouterr().err == ("text\n" if code == "text" else "")

    def test_users_handler_runs_once_on_our_thread_after_the_flush(self, exits):
        """handler(SIGTERM, None), however often the signal comes."""
        seen = []

        def on_sigterm(*args):
            seen.append((threading.current_thread().name, *args))

        signal.signal(signal.SIGTERM, on_sigterm)
        lambda_ext.on_shutdown(lambda: seen.append("listener"))
        shutdown.install()
        self.sigterm(exits)
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(lambda: len(exits) > 1)

        assert seen == ["listener", ("lambda_ext_shutdown", signal.SIGTERM, None)]

    @pytest.mark.logs
    def test_users_handler_that_raises_is_logged(self, exits, caplog):
        """The status stays 0."""
        signal.signal(signal.SIGTERM, lambda *_: 1 / 0)
        shutdown.install()
        self.sigterm(exits)

        assert 0 == exits[0]
        assert "ZeroDivisionError" in caplog.text

    def test_flush_under_way_is_let_finish(self, exits, held):
        """What another thread is writing out is not cut off."""
        seen = []

        def slow():
            held.wait(0.1)
            seen.append(list(exits))

        phases.listen(phases.RESPONSE, slow)
        shutdown.install()
        thread = threading.Thread(target=phases.call, args=(phases.RESPONSE,))
        thread.start()
        eventually(lambda: phases.calls[phases.RESPONSE])
        self.sigterm(exits)
        thread.join()

        assert [[]] == seen

    def test_worker_of_a_managed_instance_finishes_its_request(
        self, exits, monkeypatch
    ):
        """The listeners come after the request in flight."""
        monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "2")
        monkeypatch.setattr(shutdown, "IN_FLIGHT_S", 30.0)
        seen = []
        lambda_ext.on_shutdown(lambda: seen.append("listener"))
        shutdown.install()
        phases.call(phases.INVOKE)
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(lambda: shutdown.status().begun)
        early = list(seen)
        seen.append("done")
        phases.call(phases.RESPONSE)
        eventually(lambda: exits)

        assert ([], ["done", "listener"]) == (early, seen)

    def test_exit_that_is_interrupted_has_ended(self, monkeypatch):
        """Ctrl-C in the middle of it: who waits for it is let go."""

        def interrupted(**options):
            raise KeyboardInterrupt

        monkeypatch.setattr(shutdown, "drain", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shutdown._at_exit()

        assert shutdown._done.is_set()

    def test_during_the_exit_waits_for_it(self, exits, held):
        """At exit the listeners are being called: not again, and not cut off."""
        seen = []

        def slow():
            seen.append("begun")
            held.wait(0.1)
            seen.append(list(exits))

        lambda_ext.on_shutdown(slow)
        shutdown.install()
        thread = threading.Thread(target=shutdown._at_exit)
        thread.start()
        eventually(lambda: seen)
        self.sigterm(exits)
        thread.join()

        assert ["begun", []] == seen
        assert "exit" == shutdown.status().begun


class TestExit:
    """The second path."""

    def test_calls_the_listeners_once(self):
        """However often it is asked."""
        seen = []
        lambda_ext.on_shutdown(lambda: seen.append(1))
        shutdown._at_exit()
        shutdown._at_exit()

        assert [1] == seen
        assert "exit" == shutdown.status().begun

    def test_after_sigterm_waits_for_its_end(self, exits, held):
        """Finalisation would stop the thread that flushes."""
        seen = []

        def slow():
            seen.append("begun")
            held.wait(0.1)
            seen.append("ended")

        lambda_ext.on_shutdown(slow)
        thread = threading.Thread(target=shutdown._terminate)
        thread.start()
        eventually(lambda: seen)
        shutdown._at_exit()
        found = list(seen)
        thread.join()

        assert ["begun", "ended"] == found

    def test_is_registered_and_unregistered(self, monkeypatch):
        """Outside Lambda, this is all that there is."""
        seen = []
        monkeypatch.setattr(atexit, "register", seen.append)
        gone = []
        monkeypatch.setattr(atexit, "unregister", gone.append)
        shutdown.follow_exit()
        shutdown.follow_exit()
        shutdown.reset()

        assert seen == gone == [shutdown._at_exit]
        assert "off" == signals.path()

    def test_worker_process_is_followed_by_multiprocessings_own_means(
        self, monkeypatch
    ):
        """A forked worker ends without atexit on some Pythons."""
        import multiprocessing.process
        import multiprocessing.util

        seen = []
        monkeypatch.setattr(
            multiprocessing.util, "Finalize", lambda *args, **kwargs: seen.append(args)
        )
        shutdown.follow_exit()
        in_parent = list(seen)
        shutdown.reset()
        monkeypatch.setattr(multiprocessing.process, "parent_process", object)
        shutdown.follow_exit()

        assert (in_parent, seen) == ([], [(None, shutdown._at_exit)])

    def test_loop_of_asyncio_is_given_the_rest_of_the_budget(self, exits, monkeypatch):
        """Its handler runs in the main thread, from after the flush."""
        monkeypatch.setattr(shutdown, "BUDGET_S", 30.0)
        seen = []
        monkeypatch.setattr(signals, "forward", lambda: seen.append("byte") or True)
        lambda_ext.on_shutdown(lambda: seen.append("listener"))
        phases.call(phases.INVOKE)
        thread = threading.Thread(target=shutdown._terminate)
        thread.start()
        eventually(lambda: "byte" in seen)
        early = list(exits)
        phases.call(phases.RESPONSE)
        thread.join(30)

        assert (["listener", "byte"], [], [0]) == (seen, early, exits)


class TestStatus:
    """shutdown.status()"""

    def test_outside_lambda_it_is_off(self):
        """With the reason in words."""
        found = shutdown.status()

        assert (
            "off",
            "outside Lambda",
            None,
        ) == (found.path, found.reason, found.begun)
        assert "<shutdown.Status off 'outside Lambda'>" == repr(found)

    def test_disabled_says_so(self, monkeypatch):
        """LAMBDA_EXT_DISABLE is a reason."""
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signals")
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")

        assert "disabled" == shutdown.status().reason


WORKER = """
import multiprocessing
fork = multiprocessing.get_context("fork")
child = fork.Process(target=metrics.count, args=("n", 4))
child.start()
child.join()
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("metrics.count('n')", {"n": 1}),
        ("lambda_ext.on_shutdown(lambda: metrics.count('n', 2))", {"n": 2}),
        (
            "lambda_ext.on_shutdown(lambda: metrics.count('n', 3), priority=10**9)",
            {"n": 3},
        ),
        (WORKER, {"n": 4}),
    ],
    ids=["metric", "callback", "latest callback", "first in a worker"],
)
@pytest.mark.parametrize("start", ["", "lambda_ext.start()"])
def test_exit_without_a_handler_loses_nothing(program, expected, start):
    """Neither @handler nor start() is needed for the flush at exit."""
    run = python(
        f"import lambda_ext\nfrom lambda_ext import metrics\n{start}\n{program}"
    )

    assert (0, "") == (run.returncode, run.stderr)
    assert totals(run.stdout.splitlines()) == expected
