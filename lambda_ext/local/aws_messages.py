"""What a request to AWS asks for, and which errors an answer holds; never a value."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from .server import Answer, Request

NAME_KEYS = ("SecretId", "SecretIdList", "Name", "Names", "Path")
WITH_NAMES = ("secretsmanager", "ssm", "appconfig")  # services whose names are told
PROFILE = ("Application", "Environment", "ConfigurationProfile")  # what it is named by
# Operations without X-Amz-Target, by signing name, method and path.
BY_PATH = {
    ("appconfig", "POST /configurationsessions"): "StartConfigurationSession",
    ("appconfig", "GET /configuration"): "GetLatestConfiguration",
}


def service(request: Request) -> str:
    """Return the service that the request was signed for, else that of its target."""
    scope = (request.headers.get("Authorization") or "").partition("Credential=")[2]
    parts = scope.split(",", 1)[0].split("/")
    if len(parts) == 5:
        return parts[3]
    target: str = request.headers.get("X-Amz-Target") or ""
    return target.partition(".")[0] or "unknown"


def operation(request: Request) -> str:
    """Return the operation: of the target, of a form's Action, or method and path."""
    target: str = request.headers.get("X-Amz-Target") or ""
    if target:
        return target.rpartition(".")[2]
    form = request.headers.get("Content-Type") or ""
    if form.startswith("application/x-www-form-urlencoded"):
        action = parse_qs(request.body.decode("utf-8", "replace")).get("Action")
        if action:
            return action[0]
    path = f"{request.method} {request.path.partition('?')[0]}"
    return BY_PATH.get((service(request), path), path)


def names(request: Request) -> tuple[str, ...]:
    """Return what was asked for, from the members of a request that hold names."""
    if service(request) not in WITH_NAMES:
        return ()
    try:
        asked = json.loads(request.body or b"{}")
    except ValueError:
        return ()
    if not isinstance(asked, dict):
        return ()
    if service(request) == "appconfig":
        parts = [asked.get(f"{part}Identifier") for part in PROFILE]
        return ("/".join(map(str, parts)),) if all(parts) else ()
    return tuple(_flat(asked.get(key) for key in NAME_KEYS))


def _flat(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (name for name in value if isinstance(name, str))


def error_codes(response: Answer) -> tuple[str, ...]:
    """Return the error codes in an answer: the call's own, or those of single names."""
    try:
        answer = json.loads(response.body or b"{}")
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        return ()
    if response.status >= 400:
        headers = {name.lower(): text for name, text in response.headers.items()}
        code = headers.get("x-amzn-errortype") or answer.get("__type") or ""
        return (str(code).rpartition("#")[2].partition(":")[0] or "Unknown",)
    items = answer.get("Errors")
    if not isinstance(items, list):
        return ()
    return tuple(str(item.get("ErrorCode")) for item in items if isinstance(item, dict))
