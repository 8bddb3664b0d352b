"""The rule language: what is documented, what we chose, what is refused."""

from __future__ import annotations

import datetime
import decimal
import enum
from unittest import mock

import pytest
import wrapt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lambda_ext.exceptions import InvalidDocumentError, RuleError
from lambda_ext.flags import rules
from lambda_ext.flags.rules import Dialect, evaluate, parse

GUIDE = "AppConfig user guide, "
RULES = GUIDE + "'Understanding multi-variant feature flag rules': "
OPERANDS = RULES + "operands"
OPERATORS = RULES + "operators"
ORDER = GUIDE + "'Creating multi-variant feature flags'"
AUDIENCE = GUIDE + "the audience of an experiment"

# (rule, a context for which it is true, one for which it is false, its source)
DOCUMENTED = [
    ('(eq $state "Virginia")', {"state": "Virginia"}, {"state": "Ohio"}, OPERATORS),
    ("(gt $age 65)", {"age": 66}, {"age": 65}, OPERATORS),
    ("(gte $age 65)", {"age": 65}, {"age": 64}, OPERATORS),
    ("(lt $age 65)", {"age": 64}, {"age": 65}, OPERATORS),
    ("(lte $age 65)", {"age": 65}, {"age": 66}, OPERATORS),
    (
        '(and (eq $state "Virginia") (gt $age 65))',
        {"state": "Virginia", "age": 66},
        {"state": "Virginia", "age": 65},
        OPERATORS,
    ),
    (
        '(or (eq $state "Virginia") (gt $age 65))',
        {"state": "Ohio", "age": 66},
        {"state": "Ohio", "age": 65},
        OPERATORS,
    ),
    (
        '(not (eq $state "Virginia"))',
        {"state": "Ohio"},
        {"state": "Virginia"},
        OPERATORS,
    ),
    ('(begins_with $state "A")', {"state": "Alaska"}, {"state": "Ohio"}, OPERATORS),
    (
        '(ends_with $email "amazon.com")',
        {"email": "jeff@amazon.com"},
        {"email": "jeff@amazon.com.example"},
        OPERATORS,
    ),
    (
        '(contains $promoCode "WIN")',
        {"promoCode": "BIGWIN22"},
        {"promoCode": "BIG"},
        OPERATORS,
    ),
    ('(in $userId ["123", "456"])', {"userId": "456"}, {"userId": "12"}, OPERATORS),
    (
        '(matches in::$greeting pattern::"h.*y")',
        {"greeting": "hi, why"},
        {"greeting": "hello"},
        OPERATORS,
    ),
    ('(exists key::"country")', {"country": "DE"}, {"state": "Ohio"}, OPERATORS),
    ('(split pct::100 by::$userId seed::"abc")', {"userId": "1"}, {}, OPERATORS),
    ("(split pct::100 by::$userId)", {"userId": "1"}, {}, OPERATORS),
    ('(ends_with $email "@example.com")', {"email": "a@example.com"}, {}, ORDER),
    ('(in $region ["us-east-1" "us-west-2"])', {"region": "us-west-2"}, {}, AUDIENCE),
    ("(lt $osVersion 1.8)", {"osVersion": 1.7}, {"osVersion": 1.8}, AUDIENCE),
    ('(ne $state "Ohio")', {"state": "Iowa"}, {"state": "Ohio"}, AUDIENCE),
]  # fmt: skip

OPERAND_EXAMPLES = [  # (as it is written, a context value that equals it)
    ('"apple"', "apple"),
    ('"Ḽơᶉëᶆ ȋṕšᶙṁ"', "Ḽơᶉëᶆ ȋṕšᶙṁ"),
    ("-7", -7),
    ("42", 42),
    ("3.14", 3.14),
    ("1.234e-5", 1.234e-5),
    ("2012-03-04T05:06:07-08:00", "2012-03-04T13:06:07Z"),
    ("2024-01T", "2024-01"),
    ("true", True),
    ("false", False),
]


