"""How the properties are tried."""

from __future__ import annotations

from hypothesis import settings

# An example has no time limit: a busy machine is no failure.
settings.register_profile("lambda_ext", deadline=None)
settings.load_profile("lambda_ext")
