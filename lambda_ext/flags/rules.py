r"""
The rule language of AppConfig's multi-variant flags: parse once, evaluate often.

    rule    = "(" operator { operand } ")"
    operand = [ name "::" ] ( rule | list | scalar )
    scalar  = "text" | number | timestamp | true | false | $key
    list    = "[" scalar { [","] scalar } "]"

A rule is one Amazon Ion s-expression, so Ion's escapes, comments, '''long
strings''' and quoted symbols ('$my-key') are taken, too.

    eq ne gt gte lt lte                two operands
    and or                             two or more; not: one
    begins_with ends_with contains     two texts
    in                                 a value and a list of constants
    matches in:: pattern::             a text and a regular expression
    exists key::                       the name of a context value, as text
    split pct:: by:: [seed::]          a share of the values of the context

The names in front of ``::`` may be left out where the order is as above.

What is not documented
    Each line says what we do, and which attribute of `Dialect` changes it.
    None of it has been compared with the service; ``examples/agent_parity``
    asks AppConfig's agent, in a container and without an account.

    split's hash                bucket = fnv1a_32(value + seed) mod 100000 / 1000,
                                true if bucket < pct               bucket, inclusive
    split without seed          the flag's name and ":split"       seed
    split by several values     [$a, $b]: joined without anything  join
    a missing operand           its operator is false, ne and      undefined
      (no such key, None, a       split too; so (not (eq $gone 1))
      list or the like)           is true
    a context value of another  is converted to the constant's     coerce
      type than the constant      type if it reads as one ("true",
                                  "10", "2024-01"), a number to
                                  decimal text; else eq is false,
                                  ne true, an order missing; the
                                  constant may be on either side
    two context values of       the text is converted to the       coerce
      different types             other's type
    two texts in an order       by code point                      order_text
    letter case, normal forms   differ                             fold
    matches                     anywhere in the text, RE2's        full_match
                                  dialect, see `patterns`
    exists of ""                true                               empty_exists
    and, or, not of $key        true for True and "true"           coerce
    a context value that is a   as UTC if it names no zone         -
      datetime
    a key that is given twice   cannot be: a context is a mapping  -

Sources: "Understanding multi-variant feature flag rules" and "Creating
multi-variant feature flags" in the AppConfig user guide,
https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-creating-multi-variant-feature-flags-rules.html
(ne: "Audience" in the chapter on experiments); Amazon Ion,
https://amazon-ion.github.io/ion-docs/docs/spec.html
"""

from __future__ import annotations

import operator
import re
import sys

from ..exceptions import RuleError
from ..lifecycle.process import by_signal_handler
from . import patterns
from .dialect import DEFAULT, Dialect, fnv1a

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    Context = Mapping[str, Any]
    Test = Callable[[Context], bool]

__all__ = ("DEFAULT", "Dialect", "Rule", "evaluate", "fnv1a", "has_split", "parse")

MAX_RULE = 16_384  # characters; JSON schema of AWS.AppConfig.FeatureFlags
SHOWN = 64  # characters of a word that a message quotes
MAX_DEPTH = 64  # of nested expressions; ours, so that no stack overflows
_INT64 = range(-(2**63), 2**63)


class Rule:
    """
    A parsed rule: call it with a context, a mapping, to get True or False.

    Never raises for any context.  ``str()`` gives a text that parses to an
    equal rule.
    """

    __slots__ = ("test", "tree")

    def __init__(self, tree: _Call, test: Test) -> None:
        self.tree = tree
        self.test = test  # what a call does, for callers in a hurry

    def __call__(self, context: Context) -> bool:
        return self.test(context)

    def __str__(self) -> str:
        text = _printed(self.tree, compact=False)
        if len(text) > MAX_RULE:
            text = _printed(self.tree, compact=True)
        return text

    def __repr__(self) -> str:
        return f"<Rule {self}>"

    def __eq__(self, other: object) -> bool:
        return self.tree == other.tree if isinstance(other, Rule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.tree)


def parse(text: str, *, flag: str = "", dialect: Dialect = DEFAULT) -> Rule:
    """
    Return the rule that *text* is; *flag* is the seed of splits without one.

    Raises:
        RuleError: the rule is refused; its ``reason`` and ``position`` say
            why and where.
    """
    tree = _Parser(text).rule()
    return Rule(tree, _Compiler(flag, dialect).rule(tree))


def evaluate(
    text: str, context: Context, *, flag: str = "", dialect: Dialect = DEFAULT
) -> bool:
    """
    Return what the rule *text* says about *context*: `parse`, then a call.

    Raises:
        RuleError: as `parse`.
    """
    return parse(text, flag=flag, dialect=dialect)(context)


def has_split(rule: Rule) -> bool:
    """Say whether *rule* divides traffic."""
    return _has_split(rule.tree)


def _has_split(node: _Node) -> bool:
    if not isinstance(node, _Call):
        return False
    word, operands = node.value
    return word == "split" or any(_has_split(operand) for _, operand in operands)


