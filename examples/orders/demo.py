"""
`make demo`: nothing is lost, shown on a handler that runs as in Lambda.

Five orders arrive, and the process is frozen after each.  The third is empty,
so the handler raises.  After the last response a background thread records
100 metrics and says that it is done; nothing flushes them.  Then the idle
environment is shut down with SIGTERM, as Lambda does it.

What must come out is computed here, from the events alone, and compared with
what the process wrote, seen from outside.  Exit status 0 only if each metric
came out exactly once, the secret was fetched once, and the process ended by
itself within Lambda's budget.  The same metrics go by OTLP to a collector on
this machine, which must have got each of them once, too.

Then a feature flag flips: a configuration is deployed between two invocations
of one process.  The poll that brings it takes 200 ms, which no invocation
waits for.

Then a function times out.  No extension is registered, so that Lambda ends it
with SIGKILL and no SIGTERM: what it recorded was written shortly before.

Last, the cold start is measured, beside that of the same handler on boto3.
"""

import argparse
import collections
import compileall
import dataclasses
import glob
import os
import sys
import tempfile
import time

from otlp_collector import Collector

import lambda_ext
from lambda_ext.local.inputs import read_event, read_seed
from lambda_ext.local.journal import ANSWERED, AWS_CALL
from lambda_ext.local.report import Report, consoles, progress
from lambda_ext.local.run import Plan, run
from lambda_ext.local.seeds import Seed
from lambda_ext.local.steps import Deploy, Do, Freeze, Invoke, Wait
from lambda_ext.local.verdict import Check, Verdict, judge
from lambda_ext.local.words import LIGHT, client

HERE = os.path.dirname(os.path.abspath(__file__))
NAMESPACE = SERVICE = "orders"
FEATURES = "orders/prod/features"
LATENCY_S = 0.2  # of AWS, for the flag's poll
DROP_IN = "lambda_ext.client()"  # what is measured of with_client.py
SHIPMENTS = 12  # that a function counts before it times out
DONE = "background: 100 metrics recorded, done"


def main():
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(description="Show that nothing is lost.")
    parser.add_argument("--plain", action="store_true", help="text without colour")
    parser.add_argument(
        "--rounds", type=int, default=3, help="cold starts to measure (default: 3)"
    )
    arguments = parser.parse_args()
    out, err = consoles(plain=arguments.plain)
    plan = orders_plan()
    # Compiled, as installed packages are: the cold start is to be a fair one.
    compileall.compile_dir(os.path.dirname(lambda_ext.__file__), quiet=2)
    with progress(err) as step, Collector() as collector:
        result = run_orders(plan, step, collector)
        flipped = run_flip(step)
        timed_out = run_time_out(step)
        starts = cold_starts(plan, arguments.rounds, step)
    verdict = judge(result, allow_errors=True)
    report = Report(out, title="make demo: python examples/orders/demo.py")
    report.sections(result, verdict)
    report.table("COLLECTOR", *collected(collector))
    if starts:
        report.cold_starts(starts)
    if result.init.status == "success":
        checks = proofs(result, plan.events)
        checks += [collector_proof(collector, plan.events), *flag_proofs(flipped)]
        checks.append(time_out_proof(timed_out))
        report.checks("PROVEN", checks)
        failed = (f"not so: {check.claim}" for check in checks if not check.holds)
        verdict = Verdict((*verdict.reasons, *failed), verdict.notes)
    report.verdict(verdict)
    return 0 if verdict.good else 1


def orders_plan():
    """Return what is run: the orders, in the order of their files' names."""
    paths = sorted(glob.glob(os.path.join(HERE, "events", "*.json")))
    return Plan(
        handler="app.handler",
        events=[read_event(path) for path in paths],
        task_root=HERE,
        seed=read_seed(os.path.join(HERE, "seed.json")),
        environment={
            **without_the_shells(),
            "LAMBDA_EXT_METRICS_NAMESPACE": NAMESPACE,
            "LAMBDA_EXT_SERVICE": SERVICE,
        },
        function_name="orders",
    )


def without_the_shells():
    """Return what takes away that this shell says to the library."""
    return dict.fromkeys(
        name for name in os.environ if name.startswith(("LAMBDA_EXT_", "POWERTOOLS_"))
    )


