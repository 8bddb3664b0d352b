"""
AWS Signature Version 4, made when the request is sent.

Source: "Create a signed AWS API request",
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import os
import time

from ..exceptions import ConfigurationError
from ..lifecycle import clock, process
from .native import hmac, modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALGORITHM = "AWS4-HMAC-SHA256"
TOLERATED_S = 60.0  # AWS accepts 5 minutes; what is less is no skew of a clock
LARGEST_S = 86400.0  # what is more is an absurd Date, not the skew of a clock
UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
_MONTHS = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]

skew_s = 0.0  # AWS's clock minus ours, as of the last signature that needed it


class MissingError(Exception):
    """The variables that held keys hold none any more."""


class UnavailableError(Exception):
    """The endpoint for credentials gave none; the message quotes no answer."""


class Keys:
    """What a request is signed with."""

    __slots__ = ("access", "expires_at", "secret", "token")

    def __init__(
        self, access: str, secret: str, token: str, expires_at: float | None = None
    ) -> None:
        self.access = access
        self.secret = secret
        self.token = token
        self.expires_at = expires_at  # in house time; None: not known

    def __repr__(self) -> str:
        return f"<keys {self.access}>"

    def same(self, other: Keys) -> bool:
        """Say whether both sign alike, whenever they expire."""
        return (self.access, self.secret, self.token) == (
            other.access,
            other.secret,
            other.token,
        )


def variable(name: str) -> str:
    """Return the variable *name*; raise, without quoting it, if no header can hold it."""
    value = os.environ.get(name, "")
    if not (value.isascii() and value.isprintable()):
        msg = f"{name} holds a line break, or a character that no key has"
        raise ConfigurationError(msg)
    return value


def quote(text: str, safe: bytes = b"") -> str:
    """Return *text* percent-encoded as AWS wants it: UTF-8, capitals."""
    return "".join(
        chr(byte) if byte in UNRESERVED or byte in safe else f"%{byte:02X}"
        # A lone surrogate is no UTF-8: sent anyhow, for AWS to refuse.
        for byte in text.encode(errors="surrogatepass")
    )


def authorization(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    keys: Keys,
    region: str,
    service: str,
) -> str:
    """
    Return the header Authorization for a request.

    *path* and *query* are encoded as they are sent; *headers*, by names in
    small letters, are all signed and hold ``host`` and ``x-amz-date``.
    """
    sha256 = modules().sha256
    stamp = headers["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    names = sorted(headers)
    signed = ";".join(names)
    canonical = "\n".join(
        (
            method,
            # Encoded twice: of all services only S3 does not.
            quote(_normalized(path), b"/"),
            _ordered(query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            signed,
            sha256(body).hexdigest(),
        )
    )
    digest = sha256(canonical.encode()).hexdigest()
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    key = ("AWS4" + keys.secret).encode()
    for part in scope.split("/"):
        key = hmac(sha256, key, part.encode())
    signature = hmac(sha256, key, text.encode()).hex()
    return (
        f"{ALGORITHM} Credential={keys.access}/{scope},"
        f" SignedHeaders={signed}, Signature={signature}"
    )


def _normalized(path: str) -> str:
    """Return *path* without empty and dotted segments (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    if not kept:
        return "/"
    return "/" + "/".join(kept) + ("/" if path.endswith("/") else "")


def _ordered(query: str) -> str:
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in pairs)


def timestamp(ahead_s: float) -> str:
    """Return the time on a clock *ahead_s* before ours, as "20260102T030405Z"."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(clock.wall() + ahead_s))


def skew_of(given: str) -> float:
    """
    Return AWS's clock minus ours, from the Date header *given* of a refusal.

    0.0 where it is less than a minute, more than a day, or the header is no date.
    """
    answered_at = date(given)
    found_s = 0.0 if answered_at is None else answered_at - clock.wall()
    return found_s if TOLERATED_S <= abs(found_s) <= LARGEST_S else 0.0


def keep_skew(found_s: float) -> None:
    """Sign with this skew from now on: a signature made with it was accepted."""
    global skew_s
    skew_s = found_s


@process.at_reset
def reset() -> None:
    """Trust the clock again, as if this were just imported."""
    global skew_s
    skew_s = 0.0


def date(text: str) -> float | None:
    """Return the epoch seconds of "Wed, 21 Oct 2015 07:28:00 GMT"."""
    try:
        _, day, month, year, hours, zone = text.split()
        hour, minute, second = hours.split(":")
        numbers = (year, day, hour, minute, second)
        # `int` alone would also take "1_000", "-5" and any number of digits.
        lengths = [len(number) for number in numbers if number.isascii()]
        if (
            zone != "GMT"
            or lengths != [4, 2, 2, 2, 2]
            or not "".join(numbers).isdigit()
        ):
            return None
        return epoch((year, _MONTHS.index(month) + 1, day, hour, minute, second))
    except ValueError:
        return None


def epoch(moment: Iterable[str | int]) -> float:
    """Return the epoch seconds of (year, month, ..., second) in UTC."""
    # `datetime` costs 1.4 ms, `calendar` loads it.
    year, month, day, hour, minute, second = map(int, moment)
    year -= month < 3  # years that begin in March have their leap day at the end
    month = (month + 9) % 12
    days = 365 * year + year // 4 - year // 100 + year // 400
    days += (153 * month + 2) // 5 + day - 1
    return float(((days - 719468) * 24 + hour) * 3600 + minute * 60 + second)
