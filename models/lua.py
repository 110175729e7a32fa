"""The scripts that run inside Redis: each a file in `scripts/`, called by its SHA-1."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from models.link import pack


class Script:
    """One file of `scripts/*.lua`, called by its SHA-1."""

    def __init__(self, name: str) -> None:
        self.text = (Path(__file__).parent / "scripts" / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text).hexdigest()  # noqa: S324  # what EVALSHA takes
        self.load = pack("SCRIPT", "LOAD", self.text)

    def packed(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> bytes:
        """A call of it, in Redis's protocol."""
        return pack("EVALSHA", self.sha, len(keys), *keys, *args)


ADMIT = Script("admit")
ADD_CALLS = Script("add_calls")
PUBLISH = Script("publish_session")
DRAIN = Script("drain_dirty")
FINISH_DRAIN = Script("finish_drain")
BEGIN_RESTORE = Script("begin_restore")
ADD_TOTALS = Script("add_totals")
FINISH_RESTORE = Script("finish_restore")
