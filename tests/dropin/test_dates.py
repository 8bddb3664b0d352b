"""The dates in responses: botocore's to the last attribute, and cheap where it is UTC."""

from __future__ import annotations

import copy
import datetime
import pickle
import sys
import time

import pytest
from dateutil.tz import tzlocal, tzutc

from lambda_ext.dropin import dates

SECONDS = 1_700_000_000.123456
UTC = datetime.timezone.utc


@pytest.fixture(params=["UTC", "Europe/Berlin", "Europe/London"])
def zone(request, monkeypatch):
    """A machine in each of these zones, on which dateutil is not loaded yet."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    monkeypatch.delitem(sys.modules, "dateutil.tz")
    yield request.param
    monkeypatch.undo()
    time.tzset()


def botocores():
    """Return the date as botocore makes it."""
    return datetime.datetime.fromtimestamp(SECONDS, tzlocal())


ASKED = {
    "text": str,
    "repr": repr,
    "equality": lambda date: date == botocores(),
    "hash": hash,
    "order": lambda date: date < datetime.datetime(2024, 1, 1, tzinfo=UTC),
    "difference": lambda date: date - datetime.datetime(2023, 1, 1, tzinfo=UTC),
    "offset": datetime.datetime.utcoffset,
    "saving": datetime.datetime.dst,
    "name": datetime.datetime.tzname,
    "elsewhere": lambda date: date.astimezone(UTC),
    "now there": lambda date: datetime.datetime.fromtimestamp(5.0, date.tzinfo),
    "fields": lambda date: date.timetuple(),
    "isinstance": lambda date: isinstance(date.tzinfo, tzlocal),
    "zone equals": lambda date: (date.tzinfo == tzlocal(), tzlocal() == date.tzinfo),
    "zone differs": lambda date: date.tzinfo != tzlocal(),
    "zone is UTC": lambda date: (date.tzinfo == tzutc(), tzutc() == date.tzinfo),
    "zone of nothing": lambda date: date.tzinfo == 5,
    "zone's repr": lambda date: repr(date.tzinfo),
    "private": lambda date: date.tzinfo._std_offset,
    "ambiguous": lambda date: date.tzinfo.is_ambiguous(date),
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": pickle.dumps,
    "copy of the zone": lambda date: type(copy.copy(date.tzinfo)),
    "attributes": lambda date: vars(copy.deepcopy(date).tzinfo),
}  # fmt: skip


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_date_answers_as_botocores(asked):
    """For each first question to a date, or to its zone, the answer is botocore's."""
    assert asked(botocores()) == asked(dates.local(SECONDS))


@pytest.mark.usefixtures("zone")
def test_zone_has_no_hash():
    """A zone is no key of a dictionary, as dateutil's is none."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(dates.local(SECONDS).tzinfo)


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("zone", ["UTC"], indirect=True)
def test_zone_of_utc_loads_no_dateutil():
    """Text, comparisons and sums of dates need nothing of dateutil in UTC."""
    date = dates.local(SECONDS)

    assert "2023-11-14 22:13:20.123456+00:00" == str(date)
    assert date == datetime.datetime.fromtimestamp(SECONDS, UTC)
    assert "dateutil.tz" not in sys.modules
