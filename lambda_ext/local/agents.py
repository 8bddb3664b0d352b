"""
Extensions: which are registered, for which events, and in which state each is.

    Started -register-> Registered -next-> Ready -an event-> Running -next-> Ready
    Registered -init/error-> InitError      Registered, Ready, Running -exit/error-> ExitError

Any other step is refused, in the words of AWS's own emulator.  A client that
vanishes while it polls is not noticed: its next event is lost.

Threads
    Everything happens under the environment's one condition, ``changed``.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from .outcomes import Registration
from .server import TEXT, Abandoned, Answer, Refused, Request

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

LIMIT = 10  # extensions per environment: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
EVENTS = ("INVOKE", "SHUTDOWN")


class Agent:
    """One extension."""

    def __init__(self, name: str, *, internal: bool) -> None:
        self.id = str(uuid.uuid4())
        self.name = name
        self.internal = internal
        self.events: tuple[str, ...] = ()
        self.state = "Started"
        self.error_type: str | None = None
        self.event: Answer | None = None  # what its poll is to be answered with
        self.notified = False  # it took the SHUTDOWN event
        self.not_allowed = "State transition is not allowed"

    def step(self, state: str, *, allowed: tuple[str, ...]) -> None:
        """Go to *state*, or refuse if that does not follow from the present one."""
        if self.state not in allowed:
            raise Refused(
                403,
                "Extension.InvalidExtensionState",
                f"State transition from {self.state} to {state} failed for extension"
                f" {self.id}. Error: {self.not_allowed}",
            )
        self.state = state

    def registration(self, telemetry: tuple[str, ...] = ()) -> Registration:
        """Return what is known of it, unchanging."""
        return Registration(
            self.name,
            self.events,
            self.internal,
            self.state,
            self.error_type,
            telemetry,
        )


class Agents:
    """The extensions of one environment."""

    def __init__(
        self,
        changed: threading.Condition,
        *,
        instances: bool,
        gone: Callable[[], bool],
    ) -> None:
        self.open = True  # may one still register?
        self._changed = changed
        self._instances = instances
        self._gone = gone
        self._known: dict[str, Agent] = {}
        self._shutdown: Answer | None = None
        self.first_error: str | None = None

    def __iter__(self) -> Any:
        return iter(self._known.values())

    def launched(self, name: str) -> Agent:
        """Note that the extension *name* was started from the extensions folder."""
        agent = self._agent(name, internal=False)
        self._known[agent.id] = agent
        return agent

    def registered(self, *, internal: bool) -> bool:
        """Return whether any extension of that kind has registered."""
        return any(
            agent.internal is internal and agent.state != "Started" for agent in self
        )

    def all_registered(self) -> bool:
        """Return whether every extension that was launched has registered."""
        return all(agent.state != "Started" for agent in self)

    def all_ready(self, event: str | None = None) -> bool:
        """Return whether all (that take *event*) have asked for the next event."""
        return all(
            agent.state == "Ready"
            for agent in self
            if event is None or event in agent.events
        )

    def tell(self, event: str, payload: dict[str, Any]) -> None:
        """Hand *event* to the extensions that take it and wait for one."""
        for agent in self:
            if event in agent.events and agent.state == "Ready":
                agent.state = "Running"
                agent.event = Answer.json(
                    200,
                    {"eventType": event, **payload},
                    **{"Lambda-Extension-Event-Identifier": str(uuid.uuid4())},
                )
        self._changed.notify_all()

    def tell_shutdown(self, reason: str, deadline_ms: int) -> None:
        """Hand SHUTDOWN to the external subscribers, now or when they next ask."""
        event = {
            "eventType": "SHUTDOWN",
            "deadlineMs": deadline_ms,
            "shutdownReason": reason,
        }
        # JSON that calls itself text, and no event identifier, as from AWS.
        self._shutdown = Answer.json(200, event, Content_Type=TEXT)
        for agent in self:
            if self._takes_shutdown(agent) and agent.state == "Ready":
                agent.state = "Running"
                agent.event = self._shutdown
        self._changed.notify_all()

    def name_of(self, request: Request) -> str | None:
        """Return which extension sent *request*, as far as it says so."""
        agent = self._known.get(request.headers.get("Lambda-Extension-Identifier", ""))
        name = request.headers.get("Lambda-Extension-Name")
        return agent.name if agent is not None else name

    # What extensions ask, in the order in which AWS checks it.

    def register(self, name: str, body: bytes, about: dict[str, str]) -> Answer:
        """Answer ``POST /extension/register``."""
        if not name:
            raise Refused(403, "Extension.InvalidExtensionName", "Empty extension name")
        events = _events(body)
        agent = next((a for a in self if a.name == name and not a.internal), None)
        self._check_events(events, internal=agent is None)
        if not self.open:
            raise Refused(
                403,
                "Extension.RegistrationClosed",
                "Extension registration closed already",
            )
        if agent is None:
            agent = self._new_internal(name)
        else:
            agent.step("Registered", allowed=("Started",))
        agent.events = events
        self._changed.notify_all()
        return Answer.json(200, about, **{"Lambda-Extension-Identifier": agent.id})

    def next(self, identifier: str | None) -> Answer:
        """Answer ``GET /extension/event/next``, as late as there is an event."""
        agent = self._find(self._id(identifier))
        agent.step("Ready", allowed=("Registered", "Running"))
        agent.event = None
        if self._shutdown is not None and self._takes_shutdown(agent):
            agent.state, agent.event = "Running", self._shutdown
        self._changed.notify_all()
        while agent.event is None:
            if self._gone():
                raise Abandoned
            self._changed.wait()
        answer, agent.event = agent.event, None
        if answer is self._shutdown:
            agent.notified = True
            self._changed.notify_all()
        return answer

    def report(
        self, identifier: str | None, error_type: str | None, *, init: bool
    ) -> Answer:
        """Answer ``POST /extension/init/error`` or ``/extension/exit/error``."""
        known = self._id(identifier)
        if not error_type:
            raise Refused(
                403,
                "Extension.MissingHeader",
                "Lambda-Extension-Function-Error-Type not found",
            )
        agent = self._find(known)
        if init:
            agent.step("InitError", allowed=("Registered", "InitError"))
        elif agent.state == "InitError":
            agent.step("Exited", allowed=())
        else:
            agent.step(
                "ExitError", allowed=("Registered", "Ready", "Running", "ExitError")
            )
        agent.error_type = error_type
        kind = "Extension.InitError" if init else "Extension.ExitError"
        self.first_error = self.first_error or kind
        self._changed.notify_all()
        return Answer.accepted()

    def named_by(self, identifier: str | None) -> str:
        """Return the name of the extension that has *identifier*, or refuse."""
        return self._find(self._id(identifier)).name

    def _id(self, identifier: str | None) -> str:
        """Return *identifier* if it is one, or refuse."""
        if not identifier:
            raise Refused(
                403,
                "Extension.MissingExtensionIdentifier",
                "Missing Lambda-Extension-Identifier header",
            )
        try:
            return str(uuid.UUID(identifier))
        except ValueError:
            raise Refused(
                403,
                "Extension.InvalidExtensionIdentifier",
                "Invalid Lambda-Extension-Identifier",
            ) from None

    def _find(self, identifier: str) -> Agent:
        """Return the extension that has *identifier*, or refuse."""
        if identifier not in self._known:
            raise Refused(
                403,
                "Extension.UnknownExtensionIdentifier",
                "Unknown extension " + identifier,
            )
        return self._known[identifier]

    def _agent(self, name: str, *, internal: bool) -> Agent:
        agent = Agent(name, internal=internal)
        if self._instances:  # where AWS's code is another one
            agent.not_allowed = agent.not_allowed.lower()
        return agent

    def _takes_shutdown(self, agent: Agent) -> bool:
        return not agent.internal and "SHUTDOWN" in agent.events

    def _check_events(self, events: tuple[str, ...], *, internal: bool) -> None:
        kind = "Extension.InvalidEventType"
        if self._instances and internal and events:
            raise Refused(403, kind, "No events allowed for internal extensions")
        for event in events:
            if event not in EVENTS or (self._instances and event == "INVOKE"):
                raise Refused(403, kind, f"{event}: ErrorInvalidEventType")
            if event == "SHUTDOWN" and internal:
                raise Refused(
                    403,
                    kind,
                    "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
                )

    def _new_internal(self, name: str) -> Agent:
        if len(self._known) >= LIMIT:
            raise Refused(
                403,
                "Extension.TooManyExtensions",
                f"Extension limit ({LIMIT}) reached",
            )
        if any(agent.name == name for agent in self):
            raise Refused(
                403,
                "Extension.InvalidExtensionState",
                "Extension with this name already registered",
            )
        agent = self._agent(name, internal=True)
        agent.state = "Registered"
        self._known[agent.id] = agent
        return agent


def _events(body: bytes) -> tuple[str, ...]:
    """Return the events that a registration's body asks for, or refuse it."""
    problem = ""
    events: Any = []
    try:
        wanted = json.loads(body)
    except ValueError as exc:
        problem = str(exc)
    else:
        if not isinstance(wanted, dict):
            problem = "not a JSON object"
        elif wanted.get("configurationKeys") is not None:
            problem = (
                "configurationKeys are deprecated; use environment variables instead"
            )
        else:
            events = wanted.get("events") or []
            if not isinstance(events, list) or not all(
                isinstance(event, str) for event in events
            ):
                problem = "events is not a list of strings"
    if problem:
        raise Refused(403, "InvalidRequestFormat", problem)
    return tuple(dict.fromkeys(events))
