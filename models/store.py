"""Redis, the fast copy: the one module that knows its keys, with one typed method per script.

A user belongs to bucket `b = user_id mod 64`. Every key carries its bucket as hash tag, so an admission runs on one
slot of a Redis Cluster and no key is global and hot.

    key                       type         holds                                              TTL
    gate:{b}:session:<uid>    string       version:digest:expires_ms, or the tombstone        the session's end, for a
                                           version:reason                                     tombstone a minute more
    gate:{b}:calls_at:<uid>   string       times of admitted calls, µs, 8 bytes each          longest window
    gate:{b}:totals           sorted set   12-digit user id → minus the number of calls       none
    gate:{b}:callers          HyperLogLog  user ids                                           none
    gate:{b}:dirty            set          users whose total changed since the last snapshot  none
    gate:{b}:draining         set          users whose total is being snapshotted             none
    gate:{b}:drainer          string       nonce of the snapshot that drains                  an hour
    gate:{b}:ready            string       number of the snapshot that the counters include   none
    gate:{b}:cursor           string       nonce:user id, how far a restore has come          none
    gate:{b}:stored_sketch    HyperLogLog  only inside finish_restore.lua                     none
    gate:{login}:<scope>      string       times of login attempts, µs, 8 bytes each          longest window
    gate:sync                 hash         run_id, watermark_us, beat_us of the last sync     none

Totals are negative and their members padded, so that the set's own order is most calls first and, among equals, the
lower user id; `/top` is then exact by reading ten of each bucket.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, cast

import msgspec
from hiredis import ReplyError
from redis.asyncio import Redis

from models import lua
from models.errors import RedisAway
from models.limits import RateLimit
from models.link import Link, pack
from models.lua import Script, ScriptRunner
from models.records import SUPERSEDED, Entry, SyncState, Verdict
from models.replies import checked, wrapping_errors
from models.tokens import Claims

BUCKETS = 64
DEADLINE_S = 1.0
GATE_DEADLINE_S = 0.2


def bucket_of(user_id: int) -> int:
    """The bucket of a user."""
    return user_id % BUCKETS


def bucket_key(bucket: int, name: str) -> str:
    """The key of something a bucket has one of."""
    return f"gate:{{{bucket}}}:{name}"


def user_key(user_id: int, name: str) -> str:
    """The key of something each user has one of."""
    return f"gate:{{{user_id % BUCKETS}}}:{name}:{user_id}"


def member_of(user_id: int) -> str:
    """A user's member in `totals`, padded so that the order of bytes is the order of ids."""
    return f"{user_id:012d}"


