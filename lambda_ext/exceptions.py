"""
Every error that this library raises.

    LambdaExtError
      ConfigurationError (ValueError)     a wrong, unknown or unusable option
      SourceError                         a value could not be had
        NotFoundError (LookupError)       there is no such secret or parameter
        AccessDeniedError                 the role may not read or decrypt it
        ThrottledError                    AWS asks for fewer calls
        SourceTimeoutError (TimeoutError) no answer in time
      DecodeError (ValueError)            a value is not what `transform` wants
      FlagError                           a flag could not be evaluated
        UnknownFlagError (LookupError)    there is no such flag
        InvalidDocumentError (ValueError) a document, or one flag of it, is malformed
          RuleError                       a rule is refused
      MetricError (ValueError)            a bad metric; raised in strict mode
      ExtensionError                      registration with Lambda was refused

A `SourceError` says what was asked for, never what was answered: no message
in this tree holds a secret or a parameter value.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .flag_errors import (
        FlagError,
        InvalidDocumentError,
        RuleError,
        UnknownFlagError,
    )
else:

    def __getattr__(name):
        if name not in ("FlagError", "InvalidDocumentError", "RuleError",
                        "UnknownFlagError"):  # fmt: skip
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        # To make a class takes 15 microseconds, and few programs have flags.
        from importlib import import_module

        value = getattr(import_module(".flag_errors", __package__), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = (
    "AccessDeniedError",
    "ConfigurationError",
    "DecodeError",
    "ExtensionError",
    "FlagError",
    "InvalidDocumentError",
    "LambdaExtError",
    "MetricError",
    "NotFoundError",
    "RuleError",
    "SourceError",
    "SourceTimeoutError",
    "ThrottledError",
    "UnknownFlagError",
)


class LambdaExtError(Exception):
    """The root of every error that this library raises."""

    wire: Any = None  # for `lambda_ext.client`: an `aws.errors.WireFailure`


class ConfigurationError(LambdaExtError, ValueError):
    """An option, an environment variable or an argument cannot be used."""


class SourceError(LambdaExtError):
    """
    A value could not be fetched, and there is none to serve instead.

    *key* is what the caller asked for, *source* where it was asked
    ("secrets_manager", "parameter_store", ...), *code* the error code of AWS
    ("" where there is none) and *transient* whether asking again may help.
    *retry_after_s* is for how many seconds AWS asked not to be asked again.

    A source of your own may set two more: *keep* to False, and the error
    reaches those who wait for it and changes nothing that is remembered;
    *original* to the exception that it stands for.
    """

    key: str
    source: str
    code: str
    transient: bool
    retry_after_s: float | None = None
    keep: bool = True
    original: BaseException | None = None

    def __init__(
        self,
        message: str,
        *,
        key: str = "",
        source: str = "",
        code: str = "",
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.key = key
        self.source = source
        self.code = code
        self.transient = transient


class NotFoundError(SourceError, LookupError):
    """
    There is no such secret, version, stage, parameter or label.

    A secret that is scheduled for deletion counts as gone; *code* tells it
    apart ("InvalidRequestException").
    """


class AccessDeniedError(SourceError):
    """The role may not read this value, or not use the key that encrypts it."""


class ThrottledError(SourceError):
    """AWS refused the call because there were too many."""


class SourceTimeoutError(SourceError, TimeoutError):
    """AWS did not answer within the time that was left."""


class DecodeError(LambdaExtError, ValueError):
    """
    A value was fetched, but *transform* or *field* could not be applied.

    The message names the *key*, and never quotes the value.
    """

    key: str

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class MetricError(LambdaExtError, ValueError):
    """
    A metric was refused; raised only in strict mode, else counted.

    *reason* is the word under which it would have been counted ("unit", ...).
    """

    reason: str

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ExtensionError(LambdaExtError):
    """
    Lambda's Extensions API refused to register this process.

    Never raised into a handler: it is logged once and kept as the reason.
    *error_type* is the API's own ("Extension.RegistrationClosed", ...).
    """

    error_type: str

    def __init__(self, message: str, *, error_type: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type
