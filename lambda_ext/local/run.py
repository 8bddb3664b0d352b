"""
The life of one execution environment here: INIT, invocations, SIGTERM, exit.

`run()` takes a `Plan` and returns a `Result`; `verdict.judge()` says whether
that is good.  The handler runs in a process of its own, so that everything in a result
was seen from outside, as Lambda and AWS see it: requests to the Runtime and
Extensions APIs, requests to AWS, lines of output, signals and exits.  What
shows nowhere outside (the library's warnings, where the function's logging
keeps them back) an observer in the process tells: `observer`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .aws_server import AwsCall, AwsServer
from .emf_check import Checked, Totals, check
from .emulator import Emulator
from .leaks import Leak, Leaks
from .seeds import Seed

if TYPE_CHECKING:
    from .outcomes import InitReport, Invocation, Line, Registration, Seen, Shutdown

WAIT_FOR_S = 30.0  # how long a line after the last response is waited for

Progress = Callable[[str], None]
Idle = Callable[[Emulator], object]


class RunError(RuntimeError):
    """The run cannot go on; the message says what to change."""


@dataclass(frozen=True)
class Plan:
    """
    What to run, and with what.

    *environment* is added to what Lambda sets; None takes a variable away.
    *wait_for* is a text: after the last response the environment is not
    frozen until the function has written a line with it.  *real_aws* sends
    the function to AWS, with the account of this shell, in *region*.
    *allow_shown* names secrets whose values may stand in output and answers.
    """

    handler: str
    events: Sequence[Any] = ({},)
    task_root: str = "."
    seed: Seed = field(default_factory=Seed)
    environment: Mapping[str, str | None] = field(default_factory=dict)
    function_name: str = "local"
    timeout_s: float = 3.0
    memory_mb: int = 128
    region: str = "us-east-1"
    python: str = sys.executable
    freeze: bool = True
    wait_for: str | None = None
    real_aws: bool = False
    latency_s: float = 0.0
    allow_shown: Sequence[str] = ()


@dataclass(frozen=True)
class EmfLine:
    """A line of output that is meant to be a metric, and what it holds."""

    line: Line
    checked: Checked


@dataclass(frozen=True)
class Result:
    """Everything that was seen, from the start of the process to its end."""

    plan: Plan
    init: InitReport
    invocations: tuple[Invocation, ...]
    shutdown: Shutdown  # without exit status if there was no process any more
    resets: tuple[Shutdown, ...]  # before it: time-outs, processes that died
    extensions: tuple[Registration, ...]
    calls: tuple[AwsCall, ...]
    lines: tuple[Line, ...]  # what the function wrote, without the metrics
    emf: tuple[EmfLine, ...]
    totals: Totals
    peak_memory_mb: float | None
    answered_at: tuple[float, ...]  # when each response was posted, as Line.at
    seen: tuple[Seen, ...] = ()  # what the library did in the process
    leaks: tuple[Leak, ...] = ()  # values of the seed that were written or answered

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the library warned of, in order."""
        return tuple(seen.text for seen in self.seen if seen.kind == "warning")

    def uses(self, module: str = "lambda_ext") -> bool:
        """Return whether the function imported *module* of the library."""
        return any(
            seen.kind == "import" and seen.what.get("name") == module
            for seen in self.seen
        )

    @property
    def cold_start_s(self) -> float | None:
        """INIT and the first invocation, in seconds; None if one went wrong."""
        if self.init.status != "success" or not self.invocations:
            return None
        first = self.invocations[0]
        if first.status not in ("success", "error"):
            return None
        return self.init.duration_s + first.duration_s


def run(
    plan: Plan, progress: Progress = lambda _: None, idle: Idle | None = None
) -> Result:
    """
    Run *plan* from INIT to SIGTERM and return what was seen.

    Blocks until every process of the run has ended.  *progress* is called
    with a short text as each step begins; *idle* with the emulator when the
    last response has come: the function waits for work, and is not frozen
    until *idle* returns.

    Raises:
        RunError: the line to *wait_for* did not come.
        EmulatorError: there is no runtime client for that Python, or no Linux.
    """
    if plan.real_aws:
        return _with_aws(plan, _own_aws(), (), progress, idle)
    progress("starting AWS on loopback")
    with AwsServer(seed=plan.seed, region=plan.region, latency_s=plan.latency_s) as aws:
        return _with_aws(plan, aws.environment(), aws.calls, progress, idle)


