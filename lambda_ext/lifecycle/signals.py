"""
How SIGTERM is seen: always, on every Python, busy, idle or frozen.

A Python signal handler runs in the main thread, between two bytecodes.  While
idle, Lambda's runtime client holds that thread in C (Python <= 3.11, and any
image), and around a freeze the kernel may hand the signal to another thread:
such a handler then never runs.  The C half of every Python handler, however,
writes the signal's number to the *wakeup fd*, at once and in any thread.  So:

    C half of the handler ─▶ wakeup fd ═ our pipe ─▶ our thread ─▶ wake()
    Python handler, when it gets to run ───┘ (writes the same byte, no more)

Guarantees
    `wake` is called on our thread, never in a signal handler, where the main
    thread may hold any lock.  SIGTERM is blocked for the length of a fork only,
    so that no subprocess inherits a blocked signal; our thread unblocks it for
    itself, so that a mask inherited from the parent process hides nothing.
    A byte is written into our pipe or nowhere: the pipe has high numbers, which
    a program that closes descriptors and opens files does not reuse, and both
    ends are compared with the pipe that was made before they are used.

Sharing
    There is one wakeup fd and one handler per process.  `rearm` takes both back
    before each wait for an invocation or, where the wait cannot be seen, at the
    start of each invocation.  A wakeup fd that it finds there (asyncio's) is
    *chained*: all bytes are passed on to it.  A SIGTERM handler that it finds
    there becomes the *previous* one, which `shutdown` calls after the flush.
    Until the next `rearm`, a handler of the user's that has replaced ours runs in
    the main thread as usual, and our thread is woken, too; while asyncio holds the
    wakeup fd *and* the handler (`loop.add_signal_handler(SIGTERM, ...)` in the
    invocation under way), only asyncio is woken.

    A handler that C code installed (`faulthandler.register`, libev's for
    ``gevent.signal_handler``) hides SIGTERM from Python until the next `rearm`
    replaces it.  It cannot be called from here; `shutdown` writes the traceback
    that faulthandler was asked for.

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
import contextlib
import functools
import os
import posix  # eventlet replaces os.read and os.write

from .. import disclosure
from . import process, real_threads, runtime_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from .real_threads import Thread

    Handler = Callable[[int, FrameType | None], Any] | int | None

SIGTERM: int = _signal.SIGTERM
_BYTE = bytes((SIGTERM,))
_STOP = b"\0"  # no signal has this number: `reset` ends the thread with it
_STOP_S = 5.0  # how long `reset` waits for that

HIGHEST_FD = 1023  # select() takes no higher number
SEARCHED = 100  # numbers below that, until a free one is found

_wake: Callable[[], None] | None = None
_read_fd = -1
_write_fd = -1
_closed_fd = -1  # the write end of a pipe that the program closed
_pipe: tuple[int, int] | None = None  # which file our pipe is
_thread: Thread | None = None
_previous: Handler = _signal.SIG_DFL
_chained_fd = -1
_chained_file: tuple[int, int] | None = None  # what the number stood for then
_masks: dict[int, set[int]] = {}  # per forking thread, what was blocked before
_guards_forks = False

# Wakeup fds and handlers that ours replaced, and that `_seize` has still to keep.
# Each is stored by the C call that replaced it: an exception of a signal handler
# cannot come in between.
_found_fds: list[int] = []
_found_handlers: list[Handler] = []
_set_wakeup_fd = functools.partial(_signal.set_wakeup_fd, warn_on_full_buffer=False)

reason = ""  # why `path()` is "off"


def install(wake: Callable[[], None]) -> None:
    """
    Have *wake* called on a thread of ours whenever SIGTERM arrives.

    Called outside the main thread it takes effect at the first `rearm` that
    is called inside.
    """
    global _wake, _guards_forks
    _wake = wake
    if not _guards_forks:
        _guards_forks = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
    _arm()


def _arm() -> None:
    """Make the pipe, the thread and the handler; say why where that fails."""
    global _read_fd, _write_fd, _pipe, _thread, reason
    if not real_threads.in_main_thread():
        _off("started outside the main thread; retried at each invocation")
        return
    try:
        read_fd, write_fd = _open_pipe()
    except OSError as exc:  # too many open files
        _off(str(exc))
        return
    pipe = _file(write_fd)
    try:
        thread = real_threads.start(
            "lambda_ext_sigterm", lambda: _watch(read_fd, pipe), is_quiet=True
        )
    except RuntimeError as exc:  # there is no thread to be had
        if process.by_signal_handler(exc):
            raise  # the thread may have begun, and read
        posix.close(read_fd)
        posix.close(write_fd)
        _off(str(exc))
        return
    _read_fd, _write_fd, _pipe, _thread = read_fd, write_fd, pipe, thread
    reason = ""
    _seize()
    runtime_client.before_wait(rearm)


def _off(why: str) -> None:
    """Note, and log once, why SIGTERM is not seen."""
    global reason
    if reason != why:
        reason = why
        disclosure.warn("signals_off", reason=why)


def _open_pipe() -> tuple[int, int]:
    """Return a pipe with high numbers; no subprocess inherits it."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    return _moved(read_fd), _moved(write_fd)


