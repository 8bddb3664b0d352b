"""
1,000 environments start at once against a Parameter Store of 40 calls a second.

    python benchmarks/throttle_simulation.py [--environments N] [--parameters N]

Question: how many cold starts get their parameters in time, and after how
long, one by one or in batches, with which retries?  And what happens five
minutes later, when all of their copies grow old together?

This is a simulation: virtual time, a seeded generator, no network.  Assumptions
    Quota       a token bucket of 40 calls, refilled at 40 a second: the
                default that GetParameter, GetParameters and
                GetParametersByPath share (Parameter Store quotas).  What AWS
                really does with bursts is not published.
    Calls       20 ms each, answered or throttled.
    Start       all environments within one second (Lambda adds up to 1,000
                environments of a function every 10 seconds).
    INIT        10 seconds; what is not loaded by then counts as late.
    One by one  20 GetParameter in series, as Powertools and plain boto3 do,
                with botocore's legacy retries: 5 attempts, pauses random
                between 0 and 1, 2, 4, 8 seconds.
    Batches     GetParameters for 10 names each, at the same time.
    Ours        the attempts, pauses and budgets of lambda_ext.aws.retries,
                and the loader's 8 seconds for INIT.
    Refresh     a call per batch and environment: at 300 s sharp without
                jitter; with ours, between 75 and 85 % of it.
"""

from __future__ import annotations

import argparse
import heapq
import random

from lambda_ext.aws import retries
from lambda_ext.values import store
from lambda_ext.values.cache import DUE_FROM, DUE_SPREAD

QUOTA = 40.0  # calls a second
CALL_S = 0.02
INIT_S = 10.0
BATCH = 10
MAX_AGE_S = 300.0


class Bucket:
    """The quota: a token a call, refilled all the time."""

    def __init__(self):
        self.tokens, self.at, self.calls, self.throttled = QUOTA, 0.0, 0, 0

    def admits(self, now):
        """Take a token at *now*, if there is one."""
        self.tokens = min(QUOTA, self.tokens + (now - self.at) * QUOTA)
        self.at = now
        self.calls += 1
        if self.tokens >= 1:
            self.tokens -= 1
            return True
        self.throttled += 1
        return False


def legacy(draw):
    """Yield the pauses of botocore's legacy retries, which then give up."""
    for retry in range(4):
        yield draw() * 2.0**retry


def ours(draw):
    """Yield the pauses of our retries, which then give up."""
    waited = 0.0
    for retry in range(retries.THROTTLED_ATTEMPTS - 1):
        longest = retries.THROTTLED_PAUSE_S * 2.0**retry
        pause = draw() * min(longest, retries.LONGEST_THROTTLED_PAUSE_S)
        waited += pause + CALL_S
        if waited >= min(retries.BUDGET_S, store.INIT_S):
            return
        yield pause


def environment(begin, lanes, policy, draw):
    """Yield the instants of calls; sent whether each was admitted.

    *lanes* are numbers of calls in series; the lanes run at the same time.
    Returns when the last succeeded, None if one gave up.
    """
    queue = [(begin, number, 0, policy(draw)) for number in range(len(lanes))]
    done = [0] * len(lanes)
    last = begin
    heapq.heapify(queue)
    while queue:
        now, lane, _, pauses = heapq.heappop(queue)
        admitted = yield now
        last = max(last, now + CALL_S)
        if admitted:
            done[lane] += 1
            if done[lane] < lanes[lane]:
                heapq.heappush(queue, (now + CALL_S, lane, 0, policy(draw)))
            continue
        pause = next(pauses, None)
        if pause is None:
            return None
        heapq.heappush(queue, (now + CALL_S + pause, lane, 0, pauses))
    return last - begin


def run(begins, lanes, policy, draw):
    """Return the bucket, and for each environment how long it took, or None."""
    bucket = Bucket()
    took = [None] * len(begins)
    queue = []
    for number, begin in enumerate(begins):
        life = environment(begin, lanes, policy, draw)
        heapq.heappush(queue, (next(life), number, life))
    while queue:
        now, number, life = heapq.heappop(queue)
        try:
            heapq.heappush(queue, (life.send(bucket.admits(now)), number, life))
        except StopIteration as end:
            took[number] = end.value
    return bucket, took


def show(title, bucket, took):
    """Print one row."""
    good = sorted(each for each in took if each is not None and each <= INIT_S)
    middle = f"{good[len(good) // 2]:5.1f}" if good else "    -"
    last = f"{good[-1]:5.1f}" if good else "    -"
    print(
        f"{title:<44}{bucket.calls:>8,}{bucket.throttled:>11,}"
        f"{len(good) / len(took):>9.0%}{middle:>8}{last:>8}"
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=int, default=1000)
    parser.add_argument("--parameters", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed).random
    begins = [draw() for _ in range(options.environments)]
    batches = [1] * -(-options.parameters // BATCH)
    series = [options.parameters]

    print(
        f"{options.environments:,} environments, {options.parameters} parameters"
        f" each, {QUOTA:g} calls a second (simulated)\n"
    )
    print(
        f"{'':<44}{'calls':>8}{'throttled':>11}{'in time':>9}{'half s':>8}{'last s':>8}"
    )

    def none(_draw):
        return iter(())

    show("one by one, no retries", *run(begins, series, none, draw))
    show("one by one, botocore's legacy retries", *run(begins, series, legacy, draw))
    show("batches, no retries", *run(begins, batches, none, draw))
    show("batches, botocore's legacy retries", *run(begins, batches, legacy, draw))
    show("batches, our retries", *run(begins, batches, ours, draw))
    low, high = DUE_FROM, DUE_FROM + DUE_SPREAD
    together = [MAX_AGE_S for _ in begins]
    spread = [MAX_AGE_S * (low + (high - low) * draw()) for _ in begins]
    print("\nfive minutes later, every environment refreshes")
    show("at 300 s sharp", *run(together, batches, ours, draw))
    show(
        f"jittered, {low:.0%} to {high:.0%} of max_age",
        *run(spread, batches, ours, draw),
    )


if __name__ == "__main__":
    main()
