"""Imports of the original's users: from its database, its dump and its CSV; all of them or none; once."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from models.candidates import REASONS
from models.connections import Stores
from models.errors import InvalidCredentials, InvalidInput, StoreUnavailable, UsernameTaken
from models.imports import Refusal, Report, Wishes
from tests.conftest import Servers
from tests.dump import dump_postgres
from tests.imports.conftest import Import
from tests.imports.original import HASH, PASSWORD, Original, go_hash, original

CREATED_AT = datetime(2023, 5, 5, 23, 8, 9, 123456, UTC)


async def users(stores: Stores) -> dict[int, Any]:
    return {row["id"]: row for row in await stores.database.fetch("SELECT * FROM users ORDER BY id")}


@pytest.mark.parametrize("kind", ["url", "dump", "data", "csv"])
async def test_every_source_gives_the_same_users(
    stores: Stores, theirs: Original, take: Import, tmp_path: Path, kind: str
) -> None:
    await theirs.add(1, "ada", name="'Ada\tL. \\ \"quoted\", and\nmore'")
    await theirs.add(7, "Zoë, \\N b", go_hash("another"), created_at="'2023-05-06 07:08:09+05:30'")
    await theirs.add(9, "gone", deleted_at="'2024-01-01 00:00:00+00'")
    await theirs.sql("INSERT INTO sessions (user_id, session_token) VALUES (1, 'x')")
    sources = {
        "url": theirs.url,
        "dump": theirs.dump(tmp_path / "all.sql"),
        "data": theirs.dump(tmp_path / "users.sql", "--data-only", "--table=public.users"),
        "csv": await theirs.csv(tmp_path / "users.csv"),
    }
    report, refused = await take(sources[kind])
    assert (report, refused) == (Report(imported=3, there=0, disabled=1, refused={}), [])
    found = await users(stores)
    assert [(n, row["username"], row["username_key"]) for n, row in found.items()] == [
        (1, "ada", "ada"),
        (7, "Zoë, \\N b", "zoë, \\n b"),
        (9, "gone", "gone"),
    ]
    assert found[1]["created_at"] == CREATED_AT
    assert found[7]["created_at"] == datetime(2023, 5, 6, 1, 38, 9, tzinfo=UTC)
    assert found[9]["disabled_at"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert await stores.database.fetch("SELECT 1 FROM sessions") == []
    assert await stores.accounts.log_in("ADA", PASSWORD)
    assert await stores.accounts.log_in("zoë, \\N b", "another")
    with pytest.raises(InvalidCredentials):
        await stores.accounts.log_in("gone", PASSWORD)
    assert (await users(stores))[1]["password_hash"].startswith("$argon2id$")


async def test_a_second_run_changes_nothing_nor_turns_back_a_changed_password(
    stores: Stores, theirs: Original, take: Import
) -> None:
    await theirs.add(1, "ada")
    await theirs.add(2, "eva")
    await theirs.add(3, "Eva")
    await take(theirs.url)
    await stores.accounts.log_in("ada", PASSWORD)  # which upgrades the hash
    before = await dump_postgres(stores.settings)
    report, refused = await take(theirs.url)
    assert report == Report(imported=0, there=2, disabled=0, refused={"name_taken": 1})
    assert [one.id for one in refused] == [3]
    assert await dump_postgres(stores.settings) == before
    await theirs.add(4, "kim")  # what came since is what a later run adds
    assert (await take(theirs.url))[0].imported == 1
    assert list(await users(stores)) == [1, 2, 4]


async def test_who_signs_up_afterwards_gets_the_next_id(stores: Stores, theirs: Original, take: Import) -> None:
    (highest,) = (await stores.database.fetch("SELECT last_value FROM users_id_seq"))[0]
    await theirs.add(highest + 500, "ada")
    await theirs.add(3, "eva")
    await take(theirs.url)
    assert await stores.accounts.add("kim", PASSWORD) == highest + 501
    assert await stores.accounts.add("tom", PASSWORD) == highest + 502
    await theirs.add(4, "old")  # lower ids leave the sequence where it is
    await take(theirs.url)
    assert await stores.accounts.add("uwe", PASSWORD) == highest + 503


async def test_a_name_that_differs_by_case_or_width_is_refused(stores: Stores, theirs: Original, take: Import) -> None:
    for user_id, name in enumerate(("Ada", "ada", "ＡＤＡ", "eva", "EVA"), 11):
        await theirs.add(user_id, name, deleted_at="now()" if name == "eva" else "NULL")
    report, refused = await take(theirs.url)
    assert report.refused == {"name_twice": 3}
    assert [(one.id, one.shown) for one in refused] == [(12, "ada"), (13, r"\uff21\uff24\uff21"), (14, "eva")]
    assert refused[0].reason == REASONS["name_twice"].format(11)
    # Of two, the one who still used the service.
    assert [row["username"] for row in (await users(stores)).values()] == ["Ada", "EVA"]


async def test_who_is_here_keeps_id_and_name(stores: Stores, theirs: Original, take: Import) -> None:
    here = await stores.accounts.add("here", PASSWORD)
    await theirs.add(here, "other")
    await theirs.add(here + 1, "HERE")
    await theirs.add(here + 2, "third")
    report, refused = await take(theirs.url)
    assert report == Report(imported=1, there=0, disabled=0, refused={"id_taken": 1, "name_taken": 1})
    assert refused[1] == Refusal(2, here + 1, "HERE", f"user {here} has its name here")
    assert {n: row["username"] for n, row in (await users(stores)).items()} == {here: "here", here + 2: "third"}


async def test_new_ids_make_room_for_everybody_once(stores: Stores, theirs: Original, take: Import) -> None:
    here = await stores.accounts.add("here", PASSWORD)
    await theirs.add(here, "other")
    await theirs.add(here + 1, "HERE")
    assert await take(theirs.url, new_ids=True) == (
        Report(imported=1, there=0, disabled=0, refused={"name_taken": 1}),
        [Refusal(2, here + 1, "HERE", f"user {here} has its name here")],
    )
    assert {row["username"] for row in (await users(stores)).values()} == {"here", "other"}
    assert (await take(theirs.url, new_ids=True))[0].there == 1
    with pytest.raises(InvalidInput, match="Call totals belong to ids"):
        await take(theirs.url, "redis://127.0.0.1:1/0", new_ids=True)


async def test_a_dry_run_tells_all_and_changes_nothing(stores: Stores, theirs: Original, take: Import) -> None:
    await theirs.add(1, "ada")
    await theirs.add(2, "Ada")
    await theirs.add(3, "eva", deleted_at="now()")
    before = await dump_postgres(stores.settings)
    tried = await take(theirs.url, dry_run=True)
    assert await dump_postgres(stores.settings) == before
    assert tried == await take(theirs.url)
    assert tried[0] == Report(imported=2, there=0, disabled=1, refused={"name_twice": 1})


async def test_plain_passwords_are_refused_skipped_or_hashed(stores: Stores, theirs: Original, take: Import) -> None:
    await theirs.add(1, "ada", "hunter2")
    await theirs.add(2, "eva")
    await theirs.add(3, "kim", "5f4dcc3b5aa765d61d8327deb882cf99")
    with pytest.raises(InvalidInput, match="1 of 3 passwords are in plain text: nothing was imported"):
        await take(theirs.url)
    assert await users(stores) == {}
    report, refused = await take(theirs.url, plain_passwords="skip")
    assert (report.imported, report.refused) == (1, {"plain_password": 1, "other_hash": 1})
    assert "hunter2" not in repr(refused)
    report, _ = await take(theirs.url, plain_passwords="hash")
    assert (report.imported, report.there) == (1, 1)
    assert (await users(stores))[1]["password_hash"].startswith("$argon2id$")
    assert await stores.accounts.log_in("ada", "hunter2")


async def test_plain_columns_are_enough(stores: Stores, servers: Servers, take: Import) -> None:
    schema = "CREATE TABLE users (id serial PRIMARY KEY, username varchar(50), password varchar(255))"
    async with original(servers.postgres, schema) as theirs:
        await theirs.sql("INSERT INTO users (username, password) VALUES ('ada', $1)", HASH)
        assert (await take(theirs.url))[0].imported == 1
    assert await stores.accounts.log_in("ada", PASSWORD)


async def test_more_than_a_page_of_everything(stores: Stores, theirs: Original, take: Import) -> None:
    """Ids with holes, two pages of users to read, of refusals and of chunks to insert."""
    await theirs.sql(
        "INSERT INTO users (id, username, password)"
        " SELECT 3 * n, CASE WHEN n % 2 = 0 THEN ' bad' || n ELSE 'user' || n END, $1 FROM generate_series(1, 2500) n",
        HASH,
    )
    report, refused = await take(theirs.url)
    assert report == Report(imported=1250, there=0, disabled=0, refused={"bad_username": 1250})
    assert len(refused) == 1250
    assert len(await users(stores)) == 1250


async def test_what_fails_at_the_very_end_leaves_nothing(stores: Stores, theirs: Original) -> None:
    await theirs.add(1, "ada")
    await theirs.add(2, "Ada")

    def fail(_refusal: Refusal) -> None:
        raise OSError("the disk is full")

    with pytest.raises(StoreUnavailable):
        await stores.imports.import_users(theirs.url, Wishes(), "", fail)
    assert await users(stores) == {}


async def test_who_signs_up_with_an_imported_name_meanwhile_is_told_apart(
    stores: Stores, theirs: Original, take: Import
) -> None:
    """A sign-up that is not committed yet when the import looks, and is when it inserts."""
    await theirs.add(1, "ada")
    await theirs.add(2, "eva")
    other = await asyncpg.connect(stores.settings.database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")  # as its INSERT takes it: the import waits
        importing = asyncio.create_task(take(theirs.url))
        async with asyncio.timeout(10):
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        taken = await other.fetchval(
            "INSERT INTO users (username, username_key, password_hash, created_at)"
            " VALUES ('ADA', 'ada', '', now()) RETURNING id"
        )
        await transaction.commit()
        report, refused = await importing
    finally:
        await other.close()
    assert report == Report(imported=1, there=0, disabled=0, refused={"name_taken": 1})
    assert refused[0].reason == f"user {taken} has its name here"
    with pytest.raises(UsernameTaken):
        await stores.accounts.add("Eva", PASSWORD)
