"""
When are two requests the same request?

A `Key` holds everything that changes the answer, in one normal form: equal
requests have equal keys, and requests with equal keys have one answer.  How
old an answer may be and what is made of it are the caller's business, and
not in the key.

A name and an ARN are two requests, since only AWS knows whether they mean one
value (`aliases` says where they may).  AWS's answer has the ARN, and `Key.at` then
gives the key that both share.
The current version by default and AWSCURRENT by name are two requests as
well: policies may allow one and not the other.

Pure; everything here is immutable.
"""

from __future__ import annotations

from operator import itemgetter

from ..exceptions import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from typing import Any

SECRET = "GetSecretValue"
PARAMETER = "GetParameter"
PATH = "GetParametersByPath"
CONFIGURATION = "GetLatestConfiguration"

MAX_IDENTIFIER = 128  # of an application, an environment and a profile
MAX_NAME = 2048  # of a SecretId, and of a Name or Path of Parameter Store


def _field(index: int) -> Any:
    return property(itemgetter(index))


class Key(tuple[object, ...]):
    """
    One request to one scope: what is asked for, and nothing else.

    No NamedTuple: making that class takes 200 µs of a cold start, this one 7,
    and `typing.NamedTuple` the import of `typing` besides.
    """

    __slots__ = ()

    scope: Hashable = _field(0)
    operation: str = _field(1)
    name: str = _field(2)
    version: str | None = _field(3)
    stage: str | None = _field(4)
    decrypt: bool = _field(5)
    recursive: bool = _field(6)

    def __repr__(self) -> str:
        return f"<Key {self.operation} {self.label!r}>"

    @property
    def label(self) -> str:
        """The request as it reads in a message or a log line."""
        if self.operation == PARAMETER:
            return self.name + self.selector
        chosen = ", ".join(filter(None, (self.version, self.stage)))
        return f"{self.name} ({chosen})" if chosen else self.name

    @property
    def selector(self) -> str:
        """Parameter Store's ":version" or ":label", or nothing."""
        chosen = self.version or self.stage
        return f":{chosen}" if chosen else ""

    @property
    def rest(self) -> Hashable:
        """What a drop-in client asks besides: a page and its filters; else None."""
        return self[7] if len(self) > 7 else None

    def with_rest(self, rest: Hashable) -> Key:
        """Return the same request with more parameters."""
        return Key((*self[:7], rest))

    def at(self, name: str) -> Key:
        """Return the same request for another name, or for an ARN."""
        return Key((*self[:2], name, *self[3:]))

    def within(self, scope: Hashable) -> Key:
        """Return the same request to another scope."""
        return Key((scope, *self[1:]))


def secret(
    scope: Hashable,
    name: str,
    version_id: str | None = None,
    version_stage: str | None = None,
) -> Key:
    """Return the key of a secret; without version and stage, of the current one."""
    name = _text("the name of a secret", name)
    if version_id is not None:
        version_id = _text(f"version_id of the secret {name!r}", version_id, 32, 64)
    if version_stage is not None:
        what = f"version_stage of the secret {name!r}"
        version_stage = _text(what, version_stage, 1, 256)
    return Key((scope, SECRET, name, version_id, version_stage, True, False))


def parameter(scope: Hashable, name: str, *, decrypt: bool = True) -> Key:
    """Return the key of a parameter, "name", "name:version" or "name:label"."""
    name = _text("the name of a parameter", name)
    base, selector = split(name)
    if not base or selector == "":
        msg = (
            f"the parameter {name!r} has a colon that divides nothing:"
            " write 'name', 'name:version' or 'name:label'"
        )
        raise ConfigurationError(msg)
    version = label = None
    if selector is not None and selector.isascii() and selector.isdigit():
        version = selector.lstrip("0") or "0"  # x:01 is version 1
    else:
        label = selector
    return Key((scope, PARAMETER, base, version, label, bool(decrypt), False))


def path(
    scope: Hashable, name: str, *, recursive: bool = False, decrypt: bool = True
) -> Key:
    """Return the key of all parameters below a path."""
    name = _text("the path of parameters", name)
    if not name.startswith("/"):
        msg = f"the path {name!r} must begin with a slash, as in '/orders'"
        raise ConfigurationError(msg)
    name = name.rstrip("/") or "/"
    return Key((scope, PATH, name, None, None, bool(decrypt), bool(recursive)))


def configuration(
    scope: Hashable, application: str, environment: str, profile: str
) -> Key:
    """Return the key of a configuration of AppConfig, by names or ids."""
    parts = []
    for what, part in (
        ("application", application),
        ("environment", environment),
        ("profile", profile),
    ):
        text = _text(f"the {what} of a configuration", part, 1, MAX_IDENTIFIER)
        if "/" in text:
            msg = f"the {what} {text!r} has a slash in it: pass its id"
            raise ConfigurationError(msg)
        parts.append(text)
    return Key((scope, CONFIGURATION, "/".join(parts), None, None, True, False))


def split(name: str) -> tuple[str, str | None]:
    """Divide a parameter's name or ARN from its selector, None without one."""
    head = name.split(":", 5)
    if head[0] == "arn" and len(head) == 6:
        base, colon, selector = head[5].partition(":")
        base = ":".join((*head[:5], base))
    else:
        base, colon, selector = name.partition(":")
    return base, selector if colon else None


def chunks(keys: Sequence[Key], size: int) -> Iterable[Sequence[Key]]:
    """Divide *keys* into runs of at most *size*."""
    return [keys[at : at + size] for at in range(0, len(keys), size)]


def is_arn_of_parameter(arn: str, asked: str, name: object) -> bool:
    """
    Say whether *arn* belongs to what was *asked* for and is called *name*.

    In doubt it does not: "x" and "/x" are two parameters with one ARN.
    """
    if not isinstance(name, str):
        name = "" if asked.startswith("arn:") else asked
    if not (name.startswith("/") and "/" in name[1:]):
        return False
    return arn.endswith(":parameter" + name) and asked in (arn, name)


def is_arn_of(arn: str, name: str) -> bool:
    """
    Say whether *name* is this secret's ARN, its partial ARN or its name.

    An ARN ends in a hyphen and six characters that AWS appended; a partial
    one does not.
    """
    if arn == name:
        return True
    stem = arn[:-7] if arn[-7:-6] == "-" else arn
    return name in (stem, stem.split(":", 6)[-1])


def goes_back(key: Key, former: str, version: str) -> bool:
    """
    Say whether *version* of what *key* asks for is older than *former*.

    Known of parameters only, and if they were not deleted meanwhile: nothing
    orders the versions of a secret, and a label may be moved either way.
    """
    if key.operation != PARAMETER or key.stage:
        return False
    return former.isdecimal() and version.isdecimal() and int(version) < int(former)


def _text(what: str, text: object, low: int = 1, high: int = MAX_NAME) -> str:
    """Return *text* as plain text, of a member of an enum for example."""
    if not isinstance(text, str):
        msg = f"{what} must be text, not {type(text).__name__}"
        raise ConfigurationError(msg)
    if not text.strip():
        msg = f"{what} is empty"
        raise ConfigurationError(msg)
    if not low <= len(text) <= high:
        msg = f"{what} must have {low} to {high} characters, and has {len(text)}"
        raise ConfigurationError(msg)
    return str.__str__(text)
