r"""
The source that asks AppConfig's own agent or extension on localhost:2772.

Chosen by ``configure(flags_source="agent")``.  It hands out the document, in
which a flag of several variants is its default variant; for a context each
such flag is asked for by itself, since the agent has the rules: one request on
loopback for an evaluation.

    GET /applications/A/environments/E/configurations/P?flag=F
    Context: key=value        one header each
    Entity-Id: value          of the key "entityId"

What cannot be sent is not sent: a value with a comma, a control character,
space at an end or a character outside Latin-1, and a key that is not of
letters, digits and underscores, would be other contexts to the agent.  Such an
evaluation has the reason ERROR.

Source: "AWS AppConfig Agent" in the AppConfig user guide, and the OpenAPI
description of its endpoint,
https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-agent.html
"""

from __future__ import annotations

import json
import re

from .. import config
from ..answer import Answer
from ..aws import connections, errors, http1, regions, retries, signing
from ..disclosure import printable
from ..exceptions import FlagError, LambdaExtError, SourceError
from ..lifecycle import clock, process
from . import rules
from .document import ERROR, UNKNOWN, Document, Evaluation

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any

    from ..values.keys import Key
    from .rules import Context

ENTITY = "entityId"  # whose value goes into the header Entity-Id, too
MAX_ENTITY = 2048  # bytes of it
_KEY = re.compile(r"[A-Za-z0-9_]+")
# Latin-1 without control characters and commas, and no space at an end.
_VALUE = re.compile(r"(?! )[ -+\--~\xa0-\xff]*(?<! )")


_all: set[weakref.ref[Agent]] = set()


@process.at_fork
def _forked() -> None:
    # A child must not read the answers to its parent.
    for agent in process.living(_all):
        agent.close()


class Agent:
    """
    Configurations as the agent hands them out, and its evaluations.

    *port* is the agent's; by default the option ``agent_port`` says it.
    """

    __slots__ = ("__weakref__", "_connections", "_port", "scope")

    name = "appconfig_agent"

    def __init__(self, port: int | None = None) -> None:
        self._port: int = config.get("agent_port") if port is None else port
        endpoint = regions.Endpoint("localhost", self._port, "", tls=False)
        self._connections = connections.Connections(endpoint)
        self.scope: Hashable = (self.name, self._port)
        process.remember(_all, self)

    def __repr__(self) -> str:
        return f"<Agent localhost:{self._port}>"

    def close(self) -> None:
        """Close the idle connections; the next request opens another."""
        self._connections.close()

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Ask for each configuration by itself."""
        return [[key] for key in wanted]

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask the agent for *wanted*."""
        found: dict[Key, Answer | LambdaExtError] = {}
        for key in wanted:
            try:
                response = self._get(_path(key.name), (), key.name, timeout_s)
            except LambdaExtError as exc:
                found[key] = exc
            else:
                version = response.headers.get("configurationversion", "")
                found[key] = Answer(_text(response.body), version)
        return found

    def evaluate(self, name: str, flag: str, context: Context) -> Evaluation:
        """
        Return what the agent says of *flag*, of the configuration *name*.

        Waits for one request on loopback, up to the option ``poll_timeout``.
        Raises nothing: what goes wrong is the reason ERROR.
        """
        try:
            headers = list(_headers(context, flag))
            target = f"{_path(name)}?flag={signing.quote(flag)}"
            timeout_s = config.get("poll_timeout") or None
            response = self._get(target, headers, name, timeout_s)
        except LambdaExtError as exc:
            return Evaluation(flag, enabled=False, reason=ERROR, error=exc)
        version = response.headers.get("configurationversion", "")
        try:
            body = json.dumps({flag: json.loads(response.body)})
        except (RecursionError, ValueError):
            body = json.dumps({flag: None})
        found = Document(body, version).evaluate(flag)
        if found.error is None and found.variant is not None:
            return found.because(UNKNOWN)
        return found

    def _get(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        label: str,
        timeout_s: float | None,
    ) -> http1.Response:
        """Return a response with the status 200."""
        ends_at = clock.monotonic() + retries.budget(timeout_s)
        lines = [f"GET {target} HTTP/1.1", f"host: localhost:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        request = "\r\n".join((*lines, "", "")).encode("latin-1")
        try:
            response = self._connections.exchange(lambda: request, ends_at)
        except TimeoutError:
            raise self._failed(
                errors.too_late(
                    "AppConfig's agent did not answer in time",
                    service="appconfigdata",
                    key=label,
                )
            ) from None
        except (http1.ProtocolError, OSError) as exc:
            msg = f"no agent answers on localhost:{self._port}: {type(exc).__name__}"
            raise self._failed(
                errors.unreachable(msg, service="appconfigdata", key=label)
            ) from None
        if response.status == 200:
            return response
        # Its text may quote the context.
        code = "ResourceNotFoundException" if response.status == 404 else ""
        raise self._failed(
            errors.from_code(
                code, "", service="appconfigdata", key=label, status=response.status
            )
        )

    def _failed(self, error: SourceError) -> SourceError:
        error.source = self.name
        return error


def _path(name: str) -> str:
    application, environment, profile = map(signing.quote, name.split("/"))
    return (
        f"/applications/{application}/environments/{environment}"
        f"/configurations/{profile}"
    )


def _headers(context: Context, flag: str) -> list[tuple[str, str]]:
    """Return the headers that say *context*; FlagError if none can."""
    headers = []
    shown = printable(flag, 128)
    for key, value in context.items():
        text = rules.text_of(rules.scalar(value))
        if text is None:  # it counts as missing
            continue
        if not _KEY.fullmatch(str(key)):
            msg = (
                f"the context of '{shown}' has a key that AppConfig's agent cannot be"
                " sent: use letters, digits and underscores"
            )
            raise FlagError(msg, flag=flag)
        if not _VALUE.fullmatch(text):
            msg = (
                f"the context value {key[:128]!r} of '{shown}' cannot be sent to AppConfig's"
                " agent: it has a comma, a control character, space at an end or a"
                " character outside Latin-1"
            )
            raise FlagError(msg, flag=flag)
        headers.append(("context", f"{key}={text}"))
        if key == ENTITY:
            if len(text) > MAX_ENTITY:
                msg = f"the context value {key!r} of '{shown}' is longer than 2 KB"
                raise FlagError(msg, flag=flag)
            headers.append(("entity-id", text))
    return headers


def _text(body: bytes) -> Any:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
