"""
Properties: what stands beside the metrics of an invocation, to be searched for.

    annotate() ─▶ properties of the process, or of the invocation ─▶ each document

Loaded by the first of them.
"""

from __future__ import annotations

from json import dumps

from ..exceptions import MetricError
from ..lifecycle import process
from ..limits import METRIC_NAME
from . import recorder, validation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_PROPERTIES = 30
MAX_PROPERTY = 1_000  # characters of JSON, so that a document stays short

_common: dict[str, Any] = {}  # properties of the process
_own: dict[str, Any] = {}  # properties of the invocation
_ambient: dict[str, Any] = {}  # those that this library knows by itself


def annotate(properties: Mapping[str, Any], /, *, always: bool = False) -> None:
    """
    Put *properties* into each document of this invocation, beside its metrics.

    They are no dimensions: they cost no metric, and can be searched in the log
    (a request id, an order).  A flush takes those that are known when it runs;
    the end of the invocation forgets them.  A dimension or a metric of the
    same name goes before.

    Args:
        properties: At most 30 names in ASCII, with what JSON can say in 1,000
            characters.
        always: Keep them for the life of this process.

    Raises:
        MetricError: in strict mode only; else what cannot be used is counted.
    """
    if not recorder._joined:
        recorder._join()  # RESPONSE forgets them
    refusal: MetricError | None = None
    try:
        if always:
            _keep_always(properties)
        else:
            _keep(properties)
    except MetricError as exc:
        refusal = MetricError(str(exc), reason=exc.reason)
    except Exception as exc:  # of an object of the user's, which may raise any
        if process.by_signal_handler(exc):
            raise
        msg = "annotate() takes a mapping of names to values"
        refusal = MetricError(msg, reason="property")
    if refusal is not None:
        if recorder._is_strict():
            raise refusal
        recorder._refuse(refusal.reason, str(refusal))
    recorder._buffer.properties = {**_common, **_ambient, **_own}


def _keep(properties: Mapping[str, Any]) -> None:
    """Add *properties* to those of this invocation."""
    global _own
    while True:
        before = _own
        after = _checked({**before, **properties})
        # One step; not if another thread has added some meanwhile.
        if _own is before:
            _own = after
            return


def _keep_always(properties: Mapping[str, Any]) -> None:
    """Add *properties* to those of this process."""
    global _common
    while True:
        before = _common
        after = _checked({**before, **properties})
        # One step, as above.
        if _common is before:
            _common = after
            return


def surround(properties: dict[str, Any]) -> None:
    """Put *properties* of this library's into each document of this invocation."""
    global _ambient
    if not recorder._joined:
        recorder._join()  # RESPONSE forgets them
    _ambient = {**_ambient, **properties}
    recorder._buffer.properties = {**_common, **_ambient, **_own}


def _forget() -> None:
    """Drop the properties of the invocation that has ended."""
    global _own, _ambient
    if _own or _ambient:
        _own, _ambient = {}, {}
        recorder._buffer.properties = _common


recorder.forget_properties = _forget


@process.at_fork
def forked() -> None:
    """Keep what is the process's: a forked child is in no invocation."""
    global _own, _ambient
    _own, _ambient = {}, {}
    recorder._buffer.properties = _common


@process.at_reset
def reset() -> None:
    """Forget all properties, as if this were just imported."""
    global _common
    _common = {}
    forked()


def _checked(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Return *given* as members of a document beside its metrics."""
    checked = {}
    for key, held in dict(given).items():
        if (
            not isinstance(key, str)
            or not validation._fits(key, METRIC_NAME)
            or key in validation.RESERVED
        ):
            msg = (
                f"a property's name is 1 to {METRIC_NAME[0]} printable ASCII"
                f" characters and none of {', '.join(sorted(validation.RESERVED))}; given was"
                f" {validation._given(key)}"
            )
            raise MetricError(msg, reason="property")
        try:
            size = len(dumps(held, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            size = -1
        if not 0 < size <= MAX_PROPERTY:
            msg = (
                f"property {key!r:.80} takes what JSON can say in {MAX_PROPERTY}"
                f" characters; given was {validation._given(held)}"
            )
            raise MetricError(msg, reason="property")
        checked[str.__str__(key)] = held
    if len(checked) > MAX_PROPERTIES:
        msg = f"{len(checked)} properties; {MAX_PROPERTIES} are taken"
        raise MetricError(msg, reason="property")
    return checked
