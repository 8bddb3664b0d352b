"""
The light client: eight operations, signed and sent without boto3.

Small on purpose.  `reason_for_boto3` says, from the environment, what it leaves to
boto3: profiles and configuration files, other sources of credentials,
proxies, FIPS and dual-stack endpoints.  Instrumentation of botocore (X-Ray,
OpenTelemetry, Datadog) does not see this client.

Guarantees
    A signature goes to the endpoint that it was made for, over verified TLS,
    or in the clear to this machine if the user says so; no redirect is
    followed.  It is made when it is sent, also the second time.
    When AWS refuses the credentials or the time, new ones are taken, and one
    more try is made for each of the two.  No message and no cause quotes a body.
"""

from __future__ import annotations

import contextlib
import json
import os

from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from . import (
    connections,
    credentials,
    errors,
    http1,
    native,
    regions,
    retries,
    signing,
    tls,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..exceptions import SourceError

JSON = "application/x-amz-json-1.1"
TARGETS = {
    "secretsmanager": "secretsmanager",
    "ssm": "AmazonSSM",
    "firehose": "Firehose_20150804",
}
SIGNING_NAMES = {"appconfigdata": "appconfig"}
HEADERS = {  # of GetLatestConfiguration -> field
    "next-poll-configuration-token": "NextPollConfigurationToken",
    "next-poll-interval-in-seconds": "NextPollIntervalInSeconds",
    "content-type": "ContentType",
    "version-label": "VersionLabel",
}
_TRACE = b"-=;:+&[]{}\"',"  # not encoded in the id of a trace
_VARIANTS = ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")


def reason_for_boto3(service: str) -> str:
    """Return why the light client cannot reach *service*, "" if it can."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        if os.environ.get(name):
            return f"{name} is set"
    # In any case, as `urllib` reads them.  (One pass over the names: 5 us.)
    if "_proxy" in " ".join(os.environ).lower():
        name = _proxy(service)
        if name:
            return f"{name} is set"
    for name in _VARIANTS:
        if os.environ.get(name, "").lower() == "true":
            return f"{name} is true"
    path = _configuration_file()
    if path:
        return f"there is a configuration file {path}"
    _, region = regions.named_region()
    if not region:
        return "the environment gives no region"
    if "fips" in region:
        return f"the region {region!r} means FIPS"
    if credentials.provider() is None:
        return "the credentials are not in the environment"
    return ""


def _proxy(service: str) -> str:
    """
    Return the variable that has boto3 send requests to *service* through a proxy.

    "" if there is none for the scheme of its endpoint, or NO_PROXY has its host.
    Source: botocore, ``utils.get_environ_proxies``, which asks `urllib`.
    """
    if not any(
        value and name.lower() in ("http_proxy", "https_proxy")
        for name, value in os.environ.items()
    ):
        return ""
    _, url = regions.configured(service)
    if not url:
        try:
            url = regions.endpoint(service, regions.region(service)).url
        except ConfigurationError:  # boto3 says the same of it
            return ""
    scheme, _, rest = url.partition("://")
    # Where a proxy is named; boto3, if it comes to that, loads it, too (10 ms).
    from urllib import request

    proxy = request.getproxies().get(scheme.lower())
    if not proxy:
        return ""
    # What follows is as botocore does it, also that the system may refuse to say.
    with contextlib.suppress(TypeError, OSError):
        if request.proxy_bypass(rest.partition("/")[0]):
            return ""
    named = [
        name
        for name, value in os.environ.items()
        if value == proxy and name.lower() == f"{scheme.lower()}_proxy"
    ]
    return (named or ["a proxy of the system"])[0]


def reset() -> None:
    """Forget contexts and the clock's skew, of which each module keeps its own."""
    signing.reset()
    tls.reset()
    native.reset()


def _configuration_file() -> str:
    """Return the path of a file that may change what boto3 does, or ""."""
    for variable, usual in (
        ("AWS_CONFIG_FILE", "config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    ):
        # Without HOME the password database knows it, for botocore as well.
        path = os.environ.get(variable) or os.path.expanduser(f"~/.aws/{usual}")
        try:
            if os.stat(os.path.expanduser(os.path.expandvars(path))).st_size:
                return path
        except (OSError, ValueError):
            continue
    return ""


class Light(retries.Retrying):
    """The transport of one service over signed HTTP of our own."""

    __slots__ = ("_connections", "_endpoint", "_provider", "_region", "scope")

    name = "light"

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self._region = regions.region(service)
        self._endpoint = endpoint = regions.endpoint(service, self._region)
        regions.refuse_in_the_clear(endpoint)
        self._connections = connections.Connections(self._endpoint)
        provider = credentials.provider()
        if provider is None:
            raise errors.no_credentials(service)
        self._provider = provider
        try:
            identity = provider.identity
        except credentials.MissingError as exc:
            raise errors.no_credentials(service) from exc
        self.scope = (service, self._region, self._endpoint.url, identity)

    def __repr__(self) -> str:
        return f"<transport to {self._endpoint.url}>"

    def is_current(self) -> bool:
        """Say whether the environment still names the region, endpoint and key."""
        _, region, url, identity = self.scope
        try:
            return (
                regions.region(self.service) == region
                and regions.endpoint(self.service, self._region).url == url
                and self._provider.identity == identity
            )
        except (ConfigurationError, credentials.MissingError):
            return False

    def close(self) -> None:
        """Close the connections and forget the credentials."""
        self._connections.close()
        self._provider.drop()

    def forked(self) -> None:
        """Let go, in a forked child, of what belongs to the parent."""
        self._connections.close()

    def attempt(
        self, operation: str, parameters: Mapping[str, Any], left_s: float
    ) -> dict[str, Any]:
        """Ask AWS once, and once more for each of keys and time that it refused."""
        ends_at = clock.monotonic() + left_s
        key = errors.key_of(parameters)
        if errors.isolated_by:
            raise errors.isolated(f"{self.service} {key!r}", self.service)
        try:
            return self._asked(operation, parameters, key, ends_at)
        except LambdaExtError:  # a SourceTimeoutError is a TimeoutError
            raise
        except Exception as exc:
            error = None if by_signal_handler(exc) else self._failure(exc, key)
            if error is None:
                raise
            error.wire = self._wire_failure(exc)
            raise error from exc

    def _failure(self, exc: Exception, key: str) -> LambdaExtError | None:
        """Return the error of this library that *exc* means; None: it is unknown."""
        service = self.service
        if isinstance(exc, TimeoutError):
            reason = f"{self._endpoint.host} did not answer in time"
            return errors.too_late(reason, service=service, key=key)
        if isinstance(exc, credentials.MissingError):
            return errors.no_credentials(service, key)
        if isinstance(exc, credentials.UnavailableError):
            reason = f"the credentials could not be fetched: {exc}"
            return errors.unreachable(reason, service=service, key=key)
        if isinstance(exc, http1.ProtocolError):
            return errors.unreadable(str(exc), service=service, key=key)
        if isinstance(exc, OSError):
            reason, bundle = self._reason(exc), tls.variable_of_bundle()
            if bundle and native.modules().is_refusal(exc):
                reason += f"; {bundle} says whom to trust"
            return errors.unreachable(reason, service=service, key=key)
        return None

    def _wire_failure(self, exc: Exception) -> errors.WireFailure | None:
        """Return what *exc* tells about the wire; None where botocore differs."""
        kind, reason = "", str(exc)
        opening = getattr(exc, "is_opening", False)
        if isinstance(exc, credentials.MissingError):
            kind = "no credentials"
        elif isinstance(exc, credentials.UnavailableError):
            kind = "credentials"
        elif isinstance(exc, TimeoutError):
            kind = "connect time-out" if opening else "read time-out"
        elif isinstance(exc, (http1.NothingReceivedError, http1.CutError)):
            kind = "closed"
        elif isinstance(exc, OSError):
            kind = "unconnected" if opening else "closed"
            if opening and native.modules().is_refusal(exc):
                kind, reason = "certificate", self._reason(exc)
        if not kind:
            return None
        return errors.WireFailure(kind, url=self._endpoint.url, reason=reason)

    def _asked(
        self, operation: str, parameters: Mapping[str, Any], key: str, ends_at: float
    ) -> dict[str, Any]:
        renewable, skewed = True, False
        skew_s = signing.skew_s
        while True:
            keys = self._provider.keys(ends_at)
            response = self._connections.exchange(
                lambda: self._request(operation, parameters, keys, skew_s),  # noqa: B023  called at once
                ends_at,
            )
            if 200 <= response.status < 300:
                if skewed:  # only now: what was not accepted spoils no later call
                    signing.keep_skew(skew_s)
                answer = _answer(operation, response)
                answer["ResponseMetadata"] = metadata_of(response)
                return answer
            error = _error(self.service, key, response, self._region)
            if error.code in errors.SKEWED and not skewed:
                told_s = signing.skew_of(response.headers.get("date", ""))
                if abs(told_s - skew_s) >= signing.TOLERATED_S:
                    skewed, skew_s = True, told_s
                    continue
            # A signature that is refused at the right time means wrong keys, too.
            refused = error.code in errors.EXPIRED or error.code in errors.SKEWED
            if not (renewable and refused and self._provider.renewed(keys, ends_at)):
                raise error
            renewable = False

    def _request(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        keys: signing.Keys,
        skew_s: float,
    ) -> bytes:
        method, path, query, body = _wire(operation, parameters)
        path = _joined(self._endpoint.path, path)
        headers = {
            "host": self._endpoint.authority,
            "x-amz-date": signing.timestamp(skew_s),
        }
        if self.service in TARGETS:
            headers["content-type"] = JSON
            headers["x-amz-target"] = f"{TARGETS[self.service]}.{operation}"
        elif body:
            headers["content-type"] = "application/json"
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        headers["authorization"] = signing.authorization(
            method,
            path,
            query,
            headers,
            body,
            keys=keys,
            region=self._region,
            service=SIGNING_NAMES.get(self.service, self.service),
        )
        headers["accept-encoding"] = "identity"
        headers["content-length"] = str(len(body))
        headers["user-agent"] = "lambda-ext"
        trace = os.environ.get("_X_AMZN_TRACE_ID")
        if trace and os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):  # as boto3 does
            headers["x-amzn-trace-id"] = signing.quote(trace, _TRACE)
        target = f"{path}?{query}" if query else path
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join((*lines, "", "")).encode("latin-1") + body

    def _reason(self, exc: OSError) -> str:
        if native.modules().is_refusal(exc):
            reason = getattr(exc, "verify_message", "") or "it is not trusted"
            return f"the certificate of {self._endpoint.host} was refused: {reason}"
        return f"{self._endpoint.host}: {exc.strerror or type(exc).__name__}"


def _wire(operation: str, parameters: Mapping[str, Any]) -> tuple[str, str, str, bytes]:
    """Return method, path, query and body of a request."""
    if operation == "GetLatestConfiguration":
        token = signing.quote(parameters["ConfigurationToken"])
        return "GET", "/configuration", f"configuration_token={token}", b""
    body = json.dumps(parameters, separators=(",", ":"), default=_blob).encode()
    if operation == "StartConfigurationSession":
        return "POST", "/configurationsessions", "", body
    return "POST", "/", "", body


def _blob(value: Any) -> str:
    """Return bytes as JSON has them."""
    # Only an operation that sends bytes needs it.
    import binascii

    return binascii.b2a_base64(value, newline=False).decode()


def _joined(base: str, path: str) -> str:
    """Return *path* below *base*, as botocore joins them."""
    if path == "/":
        return base or "/"
    return base.removesuffix("/") + path


def metadata_of(response: http1.Response) -> dict[str, Any]:
    """Return what boto3 says of *response* in its ``ResponseMetadata``."""
    found: dict[str, Any] = {
        "HTTPStatusCode": response.status,
        "HTTPHeaders": dict(response.headers),
        "RetryAttempts": 0,
    }
    request_id = response.headers.get("x-amzn-requestid")
    return {"RequestId": request_id, **found} if request_id else found


def _answer(operation: str, response: http1.Response) -> dict[str, Any]:
    if operation == "GetLatestConfiguration":
        answer: dict[str, Any] = {
            field: response.headers[name]
            for name, field in HEADERS.items()
            if name in response.headers
        }
        interval = answer.get("NextPollIntervalInSeconds")
        if interval is not None:
            if not (interval.isascii() and interval.isdigit() and len(interval) < 10):
                raise http1.ProtocolError("the poll interval is not a number")
            answer["NextPollIntervalInSeconds"] = int(interval)
        answer["Configuration"] = response.body
        return answer
    answer = _object(response.body)
    _decode(answer)
    entries = answer.get("SecretValues", [])
    if not isinstance(entries, list):
        raise http1.ProtocolError("the secrets are not a JSON array")
    for entry in entries:
        _decode(entry)
    return answer


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        # Raised below: as the cause or the context it would keep the document.
        answer = None
    if not isinstance(answer, dict):
        raise http1.ProtocolError("it is not a JSON object")
    return {name: value for name, value in answer.items() if value is not None}


def _decode(answer: Any) -> None:
    """Turn the blob of a secret into bytes, in place."""
    if not isinstance(answer, dict):
        raise http1.ProtocolError("a secret is not a JSON object")
    encoded = answer.get("SecretBinary")
    if encoded is not None:
        # Avoids it for the many that have only text.
        import binascii

        try:
            blob = binascii.a2b_base64(encoded)
        except (ValueError, TypeError):
            blob = None
        if blob is None:
            raise http1.ProtocolError("a blob is not base64")
        answer["SecretBinary"] = blob


def _error(
    service: str, key: str, response: http1.Response, region: str
) -> SourceError:
    try:
        answer = _object(response.body)
    except http1.ProtocolError:
        answer = {}
    code = (
        response.headers.get("x-amzn-errortype")
        or answer.get("__type")
        or answer.get("code")
        or answer.get("Code")
        or str(response.status)
    )
    text = answer.get("message") or answer.get("Message") or ""
    error = errors.from_code(
        str(code),
        str(text) + errors.problems(answer),
        service=service,
        key=key,
        status=response.status,
        region=region,
    )
    error.retry_after_s = retries.retry_after(response.headers.get("retry-after"))
    error.wire = _refusal(response)
    return error


# What errors of these two services tell beside a message.
_MEMBERS = ("message", "Message", "QuotaCode", "ServiceCode", "ReasonCode")


def _refusal(response: http1.Response) -> errors.WireFailure | None:
    """
    Return what botocore parses of *response*; None where that is no JSON object.

    Then botocore takes the body for a message, and it might hold a value.
    """
    status, headers, body = response.status, response.headers, response.body.strip()
    if status >= 500 and (not body or body.startswith(b"<html>")):
        return errors.WireFailure("answer", status=status, headers=headers)
    try:
        answer = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    code = answer.get("__type", str(status))
    if not isinstance(code, str):
        return None
    return errors.WireFailure(
        "answer",
        status=status,
        headers=headers,
        code=code.partition(":")[0].rpartition("#")[2],
        message=answer.get("message", answer.get("Message", "")),
        members={name: answer[name] for name in _MEMBERS if name in answer},
    )
