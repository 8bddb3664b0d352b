"""
Metrics: what a user records with, and when it is flushed.

The first record joins the phases: RESPONSE and SNAPSHOT flush; SHUTDOWN, which
without a handler is the interpreter's exit, flushes first of all, and once more
at the end for what the user's own shutdown callbacks have recorded; FORK leaves
to the parent what is the parent's.

All `Metrics` share one buffer, so a flush finds the records of each, also of
one that nobody holds any more.
"""

from __future__ import annotations

import os
import weakref

from .. import config, disclosure, parsers
from ..exceptions import ConfigurationError, MetricError
from ..lifecycle import clock, phases, shutdown
from . import tally, validation
from .buffer import COUNT, DISTRIBUTION, GAUGE, MAX_RECORDS, Buffer, Series, refusal
from .emf import EmfSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, SupportsFloat

    from ..typing import Sink, Unit
    from .buffer import Record

MEMO = 1_000  # checked series that one `Metrics` remembers
NAMESPACE = "lambda_ext"  # where nothing says better, outside Lambda
SERVICE = "unknown_service"  # likewise; OpenTelemetry's word

_PLAIN = (str, int)  # what may be remembered: an object of the user's may not

_buffer = Buffer()
_sink: Sink = EmfSink()
_ready = False  # the phases are joined and strict mode is off
_unjoined = [True]  # emptied by the one thread that joins
_epoch: object = object()  # another one whenever options may have changed


