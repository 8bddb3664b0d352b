"""
One environment after the other: when they begin, what resets them, how they end.

    cold start:   init (10 s) ─▶ invoke
    after a failed Init, a time-out or a crash:   invoke (init inside, its time-out)

Threads
    An invocation has a thread, which goes on after the answer until the
    freeze; ``_turn`` lets in one at a time, except on Managed Instances.
    ``_ending`` makes teardown happen once, whoever wants it first.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from typing import TYPE_CHECKING

from .environment import Environment, Interrupted
from .outcomes import EmulatorError, Invocation, Shutdown
from .server import Refused

if TYPE_CHECKING:
    from .environment import Settings
    from .outcomes import InitReport, RestoreReport
    from .processes import Note
    from .workers import Work


class Pending:
    """An invocation under way."""

    def __init__(self, work: Work) -> None:
        self.request_id = work.id
        self._work = work
        self._began = time.monotonic()
        self._init: InitReport | None = None
        self._restore: RestoreReport | None = None
        self._answered = threading.Event()
        self._outcome: Invocation | BaseException | None = None

    def done(self) -> bool:
        """Return whether the caller has its answer."""
        return self._answered.is_set()

    def result(self, timeout: float | None = None) -> Invocation:
        """Wait for the answer; TimeoutError after *timeout* seconds, None is never."""
        if not self._answered.wait(timeout):
            raise TimeoutError(f"no answer within {timeout} s")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _begin(self, timeout_s: float) -> float:
        """Start the function's clock; return the deadline."""
        self._began = time.monotonic()
        self._work.deadline_ms = int((time.time() + timeout_s) * 1000)
        return self._began + timeout_s

    def _answer(self) -> None:
        """Give the caller what the work has come to, unless it has its answer."""
        work = self._work
        if not self._answered.is_set():
            self._outcome = Invocation(
                work.id,
                str(work.status),
                work.payload,
                time.monotonic() - self._began,
                work.error_type,
                self._init,
                self._restore,
                work.content_type,
            )
            self._answered.set()

    def _raise(self, exc: BaseException) -> bool:
        """Give the caller *exc* instead of an answer; False if it is too late."""
        if self._answered.is_set():
            return False
        self._outcome = exc
        self._answered.set()
        return True


