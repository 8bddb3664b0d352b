"""
What it means that a load failed: the error for its key, for each caller, in the log.

No error made here, and no line logged, holds a value.
"""

from __future__ import annotations

import logging

from .. import disclosure
from ..exceptions import LambdaExtError, SourceError, SourceTimeoutError
from .transforms import withheld

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from ..typing import Source
    from .keys import Key

    E = TypeVar("E", bound=LambdaExtError)


def again(error: E, *, chained: bool = True) -> E:
    """
    Return an exception of the caller's own, *chained* to *error*.

    Not chained, it keeps nothing alive: no traceback, hence no caller's variables.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    if chained:
        copy.__cause__ = error
    return copy


def named(error: LambdaExtError, label: str) -> LambdaExtError:
    """Return *error*, or what it means for this one key of a batch."""
    if not isinstance(error, SourceError) or error.key == label:
        return error
    named = again(error)
    named.key = label
    return named


def too_late(key: Key, source: Source) -> SourceTimeoutError:
    """Return the error for a load that outlasts its caller's time."""
    msg = f"{key.label!r} did not come in the time that was left"
    name = _name_of(source)
    return SourceTimeoutError(msg, key=key.label, source=name, transient=True)


def unanswered(key: Key, source: Source) -> SourceError:
    """Return the error for a source that gives no answer for *key*."""
    name = _name_of(source)
    msg = f"{name} gave no answer for {key.label!r}"
    return SourceError(msg, key=key.label, source=name)


def broken(source: Source, exc: Exception, keys: Iterable[Key]) -> SourceError:
    """Return the error for a source that raised what sources must not."""
    labels = [key.label for key in keys]
    asked = ", ".join(map(repr, labels[:3])) + (", ..." if labels[3:] else "")
    name = _name_of(source)
    msg = f"the source {name} raised {type(exc).__name__} when asked for {asked}"
    error = SourceError(msg, key=labels[0], source=name)
    error.__cause__ = withheld(exc)
    return error


def _name_of(source: Source) -> str:
    try:
        return str(source.name)
    except Exception:  # what is broken may be broken here, too
        return type(source).__name__


def tell(event: str, key: Key, source: Source, error: LambdaExtError) -> None:
    """Log what an error did to a value; never the value."""
    disclosure.log(
        logging.INFO if event == "not_loaded" else logging.WARNING,
        event,
        key=key.label,
        source=_name_of(source),
        error=type(error).__name__,
        code=getattr(error, "code", ""),
    )
