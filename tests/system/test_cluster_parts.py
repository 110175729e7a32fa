"""A cluster of which one master is dead for good: the others' users, and the worker, do not wait for it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hiredis import ReplyError

from models.connections import Stores, open_stores
from models.devservers import free_port
from models.errors import RedisAway, StoreUnavailable
from models.keys import BUCKETS, SYNC_KEY, bucket_key, user_key
from models.policies import parse_policies
from models.publishing import _OF_BUCKET
from models.servers import BUCKET_SLOTS, slot_of
from models.settings import Settings
from models.snapshots import _READ_TOTALS
from tests.conftest import empty
from tests.valkeys import ClusterNode, ValkeyCluster, let_in, until

ENROLLED = 20_000


@pytest.fixture
async def company(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[ValkeyCluster, Stores]]:
    """Three masters without replicas, and empty stores on them."""
    with ValkeyCluster(let_in(tmp_path_factory.mktemp("valkeys")), replicas=False) as cluster:
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        own = replace(settings, redis_url=cluster.url, rate_limits=parse_policies("10000/1s"))
        async with open_stores(own) as stores:
            await empty(stores)
            yield cluster, stores


def keeper_of(cluster: ValkeyCluster) -> ClusterNode:
    """The master that keeps the states of the sync."""
    return cluster.master_of(slot_of(SYNC_KEY))


async def test_one_dead_master_holds_up_only_its_own_users(company: tuple[ValkeyCluster, Stores]) -> None:
    cluster, stores = company
    tokens = {}
    for number in range(8):
        user_id = await stores.accounts.add(f"user{number}", "password")
        tokens[user_id] = await stores.sessions.start(user_id)
    assert (await stores.sessions.sync()).full
    before = await stores.store.sync_states()
    assert len(before) == len(cluster.masters)
    # Not the one that keeps the states themselves.
    keeper = keeper_of(cluster)
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


async def test_one_that_takes_no_writes_holds_up_no_other(company: tuple[ValkeyCluster, Stores]) -> None:
    cluster, stores = company
    users = [await stores.accounts.add(f"user{number}", "password") for number in range(64)]
    for user_id in users:
        await stores.sessions.start(user_id)
    await stores.sessions.sync()
    before = await stores.store.sync_states()
    keeper = keeper_of(cluster)
    refusing, new = (node for node in cluster.masters if node is not keeper)
    refusing.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    new_run, refusing_run = (node.facts("INFO", "server")["run_id"] for node in (new, refusing))
    keeper.ask("HDEL", SYNC_KEY, new_run)
    new.ask("FLUSHALL")
    await stores.database.fetch(
        "UPDATE sessions SET version = nextval('session_versions'), changed_at = clock_timestamp()"
    )
    with pytest.raises(StoreUnavailable):
        await stores.sessions.sync()
    after = await stores.store.sync_states()
    assert after[new_run].beat_us, "it got everything"
    assert after[refusing_run] == before[refusing_run], "it is not said of it"
    ours = [user_id for user_id in users if cluster.master_of(BUCKET_SLOTS[user_id % BUCKETS]) is new]
    assert ours
    assert all(new.ask("EXISTS", user_key(user_id, "session")) for user_id in ours)
    refusing.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    assert not (await stores.sessions.sync()).full


async def test_a_slot_that_moves_to_a_server_without_the_scripts(company: tuple[ValkeyCluster, Stores]) -> None:
    cluster, stores = company
    user_id = await stores.accounts.add("ada", "password")
    slot = BUCKET_SLOTS[user_id % BUCKETS]
    source = cluster.master_of(slot)
    target = next(node for node in cluster.masters if node is not source)
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    target.ask("SCRIPT", "FLUSH")
    token = await stores.sessions.start(user_id)
    for node in (target, source, *cluster.masters):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(target))
    assert str(target.ask("GET", user_key(user_id, "session"))).count(":") == 2, "it went where the slot was moving to"
    assert (await stores.usage.admit(token)).admitted


async def test_a_master_that_only_a_redirection_has_named_is_not_published_to(
    company: tuple[ValkeyCluster, Stores],
) -> None:
    """Not all of its slots are known: it would be taken for one that has got everything."""
    _, stores = company
    servers = stores.store.servers
    known = await servers.masters()
    assert servers.redirect(ReplyError(f"MOVED {BUCKET_SLOTS[5]} 127.0.0.1:{free_port()}"), BUCKET_SLOTS[5])
    assert servers.of(BUCKET_SLOTS[5]) not in known
    assert await servers.masters() == known


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
