"""SIGTERM in a real process of the real runtime client: nothing is lost."""

from __future__ import annotations

import signal
import sys
import textwrap

import pytest
from helpers import PATIENT, ROOT
from sigterm_cells import EXECUTION_ENVS, run_cells, totals

from lambda_ext.local.emulator import Budgets, Emulator

pytestmark = pytest.mark.process


@pytest.fixture
def environment(tmp_path):
    """Return a function that makes an emulated environment of a program."""
    made = []

    def make(program, **options):
        (tmp_path / "app.py").write_text(
            PATIENT + "import os, signal, sys, time\n"
            "import lambda_ext\n"
            "from lambda_ext import metrics\n"
            "from lambda_ext.lifecycle import extension, shutdown\n"
            + textwrap.dedent(program)
        )
        emulator = Emulator(
            task_root=str(tmp_path),
            command=options.pop(
                "command", (sys.executable, "-m", "awslambdaric", "app.handler")
            ),
            env={"PYTHONPATH": ROOT, **options.pop("env", {})},
            timeout_s=options.pop("timeout_s", 30.0),
            freeze=options.pop("freeze", False),
            # Longer than Lambda's, for busy machines; what does not end by
            # itself is still killed, and seen.
            budgets=options.pop(
                "budgets", Budgets(internal_s=30.0, instances_share_s=30.0)
            ),
            **options,
        )
        made.append(emulator)
        return emulator

    yield make
    for emulator in made:
        emulator.close()


def texts(emulator):
    """Return the lines that the process wrote."""
    return [line.text for line in emulator.lines]


@pytest.mark.parametrize("execution_env", EXECUTION_ENVS)
def test_nothing_is_lost_and_nothing_doubled(execution_env, tmp_path):
    """In every state, beside every other user of signals, the end is clean."""
    assert [] == run_cells(tmp_path, execution_env)


