"""Redis, the fast copy: sessions, the gate, login attempts; one typed method per script. Keys: `models.keys`."""

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hiredis import ReplyError

from models import lua
from models.cluster import Cluster
from models.counters import Counters
from models.errors import RedisAway, RedisRefused, ReplyLost, SlotMoved, StoreUnavailable
from models.keys import JOBS_KEY, METERS_KEY, SYNC_KEY, bucket_key, bucket_of, log_key, login_key, user_key
from models.limits import RateLimit
from models.link import Link, pack
from models.lua import Script, ScriptRunner
from models.meters import Facts, job_facts, metered
from models.policies import Policy
from models.records import SUPERSEDED, Entry, Run, SyncState, Verdict
from models.redis_target import parse_redis
from models.replies import checked, gather_all, reply_of, time_us
from models.servers import BUCKET_SLOTS, OneServer, Server, Servers, ask, slot_of
from models.tokens import Claims

_STATE = re.compile(rb"(\d+):(\d+)(?::((?:\d+(?:,\d+)*)?))?")
"""`SyncState.value`."""

log = logging.getLogger("gatehouse.redis")


class Store:
    """Redis as Gatehouse uses it.

    Every method raises RedisAway when Redis does not answer in time.
    """

    def __init__(self, redis_url: str) -> None:
        self.servers = open_servers(redis_url, greeting=[lua.ADMIT.load, lua.ADD_CALLS.load])
        self._scripts = ScriptRunner(self.servers)
        self.counters = Counters(self.servers)

    async def close(self) -> None:
        await self.servers.close()

    async def ping(self) -> None:
        """See that all servers answer."""
        await gather_all(reply_of(server.jobs, pack("PING")) for server in await self.servers.masters())

    @property
    def away(self) -> bool:
        """Whether a server is known not to answer."""
        return self.servers.away

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

    async def admit(self, server: Server, command: bytes, slot: int) -> Verdict:
        """Check the session, the limits and count the call, in one round trip.

        Args:
            server: who has the slot, as far as is known.
            command: from `admission_command`.

        Raises:
            SlotMoved: another server has it; nothing was done.
        """
        reply = await server.gate.call(command)
        if isinstance(reply, ReplyError):
            reply = await self._again(server, command, reply, slot)
        outcome = reply[0]
        if outcome == SUPERSEDED:
            return Verdict(outcome, cached=reply[1].decode())
        return Verdict(outcome, reply[1::2], reply[2::2])

    async def add_calls(self, bucket: int, rows: Sequence[tuple[str, int]]) -> None:
        """Count calls that were admitted while Redis was away.

        Args:
            rows: user id and hour since 1970, as `pending` has them, and the number of calls.

        Raises:
            ReplyLost: they may have been counted; after RedisAway they were not.
        """
        args = [word for row in rows for word in row]
        command, slot = lua.ADD_CALLS.packed([bucket_key(bucket, "pending")], args), BUCKET_SLOTS[bucket]
        server = self.servers.of(slot)
        reply = await server.gate.call(command)
        if isinstance(reply, ReplyError):
            await self._again(server, command, reply, slot, lua.ADD_CALLS)

    async def _again(
        self, server: Server, command: bytes, refusal: ReplyError, slot: int, script: Script = lua.ADMIT
    ) -> Any:
        """What was refused has not run: it is sent to where it belongs, or once more with its script."""
        text = str(refusal)
        if text.startswith("NOSCRIPT"):  # forgotten at every restart, failover and SCRIPT FLUSH
            generation = server.generation
            await server.gate.call(script.load)
            if server.generation != generation:  # nobody has judged what is behind another connection
                raise RedisRefused("Redis restarts; try again shortly")
            return checked(await server.gate.call(command))
        if text.startswith("ASK "):  # a slot on its way, with what it holds
            return await self.servers.call_asking(command, refusal)
        if self.servers.redirect(refusal, slot):
            raise SlotMoved() from refusal
        return checked(refusal)

    # Sessions

    async def publish_session(self, entry: Entry) -> bool:
        """Cache an entry unless the cache knows a newer one; returns whether it was written."""
        key = user_key(entry.user_id, "session")
        self._expect(key)
        return bool(await self._scripts.run(lua.PUBLISH, [key], _publish_args(entry)))

    def _expect(self, key: str) -> None:
        """Do not ask a server that did not answer lately."""
        if self.servers.of(slot_of(key)).away:
            raise RedisAway()

    async def publish_sessions(self, entries: Iterable[Entry]) -> int:
        """Publish many, in one pipeline; returns how many were written."""
        calls = [([user_key(entry.user_id, "session")], _publish_args(entry)) for entry in entries]
        return sum(await self._scripts.run_many(lua.PUBLISH, calls))

    async def cached_session(self, user_id: int) -> tuple[bytes, int]:
        """What is cached of a user's session, empty when nothing is, and the milliseconds until it goes."""
        key = user_key(user_id, "session")
        value, ttl_ms = await ask(self.servers, [("GET", key), ("PTTL", key)])
        return value or b"", max(ttl_ms, 0)

    async def info(self) -> list[dict[str, str]]:
        """What each server says of itself: the fields of INFO."""
        replies = await gather_all(reply_of(server.jobs, pack("INFO")) for server in await self.servers.masters())
        return [_fields(reply) for reply in replies]

    async def sync_states(self) -> dict[str, SyncState]:
        """Of each run of a server, how far sessions were published to it."""
        (found,) = await ask(self.servers, [("HGETALL", SYNC_KEY)])
        return {run_id.decode(): _sync_state(it) for run_id, it in zip(found[::2], found[1::2], strict=True)}

    async def save_sync_states(self, states: Mapping[str, SyncState], ended: Iterable[str] = ()) -> None:
        """Keep states by the run of their servers, and then forget those of runs that ended: never the last of all.

        One that has got everything is not replaced by one that has not: that comes from a worker that was slower.
        """
        told = [word for run, it in states.items() for word in (run, it.value, int(bool(it.beat_us)))]
        if told:
            await self._scripts.run(lua.SAVE_SYNC, [SYNC_KEY], told)
            await ask(self.servers, [("HDEL", SYNC_KEY, run_id) for run_id in ended])

    async def is_empty(self, server: Server) -> bool:
        """Whether a server has no key."""
        return not await reply_of(server.gate, pack("DBSIZE"))

    async def identity(self, link: Link) -> Run:
        """Which run of a server a connection leads to.

        Raises:
            RedisRefused: the connection is another by now.
            RedisAway: it is no master any more.
        """
        commands = pack("INFO", "server", "replication"), pack("TIME")
        await reply_of(link, pack("PING"))  # opens it
        generation = link.generation
        about, time = await gather_all(reply_of(link, command) for command in commands)
        facts = _fields(about)
        if link.generation != generation:
            raise RedisRefused("Redis restarts; try again shortly")
        if facts["role"] != "master":
            link.drop()  # nothing that was asked through it would have told
            raise RedisAway()
        return Run(facts["run_id"], time_us(time), generation)

    # Login attempts

    async def reserve_login(self, scopes: Sequence[tuple[str, Sequence[RateLimit]]]) -> tuple[bool, int]:
        """Reserve an attempt in all scopes, or in none.

        Args:
            scopes: of each its name and its limits.

        Returns:
            True and the reservation's time in microseconds since 1970; or False and the microseconds to wait.
        """
        self._expect(login_key(""))
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
        calls = (self.servers.call(command, slot_of(METERS_KEY)) for command in commands)
        replies = await asyncio.gather(*calls, return_exceptions=True)
        told = [isinstance(reply, int | ReplyLost) for reply in replies]
        unexpected = [it for it in replies if isinstance(it, Exception) and not isinstance(it, StoreUnavailable)]
        if unexpected:
            log.error("Redis cannot add to %s: %s", METERS_KEY, unexpected[0])
        return [name for name, it in zip(counts, told, strict=True) if not it]

    async def read_facts(self) -> Facts:
        """What all processes have told, in one round trip."""
        time = self.servers.call(pack("TIME"), slot_of(JOBS_KEY))
        keys = METERS_KEY, JOBS_KEY, SYNC_KEY
        now, *hashes = await gather_all([time, *(self.servers.call(pack("HGETALL", k), slot_of(k)) for k in keys)])
        meters, jobs, synced = hashes
        beats_us = [int(it[2]) for it in map(_STATE.fullmatch, synced[1::2]) if it]
        now_ms, beat_ms = time_us(now) // 1000, max(beats_us, default=0) // 1000
        return Facts(now_ms, metered(_numbers(meters)), job_facts(_numbers(jobs)), beat_ms)

    async def note_run(self, job: str, took_ms: int, *, failed: bool) -> None:
        """Note that a run of a worker's job has ended."""
        await self._scripts.run(lua.NOTE_RUN, [JOBS_KEY], [job, took_ms, int(failed)])