@pytest.mark.parametrize(
    ("rule", "true", "false", "source"), DOCUMENTED, ids=[row[0] for row in DOCUMENTED]
)
def test_documented_example(rule, true, false, source):
    """Each example of the user guide is true where it says so, and only there."""
    parsed = parse(rule)

    assert (True, False) == (parsed(true), parsed(false))
    assert parsed == parse(str(parsed))


@pytest.mark.parametrize(("written", "value"), OPERAND_EXAMPLES)
def test_documented_operand(written, value):
    """Each example of the table of operands equals the value that it means."""
    assert evaluate(f"(eq $value {written})", {"value": value})
    assert evaluate(f"(eq {written} $value)", {"value": value})
    assert not evaluate(f"(eq $value {written})", {"value": "something else"})


def test_month_as_the_guide_writes_it_is_refused():
    """The service refuses 2024-01, which its table of operands shows, as we do."""
    with pytest.raises(RuleError) as caught:
        parse("(gt $date 2024-01)")

    assert ("TooFewOperands", 10) == (caught.value.reason, caught.value.position)


# The split table of "Understanding multi-variant feature flag rules".


def shares(first, second, count=20_000):
    """Return the percentages of first, of second, and of neither."""
    rules_ = [parse(rule, flag="checkout") for rule in (first, second)]
    counts = [0, 0, 0]
    for number in range(count):
        context = {"userId": f"user-{number}"}
        at = next((at for at, rule in enumerate(rules_) if rule(context)), 2)
        counts[at] += 1
    return [round(100 * each / count) for each in counts]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("(split pct::20 by::$userId)", "(split pct::0 by::$userId)", [20, 0, 80]),
        ("(split pct::20 by::$userId)", "(split pct::20 by::$userId)", [20, 0, 80]),
        ("(split pct::20 by::$userId)", "(split pct::25 by::$userId)", [20, 5, 75]),
        (
            '(split pct::20 by::$userId seed::"winter")',
            '(split pct::25 by::$userId seed::"winter")',
            [20, 5, 75],
        ),
        (
            '(split pct::20 by::$userId seed::"winter")',
            '(split pct::25 by::$userId seed::"summer")',
            [20, 20, 60],
        ),
    ],
)
def test_documented_split(first, second, expected):
    """Splits with one seed nest; with two seeds they are independent."""
    got = shares(first, second)

    assert all(abs(a - b) <= 1 for a, b in zip(expected, got, strict=True)), got


def test_nested_buckets_hold_exactly():
    """Who is in 20 % is in 25 %: B gets what is between, never more."""
    inner, outer = (parse(f"(split pct::{n} by::$u)", flag="f") for n in (20, 25))

    for number in range(2000):
        context = {"u": str(number)}
        assert not inner(context) or outer(context)


def test_published_counts_of_the_agent():
    """The default hash reproduces what was published of the real agent's routing."""
    counts = []
    for pct in (20, 50, 100):
        rule = parse(f'(split by::$loanId pct::{pct} seed::"rollout-2026")')
        counts.append(sum(rule({"loanId": f"L{n:06d}"}) for n in range(300)))

    assert [62, 160, 300] == counts


def test_split_without_seed_is_local_to_the_flag():
    """Two flags without seeds divide differently, one flag always alike."""
    one, again, other = (
        [parse("(split pct::50 by::$u)", flag=flag)({"u": str(n)}) for n in range(200)]
        for flag in ("a", "a", "b")
    )

    assert one == again
    assert one != other


def test_splits_of_similar_flags_are_independent():
    """Who is in one flag's half says nothing about another flag's."""
    for one, other in (("flag-1", "flag-2"), ("flag-1", "flag-3"), ("a", "b")):
        rules_ = [parse("(split pct::50 by::$u)", flag=flag) for flag in (one, other)]
        contexts = [{"u": f"user-{number}"} for number in range(4000)]
        both = sum(all(rule(context) for rule in rules_) for context in contexts)

        assert 0.2 < both / len(contexts) < 0.3, (one, other)


def test_slice_between_two_splits():
    """The shape that experiments generate: 60 % without the first 50 %."""
    rule = parse(
        '(and (exists key::"e") (and (split pct::60 by::$e seed::"s")'
        ' (not (split pct::50 by::$e seed::"s"))))'
    )
    share = sum(rule({"e": str(n)}) for n in range(10_000)) / 100

    assert 9 < share < 11
    assert not rule({})


