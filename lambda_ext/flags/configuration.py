"""
`Configuration`: a document of AppConfig as a handle, and what `Flags` shares.

    0 ──────── no poll ────────┬─ polled in the background ─┬── stale ──┬ dead
                  poll_interval ▲                    max_age     + max_stale

A read never waits for a poll while there is a document that may serve: that is
for max_stale seconds longer than it is fresh.  What is polled, and when, is
the loader's business, as for a secret: in INIT together with all that is
declared, in the background from a read that finds it due.
"""

from __future__ import annotations

from .. import config, disclosure
from ..exceptions import ConfigurationError
from ..lifecycle import phases, process
from ..values import keys, store
from ..values.cache import DUE_FROM, Want
from ..values.handles import Handle
from ..values.settings import DEFAULT
from ..values.transforms import check, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, TypedDict, TypeVar, overload

    from typing_extensions import Unpack

    from ..typing import Source
    from ..values.handles import Age
    from ..values.transforms import Transform

    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)

    class Options(TypedDict, total=False):
        """What `Configuration` of every type takes."""

        poll_interval: Age | str
        max_stale: Age
        source: Source | None
        client: Any
        session: Any

else:
    T = T_co = None  # only names, see values/handles.py

SLACK_S = 1.0  # a refresh is never earlier than AppConfig wants it


class Poll(Want):
    """A want that a document satisfies without a wait until it is dead."""

    __slots__ = ()

    def accepts(self, age: float) -> bool:
        """Say whether a document of that *age* is served as it is."""
        if self.max_age is None:
            return True
        if self.max_age == 0:
            return False
        return age < self.max_age or self.tolerates(age)


class Once:
    """A transform that is called once for a document, by the first reader that needs it."""

    __slots__ = ("__qualname__", "_last", "_transform")

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self._transform = transform
        self._last: tuple[Any, Any] | None = None  # the document, what was made
        kind = type(transform).__qualname__
        self.__qualname__ = disclosure.words(transform, "__qualname__") or kind

    def __call__(self, raw: Any) -> Any:
        last = self._last
        if last is None or last[0] is not raw:
            last = self._last = raw, self._transform(raw)
        return last[1]

    def forget(self) -> None:
        """Let go of the document and of what was made of it."""
        self._last = None


class Polled(Handle[T_co]):
    """What `Configuration` and `Flags` share; not made directly."""

    __slots__ = ("_poll_interval", "interval_s")

    judges = True  # whether `accept` decides which documents replace the last good one

    def __init__(
        self,
        application: str,
        environment: str,
        profile: str,
        *,
        transform: Transform,
        poll_interval: Age | str,
        max_stale: Age,
        source: Source | None,
        client: Any,
        session: Any,
    ) -> None:
        key = keys.configuration(None, application, environment, profile)
        check(transform, None, key.label)
        if callable(transform):
            transform = Once(transform)
        if poll_interval is not DEFAULT:
            poll_interval = _interval(poll_interval, key.label)
        self._poll_interval: Any = poll_interval
        self.interval_s: float | None = None  # as it is once the handle is read
        given = {"client": client, "session": session}
        super().__init__(
            key.name,
            key,
            transform=transform,
            field=None,
            max_age=DEFAULT,
            max_stale=max_stale,
            source=source,
            aws={} if client is None and session is None else given,
        )
        _attach()

    @property
    def version(self) -> str:
        """
        The label of the document's version, "" if AppConfig gives none.

        Read and refreshed as `value` is.  Source: GetLatestConfiguration,
        VersionLabel.
        """
        return self.version_id

    def accept(self, raw: Any) -> None:
        """Raise if the document *raw* is not what this handle can read."""
        decode(raw, self._transform, self._field, self._key.label)

    def _drop(self) -> None:
        super()._drop()
        if isinstance(self._transform, Once):
            self._transform.forget()

    def _bind(self) -> Want:
        want = super()._bind()
        interval_s = self._poll_interval
        if interval_s is DEFAULT:
            interval_s = config.get("poll_interval")
        self.interval_s = interval_s
        max_age = None if interval_s is None else (interval_s + SLACK_S) / DUE_FROM
        if not disclosure.attribute(want.source, "polled", True):
            max_age = 0.0
        read_by = disclosure.attribute(want.source, "read_by")
        if read_by is not None and self.judges:
            read_by(want.key.name, self)
        poll = Poll(want.source, want.key, max_age, want.max_stale)
        self._want = poll
        return poll


