"""
`Flags`: AppConfig's feature flags, evaluated in this process.

A read of a flag that no context changes is one look-up and one clock; one with
rules runs functions that were made of them once.  The document behind them is
polled as every `Configuration` is.

Reasons, in OpenFeature's words
    STATIC            a flag without variants, or with just one
    DISABLED          likewise, and it is off
    TARGETING_MATCH   a rule was true
    SPLIT             likewise, and it divides traffic
    DEFAULT           no rule was true, or there was no context
    STALE             any of these, from a document older than it should be
    UNKNOWN           AppConfig's agent chose, and does not say why
    ERROR             there is no result; `Evaluation.error` says why

Where rules come from
    AppConfig's data plane hands out a feature flag profile without its rules:
    of a flag with variants only the default one (reason DEFAULT).  Rules come
    with a freeform profile that holds the flag document, with AppConfig's
    agent (``flags_source="agent"``), or with a local file.

Errors
    Without a default given, what cannot be evaluated raises: an unknown flag,
    a malformed one, a context that the agent cannot be sent, a document that
    cannot be had.  With a default it is the default, counted, and logged once
    for each flag.

Threads
    Any number may evaluate.  A listener runs in the thread that evaluates.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import callables, config, disclosure, exceptions
from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock, process
from ..values import keys, store
from ..values.calls import copied, withheld
from ..values.settings import DEFAULT
from .configuration import Polled
from .dialect import DEFAULT as DEFAULT_DIALECT
from .dialect import Dialect
from .document import ERROR, LONGEST_NAME, STALE, Document, Evaluation, Exposure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ..typing import Source
    from ..values.cache import View, Want
    from ..values.handles import Age
    from .rules import Context

    Listener = Callable[[Exposure], object]
    L = TypeVar("L", bound=Listener)

_PLAIN = frozenset((dict, type(None)))  # contexts that need no second look
MAX_NAMES = 1000  # of flags that are counted by name; the rest is one
OTHERS = "(other flags)"
UNNAMED = "(LAMBDA_EXT_FLAGS)"


class _Raise:
    """The absence of a default."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<raise>"


RAISE: Any = _Raise()

# How often a default was served, by flag.
defaulted: dict[str, int] = {}
_lock = process.Lock()
process.at_reset(defaulted.clear)


