"""A worker whose restores never say that they are done: `python -m tests.soak.broken_worker`."""

import hashlib
import sys
from unittest.mock import patch

from models import lua
from models.link import pack
from worker.main import main


def unfinished() -> lua.Script:
    """The script that ends a restore, without its last word."""
    script = lua.Script("finish_restore")
    text = script.text.replace(b"redis.call('SET', KEYS[4], ARGV[3])", b"")
    assert text != script.text
    script.text, script.load = text, pack("SCRIPT", "LOAD", text)
    script.sha = hashlib.sha1(text).hexdigest()  # noqa: S324  # what EVALSHA takes
    return script


if __name__ == "__main__":
    with patch.object(lua, "FINISH_RESTORE", unfinished()):
        sys.exit(main())
