"""
What an option means to a secret or a parameter, and which source it chooses.

Each is the argument, else `configure()`, else the environment: our own
variable, then the one of AWS's extension or of Powertools that means the
same.
"""

from __future__ import annotations

from .. import config, parsers
from ..exceptions import ConfigurationError
from . import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..typing import Source

TTL = {  # what AWS's own extension calls max_age
    keys.SECRET: (config.Fallback("SECRETS_MANAGER_TTL", high=300.0),),
    keys.PARAMETER: (config.Fallback("SSM_PARAMETER_STORE_TTL", high=300.0),),
}
TTL[keys.PATH] = TTL[keys.PARAMETER]
TIMEOUT = {
    keys.SECRET: (config.Fallback("SECRETS_MANAGER_TIMEOUT_MILLIS", scale=0.001),),
    keys.PARAMETER: (
        config.Fallback("SSM_PARAMETER_STORE_TIMEOUT_MILLIS", scale=0.001),
    ),
}
TIMEOUT[keys.PATH] = TIMEOUT[keys.PARAMETER]


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
        return parsers.seconds(given)
    except ConfigurationError as exc:
        msg = f"{option} of {label!r} cannot be used: {exc}"
        raise ConfigurationError(msg) from exc


def decrypt_of(given: bool | None) -> bool:
    """Return whether a SecureString is to be decrypted; None means the option."""
    return bool(config.get("decrypt")) if given is None else given


def timeout_of(operation: str) -> float | None:
    """Return the seconds that a load may take; None if only Lambda's count."""
    return config.get("load_timeout", *TIMEOUT[operation]) or None


def make_source(kind: str, chosen: str, **given: Any) -> Source:
    """Return the source *chosen* for secrets or for parameters."""
    # Avoids whatever the other sources need.
    if chosen == "aws":
        if kind == keys.SECRET:
            from .secrets_manager import SecretsManager

            return SecretsManager(**given)
        from .parameter_store import ParameterStore

        return ParameterStore(**given)
    if chosen == "aws_extension":
        from .aws_extension import AwsExtension

        return AwsExtension()
    from .local_file import LocalFile

    return LocalFile(chosen.removeprefix("file:"))
