"""
What an option means to a secret or a parameter, and which source it chooses.

The value of an option is the argument, else what `configure()` was given, else
the environment's: this library's variable, then the one of AWS's extension or
of Powertools that means the same.
"""

from __future__ import annotations

from .. import config, disclosure
from ..exceptions import ConfigurationError
from . import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..typing import Source

TTL: dict[
    str, tuple[config.Fallback, ...]
] = {  # what AWS's own extension calls max_age
    keys.SECRET: (config.Fallback("SECRETS_MANAGER_TTL", high=300.0),),
    keys.PARAMETER: (config.Fallback("SSM_PARAMETER_STORE_TTL", high=300.0),),
}
TTL[keys.PATH] = TTL[keys.PARAMETER]
TTL[keys.CONFIGURATION] = ()  # it has a poll interval instead
TIMEOUT = {
    keys.SECRET: (config.Fallback("SECRETS_MANAGER_TIMEOUT_MILLIS", scale=0.001),),
    keys.PARAMETER: (
        config.Fallback("SSM_PARAMETER_STORE_TIMEOUT_MILLIS", scale=0.001),
    ),
}
TIMEOUT[keys.PATH] = TIMEOUT[keys.PARAMETER]


_ABSENT = object()
SOURCE = ("name", "scope", "plan", "fetch")  # the parts of one
AWS = {  # the service, and what its client must be able to do
    keys.SECRET: ("secretsmanager", "get_secret_value"),
    keys.PARAMETER: ("ssm", "get_parameter"),
    keys.CONFIGURATION: ("appconfigdata", "get_latest_configuration"),
}


class _Default:
    """The absence of an argument that may be None."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<the option>"


DEFAULT: Any = _Default()  # max_age and the like: what configure() says


def max_age_of(operation: str, given: Any, label: str) -> float | None:
    """Return the seconds for which a value is fresh; None for ever."""
    if not config.get("cache") or not config.get("cache_size"):
        return 0.0
    if given is DEFAULT:
        age: float | None = config.get("max_age", *TTL[operation])
        return age
    return seconds("max_age", given, label)


def max_stale_of(given: Any, label: str) -> float | None:
    """Return the seconds past max_age for which a value may serve if need be."""
    if given is DEFAULT:
        stale: float | None = config.get("max_stale")
        return stale
    return seconds("max_stale", given, label)


def seconds(option: str, given: Any, label: str) -> float | None:
    """Return the argument *option* of *label* in seconds."""
    try:
        return config.parsed("seconds", given)  # type: ignore[no-any-return]
    except ConfigurationError as exc:
        msg = f"{option} of {label!r} cannot be used: {exc}"
        raise ConfigurationError(msg) from exc


def decrypt_of(given: Any, label: str) -> bool:
    """Return whether a SecureString is to be decrypted; None means the option."""
    if given is None:
        return bool(config.get("decrypt"))
    return switch("decrypt", given, label)


def switch(option: str, given: Any, label: str) -> bool:
    """Return the argument *option* of *label* as a bool."""
    try:
        return config.parsed("switch", given)  # type: ignore[no-any-return]
    except ConfigurationError as exc:
        msg = f"{option} of {label!r} cannot be used: {exc}"
        raise ConfigurationError(msg) from exc


def check_source(source: Any, label: str) -> None:
    """Refuse what lacks a part of `lambda_ext.typing.Source`; calls none of it."""
    missing = [part for part in SOURCE if not _has(source, part)]
    if missing:
        msg = (
            f"source={type(source).__name__} of {label!r} lacks {', '.join(missing)}:"
            " pass an object as lambda_ext.typing.Source describes it"
        )
        raise ConfigurationError(msg)


def check_aws(operation: str, client: Any, session: Any, label: str) -> None:
    """Refuse a *client* or *session* that boto3 cannot have made."""
    service, method = AWS[operation]
    made = f"boto3.client({service!r})"
    if client is not None and session is not None:
        msg = f"client= and session= of {label!r} exclude each other: pass one"
        raise ConfigurationError(msg)
    if client is not None and not (
        disclosure.attribute(client, "meta", _ABSENT) is not _ABSENT
        and callable(disclosure.attribute(client, method))
    ):
        msg = (
            f"client={type(client).__name__} of {label!r} has no {method}: pass {made}"
        )
        raise ConfigurationError(msg)
    if session is not None and not callable(disclosure.attribute(session, "client")):
        msg = (
            f"session={type(session).__name__} of {label!r} makes no clients:"
            " pass boto3.Session()"
        )
        raise ConfigurationError(msg)


def _has(source: Any, part: str) -> bool:
    # Looked up without being read: `scope` may be a property that does work.
    kind = type(source)
    return (
        hasattr(kind, part)
        or part in (disclosure.attribute(source, "__dict__") or ())
        or hasattr(kind, "__getattr__")
    )


def timeout_of(operation: str) -> float | None:
    """Return the seconds that a load may take; None if only Lambda's count."""
    if operation == keys.CONFIGURATION:
        return config.get("poll_timeout") or None
    return config.get("load_timeout", *TIMEOUT[operation]) or None


def make_source(kind: str, chosen: str, **given: Any) -> Source:
    """Return the source *chosen* for secrets, parameters or configurations."""
    # Avoids what the other sources need.
    if kind == keys.CONFIGURATION:
        from ..flags.session import make_source as make_flags_source

        return make_flags_source(chosen, **given)
    if chosen == "aws":
        if kind == keys.SECRET:
            from .sources.secrets_manager import SecretsManager

            return SecretsManager(**given)
        from .sources.parameter_store import ParameterStore

        return ParameterStore(**given)
    if chosen == "aws_extension":
        from .sources.aws_extension import AwsExtension

        return AwsExtension()
    from .sources.local_file import LocalFile

    return LocalFile(chosen.removeprefix("file:"))
