"""The scripts that run inside Redis: each a file in `scripts/`, called by its SHA-1."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import ScriptMissing
from models.link import pack
from models.replies import gather_all
from models.servers import Servers, slot_of

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
    """Runs scripts where their keys are, through the patient connections: for whatever is not the gate."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One run and its reply."""
        slot = slot_of(keys[0])
        try:
            return await self._servers.call(script.packed(keys, args), slot)
        except ScriptMissing:
            # Every restart and failover and SCRIPT FLUSH forgets the scripts: it has not run. Its text goes the same
            # way, if need be to the server that a slot is moving to.
            return await self._servers.call(pack("EVAL", script.text, len(keys), *keys, *args), slot)

    async def run_many(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """A run for each call, sent together, and their replies.

        Raises:
            StoreUnavailable: one of them failed; the others may have run.
        """
        return await gather_all(self.run(script, keys, args) for keys, args in calls)


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
SAVE_SYNC = Script("save_sync")
RAISE_TOTALS = Script("raise_totals")
RESET_BUCKET = Script("reset_bucket")
RESET_USERS = Script("reset_users")