def _moved(fd: int) -> int:
    """Return the highest free number for *fd*, or *fd* itself."""
    limit = min(os.sysconf("SC_OPEN_MAX"), HIGHEST_FD + 1)
    for number in range(limit - 1, max(limit - SEARCHED, fd), -1):
        if _file(number) is None:
            with contextlib.suppress(OSError):
                os.dup2(fd, number, inheritable=False)
                posix.close(fd)
                return number
    return fd


def rearm() -> None:
    """Take wakeup fd and handler back, if something replaced ours; about 1 µs."""
    if _write_fd < 0:
        if _wake is not None:
            _arm()
        return
    try:
        _seize()
    except ValueError:
        pass  # not the main thread
    except OSError:  # the program closed the pipe, and our thread is not told yet
        _closed(_pipe)
        _arm()


def _seize() -> None:
    """Make handler and pipe ours, and keep what they replaced."""
    global _previous, _chained_fd, _chained_file, _closed_fd
    # Also when Python's table says that it is ours: C code may have replaced it.
    _found_handlers.extend(map(_signal.signal, (SIGTERM,), (_on_sigterm,)))
    _found_fds.extend(map(_set_wakeup_fd, (_write_fd,)))
    while _found_handlers:
        if _found_handlers[0] is not _on_sigterm:
            _previous = _found_handlers[0]
        del _found_handlers[0]
    while _found_fds:
        if _found_fds[0] not in (_write_fd, _closed_fd, -1):
            _chained_fd, _chained_file = _found_fds[0], _file(_found_fds[0])
        del _found_fds[0]
    _closed_fd = -1


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
        posix.write(_chained_fd, data)
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


def _ours(fd: int) -> bool:
    """Say whether *fd* is our pipe, and not another file that has its number."""
    return _pipe is not None and _file(fd) == _pipe


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    """Write the byte once more, for when the wakeup fd is not ours."""
    try:  # not suppress(), which would be more Python code in a signal handler
        if _ours(_write_fd):
            posix.write(_write_fd, _BYTE)
    except OSError:
        pass  # full, hence read soon; or closed, and the process is ending


def _closed(pipe: tuple[int, int] | None) -> None:
    """Note that *pipe* is no more; the next `rearm` makes another."""
    global reason, _pipe, _read_fd, _write_fd, _closed_fd
    if pipe == _pipe:
        _closed_fd = _write_fd
        _read_fd = _write_fd = -1
        _pipe = None
        reason = "the pipe was closed; made again at the next invocation"


def _watch(read_fd: int, pipe: tuple[int, int] | None) -> None:
    """Read the pipe until `reset`; the numbers of other signals pass through."""
    real_threads.introduce()
    # For this thread only, which is enough for the kernel to deliver it.
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGTERM,))
    while True:
        try:
            data = posix.read(read_fd, 4096) if _file(read_fd) == pipe else b""
        except OSError:
            data = b""
        if not data:  # the program closed the pipe, as those that become daemons do
            _closed(pipe)
        if not data or _STOP in data:
            if _file(read_fd) == pipe:
                posix.close(read_fd)
            return
        others = data.replace(_BYTE, b"")
        if others:
            forward(others)
        if others != data and _wake is not None:
            _wake()


def _before_fork() -> None:
    if _write_fd >= 0:
        thread = real_threads.get_ident()
        # Stored by the C call that blocks it, as an interruption must not part them.
        masks = map(_signal.pthread_sigmask, (_signal.SIG_BLOCK,), ((SIGTERM,),))
        _masks.update(zip((thread,), masks, strict=False))


def _after_fork_in_parent() -> None:
    mask = _masks.pop(real_threads.get_ident(), None)
    if mask is not None and SIGTERM not in mask:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGTERM,))


@process.at_fork
def _after_fork_in_child() -> None:
    """Give up handler, wakeup fd and pipe of the parent, then unblock SIGTERM."""
    global _wake, _pipe
    mask = _masks.pop(real_threads.get_ident(), None)
    _masks.clear()
    if _write_fd >= 0:
        fds = (_read_fd, _write_fd)
        _release("a forked child")
        for fd in fds:
            if _ours(fd):
                posix.close(fd)
    _wake = _pipe = None
    if mask is not None and SIGTERM not in mask:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGTERM,))


def _release(why: str) -> None:
    """Give handler and wakeup fd back; the pipe is the caller's to close."""
    global _read_fd, _write_fd, _previous, _chained_fd, _chained_file, reason
    found = _signal.set_wakeup_fd(-1)
    if found not in (_write_fd, -1):
        _signal.set_wakeup_fd(found, warn_on_full_buffer=False)
    if not replaced():
        # None is a handler that C code installed, which Python cannot put back.
        _signal.signal(SIGTERM, _signal.SIG_DFL if _previous is None else _previous)
    _read_fd = _write_fd = _chained_fd = _closed_fd = -1
    _previous, _chained_file = _signal.SIG_DFL, None
    reason = why


def reset() -> None:
    """Give back what was taken, as if this were just imported."""
    global _wake, _pipe, reason
    write_fd = _write_fd
    if write_fd >= 0:
        theirs = _chained_fd if _chain_holds() else -1
        _release("")
        if theirs >= 0:
            _signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        if _ours(write_fd):
            os.set_blocking(write_fd, True)  # the pipe may be full
            posix.write(write_fd, _STOP)
            posix.close(write_fd)
        if _thread is not None:  # which may be in wake()
            _thread.join(_STOP_S)
    _wake = _pipe = None
    reason = ""
