"""The examination of a deployment: every check that `gatehouse doctor` prints, in one list."""

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from models.database import Database
from models.findings import Finding, State
from models.heartbeat import Heartbeat
from models.policies import Policies
from models.postgres_checks import examine_postgres
from models.redis_checks import examine_counters, examine_queue, examine_redis
from models.settings import Settings
from models.snapshots import Snapshots
from models.store import Store

ENOUGH_BITS = 128.0


class Diagnosis:
    """Looks at everything and changes nothing.

    Args:
        policies: of which the default's script is run, for nobody.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: Store,
        snapshots: Snapshots,
        heartbeat: Heartbeat,
        policies: Policies,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._snapshots = snapshots
        self._heartbeat = heartbeat
        self._policies = policies

    async def examine(self, now_s: Callable[[], float] = time.time) -> list[Finding]:
        """All findings. Settings that cannot be read were told before there was anything to examine.

        Args:
            now_s: this machine's clock, in seconds since 1970.
        """
        settings = self._settings
        findings = [Finding("settings", "ok", "all settings are readable"), _secret_keys(settings.secret_keys)]
        postgres = await _guarded("postgres", examine_postgres(self._database, now_s))
        default = self._policies.default.policies
        redis = await _guarded("redis", examine_redis(self._store, default, self._heartbeat, now_s))
        counters = examine_counters(
            self._snapshots,
            settings.snapshot_interval_s,
            has_schema=_passed(postgres, "migrations"),
            worker_silent=not _passed(redis, "worker"),
        )
        findings += postgres + redis + await _guarded("counters", counters)
        if settings.queue_redis_url == settings.redis_url:
            state: State = "ok" if _passed(redis, "redis") else "unknown"
            return [*findings, Finding("queue", state, "it is in the same Redis")]
        return findings + await _guarded("queue", examine_queue(settings.queue_redis_url))


def _passed(findings: Sequence[Finding], check: str) -> bool:
    return any(finding.check == check and finding.state in ("ok", "warning") for finding in findings)


async def _guarded(check: str, examination: Awaitable[list[Finding]]) -> list[Finding]:
    """Whatever else is found out in between is a finding too, and no reason to keep the others from being told."""
    try:
        return await examination
    except Exception as error:
        return [Finding(check, "unknown", f"it could not be examined: {type(error).__name__}: {error}")]


def _secret_keys(keys: Sequence[str]) -> Finding:
    weak = [number for number, key in enumerate(keys, start=1) if _bits(key) < ENOUGH_BITS]
    if weak:
        sentence = f"key {', '.join(map(str, weak))} of SECRET_KEYS does not look random"
        return Finding("secret_keys", "warning", sentence, "replace it: `gatehouse keys rotate` says how")
    if len(keys) > 2:
        advice = "once nobody's token is signed by the older ones, drop them: `gatehouse keys rotate --step retire`"
        return Finding("secret_keys", "warning", f"{len(keys)} keys verify tokens", advice)
    return Finding("secret_keys", "ok", f"{'one key' if len(keys) == 1 else 'two keys'}, long and random")


def _bits(key: str) -> float:
    """What a key could hold at most, by its letters' frequencies; of one that repeats itself, what repeats."""
    key = key[: (key + key).find(key, 1)]
    return -sum(count * math.log2(count / len(key)) for count in Counter(key).values())
