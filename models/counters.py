"""The counters in Redis: calls admitted, folded into the totals, ranked, snapshotted and restored. Keys: `models.keys`.

An admission only adds to `pending`, one hash a bucket. Whoever reads or snapshots the totals folds it into them first:
a user's calls of all time, of the hour and of the day then cost one update each, however many calls there were.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from models import lua
from models.errors import RedisAway, RedisRefused
from models.keys import BUCKETS, bucket_key, member_of, totals_key
from models.link import pack
from models.lua import ScriptRunner
from models.replies import gather_all, time_us
from models.servers import BUCKET_SLOTS, Server, Servers, Words, ask
from models.windows import Window, kept_at, windows_of

FOLD_CHUNK = 128
"""Users whose calls are folded by one command: about two milliseconds of Redis."""

FOLDS_AT_ONCE = 8
"""Small buckets that are folded together: of a chunk's size in all, so that nobody waits for more than a chunk."""

MAX_FOLDS = 100_000
DRAINER_S = 3_600
"""How long `drain_dirty.lua` keeps a drainer's nonce."""

_OF_A_SNAPSHOT = ("dirty", "draining", "drainer")


class Drained(msgspec.Struct, frozen=True):
    """What changed of a chunk of users since the last snapshot: (user id, calls), each user once.

    Args:
        windows: of each hour and day that changed, the users' calls in it.
    """

    totals: list[tuple[int, int]]
    windows: dict[Window, list[tuple[int, int]]]


