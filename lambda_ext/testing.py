"""
Doubles for the tests of those who use this library, and for its own.

    with FakeSource({"prod/db": "old"}) as source:
        assert db.value == "old"
        source.rotate("prod/db", "new")
        source.fail(ThrottledError("too many", transient=True))

    with FakeClock() as clock:
        assert db.value == "old"
        clock.freeze(3600)              # an hour without CPU time
        assert db.value == "new"

    with MemorySink() as sink:
        handler({"shop": "a"}, None)
    assert sink.total("orders", shop="a") == 1

    with no_aws():
        handler({"shop": "a"}, None)    # a read of AWS raises, and names what

Doubles nest: leaving one puts back the one before.
"""

from __future__ import annotations

import itertools
import json
import threading

from .answer import Answer as _Answer
from .aws import errors as _errors
from .exceptions import LambdaExtError, NotFoundError
from .lifecycle import clock as _clock
from .lifecycle import current as _current
from .lifecycle import deadline as _deadline
from .lifecycle import phases as _phases
from .lifecycle import process as _process
from .lifecycle import shutdown as _shutdown
from .metrics import recorder as _recorder
from .values import keys as _keys
from .values import store as _store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .typing import Batch, Point

__all__ = (
    "FakeClock",
    "FakeFlags",
    "FakeSource",
    "MemorySink",
    "no_aws",
    "simulate_restore",
    "simulate_sigterm",
    "simulate_timeout",
)


