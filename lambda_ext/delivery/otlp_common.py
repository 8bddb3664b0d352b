"""
What the signals of OTLP over HTTP share: resource, variables and answers.

Source: OTLP/HTTP, https://opentelemetry.io/docs/specs/otlp/#otlphttp, and its
variables, https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import json
import os
import sys

from .. import config, disclosure
from ..exceptions import ConfigurationError
from ..lifecycle import current, phases, process
from . import protobuf
from .receiver import TIMEOUT_S, Derived, check_header, seconds
from .receiver import text as text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOCAL = "http://localhost:4318"  # where a collector listens
TYPES = {"http/protobuf": "application/x-protobuf", "http/json": "application/json"}
PROTOBUF = "http/protobuf"  # which every vendor takes; presets ignore the variables
REJECTED = ("rejectedDataPoints", "rejectedLogRecords", "rejectedSpans")

_instance = ""  # of this execution environment, once it was needed
_arn = ""  # by which the function was invoked, without version or alias


def instance() -> str:
    """Return what tells this execution environment from all others."""
    global _instance
    if not _instance:
        made = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME") or os.urandom(8).hex()
        kind = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "")
        # There, several processes share one stream.
        _instance = (
            f"{made}/{os.getpid()}" if kind == "lambda-managed-instances" else made
        )
    return _instance


@process.at_fork
@process.at_reset
def another_instance() -> None:
    """Forget which instance this was: it is another one after a fork or a restore."""
    global _instance
    _instance = ""


def follow_life() -> None:
    """Follow restores, after which this is another instance, and learn the function's ARN."""
    phases.listen_once(phases.RESTORE, another_instance, priority=phases.ESSENTIAL)
    if not _arn:
        phases.listen_once(phases.INVOKE, _learn, priority=phases.ESSENTIAL)


def _learn() -> None:
    """Take the function's ARN from the first invocation that has one."""
    global _arn
    found = disclosure.attribute(current.state().context, "invoked_function_arn")
    parts = found.split(":") if isinstance(found, str) else []
    if len(parts) >= 7 and parts[0] == "arn":
        _arn = ":".join(parts[:7])
        phases.silence(phases.INVOKE, _learn)


@process.at_reset
def _forget() -> None:
    global _arn
    _arn = ""


def version() -> str:
    """Return the version of this library."""
    version: str = sys.modules[__name__.partition(".")[0]].__version__
    return version


def service() -> str:
    """Return what the service is called: as configured, or as the function."""
    name: str = config.get("service") or os.environ.get(
        "AWS_LAMBDA_FUNCTION_NAME", "unknown_service"
    )
    return name


