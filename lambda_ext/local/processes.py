"""
Processes of the environment: started in a group of their own, read to the end.

A process may get a third pipe besides its output, to tell us what it knows of
itself; the number of its descriptor stands in the command for `DESCRIPTOR`.

Threads
    Each pipe has a reader and each process a watcher.  A reader takes bytes
    off its pipe only under ``changed``, so that for a thread that
    holds it an empty pipe means that everything written so far is noted.

    The watcher leaves the dead process unreaped until `close()`: as long as
    its id is taken, a signal to its group cannot reach another process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Note = Callable[[str, bytes, bool], Callable[[], None]]

GONE_S = 2.0  # for a process that was killed to be gone
LEAST_MARK = 2**61  # microseconds
DESCRIPTOR = "<the descriptor of the third pipe>"  # in a command

if sys.platform == "linux":
    import fcntl
    import resource
    import termios


class Process:
    """
    One process group of the environment.

    Args:
        sources: The names of stdout, of stderr and, if there is one, of the third pipe.

        note:
            Called under *changed* with source, line and whether it is complete;
            what it returns is called without the lock.

        ended: Called under *changed* when the process has ended.
        mark: What it, and all that it starts, are to be found by.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        sources: tuple[str, ...],
        changed: threading.Condition,
        note: Note,
        ended: Callable[[Process], None],
        mark: Mark | None = None,
    ) -> None:
        self.exit_status: int | None = None
        self._changed = changed
        self._note = note
        read_fd, write_fd = os.pipe() if len(sources) > 2 else (None, None)
        self._report_fd = read_fd
        try:
            self._popen = subprocess.Popen(  # noqa: S603  what the user wants to run
                [str(write_fd) if part is DESCRIPTOR else part for part in command],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=() if write_fd is None else (write_fd,),
                start_new_session=True,  # a group, whose id is the process's
            )
        except BaseException:
            if read_fd is not None:
                os.close(read_fd)
            raise
        finally:
            if write_fd is not None:
                os.close(write_fd)
        self.pid = self._popen.pid
        if mark is not None:
            mark.put(self.pid)
        self._stop, self._stopped = os.pipe()
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._open = {
            self._popen.stdout.fileno(): 0,
            self._popen.stderr.fileno(): 0,
            **({} if read_fd is None else {read_fd: 0}),
        }  # pipe -> bytes taken off it
        self._threads = [
            threading.Thread(
                target=self._read, args=(fd, source), name="emulator-lines", daemon=True
            )
            for fd, source in zip(tuple(self._open), sources, strict=True)
        ]
        self._threads.append(
            threading.Thread(
                target=self._watch, args=(ended,), name="emulator-watch", daemon=True
            )
        )
        for thread in self._threads:
            thread.start()

    @property
    def over(self) -> bool:
        """Has it ended, and every process that could write to its pipes?"""
        return self.exit_status is not None and not self._open

    @property
    def exit_words(self) -> str:
        """How it ended, in AWS's words."""
        status = self.exit_status
        if not status:
            return "exited without providing a reason"
        if status > 0:
            return f"exited with error: exit status {status}"
        name = signal.strsignal(-status) or str(-status)
        return f"exited with error: signal: {name.lower()}"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the process's end; return whether it came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.exit_status is not None, timeout)

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self) -> None:
        """Stop the group and return when the process has stopped or ended."""
        self.signal(signal.SIGSTOP)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def drain(self) -> None:
        """Return when all that is now in the pipes has been noted."""
        with self._changed:
            goals = {fd: taken + _pending(fd) for fd, taken in self._open.items()}
            self._changed.wait_for(
                lambda: all(self._open.get(fd, n) >= n for fd, n in goals.items())
            )

    def close(self) -> None:
        """Kill what is left of the group, note its last lines, and reap it."""
        self.signal(signal.SIGKILL)
        self._threads[-1].join()
        # The readers go on until their pipes are empty, and no longer: a
        # process that has left the group may hold one open.
        os.write(self._stopped, b"x")
        for thread in self._threads:
            thread.join()
        with self._popen:  # closes the pipes
            self._popen.wait()
        if self._report_fd is not None:
            os.close(self._report_fd)
        os.close(self._stop)
        os.close(self._stopped)

    def _read(self, fd: int, source: str) -> None:
        parts: list[bytes] = []  # of the line that has not ended
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self._stop, select.POLLIN)
        while True:
            readable = dict(poller.poll())
            with self._changed:
                data = os.read(fd, 65536) if fd in readable else b""
                first, *others = data.split(b"\n")
                parts.append(first)
                lines = []
                for each in others:  # joined once: a line may have any length
                    lines.append(b"".join(parts))
                    parts = [each]
                callbacks = [self._note(source, line, True) for line in lines]
                if data:
                    self._open[fd] += len(data)
                else:
                    rest = b"".join(parts)
                    if rest:
                        callbacks.append(self._note(source, rest, False))
                    del self._open[fd]
                self._changed.notify_all()
            for callback in callbacks:
                callback()
            if not data:
                return

    def _watch(self, ended: Callable[[Process], None]) -> None:
        result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        by_itself = result.si_code == os.CLD_EXITED
        with self._changed:
            self.exit_status = result.si_status if by_itself else -result.si_status
            ended(self)
            self._changed.notify_all()


