"""
Secrets Manager, Parameter Store and other services of AWS, played by moto.

moto's memory belongs to the process: one `MotoPlayer` at a time.  Its own API
(``/moto-api``, which shows and changes everything) is not served, and its answers
lose the headers that would let a web page read them.
"""

from __future__ import annotations

import base64
import email.utils
import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)

from .aws_messages import error_codes
from .seeds import Parameter, Seed, SeedError
from .server import TEXT, Answer, Request

TARGETS = {"secretsmanager": "secretsmanager", "ssm": "AmazonSSM"}  # X-Amz-Target
# Paths that moto serves and AWS does not have, and those of the metadata service.
NOT_AWS = ("/moto-api", "/favicon.ico", "/latest/meta-data", "/latest/api")


class MotoPlayer:
    """Answers for every service that no other player has."""

    services: tuple[str, ...] = ()

    def __init__(self, region: str = "us-east-1") -> None:
        self.region = region
        self._app = DomainDispatcherApplication(create_backend_app)
        self._profile: dict[str, str] = {}

    def start(self, seed: Seed) -> None:
        """Empty moto's memory, and put *seed* into it."""
        # moto makes boto3 sessions of its own: a profile of this shell that
        # does not exist would be an error in them.
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            if name in os.environ:
                self._profile[name] = os.environ.pop(name)
        try:
            self._fill(seed)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Give this process its profile back."""
        os.environ.update(self._profile)
        self._profile.clear()

    def answer(self, request: Request) -> Answer:
        """Answer *request* as AWS would; what moto cannot read is a failure."""
        path = unquote_to_bytes(request.path.partition("?")[0]).decode("latin-1")
        if ("/" + path.lstrip("/")).lower().startswith(NOT_AWS):
            return Answer(403, b"this is no API of AWS\n", {"Content-Type": TEXT})
        headers = dict(request.headers.items())
        try:
            return self._respond(request.method, request.path, headers, request.body)
        except Exception as exc:  # a request that moto cannot make sense of
            message = type(exc).__name__
            if isinstance(exc, ModuleNotFoundError):
                message = (
                    f"moto needs the package {exc.name!r} to play this service:"
                    ' pip install "moto[server]"'
                )
            failure = {"__type": "InternalFailure", "message": message}
            return Answer.json(500, failure)

    def _fill(self, seed: Seed) -> None:
        self._respond("POST", "/moto-api/reset", {}, b"")
        # The first request to a service loads its model: the function is not to
        # wait for that.  Parameter Store's takes half a second (it loads EC2's),
        # and without a seed there is nothing to ask it for.
        self.call("secretsmanager", "ListSecrets", {})
        for name, value in seed.secrets.items():
            self.put_secret(name, value)
        for name, parameter in seed.parameters.items():
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
            codes = ", ".join(error_codes(answer)) or f"HTTP {answer.status}"
            msg = f"{operation} was refused for {name!r}: {codes}"
            raise SeedError(msg)
        return json.loads(answer.body)

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
                and not name.lower().startswith("access-control-")
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
