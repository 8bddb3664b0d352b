"""
Whole lines on stdout, beside what else is written there.

Guarantees
    A line begins at the beginning of a line and is one ``write(2)`` wherever
    stdout takes it whole; short lines that follow each other share one.  Where
    something else may have left stdout within a line, the write begins with a
    newline of its own, at the price of an empty line.
    A line comes out whole, or is kept for the next time and then begins on a
    line of its own, or is counted as dropped.  A signal handler that raises
    while lines are written loses none and doubles none.

When stdout is certainly between two lines
    When no other thread of the user's lives, this process has started no
    child (by `subprocess` or a fork) and is none itself, and what Python last
    wrote to the stream (by print, write or logging, or to its buffer) ended in a
    newline.  Tracking alone does not serve: another thread's print() is two writes.
    What C code, os.write() or another file object writes past the stream is not
    seen.

What a pipe cannot promise
    A write of up to `PIPE_BUF` bytes to a pipe is never mixed with those of
    other threads and processes; a longer one may be.  So lines are made that
    short wherever they can be divided.

Which stdout
    Inside Lambda the process's own, not what ``sys.stdout`` stands for at the
    moment: what a redirection catches is no log event.  Elsewhere
    ``sys.stdout`` as it is.  Lines go to the file descriptor, behind what the
    stream has buffered, because the stream's buffer takes a lock, raises when
    a signal handler interrupts it, and does not tell what it did with half a
    line.  A stream without a descriptor (in memory, for tests) is written to.

Threads
    One thread writes at a time, which is the caller's business (`buffer`); it
    may be interrupted by itself, in a signal handler that flushes.
"""

from __future__ import annotations

import _thread
import io
import os
import sys
import types

from .. import config
from ..lifecycle import clock, process, real_threads
from ..lifecycle.process import by_signal_handler
from .losses import uncounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Sequence
    from typing import Any

PIPE_BUF = 4_096  # bytes; Linux's
MAX_BYTES = 60_000  # of a line; EMF allows 1 MB
MAX_KEPT = 1_000_000  # bytes that stdout did not take, for the next time
RUSAGE_CHILDREN = -1  # of `resource`
LOOKS = 2  # at children before it is loaded: when metrics begin, and at the first flush
STAT = "/proc/self/stat"  # what they need of it; see proc(5)
LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT
P_ALL, waitid = os.P_ALL, os.waitid  # of any thread
STALL_S = 0.1  # how long one call waits for a stdout that takes nothing

ours = real_threads.ours
_writers: set[weakref.ref[Writer]] = set()


class Line:
    """One line, which ends in a newline; to be made by `line_of`."""

    __slots__ = ("data", "names")

    data: bytes
    names: Sequence[tuple[str, int]]  # how many records of each name


def line_of(data: bytes, names: Sequence[tuple[str, int]]) -> Line:
    """Return a line; a class with ``__init__`` takes twice as long."""
    line = Line()
    line.data = data
    line.names = names
    return line


END = line_of(b"\n", ())  # of a line of which all the rest is out


class _Piece:
    """What one write is to write, and what became of it."""

    __slots__ = ("busy", "data", "lines", "sent", "todo")

    data: bytes
    lines: list[Line]  # that are in it
    busy: bool  # a write is under way, in an outer frame perhaps
    sent: list[Any]  # what each write returned
    todo: list[bytes]  # what is left to write; empty when nothing is

    def done(self, writes: int) -> int:
        """Return how many bytes are out after so many *writes*."""
        return sum(self.sent[:writes])


class _PieceInMemory(_Piece):
    """The same for a stream without a descriptor, which takes all at once."""

    __slots__ = ()

    def done(self, writes: int) -> int:
        """Return how many bytes are out after so many *writes*."""
        return len(self.data) if writes else 0


