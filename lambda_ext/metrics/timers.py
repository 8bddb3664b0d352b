"""
How long a block runs, or each call of a function: what `Metrics.timer` returns.

Loaded by the first timer.
"""

from __future__ import annotations

import functools
import sys

from .. import disclosure
from ..exceptions import ConfigurationError
from ..lifecycle import clock, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


class Timer:
    """
    What `Metrics.timer` returns; each ``with``, and each call, records a duration.

    Any number of threads and tasks may use one at once: the beginning of a
    block is kept under the frame that entered it, which is also the one that
    leaves it.  In a `contextlib.ExitStack` it is not; there a timer belongs to
    one thread, and to one task, at a time.
    """

    __slots__ = ("_began", "_dims", "_name", "_record")

    def __init__(
        self, record: Callable[..., None], name: str, dims: dict[Any, Any]
    ) -> None:
        if callable(name):
            msg = (
                "metrics.timer takes a name, as in @metrics.timer('db.query'), and"
                f" then decorates: {disclosure.quoted(name)}"
            )
            raise ConfigurationError(msg)
        self._record = record  # takes name, dimensions, seconds and what was raised
        self._name = name
        self._dims = dims
        # By the id of a frame; a list, for a frame may enter twice.
        self._began: dict[int, list[tuple[int, float]]] = {}

    def __enter__(self) -> None:
        began = self._began.setdefault(id(sys._getframe(1)), [])
        began.append((real_threads.get_ident(), clock.monotonic()))

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        now = clock.monotonic()
        frame = id(sys._getframe(1))
        if not self._began:
            msg = "this timer was left more often than it was entered"
            raise RuntimeError(msg)
        if frame not in self._began:  # an ExitStack leaves in a frame of its own
            me = real_threads.get_ident()
            for frame, began in reversed(self._began.copy().items()):  # noqa: B007
                if began and began[-1][0] == me:
                    break
        began = self._began.pop(frame)
        _, since = began.pop()
        if began:
            self._began[frame] = began
        self._done(now - since, exc_type)

    def __call__(self, function: F, /) -> F:
        """
        Measure each call of the decorated function, sync or async.

        Raises:
            ConfigurationError: what is decorated is no function, or a generator,
                whose call runs nothing yet.
        """
        # Not needed by those that measure a block.
        from ..callables import ASYNC_GENERATOR, COROUTINE, GENERATOR, kind_of

        known: object = function
        # Of a bound method, and of what a class looks up, too.
        kind = kind_of(disclosure.attribute(function, "__func__", function))
        # A static coroutine function would no longer be one for `inspect`.
        if isinstance(known, classmethod) or (
            isinstance(known, staticmethod) and kind not in (COROUTINE, GENERATOR)
        ):
            return type(known)(self(known.__func__))  # type: ignore[return-value]
        if not callable(known) or kind in (GENERATOR, ASYNC_GENERATOR):
            msg = (
                "metrics.timer(...) decorates a function, sync or async, and no"
                f" generator: {disclosure.quoted(function)}; use it as a context manager inside"
            )
            raise ConfigurationError(msg)
        if kind == COROUTINE:

            @functools.wraps(function, disclosure.wrappable(function))
            async def timed_coroutine(*args: Any, **kwargs: Any) -> Any:
                began = clock.monotonic()
                try:
                    result = await function(*args, **kwargs)
                except BaseException as exc:
                    self._done(clock.monotonic() - began, type(exc))
                    raise
                self._done(clock.monotonic() - began)
                return result

            return timed_coroutine  # type: ignore[return-value]  # of the same type

        @functools.wraps(function, disclosure.wrappable(function))
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock.monotonic()
            try:
                result = function(*args, **kwargs)
            except BaseException as exc:
                self._done(clock.monotonic() - began, type(exc))
                raise
            self._done(clock.monotonic() - began)
            return result

        return timed  # type: ignore[return-value]  # of the same type

    def _done(
        self, elapsed_s: float, raised: type[BaseException] | None = None
    ) -> None:
        self._record(self._name, self._dims, elapsed_s, raised)
