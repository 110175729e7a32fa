"""Whether Redis is fit to be the fast copy, and its counters are whole."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from models.errors import StoreUnavailable
from models.findings import Finding, State, skewed, unknown
from models.heartbeat import Heartbeat
from models.keys import BUCKETS, bucket_of
from models.policies import Policy
from models.records import MISSING
from models.servers import BUCKET_SLOTS
from models.snapshots import Snapshots
from models.store import Store
from models.tokens import Claims

OLDEST_MAJOR = 7
WARN_MEMORY, FAIL_MEMORY = 0.8, 0.95
STALE_SNAPSHOT_S = 60.0

Info = Mapping[str, str]
"""What a server says of itself."""

_NOBODY = Claims(0, 1, 1, bytes(32))
"""A session that cannot be there: to judge a call of it changes nothing."""

_REACHED = ("redis_version", "redis_role", "eviction", "append_only_file", "memory", "redis_clock", "scripts", "worker")


async def examine_redis(
    store: Store, policies: Sequence[Policy], heartbeat: Heartbeat, now_s: Callable[[], float]
) -> list[Finding]:
    """All of its checks but those of the counters.

    Args:
        now_s: this machine's clock, in seconds since 1970.
    """
    try:
        await store.ping()
        infos = await store.info()
        asked_s = now_s()
        redis_s = await store.counters.now_us() / 1_000_000
        latency_s = now_s() - asked_s
        is_master = all(info.get("role") == "master" for info in infos)
        worker = _worker(await heartbeat.warning()) if is_master else unknown(["worker"], "Redis is a replica")[0]
    except StoreUnavailable as error:
        return [unreachable("redis", "REDIS_URL", error), *unknown(_REACHED, "Redis was not reached")]
    return [
        Finding("redis", "ok", f"Redis answers in {latency_s * 1_000:.1f} ms"),
        _worst(infos, _version),
        _worst(infos, lambda info: role("redis_role", "REDIS_URL", info)),
        _worst(infos, _eviction),
        _worst(infos, _append_only_file),
        _worst(infos, _memory),
        skewed("redis_clock", "Redis", redis_s - asked_s - latency_s / 2, latency_s),
        await _scripts(store, policies),
        worker,
    ]


async def examine_queue(url: str) -> list[Finding]:
    """The Redis of the worker's queue, when it is another one."""
    store = Store(url)
    try:
        finding = role("queue", "ARQ_REDIS_URL", (await store.info())[0])
    except StoreUnavailable as error:
        return [unreachable("queue", "ARQ_REDIS_URL", error)]
    finally:
        await store.close()
    return [finding]


async def examine_counters(
    snapshots: Snapshots, interval_s: int, *, has_schema: bool, worker_silent: bool
) -> list[Finding]:
    """Whether the counters are whole, and kept.

    Args:
        interval_s: between two snapshots.
    """
    checks = ("counters", "snapshots")
    if not has_schema:
        return unknown(checks, "PostgreSQL was not reached, or its schema is not up to date")
    try:
        lost, backlog = await snapshots.lost(), await snapshots.backlog()
        age_s = await snapshots.age_s()
    except StoreUnavailable:
        return unknown(checks, "Redis was not reached")
    whole = Finding("counters", "ok", "the counters of all buckets are whole")
    if lost:
        advice = "a worker restores them within RESTORE_INTERVAL_S: if this stays, see its log for restore_usage"
        whole = Finding("counters", "failed", f"{len(lost)} of {BUCKETS} buckets have lost their counters", advice)
    if not backlog:
        return [whole, Finding("snapshots", "ok", "PostgreSQL has all calls")]
    if lost or worker_silent:
        return [whole, *unknown(["snapshots"], "they wait for the worker or the restore")]
    if age_s is not None and age_s <= max(STALE_SNAPSHOT_S, 3 * interval_s):
        return [whole, Finding("snapshots", "ok", f"the last snapshot was {age_s:.0f} s ago")]
    ago = "there was no snapshot yet" if age_s is None else f"the last snapshot was {age_s:.0f} s ago"
    sentence = f"calls of {backlog} users and hours are in Redis alone, and {ago}"
    return [whole, Finding("snapshots", "failed", sentence, "see the worker's log for snapshot_usage")]


