"""A user who is disabled, or gets another password, while somebody logs in: no session outlives it."""

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from models import sessions
from models.connections import Stores
from models.errors import InvalidCredentials
from models.sessions import Sessions

OLD, NEW = "the old password", "the new password"
LOCKED = pytest.mark.parametrize("locked", [True, False], ids=["locked", "planted: the user's row is not held"])


@pytest.fixture
async def ada(stores: Stores) -> int:
    return await stores.accounts.add("ada", OLD)


async def live_sessions(stores: Stores) -> int:
    return len(await stores.register.page())


async def until_it_waits_or_is_done(stores: Stores, task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(10):
        while not task.done() and not await stores.database.fetch("SELECT FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.005)


@LOCKED
@pytest.mark.parametrize("change", ["disable", "set_password"])
async def test_a_login_that_has_not_committed_is_waited_for(
    stores: Stores, ada: int, locked: bool, change: str
) -> None:
    """Its session would be the user's first, so there is no row yet that could be ended or waited for."""
    statement = sessions._UPSERT if locked else sessions._UPSERT.replace(" FOR SHARE", "")
    login = await asyncpg.connect(stores.settings.database_url)
    try:
        async with login.transaction():
            assert await login.fetch(statement, ada, bytes(32), 1_800, None)
            doing = stores.roster.disable(ada) if change == "disable" else stores.roster.set_password(ada, NEW)
            changing = asyncio.create_task(doing)
            await until_it_waits_or_is_done(stores, changing)
            assert changing.done() is not locked
        await changing
    finally:
        await login.close()
    assert await live_sessions(stores) == (0 if locked else 1)


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "planted: whichever password was right"])
async def test_a_password_that_was_right_a_moment_ago_starts_no_session(
    stores: Stores, ada: int, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """The password changes between its verification and the start of the session."""
    real = Sessions.start

    async def late(self: Sessions, user_id: int, password_hash: str | None = None) -> str:
        await stores.roster.set_password(ada, NEW)
        return await real(self, user_id, password_hash if checked else None)

    with monkeypatch.context() as patched:
        patched.setattr(Sessions, "start", late)
        with suppress(InvalidCredentials):
            await stores.accounts.log_in("ada", OLD)
    assert await live_sessions(stores) == (0 if checked else 1)
    assert await stores.accounts.log_in("ada", NEW)


async def test_logins_that_upgrade_the_same_hash_all_succeed(stores: Stores, ada: int) -> None:
    """Each has verified the old hash, and all but one find a better one in its place."""
    from passlib.hash import bcrypt

    await stores.database.fetch(
        "UPDATE users SET password_hash = $2 WHERE id = $1", ada, bcrypt.using(rounds=4, ident="2b").hash(OLD)
    )
    tokens = await asyncio.gather(*(stores.accounts.log_in("ada", OLD) for _ in range(8)))
    admissions = [await stores.usage.admit(token) for token in tokens]
    assert sum(admission.admitted for admission in admissions) == 1


async def test_many_logins_and_disables_end_without_a_session(stores: Stores, ada: int) -> None:
    for _ in range(20):
        starts = [asyncio.create_task(stores.sessions.start(ada)) for _ in range(4)]
        await stores.roster.disable(ada)
        await asyncio.gather(*starts, return_exceptions=True)
        assert await live_sessions(stores) == 0
        await stores.roster.enable(ada)
