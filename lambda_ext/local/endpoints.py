"""Which request is which question to the extensions and to the runtime's side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .server import Answer, Refused, Request

if TYPE_CHECKING:
    from .environment import Environment

_RUNTIME = "/2018-06-01/runtime/"
_EXTENSION = "/2020-01-01/extension/"
_ID = "Lambda-Extension-Identifier"
_RESULT = re.compile(_RUNTIME + r"invocation/([^/]+)/(response|error)")


def respond(environment: Environment, request: Request) -> Answer:
    """Answer one request; call it under the environment's condition."""
    path = request.path.split("?", 1)[0]
    route = f"{request.method} {path}"
    if path.startswith(_RUNTIME):
        return _runtime(environment, request, route)
    if path.startswith(_EXTENSION):
        return _extension(environment, request, route)
    if route == "GET /2018-06-01/ping":
        return Answer(200, b"pong", {"Content-Type": "text/plain; charset=utf-8"})
    if route == "PUT /2022-07-01/telemetry":
        return _unsupported("Telemetry")
    if route == "PUT /2020-08-15/logs":
        return _unsupported("Logs")
    return _not_found()


def _runtime(environment: Environment, request: Request, route: str) -> Answer:
    workers = environment.workers
    result = _RESULT.fullmatch(route.partition(" ")[2])
    if result and request.method == "POST":
        request_id, kind = result.groups()
        return workers.respond(request_id, request, error=kind == "error")
    if route == f"GET {_RUNTIME}invocation/next":
        return workers.next()
    if route == f"POST {_RUNTIME}init/error":
        return workers.init_failed(request)
    if environment.snap_start:
        if route == f"GET {_RUNTIME}restore/next":
            return workers.restore_next()
        if route == f"POST {_RUNTIME}restore/error":
            return workers.restore_failed(request)
    return _not_found()


def _extension(environment: Environment, request: Request, route: str) -> Answer:
    agents, headers = environment.agents, request.headers
    if route == f"POST {_EXTENSION}register":
        features = headers.get("Lambda-Extension-Accept-Feature", "")
        about = environment.about(
            account="accountid" in features.lower().replace(" ", "").split(",")
        )
        name = headers.get("Lambda-Extension-Name") or ""
        return agents.register(name, request.body, about)
    if route == f"GET {_EXTENSION}event/next":
        return agents.next(headers.get(_ID))
    for kind in ("init", "exit"):
        if route == f"POST {_EXTENSION}{kind}/error":
            error_type = headers.get("Lambda-Extension-Function-Error-Type")
            return agents.report(headers.get(_ID), error_type, init=kind == "init")
    return _not_found()


def _not_found() -> Answer:
    return Answer(
        404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"}
    )


def _unsupported(api: str) -> Answer:
    """Say what AWS's own emulator says to those who ask for telemetry."""
    return Refused(202, api + ".NotSupported", api + " API is not supported").answer()
