"""The buckets of a Redis that has not lost them: sessions and totals as the gate and the worker leave them."""

import time
from collections.abc import Sequence

from redis import Redis

from models.connections import Stores
from models.keys import BUCKETS, SYNC_KEY, bucket_key, totals_key, user_key
from models.records import SyncState
from models.windows import Window
from tests.scale.fill import TODAY_EACH, run_script

# Sessions are of version 1, older than every real one: a token that we have falls back once. No digest is needed then.
_BUCKET = """
-- KEYS 1 totals   2 totals of the day
-- ARGV 1 first user id   2 last user id   3 a session's key but the id   4 expires, ms since 1970
--      5 each how many called today
local totals, day, rest = {}, {}, ':' .. string.rep('0123456789abcdef', 4) .. ':' .. ARGV[4]
for id = tonumber(ARGV[1]), tonumber(ARGV[2]), 64 do
  redis.call('SET', ARGV[3] .. string.format('%.0f', id), '1' .. rest, 'PXAT', ARGV[4])
  local calls, member = -(id * 7919 % 1000 + 1), string.format('%012.0f', id)
  totals[#totals + 1] = calls
  totals[#totals + 1] = member
  if id % tonumber(ARGV[5]) == 0 then
    day[#day + 1] = calls
    day[#day + 1] = member
  end
end
redis.call('ZADD', KEYS[1], unpack(totals))
if #day > 0 then redis.call('ZADD', KEYS[2], unpack(day)) end
"""

_LOSE = """
-- KEYS 1 any of the bucket
-- ARGV 1 first user id   2 last user id   3 a session's key but the id
for id = tonumber(ARGV[1]), tonumber(ARGV[2]), 64 do redis.call('UNLINK', ARGV[3] .. string.format('%.0f', id)) end
"""


def fill_bucket(redis: "Redis", bucket: int, users: int, day: Window, number: int) -> None:
    """Give Redis what it holds of a bucket of users 1 to `users`; its sketch is there already.

    Args:
        number: of the bucket's last snapshot.
    """
    expires_ms = round(time.time() + 80_000) * 1000
    prefix = _session_prefix(bucket)
    keys = [totals_key(bucket), totals_key(bucket, day.name)]
    run_script(redis, _BUCKET, keys, bucket, users, prefix, expires_ms, TODAY_EACH)
    redis.pexpireat(totals_key(bucket, day.name), day.keep_until_ms)
    redis.set(bucket_key(bucket, "ready"), number)


def lose_bucket(redis: "Redis", bucket: int, users: int, day: Window) -> None:
    """Forget what Redis holds of a bucket of users 1 to `users` who have not called yet."""
    run_script(redis, _LOSE, [bucket_key(bucket, "ready")], bucket, users, _session_prefix(bucket))
    names = ("callers", "ready")
    redis.unlink(totals_key(bucket), totals_key(bucket, day.name), *(bucket_key(bucket, name) for name in names))


def _session_prefix(bucket: int) -> str:
    return user_key(bucket, "session").rpartition(":")[0] + ":"


async def say_lost(redis: "Redis", stores: Stores, buckets: Sequence[int]) -> None:
    """Let the next sync find that the server has got the sessions of all other buckets."""
    (server,) = await stores.store.servers.masters()
    run = await stores.store.identity(server.jobs)
    others = [bucket for bucket in range(BUCKETS) if bucket not in buckets]
    redis.delete(SYNC_KEY)
    await stores.store.save_sync_states({run.id: SyncState(run.now_us, 0, others)})
