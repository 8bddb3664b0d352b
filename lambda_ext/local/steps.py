"""
What a run does, one step after the other, from INIT to SIGTERM.

The events of ``lambda-ext run`` and the orders of the demo compile to these.
A step that needs a process does nothing where it has died; the run goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .aws_server import Fault
from .seeds import Parameter

if TYPE_CHECKING:
    from .aws_server import AwsServer
    from .emulator import Emulator

WAIT_S = 30.0  # how long a line is waited for


class StepError(RuntimeError):
    """A step cannot be done; the message says what to change."""


@dataclass
class Stage:
    """Where steps are performed."""

    emulator: Emulator
    aws: AwsServer | None  # None: AWS itself
    stopped: threading.Event = field(default_factory=threading.Event)

    def need_aws(self, step: Step) -> AwsServer:
        """Return the AWS on this machine, which AWS itself is not."""
        if self.aws is None:
            msg = f"{step.title()}: only with the AWS on this machine"
            raise StepError(msg)
        return self.aws


class Step(Protocol):
    """One thing to do."""

    def title(self) -> str:
        """Say what is done, in a few words."""
        ...

    def perform(self, stage: Stage) -> None:
        """Do it, and return when it is done."""
        ...


@dataclass(frozen=True)
class Invoke:
    """Invoke the function with *event*, and wait until it is frozen again."""

    event: Any = field(default_factory=dict, repr=False)

    def title(self) -> str:
        """Say what is done."""
        return "invocation"

    def perform(self, stage: Stage) -> None:
        """Invoke."""
        stage.emulator.invoke(self.event)
        stage.emulator.wait_frozen()


@dataclass(frozen=True)
class Wait:
    """
    Let the function go on until it has written *text*, or for *seconds*.

    The environment is thawed meanwhile, as if Lambda had not come to freeze it.
    """

    text: str | None = None
    seconds: float = WAIT_S

    def title(self) -> str:
        """Say what is done."""
        what = f"{self.seconds:g} s" if self.text is None else repr(self.text)
        return f"waiting for {what}"

    def perform(self, stage: Stage) -> None:
        """Thaw, wait, freeze."""
        emulator = stage.emulator
        if emulator.pid is None:
            return
        with _thawed(emulator):
            if self.text is None:
                stage.stopped.wait(self.seconds)
                return
            try:
                emulator.wait_for_line(self.text, self.seconds)
            except TimeoutError:
                msg = (
                    f"the function did not write {self.text!r} within"
                    f" {self.seconds:g} seconds of its last response"
                )
                raise StepError(msg) from None


@dataclass(frozen=True)
class Freeze:
    """Keep the function frozen for *seconds*, between two invocations."""

    seconds: float

    def title(self) -> str:
        """Say what is done."""
        return f"frozen for {self.seconds:g} s"

    def perform(self, stage: Stage) -> None:
        """Freeze, if it is not frozen, and wait."""
        if stage.emulator.pid is not None:
            stage.emulator.freeze()
            stage.stopped.wait(self.seconds)


@dataclass(frozen=True)
class Do:
    """Let the function go on while *action*, which is given the emulator, runs."""

    what: str
    action: Callable[[Emulator], object]

    def title(self) -> str:
        """Say what is done."""
        return self.what

    def perform(self, stage: Stage) -> None:
        """Thaw, act, freeze."""
        if stage.emulator.pid is not None:
            with _thawed(stage.emulator):
                self.action(stage.emulator)


@dataclass(frozen=True)
class Rotate:
    """Give a secret, or a parameter, a new value; the repr shows the name only."""

    name: str
    value: str | bytes | Parameter = field(repr=False)

    def title(self) -> str:
        """Say what is done."""
        return f"rotating {self.name!r}"

    def perform(self, stage: Stage) -> None:
        """Put the new value."""
        aws = stage.need_aws(self)
        if isinstance(self.value, Parameter):
            aws.put_parameter(self.name, self.value)
        else:
            aws.put_secret(self.name, self.value)


@dataclass(frozen=True)
class Deploy:
    """Give a configuration, "app/env/profile", another version; see `AwsServer`."""

    name: str
    value: Any = field(repr=False)
    flags: bool = False

    def title(self) -> str:
        """Say what is done."""
        return f"deploying {self.name!r}"

    def perform(self, stage: Stage) -> None:
        """Deploy it to all clients at once."""
        stage.need_aws(self).deploy(self.name, self.value, flags=self.flags)


@dataclass(frozen=True)
class Throttle:
    """Answer the next calls to AWS with ThrottlingException, see `Fault`."""

    times: int | None = None
    operation: str | None = None

    def title(self) -> str:
        """Say what is done."""
        return f"throttling {self.operation or 'AWS'}"

    def perform(self, stage: Stage) -> None:
        """Begin to throttle."""
        stage.need_aws(self).fail(Fault("throttle", self.times, self.operation))


@dataclass(frozen=True)
class Break:
    """Let the next calls to AWS fail: "error", "close" or "hang", see `Fault`."""

    how: str = "error"
    times: int | None = None
    operation: str | None = None

    def title(self) -> str:
        """Say what is done."""
        return f"breaking {self.operation or 'AWS'} ({self.how})"

    def perform(self, stage: Stage) -> None:
        """Begin to fail."""
        stage.need_aws(self).fail(Fault(self.how, self.times, self.operation))


@dataclass(frozen=True)
class Repair:
    """End every `Throttle` and `Break`."""

    def title(self) -> str:
        """Say what is done."""
        return "AWS works again"

    def perform(self, stage: Stage) -> None:
        """Let AWS answer as before."""
        stage.need_aws(self).repair()


@dataclass(frozen=True)
class Kill:
    """Send the function's processes a signal that Lambda does not announce."""

    signal: signal.Signals = signal.SIGKILL

    def title(self) -> str:
        """Say what is done."""
        return self.signal.name

    def perform(self, stage: Stage) -> None:
        """Send it; the next invocation finds out."""
        pid = stage.emulator.pid
        if pid is not None:
            os.killpg(pid, self.signal)


@dataclass(frozen=True)
class Terminate:
    """End the environment as Lambda does; the next invocation is a cold start."""

    reason: str = "spindown"

    def title(self) -> str:
        """Say what is done."""
        return "SIGTERM"

    def perform(self, stage: Stage) -> None:
        """Send SIGTERM and wait for the end."""
        stage.emulator.shutdown(self.reason)


@contextlib.contextmanager
def _thawed(emulator: Emulator) -> Iterator[None]:
    """Let the processes go on in the block; frozen afterwards if they were."""
    frozen = emulator.frozen
    emulator.thaw()
    yield
    if frozen and emulator.pid is not None:
        emulator.freeze()
