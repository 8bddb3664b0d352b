"""
The errors of flags, which `lambda_ext.exceptions` shows with all the others.
"""

from __future__ import annotations

from .exceptions import LambdaExtError


class FlagError(LambdaExtError):
    """A flag could not be evaluated; *flag* is its name, "" if it has none."""

    flag: str

    def __init__(self, message: str, *, flag: str = "") -> None:
        super().__init__(message)
        self.flag = flag


class UnknownFlagError(FlagError, LookupError):
    """The document has no flag of this name; *nearest* is one that looks like it."""

    nearest: str

    def __init__(self, message: str, *, flag: str = "", nearest: str = "") -> None:
        super().__init__(message, flag=flag)
        self.nearest = nearest


class InvalidDocumentError(FlagError, ValueError):
    """
    A document, or one flag of it, is not what AppConfig specifies.

    *location* says where ("values.checkout._variants[0].rule").  The message
    never quotes a value of the document.
    """

    location: str

    def __init__(self, message: str, *, flag: str = "", location: str = "") -> None:
        super().__init__(message, flag=flag)
        self.location = location


class RuleError(InvalidDocumentError):
    """
    A rule is refused before it is evaluated.

    *reason* is the service's word where it has one: "NotAnExpression",
    "UnknownSymbol", "TooFewOperands"; else one of ours: "TooManyOperands",
    "InvalidOperand", "TooLong", "TooDeep".  *position* is the index in the
    text of the first character that is wrong.
    """

    reason: str
    position: int

    def __init__(self, message: str, *, reason: str = "", position: int = 0) -> None:
        super().__init__(message, location="rule")
        self.reason = reason
        self.position = position


for _each in (FlagError, UnknownFlagError, InvalidDocumentError, RuleError):
    _each.__module__ = "lambda_ext.exceptions"  # where programs find them
