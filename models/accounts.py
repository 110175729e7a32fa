"""Accounts: sign up, log in, log out; and what an operator does to them."""

import unicodedata

from tortoise.exceptions import IntegrityError

from models.database import Database
from models.errors import InvalidCredentials, InvalidInput, SignupDisabled, UnknownUser, UsernameTaken
from models.passwords import Passwords
from models.sessions import Reason, Sessions
from models.settings import Settings
from models.tables import User
from models.tokens import Claims

USERNAME_MAX_LENGTH = 64
USERNAME_KEY_MAX_LENGTH = 256
PASSWORD_MAX_LENGTH = 256

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties) among letters and marks: names that look alike.
_IGNORABLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


class Accounts:
    """Who may log in, and how they do."""

    def __init__(self, settings: Settings, database: Database, sessions: Sessions, passwords: Passwords) -> None:
        self._settings = settings
        self._database = database
        self._sessions = sessions
        self._passwords = passwords

    async def sign_up(self, username: str, password: str) -> int:
        """Create an account by its future user; returns its id.

        Raises:
            SignupDisabled: the operator creates accounts here.
            InvalidInput, UsernameTaken, Overloaded, StoreUnavailable: nothing was created.
        """
        if not self._settings.signup:
            raise SignupDisabled()
        if len(password) < self._settings.password_min_length:
            raise InvalidInput(f"A password needs at least {self._settings.password_min_length} characters")
        return await self.add(username, password)

    async def add(self, username: str, password: str) -> int:
        """Create an account by an operator, who may choose a short password; returns its id.

        Raises:
            InvalidInput, UsernameTaken, Overloaded, StoreUnavailable: nothing was created.
        """
        _check_username(username)
        _check_password(password)
        password_hash = await self._passwords.hash(password)
        try:
            async with self._database.deadline():
                user = await User.create(
                    username=username, username_key=_username_key(username), password_hash=password_hash
                )
        except IntegrityError as error:
            raise UsernameTaken() from error
        return int(user.id)

    async def any(self) -> bool:
        """Whether there is an account at all."""
        async with self._database.deadline():
            return await User.exists()

    async def log_in(self, username: str, password: str) -> str:
        """Check a password and start a session, ending the user's older one; returns its token.

        Raises:
            InvalidCredentials: the same for an unknown user, a wrong password and a disabled user, after the same work.
            InvalidInput, Overloaded, StoreUnavailable: nothing has changed.
        """
        _check_username(username)
        _check_password(password)
        async with self._database.deadline():
            user = await User.get_or_none(username_key=_username_key(username))
        valid, better_hash = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not valid or user.disabled_at is not None:
            raise InvalidCredentials()
        if better_hash is not None:
            async with self._database.deadline():
                # Only in place of the hash that was verified: the password may have been changed meanwhile.
                await User.filter(id=user.id, password_hash=user.password_hash).update(password_hash=better_hash)
        return await self._sessions.start(user.id)

    async def log_out(self, claims: Claims) -> Reason | None:
        """End the claimed session everywhere: None when it was live, or why it was not.

        Raises:
            StoreUnavailable: try again; the worker may finish it meanwhile.
        """
        return await self._sessions.end(claims)

    async def revoke_session(self, username: str) -> bool:
        """End a user's session, whichever there is; returns whether there was one.

        Raises:
            UnknownUser, StoreUnavailable
        """
        async with self._database.deadline():
            user = await User.get_or_none(username_key=_username_key(username))
        if user is None:
            raise UnknownUser(f"There is no user {username!r}")
        return await self._sessions.revoke(user.id)


def _username_key(username: str) -> str:
    return unicodedata.normalize("NFKC", username).casefold()


def _check_username(username: str) -> None:
    if not 1 <= len(username) <= USERNAME_MAX_LENGTH:
        raise InvalidInput(f"A username has 1 to {USERNAME_MAX_LENGTH} characters")
    if username != username.strip() or any(_is_hidden(letter) for letter in username):
        raise InvalidInput("A username has no control or invisible characters and no spaces around it")
    if len(_username_key(username)) > USERNAME_KEY_MAX_LENGTH:
        raise InvalidInput("A username has too many ligatures")


def _is_hidden(letter: str) -> bool:
    """Control, format, unassigned and separating characters, and those that Unicode lets a font leave out."""
    return unicodedata.category(letter) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") or letter in _IGNORABLE


def _check_password(password: str) -> None:
    if not 1 <= len(password) <= PASSWORD_MAX_LENGTH:
        raise InvalidInput(f"A password has 1 to {PASSWORD_MAX_LENGTH} characters")
    if any(letter == "\0" or unicodedata.category(letter) == "Cs" for letter in password):
        raise InvalidInput("A password has no NUL character and no half of a surrogate pair")