# The tree --------------------------------------------------------------------


class _Node:
    """A part of a rule; equal if it reads the same, wherever it stands."""

    __slots__ = ("at", "value")

    def __init__(self, value: Any, at: int) -> None:
        self.value = value
        self.at = at  # the position in the text

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == other.value

    def __hash__(self) -> int:
        return hash((type(self), self.value))


class _Text(_Node):
    """A constant text; *value* is it, *long* whether it stood in '''."""

    __slots__ = ("long",)

    def __init__(self, value: str, at: int, *, long: bool = False) -> None:
        super().__init__(value, at)
        self.long = long


class _Bool(_Node):
    """True or false; *value* is it."""

    __slots__ = ()


class _Number(_Node):
    """A constant number; *value* is how it is written."""

    __slots__ = ("number",)

    def __init__(self, value: str, at: int, number: float) -> None:
        super().__init__(value, at)
        self.number = number


class _Moment(_Node):
    """A constant timestamp; *value* is how it is written."""

    __slots__ = ("instant",)

    def __init__(self, value: str, at: int, instant: Instant) -> None:
        super().__init__(value, at)
        self.instant = instant


class _Key(_Node):
    """A context value; *value* is its key."""

    __slots__ = ()


class _List(_Node):
    """A list; *value* is a tuple of nodes."""

    __slots__ = ()


class _Call(_Node):
    """An expression; *value* is (operator, ((name or "", node), ...))."""

    __slots__ = ()


class Instant(tuple):  # type: ignore[type-arg]  # (seconds, digits of the fraction)
    """A moment: seconds since the epoch and the digits of a fraction."""

    __slots__ = ()


OPERANDS: dict[str, tuple[tuple[str, ...], int]] = {  # names in order, how many must be
    **dict.fromkeys(("eq", "ne", "gt", "gte", "lt", "lte"), (("", ""), 2)),
    **dict.fromkeys(("begins_with", "ends_with", "contains", "in"), (("", ""), 2)),
    "and": ((), 2),
    "or": ((), 2),
    "not": (("",), 1),
    "matches": (("in", "pattern"), 2),
    "exists": (("key",), 1),
    "split": (("pct", "by", "seed"), 2),
}

# Reading ---------------------------------------------------------------------

_SPACE = re.compile(r"(?:[ \t\n\r\v\f]+|//[^\n\r]*|/\*(?s:.*?)\*/)*")
_SYMBOL = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_NUMBER = re.compile(
    r"-?(?:0[xX][0-9a-fA-F]+(?:_[0-9a-fA-F]+)*|0[bB][01]+(?:_[01]+)*"
    r"|(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.(?:[0-9]+(?:_[0-9]+)*)?)?"
    r"(?:[eEdD][+-]?[0-9]{1,9})?)"
)
_DAY = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME = (
    r"T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_MOMENT = re.compile(rf"{_DAY}(?:{_TIME}|T)?|([0-9]{{4}})-([0-9]{{2}})T|([0-9]{{4}})T")
_WRITTEN = re.compile(  # in a context: the W3C's note allows a month and a year
    rf"{_DAY}(?:{_TIME}|T)?|([0-9]{{4}})-([0-9]{{2}})T?|([0-9]{{4}})T?"
)
_FRACTION = re.compile(r"[.eEdD]")
MAX_DIGITS = 70  # of 64 bits in binary, with a sign
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}(?![0-9-])")
_ENDS = frozenset(" \t\n\r\v\f()[]{},\"'/")
_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r",
    "v": "\v", '"': '"', "'": "'", "?": "?", "\\": "\\", "/": "/", "\n": "",
}  # fmt: skip
_HEX = {"x": 2, "u": 4, "U": 8}
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _refuse(reason: str, position: int, text: str) -> NoReturn:
    msg = f"{reason} at position {position}: {text}"
    raise RuleError(msg, reason=reason, position=position)


