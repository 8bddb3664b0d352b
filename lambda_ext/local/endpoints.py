"""Which request is which question to the extensions and to the runtime's side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .server import TEXT, Answer, Refused, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from .environment import Environment

    Endpoint = Callable[[Environment, Request], Answer]

_ID = "Lambda-Extension-Identifier"
ZONE = "use1-az1"  # the id of a zone: AWS's do not follow from the region
_ERROR_TYPE = "Lambda-Extension-Function-Error-Type"


def respond(environment: Environment, request: Request) -> Answer:
    """Answer one request; call it under the environment's condition."""
    path = request.path.split("?", 1)[0]
    *head, request_id, kind = path.rsplit("/", 2)
    if head == ["/2018-06-01/runtime/invocation"] and kind in ("response", "error"):
        methods = _result(request_id, error=kind == "error")
    elif environment.snap_start and path in _SNAP_START:
        methods = _SNAP_START[path]
    elif path in _ALWAYS:
        methods = _ALWAYS[path]
    else:
        return _text(404, "404 page not found\n")
    if request.method not in methods:
        return Answer(405)
    return methods[request.method](environment, request)


def _text(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), {"Content-Type": TEXT})


def _result(request_id: str, *, error: bool) -> dict[str, Endpoint]:
    return {"POST": lambda env, req: env.workers.respond(request_id, req, error=error)}


def _register(environment: Environment, request: Request) -> Answer:
    features = request.headers.get("Lambda-Extension-Accept-Feature", "")
    wanted = [feature.strip().lower() for feature in features.split(",")]
    return environment.agents.register(
        request.headers.get("Lambda-Extension-Name") or "",
        request.body,
        environment.about(account="accountid" in wanted),
    )


def _extension_error(*, init: bool) -> dict[str, Endpoint]:
    return {
        "POST": lambda env, req: env.agents.report(
            req.headers.get(_ID), req.headers.get(_ERROR_TYPE), init=init
        )
    }


def _subscribe(environment: Environment, request: Request) -> Answer:
    telemetry = environment.telemetry
    if not telemetry.supported:
        return _NO_TELEMETRY(environment, request)
    name = environment.agents.named_by(request.headers.get(_ID))
    return telemetry.subscribe(name, request.body)


def _credentials(environment: Environment, request: Request) -> Answer:
    """Hand out the credentials that a snapshot must not contain."""
    variables = environment.settings.variables
    token = variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if token is None or request.headers.get("Authorization") != token:
        return _text(404, "cannot get credentials for the provided token\n")
    credentials = {
        "AccessKeyId": "testing",
        "SecretAccessKey": "testing",
        "Token": "testing",
        "Expiration": "2100-01-01T00:00:00Z",
    }
    return _text(200, json.dumps(credentials))


def _metadata(environment: Environment, request: Request) -> Answer:
    """Say in which zone the environment is, to those who know the token."""
    token = environment.settings.variables.get("AWS_LAMBDA_METADATA_TOKEN")
    if token is None or request.headers.get("Authorization") != f"Bearer {token}":
        return _text(401, "the token is not that of this environment\n")
    zone = {"AvailabilityZoneID": ZONE}
    return Answer(200, json.dumps(zone).encode(), {"Content-Type": "application/json"})


def _unsupported(api: str) -> dict[str, Endpoint]:
    """Answer a request for telemetry or logs as AWS's own emulator does."""
    refusal = Refused(202, api + ".NotSupported", api + " API is not supported")
    return {"PUT": lambda env, req: refusal.answer()}


_NO_TELEMETRY = _unsupported("Telemetry")["PUT"]

_ALWAYS: dict[str, dict[str, Endpoint]] = {
    "/2018-06-01/ping": {"GET": lambda env, req: _text(200, "pong")},
    "/2018-06-01/runtime/invocation/next": {"GET": lambda env, req: env.workers.next()},
    "/2018-06-01/runtime/init/error": {
        "POST": lambda env, req: env.workers.init_failed(req)
    },
    "/2020-01-01/extension/register": {"POST": _register},
    "/2020-01-01/extension/event/next": {
        "GET": lambda env, req: env.agents.next(req.headers.get(_ID))
    },
    "/2020-01-01/extension/init/error": _extension_error(init=True),
    "/2020-01-01/extension/exit/error": _extension_error(init=False),
    "/2026-01-15/metadata/execution-environment": {"GET": _metadata},
    "/2022-07-01/telemetry": {"PUT": _subscribe},
    "/2020-08-15/logs": _unsupported("Logs"),
}

_SNAP_START: dict[str, dict[str, Endpoint]] = {
    "/2018-06-01/runtime/restore/next": {
        "GET": lambda env, req: env.workers.restore_next()
    },
    "/2018-06-01/runtime/restore/error": {
        "POST": lambda env, req: env.workers.restore_failed(req)
    },
    "/2021-04-23/credentials": {"GET": _credentials},
}
