"""
Splunk's HTTP Event Collector (HEC): the event endpoint.

A request has any number of events, JSON objects one after the other, as gzip from
a kilobyte on.  Indexer acknowledgement is not used: 200 means that HEC has them.

Source: "Format events for HTTP Event Collector",
https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector
and "Troubleshoot HTTP Event Collector", for the answers.
"""

from __future__ import annotations

import os

from ..delivery import otlp_common
from ..delivery.receiver import Prefixed, Receiver, text
from ..exceptions import ConfigurationError
from .entry import as_json, trace_ids
from .over_http import HttpDestination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..delivery.receiver import Text
    from .entry import Entry

PATH = "/services/collector/event"
COLLECTOR = "/services/collector"
SCHEME = "Splunk "  # before the key, in its header


class SplunkHec(HttpDestination):
    """Sends records to a HEC; see `destinations.splunk_hec`."""

    __slots__ = ("_common", "_host")

    def __init__(
        self,
        url: Text,
        token: Text,
        *,
        index: str | None = None,
        source: str | None = None,
        sourcetype: str | None = None,
        host: str | None = None,
    ) -> None:
        given: tuple[Any, ...] = (index, source, sourcetype, host)
        if not all(each is None or (isinstance(each, str) and each) for each in given):
            msg = "splunk_hec(): index, source, sourcetype and host are texts, or None"
            raise ConfigurationError(msg)
        function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self._host = host
        self._common: dict[str, Any] = {
            "source": source or (f"lambda:{function}" if function else "lambda"),
            "sourcetype": sourcetype or "_json",
        }
        if index:
            self._common["index"] = index
        address: Text = _whole(url) if isinstance(url, str) else _Whole(url)
        # A text is checked now, anything else when it is read.
        key: Text = (
            f"{SCHEME}{token}" if isinstance(token, str) else Prefixed(SCHEME, token)
        )
        to = Receiver(
            "splunk_hec",
            address,
            headers={"authorization": key},
            content_type="application/json",
        )
        otlp_common.follow_life()
        super().__init__("splunk_hec", to)

    def encode(self, entry: Entry) -> bytes:
        """Return *entry* as an event of HEC's."""
        fields = {"type": entry.type}
        if entry.level:
            fields["level"] = entry.level
        if entry.request_id:
            fields["requestId"] = entry.request_id
        trace_id = trace_ids(entry.trace)[0]
        if trace_id:
            fields["traceId"] = trace_id
        event = {
            "time": round(entry.timestamp, 3),
            "host": self._host or otlp_common.instance(),
            **self._common,
            # HEC refuses an event that is blank.
            "event": entry.body if entry.body not in ("", {}, None) else "(empty)",
            "fields": fields,
        }
        return as_json(event).encode()

    def join(self, run: list[bytes]) -> bytes:
        """Return the events one after the other."""
        return b"\n".join(run)


def _whole(url: str) -> str:
    address, mark, query = url.partition("?")
    if not address.endswith(PATH):
        address = address.rstrip("/").removesuffix(COLLECTOR)
    return otlp_common.below(address + mark + query, PATH)


class _Whole(otlp_common.Below):
    """HEC's address, which is read when it is needed."""

    __slots__ = ()

    def __init__(self, url: Any) -> None:
        super().__init__(url, PATH)

    @property
    def value(self) -> str:
        """Return the whole address."""
        return _whole(text(self.given))