class _Parser:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            _refuse("NotAnExpression", 0, f"a rule is text, not {type(text).__name__}")
        if len(text) > MAX_RULE:
            _refuse("TooLong", MAX_RULE, f"a rule has up to {MAX_RULE:,} characters")
        self._text = text
        self._at = 0
        self._depth = 0

    def rule(self) -> _Call:
        """Return the tree of the only expression that there is."""
        self._skip()
        if self._peek() != "(":
            _refuse("NotAnExpression", self._at, "a rule begins with (")
        tree = self._call()
        self._skip()
        if self._at < len(self._text):
            _refuse("NotAnExpression", self._at, "a rule is one expression")
        return tree

    def _call(self) -> _Call:
        at = self._at
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse("TooDeep", at, f"expressions nest up to {MAX_DEPTH} levels")
        self._skip()
        operator_at = self._at
        if self._peek() == "'":
            operator = self._quoted("'")
        else:
            found = _SYMBOL.match(self._text, self._at)
            operator = found[0] if found else ""
            self._at += len(operator)
        if operator not in OPERANDS:
            what = (
                f"there is no operator {operator[:SHOWN]!r}"
                if operator
                else "no operator"
            )
            _refuse("UnknownSymbol", operator_at, what)
        operands = []
        while True:
            self._skip()
            if self._peek() == ")":
                break
            if not self._peek():
                _refuse("NotAnExpression", self._at, "a ) is missing")
            operands.append(self._operand())
        end = self._at
        self._at += 1
        self._depth -= 1
        return _Call((operator, _arranged(operator, operands, end)), at)

    def _operand(self) -> tuple[str, _Node]:
        """Return (name or "", value); the value may have one name."""
        at = self._at
        name = ""
        symbol = self._symbol()
        if symbol is not None:
            self._skip()
            if not self._text.startswith("::", self._at):
                return "", self._named(symbol, at)
            self._at += 2
            self._skip()
            name = symbol[0]
            if not name or name.startswith("$"):
                _refuse("UnknownSymbol", at, "an operand's name is a word")
            at = self._at
            symbol = self._symbol()
            if symbol is not None:
                self._skip()
                if self._text.startswith("::", self._at):
                    _refuse("InvalidOperand", at, "an operand has one name")
                return name, self._named(symbol, at)
        return name, self._value(in_list=False)

    def _symbol(self) -> tuple[str, bool] | None:
        """Return (word, was it quoted) if a symbol is next, and pass it."""
        if self._peek() == "'" and not self._text.startswith("'''", self._at):
            return self._quoted("'"), True
        found = _SYMBOL.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[0], False

    def _named(self, symbol: tuple[str, bool], at: int) -> _Node:
        """Return what a symbol means as a value."""
        word, quoted = symbol
        if word.startswith("$"):
            key = word[1:]
            if not key or (not quoted and key.isdigit()):
                _refuse("UnknownSymbol", at, "a context value is $ and a key")
            if not quoted and self._peek() == "-" and at + len(word) == self._at:
                _refuse("UnknownSymbol", self._at, "write '$my-key' with the quotes")
            return _Key(key, at)
        if word in ("true", "false") and not quoted:
            return _Bool(word == "true", at)
        _refuse(
            "UnknownSymbol", at, f"{word[:SHOWN]!r} is no value: write text in quotes"
        )

    def _value(self, *, in_list: bool) -> _Node:
        char, at = self._peek(), self._at
        if char == '"':
            return _Text(self._quoted('"'), at)
        if self._text.startswith("'''", at):
            return _Text(self._long(), at, long=True)
        if char == "(" and not in_list:
            return self._call()
        if char == "[" and not in_list:
            return self._list()
        symbol = self._symbol()
        if symbol is not None:
            return self._named(symbol, at)
        return self._number()

    def _list(self) -> _Node:
        at = self._at
        self._at += 1
        nodes: list[_Node] = []
        comma = True  # whether a comma would be one too many
        while True:
            self._skip()
            char = self._peek()
            if char == "]":
                break
            if not char:
                _refuse("NotAnExpression", self._at, "a ] is missing")
            if char == "," and not comma:
                comma = True
                self._at += 1
                continue
            nodes.append(self._value(in_list=True))
            comma = False
        self._at += 1
        return _List(tuple(nodes), at)

    def _number(self) -> _Node:
        at = self._at
        moment = _MOMENT.match(self._text, at)
        if moment is not None and self._ends_at(moment.end()):
            instant = _instant(moment)
            if instant is None:
                _refuse("InvalidOperand", at, "there is no such moment")
            self._at = moment.end()
            return _Moment(moment[0], at, instant)
        found = _NUMBER.match(self._text, at)
        if found is None:
            _refuse("NotAnExpression", at, "neither a value nor an expression")
        if not self._ends_at(found.end()):
            if _MONTH.match(self._text, at):
                # As the service: Ion reads a year and a number.
                _refuse("TooFewOperands", at, "a month is written 2024-01T")
            _refuse("NotAnExpression", found.end(), "a malformed number")
        number = _constant(found[0])
        if number is None:
            _refuse("InvalidOperand", at, "a number of more than 64 bits")
        self._at = found.end()
        return _Number(found[0], at, number)

    def _quoted(self, quote: str) -> str:
        """Return what stands between two *quote*, and pass it."""
        at = self._at
        self._at += 1
        parts = []
        while True:
            char = self._peek()
            if char == quote:
                break
            if not char or (char < " " and char not in "\t\v\f"):
                _refuse("NotAnExpression", self._at, f"a {quote} is missing")
            parts.append(self._character())
        self._at += 1
        return self._joined(parts, at)

    def _long(self) -> str:
        """Return what stands in one or more long strings, and pass them."""
        at = self._at
        parts = []
        while self._text.startswith("'''", self._at):
            self._at += 3
            while not self._text.startswith("'''", self._at):
                char = self._peek()
                if not char or (char < " " and char not in "\t\v\f\r\n"):
                    _refuse("NotAnExpression", self._at, "a ''' is missing")
                if char == "\r":  # as Ion: a line ends with a line feed
                    self._at += 1
                    if self._peek() != "\n":
                        parts.append("\n")
                    continue
                parts.append(self._character())
            self._at += 3
            self._skip()
        return self._joined(parts, at)

    def _character(self) -> str:
        """Return one character or what an escape stands for, and pass it."""
        char, at = self._peek(), self._at
        self._at += 1
        if char != "\\":
            return char
        char = self._peek()
        self._at += 1
        if char in _ESCAPES and char:
            return _ESCAPES[char]
        count = _HEX.get(char, 0)
        digits = self._text[self._at : self._at + count]
        if not count or len(digits) < count or not _HEX_DIGITS.issuperset(digits):
            _refuse("NotAnExpression", at, "an unknown escape")
        code = int(digits, 16)
        if code > sys.maxunicode:
            _refuse("NotAnExpression", at, "an escape of no character")
        self._at += count
        return chr(code)

    @staticmethod
    def _joined(parts: list[str], at: int) -> str:
        text = "".join(parts)
        try:  # two halves that were escaped are one character
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            _refuse("NotAnExpression", at, "half a character")

    def _ends_at(self, at: int) -> bool:
        return at >= len(self._text) or self._text[at] in _ENDS

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]