class TestMoment:
    """When SIGTERM comes."""

    def test_during_init_flushes_what_the_import_recorded(self, environment):
        """The hook stands as soon as the handler is decorated."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context): ...

            metrics.count("early")
            print("importing")
            time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("importing")
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert {"early": 1} == totals(texts(emulator))

    def test_a_second_one_changes_nothing(self, environment):
        """Listeners run once, however often SIGTERM is sent."""
        emulator = environment(
            """
            @lambda_ext.on_shutdown
            def again():
                print("once")
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGTERM)
                metrics.count("after")

            @lambda_ext.handler
            def handler(event, context): ...
            """
        )
        emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert 1 == texts(emulator).count("once")
        assert {"after": 1} == totals(texts(emulator))

    def test_time_out_of_the_function_flushes_and_the_next_one_starts_anew(
        self, environment
    ):
        """A time-out loses no metric; in the same /tmp, a new process works."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                if event == "slow":
                    time.sleep(60)
                return extension.status().state
            """,
            timeout_s=3.0,
            env={"LAMBDA_EXT_TIMEOUT_MARGIN": "0"},  # SIGTERM alone must do
        )
        first = emulator.invoke("slow")
        second = emulator.invoke("quick")
        emulator.shutdown()

        assert ("timeout", "registered") == (first.status, second.value)
        assert {"begun": 2} == totals(texts(emulator))
        assert [0, 0] == [end.exit_status for end in emulator.shutdowns]

    def test_after_a_crash_a_new_process_registers(self, environment):
        """What a crashed process leaves behind does not disturb the next one."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                if event == "crash":
                    os._exit(3)
                return extension.status().state
            """
        )
        first = emulator.invoke("crash")
        second = emulator.invoke("again")

        assert ("failure", "registered") == (first.status, second.value)

    def test_handler_that_exits_is_flushed_at_exit(self, environment):
        """sys.exit() in a handler takes the second path, once."""
        emulator = environment(
            """
            @lambda_ext.on_shutdown
            def goodbye():
                metrics.count("goodbye")

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                sys.exit(5)
            """
        )
        answer = emulator.invoke({})
        emulator.wait_frozen()

        assert "failure" == answer.status
        assert 5 == emulator.shutdowns[-1].exit_status
        assert {"begun": 1, "goodbye": 1} == totals(texts(emulator))

    def test_failing_import_is_flushed_at_exit(self, environment):
        """An error after the decoration loses nothing that was recorded."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context): ...

            metrics.count("early")
            raise RuntimeError("in the import")
            """
        )
        report = emulator.init()

        assert "error" == report.status
        assert {"early": 1} == totals(texts(emulator))

    def test_in_the_middle_of_a_printed_line_spoils_no_document(self, environment):
        """print() makes several writes; metrics begin on a line of their own."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                os.write(1, b"ready\\n")
                os.write(1, b"half a line ")
                time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        emulator.shutdown()

        assert {"begun": 1} == totals(texts(emulator))

    def test_beside_a_listener_that_writes_spoils_no_document(self, environment):
        """The handler goes on; the thread that calls listeners may be within a line."""
        emulator = environment(
            """
            import threading

            half, whole = threading.Event(), threading.Event()

            @lambda_ext.on_shutdown
            def goodbye():
                os.write(1, b"half a line, ")
                half.set()
                whole.wait()
                os.write(1, b"and the rest\\n")

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                os.write(1, b"ready\\n")
                half.wait()
                metrics.count("beside")
                metrics.flush()
                whole.set()
                time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert {"begun": 1, "beside": 1} == totals(texts(emulator))


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_logged_traceback_spoils_no_document(environment, log_format):
    """The runtime client ends no line after one; the document begins its own."""
    emulator = environment(
        """
        import logging

        @lambda_ext.handler
        def handler(event, context):
            metrics.count("invoked")
            if event["fail"]:
                try:
                    1 / 0
                except ZeroDivisionError:
                    logging.getLogger().exception("failed")
        """,
        env={"AWS_LAMBDA_LOG_FORMAT": log_format},
    )
    for fail in (True, False, True, False):
        emulator.invoke({"fail": fail})
    emulator.shutdown()
    lines = texts(emulator)

    assert {"invoked": 4} == totals(lines)
    assert sum("ZeroDivisionError" in line for line in lines) >= 2
    # One may stand where the first document begins: what was before is unknown.
    assert lines.count("") <= 1


class TestUsersHandler:
    """A SIGTERM handler of the user's own."""

    def test_exit_code_becomes_the_status(self, environment):
        """What it exits with is what the process exits with; it runs after us."""
        emulator = environment(
            """
            def on_sigterm(signum, frame):
                print("user", signum, frame)
                metrics.count("user")
                sys.exit(7)

            signal.signal(signal.SIGTERM, on_sigterm)

            @lambda_ext.on_shutdown
            def goodbye():
                print("goodbye")

            @lambda_ext.handler
            def handler(event, context): ...
            """
        )
        emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 7) == (end.killed, end.exit_status)
        assert ["goodbye", "user 15 None"] == texts(emulator)[:2]
        assert {"user": 1} == totals(texts(emulator))

    def test_that_hangs_costs_its_share_only(self, environment):
        """The process ends by itself all the same."""
        emulator = environment(
            """
            signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))

            @lambda_ext.on_shutdown
            def goodbye():
                print("goodbye")

            @lambda_ext.handler
            def handler(event, context): ...
            """
        )
        emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert "goodbye" in texts(emulator)

    def test_installed_in_this_very_invocation_runs_once_in_the_main_thread(
        self, environment
    ):
        """Python runs it there, and its exit is the process's."""
        emulator = environment(
            """
            import threading

            def on_sigterm(signum, frame):
                # One write: print() makes several, and others write meanwhile.
                os.write(1, b"user %s\\n" % threading.current_thread().name.encode())
                sys.exit(6)

            @lambda_ext.handler
            def handler(event, context):
                signal.signal(signal.SIGTERM, on_sigterm)
                metrics.count("begun")
                print("ready")
                time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        end = emulator.shutdown()

        assert (False, 6) == (end.killed, end.exit_status)
        assert 1 == texts(emulator).count("user MainThread")
        assert {"begun": 1} == totals(texts(emulator))

    def test_installed_while_importing_runs_once(self, environment):
        """The same before the first invocation, with nothing to re-arm."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context): ...

            signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"user\\n"), sys.exit(6)))
            metrics.count("early")
            print("importing")
            time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("importing")
        end = emulator.shutdown()

        assert (False, 6) == (end.killed, end.exit_status)
        assert 1 == texts(emulator).count("user")
        assert {"early": 1} == totals(texts(emulator))

    @pytest.mark.parametrize("execution_env", EXECUTION_ENVS)
    def test_installed_after_the_decoration_runs_before_any_invocation(
        self, environment, execution_env
    ):
        """An environment that waits for its first invocation is re-armed."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context): ...

            signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"user\\n"), sys.exit(6)))
            metrics.count("early")
            """,
            execution_env=execution_env,
            init_type="provisioned-concurrency",
        )
        emulator.init()
        end = emulator.shutdown()

        assert (False, 6) == (end.killed, end.exit_status)
        assert 1 == texts(emulator).count("user")
        assert {"early": 1} == totals(texts(emulator))

    def test_of_an_asyncio_loop_runs_while_its_loop_does(self, environment):
        """It gets the byte after the flush, in the main thread, once."""
        emulator = environment(
            """
            import asyncio

            stopped = None

            def on_sigterm():
                print("user")
                stopped.set()

            @lambda_ext.handler
            async def handler(event, context):
                global stopped
                if event == "first":
                    stopped = asyncio.Event()
                    loop = asyncio.get_running_loop()
                    loop.add_signal_handler(signal.SIGTERM, on_sigterm)
                    return
                metrics.count("begun")
                print("ready")
                await stopped.wait()
                print("stopped")
            """
        )
        emulator.invoke("first")
        emulator.invoke_async("second")
        emulator.wait_for_line("ready")
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert 1 == texts(emulator).count("user")
        assert 1 == texts(emulator).count("stopped")
        assert {"begun": 1} == totals(texts(emulator))


