"""What an import refuses: hostile rows one by one, and sources that are none."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from models.candidates import HIGHEST_ID, REASONS
from models.connections import Stores
from models.errors import InvalidInput, StoreUnavailable
from tests.conftest import Servers
from tests.imports.conftest import Import
from tests.imports.original import HASH, copy_block, original


async def users(stores: Stores) -> dict[int, Any]:
    return {row["id"]: row for row in await stores.database.fetch("SELECT * FROM users ORDER BY id")}


HOSTILE: list[tuple[str, str]] = [
    (f"0\tzero\t{HASH}", "bad_id"),
    (f"-1\tminus\t{HASH}", "bad_id"),
    (f"1e3\tfloat\t{HASH}", "bad_id"),
    (f"{HIGHEST_ID + 1}\thigh\t{HASH}", "bad_id"),
    (f"\\N\tnone\t{HASH}", "bad_id"),
    (f"1\t\\N\t{HASH}", "bad_username"),
    (f"2\t\t{HASH}", "bad_username"),
    (f"3\t space\t{HASH}", "bad_username"),
    (f"4\tnew\\nline\t{HASH}", "bad_username"),
    (f"5\tnul\\000\t{HASH}", "bad_username"),
    (f"6\t{'x' * 65}\t{HASH}", "bad_username"),
    (f"7\tzero\u200bwidth\t{HASH}", "bad_username"),
    (f"8\tlatin\\351\t{HASH}", "bad_username"),
    ("9\tnone\t\\N", "no_password"),
    ("10\tempty\t", "no_password"),
    ("11\tfew", "no_password"),
    ("12\tshort\t$2a$10$tooshort", "bad_hash"),
    (f"13\tcost\t$2a$15${HASH[7:]}", "bad_hash"),
    (f"14\tlong\t{HASH}x", "bad_hash"),
    (f"15\tend\t{HASH}\\n", "bad_hash"),
    ("16\tmd5\t$1$abc$def", "other_hash"),
    ("17\targon\t$argon2id$v=19$m=99999999,t=99,p=1$c2FsdHNhbHQ$aGFzaA", "other_hash"),
    ("18\tplain\t" + "x" * 257, "bad_password"),
    (f"20\tlate\t{HASH}\tinfinity", "bad_time"),
    (f"21\tfirst\t{HASH}", ""),
    (f"21\tsecond\t{HASH}", "id_twice"),
]


async def test_hostile_rows_are_refused_one_by_one(stores: Stores, take: Import, tmp_path: Path) -> None:
    # A row of another table that reads like the beginning of ours, and one that reads like its end.
    decoy = copy_block(["COPY public.users (id, username, password) FROM stdin;", f"77\tdecoy\t{HASH}"], "t", "notes")
    dump = decoy + copy_block([row for row, _ in HOSTILE], "id, username, password, created_at")
    (tmp_path / "hostile.sql").write_text(dump)
    report, refused = await take(tmp_path / "hostile.sql", plain_passwords="hash")
    assert [one.reason for one in refused[:-1]] == [REASONS[why] for _, why in HOSTILE if why][:-1]
    assert refused[-1].reason.startswith("its id is also that of line")
    assert report.imported == 1
    assert [row["username"] for row in (await users(stores)).values()] == ["first"]
    assert all(one.shown.isascii() and len(one.shown) <= 80 for one in refused)


WRONG: list[tuple[str, bytes, str]] = [
    ("x.sql", b"", "no COPY block of public.users"),
    ("x.sql", b"INSERT INTO public.users VALUES (1, 'a', 'b');\n", "without --inserts"),
    ("x.sql", b"PGDMP\x01\x0e", "pg_restore"),
    ("x.sql", b"\x1f\x8b\x08", "gunzip"),
    ("x.sql", copy_block([f"1\ta\t{HASH}"]).removesuffix("\\.\n").encode(), "not whole"),
    ("x.sql", copy_block([], "id, email").encode(), "no column username, password"),
    ("x.sql", copy_block(["1\t" + "x" * 1_000_001]).encode(), "more than 1000000"),
    ("x.csv", b"id,email\n1,x\n", "no column username, password"),
    ("x.csv", b'id,username,password\n1,"a"b,c\n', "Line 2 is no CSV"),
    ("x.csv", b'id,username,password\n1,"never ends', "is no CSV"),
    ("x.csv", b"id,username,password\n1,a,b\n" + b'"\n",' * 10_000, "Line 3 begins a row that does not end"),
    ("missing.sql", b"", "cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "said"), WRONG)
async def test_a_wrong_file_is_told_what_to_do(
    stores: Stores, take: Import, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    if name != "missing.sql":
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        await take(tmp_path / name)
    assert await users(stores) == {}


async def test_a_wrong_database_is_told(stores: Stores, servers: Servers, take: Import) -> None:
    async with original(servers.postgres, "CREATE TABLE users (id bigint, email text)") as theirs:
        with pytest.raises(InvalidInput, match=r"not the original's: .*username"):
            await take(theirs.url)
        await theirs.sql("DROP TABLE users")
        with pytest.raises(InvalidInput, match="no table users"):
            await take(theirs.url)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await take("postgres://app@127.0.0.1:1/original")


async def test_the_size_of_a_name_is_no_matter_of_memory(
    stores: Stores, servers: Servers, take: Import, tmp_path: Path
) -> None:
    """Whoever could sign up at the original may have chosen one of megabytes; a thousand rows are held at a time."""
    rows, long = 60, "n" * 900_000
    async with original(servers.postgres) as theirs:
        # No index takes such names, so that such an original has none.
        await theirs.sql("ALTER TABLE users DROP CONSTRAINT uni_users_username")
        await theirs.sql(
            "INSERT INTO users (id, username, password)"
            " SELECT n, repeat('n', 900000), $1 FROM generate_series(1, $2) AS n",
            *(HASH, rows),
        )
        (tmp_path / "long.sql").write_text(copy_block([f"{n}\t{long}\t{HASH}" for n in range(1, rows + 1)]))
        for source in (theirs.url, tmp_path / "long.sql"):
            tracemalloc.start()
            try:
                assert (await take(source, dry_run=True))[0].refused == {"bad_username": rows}
                assert tracemalloc.get_traced_memory()[1] < 10_000_000
            finally:
                tracemalloc.stop()


async def test_the_size_of_a_source_is_no_matter_of_memory(stores: Stores, take: Import, tmp_path: Path) -> None:
    peaks = []
    for size in (4_000, 16_000):
        path = tmp_path / "many.sql"
        path.write_text(copy_block([f"{n}\tuser{n}\t{HASH}" for n in range(1, size + 1)]))
        tracemalloc.start()
        try:
            assert (await take(path, dry_run=True))[0].imported == size
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 12_000_000
