"""
Properties that this library knows by itself, opt-in: what leads to an invocation.

``configure(properties=[...])`` puts them beside the metrics of each document,
where they can be searched in the log.  They are no dimensions, and cost the
bytes of the line only.

    request_id         AWS's, of this invocation
    trace_id           X-Ray's, such as "1-5759e988-bd862e3fe1be46a994272793": of
                       the active OpenTelemetry span, where the program has
                       loaded `opentelemetry`, else of ``_X_AMZN_TRACE_ID``
    span_id            of that span, or the segment of that variable
    cold_start         whether this invocation waited for its environment
    tenant_id          of a function with tenant isolation
    availability_zone  the id of the zone, such as "use1-az1": asked of Lambda's
                       metadata endpoint, once, in INIT, or after a restore

What is not known is left out: outside Lambda most are.

Source: Lambda tenant isolation,
https://docs.aws.amazon.com/lambda/latest/dg/tenant-isolation.html;
trace headers, https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
"""

from __future__ import annotations

import json
import os
import sys

from .. import config, disclosure
from ..lifecycle import current, phases, process, runtime_api
from . import properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METADATA_VERSION = "/2026-01-15"
METADATA_PATH = "/metadata/execution-environment"
METADATA_S = 0.3  # for the answer; it comes from the same machine

_wanted: frozenset[str] = frozenset()
_zone: str | None = None
_asked = False


def install() -> None:
    """Do what the option *properties* says, from the next invocation on."""
    global _wanted
    phases.silence(phases.INVOKE, _invoke)
    phases.silence(phases.RESTORE, _restored)
    _wanted = config.get("properties")
    if not _wanted:
        return
    phases.listen_once(phases.INVOKE, _invoke, priority=phases.ESSENTIAL)
    if "availability_zone" in _wanted:
        phases.listen_once(phases.RESTORE, _restored)
        # A snapshot is restored in any zone.
        if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "snap-start":
            _ask()


def _invoke() -> None:
    found = {name: value for name, value in _known().items() if value is not None}
    if found:
        properties.surround(found)


def _known() -> dict[str, Any]:
    """Return the wanted properties; None for those that are not known."""
    known: dict[str, Any] = {}
    wanted = _wanted
    context = current.state().context
    if "request_id" in wanted:
        known["request_id"] = _text(context, "aws_request_id")
    if "tenant_id" in wanted:
        known["tenant_id"] = _text(context, "tenant_id")
    if "cold_start" in wanted:
        known["cold_start"] = current.is_cold_start()
    if "availability_zone" in wanted:
        known["availability_zone"] = _zone
    if "trace_id" in wanted or "span_id" in wanted:
        trace_id, span_id = _trace()
        if "trace_id" in wanted:
            known["trace_id"] = trace_id
        if "span_id" in wanted:
            known["span_id"] = span_id
    return known


def _text(context: Any, name: str) -> str | None:
    found = disclosure.attribute(context, name)
    # Not a test double's; the longest is of 128 characters.
    return found if isinstance(found, str) and 0 < len(found) <= 256 else None


def _trace() -> tuple[str | None, str | None]:
    """Return the ids of the active span, else of the invocation's segment."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        try:
            context = trace.get_current_span().get_span_context()
            if context.is_valid:
                digits = f"{context.trace_id:032x}"
                trace_id = f"1-{digits[:8]}-{digits[8:]}"
                return trace_id, f"{context.span_id:016x}"
        except Exception as exc:
            if process.by_signal_handler(exc):
                raise
    parts = {}
    for part in os.environ.get("_X_AMZN_TRACE_ID", "")[:1_000].split(";"):
        name, _, value = part.partition("=")
        parts[name.strip()] = value
    return parts.get("Root") or None, parts.get("Parent") or None


def _restored() -> None:
    global _asked
    _asked = False
    _ask()


def _ask() -> None:
    """Ask Lambda's metadata endpoint for the zone, once; raises nothing."""
    global _asked, _zone
    if _asked or not config.in_lambda():
        return
    _asked = True
    _zone = None
    reason = "AWS_LAMBDA_METADATA_API is not set"
    address = os.environ.get("AWS_LAMBDA_METADATA_API")
    if address:
        try:
            reply = runtime_api.call(
                address,
                "GET",
                METADATA_PATH,
                {
                    "Authorization": "Bearer "
                    + os.environ.get("AWS_LAMBDA_METADATA_TOKEN", "")
                },
                timeout_s=METADATA_S,
                version=METADATA_VERSION,
            )
            zone = json.loads(reply.body)["AvailabilityZoneID"]
            if reply.status == 200 and isinstance(zone, str) and 0 < len(zone) <= 256:
                _zone = zone
                return
            reason = f"HTTP {reply.status}, or no text"
        except Exception as exc:
            if process.by_signal_handler(exc):
                raise
            reason = type(exc).__name__  # its text may quote what was sent
    disclosure.warn("availability_zone_unknown", reason=reason)


@process.at_reset
def reset() -> None:
    """Forget the zone and the properties, as if this were just imported."""
    global _wanted, _zone, _asked
    _wanted = frozenset()
    _zone = None
    _asked = False
