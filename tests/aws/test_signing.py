"""Signatures, held against botocore's."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from botocore.auth import SIGNED_HEADERS_BLACKLIST
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import botocore_signature

from lambda_ext.aws import signing
from lambda_ext.aws.signing import Keys
from lambda_ext.lifecycle import clock

OWN = ("host", "x-amz-date", "x-amz-security-token", "authorization")
SEEN = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"])
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name not in SIGNED_HEADERS_BLACKLIST and name not in OWN
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(autouse=True)
def _clocks():
    yield
    signing.reset()
    clock.install(None)


class FixedClock:
    """A clock that stands still where it is told to."""

    def __init__(self, wall):
        self.at = wall

    def monotonic(self):
        return 1000.0

    def wall(self):
        return self.at


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(("GET", "POST")),
    path=st.lists(st.text("abcXYZ019-_.~ /=+&%\u00e9", max_size=6), max_size=3),
    query=st.dictionaries(WORDS.filter(bool), WORDS, max_size=4),
    extra=st.dictionaries(NAMES, st.text(SEEN, max_size=30), max_size=4),
    body=st.binary(max_size=200),
    secret=st.text("abcXYZ019/+=", min_size=1, max_size=100),
    token=st.text("abcXYZ019/+=", max_size=60),
    region=st.from_regex(r"[a-z]{2}-[a-z]{4,9}-[1-9]", fullmatch=True),
    service=st.sampled_from(("secretsmanager", "ssm", "appconfig")),
    at=st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2099, 12, 31)),
)
def test_signature_equals_botocores(
    method, path, query, extra, body, secret, token, region, service, at
):
    """Any request, with any headers, query, token and name, is signed the same."""
    keys = Keys("AKID", secret, token)
    sent = "".join("/" + signing.quote(part) for part in path) or "/"
    pairs = "&".join(
        f"{signing.quote(name)}={signing.quote(value)}" for name, value in query.items()
    )
    headers = {**extra, "host": "ssm.eu-central-1.amazonaws.com",
               "x-amz-date": at.strftime("%Y%m%dT%H%M%SZ")}  # fmt: skip
    if token:
        headers["x-amz-security-token"] = token
    url = f"https://{headers['host']}{sent}" + (f"?{pairs}" if pairs else "")

    ours = signing.authorization(
        method, sent, pairs, headers, body, keys=keys, region=region, service=service
    )

    assert botocore_signature(method, url, headers, body, keys, region, service) == ours


@given(WORDS)
def test_quote_equals_the_standard_librarys(text):
    """Every character is encoded as `urllib.parse.quote` does it."""
    from urllib.parse import quote

    assert quote(text, safe="") == signing.quote(text)
    assert quote(text, safe="/") == signing.quote(text, b"/")


@given(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2200, 12, 31)))
def test_epoch_equals_datetimes(moment):
    """Every second of every year has the same number as in `datetime`."""
    aware = moment.replace(microsecond=0, tzinfo=datetime.timezone.utc)

    assert aware.timestamp() == signing.epoch(moment.timetuple()[:6])


@given(st.integers(0, 7_000_000_000))
def test_date_header_is_understood(seconds):
    """Every date in the form of HTTP gives back its second."""
    assert seconds == signing.date(email.utils.formatdate(seconds, usegmt=True))


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "Wed, 21 Oct 2015 07:28:00 CET", "Wed, 21 Ock 2015 07:28:00 GMT",
     "Wed, 21 Oct 2015 07:28 GMT", "Wed, x Oct 2015 07:28:00 GMT",
     "Wed, 21 Oct -015 07:28:00 GMT", "Wed, 21 Oct 2_15 07:28:00 GMT",
     "Wed, 21 Oct \xb2\xb2\xb2\xb2 07:28:00 GMT",
     "Wed, 21 Oct \u0662\u0660\u0661\u0665 07:28:00 GMT",
     f"Wed, 21 Oct {'9' * 5000} 07:28:00 GMT"],
)  # fmt: skip
def test_date_header_that_is_none_tells_no_skew(text):
    """A Date that cannot be read leaves the clock as it is."""
    assert 0.0 == signing.skew_of(text)


@pytest.mark.parametrize(
    ("ahead_s", "skew_s"),
    [(900, 900), (-900, -900), (60, 60), (86400, 86400), (-86400, -86400),
     (59, 0), (-59, 0), (86401, 0), (-86401, 0)],
)  # fmt: skip
def test_skew_is_more_than_a_minute_and_at_most_a_day(ahead_s, skew_s):
    """Less is no reason for a refusal, more is no clock's."""
    clock.install(FixedClock(1_700_000_000.0))
    date = email.utils.formatdate(1_700_000_000 + ahead_s, usegmt=True)

    assert skew_s == signing.skew_of(date)


def test_timestamp_is_that_of_a_clock_ahead_of_ours():
    """A request is signed with AWS's time."""
    clock.install(FixedClock(1_700_000_000.0))

    assert "20231114T222820Z" == signing.timestamp(900.0)
