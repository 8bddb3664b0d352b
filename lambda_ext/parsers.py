"""
What an option's value may be: from the text of a variable, or as it is.

Each returns the value in its final type, or raises `ConfigurationError` that
says what was expected; the caller adds the name of the option.
"""

from __future__ import annotations

import math
import re

from .exceptions import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPERTIES = (  # metrics.correlation has what they mean
    "availability_zone", "cold_start", "request_id", "span_id", "tenant_id",
    "trace_id",
)  # fmt: skip
RUNTIME = (  # metrics.runtime has what they mean
    "cold_start", "cpu_system_time", "cpu_total_time", "cpu_user_time", "duration",
    "fd_max", "fd_use", "init_duration", "memory_utilization", "rx_bytes", "threads_max",
    "tmp_free", "tmp_max", "tmp_used", "total_memory", "total_network", "tx_bytes",
    "used_memory_max",
)  # fmt: skip
SINKS = ("emf", "otlp", "datadog")  # metrics.outlets.NAMED has what they are
PARTS = ("extension", "signals")  # what `disable` can switch off
TRANSPORTS = ("auto", "light", "boto3")  # what the option `transport` can be
NO_NUMBERS = (bool, bytes, bytearray)  # though float() would take them


def seconds(value: Any, *, low: float = 0.0, high: float = math.inf) -> float | None:
    """Return *value* as seconds; None and "none" mean without limit."""
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    total = getattr(type(value), "total_seconds", None)  # datetime.timedelta
    try:
        if isinstance(value, NO_NUMBERS):
            raise TypeError  # noqa: TRY301  see there
        number = float(value if total is None else total(value))
    except (OverflowError, TypeError, ValueError):
        msg = f"expected seconds (a number from {low:g}, or None for no limit)"
        raise ConfigurationError(msg) from None
    if not low <= number <= high or number == math.inf:
        upper = "" if high == math.inf else f" to {high:g}"
        msg = f"expected seconds from {low:g}{upper}, or None for no limit"
        raise ConfigurationError(msg)
    return number


def switch(value: Any) -> bool:
    """Return *value* as a bool: true/false, 1/0, yes/no, on/off, y/n, t/f."""
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("1", "true", "yes", "on", "y", "t"):
            return True
        if word in ("0", "false", "no", "off", "n", "f"):
            return False
    msg = "expected true or false"
    raise ConfigurationError(msg)


def text(value: Any) -> str | None:
    """Return *value* as text that is not blank; None means not set."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        msg = "expected text that is not blank"
        raise ConfigurationError(msg)
    return value


def namespace(value: Any) -> str | None:
    """Return *value* as a namespace that CloudWatch takes from us."""
    name = text(value)
    from .limits import NAMESPACE  # with metrics only

    longest, beginnings, alphabet = NAMESPACE
    if name is not None and (
        len(name) > longest
        or not alphabet.issuperset(name)
        or name.startswith(beginnings)
    ):
        msg = "expected up to 255 of A-Z a-z 0-9 . - _ / # : and neither : nor AWS/ in front"
        raise ConfigurationError(msg)
    return name


def label(value: Any) -> str | None:
    """Return *value* as the value of a dimension."""
    name = text(value)
    from .limits import DIMENSION_VALUE  # with metrics only

    longest, _, alphabet = DIMENSION_VALUE
    if name is not None and not (len(name) <= longest and alphabet.issuperset(name)):
        msg = "expected up to 1024 printable ASCII characters"
        raise ConfigurationError(msg)
    return name


def transport(value: Any) -> str:
    """Return *value*, one of `TRANSPORTS`, in small letters."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in TRANSPORTS:
        msg = f"expected {', '.join(map(repr, TRANSPORTS[:-1]))} or {TRANSPORTS[-1]!r}"
        raise ConfigurationError(msg)
    return word


def parts(value: Any) -> frozenset[str]:
    """Return *value*, "a,b" or an iterable, as a set of names in `PARTS`."""
    try:
        names = value.split(",") if isinstance(value, str) else list(value)
        chosen = frozenset(name.strip().lower() for name in names if name.strip())
    except (AttributeError, TypeError):
        msg = f"expected {' or '.join(map(repr, PARTS))}, or a list of both"
        raise ConfigurationError(msg) from None
    unknown = sorted(chosen.difference(PARTS))
    if unknown:
        msg = f"unknown part {unknown[0]!r}; expected {' or '.join(map(repr, PARTS))}"
        raise ConfigurationError(msg)
    return chosen


def runtime(value: Any) -> frozenset[str]:
    """Return *value*, a switch or names in `RUNTIME`, as a set of names."""
    try:
        return frozenset(RUNTIME if switch(value) else ())
    except ConfigurationError:
        return _names(value, RUNTIME, "true, false or names of metrics")


def properties(value: Any) -> frozenset[str]:
    """Return *value*, "a,b" or an iterable, as a set of names in `PROPERTIES`."""
    return _names(value, PROPERTIES, "names of properties")


def _names(value: Any, known: tuple[str, ...], expected: str) -> frozenset[str]:
    try:
        names = value.split(",") if isinstance(value, str) else list(value)
        chosen = frozenset(name.strip().lower() for name in names if name.strip())
    except (AttributeError, TypeError):
        raise ConfigurationError(f"expected {expected}") from None
    unknown = sorted(chosen.difference(known))
    if unknown:
        msg = (
            f"unknown name {unknown[0]!r:.80}; expected {expected}: {', '.join(known)}"
        )
        raise ConfigurationError(msg)
    return chosen