def _arranged(
    operator: str, operands: list[tuple[str, _Node]], end: int
) -> tuple[tuple[str, _Node], ...]:
    """Return *operands* as they are, if *operator* takes them."""
    names, least = OPERANDS[operator]
    if not names:
        for name, node in operands:
            if name:
                _refuse(
                    "UnknownSymbol",
                    node.at,
                    f"{operator} has no operand {name[:SHOWN]!r}",
                )
    else:
        taken = set()
        for name, node in operands:
            if name and name not in names:
                _refuse(
                    "UnknownSymbol",
                    node.at,
                    f"{operator} has no operand {name[:SHOWN]!r}",
                )
            if name in taken:
                _refuse("TooManyOperands", node.at, f"{name[:SHOWN]!r} is given twice")
            if name:
                taken.add(name)
        if len(operands) > len(names):
            at = operands[len(names)][1].at
            _refuse("TooManyOperands", at, f"{operator} takes {len(names)}")
    if len(operands) < least:
        _refuse("TooFewOperands", end, f"{operator} takes {least}")
    if operator == "split" and not {"pct", "by"} <= _by_name(operator, operands).keys():
        _refuse("TooFewOperands", end, "split takes pct:: and by::")
    return tuple(operands)


def _by_name(
    operator: str, operands: list[tuple[str, _Node]] | tuple[tuple[str, _Node], ...]
) -> dict[str, _Node]:
    """Return the operands by name; those without fill what is left, in order."""
    named = {name: node for name, node in operands if name}
    left = [name for name in OPERANDS[operator][0] if name not in named]
    bare = [node for name, node in operands if not name]
    return {**named, **dict(zip(left, bare, strict=False))}


def _constant(written: str) -> float | None:
    """Return the number, None if it needs more than 64 bits."""
    plain = written.replace("_", "")
    base = {"x": 16, "b": 2}.get(plain.lstrip("-")[1:2].lower(), 10)
    if base != 10 or not _FRACTION.search(plain):
        if len(plain) > MAX_DIGITS:
            return None
        number = int(plain, base)
        return number if number in _INT64 else None
    value = float(plain.replace("d", "e").replace("D", "e"))
    return value if abs(value) != float("inf") else None


_DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365)


def _instant(found: re.Match[str]) -> Instant | None:
    """Return the moment, None if the calendar or the clock has none such."""
    g = found.groups()
    year = int(g[0] or g[8] or g[10])
    month = int(g[1] or g[9] or 1)
    day = int(g[2] or 1)
    hour, minute, second = int(g[3] or 0), int(g[4] or 0), int(g[5] or 0)
    offset = 0
    if g[7] and g[7] != "Z":
        hours, minutes = int(g[7][1:3]), int(g[7][4:6])
        if hours > 23 or minutes > 59:
            return None
        offset = (hours * 60 + minutes) * (-60 if g[7][0] == "-" else 60)
    if not (year and 1 <= month <= 12 and hour < 24 and minute < 60 and second < 60):
        return None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = _DAYS[month] - _DAYS[month - 1] + (month == 2 and leap)
    if not 1 <= day <= length:
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400
    days += _DAYS[month - 1] + (month > 2 and leap) + day - 1 - 719_162
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset
    return Instant((seconds, (g[6] or "").rstrip("0")))


# Printing --------------------------------------------------------------------

_PRINTED = {
    value: "\\" + key
    for key, value in _ESCAPES.items()
    if value < " " and value not in ("", "\t", "\v", "\f")
}


