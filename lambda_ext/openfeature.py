"""
AppConfig's flags behind OpenFeature: a provider over `lambda_ext.Flags`.

    from openfeature import api
    from lambda_ext import Flags
    from lambda_ext.openfeature import AppConfigProvider

    api.set_provider_and_wait(AppConfigProvider(Flags("orders", "prod", "features")))
    client = api.get_client()
    client.get_boolean_value("new-checkout", False, EvaluationContext("user-7"))

Needs the extra ``openfeature`` (openfeature-sdk 0.10).  Set the provider with
``set_provider_and_wait``, at module scope: ``set_provider`` initialises it on a
thread of its own, which a freeze may stop half-way.

Which flag, which value
    A boolean is whether the flag is enabled.  Any other type is an attribute:
    of the key "checkout.color" the attribute "color" of the flag "checkout",
    of a key without a dot the attribute that *attribute* names.  A boolean may
    be an attribute, too, by its dot.  (AppConfig's own names have no dots.)

    The variant, the reason and ``flag_metadata`` ("version", "enabled") are
    those of the `Evaluation`.  A flag that is off has no attributes: the
    default, with the reason DISABLED or that of the variant.

Errors
    FLAG_NOT_FOUND for an unknown flag or attribute, TYPE_MISMATCH for an
    attribute of another type, PARSE_ERROR for a malformed flag or document,
    INVALID_CONTEXT for a context that AppConfig's agent cannot be sent,
    PROVIDER_NOT_READY while there is no document, GENERAL for an evaluation
    that the agent failed to make.

Events
    READY and ERROR come from the SDK, once the first document is there, or is
    not; READY from the first evaluation that succeeds after that;
    CONFIGURATION_CHANGED with the names that changed, from the thread that
    polled; STALE from the first evaluation of a document that is older than it
    should be, and READY from the first one that is not any more.

Threads
    Everything may be called from any number of threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

try:
    import openfeature as _sdk  # noqa: F401  a message, where it is missing
except ModuleNotFoundError as exc:
    _msg = (
        "lambda_ext.openfeature needs the OpenFeature SDK:"
        " pip install 'lambda-ext[openfeature]'"
    )
    raise ModuleNotFoundError(_msg, name=exc.name) from exc

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import (
    ErrorCode,
    GeneralError,
    ProviderFatalError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from .exceptions import (
    ConfigurationError,
    DecodeError,
    FlagError,
    InvalidDocumentError,
    LambdaExtError,
    UnknownFlagError,
)
from .flags.document import ERROR, STALE, Document, Evaluation
from .flags.flags import Flags
from .lifecycle import process

__all__ = ("AppConfigProvider",)

T = TypeVar("T")
Object = Sequence[FlagValueType] | Mapping[str, FlagValueType]
Track = Callable[[str, EvaluationContext | None, TrackingEventDetails | None], object]


class Unavailable(Evaluation):
    """An evaluation that could not be made: there is no document, or no such flag."""

    __slots__ = ()


_lock = process.Lock()


class AppConfigProvider(AbstractProvider):
    """
    Answer OpenFeature's evaluations from *flags*, in memory, as `Flags` does.

    ``initialize``, hence ``set_provider_and_wait``, loads the document and waits
    for AppConfig; after that polls happen in the background.

    Args:
        flags: Whose flags; by default ``Flags()``, which ``LAMBDA_EXT_FLAGS``
            names.
        attribute: The attribute that is the value of a flag, for all types but
            booleans, where the key names none.
        targeting_key: What rules call the targeting key: ``$targetingKey``.
        on_track: Called with the arguments of ``track()``; without it tracking
            does nothing.

    Raises:
        ConfigurationError: *flags* is no `Flags`, a name no text, or *on_track* no
            function.
    """

    def __init__(
        self,
        flags: Flags | None = None,
        *,
        attribute: str = "value",
        targeting_key: str = "targetingKey",
        on_track: Track | None = None,
    ) -> None:
        super().__init__()
        if flags is None:
            flags = Flags()
        if not isinstance(flags, Flags):
            msg = f"AppConfigProvider(flags=...) takes a Flags, not {type(flags).__name__}"  # type: ignore[unreachable]  # not every caller checks types
            raise ConfigurationError(msg)
        known: dict[str, object] = {
            "attribute": attribute,
            "targeting_key": targeting_key,
        }
        for name, given in known.items():
            if not isinstance(given, str) or not given:
                msg = f"AppConfigProvider({name}=...) takes a name, as text"
                raise ConfigurationError(msg)
        if on_track is not None and not callable(on_track):
            msg = "AppConfigProvider(on_track=...) takes a function"  # type: ignore[unreachable]  # as above
            raise ConfigurationError(msg)
        self._flags = flags
        self._attribute = attribute
        self._targeting_key = targeting_key
        self._on_track = on_track
        self._is_stale = False
        self._document: Document | None = None
        self._listens = False
        self._has_failed = False  # to initialise, and has not recovered

    def __repr__(self) -> str:
        return f"<AppConfigProvider {self._flags!r}>"

    def get_metadata(self) -> Metadata:
        """Return the name of the provider."""
        return Metadata(name="AWS AppConfig (lambda_ext)")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Load the document; waits for AppConfig if it is not in memory."""
        self._is_stale = False
        try:
            self._begin()
        except ConfigurationError as exc:
            raise ProviderFatalError(str(exc)) from exc
        except LambdaExtError as exc:
            self._has_failed = True
            raise GeneralError(str(exc)) from exc

    def _begin(self) -> None:
        """Load the document, and follow its changes."""
        document = self._flags.value
        assert isinstance(document, Document)
        self._document = document
        self._has_failed = False
        if not self._listens:
            self._listens = True
            self._flags.on_change(self._changed)

    def shutdown(self) -> None:
        """Emit no more events; the flags themselves live on."""
        self._has_failed = False
        self._document = None

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Hand the event to *on_track*."""
        if self._on_track is not None:
            self._on_track(
                tracking_event_name, evaluation_context, tracking_event_details
            )

    # Resolution ----------------------------------------------------------------

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Return whether the flag is enabled, or a boolean attribute of it."""
        if "." in flag_key:
            return self._attribute_of(
                flag_key, default_value, evaluation_context, _boolean
            )
        found = self._evaluated(flag_key, evaluation_context)
        if found.error is not None:
            return _failed(default_value, found)
        return FlagResolutionDetails(
            found.enabled, None, None, found.reason, found.variant, _metadata(found)
        )

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """Return an attribute that is text."""
        return self._attribute_of(flag_key, default_value, evaluation_context, _string)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """Return an attribute that is a whole number."""
        return self._attribute_of(flag_key, default_value, evaluation_context, _integer)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """Return an attribute that is a number."""
        return self._attribute_of(flag_key, default_value, evaluation_context, _float)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Object,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Object]:
        """Return an attribute that is a list or an object."""
        return self._attribute_of(flag_key, default_value, evaluation_context, _object)

    async def resolve_boolean_details_async(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Return what `resolve_boolean_details` does; the event loop goes on."""
        return await self._aside(
            self.resolve_boolean_details, flag_key, default_value, evaluation_context
        )

    async def resolve_string_details_async(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """Return what `resolve_string_details` does; the event loop goes on."""
        return await self._aside(
            self.resolve_string_details, flag_key, default_value, evaluation_context
        )

    async def resolve_integer_details_async(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """Return what `resolve_integer_details` does; the event loop goes on."""
        return await self._aside(
            self.resolve_integer_details, flag_key, default_value, evaluation_context
        )

    async def resolve_float_details_async(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """Return what `resolve_float_details` does; the event loop goes on."""
        return await self._aside(
            self.resolve_float_details, flag_key, default_value, evaluation_context
        )

    async def resolve_object_details_async(
        self,
        flag_key: str,
        default_value: Object,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Object]:
        """Return what `resolve_object_details` does; the event loop goes on."""
        return await self._aside(
            self.resolve_object_details, flag_key, default_value, evaluation_context
        )

    async def _aside(
        self,
        resolve: Callable[..., FlagResolutionDetails[T]],
        flag_key: str,
        default_value: T,
        evaluation_context: EvaluationContext | None,
    ) -> FlagResolutionDetails[T]:
        """Resolve without blocking the event loop by a load or by the agent."""
        if self._flags.may_wait():
            return await asyncio.to_thread(
                resolve, flag_key, default_value, evaluation_context
            )
        return resolve(flag_key, default_value, evaluation_context)

    def _attribute_of(
        self,
        flag_key: str,
        default_value: T,
        evaluation_context: EvaluationContext | None,
        read: Callable[[Any], Any],
    ) -> FlagResolutionDetails[T]:
        name, dot, key = flag_key.partition(".")
        if not dot:
            key = self._attribute
        found = self._evaluated(name, evaluation_context)
        if found.error is not None:
            return _failed(default_value, found)
        value = found.attribute(key)
        metadata = _metadata(found)
        if value is None:
            if not found.enabled:
                return FlagResolutionDetails(
                    default_value, None, None, found.reason, found.variant, metadata
                )
            text = f"the flag {name!r} has no attribute {key!r}"
            return _error(default_value, ErrorCode.FLAG_NOT_FOUND, text, found)
        value = read(value)
        if value is None:
            text = f"the attribute {key!r} of the flag {name!r} is of another type"
            return _error(default_value, ErrorCode.TYPE_MISMATCH, text, found)
        return FlagResolutionDetails(
            value, None, None, found.reason, found.variant, metadata
        )

    def _evaluated(
        self, name: str, evaluation_context: EvaluationContext | None
    ) -> Evaluation:
        context: Mapping[str, Any] = {}
        if evaluation_context is not None:
            context = evaluation_context.attributes
            key = evaluation_context.targeting_key
            if key is not None:
                context = {**context, self._targeting_key: key}
            elif context.__class__ is not dict:
                context = dict(context)
        try:
            found = self._flags.evaluate(name, context)
        except LambdaExtError as exc:
            return Unavailable(name, enabled=False, reason=ERROR, error=exc)
        if self._has_failed and found.error is None:
            self._recovered()
        if (found.reason == STALE) is not self._is_stale and found.error is None:
            self._turned(is_stale=found.reason == STALE)
        return found

    # Events --------------------------------------------------------------------

    def _recovered(self) -> None:
        """Say that there is a document now; once, though many threads find it."""
        with _lock:
            if not self._has_failed:
                return
            self._has_failed = False
        try:
            self._begin()
        except LambdaExtError:  # it is gone again
            self._has_failed = True
            return
        if hasattr(self, "_on_emit"):
            self.emit_provider_ready(ProviderEventDetails())

    def _turned(self, *, is_stale: bool) -> None:
        self._is_stale = is_stale
        if self._document is None or not hasattr(self, "_on_emit"):
            return
        if is_stale:
            text = "no poll has succeeded for longer than its interval"
            self.emit_provider_stale(ProviderEventDetails(message=text))
        else:
            self.emit_provider_ready(ProviderEventDetails())

    def _changed(self, flags: Flags) -> None:
        before = self._document
        if before is None:
            return
        after = flags.value
        assert isinstance(after, Document)
        self._document = after
        if hasattr(self, "_on_emit"):
            details = ProviderEventDetails(flags_changed=after.changed_since(before))
            self.emit_provider_configuration_changed(details)


def _metadata(found: Evaluation) -> dict[str, bool | int | float | str]:
    return {"version": found.version, "enabled": found.enabled}


def _failed(default_value: T, found: Evaluation) -> FlagResolutionDetails[T]:
    """Return what an evaluation with an error is in OpenFeature's words."""
    error = found.error
    if isinstance(error, UnknownFlagError):
        code = ErrorCode.FLAG_NOT_FOUND
    elif isinstance(error, (InvalidDocumentError, DecodeError)):
        code = ErrorCode.PARSE_ERROR
    elif isinstance(error, FlagError):
        code = ErrorCode.INVALID_CONTEXT
    elif isinstance(found, Unavailable):
        code = ErrorCode.PROVIDER_NOT_READY
    else:  # there is a document: the agent failed
        code = ErrorCode.GENERAL
    return _error(default_value, code, str(error), found)


def _error(
    default_value: T, code: ErrorCode, text: str, found: Evaluation
) -> FlagResolutionDetails[T]:
    return FlagResolutionDetails(
        default_value, code, text, ERROR, None, _metadata(found)
    )


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():  # 5.0 in JSON is 5
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _object(value: Any) -> Object | None:
    return value if isinstance(value, (dict, list)) else None
