"""
Runtime metrics: what an invocation used of its execution environment, opt-in.

The set of CloudWatch Lambda Insights, by its own names and units, measured in
the process of the runtime at the beginning and the end of each invocation, and
recorded in the namespace of the other metrics, with the dimension
``function_name``.  Each name is a metric of its own in CloudWatch's bill:
``configure(runtime_metrics=["cpu_total_time", ...])`` records some only.
``cold_start`` is a property, as there: it costs nothing.

    duration              ms that the handler took
    init_duration         ms from the start of the process until it asked for its
                          first invocation; with a cold start only
    cpu_user_time, cpu_system_time, cpu_total_time
                          ms of this process and of children that it waited for
    used_memory_max       MB, the most that the process ever had: it never falls
    total_memory          MB, of the function
    memory_utilization    percent: the one of the other
    rx_bytes, tx_bytes, total_network
                          bytes of the whole environment, loopback left out
    tmp_used, tmp_free, tmp_max
                          bytes of /tmp
    fd_use, fd_max        descriptors that are open, and that may be
    threads_max           threads that there are

What cannot be known from inside
    The duration that is billed, the greatest memory of the sandbox, time-outs
    and what extensions use: Lambda tells them to the Telemetry API only.
    Descriptors and threads are counted at the end of the invocation, not
    sampled in between, and are those of this process.  Under SnapStart the
    process started long before, so there is no ``init_duration``.

Where something cannot be read (no ``/proc``, as on macOS) it is left out, and
one line in the log says so.

Source: metrics collected by Lambda Insights,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Lambda-Insights-metrics.html
"""

from __future__ import annotations

import os
import resource
import sys
import time

from .. import config, disclosure
from ..lifecycle import clock, current, phases, process, runtime_client
from . import properties, recorder
from .buffer import DISTRIBUTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Numbers = dict[str, float]

AGENT = "/opt/extensions/cloudwatch_lambda_agent"  # of the Lambda Insights layer
INSIGHTS = "LambdaInsights"  # its namespace
NETWORK = "/proc/net/dev"
DESCRIPTORS = "/proc/self/fd"
STATUS = "/proc/self/status"
STAT = "/proc/self/stat"
FOLDER = "/tmp"  # noqa: S108  Lambda's, whose size is a function's setting
# Lambda's interface to the outside; anywhere else all but the loopback count.
INTERFACES = ("vinternal_1", "vint_runtime", "Ceth1")
SIZE = 65_536  # bytes of a file of /proc
MAXRSS = 1 if sys.platform == "darwin" else 1024  # bytes, of `ru_maxrss`
MEGABYTE = 1024 * 1024
BEFORE_FLUSH = phases.USER - 1  # priority, after the user's own on_response hooks

UNITS = {
    "duration": "Milliseconds",
    "init_duration": "Milliseconds",
    "cpu_user_time": "Milliseconds",
    "cpu_system_time": "Milliseconds",
    "cpu_total_time": "Milliseconds",
    "memory_utilization": "Percent",
    "used_memory_max": "Megabytes",
    "total_memory": "Megabytes",
    "rx_bytes": "Bytes",
    "tx_bytes": "Bytes",
    "total_network": "Bytes",
    "tmp_used": "Bytes",
    "tmp_free": "Bytes",
    "tmp_max": "Bytes",
    "fd_use": "Count",
    "fd_max": "Count",
    "threads_max": "Count",
}


class _Begin:
    """What had been used when the invocation began."""

    __slots__ = ("at", "cpu", "network")

    def __init__(self) -> None:
        self.at = clock.run_time()
        self.network = _network() if "network" in _sources else (0, 0)
        self.cpu = _cpu()


_wanted: frozenset[str] = frozenset()
_sources: frozenset[str] = frozenset()  # those that can be read here
_begin: _Begin | None = None
_owner: recorder.Metrics | None = None
_init_ms: float | None = None  # known once the process has asked for an invocation


def install() -> None:
    """Do what the option *runtime_metrics* says, from the next invocation on."""
    global _wanted
    _stop()
    _wanted = config.get("runtime_metrics")
    if not _wanted:
        return
    if _init_ms is None and config.in_lambda():
        runtime_client.before_wait(_end_of_init)
    phases.listen_once(phases.INVOKE, _invoke, priority=phases.ESSENTIAL)
    phases.listen_once(phases.RESPONSE, _response, priority=BEFORE_FLUSH)


def _invoke() -> None:
    global _begin, _owner
    if _owner is None:
        _owner = _start()
    if _owner._options()[0] == INSIGHTS and os.path.exists(AGENT):
        _stop()
        disclosure.warn(
            "runtime_metrics_refused",
            "the Lambda Insights layer writes to the namespace LambdaInsights itself:"
            " choose another namespace, or leave the layer out",
        )
        return
    if "cold_start" in _wanted:
        properties.surround({"cold_start": current.is_cold_start()})
    _begin = _Begin()


