"""The dictionary of what Gatehouse keeps in Redis; all keys are built here.

A user belongs to bucket `b = user_id mod 64`. Every key carries its bucket as hash tag, so an admission runs on one
slot of a Redis Cluster and no key is global and hot.

    key                       type         holds                                              TTL
    gate:{b}:session:<uid>    string       version:digest:expires_ms, or the tombstone        the session's end, for a
                                           version:reason                                     tombstone a minute more
    gate:{b}:calls_at:<uid>   string       times of admitted calls, µs, 8 bytes each          longest window
    gate:{b}:calls_at:<uid>:<policy>  string  the same of a policy that is not `default`      longest window
    gate:{b}:pending          hash         user id:hour since 1970 → calls not yet in totals  none
    gate:{b}:totals           sorted set   12-digit user id → minus the number of calls       none
    gate:{b}:totals:<window>  sorted set   the same of one hour or day (UTC)                  as long again
    gate:{b}:callers          HyperLogLog  user ids                                           none
    gate:{b}:dirty            set          user id:hour of totals newer than the snapshot,    none
                                           user id alone after an import
    gate:{b}:draining         set          the same, of totals that are being snapshotted     none
    gate:{b}:drainer          string       nonce of the snapshot that drains                  an hour
    gate:{b}:ready            string       number of the snapshot or reset that the counters  none
                                           include
    gate:{b}:cursor           string       nonce:set:user id, how far a restore has come      none
    gate:{b}:stored_sketch    HyperLogLog  only inside finish_restore.lua                     none
    gate:{login}:<scope>      string       times of login attempts, µs, 8 bytes each          longest window
    gate:sync                 hash         run id of a server → watermark_us:beat_us:buckets  none
    gate:meters               hash         name → count of all processes: `models.meters`     none
    gate:jobs                 hash         <job>:runs, :failed, :ended_ms, :succeeded_ms,     none
                                           :took_ms, :took_total_ms of the worker's jobs

Totals are negative and their members padded, so that the set's own order is most calls first and, among equals, the
lower user id; `/top` is then exact by reading ten of each bucket.
"""

SYNC_KEY, METERS_KEY, JOBS_KEY = "gate:sync", "gate:meters", "gate:jobs"

BUCKETS = 64
DEFAULT_LOG = "default"
"""The policy whose log has no name in its key."""


def bucket_of(user_id: int) -> int:
    """The bucket of a user."""
    return user_id % BUCKETS


def bucket_key(bucket: int, name: str) -> str:
    """The key of something a bucket has one of."""
    return f"gate:{{{bucket}}}:{name}"


def user_key(user_id: int, name: str) -> str:
    """The key of something each user has one of."""
    return f"gate:{{{user_id % BUCKETS}}}:{name}:{user_id}"


def log_key(user_id: int, policy: str) -> str:
    """The key of a user's admitted calls under a policy."""
    key = user_key(user_id, "calls_at")
    return key if policy == DEFAULT_LOG else f"{key}:{policy}"


def login_key(scope: str) -> str:
    """The key of the login attempts in a scope."""
    return f"gate:{{login}}:{scope}"


def totals_key(bucket: int, window: str = "") -> str:
    """The key of a bucket's totals, of all time or of a window."""
    return bucket_key(bucket, f"totals:{window}" if window else "totals")


def member_of(user_id: int) -> str:
    """A user's member in `totals`, padded so that the order of bytes is the order of ids."""
    return f"{user_id:012d}"
