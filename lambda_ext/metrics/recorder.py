"""
Metrics: what a user records with, and when it is flushed.

    count() ─▶ series of what was given (remembered) ─▶ `buffer`

A record is checked when it is made: what is remembered of a name, a unit and
dimensions is the record of the value 1 that they make, so a second one costs one
look-up and makes no object.  What is refused is counted, and logged, there and then.

The first record joins the phases: RESPONSE and SNAPSHOT flush; so does TIMEOUT,
twice: first of all, with ``TimeoutImminent``, and after the user's hooks, when
what waits for a network is sent, too.  SHUTDOWN, which without a handler is the
interpreter's exit, flushes first of all, and once more at the end for what the
user's own shutdown callbacks have recorded.  A forked child leaves to the parent
what the parent has recorded.  What no sink has after the last flush of a shutdown
is counted as dropped, for the reason "shutdown"; what is recorded later still (by
callbacks of `atexit` that were registered before ours, or by a SIGTERM handler of
the user's that runs last) is flushed at each record.

Where the oldest record may wait for some seconds only, `aged` says when it is time.

All `Metrics` share one buffer, so a flush finds the records of each, also of
one that no caller holds any more.

Where AWS's SDK for durable functions is loaded, `durable` is asked before each
record (but a gauge) whether the code has run before.  `durable.Unseen` then takes
the place of what is remembered, so that `count` needs no check for it.
"""

from __future__ import annotations

import math
import os
import sys
import threading

from .. import config, disclosure
from ..exceptions import ConfigurationError, MetricError
from ..lifecycle import (
    clock,
    phases,
    process,
    real_threads,
    runtime_client,
    shutdown,
)
from ..lifecycle.process import by_signal_handler
from ..limits import MAX_MAGNITUDE
from . import buffer, losses, stdout, validation
from .buffer import (
    COUNT,
    DISTRIBUTION,
    GAUGE,
    Buffer,
    Outlet,
    Series,
    outlet_of,
)
from .emf import EmfSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any, SupportsFloat

    from typing_extensions import Self

    from ..typing import Sink, Unit
    from .aged import Aged
    from .buffer import Record
    from .statuses import Status
    from .timers import Timer

    Memo = dict[Any, Record]  # of the value 1

ESSENTIAL_S = 0.12  # for the first flush of a shutdown, of 0.15 for all that is
DRAIN_S = 2.0  # for sinks that wait, at the end of an invocation and by flush()
LONGEST_S = 86_400.0  # for them by flush(timeout=...), where no invocation ends it
MARGIN_S = 0.05  # of the invocation's time, which they leave
EXIT_S = 0.1  # for them at the end, where nothing says how long there is
CHOICE_S = 0.1  # for another thread that finds out where metrics go
LAST_S = 0.03  # at least, for the last one, until what is left is counted as dropped
MEMO = 1_000  # series of a kind that one `Metrics` remembers
UNIT = "Count"  # of counters that say no other
ONE = 1  # the same object wherever it is written
LEAST, MOST = -int(MAX_MAGNITUDE), int(MAX_MAGNITUDE)
DATA = ("dimension_value", "timestamp")  # reasons that depend on data, not on code
MANY = 500  # values of a dimension, above which a log line warns
NAMESPACE = "lambda_ext"  # where nothing says better, outside Lambda
MANAGED_S = 10.0  # age of a record on Managed Instances, where nothing freezes
IMMINENT = "TimeoutImminent"  # the metric of an invocation that is about to time out
SERVICE = "unknown_service"  # likewise; OpenTelemetry's word

DURABLE_SDK = "aws_durable_execution_sdk_python"