def _start() -> recorder.Metrics:
    """Look what can be read; return what records it."""
    global _sources
    found, missing = [], []
    for name, read in _READERS.items():
        try:
            read()
        except (OSError, ValueError, LookupError) as exc:
            if process.by_signal_handler(exc):
                raise
            missing.append(name)
        else:
            found.append(name)
    _sources = frozenset(found)
    if missing:
        disclosure.warn("runtime_metrics_missing", sources=", ".join(missing))
    function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
    if not function:
        return recorder.Metrics()
    return recorder.Metrics(service="", dimensions={"function_name": function})


def _stop() -> None:
    phases.silence(phases.INVOKE, _invoke)
    phases.silence(phases.RESPONSE, _response)


def _response() -> None:
    """Record what this invocation has used."""
    global _begin
    begin, _begin = _begin, None
    owner = _owner
    if begin is None or owner is None:  # it was turned on during this invocation
        return
    for name, value in _numbers(begin).items():
        if name in _wanted:
            owner._record(
                DISTRIBUTION, owner._distributions, name, value,
                UNITS[name], {}, durable=False,
            )  # fmt: skip


def _numbers(begin: _Begin) -> Numbers:
    numbers: Numbers = {"duration": _ms(clock.run_time() - begin.at)}
    if current.is_cold_start() and _init_ms is not None:
        numbers["init_duration"] = _init_ms
    user_s, system_s = _cpu()
    user_ms, system_ms = _ms(user_s - begin.cpu[0]), _ms(system_s - begin.cpu[1])
    numbers["cpu_user_time"] = user_ms
    numbers["cpu_system_time"] = system_ms
    numbers["cpu_total_time"] = round(user_ms + system_ms, 3)
    # Of the process before `exec`, too: what is in /proc takes its place.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS
    numbers["used_memory_max"] = round(used / MEGABYTE, 2)
    for name, read in _READERS.items():
        if name in _sources:
            try:
                read_now = read()
            except (OSError, ValueError, LookupError) as exc:
                if process.by_signal_handler(exc):
                    raise
                continue  # all descriptors are in use, for instance
            if name == "network":
                received = max(read_now[0] - begin.network[0], 0)
                sent = max(read_now[1] - begin.network[1], 0)
                numbers["rx_bytes"], numbers["tx_bytes"] = received, sent
                numbers["total_network"] = received + sent
            else:
                numbers.update(read_now)
    total_mb = _memory_mb()
    if total_mb:
        used_mb = numbers["used_memory_max"]
        numbers["total_memory"] = total_mb
        numbers["memory_utilization"] = round(used_mb / total_mb * 100, 2)
    return numbers


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _memory_mb() -> int:
    """Return the megabytes that the function has; 0 where nothing says it."""
    given = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return int(given) if given.isdecimal() else 0


def _cpu() -> tuple[float, float]:
    """Return the seconds in user and in system mode."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime


def _network() -> tuple[int, int]:
    """Return the bytes received and sent."""
    received = sent = 0
    for line in _read(NETWORK).splitlines()[2:]:
        name, _, rest = line.partition(b":")
        interface = name.strip().decode("ascii", "replace")
        fields = rest.split()
        if interface in INTERFACES:
            return int(fields[0]), int(fields[8])
        if interface != "lo":
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def _folder() -> Numbers:
    found = os.statvfs(FOLDER)
    free = found.f_frsize * found.f_bavail
    total = found.f_frsize * found.f_blocks
    return {"tmp_used": total - free, "tmp_free": free, "tmp_max": total}


def _descriptors() -> Numbers:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir(DESCRIPTORS)) - 1  # the one that lists them
    return {"fd_use": used, "fd_max": soft} if soft > 0 else {"fd_use": used}


def _status() -> Numbers:
    text = _read(STATUS)
    return {
        "used_memory_max": round(_field(text, b"VmHWM:") / 1024, 2),
        "threads_max": _field(text, b"Threads:"),
    }


def _field(text: bytes, name: bytes) -> int:
    return int(text[text.index(name) + len(name) :].split(None, 1)[0])


_READERS: dict[str, Callable[[], Any]] = {
    "network": _network,
    "tmp": _folder,
    "descriptors": _descriptors,
    "status": _status,
}


def _end_of_init() -> None:
    """Note how long INIT took: the process asks for its first invocation."""
    global _init_ms
    runtime_client.forget(_end_of_init)
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        return
    try:
        fields = _read(STAT).rpartition(b")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        _init_ms = _ms(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
    except (AttributeError, OSError, ValueError, LookupError) as exc:
        if process.by_signal_handler(exc):
            raise
        return  # not Linux


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, SIZE)
    finally:
        os.close(descriptor)


@process.at_fork
def _forked() -> None:
    global _begin
    _begin = None


@process.at_reset
def reset() -> None:
    """Stop measuring, as if this were just imported."""
    global _wanted, _sources, _begin, _owner, _init_ms
    _wanted = _sources = frozenset()
    _begin = _owner = _init_ms = None