class TestListener:
    """A listener that misbehaves costs its share of the budget only."""

    @pytest.mark.parametrize(
        "body", ["time.sleep(60)", "while True: pass", "1 / 0", "sys.exit(9)",
                 "raise KeyboardInterrupt"],
    )  # fmt: skip
    def test_others_run_and_the_status_is_zero(self, environment, body):
        """Neither those before it nor those after it notice."""
        emulator = environment(
            f"""
            @lambda_ext.on_shutdown
            def first():
                metrics.count("first")

            @lambda_ext.on_shutdown
            def bad():
                {body}

            @lambda_ext.on_shutdown
            def second():
                metrics.count("second")

            @lambda_ext.handler
            def handler(event, context): ...
            """
        )
        emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert {"first": 1, "second": 1} == totals(texts(emulator))
        assert any("app.bad" in line for line in texts(emulator))

    def test_what_was_derived_is_closed(self, environment):
        """The current object and the old one, one that hangs beside them."""
        emulator = environment(
            """
            from lambda_ext.testing import FakeSource
            source = FakeSource({"db": "1"}).__enter__()
            db = lambda_ext.Secret("db")
            hangs = db.derive(str, close=lambda it: time.sleep(60))
            pool = db.derive(str, close=lambda it: print("closed", it))

            @lambda_ext.handler
            def handler(event, context):
                hangs.value, pool.value
                source.rotate("db", "2")
                db.invalidate()
                return pool.value
            """
        )
        emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert ["closed 1", "closed 2"] == [
            text for text in texts(emulator) if text.startswith("closed")
        ]

    def test_essential_part_comes_first_even_when_all_hang(self, environment):
        """Metrics are out before the first listener of the user's has hung."""
        emulator = environment(
            """
            for _ in range(5):
                lambda_ext.on_shutdown(lambda: (print("hung"), time.sleep(60)))

            @lambda_ext.handler
            def handler(event, context): ...

            metrics.count("early")
            """
        )
        emulator.init()
        end = emulator.shutdown()

        lines = texts(emulator)
        assert (False, 0) == (end.killed, end.exit_status)
        assert {"early": 1} == totals(lines[: lines.index("hung")])

    def test_main_thread_that_holds_stdout_delays_nothing(self, environment):
        """The buffer of stdout is flushed if it can be, else left."""
        emulator = environment(
            """
            import io

            class Stuck(io.StringIO):
                def flush(self):
                    time.sleep(60)

            @lambda_ext.handler
            def handler(event, context):
                sys.stderr = Stuck()
            """
        )
        emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)