# What is refused


@pytest.mark.parametrize(
    ("text", "reason", "position"),
    [
        ("true", "NotAnExpression", 0),
        ("$tier", "NotAnExpression", 0),
        ("", "NotAnExpression", 0),
        ("  ", "NotAnExpression", 2),
        ("(eq 1 1) (eq 1 1)", "NotAnExpression", 9),
        ("(eq 1 1", "NotAnExpression", 7),
        ("()", "UnknownSymbol", 1),
        ("(nope $tier 1)", "UnknownSymbol", 1),
        ("(and true (nope 1 2))", "UnknownSymbol", 11),
        ("(eq $tier)", "TooFewOperands", 9),
        ("(eq $tier 1 2)", "TooManyOperands", 12),
        ("(and (eq $a 1))", "TooFewOperands", 14),
        ("(not)", "TooFewOperands", 4),
        ("(not true true)", "TooManyOperands", 10),
        ('(exists key::"a" key::"b")', "TooManyOperands", 22),
        ("(split pct::10)", "TooFewOperands", 14),
        ('(split by::$u seed::"s")', "TooFewOperands", 23),
        ("(split pct::101 by::$u)", "InvalidOperand", 12),
        ("(split pct::$p by::$u)", "InvalidOperand", 12),
        ("(split pct::10 by::$u seed::$s)", "InvalidOperand", 28),
        ("(split pct::10 by::[])", "InvalidOperand", 19),
        ("(in $a $b)", "InvalidOperand", 7),
        ("(in $a [$b])", "InvalidOperand", 8),
        ("(in $a [1,,2])", "NotAnExpression", 10),
        ("(in $a [1", "NotAnExpression", 9),
        ("(eq $a [1])", "InvalidOperand", 7),
        ("(and 1 true)", "InvalidOperand", 5),
        ("(eq $a apple)", "UnknownSymbol", 7),
        ("(eq $my-key 1)", "UnknownSymbol", 7),
        ("(eq $ 1)", "UnknownSymbol", 4),
        ("(eq $1 1)", "UnknownSymbol", 4),
        ("(eq foo::$a 1)", "UnknownSymbol", 9),
        ("(eq $a 007)", "NotAnExpression", 8),
        ("(eq $a 9223372036854775808)", "InvalidOperand", 7),
        ("(eq $a 1e999)", "InvalidOperand", 7),
        ("(eq $a 2023-02-29)", "InvalidOperand", 7),
        ("(eq $a 2024-01-01T25:00Z)", "InvalidOperand", 7),
        ('(eq $a "open)', "NotAnExpression", 13),
        ('(eq $a "\\q")', "NotAnExpression", 8),
        ('(eq $a "\\ud83d")', "NotAnExpression", 7),
        ("(eq $a nan)", "UnknownSymbol", 7),
        ("(eq $a null)", "UnknownSymbol", 7),
        ("(eq $a /* no end", "NotAnExpression", 7),
        ("(exists key::1)", "InvalidOperand", 13),
        ("(matches in::$a pattern::$b)", "InvalidOperand", 25),
        ("(not " * 65 + "true" + ")" * 65, "TooDeep", 64 * 5),
        ("x" * 16_385, "TooLong", 16_384),
        ("(eq $a 1)" + " " * 16_376, "TooLong", 16_384),
    ],
)
def test_refused_with_reason_and_position(text, reason, position):
    """What the service would not admit is refused by its word, and where it is."""
    with pytest.raises(RuleError) as caught:
        parse(text)

    assert (reason, position) == (caught.value.reason, caught.value.position)
    assert f"{reason} at position {position}" in str(caught.value)
    assert isinstance(caught.value, InvalidDocumentError)


def test_text_of_another_type_is_refused():
    """A rule that is no text is refused, too."""
    with pytest.raises(RuleError, match="NotAnExpression at position 0"):
        parse(None)