def run_orders(plan, step, collector=None):
    """Run the orders; let the background thread go when all are answered."""
    with tempfile.TemporaryDirectory() as folder:
        gate = os.path.join(folder, "gate")
        environment = {**plan.environment, "ORDERS_GATE": gate}
        if collector is not None:
            environment["LAMBDA_EXT_SINKS"] = "emf,otlp"
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url

        def open_gate(emulator):
            with open(gate, "x"):
                pass

        steps = [
            *map(Invoke, plan.events),
            Do("background thread", open_gate),
            Wait(DONE),
        ]
        return performed(
            dataclasses.replace(plan, environment=environment, steps=steps), step
        )


def performed(plan, step):
    """Run *plan*; an interruption ends the demo."""
    result = run(plan, step)
    if result.interrupted is not None:
        raise KeyboardInterrupt
    return result


def run_flip(step):
    """Flip a flag while the function is frozen; wait for the poll, no evaluation."""

    def polled(emulator):
        until = time.monotonic() + 10
        while len(polls(emulator.journal)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(LATENCY_S)  # the answer is on its way to the function

    plan = Plan(
        handler="checkout.handler",
        task_root=HERE,
        environment=without_the_shells(),
        seed=Seed(flags={FEATURES: {"new-checkout": {"enabled": False}}}),
        latency_s=LATENCY_S,
        poll_interval_s=1,
        steps=[
            Invoke(),
            Deploy(FEATURES, {"new-checkout": {"enabled": True}}, flags=True),
            Freeze(3),  # longer than any jitter of the next poll
            Invoke(),
            Do("a poll of the flags", polled),
            Invoke(),
        ],
    )
    return performed(plan, step)


def polls(journal):
    """Return the events of AppConfig's documents, as they were answered."""
    return [
        event
        for event in journal.after(0.0, AWS_CALL)
        if event.what.operation == "GetLatestConfiguration"
    ]


def flag_proofs(result):
    """Return what the demo claims of the flag, and whether it is so."""
    answers = [
        invocation.value["checkout"]
        for invocation in result.invocations
        if invocation.status == "success"
    ]
    answered_at = [event.at for event in result.journal.after(0.0, ANSWERED)]
    polled_at = [event.at for event in polls(result.journal)]
    slowest_ms = 1000 * max((i.duration_s for i in result.invocations), default=0)
    return [
        Check(
            "a flag flipped between two invocations of one process",
            answers == ["old", "old", "new"]
            and all(invocation.init is None for invocation in result.invocations)
            and judge(result).good,
            ", ".join(answers),
        ),
        Check(
            "no invocation waited for the poll that brought it",
            len(answered_at) == 3
            and len(polled_at) > 1
            and answered_at[1] < polled_at[1] < answered_at[2],
            f"the poll took {LATENCY_S * 1000:.0f} ms, no invocation more than"
            f" {slowest_ms:.1f} ms",
        ),
    ]


def run_time_out(step):
    """Have a function time out that Lambda ends without SIGTERM."""
    plan = Plan(
        handler="shipment.handler",
        events=[{"orders": SHIPMENTS}],
        task_root=HERE,
        environment={
            **without_the_shells(),
            "LAMBDA_EXT_METRICS_NAMESPACE": NAMESPACE,
            "LAMBDA_EXT_DISABLE": "extension",
            "LAMBDA_EXT_TIMEOUT_MARGIN": "1.5",
        },
        timeout_s=3.0,
    )
    return performed(plan, step)


def time_out_proof(result):
    """Return whether what was recorded before a time-out came out."""
    written = {series.name: total.sum for series, total in result.totals.items()}
    request_ids = [
        line.checked.document["request_id"]
        for line in result.emf
        if "TimeoutImminent" in (line.checked.document or {})
    ]
    ends = [(end.reason, end.signalled, end.killed) for end in result.resets]
    return Check(
        "metrics of a time-out survived, though SIGKILL ended the process",
        [invocation.status for invocation in result.invocations] == ["timeout"]
        and ends == [("timeout", False, True)]
        and written == {"shipments": SHIPMENTS, "TimeoutImminent": 1}
        and request_ids == [each.request_id for each in result.invocations],
        ", ".join(f"{name} {total:g}" for name, total in sorted(written.items())),
    )


def cold_starts(plan, rounds, step):
    """
    Return (what, seconds, MB): the best of *rounds*, taken in turns.

    First a handler that does nothing, then this one on each way to AWS, then the one
    that was written for a boto3 client, with `lambda_ext.client` in its place.
    """
    plan = dataclasses.replace(plan, events=plan.events[:1])
    found = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
            file.write("def handler(event, context): pass\n")
        plans = [dataclasses.replace(plan, task_root=folder)]
        for transport in ("light", "boto3"):
            environment = {**plan.environment, "LAMBDA_EXT_TRANSPORT": transport}
            plans.append(dataclasses.replace(plan, environment=environment))
        plans.append(dataclasses.replace(plan, handler="with_client.handler"))
        for number in range(rounds):
            step(f"cold starts, {number + 1} of {rounds}")
            for result in (performed(plan, lambda _: None) for plan in plans):
                if result.cold_start_s is not None:
                    clients = {client(call.agent) for call in result.calls}
                    what = " + ".join(sorted(clients)) or "an empty handler"
                    if result.plan.handler == "with_client.handler":
                        what = DROP_IN
                    found[what].append((result.cold_start_s, result.peak_memory_mb))
    return [(what, *min(starts)) for what, starts in found.items()]


def expected_sums(events):
    """Return {(metric, dimensions): sum} for *events*; see app.py."""
    sums = collections.Counter()
    service = ("service", SERVICE)
    for event in events:
        sums["orders", (("channel", event["channel"]), service)] += 1
        if event["items"]:
            sums["items", (service,)] += len(event["items"])
        if event.get("check_stock"):
            for article in range(100):
                sums["stock.checked", (("article", f"{article:03}"), service)] += 1
    return dict(sums)


def collected(collector):
    """Return the columns and the rows of what a collector got by OTLP."""
    totals = collections.Counter()
    for (name, _), value in collector.sums.items():
        totals[name] += value
    rows = [
        (name, kind, str(points), f"{totals[name]:g}")
        for (name, kind), points in sorted(collector.points.items())
    ]
    return ("metric", "OTLP", ">points", ">sum"), rows


def collector_proof(collector, events):
    """Return whether a collector got what was recorded, each metric once."""
    expected = expected_sums(events)
    got = {
        (name, tuple(sorted(dimensions))): value
        for (name, dimensions), value in collector.sums.items()
    }
    sizes = collector.requests
    return Check(
        "a collector got the same metrics by OTLP",
        got == expected,
        f"{sum(got.values()):g} of {sum(expected.values())} counted,"
        f" requests: {len(sizes)}, {sum(sizes)} bytes of protobuf",
    )


def proofs(result, events):
    """Return what the demo claims, and whether it is so."""
    expected = expected_sums(events)
    written = {
        (series.name, series.dimensions): total.sum
        for series, total in result.totals.items()
        if series.namespace == NAMESPACE
    }
    recorded = sum(expected.values())
    statuses = [invocation.status for invocation in result.invocations]
    wanted = ["success" if event["items"] else "error" for event in events]
    fetched = [call.names for call in result.calls]
    done = [line.at for line in result.lines if line.text == DONE]
    stock = [
        line.line.at
        for line in result.emf
        if any(series.name == "stock.checked" for series, _ in line.checked.points)
    ]
    end = result.shutdown
    return [
        Check(
            f"{len(events)} invocations, of which {wanted.count('error')} raised",
            statuses == wanted,
            ", ".join(statuses),
        ),
        Check(
            "every metric came out exactly once",
            written == expected,
            f"{len(written)} series, {sum(written.values()):g} of {recorded} counted",
        ),
        Check(
            "100 of them recorded after the last response, written at SIGTERM",
            len(done) == 1
            and bool(stock)
            and result.answered_at[-1] < done[0] <= min(stock),
            f"EMF lines after the thread was done: {len(stock)}",
        ),
        Check(
            "the secret was fetched once",
            fetched == [("prod/orders/db",)],
            f"calls to AWS: {len(fetched)}",
        ),
        Check(
            "AWS was called without boto3",
            {client(call.agent) for call in result.calls} == {LIGHT},
            "transport light",
        ),
        Check(
            "the runtime ended by itself, within its budget",
            end.signalled and not end.killed and end.exit_status == 0,
            f"{end.duration_s * 1000:.0f} of {end.share_s * 1000:.0f} ms",
        ),
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
