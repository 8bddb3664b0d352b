"""
AWS on loopback: moto behind a small HTTP server that writes down who asked.

Secrets Manager and Parameter Store answer from memory, as moto knows them.
Every call is recorded with its operation, the *names* that it asked for, the
client that sent it and how it ended; values are never recorded.

Signatures are not checked.  Nothing is ever forwarded to AWS.
"""

from __future__ import annotations

import base64
import email.utils
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)

from .server import Answer, Request, Server

NAME_KEYS = ("SecretId", "SecretIdList", "Name", "Names", "Path")
TARGETS = {"secretsmanager": "secretsmanager", "ssm": "AmazonSSM"}  # X-Amz-Target


@dataclass(frozen=True)
class AwsCall:
    """One request: what was asked for and how it ended; never a value."""

    service: str
    operation: str
    names: tuple[str, ...]
    status: int
    errors: tuple[str, ...]  # error codes, of the call or of single names in it
    agent: str  # the client's User-Agent
    began_at: float  # time.monotonic()
    duration_s: float


@dataclass(frozen=True)
class Seed:
    """What AWS holds when the function starts; the repr shows names only."""

    secrets: Mapping[str, str | bytes] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Seed secrets={list(self.secrets)} parameters={list(self.parameters)}>"


@dataclass(frozen=True)
class Parameter:
    """A parameter's text and type: String, StringList or SecureString."""

    value: str = field(repr=False)
    type: str = "String"


class SeedError(Exception):
    """AWS, as moto knows it, refused what a seed wants to create."""


class AwsServer:
    """
    Answer for AWS on a free port of 127.0.0.1, for as long as the `with` lasts.

    *latency_s* is added to every call that arrives by HTTP, as a network
    would.  One server a process at a time: moto's memory is process-wide, and
    is emptied when a server starts.
    """

    def __init__(
        self,
        *,
        seed: Seed | None = None,
        region: str = "us-east-1",
        latency_s: float = 0.0,
    ) -> None:
        self.region = region
        self.latency_s = latency_s
        self.calls: list[AwsCall] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._seed = seed or Seed()
        self._http: Server | None = None
        self._profile: dict[str, str] = {}

    @property
    def url(self) -> str:
        """The endpoint, for AWS_ENDPOINT_URL."""
        assert self._http is not None, "the server has not been started"
        return f"http://{self._http.address}"

    def environment(self) -> dict[str, str]:
        """Return the variables that send every AWS client here, and only here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_SESSION_TOKEN": "local",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def __enter__(self) -> AwsServer:
        # moto makes boto3 sessions of its own: a profile of this shell that
        # does not exist would be an error in them.
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            if name in os.environ:
                self._profile[name] = os.environ.pop(name)
        try:
            self._fill()
        except BaseException:
            self._restore_profile()
            raise
        self._http = Server(self._answer)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._http is not None
        self._http.close()
        self._restore_profile()

    def _restore_profile(self) -> None:
        os.environ.update(self._profile)
        self._profile.clear()

    def _fill(self) -> None:
        """Empty moto's memory, and put the seed into it."""
        self._respond("POST", "/moto-api/reset", {}, b"")
        # The first request to a service loads its model: the function is not to
        # wait for that.  Parameter Store's takes half a second (it loads EC2's),
        # and without a seed there is nothing to ask it for.
        self.call("secretsmanager", "ListSecrets", {})
        for name, value in self._seed.secrets.items():
            self.put_secret(name, value)
        for name, parameter in self._seed.parameters.items():
            self.put_parameter(name, parameter)

    def put_secret(self, name: str, value: str | bytes) -> None:
        """Create the secret, or give it a new version; not recorded as a call."""
        held = (
            {"SecretString": value}
            if isinstance(value, str)
            else {"SecretBinary": base64.b64encode(value).decode()}
        )
        try:
            self.call("secretsmanager", "CreateSecret", {"Name": name, **held})
        except SeedError as exc:
            if "ResourceExistsException" not in str(exc):
                raise
            self.call("secretsmanager", "PutSecretValue", {"SecretId": name, **held})

    def put_parameter(self, name: str, parameter: Parameter) -> None:
        """Create the parameter, or overwrite it; not recorded as a call."""
        request = {
            "Name": name,
            "Value": parameter.value,
            "Type": parameter.type,
            "Overwrite": True,
        }
        self.call("ssm", "PutParameter", request)

    def call(self, service: str, operation: str, request: Mapping[str, Any]) -> Any:
        """Call *operation* past the network, unrecorded; return its answer."""
        credential = f"Credential=local/20260101/{self.region}/{service}/aws4_request"
        headers = {
            "Host": f"{service}.{self.region}.amazonaws.com",
            "X-Amz-Target": f"{TARGETS[service]}.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host",
        }
        body = json.dumps(request).encode()
        try:
            answer = self._respond("POST", "/", headers, body)
        except Exception as exc:
            # Without a region that it knows, moto has nowhere to keep things.
            msg = f"moto plays no {service} in {self.region!r}; choose another region"
            raise SeedError(msg) from exc
        if answer.status != 200:
            name = request.get("Name") or request.get("SecretId") or ""
            code = ", ".join(_errors(answer)) or f"HTTP {answer.status}"
            msg = f"{operation} was refused for {name!r}: {code}"
            raise SeedError(msg)
        return json.loads(answer.body)

    def _answer(self, request: Request) -> Answer:
        began_at = time.monotonic()
        if self.latency_s:
            time.sleep(self.latency_s)
        headers = dict(request.headers.items())
        try:
            response = self._respond(
                request.method, request.path, headers, request.body
            )
        except Exception as exc:  # a request that moto cannot make sense of
            failure = {"__type": "InternalFailure", "message": type(exc).__name__}
            response = Answer.json(500, failure)
        self.calls.append(
            AwsCall(
                service=_service(request),
                operation=_operation(request),
                names=_names(request),
                status=response.status,
                errors=_errors(response),
                agent=request.headers.get("User-Agent") or "",
                began_at=began_at,
                duration_s=time.monotonic() - began_at,
            )
        )
        return response

    def _respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Put one request through moto's WSGI application."""
        response = Answer(500)

        def start_response(
            status: str, fields: list[tuple[str, str]], exc_info: Any = None
        ) -> None:
            response.status = int(status.split(" ", 1)[0])
            response.headers = {
                name.title(): value
                for name, value in fields
                if name.lower() not in ("connection", "content-length")
            }
            response.headers.setdefault("Date", email.utils.formatdate(usegmt=True))

        chunks = self._app(_environ(method, target, headers, body), start_response)
        response.body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        return response