def resource(of: str, called: str) -> dict[str, Any]:
    """
    Return the attributes of this execution environment.

    *of* tells it from all others; *called* is the name of the service.  ``OTEL_SERVICE_NAME`` and
    ``OTEL_RESOURCE_ATTRIBUTES`` come before what Lambda's variables say.
    """
    environ = os.environ
    found: dict[str, Any] = {"service.name": called}
    if environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        found["cloud.provider"] = "aws"
        found["cloud.platform"] = "aws_lambda"
    if _arn:  # known from the first invocation on
        found["cloud.account.id"] = _arn.split(":")[4]
        found["cloud.resource_id"] = _arn
    for name, variable in (
        ("cloud.region", "AWS_REGION"),
        ("faas.name", "AWS_LAMBDA_FUNCTION_NAME"),
        ("faas.version", "AWS_LAMBDA_FUNCTION_VERSION"),
    ):
        if environ.get(variable):
            found[name] = environ[variable]
    megabytes = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    if megabytes.isascii() and megabytes.isdigit():
        found["faas.max_memory"] = int(megabytes) << 20
    for name, variable in (
        ("aws.log.group.names", "AWS_LAMBDA_LOG_GROUP_NAME"),
        ("aws.log.stream.names", "AWS_LAMBDA_LOG_STREAM_NAME"),
    ):
        if environ.get(variable):
            found[name] = [environ[variable]]
    found["faas.instance"] = of
    found.update(pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")))
    if environ.get("OTEL_SERVICE_NAME"):
        found["service.name"] = environ["OTEL_SERVICE_NAME"]
    return found


def pairs(text: str) -> dict[str, str]:
    """
    Return what a list "key=value,key=value" of OpenTelemetry's variables says.

    Keys and values are percent-decoded; a part without "=" or without a key is
    left out.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals and key.strip():
            found[_decoded(key.strip())] = _decoded(value.strip())
    return found


def _decoded(text: str) -> str:
    """Return *text* with its %XX replaced; `urllib.parse` would cost 5 ms."""
    if "%" not in text:
        return text
    first, *rest = text.encode().split(b"%")
    parts = [first]
    for part in rest:
        try:
            parts.append(bytes([int(part[:2].decode("ascii"), 16)]) + part[2:])
        except ValueError:
            parts.append(b"%" + part)
    return b"".join(parts).decode("utf-8", "replace")


def rejected(body: bytes, content_type: str) -> tuple[int, str]:
    """
    Return how many records a receiver that answered 2xx has refused, and why.

    (0, "") where it refused none, answered nothing, or cannot be understood:
    a partial success must not be sent again, and so must nothing else.
    """
    if not body:
        return 0, ""
    if "json" in content_type:
        try:
            answer = json.loads(body)
            partial = answer.get("partialSuccess") or {}
            count = sum(int(partial.get(name) or 0) for name in REJECTED)
            return max(count, 0), str(partial.get("errorMessage") or "")
        except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError):
            return 0, ""  # an OverflowError is of "Infinity"
    count, reason = 0, ""
    try:
        for number, value in protobuf.fields(body):
            if number == 1 and isinstance(value, bytes):
                for inner, part in protobuf.fields(value):
                    if inner == 1 and isinstance(part, int):
                        count = part if part < 1 << 63 else 0  # it is negative
                    elif inner == 2 and isinstance(part, bytes):
                        reason = part.decode("utf-8", "replace")
    except ValueError:
        return 0, ""
    return count, reason


def compact(value: Any) -> bytes:
    """Return *value* as JSON without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


def below(url: str, path: str) -> str:
    """Return *url* with *path*, unless it ends so already; a query stays at the end."""
    if not isinstance(url, str):
        msg = "the address of a collector is text, such as 'http://localhost:4318'"  # type: ignore[unreachable]  # not every caller checks types
        raise ConfigurationError(msg)
    address, mark, query = url.partition("?")
    if not address.endswith(path):
        address = address.rstrip("/") + path
    return address + mark + query


def variable(signal: str, name: str) -> str:
    """Return what OpenTelemetry's variables say of *name* for *signal*, or ""."""
    environ = os.environ
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}")
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def configured_endpoint(signal: str, path: str) -> str:
    """Return the whole URL for *signal* that the environment says, or this machine's."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return own or below(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or LOCAL, path)


def choice(
    signal: str, argument: str, given: str | None, name: str, choices: Any
) -> str:
    """Return *given*, or what the variable *name* says, or the first of *choices*."""
    chosen = given or variable(signal, name) or next(iter(choices))
    if chosen not in choices:
        where = argument if given else f"OTEL_EXPORTER_OTLP_{name}"
        msg = f"{where}={disclosure.quoted(chosen)} is not supported: use {' or '.join(choices)}"
        raise ConfigurationError(msg)
    return chosen


def tell_of_temporality(signal: str) -> None:
    """Log that sums are those of an interval where the environment asks for others."""
    wanted = variable(signal, "TEMPORALITY_PREFERENCE")
    if wanted.lower() == "cumulative":
        disclosure.warn(
            "option_ignored",
            f"OTEL_EXPORTER_OTLP_{signal}_TEMPORALITY_PREFERENCE={wanted}: sums are"
            " those of an interval (delta); an environment that ends without notice"
            " has no others to tell",
        )


def timeout_of(signal: str, given: float | None) -> float:
    """Return *given* seconds, or what the environment says, or the default."""
    if given is not None:
        return seconds("timeout", given)
    text = variable(signal, "TIMEOUT")
    if text.isascii() and text.isdigit() and int(text):
        return int(text) / 1000
    return TIMEOUT_S


def certificate_of(signal: str) -> str:
    """Return the path of the certificates to trust that the environment says, or ""."""
    path = variable(signal, "CERTIFICATE")
    if path and not os.path.exists(path):
        msg = f"OTEL_EXPORTER_OTLP_CERTIFICATE is not the path of a file: {path!r:.200}"
        raise ConfigurationError(msg)
    return path


def client_of(signal: str) -> tuple[str, str]:
    """Return the paths of the client's certificate and key, of which both are set."""
    found = variable(signal, "CLIENT_CERTIFICATE"), variable(signal, "CLIENT_KEY")
    for name, path, other in (
        ("CERTIFICATE", found[0], "KEY"),
        ("KEY", found[1], "CERTIFICATE"),
    ):
        if not path and any(found):
            msg = (
                f"OTEL_EXPORTER_OTLP_CLIENT_{other} needs"
                f" OTEL_EXPORTER_OTLP_CLIENT_{name} beside it: set both, or none"
            )
            raise ConfigurationError(msg)
        if path and not os.path.exists(path):
            msg = f"OTEL_EXPORTER_OTLP_CLIENT_{name} is not the path of a file: {path!r:.200}"
            raise ConfigurationError(msg)
    return found


def headers_of(signal: str) -> dict[str, str]:
    """Return the headers that the environment says, or refuse them unquoted."""
    found = pairs(variable(signal, "HEADERS"))
    try:
        for name, value in found.items():
            check_header(name, value)
    except ConfigurationError:
        found = {}
    else:
        return found
    # Outside of `except`: what stands there as a name may be a key.
    msg = (
        f"OTEL_EXPORTER_OTLP_HEADERS, or that of {signal.lower()}, is no list such as"
        " key=value,key=value: percent-encode what no header may have"
    )
    raise ConfigurationError(msg)


def is_disabled() -> bool:
    """Say whether OpenTelemetry's variables turn everything off."""
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"


class Below(Derived):
    """An address with a path below it."""

    __slots__ = ("_path",)

    def __init__(self, url: Any, path: str) -> None:
        super().__init__(url)
        self._path = path

    @property
    def value(self) -> str:
        """Return the whole address."""
        return below(text_of(self.given), self._path)
