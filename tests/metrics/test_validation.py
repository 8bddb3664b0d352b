"""What CloudWatch takes and what it does not."""

from __future__ import annotations

import enum
import re
from decimal import Decimal
from fractions import Fraction
from typing import get_args

import emf_rules
import pytest

from lambda_ext.exceptions import MetricError
from lambda_ext.metrics import validation
from lambda_ext.typing import Unit


class Colour(str, enum.Enum):
    """A str that is not quite one."""

    RED = "red"


class Level(enum.IntEnum):
    """An int that is not quite one."""

    HIGH = 3


class TestName:
    """Names of metrics."""

    @pytest.mark.parametrize("name", ["a", "x" * 255, ":a", "a b.c/d%s"])
    def test_good_name_is_returned(self, name):
        """Text of 1 to 255 printable ASCII characters passes."""
        assert validation.name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            *["", " ", "\t", "x" * 256, "a\nb", "\x00", "\ud800", "größe", "日本"],
            *[None, 3, b"a", ["a"]],
            *["_aws", "level", "timestamp"],
        ],
    )
    def test_bad_name_is_refused(self, name):
        """Blank, long, unprintable, non-ASCII or reserved names are refused."""
        with pytest.raises(MetricError) as caught:
            validation.name(name)

        assert "name" == caught.value.reason

    def test_text_enum_becomes_plain_text(self):
        """A member of a str enum counts as its value."""
        assert (type(validation.name(Colour.RED)), validation.name(Colour.RED)) == (
            str,
            "red",
        )


class TestUnit:
    """Units."""

    def test_units_are_those_of_the_annotation_and_of_the_schema(self):
        """The set checked, the type for annotations and AWS's schema agree."""
        assert frozenset(get_args(Unit)) == validation.UNITS
        assert 27 == len(validation.UNITS)
        assert all(re.match(emf_rules.UNIT_PATTERN, u) for u in validation.UNITS)

    @pytest.mark.parametrize("unit", ["", "count", "ms", "Nanoseconds", None, 1, []])
    def test_bad_unit_is_refused(self, unit):
        """What CloudWatch does not know is refused, and the message lists all."""
        with pytest.raises(MetricError, match="Bytes/Second") as caught:
            validation.unit(unit)

        assert "unit" == caught.value.reason


class TestValue:
    """Values."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (0, 0),
            (-7, -7),
            (2**360, 2**360),
            (-(2.0**360), -(2.0**360)),
            (0.5, 0.5),
            (True, 1),
            (Level.HIGH, 3),
            (Decimal("1.5"), 1.5),
            (Fraction(1, 4), 0.25),
        ],
    )
    def test_number_becomes_plain(self, given, expected):
        """Any finite real number passes and becomes an int or a float."""
        result = validation.value(given)

        assert (type(result), result) == (type(expected), expected)

    @pytest.mark.parametrize(
        "given",
        [
            *[float("nan"), float("inf"), -float("inf")],
            *[2**360 + 1, 2.0**361, 10**400, Decimal("1e999")],
            *["1", b"1", None, 1j, [], Decimal("NaN"), Decimal("sNaN")],
        ],
    )
    def test_other_value_is_refused(self, given):
        """NaN, infinities, too large numbers and no numbers are refused."""
        with pytest.raises(MetricError) as caught:
            validation.value(given)

        assert "value" == caught.value.reason

    def test_array_of_one_number_is_a_number(self):
        """An object whose __index__ raises may have a __float__ that works."""

        class Array:
            """As numpy's arrays without a dimension."""

            def __init__(self, held):
                self.held = held

            def __index__(self):
                raise TypeError("only integer scalar arrays can be converted")

            def __float__(self):
                return float(self.held)

        assert 1.5 == validation.value(Array(1.5))
        with pytest.raises(MetricError):
            validation.value(Array("x"))

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            ("5 secret", "text of 8 characters"),
            (b"secret", "of type bytes"),
            (float("nan"), "the float nan"),
            (2**400, "an int of 401 bits"),
        ],
    )
    def test_message_tells_the_type_and_no_content(self, given, what):
        """What was given is named by its type; numbers are shown."""
        with pytest.raises(MetricError) as caught:
            validation.value(given)

        assert f"given was {what}" in str(caught.value)
        assert "secret" not in str(caught.value)


class TestDimensions:
    """Names and values of dimensions."""

    def test_text_and_int_become_text(self):
        """Text stays and an int is written in decimal."""
        given = {"a": "x", "status": 200, "colour": Colour.RED}

        assert {
            "a": "x",
            "status": "200",
            "colour": "red",
        } == validation.dimensions(given)

    @pytest.mark.parametrize(
        "name",
        ["", " ", ":a", "x" * 251, "é", "a\n", 1, None, "_aws", "level", "timestamp"],
    )
    def test_bad_name_is_refused(self, name):
        """Blank, long, non-ASCII, reserved names and ':' in front are refused."""
        with pytest.raises(MetricError) as caught:
            validation.dimensions({name: "x"})

        assert "dimension_name" == caught.value.reason

    @pytest.mark.parametrize(
        "value", ["", "  ", "x" * 1025, "é", "a\x7f", None, True, 1.5, b"x", []]
    )
    def test_bad_value_is_refused(self, value):
        """Blank, long, non-ASCII values, and what is no text or int, are refused."""
        with pytest.raises(MetricError, match="'tenant'") as caught:
            validation.dimensions({"tenant": value})

        assert "dimension_value" == caught.value.reason

    def test_city_beyond_ascii_is_told_what_to_do(self):
        """The message says how to write it, and does not repeat it."""
        with pytest.raises(MetricError, match=r"urllib\.parse\.quote") as caught:
            validation.dimensions({"city": "Łódź"})

        assert "Łódź" not in str(caught.value)

    def test_longest_allowed_passes(self):
        """250 characters of name and 1,024 of value are allowed."""
        longest = {"n" * 250: "v" * 1024}

        assert validation.dimensions(longest) == longest
