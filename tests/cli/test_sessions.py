"""`gatehouse session`: live ones, what both stores say, and their end."""

import asyncio

import pytest

from models.connections import Stores
from models.devservers import free_port
from models.keys import user_key
from tests.cli.conftest import Command, environment, run_here
from tests.conftest import RawRedis

USERS = 5


@pytest.fixture
async def tokens(stores: Stores) -> dict[int, str]:
    users = [await stores.accounts.add(f"user{number}", "password") for number in range(USERS)]
    return {user_id: await stores.sessions.start(user_id) for user_id in users}


async def test_live_sessions_are_listed_in_pages(cli: Command, stores: Stores, tokens: dict[int, str]) -> None:
    ended, *live = tokens
    await stores.sessions.revoke(ended)
    first = (await cli("session", "list", "--limit", "3", "--json")).document
    second = (await cli("session", "list", "--limit", "3", "--after", str(first["after"]), "--json")).document
    assert [row["userId"] for row in first["sessions"] + second["sessions"]] == live
    assert second["after"] is None


async def test_a_page_tells_on_standard_error_that_there_are_more(cli: Command, tokens: dict[int, str]) -> None:
    ran = await cli("session", "list", "--limit", "2")
    assert len(ran.out.splitlines()) == 3
    assert ran.err == f"There are more: --after {list(tokens)[1]}\n"


async def shown(cli: Command, user_id: int) -> dict[str, object]:
    ran = await cli("session", "show", "--id", str(user_id), "--json")
    assert ran.code == 0
    document: dict[str, object] = ran.document
    return {name: document[name] for name in ("row", "cached", "agree")}


async def test_both_stores_agree_about_a_session_and_its_end(
    cli: Command, stores: Stores, tokens: dict[int, str]
) -> None:
    user_id = next(iter(tokens))
    assert await shown(cli, user_id) == {"row": "live", "cached": "live", "agree": True}
    await stores.sessions.revoke(user_id)
    assert await shown(cli, user_id) == {"row": "revoked", "cached": "tombstone", "agree": True}


async def test_what_redis_does_not_have_is_no_disagreement(
    cli: Command, tokens: dict[int, str], redis: RawRedis
) -> None:
    await redis.flushall()
    assert await shown(cli, next(iter(tokens))) == {"row": "live", "cached": "missing", "agree": True}


async def test_without_redis_it_says_what_postgresql_has(stores: Stores, tokens: dict[int, str]) -> None:
    environ = environment(stores.settings) | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    ran = await asyncio.to_thread(run_here, environ, "session", "show", "--id", str(next(iter(tokens))), "--json")
    assert ran.code == 0
    assert {name: ran.document[name] for name in ("row", "cached", "agree")} == {
        "row": "live",
        "cached": "away",
        "agree": None,
    }
    assert "Redis does not answer" in ran.document["verdict"]


PLANTED: dict[str, tuple[str, dict[str, object], str]] = {
    "older": ("1:ab:9999999999999", {"row": "live", "cached": "live", "agree": False}, "behind"),
    "newer": ("999999999:revoked", {"row": "live", "cached": "tombstone", "agree": False}, "ahead"),
    "another": ("{version}:ab:9999999999999", {"row": "live", "cached": "live", "agree": False}, "not the same"),
}


@pytest.mark.parametrize("case", PLANTED)
async def test_a_disagreement_is_named(
    cli: Command, stores: Stores, tokens: dict[int, str], redis: RawRedis, case: str
) -> None:
    value, expected, word = PLANTED[case]
    user_id = list(tokens)[-1]
    version = stores.sessions.verify(tokens[user_id]).version  # type: ignore[union-attr]
    await redis.set(user_key(user_id, "session"), value.format(version=version), px=60_000)
    assert await shown(cli, user_id) == expected
    assert word in (await cli("session", "show", "--id", str(user_id))).out


async def test_a_live_session_that_postgresql_lost_is_named(
    cli: Command, stores: Stores, tokens: dict[int, str]
) -> None:
    user_id = next(iter(tokens))
    await stores.database.fetch("DELETE FROM sessions WHERE user_id = $1", user_id)
    assert await shown(cli, user_id) == {"row": "missing", "cached": "live", "agree": False}


async def test_one_session_is_revoked(cli: Command, stores: Stores, tokens: dict[int, str]) -> None:
    ids = list(tokens)
    assert (await cli("session", "revoke", "user0")).out == "ended the session of user0\n"
    assert (await stores.usage.admit(tokens[ids[0]])).reason == "session_revoked"
    assert (await stores.usage.admit(tokens[ids[1]])).admitted
    assert (await cli("session", "revoke", "user0")).out == "user0 has no session\n"


async def test_revoked_while_redis_is_read_only_it_is_done_and_told(
    cli: Command, stores: Stores, tokens: dict[int, str], redis: RawRedis
) -> None:
    user_id = min(tokens)
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        ran = await cli("session", "revoke", "--id", str(user_id))
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert ran.code == 1
    assert "done in PostgreSQL" in ran.err
    await stores.sessions.sync()
    assert await shown(cli, user_id) == {"row": "revoked", "cached": "tombstone", "agree": True}


async def test_all_sessions_are_revoked_in_batches_and_in_both_stores(
    cli: Command, stores: Stores, tokens: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.sessions.REVOKE_BATCH", 2)
    for token in tokens.values():
        assert (await stores.usage.admit(token)).admitted
    refused = await cli("session", "revoke", "--all")
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert (await cli("session", "revoke", "--all", "--yes", "--json")).document == {"ended": USERS}
    for user_id, token in tokens.items():
        assert (await stores.usage.admit(token)).reason == "session_revoked"
        assert await shown(cli, user_id) == {"row": "revoked", "cached": "tombstone", "agree": True}


async def test_all_or_one_and_not_both(cli: Command, tokens: dict[int, str]) -> None:
    assert (await cli("session", "revoke", "user0", "--all", "--yes")).code == 2
    assert (await cli("session", "list", "--json")).out.count("userId") == USERS
