"""
The event loop of this execution environment, for handlers and hooks in asyncio.

There is one, made when it is first needed and kept: tasks that an invocation
leaves behind stand still until the next one, and connections made in one serve
in the next.  It is closed when the interpreter exits.

Forks
    A child leaves the parent's loop alone, whose selector both share, and makes
    its own.
"""

from __future__ import annotations

import atexit
import contextlib

from ..exceptions import ConfigurationError
from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import Any

_loop: asyncio.AbstractEventLoop | None = None
_inherited: asyncio.AbstractEventLoop | None = None  # a parent's: never touched
_lock = process.Lock()  # for making the loop, and leaving it
_left: set[asyncio.Future[Any]] = set()  # which a loop itself would forget


def run(awaitable: Awaitable[Any]) -> Any:
    """
    Run *awaitable* to its end on the loop, in the caller's thread.

    Raises:
        ConfigurationError: a loop is running in this thread already, or this one
            is running in another thread.
    """
    import asyncio  # 35 ms that only programs with asyncio pay

    msg = ""
    if asyncio._get_running_loop() is not None:
        msg = (
            "an async handler decorated with @lambda_ext.handler, or one with async"
            " hooks, is called like a plain function, and not from inside a running"
            " event loop: call it from a thread (asyncio.to_thread), or await the"
            " function itself, as handler.undecorated(event, context)"
        )
    elif _loop is not None and _loop.is_running():
        msg = (
            "an async handler is running in another thread: there is one event loop"
            " for all invocations, as in Lambda one comes after the other"
        )
    if msg:
        getattr(awaitable, "close", lambda: None)()
        raise ConfigurationError(msg)
    return made().run_until_complete(awaitable)


def run_beside(awaitable: Awaitable[Any]) -> Any:
    """
    Run *awaitable* on the loop, in a thread beside the one that runs invocations.

    While the loop is running there, it is run by that thread, and this one waits.
    """
    import asyncio  # 35 ms that only programs with asyncio pay

    if _loop is None or not _loop.is_running():
        return run(awaitable)

    async def awaited() -> Any:
        return await awaitable

    return asyncio.run_coroutine_threadsafe(awaited(), _loop).result()


class Stay:
    """
    What one thread runs on the loop, until another thread releases it.

    A coroutine that is released stays on the loop as a task, which goes on when the
    loop runs again.  One that blocks the loop keeps it: the next one is a new loop.
    """

    __slots__ = ("_is_abandoned", "_is_released", "_loop", "_release")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # on which it is now
        self._release: Callable[[], object] | None = None
        self._is_released = False
        self._is_abandoned = False

    def run(
        self, awaitable: Awaitable[Any], late: Callable[[asyncio.Future[Any]], object]
    ) -> bool:
        """
        Run *awaitable* until it is done, or this is released; raise what it raises.

        Say whether it is done.  Else *late* will be called with it when it is.
        """
        import asyncio  # 35 ms that only programs with asyncio pay

        with _lock:
            loop = made()
            if not self._is_released:
                self._loop = loop
        if self._loop is None:  # the loop is no longer for this thread to run
            loop.call_soon_threadsafe(lambda: _kept(awaitable).add_done_callback(late))
            return False
        waited = self._waited(awaitable, late)
        if loop.is_running():
            task = asyncio.run_coroutine_threadsafe(waited, loop).result()
            is_ours = False
        else:
            task = loop.run_until_complete(waited)
            is_ours = True
        with _lock:
            self._loop = self._release = None
        if self._is_abandoned and is_ours:
            task.remove_done_callback(late)
            try:
                loop.run_until_complete(task)
            finally:
                if not asyncio.all_tasks(loop):
                    loop.close()
            return True
        if task.done():
            task.result()
        return bool(task.done())

    async def _waited(
        self, awaitable: Awaitable[Any], late: Callable[[asyncio.Future[Any]], object]
    ) -> asyncio.Future[Any]:
        import asyncio  # is loaded by now

        loop = asyncio.get_running_loop()
        released = loop.create_future()
        task = _kept(awaitable)
        self._release = lambda: loop.call_soon_threadsafe(released.cancel)
        if self._is_released:
            released.cancel()
        await asyncio.wait({task, released}, return_when="FIRST_COMPLETED")
        released.cancel()
        if not task.done():
            task.add_done_callback(late)
        return task

    def release(self) -> bool:
        """Have `run`, in another thread, return; say whether it is on the loop."""
        with _lock:
            self._is_released = True
            is_there = self._loop is not None
        release = self._release
        if release is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed by now
                release()
        return is_there

    def abandon(self) -> None:
        """Leave the loop to the thread that is in it; the next one is a new one."""
        global _inherited, _loop
        with _lock:
            if self._loop is not None:
                self._is_abandoned = True
                if _loop is self._loop:
                    _inherited, _loop = _loop, None


def current() -> asyncio.AbstractEventLoop | None:
    """Return the loop, None if there is none."""
    return _loop


def made() -> asyncio.AbstractEventLoop:
    """Return the loop; make it if there is none."""
    import asyncio  # is loaded by now

    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            asyncio.set_event_loop(_loop)
            atexit.register(_close)
        return _loop


def _kept(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """Return a task of the loop that runs, which would itself forget it."""
    import asyncio  # is loaded by now

    task = asyncio.ensure_future(awaitable)
    _left.add(task)
    task.add_done_callback(_left.discard)
    return task


def _close() -> None:
    global _loop
    loop, _loop = _loop, None
    if loop is not None and not loop.is_closed() and not loop.is_running():
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@process.at_fork
def _forked() -> None:
    global _loop, _inherited
    _inherited, _loop = _loop, None


@process.at_reset
def reset() -> None:
    """Close the loop, as if this were just imported."""
    atexit.unregister(_close)
    _close()
