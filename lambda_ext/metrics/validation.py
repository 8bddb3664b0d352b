"""
What CloudWatch takes: names, units, dimensions and values.

Each function returns its argument as plain ``str``, ``int`` or ``float``, or
raises `MetricError` with a message that says what was given, as a type, and
what to change.  No message quotes what was given, unless it is a number or the
name of a dimension.

The limits are those of `lambda_ext.limits`.
"""

from __future__ import annotations

from .. import disclosure
from ..exceptions import ConfigurationError, MetricError
from ..lifecycle.process import by_signal_handler
from ..limits import (
    DIMENSION_NAME,
    DIMENSION_VALUE,
    MAX_AGE_S,
    MAX_DIMENSIONS,
    MAX_LEAD_S,
    MAX_MAGNITUDE,
    METRIC_NAME,
    RESOLUTIONS,
    UNITS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..typing import Sink

    Number = int | float
    Rule = tuple[int, tuple[str, ...], frozenset[str]]

# Read by CloudWatch and Lambda at the root of a document.
RESERVED = frozenset(("_aws", "level", "timestamp"))
# Keyword parameters of `Metrics.count`: meant as such, not as dimensions.
PARAMETERS = frozenset(("name", "value", "unit"))


def name(given: Any) -> str:
    """Return *given* as the name of a metric."""
    if not isinstance(given, str) or not _fits(given, METRIC_NAME):
        msg = (
            f"a metric's name is 1 to {METRIC_NAME[0]} printable ASCII characters,"
            f" not blank; given was {_given(given)}"
        )
        raise MetricError(msg, reason="name")
    if given in RESERVED:
        msg = (
            f"the names {', '.join(sorted(RESERVED))} mean something else to AWS;"
            " rename the metric"
        )
        raise MetricError(msg, reason="name")
    return str.__str__(given)


def unit(given: Any) -> str:
    """Return *given* as a unit."""
    if not isinstance(given, str) or given not in UNITS:
        msg = f"unit= is one of {', '.join(sorted(UNITS))}; given was {_given(given)}"
        raise MetricError(msg, reason="unit")
    return str.__str__(given)


def value(given: Any) -> Number:
    """Return *given* as an int or a float; True is 1, a Decimal a float.

    An object with a working ``__index__`` or ``__float__`` is a number.
    """
    number: Number | None = None
    if disclosure.attribute(given, "__index__") is not None:
        try:
            number = int(given.__index__())
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            number = None  # an array of one float has both, and only one works
    if number is None and disclosure.attribute(given, "__float__") is not None:
        try:
            number = float(given)
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            raise _not_a_value(given) from exc
    if number is None or not -MAX_MAGNITUDE <= number <= MAX_MAGNITUDE:
        raise _not_a_value(given if number is None else number)
    return number


def _not_a_value(given: Any) -> MetricError:
    what = f"the float {given!r}" if type(given) is float else _given(given)
    return MetricError(
        "a value is a finite number from -2**360 to 2**360; given was"
        f" {what}: pass a number, or record nothing",
        reason="value",
    )


def resolution(given: Any) -> int:
    """Return *given* as the seconds that CloudWatch keeps apart."""
    if type(given) is not int or given not in RESOLUTIONS:
        msg = "resolution= is 60, or 1 for high resolution"
        raise MetricError(msg, reason="resolution")
    return given


def timestamp(given: Any, now: float) -> float | None:
    """Return *given*, seconds since the epoch or a datetime, as a float."""
    if given is None:
        return None
    try:
        at = float(given.timestamp() if hasattr(given, "timestamp") else given)
    except Exception as exc:  # of an object of the user's, which may raise any
        if by_signal_handler(exc):
            raise
        at = -1.0
    if not now - MAX_AGE_S <= at <= now + MAX_LEAD_S:
        msg = (
            "timestamp= is a datetime or seconds since the epoch, at most two weeks"
            " ago and two hours ahead"
        )
        raise MetricError(msg, reason="timestamp")
    return at


def dimensions(given: Mapping[Any, Any]) -> dict[str, str]:
    """Return *given* as names and values of dimensions."""
    checked = {}
    for key, held in given.items():
        if type(held) is MetricError:  # see `merged`
            raise MetricError(str(held), reason=held.reason)
        if (
            not isinstance(key, str)
            or not _fits(key, DIMENSION_NAME)
            or key in RESERVED
        ):
            msg = (
                f"a dimension's name is 1 to {DIMENSION_NAME[0]} printable ASCII"
                " characters, not blank, not ':' in front, and none of"
                f" {', '.join(sorted(RESERVED))}; given was {_given(key)}"
            )
            raise MetricError(msg, reason="dimension_name")
        text = str(held) if type(held) is int else held
        if not isinstance(text, str) or not _fits(text, DIMENSION_VALUE):
            msg = (
                f"dimension {key!r:.80} takes an int, or text of 1 to"
                f" {DIMENSION_VALUE[0]} printable ASCII characters, not blank; given"
                f" was {_given(held)}"
            )
            raise MetricError(msg, reason="dimension_value")
        checked[str.__str__(key)] = str.__str__(text)
    return checked


def merged(dimensions: Any, dims: dict[str, Any]) -> dict[Any, Any]:
    """Return both; what cannot be merged is an error that `dimensions` raises."""
    try:
        merged = dict(dimensions)
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        message = (
            "dimensions= takes a mapping of names to values; given was"
            f" {_given(dimensions)}"
        )
        return {"dimensions": MetricError(message, reason="dimensions")}
    for name, value in dims.items():
        message = f"dimension {name!r:.80} is given twice; leave one out"
        twice = MetricError(message, reason="dimension_clash")
        merged[name] = twice if name in merged else value
    return merged


def unmistaken(dims: dict[str, Any]) -> dict[Any, Any]:
    """Refuse keywords that are parameters elsewhere, such as ``value=``."""
    refused: dict[Any, Any] = dims
    for name in PARAMETERS.intersection(dims):
        message = (
            f"{name}= is no parameter here, and as a dimension it is taken in"
            f" dimensions={{{name!r}: ...}} only"
        )
        refused = {**refused, name: MetricError(message, reason="dimension_name")}
    return refused


def check_dimension_count(count: int) -> None:
    """Refuse more dimensions than a metric can have."""
    if count > MAX_DIMENSIONS:
        msg = (
            f"{count} dimensions; a metric has at most {MAX_DIMENSIONS}: leave some out"
        )
        raise MetricError(msg, reason="too_many_dimensions")


def sink(given: Sink | None) -> Sink | None:
    """Return *given*, an object with a method accept(); its class is refused."""
    if given is None:
        return None
    # Not loaded by those that have no sink of their own.
    from .. import callables

    accept = disclosure.attribute(given, "accept")
    if isinstance(given, type) or not callable(accept):
        msg = (
            f"Metrics(sink=...): {callables.named(given)} is no sink: that is an object"
            " with a method accept(batch), see lambda_ext.typing.Sink"
        )
        raise ConfigurationError(msg)
    callables.refuse_async_sink(given)
    return given


def _fits(text: str, rule: Rule) -> bool:
    longest, beginnings, alphabet = rule
    return (
        0 < len(text) <= longest
        and alphabet.issuperset(text)
        and not text.isspace()
        and not text.startswith(beginnings)
    )


def _given(given: Any) -> str:
    """Return what a message may say about *given*: its type, and what is wrong."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        return f"of type {type(given).__qualname__}"
    if isinstance(given, int):
        return f"an int of {int.bit_length(given)} bits"
    if not str.__len__(given):
        return "empty text"
    if not str.isascii(given):
        return (
            "text with characters beyond ASCII: send it in a spelling of your own, or"
            " as urllib.parse.quote() writes it"
        )
    if not str.isprintable(given):
        return "text with control characters: leave them out"
    return f"text of {str.__len__(given)} characters"