def _environ(
    method: str, target: str, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": target,
        "REQUEST_URI": target,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ[key] = value
        elif key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            environ["HTTP_" + key] = value
    return environ


def _service(request: Request) -> str:
    """The service that the request was signed for, else that of its target."""
    scope = (request.headers.get("Authorization") or "").partition("Credential=")[2]
    parts = scope.split(",", 1)[0].split("/")
    if len(parts) == 5:
        return parts[3]
    target: str = request.headers.get("X-Amz-Target") or ""
    return target.partition(".")[0] or "unknown"


def _operation(request: Request) -> str:
    target: str = request.headers.get("X-Amz-Target") or ""
    if target:
        return target.rpartition(".")[2]
    form = request.headers.get("Content-Type") or ""
    if form.startswith("application/x-www-form-urlencoded"):
        action = parse_qs(request.body.decode("utf-8", "replace")).get("Action")
        if action:
            return action[0]
    return f"{request.method} {request.path.partition('?')[0]}"


def _names(request: Request) -> tuple[str, ...]:
    """What was asked for, from the members of a request that hold names."""
    if _service(request) not in TARGETS:
        return ()
    try:
        asked = json.loads(request.body or b"{}")
    except ValueError:
        return ()
    if not isinstance(asked, dict):
        return ()
    return tuple(_flat(asked.get(key) for key in NAME_KEYS))


def _flat(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (name for name in value if isinstance(name, str))


def _errors(response: Answer) -> tuple[str, ...]:
    """The error codes in an answer: the call's own, or those of single names."""
    try:
        answer = json.loads(response.body or b"{}")
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        return ()
    if response.status >= 400:
        code = response.headers.get("X-Amzn-Errortype") or answer.get("__type") or ""
        return (str(code).rpartition("#")[2].partition(":")[0] or "Unknown",)
    items = answer.get("Errors")
    if not isinstance(items, list):
        return ()
    return tuple(str(item.get("ErrorCode")) for item in items if isinstance(item, dict))
