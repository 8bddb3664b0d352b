"""
Does a value of the seed stand in what the function wrote or answered?

A value is found as it is, and as programs write it by accident: as JSON or
`repr` escape it, quoted for a URL, in base64 (also within something longer)
or in hexadecimal, one line of several, or one half of what looks like a key.

What counts as secret: secrets as a whole, text inside JSON ones except under
names such as "username" and "host", numbers under names such as "pin", and
SecureString parameters.  A value that the event holds too is the caller's; one
that says only that it is one ("password", "changeme") tells nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from .seeds import Seed

SHORTEST = 4  # characters; a shorter value is found by chance in many lines
ALONE = 8  # a shorter one counts only where no letter or digit touches it
HALF = 8  # the least that half a value must have, to be one
LINE = 16  # the least that one line of several must have
# Members of a secret that are no secret; some as AWS's database secrets have them.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
PUBLIC = frozenset(
    (
        *("engine", "host", "hostname", "endpoint", "port", "scheme", "ssl", "region"),
        *("dbname", "database", "schema", "dbinstanceidentifier", "masterarn"),
        *("dbclusteridentifier", "user", "username", "login", "email", "name"),
        *("client_id", "clientid", "type", "version"),
    )
)


# Members whose numbers are secret; others count and measure.
NUMBERS = re.compile(r"pin|code|pass|token|secret|key|otp|cvc|cvv", re.IGNORECASE)
PLACEHOLDERS = frozenset(
    ("changeme", "dummy", "example", "fake", "local", "none", "null", "password",
     "placeholder", "sample", "secret", "test", "token", "true", "false", "value")
)  # fmt: skip


@dataclass(frozen=True)
class Leak:
    """A value of the seed in a place where it should not be."""

    what: str  # "secret 'prod/db'", "member 'password' of secret 'prod/db'", ...
    name: str  # the secret's or parameter's
    where: str  # "a log line", "the answer to invocation 2", ...


class Leaks:
    """Finds the values of *seed*, those of *allowed* names excepted."""

    def __init__(
        self, seed: Seed, events: Iterable[Any] = (), allowed: Sequence[str] = ()
    ) -> None:
        given = json.dumps(list(events), ensure_ascii=False, default=str)
        self._known: list[tuple[str, str, re.Pattern[str]]] = []
        for what, name, value in _values(seed):
            if isinstance(value, str) and value.strip().lower() in PLACEHOLDERS:
                continue
            patterns = [
                pattern
                for pattern in map(_pattern, sorted(_forms(value), key=len))
                if pattern is not None and not pattern.search(given)
            ]
            if name not in allowed and patterns:
                # The longest first, so that all of a value is taken away.
                joined = "|".join(pattern.pattern for pattern in reversed(patterns))
                self._known.append((what, name, re.compile(joined)))

    def find(self, text: str, where: str) -> Iterator[Leak]:
        """Yield each value that stands in *text*."""
        for what, name, pattern in self._known:
            if pattern.search(text):
                yield Leak(what, name, where)

    def redacted(self, text: str) -> str:
        """Return *text* with the name of the secret in place of each value."""
        for what, _, pattern in self._known:
            text = pattern.sub(_replacement(f"[{what}]"), text)
        return text


def _replacement(text: str) -> Callable[[object], str]:
    """Return what replaces a match with *text*, backslashes and all."""
    return lambda match: text


def _values(seed: Seed) -> Iterator[tuple[str, str, str | bytes]]:
    """Yield (what it is, name, value) of all that is secret, members first."""
    for name, value in seed.secrets.items():
        what = f"secret {name!r}"
        parsed = None
        if isinstance(value, str):
            try:
                parsed = json.loads(value)
            except ValueError:
                parsed = None
        if isinstance(parsed, dict | list):
            for member, leaf in _leaves(parsed, ""):
                yield f"member {member!r} of {what}", name, leaf
        else:
            yield what, name, value
    for name, parameter in seed.parameters.items():
        if parameter.type == "SecureString":
            yield f"parameter {name!r}", name, parameter.value


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, member in value.items():
            if str(name).lower() not in PUBLIC or isinstance(member, dict | list):
                yield from _leaves(member, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _leaves(member, f"{path}[{number}]")
    elif isinstance(value, str):
        yield path, value
    elif type(value) in (int, float) and NUMBERS.search(path):
        yield path, json.dumps(value)


def _forms(value: str | bytes) -> set[str]:
    """Return the ways in which *value* may have been written."""
    if isinstance(value, bytes):
        forms = {repr(value)[2:-1]}
        raw = value
        with contextlib.suppress(UnicodeDecodeError):
            forms.add(value.decode())
    else:
        raw = value.encode("utf-8", "surrogatepass")
        forms = {value}
        lines = [line.strip() for line in value.splitlines()]
        if len(lines) > 1:
            forms |= {
                line
                for line in lines
                if len(line) >= LINE and not line.startswith("-----")
            }
        half = len(value) // 2
        if half >= HALF and len(lines) == 1:
            forms |= {
                part
                for part in (value[:half], value[-half:])
                if re.search(r"\d", part) and re.search(r"[A-Za-z]", part)
            }
    for text in tuple(forms):
        forms |= {
            json.dumps(text)[1:-1],
            json.dumps(json.dumps(text))[2:-2],
            json.dumps(text, ensure_ascii=False)[1:-1],
            repr(text)[1:-1],
            ascii(text)[1:-1],
            quote(text, safe="", errors="replace"),
            quote_plus(text, errors="replace"),
        }
    forms |= set(_base64(raw))
    if len(raw) >= HALF // 2:
        forms |= {raw.hex(), raw.hex().upper()}
    return {form for form in forms if len(form.strip()) >= SHORTEST}


def _base64(raw: bytes) -> Iterator[str]:
    """Yield what of *raw* shows in base64, wherever in a longer text it begins."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        begin = (before * 8 + 5) // 6
        end = (before + len(raw)) * 8 // 6
        form = encoded[begin:end]
        if len(form) >= HALF:
            yield form
            yield form.replace("+", "-").replace("/", "_")


def _pattern(form: str) -> re.Pattern[str] | None:
    """Return what finds *form*; a short one only where it stands alone."""
    text = re.escape(form)
    if len(form) < ALONE:
        text = rf"(?<![A-Za-z0-9]){text}(?![A-Za-z0-9])"
    return re.compile(text)
