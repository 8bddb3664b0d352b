"""
Which records a route takes: arguments are checked once, then applied to each record.

    wanted = Predicates(where="function", level=">=WARN", fields={"tenant": "a"})
    wanted(record, request_id)

All that was given must hold.  Levels are Lambda's, and the names that Python's
logging has for them: TRACE < DEBUG < INFO < WARN < ERROR < FATAL.  A log line
without a level counts as INFO, as Lambda's own filter has it.

Source: Lambda's log levels,
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
"""

from __future__ import annotations

import re

from .. import disclosure
from ..callables import refuse_async, refuse_coroutine
from ..exceptions import ConfigurationError
from .records import EXTENSION, FUNCTION, KINDS, PLATFORM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from .records import Record

PLACES = (FUNCTION, EXTENSION, PLATFORM)
LEVELS = {
    "TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40,
    "FATAL": 50, "CRITICAL": 50, "NOTSET": 0, "EXCEPTION": 40,
}  # fmt: skip
SHOWN = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
DEFAULT_LEVEL = LEVELS["INFO"]
SUBJECT = 4_000  # characters of a message that a regular expression sees
_MISSING = object()


class Predicates:
    """What `telemetry.route` was asked for; call it with a record."""

    __slots__ = (
        "_fields", "_levels", "_places", "_request_ids", "_search", "_types", "_when",
        "places",
    )  # fmt: skip

    def __init__(
        self,
        *,
        where: str | Iterable[str] = (),
        type: str | Iterable[str] = (),
        level: str | Iterable[str] = (),
        request_id: str | Iterable[str] = (),
        fields: Mapping[str, Any] | None = None,
        matches: str | re.Pattern[str] | None = None,
        when: Callable[[Record], object] | None = None,
    ) -> None:
        self._places = frozenset(_texts("where", where))
        unknown = self._places.difference(PLACES)
        if unknown:
            raise _error(
                f"where={min(unknown)!r:.80} is no place: use"
                f" {', '.join(map(repr, PLACES))}"
            )
        self._types = _types(_texts("type", type))
        self._levels = None if level == () else _levels(level)
        self._request_ids = frozenset(_texts("request_id", request_id))
        members: Any = {} if fields is None else fields
        if not callable(disclosure.attribute(members, "items")):
            raise _error(
                f"fields={disclosure.quoted(fields)} is no mapping of names to what is wanted, such"
                " as {'tenant': 'acme'}"
            )
        self._fields = tuple(members.items())
        path: Any
        for path, _ in self._fields:
            if not isinstance(path, str) or not path:
                raise _error(
                    f"fields={{{path!r:.80}: ...}}: a field is named by text, such as"
                    " 'tenant' or 'user.id'"
                )
        self._search = None if matches is None else _search(matches)
        if when is not None:
            if not callable(when):
                raise _error(
                    f"when={disclosure.quoted(when)} is no function of a record that says whether"
                    " the route takes it"
                )
            refuse_async(when, "when= of a route")
        self._when = when
        self.places: frozenset[str] = frozenset(PLACES)  # whose records it may hold for
        self._refuse_contradictions()

    def __call__(self, record: Record, request_id: str | None) -> bool:
        """
        Say whether the route takes *record*, which belongs to *request_id*.

        Raises what `when=` or a function among the fields does.
        """
        place = record.where
        if self._places and place not in self._places:
            return False
        if self._types and not self._has_type(record.type):
            return False
        if self._levels is not None and not (
            place != PLATFORM and self._levels(_number(record.level))
        ):
            return False
        if self._request_ids and request_id not in self._request_ids:
            return False
        if self._fields and not self._has_fields(record):
            return False
        if self._search is not None and not self._search(record.message[:SUBJECT]):
            return False
        return self._when is None or _said(self._when(record), "when= of a route")

    def _has_type(self, found: str) -> bool:
        exact, prefixes = self._types
        return found in exact or found.startswith(prefixes)

    def _has_fields(self, record: Record) -> bool:
        body = record.record if record.where == PLATFORM else record.fields
        return all(_holds(_at(body, path), wanted) for path, wanted in self._fields)

    def _refuse_contradictions(self) -> None:
        """Refuse what no record can fulfil."""
        places = self._places or frozenset(PLACES)
        if self._types:
            exact, prefixes = self._types
            possible = {
                place
                for place in places
                if place in exact
                or any(name.startswith(place + ".") for name in exact)
                or any(
                    place.startswith(start) or start.startswith(place + ".")
                    for start in prefixes
                )
            }
            if not possible:
                raise _error(
                    "where= and type= contradict each other: no record of"
                    f" {', '.join(sorted(places))} has such a type; leave one out"
                )
            places = frozenset(possible)
        if self._levels is not None and places <= {PLATFORM}:
            raise _error(
                "level= is of log lines, and the platform's records have none: leave it"
                " out, or use where='function'"
            )
        if self._levels is not None:
            places -= {PLATFORM}
        self.places = places


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(f"telemetry.route(...): {message}")