class Host:
    """Where environments come and go."""

    def __init__(
        self, settings: Settings, changed: threading.Condition, note: Note
    ) -> None:
        self.environment: Environment | None = None
        self.last: Environment | None = None
        self.request_id: str | None = None  # of the invocation that began last
        self.inits: list[InitReport] = []
        self.restores: list[RestoreReport] = []
        self.shutdowns: list[Shutdown] = []
        self._settings = settings
        self._changed = changed
        self._note = note
        self._turn = threading.Lock()
        self._ending = threading.Lock()
        self._busy = 0  # invocations whose thread has not come to its end
        self._reset = False  # the next Init is inside the next invocation
        self._closed = False

    def init(self) -> InitReport:
        """Start an environment, unless there is one; return how Init went."""
        with self._turn:
            return self.inits[-1] if self.environment is not None else self._init()

    def restore(self) -> RestoreReport:
        """Restore the environment from its snapshot."""
        with self._turn:
            environment = self.environment
            if environment is None or not environment.workers.parked():
                raise EmulatorError("there is no snapshot to restore: init() first")
            return self._restore(environment)

    def start(self, work: Work) -> Pending:
        """Start an invocation in a thread of its own."""
        pending = Pending(work)
        with self._changed:
            self._busy += 1
        threading.Thread(
            target=self._run, args=(work, pending), name="emulator-invoke", daemon=True
        ).start()
        return pending

    def wait_settled(self) -> None:
        """Return when no invocation is under way, the part after it included."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy == 0)

    def shutdown(self, reason: str) -> Shutdown:
        """End the environment; the next invocation is a cold start."""
        environment = self.environment
        if environment is None:
            end = Shutdown(reason, 0.0, 0.0, None, False, False, 0.0)
        else:
            end = self._teardown(environment, reason)
            self.wait_settled()
        self._reset = False
        return end

    def close(self) -> None:
        """End the environment at once; none follows."""
        with self._changed:
            self._closed = True
            environment = self.environment
        if environment is not None:
            self._teardown(environment, None)
        self.wait_settled()

    # Phases.

    def _teardown(self, environment: Environment, reason: str | None) -> Shutdown:
        """End *environment*, once; None as a reason is without ceremony."""
        environment.end()
        with self._ending:
            end = environment.shutdown
            if end is None:
                end = environment.shutdown = environment.teardown(reason)
                self.environment = None
                if reason is not None:
                    self.shutdowns.append(end)
            return end

    def _init(self, phase: str = "init", deadline: float | None = None) -> InitReport:
        environment = Environment(self._settings, self._changed, self._note)
        with self._changed:
            if self._closed:
                raise EmulatorError("the emulator is closed")
            self.environment = self.last = environment
        if deadline is None:
            settings = self._settings
            limit = settings.budgets.init(settings.init_type, settings.timeout_s)
            deadline = time.monotonic() + limit
            phase = "snap-start" if environment.snap_start else phase
        report = environment.initialise(phase, deadline)
        self.inits.append(report)
        if report.status == "success":
            self._reset = False
            self._freeze(environment)
        elif report.status != "ending":
            self._fail(environment, report.status)
        return report

    def _restore(self, environment: Environment) -> RestoreReport:
        limit = self._settings.budgets.restore_s
        report = environment.restore(time.monotonic() + limit)
        self.restores.append(report)
        if report.status not in ("success", "ending"):
            self._fail(environment, report.status)
        return report

    def _fail(self, environment: Environment, status: str) -> None:
        """Reset: the next environment starts inside the next invocation."""
        self._reset = not environment.instances  # those are replaced instead
        self._teardown(environment, "timeout" if status == "timeout" else "failure")

    def _freeze(self, environment: Environment) -> None:
        if self._settings.freeze and not environment.instances:
            environment.freeze()
        else:
            environment.drain()

    # One invocation.

    def _run(self, work: Work, pending: Pending) -> None:
        try:
            with contextlib.ExitStack() as turn:
                turn.enter_context(self._turn)
                environment, deadline = self._prepare(work, pending)
                if environment is None:
                    self._answer(pending)
                    return
                if environment.instances:
                    turn.close()  # the others may begin
                self._work(environment, work, pending, deadline)
        except BaseException as exc:
            if not pending._raise(exc):
                raise
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _prepare(
        self, work: Work, pending: Pending
    ) -> tuple[Environment | None, float]:
        """Bring about an environment that waits for work, or fail *work*."""
        report: InitReport | RestoreReport | None = None
        if self.environment is None and not self._reset:
            report = pending._init = self._init()
        deadline = pending._begin(self._settings.timeout_s)
        if self.environment is None and (report is None or report.status != "ending"):
            report = pending._init = self._init("invoke", deadline)
        environment = self.environment
        if environment is not None and environment.workers.parked():
            report = pending._restore = self._restore(environment)
            deadline = pending._begin(self._settings.timeout_s)
        if report is None or report.status == "success":
            return environment, deadline
        if report.error_payload is not None and report.status == "error":
            work.status, work.error_type = "error", report.error_type
            work.payload = report.error_payload
        else:
            cause = self.last.cause if self.last is not None else ""
            self._blame(work, report.status, report.error_type, cause)
        return None, deadline

    def _work(
        self,
        environment: Environment,
        work: Work,
        pending: Pending,
        deadline: float,
    ) -> None:
        try:
            self.request_id = None if environment.instances else work.id
            environment.begin(work)
            environment.await_answer(work, deadline)
            environment.drain()
            self._answer(pending)
            if environment.instances:
                return
            environment.await_rest(deadline)
            self._freeze(environment)
        except Refused as exc:
            work.fail("failure", exc.error_type)
            self._answer(pending)
        except Interrupted as exc:
            if exc.status == "ending":
                environment.wait_gone(work)
            with self._changed:  # a response may come at this moment
                if work.status is None:
                    self._blame(work, exc.status, environment.fatal, environment.cause)
                pending._answer()
            if exc.status != "ending" and not (
                environment.instances and exc.status == "timeout"
            ):
                self._fail(environment, exc.status)

    def _answer(self, pending: Pending) -> None:
        with self._changed:
            pending._answer()

    def _blame(
        self, work: Work, status: str, error_type: str | None, cause: str
    ) -> None:
        """Answer in the platform's name that there is no answer."""
        if status == "timeout":
            now = dt.datetime.now(dt.timezone.utc)
            moment = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            timeout = self._settings.timeout_s
            work.fail(
                "timeout",
                None,
                f"{moment} {work.id} Task timed out after {timeout:.2f} seconds",
            )
            return
        if status == "ending":
            error_type, cause = "Sandbox.Failure", "the environment was shut down"
        work.fail("failure", error_type, f"RequestId: {work.id} Error: {cause}")
