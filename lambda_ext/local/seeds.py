"""What AWS holds when the function starts; no repr and no error shows a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seed:
    """What AWS holds when the function starts; the repr shows names only."""

    secrets: Mapping[str, str | bytes] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Seed secrets={list(self.secrets)} parameters={list(self.parameters)}>"


@dataclass(frozen=True)
class Parameter:
    """A parameter's text and type: String, StringList or SecureString."""

    value: str = field(repr=False)
    type: str = "String"


class SeedError(Exception):
    """AWS, as it is played here, refused what a seed wants to create."""
