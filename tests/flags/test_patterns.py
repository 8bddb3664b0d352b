"""Regular expressions: a subset whose cost is bounded, RE2 for the rest."""

from __future__ import annotations

import re
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_ext.exceptions import RuleError
from lambda_ext.flags import patterns
from lambda_ext.flags.rules import parse


@pytest.fixture(name="no_re2", autouse=True)
def _no_re2(monkeypatch):
    """google-re2 is not installed."""
    monkeypatch.setitem(sys.modules, "re2", None)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("h.*y", "oh, why not", "hello"),
        ("^[a-z0-9_-]+$", "user_1-a", "User"),
        ("^a|b$", "xb", "xa"),
        (r"\d{3}", "ab123", "ab12"),
        (r"^\w{2,4}$", "a_1", "a"),
        (r"@(amazon|example)\.com$", "x@example.com", "x@examplexcom"),
        (r".*@(?:amazon|example)\.com", "x@amazon.com", "x@amazon.org"),
        ("^colou?r", "color", "colr"),
        (r"[^\s\d]", " 1a", " 12"),
        ("[]a]", "]", "b"),
        ("[a-]", "-", "b"),
        (r"\.\*", "x.*y", "x*.y"),
        ("", "anything", None),
        ("a.*", "xa", "xb"),
        (r"a\.*", "a...", "b"),
        ("a{2}", "baab", "bab"),
        ("a$", "a", "a\n"),
        (r"^\d$", "7", "٧"),
        (r"\s", "a b", "a\vb"),
        ("x|", "y", None),
        ("[.*]", "*", "x"),
        (r"\n", "a\nb", "ab"),
    ],
)
def test_subset_matches_as_re2_does(pattern, matching, other):
    """What is in the subset means what RE2 makes of it."""
    matches = patterns.compile(pattern)

    assert matches(matching)
    assert other is None or not matches(other)


@pytest.mark.parametrize(
    "pattern",
    [
        "a*a*b", "^a*b*$", "^[a-z]+@[a-z]+$", "(a+)+", "(a|a)*", "(a|ab)+c", "a+.*b+", "x{1,}y*", "(?=a)", r"(a)\1",
        "(?i)a", "(?P<n>a)", r"\bword", r"\pL", "a**", "a{2}{3}", "a++", "a{2000}",
        "[[:alpha:]]", "(", ")", "a)", "[", "[z-a]", "[a", "*a", "a{3,2}", "{", "a{",
        "\\", r"[\D]", "(ab)?", "^*", "a?" * 30 + "b", "(a|b|c|d)" * 12, "(" * 21 + ")" * 21,
        "a*?", "[a-\\d]", "a{0,1000}a{0,1000}a{0,1000}b", "a+" + "(a|b)" * 10 + "c",
    ],
)  # fmt: skip
def test_refused_at_load(pattern):
    """What may take too long, or what the subset lacks, is refused with its place."""
    with pytest.raises(patterns.UnsupportedError) as caught:
        patterns.compile(pattern)

    assert 0 <= caught.value.at <= len(pattern)


@pytest.mark.parametrize("pattern", ["a*a*b", "(a+)+$", "(x+x+)+y"])
def test_rule_with_such_a_pattern_is_refused(pattern):
    """A rule whose pattern could hang the handler never gets to evaluation."""
    with pytest.raises(RuleError) as caught:
        parse(f'(matches in::$a pattern::"{pattern}")')

    assert ("InvalidOperand", 25) == (caught.value.reason, caught.value.position)


def test_longer_subject_does_not_match():
    """The subject has up to 1,024 characters."""
    matches = patterns.compile("a")

    assert matches("a" * 1024)
    assert not matches("a" * 1025)


def test_full_match():
    """With *full* the text as a whole is meant."""
    assert patterns.compile("a|b", full=True)("b")
    assert not patterns.compile("a|b", full=True)("ab")
    assert not patterns.compile(".*b", full=True)("abc")


ATOMS = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[ab]",
        "[^a]",
        r"\d",
        r"\w",
        "(a|b)",
        "(?:ab|b|)",
        "^",
        "$",
        r"\.",
        "é",
    ]
)
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"])
WRITTEN = st.lists(st.tuples(ATOMS, REPEATS).map("".join), max_size=6).map("".join)


@settings(max_examples=500, deadline=None)
@given(
    WRITTEN | st.text("ab.*+?{}()[]|^$\\d-1,", max_size=12),
    st.text("abc.1\né", max_size=12),
)
def test_subset_agrees_with_re(pattern, subject):
    """What is accepted means the same to `re`, and costs no more than was counted."""
    refused = None
    parser = patterns.Parser(pattern)
    try:
        translated = parser.translate()
    except patterns.UnsupportedError as exc:
        refused = exc.at
    if refused is not None:
        assert 0 <= refused <= len(pattern)
        return

    assert parser.steps <= patterns.MAX_STEPS
    if "[" in pattern or "\\$" in pattern:  # where $ may be a character
        re.compile(translated)
        return
    theirs = re.search(pattern.replace("$", r"\Z"), subject, re.ASCII)
    assert patterns.compile(pattern)(subject) is (theirs is not None)


class TestRe2:
    """google-re2 takes what the subset refuses."""

    @pytest.fixture(name="re2", autouse=True)
    def _re2(self, monkeypatch, no_re2):
        """A double of google-re2 that records what it compiles."""
        double = types.ModuleType("re2")
        double.error = type("error", (Exception,), {})
        double.Options = types.SimpleNamespace
        double.compiled = []

        def compile(pattern, options):
            double.compiled.append((pattern, options.log_errors))
            if pattern == "(":
                raise double.error(b"missing )")
            return re.compile(pattern)

        double.compile = compile
        monkeypatch.setitem(sys.modules, "re2", double)
        return double

    def test_takes_what_the_subset_refuses(self, re2):
        """A pattern outside of the subset is compiled by RE2, silently."""
        matches = patterns.compile("(?i)a*a*b")

        assert matches("AAB")
        assert [("(?i)a*a*b", False)] == re2.compiled

    def test_is_not_asked_for_the_subset(self, re2):
        """What the subset takes does not need it."""
        patterns.compile("h.*y")

        assert [] == re2.compiled

    def test_refusal_is_an_error(self):
        """What RE2 refuses is refused, in its words."""
        with pytest.raises(patterns.UnsupportedError, match="missing"):
            patterns.compile("(")

    def test_full_match(self):
        """*full* holds for RE2, too."""
        assert not patterns.compile("(ab)*", full=True)("aba")

    def test_subject_is_bounded_alike(self):
        """The bound of the subject does not depend on the engine."""
        assert not patterns.compile("(a)*")("a" * 1025)


def test_real_re2(monkeypatch):
    """The real library takes what the subset refuses, in the time it promises."""
    monkeypatch.delitem(sys.modules, "re2")
    pytest.importorskip("re2")
    matches = patterns.compile("a*a*b")

    assert not matches("a" * 1024)
    assert matches("aab")
    assert not matches("\ud800")
    with pytest.raises(
        patterns.UnsupportedError, match=r"google-re2 refuses it: .*missing"
    ):
        patterns.compile("(")
    with pytest.raises(patterns.UnsupportedError):
        patterns.compile(r"(a)\1")
