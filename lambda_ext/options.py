"""
What `configure()` takes, for type checkers; a program never loads it.
"""

from __future__ import annotations

from typing import Any, TypedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta


class Options(TypedDict, total=False):
    """What `configure()` takes; the same names as in `config.OPTIONS`."""

    agent_port: int
    appconfig_region: str | None
    cache: bool
    cache_size: int
    cold_start_metric: bool
    decrypt: bool
    disable: str | Iterable[str]
    flags: str | None
    flags_prefetch: str | Iterable[str]
    flags_source: str
    flush_every: int | str | timedelta | None
    load_timeout: float | timedelta | None
    local_file_in_lambda: bool
    max_age: float | timedelta | None
    max_stale: float | timedelta | None
    namespace: str | None
    otel_flush: bool
    poll_interval: float | timedelta | str | None
    poll_timeout: float | timedelta | None
    properties: str | Iterable[str]
    runtime_metrics: bool | str | Iterable[str]
    self_metrics: bool
    service: str | None
    sinks: str | Iterable[Any] | None
    skip_replays: bool
    source: str
    strict: bool
    timeout_margin: float | timedelta | None
    after_response: bool
    transport: str
