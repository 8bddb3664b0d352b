"""
One execution environment: its processes, and the order in which things happen.

    initialise ─▶ (restore) ─▶ invoke ─▶ freeze ─▶ thaw ─▶ invoke ... ─▶ teardown

Guarantees
    The caller has its answer as soon as the runtime has posted it; what
    follows (the runtime's ``/next``, the extensions that take INVOKE) only
    delays the freeze and the next invocation.
    An environment that was torn down never comes back: a reset is a new one.

Threads
    ``changed`` guards all state of the environment and wakes all threads that wait.
    Only the emulator's invocation thread and `teardown` start phases.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from . import platform_records
from .agents import Agent, Agents
from .journal import EXITED, FROZEN, INVOKE_STARTED, SIGNAL, THAWED, Journal
from .outcomes import (
    OBSERVER,
    Exit,
    ExtensionEnd,
    InitReport,
    RestoreReport,
    Settings,
    Shutdown,
    Signal,
)
from .processes import Mark, Process
from .subscribers import Telemetry
from .variables import RUNTIME_ONLY, version
from .workers import ManyWorkers, OneWorker, Work

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from .processes import Note

ACCOUNT = "123456789012"
API = "AWS_LAMBDA_RUNTIME_API"  # of each environment its own
PAUSE_AFTER_THAW = 0.02  # seconds until SIGTERM: the runtime is awake by then


class Interrupted(Exception):
    """A phase cannot go on: failure, timeout or ending (it is being shut down)."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Environment:
    """From the first process to the last."""

    def __init__(
        self,
        settings: Settings,
        changed: threading.Condition,
        journal: Journal,
        note: Note,
    ) -> None:
        self.settings = settings
        self.changed = changed
        self.instances = settings.init_type == "lambda-managed-instances"
        self.snap_start = settings.init_type == "snap-start"
        self.frozen = False
        self.gone = False
        self.fatal: str | None = None  # the type of what keeps it from going on
        self.cause = ""  # the same in words
        self.runtime: Process | None = None
        self.telemetry = Telemetry(
            journal,
            json_lines=settings.variables.get("AWS_LAMBDA_LOG_FORMAT") == "JSON",
            instances=self.instances,
            supported=settings.telemetry,
            redeliver=settings.redeliver,
        )
        self.agents = Agents(changed, instances=self.instances, gone=lambda: self.gone)
        self.workers = (ManyWorkers if self.instances else OneWorker)(
            changed, gone=lambda: self.gone, close_registration=self._close_registration
        )
        self._journal = journal
        self._note = note
        self._mark = Mark(API, settings.variables.get(API, ""))
        self._extensions: dict[Process, Agent] = {}
        self._ending = False
        self.shutdown: Shutdown | None = None  # how it ended
        self._init_s: float | None = None  # not in any report yet

    def _close_registration(self) -> None:
        self.agents.open = False

    @property
    def processes(self) -> Iterator[Process]:
        """The runtime and the external extensions that were started."""
        if self.runtime is not None:
            yield self.runtime
        yield from self._extensions

    def about(self, *, account: bool) -> dict[str, str]:
        """Return what an extension is told when it registers."""
        about = {
            "functionName": self.settings.function_name,
            "functionVersion": version(self.settings.init_type),
            "handler": self.settings.handler,
        }
        if account:
            about["accountId"] = ACCOUNT
        return about

    @property
    def arn(self) -> str:
        """The function's name in full."""
        s = self.settings
        return f"arn:aws:lambda:{s.region}:{ACCOUNT}:function:{s.function_name}"

    # The phases.

    def initialise(self, phase: str, deadline: float) -> InitReport:
        """Start everything and wait until all have asked for work."""
        began = time.monotonic()
        status = "success"
        record = platform_records.init_started(self.settings, phase)
        self.telemetry.emit("platform.initStart", record)
        runtime_done = False
        try:
            self._start_extensions()
            self._await(self.agents.all_registered, deadline)
            self._start_runtime()
            self._await(lambda: self.workers.ready() or self.workers.parked(), deadline)
            runtime_done = True
            self._tell_init("platform.initRuntimeDone", phase, status)
            self._await(self.agents.all_ready, deadline)
        except Interrupted as exc:
            status = exc.status
        error = self.workers.init_error
        error_type = self.agents.first_error or self.fatal
        if error is not None:
            error_type = error.headers.get("Lambda-Runtime-Function-Error-Type")
            status = "error" if status == "failure" else status
        report = InitReport(
            status,
            phase,
            self.settings.init_type,
            time.monotonic() - began,
            None if status == "success" else error_type,
            error.body if error is not None else None,
        )
        if not runtime_done:
            self._tell_init(
                "platform.initRuntimeDone", phase, status, report.error_type
            )
        for agent in self.agents:
            self.telemetry.emit(
                "platform.extension", platform_records.extension(agent.registration())
            )
        self._tell_init(
            "platform.initReport", phase, status, report.error_type, report.duration_s
        )
        self.telemetry.close()
        if phase == "init":
            self._init_s = report.duration_s
        return report

    def _tell_init(
        self,
        kind: str,
        phase: str,
        status: str,
        error_type: str | None = None,
        duration_s: float | None = None,
    ) -> None:
        """Deliver a record of INIT."""
        head = {"initializationType": self.settings.init_type, "phase": phase}
        rest = platform_records.outcome(status, error_type, duration_s)
        self.telemetry.emit(kind, {**head, **rest})

    def restore(self, deadline: float) -> RestoreReport:
        """Let the parked runtime go on, and wait until it asks for work."""
        began = time.monotonic()
        status = "success"
        self.thaw()
        record = platform_records.restore_started(self.settings)
        self.telemetry.emit("platform.restoreStart", record)
        with self.changed:
            self.workers.restore()
        try:
            self._await(self.workers.ready, deadline)
        except Interrupted as exc:
            status = exc.status
        error = self.workers.restore_error
        error_type = self.fatal
        if error is not None:
            error_type = error.headers.get("Lambda-Runtime-Function-Error-Type")
            status = "error" if status == "failure" else status
        report = RestoreReport(
            status,
            time.monotonic() - began,
            None if status == "success" else error_type,
            error.body if error is not None else None,
        )
        done = platform_records.outcome(status, report.error_type)
        self.telemetry.emit("platform.restoreRuntimeDone", done)
        whole = platform_records.outcome(status, report.error_type, report.duration_s)
        self.telemetry.emit("platform.restoreReport", whole)
        return report

    def begin(self, work: Work) -> None:
        """Hand an invocation to the extensions that take it and to the runtime."""
        self.thaw()
        work.headers["Lambda-Runtime-Invoked-Function-Arn"] = self.arn
        with self.changed:
            if not self.instances:
                self.agents.tell(
                    "INVOKE",
                    {
                        "deadlineMs": work.deadline_ms,
                        "requestId": work.id,
                        "invokedFunctionArn": self.arn,
                        "tracing": {
                            "type": "X-Amzn-Trace-Id",
                            "value": work.trace_id,
                        },
                    },
                )
            self._journal.note(INVOKE_STARTED, work.id)
            self.workers.offer(work)
            work.began_at = time.time()
            record = platform_records.start(self.settings, work)
            if self.instances:
                record["functionArn"] = self.arn
            self.telemetry.emit("platform.start", record)

    def await_answer(self, work: Work, deadline: float) -> None:
        """Wait until the runtime has posted its response."""
        self._await(lambda: work.status is not None, deadline)

    def await_rest(self, work: Work, deadline: float) -> None:
        """Wait for what follows the response, before the freeze."""
        self._await(self.workers.ready, deadline)
        self.tell_runtime_done(work)
        self._await(lambda: self.agents.all_ready("INVOKE"), deadline)
        work.finished_at = time.time()

    def tell_runtime_done(self, work: Work, status: str | None = None) -> None:
        """Deliver the record platform.runtimeDone of *work*, once."""
        if not work.runtime_done_at:
            work.runtime_done_at = time.time()
            record = platform_records.runtime_done(work, status or str(work.status))
            self.telemetry.emit("platform.runtimeDone", record)

    def tell_report(self, work: Work, status: str | None = None) -> None:
        """Deliver the record platform.report of *work*."""
        status = status or str(work.status)
        work.finished_at = work.finished_at or time.time()
        if self.instances:
            record = platform_records.report_of_instance(work, status)
        else:
            record = platform_records.report(
                work, status, self.settings, self._init_s, self._peak_mb()
            )
            self._init_s = None
        self.telemetry.emit("platform.report", record)

    def _peak_mb(self) -> int:
        """Return the most memory that the runtime has had, in MB; 0 if it is gone."""
        pid = 0 if self.runtime is None else self.runtime.pid
        try:
            with open(f"/proc/{pid}/status") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        return int(line.split()[1]) // 1024
        except OSError:
            pass
        return 0

    def freeze(self) -> None:
        """Stop every process; afterwards all they wrote has been noted."""
        with self.changed:  # so that no freeze follows the thaw of a teardown
            if self._ending:
                return
            self.frozen = True
            self.telemetry.freeze()
            for process in self.processes:
                process.stop()
        self.drain()
        with self.changed:
            if self.frozen:
                self._journal.note(FROZEN)

    def thaw(self) -> None:
        """Let every process go on."""
        with self.changed:
            if self.frozen:
                self._journal.note(THAWED)
            self.frozen = False
            for process in self.processes:
                process.signal(signal.SIGCONT)
            self.telemetry.thaw()

    def drain(self) -> None:
        """Return when all that the processes wrote so far has been noted."""
        for process in self.processes:
            process.drain()

    # The end.

    def end(self) -> None:
        """Make the threads that wait for a phase give up."""
        with self.changed:
            self._ending = True
            self.changed.notify_all()

    def wait_gone(self, work: Work) -> None:
        """Wait until *work* is answered after all, or can no longer be."""
        with self.changed:
            self.changed.wait_for(lambda: self.gone or work.status is not None)

    def teardown(self, reason: str | None) -> Shutdown:
        """End every process as Lambda does; without a reason, at once."""
        self.end()
        self._close_registration()
        if reason is not None:
            self.telemetry.finish()  # with the thaw
        budget, share = self.settings.budgets.shutdown(
            internal=reason is not None and self.agents.registered(internal=True),
            external=reason is not None and self.agents.registered(internal=False),
            instances=self.instances,
        )
        signalled = budget > 0 and self._terminate()
        began = time.monotonic()
        killed = self._end_runtime(share)
        duration = time.monotonic() - began
        extensions = self._end_extensions(str(reason), began + budget)
        self.telemetry.end()
        self._kill_daemons()
        for process in self.processes:
            process.close()
        with self.changed:
            self.gone = True
            self.changed.notify_all()
        return Shutdown(
            str(reason),
            budget,
            share,
            None if self.runtime is None else self.runtime.exit_status,
            signalled,
            killed,
            duration,
            extensions,
        )

    def _terminate(self) -> bool:
        """Send SIGTERM to the runtime, if it still runs."""
        frozen = self.frozen
        early = frozen and self.settings.term_before_thaw
        runtime = self.runtime
        if runtime is None or runtime.over:
            self.thaw()
            return False
        if early:
            self._signal(runtime, signal.SIGTERM)
        self.thaw()
        if not early:
            if frozen:
                time.sleep(PAUSE_AFTER_THAW)
            self._signal(runtime, signal.SIGTERM)
        return True

    def _end_runtime(self, share_s: float) -> bool:
        """Wait for the runtime's end; return whether it had to be killed."""
        runtime = self.runtime
        if runtime is None:
            return False
        with self.changed:
            if self.changed.wait_for(lambda: runtime.over, share_s):
                return False
        killed = runtime.exit_status is None or share_s > 0
        self._signal(runtime, signal.SIGKILL)
        runtime.wait()
        return killed

    def _end_extensions(self, reason: str, deadline: float) -> tuple[ExtensionEnd, ...]:
        deadline_ms = int((time.time() + deadline - time.monotonic()) * 1000)
        killed = set()
        with self.changed:
            self.agents.tell_shutdown(reason, deadline_ms)
        for process, agent in self._extensions.items():
            left = max(0.0, deadline - time.monotonic())
            if not process.wait(left if "SHUTDOWN" in agent.events else 0.0):
                killed.add(process)
                self._signal(process, signal.SIGKILL)
        for process in self._extensions:
            process.wait()
        return tuple(
            ExtensionEnd(
                agent.name, agent.notified, process.exit_status, process in killed
            )
            for process, agent in self._extensions.items()
        )

    def _kill_daemons(self) -> None:
        """Kill what has left the groups; they end with Lambda's sandbox, too."""
        if any(self.processes):
            self._mark.kill()

    # Processes.

    def _signal(self, process: Process, number: signal.Signals) -> None:
        self._journal.note(SIGNAL, Signal(number.name, self._name(process)))
        process.signal(number)

    def _name(self, process: Process) -> str:
        """Return what to call a process: the runtime, or the extension's name."""
        agent = self._extensions.get(process)
        return "runtime" if agent is None else agent.name

    def _start_extensions(self) -> None:
        folder = self.settings.extensions_dir
        variables = {
            name: value
            for name, value in self.settings.variables.items()
            if name not in RUNTIME_ONLY
        }
        for name in sorted(os.listdir(folder)) if folder else ():
            path = os.path.join(str(folder), name)
            if not os.path.isfile(path):
                continue
            with self.changed:
                agent = self.agents.launched(name)
                try:
                    process = self._process([path], variables, (name, name))
                except OSError as exc:
                    self.fatal, self.cause = "Extension.LaunchError", f"{name}: {exc}"
                    return
                self._extensions[process] = agent

    def _start_runtime(self) -> None:
        command = self.settings.command
        sources = ("stdout", "stderr", OBSERVER)
        with self.changed:
            try:
                self.runtime = self._process(
                    command,
                    self.settings.variables,
                    sources if self.settings.observed else sources[:2],
                )
            except OSError as exc:
                self.fatal, self.cause = "Runtime.InvalidEntrypoint", str(exc)

    def _process(
        self, command: list[str], variables: dict[str, str], sources: tuple[str, ...]
    ) -> Process:
        return Process(
            command,
            env=variables,
            cwd=self.settings.task_root,
            sources=sources,
            changed=self.changed,
            note=self._note_line,
            ended=self._ended,
            mark=self._mark,
        )

    def _note_line(self, source: str, raw: bytes, complete: bool) -> Callable[[], None]:
        """Note a line, and have it delivered."""
        then = self._note(source, raw, complete)
        if source != OBSERVER:
            text = raw.decode(errors="backslashreplace")
            of_function = source in ("stdout", "stderr")
            self.telemetry.line(text, of_function=of_function)
        return then

    def _ended(self, process: Process) -> None:
        self._journal.note(EXITED, Exit(self._name(process), process.exit_status))
        agent = self._extensions.get(process)
        if self.fatal is None:
            kind = "Runtime.ExitError" if agent is None else "Extension.Crash"
            self.fatal = self.agents.first_error or kind
            source = "Runtime" if agent is None else f"Extension {agent.name}"
            self.cause = f"{source} {process.exit_words}"

    def _await(self, condition: Callable[[], Any], deadline: float) -> None:
        with self.changed:
            self._await_held(condition, deadline)

    def _await_held(self, condition: Callable[[], Any], deadline: float) -> None:
        while not condition():
            if self._ending:
                raise Interrupted("ending")
            if self.fatal is not None:
                raise Interrupted("failure")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Interrupted("timeout")
            self.changed.wait(left)
