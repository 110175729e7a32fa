"""The first sync to a server: long, so it may be cut off; what changes meanwhile does not wait for its end."""

import asyncio
from collections.abc import Iterable

import pytest

from models import publishing
from models.connections import Stores, open_stores
from models.database import load_sql
from models.errors import RedisAway
from models.keys import BUCKETS, user_key
from models.records import Entry, SyncState
from models.store import _sync_state
from tests.conftest import RawRedis

USERS = 3 * BUCKETS
_SESSIONS = """
INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at)
SELECT id, nextval('session_versions'), sha256(id::text::bytea), now(), now() + interval '1 hour',
       now() - interval '10 minutes'
  FROM users"""


class CutOff(Exception):
    """The worker is killed."""


@pytest.fixture
async def enrolled(stores: Stores) -> list[int]:
    """Users with a session that Redis does not have, three in each bucket."""
    await stores.database.fetch(
        "INSERT INTO users (id, username, username_key, password_hash, created_at)"
        " SELECT n, 'u' || n, 'u' || n, '', now() FROM generate_series(1, $1) AS n",
        USERS,
    )
    await stores.database.fetch(_SESSIONS)
    return list(range(1, USERS + 1))


class CutStore:
    """A store whose worker is cut off when it is about to publish for the Nth time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stores: Stores) -> None:
        self.published: list[list[int]] = []
        self.cut_at = -1
        publish = stores.store.publish_sessions

        async def publish_sessions(entries: Iterable[Entry]) -> int:
            some = list(entries)
            if len(self.published) == self.cut_at:
                raise CutOff
            if some:
                self.published.append([entry.user_id for entry in some])
            return await publish(some)

        monkeypatch.setattr(stores.store, "publish_sessions", publish_sessions)


async def test_a_sync_that_is_cut_off_is_gone_on_with_by_the_next(
    stores: Stores, redis: RawRedis, enrolled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = CutStore(monkeypatch, stores)
    cut.cut_at = 10
    with pytest.raises(CutOff):
        await stores.sessions.sync()
    states = (await stores.store.sync_states()).values()
    assert not any(it.beat_us for it in states), "nobody may believe it yet"
    assert sum(len(it.buckets or ()) for it in states) == 10
    cut.cut_at = -1
    first = {uid for some in cut.published for uid in some}
    # A logout whose publication was lost, of a user who was published already.
    ended = min(first)
    await stores.database.fetch(load_sql("revoke_session"), ended, None, None)
    cut.published.clear()
    synced = await stores.sessions.sync()
    assert (synced.full, synced.published) == (True, USERS - len(first) + 1)
    assert cut.published[0] == [ended], "what changed goes first"
    states = (await stores.store.sync_states()).values()
    assert all(it.beat_us for it in states)
    assert sorted(bucket for it in states for bucket in it.buckets or ()) == list(range(BUCKETS))
    assert (await redis.get(user_key(ended, "session"))).endswith(":revoked")
    for user_id in enrolled:
        assert await redis.exists(user_key(user_id, "session"))
    assert not (await stores.sessions.sync()).full


async def test_what_changes_in_a_long_sync_does_not_wait_for_its_end(
    stores: Stores, enrolled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "ROUND_S", 0.0)
    cut = CutStore(monkeypatch, stores)
    syncing = asyncio.create_task(stores.sessions.sync())
    while not (cut.published or syncing.done()):
        await asyncio.sleep(0)
    ended = cut.published[0][0]
    await stores.database.fetch(load_sql("revoke_session"), ended, None, None)
    synced = await syncing
    told = [number for number, some in enumerate(cut.published) if some == [ended]]
    assert told, "the logout was published on its own"
    assert told[0] < BUCKETS // 2, "and not when all was done"
    assert synced.full
    assert len(await stores.store.sync_states()) == len(await stores.store.servers.masters())


async def test_a_run_that_was_replaced_is_new_when_it_is_back(stores: Stores, enrolled: list[int]) -> None:
    """What took its place may have lost what it knew, and handed that down to it."""
    await stores.sessions.sync()
    states = await stores.store.sync_states()
    ((before, state), *_) = states.items()
    await stores.store.save_sync_states({"a" * 40: SyncState(state.watermark_us, state.beat_us)})
    await stores.sessions.sync()
    assert set(await stores.store.sync_states()) == set(states)
    assert before in states


async def test_a_sync_says_how_far_it_has_come(
    stores: Stores, enrolled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = CutStore(monkeypatch, stores)
    cut.cut_at = 5
    with pytest.raises(CutOff):
        await stores.sessions.sync()
    warning = await stores.heartbeat.warning()
    assert warning is not None
    assert "5 of" in warning


async def test_nobody_believes_an_older_copy_that_a_worker_has_begun_to_fill(
    stores: Stores, redis: RawRedis, enrolled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the process either that begins only now: to it a Redis where no state is might be an empty one."""
    user_id = 2 * BUCKETS - 1  # of the last bucket
    token = await stores.sessions.start(user_id)
    await stores.sessions.sync()
    older = await redis.get(user_key(user_id, "session"))
    assert await stores.sessions.revoke(user_id)
    await redis.set(user_key(user_id, "session"), older)
    states = await stores.store.sync_states()
    await redis.delete("gate:sync")
    await redis.hset("gate:sync", mapping={f"older {run}": state.value for run, state in states.items()})
    cut = CutStore(monkeypatch, stores)
    cut.cut_at = 3
    with pytest.raises(CutOff):
        await stores.sessions.sync()
    async with open_stores(stores.settings) as others:
        assert (await others.usage.admit(token)).reason == "session_revoked"


