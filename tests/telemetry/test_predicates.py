"""Which records a route takes, and what it refuses to be asked."""

from __future__ import annotations

import re

import pytest

from lambda_ext.exceptions import ConfigurationError
from lambda_ext.telemetry import records
from lambda_ext.telemetry.predicates import Predicates


def record(type="function", body="hello"):
    """Return a record of the Telemetry API."""
    return records.make(
        {"time": "2026-01-01T00:00:00.000Z", "type": type, "record": body}
    )


def taken(found, of=None, /, **wanted):
    """Say whether the predicates *wanted* hold for *found*, a record of the invocation *of*."""
    return Predicates(**wanted)(found, of)


class TestPlacesAndTypes:
    """where= and type="""

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({}, [True, True, True]),
            ({"where": "function"}, [True, False, False]),
            ({"where": ("function", "platform")}, [True, False, True]),
            ({"type": "platform.report"}, [False, False, True]),
            ({"type": "platform.*"}, [False, False, True]),
            ({"type": ["extension", "platform.r*"]}, [False, True, True]),
        ],
    )
    def test_choose_by_origin(self, wanted, expected):
        """A place, a type and the beginning of a type choose records."""
        found = [record(), record("extension"), record("platform.report", {})]

        assert expected == [taken(each, **wanted) for each in found]

    def test_type_that_is_not_known_yet_may_be_named(self):
        """A type of the platform's that AWS adds later can be routed."""
        assert taken(record("platform.new", {}), type="platform.new")


class TestLevels:
    """level="""

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (">=WARN", ["WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"]),
            (">WARN", ["ERROR", "FATAL", "CRITICAL"]),
            ("<INFO", ["TRACE", "DEBUG"]),
            ("<= info", ["TRACE", "DEBUG", "INFO", None, "LOUD"]),
            ("ERROR", ["ERROR"]),
            ("==WARN", ["WARN", "WARNING"]),
            ("DEBUG,ERROR", ["DEBUG", "ERROR"]),
            (["WARN"], ["WARN", "WARNING"]),
        ],
    )
    def test_compare_as_lambda_does(self, wanted, expected):
        """Bounds and lists of levels; a line without a level counts as INFO."""
        levels = (
            *("TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL"),
            *("CRITICAL", None, "LOUD"),
        )
        found = {
            level: record(body={"level": level} if level else {"message": "x"})
            for level in levels
        }

        assert expected == [
            level for level, each in found.items() if taken(each, level=wanted)
        ]

    def test_line_of_the_runtime_has_one(self):
        """A line in text format has the level that the runtime wrote."""
        line = "[ERROR]\t2026-01-01T00:00:00.000Z\tr-1\tfailed\n"

        assert taken(record(body=line), level=">=ERROR")

    def test_no_record_of_the_platform_has_one(self):
        """With a level only log lines are taken."""
        assert not taken(record("platform.report", {"level": "ERROR"}), level="ERROR")


class TestFields:
    """fields="""

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({"tenant": "a"}, True),
            ({"tenant": "b"}, False),
            ({"user.id": 7}, True),
            ({"user.id": lambda value: value > 7}, False),
            ({"user.id": (6, 7)}, True),
            ({"user.name": None}, False),
            ({"with.dot": 1}, True),
            ({"flag": 1}, False),
            ({"flag": True}, True),
            ({"nothing": None}, True),
            ({"tenant": "a", "user.id": 8}, False),
        ],
    )
    def test_compare_members_of_json(self, wanted, expected):
        """Names and paths; values, several of them and tests; True is no 1."""
        body = {
            "tenant": "a", "user": {"id": 7}, "with.dot": 1, "flag": True,
            "nothing": None,
        }  # fmt: skip

        assert expected == taken(record(body=body), fields=wanted)

    def test_see_json_in_text(self):
        """A line of JSON that came as text has members, too."""
        assert taken(record(body='{"tenant": "a"}'), fields={"tenant": "a"})
        assert not taken(record(body="tenant a"), fields={"tenant": "a"})

    def test_see_what_the_platform_says(self):
        """Members of a platform's record can be asked for."""
        found = record("platform.runtimeDone", {"status": "timeout"})

        assert taken(found, fields={"status": ("timeout", "error")})


