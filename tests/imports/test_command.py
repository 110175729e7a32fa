"""`gatehouse import users`, as a process of its own."""

import asyncio
import csv
import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import asyncpg
import msgspec
import pytest

from api.commands import imports
from models.connections import Stores
from models.errors import InvalidInput
from models.imports import Refusal
from tests.imports.original import HASH, PASSWORD, Original, copy_block
from tests.soak.stage import ROOT

DEADLINE_S = 60.0


async def start(stores: Stores, *options: str, **environ: str) -> asyncio.subprocess.Process:
    settings = stores.settings
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", "import", "users", *options),
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "SECRET_KEYS": ",".join(settings.secret_keys),
            **environ,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def gatehouse(stores: Stores, *options: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = await start(stores, *options, **environ)
    async with asyncio.timeout(DEADLINE_S):
        said, complained = await process.communicate()
    return process.returncode or 0, said.decode(), complained.decode()


async def names(stores: Stores) -> list[str]:
    return [row[0] for row in await stores.database.fetch("SELECT username FROM users ORDER BY id")]


async def test_one_command_imports_a_dump_and_tells_who_was_refused(
    stores: Stores, theirs: Original, tmp_path: Path
) -> None:
    for user_id in range(1, 31):
        await theirs.add(user_id, f"user {user_id}" if user_id < 4 else f"=bad{user_id} ")
    dump, rejected = theirs.dump(tmp_path / "original.sql"), tmp_path / "rejected.csv"
    tried = await gatehouse(stores, "--from", str(dump), "--dry-run", "--json")
    assert (tried[0], tried[2]) == (0, "")
    report: dict[str, Any] = msgspec.json.decode(tried[1])
    assert (report["dryRun"], report["imported"], report["refused"]) == (True, 3, {"bad_username": 27})
    assert len(report["first"]) == 20
    assert await names(stores) == []
    code, said, complained = await gatehouse(stores, "--from", str(dump), "--rejected", str(rejected))
    assert (code, complained) == (0, "")
    assert said.startswith("imported       3\nalready there  0\nrefused        27\n")
    assert said.count("  line ") == 20
    assert said.endswith(f"  and 7 more: they are in {rejected}\n")
    with rejected.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == list(range(4, 31))
    assert rows[0]["username"] == "'=bad4 '"
    assert HASH not in said + rejected.read_text()
    assert await names(stores) == ["user 1", "user 2", "user 3"]
    assert await stores.accounts.log_in("user 1", PASSWORD)


async def test_addresses_can_stay_out_of_the_command_line(stores: Stores, theirs: Original) -> None:
    await theirs.add(1, "ada")
    assert (await gatehouse(stores, IMPORT_FROM=theirs.url))[0] == 0
    assert await names(stores) == ["ada"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--from", "nowhere.sql"), "gatehouse: nowhere.sql cannot be read: No such file or directory"),
        (("--from", "postgres://x:secret@127.0.0.1:99999/y"), "gatehouse: That is no address like postgres"),
        (("--from", "postgres://x:secret@127.0.0.1:1/y"), "gatehouse: That PostgreSQL cannot be used"),
        (("--from", "{dump}"), "gatehouse: 1 of 2 passwords are in plain text: nothing was imported."),
        (("--from", "{dump}", "--counts-from", "http://x"), "gatehouse: The original's Redis is given as redis://"),
        (("--from", "{dump}", "--counts-from", "redis://:secret/x@127.0.0.1:1"), "gatehouse: The original's Redis is"),
        (("--from", "{dump}", "--rejected", "/nowhere/x.csv"), "gatehouse: /nowhere/"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(
    stores: Stores, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    plain = "--rejected" not in options and "--counts-from" not in options
    dump = tmp_path / "dump.sql"
    dump.write_text(copy_block([f"1\tada\t{HASH}", f"2\t{'eva' if plain else ' '}\t{'hunter2' if plain else HASH}"]))
    code, printed, complained = await gatehouse(stores, *(it.format(dump=dump) for it in options))
    assert (code, printed) == (1, "")
    assert complained.startswith(said)
    assert complained.count("\n") == 1
    assert "secret" not in complained
    assert await names(stores) == []


async def test_a_kill_in_the_middle_leaves_nothing_and_the_next_run_does_it_all(
    stores: Stores, theirs: Original
) -> None:
    for user_id in range(1, 6):
        await theirs.add(user_id, f"user{user_id}")
    other = await asyncpg.connect(stores.settings.database_url)
    try:
        signing_up = other.transaction()
        await signing_up.start()
        await other.execute(
            "INSERT INTO users (username, username_key, password_hash, created_at) VALUES ('x', 'user5', '', now())"
        )
        process = await start(stores, "--from", theirs.url, "--new-ids")
        # It has inserted the others, and waits for whether this one stays.
        await until(other, "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')")
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
        await signing_up.rollback()
        await until(other, "SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE query LIKE '%INTO users%staged%'"
                    " AND pid <> pg_backend_pid())")  # fmt: skip
    finally:
        await other.close()
    assert await names(stores) == []
    assert (await gatehouse(stores, "--from", theirs.url, "--new-ids"))[0] == 0
    assert await names(stores) == [f"user{n}" for n in range(1, 6)]


async def until(connection: Any, question: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await connection.fetchval(question):
            await asyncio.sleep(0.01)


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    @contextmanager
    def placed(_path: Path) -> Iterator[Any]:
        yield full

    full = Mock()
    full.write.side_effect = ["the line of names", OSError(errno.ENOSPC, "No space left on device")]
    told = pytest.raises(InvalidInput, match=r"x\.csv cannot be written, and nothing was imported: No space")
    with patch.object(imports, "placed", placed), imports._told(tmp_path / "x.csv", []) as tell, told:
        tell(Refusal(1, 1, "ada", "so"))
