"""
The source of configurations: AppConfig's data plane, token by token.

    StartConfigurationSession ─▶ token
    GetLatestConfiguration(token) ─▶ document (empty: unchanged), next token,
                                     seconds until the next poll

One session per application, environment and profile; when to poll is the
loader's business, as it is for a secret.

Guarantees
    A token is sent once, unless the outcome of its call is unknown (throttled,
    a time-out, a broken connection): then it is sent again with the next poll.
    No poll before the seconds that AppConfig asked for have passed: what it
    said last counts as its answer.  "Request too early" counts as unchanged.
    A token that expired, was corrupted or lost costs one new session, begun
    within the same poll.
    An empty answer keeps the last document.  An empty first one is an error.
    After a second failure in a row AppConfig is not asked for 1 second, then
    for 2, 4, up to 30: meanwhile the last error is the answer, at once, so
    that a handler that asks for ten flags does not wait for ten time-outs.
    A good document survives: once there is one, no error of AWS's kills it,
    of any class, and no document that cannot be read replaces it.  For
    how long is the loader's business (max_stale).

Lifecycle
    Tokens and documents are forgotten before a snapshot and after a restore,
    since many environments are restored from one, and in a forked child.

Threads
    A token is taken under ``_lock``, which is not held during a call: a second
    poll of one session at the same time, which only an invalidation or a
    freeze can cause, finds no token and starts a session of its own.

Source: StartConfigurationSession and GetLatestConfiguration,
https://docs.aws.amazon.com/appconfig/2019-10-09/APIReference/API_appconfigdata_GetLatestConfiguration.html
"""

from __future__ import annotations

from .. import config, disclosure
from ..answer import Answer
from ..aws.transport import transport
from ..exceptions import LambdaExtError, NotFoundError, SourceError
from ..lifecycle import clock, phases, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any, Protocol, TypeVar

    from ..aws.transport import Transport
    from ..typing import Source
    from ..values.keys import Key

    E = TypeVar("E", bound=LambdaExtError)

    class Reader(Protocol):
        """What reads documents of one configuration."""

        @property
        def interval_s(self) -> float | None:
            """Seconds between two polls that it wants; None: one poll."""
            ...

        def accept(self, raw: Any, /) -> object:
            """Raise if a new document cannot be read."""
            ...


SERVICE = "appconfigdata"
SHORTEST_S = 15  # RequiredMinimumPollIntervalInSeconds: 15 to 86400
LONGEST_S = 86_400
PAUSE_S = 1.0  # after a second failure in a row, doubled by each further one
LONGEST_PAUSE_S = 30.0
USUAL_S = 60.0  # if an answer does not say when to poll next


class Counters:
    """
    What the sessions of this process did.

    *polls* are calls of GetLatestConfiguration, *sessions* of
    StartConfigurationSession, failed ones included; *unchanged* are empty
    answers, *too_early* polls that AppConfig did not want yet, *renewed*
    sessions that replaced one whose token was refused, *broken* documents that
    could not be read while there was a good one.
    """

    __slots__ = ("broken", "polls", "renewed", "sessions", "too_early", "unchanged")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin at zero."""
        self.broken = self.polls = self.renewed = 0
        self.sessions = self.too_early = self.unchanged = 0


counters = Counters()
process.at_reset(counters.clear)
_all: set[weakref.ref[AppConfig]] = set()
_listening = False


class AppConfig:
    """
    The configurations of one account and region, read with one set of credentials.

    Args:
        client: A boto3 client of "appconfigdata", to ask through.
        session: A boto3 session, to make the client from.
    """

    __slots__ = ("__weakref__", "_lock", "_sessions", "_transport", "scope")

    name = "appconfig"

    def __init__(self, *, client: Any = None, session: Any = None) -> None:
        self._transport = transport(SERVICE, client=client, session=session)
        self._lock = process.Lock()
        self._sessions: dict[str, Session] = {}
        self.scope: Hashable = self._transport.scope
        _register(self)

    def __repr__(self) -> str:
        return "<AppConfig>"  # the scope holds an access key id

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Poll each configuration by itself."""
        return [[key] for key in wanted]

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Poll *wanted*, or say again what AppConfig said last."""
        found: dict[Key, Answer | LambdaExtError] = {}
        for key in wanted:
            try:
                found[key] = self.session(key.name).latest(timeout_s)
            except LambdaExtError as exc:
                found[key] = exc
        return found

    def session(self, name: str) -> Session:
        """Return the session of a configuration, which has made no call yet."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                # A signal handler may have asked meanwhile: the first one stays.
                session = self._sessions.setdefault(
                    name, Session(self._transport, name)
                )
            return session

    def read_by(self, name: str, reader: Reader) -> None:
        """
        Keep the last good document of *name* while ``reader.accept`` raises.

        Of several readers one that accepts is enough: none of them loses a
        document that suits it.  Called with a new document, in the thread of
        the poll, if there is another to keep.
        """
        session = self.session(name)
        with session.lock:
            if all(each is not reader for each in process.living(session.readers)):
                process.remember(session.readers, reader)

    def forget(self) -> None:
        """Let go of all tokens and documents; the next poll begins a session."""
        for session in [*self._sessions.values()]:
            session.forget()


