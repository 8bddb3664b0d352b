"""
The runtime's side of the Runtime API: which worker has which invocation.

    Started -next-> Ready -an invocation-> Running -response-> sent -next-> Ready
    Started -init/error-> InitError
    Started -restore/next-> RestoreReady -a restore-> Restoring -next-> Ready

`OneWorker` is that machine.  `ManyWorkers` is the pool of Lambda Managed
Instances, where each waiting ``/next`` is an idle worker.

Threads
    Everything happens under the environment's one condition, ``changed``.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

from .server import Abandoned, Answer, Refused, Request

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

SENT = "RuntimeResponseSentState"  # as AWS calls it in its answers
RESTORE_ERROR = "RuntimeRestoreErrorState"
# Bytes of a response:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_PAYLOAD = 6 * 1024 * 1024 + 100


class Work:
    """One invocation, from its caller to the runtime and back."""

    def __init__(self, event: bytes) -> None:
        self.id = str(uuid.uuid4())
        self.trace_id = (
            f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"
            f";Parent={uuid.uuid4().hex[:16]};Sampled=0"
        )
        self.event = event
        self.headers: dict[str, str] = {}
        self.deadline_ms = 0  # wall clock
        self.status: str | None = None  # None: not answered
        self.payload = b""
        self.error_type: str | None = None
        self.content_type: str | None = None
        self.began_at = 0.0  # wall clock, as the next one
        self.answered_at = 0.0  # the runtime's response has come
        self.runtime_done_at = 0.0  # it has asked for the next one
        self.finished_at = 0.0  # the extensions have, too

    def handed_out(self) -> Answer:
        """Return what ``/next`` is answered with."""
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": self.id,
            "Lambda-Runtime-Deadline-Ms": str(self.deadline_ms),
            "Lambda-Runtime-Trace-Id": self.trace_id,
            **self.headers,
        }
        return Answer(200, self.event, {k: v for k, v in headers.items() if v})

    def respond(self, request: Request) -> Answer:
        """Take the runtime's response; what is too large becomes an error."""
        mode = request.headers.get("Lambda-Runtime-Function-Response-Mode")
        if mode not in (None, "", "streaming"):
            raise Refused(
                400, "InvalidFunctionResponseMode", "Invalid function response mode"
            )
        self.content_type = request.headers.get("Content-Type")
        self.answered_at = time.time()
        if len(request.body) > MAX_PAYLOAD:
            self.fail(
                "error",
                "Function.ResponseSizeTooLarge",
                "Response payload size exceeded maximum allowed payload size"
                f" ({MAX_PAYLOAD} bytes).",
            )
            return Answer.json(
                413,
                {
                    "errorMessage": "Exceeded maximum allowed payload size"
                    f" ({MAX_PAYLOAD} bytes).",
                    "errorType": "RequestEntityTooLarge",
                },
            )
        self.status, self.payload = "success", request.body
        return Answer.accepted()

    def respond_error(self, request: Request) -> Answer:
        """Take the error that the handler raised."""
        self.status, self.payload = "error", request.body
        self.answered_at = time.time()
        self.content_type = request.headers.get("Content-Type")
        self.error_type = request.headers.get("Lambda-Runtime-Function-Error-Type")
        return Answer.accepted()

    def fail(
        self, status: str, error_type: str | None, message: str | None = None
    ) -> None:
        """Answer the caller in the platform's name."""
        self.status, self.error_type = status, error_type
        error = {"errorType": error_type, "errorMessage": message}
        told = {name: text for name, text in error.items() if text is not None}
        self.payload = json.dumps(told, separators=(",", ":")).encode()
        self.content_type = "application/json"


