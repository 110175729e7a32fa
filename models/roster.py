"""The accounts as an operator sees and changes them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from models.credentials import check_password, username_key
from models.database import BATCH_DEADLINE_S, CHANGE_DEADLINE_S, Database, load_sql
from models.errors import InvalidInput, RedisAway, StoreUnavailable, UnknownUser
from models.events import LOCAL, record
from models.passwords import Passwords
from models.sessions import Sessions
from models.tables import User

MAX_PAGE = 10_001
"""Rows; one of them is to see whether there are more."""

_LEFT_TO_THE_WORKER = (
    "It is done in PostgreSQL, and Redis is away: a worker ends the session there as soon as it is back"
)

_LIST = load_sql("list_users")
_NAME = load_sql("name_users")
_DISABLE = load_sql("disable_user")
_CHANGE_PASSWORD = load_sql("change_password")


class Account(msgspec.Struct, frozen=True, rename="camel"):
    """One account.

    Args:
        disabled_at: since when its user may not log in; None when they may.
        has_session: whether a session of it is live.
    """

    id: int
    username: str
    created_at: datetime
    disabled_at: datetime | None
    has_session: bool


class Who(msgspec.Struct, frozen=True, rename="camel"):
    """A user who is there."""

    id: int
    username: str


class Roster:
    """Every method raises StoreUnavailable when PostgreSQL is away."""

    def __init__(self, database: Database, sessions: Sessions, passwords: Passwords) -> None:
        self._database = database
        self._sessions = sessions
        self._passwords = passwords

    async def find(self, username: str | None = None, user_id: int | None = None) -> Who:
        """The user of a name, as logins compare it, or of an id.

        Raises:
            UnknownUser: there is none.
        """
        named = {"username_key": username_key(username)} if username is not None else {"id": user_id}
        async with self._database.deadline():
            user = await User.get_or_none(**named)
        if user is None:
            raise UnknownUser(
                f"There is no user {repr(username) if username is not None else f'with the id {user_id}'}"
            )
        return Who(user.id, user.username)

    async def page(self, after: int = 0, limit: int = 100, search: str = "") -> list[Account]:
        """Accounts by their id.

        Args:
            after: the last id of the page before.
            search: a part of the name, small or capital letters alike.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"A page has 1 to {MAX_PAGE} accounts")
        rows = await self._database.fetch(_LIST, after, username_key(search), limit, deadline_s=BATCH_DEADLINE_S)
        return [Account(**dict(row)) for row in rows]

    async def names(self, user_ids: Sequence[int]) -> dict[int, str]:
        """The names of those who are there."""
        rows = await self._database.fetch(_NAME, user_ids)
        return {row["id"]: row["username"] for row in rows}

    async def disable(self, user_id: int) -> bool:
        """Keep a user from logging in, and end the session; returns whether the user could log in until now.

        Raises:
            StoreUnavailable: nothing was done; or all of it in PostgreSQL, and a worker ends the session in Redis.
        """
        rows = await self._change_and_revoke(_DISABLE, user_id)
        record("disable", "done", LOCAL, user_id=user_id)
        return bool(rows)

    async def enable(self, user_id: int) -> bool:
        """Let a user log in again; returns whether the user could not until now."""
        async with self._database.deadline():
            changed = await User.filter(id=user_id, disabled_at__isnull=False).update(disabled_at=None)
        record("enable", "done", LOCAL, user_id=user_id)
        return bool(changed)

    async def set_password(self, user_id: int, password: str) -> None:
        """Give a user another password, which may be a short one, and end the session.

        Raises:
            InvalidInput, UnknownUser: nothing was done.
            StoreUnavailable: as for `disable`.
        """
        check_password(password)
        if not await self._change_and_revoke(_CHANGE_PASSWORD, user_id, await self._passwords.hash(password)):
            raise UnknownUser(f"There is no user with the id {user_id}")
        record("set_password", "done", LOCAL, user_id=user_id)

    async def end_session(self, user_id: int) -> bool:
        """End a user's session everywhere; returns whether there was one.

        Raises:
            StoreUnavailable: as for `disable`.
        """
        try:
            ended = await self._sessions.revoke(user_id)
        except RedisAway as error:
            raise StoreUnavailable(_LEFT_TO_THE_WORKER) from error
        record("revoke", "done", LOCAL, user_id=user_id)
        return ended

    async def _change_and_revoke(self, change: str, user_id: int, *args: Any) -> Sequence[Any]:
        """Change the account first, then end the session: one that begins in between does so before the change."""
        async with self._database.transaction(CHANGE_DEADLINE_S) as transaction:
            rows: Sequence[Any] = await transaction.fetch(change, user_id, *args)
            entry = await self._sessions.revoke_within(transaction, user_id)
        try:
            if entry is not None:
                await self._sessions.publish(entry)
        except StoreUnavailable as error:
            raise StoreUnavailable(_LEFT_TO_THE_WORKER) from error
        return rows
