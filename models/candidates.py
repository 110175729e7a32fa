"""A user of the original as a user of ours: what is taken over, and what is not, with the reason."""

import re
from datetime import UTC, datetime

import msgspec

from models.credentials import check_password, check_username, username_key
from models.errors import InvalidInput
from models.originals import Original
from models.passwords import is_bcrypt

HIGHEST_ID = 99_999_999_999
"""Ids have twelve digits at most where they are ranked; this leaves nine tenths of them to those who sign up later."""

SHOWN_CHARS = 80

_DIGEST = re.compile(r"(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})")
_OTHER_HASH = re.compile(r"\$[A-Za-z0-9-]+\$|\{[A-Za-z0-9-]+\}|pbkdf2_|scrypt:")

REASONS = {
    "bad_id": f"its id is no whole number from 1 to {HIGHEST_ID}",
    "bad_username": "its name is not one that anybody may have here",
    "no_password": "it has no password",
    "bad_hash": "its password hash is damaged, or costs more than 2^14 rounds",
    "other_hash": "its password hash is of a kind that is not bcrypt",
    "plain_password": "its password is plain text",
    "bad_password": "its plain-text password is not one that anybody may have here",
    "bad_time": "its created_at or deleted_at is no time",
    "id_twice": "its id is also that of line {}",
    "id_taken": "another user has its id here: --new-ids gives it one of ours",
    "name_twice": "its name is also that of user {}, upper and lower case being the same",
    "name_taken": "user {} has its name here",
}
"""Why a row is refused; {} stands for the other row's line or user's id."""


class Candidate(msgspec.Struct):
    """A row on its way into `users`.

    Args:
        shown: its name, for a report: ASCII, and not longer than is easily read.
        verdict: why it is refused, of REASONS; None while nothing is against it.
        plain: the password itself, where it was kept in plain text.
    """

    line: int
    id: int | None
    username: str | None
    username_key: str | None
    password_hash: str | None
    created_at: datetime | None
    disabled_at: datetime | None
    shown: str
    verdict: str | None = None
    plain: str | None = None


class _Refused(Exception):
    """The row cannot be taken over; the argument says why."""


def read_candidate(original: Original) -> Candidate:
    """What a row comes to by its own; whether it fits in with the others is seen later."""
    shown = ascii(original.username or "")[1:-1][:SHOWN_CHARS]
    number = original.id or ""
    user_id = int(number) if re.fullmatch("[1-9][0-9]{0,10}", number) else None
    refused = Candidate(original.line, user_id, None, None, None, None, None, shown)
    try:
        return _accepted(original, refused)
    except _Refused as why:
        refused.verdict = str(why)
        return refused


def _accepted(original: Original, refused: Candidate) -> Candidate:
    if refused.id is None:
        raise _Refused("bad_id")
    username = original.username or ""
    try:
        check_username(username)
    except InvalidInput:
        raise _Refused("bad_username") from None
    stored = original.password or ""
    plain = None if is_bcrypt(stored) else _plain(stored)
    return Candidate(
        line=original.line,
        id=refused.id,
        username=username,
        username_key=username_key(username),
        password_hash=None if plain else stored,
        created_at=_time(original.created_at),
        disabled_at=_time(original.deleted_at),
        shown=refused.shown,
        plain=plain,
    )


def _plain(stored: str) -> str:
    """A password in plain text, which nothing else looks like."""
    if not stored:
        raise _Refused("no_password")
    if stored.startswith("$2"):
        raise _Refused("bad_hash")
    if _OTHER_HASH.match(stored) or _DIGEST.fullmatch(stored):
        raise _Refused("other_hash")
    try:
        check_password(stored)
    except InvalidInput:
        raise _Refused("bad_password") from None
    return stored


def _time(text: str | None) -> datetime | None:
    """As PostgreSQL writes times; one without a zone is in UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Refused("bad_time") from None
