"""A discrete simulation of a deployment: queues before the busiest shard, and the loss of a shard with its rebuilding.

    python -m tests.scale.model --users 100 --shards 64     millions of users; by the constants of docs/scale.json

Constants are measured (`tests.scale.costs`), skew, hot users and calls are the plan's (`tests.scale.population`).
"""

import argparse
import math
import random
import sys
from pathlib import Path

import msgspec

from models.keys import BUCKETS
from models.sessions import FALLBACK_DEADLINE_S
from models.snapshots import CHUNK
from tests.bench.report import say, table
from tests.scale.costs import Costs
from tests.scale.fill import TODAY_EACH
from tests.scale.population import Plan
from tests.scale.report import FIGURES, Report

EVENTS = 200_000
STEP_S = 0.1
LOSS_HORIZON_S = 3_600.0
SNAPSHOT_S = 10.0
ROWS_A_DIRTY_USER = 3
"""All time, the hour and the day."""


class Queue(msgspec.Struct, frozen=True):
    """Calls before one shard, which serves one at a time.

    Args:
        busy: the part of its time that the shard works; from 1 on the queue only grows.
        longest: calls that wait at once, at most.
    """

    busy: float
    p50_ms: float
    p99_ms: float
    longest: int


class Loss(msgspec.Struct, frozen=True):
    """A shard comes back empty.

    Args:
        users_share, calls_share: of all.
        fallbacks: sessions read in PostgreSQL, one for each call before the sync was through.
        worst_wait_s: for such a read; at `FALLBACK_DEADLINE_S` calls are refused with 503.
        refused: how many.
        settled_s: until no call of that shard falls back.
        sync_s, restore_s: of one worker on a machine of its own: the work, as each step waits for the one before.
    """

    users_share: float
    calls_share: float
    fallbacks: int
    worst_wait_s: float
    refused: int
    settled_s: float
    sync_s: float
    restore_s: float


class Outcome(msgspec.Struct, frozen=True):
    """What a plan comes to."""

    bucket_imbalance: float
    shard_imbalance: float
    queue: Queue
    loss: Loss
    dirty_per_s: float
    postgres_writes_per_s: float
    snapshot_busy: float
    redis_gb_a_shard: float
    redis_gb: float
    postgres_gb: float
    web_processes: float


def simulate(plan: Plan, costs: Costs) -> Outcome:
    """The plan, simulated: deterministic, within seconds."""
    dirty = plan.distinct(SNAPSHOT_S)
    today, hour = plan.distinct(86_400), plan.distinct(3_600)
    redis_gb = costs.redis_used(plan.users, today, hour) / 1e9
    biggest = max(plan.shard_of.count(shard) for shard in range(plan.shards)) / BUCKETS
    return Outcome(
        bucket_imbalance=max(plan.bucket_calls_per_s) / (sum(plan.bucket_calls_per_s) / BUCKETS),
        shard_imbalance=max(plan.shard_calls_per_s) / (sum(plan.shard_calls_per_s) / plan.shards),
        queue=queue(plan, costs),
        loss=lose(plan, costs),
        dirty_per_s=dirty / SNAPSHOT_S,
        postgres_writes_per_s=ROWS_A_DIRTY_USER * dirty / SNAPSHOT_S,
        snapshot_busy=dirty * costs.of("snapshot", plan.users).cpu_us / 1e6 / SNAPSHOT_S,
        redis_gb_a_shard=redis_gb * biggest,
        redis_gb=redis_gb,
        postgres_gb=plan.users * sum(costs.postgres_bytes.values()) / 1e9,
        web_processes=sum(plan.bucket_calls_per_s) * costs.web_cpu_us / 1e6,
    )


def shortest_interval_s(plan: Plan, snapshot_us: float, at_once: int) -> float:
    """How far apart snapshots have to be for each to end before the next, when so many buckets go side by side."""
    shortest_s, longest_s = 0.0, plan.users * snapshot_us / 1e6 + 1
    while longest_s - shortest_s > 0.01 * longest_s:
        middle_s = (shortest_s + longest_s) / 2
        if plan.distinct(middle_s) * snapshot_us / 1e6 / at_once <= middle_s:
            longest_s = middle_s
        else:
            shortest_s = middle_s
    return longest_s


