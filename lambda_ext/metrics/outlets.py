"""
Where metrics go: several sinks at once, each with what it wants.

    configure(sinks=["emf", new_relic(key), route(sink, include="orders.*")])
    LAMBDA_EXT_SINKS=emf,otlp

What a sink is
    An object with ``accept(batch)``, or a function of a batch.  `accept` never
    waits for anything: it is called in the thread that flushes, at SIGTERM
    too, and EMF must not be delayed by another sink.

    What waits is an optional ``drain(ends_at)``: it sends what `accept` has
    queued, before the run time *ends_at*, and raises nothing.  It is called
    after every sink had its batches: at the end of an invocation if the sink's
    optional ``is_due()`` says so (without one: each time), and always before a
    snapshot, before a time-out, at SIGTERM, at exit and by `metrics.flush`.
    Of several sinks that drain each has an equal share of the time.

    Optional numbers, for `lambda_ext.stats` and the result of `metrics.flush`:
    ``sent`` and ``pending`` (records), ``dropped`` (a number, or numbers by
    reason) and ``error`` (text; "" for none).  A sink without them counts as
    having sent what it accepted; a number of another type, or one that raises, is
    ignored.

    A batch is passed to `accept` twice, as the same object, where a signal handler
    of the user's raised in the first call: a sink that has the batch ignores it.

The order of sinks is that in which they are given, and EMF comes first by
default: it needs no network.
"""

from __future__ import annotations

from .. import disclosure
from ..exceptions import ConfigurationError
from ..lifecycle import process
from .buffer import Outlet, outlet_of
from .emf import EmfSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..typing import Batch, Sink

MEMO = 1_000  # names of metrics whose way is remembered


class Route:
    """A sink with the names of the metrics that go there; see `route`."""

    __slots__ = ("exclude", "include", "name", "sink")

    def __init__(
        self,
        sink: Any,
        name: str,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
    ) -> None:
        self.sink = sink
        self.name = name
        self.include = include
        self.exclude = exclude

    def __repr__(self) -> str:
        return f"<route to {self.name or disclosure.quoted(self.sink)}>"


def route(
    sink: Sink | Callable[[Batch], object] | str,
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    name: str = "",
) -> Route:
    """
    Return *sink* for ``configure(sinks=[...])``, for some metrics only.

    Args:
        sink: An object with a method accept(batch), a function of a batch, or
            one of the names in `NAMED`: "emf", "otlp" and "datadog".
        include: Names of metrics, or patterns such as "orders.*", that go
            there; none means all.
        exclude: Names and patterns of those that do not.
        name: What statistics call it; else its class or its own name.

    Raises:
        ConfigurationError: *sink* is no sink; *include*, *exclude* or *name*
            are no texts.
    """
    checked(sink)
    known: object = name  # not every caller checks types
    if not isinstance(known, str):
        msg = f"route(..., name=...): name= is text, and not {type(known).__name__}"
        raise ConfigurationError(msg)
    return Route(sink, name, _patterns(include), _patterns(exclude))


def checked(given: Any) -> Any:
    """Return *given*, a name, a route, a sink or a function; else raise."""
    # Not loaded by those that have no sink of their own.
    from .. import callables

    if isinstance(given, str):
        if given in NAMED:
            return given
        msg = f"there is no sink {given!r:.80}; known are {', '.join(NAMED)}"
        raise ConfigurationError(msg)
    if isinstance(given, Route) or (
        not isinstance(given, type)
        and (callable(disclosure.attribute(given, "accept")) or callable(given))
    ):
        callables.refuse_async_sink(given)
        return given
    msg = (
        f"{callables.named(given)} is no sink: that is an object with a method accept(batch), a"
        f" function of a batch, or one of {', '.join(map(repr, NAMED))}"
    )
    raise ConfigurationError(msg)


class _Function:
    """A function as a sink."""

    __slots__ = ("accept", "name")

    def __init__(self, function: Callable[[Batch], object]) -> None:
        self.accept = function
        self.name = (
            disclosure.words(function, "__qualname__") or type(function).__qualname__
        )


_made: dict[str, Outlet] = {}  # by name, so that what waits in them is not lost


def outlets(given: Iterable[Any]) -> tuple[Outlet, ...]:
    """Return the outlets of what was given to ``configure(sinks=...)``."""
    return tuple([_outlet(checked(each)) for each in given])


def _outlet(given: Any) -> Outlet:
    if isinstance(given, str):
        if given not in _made:  # several threads may be here
            _made.setdefault(given, Outlet(NAMED[given](), given))
        return _made[given]
    if isinstance(given, Route):
        inner = _outlet(checked(given.sink))
        if not (given.include or given.exclude or given.name):
            return inner
        wanted = _wanted(given) if given.include or given.exclude else None
        return inner.narrowed(given.name, wanted)
    if not callable(disclosure.attribute(given, "accept")):
        function: Any = _Function(given)
        return Outlet(function)
    return outlet_of(given)


def _wanted(of: Route) -> Callable[[str], bool]:
    """Return what says of a name whether the route wants it."""
    from fnmatch import fnmatchcase  # 1 ms that only patterns cost

    memo: dict[str, bool] = {}

    def wanted(name: str) -> bool:
        known = memo.get(name)
        if known is None:
            known = not any(fnmatchcase(name, pattern) for pattern in of.exclude)
            if of.include and not any(fnmatchcase(name, p) for p in of.include):
                known = False
            if len(memo) >= MEMO:
                memo.clear()
            memo[name] = known
        return known

    return wanted


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    try:
        patterns = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        patterns = ("",)  # which is none
    if not all(type(pattern) is str for pattern in patterns) or "" in patterns:
        msg = "include= and exclude= take names of metrics, or patterns like 'a.*'"
        raise ConfigurationError(msg)
    return patterns


def _otlp() -> Any:
    from .otlp import OtlpSink  # with HTTP and TLS, which EMF does not need

    return OtlpSink()


def _datadog() -> Any:
    from .datadog import DatadogSink  # with sockets, which EMF does not need

    return DatadogSink()


NAMED: dict[str, Callable[[], Any]] = {
    "emf": EmfSink,
    "otlp": _otlp,
    "datadog": _datadog,
}


@process.at_reset
def reset() -> None:
    """Forget the sinks that were made by name."""
    _made.clear()
