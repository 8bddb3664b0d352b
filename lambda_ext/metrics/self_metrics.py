"""
What this library records of itself, opt-in: each name is a billed metric.

    option cold_start_metric
        ColdStart         1 for each invocation that waited for its environment
    option self_metrics
        Errors            1 for each invocation whose handler raised
        CacheHits, CacheMisses, CacheStale
                          reads of values since the last invocation ended: from
                          memory (by `get_*`, not by handles), by a load, and of
                          values older than asked for; see `stats().values`
        LoadLatency       ms of a call to AWS for which a caller waited
        RefreshLatency    ms of one in the background

They go where the other metrics go, with the dimension ``service``.
"""

from __future__ import annotations

import sys

from .. import config
from ..lifecycle import current, phases, process
from . import recorder
from .buffer import COUNT, DISTRIBUTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STORE = "lambda_ext.values.store"  # loaded by those that read values
BEFORE_FLUSH = phases.USER - 1  # priority
COUNTED = {
    "hits": "CacheHits",
    "misses": "CacheMisses",
    "stale_served": "CacheStale",
}

_recorded: dict[str, int] = {}  # of the counters, what has been recorded
_is_on = False  # what *self_metrics* said when it was last looked at


def install() -> None:
    """Do what both options say, from the next invocation on."""
    global _is_on
    phases.silence(phases.INVOKE, _invoke)
    phases.silence(phases.RESPONSE, _response)
    _observe(None)
    if config.get("cold_start_metric"):
        phases.listen_once(phases.INVOKE, _invoke, priority=phases.ESSENTIAL)
    was_on, _is_on = _is_on, config.get("self_metrics")
    if _is_on:
        _observe(_loaded)
        # `configure()` comes here for each option.
        if (
            phases.calls[phases.INVOKE] and not was_on
        ):  # what was before is not of this invocation
            _new()
        phases.listen_once(phases.RESPONSE, _response, priority=BEFORE_FLUSH)


def _observe(observer: Any) -> None:
    store = sys.modules.get(STORE)
    if store is not None:
        store.loader.observe = observer


def _invoke() -> None:
    # Before the handler runs: it may raise, time out, or end the process.
    if current.is_cold_start():
        _count("ColdStart", 1)


def _response() -> None:
    if current.state().error is not None:
        _count("Errors", 1)
    for name, number in _new().items():
        if number > 0:
            _count(name, number)


def _new() -> dict[str, int]:
    """Return by how much the counters of values have grown since the last call."""
    store: Any = sys.modules.get(STORE)
    if store is None:
        return {}
    store.loader.observe = _loaded  # it may have been imported just now
    found = store.snapshot()
    grown = {}
    for attribute, name in COUNTED.items():
        number = getattr(found, attribute)
        grown[name] = number - _recorded.get(attribute, 0)
        _recorded[attribute] = number
    return grown


def _count(name: str, number: int) -> None:
    owner = recorder.default
    owner._record(COUNT, owner._counts, name, number, "Count", {}, durable=False)


def _loaded(elapsed_s: float, *, waited: bool) -> None:
    """Record a call of a source; called by the loader."""
    owner = recorder.default
    name = "LoadLatency" if waited else "RefreshLatency"
    owner._record(
        DISTRIBUTION, owner._distributions, name,
        round(elapsed_s * 1000, 3), "Milliseconds", {}, durable=False,
    )  # fmt: skip


@process.at_fork
@process.at_reset
def reset() -> None:
    """Start again from zero: so do the counters of the values."""
    _recorded.clear()


@process.at_reset
def _reset() -> None:
    global _is_on
    _is_on = False
