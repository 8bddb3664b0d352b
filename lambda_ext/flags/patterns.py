r"""
Regular expressions that cannot hang: a subset for `re`, the rest for RE2.

    expression  = branch { "|" branch }
    branch      = { item [ "*" | "+" | "?" | "{n}" | "{n,}" | "{n,m}" ] }
    item        = character | "." | class | "^" | "$" | "(" expression ")"
    class       = "[" ["^"] { character | a "-" z | \d \w \s } "]" | \d \D \w \W \s \S

A group may be written ``(?:...)`` and takes no repeat.  ``*``, ``+`` and
``{n,}`` repeat without a bound: one of them in the whole pattern.  Bounds are
at most 1,000.  The meaning is RE2's: ``\d``, ``\w`` and ``\s`` are ASCII,
``.`` is anything but a line feed, ``$`` is the end of the text alone.

`re` backtracks: a pattern is refused when its `Parser.steps`, an upper bound
of what one search can take on a subject of 1,024 characters, exceed
`MAX_STEPS`.  What is refused is given to google-re2 if that is installed
(linear in the subject for every pattern), else it is an error.

Source of the dialect: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SUBJECT = 1024  # characters; a longer subject does not match
MAX_REPEAT = 1000  # RE2's bound of a counted repeat
MAX_STEPS = 1 << 25  # at most about 0.2 s
MAX_DEPTH = 20  # of groups
_CLASSES = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": r"\t\n\f\r ",
}
_CHARACTERS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_COUNTED = re.compile(r"\{([0-9]{1,4})(?:(,)([0-9]{1,4})?)?\}")


class UnsupportedError(ValueError):
    """The pattern is outside of the subset; *at* is where in it."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def compile(pattern: str, *, full: bool = False) -> Callable[[str], bool]:
    """
    Return a function that says whether a text matches *pattern*.

    Anywhere in the text, or with *full* the text as a whole.  A text of more
    than 1,024 characters does not match.

    Raises:
        UnsupportedError: the pattern is outside of the subset, and google-re2
            is not installed or refuses it, too.
    """
    try:
        translated = Parser(pattern, full=full).translate()
    except UnsupportedError as exc:
        search = _re2(pattern, full=full)
        if search is None:
            raise
        if isinstance(search, str):
            raise UnsupportedError(search, 0) from exc
    else:
        search = re.compile(translated).search

    def matches(subject: str) -> bool:
        return len(subject) <= MAX_SUBJECT and search(subject) is not None

    return matches


def _re2(pattern: str, *, full: bool) -> Callable[[str], object] | str | None:
    """Return RE2's search for *pattern*, why it refuses, or None without RE2."""
    # Only what the subset refuses needs it.
    try:
        import re2
    except ImportError:
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else b""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else ""
        return f"google-re2 refuses it: {text}"
    search = compiled.fullmatch if full else compiled.search

    def found(subject: str) -> object:
        try:
            return search(subject)
        except UnicodeEncodeError:  # half a surrogate pair
            return None

    return found