class Configuration(Polled[T_co]):
    """
    A configuration of AppConfig; nothing is loaded by declaring it.

    What is declared when `handler` decorates, or at `start()`, is loaded then,
    beside secrets and parameters; what is declared later, at the first
    ``value``.  From then on it is polled in the background, and a read waits
    for no poll while there is a document that may serve.

    A document that *transform* cannot read does not replace one that it could:
    that serves on, for up to *max_stale* seconds, with a warning in the log.

    Args:
        application, environment, profile: Names or ids.
        transform: None for text, "json", "binary", or a function of the text
            (or of the bytes, if it is not UTF-8), called once per version; its
            result is shared, not copied.
        poll_interval: Seconds, from 1 to 86,400, or a timedelta, between two
            polls; AppConfig may ask for more, and then gets it.  None polls
            once.  Default: `configure()`, 45.
        max_stale: Seconds past one and a half intervals for which a document
            serves, without a wait, while no poll succeeds; 0 = none, None =
            without limit.  Default: `configure()`, 3,600.
        source: Another source than AppConfig; see `lambda_ext.typing.Source`.
        client: A boto3 client of "appconfigdata", to ask through.
        session: A boto3 session, to make the client from.

    Raises:
        ConfigurationError: an argument cannot be used.

    Source: GetLatestConfiguration,
    https://docs.aws.amazon.com/appconfig/2019-10-09/APIReference/API_appconfigdata_GetLatestConfiguration.html
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Configuration[str],
            application: str,
            environment: str,
            profile: str,
            *,
            transform: None = None,
            **options: Unpack[Options],
        ) -> None: ...
        @overload
        def __init__(
            self: Configuration[Any],
            application: str,
            environment: str,
            profile: str,
            *,
            transform: Literal["json"],
            **options: Unpack[Options],
        ) -> None: ...
        @overload
        def __init__(
            self: Configuration[bytes],
            application: str,
            environment: str,
            profile: str,
            *,
            transform: Literal["binary"],
            **options: Unpack[Options],
        ) -> None: ...
        @overload
        def __init__(
            self: Configuration[T],
            application: str,
            environment: str,
            profile: str,
            *,
            transform: Callable[[Any], T],
            **options: Unpack[Options],
        ) -> None: ...

    def __init__(
        self,
        application: str,
        environment: str,
        profile: str,
        *,
        transform: Transform = None,
        poll_interval: Age | str = DEFAULT,
        max_stale: Age = DEFAULT,
        source: Source | None = None,
        client: Any = None,
        session: Any = None,
    ) -> None:
        super().__init__(
            application,
            environment,
            profile,
            transform=transform,
            poll_interval=poll_interval,
            max_stale=max_stale,
            source=source,
            client=client,
            session=session,
        )


def _interval(given: Any, label: str) -> float | None:
    try:
        return config.parsed("interval", given)  # type: ignore[no-any-return]
    except ConfigurationError as exc:
        msg = f"poll_interval of {label!r} cannot be used: {exc}"
        raise ConfigurationError(msg) from exc


# What INIT loads, too ----------------------------------------------------------


class Prefetched(Configuration[str]):
    """A configuration that INIT loads; handles that read it decide what replaces it."""

    __slots__ = ()

    judges = False


_attached = False
_prefetched: list[Polled[Any]] = []  # held here, since no caller does


def _attach() -> None:
    global _attached
    if not _attached:
        phases.listen_once(phases.INIT, _prefetch, priority=phases.ESSENTIAL)
        _attached = True


def _prefetch() -> None:
    """Declare what the option ``flags_prefetch`` names, unless it is declared."""
    names = {handle.name for handle in store.live()}
    _prefetched.extend(
        Prefetched(*name.split("/"))
        for name in config.get("flags_prefetch")
        if name not in names
    )


@process.at_reset
def _reset() -> None:
    global _attached
    _attached = False
    _prefetched.clear()
