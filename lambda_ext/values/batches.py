"""
`get_secrets` and `get_parameters`: many values, in as few calls as AWS allows.

They share their entries with `getters`: what one of them loaded, the others
find in memory.

Threads
    Any number may call at once.
"""

from __future__ import annotations

from ..disclosure import raises_without_variables
from ..exceptions import ConfigurationError
from ..lifecycle import clock
from . import keys, settings, store, transforms
from .cache import Want
from .getters import missed
from .settings import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal, TypeVar, overload

    from .handles import Age
    from .transforms import Transform

    T = TypeVar("T")
    Document = dict[str, Any]


if TYPE_CHECKING:

    @overload
    def get_secrets(
        names: Iterable[str],
        transform: None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        field: None = None,
    ) -> dict[str, str]: ...

    @overload
    def get_secrets(
        names: Iterable[str],
        transform: Literal["json"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        field: None = None,
    ) -> dict[str, Document]: ...

    @overload
    def get_secrets(
        names: Iterable[str],
        transform: Literal["binary"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        field: str | None = None,
    ) -> dict[str, bytes]: ...

    @overload
    def get_secrets(
        names: Iterable[str],
        transform: Callable[[Any], T],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        field: str | None = None,
    ) -> dict[str, T]: ...

    @overload
    def get_secrets(
        names: Iterable[str],
        transform: Literal["json"] | None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        *,
        field: str,
    ) -> dict[str, Any]: ...


def get_secrets(
    names: Iterable[str],
    transform: Any = None,
    force_fetch: bool = False,
    max_age: Age = DEFAULT,
    field: str | None = None,
) -> dict[str, Any]:
    """
    Return the secrets *names* as a dictionary, in as few calls as possible.

    What is in memory and fresh comes from there; of the rest, 20 in a call and
    the calls at the same time.  A name and an ARN that may mean one secret go
    in two calls, and what AWS's answer leaves open is asked for by itself, so
    that each name has the value that `get_secret` returns.  See there for
    everything else.

    Raises:
        SourceError: of the first name, in their order, that could not be had.

    Source: BatchGetSecretValue,
    https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
    """
    wanted = _names(names, "get_secrets")
    source = store.source_of(keys.SECRET)
    wants = [Want(source, keys.secret(source.scope, name)) for name in wanted]
    return _many(wanted, wants, transform, field, force_fetch, max_age)


if TYPE_CHECKING:

    @overload
    def get_parameters(
        names: Iterable[str],
        transform: None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: None = None,
    ) -> dict[str, str]: ...

    @overload
    def get_parameters(
        names: Iterable[str],
        transform: Literal["json"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: None = None,
    ) -> dict[str, Document]: ...

    @overload
    def get_parameters(
        names: Iterable[str],
        transform: Literal["binary"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: str | None = None,
    ) -> dict[str, bytes]: ...

    @overload
    def get_parameters(
        names: Iterable[str],
        transform: Callable[[Any], T],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        field: str | None = None,
    ) -> dict[str, T]: ...

    @overload
    def get_parameters(
        names: Iterable[str],
        transform: Literal["json"] | None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
        *,
        field: str,
    ) -> dict[str, Any]: ...


def get_parameters(
    names: Iterable[str],
    transform: Any = None,
    force_fetch: bool = False,
    max_age: Age = DEFAULT,
    decrypt: bool | None = None,
    field: str | None = None,
) -> dict[str, Any]:
    """
    Return the parameters *names* as a dictionary, in as few calls as possible.

    As `get_secrets`, with 10 in a call, and two versions or labels of one
    parameter in two; see `get_parameter` for the rest.

    Source: GetParameters,
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
    """
    wanted = _names(names, "get_parameters")
    source = store.source_of(keys.PARAMETER)
    decrypt = settings.decrypt_of(decrypt, "get_parameters")
    wants = [
        Want(source, keys.parameter(source.scope, name, decrypt=decrypt))
        for name in wanted
    ]
    return _many(wanted, wants, transform, field, force_fetch, max_age)


if TYPE_CHECKING:

    @overload
    def get_parameters_by_path(
        path: str,
        recursive: bool = False,
        transform: None = None,
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
    ) -> dict[str, str]: ...

    @overload
    def get_parameters_by_path(
        path: str,
        recursive: bool = False,
        *,
        transform: Literal["json"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
    ) -> dict[str, Document]: ...

    @overload
    def get_parameters_by_path(
        path: str,
        recursive: bool = False,
        *,
        transform: Literal["binary"],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
    ) -> dict[str, bytes]: ...

    @overload
    def get_parameters_by_path(
        path: str,
        recursive: bool = False,
        *,
        transform: Callable[[Any], T],
        force_fetch: bool = False,
        max_age: Age = DEFAULT,
        decrypt: bool | None = None,
    ) -> dict[str, T]: ...


def get_parameters_by_path(
    path: str,
    recursive: bool = False,
    transform: Any = None,
    force_fetch: bool = False,
    max_age: Age = DEFAULT,
    decrypt: bool | None = None,
) -> dict[str, Any]:
    """
    Return all parameters below *path*, by their full names.

    One call for each ten of them, at the first time and when they are older
    than *max_age*, one after the other, since each page names the next.
    Afterwards `get_parameter` finds each in memory, too.
    *recursive* means all levels, as in AWS's API, where Powertools' default
    is True.  *transform* applies to each value.

    Source: GetParametersByPath,
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html
    """
    arguments = (keys.PATH, path, recursive, transform, decrypt, max_age)
    try:
        view = store.parameters[arguments]
    except (KeyError, TypeError):
        view = store.DEAD
    result: dict[str, Any]
    if clock.monotonic() + clock.lead < view.until and not force_fetch:
        view.slot.hits += 1  # type: ignore[union-attr]  # only DEAD has none
        result = view.copied()
        return result
    changes = Want.changes
    source = store.source_of(keys.PATH)
    decrypt = settings.decrypt_of(decrypt, path)
    recursive = settings.switch("recursive", recursive, path)
    key = keys.path(source.scope, path, recursive=recursive, decrypt=decrypt)
    want = Want(source, key, changes_before=changes)
    result = missed(
        want, transform, None, force_fetch, max_age, store.parameters, arguments
    )
    return result


@raises_without_variables
def _many(
    names: list[str],
    wants: list[Want],
    transform: Transform,
    field: str | None,
    force: bool,
    max_age: Any,
) -> dict[str, Any]:
    label = ", ".join(names)
    transforms.check(transform, field, label)
    if wants:
        want = wants[0]
        age = settings.max_age_of(want.key.operation, max_age, label)
        stale = settings.max_stale_of(DEFAULT, label)
        for want in wants:
            want.max_age = age
            want.max_stale = stale
    views = store.read(wants, transform, field, force=force)
    return {name: view.copied() for name, view in zip(names, views, strict=True)}


def _names(names: Any, function: str) -> list[str]:
    if isinstance(names, (str, bytes)) or not hasattr(type(names), "__iter__"):
        msg = f"{function}() takes several names, as a list, not {type(names).__name__}"
        if function == "get_parameters" and isinstance(names, str):
            msg += "; get_parameters_by_path() takes a path"
        raise ConfigurationError(msg)
    names = list(names)
    for name in names:
        if not isinstance(name, str):
            msg = f"{function}() takes names, which are text, not {type(name).__name__}"
            raise ConfigurationError(msg)
    return list(dict.fromkeys(names))
