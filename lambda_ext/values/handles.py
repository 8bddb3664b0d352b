"""
`Secret` and `Parameter`: declared once, loaded together, read where needed.

What they do is in `handle`; here is what they take, and of which type their
value is: text, or what `transform` makes of it.
"""

from __future__ import annotations

from . import keys, settings
from .handle import Handle
from .settings import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, TypedDict, TypeVar, overload

    from typing_extensions import Unpack

    from ..typing import Source
    from .freshness import Want
    from .handle import Age

    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)

    class _Options(TypedDict, total=False):
        """What every handle takes, whatever its type."""

        max_age: Age
        max_stale: Age
        source: Source | None
        client: Any
        session: Any

    class _SecretOptions(_Options, total=False):
        version_id: str | None
        version_stage: str | None

    class _ParameterOptions(_Options, total=False):
        decrypt: bool | None

else:
    T = T_co = None  # only names, see handle.py


class Secret(Handle[T_co]):
    """
    A secret of AWS Secrets Manager; nothing is loaded by declaring it.

    All that is declared when `handler` decorates, or at `start()`, is loaded
    then, 20 in a call; what is declared later, at the first ``value`` of any.
    What could not be loaded raises where it is first used.

    The handle is not its value: it raises TypeError, which names ``value``,
    when it is formatted (f-strings, `format`), measured, iterated, indexed or
    searched.  `str`, and hence ``"%s"``, gives its repr; concatenation and
    `json.dumps` raise TypeErrors of Python's own; ``==`` is identity.

    Args:
        name: Name, ARN or partial ARN.
        transform: None for text, "json", "binary" (of text: base64), or a
            function of the text (or bytes), called once per version (threads
            that read a version first at the same time may each call it, and
            share one result); its result is shared, not copied.
        field: Of a JSON secret, only this member; *transform* then applies
            to it.
        version_id: Of this version.
        version_stage: Of the version with this stage.  Without *version_id*, too,
            AWS answers with AWSCURRENT; given, it is sent, for policies that
            ask for it, and read singly.
        max_age: Seconds, or a timedelta, for which the value counts as fresh;
            0 asks AWS at each read, None never again.  Default: `configure()`,
            300.
        max_stale: Seconds past *max_age* for which an old value serves while
            AWS throttles, fails or cannot be reached; 0 = off, None = without
            limit.  Default: `configure()`, 3,600.
        source: Another source than AWS; see `lambda_ext.typing.Source`.
        client: A boto3 client of the service, to ask through.
        session: A boto3 session, to make the client from.

    Raises:
        ConfigurationError: an argument cannot be used.

    Source: GetSecretValue and BatchGetSecretValue,
    https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Secret[str],
            name: str,
            *,
            transform: None = None,
            field: None = None,
            **options: Unpack[_SecretOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Secret[dict[str, Any]],
            name: str,
            *,
            transform: Literal["json"],
            field: None = None,
            **options: Unpack[_SecretOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Secret[bytes],
            name: str,
            *,
            transform: Literal["binary"],
            field: str | None = None,
            **options: Unpack[_SecretOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Secret[T],
            name: str,
            *,
            transform: Callable[[Any], T],
            field: str | None = None,
            **options: Unpack[_SecretOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Secret[Any],
            name: str,
            *,
            transform: Literal["json"] | None = None,
            field: str,
            **options: Unpack[_SecretOptions],
        ) -> None: ...

    def __init__(
        self,
        name: str,
        *,
        transform: Any = None,
        field: str | None = None,
        version_id: str | None = None,
        version_stage: str | None = None,
        max_age: Age = DEFAULT,
        max_stale: Age = DEFAULT,
        source: Source | None = None,
        client: Any = None,
        session: Any = None,
    ) -> None:
        super().__init__(
            name,
            keys.secret(None, name, version_id, version_stage),
            transform=transform,
            field=field,
            max_age=max_age,
            max_stale=max_stale,
            source=source,
            aws=_given(client, session),
        )


class Parameter(Handle[T_co]):
    """
    A parameter of Parameter Store; as `Secret`, with these differences.

    Args:
        name: Name or ARN, with an optional ``:version`` or ``:label``; also
            ``/aws/reference/secretsmanager/...`` and public parameters.
        decrypt: Decrypt a SecureString; False hands out the ciphertext.
            Default: `configure()`, else ``POWERTOOLS_PARAMETERS_SSM_DECRYPT``,
            else True (where Powertools' default is False).

    Source: GetParameter and GetParameters,
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
    """

    __slots__ = ("_decrypt",)

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Parameter[str],
            name: str,
            *,
            transform: None = None,
            field: None = None,
            **options: Unpack[_ParameterOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Parameter[dict[str, Any]],
            name: str,
            *,
            transform: Literal["json"],
            field: None = None,
            **options: Unpack[_ParameterOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Parameter[bytes],
            name: str,
            *,
            transform: Literal["binary"],
            field: str | None = None,
            **options: Unpack[_ParameterOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Parameter[T],
            name: str,
            *,
            transform: Callable[[Any], T],
            field: str | None = None,
            **options: Unpack[_ParameterOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: Parameter[Any],
            name: str,
            *,
            transform: Literal["json"] | None = None,
            field: str,
            **options: Unpack[_ParameterOptions],
        ) -> None: ...

    def __init__(
        self,
        name: str,
        *,
        transform: Any = None,
        field: str | None = None,
        decrypt: bool | None = None,
        max_age: Age = DEFAULT,
        max_stale: Age = DEFAULT,
        source: Source | None = None,
        client: Any = None,
        session: Any = None,
    ) -> None:
        if decrypt is not None:  # else the option, which is not read while declaring
            decrypt = settings.decrypt_of(decrypt, str(name))
        self._decrypt = decrypt
        super().__init__(
            name,
            keys.parameter(None, name, decrypt=decrypt is not False),
            transform=transform,
            field=field,
            max_age=max_age,
            max_stale=max_stale,
            source=source,
            aws=_given(client, session),
        )

    def _bind(self) -> Want:
        # The option is the environment's, which is not read while declaring.
        decrypt = settings.decrypt_of(self._decrypt, self.name)
        self._key = keys.parameter(None, self.name, decrypt=decrypt)
        return super()._bind()


def _given(client: Any, session: Any) -> dict[str, Any]:
    if client is None and session is None:
        return {}
    return {"client": client, "session": session}
