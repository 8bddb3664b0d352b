"""
Lambda's Telemetry API in the handler's process: logs and platform events, as records.

    from lambda_ext import telemetry

    telemetry.consumers.append(print)  # called with each `Batch`
"""

from __future__ import annotations

from .dispatch import consumers
from .records import Batch, Record

__all__ = ("Batch", "Record", "consumers")