class Writer:
    """Writes lines to *stream*; None is the process's stdout."""

    def __init__(self, stream: Any = None) -> None:
        process.remember(_writers, self)
        self._stream = stream
        self.lines: list[Line] = []  # not yet written; append to it
        self.accepted = 0  # records that are, or were, in lines
        self.lost = 0  # records in lines that were dropped
        self._piece: _Piece | None = None  # of the first of them
        self._torn = False  # begin with a newline in any case
        self._stalled = False  # the last call could not write all
        self._until: float | None = None  # when this call gives up waiting

    @property
    def pending(self) -> int:
        """The number of records in lines that stdout did not take."""
        return sum([n for line in self.lines.copy() for _, n in line.names])

    @property
    def sent(self) -> int:
        """The number of records in lines that are out."""
        return self.accepted - self.pending - self.lost

    def clear(self) -> None:
        """Forget all lines: they are those of the parent process."""
        self._piece = None
        self.lines.clear()
        self.accepted = self.lost = 0

    def write(self) -> None:
        """Write the lines; what stdout does not take for the moment stays."""
        if self._piece is not None:
            if self._piece.busy:  # the frame that this one interrupts goes on
                return
            self._put_back()
        known, lines = _stdout, self.lines
        if known.in_lambda is None:
            known.in_lambda = config.in_lambda() and sys.__stdout__ is not None
        now: Any = sys.stdout
        stream: Any = self._stream
        if stream is None:
            stream = sys.__stdout__ if known.in_lambda else now
        try:
            if known.stream is not stream:
                known.fileno = _fileno_of(stream)
                known.stream = stream
            descriptor = known.fileno()
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            known.stream = None
            descriptor = -1
        # All writes to it, and to sys.stdout, are known by now.
        follows = _is_followed(stream) and (now is stream or _is_followed(now))
        if known.dirty or not follows:
            known.dirty = False
            _flush(stream)
            if stream is not now and self._stream is None:
                _flush(now)
            follows = follows or _follow_both(stream)
        while lines:
            chosen = lines[:1] if descriptor < 0 or len(lines) == 1 else _packed(lines)
            if not chosen:  # a signal handler's flush has written them
                break
            data = chosen[0].data
            if len(chosen) > 1:
                data = b"".join([line.data for line in chosen])
            if descriptor >= 0 and (
                self._torn
                or not follows
                or known.open
                # A thread of ours that begins or ends now counts as the user's.
                or _thread._count() > len(ours)
                or (real_threads.get_ident() != known.main and _in_other_thread())
                or known.children
                or _has_children()
            ):
                data = b"\n" + data
            piece = _Piece() if descriptor >= 0 else _PieceInMemory()
            piece.data, piece.lines, piece.busy = data, chosen, False
            piece.sent, piece.todo = [], [data]
            # One step, unless a signal handler's flush did it.
            if lines[: len(chosen)] == chosen:
                self._piece = piece
                self._torn = False
                known.open = False  # what is written after it will say so again
            self._until = None
            if not self._push(piece, stream, descriptor):
                return
        if descriptor < 0:
            _flush(stream)
        self._stalled = False

    def _push(self, piece: _Piece, stream: Any, descriptor: int) -> bool:
        """Write what is left of *piece*; False when it takes nothing any more."""
        todo, sent, lines = piece.todo, piece.sent, self.lines
        count = len(piece.lines)
        while todo and self._piece is piece:
            try:
                piece.busy = True
                if descriptor < 0:
                    text = piece.data.decode("ascii")
                    results: Any = map(stream.write, (text,))
                else:
                    results = map(os.write, (descriptor,), todo)
                for result in results:  # `todo` has one part, hence one step
                    sent += (result,)
                    break
            except Exception as exc:
                piece.busy = False
                if by_signal_handler(exc):
                    raise
                if not self._refused(piece, descriptor, exc):
                    return False
            finally:
                piece.busy = False
            # One step, as in `_settle`, for what came out at once.
            if sent == [len(piece.data)] and self._piece is piece:
                self._piece = None
                _stdout.documents += count
                del lines[:count]
                break
            self._settle(piece)
        return True

    def _refused(self, piece: _Piece, descriptor: int, exc: Exception) -> bool:
        """Say whether to go on after a write of *piece* that has raised *exc*."""
        if isinstance(exc, BlockingIOError):
            if self._writable(descriptor):
                return True
            self._put_back()
            self._stall()
            return False
        # Closed, broken or full.
        self._put_back()
        self._lose(len(piece.lines), f"{type(exc).__name__}: {exc}")
        return True

    def abandon(self, reason: str) -> None:
        """Count the lines as dropped: the process ends."""
        self._lose(len(self.lines), "stdout took nothing until the end", reason)

    def _settle(self, piece: _Piece) -> None:
        """Take note of what was written of *piece*."""
        sent, lines, count = piece.sent, self.lines, len(piece.lines)
        writes = len(sent)
        left = [piece.data[piece.done(writes) :]]
        if not left[0]:
            left = []
        # One step; not if a signal handler's flush has gone on meanwhile.
        if self._piece is piece and not sent[writes:]:
            piece.todo[:] = left
            if not left:
                self._piece = None
                _stdout.documents += count
                del lines[:count]

    def _put_back(self) -> None:
        """End what a signal handler, or a stall, has left half done."""
        piece = self._piece
        if piece is None:
            return
        data, lines = piece.data, self.lines
        done = piece.done(len(piece.sent))
        prefix = len(data) - sum([len(line.data) for line in piece.lines])
        whole = data[prefix:done].count(b"\n")  # lines that are out
        # All of a line but its end is out: written again, it would count twice.
        unended = int(done > prefix and data[done : done + 1] == b"\n")
        rest = [END] * unended
        torn = prefix > 0 if done == 0 else data[done - 1 : done] != b"\n"
        # One step.
        if self._piece is piece:
            self._piece = None
            self._torn = torn
            piece.todo[:] = []
            _stdout.documents += whole
            lines[: whole + unended] = rest

    def _lose(self, count: int, message: str, reason: str = "stdout") -> None:
        """Drop and count the first *count* lines."""
        lines, losses = self.lines, uncounted
        doomed = lines[:count]
        lost = [
            (reason, name, number, message)
            for line in doomed
            for name, number in line.names
        ]
        records = sum([number for _, _, number, _ in lost])
        # One step.
        if lines[:count] == doomed:
            losses += lost
            self.lost += records
            del lines[:count]

    def _writable(self, descriptor: int) -> bool:
        """Wait until stdout takes more; only a non-blocking one gets here."""
        import select  # a process that shares our stdout made it so

        if self._until is None:
            wait_s = 0.0 if self._stalled else STALL_S
            self._until = clock.run_time() + wait_s
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(max(0.0, self._until - clock.run_time()) * 1000))

    def _stall(self) -> None:
        """Keep what waits for the next time, but not more than `MAX_KEPT`."""
        self._stalled = True
        lines = self.lines.copy()
        size = sum([len(line.data) for line in lines])
        count = 0
        while size > MAX_KEPT:
            size -= len(lines[count].data)
            count += 1
        if count:
            self._lose(count, "it takes nothing")