_default = (Outlet(EmfSink(), "emf"),)  # where no option says anything else
_buffer = Buffer(*_default)
_records = _buffer.records  # always the same list
_append = _records.append
_installed: Outlet | None = None  # instead of what the options say
_every: int | None = None  # records after which the recording thread flushes
_aged: Aged | None = None  # if the oldest record may wait for some seconds only
_has_ended = False  # the last flush has begun: what comes after it does not wait
_known = False  # the outlets are those of the options
_version: object = None  # of the options; another one after each change
_lock = process.Lock()  # for joining the phases
_choosing = process.Lock()  # for finding out where metrics go
_joined = False
forget_properties: Callable[[], None] | None = None  # set by `properties`
_strict: bool | None = None  # replaces the option, unless None
_replays: Callable[[], bool] | None = None  # only where AWS's durable SDK is loaded
_durable: Any = None  # the module, where it is
_everyone: set[weakref.ref[Metrics]] = set()
_flushing: set[int] = set()  # threads in an early flush


class Metrics:
    """
    Record metrics with a namespace, dimensions or a sink of their own.

    Recording takes no lock and raises nothing: any thread, signal handler or
    ``__del__`` may do it.  It does no I/O either, unless 10,000 records wait:
    then the recording thread flushes.  What CloudWatch would refuse is dropped,
    counted by reason and name (see `lambda_ext.stats`) and logged once for
    each; with `configure(strict=True)`, and inside a
    `lambda_ext.testing.MemorySink`, it raises `MetricError` where it is
    recorded.

    CloudWatch takes ASCII only, in names of metrics and in names and values of
    dimensions.  For a value such as ``Łódź`` choose a spelling of your own
    (``lodz``), or let ``urllib.parse.quote`` write it (``%C5%81%C3%B3d%C5%BA``),
    which can be read back.

    Make one per process, not one per invocation: each remembers what it has
    checked.

    Args:
        namespace: CloudWatch's namespace.  None: ``LAMBDA_EXT_METRICS_NAMESPACE``,
            ``POWERTOOLS_METRICS_NAMESPACE`` or the function's name.
        service: Value of the dimension ``service``; "" leaves it out.  None:
            ``LAMBDA_EXT_SERVICE``, ``POWERTOOLS_SERVICE_NAME`` or the
            function's name.
        dimensions: More dimensions of all its metrics.
        sink: Where they go; None: where ``configure(sinks=...)`` says, which is
            to CloudWatch, as EMF on stdout, unless it says anything else.
        resolution: Seconds that CloudWatch keeps apart: 60, or 1 for high
            resolution, which it keeps for three hours.
        timestamp: When it happened, as a datetime or in seconds since the
            epoch, at most two weeks ago; None: at the flush.

    Raises:
        ConfigurationError: CloudWatch would refuse the namespace, a dimension,
            the resolution or the timestamp; or *sink* cannot take a batch.

    Source: PutMetricData, MetricDatum,
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
    """

    __slots__ = (
        "__weakref__", "_at", "_counts", "_dimensions", "_distributions", "_gauges",
        "_namespace", "_outlet", "_plain", "_refusal", "_resolution", "_service",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str | None = None,
        *,
        service: str | None = None,
        dimensions: Mapping[str, str | int] | None = None,
        sink: Sink | None = None,
        resolution: int = 60,
        timestamp: datetime | float | None = None,
    ) -> None:
        try:
            self._resolution = validation.resolution(resolution)
            self._at = validation.timestamp(timestamp, clock.wall())
            self._namespace = namespace
            if namespace is not None:
                self._namespace = config.parsed("namespace", namespace)
            self._service = service and config.parsed("label", service)
            self._dimensions = validation.dimensions(
                validation.merged(dimensions or {}, {})
            )
            validation.check_dimension_count(len(self._dimensions) + (service != ""))
        except (ConfigurationError, MetricError, TypeError, ValueError) as exc:
            msg = f"Metrics({disclosure.quoted(namespace)}, ...) cannot be used: {exc}"
            raise ConfigurationError(msg) from exc
        checked = validation.sink(sink)
        self._outlet = None if checked is None else outlet_of(checked)
        self._refusal: MetricError | None = None  # of all that is recorded; see `scope`
        # By what was given; replaced when options change.
        self._counts: Memo = {} if _replays is None else _durable.Unseen()
        # Those of `_counts` with the usual unit and no dimensions, by name.
        self._plain: Memo = {} if _replays is None else _durable.Unseen()
        self._gauges: Memo = {}
        self._distributions: Memo = {}
        process.remember(_everyone, self)

    def __copy__(self) -> Self:
        """Return the same: nothing of it changes, and its sink is one object."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the same, see `__copy__`."""
        return self

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Follow the options of the process in which it was unpickled."""
        for name, value in state[1].items():
            setattr(self, name, value)
        self._forget()
        process.remember(_everyone, self)

    def count(
        self,
        /,
        name: str,
        value: SupportsFloat = 1,
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
            name: 1 to 255 printable ASCII characters.
            value: A finite number within ±2**360; 0 and below are allowed.
            unit: One of CloudWatch's; "None" for none.
            dimensions: Dimensions whose names are no Python names, or
                ``name``, ``value`` or ``unit``.
            **dims: More dimensions: text in ASCII (see `Metrics`), or an int.
                They come before those of the `Metrics`; in *dimensions* too
                they are refused.  Each set of values is a metric of its own in
                CloudWatch's bill.

        Raises:
            MetricError: in strict mode only.
        """
        if dimensions is not None:
            dims = validation.merged(dimensions, dims)
        record = None
        try:
            if dims or unit is not UNIT:
                given = (name, unit, *dims, *dims.values())
                record = self._counts[given]
            else:
                record = self._plain[name]
        except KeyError:  # not known yet
            pass
        except Exception as exc:  # not even hashable
            if by_signal_handler(exc):
                raise
        if value is not ONE and record is not None:
            if type(value) is int:
                fits = LEAST <= value <= MOST
            else:
                fits = type(value) is float and -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
            record = (record[0], value) if fits else None  # type: ignore[assignment]
        if record is None:
            self._record(COUNT, self._counts, name, value, unit, dims)
            return
        _append(record)
        if len(_records) > _buffer.limit:
            _flush_early()

    def gauge(
        self,
        /,
        name: str,
        value: SupportsFloat,
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
        self._record(GAUGE, self._gauges, name, value, unit, dims)

    def distribution(
        self,
        /,
        name: str,
        value: SupportsFloat,
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
        self._record(DISTRIBUTION, self._distributions, name, value, unit, dims)

    def timer(
        self,
        /,
        name: str,
        *,
        dimensions: Mapping[str, str | int] | None = None,
        **dims: str | int,
    ) -> Timer:
        """
        Return what records how long a block runs, or each call of a function.

            with metrics.timer("db.query"): ...

            @metrics.timer("db.query")
            def query(): ...

        In milliseconds, as a distribution, also when it raises; an ``async
        def`` is measured until it is done.  Time spent frozen may not count.
        One timer may serve any number of threads and tasks at once.

        Arguments and errors are those of `count`; strict mode complains when
        the block ends.
        """
        # Counters and gauges need none of it.
        from .timers import Timer

        dims = validation.unmistaken(dims)
        if dimensions is not None:
            dims = validation.merged(dimensions, dims)
        return Timer(self._took, name, dims)

    def scope(
        self,
        /,
        *,
        dimensions: Mapping[str, str | int] | None = None,
        resolution: int | None = None,
        timestamp: datetime | float | None = None,
        **dims: str | int,
    ) -> Metrics:
        """
        Return a `Metrics` like this one, with more dimensions; a context manager.

            with metrics.scope(shop="a") as shop:
                shop.count("orders")

        Leaving the block does nothing: what was recorded waits for the flush.
        Where CloudWatch would refuse the value of a dimension, or the timestamp,
        each record of the scope is dropped, counted and logged; in strict mode
        the scope raises.

        Args:
            dimensions: Dimensions of all that it records, as for `count`; also
                those named ``name``, ``value`` or ``unit``.
            resolution: As for `Metrics`; None: that of this one.
            timestamp: As for `Metrics`; None: that of this one.
            **dims: More dimensions.

        Raises:
            ConfigurationError: as for `Metrics`, but for what is said above.
        """
        dims = validation.unmistaken(dims)
        refusal = self._refusal
        wanted = self._resolution if resolution is None else resolution
        try:
            made = Metrics(
                self._namespace,
                service=self._service,
                dimensions={
                    **self._dimensions,
                    **validation.merged(dimensions or {}, {}),
                    **dims,
                },
                resolution=wanted,
                timestamp=self._at if timestamp is None else timestamp,
            )
        except ConfigurationError as exc:
            refusal = _of_the_data(exc)
            if refusal is None or _is_strict():
                raise
            made = Metrics(self._namespace, service=self._service, resolution=wanted)
        else:
            _note_scope(made._dimensions)
        made._refusal = refusal
        made._outlet = self._outlet
        return made

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave everything as it is."""

    def _record(
        self,
        kind: str,
        memo: Memo,
        name: Any,
        value: Any,
        unit: Any,
        dims: dict[Any, Any],
        *,
        strict: bool | None = None,
        durable: bool = True,
    ) -> None:
        """Record, or count and log why not; not *durable*: also while a function replays."""
        if not _joined:
            _join()
        if not _known:  # since an option has changed
            _look_for_durable()
        if _replays is not None and durable and kind is not GAUGE and _replays():
            _durable.note()
            return
        refusal: MetricError
        try:
            series = self._series(kind, memo, name, unit, dims)
            number = validation.value(value)
        except MetricError as exc:
            refusal = MetricError(str(exc), reason=exc.reason)
        except BaseException as exc:
            # Of a name or value whose __hash__ or __eq__ raises.
            if by_signal_handler(exc):
                raise
            what = (
                "its name, value, unit or a dimension raised"
                f" {type(exc).__qualname__}: pass plain text and numbers"
            )
            refusal = MetricError(what, reason="invalid")
        else:
            records = _buffer.records
            records.append((series, number))
            if len(records) > _buffer.limit:
                _flush_early()
            return
        if _is_strict() if strict is None else strict:
            msg = f"metric {_shown(name)!r}: {refusal}"
            raise MetricError(msg, reason=refusal.reason) from None
        _refuse(refusal.reason, str(refusal), _shown(name))

    def flush(self, timeout: float | None = None) -> dict[str, Status]:
        """
        Write and send what has been recorded, by any `Metrics`.

        A decorated handler does this after each invocation.  Waits up to 0.1
        seconds for a flush in another thread, and as long for a stdout that
        takes nothing; and for sinks that use a network *timeout* seconds, None
        for what the invocation has left, 2 at most; what is no number counts as
        None.  Never raises; what is lost is counted.

        Returns:
            What this flush did, by the names of the sinks: records sent,
            dropped and still pending, and the last error.
        """
        statuses = _statuses_if_any()
        before = {} if statuses is None else statuses.of(_buffer)
        _buffer.flush()
        if _buffer.draining:
            _buffer.drain(_drain_until(timeout))
        after = {} if statuses is None else statuses.of(_buffer)
        return {name: now.since(before.get(name)) for name, now in after.items()}

    def _series(
        self, kind: str, memo: Memo, name: Any, unit: Any, dims: dict[Any, Any]
    ) -> Series:
        """Return the series of a record; raises MetricError."""
        if dims and int in map(type, dims.values()):
            dims = {k: str(v) if type(v) is int else v for k, v in dims.items()}
        given = (name, unit, *dims, *dims.values())
        found = _look_up(memo, given)
        if found is not None:
            return found[0]
        if self._refusal is not None:
            raise MetricError(str(self._refusal), reason=self._refusal.reason)
        checked = validation.name(name)
        unit = validation.unit(unit)
        own = validation.dimensions(dims)
        plain = self._plain  # those of before, if options change from now on
        if not _known:
            _know_outlets()
        namespace, defaults = self._options()
        merged = {**defaults, **dict(sorted(own.items()))}
        if checked in merged:
            msg = "a metric and its dimension cannot have the same name; rename one"
            raise MetricError(msg, reason="name_clash")
        validation.check_dimension_count(len(merged))
        pairs = tuple(merged.items())
        series = Series(
            namespace,
            kind,
            checked,
            unit,
            pairs,
            outlet=self._outlet,
            resolution=self._resolution,
            at=self._at,
        )
        # An object of the user's is not remembered: only text is what it was.
        # Nor is anything while it is not known where it goes.
        if _known and all(type(part) is str for part in given):
            if len(memo) >= MEMO:
                _look_for_many(memo)
                memo.clear()
                if kind == COUNT:
                    plain.clear()
            memo[given] = record = (series, ONE)
            if len(memo) > MANY and len(memo) % 100 == 1:
                _look_for_many(memo)
            if kind == COUNT and unit == UNIT and not dims:
                plain[name] = record
        return series

    def _options(self) -> tuple[str, dict[str, str]]:
        """Return the namespace, and the dimensions of each record."""
        function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        space, service = self._namespace, self._service
        if space is None:
            space = _option("namespace") or function or NAMESPACE
        if service is None:
            service = _option("service") or function or SERVICE
        defaults = {"service": service} if service else {}
        defaults.update(self._dimensions)
        return space, defaults

    def _took(
        self, name: str, dims: dict[Any, Any], elapsed_s: float, raised: Any = None
    ) -> None:
        """Record what a timer measured, of a block that may have *raised*."""
        if _durable is not None and _durable.is_suspension(raised):
            return  # it ends after the execution has resumed
        self._record(
            DISTRIBUTION, self._distributions, name,
            round(elapsed_s * 1000, 3), "Milliseconds", dims,
            # Not in place of the user's own exception: then it is counted.
            strict=None if raised is None else False,
        )  # fmt: skip

    def _forget(self) -> None:
        """Resolve each series anew: options may have changed."""
        self._counts = {} if _replays is None else _durable.Unseen()
        self._plain = {} if _replays is None else _durable.Unseen()
        self._gauges = {}
        self._distributions = {}


def _look_for_durable() -> None:
    """Ask `durable` before each record, where AWS's SDK is loaded and the option is on."""
    global _durable, _replays
    wanted = DURABLE_SDK in sys.modules and _option("skip_replays") is not False
    if wanted == (_replays is not None):
        return
    if wanted:
        from . import durable  # only in durable functions

        _durable = durable
    _replays = _durable.replays if wanted else None
    for each in process.living(_everyone):
        each._forget()


def _look_once() -> None:
    """Look again at the first invocation: a record may come before the SDK's import."""
    phases.silence(phases.INVOKE, _look_once)
    _look_for_durable()


def _know_outlets() -> None:
    """Send what is recorded from now on where the options say."""
    got: list[bool] = []
    try:
        # One thread finds out, the others wait; not for ever, since it may have to
        # wait for one of them.
        got.extend(map(_choosing.acquire, (True,), (CHOICE_S,)))
        _choose_until_known()
    finally:
        if got and got[0]:
            _choosing.release()


def _choose_until_known() -> None:
    version = object()
    # Again if an option has changed meanwhile.
    while not _known and version is not _version:
        version = _version
        _choose_outlets()


def _choose_outlets() -> None:
    global _known, _every, _aged
    version = _version
    given = _option("flush_every")
    every = given if type(given) is int else None
    age_s = given if type(given) is float else None
    if given is None and os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY"):
        age_s = MANAGED_S
    if _has_ended:
        age_s = None
    if age_s is not None and _aged is None:
        _aged = _aged_if_any()
    # One for all options: records that wait keep their age.
    if _aged is not None:
        _aged.age_s = age_s
    is_complete = age_s is None or _aged is not None
    _every = every
    _limit()
    if _installed is None:
        given = _option("sinks")
        chosen: tuple[Outlet, ...] = _default
        if given is not None:
            from . import outlets  # only where there is another sink than EMF

            if not hasattr(outlets, "outlets"):
                return  # a signal handler's record in the middle of that import
            try:
                chosen = outlets.outlets(given)
            except ConfigurationError as exc:
                disclosure.warn("option_ignored", exc)
        if chosen != _buffer.outlets:
            _buffer.settle()
            # One step; not if an option, or the sink of a test, came meanwhile.
            if _version is version:
                _buffer.outlets = chosen
    # Last: until then no other thread may record for the former outlets.
    # Else an option has changed meanwhile, or the next record has to try again.
    if _version is version and is_complete:
        _known = True


def _aged_if_any() -> Aged | None:
    """Return what knows the age of records; None while it cannot be had."""
    try:
        from . import aged  # only where there is such a time
    except Exception as exc:  # no file can be opened
        if by_signal_handler(exc):
            raise
        return None
    # None: a signal handler's, in the middle of that import.
    return aged.Aged(_buffer, _write_due) if hasattr(aged, "Aged") else None


def _limit() -> None:
    """Set after how many records `_flush_early` is called."""
    is_aged = _aged is not None and _aged.age_s is not None
    if not is_aged and not _has_ended:
        _buffer.limit = (_every or buffer.MAX_RECORDS + 1) - 1
    else:
        _buffer.limit = 0


def _look_up(memo: Memo, given: tuple[Any, ...]) -> Record | None:
    try:
        return memo.get(given)
    except Exception as exc:  # not even hashable
        if by_signal_handler(exc):
            raise
        return None


def _shown(name: Any) -> str:
    """Return what a log line may say about *name*, an object of any type."""
    if type(name) is str:
        return name[:80] or "<empty>"
    return f"<{type(name).__qualname__}>"


def _statuses_if_any() -> Any:
    """Return `statuses`; None while it cannot be had: no file can be opened."""
    try:
        # The flush after each invocation returns nothing and needs none of it.
        from . import statuses
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        return None
    # None: a signal handler's, in the middle of that import.
    return statuses if hasattr(statuses, "of") else None


def _refuse(reason: str, message: str, name: str = "") -> None:
    """Count a record that is refused, and log *message* once."""
    tally = buffer.tally_if_any()
    if tally is not None:
        tally.refuse(reason, message, name=name)
    else:  # told later
        losses.uncounted.extend((("", "", 1, ""), (reason, name, 1, message)))


def _option(name: str) -> Any:
    """Return an option; None, and one log line, when it cannot be used."""
    try:
        return config.get(name)
    except ConfigurationError as exc:
        if name not in _ignored:
            _ignored.add(name)
            disclosure.warn("option_ignored", exc)
        return None


_ignored: set[str] = set()


def _of_the_data(error: ConfigurationError) -> MetricError | None:
    """Return what refused the data of an invocation; None if the code is wrong."""
    cause = error.__cause__
    if isinstance(cause, MetricError) and cause.reason in DATA:
        return cause
    return None


def _is_strict() -> bool:
    return bool(_option("strict")) if _strict is None else _strict


def _look_for_many(memo: Memo) -> None:
    """Log once a dimension that has many values, each of which is billed."""
    values: dict[str, set[str]] = {}
    for series, _ in [*memo.values()]:
        for name, value in series.dimensions:
            values.setdefault(name, set()).add(value)
    for name, found in values.items():
        _note_many(name, len(found))


def _note_scope(dims: dict[str, str]) -> None:
    """Count the values of dimensions that scopes have, each with a memo of its own."""
    for name, value in dims.items():
        if name not in _noted and (name in _scoped or len(_scoped) < MANY):
            found = _scoped.setdefault(name, set())
            found.add(value)
            _note_many(name, len(found))


def _note_many(name: str, number: int) -> None:
    if number > MANY and name not in _noted:
        _noted.add(name)
        _scoped.pop(name, None)
        disclosure.warn(
            "many_series",
            f"note: {name!r} has {number} values so far; each is a billed metric",
        )


_noted: set[str] = set()
_scoped: dict[str, set[str]] = {}  # values of dimensions by name


def _flush_early() -> None:
    """Flush in the thread that records: many records wait, or no later flush comes."""
    me = real_threads.get_ident()
    if me in _flushing:  # a sink records during its own flush, which goes on
        return
    if _aged is not None and not _aged.is_time():
        return
    try:
        _flushing.add(me)
        _flush_until_few()
    finally:
        _flushing.discard(me)


def _flush_until_few() -> None:
    for _ in range(3):  # a sink or a log handler may record
        _buffer.flush()
        if len(_buffer.records) <= _buffer.limit:
            break


def _join() -> None:
    """Register the functions that flush in each phase, once."""
    global _joined
    with _lock:
        if _joined:
            return
        config.watch(_changed)
        stdout.watch()
        for phase, priority, listener in (
            (phases.RESPONSE, phases.USER, _at_response),
            (phases.AFTER, phases.LAST, _at_response),
            (phases.SNAPSHOT, phases.USER, _flush_all),
            (phases.TIMEOUT, phases.ESSENTIAL, _before_timeout),
            (phases.TIMEOUT, phases.NETWORK, _drain_before_timeout),
            (phases.SHUTDOWN, phases.ESSENTIAL, _flush_first),
            (phases.SHUTDOWN, phases.NETWORK, _drain_at_end),
            (phases.SHUTDOWN, phases.LAST, _flush_last),
        ):
            phases.listen_once(phase, listener, priority=priority)
        phases.silence(phases.INVOKE, _look_once)
        _look_for_durable()
        if _replays is None and not phases.calls[phases.INVOKE]:
            phases.listen_once(phases.INVOKE, _look_once, priority=phases.ESSENTIAL)
        if clock.alarm is None:
            clock.alarm = _guard
            clock.horizon = math.inf
        if clock.remaining() is not None:  # the invocation under way, too
            clock.alarm()
        runtime_client.before_wait(_load_rest)
        shutdown.follow_exit()
        if phases.calls[phases.SHUTDOWN] or not threading.main_thread().is_alive():
            _end()  # no listener is called any more
        shutdown.warn_unless_started(lambda: "metrics" if _buffer.records else "")
        _joined = True


def _guard() -> None:
    """Have the deadlines of invocations watched, from the first one on."""
    from ..lifecycle import deadline  # not needed before an invocation has one

    deadline.watch()


def _at_response() -> None:
    """Write what there is, and send what is due."""
    _buffer.flush()
    if forget_properties is not None:
        forget_properties()
    if _buffer.draining:
        _buffer.drain(_drain_until(None), due_only=True)


def _write_due() -> None:
    """Write what there is, and send what is due, while an invocation runs."""
    _buffer.flush()
    if _buffer.draining:
        _buffer.drain(_drain_until(None), due_only=True)


def _load_rest() -> None:
    """Load what the last flush may need, when the first answer has been posted."""
    if phases.calls[phases.INVOKE]:  # else this is the end of INIT
        runtime_client.forget(_load_rest)
        from . import parcels, tally  # noqa: F401  not at the end

        stdout.load_rest()


def _flush_all() -> None:
    """Write and send what there is: the process stands still, or ends, soon."""
    _buffer.flush()
    if _buffer.draining:
        _buffer.drain(_drain_until(None))


def _before_timeout() -> None:
    """Write what there is, and that Lambda is about to end the invocation."""
    from ..lifecycle import deadline  # which has called this

    ends_at = clock.run_time() + (phases.share_s() or EXIT_S)
    _buffer.flush(ends_at)
    state = deadline.imminent
    if state is None:
        return
    request_id = disclosure.attribute(state.context, "aws_request_id")
    properties = {**_buffer.properties}
    if isinstance(request_id, str):  # not a test double's
        properties["request_id"] = request_id
    series = default._series(COUNT, default._counts, IMMINENT, "Count", {})
    _buffer.put(series, 1, properties)
    _buffer.flush(ends_at)


def _drain_before_timeout() -> None:
    """Write what hooks have recorded, and send what there is."""
    _buffer.flush()
    if _buffer.draining:
        _buffer.drain(clock.run_time() + (phases.share_s() or EXIT_S))


def _drain_until(timeout: float | None) -> float:
    """Return the run time until which sinks may wait."""
    left_s = clock.remaining()
    most_s = DRAIN_S
    if timeout is not None:
        try:
            given_s = float(timeout)
        except Exception as exc:  # no number: a flush raises nothing
            if by_signal_handler(exc):
                raise
        else:
            if given_s == given_s:  # noqa: PLR0124  not a NaN
                most_s = min(max(given_s, 0.0), LONGEST_S)
    if left_s is not None:
        most_s = min(most_s, max(left_s - MARGIN_S, 0.0))
    return clock.run_time() + most_s


def _drain_at_end() -> None:
    """
    Write and send what there is, within the share of a shutdown's time.

    First what the essential part had no time for, and what callbacks of the
    user's have recorded since.
    """
    ends_at = clock.run_time() + (phases.share_s() or EXIT_S)
    _buffer.flush(ends_at)
    if _buffer.draining:
        _buffer.drain(ends_at)


def _flush_first() -> None:
    """Write as much as the essential part of a shutdown allows."""
    _buffer.flush(clock.run_time() + ESSENTIAL_S)


def _flush_last() -> None:
    """Write what is left, count what cannot be written, and wait for nothing more."""
    _end()
    # On a busy machine another thread may need some time to write what it has begun.
    last_s = max(LAST_S, phases.share_s() / 2)
    _buffer.flush(clock.run_time() + last_s, give_up="shutdown")


def _end() -> None:
    """Flush at each record from now on: no flush comes later."""
    global _has_ended
    _has_ended = True
    if _aged is not None:
        _aged.age_s = None
    _limit()


def _changed() -> None:
    """Resolve each series anew: options may have changed."""
    global _known, _version
    _version = object()
    _known = False
    _ignored.clear()
    for each in process.living(_everyone):
        each._forget()


default = Metrics()


def outlets() -> tuple[Outlet, ...]:
    """Return where metrics go that have no sink of their own."""
    if not _joined:
        _join()
    if not _known:
        _know_outlets()
    return _buffer.outlets


def snapshot() -> dict[str, Any]:
    """
    Return what happened to the records of this process, as plain numbers.

    "recorded" by the user, valid or not; "replayed" besides, in durable
    functions, and left out; "dropped" of those recorded, by reason, and
    "dropped_by_name", by reason and name; "documents" of EMF written; and a
    `Status` for each of "sinks", by name.
    """
    from . import statuses, tally  # for those that ask

    return {
        "sinks": statuses.of(_buffer),
        "recorded": _buffer.taken + len(_buffer.records) + tally.refused(),
        "replayed": 0 if _durable is None else _durable.replayed,
        "documents": stdout.documents(),
        "dropped": tally.dropped(),
        "dropped_by_name": tally.dropped_by_name(),
    }


def install(sink: Sink | None, *, strict: bool | None = None) -> tuple[Any, ...]:
    """Make *sink* that of every `Metrics` without one; return what `restore` takes.

    None: what the options say.  *strict* takes the place of the option, unless
    None.
    """
    global _strict, _installed
    former = _installed, _strict
    _installed = None if sink is None else outlet_of(sink)
    _strict = strict
    _reroute()
    return former


def restore(former: tuple[Any, ...]) -> None:
    """Go back to what was before `install`."""
    global _strict, _installed
    _installed, _strict = former
    _reroute()


def _reroute() -> None:
    global _known, _version
    _version = object()  # a thread that is just finding out has found nothing
    _known = False
    _look_for_durable()
    if _installed is None:
        _know_outlets()
    else:
        _buffer.outlets = (_installed,)


@process.at_fork
def forked() -> None:
    """Start empty: what was recorded before the fork is the parent's."""
    _buffer.clear()
    _limit()
    _flushing.clear()


@process.at_reset
def reset() -> None:
    """Forget records and options, as if this were just imported; not what was dropped."""
    global _every, _has_ended, _joined, _default, _installed, _strict, _replays
    _replays = _every = None
    _has_ended = False
    if _aged is not None:
        _aged.age_s = None
    forked()
    stdout.reset()
    _default = (Outlet(EmfSink(), "emf"),)
    _installed = _strict = None
    _buffer.outlets = _default
    _noted.clear()
    _scoped.clear()
    _changed()
    _joined = False
