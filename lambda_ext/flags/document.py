"""
The flag document: what is in it, and what one flag of it says.

    as it is written     {"version": "1", "flags": {...}, "values": {name: value}}
    as it is retrieved   {name: value}

    value                {"enabled": true, <attribute>: ...}
                         {"_variants": [{"name", "enabled", "rule",
                                         "attributeValues"}, ...]}
                         {"enabled", "_variant", ...}    one variant, chosen by AWS

A document is parsed as JSON at once, each flag when it is first asked for: its
rules become functions then, and its results objects that every evaluation
shares.  A flag that is malformed has an error instead, and no other flag
notices.  What AppConfig checks against the constraints of attributes when a
version is created is not checked again.

Result
    The variants are tried in order, the first whose rule is true is the
    result, also if it is disabled.  The last has no rule and is the default,
    as it is for an evaluation without a context.  A disabled variant or flag
    has no attributes.

Sources: "Creating multi-variant feature flags" and "Type reference for
AWS.AppConfig.FeatureFlags" in the AppConfig user guide,
https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-type-reference-feature-flags.html
"""

from __future__ import annotations

import json

from .. import exceptions
from ..disclosure import printable
from .dialect import DEFAULT as DEFAULT_DIALECT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from .dialect import Dialect
    from .rules import Context, Rule, Test

# OpenFeature's words, https://openfeature.dev/specification/types#resolution-reason
STATIC = "STATIC"  # the flag has no variants, or just one
DEFAULT = "DEFAULT"  # the default variant
TARGETING_MATCH = "TARGETING_MATCH"  # a rule was true
SPLIT = "SPLIT"  # likewise, one with a split in it
DISABLED = "DISABLED"  # likewise, and it is disabled
STALE = "STALE"  # any of these, from a document that is older than was asked for
UNKNOWN = "UNKNOWN"  # AppConfig's agent chose, and does not say why
ERROR = "ERROR"  # there is no result; `Evaluation.error` says why

MAX_NEAR = 100  # misspelt names for which the nearest is sought
LONGEST_NAME = 128  # of a flag in a message; AppConfig takes 64

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))  # as the service reads it
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class Evaluation:
    """
    What a flag is for a context, and why.

    *enabled*, the name of the *variant* (None without variants), the *reason*
    (one of the words above), the *version* label of the document, and *error*,
    None unless the reason is ERROR.  All evaluations with one result share it:
    it cannot be changed.
    """

    __slots__ = (
        "_attributes",
        "enabled",
        "error",
        "flag",
        "reason",
        "variant",
        "version",
    )

    if TYPE_CHECKING:
        flag: str
        enabled: bool
        variant: str | None
        reason: str
        version: str
        error: exceptions.LambdaExtError | None
        _attributes: Mapping[str, Any]

    def __init__(
        self,
        flag: str,
        *,
        enabled: bool,
        reason: str,
        variant: str | None = None,
        version: str = "",
        attributes: Mapping[str, Any] | None = None,
        error: exceptions.LambdaExtError | None = None,
    ) -> None:
        _set(self, "flag", flag)
        _set(self, "enabled", enabled)
        _set(self, "variant", variant)
        _set(self, "reason", reason)
        _set(self, "version", version)
        _set(self, "error", error)
        _set(self, "_attributes", attributes or {})

    if not TYPE_CHECKING:  # else every name might be set

        def __setattr__(self, name: str, value: object) -> None:
            """Refuse it."""
            self.__delattr__(name)

        def __delattr__(self, name: str) -> None:
            """Refuse it."""
            msg = f"{name!r} of an evaluation cannot be changed: others share it"
            raise AttributeError(msg)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Take over what a copy, or a pickle, has brought."""
        for name, value in state[1].items():
            _set(self, name, value)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes, copied: nothing that is changed in them is kept."""
        return {key: _copied(value) for key, value in self._attributes.items()}

    def attribute(self, key: str, default: Any = None) -> Any:
        """Return the attribute *key*, copied; *default* if there is none."""
        try:
            return _copied(self._attributes[key])
        except KeyError:
            return default

    def because(self, reason: str) -> Evaluation:
        """Return the same result with another reason."""
        return Evaluation(
            self.flag,
            enabled=self.enabled,
            reason=reason,
            variant=self.variant,
            version=self.version,
            attributes=self._attributes,
            error=self.error,
        )

    def __repr__(self) -> str:
        return (
            f"<Evaluation {self.flag!r} enabled={self.enabled} variant={self.variant!r}"
            f" reason={self.reason} version={self.version!r}>"
        )


