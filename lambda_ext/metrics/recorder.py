"""
Metrics: what a user records with, and when it is flushed.

The first record registers with the phases: RESPONSE and SNAPSHOT flush,
SHUTDOWN flushes first of all and once more at the end (for what the user's own
shutdown callbacks recorded), FORK forgets what the parent will write.

Every `Metrics` records into one buffer, so that a flush finds all of them, also
one that the user has let go of.
"""

from __future__ import annotations

import logging
import os

from .. import config
from ..exceptions import ConfigurationError, MetricError
from ..lifecycle import phases
from . import buffer
from .emf import EmfSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..typing import Sink
    from .buffer import Series

UNITS = frozenset(
    [
        "Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "None",
        *(scale + what + per
          for scale in ("", "Kilo", "Mega", "Giga", "Tera")
          for what in ("bytes", "bits") for per in ("", "/Second")),
    ]
)  # fmt: skip
UNITS = frozenset(unit[0].upper() + unit[1:] for unit in UNITS) | {"Count/Second"}
MAX_NAME = 255  # CloudWatch API, MetricDatum
MAX_DIMENSIONS = 30  # EMF specification, DimensionSet
MAX_DIMENSION_NAME = 250  # EMF schema
MAX_DIMENSION_VALUE = 1024  # CloudWatch API, Dimension
RESERVED = frozenset(("_aws", "level", "timestamp"))  # root members of ours
LAST = 99  # the priority of the last flush
MEMO = 1_000  # validated series that one `Metrics` remembers

_log = logging.getLogger("lambda_ext")


class _Bad:
    """Stands in for a dimension that was refused before it was recorded."""

    __slots__ = ("message", "reason")

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message


class Metrics:
    """
    Record metrics under a namespace and with dimensions of its own.

    Recording costs well under a microsecond, does no I/O, and can be done in
    any thread, signal handler or ``__del__``.  Bad records are counted by
    reason in `stats`, and logged once per reason; `configure(strict=True)`
    makes them raise `MetricError` where they are recorded.

    Args:
        namespace: CloudWatch's; None takes ``LAMBDA_EXT_METRICS_NAMESPACE``,
            else ``POWERTOOLS_METRICS_NAMESPACE``, else the function's name.
        service: Value of the dimension ``service``; None takes
            ``LAMBDA_EXT_SERVICE``, else ``POWERTOOLS_SERVICE_NAME``, else the
            function's name; "" leaves the dimension out.
        dimensions: More dimensions of every metric.
        sink: Where they go; None is EMF on stdout.

    Raises:
        ConfigurationError: a namespace or dimension that CloudWatch refuses.
    """

    __slots__ = (
        "__weakref__", "_append", "_defaults", "_dimensions", "_epoch", "_known",
        "_namespace", "_records", "_resolved_namespace", "_service", "_sink",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str | None = None,
        *,
        service: str | None = None,
        dimensions: Mapping[str, str] | None = None,
        sink: Sink | None = None,
    ) -> None:
        self._namespace = None if namespace is None else config.namespace(namespace)
        self._service = service
        self._dimensions = dict(dimensions or {})
        self._sink = sink
        self._records = _buffer.records
        self._append = _buffer.records.append
        self._epoch: object = None
        self._defaults: dict[str, str] = {}
        self._resolved_namespace = ""
        self._known: dict[Any, Series] = {}
        try:
            _checked_dimensions({**self._dimensions, "service": service or "-"})
        except MetricError as exc:
            raise ConfigurationError(str(exc)) from exc

    def count(
        self,
        name: str,
        value: float = 1,
        /,
        *,
        unit: str = "Count",
        dimensions: Mapping[str, str | int] | None = None,
        **dims: str | int,
    ) -> None:
        """
        Add *value* to the counter *name*; written at the next flush.

        Counts of equal name, dimensions and unit are added up until the flush,
        so read them in CloudWatch with the statistic Sum: SampleCount is the
        number of flushes, and Average the mean of their sums.

        Args:
            name: Up to 255 characters.
            value: Any finite number within ±2**360, also 0 or negative.
            unit: One of CloudWatch's; "None" for none.
            dimensions: Dimensions whose names are no Python names.
            **dims: More dimensions.  Each distinct set of values is a metric
                of its own in CloudWatch, with its own price.  A value is text,
                or an int, which is written in decimal.

        Raises:
            MetricError: in strict mode only, when CloudWatch would refuse it.
        """
        if dimensions is not None:
            dims = _merged(dims, dimensions)
        if not _ready:
            _prepare(self, buffer.COUNT, name, value, unit, dims)
        self._append((self, buffer.COUNT, name, value, unit, dims))
        if len(self._records) > buffer.MAX_RECORDS:
            _buffer.compact()

    def flush(self) -> None:
        """
        Write what every `Metrics` has recorded so far; never raises.

        A decorated handler does it at the end of each invocation.
        """
        _buffer.flush()

    # What the buffer asks an owner.

    def namespace(self) -> str:
        self._resolve()
        return self._resolved_namespace

    def sink(self) -> Sink:
        return self._sink or _sink

    def series(self, kind: str, name: Any, unit: Any, dims: dict[str, Any]) -> Series:
        """Return the series of a record; raises MetricError."""
        if self._epoch is not _epoch:
            self._resolve()
        try:
            raw = (kind, name, unit, *dims.items(), *map(type, dims.values()))
            return self._known[raw]
        except (KeyError, TypeError):
            pass
        own = _checked_dimensions(dims)
        merged = tuple({**self._defaults, **dict(sorted(own.items()))}.items())
        if len(merged) > MAX_DIMENSIONS:
            msg = f"{len(merged)} dimensions; CloudWatch takes {MAX_DIMENSIONS}"
            raise MetricError(msg, reason="too_many_dimensions")
        name = _checked_name(name)
        if name in self._defaults or name in own:
            msg = "a metric cannot be called like one of its dimensions; rename one"
            raise MetricError(msg, reason="name_clash")
        if not isinstance(unit, str) or unit not in UNITS:
            msg = f"unknown unit {unit!r:.40}; CloudWatch knows {', '.join(sorted(UNITS))}"
            raise MetricError(msg, reason="unit")
        series = (kind, name, str.__str__(unit), merged)
        if len(self._known) >= MEMO:
            self._known.clear()
        self._known[raw] = series
        return series

    def _resolve(self) -> None:
        """Read the options that have an effect on what is flushed next."""
        if self._epoch is _epoch:
            return
        self._known.clear()
        function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        try:
            self._resolved_namespace = (
                self._namespace or config.get("namespace") or function or "lambda_ext"
            )
            service = self._service
            if service is None:
                service = config.get("service") or function or "unknown_service"
        except ConfigurationError as exc:
            _log.warning("lambda_ext.metrics_options %s", exc)
            self._resolved_namespace = self._namespace or function or "lambda_ext"
            service = self._service or function or "unknown_service"
        self._defaults = {"service": service} if service else {}
        self._defaults.update(_checked_dimensions(self._dimensions))
        self._epoch = _epoch


