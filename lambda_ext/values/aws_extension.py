"""
The source for those who stay with AWS's layer: its cache on localhost:2773.

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

from ..aws import errors
from ..exceptions import ConfigurationError, LambdaExtError, SourceError
from ..lifecycle import clock
from . import keys
from .cache import Answer
from .fanout import each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any

    from .keys import Key

PORT = 2773  # unless PARAMETERS_SECRETS_EXTENSION_HTTP_PORT says otherwise
LIMIT_S = 5.0  # of one request; the layer's own has none
MAX_BODY = 1 << 20  # a secret has at most 64 KB
NOT_READY = "not ready to serve traffic"  # HTTP 400, while it starts


class AwsExtension:
    """
    Secrets and parameters as the layer hands them out.

    *port* is the layer's; by default its own variable says it.
    """

    __slots__ = ("_port", "scope")

    name = "aws_extension"
    at_init = False  # the layer serves in INVOKE only

    def __init__(self, port: int | None = None) -> None:
        variable = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"
        raw = os.environ.get(variable) or str(PORT) if port is None else str(port)
        if not (raw.isascii() and raw.isdigit() and 0 < int(raw) < 65536):
            msg = f"{variable} must be a port from 1 to 65535"
            raise ConfigurationError(msg)
        self._port = int(raw)
        self.scope: Hashable = (self.name, self._port)

    def __repr__(self) -> str:
        return f"<AwsExtension localhost:{self._port}>"

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Ask for each by itself, up to three at a time."""
        return [wanted] if wanted else []

    def fetch(
        self, wanted: Sequence[Key], deadline_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask the layer for *wanted*."""
        limit_s = LIMIT_S if deadline_s is None else min(deadline_s, LIMIT_S)
        ends_at = clock.monotonic() + limit_s
        found = each(wanted, lambda key: self._one(key, ends_at - clock.monotonic()))
        for outcome in found.values():
            if isinstance(outcome, SourceError):
                outcome.source = self.name
        return found

    def _one(self, key: Key, left_s: float) -> Answer | LambdaExtError:
        service = "secretsmanager" if key.operation == keys.SECRET else "ssm"
        status, body = self._get(_target(key), key, service, left_s)
        if status == 200:
            return _answer(_document(body), key, service)
        if NOT_READY in body:
            return errors.unreachable(
                "the layer is not ready yet", service=service, key=key.label
            )
        document = _document(body)
        code = str(document.get("__type") or document.get("code") or "")
        if not code:  # the layer words the errors of AWS in a sentence
            words = body.replace(":", " ").replace(",", " ").split()
            code = next((word for word in words if errors.is_known(word)), "")
        # Its text may be anything: only what AWS calls it is passed on.
        return errors.from_code(code, "", service=service, key=key.label, status=status)

    def _get(
        self, target: str, key: Key, service: str, left_s: float
    ) -> tuple[int, str]:
        token = os.environ.get("AWS_SESSION_TOKEN")
        if not token:
            msg = (
                "AWS_SESSION_TOKEN is not set, which AWS's layer wants to see (under"
                " SnapStart it never is): use source='aws'"
            )
            raise ConfigurationError(msg)
        # 25 ms that only users of this layer pay.
        import http.client

        connection = http.client.HTTPConnection(
            "localhost", self._port, timeout=max(left_s, 0.001)
        )
        try:
            connection.request(
                "GET", target, headers={"X-Aws-Parameters-Secrets-Token": token}
            )
            response = connection.getresponse()
            return response.status, response.read(MAX_BODY).decode()
        except TimeoutError:
            too_late = True
            reason = "the layer did not answer in time"
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as exc:
            too_late = False
            reason = f"no layer answers on localhost:{self._port}: {type(exc).__name__}"
        finally:
            connection.close()
        # Outside of `except`: what was raised may hold a part of the answer.
        failed = errors.too_late if too_late else errors.unreachable
        raise failed(reason, service=service, key=key.label)


def _target(key: Key) -> str:
    # With http.client, which only users of this layer load.
    from urllib.parse import urlencode

    if key.operation == keys.PATH:
        msg = f"AWS's layer cannot list {key.label!r}: use source='aws'"
        raise SourceError(msg, key=key.label, source=AwsExtension.name)
    if key.operation == keys.SECRET:
        query = {"secretId": key.name}
        if key.version is not None:
            query["versionId"] = key.version
        if key.stage is not None and key.stage != keys.CURRENT:
            query["versionStage"] = key.stage
        return "/secretsmanager/get?" + urlencode(query)
    query = {"name": key.name, "withDecryption": "true" if key.decrypt else "false"}
    if key.version is not None:
        query["version"] = key.version
    elif key.stage is not None:
        query["label"] = key.stage
    return "/systemsmanager/parameters/get?" + urlencode(query)


def _document(body: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _answer(
    document: dict[str, Any], key: Key, service: str
) -> Answer | LambdaExtError:
    if key.operation == keys.SECRET:
        raw = document.get("SecretString")
        binary = document.get("SecretBinary")
        if raw is None and isinstance(binary, str):
            # Avoids ~0.3 ms where no value is binary.
            import binascii

            raw = binascii.a2b_base64(binary)
        version = document.get("VersionId")
    else:
        document = document.get("Parameter") or {}
        raw = document.get("Value")
        version = document.get("Version")
    if raw is None:
        return errors.unreadable("it has no value", service=service, key=key.label)
    return Answer(raw, str(version or ""), document.get("ARN") or "")
