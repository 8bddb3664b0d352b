"""
One call of one operation: as often as it helps, as long as there is time.

Guarantees
    A call never outlasts its budget: `BUDGET_S`, what the caller grants, or
    what is left of the invocation: the least of them.
    Tried again are throttling, 5xx, time-outs and broken connections, after a
    random part of a growing pause (full jitter), or after what AWS asks for
    with Retry-After.  No pause is begun that the budget would not outlast.
    Throttling is tried more often than the rest, after longer pauses: when
    1,000 environments start at once, a few quick attempts serve none
    (benchmarks/throttle_simulation.py).
    Only errors of this library leave a call.  An answer of another shape than
    AWS's is an error: callers may rely on the types in `_SHAPES`.
    When a freeze lay in between, one more try is made after any error: it
    was signed before the freeze and sent, or answered, after it.

Threads
    No state but the constants; any number of calls may run at once.
"""

from __future__ import annotations

import os
import time

from ..disclosure import forget_variables
from ..exceptions import LambdaExtError, SourceError, ThrottledError
from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from . import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CONNECT_S = 1.0  # a connection inside a region takes milliseconds, or fails
READ_S = 3.0  # likewise an answer; Lambda's default time-out is 3 s
BUDGET_S = 8.0  # of a whole call, retries included: INIT may take 10 s
RESERVE_S = 0.2  # of the invocation, left to the caller for a call that failed
ATTEMPTS = 3
PAUSE_S = 0.1  # doubled at each retry; on average half of it is waited
LONGEST_PAUSE_S = 2.0
THROTTLED_ATTEMPTS = 8  # with pauses like these they use up the budget
THROTTLED_PAUSE_S = 0.5  # the same, when AWS asks for fewer calls
LONGEST_THROTTLED_PAUSE_S = 4.0

# What an answer must have, or it is none: botocore gives {} for garbage.
_ESSENTIAL = {
    "GetSecretValue": ("SecretString", "SecretBinary"),
    "BatchGetSecretValue": ("SecretValues", "Errors"),
    "GetParameter": ("Parameter",),
    "GetParameters": ("Parameters", "InvalidParameters"),
    "GetParametersByPath": ("Parameters",),
    "StartConfigurationSession": ("InitialConfigurationToken",),
    "GetLatestConfiguration": ("NextPollConfigurationToken",),
    "PutRecordBatch": ("FailedPutCount", "RequestResponses"),
}

# What an answer may hold, and of which type; what else it holds is not read.
_SOME = "some text"  # must be there, and not be empty
_SECRET = {
    "ARN": str,
    "Name": str,
    "VersionId": str,
    "SecretString": str,
    "SecretBinary": bytes,
}
_PARAMETER = {
    "ARN": str,
    "Name": str,
    "Selector": str,
    "Type": str,
    "Value": str,
    "Version": int,
}
_REFUSAL = {"SecretId": str, "ErrorCode": str, "Message": str}
_SHAPES: dict[str, dict[str, Any]] = {
    "GetSecretValue": _SECRET,
    "BatchGetSecretValue": {
        "SecretValues": [_SECRET],
        "Errors": [_REFUSAL],
        "NextToken": str,
    },
    "GetParameter": {"Parameter": _PARAMETER},
    "GetParameters": {"Parameters": [_PARAMETER], "InvalidParameters": [str]},
    "GetParametersByPath": {
        "Parameters": [{**_PARAMETER, "Name": _SOME}],
        "NextToken": str,
    },
    "StartConfigurationSession": {"InitialConfigurationToken": str},
    "GetLatestConfiguration": {
        "NextPollConfigurationToken": str,
        "NextPollIntervalInSeconds": int,
        "Configuration": bytes,
        "ContentType": str,
        "VersionLabel": str,
    },
    "PutRecordBatch": {
        "FailedPutCount": int,
        "RequestResponses": [{"RecordId": str, "ErrorCode": str}],
    },
}
LONGEST_RETRY_AFTER_S = 300.0  # a server that asks for more gets this

sleep = time.sleep  # replaced by tests, which do not