class Parser:
    """
    One pattern of the subset, translated for `re`.

    `steps` bounds what a search may take, for a subject of MAX_SUBJECT
    characters: the places where it may begin, times the ways through the
    choices and repeats, times the length of the pattern.
    """

    def __init__(self, pattern: str, *, full: bool = False) -> None:
        self._pattern = pattern
        self._full = full
        self._at = 0
        self._depth = 0
        self._unbounded = False
        self._ways = 1
        self._items = 1

    @property
    def steps(self) -> int:
        """An upper bound of the steps of one search."""
        return self._starts * self._ways * self._items

    def translate(self) -> str:
        """Return what `re` is to compile; raise UnsupportedError."""
        self._starts = MAX_SUBJECT
        if not self._full:
            self._strip()
        body = self._expression()
        if self._at < len(self._pattern):
            raise UnsupportedError("an unmatched )", self._at)
        if self._full:
            body = rf"\A(?:{body})\Z"
        if self._full or self._is_anchored():
            self._starts = 1
        if self.steps > MAX_STEPS:
            msg = "it may take too long: begin it with ^, or use fewer choices"
            raise UnsupportedError(msg, 0)
        return body

    def _strip(self) -> None:
        """Leave out each ``.*`` at the ends, which a search does not need."""
        while self._pattern.startswith(".*", self._at) and (
            self._pattern[self._at + 2 : self._at + 3] not in ("*", "+", "?", "{")
        ):
            self._at += 2
        body = self._pattern
        while body.endswith(".*", self._at) and not _is_escaped(body, len(body) - 2):
            body = body[:-2]
        self._pattern = body

    def _is_anchored(self) -> bool:
        return self._pattern.startswith("^") and not self._top_level_choice

    _top_level_choice = False

    def _expression(self) -> str:
        branches = [self._branch()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._branch())
        if len(branches) > 1:
            self._ways *= len(branches)
            if not self._depth:
                self._top_level_choice = True
        return "|".join(branches)

    def _branch(self) -> str:
        items = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._repeated())
        return "".join(items)

    def _repeated(self) -> str:
        at = self._at
        first = self._peek()
        item = self._item()
        repeat = self._repeat()
        if not repeat:
            self._items += 1
            return item
        if first in "(^$":
            raise UnsupportedError("a repeat of more than one character", at)
        if self._peek() in ("*", "+", "?") or _COUNTED.match(self._pattern, self._at):
            raise UnsupportedError("a repeat of a repeat", self._at)
        return item + repeat

    def _repeat(self) -> str:
        sign, at = self._peek(), self._at
        if sign in ("*", "+", "?") and sign:
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
            self._at += 1
        else:
            counted = _COUNTED.match(self._pattern, self._at)
            if counted is None:
                if sign == "{":
                    raise UnsupportedError("a { that is no repeat: write \\{", at)
                return ""
            self._at = counted.end()
            low = int(counted[1])
            high = int(counted[3]) if counted[3] else None if counted[2] else low
        if low > MAX_REPEAT or (high or 0) > MAX_REPEAT or low > (high or low):
            raise UnsupportedError("a repeat out of range", at)
        if high is None:
            if self._unbounded:
                raise UnsupportedError("a second repeat without a bound", at)
            self._unbounded = True
        self._ways *= MAX_SUBJECT if high is None else high - low + 1
        self._items += max(low, 1)
        return f"{{{low},{'' if high is None else high}}}"

    def _item(self) -> str:
        char, at = self._peek(), self._at
        self._at += 1
        if char == "(":
            return self._group(at)
        if char == "[":
            return self._class(at)
        if char == "\\":
            return self._escape()
        if char == "^":
            return r"\A"
        if char == "$":
            return r"\Z"
        if char == ".":
            return r"[^\n]"
        if char in "*+?":
            raise UnsupportedError(f"a {char} that repeats nothing", at)
        if char == "{":
            raise UnsupportedError("a { that is no repeat: write \\{", at)
        return _literal(char)

    def _group(self, at: int) -> str:
        if self._pattern.startswith("?:", self._at):
            self._at += 2
        elif self._peek() == "?":
            raise UnsupportedError("a group that is neither (...) nor (?:...)", at)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnsupportedError("groups nested too deeply", at)
        body = self._expression()
        self._depth -= 1
        if self._peek() != ")":
            raise UnsupportedError("a missing )", at)
        self._at += 1
        return f"(?:{body})"

    def _escape(self) -> str:
        char, at = self._peek(), self._at
        self._at += 1
        if char.lower() in _CLASSES and char:
            negated = "^" if char.isupper() else ""
            return f"[{negated}{_CLASSES[char.lower()]}]"
        return _literal(self._escaped(char, at))

    @staticmethod
    def _escaped(char: str, at: int) -> str:
        """Return the character that a backslash and *char* stand for."""
        if char in _CHARACTERS:
            return _CHARACTERS[char]
        if not char or char.isalnum() or not char.isascii():
            raise UnsupportedError("an escape that is not of the subset", at)
        return char

    def _class(self, at: int) -> str:
        negated = self._peek() == "^"
        self._at += negated
        parts: list[str] = []
        while self._peek() != "]" or not parts:
            if not self._peek():
                raise UnsupportedError("a missing ]", at)
            parts.append(self._range())
        self._at += 1
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _range(self) -> str:
        at = self._at
        low = self._member()
        if len(low) > 1:
            return low
        if self._peek() != "-" or self._pattern[self._at + 1 : self._at + 2] == "]":
            return _literal(low)
        self._at += 1
        high = self._member()
        if len(high) > 1 or high < low:
            raise UnsupportedError("a range that is none", at)
        return f"{_literal(low)}-{_literal(high)}"

    def _member(self) -> str:
        """Return one character, or the longer text of a class inside a class."""
        char, at = self._peek(), self._at
        self._at += 1
        if char == "[" and self._peek() in (":", ".", "="):
            raise UnsupportedError("a class of POSIX", at)
        if char != "\\":
            if not char:
                raise UnsupportedError("a missing ]", at)
            return char
        char = self._peek()
        self._at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        return self._escaped(char, at)

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]


def _is_escaped(pattern: str, at: int) -> bool:
    before = pattern[:at]
    return (at - len(before.rstrip("\\"))) % 2 == 1


def _literal(char: str) -> str:
    """Return *char* as `re` takes it anywhere, also inside of a class."""
    return char if char.isalnum() or ord(char) > 127 else "\\" + char
