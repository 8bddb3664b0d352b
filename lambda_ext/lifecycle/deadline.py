"""
The watcher of deadlines: calls TIMEOUT shortly before Lambda ends an invocation.

One daemon thread, begun by the first `on_timeout` hook.  It sleeps until the
time that it knows of, looks again, and sleeps until the next: an invocation
that ends in time wakes nothing.  A freeze in between only makes it look early
or late; what is due belongs to one invocation and goes with it.
"""

from __future__ import annotations

from . import clock, phases, process, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .real_threads import Thread

MARGIN_S = 0.5  # before the deadline; the hooks share it

_due_at: float | None = None  # run time at which the hooks of this invocation are due
_until: float | None = None  # run time until which the thread sleeps; None: for ever
_wake = real_threads.Event()
_thread: Thread | None = None
_stopping = False


def watch() -> None:
    """Watch the deadline of every invocation from the next on."""
    if _begin not in [listener for _, listener in phases.listeners(phases.INVOKE)]:
        phases.listen(phases.INVOKE, _begin, priority=phases.ESSENTIAL)
        phases.listen(phases.RESPONSE, _end, priority=phases.ESSENTIAL)


def _begin() -> None:
    global _due_at, _thread
    remaining_s = clock.remaining()
    if remaining_s is None:
        return
    # A function with a time-out of less than two margins gets half of it.
    _due_at = clock.run_time() + remaining_s - min(MARGIN_S, remaining_s / 2)
    if _thread is None or not _thread.is_alive():
        try:
            _thread = real_threads.start("lambda_ext_deadline", _run)
        except RuntimeError:  # no thread to be had; the next invocation tries again
            return
    elif _until is None or _until > _due_at:
        _wake.set()


def _end() -> None:
    global _due_at
    _due_at = None


def _run() -> None:
    global _due_at, _until
    while not _stopping:
        due_at = _due_at
        now = clock.run_time()
        if due_at is not None and due_at <= now:
            if _due_at == due_at:
                _due_at = None
                remaining_s = clock.remaining()
                phases.call_within(remaining_s or 0.0, phases.TIMEOUT)
            continue
        _until = due_at
        if due_at == _due_at:  # else an invocation began after the look
            _wake.wait(None if due_at is None else due_at - now)
        _wake.clear()


@process.at_fork
def _forked() -> None:
    global _due_at, _until, _thread, _wake
    _due_at = _until = _thread = None
    _wake = real_threads.Event()


@process.at_reset
def reset() -> None:
    """Let the thread end, as if this were just imported."""
    global _stopping
    thread = _thread
    if thread is not None:
        _stopping = True
        _wake.set()
        thread.join(5.0)
    _forked()
    _stopping = False
