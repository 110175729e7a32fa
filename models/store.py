"""Redis, the fast copy: sessions, the gate, login attempts; one typed method per script. Keys: `models.keys`."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
from hiredis import ReplyError
from redis.asyncio import Redis

from models import lua
from models.counters import Counters
from models.errors import RedisAway, RedisRefused, ReplyLost, StoreUnavailable
from models.keys import JOBS_KEY, METERS_KEY, SYNC_KEY, bucket_key, bucket_of, log_key, login_key, user_key
from models.limits import RateLimit
from models.link import Link, pack
from models.lua import Script, ScriptRunner
from models.meters import Facts, job_facts, metered
from models.policies import Policy
from models.records import SUPERSEDED, Entry, SyncState, Verdict
from models.replies import ask, checked, time_us, wrapping_errors
from models.tokens import Claims

log = logging.getLogger("gatehouse.redis")

DEADLINE_S = 1.0
GATE_DEADLINE_S = 0.2


class Store:
    """Redis as Gatehouse uses it.

    Every method raises RedisAway when Redis does not answer, or not within `DEADLINE_S`.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S)
        self._scripts = ScriptRunner(self._redis, 2 * DEADLINE_S)
        self._link = Link(redis_url, GATE_DEADLINE_S, greeting=[lua.ADMIT.load, lua.ADD_CALLS.load])
        self.counters = Counters(self._redis, self._scripts, self._link)
        self.away = False
        """Redis did not answer lately: what can do without it does not ask."""

    async def close(self) -> None:
        self._link.close()
        await self._redis.aclose()

    async def ping(self) -> None:
        with wrapping_errors():
            await self._redis.ping()

    # The gate

    def admission_command(self, claims: Claims, policies: Sequence[Policy]) -> bytes:
        """The packed command that admits a call of this session: the same for each of its calls, so made once.

        Args:
            policies: the enforced ones first.
        """
        uid = claims.user_id
        keys = [user_key(uid, "session"), bucket_key(bucket_of(uid), "pending")]
        keys += [log_key(uid, policy.name) for policy in policies]
        value = Entry(uid, claims.version, claims.expires_ms, claims.digest).value
        judges = [n for policy in policies for n in (int(policy.shadow), len(policy.limits), *windows(policy.limits))]
        return lua.ADMIT.packed(keys, [value, claims.version, uid, *judges])

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
        """Which connection the gate uses: see `Link.generation`."""
        return self._link.generation

    async def add_calls(self, bucket: int, rows: Sequence[tuple[str, int]]) -> None:
        """Count calls that were admitted while Redis was away.

        Args:
            rows: user id and hour since 1970, as `pending` has them, and the number of calls.

        Raises:
            ReplyLost: they may have been counted; after RedisAway they were not.
        """
        args = [word for row in rows for word in row]
        command = lua.ADD_CALLS.packed([bucket_key(bucket, "pending")], args)
        reply = await self._link.call(command)
        if isinstance(reply, ReplyError):
            await self._again(command, reply, lua.ADD_CALLS)

    async def _again(self, command: bytes, refusal: ReplyError, script: Script = lua.ADMIT) -> Any:
        """Every restart, failover and SCRIPT FLUSH forgets the scripts: the call has not run, so load and run it."""
        if str(refusal).startswith("NOSCRIPT"):
            generation = self.generation
            await self._link.call(script.load)
            if self.generation != generation:  # nobody has judged the server behind another connection
                raise RedisRefused("Redis restarts; try again shortly")
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

    async def cached_session(self, user_id: int) -> tuple[bytes, int]:
        """What is cached of a user's session, empty when nothing is, and the milliseconds until it goes."""
        key = user_key(user_id, "session")
        value, ttl_ms = await ask(self._link, [pack("GET", key), pack("PTTL", key)])
        return value or b"", max(ttl_ms, 0)

    async def info(self) -> dict[str, Any]:
        """What the server says of itself: the fields of INFO."""
        with wrapping_errors():
            found: dict[str, Any] = await self._redis.info()
            return found

    async def sync_state(self) -> SyncState | None:
        with wrapping_errors():
            found = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(SYNC_KEY))
        if not found:
            return None
        return SyncState(found[b"run_id"].decode(), int(found[b"watermark_us"]), int(found.get(b"beat_us", 0)))

    async def save_sync_state(self, state: SyncState) -> None:
        with wrapping_errors():
            await cast(Awaitable[int], self._redis.hset(SYNC_KEY, mapping=msgspec.structs.asdict(state)))

    async def identity(self) -> tuple[str, int]:
        """Which run of which server this is, and its clock in microseconds since 1970.

        The run id changes with every restart and failover.
        """
        server, time = await ask(self._link, [pack("INFO", "server"), pack("TIME")])
        run_id = next(line for line in server.decode().split("\r\n") if line.startswith("run_id:"))
        return run_id.removeprefix("run_id:"), time_us(time)

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
        args = [n for _, limits in scopes for n in (len(limits), *windows(limits))]
        reply = await self._scripts.run(lua.RESERVE_LOGIN, [login_key(scope) for scope, _ in scopes], args)
        return bool(reply[0]), int(reply[1])

    async def release_login(self, scopes: Sequence[str], reserved_at_us: int) -> None:
        """Take a reservation back."""
        await self._scripts.run(lua.RELEASE_LOGIN, [login_key(scope) for scope in scopes], [reserved_at_us])

    # Operation

    async def add_meters(self, counts: Mapping[str, int]) -> list[str]:
        """Add to the totals of all processes; returns the names of which nothing was added.

        One whose reply was lost may have been added: twice is worse than never.
        """
        commands = [pack("HINCRBY", METERS_KEY, name, count) for name, count in counts.items()]
        replies = await asyncio.gather(*(self._link.call(command) for command in commands), return_exceptions=True)
        told = [isinstance(reply, int | ReplyLost) for reply in replies]
        unexpected = [it for it in replies if isinstance(it, Exception) and not isinstance(it, StoreUnavailable)]
        if unexpected:
            log.error("Redis cannot add to %s: %s", METERS_KEY, unexpected[0])
        return [name for name, it in zip(counts, told, strict=True) if not it]

    async def read_facts(self) -> Facts:
        """What all processes have told, in one round trip."""
        commands = [pack("HGETALL", key) for key in (METERS_KEY, JOBS_KEY)]
        commands += [pack("HGET", SYNC_KEY, "beat_us"), pack("TIME")]
        meters, jobs, beat_us, time = await ask(self._link, commands)
        now_ms, beat_ms = time_us(time) // 1000, int(beat_us or 0) // 1000
        return Facts(now_ms, metered(_numbers(meters)), job_facts(_numbers(jobs)), beat_ms)

    async def note_run(self, job: str, took_ms: int, *, failed: bool) -> None:
        """Note that a run of a worker's job has ended."""
        await self._scripts.run(lua.NOTE_RUN, [JOBS_KEY], [job, took_ms, int(failed)])


def _numbers(fields: Sequence[bytes]) -> dict[str, int]:
    """A hash of numbers, as HGETALL replies."""
    return {name.decode(): int(number) for name, number in zip(fields[::2], fields[1::2], strict=True)}


def windows(limits: Sequence[RateLimit]) -> list[int]:
    """As scripts take them: of each limit its quota and its window in microseconds."""
    return [number for limit in limits for number in (limit.calls, limit.window_s * 1_000_000)]


def _publish_args(entry: Entry) -> list[Any]:
    return [entry.version, entry.value, entry.keep_until_ms]