class TestSwitchedOff:
    """What `disable` leaves alone."""

    def test_signals_keep_their_default(self, environment):
        """SIGTERM ends the process at once, as if we were not there."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                found = shutdown.status()
                return [found.path, found.reason]
            """,
            env={"LAMBDA_EXT_DISABLE": "signals"},
        )
        answer = emulator.invoke({})
        end = emulator.shutdown()

        assert ["off", "disabled"] == answer.value
        assert end.exit_status == -signal.SIGTERM

    def test_without_extension_lambda_sends_no_sigterm(self, environment):
        """Then it kills, against which there is no remedy."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                found = extension.status()
                return [found.state, found.reason]
            """,
            env={"LAMBDA_EXT_DISABLE": "extension"},
        )
        answer = emulator.invoke({})
        end = emulator.shutdown()

        assert ["none", "disabled"] == answer.value
        assert (end.signalled, end.exit_status) == (False, -signal.SIGKILL)


class TestKindsOfEnvironment:
    """SnapStart, Managed Instances, other runtimes."""

    def test_runtime_of_ones_own_starts_it_without_a_handler(
        self, environment, tmp_path
    ):
        """start() is enough; what stdout has buffered comes out, too."""
        emulator = environment(
            """
            import http.client

            lambda_ext.start()
            metrics.count("early")
            print("half a line", end="")
            api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
            api.request("GET", "/2018-06-01/runtime/invocation/next")
            api.getresponse()
            """,
            command=(sys.executable, "app.py"),
        )
        emulator.init()
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert {"early": 1} == totals(texts(emulator))
        assert "half a line" in texts(emulator)

    def test_snapstart_calls_the_hooks_around_the_snapshot(self, environment):
        """before_snapshot, snapshot, a new generation, after_restore."""
        emulator = environment(
            """
            from lambda_ext.lifecycle import clock

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("invoked")
                return clock.generation - generation

            @lambda_ext.before_snapshot
            def before():
                print("before", metrics.count("before"))

            @lambda_ext.after_restore
            def after():
                print("after", clock.generation - generation)

            generation = clock.generation
            """,
            init_type="snap-start",
        )
        emulator.init()
        at_snapshot = texts(emulator)
        emulator.restore()
        emulator.invoke({})
        end = emulator.shutdown()

        printed = [line for line in texts(emulator) if line and line[0] != "{"]
        assert ["before None"] == [line for line in at_snapshot if line[0] != "{"]
        assert ["before None", "after 1"] == printed
        assert {"before": 1, "invoked": 1} == totals(texts(emulator))
        assert (False, 0) == (end.killed, end.exit_status)

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="Managed Instances: 3.13")
    def test_managed_instances_finish_the_request_in_flight(self, environment):
        """Every worker handles SIGTERM; one of them has registered."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                print("ready", flush=True)
                time.sleep(0.1)
                metrics.count("done")
                return "answer"

            @lambda_ext.on_shutdown
            def goodbye():
                metrics.count("goodbye")
            """,
            init_type="lambda-managed-instances",
        )
        emulator.init()
        emulator.wait_idle()
        pending = emulator.invoke_async({})
        emulator.wait_for_line("ready")
        emulator.shutdown()

        assert "answer" == pending.result().value
        assert {"begun": 1, "done": 1, "goodbye": 2} == totals(texts(emulator))


