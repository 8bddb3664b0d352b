"""
What a person hands to `lambda-ext run`: event files and a seed file.

Both are JSON typed by hand, so that each mistake gets a message of its own, with
the file, the line or the key, and what to change.  No message ever quotes a
value: a seed file holds secrets.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from .seeds import Parameter, Seed

MAX_EVENT_BYTES = 6 * 1024 * 1024  # Lambda's limit for a synchronous invocation
MANY = (".jsonl", ".ndjson")  # names of files with one event in each line
KINDS = ("secrets", "parameters", "flags", "configurations")  # of a seed
# The most that AWS holds: a secret, and a parameter of the advanced tier.
SECRET_BYTES, PARAMETER_BYTES = 65_536, 8_192
PARAMETER_TYPES = ("String", "StringList", "SecureString")
# What AWS takes as a name; "!" stands in those that AWS itself gives.
SECRET_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
PARAMETER_NAME = re.compile(r"(?!/?(aws|ssm))[A-Za-z0-9/_.-]{1,2048}", re.IGNORECASE)


class InputError(ValueError):
    """A file or an argument cannot be used; the message says what to change."""


def read_events(path: str) -> list[Any]:
    """
    Return the events in the file *path*; "-" is the standard input.

    A file whose name ends in .jsonl or .ndjson holds one JSON value in each
    line, blank lines aside; any other holds one JSON value.
    """
    text = _read(path, "event")
    if not text.strip():
        what = "the standard input" if path == "-" else "the file"
        msg = f"{path}: {what} is empty; an event is one JSON value, at least {{}}"
        raise InputError(msg)
    if not path.lower().endswith(MANY):
        return [_event(path, text)]
    return [
        _event(path, line, number)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def read_event(path: str) -> Any:
    """Return the one JSON value in the file *path*; "-" is the standard input."""
    events = read_events(path)
    if len(events) != 1:
        msg = f"{path}: {len(events)} events; one is wanted here"
        raise InputError(msg)
    return events[0]


def _event(path: str, text: str, line: int | None = None) -> Any:
    """Return the event in *text*, which is all of the file, or one *line* of it."""
    event = _parse(path, text, "an event is one JSON value", line)
    size = len(json.dumps(event).encode())
    if size > MAX_EVENT_BYTES:
        where = path if line is None else f"{path}, line {line}"
        msg = f"{where}: {size:,} bytes; Lambda takes at most {MAX_EVENT_BYTES:,}"
        raise InputError(msg)
    return event


def read_seed(path: str) -> Seed:
    """
    Return the secrets, parameters, flags and configurations in the file *path*.

    ::

        {"secrets": {"prod/db": {"user": "me"}, "token": "text",
                     "key": {"binary": "base64"}},
         "parameters": {"/page-size": "20",
                        "/password": {"value": "...", "type": "SecureString"}},
         "flags": {"app/env/profile": {"new-checkout": {"enabled": true}}},
         "configurations": {"app/env/profile": {"any": "JSON"}, "a/b/c": "text"}}

    A secret that is an object is stored as JSON text, except for the form
    with the one member "binary".  What is under "flags" is a feature flag
    profile, served without the rules of its variants; under "configurations"
    anything else, served as it is.
    """
    text = _read(path, "seed")
    seed = _parse(path, text, 'a seed is {"secrets": {...}, "parameters": {...}}')
    where = _Where(path, text)
    if not isinstance(seed, dict):
        msg = f'{path}: {_kind(seed)}; write {{"secrets": {{...}}, "parameters": {{...}}}}'
        raise InputError(msg)
    for key, members in seed.items():
        if key not in KINDS:
            near = difflib.get_close_matches(key, KINDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(KINDS)}"
            msg = f"{where(key)} is not known here; {hint}"
            raise InputError(msg)
        if not isinstance(members, dict):
            msg = f"{where(key)} is {_kind(members)}; write an object of names"
            raise InputError(msg)
    return Seed(
        secrets={
            name: _secret(where, name, value)
            for name, value in seed.get("secrets", {}).items()
        },
        parameters={
            name: _parameter(where, name, value)
            for name, value in seed.get("parameters", {}).items()
        },
        configurations={
            _profile(where, name): value
            if isinstance(value, str)
            else json.dumps(value)
            for name, value in seed.get("configurations", {}).items()
        },
        flags={
            _profile(where, name): _document(where, name, value)
            for name, value in seed.get("flags", {}).items()
        },
    )


class _Where:
    """Says where in the file a key stands; without the line if that is unclear."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self._text = text

    def __call__(self, key: str) -> str:
        found = [
            match.start()
            for spelling in {json.dumps(key), json.dumps(key, ensure_ascii=False)}
            for match in re.finditer(re.escape(spelling) + r"\s*:", self._text)
        ]
        if len(found) != 1:
            return f"{self.path}: the key {key!r}"
        line = self._text.count("\n", 0, found[0]) + 1
        return f"{self.path}, line {line}: the key {key!r}"


def _profile(where: _Where, name: str) -> str:
    """Return *name* if it names an application, an environment and a profile."""
    if [bool(part.strip()) for part in name.split("/")] != [True] * 3:
        msg = f"{where(name)}: write 'application/environment/profile'"
        raise InputError(msg)
    return name