class OneWorker:
    """The runtime of a function: one invocation at a time."""

    def __init__(
        self,
        changed: threading.Condition,
        *,
        gone: Callable[[], bool],
        close_registration: Callable[[], None],
    ) -> None:
        self.state = "Started"
        self.current: Work | None = None
        self.init_error: Request | None = None
        self.restore_error: Request | None = None
        self._changed = changed
        self._gone = gone
        self._close_registration = close_registration

    def ready(self) -> bool:
        """Return whether it waits for an invocation."""
        return self.state == "Ready"

    def parked(self) -> bool:
        """Return whether it waits to be restored from a snapshot."""
        return self.state == "RestoreReady"

    def offer(self, work: Work) -> None:
        """Hand *work* to the runtime."""
        self.current, self.state = work, "Running"
        self._changed.notify_all()

    def restore(self) -> None:
        """Let the parked runtime go on, as after a restore."""
        self.state = "Restoring"
        self._changed.notify_all()

    # What the runtime asks.

    def next(self) -> Answer:
        """Answer ``GET /runtime/invocation/next``, as late as there is work."""
        if self.state != "Running":  # where it is handed out again
            self._step("Ready", allowed=("Started", "Restoring", SENT))
            self.current = None
            self._close_registration()
            self._wait(lambda: self.state != "Ready")
        if self.current is None:
            raise Abandoned
        return self.current.handed_out()

    def respond(self, request_id: str, request: Request, *, error: bool) -> Answer:
        """Answer ``POST /runtime/invocation/{id}/response`` or ``/error``."""
        work = self.current
        if work is None or work.id != request_id:
            raise Refused(400, "InvalidRequestID", "Invalid request ID")
        state = "InvocationErrorResponse" if error else "InvocationResponse"
        self._step(state, allowed=("Running",))
        answer = work.respond_error(request) if error else work.respond(request)
        self.state = SENT
        self._changed.notify_all()
        return answer

    def init_failed(self, request: Request) -> Answer:
        """Answer ``POST /runtime/init/error``."""
        if self.state == "Restoring":
            return self.restore_failed(request)
        self._step("InitError", allowed=("Started",))
        self.init_error = request
        self._changed.notify_all()
        return Answer.accepted()

    def restore_next(self) -> Answer:
        """Answer ``GET /runtime/restore/next``, as late as there is a restore."""
        self._step("Ready", allowed=("Started",))
        self.state = "RestoreReady"
        self._close_registration()
        self._wait(lambda: self.state != "RestoreReady")
        return Answer(200)

    def restore_failed(self, request: Request) -> Answer:
        """Answer ``POST /runtime/restore/error``."""
        self._step(RESTORE_ERROR, allowed=("Restoring",))
        self.restore_error = request
        self._changed.notify_all()
        return Answer.accepted()

    def _wait(self, over: Callable[[], bool]) -> None:
        self._changed.notify_all()
        while not over():
            if self._gone():
                raise Abandoned
            self._changed.wait()

    def _step(self, state: str, *, allowed: tuple[str, ...]) -> None:
        if self.state not in allowed:
            raise Refused(
                403,
                "InvalidStateTransition",
                f"State transition from {self.state} to {state} failed for runtime."
                " Error: State transition is not allowed",
            )
        self.state = state


class ManyWorkers(OneWorker):
    """The workers of a managed instance: as many invocations as wait for one."""

    def __init__(
        self,
        changed: threading.Condition,
        *,
        gone: Callable[[], bool],
        close_registration: Callable[[], None],
    ) -> None:
        super().__init__(changed, gone=gone, close_registration=close_registration)
        self._idle: list[list[Work]] = []  # one slot per waiting /next
        self._under_way: dict[str, Work] = {}

    @property
    def idle(self) -> int:
        """How many workers wait for an invocation."""
        return len(self._idle)

    def offer(self, work: Work) -> None:
        """Hand *work* to the worker that has waited longest."""
        if not self._idle:
            raise Refused(400, "Runtime.Unavailable", "no idle runtimes")
        work.headers["Lambda-Runtime-Invocation-Id"] = str(uuid.uuid4())
        self._under_way[work.id] = work
        self._idle.pop(0).append(work)
        self._changed.notify_all()

    def next(self) -> Answer:
        """Answer ``GET /runtime/invocation/next``, as late as there is work."""
        slot: list[Work] = []
        self._idle.append(slot)
        self.state = "Ready"
        self._close_registration()
        self._wait(lambda: bool(slot))
        return slot[0].handed_out()

    def respond(self, request_id: str, request: Request, *, error: bool) -> Answer:
        """Answer ``POST /runtime/invocation/{id}/response`` or ``/error``."""
        work = self._under_way.get(request_id)
        if work is None:
            raise Refused(400, "InvalidRequestID", "Invalid request ID")
        answer = work.respond_error(request) if error else work.respond(request)
        del self._under_way[request_id]
        self._changed.notify_all()
        return answer