_set = object.__setattr__  # of objects that cannot be changed


class Exposure(Evaluation):
    """An evaluation as listeners get it: with its *context*, or None."""

    __slots__ = ("context",)

    if TYPE_CHECKING:
        context: Context | None

    def __init__(self, evaluation: Evaluation, context: Context | None) -> None:
        super().__init__(
            evaluation.flag,
            enabled=evaluation.enabled,
            reason=evaluation.reason,
            variant=evaluation.variant,
            version=evaluation.version,
            attributes=evaluation._attributes,
            error=evaluation.error,
        )
        _set(self, "context", context)


class Flag:
    """One flag, parsed: tests with their results, and the default.

    *is_fixed*: the document holds one of its variants, without rules, and
    there is no agent to ask.  *is_local*: no agent and no error is in the way.
    """

    __slots__ = ("ask", "default", "is_fixed", "is_local", "tests")

    def __init__(
        self,
        default: Evaluation,
        tests: tuple[tuple[Test, Evaluation], ...] = (),
        ask: Callable[[str, Context], Evaluation] | None = None,
        *,
        is_fixed: bool = False,
    ) -> None:
        self.default = default
        self.tests = tests
        self.ask = ask  # AppConfig's agent, for what depends on the context
        self.is_fixed = is_fixed
        self.is_local = ask is None and default.error is None

    def evaluate(self, context: Context | None) -> Evaluation:
        """Return the result for *context*; None means the default."""
        if context is not None:
            if self.ask is not None:
                return self.ask(self.default.flag, context)
            for test, evaluation in self.tests:
                if test(context):
                    return evaluation
        return self.default


