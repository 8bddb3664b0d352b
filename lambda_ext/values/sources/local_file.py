"""
The source for development: a JSON or a .env file on this machine.

    {"secrets": {"prod/orders/db": {"username": "me", "password": "x"}},
     "parameters": {"/orders/page-size": 20}}

A JSON file without these two members, and a .env file (``NAME=value`` lines),
serve both kinds.  A value that is not text is handed out as JSON.  The file
is read again whenever it has changed, and nowhere else kept.  A value has a new
version when it was seen to have changed, independently of other edits.

Inside Lambda it is refused: a file in a package is no place for a secret.
"""

from __future__ import annotations

import json
import os

from ... import config
from ...answer import Answer
from ...exceptions import ConfigurationError, NotFoundError, SourceError
from .. import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any

    from ..keys import Key


class LocalFile:
    """
    The values in the file at *path*.

    *in_lambda* allows it inside Lambda, too, for a container image that runs
    in an emulator, say; so does ``LAMBDA_EXT_LOCAL_FILE_IN_LAMBDA=1``.

    Raises:
        ConfigurationError: inside Lambda, unless it is asked for.
    """

    __slots__ = ("_path", "_read", "scope")

    name = "local_file"

    def __init__(
        self, path: str | os.PathLike[str], *, in_lambda: bool = False
    ) -> None:
        self._path = os.path.abspath(path)
        if config.in_lambda() and not (in_lambda or config.get("local_file_in_lambda")):
            msg = (
                f"values from the file {self._path} are for development and refused"
                " inside Lambda: unset LAMBDA_EXT_SOURCE, or allow it with"
                " LAMBDA_EXT_LOCAL_FILE_IN_LAMBDA=1"
            )
            raise ConfigurationError(msg)
        self._read = _Read()  # replaced at once, by any thread
        self.scope: Hashable = (self.name, self._path)

    def __repr__(self) -> str:
        return f"<LocalFile {self._path}>"  # never the values

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Read the file once for all."""
        return [wanted] if wanted else []

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | SourceError]:
        """Return what the file says about *wanted*."""
        read = self._refreshed()
        return {key: self._answer(key, read) for key in wanted}

    def _answer(self, key: Key, read: _Read) -> Answer | SourceError:
        kind = "secrets" if key.operation == keys.SECRET else "parameters"
        values = read.values[kind]
        if key.operation == keys.PATH:
            path = "/" if key.name == "/" else key.name + "/"
            below = {
                name: value
                for name, value in values.items()
                if name.startswith(path)
                and (key.recursive or "/" not in name[len(path) :])
            }
            versions = ",".join(
                f"{name}:{version}" for name, (_, version) in below.items()
            )
            return Answer({name: text for name, (text, _) in below.items()}, versions)
        if key.name not in values:
            msg = f"there is no {key.name!r} among the {kind} in {self._path}"
            return NotFoundError(msg, key=key.label, source=self.name)
        return Answer(*values[key.name])

    def _refreshed(self) -> _Read:
        """Return what the file says, read again if it is not the one that was read."""
        read = self._read
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == read.stamp:
                return read
            with open(self._path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as exc:
            reason = getattr(exc, "strerror", None) or "it is not UTF-8"
        else:
            read = self._read = read.followed_by(stamp, _parsed(text, self._path))
            return read
        msg = f"the file of values {self._path} cannot be read: {reason}"
        raise SourceError(msg, source=self.name)


class _Read:
    """What a file said when it was read: of each kind, name -> (text, version)."""

    __slots__ = ("stamp", "values")

    def __init__(self) -> None:
        self.stamp: tuple[int, ...] | None = None
        self.values: dict[str, dict[str, tuple[str, str]]] = {}

    def followed_by(
        self, stamp: tuple[int, ...], parsed: Mapping[str, Mapping[str, Any]]
    ) -> _Read:
        """Return what is read now; what has not changed keeps its version."""
        read = _Read()
        read.stamp = stamp
        version = "-".join(map(str, stamp))
        for kind, values in parsed.items():
            former = self.values.get(kind, {})
            read.values[kind] = {}
            for name, value in values.items():
                text, known = _text(value), former.get(name)
                same = known is not None and known[0] == text
                read.values[kind][name] = known if same and known else (text, version)
        return read


def _parsed(text: str, path: str) -> dict[str, dict[str, Any]]:
    """Return the values of both kinds; errors never quote the file."""
    if not path.endswith(".json"):
        values = _lines(text, path)
        return {"secrets": values, "parameters": values}
    reason = "it is not a JSON object"
    document: Any = None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as exc:  # holds the whole document
        reason = f"{exc.msg}: line {exc.lineno} column {exc.colno}"
    except RecursionError:
        reason = "it is nested too deeply"
    if not isinstance(document, dict):
        msg = f"the file of values {path} cannot be used: {reason}"
        raise ConfigurationError(msg)
    if not document.keys() <= {"secrets", "parameters"}:
        return {"secrets": document, "parameters": document}
    for kind, values in document.items():
        if not isinstance(values, dict):
            msg = f"the file of values {path} cannot be used: {kind!r} is no object"
            raise ConfigurationError(msg)
    return {"secrets": {}, "parameters": {}, **document}


def _lines(text: str, path: str) -> dict[str, Any]:
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")  # noqa: PLW2901  the rest of it
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            msg = (
                f"the file of values {path} cannot be used: line {number} is not"
                " of the form NAME=value"
            )
            raise ConfigurationError(msg)
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