def _printed(node: _Node, *, compact: bool) -> str:
    """Return the text of *node*; *compact*: no longer than it was written."""
    if isinstance(node, _Call):
        operator, operands = node.value
        parts = [operator]
        for name, value in operands:
            text = _printed(value, compact=compact)
            parts.append(f"{_symbol(name)}::{text}" if name else text)
        return f"({_spaced(parts, ' ') if compact else ' '.join(parts)})"
    if isinstance(node, _List):
        parts = [_printed(value, compact=compact) for value in node.value]
        return f"[{_spaced(parts, ',') if compact else ', '.join(parts)}]"
    if isinstance(node, _Text):
        if compact and node.long:
            return f"'''{_escaped_long(node.value)}'''"
        return f'"{_escaped(node.value, chr(34))}"'
    if isinstance(node, _Bool):
        return "true" if node.value else "false"
    if isinstance(node, _Key):
        return _symbol("$" + node.value)
    return str(node.value)


def _symbol(word: str) -> str:
    if _SYMBOL.fullmatch(word) and not word[1:].isdigit():
        return word
    return "'" + _escaped(word, "'") + "'"


def _spaced(parts: list[str], separator: str) -> str:
    """Return *parts* in a row, with *separator* only where two would become one."""
    text = ""
    for part in parts:
        melts = text[-1:] not in _ENDS and part[:1] not in _ENDS
        quotes = text[-1:] == "'" and part[:1] == "'"
        text += separator + part if text and (melts or quotes) else part
    return text


def _escaped(text: str, quote: str) -> str:
    """Return *text* as it stands between two *quote*."""
    return "".join([_escaped_one(char, quote) for char in text])


def _escaped_one(char: str, quote: str) -> str:
    if char in (quote, "\\"):
        return "\\" + char
    if char >= " " or char in "\t\v\f":
        return char
    return _PRINTED.get(char) or f"\\x{ord(char):02x}"


def _escaped_long(text: str) -> str:
    """Return *text* as it stands in a long string."""
    text = _escaped(text, "\\").replace("\\n", "\n").replace("'''", "''\\'")
    return text[:-1] + "\\'" if text.endswith("'") else text


# Evaluation ------------------------------------------------------------------

_READS = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
MAX_READ = 64  # characters of a text that is read as a number or a timestamp
_ABSENT = object()


class _MissingError(Exception):
    """An operand is missing, in a dialect where that makes the rule false."""