def queue(plan: Plan, costs: Costs) -> Queue:
    """The busiest shard's queue: calls come at random, and between them the chunks of snapshots (Lindley, 1952)."""
    rng, calls = random.Random(plan.seed), plan.shard_calls_per_s[plan.busiest]
    rows = plan.distinct(SNAPSHOT_S) / SNAPSHOT_S * calls / sum(plan.shard_calls_per_s)
    chunks, call_s = rows / CHUNK, costs.redis_cpu_us / 1e6
    chunk_s = CHUNK * costs.of("snapshot", plan.users).redis_us / 1e6
    waits, wait_s, behind = [], 0.0, 0.0
    for _ in range(EVENTS):
        is_call = rng.random() * (calls + chunks) < calls
        if is_call:
            waits.append(wait_s)
        wait_s += call_s if is_call else chunk_s
        behind = max(behind, wait_s)
        wait_s = max(0.0, wait_s - rng.expovariate(calls + chunks))
    waits.sort()
    return Queue(
        busy=calls * call_s + chunks * chunk_s,
        p50_ms=waits[len(waits) // 2] * 1e3,
        p99_ms=waits[len(waits) * 99 // 100] * 1e3,
        longest=round(behind / call_s),
    )


def lose(plan: Plan, costs: Costs) -> Loss:
    """The busiest shard comes back empty, or as its replica: its calls read PostgreSQL until the sync is through."""
    users_share = plan.shard_of.count(plan.busiest) / BUCKETS
    calls_share = plan.shard_calls_per_s[plan.busiest] / sum(plan.shard_calls_per_s)
    sync_s = plan.users * users_share * costs.of("sync of all", plan.users).cpu_us / 1e6
    restore_s = plan.users * (1 + 1 / TODAY_EACH) * users_share * costs.of("restore", plan.users).cpu_us / 1e6
    calls = plan.shard_calls_per_s[plan.busiest] * STEP_S
    capacity = plan.processes * costs.fallbacks_per_s * STEP_S
    waiting = fallbacks = refused = worst_s = at_s = 0.0
    while at_s < LOSS_HORIZON_S and (at_s < sync_s or waiting >= 1):
        waiting += calls if at_s < sync_s else 0.0
        too_many = max(0.0, waiting - capacity * FALLBACK_DEADLINE_S / STEP_S)
        served = min(waiting - too_many, capacity)
        worst_s = max(worst_s, (waiting - too_many) / capacity * STEP_S)
        waiting, fallbacks, refused = waiting - too_many - served, fallbacks + served, refused + too_many
        at_s += STEP_S
    return Loss(
        users_share, calls_share, round(fallbacks), round(worst_s, 3), round(refused), round(at_s, 1), sync_s, restore_s
    )


def main() -> int:
    """Simulate one plan and print what comes of it."""
    parser = argparse.ArgumentParser("python -m tests.scale.model", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--users", type=float, default=100, help="millions (default 100)")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--calls", type=float, default=0, help="calls/s of all (default: users / 500)")
    parser.add_argument("--processes", type=int, default=0, help="web processes (default: as many as the calls need)")
    parser.add_argument("--skew", type=float, default=0.8, help="Zipf's exponent (default 0.8)")
    parser.add_argument("--hot", type=int, default=10, help="clients gone wild, a thousand calls/s each (default 10)")
    parser.add_argument("--ranges", action="store_true", help="equal ranges of slots, not the 64 dealt by hand")
    parser.add_argument("--constants", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    costs = Costs.fit(*msgspec.json.decode(arguments.constants.read_bytes(), type=Report).sizes[:2])
    users = round(arguments.users * 1e6)
    calls = arguments.calls or users / 500
    plan = Plan(
        users=users,
        shards=arguments.shards,
        calls_per_s=calls,
        skew=arguments.skew,
        hot_users=arguments.hot,
        hot_calls_per_s=1_000.0,
        processes=arguments.processes or math.ceil(1.5 * (calls + arguments.hot * 1_000) * costs.web_cpu_us / 1e6),
        dealt=not arguments.ranges,
    )
    outcome = simulate(plan, costs)
    facts = msgspec.to_builtins(outcome)
    rows = [[f"{name}.{part}", f"{one:,.4g}"] for name in ("queue", "loss") for part, one in facts.pop(name).items()]
    say(table(["", f"{plan}"[:60]], [[name, f"{one:,.4g}"] for name, one in facts.items()] + rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