def _document(where: _Where, name: str, value: Any) -> Any:
    """Return *value* if it looks like a flag document."""
    values = value.get("values", value) if isinstance(value, dict) else None
    if not isinstance(values, dict):
        msg = f"{where(name)} is {_kind(value)}; write an object of flags"
        raise InputError(msg)
    for flag, each in values.items():
        if not isinstance(each, dict):
            msg = f'{where(flag)} is {_kind(each)}; a flag is {{"enabled": true}}'
            raise InputError(msg)
    return value


def _secret(where: _Where, name: str, value: Any) -> str | bytes:
    _name(where, name)
    if not SECRET_NAME.fullmatch(name):
        msg = (
            f"{where(name)}: a secret's name has up to 512 of A-Z a-z 0-9 / _ + = . @ -"
        )
        raise InputError(msg)
    if isinstance(value, dict) and list(value) == ["binary"]:
        binary: bytes | None = None
        with contextlib.suppress(TypeError, ValueError):
            binary = base64.b64decode(value["binary"], validate=True)
        if binary is None:
            msg = f'{where(name)}: "binary" is not base64 text'
            raise InputError(msg)
        if binary:
            _bounded(where, name, binary, SECRET_BYTES)
            return binary
        value = ""
    if value == "":
        msg = f"{where(name)} holds an empty secret; AWS refuses those"
        raise InputError(msg)
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        _bounded(where, name, value, SECRET_BYTES)
        return value
    msg = (
        f"{where(name)} is {_kind(value)}; write a string, or an object that is"
        " stored as JSON text"
    )
    raise InputError(msg)


def _parameter(where: _Where, name: str, value: Any) -> Parameter:
    _name(where, name)
    if not PARAMETER_NAME.fullmatch(name):
        msg = (
            f"{where(name)}: a parameter's name has A-Z a-z 0-9 / _ . - and"
            " neither aws nor ssm in front"
        )
        raise InputError(msg)
    kind: Any = "String"
    if isinstance(value, dict):
        unknown = sorted(value.keys() - {"value", "type"})
        if unknown or "value" not in value:
            what = f"has the member {unknown[0]!r}" if unknown else 'has no "value"'
            msg = f'{where(name)} {what}; write {{"value": "...", "type": "String"}}'
            raise InputError(msg)
        kind = value.get("type", kind)
        value = value["value"]
    if not isinstance(kind, str) or kind not in PARAMETER_TYPES:
        msg = f"{where(name)}: the type is one of {', '.join(PARAMETER_TYPES)}"
        raise InputError(msg)
    if not isinstance(value, str):
        msg = f"{where(name)}: the value is {_kind(value)}; a parameter is a string"
        raise InputError(msg)
    if not value:
        msg = f"{where(name)} holds an empty parameter; AWS refuses those"
        raise InputError(msg)
    _bounded(where, name, value, PARAMETER_BYTES)
    return Parameter(value, kind)


def _bounded(where: _Where, name: str, value: str | bytes, most: int) -> None:
    """Refuse what is larger than AWS takes."""
    held = value.encode(errors="replace") if isinstance(value, str) else value
    if len(held) > most:
        msg = (
            f"{where(name)} holds {len(held):,} bytes; AWS takes {most:,} bytes at most"
        )
        raise InputError(msg)


def _name(where: _Where, name: str) -> None:
    if not name.strip():
        msg = f"{where(name)}: a name is not blank"
        raise InputError(msg)


def _read(path: str, what: str) -> str:
    """Return the text of a file; no error holds any of it, nor does its chain."""
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as exc:  # holds what it could not read
        place = exc.start
    except OSError as exc:
        msg = f"{path}: the {what} file cannot be read: {exc.strerror}"
        raise InputError(msg) from exc
    msg = f"{path}: byte {place} is not UTF-8; save the file as UTF-8"
    raise InputError(msg)


def _parse(path: str, text: str, shape: str, line: int | None = None) -> Any:
    """Return what *text* says; no error holds any of it, nor does its chain."""
    place = "" if line is None else f", line {line}"
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:  # holds the whole text
        place = f", line {line or exc.lineno}, column {exc.colno}"
        reason = f"not valid JSON ({exc.msg}); {shape}"
    except _Twice as exc:
        reason = f"the key {exc.args[0]!r} stands twice in one object; keep one"
    except (ValueError, RecursionError) as exc:
        why = exc.args[0] if isinstance(exc, _NotJson) else "nested too deeply"
        reason = f"not valid JSON ({why}); {shape}"
    msg = f"{path}{place}: {reason}"
    raise InputError(msg)


class _Twice(Exception):
    """An object has a member twice; the argument is the member's name."""


class _NotJson(ValueError):
    """A constant such as NaN, which Python's parser takes and JSON does not have."""


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, value in pairs:
        if key in built:
            raise _Twice(key)
        built[key] = value
    return built


def _no_constant(word: str) -> None:
    msg = f"{word} is not a JSON number"
    raise _NotJson(msg)


def _kind(value: Any) -> str:
    """Name the JSON type of *value*, and nothing of what it holds."""
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]
