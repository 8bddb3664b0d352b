"""
What AWS's error codes mean: one table for both transports.

A code that is not in the table is judged by its HTTP status.  No message
quotes a body that was not understood, since it might hold a value: where there
is no code but a status, there is no text of AWS's either.

Source: the errors of the seven operations in their service models, and
"Common Error Types",
https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html
"""

from __future__ import annotations

import os

from ..disclosure import kind, printable
from ..exceptions import (
    AccessDeniedError,
    ConfigurationError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
    ThrottledError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST_CODE = 100  # characters; the longest of AWS's has 38
SOURCES = {  # endpoint prefix -> SourceError.source
    "secretsmanager": "secrets_manager",
    "ssm": "parameter_store",
    "appconfigdata": "appconfig",
    "firehose": "firehose",
}

# The doubles of `lambda_ext.testing` that are entered: nothing leaves the process.
isolated_by: list[str] = []

# AWS did not take the credentials: worth one more try with new ones.
EXPIRED = frozenset(
    (
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
    )
)
# AWS did not take the time of signing: worth one more try with its time.
SKEWED = frozenset(
    (
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    )
)

# The server does not know the operation, as emulators of AWS may not.
UNKNOWN = frozenset(("InvalidAction", "NotImplemented", "UnknownOperationException"))

_NOT_FOUND = """
    ParameterNotFound ParameterVersionNotFound ResourceNotFoundException
"""
_DENIED = """
    AccessDenied AccessDeniedException IncompleteSignature
    IncompleteSignatureException MissingAuthenticationToken
    MissingAuthenticationTokenException NotAuthorized NotAuthorizedException
    OptInRequired UnauthorizedOperation
    DecryptionFailure InvalidKeyId KMSAccessDeniedException KMSDisabledException
    KMSInvalidStateException KMSNotFoundException
"""
_THROTTLED = """
    BandwidthLimitExceeded KMSThrottlingException LimitExceededException
    PriorRequestNotComplete RequestLimitExceeded RequestThrottled
    RequestThrottledException SlowDown ThrottledException Throttling
    ThrottlingException TooManyRequestsException
"""
_BROKEN = """
    InternalError InternalFailure InternalServerError InternalServerException
    InternalServiceError InternalServiceErrorException ServiceUnavailable
    ServiceUnavailableException
"""
_SLOW = """
    RequestTimeout RequestTimeoutException
"""
_WRONG = """
    BadRequestException InvalidFilterKey InvalidFilterOption InvalidFilterValue
    InvalidNextToken InvalidNextTokenException InvalidParameterException
    InvalidRequestException UnknownOperationException ValidationError
    ValidationException
"""
_CLASSES: dict[str, tuple[type[SourceError], bool]] = {
    code: (cls, transient)
    for cls, transient, codes in (
        (NotFoundError, False, _NOT_FOUND.split()),
        (AccessDeniedError, False, _DENIED.split()),
        (AccessDeniedError, False, EXPIRED),
        (AccessDeniedError, False, SKEWED),
        (ThrottledError, True, _THROTTLED.split()),
        (SourceError, True, _BROKEN.split()),
        (SourceTimeoutError, True, _SLOW.split()),
        (SourceError, False, _WRONG.split()),
    )
    for code in codes
}
_REASONS: dict[type[SourceError], str] = {  # natively, ParameterNotFound is empty
    AccessDeniedError: "the role may not read it, or not use its KMS key",
    NotFoundError: "there is none of this name, version or label",
}
_DELETED = "the secret is scheduled for deletion: call RestoreSecret, or name another"


class UnknownOperationError(ConfigurationError):
    """The client has no such operation: it is of an older boto3, or a stand-in."""


class WireFailure:
    """
    How a request of the light transport failed, for what makes a botocore exception of it.

    *kind* is "answer" where AWS refused: then *status*, *headers*, *code*,
    *message* and *members* are what botocore parses.  It is "part" where a batch had
    no value for one of its names.  Else it says what stood in the way of an answer,
    *reason* in words; *url* is the endpoint's.
    """

    __slots__ = (
        "code", "exhausted", "headers", "kind", "members", "message", "reason",
        "retries", "status", "url",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        *,
        url: str = "",
        reason: str = "",
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        code: str = "",
        message: Any = "",
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.url = url
        self.reason = reason
        self.status = status
        self.headers = headers or {}
        self.code = code  # "" where nothing but the status tells
        self.message = message
        self.members = members or {}
        self.retries = 0
        self.exhausted = False  # more retries might have helped

    def __repr__(self) -> str:
        return f"<WireFailure {self.kind}>"  # a message may quote anything


def lacks_operation(exc: BaseException) -> bool:
    """Say whether a batch failed since the client or the server has no batches."""
    return isinstance(exc, UnknownOperationError) or (
        isinstance(exc, SourceError) and exc.code in UNKNOWN
    )


def is_transient(exc: BaseException) -> bool:
    """
    Say whether *exc* is transient: nothing else decides whether a stale value serves.

    True for throttling, 5xx, time-outs and network errors; of other people's
    sources, for the time-outs and broken connections that Python knows.
    """
    if isinstance(exc, SourceError):
        return exc.transient
    return isinstance(exc, (ConnectionError, TimeoutError))


def is_about_content(exc: SourceError) -> bool:
    """
    Say whether a batch failed for what it asked for, not for how or when.

    Then its parts may succeed one by one.
    """
    return not exc.transient and exc.code not in EXPIRED and exc.code not in SKEWED


def is_from_body(code: str) -> bool:
    """Say whether *code* is AWS's: botocore puts the HTTP status where there is none."""
    return not (code == "" or code.isdigit())


def is_known(code: str) -> bool:
    """Say whether *code* is one of AWS's."""
    return code in _CLASSES


def from_code(
    code: str, text: str, *, service: str, key: str, status: int = 0, region: str = ""
) -> SourceError:
    """
    Return the error that means *code*, or *status* if the code is unknown.

    *text* is AWS's own message, *key* what was asked for, in *region*.  The
    codes of the entries in ``Errors`` of BatchGetSecretValue come here as well.
    """
    code = code.rpartition("#")[2].partition(":")[0]  # "com.amazonaws.x#Code:http:.."
    code = printable(code, LONGEST_CODE)
    cls, transient = _CLASSES.get(code) or _by_status(status)
    if status == 501:  # for every code, also that of a passing failure
        code, cls, transient = "NotImplemented", SourceError, False
    text = printable(text.strip())
    if not is_from_body(code):
        text = ""
    if 300 <= status < 400:
        text = "the server redirects, and no redirect is followed"
    elif code == "InvalidRequestException" and "delet" in text.lower():
        # AWS has no code of its own for it.
        cls, text = NotFoundError, f"{_DELETED} ({text})"
    text = text or _REASONS.get(cls, "AWS gave no reason")
    if cls is NotFoundError:
        text += f" (looked for in {region})" if region else " (in this region)"
    return cls(
        f"{_subject(service, key)}: {code or f'HTTP status {status}'}: {text}",
        key=key,
        source=SOURCES.get(service, service),
        code=code,
        transient=transient,
    )


def unreadable(reason: str, *, service: str, key: str) -> SourceError:
    """Return the error for an answer that cannot be read; it is transient."""
    return SourceError(
        f"{_subject(service, key)}: the answer could not be read: {printable(reason)}",
        key=key,
        source=SOURCES.get(service, service),
        transient=True,
    )


def unreachable(reason: str, *, service: str, key: str) -> SourceError:
    """Return the error for a connection that failed or broke; it is transient."""
    return SourceError(
        f"{_subject(service, key)}: AWS could not be reached: {printable(reason)}"
        f"{_region_in(reason)}",
        key=key,
        source=SOURCES.get(service, service),
        transient=True,
    )


def _region_in(reason: str) -> str:
    """Return which variable names the region of a host in *reason*; "" if none."""
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        name = os.environ.get(variable)
        if name:
            if f".{name}." in reason:
                return f" (the region is from {variable})"
            break
    return ""


def too_late(reason: str, *, service: str, key: str) -> SourceTimeoutError:
    """Return the error for an answer that did not come in time."""
    return SourceTimeoutError(
        f"{_subject(service, key)}: {printable(reason)}",
        key=key,
        source=SOURCES.get(service, service),
        transient=True,
    )


def unexpected(exc: BaseException, *, service: str, key: str) -> SourceError:
    """
    Return the error for what a transport must not raise.

    It is transient, and quotes nothing, since the message may hold a value.
    """
    return SourceError(
        f"{_subject(service, key)}: {kind(exc)}",
        key=key,
        source=SOURCES.get(service, service),
        transient=True,
    )


def no_region(service: str, key: str = "") -> ConfigurationError:
    """Return the error for a service without a place."""
    return ConfigurationError(
        f"{_subject(service, key)}: no AWS region is set: set AWS_REGION, as Lambda"
        " does, or AWS_DEFAULT_REGION, or pass session= or client="
    )


class IsolatedError(ConfigurationError):
    """A test asked AWS where it must not."""

    forbidden = True  # no default stands in for it


def isolated(what: str, service: str = "", *, client: bool = False) -> IsolatedError:
    """Return the error for *what*, a call that would leave the process."""
    doubles = isolated_by[-1] if isolated_by else "no_aws()"
    double = "FakeFlags" if service == "appconfigdata" else "FakeSource"
    advice = f"put it into a {double}, or pass source="
    if client:  # whose calls no double answers
        advice = (
            "answer it with botocore's Stubber or moto, or read a Secret or Parameter"
        )
    return IsolatedError(
        f"{what} would be asked from outside this process, inside {doubles}: {advice}"
    )


def no_credentials(service: str, key: str = "", detail: str = "") -> ConfigurationError:
    """Return the error for a process that cannot sign."""
    return ConfigurationError(
        f"{_subject(service, key)}: no AWS credentials were found: give the function"
        " a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        + (detail and f" ({printable(detail)})")
    )


def key_of(parameters: Mapping[str, Any]) -> str:
    """Return what a request asks for, as it is to be named in a message."""
    for name in ("SecretId", "Name", "Path", "DeliveryStreamName"):
        if name in parameters:
            return str(parameters[name])
    for name in ("SecretIdList", "Names"):
        if name in parameters:
            return ", ".join(map(str, parameters[name]))
    words = [
        parameters.get(name + "Identifier", "")
        for name in ("Application", "Environment", "ConfigurationProfile")
    ]
    return "/".join(map(str, words)) if any(words) else ""


def problems(answer: Mapping[str, Any]) -> str:
    """Return AppConfig's details of a BadRequestException, as " (x: Expired)"."""
    details = answer.get("Details")
    invalid = details.get("InvalidParameters") if isinstance(details, dict) else None
    if not isinstance(invalid, dict):
        return ""
    words = [
        f"{name}: {detail.get('Problem')}"
        for name, detail in sorted(invalid.items())
        if isinstance(detail, dict)
    ]
    return f" ({', '.join(words)})" if words else ""


_THINGS = {"secretsmanager": "secret", "ssm": "parameter", "firehose": "stream"}


def _subject(service: str, key: str) -> str:
    what = _THINGS.get(service)
    return f"{what or 'configuration'} {printable(key)!r}" if key else service


def _by_status(status: int) -> tuple[type[SourceError], bool]:
    if status == 429:
        return ThrottledError, True
    if status in (401, 403):
        return AccessDeniedError, False
    if status == 408:
        return SourceTimeoutError, True
    return SourceError, status >= 500