class Metrics:
    """
    Record metrics with a namespace, dimensions or a sink of their own.

    Recording takes no lock, does no I/O and raises nothing: any thread, signal
    handler or ``__del__`` may do it.  What CloudWatch would refuse is dropped,
    counted by reason (see `lambda_ext.stats`) and logged once a reason; with
    `configure(strict=True)` it raises `MetricError` where it is recorded.

    Make one per process, not one per invocation: each remembers what it has
    checked.

    Args:
        namespace: CloudWatch's namespace.  None: ``LAMBDA_EXT_METRICS_NAMESPACE``,
            ``POWERTOOLS_METRICS_NAMESPACE`` or the function's name.
        service: Value of the dimension ``service``; "" leaves it out.  None:
            ``LAMBDA_EXT_SERVICE``, ``POWERTOOLS_SERVICE_NAME`` or the
            function's name.
        dimensions: More dimensions of all its metrics.
        sink: Where they go; None: to CloudWatch, as EMF on stdout.

    Raises:
        ConfigurationError: CloudWatch would refuse the namespace or a dimension;
            or *sink* is none.
    """

    __slots__ = (
        "__weakref__", "_all", "_append", "_at", "_defaults", "_dimensions", "_known",
        "_namespace", "_records", "_service", "_sink", "_space",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str | None = None,
        *,
        service: str | None = None,
        dimensions: Mapping[str, str | int] | None = None,
        sink: Sink | None = None,
    ) -> None:
        try:
            self._namespace = parsers.namespace(namespace)
            self._service = service and parsers.label(service)
            self._dimensions = validation.dimensions(dict(dimensions or {}))
            validation.room_for(len(self._dimensions) + (service != ""))
        except (ConfigurationError, MetricError, TypeError, ValueError) as exc:
            msg = f"Metrics({namespace!r}, ...) cannot be used: {exc}"
            raise ConfigurationError(msg) from exc
        self._sink = validation.sink(sink)
        self._records = _buffer.records
        self._append = _buffer.records.append
        self._at: object = None  # the epoch in which the rest was found out
        self._space = ""
        self._defaults: dict[str, str] = {}
        self._known: dict[Any, Series] = {}  # by what was recorded
        # While anybody holds a series there is no second one of it.
        self._all: weakref.WeakValueDictionary[Any, Series]
        self._all = weakref.WeakValueDictionary()

    def count(
        self,
        name: str,
        value: SupportsFloat = 1,
        /,
        *,
        unit: Unit = "Count",
        dimensions: Mapping[str, str | int] | None = None,
        **dims: str | int,
    ) -> None:
        """
        Add *value* to the counter *name*; well under a microsecond.

        What has equal name, unit and dimensions is added up until the flush:
        read it in CloudWatch with Sum.  SampleCount is the number of flushes,
        and Average the mean of their sums.

        Args:
            name: 1 to 255 printable characters.
            value: A finite number within ±2**360; 0 and below are allowed.
            unit: One of CloudWatch's; "None" for none.
            dimensions: Dimensions whose names are no Python names.
            **dims: More dimensions: text in ASCII, or an int.  They come before
                those of the `Metrics`; in *dimensions* too they are refused.
                Each set of values is a metric of its own in CloudWatch's bill.

        Raises:
            MetricError: in strict mode only.
        """
        if dimensions is not None:
            dims = validation.merged(dimensions, dims)
        self._record(COUNT, name, value, unit, dims)

    def gauge(
        self,
        name: str,
        value: SupportsFloat,
        /,
        *,
        unit: Unit = "None",
        dimensions: Mapping[str, str | int] | None = None,
        **dims: str | int,
    ) -> None:
        """
        Set the gauge *name*; the last value before a flush is written.

        Arguments and errors are those of `count`.
        """
        if dimensions is not None:
            dims = validation.merged(dimensions, dims)
        self._record(GAUGE, name, value, unit, dims)

    def distribution(
        self,
        name: str,
        value: SupportsFloat,
        /,
        *,
        unit: Unit = "None",
        dimensions: Mapping[str, str | int] | None = None,
        **dims: str | int,
    ) -> None:
        """
        Add *value* to the distribution *name*; every value is written.

        For what is read as average, percentile or maximum, such as durations.
        Arguments and errors are those of `count`.
        """
        if dimensions is not None:
            dims = validation.merged(dimensions, dims)
        self._record(DISTRIBUTION, name, value, unit, dims)

    def timer(
        self,
        name: str,
        /,
        *,
        dimensions: Mapping[str, str | int] | None = None,
        **dims: str | int,
    ) -> Timer:
        """
        Return a context manager that records how long its block runs.

        In milliseconds, as a distribution, also when the block raises.  Time
        spent frozen may not count.

        Arguments and errors are those of `count`; strict mode complains when
        the block ends.
        """
        if dimensions is not None:
            dims = validation.merged(dimensions, dims)
        return Timer(self, name, dims)

    def _record(
        self, kind: str, name: Any, value: Any, unit: Any, dims: dict[Any, Any]
    ) -> None:
        record = (self, kind, name, value, unit, dims)
        if not _ready:
            _prepare(record)
        self._append(record)
        if len(self._records) > MAX_RECORDS:
            _buffer.compact()

    def flush(self) -> None:
        """
        Write what has been recorded, by any `Metrics`; nothing if that is none.

        A decorated handler does this after each invocation.  Waits up to 0.1
        seconds for a flush in another thread, and as long for a stdout that
        takes nothing.  Never raises; what is lost is counted.
        """
        _buffer.flush()

    def _series(self, kind: str, name: Any, unit: Any, dims: dict[Any, Any]) -> Series:
        """Return the series of a record; raises MetricError."""
        if self._at is not _epoch:
            self._find_out()
        try:
            given = (
                (kind, name, unit, *dims.items(), *map(type, dims.values()))
                if dims
                else (kind, name, unit)
            )
            return self._known[given]
        except Exception:  # noqa: S110  not there, or not even hashable
            pass  # and what it holds, dimensions, goes with it
        series = self._checked(kind, name, unit, dims)
        if all(type(part) in _PLAIN for part in (name, unit, *dims, *dims.values())):
            if len(self._known) >= MEMO:
                self._known.clear()
            self._known[given] = series
        return series

    def _checked(self, kind: str, name: Any, unit: Any, dims: dict[Any, Any]) -> Series:
        name = validation.name(name)
        unit = validation.unit(unit)
        own = validation.dimensions(dims)
        merged = {**self._defaults, **dict(sorted(own.items()))}
        if name in merged:
            msg = "a metric and its dimension cannot have the same name; rename one"
            raise MetricError(msg, reason="name_clash")
        validation.room_for(len(merged))
        what = (kind, name, unit, tuple(merged.items()))
        series = self._all.get(what)
        if series is None:
            series = self._all[what] = Series(self, *what)
        return series

    def _where(self) -> tuple[str, Sink]:
        """Return the namespace and the sink."""
        if self._at is not _epoch:
            self._find_out()
        return self._space, self._sink or _sink

    def _find_out(self) -> None:
        """Read the options that the user did not give."""
        epoch = _epoch
        function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        space, service = self._namespace, self._service
        if space is None:
            space = _option("namespace") or function or NAMESPACE
        if service is None:
            service = _option("service") or function or SERVICE
        self._space = space
        self._defaults = {"service": service} if service else {}
        self._defaults.update(self._dimensions)
        self._known.clear()
        self._all.clear()
        self._at = epoch


