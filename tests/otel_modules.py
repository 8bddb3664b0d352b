"""OpenTelemetry's API, loaded for the tests that ask for it and for no others."""

from __future__ import annotations

import importlib
import sys

import pytest

pytest.importorskip("opentelemetry.sdk")

NAMES = ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
for _name in ("trace", "metrics", "_logs"):  # which import the API
    importlib.import_module(f"opentelemetry.sdk.{_name}")
# What the library looks up; it finds nothing where a test does not put it back.
MODULES = {name: importlib.import_module(name) for name in NAMES}
for _name in NAMES:
    del sys.modules[_name]


def load(monkeypatch):
    """Have the API loaded until the end of a test."""
    for name, module in MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)