def _worst(infos: Sequence[Info], check: Callable[[Info], Finding]) -> Finding:
    """Of a cluster's masters that of the one that is worst off, and which it is."""
    findings = [(check(info), info) for info in infos]
    found, info = max(findings, key=lambda it: ("ok", "warning", "failed").index(it[0].state))
    if len(infos) == 1 or found.state == "ok":
        return found
    return msgspec.structs.replace(found, sentence=f"port {info.get('tcp_port')}: {found.sentence}")


def unreachable(check: str, variable: str, error: StoreUnavailable) -> Finding:
    """Why nothing came of it: the client's own words, and what they mean."""
    cause = error.__cause__ or error
    text = str(cause) or type(cause).__name__
    advice = f"see that the server runs, and that {variable} has its host and port"
    if any(word in text for word in ("NOAUTH", "WRONGPASS", "Authentication", "username-password")):
        advice = f"put the right user and password into {variable}"
    return Finding(check, "failed", f"Redis cannot be used: {text}", advice)


def role(check: str, variable: str, info: Info) -> Finding:
    """Whether it takes writes."""
    if info.get("role") == "master":
        return Finding(check, "ok", "it is a master and takes writes")
    master = f"{info.get('master_host')}:{info.get('master_port')}"
    return Finding(check, "failed", f"it is a replica, of {master}", f"point {variable} at the master")


def _version(info: Info) -> Finding:
    valkey = info.get("valkey_version")
    version = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version')}"
    if valkey or int(str(info.get("redis_version", "0")).partition(".")[0]) >= OLDEST_MAJOR:
        return Finding("redis_version", "ok", version)
    return Finding("redis_version", "failed", f"{version} is too old", "upgrade it to Redis 7 or Valkey")


def _eviction(info: Info) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return Finding("eviction", "ok", "maxmemory-policy is noeviction")
    sentence = f"maxmemory-policy is {policy}: sessions and counters can vanish"
    return Finding(
        "eviction", "failed", sentence, "CONFIG SET maxmemory-policy noeviction, and in its configuration too"
    )


def _append_only_file(info: Info) -> Finding:
    if info.get("aof_enabled") == "1":
        return Finding("append_only_file", "ok", "the append-only file is on")
    advice = "set appendonly yes: a restart then loses a second of calls, not all since the last snapshot"
    return Finding("append_only_file", "warning", "the append-only file is off", advice)


def _memory(info: Info) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    mebibytes = f"{used / 2**20:.0f} MiB are used"
    if not most:
        return Finding("memory", "ok", f"{mebibytes}, without a maxmemory")
    sentence, share = f"{mebibytes} of {most / 2**20:.0f}", used / most
    if share < WARN_MEMORY:
        return Finding("memory", "ok", sentence)
    state: State = "failed" if share >= FAIL_MEMORY else "warning"
    return Finding("memory", state, sentence, "raise maxmemory: a full Redis refuses what the gate writes")


async def _scripts(store: Store, policies: Sequence[Policy]) -> Finding:
    try:
        slot = BUCKET_SLOTS[bucket_of(_NOBODY.user_id)]
        verdict = await store.admit(store.servers.of(slot), store.admission_command(_NOBODY, policies), slot)
        said = "" if verdict.outcome == MISSING else f"it answered {verdict.outcome}"
    except Exception as error:  # whatever it is: this is where it is to be told
        said = str(error)
    if not said:
        return Finding("scripts", "ok", "the gate's script runs")
    return Finding(
        "scripts", "failed", f"the gate's script does not run: {said}", "let the user run EVALSHA, EVAL and SCRIPT"
    )


def _worker(warning: str | None) -> Finding:
    if warning is None:
        return Finding("worker", "ok", "a worker publishes sessions")
    sentence, _, advice = warning.partition(": ")
    return Finding("worker", "failed", sentence, advice)
