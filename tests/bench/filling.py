"""Counters of millions of users, filled in seconds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from redis import Redis

from models.keys import BUCKETS, bucket_key
from tests.bench.report import say

CHUNK = 1_000
CHUNKS_A_PIPELINE = 50

_SCRIPT = (Path(__file__).parent / "fill_counters.lua").read_text()


def fill_counters(redis_url: str, user_ids: Sequence[int], *, dirty: bool = False) -> None:
    """Count each user as if they had called 1 to 1,000 times.

    Args:
        dirty: whether the next snapshot is to store them.
    """
    say(f"filling the counters with {len(user_ids):,} users")
    with Redis.from_url(redis_url) as client:
        sha = str(client.script_load(_SCRIPT))
        pipe = client.pipeline(transaction=False)
        for number, (bucket, chunk) in enumerate(_chunks(user_ids), start=1):
            keys = [bucket_key(bucket, name) for name in ("totals", "callers", "dirty")]
            pipe.evalsha(sha, len(keys), *keys, str(int(dirty)), *map(str, chunk))
            if number % CHUNKS_A_PIPELINE == 0:
                pipe.execute()
        pipe.execute()


def _chunks(user_ids: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    buckets: list[list[int]] = [[] for _ in range(BUCKETS)]
    for user_id in user_ids:
        chunk = buckets[user_id % BUCKETS]
        chunk.append(user_id)
        if len(chunk) == CHUNK:
            yield user_id % BUCKETS, chunk
            buckets[user_id % BUCKETS] = []
    yield from ((bucket, chunk) for bucket, chunk in enumerate(buckets) if chunk)