class Flags(Polled[object]):
    """
    The feature flags of one configuration of AppConfig; declaring loads nothing.

    What is declared when `handler` decorates, or at `start()`, is loaded then,
    beside secrets and parameters; what is declared later, when a flag is first
    asked for.  From then on no evaluation waits, see `Configuration`.

    Args:
        application, environment, profile: Names or ids.  Without them the
            option ``flags`` (``LAMBDA_EXT_FLAGS``) says all three.
        poll_interval: Seconds, from 1 to 86,400, or a timedelta, between two
            polls; AppConfig may ask for more, and then gets it.  None polls
            once.  Default: `configure()`, 45.
        max_stale: Seconds past one and a half intervals for which a document
            serves, without a wait, while no poll succeeds; 0 = none, None =
            without limit.  Default: `configure()`, 3,600.
        dialect: What rules mean where AWS does not say, see
            `lambda_ext.flags.rules`.
        source: Another source than AppConfig; see `lambda_ext.typing.Source`.
        client: A boto3 client of "appconfigdata", to ask through.
        session: A boto3 session, to make the client from.

    Raises:
        ConfigurationError: an argument cannot be used.

    Source: Feature flag type reference,
    https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-type-reference-feature-flags.html
    """

    __slots__ = ("_dialect", "_listeners_of_all", "_warned_of_rules")

    def __init__(
        self,
        application: str | None = None,
        environment: str | None = None,
        profile: str | None = None,
        *,
        poll_interval: Age | str = DEFAULT,
        max_stale: Age = DEFAULT,
        dialect: Dialect = DEFAULT_DIALECT,
        source: Source | None = None,
        client: Any = None,
        session: Any = None,
    ) -> None:
        given = [part is not None for part in (application, environment, profile)]
        if any(given) and not all(given):
            msg = (
                "Flags(application, environment, profile) takes three arguments: pass"
                " all three, or none"
            )
            raise ConfigurationError(msg)
        if not isinstance(dialect, Dialect):
            msg = f"dialect= takes a lambda_ext.flags.rules.Dialect, not {type(dialect).__name__}"  # type: ignore[unreachable]  # not every caller checks types
            raise ConfigurationError(msg)
        self._dialect = dialect
        self._listeners_of_all: tuple[Listener, ...] = ()
        self._warned_of_rules = False
        super().__init__(
            UNNAMED if application is None else application,
            UNNAMED if environment is None else environment,
            UNNAMED if profile is None else profile,
            transform=self._parsed,
            poll_interval=poll_interval,
            max_stale=max_stale,
            source=source,
            client=client,
            session=session,
        )

    def enabled(
        self, name: str, context: Context | None = None, default: bool = RAISE
    ) -> bool:
        """
        Return whether the flag *name* is on for *context*.

        Waits for AppConfig only if there is no document yet, or none that may
        serve.

        Args:
            name: The flag's key.
            context: What rules ask for, by name; None means the default variant.
            default: Returned instead of raising.

        Raises:
            UnknownFlagError: there is no such flag; the message has the nearest.
            InvalidDocumentError: the flag, or the document, is malformed.
            SourceError: there is no document.
            ConfigurationError: *context* is not a mapping.
        """
        view = self._view
        if clock.monotonic() + clock.lead < view.until and not self._listeners_of_all:
            document = view.value
            enabled = document.plain.get(name)
            if enabled is not None:
                return enabled  # type: ignore[no-any-return]
            flag = document.parsed.get(name)
            if flag is not None and flag.is_local and context.__class__ in _PLAIN:
                for test, evaluation in flag.tests if context is not None else ():
                    if test(context):
                        return evaluation.enabled  # type: ignore[no-any-return]
                return flag.default.enabled  # type: ignore[no-any-return]
        if default is RAISE:
            evaluation = self.evaluate(name, context)
            if evaluation.error is not None:
                raise copied(evaluation.error)
            return evaluation.enabled
        evaluation = self._or_default(name, context, enabled=bool(default))
        return default if evaluation.error is not None else evaluation.enabled

    def evaluate(self, name: str, context: Context | None = None) -> Evaluation:
        """
        Return what the flag *name* is for *context*: state, variant and reason.

        A flag that is malformed, or that the agent could not be asked for, has
        the reason ERROR, is not enabled, and says why in ``error``.  Waits and
        raises as `enabled` does, but for that.
        """
        view = self._view
        if clock.monotonic() + clock.lead < view.until and not self._listeners_of_all:
            flag = view.value.parsed.get(name)
            if flag is not None and flag.is_local and context.__class__ in _PLAIN:
                for test, evaluation in flag.tests if context is not None else ():
                    if test(context):
                        return evaluation  # type: ignore[no-any-return]
                return flag.default  # type: ignore[no-any-return]
        found = self._evaluated(name, context)
        if self._listeners_of_all:
            self._tell(found, context)
        return found

    def attribute(
        self,
        name: str,
        key: str,
        context: Context | None = None,
        default: Any = RAISE,
    ) -> Any:
        """
        Return the attribute *key* of the flag *name* for *context*, copied.

        *default*, or None without one, if the flag is off or has no such
        attribute.  What is wrong with the flag raises as in `enabled`, unless
        a default is given.
        """
        if default is RAISE:
            evaluation = self.evaluate(name, context)
            if evaluation.error is not None:
                raise copied(evaluation.error)
            return evaluation.attribute(key)
        return self._or_default(name, context).attribute(key, default)

    def all(self, context: Context | None = None) -> dict[str, Evaluation]:
        """Return what each flag is for *context*; raises as `evaluate` does."""
        found = {}
        now = self._document()  # of one version, also if another one comes meanwhile
        for name in now[0]:
            found[name] = self._evaluated(name, context, now)
            if self._listeners_of_all:
                self._tell(found[name], context)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of all flags; waits and raises as `evaluate` does."""
        document, _ = self._document()
        return tuple(document)

    def on_evaluation(self, listener: L) -> L:
        """
        Call *listener* with each evaluation; also a decorator.

        It is given a `lambda_ext.flags.Exposure`: flag, enabled, variant, reason, version,
        attributes, error and the context.  For logs of exposures.  It runs in the
        thread that evaluates, before the result is returned; what it raises is
        logged.  Without listeners nothing is spent on this.

        Raises:
            ConfigurationError: *listener* is no plain function.
        """
        if not callable(listener):
            msg = f"on_evaluation of {self._key.label!r} takes a function"  # type: ignore[unreachable]  # not every caller checks types
            raise ConfigurationError(msg)
        callables.refuse_async(listener, f"on_evaluation of {self._key.label!r}")
        self._listeners_of_all = (*self._listeners_of_all, listener)
        return listener

    def resolve(self) -> Flags:
        """Return this object, with a document: what `inject` passes on."""
        self._document()
        return self

    async def aget(self) -> Flags:
        """Return this object, with a document, without blocking the event loop."""
        await super().aget()
        return self

    def may_wait(self) -> bool:
        """Say whether the next evaluation may wait, for AppConfig or its agent."""
        view = self._view
        if not clock.monotonic() + clock.lead < view.until:
            return True
        return getattr(self._want and self._want.source, "evaluate", None) is not None

    # How it is done ------------------------------------------------------------

    def _mistaken(self, what: str) -> TypeError:
        return TypeError(
            f"a Flags cannot be {what}: ask its enabled(), evaluate(), attribute(),"
            " all() or names()"
        )

    def _parsed(self, raw: Any) -> Document:
        """Return the document that *raw* is; its version is set when it is read."""
        evaluate = getattr(self._want and self._want.source, "evaluate", None)
        label = self._key.label
        ask = None
        if evaluate is not None:
            name = self._key.name

            def ask(flag: str, context: Context) -> Evaluation:
                evaluation: Evaluation = evaluate(name, flag, context)
                return evaluation

        reason, location = "", ""
        try:
            return Document(raw, dialect=self._dialect, ask=ask)
        except exceptions.InvalidDocumentError as exc:
            reason, location = str(exc), exc.location
        msg = f"the configuration {label!r} holds no flags: {reason}"
        raise exceptions.InvalidDocumentError(msg, location=location)

    def _bind(self) -> Want:
        if self.name.startswith(UNNAMED):
            name = config.get("flags")
            if name is None:
                msg = (
                    "Flags() without arguments reads the configuration that"
                    " LAMBDA_EXT_FLAGS names: set it to"
                    " 'application/environment/profile'"
                )
                raise ConfigurationError(msg)
            self._key = keys.configuration(None, *name.split("/"))
        return super()._bind()

    def _forget(self) -> None:
        if self._want is not None:  # another source may have other rules
            store.forget_decoded(self._want.key)
        super()._forget()

    def _document(self) -> tuple[Document, bool]:
        """Return the document, and whether it is older than it should be."""
        view: View = self._view
        if not clock.monotonic() + clock.lead < view.until:
            view = self._read()
        entry, want = view.entry, self._want
        document: Document = view.value
        assert entry is not None
        document.version = entry.answer.version
        is_old = (
            want is not None
            and bool(want.max_age)
            and clock.now() - entry.born_at >= (want.max_age or 0)
        )
        return document, is_old

    def _evaluated(
        self,
        name: str,
        context: Context | None,
        now: tuple[Document, bool] | None = None,
    ) -> Evaluation:
        if context is not None and not isinstance(context, Mapping):
            msg = (  # type: ignore[unreachable]  # not every caller checks types
                f"a context is a mapping, not {type(context).__name__}; a default is"
                " given by name: default=..."
            )
            raise ConfigurationError(msg)
        document, is_old = now or self._document()
        flag = document.flag(name)
        if flag.is_fixed and context is not None and not self._warned_of_rules:
            self._warned_of_rules = True
            disclosure.warn(
                "flags_without_rules",
                "AppConfig gives its default variant only; for rules use a freeform"
                " profile that holds the flag document, or flags_source='agent'",
                configuration=self._key.label,
                flag=name,
            )
        try:
            evaluation = flag.evaluate(context)
        except Exception as exc:  # of a mapping of the user's
            if process.by_signal_handler(exc):
                raise
            kind = type(exc).__name__
            shown = disclosure.printable(name, LONGEST_NAME)
            error = exceptions.FlagError(
                f"the context of '{shown}' raised {kind}", flag=name
            )
            error.__cause__ = withheld(exc)
            evaluation = Evaluation(
                name, enabled=False, reason=ERROR, version=document.version, error=error
            )
        if is_old and evaluation.error is None:
            return evaluation.because(STALE)
        return evaluation

    def _or_default(
        self, name: str, context: Context | None, *, enabled: bool = False
    ) -> Evaluation:
        """Return the evaluation; one with the reason ERROR for what raises."""
        try:
            evaluation = self._evaluated(name, context)
        except LambdaExtError as exc:
            # The error of a test double is never answered by a default.
            if getattr(exc, "forbidden", False):
                raise
            evaluation = Evaluation(str(name), enabled=enabled, reason=ERROR, error=exc)
        if evaluation.error is not None:
            _count_default(self._key.label, evaluation)
        if self._listeners_of_all:
            self._tell(evaluation, context)
        return evaluation

    def _tell(self, evaluation: Evaluation, context: Context | None) -> None:
        exposure = Exposure(evaluation, context)
        for listener in self._listeners_of_all:
            try:
                callables.refuse_coroutine(listener(exposure), "the listener")
            except Exception as exc:
                if process.by_signal_handler(exc):
                    raise
                # Not its message, which may quote the context.
                disclosure.warn(
                    "on_evaluation_failed",
                    configuration=self._key.label,
                    error=disclosure.kind(exc),
                )


def _count_default(label: str, evaluation: Evaluation) -> None:
    """Count that a default was served, and log it once for each flag."""
    name = evaluation.flag
    if len(name) > LONGEST_NAME:
        name = OTHERS
    with _lock:
        if name not in defaulted and len(defaulted) >= MAX_NAMES:
            name = OTHERS
        # Without a call, so that a signal handler counts before or after this.
        is_first = name not in defaulted
        if is_first:
            defaulted[name] = 0
        defaulted[name] += 1
    if is_first:
        disclosure.warn(
            "flag_default",
            evaluation.error,
            configuration=label,
            flag=name,
            error=type(evaluation.error).__name__,
        )
