"""
How SIGTERM is seen: always, on every Python, whatever the main thread does.

A Python signal handler runs in the main thread, between two bytecodes.  While
idle, Lambda's runtime client holds that thread in C (Python <= 3.11, and any
image), and around a freeze the kernel may hand the signal to another thread:
such a handler then never runs.  The C half of every Python handler, however,
writes the signal's number to the *wakeup fd*, at once and in any thread.  So:

    C half of the handler ─▶ wakeup fd ═ our pipe ─▶ our thread ─▶ wake()
    Python handler, when it gets to run ───┘ (writes the same byte, no more)

Guarantees
    `wake` is called on our thread, never in a signal handler, where the main
    thread may hold any lock.  Nothing is ever blocked but for the length of a
    fork, so that no subprocess inherits a blocked signal.

Sharing
    There is one wakeup fd and one handler per process.  `rearm` takes them
    back before each wait for an invocation and at the start of each: a wakeup
    fd that it finds there (asyncio's) is *chained*, all bytes are passed on
    to it; a SIGTERM handler that it finds there becomes the *previous* one,
    which `shutdown` calls after the flush.  Between being replaced and the
    next `rearm`, a handler of the user's runs in the main thread as ever, and
    our thread is woken all the same; while asyncio holds the wakeup fd *and*
    the handler (`loop.add_signal_handler(SIGTERM, ...)` in the invocation
    under way), only asyncio is.

Forks
    A child inherits wakeup fd, pipe and handler: its C half would write into
    *our* pipe, and terminating the child would end the parent.  The child
    drops all of it before any Python code runs in it; SIGTERM is blocked in
    the forking thread meanwhile, so that one that comes too early waits.

Threads
    `install`, `rearm` and `reset` change something in the main thread only,
    which is Python's rule for signals.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal` (0.7 ms)
import functools
import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    Handler = Callable[[int, FrameType | None], Any] | int | None

SIGTERM: int = _signal.SIGTERM
_BYTE = bytes((SIGTERM,))
_STOP = b"\0"  # no signal has this number: `reset` ends the thread with it
_STOP_S = 5.0  # how long `reset` waits for that

# Where the runtime client waits for the next invocation.  It is private to
# AWS: found by name, and done without where it is not there.
_CLIENT = "awslambdaric.lambda_runtime_client"
_CLIENT_CLASSES = ("BaseLambdaRuntimeClient", "LambdaRuntimeClient")

_wake: Callable[[], None] | None = None
_read_fd = -1
_write_fd = -1
_thread: threading.Thread | None = None
_previous: Handler = _signal.SIG_DFL
_chained_fd = -1
_chained_file: tuple[int, int] | None = None  # what the number stood for then
_masks: dict[int, set[int]] = {}  # per forking thread, what was blocked before
_follows_forks = False
_unhook: Callable[[], None] | None = None

reason = ""  # why `path()` is "off"
idle: bool | None = None  # waiting for an invocation? None: nobody knows


def install(wake: Callable[[], None]) -> None:
    """
    Have *wake* called on a thread of ours whenever SIGTERM arrives.

    Called outside the main thread it takes effect at the first `rearm` that
    is called inside.
    """
    global _wake, _follows_forks
    _wake = wake
    if not _follows_forks:
        _follows_forks = True
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
    _arm()


def _arm() -> None:
    """Make the pipe, the thread and the handler; say why where that fails."""
    global _read_fd, _write_fd, _thread, _previous, reason
    if threading.current_thread() is not threading.main_thread():
        reason = "started outside the main thread; tried again per invocation"
        return
    try:
        read_fd, write_fd = os.pipe()  # neither is inherited by a subprocess
    except OSError as exc:  # too many open files
        reason = str(exc)
        return
    os.set_blocking(write_fd, False)
    thread = threading.Thread(
        target=_watch, args=(read_fd,), name="lambda_ext_sigterm", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as exc:  # there is no thread to be had
        os.close(read_fd)
        os.close(write_fd)
        reason = str(exc)
        return
    found = _signal.signal(SIGTERM, _on_sigterm)
    if found is not _on_sigterm:
        _previous = found
    _read_fd, _write_fd, _thread = read_fd, write_fd, thread
    reason = ""
    _take()
    _follow_runtime_client()


def rearm() -> None:
    """Take wakeup fd and handler back from whoever took them; about 1 µs."""
    global _previous
    if _write_fd < 0:
        if _wake is not None:
            _arm()
        return
    try:
        if _signal.getsignal(SIGTERM) is not _on_sigterm:
            _previous = _signal.signal(SIGTERM, _on_sigterm)
        _take()
    except (ValueError, OSError):
        pass  # not the main thread; or the pipe was closed, see _watch()


def _take() -> None:
    """Make our pipe the wakeup fd, and chain the one that was."""
    global _chained_fd, _chained_file
    found = _signal.set_wakeup_fd(_write_fd, warn_on_full_buffer=False)
    if found not in (_write_fd, -1):
        _chained_fd, _chained_file = found, _file(found)


def path() -> str:
    """Return how SIGTERM is seen: "wakeup_fd", "chained" or "off"."""
    if _write_fd < 0:
        return "off"
    return "chained" if _chain_holds() else "wakeup_fd"


def previous() -> Handler:
    """Return the handler that ours replaced, or that has since replaced ours."""
    found: Handler = _signal.getsignal(SIGTERM)
    return _previous if found is _on_sigterm else found


def replaced() -> bool:
    """Say whether another handler has taken the place of ours just now."""
    return _signal.getsignal(SIGTERM) is not _on_sigterm


def forward(data: bytes = _BYTE) -> bool:
    """Write *data* to the wakeup fd that was there before; say if there is."""
    if not _chain_holds():
        return False
    try:
        os.write(_chained_fd, data)
    except OSError:
        return False  # full: its owner is about to look anyway
    return True


def _chain_holds() -> bool:
    """Say whether the chained number still stands for the same open file."""
    return _chained_file is not None and _file(_chained_fd) == _chained_file


def _file(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    """Write the byte once more, for when the wakeup fd is somebody else's."""
    try:  # noqa: SIM105  suppress() would run Python code in a signal handler
        os.write(_write_fd, _BYTE)
    except OSError:
        pass  # full, hence read soon; or closed, and the process is ending