class Document:
    """
    A flag document of one version.

    Args:
        body: The document, as text or bytes.
        version: Its label, which each `Evaluation` carries.
        dialect: What rules mean where AWS does not say.
        ask: Evaluates a flag of several variants that *body* holds only the
            default of.

    Raises:
        InvalidDocumentError: it is not a JSON object; flags are looked at later.
    """

    __slots__ = (
        "_ask",
        "_dialect",
        "_near",
        "_values",
        "parsed",
        "plain",
        "version",
    )

    def __init__(
        self,
        body: str | bytes,
        version: str = "",
        *,
        dialect: Dialect = DEFAULT_DIALECT,
        ask: Callable[[str, Context], Evaluation] | None = None,
    ) -> None:
        self.version = version
        self._dialect = dialect
        self._ask = ask
        self._values = _values(_object(body))
        self._near: dict[str, str] = {}  # by misspelt name
        self.parsed: dict[str, Flag] = {}  # what was asked for so far
        self.plain: dict[str, bool] = {}  # of these, what no context changes

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __repr__(self) -> str:
        return f"<Document version={self.version!r} with {len(self)} flag(s)>"

    def flag(self, name: str) -> Flag:
        """
        Return the flag *name*; a malformed one has the reason ERROR.

        Raises:
            UnknownFlagError: there is none; the message names the nearest.
        """
        flag = self.parsed.get(name)
        if flag is None:
            if name not in self._values:
                raise self._unknown(name)
            flag = self._parse(name)
            # Two threads may parse it at once; all use the same result.
            flag = self.parsed.setdefault(name, flag)
            if not (flag.tests or flag.ask or flag.default.error):
                self.plain[name] = flag.default.enabled
        return flag

    def evaluate(self, name: str, context: Context | None = None) -> Evaluation:
        """Return what the flag *name* is for *context*; raises as `flag` does."""
        return self.flag(name).evaluate(context)

    def changed_since(self, other: Document) -> list[str]:
        """Return the names of flags that are new, gone or written otherwise."""
        mine, theirs = self._values, other._values
        return [
            name
            for name in {**theirs, **mine}
            if name not in mine or name not in theirs or mine[name] != theirs[name]
        ]

    def _unknown(self, name: Any) -> exceptions.UnknownFlagError:
        near = ""
        if isinstance(name, str) and len(name) <= LONGEST_NAME:
            near = self._nearest(name)
        hint = f"; did you mean '{printable(near)}'?" if near else ""
        msg = (
            f"there is no flag '{printable(name, LONGEST_NAME)}' in the document{hint}"
        )
        return exceptions.UnknownFlagError(msg, flag=str(name), nearest=near)

    def _nearest(self, name: str) -> str:
        """Return the name that looks most like *name*; sought once for a few."""
        near = self._near.get(name)
        if near is None:
            if len(self._near) >= MAX_NEAR:
                return ""
            # 5 ms that only a misspelling costs.
            import difflib

            near = next(iter(difflib.get_close_matches(name, self._values, n=1)), "")
            self._near[name] = near
        return near

    def _parse(self, name: str) -> Flag:
        place = f"the flag '{printable(name, LONGEST_NAME)}'"
        try:
            return _flag(
                name, self._values[name], self.version, self._dialect, self._ask
            )
        except exceptions.RuleError as exc:
            msg = f"{place} is malformed: {exc.location}: {exc}"
            error: exceptions.FlagError = exceptions.InvalidDocumentError(
                msg, flag=name, location=exc.location
            )
            error.__cause__ = exc
        except exceptions.InvalidDocumentError as exc:
            msg = f"{place} is malformed: {exc.location}: {exc}"
            error = exceptions.InvalidDocumentError(
                msg, flag=name, location=exc.location
            )
        return Flag(
            Evaluation(
                name, enabled=False, reason=ERROR, version=self.version, error=error
            )
        )


# Reading ---------------------------------------------------------------------


def _object(body: str | bytes) -> dict[str, Any]:
    """Return the JSON object that *body* is; no error quotes it."""
    reason = "it is not a JSON object"
    document: Any = None
    try:
        if isinstance(body, str):
            body = body.removeprefix("\ufeff")  # in bytes `json` passes over it
        document = json.loads(body)
    except json.JSONDecodeError as exc:
        reason = f"it is not JSON: {exc.msg}: line {exc.lineno} column {exc.colno}"
    except (RecursionError, TypeError, ValueError) as exc:
        reason = f"it is not JSON: {type(exc).__name__}"
    if not isinstance(document, dict):  # outside of `except`, which would hold it
        raise exceptions.InvalidDocumentError(
            f"the flag document cannot be used: {reason}"
        )
    return document


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """Return the values by name, of either form of the document."""
    if not isinstance(document.get("version"), str):
        return document
    if document["version"] != "1":
        msg = "the flag document cannot be used: its version is not '1'"
        raise exceptions.InvalidDocumentError(msg, location="version")
    values = document.get("values", {})
    if not isinstance(values, dict):
        msg = "the flag document cannot be used: 'values' is no object"
        raise exceptions.InvalidDocumentError(msg, location="values")
    return values


def _flag(
    name: str,
    value: Any,
    version: str,
    dialect: Dialect,
    ask: Callable[[str, Context], Evaluation] | None,
) -> Flag:
    """Return the flag, or raise InvalidDocumentError with the location in it."""
    if not isinstance(value, dict):
        raise exceptions.InvalidDocumentError("it is no object", location="value")
    if "_variants" in value:
        if "enabled" in value:
            msg = "StrictVariants: 'enabled' stands beside '_variants'"
            raise exceptions.InvalidDocumentError(msg, location="enabled")
        return _variants(name, value["_variants"], version, dialect)
    enabled = _enabled(value, "enabled")
    variant = value.get("_variant")
    if variant is not None and not isinstance(variant, str):
        raise exceptions.InvalidDocumentError("it is no text", location="_variant")
    attributes = {
        key: each
        for key, each in value.items()
        if key != "enabled" and not key.startswith("_")
    }
    reason = DEFAULT if variant is not None else STATIC if enabled else DISABLED
    evaluation = Evaluation(
        name,
        enabled=enabled,
        reason=reason,
        variant=variant,
        version=version,
        attributes=attributes if enabled else None,
    )
    if variant is None:
        return Flag(evaluation)
    return Flag(evaluation, ask=ask, is_fixed=ask is None)


