"""
The source that asks AWS's own extension (a layer), a cache on localhost:2773.

Chosen explicitly, by ``configure(source="aws_extension")``.  One request for
each value, since it has no batch and no path; its own cache answers for up to
``SECRETS_MANAGER_TTL`` / ``SSM_PARAMETER_STORE_TTL`` seconds, which come on
top of ours.  It is not ready in INIT: values are loaded when first read.

Source: "Using Parameter Store parameters in Lambda functions",
https://docs.aws.amazon.com/systems-manager/latest/userguide/ps-integration-lambda-extensions.html
"""

from __future__ import annotations

import json
import os
import sys

from ...aws import errors, http1, native
from ...aws.signing import quote
from ...exceptions import ConfigurationError, LambdaExtError, SourceError
from ...lifecycle import clock
from .. import keys
from . import answers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any

    from ...answer import Answer
    from ..keys import Key

PORT = 2773  # unless PARAMETERS_SECRETS_EXTENSION_HTTP_PORT says otherwise
LIMIT_S = 5.0  # of all that one read waits for; the layer has none by itself
NOT_READY = "not ready to serve traffic"  # HTTP 400, while it starts
# No name is resolved: it is asked in the clear, with a token, and what a name
# server calls "localhost" may be elsewhere.
ADDRESSES = ((2, "127.0.0.1"), (10 if sys.platform == "linux" else 30, "::1"))
SOCK_STREAM = 1


class AwsExtension:
    """
    Secrets and parameters as the layer hands them out.

    It is asked on this machine only, and a read waits for at most 5 s,
    ``load_timeout``, or what is left of the invocation, however slowly the
    layer answers.  The layer's own variable says its port.
    """

    __slots__ = ("_port", "scope")

    name = "aws_extension"
    at_init = False  # the layer serves in INVOKE only

    def __init__(self) -> None:
        variable = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"
        raw = os.environ.get(variable) or str(PORT)
        if not (raw.isascii() and raw.isdigit() and 0 < int(raw) < 65536):
            msg = f"{variable} must be a port from 1 to 65535"
            raise ConfigurationError(msg)
        self._port = int(raw)
        self.scope: Hashable = (self.name, self._port)

    def __repr__(self) -> str:
        return f"<AwsExtension localhost:{self._port}>"

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Ask for each by itself."""
        return [[key] for key in wanted]

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask the layer for the only one of *wanted*; more are asked for singly."""
        if len(wanted) > 1:
            return {}
        limit_s = LIMIT_S if timeout_s is None else min(timeout_s, LIMIT_S)
        (key,) = wanted
        try:
            outcome = self._one(key, clock.run_time() + limit_s)
        except LambdaExtError as exc:
            outcome = exc
        if isinstance(outcome, SourceError):
            outcome.source = self.name
        return {key: outcome}

    def _one(self, key: Key, ends_at: float) -> Answer | LambdaExtError:
        secret = key.operation == keys.SECRET
        service = answers.SECRETS if secret else answers.PARAMETERS
        status, body = self._get(_target(key), key, service, ends_at)
        document = _document(body)
        if status == 200:
            if secret:
                return answers.secret(_decoded(document), key)
            return answers.parameter(document.get("Parameter"), key)
        if NOT_READY in body:
            return errors.unreachable(
                "the layer is not ready yet", service=service, key=key.label
            )
        code = str(document.get("__type") or document.get("code") or "")
        if not code:  # the layer words the errors of AWS in a sentence
            words = body.replace(":", " ").replace(",", " ").split()
            code = next((word for word in words if errors.is_known(word)), "")
        # Its text may be anything: only what AWS calls it is passed on.
        return errors.from_code(code, "", service=service, key=key.label, status=status)

    def _get(
        self, target: str, key: Key, service: str, ends_at: float
    ) -> tuple[int, str]:
        if errors.isolated_by:
            raise errors.isolated(f"{service} {key.label!r}")
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: localhost:{self._port}",
            f"X-Aws-Parameters-Secrets-Token: {_token()}",
            "Accept-Encoding: identity",
            "Connection: close",
        )
        failed, reason = errors.unreachable, ""
        try:
            response = _exchange(
                self._port, "\r\n".join((*lines, "", "")).encode(), ends_at
            )
            return response.status, response.body.decode()
        except TimeoutError:
            failed, reason = errors.too_late, "the layer did not answer in time"
        except OSError as exc:
            reason = f"no layer answers on localhost:{self._port}: {type(exc).__name__}"
        except http1.ProtocolError as exc:  # quotes nothing
            failed, reason = errors.unreadable, str(exc)
        except UnicodeDecodeError:
            failed, reason = errors.unreadable, "it is not UTF-8"
        # Outside of `except`: what was raised may hold a part of the answer.
        raise failed(reason, service=service, key=key.label)


