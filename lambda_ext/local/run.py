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

import contextlib
import json
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .aws_server import AwsCall, AwsServer
from .emf_check import Checked, Totals, check
from .emulator import Emulator
from .journal import (
    ANSWERED,
    AWS_CALL,
    CALL,
    INIT_DONE,
    LINE,
    SEEN,
    SHUTDOWN_DONE,
    STEP,
    Journal,
)
from .leaks import Leak, Leaks
from .outcomes import InitReport, Shutdown
from .seeds import Seed
from .steps import WAIT_S, Invoke, Stage, Step, Terminate, Wait

if TYPE_CHECKING:
    from .outcomes import Invocation, Line, Registration, Seen

Progress = Callable[[str], None]
_NOTHING_LEFT = Shutdown("spindown", 0.0, 0.0, None, False, False, 0.0)


@dataclass(frozen=True)
class Plan:
    """
    What to run, and with what.

    *environment* is added to what Lambda sets; None takes a variable away.
    *steps* is what happens after INIT; None invokes the function with each of
    *events* and then, if *wait_for* is a text, lets it go on until it has
    written a line with it.  The end with SIGTERM follows by itself.  *real_aws*
    sends the function to AWS, with the account of this shell, in *region*.
    *latency_s* and *poll_interval_s* are those of `AwsServer`.
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
    poll_interval_s: int | None = None
    allow_shown: Sequence[str] = ()
    steps: Sequence[Step] | None = None

    def all_steps(self) -> Sequence[Step]:
        """Return the steps from INIT on, the end included."""
        steps: list[Step] = list(self.steps or ())
        if self.steps is None:
            steps += map(Invoke, self.events)
            if self.wait_for is not None:
                steps.append(Wait(self.wait_for, WAIT_S))
        if not steps or not isinstance(steps[-1], Terminate):
            steps.append(Terminate())
        return steps

    def all_events(self) -> list[Any]:
        """Return the events of all invocations."""
        return [step.event for step in self.all_steps() if isinstance(step, Invoke)]


@dataclass(frozen=True)
class EmfLine:
    """A line of output that is meant to be a metric, and what it holds."""

    line: Line
    checked: Checked


# What Datadog's Forwarder reads as a metric.
# https://docs.datadoghq.com/serverless/aws_lambda/metrics/
FORWARDED = re.compile(r'\{"m":".+","v":.+,"e":\d+,"t":\[.*\].*\}')


@dataclass(frozen=True)
class Result:
    """Everything that was seen, from the start of the process to its end."""

    plan: Plan
    init: InitReport
    invocations: tuple[Invocation, ...]
    shutdown: Shutdown  # without exit status if there was no process any more
    resets: tuple[Shutdown, ...]  # before it: time-outs, deaths, ends by a step
    extensions: tuple[Registration, ...]
    calls: tuple[AwsCall, ...]
    lines: tuple[Line, ...]  # what the function wrote, without the metrics
    emf: tuple[EmfLine, ...]
    totals: Totals
    peak_memory_mb: float | None
    answered_at: tuple[float, ...]  # when each response was posted, as Line.at
    seen: tuple[Seen, ...] = ()  # what the library did in the process
    leaks: tuple[Leak, ...] = ()  # values of the seed that were written or answered
    interrupted: str | None = None  # the signal that ended the run too early
    journal: Journal = field(default_factory=Journal, repr=False)

    @property
    def forwarded(self) -> int:
        """How many lines of metrics it wrote for Datadog's Forwarder."""
        return sum(
            line.source == "stdout" and FORWARDED.fullmatch(line.text) is not None
            for line in self.lines
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the library warned of, in order."""
        return tuple(seen.text for seen in self.seen if seen.kind == "warning")

    @property
    def dropped(self) -> dict[str, dict[str, int]]:
        """How many records of metrics the library dropped, by reason and name."""
        found: dict[str, dict[str, int]] = {}
        ends = [seen.what.get("metrics") for seen in self.seen if seen.kind == "end"]
        counted = [_by_name(end) for end in ends if isinstance(end, dict)]
        if not counted:  # the process was killed: what it logged until then
            counted = [
                _by_name({"dropped_by_name": _json_of(text)})
                for text in self.warnings
                if text.startswith("lambda_ext.metrics_dropped ")
            ]
        for reasons in counted:
            for reason, names in reasons.items():
                of_reason = found.setdefault(reason, {})
                for name, number in names.items():
                    of_reason[name] = of_reason.get(name, 0) + number
        return found

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


def run(plan: Plan, progress: Progress = lambda _: None) -> Result:
    """
    Run *plan* from INIT to SIGTERM and return what was seen.

    Blocks until every process of the run has ended.  *progress* is called
    with a short text as each step begins, in a thread of the run.

    KeyboardInterrupt, as Ctrl-C raises it here, kills the function; the result
    then holds what was seen until that moment, and its words in `interrupted`.

    Raises:
        StepError: a step cannot be done, such as waiting for a line.
        EmulatorError: there is no runtime client for that Python, or no Linux.
        SeedError: AWS, as it is played here, refuses the seed.
    """
    performance = _Performance(plan, progress)
    # In a thread of its own, so that an interruption comes to this one, which
    # only waits, and never between the start of a process and its entry.
    threading.Thread(target=performance.run, name="run", daemon=True).start()
    why: str | None = None
    while not performance.done.is_set():
        try:
            if why is not None:
                performance.stop(why)  # takes the time that killing takes
            performance.done.wait()
        except KeyboardInterrupt as exc:  # a second one changes nothing
            why = why or str(exc) or "SIGINT"
    if performance.error is not None:
        raise performance.error
    if why is not None:  # also one that came just as the run ended
        performance.interrupted = performance.interrupted or why
    return performance.result()


class _Performance:
    """One run of a plan."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan = plan
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.interrupted: str | None = None
        self.journal = Journal()
        self._progress = progress
        self._stopped = threading.Event()
        self._emulator: Emulator | None = None
        self._until = math.inf  # what happens later comes of the interruption
        self._extensions: tuple[Registration, ...] = ()
        self._peak_memory_mb: float | None = None

    def run(self) -> None:
        """Perform the steps; never raises."""
        try:
            self._perform()
        except BaseException as exc:
            if self.interrupted is None:
                self.error = exc
        finally:
            self.done.set()

    def stop(self, why: str) -> None:
        """Kill the function; `run` comes to its end."""
        self.interrupted = self.interrupted or why
        self._stopped.set()
        emulator = self._emulator
        if emulator is not None and self._until == math.inf:
            emulator.drain()
        self._until = min(self._until, self.journal.now())
        if emulator is not None:
            self._look(emulator)
            emulator.close()

    def _perform(self) -> None:
        plan = self.plan
        with contextlib.ExitStack() as stack:
            aws: AwsServer | None = None
            variables: Mapping[str, str | None] = _own_aws()
            if not plan.real_aws:
                self._progress("starting AWS on loopback")
                aws = stack.enter_context(
                    AwsServer(
                        seed=plan.seed,
                        region=plan.region,
                        latency_s=plan.latency_s,
                        poll_interval_s=plan.poll_interval_s,
                        journal=self.journal,
                    )
                )
                variables = aws.environment()
            if self._stopped.is_set():
                return
            emulator = stack.enter_context(
                Emulator(
                    handler=plan.handler,
                    task_root=plan.task_root,
                    python=plan.python,
                    env={**_python_path(), **variables, **plan.environment},
                    function_name=plan.function_name,
                    timeout_s=plan.timeout_s,
                    memory_mb=plan.memory_mb,
                    region=plan.region,
                    freeze=plan.freeze,
                    observed=True,
                    journal=self.journal,
                )
            )
            self._emulator = emulator
            if not self._stopped.is_set():
                self._steps(Stage(emulator, aws, self._stopped))

    def _steps(self, stage: Stage) -> None:
        self._progress("INIT")
        works = stage.emulator.init().status == "success"
        steps = self.plan.all_steps() if works else [Terminate()]
        number, total = 0, sum(isinstance(step, Invoke) for step in steps)
        for step in steps:
            if self._stopped.is_set():
                return
            title = step.title()
            if isinstance(step, Invoke):
                number += 1
                title = f"invocation {number} of {total}"
            self._progress(title)
            self.journal.note(STEP, step)
            if isinstance(step, Terminate):
                self._look(stage.emulator)
            step.perform(stage)

    def _look(self, emulator: Emulator) -> None:
        """Note what is gone when the processes are."""
        self._extensions = tuple(emulator.agents)
        peak_mb = _peak_memory_mb(emulator)
        if peak_mb is not None:
            self._peak_memory_mb = max(peak_mb, self._peak_memory_mb or 0.0)

    def result(self) -> Result:
        """Return what was seen, as views of the journal."""
        plan = self.plan
        seen = [event for event in self.journal.events if event.at <= self._until]

        def of(kind: str) -> list[Any]:
            return [event.what for event in seen if event.kind == kind]

        inits, answers, ends = of(INIT_DONE), of(ANSWERED), of(SHUTDOWN_DONE)
        written, calls = of(LINE), of(AWS_CALL)
        init = inits[0] if inits else InitReport("interrupted", "init", "", 0.0)
        last = Shutdown("interrupted", 0.0, 0.0, None, False, False, 0.0)
        if self.interrupted is None:
            # An environment that was gone already leaves no event.
            over = not ends or ends[-1].reason != "spindown"
            last = _NOTHING_LEFT if over else ends.pop()
        lines, emf, totals = _sorted(written, _log_level(plan.environment))
        return Result(
            plan=plan,
            init=init,
            invocations=tuple(answers),
            shutdown=last,
            resets=tuple(ends),
            extensions=self._extensions,
            calls=tuple(calls),
            lines=lines,
            emf=emf,
            totals=totals,
            peak_memory_mb=self._peak_memory_mb,
            answered_at=tuple(
                call.at
                for call in of(CALL)
                if call.path.endswith(("/response", "/error"))
                and "/invocation/" in call.path
            ),
            seen=tuple(of(SEEN)),
            leaks=tuple(_leaks(plan, init, answers, written, calls)),
            interrupted=self.interrupted,
            journal=self.journal,
        )


def _by_name(counted: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return what the library counted as dropped; "" where it knows no names."""
    named = counted.get("dropped_by_name")
    if isinstance(named, dict):
        return {
            str(reason): {str(name): int(number) for name, number in names.items()}
            for reason, names in named.items()
        }
    plain = counted.get("dropped")
    plain = plain if isinstance(plain, dict) else {}
    return {str(reason): {"": int(number)} for reason, number in plain.items()}


def _json_of(text: str) -> Any:
    """Return the JSON object in a log line; an empty one if it was cut."""
    try:
        return json.loads(text[text.index("{") :])
    except ValueError:
        return {}


def _leaks(
    plan: Plan,
    init: InitReport,
    invocations: Sequence[Invocation],
    written: Iterable[Line],
    calls: Iterable[AwsCall],
) -> Iterator[Leak]:
    """Yield where values of the seed stand; in output, once a line and value."""
    leaks = Leaks(plan.seed, plan.all_events(), plan.allow_shown)
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
            lines = status.readlines()
    except OSError:  # it has just died
        return None
    for entry in lines:
        if entry.startswith("VmHWM:"):
            return int(entry.split()[1]) / 1024
    return None
