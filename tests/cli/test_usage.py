"""`gatehouse usage`: the ranking, exports that are whole, and calls that stay forgotten."""

import csv
import io
import json
from pathlib import Path

import pytest

from models.connections import Stores
from models.exports import Calls
from tests.cli.conftest import Command, number_from_one
from tests.conftest import RawRedis

NAMES = ("ada", "=cmd|'/c calc'!A1", 'comma, "quote"', "Élan")

pytestmark = pytest.mark.usefixtures("few_buckets", "hour")


@pytest.fixture
async def callers(stores: Stores) -> dict[int, int]:
    """Users and their calls: one of the first, two of the second, …"""
    await number_from_one(stores)
    await stores.snapshots.restore()
    called = {}
    for calls, name in enumerate(NAMES, start=1):
        user_id = await stores.accounts.add(name, "password")
        token = await stores.sessions.start(user_id)
        for _ in range(calls):
            assert (await stores.usage.admit(token)).admitted
        called[user_id] = calls
    return called


async def test_the_ranking_has_names_and_windows(cli: Command, callers: dict[int, int]) -> None:
    for window in ("hour", "day", "all"):
        rows = (await cli("usage", "top", "--window", window, "--count", "3", "--json")).document
        assert [(row["rank"], row["username"], row["calls"]) for row in rows] == [
            (1, NAMES[3], 4),
            (2, NAMES[2], 3),
            (3, NAMES[1], 2),
        ]


async def test_an_export_has_every_user_with_calls_that_no_snapshot_had(cli: Command, callers: dict[int, int]) -> None:
    for window in ("hour", "day", "all"):
        lines = (await cli("usage", "export", "--window", window)).out.splitlines()
        rows = [json.loads(line) for line in lines]
        assert [(row["userId"], row["calls"]) for row in rows] == list(callers.items())
        assert tuple(row["username"] for row in rows) == NAMES


async def test_a_spreadsheet_meets_no_formula(cli: Command, callers: dict[int, int]) -> None:
    ran = await cli("usage", "export", "--format", "csv")
    title, *rows = csv.reader(io.StringIO(ran.out))
    assert title == ["userId", "username", "calls"]
    assert [row[1] for row in rows] == [NAMES[0], f"'{NAMES[1]}", NAMES[2], NAMES[3]]


async def test_an_export_goes_on_page_by_page(
    cli: Command, callers: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.exports.PAGE", 1)
    assert len((await cli("usage", "export")).out.splitlines()) == len(NAMES)


async def test_calls_behind_a_snapshot_that_died_are_exported(
    cli: Command, stores: Stores, callers: dict[int, int]
) -> None:
    await stores.store.counters.fold()
    for bucket in range(64):
        await stores.store.counters.drain_dirty(bucket, "a worker that died", 0)
    token = await stores.sessions.start(next(iter(callers)))
    assert (await stores.usage.admit(token)).admitted
    rows = [json.loads(line) for line in (await cli("usage", "export")).out.splitlines()]
    assert rows[0]["calls"] == 2


async def test_a_file_is_there_when_it_is_whole(
    cli: Command, callers: dict[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text("before")

    def broken(page: list[Calls]) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("api.commands.exporting._json_lines", broken)
        ran = await cli("usage", "export", "-o", str(path))
    assert (ran.code, files_of(tmp_path)) == (1, {path.name: "before"})
    assert "No space left" in ran.err
    ran = await cli("usage", "export", "-o", str(path))
    assert (ran.code, ran.out) == (0, "")
    ((name, text),) = files_of(tmp_path).items()
    assert (name, len(text.splitlines())) == (path.name, len(NAMES))


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_a_folder_that_is_not_there_is_told(cli: Command, tmp_path: Path) -> None:
    ran = await cli("usage", "export", "-o", str(tmp_path / "none" / "calls.jsonl"))
    assert (ran.code, ran.out) == (1, "")
    assert "No such file or directory" in ran.err


async def test_one_users_calls_are_forgotten_and_those_of_the_others_are_not(
    cli: Command, stores: Stores, callers: dict[int, int], redis: RawRedis
) -> None:
    first, *others = callers
    await stores.snapshots.take()
    assert (await cli("usage", "reset", "--user", "ADA", "--yes")).code == 0
    expected = {user_id: callers[user_id] for user_id in others}
    assert dict(await stores.usage.top()) == dict(await stores.usage.top("hour")) == expected
    await redis.flushall()
    await stores.snapshots.restore()
    assert dict(await stores.usage.top()) == dict(await stores.usage.top("day")) == expected
    assert (await stores.usage.admit(await stores.sessions.start(first))).admitted
    assert dict(await stores.usage.top())[first] == 1


@pytest.mark.parametrize("few_buckets", [64], indirect=True)
async def test_all_calls_are_forgotten(cli: Command, stores: Stores, callers: dict[int, int], redis: RawRedis) -> None:
    await stores.snapshots.take()
    assert (await cli("usage", "reset", "--all")).code == 2, "not without being asked"
    assert len(await stores.usage.top()) == len(NAMES)
    assert (await cli("usage", "reset", "--all", "--yes")).code == 0
    for _ in range(2):
        assert (await stores.usage.top(), await stores.usage.count_callers()) == ([], 0)
        assert await stores.usage.top("hour") == []
        await stores.snapshots.take()
        await redis.flushall()
        await stores.snapshots.restore()


async def test_a_reset_says_whose(cli: Command) -> None:
    for arguments in ((), ("--all", "--user", "ada")):
        assert (await cli("usage", "reset", *arguments, "--yes")).code == 2
    assert (await cli("usage", "reset", "--user", "nobody", "--yes")).code == 1