class Session:
    """
    What is known of one configuration, *name*: "application/environment/profile".

    *answer* is the last good document, None before the first; *not_before* the
    house time of the next poll that AppConfig wants.
    """

    __slots__ = (
        "_error",
        "_failures",
        "_last_failure",
        "_name",
        "_token",
        "_transport",
        "answer",
        "lock",
        "not_before",
        "readers",
        "retry_at",
    )

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self.lock = process.Lock()
        self._token = ""
        self._error: LambdaExtError | None = None  # the document cannot be read
        self.answer: Answer | None = None
        self.not_before = 0.0
        self._failures = 0  # in a row
        self._last_failure: SourceError | None = None
        self.retry_at = 0.0  # house time before which AppConfig is not asked
        self.readers: set[weakref.ref[Reader]] = set()

    def __repr__(self) -> str:
        return f"<Session {self._name!r} {self.answer}>"

    def forget(self) -> None:
        """Begin anew."""
        with self.lock:
            self._token = ""
            self._error = self.answer = self._last_failure = None
            self.not_before = self.retry_at = 0.0
            self._failures = 0

    def latest(self, timeout_s: float | None = None) -> Answer:
        """
        Return the document that AppConfig has for us, polled if it is time.

        Raises:
            SourceError: there is none, or none newer than the last good one;
                in the second case it is transient.
        """
        ends_at = None if timeout_s is None else clock.monotonic() + timeout_s
        with self.lock:
            failure = self._last_failure
            if failure is not None and clock.now() < self.retry_at:
                raise _copied(failure)
        try:
            self._poll(ends_at)
        except SourceError as exc:
            if self.answer is not None:
                exc.transient = True  # so that the loader keeps the last good one
            exc.key = self._name
            self._note_failure(exc)
            raise
        with self.lock:
            self._failures, self._last_failure = 0, None
            if self._error is not None:
                raise _copied(self._error)
            answer = self.answer
        if answer is None:  # forgotten meanwhile
            return self.latest(timeout_s)
        return answer

    def _note_failure(self, error: SourceError) -> None:
        """Note *error*; after a second one in a row AppConfig is not asked for a while."""
        with self.lock:
            self._failures += 1
            pause_s = 0.0
            if self._failures > 1:
                pause_s = min(PAUSE_S * 2.0 ** (self._failures - 2), LONGEST_PAUSE_S)
            self._last_failure = _copied(error)  # without the traceback
            self.retry_at = clock.now() + pause_s

    def _poll(self, ends_at: float | None) -> None:
        with self.lock:
            if self._has_said() and clock.now() < self.not_before:
                return
            token, self._token = self._token, ""
        is_first = not token
        if is_first:
            token = self._start(ends_at)
        sent_at = clock.now()
        try:
            answer = self._get(token, ends_at)
        except SourceError as exc:
            if _is_too_early(exc) and self._has_said():
                counters.too_early += 1
                self._keep(token, sent_at + SHORTEST_S)
                return
            if is_first or not _is_about_session(exc):
                if not _is_about_session(exc):
                    self._keep(token, self.not_before)  # it may serve yet
                raise
            disclosure.inform(
                "session_renewed", configuration=self._name, code=exc.code
            )
            counters.renewed += 1
            is_first = True
            token = self._start(ends_at)
            sent_at = clock.now()
            answer = self._get(token, ends_at)
        self._take(answer, sent_at, is_first=is_first)

    def _has_said(self) -> bool:
        return self.answer is not None or self._error is not None

    def _start(self, ends_at: float | None) -> str:
        counters.sessions += 1
        application, environment, profile = self._name.split("/")
        answer = self._transport.call(
            "StartConfigurationSession",
            {
                "ApplicationIdentifier": application,
                "EnvironmentIdentifier": environment,
                "ConfigurationProfileIdentifier": profile,
                "RequiredMinimumPollIntervalInSeconds": self._required_s(),
            },
            timeout_s=_left(ends_at),
        )
        return str(answer["InitialConfigurationToken"])

    def _required_s(self) -> int:
        """Return the seconds between polls that the most frequent reader wants."""
        with self.lock:
            wanted = [each.interval_s for each in process.living(self.readers)]
        wanted = wanted or [config.get("poll_interval")]
        least_s = min(LONGEST_S if each is None else each for each in wanted)
        return min(max(int(least_s), SHORTEST_S), LONGEST_S)

    def _get(self, token: str, ends_at: float | None) -> dict[str, Any]:
        counters.polls += 1
        return self._transport.call(
            "GetLatestConfiguration",
            {"ConfigurationToken": token},
            timeout_s=_left(ends_at),
        )

    def _keep(self, token: str, not_before: float) -> None:
        """Keep a token that was not used up, unless there is a newer one."""
        with self.lock:
            if not self._token:
                self._token = token
                self.not_before = max(self.not_before, not_before)

    def _take(
        self, answer: Mapping[str, Any], sent_at: float, *, is_first: bool
    ) -> None:
        """Take over what AppConfig answered."""
        body = answer.get("Configuration") or b""
        interval_s = answer.get("NextPollIntervalInSeconds", USUAL_S)
        token = str(answer.get("NextPollConfigurationToken") or "")
        if is_first and not body and not self._has_said():
            # The token is forgotten: to this session AppConfig would go on
            # answering that nothing has changed.
            msg = (
                f"the configuration {self._name!r} is empty: AppConfig answered the"
                " first poll of a session without a document"
            )
            raise SourceError(
                msg, key=self._name, source=AppConfig.name, transient=True
            )
        taken, error = self.answer, self._error
        if body:
            new = Answer(_text(body), str(answer.get("VersionLabel") or ""))
            error = self._judged(new)
            if error is None:
                taken = new if taken is None or not taken.same(new) else taken
        else:
            counters.unchanged += 1
        with self.lock:
            self._token = token
            self.not_before = sent_at + interval_s
            self.answer, self._error = taken, error

    def _judged(self, new: Answer) -> LambdaExtError | None:
        """Return why *new* shall not replace a good document, None if it may."""
        with self.lock:
            readers = process.living(self.readers)
        if self.answer is None or not readers or self.answer.same(new):
            return None
        kind = ""
        for reader in readers:
            try:
                reader.accept(new.value)
            except Exception as exc:
                if process.by_signal_handler(exc):
                    raise
                # Not chained: errors of parsers and of callables quote.
                kind = type(exc).__name__
            else:
                return None
        counters.broken += 1
        disclosure.warn(
            "broken_document",
            configuration=self._name,
            version=new.version,
            error=kind,
        )
        msg = (
            f"version '{disclosure.printable(new.version, 128)}' of the configuration {self._name!r} cannot be"
            f" read ({kind}); the last good one is kept"
        )
        return SourceError(msg, key=self._name, source=AppConfig.name, transient=True)