def _with_aws(
    plan: Plan,
    aws: Mapping[str, str | None],
    calls: Sequence[AwsCall],
    progress: Progress,
    idle: Idle | None,
) -> Result:
    progress("INIT")
    with Emulator(
        handler=plan.handler,
        task_root=plan.task_root,
        python=plan.python,
        env={**_python_path(), **aws, **plan.environment},
        function_name=plan.function_name,
        timeout_s=plan.timeout_s,
        memory_mb=plan.memory_mb,
        region=plan.region,
        freeze=plan.freeze,
        observed=True,
    ) as emulator:
        init = emulator.init()
        invocations = []
        if init.status == "success":
            for number, event in enumerate(plan.events, 1):
                progress(f"invocation {number} of {len(plan.events)}")
                invocations.append(emulator.invoke(event))
                emulator.wait_frozen()
        if emulator.pid is not None and (idle or plan.wait_for):
            emulator.thaw()
            if plan.wait_for is not None:
                progress(f"waiting for {plan.wait_for!r}")
                _wait_for(emulator, plan.wait_for)
            if idle is not None:
                idle(emulator)
            if plan.freeze:
                emulator.freeze()
        extensions = tuple(emulator.agents)
        peak_memory_mb = _peak_memory_mb(emulator)
        progress("SIGTERM")
        resets = tuple(emulator.shutdowns)
        shutdown = emulator.shutdown()
        written = tuple(emulator.lines)
    lines, emf, totals = _sorted(written, _log_level(plan.environment))
    return Result(
        plan=plan,
        init=init,
        invocations=tuple(invocations),
        shutdown=shutdown,
        resets=resets,
        extensions=extensions,
        calls=tuple(calls),
        lines=lines,
        emf=emf,
        totals=totals,
        peak_memory_mb=peak_memory_mb,
        answered_at=tuple(
            call.at
            for call in emulator.calls
            if call.path.endswith(("/response", "/error"))
            and "/invocation/" in call.path
        ),
        seen=tuple(emulator.seen),
        leaks=tuple(_leaks(plan, init, invocations, written, calls)),
    )


def _leaks(
    plan: Plan,
    init: InitReport,
    invocations: Sequence[Invocation],
    written: Iterable[Line],
    calls: Iterable[AwsCall],
) -> Iterator[Leak]:
    """Yield where values of the seed stand; in output, once a line and value."""
    leaks = Leaks(plan.seed, plan.events, plan.allow_shown)
    for line in written:
        where = "a log line" if line.source == "stdout" else "a line of stderr"
        yield from leaks.find(line.text, where)
    payload = init.error_payload or b""
    yield from leaks.find(payload.decode("utf-8", "replace"), "the error of INIT")
    for number, invocation in enumerate(invocations, 1):
        text = invocation.payload.decode("utf-8", "replace")
        yield from leaks.find(text, f"the answer to invocation {number}")
    for call in calls:
        text = "\n".join((*call.names, call.agent, call.operation))
        yield from leaks.find(text, "the name that a call to AWS asked for")


def _wait_for(emulator: Emulator, text: str) -> None:
    try:
        emulator.wait_for_line(text, timeout=WAIT_FOR_S)
    except TimeoutError:
        msg = (
            f"the function did not write {text!r} within {WAIT_FOR_S:g} seconds"
            " of its last response"
        )
        raise RunError(msg) from None


def _own_aws() -> dict[str, str | None]:
    """Return this shell's AWS variables; what it has not, the function has not."""
    names = {name for name in os.environ if name.startswith("AWS_")}
    names -= {name for name in names if name.startswith("AWS_LAMBDA_")}
    names -= {"AWS_EXECUTION_ENV", "AWS_REGION", "AWS_DEFAULT_REGION"}
    always = {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
    return {name: os.environ.get(name) for name in names | always}


def _python_path() -> dict[str, str]:
    """Return this shell's PYTHONPATH as it is meant here: the function runs elsewhere."""
    path = os.environ.get("PYTHONPATH")
    if not path:
        return {}
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))}


def _log_level(environment: Mapping[str, str | None]) -> str | None:
    """Return the level below which Lambda drops a line; None if it reads none."""
    if (environment.get("AWS_LAMBDA_LOG_FORMAT") or "").upper() != "JSON":
        return None
    return (environment.get("AWS_LAMBDA_LOG_LEVEL") or "INFO").upper()


def _sorted(
    written: Sequence[Line], log_level: str | None
) -> tuple[tuple[Line, ...], tuple[EmfLine, ...], Totals]:
    """Part metrics from plain output, and add the metrics up."""
    lines: list[Line] = []
    emf: list[EmfLine] = []
    totals = Totals()
    for line in written:
        checked = check(line.text, log_level=log_level)
        if checked is None:
            lines.append(line)
        else:
            emf.append(EmfLine(line, checked))
            totals.add(checked)
    return tuple(lines), tuple(emf), totals


def _peak_memory_mb(emulator: Emulator) -> float | None:
    """Return the most memory that the runtime has held, as Lambda reports it."""
    pid = emulator.pid
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for entry in status:
                if entry.startswith("VmHWM:"):
                    return int(entry.split()[1]) / 1024
    except OSError:  # it has just died
        return None
    return None
