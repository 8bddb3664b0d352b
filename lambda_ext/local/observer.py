"""
Runs the runtime client, and tells the emulator what only the process itself knows.

    observer.main(), with sys.argv = [..., FD, "app.handler"]

In the function's process, in place of ``python -m awslambdaric app.handler``.
It writes one JSON object a line to the descriptor FD:

``{"saw": "import", "name": ...}``
    One of the modules `REPORTED` was imported.

``{"saw": "warning", "level": ..., "text": ...}``
    The library logged it, at WARNING or above; also where the function's own
    logging shows nothing of it.

``{"saw": "end", ...}``
    The process ends by itself; what the library counted until then.

It imports nothing of the library, and nothing that the runtime client does
not import: it adds some 3 ms to the cold start of every function.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the runtime client does not import typing
    from typing import Any

LIBRARY = "lambda_ext"
# The modules whose import is reported: each line of it costs the cold start.
REPORTED = frozenset((LIBRARY, LIBRARY + ".metrics.recorder", LIBRARY + ".testing"))
LOST = ("waiting", "dropped", "dropped_by_name")  # among what is counted
MAX_TEXT = 2_000  # characters of a warning


class Teller:
    """Writes to the emulator; never raises, never writes to another file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_inheritable(fd, False)
        stat = os.fstat(fd)
        self._file = stat.st_dev, stat.st_ino

    def tell(self, saw: str, **what: Any) -> None:
        """Write one object, whole."""
        try:
            stat = os.fstat(self._fd)
            if (stat.st_dev, stat.st_ino) == self._file:  # else it was closed
                line = json.dumps({"saw": saw, "pid": os.getpid(), **what})
                os.write(self._fd, line.encode() + b"\n")
        except Exception:  # noqa: S110  the function must not notice
            pass


class Imports:
    """A finder that finds nothing, and tells which modules of ours are sought."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Tell a module's name; leave it to the finders that follow."""
        if name in REPORTED:
            if name == LIBRARY:
                follow_warnings(self._teller)
            self._teller.tell("import", name=name)


def follow_warnings(teller: Teller) -> None:
    """Tell each warning of the library, independently of the function's logging."""
    import logging  # not before the library needs it: a cold start is measured

    logger = logging.getLogger(LIBRARY)
    enabled, plain = logger.isEnabledFor, logger.log

    def log(level: int, message: object, *args: Any, **kwargs: Any) -> None:
        if level >= logging.WARNING:
            try:
                text = str(message) % args if args else str(message)
            except Exception:
                text = str(message)
            name = logging.getLevelName(level)
            teller.tell("warning", level=name, text=bounded(text))
        if enabled(level):
            # One frame more, so that the record names the library's line.
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            plain(level, message, *args, **kwargs)

    def at(level: int, **more: Any) -> Any:
        def method(message: object, *args: Any, **kwargs: Any) -> None:
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            log(level, message, *args, **{**more, **kwargs})

        return method

    # Where the library asks first whether a warning would be shown, it would.
    setattr(
        logger, "isEnabledFor", lambda level: level >= logging.WARNING or enabled(level)
    )
    setattr(logger, "log", log)
    for name in ("warning", "warn", "error", "critical"):
        setattr(logger, name, at(getattr(logging, name.upper())))
    setattr(logger, "exception", at(logging.ERROR, exc_info=True))


def bounded(text: str) -> str:
    """Return *text*, or its beginning and its end."""
    half = MAX_TEXT // 2
    return text if len(text) <= MAX_TEXT else f"{text[:half]}\n...\n{text[-half:]}"


def end_records() -> None:
    """
    Let each record that the runtime client writes to stdout end its line.

    Its formatter writes no newline after a traceback, nor does one of the
    function's own.  Lambda takes a record for an event of its own, whatever is
    printed next.
    """
    try:
        from awslambdaric import bootstrap

        sink: Any = bootstrap.StandardLogSink
        plain = sink.log
    except Exception:  # not there, which is told next, or of another version
        return

    def log(self: Any, msg: str, *args: Any, **kwargs: Any) -> None:
        plain(self, msg if msg.endswith("\n") else msg + "\n", *args, **kwargs)

    sink.log = log


def follow_end(teller: Teller) -> None:
    """Tell what the library has counted when the process ends by itself."""
    process = os.getpid()
    leave = os._exit

    def report_end() -> None:
        numbers = counted()
        if os.getpid() == process:
            teller.tell("end", **numbers, **begun())
        elif numbers:  # a forked child: only what it loses
            lost = {k: v for k, v in numbers["metrics"].items() if k in LOST}
            teller.tell("end", metrics=lost)

    def leaving(status: int) -> None:
        report_end()
        leave(status)

    atexit.register(report_end)  # first registered, last called
    setattr(os, "_exit", leaving)


def counted() -> dict[str, Any]:
    """Return the library's numbers, as far as it is loaded."""
    recorder: Any = sys.modules.get(LIBRARY + ".metrics.recorder")
    try:
        metrics = json.loads(json.dumps(recorder.snapshot(), default=str))
        metrics["waiting"] = len(recorder._buffer.records)
    except Exception:  # not loaded, or of another version
        return {}
    return {"metrics": metrics}


def begun() -> dict[str, Any]:
    """Return how many invocations of a decorated handler began, if there is one."""
    invocation: Any = sys.modules.get(LIBRARY + ".invocation")
    phases: Any = sys.modules.get(LIBRARY + ".lifecycle.phases")
    try:
        return {"begun": int(phases.calls["invoke"])} if invocation._decorates else {}
    except Exception:  # not loaded, or of another version
        return {}


def main() -> None:
    """Run the runtime client as ``python -m awslambdaric`` does."""
    teller = Teller(int(sys.argv[1]))
    sys.meta_path.insert(0, Imports(teller))
    follow_end(teller)
    sys.path[0] = os.getcwd()  # as with -m
    end_records()
    sys.argv[:] = ["awslambdaric", *sys.argv[2:]]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
