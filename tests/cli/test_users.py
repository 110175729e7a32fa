"""`gatehouse user`: what it prints, what it changes, and what it refuses."""

import pytest

from models.connections import Stores
from models.errors import InvalidCredentials
from models.keys import bucket_of
from models.records import SUPERSEDED
from models.servers import BUCKET_SLOTS
from tests.cli.conftest import Command
from tests.conftest import RawRedis

PASSWORD = "a password"


@pytest.fixture
async def ada(stores: Stores) -> tuple[int, str]:
    """A user with a session: id and token."""
    user_id = await stores.accounts.add("Ada", PASSWORD)
    return user_id, await stores.accounts.log_in("ada", PASSWORD)


async def test_an_added_user_can_log_in(cli: Command, stores: Stores) -> None:
    ran = await cli("user", "add", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("added ada (id ")
    assert await stores.accounts.log_in("ada", PASSWORD)


async def test_a_name_that_is_taken_is_refused_in_one_sentence(cli: Command, ada: tuple[int, str]) -> None:
    ran = await cli("user", "add", "ADA", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (ran.code, ran.out, ran.err) == (1, "", "gatehouse: Username already exists\n")


async def test_no_password_can_be_asked_for_without_a_terminal(cli: Command, ada: tuple[int, str]) -> None:
    for command in ("add", "set-password"):
        ran = await cli("user", command, "ada")
        assert ran.code == 1
        assert "--password-stdin" in ran.err


async def test_nothing_is_added_when_there_are_users(cli: Command, ada: tuple[int, str]) -> None:
    ran = await cli("user", "add", "bob", "--password-stdin", "--if-no-users", stdin="x\n")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert [user["username"] for user in (await cli("user", "list", "--json")).document["users"]] == ["Ada"]


async def test_the_list_has_pages_that_follow_each_other(cli: Command, stores: Stores) -> None:
    ids = [await stores.accounts.add(f"user{number}", PASSWORD) for number in range(5)]
    seen, after = [], 0
    while after is not None:
        page = (await cli("user", "list", "--limit", "2", "--after", str(after), "--json")).document
        assert len(page["users"]) <= 2
        seen += [user["id"] for user in page["users"]]
        after = page["after"]
    assert seen == ids


async def test_the_list_is_searched_as_names_are_compared(cli: Command, stores: Stores) -> None:
    for name in ("Élan", "Elan", "100%_x"):
        await stores.accounts.add(name, PASSWORD)
    for search, found in (("éLA", ["Élan"]), ("lan", ["Élan", "Elan"]), ("%_", ["100%_x"]), ("nobody", [])):
        page = (await cli("user", "list", "--search", search, "--json")).document
        assert [user["username"] for user in page["users"]] == found


async def test_the_list_in_a_pipe_is_aligned_and_says_who_has_a_session(cli: Command, ada: tuple[int, str]) -> None:
    await cli("user", "add", "a-much-longer-name", "--password-stdin", stdin="x\n")
    title, first, second = (await cli("user", "list")).out.splitlines()
    column = title.index("has session")
    assert (first[column:].strip(), second[column:].strip()) == ("yes", "no")
    assert first.index("Ada") == second.index("a-much-longer-name") == title.index("username")


async def test_a_disabled_users_session_ends_at_once_and_the_user_is_unknown(
    cli: Command, stores: Stores, ada: tuple[int, str]
) -> None:
    user_id, token = ada
    assert (await stores.usage.admit(token)).admitted
    ran = await cli("user", "disable", "ada", "--json")
    assert ran.document == {"id": user_id, "username": "Ada", "changed": True}
    assert (await stores.usage.admit(token)).reason == "session_revoked"
    claims = stores.sessions.verify(token)
    assert claims
    command = stores.store.admission_command(claims, stores.usage.policies.default.policies)
    slot = BUCKET_SLOTS[bucket_of(user_id)]
    verdict = await stores.store.admit(stores.store.servers.of(slot), command, slot)
    assert verdict.outcome == SUPERSEDED, "Redis itself knows, without PostgreSQL"
    with pytest.raises(InvalidCredentials):
        await stores.accounts.log_in("ada", PASSWORD)
    assert (await cli("user", "disable", "--id", str(user_id), "--json")).document["changed"] is False


async def test_an_enabled_user_can_log_in_again(cli: Command, stores: Stores, ada: tuple[int, str]) -> None:
    await cli("user", "disable", "ada")
    assert (await cli("user", "enable", "ada")).out == f"enabled Ada (id {ada[0]})\n"
    assert (await stores.usage.admit(ada[1])).reason == "session_revoked"
    assert await stores.accounts.log_in("ada", PASSWORD)
    assert (await cli("user", "enable", "ada")).out == "Ada was not disabled\n"


async def test_another_password_ends_the_session_and_the_old_one(
    cli: Command, stores: Stores, ada: tuple[int, str]
) -> None:
    ran = await cli("user", "set-password", "ada", "--password-stdin", stdin="another\n")
    assert (ran.code, ran.err) == (0, "")
    assert (await stores.usage.admit(ada[1])).reason == "session_revoked"
    with pytest.raises(InvalidCredentials):
        await stores.accounts.log_in("ada", PASSWORD)
    assert await stores.accounts.log_in("ada", "another")


async def test_an_empty_password_changes_nothing(cli: Command, stores: Stores, ada: tuple[int, str]) -> None:
    ran = await cli("user", "set-password", "ada", "--password-stdin", stdin="\n")
    assert ran.code == 1
    assert "characters" in ran.err
    assert (await stores.usage.admit(ada[1])).admitted


async def test_a_user_who_is_not_there_is_told(cli: Command) -> None:
    for command in ("disable", "enable", "set-password"):
        ran = await cli("user", command, "--id", "4711", stdin="x\n")
        assert (ran.code, ran.out, ran.err) == (1, "", "gatehouse: There is no user with the id 4711\n")


async def test_one_user_is_named_and_not_two(cli: Command) -> None:
    for names in ((), ("ada", "--id", "1")):
        ran = await cli("user", "disable", *names)
        assert ran.code == 2
        assert "--id" in ran.err


async def test_disabled_while_redis_is_read_only_it_is_done_and_told(
    cli: Command, stores: Stores, ada: tuple[int, str], redis: RawRedis
) -> None:
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        ran = await cli("user", "disable", "ada")
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert ran.code == 1
    assert "done in PostgreSQL" in ran.err
    assert (await cli("user", "list", "--json")).document["users"][0]["disabledAt"]
    await stores.sessions.sync()
    assert (await cli("session", "show", "ada", "--json")).document["agree"] is True
