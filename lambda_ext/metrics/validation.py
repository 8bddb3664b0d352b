"""
What CloudWatch takes: names, units, dimensions and values.

Each function returns its argument as plain ``str``, ``int`` or ``float``, or
raises `MetricError` with a message that says what to change.

Source: PutMetricData, MetricDatum and Dimension,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
and the embedded metric format specification, see `emf`.
"""

from __future__ import annotations

import math

from ..exceptions import ConfigurationError, MetricError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..typing import Sink

    Number = int | float

MAX_NAME = 255
MAX_VALUE = 2.0**360  # either way
MAX_DIMENSIONS = 30
MAX_DIMENSION_NAME = 250
MAX_DIMENSION_VALUE = 1024
RESERVED = frozenset(("_aws", "level", "timestamp"))  # read by CloudWatch and Lambda
UNITS = frozenset((
    "Seconds", "Microseconds", "Milliseconds",
    "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes",
    "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count",
    "Bytes/Second", "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second",
    "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second",
    "Gigabits/Second", "Terabits/Second", "Count/Second", "None",
))  # fmt: skip


class Refused:
    """Takes the place of a dimension that was refused before the flush."""

    __slots__ = ("message", "reason")

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message


def name(given: Any) -> str:
    """Return *given* as the name of a metric."""
    if not isinstance(given, str) or not _fits(given, MAX_NAME):
        msg = f"a metric's name is 1 to {MAX_NAME} printable characters, not blank"
        raise MetricError(msg, reason="name")
    if given in RESERVED:
        msg = f"the names {', '.join(sorted(RESERVED))} mean something else to AWS"
        raise MetricError(msg, reason="name")
    return str.__str__(given)


def unit(given: Any) -> str:
    """Return *given* as a unit."""
    if not isinstance(given, str) or given not in UNITS:
        msg = f"unit= is one of {', '.join(sorted(UNITS))}"
        raise MetricError(msg, reason="unit")
    return str.__str__(given)


def value(given: Any) -> Number:
    """Return *given* as an int or a float; True is 1, a Decimal a float."""
    number: Number = math.nan
    try:
        if hasattr(given, "__index__"):
            number = int(given.__index__())
        elif hasattr(given, "__float__"):
            number = float(given)
    except Exception as exc:
        raise _not_a_value() from exc
    if not -MAX_VALUE <= number <= MAX_VALUE:
        raise _not_a_value()
    return number


def _not_a_value() -> MetricError:
    return MetricError(
        "a value is a finite number from -2**360 to 2**360", reason="value"
    )


def dimensions(given: Mapping[Any, Any]) -> dict[str, str]:
    """Return *given* as names and values of dimensions."""
    checked = {}
    for key, held in given.items():
        if type(held) is Refused:
            raise MetricError(held.message, reason=held.reason)
        if (
            not isinstance(key, str)
            or not key.isascii()
            or not _fits(key, MAX_DIMENSION_NAME)
            or key.startswith(":")
            or key in RESERVED
        ):
            msg = (
                f"a dimension's name is 1 to {MAX_DIMENSION_NAME} printable ASCII"
                " characters, not blank, not ':' in front, and none of"
                f" {', '.join(sorted(RESERVED))}"
            )
            raise MetricError(msg, reason="dimension_name")
        text = str(held) if type(held) is int else held
        if (
            not isinstance(text, str)
            or not text.isascii()
            or not _fits(text, MAX_DIMENSION_VALUE)
        ):
            msg = (
                f"dimension {key!r} takes an int, or text of 1 to"
                f" {MAX_DIMENSION_VALUE} printable ASCII characters, not blank"
            )
            raise MetricError(msg, reason="dimension_value")
        checked[str.__str__(key)] = str.__str__(text)
    return checked


def merged(dimensions: Any, dims: dict[str, Any]) -> dict[Any, Any]:
    """Return both; what cannot be merged is refused by the flush."""
    try:
        merged = dict(dimensions)
    except Exception:
        message = "dimensions= takes a mapping of names to values"
        return {"dimensions": Refused("dimensions", message)}
    for name, value in dims.items():
        message = f"dimension {name!r} is given twice; leave one out"
        twice = Refused("dimension_clash", message)
        merged[name] = twice if name in merged else value
    return merged


def room_for(count: int) -> None:
    """Refuse more dimensions than a metric can have."""
    if count > MAX_DIMENSIONS:
        msg = f"{count} dimensions; a metric has at most {MAX_DIMENSIONS}"
        raise MetricError(msg, reason="too_many_dimensions")


def sink(given: Sink | None) -> Sink | None:
    """Return *given*, an object with a method accept(); its class is none."""
    accept = getattr(given, "accept", None)
    if given is not None and (isinstance(given, type) or not callable(accept)):
        msg = (
            f"Metrics(sink={given!r:.80}) is no sink: that is an object with a"
            " method accept(batch), see lambda_ext.typing.Sink"
        )
        raise ConfigurationError(msg)
    return given


def _fits(text: str, length: int) -> bool:
    return 0 < len(text) <= length and text.isprintable() and not text.isspace()
