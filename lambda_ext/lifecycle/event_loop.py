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
_release: Callable[[], object] | None = None  # ends `run_until_released`
_left: set[asyncio.Future[Any]] = set()  # which a loop itself would forget


def run(awaitable: Awaitable[Any]) -> Any:
    """
    Run *awaitable* to its end on the loop, in the caller's thread.

    Raises:
        ConfigurationError: a loop is running in this thread already, or this one
            is running in another thread.
    """
    import asyncio  # 35 ms that only programs with asyncio pay

    global _loop
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
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
        atexit.register(_close)
    return _loop.run_until_complete(awaitable)


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


def run_until_released(awaitable: Awaitable[Any]) -> bool:
    """
    Run *awaitable* on the loop until it is done, or `release` is called.

    Say whether it is done.  Else it is left there as a task, which goes on when the
    loop runs again.  What it raises is raised.
    """
    import asyncio  # 35 ms that only programs with asyncio pay

    async def waited() -> bool:
        global _release
        loop = asyncio.get_running_loop()
        released = loop.create_future()
        task = asyncio.ensure_future(awaitable)
        _left.add(task)
        task.add_done_callback(_left.discard)
        _release = lambda: loop.call_soon_threadsafe(released.cancel)  # noqa: E731
        try:
            await asyncio.wait({task, released}, return_when="FIRST_COMPLETED")
        finally:
            _release = None
            released.cancel()
        if task.done():
            task.result()
        return task.done()

    return bool(run_beside(waited()))


def release() -> bool:
    """Have `run_until_released`, in another thread, return; say whether it is there."""
    release = _release
    if release is None:
        return False
    with contextlib.suppress(RuntimeError):  # the loop is closed by now
        release()
    return True


def abandon() -> None:
    """Leave the loop to a thread that is stuck in it; the next one is a new one."""
    global _inherited, _loop
    if _loop is not None and _loop.is_running():
        _inherited, _loop = _loop, None


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