def count(value: Any, *, high: int = 1_000_000) -> int:
    """Return *value* as a whole number from 0 to *high*."""
    try:
        if isinstance(value, NO_NUMBERS):
            raise TypeError  # noqa: TRY301  see there
        number = int(float(value))
        if number != float(value):
            raise ValueError  # noqa: TRY301  half a thing is none
    except (OverflowError, TypeError, ValueError):
        number = -1
    if not 0 <= number <= high:
        msg = f"expected a whole number from 0 to {high}"
        raise ConfigurationError(msg)
    return number


def interval(value: Any) -> float | None:
    """Return *value* as seconds between polls: 45, "45s", "5m" or "1h"; None never."""
    if isinstance(value, str):
        text = value.strip().lower()
        unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
        if unit is not None:
            number = seconds(text[:-1])
            value = math.nan if number is None else number * unit
    return seconds(value, low=1.0, high=86_400.0)


def port(value: Any) -> int:
    """Return *value* as the number of a port, from 1 to 65535."""
    number = count(value, high=65_535)
    if not number:
        msg = "expected a port from 1 to 65535"
        raise ConfigurationError(msg)
    return number


def profile(value: Any) -> str | None:
    """Return *value*: an application, an environment and a profile, by slashes."""
    name = text(value)
    if name is not None and [bool(part) for part in name.split("/")] != [True] * 3:
        msg = "expected 'application/environment/profile'"
        raise ConfigurationError(msg)
    return name


def profiles(value: Any) -> tuple[str, ...]:
    """
    Return *value* as configurations, "application/environment/profile" each.

    Also as AppConfig's extension takes them: "App:Env:Profile" and
    "/applications/App/environments/Env/configurations/Profile".
    """
    names = value.split(",") if isinstance(value, str) else value
    found = []
    try:
        for each in names:
            name = each.strip()
            words = name.split("/")
            if words[1::2] == ["applications", "environments", "configurations"]:
                name = "/".join(words[2::2])
            elif name and "/" not in name:
                name = name.replace(":", "/")
            if name:
                found.append(profile(name) or "")
    except (AttributeError, TypeError):
        msg = "expected a list of 'application/environment/profile'"
        raise ConfigurationError(msg) from None
    return tuple(found)


def region(value: Any) -> str | None:
    """Return *value* as the name of a region of AWS."""
    name = text(value)
    if name is not None and not re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+){1,5}", name):
        msg = "expected a region such as 'eu-central-1'"
        raise ConfigurationError(msg)
    return name


def flags_source(value: Any) -> str:
    """Return *value*: "aws", "agent" or "file:PATH"."""
    if value in ("aws", "agent"):
        return str(value)
    if isinstance(value, str) and value.startswith("file:") and value != "file:":
        return value
    msg = "expected 'aws', 'agent' or 'file:PATH'"
    raise ConfigurationError(msg)


def flush_every(value: Any) -> int | float | None:
    """Return *value*: an int of records, a float of seconds, or None for not set."""
    if value is None:
        return None
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    text = value.strip().lower() if isinstance(value, str) else ""
    number = text.rstrip("hms")
    unit = units.get(text[len(number) :])
    if unit is not None or hasattr(type(value), "total_seconds"):
        try:
            given = seconds(value if unit is None else number)
        except ConfigurationError:
            given = None
        total = (given or 0.0) * (unit or 1.0)
        if not 0.1 <= total <= 86_400.0:
            msg = "expected a time from 0.1 seconds ('100ms') to a day ('24h')"
            raise ConfigurationError(msg)
        return total
    try:
        found = count(value)
    except ConfigurationError:
        found = 0
    if not found:
        msg = "expected a number of records from 1, or a time such as '5s'"
        raise ConfigurationError(msg)
    return found


def sinks(value: Any) -> tuple[Any, ...] | None:
    """Return *value*, "a,b" or an iterable of names and sinks; None for not set."""
    # Not loaded by those that have no sink of their own.
    from . import callables

    if value is None:
        return None
    if isinstance(value, str):
        found: tuple[Any, ...] = tuple(
            [name.strip().lower() for name in value.split(",") if name.strip()]
        )
    else:
        try:
            found = tuple(value)
        except TypeError:
            msg = "expected a list of sinks, or names such as 'emf,otlp'"
            raise ConfigurationError(msg) from None
    for each in found:
        name = each if isinstance(each, str) else None
        if name is None and (isinstance(each, type) or not _may_be_sink(each)):
            msg = (
                f"{callables.named(each)} is no sink: that is an object with a method"
                " accept(batch), a function of a batch, a route, or a name"
            )
            raise ConfigurationError(msg)
        if name is not None and name not in SINKS:
            msg = f"there is no sink {name!r:.80}; known are {', '.join(SINKS)}"
            raise ConfigurationError(msg)
        if name is None:
            callables.refuse_async_sink(each)
    return found


def _may_be_sink(value: Any) -> bool:
    # Not loaded by those that have no sink of their own.
    from .disclosure import attribute

    return any(map(callable, (value, attribute(value, "accept")))) or (
        attribute(value, "sink") is not None  # a route's
    )


def source(value: Any) -> str:
    """Return *value*: "aws", "aws_extension" or "file:PATH"."""
    if value in ("aws", "aws_extension"):
        return str(value)
    if isinstance(value, str) and value.startswith("file:") and value != "file:":
        return value
    msg = "expected 'aws', 'aws_extension' or 'file:PATH'"
    raise ConfigurationError(msg)
