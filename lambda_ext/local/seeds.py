"""What AWS holds when the function starts; no repr and no error shows a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seed:
    """
    What AWS holds when the function starts; the repr shows names only.

    *configurations* and *flags* are by "application/environment/profile": the
    first are served as they are, the second are flag documents of a feature
    flag profile, which is served without its rules.
    """

    secrets: Mapping[str, str | bytes] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    configurations: Mapping[str, str | bytes] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = f"secrets={list(self.secrets)} parameters={list(self.parameters)}"
        for kind in ("configurations", "flags"):
            held = getattr(self, kind)
            names += f" {kind}={list(held)}" if held else ""
        return f"<Seed {names}>"


@dataclass(frozen=True)
class Parameter:
    """A parameter's text and type: String, StringList or SecureString."""

    value: str = field(repr=False)
    type: str = "String"


class SeedError(Exception):
    """AWS, as it is played here, refused what a seed wants to create."""
