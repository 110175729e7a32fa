"""Accounts: sign up, log in, log out; and what an operator does to them."""

import time
from collections.abc import Collection

from tortoise.exceptions import IntegrityError

from models.credentials import check_password, check_username, username_key
from models.database import Database
from models.errors import (
    InvalidCredentials,
    InvalidInput,
    LoginThrottled,
    SignupDisabled,
    StoreUnavailable,
    UsernameTaken,
)
from models.events import LOCAL, Origin, record
from models.passwords import Passwords
from models.sessions import Reason, Sessions
from models.settings import Settings
from models.tables import User
from models.throttle import LoginThrottle, address_digest
from models.tokens import Claims

KNOWN_ADDRESSES = 5
KNOWN_NAMES = 16_384
"""Names that are remembered; a name never changes."""

NAME_DEADLINE_S = 1.0
NO_NAMES_S = 1.0


class Accounts:
    """Who may log in, and how they do."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        sessions: Sessions,
        passwords: Passwords,
        throttle: LoginThrottle,
    ) -> None:
        self._settings = settings
        self._throttle = throttle
        self._database = database
        self._sessions = sessions
        self._passwords = passwords
        self._names: dict[int, str] = {}
        self._no_names_until_s = 0.0

    async def sign_up(self, username: str, password: str, origin: Origin = LOCAL) -> int:
        """Create an account by its future user; returns its id.

        Raises:
            SignupDisabled: the operator creates accounts here.
            InvalidInput, UsernameTaken, Overloaded, StoreUnavailable: nothing was created.
        """
        if not self._settings.signup:
            raise SignupDisabled()
        if len(password) < self._settings.password_min_length:
            raise InvalidInput(f"A password needs at least {self._settings.password_min_length} characters")
        user_id = await self.add(username, password)
        record("signup", "done", origin, user_id=user_id)
        return user_id

    async def add(self, username: str, password: str) -> int:
        """Create an account by an operator, who may choose a short password; returns its id.

        Raises:
            InvalidInput, UsernameTaken, Overloaded, StoreUnavailable: nothing was created.
        """
        check_username(username)
        check_password(password)
        password_hash = await self._passwords.hash(password)
        try:
            async with self._database.deadline():
                user = await User.create(
                    username=username, username_key=username_key(username), password_hash=password_hash
                )
        except IntegrityError as error:
            raise UsernameTaken() from error
        return int(user.id)

    async def name_of(self, user_id: int) -> str | None:
        """A user's name, from memory after the first time; None when PostgreSQL does not say it at once.

        A name is no reason to hold an admitted call: whoever asks waits briefly, and after a failure nobody asks.
        """
        name = self._names.get(user_id)
        if name is not None or time.monotonic() < self._no_names_until_s:
            return name
        try:
            async with self._database.deadline(NAME_DEADLINE_S):
                user = await User.get_or_none(id=user_id)
        except StoreUnavailable:
            self._no_names_until_s = time.monotonic() + NO_NAMES_S
            return None
        if user is None:
            return None
        self._remember(user)
        return user.username

    def _remember(self, user: User) -> None:
        if len(self._names) >= KNOWN_NAMES:
            del self._names[next(iter(self._names))]
        self._names[user.id] = user.username

    async def names_of(self, user_ids: Collection[int]) -> dict[int, str]:
        """The names of many, of whom PostgreSQL is asked at once; without those that it does not know, or not now."""
        unknown = [user_id for user_id in user_ids if user_id not in self._names]
        if unknown and time.monotonic() >= self._no_names_until_s:
            try:
                async with self._database.deadline(NAME_DEADLINE_S):
                    users = await User.filter(id__in=unknown).only("id", "username")
            except StoreUnavailable:
                users = []
                self._no_names_until_s = time.monotonic() + NO_NAMES_S
            for user in users:
                self._remember(user)
        return {user_id: self._names[user_id] for user_id in user_ids if user_id in self._names}

    async def any(self) -> bool:
        """Whether there is an account at all."""
        async with self._database.deadline():
            return await User.exists()

    async def log_in(self, username: str, password: str, origin: Origin = LOCAL) -> str:
        """Check a password and start a session, ending the user's older one; returns its token.

        Raises:
            InvalidCredentials: the same for an unknown user, a wrong password and a disabled user, after the same work.
            LoginThrottled: too many attempts have failed.
            InvalidInput, Overloaded, StoreUnavailable: nothing has changed.
        """
        check_username(username)
        check_password(password)
        async with self._database.deadline():
            user = await User.get_or_none(username_key=username_key(username))
        user_id = user.id if user else None
        try:
            verified = await self._verify(user, username, password, origin.address)
            token = await self._sessions.start(user.id, verified) if user else ""
        except LoginThrottled:
            record("login", "throttled", origin, user_id=user_id)
            raise
        except InvalidCredentials as error:
            record("login", "refused", origin, user_id=user_id, why=error.code)
            raise
        record("login", "done", origin, user_id=user_id)
        return token

    async def _verify(self, user: User | None, username: str, password: str, address: str) -> str:
        """The hash that is the user's when it is the user's password; what else is to be kept of that is kept."""
        here = address_digest(user.id, address) if user else b""
        known = _eights(user.known_addresses) if user else []
        stored = user.password_hash if user else None
        usable = user is not None and user.disabled_at is None
        async with self._throttle.attempt(username_key(username), address, known=here in known) as attempt:
            valid, better_hash = await self._passwords.verify(password, stored, usable=usable)
            if user is None or not valid:
                raise InvalidCredentials()
            attempt.forgive()
        async with self._database.deadline():
            if here not in known[:1]:
                others = [digest for digest in known if digest != here]
                newest = b"".join([here, *others][:KNOWN_ADDRESSES])
                await User.filter(id=user.id).update(known_addresses=newest)
        if better_hash is None:
            return user.password_hash
        return await self._store_better(user, password, better_hash)

    async def _store_better(self, user: User, password: str, better_hash: str) -> str:
        """Store a better hash in place of the one that was verified; returns the one that is the user's then."""
        async with self._database.deadline():
            if await User.filter(id=user.id, password_hash=user.password_hash).update(password_hash=better_hash):
                return better_hash
            changed = await User.get_or_none(id=user.id)
        # Another login may have stored its better hash of the same password, or somebody another password.
        if changed is None or not (await self._passwords.verify(password, changed.password_hash))[0]:
            raise InvalidCredentials()
        return changed.password_hash

    async def log_out(self, claims: Claims, origin: Origin = LOCAL) -> Reason | None:
        """End the claimed session everywhere: None when it was live, or why it was not.

        Raises:
            StoreUnavailable: try again; the worker may finish it meanwhile.
        """
        try:
            reason = await self._sessions.end(claims)
        except StoreUnavailable as error:
            record("logout", "failed", origin, user_id=claims.user_id, why=error.code)
            raise
        record("logout", "refused" if reason else "done", origin, user_id=claims.user_id, why=reason or "")
        return reason


def _eights(digests: bytes | None) -> list[bytes]:
    return [bytes(digests[at : at + 8]) for at in range(0, len(digests), 8)] if digests else []