def _watch(read_fd: int) -> None:
    """Read the pipe until `reset`; the numbers of other signals pass through."""
    global reason, _read_fd, _write_fd
    while True:
        try:
            data = os.read(read_fd, 4096)
        except OSError:
            data = b""
        if not data:  # somebody closed the pipe, as programs do to become daemons
            if read_fd == _read_fd:
                _read_fd = _write_fd = -1  # the next rearm() starts afresh
                reason = "the pipe was closed; made again at the next invocation"
            return
        if _STOP in data:
            os.close(read_fd)
            return
        others = data.replace(_BYTE, b"")
        if others:
            forward(others)
        if others != data and _wake is not None:
            _wake()


def _follow_runtime_client() -> None:
    """Call `rearm` whenever the runtime client begins to wait."""
    global _unhook, idle
    module = sys.modules.get(_CLIENT)
    for name in _CLIENT_CLASSES:
        client: Any = getattr(module, name, None)
        wait = getattr(client, "wait_next_invocation", None)
        if wait is not None:
            break
    else:
        return

    @functools.wraps(wait)
    def wait_next_invocation(*args: Any, **kwargs: Any) -> Any:
        global idle
        rearm()
        idle = True
        try:
            return wait(*args, **kwargs)
        finally:
            idle = False

    def unhook() -> None:
        client.wait_next_invocation = wait

    if _unhook is None:
        client.wait_next_invocation = wait_next_invocation
        _unhook = unhook
    idle = False


def _before_fork() -> None:
    if _write_fd >= 0:
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (SIGTERM,))
        _masks[threading.get_ident()] = mask


def _after_fork_in_parent() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None and SIGTERM not in mask:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGTERM,))


def _after_fork_in_child() -> None:
    """Let go of everything that is the parent's, then let SIGTERM through."""
    global _wake
    mask = _masks.pop(threading.get_ident(), None)
    _masks.clear()
    if _write_fd >= 0:
        fds = (_read_fd, _write_fd)
        _release("a forked child")
        for fd in fds:
            os.close(fd)
    _wake = None
    if mask is not None and SIGTERM not in mask:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGTERM,))


def _release(why: str) -> None:
    """Give handler and wakeup fd back; the pipe is the caller's to close."""
    global _read_fd, _write_fd, _previous, _chained_fd, _chained_file
    global reason, idle
    found = _signal.set_wakeup_fd(-1)
    if found not in (_write_fd, -1):
        _signal.set_wakeup_fd(found, warn_on_full_buffer=False)
    if not replaced():
        # None is a handler that C code installed: nobody can put that back.
        _signal.signal(SIGTERM, _signal.SIG_DFL if _previous is None else _previous)
    _read_fd = _write_fd = _chained_fd = -1
    _previous, _chained_file = _signal.SIG_DFL, None
    reason, idle = why, None


def reset() -> None:
    """Give back what was taken, as if this were just imported."""
    global _wake, _unhook
    write_fd = _write_fd
    if write_fd >= 0:
        theirs = _chained_fd if _chain_holds() else -1
        _release("")
        if theirs >= 0:
            _signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        os.set_blocking(write_fd, True)  # the pipe may be full
        os.write(write_fd, _STOP)
        os.close(write_fd)
        if _thread is not None:  # it may be in the midst of wake()
            _thread.join(_STOP_S)
    if _unhook is not None:
        _unhook()
        _unhook = None
    _wake = None
