"""
Dates as botocore has them: a `datetime` whose zone is dateutil's `tzlocal`.

`dateutil` costs 4 ms to import, and `datetime` 1 ms before Python 3.12, of a first
read that takes 18.  So where local time is UTC, as in Lambda, and dateutil is not
loaded, the zone is a stand-in: it answers for UTC, and becomes a `tzlocal` as soon
as anything else is asked of it, by isinstance, a comparison, repr, copy or pickle.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime, timedelta, timezone, tzinfo
    from typing import Any
else:
    try:  # what `datetime` itself takes them from
        from _datetime import datetime, timedelta, timezone, tzinfo
    except ImportError:  # another Python may have none
        from datetime import datetime, timedelta, timezone, tzinfo

_ZERO = timedelta(0)


def local(seconds: float) -> datetime:
    """Return the date that lies *seconds* after the epoch."""
    if time.timezone or time.daylight or "dateutil.tz" in sys.modules:
        return datetime.fromtimestamp(seconds, _tzlocal()())
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=_Local())


def read(moment: float | str) -> Any:
    """Return the date that the wire writes as *moment*: seconds, or an emulator's text."""
    if not isinstance(moment, str):
        return local(moment)
    try:
        return local(float(moment))
    except ValueError:
        return _parsed(moment)


def _parsed(text: str) -> Any:
    """Return the date that *text* is, as botocore reads it; *text* if it is none."""
    # 20 ms, which no answer of AWS's costs.
    from dateutil.parser import parse
    from dateutil.tz import tzutc

    try:
        return parse(text, tzinfos={"GMT": tzutc()})
    except ValueError:
        return text


def _tzlocal() -> Any:
    # Avoids 4 ms, see the module.
    from dateutil.tz import tzlocal

    return tzlocal


class _Local(tzinfo):
    """A `tzlocal` to be; of local time that is UTC."""

    __hash__ = None  # type: ignore[assignment]  # as dateutil's

    @property  # type: ignore[misc]  # for isinstance, as mocks do it
    def __class__(self) -> type:
        return _tzlocal()  # type: ignore[no-any-return]  # a class

    def _become(self) -> tzinfo:
        if type(self) is _Local:
            object.__setattr__(self, "__dict__", _tzlocal()().__dict__)
            _class_of(self, _tzlocal())
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._become(), name)

    def utcoffset(self, _: datetime | None) -> timedelta:
        return _ZERO

    def dst(self, _: datetime | None) -> timedelta:
        return _ZERO

    def tzname(self, _: datetime | None) -> str:
        return time.tzname[0]

    def fromutc(self, moment: datetime) -> datetime:
        return self._become().fromutc(moment)

    def __eq__(self, other: object) -> bool:
        return self._become() == other

    def __repr__(self) -> str:
        return repr(self._become())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._become().__reduce_ex__(protocol)


_class_of: Any = object.__dict__["__class__"].__set__  # not the property above