def _packed(lines: list[Line]) -> list[Line]:
    """Return as many of *lines* as one write can hold, at least one."""
    size = 1
    for count, line in enumerate(lines[:100]):
        size += len(line.data)
        if count and size > PIPE_BUF:
            return lines[:count]
    return lines[:100]


def _usage(who: int) -> Any:
    """Look at children as `resource.getrusage` does, which takes 0.2 ms to load."""
    # No file can be opened: as if there had been children.
    found = types.SimpleNamespace(ru_minflt=-1)
    _stdout.looks += 1
    try:
        found.ru_minflt = _faults(who)
    except Exception as exc:
        if by_signal_handler(exc):
            raise
    return found


def _faults(who: int) -> int:
    """Return how many page faults children had that were waited for."""
    fields = b"" if _stdout.looks > LOOKS else _stat()
    if not fields:
        load_rest()
        return int(_stdout.usage(who).ru_minflt)
    # The 11th; the second is a name in parentheses, which may have blanks.
    return int(fields.rpartition(b")")[2].split()[8])


def _stat() -> bytes:
    """Return what the kernel tells of this process, b"" where it tells nothing."""
    # Not os.path.exists(), which hides an OSError of a signal handler.
    try:
        descriptor = os.open(STAT, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, PIPE_BUF)
    finally:
        os.close(descriptor)


def load_rest() -> None:
    """Load what the second flush needs."""
    import resource

    _stdout.usage = resource.getrusage


class _Stdout:
    """What is known of the process's stdout."""

    def __init__(self) -> None:
        self.in_lambda: bool | None = None  # not yet known
        self.stream: Any = None  # the last one, and its method `fileno`
        self.fileno: Any = None
        self.dirty = True  # it may have something in its buffer
        self.documents = 0  # that were written to it, or to another stream
        self.open = True  # it may be within a line: nothing is known yet
        self.follows_forks = False
        self.children = False  # another process writes there, or may have
        self.faults: int | None = None  # of children that have ended, at first sight
        self.usage: Any = _usage  # then resource.getrusage
        self.looks = 0  # at children, without it
        self.main = 0  # identity of the main thread; 0: not yet known


_stdout = _Stdout()


def watch() -> None:
    """Follow from now on what this process writes to stdout, and which children it starts."""
    _stdout.in_lambda = config.in_lambda() and sys.__stdout__ is not None
    _stdout.faults = _stdout.usage(RUSAGE_CHILDREN).ru_minflt
    stream = sys.__stdout__ if _stdout.in_lambda else sys.stdout
    if stream is not None:
        _follow_both(stream)


def documents() -> int:
    """Return how many lines this process has written."""
    return _stdout.documents