class TestHidden:
    """What hides SIGTERM from Python, or takes our descriptors away."""

    def test_faulthandler_that_was_registered_for_it_writes_its_traceback(
        self, environment
    ):
        """Its C code replaces ours unnoticed; both are served all the same."""
        emulator = environment(
            """
            import faulthandler

            @lambda_ext.on_shutdown
            def goodbye():
                metrics.count("goodbye")

            @lambda_ext.handler
            def handler(event, context):
                return shutdown.status().path

            faulthandler.register(signal.SIGTERM)
            """
        )
        answer = emulator.invoke({})
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert "wakeup_fd" == answer.value
        assert {"goodbye": 1} == totals(texts(emulator))
        assert any("most recent call first" in line for line in texts(emulator))

    def test_mask_that_the_process_inherited_is_no_obstacle(
        self, environment, tmp_path
    ):
        """SIGTERM blocked by the parent process reaches our thread."""
        (tmp_path / "outer.py").write_text(
            "import os, signal, sys\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'awslambdaric', sys.argv[1]])\n"
        )
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                metrics.count("begun")
                print("ready")
                time.sleep(60)
            """,
            command=(sys.executable, str(tmp_path / "outer.py"), "app.handler"),
        )
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert {"begun": 1} == totals(texts(emulator))

    @pytest.mark.parametrize("end_fd", [100, 4096])
    def test_closing_all_descriptors_puts_no_byte_into_a_file(
        self, environment, tmp_path, end_fd
    ):
        """A file of the user's that gets their numbers stays as it is."""
        emulator = environment(
            """
            files = []

            @lambda_ext.handler
            def handler(event, context):
                if not files:
                    os.closerange(3, event)
                    files.extend(open(f"file{i}", "wb", 0) for i in range(20))
                    for file in files:
                        os.set_blocking(file.fileno(), False)
                    os.kill(os.getpid(), signal.SIGUSR1)
                    return

            signal.signal(signal.SIGUSR1, lambda *_: None)
            os.chdir(os.environ["LAMBDA_TASK_ROOT"])
            """,
            # Whether the runtime survives the loss of its connection is not asked.
            budgets=Budgets(internal_s=1.0),
        )
        emulator.invoke(end_fd)
        emulator.shutdown()

        sizes = [(tmp_path / f"file{i}").stat().st_size for i in range(20)]
        assert [0] * 20 == sizes

    def test_closed_pipe_is_made_again_and_sigterm_is_seen(self, environment):
        """From the next invocation on, as if nothing had been closed."""
        emulator = environment(
            """
            @lambda_ext.handler
            def handler(event, context):
                found = shutdown.status().path
                if event == "close":
                    from lambda_ext.lifecycle import signals
                    os.close(signals._write_fd)
                return found

            @lambda_ext.on_shutdown
            def goodbye():
                metrics.count("goodbye")
            """
        )
        answers = [emulator.invoke(event).value for event in ("", "close", "")]
        end = emulator.shutdown()

        assert ["wakeup_fd"] * 3 == answers
        assert (False, 0) == (end.killed, end.exit_status)
        assert {"goodbye": 1} == totals(texts(emulator))


class TestLoaded:
    """What the last flush may need is there before SIGTERM comes."""

    def test_after_the_first_answer(self, environment):
        """INIT and the first invocation do not pay for it, nor does the end."""
        emulator = environment(
            """
            NAMES = "lambda_ext.metrics.parcels", "lambda_ext.metrics.tally"

            @lambda_ext.handler
            def handler(event, context):
                metrics.count("n")
                return [name in sys.modules for name in NAMES]

            metrics.count("imported")
            """
        )
        answers = [emulator.invoke({}).value for _ in range(2)]
        emulator.shutdown()

        assert [[False, False], [True, True]] == answers


