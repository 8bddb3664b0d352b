"""
Metrics, recorded in memory and written at the end of each invocation.

    from lambda_ext import metrics

    metrics.count("orders")
    metrics.count("bytes", 512, unit="Bytes", tenant="acme")

These are the methods of one default `Metrics`, as in `random`.  A decorated
handler flushes; so do a SIGTERM and the interpreter's exit.
"""

from __future__ import annotations

from .recorder import Metrics, default

__all__ = ("Metrics", "count", "flush")

count = default.count
flush = default.flush