class _Write:
    """A stream's method `write` that notes whether it has ended its line."""

    __slots__ = ("write",)

    def __init__(self, write: Any) -> None:
        self.write = write

    def __call__(self, text: Any, /) -> Any:
        if not text:
            return self.write(text)
        # Before it and after it: a flush may come between.
        _stdout.open = _stdout.dirty = True
        result = self.write(text)
        _stdout.dirty = True
        _stdout.open = text[-1:] != "\n"
        return result


class _WriteBytes(_Write):
    """The same of a stream's buffer, which text reaches when it is flushed."""

    __slots__ = ()

    def __call__(self, data: Any, /) -> Any:
        before = _stdout.open
        _stdout.open = _stdout.dirty = True
        result = self.write(data)
        _stdout.dirty = True
        if type(data) is not bytes:
            data = bytes(memoryview(data).cast("B")[-1:])
        _stdout.open = data[-1:] != b"\n" if data else before
        return result


def _fileno_of(stream: Any) -> Any:
    """Return what tells the descriptor of *stream*, past its layers where it has those."""
    method = stream.fileno
    inner = getattr(method, "__self__", None)  # also of the runtime client's wrapper
    if type(inner) is io.TextIOWrapper and type(inner.buffer) is io.BufferedWriter:
        raw: Any = inner.buffer.raw
        if type(raw) is io.FileIO:
            return raw.fileno
    return method


def _is_followed(stream: Any) -> bool:
    try:
        return type(stream.write) is _Write
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        return False


def _follow_both(stream: Any) -> bool:
    """Follow *stream*, and sys.stdout where that writes to the same file."""
    followed = _follow(stream)
    if stream is not sys.stdout:
        followed = _follow_same(sys.stdout, stream) and followed
    return followed


def _follow(stream: Any) -> bool:
    """Note from now on how writes to *stream* end; say whether that is known."""
    try:
        write = stream.write
        if type(write) is _Write:
            return True
        _stdout.open = _stdout.dirty = True
        stream.write = _Write(write)
        buffer = getattr(stream, "buffer", None)
        if buffer is not None and type(buffer.write) is not _WriteBytes:
            buffer.write = _WriteBytes(buffer.write)
        if not _stdout.follows_forks:
            _stdout.follows_forks = True
            os.register_at_fork(before=_before_fork)
    except Exception as exc:  # of a stream that takes no attribute
        if by_signal_handler(exc):
            raise
        return False
    return True


def _follow_same(stream: Any, other: Any) -> bool:
    """Follow *stream* where it writes to the same file as *other*, past it."""
    inner = stream
    while inner is not None and inner is not other:  # the runtime client's wrapper
        inner = getattr(inner, "__dict__", {}).get("stream")
    if inner is other:
        return True
    try:
        # Not the numbers: `os.dup` gives another one.
        same = os.path.samestat(os.fstat(stream.fileno()), os.fstat(other.fileno()))
    except Exception as exc:  # in memory
        if by_signal_handler(exc):
            raise
        return True
    return not same or _follow(stream)


def _in_other_thread() -> bool:
    """Say whether this is not the main thread, which lives beside this one, then."""
    if not real_threads.in_main_thread():
        return True
    _stdout.main = real_threads.get_ident()
    return False


def _has_children() -> bool:
    """Say whether this process has started another one; for its main thread."""
    known = _stdout
    # A process that was waited for has had page faults.
    faults = known.usage(RUSAGE_CHILDREN).ru_minflt
    if faults != known.faults:
        if known.faults is None:
            known.faults = faults
        else:
            known.children = True
            return True
    if "subprocess" not in sys.modules:
        return False  # children are forked, which is seen, or waited for
    try:
        waitid(P_ALL, 0, LOOK)
    except ChildProcessError:  # none at all; a guard may raise another OSError
        return False
    known.children = True
    return True


def _flush(stream: Any) -> None:
    """Let what others wrote go first; errors show in the write that follows."""
    try:
        stream.flush()
    except Exception as exc:
        if by_signal_handler(exc):
            raise


@process.at_fork
def forked() -> None:
    """Leave the lines to the parent, with which this process shares stdout."""
    _stdout.open = True
    _stdout.children = True
    _stdout.main = 0
    _stdout.documents = 0
    for writer in process.living(_writers):
        writer.clear()


def _before_fork() -> None:
    """Note that there will be a child, which may leave a child of its own unseen."""
    _stdout.children = True


@process.at_reset
def reset() -> None:
    """Forget what is known of stdout, as if this were just imported."""
    global _stdout
    _stdout = _Stdout()