class TestOthers:
    """request_id=, matches= and when="""

    def test_request_id_is_the_one_that_is_given(self):
        """An invocation is chosen by its id, also for lines that do not name it."""
        assert taken(record(), "r-1", request_id=["r-1", "r-2"])
        assert not taken(record(), None, request_id="r-1")

    def test_expression_is_searched_in_the_message(self):
        """Text and compiled expressions; the message has no level in front."""
        line = "[INFO]\t2026-01-01T00:00:00.000Z\tr-1\torder 12 failed\n"

        assert taken(record(body=line), matches=r"^order \d+")
        assert taken(record(body=line), matches=re.compile("FAILED", re.IGNORECASE))
        assert not taken(record(body=line), matches="INFO")

    def test_expression_sees_a_bounded_part(self):
        """What stands behind the first 4,000 characters is not searched."""
        assert taken(record(body="x" * 3_990 + "here"), matches="here")
        assert not taken(record(body="x" * 4_000 + "here"), matches="here")

    def test_function_decides(self):
        """when= sees the record, and any true value takes it."""
        assert taken(record(), when=lambda found: found.message)
        assert not taken(record(), when=lambda found: found.fields)


class TestRefusals:
    """What cannot be meant is an error that says what to change."""

    @pytest.mark.parametrize(
        ("wanted", "says"),
        [
            ({"where": "lambda"}, "'function'"),
            ({"where": 3}, "where=3"),
            ({"where": [""]}, "where="),
            ({"type": "report"}, "platform.report"),
            ({"type": "*.report"}, "at the end"),
            ({"level": ">=LOUD"}, "LOUD"),
            ({"level": ""}, ">=WARN"),
            ({"level": ["ERROR", 4]}, "level="),
            ({"request_id": [None]}, "request_id="),
            ({"fields": {3: "x"}}, "user.id"),
            ({"matches": "("}, "no regular expression"),
            ({"matches": 3}, "matches=3"),
            ({"matches": re.compile(b"x")}, "matches="),
            ({"matches": "(a+)+$"}, "exponential"),
            ({"matches": "(a|ab)*c"}, "exponential"),
            ({"matches": r"(?:(?=x)\w*)*"}, "exponential"),
            ({"when": "yes"}, "when='yes'"),
            ({"fields": "tenant"}, "fields='tenant'"),
            ({"fields": ["tenant"]}, "such as {'tenant': 'acme'}"),
            ({"where": "platform", "level": "ERROR"}, "leave it out"),
            ({"type": "platform.*", "level": "ERROR"}, "leave it out"),
            ({"where": "function", "type": "platform.report"}, "contradict"),
            ({"where": "function", "type": "platform.*"}, "contradict"),
            ({"where": "platform", "type": "function"}, "contradict"),
        ],
    )
    def test_say_what_to_change(self, wanted, says):
        """The message names the argument, and what would do."""
        with pytest.raises(ConfigurationError, match=re.escape(says)):
            Predicates(**wanted)

    def test_async_function_is_refused(self):
        """A predicate is called, not awaited."""

        async def when(found):
            return True

        with pytest.raises(ConfigurationError, match="instead of async def"):
            Predicates(when=when)

    @pytest.mark.parametrize("form", ["when", "fields"])
    def test_coroutine_is_no_yes(self, form):
        """One that a plain function returns is true, also if its result would be false."""

        async def when(found):
            return False

        asked = lambda found: when(found)  # noqa: E731
        wanted = {"when": asked, "fields": {"a": asked}}
        with pytest.raises(ConfigurationError, match="returned a coroutine"):
            taken(record(body='{"a": 1}'), **{form: wanted[form]})

    @pytest.mark.parametrize(
        "harmless",
        ["a+b*", r"(\d{1,3}\.){3}\d{1,3}", "^(GET|POST) /x", "(ab)+", "[ab]+"],
    )
    def test_harmless_expressions_pass(self, harmless):
        """Repeats one after the other, and choices that are not repeated, are taken."""
        assert Predicates(matches=harmless)
