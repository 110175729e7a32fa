"""Who calls how often: users by Zipf's law, so that few call much and most hardly ever, spread over the buckets."""

import math
import random
from functools import cached_property

import msgspec

from models.keys import BUCKETS
from models.servers import BUCKET_SLOTS

SLOTS = 16_384
HEAD = 20_000
"""Users who are dealt to the buckets one by one; what all the others call is alike in each bucket."""

GROUPS_A_DOUBLING = 4


class Plan(msgspec.Struct, frozen=True, dict=True):
    """One deployment and what comes at it.

    Args:
        calls_per_s: of all users together.
        skew: Zipf's exponent: 0 when all call alike; the user of rank r calls in proportion to r to the minus skew.
        hot_users, hot_calls_per_s: clients gone wild, on top of that, and how often each of them calls.
        processes: web processes.
        dealt: the 64 slots that carry data were dealt evenly to the shards by hand; else each shard has an equal range
            of all slots, as `--cluster create` leaves them.
        seed: the same plan and seed give the same figures.
    """

    users: int
    shards: int = 1
    calls_per_s: float = 1_000.0
    skew: float = 0.8
    hot_users: int = 0
    hot_calls_per_s: float = 0.0
    processes: int = 1
    dealt: bool = True
    seed: int = 1

    @cached_property
    def shard_of(self) -> list[int]:
        """By bucket."""
        if self.dealt:
            return [bucket * self.shards // BUCKETS for bucket in range(BUCKETS)]
        return [slot * self.shards // SLOTS for slot in BUCKET_SLOTS]

    @cached_property
    def groups(self) -> list[tuple[float, float]]:
        """Users who call about equally often: (how many, calls/s of each), the busiest first."""
        groups, rank = [], 1.0
        while rank <= self.users:
            last = min(self.users + 1.0, rank + max(1.0, math.floor(rank * (2 ** (1 / GROUPS_A_DOUBLING) - 1))))
            groups.append((last - rank, _mean_weight(rank, last, self.skew)))
            rank = last
        scale = self.calls_per_s / sum(count * weight for count, weight in groups)
        return [(count, weight * scale) for count, weight in groups]

    def distinct(self, seconds: float) -> float:
        """How many users call at least once in that time."""
        return sum(count * -math.expm1(-rate * seconds) for count, rate in self.groups)

    @cached_property
    def bucket_calls_per_s(self) -> list[float]:
        """What each bucket is called, the users of the first ranks and the wild ones dealt at random."""
        rng, loads, rank = random.Random(self.seed), [0.0] * BUCKETS, 0
        for count, rate in self.groups:
            single = min(round(count), max(0, HEAD - rank))
            for _ in range(single):
                loads[rng.randrange(BUCKETS)] += rate
            rank += single
            for bucket in range(BUCKETS):
                loads[bucket] += (count - single) * rate / BUCKETS
        for _ in range(self.hot_users):
            loads[rng.randrange(BUCKETS)] += self.hot_calls_per_s
        return loads

    @cached_property
    def shard_calls_per_s(self) -> list[float]:
        loads = [0.0] * self.shards
        for shard, load in zip(self.shard_of, self.bucket_calls_per_s, strict=True):
            loads[shard] += load
        return loads

    @cached_property
    def busiest(self) -> int:
        """The shard that is called most."""
        return max(range(self.shards), key=lambda shard: self.shard_calls_per_s[shard])


def _mean_weight(first: float, last: float, skew: float) -> float:
    """Of the ranks from `first` to before `last`: a middle rank's, exact for one rank and close for many."""
    return float(((first + last - 1) / 2) ** -skew)
