"""
What does it cost to be ready for the end, and how long does the end take?

    python benchmarks/lifecycle.py [--repeat 15]

Defends, measured in one run, interleaved:

    an invocation     the decorator, the extension's thread and the watcher add
                      at most 20 µs to a bare handler, in this process, and
                      nothing that stands out of the noise of a round trip
                      through the real runtime client
    the registration  at most 5 ms
    the end           from SIGTERM to the last flush and exit: at most 150 ms,
                      which is the least that any source gives a runtime

Figures are medians but for the steps, which are the least of several runs;
ratios hold from machine to machine, microseconds do not.  Exit status 1 if a
budget is exceeded.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
import timeit

import lambda_ext
from lambda_ext.lifecycle import clock, phases, shutdown, signals
from lambda_ext.local.emulator import Emulator

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

BARE = """
def handler(event, context):
    return event
"""

READY = """
import lambda_ext
from lambda_ext.lifecycle import extension

@lambda_ext.handler
def handler(event, context):
    return extension.status().duration_s if event == "registration" else event
"""

BUSY = """
import lambda_ext
from lambda_ext import metrics

@lambda_ext.on_shutdown
def goodbye():
    metrics.count("goodbye")

@lambda_ext.handler
def handler(event, context):
    for number in range(100):
        metrics.count("n", shop=str(number % 7))
    if event == "busy":
        print("ready", flush=True)
        while True:
            pass
"""


class Context:
    """What a handler gets from Lambda."""

    @staticmethod
    def get_remaining_time_in_millis():
        return 3_000


def least(function, number=20_000, repeat=7):
    """Return the least time of one call, in microseconds."""
    return min(timeit.repeat(function, number=number, repeat=repeat)) / number * 1e6


def emulate(folder, name, program, **options):
    """Return an emulated environment of *program*."""
    root = os.path.join(folder, name)
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, "app.py"), "w", encoding="utf-8") as file:
        file.write(program)
    return Emulator(task_root=root, env={"PYTHONPATH": ROOT}, timeout_s=60.0, **options)


def steps():
    """Return what an invocation consists of, in this process; microseconds."""

    def bare(event, context):
        return event

    ready = lambda_ext.handler(bare)
    context = Context()
    former = signal.getsignal(signal.SIGTERM)
    shutdown.install()
    try:
        found = {
            "bare handler": least(lambda: bare(1, context)),
            "decorated handler": least(lambda: ready(1, context)),
            "  of which clock": least(lambda: clock.begin_invocation(3.0)),
            "  of which re-arming": least(signals.rearm),
            "  of which a phase": least(lambda: phases.call(phases.INVOKE)),
        }
    finally:
        shutdown.reset()
        signal.signal(signal.SIGTERM, former)
    return found


def round_trips(folder, count):
    """Return the medians of invocations through the runtime client; µs."""
    times = {"bare handler": [], "decorated handler": []}
    with (
        emulate(folder, "bare", BARE, freeze=False) as bare,
        emulate(folder, "ready", READY, freeze=False) as ready,
    ):
        for emulator in (bare, ready):
            emulator.invoke(0)
        registration = ready.invoke("registration").value * 1e6
        for index in range(count):
            for name, emulator in (
                ("bare handler", bare),
                ("decorated handler", ready),
            ):
                begun = time.perf_counter()
                emulator.invoke(index)
                times[name].append((time.perf_counter() - begun) * 1e6)
                emulator.wait_frozen()
    return {name: statistics.median(all_) for name, all_ in times.items()}, registration


def ends(folder, event, execution_env, repeat):
    """Return the milliseconds from SIGTERM to the end, of several processes."""
    found = []
    for _ in range(repeat):
        with emulate(
            folder, "busy", BUSY, execution_env=execution_env, freeze=event == "frozen"
        ) as emulator:
            if event == "busy":
                emulator.invoke_async(event)
                emulator.wait_for_line("ready")
            else:
                emulator.invoke(event)
                emulator.wait_frozen()
            end = emulator.shutdown()
        assert (end.killed, end.exit_status) == (False, 0), end
        found.append(end.duration_s * 1e3)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=15, help="processes per line")
    repeat = parser.parse_args().repeat
    over = []

    def budget(what, value, limit):
        if value > limit:
            over.append(f"{what}: {value:.1f} is over {limit}")

    print(f"Python {sys.version.split()[0]}\n\nan invocation, in this process")
    parts = steps()
    for name, us in parts.items():
        print(f"  {name:<24}{us:9.2f} µs")
    budget("µs added", parts["decorated handler"] - parts["bare handler"], 20)

    with tempfile.TemporaryDirectory() as folder:
        print("\nan invocation, through the runtime client and the emulator")
        medians, registration = round_trips(folder, 40 * repeat)
        for name, us in medians.items():
            print(f"  {name:<24}{us:9.0f} µs")
        print(f"  {'registration, once':<24}{registration:9.0f} µs")
        budget("µs to register", registration, 5_000)

        print("\nfrom SIGTERM to the end     least   median     most")
        for event in ("idle", "frozen", "busy"):
            for execution_env in ("AWS_Lambda_python3.13", "AWS_Lambda_Image"):
                ms = ends(folder, event, execution_env, repeat)
                print(
                    f"  {event:<7}{execution_env.removeprefix('AWS_Lambda_'):<15}"
                    f"{min(ms):9.1f}{statistics.median(ms):9.1f}{max(ms):9.1f} ms"
                )
                budget(f"ms, {event}", statistics.median(ms), 150)
    print("\n" + ("\n".join(over) if over else "all within their budgets"))
    return bool(over)


if __name__ == "__main__":
    sys.exit(main())
