"""
Lambda's execution environment on this machine, around the real runtime client.

    with Emulator(handler="app.handler", task_root="examples/orders") as emulator:
        emulator.invoke({"order": 1})
        emulator.shutdown()

The handler runs in ``python -m awslambdaric``, which talks to our Runtime and
Extensions API over loopback; between invocations its processes are stopped,
and the end comes with Lambda's signals and budgets.  It imports nothing of
the library: a server that shares code with its client proves nothing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from . import endpoints, variables
from .environment import Settings
from .host import Host, Pending
from .outcomes import (
    OBSERVER,
    Budgets,
    Call,
    EmulatorError,
    InitReport,
    Invocation,
    Line,
    Registration,
    RestoreReport,
    Seen,
    Shutdown,
)
from .processes import TOLD
from .server import Abandoned, Answer, Refused, Request, Server
from .workers import ManyWorkers, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .environment import Environment

__all__ = ["Budgets", "Emulator", "EmulatorError", "Pending"]

INIT_TYPES = (
    "on-demand",
    "provisioned-concurrency",
    "snap-start",
    "lambda-managed-instances",
)
OBSERVER_PROGRAM = os.path.join(os.path.dirname(__file__), "observer.py")
_DERIVED = "derived from the Python version"


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
            command = (python, OBSERVER_PROGRAM, TOLD, handler)
        if execution_env == _DERIVED:
            execution_env = variables.execution_env_of(python)

        self.lines: list[Line] = []
        self.calls: list[Call] = []
        self.seen: list[Seen] = []
        self._on_line = on_line
        self._began = time.monotonic()
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
        settings = Settings(
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
        )
        self._settings = settings
        self._host = Host(settings, self._changed, self._note)
        self.inits: list[InitReport] = self._host.inits
        self.restores: list[RestoreReport] = self._host.restores
        self.shutdowns: list[Shutdown] = self._host.shutdowns

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what is left of the environment and stop the API."""
        self._host.close()
        self._server.close()

    # What happens to the environment.

    def init(self) -> InitReport:
        """Start the environment, unless there is one; return how Init went."""
        return self._host.init()

    def restore(self) -> RestoreReport:
        """Restore the environment from its snapshot; only for snap-start."""
        return self._host.restore()

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
        return self._host.start(Work(body))

    def freeze(self) -> None:
        """Stop every process, whatever it is doing; what they wrote is known."""
        self._present().freeze()

    def thaw(self) -> None:
        """Let every process go on."""
        self._present().thaw()

    def wait_frozen(self) -> None:
        """Return when no invocation is under way, the part after it included."""
        self._host.wait_settled()

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
        return self._host.shutdown(reason)

    # What is to be seen of it.

    @property
    def pid(self) -> int | None:
        """The runtime's process id (and group); None without a process."""
        environment = self._host.environment
        runtime = environment.runtime if environment is not None else None
        return runtime.pid if runtime is not None else None

    @property
    def frozen(self) -> bool:
        """Whether the environment is stopped."""
        environment = self._host.environment
        return environment is not None and environment.frozen

    @property
    def agents(self) -> list[Registration]:
        """The extensions of the present environment, or of the last one."""
        with self._changed:
            last = self._host.last
            return [agent.registration() for agent in last.agents] if last else []

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
        with self._changed:
            index = start
            end = time.monotonic() + timeout
            while True:
                while index < len(self.lines):
                    if matches(self.lines[index]):
                        return self.lines[index]
                    index += 1
                if not self._changed.wait(max(0.0, end - time.monotonic())):
                    tail = "\n".join(line.text for line in self.lines[-20:])
                    raise TimeoutError(
                        f"no line with {wanted!r} within {timeout} s; the last:\n{tail}"
                    )

    # Called from other threads.

    def _note(self, source: str, raw: bytes, complete: bool) -> Callable[[], None]:
        """Note a line; return what tells the user of it."""
        text = raw.decode(errors="backslashreplace")
        if source == OBSERVER:
            self._note_seen(text)
            return lambda: None
        line = Line(source, text, self._now(), self._host.request_id, complete)
        self.lines.append(line)
        return lambda: self._tell(line)

    def _note_seen(self, text: str) -> None:
        """Note what the process tells of itself; half a line is nothing."""
        try:
            what = json.loads(text or "null")
            if isinstance(what, dict):
                self.seen.append(Seen(str(what.pop("saw", "")), self._now(), what))
        except ValueError:  # it was killed in the middle
            pass

    def _tell(self, line: Line) -> None:
        if self._on_line is not None:
            try:
                self._on_line(line)
            except Exception:
                # The reader has to go on, or the process would hang.
                traceback.print_exc()

    def _respond(self, request: Request) -> Answer:
        """Answer one request of the runtime or an extension."""
        with self._changed:
            environment = self._host.environment
            call = Call(request.method, request.path, self._now())
            self.calls.append(call)
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

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _present(self) -> Environment:
        environment = self._host.environment
        if environment is None:
            raise EmulatorError("there is no environment: init() or invoke() first")
        return environment


def _check_platform() -> None:
    if sys.platform != "linux":
        raise EmulatorError(
            f"the emulator stops and starts Linux processes, and this is"
            f" {sys.platform}: use Linux, a container or WSL 2"
        )