@pytest.mark.parametrize(
    "text",
    [
        '(and true (eq $tier "gold"))',
        '(in $tier ["premium", "gold"])',
        '(exists key::"tier")',
        '(split pct::10 by::$userId seed::"abc")',
        '(split by::$userId seed::"abc" pct::10)',
        "(split pct::0.5 by::$userId)",
        "(split pct::10 by::[$userId, $tenant])",
        '(exists "tier")',
        '(matches $a "b")',
        "( eq /* a comment */ $a 1 ) // and another",
        "(eq $a '''long''' '''er''')",
        "(eq '$my-key' 1)",
        "('eq' $a 1)",
        "(eq $a 0x1F)",
        "(eq $a 1_000)",
        "(in $a [])",
        "(eq $a 2024T)",
        "(eq $a 2024-02-29)",
        "(not " * 64 + "true" + ")" * 64,
        "(eq $a 1)" + " " * 16_375,
    ],
)
def test_admitted(text):
    """What the service admits, and what Ion allows, is parsed."""
    assert parse(text) == parse(str(parse(text)))


def test_pieces_of_a_long_string_are_one_text():
    """Ion's long strings are joined, escapes and quoted keys are understood."""
    assert evaluate("(eq $a '''long''' '''er''')", {"a": "longer"})
    assert evaluate("(eq $a '''a\r\nb\\\nc''')", {"a": "a\nbc"})
    assert evaluate(r'(eq $a "\x41\u00e9\U0001F600\ud83d\ude00\n")', {"a": "Aé😀😀\n"})
    assert evaluate("(eq '$my-key' 1)", {"my-key": 1})


# What we chose, and its switches

CHOICES = [
    # (rule, context, ours, a dialect, what it makes of it)
    ('(eq $a "x")', {}, False, Dialect(undefined="rule"), False),
    ('(not (eq $a "x"))', {}, True, Dialect(undefined="rule"), False),
    ('(ne $a "x")', {}, False, Dialect(undefined="rule"), False),
    ('(or (eq $a "x") true)', {"a": None}, True, Dialect(undefined="rule"), False),
    ('(not (in $a ["x"]))', {}, True, Dialect(undefined="rule"), False),
    ('(not (begins_with $a "x"))', {"a": []}, True, Dialect(undefined="rule"), False),
    ('(not (matches in::$a pattern::"x"))', {}, True, Dialect(undefined="rule"), False),
    ("(not (split pct::100 by::$a))", {}, True, Dialect(undefined="rule"), False),
    ("(not (gt $a 1))", {"a": "x"}, True, Dialect(undefined="rule"), False),
    ("(not (and $a true))", {"a": 5}, True, Dialect(undefined="rule"), False),
    ("(eq $a 65)", {"a": "65"}, True, Dialect(coerce=False), False),
    ('(eq $a "65")', {"a": 65}, True, Dialect(coerce=False), False),
    ("(eq 65 $a)", {"a": "65"}, True, Dialect(coerce=False), False),
    ("(gt $a 65)", {"a": "66"}, True, Dialect(coerce=False), False),
    ("(in $a [65])", {"a": "65"}, True, Dialect(coerce=False), False),
    ('(in $a ["65"])', {"a": 65}, True, Dialect(coerce=False), False),
    ("(eq $a true)", {"a": "true"}, True, Dialect(coerce=False), False),
    ("(eq $a 2024-01T)", {"a": "2024-01-01"}, True, Dialect(coerce=False), False),
    ("(eq $a $b)", {"a": 1, "b": "1"}, True, Dialect(coerce=False), False),
    ("(ne $a 65)", {"a": "65"}, False, Dialect(coerce=False), True),
    ('(contains $a "5")', {"a": 65}, True, Dialect(coerce=False), False),
    ("(and $a true)", {"a": "true"}, True, Dialect(coerce=False), False),
    ("(eq $a 1)", {"a": 1.0}, True, Dialect(coerce=False), True),
    ('(gt $a "b")', {"a": "c"}, True, Dialect(order_text=False), False),
    ('(eq $a "x")', {"a": "X"}, False, Dialect(fold=str.casefold), True),
    ('(begins_with $a "x")', {"a": "XY"}, False, Dialect(fold=str.casefold), True),
    ('(in $a ["x"])', {"a": "X"}, False, Dialect(fold=str.casefold), True),
    ('(matches in::$a pattern::"b")', {"a": "abc"}, True, Dialect(full_match=True), False),
    ('(exists key::"a")', {"a": ""}, True, Dialect(empty_exists=False), False),
    ('(split pct::50 by::$a seed::"s")', {"a": "y"}, False,
     Dialect(bucket=lambda value, seed: 50, inclusive=True), True),
    ('(split pct::50 by::$a seed::"s")', {"a": "y"}, False,
     Dialect(bucket=lambda value, seed: 49.0), True),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "context", "ours", "dialect", "theirs"), CHOICES)