def _merged(dims: dict[str, Any], dimensions: Any) -> dict[str, Any]:
    """Return both; a name in both becomes a `_Bad`, to be refused later."""
    try:
        merged = dict(dimensions)
    except Exception:
        merged = {"": _Bad("dimensions", "dimensions= takes a mapping")}
    for name, value in dims.items():
        merged[name] = (
            _Bad("dimension_clash", f"dimension {name!r} is given twice")
            if name in merged
            else value
        )
    return merged


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        msg = "the name of a metric is text"
        raise MetricError(msg, reason="name")
    text = str.__str__(name)
    if not 0 < len(text) <= MAX_NAME or text.isspace() or not text.isprintable():
        msg = f"the name of a metric is 1 to {MAX_NAME} printable characters"
        raise MetricError(msg, reason="name")
    if text in RESERVED:
        msg = f"the names {', '.join(sorted(RESERVED))} have a meaning to AWS"
        raise MetricError(msg, reason="name")
    return text


def _checked_dimensions(dims: Mapping[Any, Any]) -> dict[str, str]:
    checked = {}
    for name, given in dims.items():
        if type(given) is _Bad:
            raise MetricError(given.message, reason=given.reason)
        if (
            not isinstance(name, str)
            or not 0 < len(name) <= MAX_DIMENSION_NAME
            or not name.isascii()
            or not name.isprintable()
            or name.isspace()
            or name.startswith(":")
            or name in RESERVED
        ):
            msg = (
                f"dimension name {name!r:.80}: expected 1 to {MAX_DIMENSION_NAME}"
                " printable ASCII characters, the first not ':', and none of"
                f" {', '.join(sorted(RESERVED))}"
            )
            raise MetricError(msg, reason="dimension_name")
        value = str(given) if type(given) is int else given
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= MAX_DIMENSION_VALUE
            or not value.isascii()
            or not value.isprintable()
            or value.isspace()
        ):
            msg = (
                f"dimension {name!r:.80}: expected text of 1 to"
                f" {MAX_DIMENSION_VALUE} printable ASCII characters, or an int"
            )
            raise MetricError(msg, reason="dimension_value")
        checked[str.__str__(name)] = str.__str__(value)
    return checked


_buffer = buffer.Buffer()
_sink: Sink = EmfSink()
_ready = False  # listens to the phases, and is not strict
_listening: list[bool] = [False]
_epoch: object = object()  # another one whenever options may have changed


def _prepare(owner: Metrics, *record: Any) -> None:
    """Join the phases at the first record; in strict mode, check each."""
    global _ready
    try:
        _listening.pop()
    except IndexError:
        pass
    else:
        config.watch(_changed)
        phases.listen(phases.RESPONSE, _buffer.flush)
        phases.listen(phases.SNAPSHOT, _buffer.flush)
        phases.listen(phases.SHUTDOWN, _buffer.flush, priority=phases.ESSENTIAL)
        phases.listen(phases.SHUTDOWN, _buffer.flush, priority=LAST)
        phases.listen(phases.FORK, _buffer.clear, priority=phases.ESSENTIAL)
    if not config.get("strict"):
        _ready = True
        return
    kind, name, value, unit, dims = record
    owner.series(kind, name, unit, dims)
    buffer.checked_value(value)


def _changed() -> None:
    global _ready, _epoch
    _ready = False
    _epoch = object()


default = Metrics()


def snapshot() -> dict[str, Any]:
    """Return counters since the process began."""
    events = _buffer.snapshot()
    recorded = events.pop("recorded", 0)
    return {"recorded": recorded, "dropped": events}


def install(sink: Sink | None) -> None:
    """Send what has no sink of its own to *sink*; None is EMF on stdout."""
    global _sink
    _sink = EmfSink() if sink is None else sink


def reset() -> None:
    """Forget what was recorded and configured, as if just imported."""
    global _listening
    _buffer.clear()
    install(None)
    _changed()
    _listening = [False]