class FakeClock:
    """
    A clock that stands still until it is told otherwise; all in seconds.

    It begins at *wall* seconds since the epoch.  `install()` makes it the
    clock of the library, `uninstall()` goes back to the one before; as a
    context manager it does both.  It keeps what the machine's clocks promise:
    run time never goes back.  It forbids nothing.
    """

    def __init__(
        self, wall: float = 1_700_000_000.0, monotonic: float = 1_000.0
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._former: list[Any] = []  # clocks; None is the machine's

    def monotonic(self) -> float:
        """Return run time."""
        return self._monotonic

    def wall(self) -> float:
        """Return wall time."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let *seconds* go by while the process runs."""
        self._check(seconds)
        self._monotonic += seconds
        self._wall += seconds

    def freeze(self, seconds: float) -> None:
        """
        Let *seconds* go by while the environment is frozen: wall time only.

        The thaw is noted, as the next invocation would: at the next read the
        values have aged.
        """
        self._check(seconds)
        self._wall += seconds
        _clock.thawed()

    def step(self, seconds: float) -> None:
        """
        Set the wall clock forward, or back when *seconds* is negative.

        Nothing notes it, so that a step forward is a freeze whose thaw the
        next invocation, or a reader that looks at the clock, must note.
        """
        self._wall += seconds

    @staticmethod
    def _check(seconds: float) -> None:
        if not seconds >= 0:
            msg = f"time goes forward: {seconds!r}; step() sets the wall clock back"
            raise ValueError(msg)

    def install(self) -> FakeClock:
        """
        Make this the library's clock.

        What was read by another clock has no age by this one: it is forgotten.
        """
        self._former.append(_clock.install(self))
        _store.forget()
        return self

    def uninstall(self) -> None:
        """Go back to the clock before, or to the machine's if there was none."""
        _clock.install(self._former.pop() if self._former else None)
        _store.forget()

    def __enter__(self) -> FakeClock:
        return self.install()

    def __exit__(self, *exc_info: object) -> None:
        self.uninstall()


class FakeSource:
    """
    Secrets and parameters in memory, with versions, failures and gates.

    As a context manager it answers for AWS to everything in this process, and
    what would be asked from outside all the same (a handle with ``client=``)
    raises, as in `no_aws`.  For one handle, pass it as ``source=``.  *values* are
    by name, for secrets and parameters alike: text, or bytes for a binary secret.
    A call takes up to *batch* of them.

    ``calls`` holds the names that each call asked for, in order; the first read
    asks for all handles that are declared in the process, those of other modules
    too: look for a name in it, and compare no whole call.

    Raises:
        TypeError: *values* is no mapping, a name is no text, or a value is neither
            text nor bytes.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        values: Mapping[str, str | bytes] | None = None,
        *,
        name: str = "fake",
        batch: int = 20,
    ) -> None:
        self.name = name
        self.scope = (name, next(self._numbers))
        self.calls: list[tuple[str, ...]] = []
        self._batch = batch
        self._versions: dict[str, list[_Version]] = {}
        self._failures: dict[str | None, list[LambdaExtError | None]] = {}
        self._forked()
        self._held = False
        self._former: list[Any] = []  # sources; None is none
        _process.remember(_sources, self)
        for each, value in _checked(values, "FakeSource", "'a text'").items():
            self.rotate(each, value)

    def __repr__(self) -> str:
        return f"<FakeSource {self.name!r} with {len(self._versions)} name(s)>"

    def rotate(self, name: str, value: str | bytes) -> str:
        """
        Make *value* the current version of *name*; return its id.

        Raises:
            TypeError: *name* is no text, or *value* is neither text nor bytes.
        """
        known: tuple[object, object] = name, value  # not every test checks types
        if not isinstance(known[0], str):
            msg = f"the name of a value is text, not {type(name).__name__}"
            raise TypeError(msg)
        if not isinstance(known[1], (str, bytes)):
            msg = (
                f"the value of {name!r} is text or bytes, as AWS holds it, not"
                f" {type(value).__name__}: json.dumps() or str() make text of it"
            )
            raise TypeError(msg)
        with self._changed:
            versions = self._versions.setdefault(name, [])
            for version in versions:
                was_current = "AWSCURRENT" in version.stages
                version.stages = {"AWSPREVIOUS"} if was_current else set()
            number = len(versions) + 1
            versions.append(_Version(f"{number:032d}", value, {"AWSCURRENT"}))
            return versions[-1].id

    def remove(self, name: str) -> None:
        """
        Delete *name*; asking for it raises `NotFoundError` from now on.

        Raises:
            KeyError: there is none of that name.
        """
        with self._changed:
            if name not in self._versions:
                msg = f"this FakeSource has no {name!r}"
                raise KeyError(msg)
            del self._versions[name]

    def arn(self, name: str) -> str:
        """Return the ARN of *name*, under which it can be asked for as well."""
        return f"arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}-AbCdEf"

    def fail(
        self,
        error: LambdaExtError,
        *,
        times: int | None = None,
        name: str | None = None,
    ) -> None:
        """
        Raise *error* for whole calls, or answer it for *name* only.

        For the next *times* calls; None means until `recover`.  An older value
        serves on only where the error is transient, as AWS's own throttling is:
        ``ThrottledError("slow down", transient=True)``.

        Raises:
            TypeError: *error* is none of `lambda_ext.exceptions`, which is all
                that a source raises.
        """
        _check_error(error)
        with self._changed:
            failures: list[LambdaExtError | None] = [error, None]
            self._failures[name] = failures if times is None else [error] * times

    def recover(self) -> None:
        """Answer properly again."""
        with self._changed:
            self._failures.clear()

    def hold(self) -> None:
        """Let calls wait at a gate, before they are answered."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Open the gate."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_for_calls(self, count: int, timeout: float = 30.0) -> None:
        """
        Wait until *count* calls were made in all, answered or not.

        Raises:
            AssertionError: they were not within *timeout* seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.calls) >= count, timeout):
                msg = f"{len(self.calls)} calls instead of {count} in {timeout} s"
                raise AssertionError(msg)

    def wait_for_answers(self, timeout: float = 30.0) -> None:
        """
        Wait until no call is waiting for its answer.

        Raises:
            AssertionError: one still was after *timeout* seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._inside == 0, timeout):
                msg = f"{self._inside} calls are still waiting after {timeout} s"
                raise AssertionError(msg)

    def __enter__(self) -> FakeSource:
        _errors.isolated_by.append("a FakeSource")
        self._former.append(_store.use(self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()
        _errors.isolated_by.remove("a FakeSource")
        _store.use(self._former.pop())

    def _forked(self) -> None:
        """Begin, in a forked child, without the calls that are the parent's."""
        self._changed = threading.Condition()
        self._inside = 0  # calls that wait at the gate

    # What the library asks ---------------------------------------------------

    def plan(self, wanted: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Divide *wanted* into calls."""
        return _keys.chunks(wanted, self._batch)

    def fetch(
        self, wanted: Sequence[Any], timeout_s: float | None
    ) -> Mapping[Any, Any]:
        """Answer from memory, after the gate."""
        with self._changed:
            self.calls.append(tuple(key.label for key in wanted))
            self._inside += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held)
            try:
                error = self._failure(None)
                if error is not None:
                    raise error
                return {
                    key: self._failure(key.name) or self._answer(key) for key in wanted
                }
            finally:
                self._inside -= 1
                self._changed.notify_all()

    def _failure(self, name: str | None) -> LambdaExtError | None:
        failures = self._failures.get(name)
        if not failures:
            return None
        return failures[0] if failures[-1] is None else failures.pop()

    def _answer(self, key: Any) -> _Answer | LambdaExtError:
        if key.operation == _keys.PATH:
            return self._below(key)
        name = key.name
        if name not in self._versions:
            forms = (
                each for each in self._versions if _keys.is_arn_of(self.arn(each), name)
            )
            name = next(forms, name)
        for version in self._versions.get(name, ()):
            if version.fits(key):
                return _Answer(version.value, version.id, self.arn(name))
        names = ", ".join(map(repr, list(self._versions)[:10])) or "nothing"
        more = len(self._versions) - 10
        msg = f"there is no {key.label!r} in this FakeSource, which has {names}" + (
            f" and {more} more" if more > 0 else ""
        )
        return NotFoundError(msg, key=key.label, source=self.name)

    def _below(self, key: Any) -> _Answer:
        path = "/" if key.name == "/" else key.name + "/"
        found = {
            name: versions[-1].value
            for name, versions in self._versions.items()
            if name.startswith(path) and (key.recursive or "/" not in name[len(path) :])
        }
        return _Answer(found, repr(sorted((n, len(self._versions[n])) for n in found)))


_sources: set[weakref.ref[FakeSource]] = set()


@_process.at_fork
def _forked() -> None:
    for source in _process.living(_sources):
        source._forked()


class _Version:
    """One version of one value."""

    __slots__ = ("id", "stages", "value")

    def __init__(self, id: str, value: str | bytes, stages: set[str]) -> None:
        self.id = id
        self.value = value
        self.stages = stages

    def fits(self, key: Any) -> bool:
        """Say whether it is the version that *key* asks for."""
        # A secret's id is text, a parameter's is a number.
        if key.version is not None and key.version.lstrip("0") != self.id.lstrip("0"):
            return False
        if key.stage is not None:
            return key.stage in self.stages
        return key.version is not None or "AWSCURRENT" in self.stages


class FakeFlags:
    """
    Feature flags, and configurations, that a test sets; seen by the next read.

        with FakeFlags({"new-checkout": True, "limits": {"enabled": True, "n": 5}}):
            handler({}, None)

    As a context manager it answers for AppConfig to every `Flags` and
    `Configuration` in this process, and to nothing else; they nest, leaving
    one puts back the one before.  For one of them, pass it as ``source=``.

    Args:
        flags: By name: True or False, a value as in the flag document
            (``{"enabled": True, ...}`` with attributes), or one with
            ``_variants`` and their rules.
        configurations: Texts, or what becomes JSON, by
            "application/environment/profile"; everything else that is asked
            for is the document of *flags*.

    Raises:
        TypeError: an argument is no mapping; the name of a flag is no text, or its
            value neither a bool nor a mapping.
    """

    name = "fake_flags"
    polled = False  # asked by each read
    _numbers = itertools.count(1)

    def __init__(
        self,
        flags: Mapping[str, Any] | None = None,
        *,
        configurations: Mapping[str, Any] | None = None,
    ) -> None:
        self.scope = (self.name, next(self._numbers))
        self._flags = dict(_checked(flags, "FakeFlags", "True"))
        self._configurations = dict(
            _checked(configurations, "FakeFlags(configurations=...)", "'a text'")
        )
        for each, value in self._flags.items():
            _check_flag(each, value)
        self._version = 1
        self._error: LambdaExtError | None = None
        self._former: list[Any] = []

    def __repr__(self) -> str:
        return f"<FakeFlags with {len(self._flags)} flag(s)>"

    def set(self, name: str, value: Any) -> None:
        """
        Give the flag *name* another value, or its first.

        Raises:
            TypeError: *name* is no text, or *value* neither a bool nor a mapping.
        """
        _check_flag(name, value)
        self._flags = {**self._flags, name: value}
        self._version += 1

    def remove(self, name: str) -> None:
        """Let there be no flag *name*."""
        self._flags = {each: v for each, v in self._flags.items() if each != name}
        self._version += 1

    def configure(self, name: str, value: Any) -> None:
        """Make *value* what the configuration "app/env/profile" is."""
        self._configurations = {**self._configurations, name: value}
        self._version += 1

    def fail(self, error: LambdaExtError) -> None:
        """
        Raise *error* for every read, until `recover`.

        Raises:
            TypeError: as in `FakeSource.fail`.
        """
        _check_error(error)
        self._error = error

    def recover(self) -> None:
        """Answer properly again."""
        self._error = None

    def __enter__(self) -> FakeFlags:
        self._former.append(_store.use_for(_keys.CONFIGURATION, self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        _store.use_for(_keys.CONFIGURATION, self._former.pop())

    # What the library asks ---------------------------------------------------

    def plan(self, wanted: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Answer all in one go."""
        return [wanted] if wanted else []

    def fetch(
        self, wanted: Sequence[Any], timeout_s: float | None
    ) -> Mapping[Any, Any]:
        """Answer each of *wanted*."""
        if self._error is not None:
            raise self._error
        return {key: self._answer(key.name) for key in wanted}

    def _answer(self, name: str) -> _Answer:
        if name in self._configurations:
            value = self._configurations[name]
        else:
            value = {
                flag: {"enabled": value} if isinstance(value, bool) else value
                for flag, value in self._flags.items()
            }
        body = value if isinstance(value, (str, bytes)) else json.dumps(value)
        return _Answer(body, str(self._version))


def _checked(given: Any, double: str, value: str) -> Mapping[str, Any]:
    """Return *given*, which a test may have left out, if it is by name."""
    if given is not None and not hasattr(type(given), "items"):
        msg = (
            f"{double} takes a dictionary by name, such as {{'name': {value}}}, not"
            f" {type(given).__name__}"
        )
        raise TypeError(msg)
    return given or {}


def _check_flag(name: object, value: object) -> None:
    if not isinstance(name, str):
        msg = f"the name of a flag is text, not {type(name).__name__}"
        raise TypeError(msg)
    if not isinstance(value, bool) and not hasattr(value, "items"):
        msg = (
            f"the flag {name!r} is True, False or a dictionary such as"
            f" {{'enabled': True, 'limit': 5}}, not {type(value).__name__}"
        )
        raise TypeError(msg)


def _check_error(error: object) -> None:
    if not isinstance(error, LambdaExtError):
        msg = f"fail() takes an error of lambda_ext.exceptions, not {error!r:.80}"
        raise TypeError(msg)


class MemorySink:
    """
    A sink that keeps what it is given, for a test to look at.

    Give it to a `Metrics`.  Or use it as a context manager: then everything
    without a sink of its own comes here instead of to stdout, from the
    beginning of the block to its end, where it is flushed.

    Inside the block a record that CloudWatch would refuse raises `MetricError`
    where it is recorded.  With *strict* False it is counted and logged, as in
    Lambda; with None the option ``strict`` decides.
    """

    def __init__(self, *, strict: bool | None = True) -> None:
        self.batches: list[Batch] = []
        self._strict = strict
        self._former: list[Any] = []

    def __repr__(self) -> str:
        """Show what is there, and what a flush would bring: a test fails with it."""
        names = {point.name: None for batch in self.batches for point in batch.points}
        shown = ", ".join(map(repr, [*names][:10])) or "nothing"
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        waiting = len(_recorder._buffer.records)
        flush = f"; {waiting} record(s) wait for a flush" if waiting else ""
        return f"<MemorySink with {shown}{more}{flush}>"

    def accept(self, batch: Batch, /) -> None:
        """Keep *batch*."""
        for known in self.batches[-8:]:
            if known is batch:  # a signal handler's exception came between
                return
        self.batches += (batch,)

    def points(self, name: str, /, **dims: str | int) -> list[Point]:
        """
        Return what came of the metric *name*, with at least these dimensions.

        That is what was flushed: a decorated handler flushes when it ends, a
        ``with`` of this sink does at its end, `metrics.flush()` at any time.
        """
        wanted = {name: str(value) for name, value in dims.items()}
        return [
            point
            for batch in self.batches
            for point in batch.points
            if point.name == name and wanted.items() <= dict(point.dimensions).items()
        ]

    def values(self, name: str, /, **dims: str | int) -> list[float]:
        """Return the values of `points`, one after the other."""
        return [value for point in self.points(name, **dims) for value in point.values]

    def total(self, name: str, /, **dims: str | int) -> float:
        """Return the sum of `values`."""
        return sum(self.values(name, **dims))

    def clear(self) -> None:
        """Forget what came so far."""
        self.batches.clear()

    def __enter__(self) -> MemorySink:
        _recorder.default.flush()
        self._former.append(_recorder.install(self, strict=self._strict))
        return self

    def __exit__(self, *exc_info: object) -> None:
        _recorder.default.flush()
        _recorder.restore(self._former.pop())
        if _recorder._buffer.parcels:  # what another thread has recorded meanwhile
            _recorder.default.flush()


class no_aws:  # noqa: N801  used like a function
    """
    Let no read leave this process: it raises instead, and names what was asked.

        with no_aws():
            handler({}, None)

    What a `FakeSource`, a file (``source="file:..."``), a source of your own, a
    stubbed client or moto answers is answered, and what is in memory is read.  A
    client of `lambda_ext.cached`, `patch` or `client` may make no other call either.
    Raises what is a `ConfigurationError`, where the value is read.
    """

    def __init__(self) -> None:
        self._former: list[Any] = []  # sources; None is none

    def __enter__(self) -> None:
        _errors.isolated_by.append("no_aws()")
        self._former.append(_store.isolate(_Outside()))

    def __exit__(self, *exc_info: object) -> None:
        _errors.isolated_by.remove("no_aws()")
        _store.isolate(self._former.pop())


class _Outside:
    """The source that stands for all that is not in this process."""

    name = "no_aws"
    scope = ("no_aws",)
    at_init = False

    def plan(self, wanted: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Ask for each by itself."""
        return [[key] for key in wanted]

    def fetch(
        self, wanted: Sequence[Any], timeout_s: float | None
    ) -> Mapping[Any, Any]:
        """Answer each with an error that names it."""
        kinds = {
            _keys.SECRET: "the secret",
            _keys.PATH: "what is below",
            _keys.CONFIGURATION: "the configuration",
        }
        found = {}
        for key in wanted:
            what = f"{kinds.get(key.operation, 'the parameter')} {key.label!r}"
            flags = key.operation == _keys.CONFIGURATION
            found[key] = _errors.isolated(what, "appconfigdata" if flags else "")
        return found


def simulate_sigterm(budget_s: float = _shutdown.BUDGET_S) -> None:
    """
    Do what SIGTERM does, except for ending the process.

    Metrics are flushed and the functions decorated with `on_shutdown` called,
    each on a thread of its own and all within *budget_s* seconds.  No signal
    is sent; a SIGTERM handler of yours is not called.
    """
    _check_seconds("simulate_sigterm", budget_s)
    _shutdown.drain(budget_s)


def simulate_timeout(remaining: float = 0.5) -> None:
    """
    Do what happens shortly before a time-out, *remaining* seconds before it.

    If metrics are in use they are flushed, with ``TimeoutImminent``; the
    `on_timeout` hooks are called, each on a thread of its own, all within
    *remaining* seconds.  Called inside a handler it is that one's time-out.
    """
    _check_seconds("simulate_timeout", remaining)
    _deadline.time_out(_current.state(), remaining)


def _check_seconds(name: str, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        msg = f"{name}() takes seconds, such as 0.3, not {type(given).__name__}"
        raise TypeError(msg)


def simulate_restore(clock: FakeClock | None = None, seconds: float = 0.0) -> None:
    """
    Take a snapshot and restore it, as SnapStart does.

    The functions decorated with `before_snapshot` are called, *seconds* go by
    on *clock* without run time, a new generation begins, and the functions
    decorated with `after_restore` are called.
    """
    known: object = clock  # not every test checks types
    if known is not None and not hasattr(type(known), "freeze"):
        msg = f"simulate_restore(clock, seconds) takes a FakeClock, not {known!r:.80}"
        raise TypeError(msg)
    if clock is None and seconds:
        msg = "simulate_restore(seconds=...) needs a FakeClock on which they go by"
        raise TypeError(msg)
    _phases.call(_phases.SNAPSHOT)
    if clock is not None:
        clock.freeze(seconds)
    _clock.restored()
    _phases.call(_phases.RESTORE)
