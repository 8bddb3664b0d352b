"""
How an answer becomes a value: text, JSON, bytes, or the result of a callable.

Guarantees
    No caller can corrupt what is remembered: JSON is handed out as a copy, made
    by a copier that was built for this one document; text and bytes cannot be
    changed; what a callable returns is shared as it is, the answer it was
    made from stays apart.
    No error raised here holds a value: not in its message, its arguments or
    its chain.  Errors of JSON and of callables quote their input; what is
    chained is a stand-in that says where and of what class, not what.

Pure, but for the callables of the user.
"""

from __future__ import annotations

import json
import threading
import types

from ..disclosure import words
from ..exceptions import ConfigurationError, DecodeError, LambdaExtError
from ..lifecycle.process import by_signal_handler
from .cache import Decoded
from .calls import WithheldError, withheld

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Transform = str | Callable[[Any], Any] | None

MAX_DEPTH = 50  # of JSON that is copied part by part; deeper is parsed again

_NOT_MADE: Any = object()
_running = threading.local()  # the transforms that this thread is inside of


class _OfValue:
    """The place of a method that the value may have, and its handle has not."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, handle: object, owner: type) -> NoReturn:
        name = self._name
        msg = f"a {owner.__name__} is not its value and has no {name!r}: .value may"
        raise AttributeError(msg, name=name)


class Unmistakable:
    """
    An object that is not its value; the base of handles at run time.

    Hidden from type checkers, which refuse ``len(handle)`` because it has no
    such method.  As text it is its repr, so that no log line can fail; all else
    that would take it for its value raises TypeError and names ``.value``.
    """

    __slots__ = ()
    # Generic to a type checker, without importing typing (3 ms).
    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __str__(self) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return True

    def __format__(self, spec: str) -> str:
        raise self._mistaken("formatted")

    def __len__(self) -> int:
        raise self._mistaken("measured")

    def __iter__(self) -> NoReturn:
        raise self._mistaken("iterated")

    def __getitem__(self, key: object) -> NoReturn:
        raise self._mistaken("indexed")

    def __contains__(self, item: object) -> bool:
        raise self._mistaken("searched")

    # Of dictionaries and texts.  Not by __getattr__, with which each attribute, that
    # a hit reads too, would take twice as long.
    get, items, keys, values = map(_OfValue, ("get", "items", "keys", "values"))
    decode, encode, split, strip = map(_OfValue, ("decode", "encode", "split", "strip"))

    def _mistaken(self, what: str) -> TypeError:
        kind = type(self).__name__
        return TypeError(f"a {kind} is not its value and cannot be {what}: .value can")


def check(transform: Any, field: Any, key: str) -> None:
    """Refuse a *transform* or *field* that cannot be applied to anything."""
    if not (
        transform is None or transform in ("json", "binary") or callable(transform)
    ):
        kind = (
            repr(transform) if isinstance(transform, str) else type(transform).__name__
        )
        msg = (
            f"transform={kind} of {key!r} is unknown: use 'json', 'binary', or a"
            " function that takes the text (or the bytes)"
        )
        raise ConfigurationError(msg)
    if callable(transform) and not isinstance(transform, type):
        # Not at the top: a cold start seldom needs it.
        from .. import callables

        callables.refuse_async(transform, f"transform= of {key!r}")
    if field is not None and not (isinstance(field, str) and field):
        msg = f"field of {key!r} must be the name of a member of its JSON object"
        raise ConfigurationError(msg)


def decode(raw: Any, transform: Transform, field: str | None, key: str) -> Decoded:
    """
    Return what *transform* and *field* make of *raw*.

    A dictionary, which is what lies below a path, is decoded one by one.

    Raises:
        DecodeError: the answer does not suit; the message names *key*.
    """
    if isinstance(raw, dict):
        parts = {
            name: decode(text, transform, field, name) for name, text in raw.items()
        }
        return Decoded(parts, lambda: {name: d.copied() for name, d in parts.items()})
    if field is not None:
        raw = _member(_parsed(raw, key), field, key)
        if transform is None or transform == "json":
            return Decoded(raw, copier(raw))
    elif transform is None:
        if isinstance(raw, str):
            return Decoded(raw)
        msg = f"{key!r} is binary, not text: ask for it with transform='binary'"
        raise DecodeError(msg, key=key)
    elif transform == "json":
        document = _parsed(raw, key)
        return Decoded(document, copier(document, raw))
    if transform == "binary":
        return Decoded(_bytes(raw, key))
    assert callable(transform)
    return Decoded(_applied(transform, raw, key))


def copier(value: Any, text: Any = None, depth: int = 0) -> Callable[[], Any] | None:
    """
    Return a function that copies *value*, parsed JSON; None for a scalar.

    Built once per document: flat ones are copied in C, the parts of nested
    ones each by a copier of their own.
    """
    kind = type(value)
    if kind is dict:
        pairs = value.items()
    elif kind is list:
        pairs = enumerate(value)
    else:
        return None
    if depth > MAX_DEPTH:
        raise RecursionError
    try:
        nested = [
            (at, part)
            for at, each in pairs
            if (part := copier(each, None, depth + 1)) is not None
        ]
    except RecursionError:
        if depth:
            raise
        text = json.dumps(value) if text is None else without_mark(text)
        return lambda: json.loads(text)
    copy: Callable[[], Any] = value.copy
    if not nested:
        return copy

    def deep() -> Any:
        fresh = copy()
        for at, part in nested:
            fresh[at] = part()
        return fresh

    return deep


def _parsed(raw: Any, key: str) -> Any:
    reason = ""
    document = _NOT_MADE
    try:
        document = json.loads(without_mark(raw))
    except json.JSONDecodeError as exc:  # holds the whole document
        reason = f"{exc.msg}: line {exc.lineno} column {exc.colno}"
    except UnicodeDecodeError:
        reason = "it is binary, and not UTF-8"
    except (RecursionError, ValueError) as exc:
        if by_signal_handler(exc):
            raise
        reason = type(exc).__name__
    if document is _NOT_MADE:  # outside of `except`: else the chain would hold it
        cause = WithheldError(reason)
        raise DecodeError(f"{key!r} is not JSON: {reason}", key=key) from cause
    return document


def without_mark(raw: Any) -> Any:
    """Return *raw* without a byte order mark, which `json` passes over in bytes only."""
    return raw.removeprefix("\ufeff") if isinstance(raw, str) else raw


def _member(document: Any, field: str, key: str) -> Any:
    if not isinstance(document, dict):
        msg = f"{key!r} has no field {field!r}: it is JSON, but not an object"
        raise DecodeError(msg, key=key)
    try:
        return document[field]
    except KeyError:
        msg = f"{key!r} has no field {field!r}: mind the spelling, case counts"
    raise DecodeError(msg, key=key)


def _bytes(raw: Any, key: str) -> bytes:
    if isinstance(raw, bytes):
        return raw
    # Avoids ~0.3 ms where no value is binary.
    import binascii

    if isinstance(raw, str):
        text = "".join(raw.split())
        try:
            data = binascii.a2b_base64(text)
        except ValueError:
            data = b""
        # a2b_base64 skips what is not in the alphabet; the way back does not.
        if binascii.b2a_base64(data, newline=False).decode() == text:
            return data
    msg = f"{key!r} is neither binary nor text in base64"
    raise DecodeError(msg, key=key)


def _applied(transform: Callable[[Any], Any], raw: Any, key: str) -> Any:
    inside = _running.__dict__.setdefault("inside", set())
    this = (id(transform), key)
    if this in inside:
        msg = f"the transform of {key!r} asks for what it is making"
        raise DecodeError(msg, key=key)
    inside.add(this)
    value = _NOT_MADE
    cause = None
    verb = "raised"
    try:
        value = transform(raw)
        if type(value).__name__ == "coroutine" and hasattr(type(value), "cr_code"):
            value.close()
            value = _NOT_MADE
            kind = "a coroutine, which is not awaited"
            verb = "returned"
    except LambdaExtError:
        raise  # of another value that the transform asked for: holds none
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        kind = type(exc).__name__
        cause = withheld(exc)
    finally:
        inside.discard(this)
    if value is _NOT_MADE:
        name = words(transform, "__qualname__") or type(transform).__qualname__
        msg = f"{key!r} cannot be transformed: {name} {verb} {kind}"
        raise DecodeError(msg, key=key) from cause
    return value