def _token() -> str:
    token = os.environ.get("AWS_SESSION_TOKEN")
    if not token:
        msg = (
            "AWS_SESSION_TOKEN is not set, which AWS's layer wants to see (under"
            " SnapStart it never is): use source='aws'"
        )
        raise ConfigurationError(msg)
    if not (token.isascii() and token.isprintable()):
        msg = "AWS_SESSION_TOKEN has characters that no header may have: correct it"
        raise ConfigurationError(msg)
    return token


def _exchange(port: int, request: bytes, ends_at: float) -> http1.Response:
    """Send *request* to *port* of this machine, and return what it answers."""
    sock = _connected(port, ends_at)

    def receive(count: int) -> bytes:
        sock.settimeout(_left(ends_at))
        received: bytes = sock.recv(count)
        return received

    try:
        sock.settimeout(_left(ends_at))
        sock.sendall(request)
        return http1.read(receive)
    finally:
        sock.close()


def _connected(port: int, ends_at: float) -> Any:
    failure: OSError | None = None
    for family, address in ADDRESSES:
        sock = None
        try:
            sock = native.modules().Socket(family, SOCK_STREAM)
            sock.settimeout(_left(ends_at))
            sock.connect((address, port))
        except OSError as exc:
            if sock is not None:
                sock.close()
            failure = failure or exc
        else:
            return sock
    assert failure is not None
    raise failure


def _left(ends_at: float) -> float:
    """Return the seconds until *ends_at*, or time out."""
    left_s = ends_at - clock.run_time()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _target(key: Key) -> str:
    if key.operation == keys.PATH:
        msg = f"AWS's layer cannot list {key.label!r}: use source='aws'"
        raise SourceError(msg, key=key.label, source=AwsExtension.name)
    if key.operation == keys.SECRET:
        path = "/secretsmanager/get?"
        query = {"secretId": key.name}
        if key.version is not None:
            query["versionId"] = key.version
        if key.stage is not None:
            query["versionStage"] = key.stage
    else:
        path = "/systemsmanager/parameters/get?"
        query = {"name": key.name, "withDecryption": "true" if key.decrypt else "false"}
        if key.version is not None:
            query["version"] = key.version
        elif key.stage is not None:
            query["label"] = key.stage
    return path + "&".join(f"{name}={quote(text)}" for name, text in query.items())


def _document(body: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _decoded(document: dict[str, Any]) -> dict[str, Any]:
    """Return *document* with its blob, which the layer sends as base64, as bytes."""
    blob = document.get("SecretBinary")
    if not isinstance(blob, str):
        return document
    # Avoids ~0.3 ms where no value is binary.
    import binascii

    try:
        data = binascii.a2b_base64(blob)
    except ValueError:
        data = b""
    # a2b_base64 skips what is not in the alphabet; the way back does not.
    if binascii.b2a_base64(data, newline=False).decode() == blob:
        return {**document, "SecretBinary": data}
    return document  # with what is no blob, which is refused