class Mark:
    """
    What each process of one environment has, also one that has left its group.

    It is the address in *variable*, which a process may have emptied with the rest
    of its variables, and a limit that all inherit and none meets: of the processor
    time of real-time scheduling, here of some 10,000 years.

    Source: getrlimit(2), RLIMIT_RTTIME,
    https://man7.org/linux/man-pages/man2/getrlimit.2.html
    """

    def __init__(self, variable: str, value: str) -> None:
        # Without an address no process has it.
        self._variable = os.fsencode(f"{variable}={value}" if value else "=")
        self._limit = LEAST_MARK + secrets.randbelow(LEAST_MARK)

    def put(self, pid: int) -> None:
        """Mark a process that was just started, so that all that it starts have it."""
        with contextlib.suppress(OSError, ValueError):  # it has ended, or may not
            soft, hard = resource.prlimit(pid, resource.RLIMIT_RTTIME)
            # A smaller one is meant; a larger one is of a run around this one.
            if hard == resource.RLIM_INFINITY and not 0 <= soft < LEAST_MARK:
                resource.prlimit(pid, resource.RLIMIT_RTTIME, (self._limit, hard))

    def kill(self) -> None:
        """
        Kill every process that has it.

        For what has left its group, as a daemon does.  Returns when they are gone,
        or after `GONE_S`.
        """
        end = time.monotonic() + GONE_S
        refused: set[int] = set()  # of another user, as by `sudo`
        while found := set(self._holders()) - refused:
            if time.monotonic() > end:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                except PermissionError:
                    refused.add(pid)
            time.sleep(0.005)

    def _holders(self) -> Iterator[int]:
        try:
            names = os.listdir("/proc")
        except FileNotFoundError:  # another system than Linux
            return
        network = _network("self")
        for name in names:
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            held = _limit_of(name) == self._limit
            if not held and self._variable in _proc(name, "environ").split(b"\0"):
                held = _network(name) == network  # in each the address is taken once
            if held and _state_of(name) not in ("Z", "X", ""):
                yield int(name)


def _proc(name: str, file: str) -> bytes:
    """Return what Linux says of a process; nothing of another user's."""
    try:
        with open(f"/proc/{name}/{file}", "rb") as opened:
            return opened.read()
    except OSError:  # or it is gone
        return b""


def _limit_of(name: str) -> int:
    """Return the limit that `Mark` uses; -1 where there is none."""
    _, _, rest = _proc(name, "limits").partition(b"Max realtime timeout")
    soft = rest.split(None, 1)[0] if rest else b""
    return int(soft) if soft.isdigit() else -1


def _network(name: str) -> str:
    try:
        return os.readlink(f"/proc/{name}/ns/net")
    except OSError:
        return ""


def _state_of(name: str) -> str:
    return _proc(name, "stat").rpartition(b")")[2].strip()[:1].decode()


def _pending(fd: int) -> int:
    """Return how many bytes wait in a pipe."""
    buffer = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, buffer)
    return int.from_bytes(buffer, sys.byteorder)
