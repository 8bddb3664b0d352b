"""
`get_secret` and `get_parameter`: a value by name, from memory if it is there.

The first lines of each are the hit; everything else is in `missed`.
Arguments are positional-or-keyword because that halves the price of a call.

Threads
    Any number may call at once.
"""

from __future__ import annotations

from ..disclosure import raises_without_variables
from ..lifecycle import clock
from . import keys, settings, store
from .cache import Want
from .settings import DEFAULT
from .store import DEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, TypeVar, overload

    from .cache import View
    from .handles import Age
    from .transforms import Transform

    T = TypeVar("T")

_secrets = store.secrets
_parameters = store.parameters


if TYPE_CHECKING:

    @overload
    def get_secret(
        name: str,
        transform: None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        version_id: str | None = None,
        version_stage: str | None = None,
        field: None = None,
    ) -> str: ...
    @overload
    def get_secret(
        name: str,
        transform: Literal["json"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        version_id: str | None = None,
        version_stage: str | None = None,
        field: None = None,
    ) -> dict[str, Any]: ...
    @overload
    def get_secret(
        name: str,
        transform: Literal["binary"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        version_id: str | None = None,
        version_stage: str | None = None,
        field: str | None = None,
    ) -> bytes: ...
    @overload
    def get_secret(
        name: str,
        transform: Callable[[Any], T],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        version_id: str | None = None,
        version_stage: str | None = None,
        field: str | None = None,
    ) -> T: ...
    @overload
    def get_secret(
        name: str,
        transform: Literal["json"] | None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        version_id: str | None = None,
        version_stage: str | None = None,
        *,
        field: str,
    ) -> Any: ...


def get_secret(
    name: str,
    transform: Any = None,
    force_fetch: bool = False,
    max_age: Age = DEFAULT,
    version_id: str | None = None,
    version_stage: str | None = None,
    field: str | None = None,
) -> Any:
    """
    Return the secret *name* (or ARN), from memory if it is fresh.

    Calls AWS, and waits, when there is none in memory or it is older than
    *max_age*; threads that want the same wait together for one call.  Past
    ~80 % of its age a value is refreshed in the background, without waiting.

    Args:
        name: Name, ARN or partial ARN.
        transform: None for text, "json", "binary" (of text: base64), or a
            function of the text (or bytes); its result is shared, not copied.
        force_fetch: Ask AWS also where it is in memory.
        max_age: Seconds, or a timedelta, for which a value counts as fresh;
            0 asks AWS always, None never again.  Default: `configure()`, 300.
        version_id: Of this version; with *version_stage*, only if it has that.
        version_stage: Of the version with this stage.  Without both, AWS answers
            with AWSCURRENT; "AWSCURRENT" as an argument is also sent to AWS, for
            policies that require it, in a call for this secret alone.
        field: Of a JSON secret, only this member; *transform* then applies
            to it.

    Raises:
        NotFoundError: there is none; remembered for 5 s.
        AccessDeniedError: the role may not read it, or not use its KMS key.
        SourceError: AWS could not be asked, and there is no value younger than
            *max_age* + ``max_stale``, which would be served.
        DecodeError: the value does not suit *transform* or *field*.
        ConfigurationError: an argument cannot be used; there is no region, or
            there are no credentials.

    Source: GetSecretValue,
    https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
    """
    try:
        view = _secrets[name, transform, version_id, version_stage, field, max_age]
    except (KeyError, TypeError):
        view = DEAD
    if clock.monotonic() + clock.lead < view.until and not force_fetch:
        view.slot.hits += 1  # type: ignore[union-attr]  # only DEAD has none
        copy = view.copy
        return view.value if copy is None else copy()
    changes = Want.changes
    source = store.source_of(keys.SECRET)
    key = keys.secret(source.scope, name, version_id, version_stage)
    arguments = (name, transform, version_id, version_stage, field, max_age)
    return missed(
        Want(source, key, changes_before=changes),
        transform,
        field,
        force_fetch,
        max_age,
        _secrets,
        arguments,
    )


if TYPE_CHECKING:

    @overload
    def get_parameter(
        name: str,
        transform: None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: None = None,
    ) -> str: ...
    @overload
    def get_parameter(
        name: str,
        transform: Literal["json"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: None = None,
    ) -> dict[str, Any]: ...
    @overload
    def get_parameter(
        name: str,
        transform: Literal["binary"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: str | None = None,
    ) -> bytes: ...
    @overload
    def get_parameter(
        name: str,
        transform: Callable[[Any], T],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: str | None = None,
    ) -> T: ...
    @overload
    def get_parameter(
        name: str,
        transform: Literal["json"] | None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        *,
        field: str,
    ) -> Any: ...


def get_parameter(
    name: str,
    transform: Any = None,
    force_fetch: bool = False,
    max_age: Age = DEFAULT,
    decrypt: bool | None = None,
    field: str | None = None,
) -> Any:
    """
    Return the parameter *name*, from memory if it is fresh.

    As `get_secret`, with these differences.

    Args:
        name: Name or ARN, with an optional ``:version`` or ``:label``; also
            ``/aws/reference/secretsmanager/...`` and public parameters.
        decrypt: Decrypt a SecureString; False hands out the ciphertext.
            Default: `configure()`, else ``POWERTOOLS_PARAMETERS_SSM_DECRYPT``,
            else True (where Powertools' default is False).

    Source: GetParameter,
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html
    """
    try:
        view = _parameters[name, transform, decrypt, field, max_age]
    except (KeyError, TypeError):
        view = DEAD
    if clock.monotonic() + clock.lead < view.until and not force_fetch:
        view.slot.hits += 1  # type: ignore[union-attr]  # only DEAD has none
        copy = view.copy
        return view.value if copy is None else copy()
    changes = Want.changes
    source = store.source_of(keys.PARAMETER)
    key = keys.parameter(source.scope, name, decrypt=settings.decrypt_of(decrypt, name))
    arguments = (name, transform, decrypt, field, max_age)
    return missed(
        Want(source, key, changes_before=changes),
        transform,
        field,
        force_fetch,
        max_age,
        _parameters,
        arguments,
    )


@raises_without_variables
def missed(
    want: Want,
    transform: Transform,
    field: str | None,
    force: bool,
    max_age: Any,
    index: dict[Any, View],
    arguments: Any,
) -> Any:
    """Return a value that the index of hits has not, from the cache or by a load."""
    label = want.key.label
    if transform is not None or field is not None:
        # Text as it is needs none of it.
        from . import transforms

        transforms.check(transform, field, label)
    want.max_age = settings.max_age_of(want.key.operation, max_age, label)
    want.max_stale = settings.max_stale_of(DEFAULT, label)
    try:
        hash(arguments)
    except TypeError:  # a callable that cannot be hashed
        arguments = None
    if max_age in (0, 1):  # equal to False and True, which are refused each time
        arguments = None
    (view,) = store.read(
        (want,), transform, field, force=force, index=index, arguments=arguments
    )
    return view.copied()
