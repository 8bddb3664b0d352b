"""
Datadog's logs intake: JSON arrays, compressed.

Source: "Send logs", https://docs.datadoghq.com/api/latest/logs/#send-logs
(addresses by site; 5 MB, 1,000 entries and 1 MB an entry; which answers to send
again after), and "Log attributes and aliasing" for the names of attributes.
"""

from __future__ import annotations

from ..delivery import otlp_common
from ..delivery.receiver import Receiver, label
from ..exceptions import ConfigurationError
from .entry import as_json, trace_ids
from .over_http import HttpDestination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..delivery.receiver import Text
    from .entry import Entry

MAX_BYTES = 3_900_000  # of 5 MB, before gzip; the queue holds 4 MB
MAX_ENTRIES = 1_000
# Datadog names 408, 429 and 5xx as those after which to send again.
PASSING = (408, 429, 500, 502, 503, 504)


class DatadogLogs(HttpDestination):
    """Sends records to the intake; see `destinations.datadog`."""

    __slots__ = ("_common",)

    def __init__(
        self,
        key: Text,
        *,
        site: str = "datadoghq.com",
        service: str | None = None,
        tags: Sequence[str] = (),
        source: str = "lambda",
        url: Text | None = None,
    ) -> None:
        given: Any = tags
        if (
            isinstance(given, str)
            or not hasattr(given, "__iter__")
            or not all(isinstance(tag, str) and tag and "," not in tag for tag in given)
        ):
            msg = "datadog(tags=...) takes several texts such as 'env:prod'"
            raise ConfigurationError(msg)
        known: tuple[object, ...] = source, "" if service is None else service
        if not all(isinstance(each, str) for each in known):
            msg = "datadog(): source and service are texts; service may be None"
            raise ConfigurationError(msg)
        self._common: dict[str, Any] = {
            "ddsource": source,
            "service": otlp_common.service() if service is None else service,
        }
        if tags:
            self._common["ddtags"] = ",".join(tags)
        if url is None:
            url = f"https://http-intake.logs.{label('site', site)}/api/v2/logs"
        to = Receiver("datadog", url, headers={"dd-api-key": key}, passing=PASSING)
        otlp_common.follow_life()
        super().__init__("datadog", to, max_records=MAX_ENTRIES, max_bytes=MAX_BYTES)

    def encode(self, entry: Entry) -> bytes:
        """Return *entry* as a log of Datadog's."""
        log: dict[str, Any] = {}
        if isinstance(entry.body, dict):
            log = {name: part for name, part in entry.body.items() if name not in TAKEN}
        log.update(self._common)
        log["hostname"] = otlp_common.instance()
        log["message"] = entry.message
        log["timestamp"] = round(entry.timestamp * 1000)
        log["status"] = (entry.level or "INFO").lower()
        about: dict[str, Any] = {"type": entry.type}
        if entry.request_id:
            about["request_id"] = entry.request_id
        trace_id = trace_ids(entry.trace)[0]
        if trace_id:
            about["trace_id"] = trace_id
        log["lambda"] = about
        return as_json(log).encode()

    def join(self, run: list[bytes]) -> bytes:
        """Return the logs as an array."""
        return b"[" + b",".join(run) + b"]"


# Attributes that Datadog gives a meaning, which a member of the line may not have.
TAKEN = frozenset(
    ("ddsource", "ddtags", "hostname", "service", "message", "timestamp", "status",
     "lambda")
)  # fmt: skip
