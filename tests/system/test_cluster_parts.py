"""A cluster of which one master is dead for good: the others' users, and the worker, do not wait for it."""

from dataclasses import replace

import pytest

from models.connections import Stores, open_stores
from models.errors import RedisAway
from models.keys import BUCKETS, bucket_key
from models.policies import parse_policies
from models.publishing import _OF_BUCKET
from models.servers import BUCKET_SLOTS
from models.settings import Settings
from models.snapshots import _READ_TOTALS
from tests.conftest import empty
from tests.valkeys import ValkeyCluster, until

ENROLLED = 20_000


async def test_one_dead_master_holds_up_only_its_own_users(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("valkeys")
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with ValkeyCluster(folder, replicas=False) as cluster:
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        own = replace(settings, redis_url=cluster.url, rate_limits=parse_policies("10000/1s"))
        async with open_stores(own) as stores:
            await empty(stores)
            await _one_dies(stores, cluster)


async def _one_dies(stores: Stores, cluster: ValkeyCluster) -> None:
    tokens = {}
    for number in range(8):
        user_id = await stores.accounts.add(f"user{number}", "password")
        tokens[user_id] = await stores.sessions.start(user_id)
    assert (await stores.sessions.sync()).full
    before = await stores.store.sync_states()
    assert len(before) == len(cluster.masters)
    # Not the one that keeps the states themselves.
    keeper = cluster.master_of(int(cluster.nodes[0].ask("CLUSTER", "KEYSLOT", "gate:sync")))
    dead = next(node for node in cluster.masters if node is not keeper)
    dead.stop()
    until(
        lambda: all(
            node.facts("CLUSTER", "INFO")["cluster_slots_fail"] != "0" for node in cluster.masters if node.alive
        )
    )
    for token in tokens.values():
        assert (await stores.usage.admit(token)).admitted
    for user_id in tokens:
        tokens[user_id] = await stores.sessions.start(user_id)
    with pytest.raises(RedisAway):
        await stores.sessions.sync()
    after = await stores.store.sync_states()
    moved = [run for run, state in after.items() if state.beat_us > before[run].beat_us]
    assert len(moved) == len(cluster.masters) - 1, "the heartbeat of the living goes on"
    ways = stores.usage.meters.counts
    cached = ways["cached"]
    for token in tokens.values():
        assert (await stores.usage.admit(token)).admitted
    assert 0 < ways["cached"] - cached < len(tokens), "some users' Redis is there, some users' is not"
    lost = next(bucket for bucket in range(BUCKETS) if keeper is cluster.master_of(BUCKET_SLOTS[bucket]))
    keeper.ask("DEL", bucket_key(lost, "ready"))
    with pytest.raises(RedisAway):
        await stores.snapshots.restore()
    assert await stores.store.counters.snapshot_number(lost) is not None, "the counters of the living are restored"


@pytest.mark.parametrize("last", [0, ENROLLED // 2, ENROLLED - 1_000])
async def test_a_bucket_is_found_by_its_index(enrolled: Stores, last: int) -> None:
    """However many others there are, and wherever a page begins: a new server must not cost a look at every row."""
    for statement, index in ((_OF_BUCKET, "idx_sessions_bucket"), (_READ_TOTALS, "idx_call_totals_bucket")):
        plan = await enrolled.database.fetch(f"EXPLAIN {statement}", 5, last, 128)
        assert f"using {index}" in "\n".join(row[0] for row in plan)


async def test_a_first_sync_reads_every_session_once(enrolled: Stores) -> None:
    assert (await enrolled.sessions.sync()).rows == ENROLLED


@pytest.fixture
async def enrolled(stores: Stores) -> Stores:
    """With a session and a total for each of `ENROLLED` users."""
    await stores.database.fetch(
        "INSERT INTO users (id, username, username_key, password_hash, created_at)"
        " SELECT n, 'u' || n, 'u' || n, '', now() FROM generate_series(1, $1) AS n",
        ENROLLED,
    )
    await stores.database.fetch(
        "INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at)"
        " SELECT id, id, '', now(), now() + interval '1 hour', now() FROM users"
    )
    await stores.database.fetch("INSERT INTO call_totals (user_id, calls, updated_at) SELECT id, 1, now() FROM users")
    await stores.database.fetch("ANALYZE sessions, call_totals")
    return stores