class Timer:
    """What `Metrics.timer` returns; each ``with`` records one duration."""

    __slots__ = ("_began", "_dims", "_name", "_owner")

    def __init__(self, owner: Metrics, name: str, dims: dict[Any, Any]) -> None:
        self._owner = owner
        self._name = name
        self._dims = dims
        self._began: list[float] = []  # a stack: a timer may be nested in itself

    def __enter__(self) -> None:
        self._began.append(clock.monotonic())

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        elapsed_ms = round((clock.monotonic() - self._began.pop()) * 1000, 3)
        what = DISTRIBUTION, self._name, elapsed_ms, "Milliseconds", self._dims
        try:
            self._owner._record(*what)
        except MetricError:
            if exc_type is None:
                raise
            # Not in place of the user's own exception: the flush counts it.
            self._owner._append((self._owner, *what))


def _option(name: str) -> Any:
    """Return an option; None, and one log line, when it cannot be used."""
    try:
        return config.get(name)
    except ConfigurationError as exc:
        disclosure.warn("option_ignored", exc)
        return None


def _prepare(record: Record) -> None:
    """Join the phases at the first record; in strict mode check each one."""
    global _ready
    if _unjoined:
        _join()
    epoch = _epoch
    strict = _option("strict")
    if strict:
        refused = refusal(record)
        if refused is not None:
            raise refused
    elif epoch is _epoch:
        _ready = True


def _join() -> None:
    try:
        _unjoined.pop()
    except IndexError:  # another thread does it
        return
    config.watch(_changed)
    phases.listen(phases.RESPONSE, _buffer.flush)
    phases.listen(phases.SNAPSHOT, _buffer.flush)
    phases.listen(phases.SHUTDOWN, _buffer.flush, priority=phases.ESSENTIAL)
    phases.listen(phases.SHUTDOWN, _buffer.flush, priority=phases.LAST)
    phases.listen(phases.FORK, forked, priority=phases.ESSENTIAL)
    shutdown.follow_exit()
    shutdown.warn_unless_started(lambda: "metrics" if _buffer.records else "")


def _changed() -> None:
    """Find the options out again: they may have changed."""
    global _ready, _epoch
    _ready = False
    _epoch = object()


default = Metrics()


def snapshot() -> dict[str, Any]:
    """
    Return what happened to the records of this process, as plain numbers.

    "recorded" by the user, valid or not; "dropped" of them, by reason;
    "documents" and "bytes" written to stdout.
    """
    events = tally.events()
    return {
        "recorded": events.get("recorded", 0) + len(_buffer.records),
        "documents": events.get("documents", 0),
        "bytes": events.get("bytes", 0),
        "dropped": tally.dropped(),
    }


def install(sink: Sink | None) -> Sink:
    """Make *sink* that of every `Metrics` without one; return the former.

    None: EMF on stdout.
    """
    global _sink
    former = _sink
    _sink = EmfSink() if sink is None else sink
    return former


def forked() -> None:
    """Start empty: what was recorded before the fork is the parent's."""
    _buffer.clear()
    tally.reset()


def reset() -> None:
    """Forget records, counters and options, as if this were just imported."""
    forked()
    install(None)
    _changed()
    _unjoined[:] = [True]