def open_servers(redis_url: str, greeting: Sequence[bytes]) -> Servers:
    """What the address says: one server, the master that sentinels name, or a cluster."""
    target = parse_redis(redis_url)
    return Cluster(target, greeting) if target.kind == "cluster" else OneServer(target, greeting)


def _fields(reply: bytes) -> dict[str, str]:
    """INFO's lines."""
    return dict(line.split(":", 1) for line in reply.decode().split("\r\n") if ":" in line)


def _numbers(fields: Sequence[bytes]) -> dict[str, int]:
    """A hash of numbers, as HGETALL replies."""
    return {name.decode(): int(number) for name, number in zip(fields[::2], fields[1::2], strict=True)}


def windows(limits: Sequence[RateLimit]) -> list[int]:
    """As scripts take them: of each limit its quota and its window in microseconds."""
    return [number for limit in limits for number in (limit.calls, limit.window_s * 1_000_000)]


def _sync_state(value: bytes) -> SyncState:
    """What another version has left says that there was something, and no more."""
    told = _STATE.fullmatch(value)
    if told is None:
        return SyncState(0, 0, ())
    watermark_us, beat_us, buckets = told.groups()
    listed = None if buckets is None else [int(bucket) for bucket in buckets.split(b",") if bucket]
    return SyncState(int(watermark_us), int(beat_us), listed)


def _publish_args(entry: Entry) -> list[Any]:
    return [entry.version, entry.value, entry.keep_until_ms]
