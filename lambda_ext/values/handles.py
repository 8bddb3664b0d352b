"""
`Secret` and `Parameter`: declared once, loaded together, read where needed.

A handle holds the `View` that its last read found; a hit compares one clock
with it and returns the value.  Everything else is in `_read`.

Threads
    Any number may read one handle.  The attributes that change are each
    replaced at once; a race costs a second look, never a wrong value.
"""

from __future__ import annotations

from .. import disclosure
from ..disclosure import raises_without_variables
from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from . import keys, settings, store, transforms
from .cache import Want
from .calls import source_error
from .settings import DEFAULT
from .store import DEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Any, Generic, Literal, NoReturn, TypedDict, TypeVar, overload

    from typing_extensions import Self, Unpack

    from ..typing import Source
    from .cache import Decoded, Entry, View
    from .derived import Derived
    from .keys import Key
    from .transforms import Transform

    Age = float | timedelta | None
    L = TypeVar("L", bound=Callable[..., object])
    R = TypeVar("R")
    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)

    class _Options(TypedDict, total=False):
        """What a handle of every type takes."""

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
    # Generic to a type checker, without importing typing (3 ms).
    T = T_co = None
    Generic = {T_co: transforms.Unmistakable}


class Handle(Generic[T_co]):
    """What `Secret` and `Parameter` share; not made directly."""

    __slots__ = (
        "__weakref__",
        "_aws",
        "_field",
        "_key",
        "_listeners",
        "_max_age",
        "_max_stale",
        "_notified",
        "_source",
        "_transform",
        "_view",
        "_want",
        "name",
    )

    def __init__(
        self,
        name: str,
        key: Key,
        *,
        transform: Transform,
        field: str | None,
        max_age: Age,
        max_stale: Age,
        source: Source | None,
        aws: dict[str, Any],
    ) -> None:
        transforms.check(transform, field, key.label)
        for option, given in (("max_age", max_age), ("max_stale", max_stale)):
            if given is not DEFAULT:
                settings.seconds(option, given, key.label)
        if source is not None:
            settings.check_source(source, key.label)
        if aws:
            settings.check_aws(key.operation, label=key.label, **aws)
        if source is not None and aws:
            msg = f"source= of {key.label!r} excludes client= and session=: pass one"
            raise ConfigurationError(msg)
        self.name = name
        self._key = key  # without a scope, until there is a source
        self._transform = transform
        self._field = field
        self._max_age = max_age
        self._max_stale = max_stale
        self._source = source
        self._aws = aws  # client= and session=
        self._want: Want | None = None
        self._view: View = DEAD
        self._listeners: tuple[Callable[..., object], ...] = ()
        self._notified: object = None  # the version that listeners know
        store.declare(self)

    def __copy__(self) -> Self:
        """Return the handle itself: it says what is wanted, and holds no state."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the handle itself, see `__copy__`."""
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled: a value could leave this process unseen."""
        kind = type(self).__name__
        msg = (
            f"a {kind} cannot be pickled: pass its name, and declare"
            f" {kind}({self.name!r}) where it is read"
        )
        raise TypeError(msg)

    def __repr__(self) -> str:
        entry = self._view.entry
        version = f" version={entry.answer.version!r}" if entry is not None else ""
        return f"<{type(self).__name__} {self._key.label!r}{version}>"

    @property
    def value(self) -> T_co:
        """
        The value, from memory if it is fresh.

        Calls AWS, and waits, at the first read (then for all that is declared
        at once), when the value is older than ``max_age``, and after a
        restore.  Raises what `get_secret` raises.
        """
        view = self._view
        if clock.monotonic() + clock.lead < view.until:
            copy = view.copy
            return view.value if copy is None else copy()  # type: ignore[no-any-return]
        return self._read().copied()  # type: ignore[no-any-return]

    @property
    def version_id(self) -> str:
        """
        The version of the current value: a secret's id, a parameter's number.

        Read and refreshed as `value` is.
        """
        return self._entry().answer.version

    async def aget(self) -> T_co:
        """
        Return `value` without blocking the event loop.

        A hit is as cheap as `value`; a load runs on a thread of the loop's
        executor, and only this coroutine waits for it.
        """
        view = self._view
        if clock.monotonic() + clock.lead < view.until:
            copy = view.copy
            return view.value if copy is None else copy()  # type: ignore[no-any-return]
        # Loaded where a loop runs; no other program pays its 35 ms.
        import asyncio

        view = await asyncio.to_thread(self._read)
        return view.copied()  # type: ignore[no-any-return]

    def resolve(self) -> T_co:
        """Return `value`: what `inject` asks of everything that it injects."""
        return self.value

    def invalidate(self) -> None:
        """Forget the value, by name and by ARN; the next read asks AWS."""
        key = self._key_of()
        store.invalidate(key.name, key.operation, key.scope)

    def on_change(self, listener: L) -> L:
        """
        Call *listener* with this handle whenever a new version was loaded.

        It runs on the thread that loaded it, which may be the background's;
        what it raises is logged by its class.  Also a decorator.  The first
        load is no change.

        Raises:
            ConfigurationError: *listener* is no plain function.
        """
        if not callable(listener):
            msg = f"on_change of {self._key.label!r} takes a function"  # type: ignore[unreachable]  # not every caller checks types
            raise ConfigurationError(msg)
        # Not at the top: a cold start seldom needs it.
        from .. import callables

        callables.refuse_async(listener, f"on_change of {self._key.label!r}")
        self._listeners = (*self._listeners, listener)
        return listener

    def derive(
        self,
        make: Callable[[T_co], R],
        *,
        close: Callable[[R], object] | None = None,
        grace: float | timedelta | None = 60.0,
    ) -> Derived[R]:
        """
        Return what *make* makes of the value, made again for each version.

        Nothing is made before it is first used; the user who needs a new
        version first waits for it, the others go on with the old one.  The old
        object is passed to *close* when no user has it any more: at the end of
        the last ``with``, and *grace* seconds after it was replaced if it was
        handed out otherwise (None: not before the end).  At SIGTERM and at
        exit all are passed to *close*, see `Derived`.  What *close* raises is
        logged by its class.

        Raises:
            ConfigurationError: *make* or *close* is no plain function, *grace*
                no number of seconds.
        """
        # Avoids what only users of `derive` need.
        from .derived import Derived

        return Derived(self, make, close, grace)

    # For the store and for rotation ------------------------------------------

    def _entry(self) -> Entry:
        """Return the entry behind `value`, loaded if need be."""
        view = self._view
        if not clock.monotonic() + clock.lead < view.until:
            view = self._read()
        assert view.entry is not None
        return view.entry

    def _key_of(self) -> Key:
        return (self._want or self._bind()).key

    def _reload(self, sequence: int) -> None:
        """Make sure that the value is newer than load *sequence*, or raise."""
        store.reload(self._want or self._bind(), sequence)

    @raises_without_variables
    def _read(self) -> View:
        """Return a view of a value that is not older than was asked for."""
        want = self._want or self._bind()
        (view,) = store.read((want,), self._transform, self._field, handle=self)
        self._view = view
        # The entry may have been loaded for another reader.
        if self._notified is None and view.entry is not None:
            self._first(_version(view.entry))
        return view

    def _decoded(self, entry: Entry) -> Decoded:
        """Return what is made of *entry*; once per version."""
        want = self._want or self._bind()
        return store.decoded(entry, want.key, self._transform, self._field)

    def _bind(self) -> Want:
        """
        Return what is wanted, now that source and options can be known.

        Raises nothing but errors of this library, for every source.
        """
        changes = Want.changes
        self._choose_key()
        source = self._source
        if source is None:
            operation = self._key.operation
            if self._aws:
                source = self._source = store.source_through(operation, **self._aws)
            else:
                source = store.source_of(operation)
        error = None
        try:
            key = self._key.within(source.scope)
            hash(key)
        except LambdaExtError:
            raise
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            error = source_error(source, exc, (self._key,))
        if error is not None:  # outside of `except`: else the chain would hold it
            raise error
        label = key.label
        want = Want(
            source,
            key,
            settings.max_age_of(key.operation, self._max_age, label),
            settings.max_stale_of(self._max_stale, label),
            changes_before=changes,
        )
        self._want = want
        if want.is_outdated():  # by another thread, which may not have seen this one
            self._want = None
        return want

    def _choose_key(self) -> None:
        """Take over the options that are a part of the key."""

    def _forget(self) -> None:
        """Forget what was chosen by options; the next read asks them again."""
        self._want = None
        self._view = DEAD

    def _drop(self) -> None:
        """Let go of every value."""
        self._forget()

    def _listens(self) -> bool:
        return bool(self._listeners)

    def _first(self, version: object) -> None:
        """Note *version* as the first one, of which no listener is told."""
        with store.cache.lock:
            if self._notified is None:
                self._notified = version

    def _loaded(self, entry: Entry) -> None:
        """Tell the listeners if *entry* is another version than the last."""
        version = _version(entry)
        key = self._key_of()
        with store.cache.lock:
            now = store.current(key)
            if now is not None and now is not entry:
                return  # it was replaced meanwhile: that thread calls the listeners
            notified, self._notified = self._notified, version
        if notified is None or notified == version:
            return
        # `on_change` has loaded it.
        from .. import callables

        for listener in self._listeners:
            try:
                callables.refuse_coroutine(listener(self), "the listener")
            except Exception as exc:  # whose message may quote the value
                if by_signal_handler(exc):
                    raise
                disclosure.warn(
                    "on_change_failed",
                    key=self._key.label,
                    error=disclosure.kind(exc),
                )


def _version(entry: Entry) -> object:
    """Return what differs between versions; no value, for it outlives a snapshot."""
    # A parameter that is created anew begins with version 1 again.
    value = entry.answer.value
    return entry.answer.version, isinstance(value, (str, bytes)) and hash(value)


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
        version_stage: Of the version with this stage.  Without both, AWS answers
            with AWSCURRENT; "AWSCURRENT" as an argument is also sent to AWS, for
            policies that require it, in a call for this secret alone.
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

    def _choose_key(self) -> None:
        # The option is the environment's, which is not read while declaring.
        decrypt = settings.decrypt_of(self._decrypt, self.name)
        self._key = keys.parameter(None, self.name, decrypt=decrypt)


def _given(client: Any, session: Any) -> dict[str, Any]:
    if client is None and session is None:
        return {}
    return {"client": client, "session": session}
