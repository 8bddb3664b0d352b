"""
What `Secret` and `Parameter` share: one value, read where it is needed.

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
from ..lifecycle.interruption import by_signal_handler
from . import settings, store, transforms
from .failures import broken
from .freshness import Want
from .settings import DEFAULT
from .store import DEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Any, Generic, NoReturn, TypeVar

    from typing_extensions import Self

    from ..answer import Answer
    from ..typing import Source
    from .cache import Entry, View
    from .derived import Derived
    from .keys import Key
    from .transforms import Decoded, Transform

    Age = float | timedelta | None
    L = TypeVar("L", bound=Callable[..., object])
    R = TypeVar("R")
    T_co = TypeVar("T_co", covariant=True)
else:
    # Generic to a type checker, without importing typing (3 ms).
    T_co = None

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
        "_memo",
        "_source",
        "_told",
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
        self._memo: tuple[Answer, Decoded] | None = None
        self._listeners: tuple[Callable[..., object], ...] = ()
        self._told: object = None  # which version the listeners know
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
        return self._read().give()  # type: ignore[no-any-return]

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
        # Loaded by whoever runs a loop; nobody else pays its 35 ms.
        import asyncio

        view = await asyncio.to_thread(self._read)
        return view.give()  # type: ignore[no-any-return]

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
            msg = f"on_change of {self._key.label!r} takes a function"  # type: ignore[unreachable]  # not everybody checks types
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

    def _renew(self, order: int) -> None:
        """Have a value that is newer than that of load *order*, or raise."""
        want = self._want or self._bind()
        store.renew(want, order)

    @raises_without_variables
    def _read(self) -> View:
        """Return a view of a value that is not older than was asked for."""
        want = self._want or self._bind()
        along = () if store.loader.holds(want) else store.take_pending()
        ((entry, _),) = store.loader.get(
            (want,),
            along=store.wants_of(along),
            ends_at=store.ends_at(want.key.operation),
        )
        if isinstance(entry, Exception):
            raise entry
        view = self._view = store.show(want, entry, self._decoded(entry))
        return view

    def _decoded(self, entry: Entry) -> Decoded:
        """Return what is made of *entry*; once per version."""
        answer = entry.answer
        memo = self._memo
        if memo is None or not (memo[0] is answer or memo[0].same(answer)):
            made = transforms.decode(
                answer.value, self._transform, self._field, self._key.label
            )
            with store.cache.lock:
                memo = self._memo
                if memo is None or not memo[0].same(answer):
                    memo = self._memo = (answer, made)
        return memo[1]

    def _bind(self) -> Want:
        """
        Return what is wanted, now that source and options can be known.

        Raises nothing but what is this library's, whatever the source does.
        """
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
            error = broken(source, exc, (self._key,))
        if error is not None:  # outside of `except`: else the chain would hold it
            raise error
        want = Want(
            source,
            key,
            settings.max_age_of(key.operation, self._max_age, key.label),
            settings.max_stale_of(self._max_stale, key.label),
        )
        self._want = want
        return want

    def _forget(self) -> None:
        """Ask anew what the options say."""
        self._want = None
        self._view = DEAD

    def _drop(self) -> None:
        """Let go of every value."""
        self._forget()
        self._memo = None

    def _loaded(self, entry: Entry) -> None:
        """Tell the listeners if *entry* is another version than the last."""
        answer = entry.answer
        # Kept across a snapshot, hence no value.  A parameter that is created
        # anew begins with version 1 again.
        value = answer.value
        version = (answer.version, isinstance(value, (str, bytes)) and hash(value))
        with store.cache.lock:
            told, self._told = self._told, version
        if told is None or told == version:
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