async def test_a_slower_worker_does_not_take_back_what_is_done(stores: Stores, enrolled: list[int]) -> None:
    await stores.sessions.sync()
    states = await stores.store.sync_states()
    slower = {run: SyncState(state.watermark_us - 1, 0, [0]) for run, state in states.items()}
    await stores.store.save_sync_states(slower)
    assert await stores.store.sync_states() == states
    for run, state in slower.items():
        later = SyncState(state.watermark_us + 2, 1, [0])
        await stores.store.save_sync_states({run: later})
        assert (await stores.store.sync_states())[run] == later


async def test_a_server_gets_the_buckets_that_it_did_not_have(
    stores: Stores, redis: RawRedis, enrolled: list[int]
) -> None:
    """Its slots may have come from one that was not to be believed; or not all were known to be its own."""
    await stores.sessions.sync()
    for run, state in (await stores.store.sync_states()).items():
        few = SyncState(state.watermark_us, state.beat_us, [bucket for bucket in state.buckets or () if bucket > 20])
        await stores.store.save_sync_states({run: few})
    await redis.delete(user_key(7, "session"))
    synced = await stores.sessions.sync()
    assert (synced.full, synced.published) == (True, 1)
    assert synced.rows >= 3 * 21
    assert await redis.exists(user_key(7, "session"))
    assert not (await stores.sessions.sync()).full


async def test_a_redis_with_something_in_it_that_nobody_knows_is_not_believed(stores: Stores, redis: RawRedis) -> None:
    """In a cluster the server that remembers may have come back empty, and another as an older copy."""
    user_id = await stores.accounts.add("ada", "password")
    token = await stores.sessions.start(user_id)
    older = await redis.get(user_key(user_id, "session"))
    assert await stores.sessions.revoke(user_id)
    await redis.set(user_key(user_id, "session"), older)
    assert not await redis.exists("gate:sync")
    async with open_stores(stores.settings) as others:
        assert (await others.usage.admit(token)).reason == "session_revoked"


@pytest.mark.parametrize("value", ["1:2:3:4", "1700000000", "", "1:2:" + ",".join(["10"] * BUCKETS) + ",x"])
async def test_what_another_version_left_says_that_there_was_something(
    stores: Stores, redis: RawRedis, value: str
) -> None:
    await redis.hset("gate:sync", "a run", value)
    assert (await stores.store.sync_states())["a run"] == SyncState(0, 0, ())
    await stores.sessions.sync()
    assert "a run" not in await stores.store.sync_states()


def test_a_state_is_read_as_it_was_written() -> None:
    for state in (SyncState(7, 0, []), SyncState(7, 8, [0, 63]), SyncState(7, 8)):
        assert _sync_state(state.value.encode()) == state


async def test_what_changed_at_every_server_is_counted_as_published(stores: Stores, enrolled: list[int]) -> None:
    """They are sent to side by side."""
    await stores.sessions.sync()
    await stores.database.fetch("UPDATE sessions SET version = nextval('session_versions'), changed_at = now()")
    synced = await stores.sessions.sync()
    assert (synced.rows, synced.published) == (USERS, USERS)


async def test_nothing_is_said_of_a_run_whose_connection_was_lost_on_the_way(
    stores: Stores, enrolled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one may lead to another server, which got only the rest."""
    publish, sent = stores.store.publish_sessions, 0

    async def publish_sessions(entries: Iterable[Entry]) -> int:
        nonlocal sent
        sent += 1
        published = await publish(entries)
        if sent == 5:  # nobody waits for a reply
            for server in await stores.store.servers.masters():
                server.jobs.drop()
        return published

    monkeypatch.setattr(stores.store, "publish_sessions", publish_sessions)
    with pytest.raises(RedisAway):
        await stores.sessions.sync()
    states = (await stores.store.sync_states()).values()
    assert not any(it.beat_us for it in states)
    assert sum(len(it.buckets or ()) for it in states) == 4, "that of the last bucket nobody knows"
    synced = await stores.sessions.sync()
    assert synced.rows == USERS - 4 * 3
