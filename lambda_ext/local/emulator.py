"""
Lambda's execution environment on this machine, around the real runtime client.

    with Emulator(handler="app.handler", task_root="examples/orders") as emulator:
        emulator.invoke({"order": 1})
        emulator.shutdown()

The handler runs in ``python -m awslambdaric``, which talks to our Runtime and
Extensions API over loopback; between invocations its processes are stopped,
and the end comes with Lambda's signals and budgets.  One environment follows
the other:

    cold start:   init (10 s) ─▶ invoke
    after a failed Init, a time-out or a crash:   invoke (init inside, its time-out)

All that happens is noted in one `Journal`, of which the emulator's lists are
views.  It imports nothing of the library: a server that shares code with its
client proves nothing.

Threads
    An invocation has a thread, which goes on after the answer until the
    freeze; ``_turn`` lets in one at a time, except on Managed Instances.
    ``_ending`` makes teardown happen once, in the thread that wants it first.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from . import endpoints, journal, variables
from .environment import Environment, Interrupted
from .journal import Journal
from .outcomes import (
    OBSERVER,
    Budgets,
    Call,
    Delivery,
    EmulatorError,
    InitReport,
    Invocation,
    Line,
    Registration,
    RestoreReport,
    Seen,
    Settings,
    Shutdown,
)
from .processes import DESCRIPTOR
from .server import Abandoned, Answer, Refused, Request, Server
from .workers import ManyWorkers, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Budgets", "Emulator", "EmulatorError", "Pending"]

INIT_TYPES = (
    "on-demand",
    "provisioned-concurrency",
    "snap-start",
    "lambda-managed-instances",
)
# Imports `observer` as a module, which Python has compiled, and leaves no trace.
OBSERVE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import observer as o;"
    " del sys.path[0], sys.modules['observer']; o.main()"
)
_DERIVED = "derived from the Python version"


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

    def _answer(self) -> Invocation | None:
        """Give the caller what the work has come to; None if it has its answer."""
        work = self._work
        if self._answered.is_set():
            return None
        answer = self._outcome = Invocation(
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
        return answer

    def _raise(self, exc: BaseException) -> bool:
        """Give the caller *exc* instead of an answer; False if it is too late."""
        if self._answered.is_set():
            return False
        self._outcome = exc
        self._answered.set()
        return True


class Emulator:
    """
    Run a handler as Lambda would, and see everything that it does.

    Making it starts the API; the processes start in Init.  Use it as a context
    manager: the end of the block kills what is left of them.

    Args:
        handler: ``module.function``, found from *task_root*.

        task_root: The function's folder; None is the current one.

        command:
            What to run as the runtime.  None is the real runtime client,
            ``python -m awslambdaric`` with *python*.

        env:
            Variables on top of those that Lambda sets and of this process's own
            (of which AWS's stay outside).  None as a value takes one away.

        execution_env:
            AWS_EXECUTION_ENV: ``AWS_Lambda_python3.12``, ``AWS_Lambda_Image``,
            or None for unset.  It decides in which thread the runtime client
            polls.  By default the managed runtime of that Python.

        function_name, memory_mb, region: What the function is told of itself.

        timeout_s: The function's time-out, in seconds.

        init_type:
            ``on-demand``, ``provisioned-concurrency``, ``snap-start`` (Init
            ends at ``/restore/next``) or ``lambda-managed-instances``
            (worker processes, no freeze).

        freeze: Stop the processes between invocations, as Lambda does.

        term_before_thaw: A frozen runtime gets its SIGTERM before it is thawed.

        extensions_dir: A folder of external extensions, like /opt/extensions.

        budgets: The limits of the phases, see `Budgets`.  None is Lambda's.

        max_concurrency: How many workers a managed instance has.  None is 2.

        observed:
            Whether the process tells what lambda_ext does in it, see `seen`;
            only without *command*.

        telemetry:
            Whether there is a Telemetry API.  False answers as AWS's own emulator
            does, which has none.

        redeliver:
            Every Nth batch of telemetry is delivered twice, as where its answer
            is lost on the way.  0 is never.

        journal: Where all that happens is noted; None is a new one.

        on_line: Called with each `Line`, in a thread; its errors are printed.

    Raises:
        EmulatorError: not on Linux, or awslambdaric is not there.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        handler: str = "app.handler",
        task_root: str | None = None,
        *,
        command: Sequence[str] | None = None,
        python: str = sys.executable,
        env: Mapping[str, str | None] | None = None,
        execution_env: str | None = _DERIVED,
        function_name: str = "local",
        timeout_s: float = 3.0,
        memory_mb: int = 128,
        region: str = "us-east-1",
        init_type: str = "on-demand",
        freeze: bool = True,
        term_before_thaw: bool = False,
        extensions_dir: str | None = None,
        budgets: Budgets | None = None,
        max_concurrency: int | None = None,
        observed: bool = False,
        telemetry: bool = True,
        redeliver: int = 0,
        journal: Journal | None = None,
        on_line: Callable[[Line], object] | None = None,
    ) -> None:
        _check_platform()
        root = os.path.abspath(task_root or os.curdir)
        if not os.path.isdir(root):
            raise ValueError(f"task_root: there is no folder {root}")
        if extensions_dir is not None and not os.path.isdir(extensions_dir):
            raise ValueError(f"extensions_dir: there is no folder {extensions_dir}")
        if init_type not in INIT_TYPES:
            raise ValueError(f"init_type: {init_type!r} is none of {INIT_TYPES}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: {timeout_s!r} is not above 0")
        self._instances = init_type == "lambda-managed-instances"
        if self._instances:
            max_concurrency = 2 if max_concurrency is None else max_concurrency
            if max_concurrency < 1:
                raise ValueError(f"max_concurrency: {max_concurrency} is below 1")
        elif max_concurrency is not None:
            raise ValueError("max_concurrency: only for lambda-managed-instances")
        if command is None and not variables.has_runtime_client(python):
            raise EmulatorError(
                f"{python} has no awslambdaric, Lambda's runtime client:"
                ' pip install "lambda-ext[local]"'
            )
        if observed and command is not None:
            raise ValueError("observed: only for the real runtime client")
        if observed:
            folder = os.path.dirname(os.path.abspath(__file__))
            command = (python, "-c", OBSERVE, folder, DESCRIPTOR, handler)
        if execution_env == _DERIVED:
            execution_env = variables.execution_env_of(python)

        self.journal = Journal() if journal is None else journal
        self._on_line = on_line
        self._changed = threading.Condition()
        self._server = Server(self._respond)

        own = variables.lambdas_own(
            handler=handler,
            task_root=root,
            execution_env=execution_env,
            function_name=function_name,
            memory_mb=memory_mb,
            region=region,
            init_type=init_type,
            max_concurrency=max_concurrency,
            api=self._server.address,
        )
        self._settings = Settings(
            command=list(command or (python, "-m", "awslambdaric", handler)),
            task_root=root,
            variables=variables.apply({**variables.inherited(), **own}, env),
            function_name=function_name,
            region=region,
            handler=handler,
            timeout_s=timeout_s,
            init_type=init_type,
            budgets=budgets or Budgets(),
            freeze=freeze,
            term_before_thaw=term_before_thaw,
            extensions_dir=extensions_dir,
            max_concurrency=max_concurrency,
            observed=observed,
            telemetry=telemetry,
            redeliver=redeliver,
        )
        self._environment: Environment | None = None
        self._last: Environment | None = None
        self._request_id: str | None = None  # of the invocation that began last
        self._turn = threading.Lock()
        self._ending = threading.Lock()
        self._busy = 0  # invocations whose thread has not come to its end
        self._reset = False  # the next Init is inside the next invocation
        self._closed = False

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what is left of the environment and stop the API."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            environment = self._environment
        if environment is not None:
            self._teardown(environment, None)
        self.wait_frozen()
        self._server.close()

    # What happens to the environment.

    def init(self) -> InitReport:
        """Start the environment, unless there is one; return how Init went."""
        with self._turn:
            return self.inits[-1] if self._environment is not None else self._init()

    def restore(self) -> RestoreReport:
        """Restore the environment from its snapshot; only for snap-start."""
        with self._turn:
            environment = self._environment
            if environment is None or not environment.workers.parked():
                raise EmulatorError("there is no snapshot to restore: init() first")
            return self._restore(environment)

    def invoke(self, event: object, timeout: float | None = None) -> Invocation:
        """
        Invoke the function and return what its caller gets, when it gets it.

        The extensions may still be at work then; `wait_frozen` waits for them.

        Args:
            event: Bytes as they are, anything else as JSON.

            timeout: Seconds to wait; None is as long as it takes.
        """
        return self.invoke_async(event).result(timeout)

    def invoke_async(self, event: object) -> Pending:
        """Invoke the function without waiting; one after the other."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        work = Work(body)
        pending = Pending(work)
        with self._changed:
            self._busy += 1
        threading.Thread(
            target=self._run, args=(work, pending), name="emulator-invoke", daemon=True
        ).start()
        return pending

    def freeze(self) -> None:
        """Stop every process, busy or not; then all that they wrote is noted."""
        self._present().freeze()

    def thaw(self) -> None:
        """Let every process go on."""
        self._present().thaw()

    def drain(self) -> None:
        """Return when all that the processes wrote so far has been noted."""
        environment = self._environment
        if environment is not None:
            environment.drain()

    def wait_frozen(self) -> None:
        """Return when no invocation is under way, the part after it included."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy == 0)

    def wait_idle(self, count: int | None = None, timeout: float = 30.0) -> None:
        """
        Wait until *count* workers (None is all) are idle; Managed Instances only.

        Raises:
            TimeoutError: they were not within *timeout* seconds.
        """
        present = self._present()
        workers = present.workers
        if not isinstance(workers, ManyWorkers):
            raise EmulatorError("only lambda-managed-instances have several workers")
        goal = self._settings.max_concurrency if count is None else count
        with self._changed:
            if not self._changed.wait_for(lambda: workers.idle >= (goal or 0), timeout):
                raise TimeoutError(
                    f"{workers.idle} of {goal} workers after {timeout} s"
                )

    def shutdown(self, reason: str = "spindown") -> Shutdown:
        """
        End the environment as Lambda does, also in the middle of an invocation.

        A response that is posted meanwhile still reaches its caller.  When it
        returns, `lines` is complete.  The next invocation is a cold start.
        """
        environment = self._environment
        if environment is None:
            end = Shutdown(reason, 0.0, 0.0, None, False, False, 0.0)
        else:
            end = self._teardown(environment, reason)
            self.wait_frozen()
        self._reset = False
        return end

    # What is to be seen of it.

    @property
    def lines(self) -> list[Line]:
        """What its processes wrote."""
        return self.journal.of(journal.LINE)

    @property
    def calls(self) -> list[Call]:
        """The requests to the Runtime and Extensions APIs."""
        return self.journal.of(journal.CALL)

    @property
    def seen(self) -> list[Seen]:
        """What the function's process told of itself, if it is observed."""
        return self.journal.of(journal.SEEN)

    @property
    def inits(self) -> list[InitReport]:
        """How each Init went."""
        return self.journal.of(journal.INIT_DONE)

    @property
    def restores(self) -> list[RestoreReport]:
        """How each restore from a snapshot went."""
        return self.journal.of(journal.RESTORE_DONE)

    @property
    def shutdowns(self) -> list[Shutdown]:
        """How each environment ended."""
        return self.journal.of(journal.SHUTDOWN_DONE)

    @property
    def pid(self) -> int | None:
        """The runtime's process id (and group); None without a process."""
        environment = self._environment
        runtime = environment.runtime if environment is not None else None
        return runtime.pid if runtime is not None else None

    @property
    def frozen(self) -> bool:
        """Whether the environment is stopped."""
        environment = self._environment
        return environment is not None and environment.frozen

    @property
    def agents(self) -> list[Registration]:
        """The extensions of the present environment, or of the last one."""
        with self._changed:
            last = self._last
            if last is None:
                return []
            return [
                agent.registration(last.telemetry.subscription(agent.name))
                for agent in last.agents
            ]

    @property
    def deliveries(self) -> list[Delivery]:
        """What was delivered to subscribers of telemetry, answered or not."""
        return self.journal.of(journal.DELIVERED)

    def wait_for_line(
        self,
        wanted: str | Callable[[Line], bool],
        timeout: float = 30.0,
        *,
        start: int = 0,
    ) -> Line:
        """
        Wait for the first line that contains, or for which is true, *wanted*.

        Args:
            timeout: Seconds until TimeoutError, which shows the last lines.

            start: The index in `lines` from which to look.
        """
        matches = wanted if callable(wanted) else lambda line: wanted in line.text
        end = time.monotonic() + timeout
        with self._changed:
            found = self._line(matches, start, end)
            if found is not None:
                return found
            tail = "\n".join([line.text for line in self.lines[-20:]])
        msg = f"no line with {wanted!r} within {timeout} s; the last:\n{tail}"
        raise TimeoutError(msg)

    def _line(
        self, matches: Callable[[Line], bool], index: int, end: float
    ) -> Line | None:
        """Wait until *end* for the first line from *index* that *matches*."""
        while True:
            while index < len(self.lines):
                if matches(self.lines[index]):
                    return self.lines[index]
                index += 1
            if self._closed:
                raise EmulatorError("the emulator is closed")
            if not self._changed.wait(max(0.0, end - time.monotonic())):
                return None

    # Called from other threads.

    def _note(self, source: str, raw: bytes, complete: bool) -> Callable[[], None]:
        """Note a line; return what calls `on_line` with it."""
        text = raw.decode(errors="backslashreplace")
        if source == OBSERVER:
            self._note_seen(text)
            return lambda: None
        line = self.journal.make(
            journal.LINE,
            lambda at: Line(source, text, at, self._request_id, complete),
        )
        return lambda: self._call_on_line(line)

    def _note_seen(self, text: str) -> None:
        """Note a report of the process itself; half a line is dropped."""
        try:
            what = json.loads(text or "null")
            if isinstance(what, dict):
                kind = str(what.pop("saw", ""))
                self.journal.make(journal.SEEN, lambda at: Seen(kind, at, what))
        except ValueError:  # it was killed in the middle
            pass

    def _call_on_line(self, line: Line) -> None:
        if self._on_line is not None:
            try:
                self._on_line(line)
            except Exception:
                # The reader has to go on, or the process would hang.
                traceback.print_exc()

    def _respond(self, request: Request) -> Answer:
        """Answer one request of the runtime or an extension."""
        with self._changed:
            environment = self._environment
            call = self.journal.make(
                journal.CALL, lambda at: Call(request.method, request.path, at)
            )
            if environment is None:
                raise Abandoned
            call.agent = environment.agents.name_of(request)
            self._changed.notify_all()
            try:
                answer = endpoints.respond(environment, request)
            except Refused as exc:
                answer = exc.answer()
            call.status = answer.status
            self._changed.notify_all()
        return answer

    def _present(self) -> Environment:
        environment = self._environment
        if environment is None:
            raise EmulatorError("there is no environment: init() or invoke() first")
        return environment

    # Phases.

    def _teardown(self, environment: Environment, reason: str | None) -> Shutdown:
        """End *environment*, once; None as a reason is without ceremony."""
        environment.end()
        with self._ending:
            end = environment.shutdown
            if end is None:
                if reason is not None:
                    self.journal.note(journal.SHUTDOWN_STARTED, reason)
                end = environment.shutdown = environment.teardown(reason)
                self._environment = None
                if reason is not None:
                    self.journal.note(journal.SHUTDOWN_DONE, end)
            return end

    def _init(self, phase: str = "init", deadline: float | None = None) -> InitReport:
        environment = Environment(
            self._settings, self._changed, self.journal, self._note
        )
        with self._changed:
            if self._closed:
                raise EmulatorError("the emulator is closed")
            self._environment = self._last = environment
        if deadline is None:
            settings = self._settings
            limit = settings.budgets.init(settings.init_type, settings.timeout_s)
            deadline = time.monotonic() + limit
            phase = "snap-start" if environment.snap_start else phase
        self.journal.note(journal.INIT_STARTED, phase)
        report = environment.initialise(phase, deadline)
        self.journal.note(journal.INIT_DONE, report)
        if report.status == "success":
            self._reset = False
            self._freeze(environment)
        elif report.status != "ending":
            self._fail(environment, report.status)
        return report

    def _restore(self, environment: Environment) -> RestoreReport:
        limit = self._settings.budgets.restore_s
        self.journal.note(journal.RESTORE_STARTED)
        report = environment.restore(time.monotonic() + limit)
        self.journal.note(journal.RESTORE_DONE, report)
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
        if self._environment is None and not self._reset:
            report = pending._init = self._init()
        deadline = pending._begin(self._settings.timeout_s)
        if self._environment is None and (report is None or report.status != "ending"):
            report = pending._init = self._init("invoke", deadline)
        environment = self._environment
        if environment is not None and environment.workers.parked():
            report = pending._restore = self._restore(environment)
            deadline = pending._begin(self._settings.timeout_s)
        if report is None or report.status == "success":
            return environment, deadline
        if report.error_payload is not None and report.status == "error":
            work.status, work.error_type = "error", report.error_type
            work.payload = report.error_payload
        else:
            cause = self._last.cause if self._last is not None else ""
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
            self._request_id = None if environment.instances else work.id
            environment.begin(work)
            environment.await_answer(work, deadline)
            environment.drain()
            self._answer(pending)
            if environment.instances:
                environment.tell_report(work)
                return
            environment.await_rest(work, deadline)
            self.journal.note(journal.INVOKE_DONE, work.id)
            self._freeze(environment)
            environment.tell_report(work)  # which the next thaw delivers
        except Refused as exc:
            work.fail("failure", exc.error_type)
            self._answer(pending)
        except Interrupted as exc:
            if exc.status == "ending":
                environment.wait_gone(work)
            with self._changed:  # a response may come at this moment
                if work.status is None:
                    self._blame(work, exc.status, environment.fatal, environment.cause)
                self._answer(pending)
            if exc.status != "ending":
                if not environment.instances:
                    environment.tell_runtime_done(work, exc.status)
                environment.tell_report(work, exc.status)
            if exc.status != "ending" and not (
                environment.instances and exc.status == "timeout"
            ):
                self._fail(environment, exc.status)

    def _answer(self, pending: Pending) -> None:
        with self._changed:
            answer = pending._answer()
            if answer is not None:
                self.journal.note(journal.ANSWERED, answer)

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


def _check_platform() -> None:
    if sys.platform != "linux":
        raise EmulatorError(
            f"the emulator stops and starts Linux processes, and this is"
            f" {sys.platform}: use Linux, a container or WSL 2"
        )