def test_choice_and_its_switch(rule, context, ours, dialect, theirs):
    """Where AWS documents nothing the table says what we do, a switch what else."""
    assert [ours, theirs] == [
        evaluate(rule, context),
        evaluate(rule, context, dialect=dialect),
    ]


def test_bucket_is_asked_with_value_and_seed():
    """A hash of the user's gets joined values and the seed, given or implied."""
    asked = []

    def bucket(value, seed):
        asked.append((value, seed))
        return 0.0

    dialect = Dialect(bucket=bucket, join="|", seed=lambda flag: "local:" + flag)
    context = {"a": "x", "b": 7, "c": True}
    for rule in ('(split pct::1 by::[$a,$b,$c] seed::"s")', "(split pct::1 by::$a)"):
        assert evaluate(rule, context, flag="f", dialect=dialect)

    assert [("x|7|true", "s"), ("x", "local:f")] == asked


def test_bucket_on_the_boundary():
    """A bucket equal to pct is outside, unless the dialect says otherwise."""
    for inclusive in (False, True):
        dialect = Dialect(bucket=lambda value, seed: 50.0, inclusive=inclusive)

        assert inclusive is evaluate(
            "(split pct::50 by::$a)", {"a": "x"}, dialect=dialect
        )


def test_bucket_that_raises_counts_as_missing():
    """A broken hash makes the split false; nothing is raised into the handler."""

    def bucket(value, seed):
        raise OSError

    dialect = Dialect(bucket=bucket, fold=bucket)

    assert not evaluate("(split pct::100 by::$a)", {"a": "x"}, dialect=dialect)
    assert evaluate('(eq $a "x")', {"a": "x"}, dialect=Dialect(fold=ord)) is True


def test_dialect_refuses_a_word_it_does_not_know():
    """`undefined` is one of two words."""
    with pytest.raises(ValueError, match="operator"):
        Dialect(undefined="flag")


UTC = datetime.timezone.utc


class Tier(str, enum.Enum):
    """A text that is an enum."""

    GOLD = "gold"


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("(eq $v 1.5)", decimal.Decimal("1.5")),
        ("(eq $v 15)", decimal.Decimal("15.0")),
        ('(eq $v "gold")', Tier.GOLD),
        ("(lt $v 2024-01T)", datetime.datetime(2023, 12, 31, 23, 59, tzinfo=UTC)),
        ("(eq $v 2024-01T)", datetime.datetime(2024, 1, 1)),
        ("(eq $v 2024-01-01)", datetime.date(2024, 1, 1)),
        ('(eq $v "2024-02-29T12:00:00.5Z")',
         datetime.datetime(2024, 2, 29, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("(eq $v 2012-03-04T05:06:07.5-08:00)", "2012-03-04T13:06:07.50Z"),
        ("(gt $v 2024-01T)", "2024-01-01T00:00:00.001Z"),
        ('(eq $v "5")', 5.0),
        ('(eq $v "0.1")', 0.1),
        ('(eq $v "true")', True),
        ("(gt $v 9223372036854775807)", 10**30),
    ],
)  # fmt: skip
def test_types_of_a_context(rule, value):
    """What Python programs have at hand is compared by what it means."""
    assert evaluate(rule, {"v": value})