def _texts(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    found: tuple[Any, ...]
    try:
        found = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        found = (None,)
    if not all(isinstance(each, str) and each for each in found):
        raise _error(
            f"{name}={disclosure.quoted(given)} is neither text nor several texts"
        )
    return found


def _types(given: tuple[str, ...]) -> Any:
    """Return (exact names, beginnings), () for all."""
    exact, prefixes = set(), []
    for name in given:
        plain = name.removesuffix("*")
        if "*" in plain or "?" in plain:
            raise _error(
                f"type={name!r:.80}: a '*' may stand at the end only, as in 'platform.*'"
            )
        known = any(each.startswith(plain) for each in KINDS)
        if not known and not plain.startswith(f"{PLATFORM}."):
            raise _error(
                f"type={name!r:.80} is no type of a record: use one such as"
                " 'platform.report' or 'function', or 'platform.*'"
            )
        if plain == name:
            exact.add(name)
        else:
            prefixes.append(plain)
    return (frozenset(exact), tuple(prefixes)) if given else ()


def _levels(given: str | Iterable[str]) -> Callable[[int], bool]:
    """Return what says of the number of a level whether it is one of *given*."""
    if isinstance(given, str):
        text = given.strip()
        for mark in (">=", "<=", "==", ">", "<"):
            if text.startswith(mark):
                return _comparison(mark, _known_level(text[len(mark) :], given))
        if not text:
            raise _error(f"level={given!r} is empty: use one such as '>=WARN'")
        given = text.split(",")
    wanted = {_known_level(name, given) for name in _texts("level", given)}
    return wanted.__contains__


def _comparison(mark: str, limit: int) -> Callable[[int], bool]:
    if mark == ">=":
        return limit.__le__
    if mark == "<=":
        return limit.__ge__
    if mark == ">":
        return limit.__lt__
    if mark == "<":
        return limit.__gt__
    return limit.__eq__


def _known_level(name: str, given: object) -> int:
    number = LEVELS.get(name.strip().upper())
    if number is None:
        raise _error(
            f"level={disclosure.quoted(given)}: there is no level {name.strip()!r:.40}; use one of"
            f" {', '.join(SHOWN)}, alone or as in '>=WARN'"
        )
    return number


def _number(level: str | None) -> int:
    return DEFAULT_LEVEL if level is None else LEVELS.get(level, DEFAULT_LEVEL)


def _at(body: Any, path: str) -> Any:
    """Return the member of *body* at *path*, "a.b", or `_MISSING`."""
    if not isinstance(body, dict):
        return _MISSING
    if path in body:  # a name with a dot in it
        return body[path]
    name, dot, rest = path.partition(".")
    if not dot or name not in body:
        return _MISSING
    return _at(body[name], rest)


def _said(result: Any, what: str) -> bool:
    """Return *result*, which the function *what* has returned, as a bool."""
    refuse_coroutine(result, what)
    return bool(result)


def _holds(found: Any, wanted: Any) -> bool:
    """Say whether *found* is what is *wanted*: a value, one of several, a test."""
    if callable(wanted):
        return found is not _MISSING and _said(wanted(found), "a function of fields=")
    if isinstance(wanted, (set, frozenset, list, tuple)):
        return any(_holds(found, each) for each in wanted)
    # True is no 1 in JSON.
    return (
        found is not _MISSING
        and isinstance(found, bool) == isinstance(wanted, bool)
        and bool(found == wanted)
    )


def _search(given: str | re.Pattern[str]) -> Callable[[str], object]:
    """Return the search of *given*; refuse text that may take for ever."""
    if not isinstance(given, str):
        search = disclosure.attribute(given, "search")
        if search is None or isinstance(disclosure.attribute(given, "pattern"), bytes):
            raise _error(
                f"matches={disclosure.quoted(given)} is no regular expression of text"
            )
        return search  # type: ignore[no-any-return]
    try:
        compiled = re.compile(given)
    except (re.error, RecursionError, OverflowError) as exc:
        raise _error(
            f"matches={disclosure.quoted(given)} is no regular expression: {exc}"
        ) from None
    if _may_explode(given):
        raise _error(
            f"matches={disclosure.quoted(given)} repeats a group that repeats or chooses inside,"
            " which can take exponential time, and no other thread runs meanwhile:"
            " write it without the outer repeat, or pass re.compile(...) if you know"
            " that it is harmless"
        )
    return compiled.search


def _may_explode(pattern: str) -> bool:
    """Say whether an unbounded repeat contains another one, or a choice."""
    try:
        try:
            from re import _parser as parser  # type: ignore[attr-defined]
        except ImportError:  # CPython 3.10
            import sre_parse as parser
        return _is_nested(parser.parse(pattern), inside=False)
    except Exception:  # another interpreter has another parser
        return False


def _is_nested(parts: Any, *, inside: bool) -> bool:
    for operation, argument in parts:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, body = argument
            unbounded = int(most) - int(least) > UNBOUNDED
            if unbounded and inside:
                return True
            if _is_nested(body, inside=inside or unbounded):
                return True
        elif name == "BRANCH":
            if inside:
                return True
            if any(_is_nested(branch, inside=inside) for branch in argument[1]):
                return True
        elif name == "SUBPATTERN":
            if _is_nested(argument[-1], inside=inside):
                return True
        elif name in ("ASSERT", "ASSERT_NOT"):
            if _is_nested(argument[1], inside=inside):
                return True
        elif name == "ATOMIC_GROUP" and _is_nested(argument, inside=inside):
            return True
    return False


UNBOUNDED = 50  # more repeats than that count as without a bound