class Store:
    """Redis as Gatehouse uses it.

    Every method raises RedisAway when Redis does not answer, or not within `DEADLINE_S`.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S)
        self._scripts = ScriptRunner(self._redis, 2 * DEADLINE_S)
        self._link = Link(redis_url, GATE_DEADLINE_S, greeting=[lua.ADMIT.load, lua.ADD_CALLS.load])
        self.away = False
        """Redis did not answer lately: what can do without it does not ask."""

    async def close(self) -> None:
        self._link.close()
        await self._redis.aclose()

    async def ping(self) -> None:
        with wrapping_errors():
            await self._redis.ping()

    # The gate

    def admission_command(self, claims: Claims, limits: Sequence[RateLimit]) -> bytes:
        """The packed command that admits a call of this session: the same for each of its calls, so made once.

        Args:
            limits: all must allow the call; none changes when one refuses.
        """
        uid, bucket = claims.user_id, bucket_of(claims.user_id)
        keys = [user_key(uid, name) for name in ("session", "calls_at")]
        keys += [bucket_key(bucket, name) for name in ("totals", "callers", "dirty")]
        value = Entry(uid, claims.version, claims.expires_ms, claims.digest).value
        return lua.ADMIT.packed(keys, [value, claims.version, uid, member_of(uid), *_windows(limits)])

    async def admit(self, command: bytes) -> Verdict:
        """Check the session, the limits and count the call, in one round trip.

        Args:
            command: from `admission_command`.
        """
        reply = await self._link.call(command)
        if isinstance(reply, ReplyError):
            reply = await self._again(command, reply)
        outcome = reply[0]
        if outcome == SUPERSEDED:
            return Verdict(outcome, cached=reply[1].decode())
        return Verdict(outcome, reply[1::2], reply[2::2])

    @property
    def generation(self) -> int:
        """Which connection the gate uses: each new one has the next number."""
        return self._link.generation

    async def add_calls(self, bucket: int, rows: Sequence[tuple[int, int]]) -> None:
        """Count calls, (user id, number), that were admitted while Redis was away.

        Raises:
            ReplyLost: they may have been counted; after RedisAway they were not.
        """
        args = [word for user_id, calls in rows for word in (user_id, member_of(user_id), -calls)]
        command = lua.ADD_CALLS.packed([bucket_key(bucket, name) for name in ("totals", "callers", "dirty")], args)
        reply = await self._link.call(command)
        if isinstance(reply, ReplyError):
            await self._again(command, reply, lua.ADD_CALLS)

    async def _again(self, command: bytes, refusal: ReplyError, script: Script = lua.ADMIT) -> Any:
        """Every restart, failover and SCRIPT FLUSH forgets the scripts: the call has not run, so load and run it."""
        if str(refusal).startswith("NOSCRIPT"):
            await self._link.call(script.load)
            refusal = await self._link.call(command)
        return checked(refusal)

    # Sessions

    async def publish_session(self, entry: Entry) -> bool:
        """Cache an entry unless the cache knows a newer one; returns whether it was written."""
        if self.away:
            raise RedisAway()
        return bool(await self._scripts.run(lua.PUBLISH, [user_key(entry.user_id, "session")], _publish_args(entry)))

    async def publish_sessions(self, entries: Iterable[Entry]) -> int:
        """Publish many, in one pipeline; returns how many were written."""
        calls = [([user_key(entry.user_id, "session")], _publish_args(entry)) for entry in entries]
        return sum(await self._scripts.run_many(lua.PUBLISH, calls))

    async def sync_state(self) -> SyncState | None:
        with wrapping_errors():
            found = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall("gate:sync"))
        if not found:
            return None
        return SyncState(found[b"run_id"].decode(), int(found[b"watermark_us"]), int(found.get(b"beat_us", 0)))

    async def save_sync_state(self, state: SyncState) -> None:
        with wrapping_errors():
            await cast(Awaitable[int], self._redis.hset("gate:sync", mapping=msgspec.structs.asdict(state)))

    async def identity(self) -> tuple[str, int]:
        """Which run of which server this is, and its clock in microseconds since 1970.

        The run id changes with every restart and failover.
        """
        server, (seconds, microseconds) = await self._ask([pack("INFO", "server"), pack("TIME")])
        run_id = next(line for line in server.decode().split("\r\n") if line.startswith("run_id:"))
        return run_id.removeprefix("run_id:"), int(seconds) * 1_000_000 + int(microseconds)

    # Login attempts

    async def reserve_login(self, scopes: Sequence[tuple[str, Sequence[RateLimit]]]) -> tuple[bool, int]:
        """Reserve an attempt in all scopes, or in none.

        Args:
            scopes: of each its name and its limits.

        Returns:
            True and the reservation's time in microseconds since 1970; or False and the microseconds to wait.
        """
        if self.away:
            raise RedisAway()
        args = [n for _, limits in scopes for n in (len(limits), *_windows(limits))]
        reply = await self._scripts.run(lua.RESERVE_LOGIN, [_login_key(scope) for scope, _ in scopes], args)
        return bool(reply[0]), int(reply[1])

    async def release_login(self, scopes: Sequence[str], reserved_at_us: int) -> None:
        """Take a reservation back."""
        await self._scripts.run(lua.RELEASE_LOGIN, [_login_key(scope) for scope in scopes], [reserved_at_us])

    # Counters

    async def top(self, count: int) -> list[tuple[int, int]]:
        """The users with most calls, as (user id, calls), most first, ties by lower id; at most `count`."""
        replies = await self._ask(
            [pack("ZRANGE", bucket_key(bucket, "totals"), 0, count - 1, "WITHSCORES") for bucket in range(BUCKETS)]
        )
        rows = sorted((int(row[i + 1]), int(row[i])) for row in replies for i in range(0, len(row), 2))
        return [(user_id, -calls) for calls, user_id in rows[:count]]

    async def count_callers(self) -> int:
        """The estimated number of distinct users who called: the sum over the buckets, whose users are disjoint."""
        return sum(await self._ask([pack("PFCOUNT", bucket_key(bucket, "callers")) for bucket in range(BUCKETS)]))

    async def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies to commands that are sent together."""
        return [checked(reply) for reply in await asyncio.gather(*(self._link.call(command) for command in commands))]

    async def snapshot_numbers(self) -> list[int | None]:
        """For each bucket the number of the last snapshot that its counters include; None when they are not whole."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for bucket in range(BUCKETS):
                pipe.get(bucket_key(bucket, "ready"))
            with wrapping_errors():
                replies = await pipe.execute()
        return [None if number is None else int(number) for number in replies]

    async def drain_dirty(self, bucket: int, nonce: str, stored: int) -> int:
        """Set a bucket's dirty users aside for a snapshot; returns how many, or -1 when a restore must come first.

        Args:
            stored: the number of the bucket's last snapshot.
        """
        keys = [bucket_key(bucket, name) for name in ("ready", "dirty", "draining", "drainer")]
        return int(await self._scripts.run(lua.DRAIN, keys, [nonce, stored]))

    async def drained_totals(self, bucket: int, chunk: int) -> AsyncIterator[list[tuple[int, int]]]:
        """The drained users' totals as (user id, calls), about `chunk` at a time, ascending inside each chunk."""
        cursor: int = 0
        while True:
            with wrapping_errors():
                cursor, found = await self._redis.sscan(bucket_key(bucket, "draining"), cursor, count=chunk)
                user_ids = sorted({int(member) for member in found})
                members = [member_of(user_id) for user_id in user_ids]
                scores = await self._redis.zmscore(bucket_key(bucket, "totals"), members) if members else []
            yield [(uid, -int(score)) for uid, score in zip(user_ids, scores, strict=True) if score is not None]
            if cursor == 0:
                return

    async def sketch(self, bucket: int, nonce: str) -> bytes | None:
        """A bucket's HyperLogLog as Redis's own bytes, empty when nobody called; None when `nonce` drains no more.

        Asked in this order, the second answer vouches for the first: a Redis that was emptied forgot the nonce with it.
        """
        sketch, drainer = await self._ask(
            [pack("GET", bucket_key(bucket, "callers")), pack("GET", bucket_key(bucket, "drainer"))]
        )
        return (sketch or b"") if drainer == nonce.encode() else None

    async def finish_drain(self, bucket: int, nonce: str, snapshot: int) -> bool:
        """Forget the drained users, as snapshot number `snapshot` holds them; False when another drains by now."""
        keys = [bucket_key(bucket, name) for name in ("draining", "drainer", "ready")]
        return bool(await self._scripts.run(lua.FINISH_DRAIN, keys, [nonce, snapshot]))

    async def begin_restore(self, bucket: int, nonce: str, stored: int) -> int:
        """Begin or take over a restore; returns the user id reached so far, or -1 when there is nothing to restore.

        Args:
            stored: the number of the bucket's last snapshot.
        """
        keys = [bucket_key(bucket, name) for name in ("ready", "cursor")]
        return int(await self._scripts.run(lua.BEGIN_RESTORE, keys, [nonce, stored]))

    async def restore_totals(self, bucket: int, nonce: str, position: int, rows: Sequence[tuple[int, int]]) -> bool:
        """Restore stored totals, (user id, calls) ascending, and move the cursor from `position` to the last of them.

        They are added to what was counted since the counters were lost; of an older copy of the counters they are the
        least that it may hold.

        Returns:
            False when the cursor is elsewhere, so nothing was restored.
        """
        args: list[Any] = [f"{nonce}:{position}", f"{nonce}:{rows[-1][0]}"]
        for user_id, calls in rows:
            args += (-calls, member_of(user_id))
        keys = [bucket_key(bucket, name) for name in ("cursor", "totals", "ready")]
        return bool(await self._scripts.run(lua.RESTORE_TOTALS, keys, args))

    async def finish_restore(self, bucket: int, nonce: str, position: int, sketch: bytes, snapshot: int) -> bool:
        """Merge the stored HyperLogLog and declare the bucket whole; False as for `restore_totals`."""
        keys = [bucket_key(bucket, name) for name in ("cursor", "callers", "stored_sketch", "ready")]
        return bool(await self._scripts.run(lua.FINISH_RESTORE, keys, [f"{nonce}:{position}", sketch, snapshot]))


def _login_key(scope: str) -> str:
    return f"gate:{{login}}:{scope}"


def _windows(limits: Sequence[RateLimit]) -> list[int]:
    """As scripts take them: of each limit its quota and its window in microseconds."""
    return [number for limit in limits for number in (limit.calls, limit.window_s * 1_000_000)]


def _publish_args(entry: Entry) -> list[Any]:
    return [entry.version, entry.value, entry.keep_until_ms]
