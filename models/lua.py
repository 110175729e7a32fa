"""The scripts that run inside Redis: each a file in `scripts/`, called by its SHA-1."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from models.link import pack
from models.replies import wrapping_errors

Call = tuple[Sequence[str], Sequence[Any]]
"""The keys and arguments of one run of a script."""


class Script:
    """One file of `scripts/*.lua`, called by its SHA-1."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (Path(__file__).parent / "scripts" / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text).hexdigest()  # noqa: S324  # what EVALSHA takes
        self.load = pack("SCRIPT", "LOAD", self.text)

    def packed(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> bytes:
        """A call of it, in Redis's protocol."""
        return pack("EVALSHA", self.sha, len(keys), *keys, *args)


class ScriptRunner:
    """Runs scripts through the general client, for whatever is not the gate.

    Args:
        deadline_s: for one pipeline.
    """

    def __init__(self, redis: Redis, deadline_s: float) -> None:
        self._redis = redis
        self._deadline_s = deadline_s

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One run and its reply."""
        return (await self.run_many(script, [(keys, args)]))[0]

    async def run_many(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """A run for each call, in one pipeline, and their replies."""
        if not calls:
            return []
        with wrapping_errors():
            try:
                return await self._pipeline(script, calls)
            except NoScriptError:
                # Every restart, failover and SCRIPT FLUSH forgets the scripts. All of them can run again: a pipeline
                # that lost its script half-way only repeats what is harmless, and a single call has not run.
                await self._redis.script_load(script.text)
                return await self._pipeline(script, calls)

    async def _pipeline(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for keys, args in calls:
                pipe.evalsha(script.sha, len(keys), *keys, *args)
            return await asyncio.wait_for(pipe.execute(), self._deadline_s)


ADMIT = Script("admit")
ADD_CALLS = Script("add_calls")
FOLD = Script("fold_calls")
PUBLISH = Script("publish_session")
RESERVE_LOGIN = Script("reserve_login")
RELEASE_LOGIN = Script("release_login")
DRAIN = Script("drain_dirty")
FINISH_DRAIN = Script("finish_drain")
BEGIN_RESTORE = Script("begin_restore")
RESTORE_TOTALS = Script("restore_totals")
FINISH_RESTORE = Script("finish_restore")
NOTE_RUN = Script("note_run")
RAISE_TOTALS = Script("raise_totals")
RESET_BUCKET = Script("reset_bucket")
RESET_USERS = Script("reset_users")