class TestLate:
    """What is recorded after the flush."""

    def test_by_a_handler_that_goes_on_in_the_main_thread_is_flushed(self, environment):
        """A SIGTERM handler of this invocation takes longer than our listeners."""
        emulator = environment(
            """
            flushed = []
            lambda_ext.on_shutdown(lambda: flushed.append(1))

            def on_sigterm(signum, frame):
                while not shutdown._done.is_set():
                    time.sleep(0.001)
                metrics.count("late")

            @lambda_ext.handler
            def handler(event, context):
                signal.signal(signal.SIGTERM, on_sigterm)
                metrics.count("begun")
                os.write(1, b"ready\\n")  # print() holds a lock when SIGTERM comes
                time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        end = emulator.shutdown()

        assert (False, 0) == (end.killed, end.exit_status)
        assert {"begun": 1, "late": 1} == totals(texts(emulator))

    def test_by_a_handler_that_exits_is_flushed(self, environment):
        """The same, and its exit status is the process's."""
        emulator = environment(
            """
            def on_sigterm(signum, frame):
                while not shutdown._done.is_set():
                    time.sleep(0.001)
                metrics.count("late")
                sys.exit(6)

            @lambda_ext.handler
            def handler(event, context):
                signal.signal(signal.SIGTERM, on_sigterm)
                metrics.count("begun")
                os.write(1, b"ready\\n")  # print() holds a lock when SIGTERM comes
                time.sleep(60)
            """
        )
        emulator.invoke_async({})
        emulator.wait_for_line("ready")
        end = emulator.shutdown()

        assert (False, 6) == (end.killed, end.exit_status)
        assert {"begun": 1, "late": 1} == totals(texts(emulator))

    def test_callback_after_a_freeze_finds_old_values_expired(self, environment):
        """The clock is looked at before on_shutdown reads a value."""
        emulator = environment(
            """
            from lambda_ext.testing import FakeClock, FakeSource

            time_ = FakeClock().__enter__()
            source = FakeSource({"db": "old"}).__enter__()
            db = lambda_ext.Secret("db", max_age=60)

            @lambda_ext.on_shutdown
            def goodbye():
                print("read", db.value)

            @lambda_ext.handler
            def handler(event, context):
                first = db.value
                source.rotate("db", "new")
                time_.step(4000)
                return first
            """
        )
        answer = emulator.invoke({})
        emulator.shutdown()

        assert "old" == answer.value
        assert "read new" in texts(emulator)


class TestNotStarted:
    """Inside Lambda without a decorated handler and without start()."""

    def test_recorded_metrics_are_warned_of_once(self, environment):
        """The log says what is lost, and what to write."""
        emulator = environment(
            """
            def handler(event, context):
                metrics.count("lost")
            """
        )
        for _ in range(3):
            emulator.invoke({})
        emulator.shutdown()
        found = [line for line in texts(emulator) if "lambda_ext." in line]

        assert 1 == len(found)
        assert "lambda_ext.not_started lost=metrics:" in found[0]
        assert "decorate the handler with @lambda_ext.handler" in found[0]

    def test_shutdown_callbacks_are_warned_of_once(self, environment):
        """Lambda will kill the process and call none."""
        emulator = environment(
            """
            @lambda_ext.on_shutdown
            def goodbye(): ...

            def handler(event, context): ...
            """
        )
        for _ in range(3):
            emulator.invoke({})
        found = [line for line in texts(emulator) if "lambda_ext." in line]

        assert 1 == len(found)
        assert "lambda_ext.not_started lost=on_shutdown callbacks:" in found[0]

    @pytest.mark.parametrize(
        "asked",
        [
            "telemetry.route(where='platform').to(lambda entries: None)",
            "telemetry.on_batch(lambda batch: None)",
        ],
    )
    def test_records_of_telemetry_are_warned_of_once(self, environment, asked):
        """The last ones wait for an end that this process does not see."""
        emulator = environment(
            f"""
            from lambda_ext import telemetry

            {asked}
            telemetry.subscribe()

            def handler(event, context): ...
            """
        )
        for _ in range(3):
            emulator.invoke({})
        found = [line for line in texts(emulator) if "lambda_ext." in line]

        assert 1 == len(found)
        assert "lambda_ext.not_started lost=records of telemetry:" in found[0]

    @pytest.mark.parametrize("way", ["start", "flush"])
    def test_nothing_is_said_where_nothing_is_lost(self, environment, way):
        """start() was called, or the handler flushes by itself."""
        emulator = environment(
            f"""
            def handler(event, context):
                metrics.count("kept")
                if {way == "flush"}:
                    metrics.flush()

            if {way == "start"}:
                lambda_ext.start()
            """
        )
        for _ in range(2):
            emulator.invoke({})
        emulator.shutdown()

        assert [] == [line for line in texts(emulator) if "lambda_ext.not" in line]