@given(st.datetimes())
def test_instants_are_python_s(moment):
    """Our calendar agrees with datetime's, read and printed."""
    written = rules.text_of(rules.scalar(moment))

    assert moment.isoformat().rstrip("0" if "." in moment.isoformat() else "") == (
        written.removesuffix("Z")
    )
    assert rules.scalar(moment) == rules.instant_of(written)


class Lazy:
    """A stand-in that says that it is of the type of its value, as lazy objects do."""

    def __init__(self, value):
        self.value = value

    @property  # for isinstance
    def __class__(self):
        return type(self.value)

    def __str__(self):
        return str(self.value)

    def __int__(self):
        return int(self.value)

    def __float__(self):
        return float(self.value)

    def __bool__(self):
        return bool(self.value)


@pytest.mark.parametrize("value", ["abc", "", "5", "true", 5, 2.5, True, False])
@pytest.mark.parametrize("make", [Lazy, wrapt.ObjectProxy])
@pytest.mark.parametrize(
    "text",
    [
        '(begins_with $a "a")',
        '(contains $a "b")',
        '(eq $a "abc")',
        "(eq $a 5)",
        "(eq $a true)",
        "(eq $a 2024-01T)",
        "(gt $a 3)",
        '(gt $a "a")',
        "(lt $a 3.5)",
        '(in $a ["abc"])',
        '(in $a ["abc", 5])',
        "(and $a true)",
        '(matches in::$a pattern::"b")',
        '(exists key::"a")',
        '(split pct::50 by::$a seed::"s")',
    ],
)
def test_stand_in_is_its_value(text, make, value):
    """A proxy, as those of wrapt, Django and Werkzeug, is compared as what it is of."""
    expected = rules.evaluate(text, {"a": value})

    assert expected is rules.evaluate(text, {"a": make(value)})


@pytest.mark.parametrize("kind", [str, int, float, bool])
def test_stand_in_without_a_value_is_missing(kind):
    """What only says that it is text or a number raises nothing."""
    stand_in = mock.NonCallableMock(spec=kind)

    assert isinstance(stand_in, kind)
    for text in ('(begins_with $a "x")', "(gt $a 3)", "(and $a true)"):
        assert rules.evaluate(text, {"a": stand_in}) in (False, True)


# Any text, any context