def _register(source: AppConfig) -> None:
    global _listening
    process.remember(_all, source)
    if not _listening:
        phases.listen_once(phases.SNAPSHOT, _forget, priority=phases.NETWORK)
        phases.listen_once(phases.RESTORE, _forget, priority=phases.ESSENTIAL)
        _listening = True


def _forget() -> None:
    for source in process.living(_all):
        source.forget()


def _unlisten() -> None:
    global _listening
    _listening = False
    _all.clear()


process.at_fork(_forget)
process.at_reset(_unlisten)


def make_source(chosen: str, **given: Any) -> Source:
    """Return the source that the option ``flags_source`` chooses."""
    # Avoids what the other sources need.
    if chosen == "aws":
        return AppConfig(**given)
    if chosen == "agent":
        from .agent import Agent

        return Agent()
    from .folder import Folder

    return Folder(chosen.removeprefix("file:"))


def _text(body: bytes) -> str | bytes:
    """Return a document as text; as bytes if it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _left(ends_at: float | None) -> float | None:
    return None if ends_at is None else max(ends_at - clock.monotonic(), 0.0)


def _is_too_early(exc: SourceError) -> bool:
    """Say whether AppConfig did not want this poll yet, but takes the token."""
    words = str(exc)
    return exc.code == "BadRequestException" and (
        "PollIntervalNotSatisfied" in words or "too early" in words.lower()
    )


def _is_about_session(exc: SourceError) -> bool:
    """Say whether another session may be answered where this one is refused."""
    return exc.code == "BadRequestException" or isinstance(exc, NotFoundError)


def _copied(error: E) -> E:
    """Return an exception of the caller's own, equal to *error*."""
    copy = type(error)(*error.args)
    copy.__dict__.update(error.__dict__)
    return copy