def _variants(name: str, variants: Any, version: str, dialect: Dialect) -> Flag:
    if not isinstance(variants, list):
        raise exceptions.InvalidDocumentError("it is no list", location="_variants")
    tests: list[tuple[Test, Evaluation]] = []
    default = Evaluation(name, enabled=False, reason=DISABLED, version=version)
    seen = set()
    for number, variant in enumerate(variants):
        place = f"_variants[{number}]"
        if not isinstance(variant, dict):
            raise exceptions.InvalidDocumentError("it is no object", location=place)
        word = variant.get("name")
        if not isinstance(word, str) or not word:
            msg = "a variant has a name"
            raise exceptions.InvalidDocumentError(msg, location=f"{place}.name")
        if word in seen:
            msg = "UniqueVariantNames: the name is given twice"
            raise exceptions.InvalidDocumentError(msg, location=f"{place}.name")
        seen.add(word)
        enabled = _enabled(variant, f"{place}.enabled")
        attributes = variant.get("attributeValues") or {}
        if not isinstance(attributes, dict):
            msg = "it is no object"
            raise exceptions.InvalidDocumentError(
                msg, location=f"{place}.attributeValues"
            )
        rule = None
        text = variant.get("rule")
        if text is not None and text != "":  # the service takes "" for none
            rule, has_split = _rule(name, text, place, dialect)
        last = number == len(variants) - 1
        if last and rule is not None:
            msg = "Empty: the last variant is the default and has no rule"
            raise exceptions.InvalidDocumentError(msg, location=f"{place}.rule")
        if not last and rule is None:
            msg = "NonEmpty: only the last variant has no rule"
            raise exceptions.InvalidDocumentError(msg, location=f"{place}.rule")
        reason = DEFAULT
        if len(variants) == 1:  # nothing was chosen
            reason = STATIC if enabled else DISABLED
        if rule is not None:
            reason = SPLIT if has_split else TARGETING_MATCH
        evaluation = Evaluation(
            name,
            enabled=enabled,
            reason=reason,
            variant=word,
            version=version,
            attributes=attributes if enabled else None,
        )
        if rule is None:
            default = evaluation
        else:
            tests.append((rule.test, evaluation))
    return Flag(default, tuple(tests))


def _rule(name: str, text: Any, place: str, dialect: Dialect) -> tuple[Rule, bool]:
    """Return the rule of a variant, and whether it divides traffic."""
    # 5 ms that a document without rules does not cost.
    from . import rules

    try:
        rule = rules.parse(text, flag=name, dialect=dialect)
    except exceptions.RuleError as exc:
        exc.location = f"{place}.rule"
        raise
    return rule, rules.has_split(rule)


def _enabled(value: dict[str, Any], place: str) -> bool:
    """Return whether *value* is enabled; without a word it is not."""
    enabled = value.get("enabled", False)
    if enabled.__class__ is bool:
        return enabled
    if isinstance(enabled, str):
        if enabled in _TRUE:
            return True
        if enabled in _FALSE:
            return False
    raise exceptions.InvalidDocumentError(
        "it is neither true nor false", location=place
    )


def _copied(value: Any) -> Any:
    """Return JSON that the caller may change."""
    try:
        return _copied_part(value)
    except RecursionError:  # `json` goes deeper
        return json.loads(json.dumps(value))


def _copied_part(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied_part(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied_part(each) for each in value]
    return value