def scalar(value: Any) -> Any:
    """
    Return *value* of a context as a str, bool, int, float or `Instant`.

    None if it counts as missing: None, and all that is of another type.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool:
        return value
    try:
        return _converted(value, kind)
    except Exception as exc:  # of a method of a type of the user's
        if by_signal_handler(exc):
            raise
        return None


def _converted(value: Any, kind: type) -> Any:
    """Return what *value* is of: a subclass, or a stand-in that says so."""
    for plain, of_subclass in _PLAIN.items():
        if isinstance(value, plain):
            if not issubclass(kind, plain):
                value = plain(value)
            return of_subclass(value)
    return _of_library(value)


_PLAIN: dict[type, Callable[[Any], Any]] = {
    # Not what a subclass makes of itself: an enum, say.
    str: str.__str__,
    bool: bool,
    int: int.__int__,
    float: float.__float__,
}


def _of_library(value: Any) -> Any:
    """Return a Decimal, a datetime or a date; None for anything else."""
    # What was not imported cannot be the type of a value.
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        whole = value.adjusted() < 20 and value == value.to_integral_value()
        return int(value) if whole else float(value)
    datetime = sys.modules.get("datetime")
    if datetime is None or not isinstance(value, datetime.date):
        return None
    days = value.toordinal() - 719_163
    if not isinstance(value, datetime.datetime):
        return Instant((days * 86_400, ""))
    seconds = days * 86_400 + value.hour * 3600 + value.minute * 60 + value.second
    micros = value.microsecond
    offset = value.utcoffset()
    if offset is not None:
        seconds -= offset.days * 86_400 + offset.seconds
        micros -= offset.microseconds
        if micros < 0:
            seconds, micros = seconds - 1, micros + 1_000_000
    return Instant((seconds, f"{micros:06d}".rstrip("0")))


def text_of(value: Any) -> str | None:
    """Return a scalar as text; None for a missing one."""
    if value.__class__ is str:
        return value
    if value is None:
        return None
    if value.__class__ is bool:
        return "true" if value else "false"
    if value.__class__ is float:
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(value)
    if value.__class__ is Instant:
        seconds, fraction = value
        return _moment(seconds, fraction)
    return str(value) if value in _INT64 else None


def _moment(seconds: int, fraction: str) -> str:
    """Return an instant as it is written, in UTC."""
    days, rest = divmod(seconds, 86_400)
    days += 719_468  # the civil calendar, counted from the first of March of 0
    era, day = divmod(days, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month += 3 if month < 10 else -9
    year += era * 400 + (month <= 2)
    part = f".{fraction}" if fraction else ""
    hour, minute = divmod(rest // 60, 60)
    clock = f"{hour:02d}:{minute:02d}:{rest % 60:02d}{part}Z"
    return f"{year:04d}-{month:02d}-{day:02d}T{clock}"


def number_of(value: Any) -> Any:
    """Return a scalar as a number, None if it reads as none."""
    if value.__class__ is int or value.__class__ is float:
        return value
    if value.__class__ is not str or len(value) > MAX_READ:
        return None
    if not _READS.fullmatch(value):
        return None
    if value.lstrip("+-").isdigit():
        whole = int(value)
        return whole if whole in _INT64 else None
    read = float(value)
    return read if abs(read) != float("inf") else None


def bool_of(value: Any) -> bool | None:
    """Return a scalar as a boolean, None if it reads as none."""
    if value.__class__ is bool:
        return value
    if value.__class__ is str:
        return {"true": True, "false": False}.get(value.lower())
    return None


def instant_of(value: Any) -> Instant | None:
    """Return a scalar as a moment, None if it reads as none."""
    if value.__class__ is Instant:
        return value
    if value.__class__ is not str or len(value) > MAX_READ:
        return None
    found = _WRITTEN.fullmatch(value)
    return None if found is None else _instant(found)


_NUMBERS = (2, number_of)
_KINDS: dict[type, tuple[int, Callable[[Any], Any]]] = {
    # What two scalars of different types are compared as: the higher one.
    str: (0, text_of),
    bool: (1, bool_of),
    int: _NUMBERS,
    float: _NUMBERS,
    Instant: (3, instant_of),
}


class _Compiler:
    """Makes functions of a tree; what the tree says is decided here, once."""

    def __init__(self, flag: str, dialect: Dialect) -> None:
        self._flag = flag
        self._dialect = dialect
        self._missing = _never if dialect.undefined == "operator" else _fail

    def rule(self, tree: _Call) -> Test:
        """Return what a call of the rule does."""
        test = self._test(tree)
        if self._missing is _never:
            return test

        def guarded(context: Context) -> bool:
            try:
                return test(context)
            except _MissingError:
                return False

        return guarded

    def _test(self, node: _Node) -> Test:
        """Return a function from the context to True or False."""
        if isinstance(node, _Bool):
            constant: bool = node.value
            return lambda context: constant
        if isinstance(node, _Key):
            return self._truth(node)
        if not isinstance(node, _Call):
            _refuse("InvalidOperand", node.at, "expected an expression")
        word, operands = node.value
        nodes = [operand for _, operand in operands]
        if word in _LOGIC:
            return _LOGIC[word](*[self._test(operand) for operand in nodes])
        if word in _ORDERS:
            return self._compared(_ORDERS[word], *nodes)
        if word in _TEXTS:
            return self._texts(_TEXTS[word], *nodes)
        if word == "in":
            return self._in(*nodes)
        named = _by_name(word, operands)
        if word == "matches":
            return self._matches(named["in"], named["pattern"])
        if word == "exists":
            return self._exists(named["key"])
        return self._split(named["pct"], named["by"], named.get("seed"))

    # Operands ----------------------------------------------------------------

    def _constant(self, node: _Node) -> Any:
        """Return what the node always is, _ABSENT if the context decides."""
        if isinstance(node, _Text):
            return node.value if self._dialect.fold is None else self._folded(node)
        if isinstance(node, _Bool):
            return node.value
        if isinstance(node, _Number):
            return node.number
        if isinstance(node, _Moment):
            return node.instant
        if isinstance(node, _List):
            _refuse("InvalidOperand", node.at, "a list is no operand here")
        return _ABSENT

    def _folded(self, node: _Node) -> str:
        assert self._dialect.fold is not None
        try:
            return self._dialect.fold(node.value)
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            return str(node.value)

    def _value(self, node: _Node) -> Callable[[Context], Any]:
        """Return a function from the context to a scalar, or to None."""
        if isinstance(node, _Call):
            return self._test(node)
        if isinstance(node, _Key):
            key, fold = node.value, self._dialect.fold
            if fold is None:
                return lambda context: scalar(context.get(key))

            def folded(context: Context) -> Any:
                value = scalar(context.get(key))
                if value.__class__ is not str:
                    return value
                try:
                    return fold(value)
                except Exception as exc:
                    if by_signal_handler(exc):
                        raise
                    return value

            return folded
        constant = self._constant(node)
        return lambda context: constant

    def _truth(self, node: _Node) -> Test:
        value, missing, coerce = self._value(node), self._missing, self._dialect.coerce

        def test(context: Context) -> bool:
            found = value(context)
            if coerce:
                found = bool_of(found)
            return found if found.__class__ is bool else missing()

        return test

    # Operators ---------------------------------------------------------------

    def _compared(self, order: _Order, left: _Node, right: _Node) -> Test:
        """Return a comparison of two operands."""
        if not isinstance(left, _Key) or isinstance(right, (_Key, _Call)):
            return self._compared_slowly(order, left, right)
        test = _Lazy(lambda: self._compared_slowly(order, left, right))
        key, constant, compare = left.value, self._constant(right), order.compare
        kind = constant.__class__
        if kind is str and self._dialect.fold is None and order.of_equality:

            def text_test(context: Context) -> bool:
                value = context.get(key)
                if type(value) is str:
                    return compare(value, constant)
                return test(context)

            return text_test
        if kind is int or kind is float:

            def number_test(context: Context) -> bool:
                value = context.get(key)
                if type(value) is int or type(value) is float:
                    return compare(value, constant)
                return test(context)

            return number_test
        return test

    def _compared_slowly(self, order: _Order, left: _Node, right: _Node) -> Test:
        """Return a comparison of two operands of any types."""
        pair = self._pair(left, right)
        judged = self._judged(order)
        first, second = self._value(left), self._value(right)
        return lambda context: judged(pair(first(context), second(context)))

    def _judged(self, order: _Order) -> Callable[[Any], bool]:
        """Return what becomes of a pair of values, or of a reason for none."""
        missing, compare = self._missing, order.compare
        of_equality, order_text = order.of_equality, self._dialect.order_text

        def judged(pair: Any) -> bool:
            if pair is None:
                return missing()
            if not of_equality and (
                pair is _DIFFERENT
                or pair[0].__class__ is bool
                or (pair[0].__class__ is str and not order_text)
            ):
                return missing()
            return compare(*pair)

        return judged

    def _pair(self, left: _Node, right: _Node) -> Callable[[Any, Any], Any]:
        """
        Return a function that makes two scalars comparable.

        To (scalar, scalar), to _DIFFERENT if they can only differ, and to None
        if one is missing.
        """
        coerce = self._dialect.coerce
        fixed = [not isinstance(node, (_Key, _Call)) for node in (left, right)]

        def pair(first: Any, second: Any) -> Any:
            if first is None or second is None:
                return None
            one, other = _KINDS[first.__class__], _KINDS[second.__class__]
            if one is other:
                return first, second
            if not coerce:
                return _DIFFERENT
            if fixed[0] == fixed[1]:
                read = max(one, other, key=_rank)[1]
            else:
                read = one[1] if fixed[0] else other[1]
            both = read(first), read(second)
            return _DIFFERENT if None in both else both

        return pair

    def _texts(
        self, compare: Callable[[str, str], bool], left: _Node, right: _Node
    ) -> Test:
        """Return an operator of two texts."""
        fold = self._dialect.fold
        if not (isinstance(left, _Key) and isinstance(right, _Text)) or fold:
            return self._texts_slowly(compare, left, right)
        test = _Lazy(lambda: self._texts_slowly(compare, left, right))
        key, constant = left.value, right.value

        def text_test(context: Context) -> bool:
            value = context.get(key)
            if type(value) is str:
                return compare(value, constant)
            return test(context)

        return text_test

    def _texts_slowly(
        self, compare: Callable[[str, str], bool], left: _Node, right: _Node
    ) -> Test:
        """Return an operator of any two operands, as texts."""
        first, second = self._text(left), self._text(right)
        missing = self._missing

        def test(context: Context) -> bool:
            one, other = first(context), second(context)
            if one is None or other is None:
                return missing()
            return compare(one, other)

        return test

    def _text(self, node: _Node) -> Callable[[Context], str | None]:
        """Return a function from the context to a text, or to None."""
        value = self._value(node)
        if self._dialect.coerce:
            return lambda context: text_of(value(context))

        def text(context: Context) -> str | None:
            found = value(context)
            return found if found.__class__ is str else None

        return text

    def _in(self, left: _Node, right: _Node) -> Test:
        """Return whether a value is one of some constants."""
        if not isinstance(right, _List):
            _refuse("InvalidOperand", right.at, "in takes a list")
        for node in right.value:
            if isinstance(node, _Key):
                _refuse("InvalidOperand", node.at, "a list is of constants")
        constants = [self._constant(node) for node in right.value]
        texts = frozenset(each for each in constants if each.__class__ is str)
        if (
            not isinstance(left, _Key)
            or not all(each.__class__ is str for each in constants)
            or self._dialect.fold is not None
        ):
            return self._in_slowly(left, right, constants)
        test = _Lazy(lambda: self._in_slowly(left, right, constants))
        key = left.value

        def text_test(context: Context) -> bool:
            value = context.get(key)
            if type(value) is str:
                return value in texts
            return test(context)

        return text_test

    def _in_slowly(self, left: _Node, right: _Node, constants: list[Any]) -> Test:
        """Return whether any value is one of *constants*, of any types."""
        pair = self._pair(left, right)  # a list is as constant as what is in it
        value, missing = self._value(left), self._missing

        def test(context: Context) -> bool:
            found = value(context)
            if found is None:
                return missing()
            for constant in constants:
                both = pair(found, constant)
                if both is not _DIFFERENT and both[0] == both[1]:
                    return True
            return False

        return test

    def _matches(self, subject: _Node, pattern: _Node) -> Test:
        """Return whether a text matches a pattern that is made now."""
        if not isinstance(pattern, _Text):
            _refuse("InvalidOperand", pattern.at, "a pattern is a constant text")
        try:
            matches = patterns.compile(pattern.value, full=self._dialect.full_match)
        except patterns.UnsupportedError as exc:
            reason = f"{exc} (character {exc.at} of the pattern)"
        else:
            plain = self._plain(subject)
            missing = self._missing

            def test(context: Context) -> bool:
                value = plain(context)
                return missing() if value is None else matches(value)

            return test
        _refuse(
            "InvalidOperand",
            pattern.at,
            f"the pattern cannot be used: {reason}; what the subset leaves out"
            " needs google-re2",
        )

    def _plain(self, node: _Node) -> Callable[[Context], str | None]:
        """Return `_text` of the node without folding."""
        return _Compiler(self._flag, _unfolded(self._dialect))._text(node)

    def _exists(self, node: _Node) -> Test:
        """Return whether the context has a key."""
        if not isinstance(node, (_Text, _Key)):
            _refuse("InvalidOperand", node.at, "the name of a key is text")
        key, empty = node.value, self._dialect.empty_exists

        def test(context: Context) -> bool:
            value = context.get(key)
            return value is not None and (empty or scalar(value) != "")

        return test

    def _split(self, share: _Node, by: _Node, seed: _Node | None) -> Test:
        """Return whether a value is in the first percents of all."""
        if not isinstance(share, _Number) or not 0 <= share.number <= 100:
            _refuse("InvalidOperand", share.at, "pct is a number from 0 to 100")
        if seed is not None and not isinstance(seed, _Text):
            _refuse("InvalidOperand", seed.at, "a seed is text")
        dialect, missing, pct = self._dialect, self._missing, share.number
        bucket, inclusive = dialect.bucket, dialect.inclusive
        salt = seed.value if seed is not None else dialect.seed(self._flag)
        nodes = by.value if isinstance(by, _List) else (by,)
        if not nodes:
            _refuse("InvalidOperand", by.at, "by is empty")
        values = [self._plain(node) for node in nodes]

        def test(context: Context) -> bool:
            parts = []
            for value in values:
                part = value(context)
                if part is None:
                    return missing()
                parts.append(part)
            try:
                number = bucket(dialect.join.join(parts), salt)
                return bool(number <= pct if inclusive else number < pct)
            except Exception as exc:  # of a function of the user's
                if by_signal_handler(exc):
                    raise
                return missing()

        return test


class _Lazy:
    """A test that is compiled at its first call: few are ever called, and each takes memory."""

    __slots__ = ("_make", "_test")

    def __init__(self, make: Callable[[], Test]) -> None:
        self._make = make
        self._test: Test | None = None

    def __call__(self, context: Context) -> bool:
        test = self._test
        if test is None:
            test = self._test = self._make()
        return test(context)


class _Order:
    """How two comparable values are compared; whether different types may be."""

    __slots__ = ("compare", "of_equality")

    def __init__(
        self, compare: Callable[[Any, Any], bool], *, of_equality: bool = False
    ) -> None:
        self.compare = compare
        self.of_equality = of_equality


_DIFFERENT = (0, 1)  # two values that are not equal
_ORDERS = {
    "eq": _Order(operator.eq, of_equality=True),
    "ne": _Order(operator.ne, of_equality=True),
    "gt": _Order(operator.gt),
    "gte": _Order(operator.ge),
    "lt": _Order(operator.lt),
    "lte": _Order(operator.le),
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "begins_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}


def _rank(kind: tuple[int, Any]) -> int:
    return kind[0]


def _never() -> bool:
    """A missing operand makes its operator false."""
    return False


def _fail() -> bool:
    """A missing operand makes the rule false."""
    raise _MissingError


def _unfolded(dialect: Dialect) -> Dialect:
    return Dialect(undefined=dialect.undefined, coerce=dialect.coerce)


def _and(*tests: Test) -> Test:
    if len(tests) == 2:
        one, two = tests
        return lambda context: one(context) and two(context)
    if len(tests) == 3:
        one, two, three = tests
        return lambda context: one(context) and two(context) and three(context)

    def test(context: Context) -> bool:
        for each in tests:  # noqa: SIM110  all() makes a generator
            if not each(context):
                return False
        return True

    return test


def _or(*tests: Test) -> Test:
    if len(tests) == 2:
        one, two = tests
        return lambda context: one(context) or two(context)

    def test(context: Context) -> bool:
        for each in tests:  # noqa: SIM110  any() makes a generator
            if each(context):
                return True
        return False

    return test


def _not(test: Test) -> Test:
    return lambda context: not test(context)


_LOGIC: dict[str, Callable[..., Test]] = {"and": _and, "or": _or, "not": _not}