KEYS = st.sampled_from(["a", "b", "userId", "my-key", "0", ""])
TEXTS = st.text(max_size=8) | st.sampled_from(["x", "true", "10", "2024-01", "\ud800"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.decimals()
    | st.datetimes()
    | st.binary(max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.builds(object)
)
CONTEXTS = st.dictionaries(KEYS, SCALARS, max_size=5)
PIECES = st.sampled_from(
    ["(", ")", "[", "]", ",", " ", "::", '"', "'", "'''", "\\", "//", "/*", "*/", "$a",
     "'$my-key'", "eq", "ne", "gt", "and", "or", "not", "in", "matches", "exists",
     "split", "contains", "pct", "by", "seed", "key", "pattern", "true", "1", "-7",
     "1.5", "1e3", "0x1f", "2024-01T", "2024-01", "2012-03-04T05:06:07Z", '"x"',
     "a*b", "\n", "\r", "_", "$", "\ud800", "\\u0041"]
)  # fmt: skip


def written(text):
    """Return a text as a rule writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\x{ord(c):02x}" for c in escaped) + '"'


CONSTANTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(written),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.datetimes(min_value=datetime.datetime(1000, 1, 1)).map(
        lambda d: d.isoformat() + "Z"
    ),
    st.sampled_from(["true", "false", "2024T", "2024-01T", "0x1F"]),
)
NAMED = st.sampled_from(["$a", "$b", "$userId", "'$my-key'", "'$0'"])
VALUES = CONSTANTS | NAMED
COMMAS = st.sampled_from([", ", ",", " "])
LEAVES = st.one_of(
    st.builds("({} {} {})".format, st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
              VALUES, VALUES),
    st.builds("({} {} {})".format, st.sampled_from(["begins_with", "ends_with", "contains"]),
              VALUES, VALUES),
    st.builds(lambda v, c, items: f"(in {v} [{c.join(items)}])", VALUES, COMMAS,
              st.lists(CONSTANTS, max_size=4)),
    st.builds("(exists key::{})".format, TEXTS.filter(lambda t: "\ud800" not in t).map(written)),
    st.builds('(matches in::{} pattern::"{}")'.format, VALUES,
              st.sampled_from(["h.*y", "^[a-z]+$", "a|b", ""])),
    st.builds("(split pct::{} by::{})".format, st.integers(0, 100), NAMED),
    st.builds('(split by::[{},{}] seed::"s" pct::{})'.format, NAMED, NAMED,
              st.floats(0, 100)),
    # Two long strings in a row would be read as one.
    st.builds("(in {} ['''a\n'b''', {}])".format, VALUES, CONSTANTS),
    st.builds("(eq '''a\n\"b''' {})".format, VALUES),
    st.sampled_from(["true", "false", "$a"]),
)  # fmt: skip


def nested(inner):
    """Return expressions of expressions."""
    return st.one_of(
        st.builds(
            lambda op, items: f"({op} {' '.join(items)})",
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=5),
        ),
        st.builds("(not {})".format, inner),
        st.builds("(eq {} true)".format, inner),
    )


RULE_TEXTS = st.recursive(LEAVES, nested, max_leaves=12).map(
    lambda text: text if text.startswith("(") else f"(and {text} true)"
)
DIALECTS = st.builds(
    Dialect,
    undefined=st.sampled_from(["operator", "rule"]),
    coerce=st.booleans(),
    order_text=st.booleans(),
    fold=st.sampled_from([None, str.casefold, ord]),
    full_match=st.booleans(),
    empty_exists=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join), CONTEXTS)
@example("(matches in::$a pattern::'''(((''')", {"a": "x"})
@example("(eq '''a\r''' $a)", {})
def test_any_text_is_parsed_or_refused(text, context):
    """Any text parses and evaluates to a bool for any context, or is refused."""
    refused = None
    try:
        rule = parse(text)
    except RuleError as exc:
        refused = exc.position
    if refused is not None:
        assert 0 <= refused <= len(text)
        return

    assert rule(context) in (True, False)
    assert rule == parse(str(rule))


@settings(max_examples=500, deadline=None)
@given(RULE_TEXTS, CONTEXTS, DIALECTS)
def test_any_rule_evaluates_to_a_bool(text, context, dialect):
    """Each rule of the language gives a bool for any context, in any dialect."""
    rule = parse(text, flag="f", dialect=dialect)

    result = rule(context)

    assert type(result) is bool
    assert result is evaluate(text, context, flag="f", dialect=dialect)


@settings(max_examples=300, deadline=None)
@given(RULE_TEXTS, CONTEXTS)
def test_printing_and_parsing_is_the_identity(text, context):
    """A rule that is printed parses to the same rule, which says the same."""
    rule = parse(text)
    again = parse(str(rule))

    assert rule == again
    assert hash(rule) == hash(again)
    assert str(rule) == str(again)
    assert rule(context) is again(context)


@settings(max_examples=200, deadline=None)
@given(RULE_TEXTS)
def test_compact_form_is_never_longer(text):
    """The printed form fits the limit of a rule if the rule did."""
    rule = parse(text)
    compact = rules._printed(rule.tree, compact=True)

    assert len(compact) <= len(text)
    assert rule == parse(compact)


def test_longest_rule_is_printed_within_the_limit():
    """A rule of 16,384 characters without a space too many prints as one."""
    items = '"x"' * 5455
    text = f"(in $a[{items}])"
    text = text.replace("$a", "$" + "a" * (16_384 - len(text) + 1))
    rule = parse(text)

    assert 16_384 == len(text)
    assert rule == parse(str(rule))


def test_rules_are_equal_by_what_they_say():
    """Blanks and comments make no difference; a rule can be a key."""
    one, other = parse("( eq $a 1 )"), parse("(eq $a /* a */ 1)")

    assert {one} == {other}
    assert one != parse("(eq $a 2)")
    assert one != "(eq $a 1)"
    assert "<Rule (eq $a 1)>" == repr(one)