class Counters:
    """Every method raises RedisAway when Redis does not answer in time."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._scripts = ScriptRunner(servers)

    async def now_us(self, bucket: int = 0) -> int:
        """The clock of the server that has a bucket, in microseconds since 1970."""
        return time_us(await self._servers.call(pack("TIME"), BUCKET_SLOTS[bucket]))

    def expect(self, bucket: int) -> None:
        """Do not ask a server that did not answer lately: of 64 buckets each would wait for it.

        Raises:
            RedisAway: the bucket's is one.
        """
        if self._servers.of(BUCKET_SLOTS[bucket]).away:
            raise RedisAway()

    def connection_of(self, bucket: int) -> tuple[Server, int]:
        """Which connection leads to a bucket: another one may lead to an older copy of its counters."""
        server = self._servers.of(BUCKET_SLOTS[bucket])
        return server, server.jobs.generation

    async def _ask(self, commands: Iterable[Words]) -> list[Any]:
        return await ask(self._servers, commands)

    async def fold(self) -> None:
        """Bring the totals of all buckets up to date with the calls that were admitted until now."""
        sizes = await self._ask(("HLEN", bucket_key(bucket, "pending")) for bucket in range(BUCKETS))
        small: list[int] = []
        for bucket, size in enumerate(sizes):
            if size > FOLD_CHUNK // FOLDS_AT_ONCE:
                await self.fold_bucket(bucket)
            elif size:
                small.append(bucket)
        for at in range(0, len(small), FOLDS_AT_ONCE):
            await self._scripts.run_many(lua.FOLD, [_fold(bucket, b"0") for bucket in small[at : at + FOLDS_AT_ONCE]])

    async def fold_bucket(self, bucket: int) -> None:
        """The same, of one bucket."""
        cursor = b"0"
        for _ in range(MAX_FOLDS):
            moved = await self._scripts.run(lua.FOLD, *_fold(bucket, cursor))
            if moved == b"0":
                return
            cursor = moved or cursor

    async def top(self, count: int, window: Window | None) -> list[tuple[int, int]]:
        """The users with most calls, as (user id, calls), most first, ties by lower id; at most `count`."""
        replies = await self._ask(("ZRANGE", key, 0, count - 1, "WITHSCORES") for key in _totals_keys(window))
        rows = sorted((int(row[i + 1]), int(row[i])) for row in replies for i in range(0, len(row), 2))
        return [(user_id, -calls) for calls, user_id in rows[:count]]

    async def count_callers(self, window: Window | None) -> int:
        """The number of distinct users who called: of a window exactly, of all time estimated.

        It is the sum over the buckets, whose users are disjoint.
        """
        if window is not None:
            return sum(await self._ask(("ZCARD", key) for key in _totals_keys(window)))
        return sum(await self._ask(("PFCOUNT", bucket_key(bucket, "callers")) for bucket in range(BUCKETS)))

    # Snapshot

    async def snapshot_numbers(self) -> list[int | None]:
        """For each bucket what `snapshot_number` says of it."""
        return await gather_all(map(self.snapshot_number, range(BUCKETS)))

    async def snapshot_number(self, bucket: int) -> int | None:
        """The number of the last snapshot that a bucket's counters include; None when they are not whole."""
        (number,) = await self._ask([("GET", bucket_key(bucket, "ready"))])
        return None if number is None else int(number)

    async def backlog(self) -> tuple[int, float | None]:
        """How many users' hours have calls that no snapshot has, and the seconds since somebody began one in vain.

        Who drains leaves a nonce for `DRAINER_S`, and takes it back after a snapshot that stored something.
        """
        names = ("pending", "HLEN"), ("dirty", "SCARD"), ("draining", "SCARD"), ("drainer", "TTL")
        keys = ((command, bucket_key(bucket, name)) for bucket in range(BUCKETS) for name, command in names)
        replies = await self._ask(keys)
        buckets = [replies[at : at + 4] for at in range(0, len(replies), 4)]
        # One whose snapshots fail leaves a nonce too, and beside it what it has set aside.
        left_s = max((ttl_s for _, _, draining, ttl_s in buckets if not draining), default=-1)
        return sum(sum(sizes) for *sizes, _ in buckets), float(DRAINER_S - left_s) if left_s >= 0 else None

    async def drain_dirty(self, bucket: int, nonce: str, stored: int) -> int:
        """Set aside what changed in a bucket for a snapshot; returns how much, or -1 when a restore must come first.

        Args:
            stored: the number of the bucket's last snapshot.
        """
        keys = [bucket_key(bucket, name) for name in ("ready", "dirty", "draining", "drainer")]
        return int(await self._scripts.run(lua.DRAIN, keys, [nonce, stored, DRAINER_S]))

    async def drained(self, bucket: int, chunk: int) -> AsyncIterator[Drained]:
        """What was set aside, about `chunk` users at a time, ascending inside each chunk."""
        cursor = b"0"
        while True:
            ((cursor, found),) = await self._ask([("SSCAN", bucket_key(bucket, "draining"), cursor, "COUNT", chunk)])
            users: dict[Window | None, set[int]] = {None: set()}
            for user_id, _, hour in (member.partition(b":") for member in found):
                for window in (None, *(windows_of(int(hour)) if hour else ())):  # version 0.1 kept no hours
                    users.setdefault(window, set()).add(int(user_id))
            rows = {window: await self._calls_of(bucket, window, sorted(ids)) for window, ids in users.items()}
            yield Drained(rows.pop(None), {window: calls for window, calls in rows.items() if window and calls})
            if cursor == b"0":
                return

    async def _calls_of(self, bucket: int, window: Window | None, user_ids: Sequence[int]) -> list[tuple[int, int]]:
        if not user_ids:
            return []
        key = totals_key(bucket, window.name if window else "")
        (scores,) = await self._ask([("ZMSCORE", key, *map(member_of, user_ids))])
        return [(uid, -int(score)) for uid, score in zip(user_ids, scores, strict=True) if score is not None]

    async def sketch(self, bucket: int, nonce: str) -> bytes | None:
        """A bucket's HyperLogLog as Redis's own bytes, empty when nobody called; None when `nonce` drains no more.

        Asked in this order, the second answer vouches for the first: a Redis that was emptied forgot the nonce with it.
        """
        sketch, drainer = await self._ask(("GET", bucket_key(bucket, name)) for name in ("callers", "drainer"))
        return (sketch or b"") if drainer == nonce.encode() else None

    async def finish_drain(self, bucket: int, nonce: str, snapshot: int) -> bool:
        """Forget what was set aside, as snapshot number `snapshot` holds it; False when another drains by now."""
        keys = [bucket_key(bucket, name) for name in ("draining", "drainer", "ready")]
        return bool(await self._scripts.run(lua.FINISH_DRAIN, keys, [nonce, snapshot]))

    # Restore

    async def begin_restore(self, bucket: int, nonce: str, stored: int, reset: int) -> str:
        """Begin or take over a restore; returns how far it has come, as set:user id, or "" when there is none to do.

        Args:
            stored: the number of the bucket's last snapshot.
            reset: that of its last reset; 0 when there was none.
        """
        keys = [bucket_key(bucket, name) for name in ("ready", "cursor", "callers", *_OF_A_SNAPSHOT)]
        keys += await self._kept_totals(bucket)
        position: bytes = await self._scripts.run(lua.BEGIN_RESTORE, keys, [nonce, stored, reset])
        return position.decode()

    async def restore_totals(
        self, bucket: int, nonce: str, position: str, window: Window | None, rows: Sequence[tuple[int, int]]
    ) -> str:
        """Restore stored totals, (user id, calls) ascending, of all time or of a window.

        They are added to what was counted since the counters were lost; of an older copy of the counters they are the
        least that it may hold.

        Args:
            position: as the restore has come so far.

        Returns:
            how far it has come now; "" when the cursor is elsewhere, so nothing was restored.
        """
        moved = f"{set_of(window)}:{rows[-1][0]}"
        args: list[Any] = [f"{nonce}:{position}", f"{nonce}:{moved}", window.keep_until_ms if window else 0]
        for user_id, calls in rows:
            args += (-calls, member_of(user_id))
        totals = totals_key(bucket, window.name if window else "")
        keys = [bucket_key(bucket, "cursor"), totals, bucket_key(bucket, "ready")]
        return moved if await self._scripts.run(lua.RESTORE_TOTALS, keys, args) else ""

    async def finish_restore(self, bucket: int, nonce: str, position: str, sketch: bytes, snapshot: int) -> bool:
        """Merge the stored HyperLogLog and declare the bucket whole; False when the cursor is elsewhere."""
        keys = [bucket_key(bucket, name) for name in ("cursor", "callers", "stored_sketch", "ready")]
        return bool(await self._scripts.run(lua.FINISH_RESTORE, keys, [f"{nonce}:{position}", sketch, snapshot]))

    async def raise_totals(self, bucket: int, rows: Sequence[tuple[int, int]]) -> None:
        """Raise totals of all time to stored ones, (user id, calls), and see that these users are callers.

        Raises:
            RedisRefused: the bucket's counters are not whole.
        """
        keys = [bucket_key(bucket, name) for name in ("ready", "totals", "callers", "dirty")]
        args = [number for row in rows for number in row]
        if await self._scripts.run(lua.RAISE_TOTALS, keys, args) < 0:
            raise RedisRefused("The counters are being restored: run it again in a moment")

    # Reset

    async def reset_bucket(self, bucket: int, number: int) -> None:
        """Set all counters of a bucket to zero.

        Args:
            number: of the reset.
        """
        names = ("ready", "cursor", "callers", *_OF_A_SNAPSHOT, "pending")
        keys = [bucket_key(bucket, name) for name in names] + await self._kept_totals(bucket)
        await self._scripts.run(lua.RESET_BUCKET, keys, [number])

    async def reset_users(self, bucket: int, number: int, stored: int, user_ids: Sequence[int]) -> bool:
        """Set the counters of some of a bucket's users to zero; False when a restore must come first.

        Args:
            number: of the reset.
            stored: the number of the bucket's last snapshot.
        """
        await self.fold_bucket(bucket)
        keys = [bucket_key(bucket, name) for name in ("ready", "pending", "drainer")] + await self._kept_totals(bucket)
        return bool(await self._scripts.run(lua.RESET_USERS, keys, [number, stored, *user_ids]))

    async def _kept_totals(self, bucket: int) -> list[str]:
        return [totals_key(bucket), *(totals_key(bucket, window.name) for window in kept_at(await self.now_us(bucket)))]


def set_of(window: Window | None) -> str:
    """What a restore's cursor calls these totals; in the order of these names they are restored."""
    return window.name if window else "all"


def _totals_keys(window: Window | None) -> Iterable[str]:
    return (totals_key(bucket, window.name if window else "") for bucket in range(BUCKETS))


def _fold(bucket: int, cursor: bytes) -> tuple[list[str], list[Any]]:
    return [bucket_key(bucket, name) for name in ("pending", "totals", "callers", "dirty")], [cursor, FOLD_CHUNK]