class Retrying:
    """The half that both transports share."""

    __slots__ = ("__weakref__", "attempts", "service")

    def __init__(self, service: str, attempts: int = ATTEMPTS) -> None:
        self.service = service
        self.attempts = attempts

    def call(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Call *operation*; see `transport.Transport.call`."""
        ends_at = clock.monotonic() + budget(timeout_s)
        generation = clock.generation
        thawed = False
        retry = 0
        while True:
            left_s = ends_at - clock.monotonic()
            if left_s <= 0:
                raise errors.too_late(
                    "there was no time left to ask AWS",
                    service=self.service,
                    key=errors.key_of(parameters),
                )
            try:
                answer = self._attempted(operation, parameters, left_s)
                metadata = answer.get("ResponseMetadata")
                if retry and isinstance(metadata, dict):
                    metadata["RetryAttempts"] = retry
                return self._checked(operation, parameters, answer)
            except SourceError as exc:
                clock.sync()
                if clock.generation != generation:
                    generation = clock.generation
                    # The time that was granted was measured before the freeze.
                    ends_at = clock.monotonic() + budget(timeout_s)
                    if not thawed:
                        thawed = True
                        continue
                throttled = isinstance(exc, ThrottledError)
                attempts = self.attempts
                if throttled and attempts > 1:
                    attempts = THROTTLED_ATTEMPTS
                pause_s = exc.retry_after_s or jitter(retry, throttled=throttled)
                retry += 1
                enough = retry >= attempts
                late = clock.monotonic() + pause_s >= ends_at
                if not exc.transient or enough or late:
                    if exc.wire is not None:
                        exc.wire.retries = retry - 1
                        exc.wire.exhausted = exc.transient and attempts > 1
                    raise
            sleep(pause_s)

    def _attempted(
        self, operation: str, parameters: Mapping[str, Any], left_s: float
    ) -> dict[str, Any]:
        """Return what `attempt` does; nothing but our errors leaves it."""
        try:
            return self.attempt(operation, parameters, left_s)
        except LambdaExtError as exc:
            forget_variables(exc)
            raise
        except Exception as exc:
            if by_signal_handler(exc):
                forget_variables(exc)
                raise
            error = errors.unexpected(
                exc, service=self.service, key=errors.key_of(parameters)
            )
        except BaseException as exc:  # a signal handler's, which is the user's
            forget_variables(exc)
            raise
        # Outside of `except`: as the context it would keep what is not shown.
        raise error

    if TYPE_CHECKING:  # what each transport does in its own manner

        def attempt(
            self, operation: str, parameters: Mapping[str, Any], left_s: float
        ) -> dict[str, Any]:
            """Ask AWS once, within *left_s* seconds."""
            ...

    def _checked(
        self, operation: str, parameters: Mapping[str, Any], answer: dict[str, Any]
    ) -> dict[str, Any]:
        essential = _ESSENTIAL.get(operation, ())
        if essential and not any(name in answer for name in essential):
            raise errors.unreadable(
                f"it has no {' or '.join(essential)}",
                service=self.service,
                key=errors.key_of(parameters),
            )
        misfit = _misfit(answer, _SHAPES.get(operation, {}))
        if misfit:
            raise errors.unreadable(
                f"{misfit} is not of the type that AWS documents",
                service=self.service,
                key=errors.key_of(parameters),
            )
        return answer


def _misfit(value: Any, shape: Any, name: str = "it") -> str:
    """Return which part of *value* has another shape, "" if none has."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return name
        for member, wanted in shape.items():
            found = value.get(member)
            if wanted is _SOME:
                misfit = "" if found and type(found) is str else member
            else:
                misfit = "" if found is None else _misfit(found, wanted, member)
            if misfit:
                return misfit
        return ""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return name
        return next(filter(None, (_misfit(one, shape[0], name) for one in value)), "")
    return "" if type(value) is shape else name


def budget(timeout_s: float | None = None) -> float:
    """Return how many seconds a call that begins now may take."""
    granted_s = BUDGET_S if timeout_s is None else min(timeout_s, BUDGET_S)
    remaining_s = clock.remaining()
    if remaining_s is None:
        return granted_s
    return min(granted_s, max(remaining_s - RESERVE_S, remaining_s / 2))


def jitter(retry: int, *, throttled: bool = False) -> float:
    """Return the seconds to wait before the retry of this number, from 0."""
    if throttled:
        longest_s = min(THROTTLED_PAUSE_S * 2.0**retry, LONGEST_THROTTLED_PAUSE_S)
    else:
        longest_s = min(PAUSE_S * 2.0**retry, LONGEST_PAUSE_S)
    # Not `random`: it costs 3 ms to import, and all that are restored from one
    # snapshot would draw the same numbers.
    return longest_s * int.from_bytes(os.urandom(4), "big") / 2**32


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if none."""
    if header is None:
        return None
    header = header.strip()
    # Its other form, a date, is not used by these services.
    if not (header.isascii() and header.isdigit()):
        return None
    return min(float(header), LONGEST_RETRY_AFTER_S)
