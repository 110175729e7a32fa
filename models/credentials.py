"""What may be a username and a password, and when two usernames are one."""

import unicodedata

from models.errors import InvalidInput

USERNAME_MAX_LENGTH = 64
USERNAME_KEY_MAX_LENGTH = 256
PASSWORD_MAX_LENGTH = 256

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties) among letters and marks: names that look alike.
_IGNORABLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def username_key(username: str) -> str:
    """The name as it is compared."""
    return unicodedata.normalize("NFKC", username).casefold()


def check_username(username: str) -> None:
    """Raise InvalidInput unless somebody may have this name."""
    if not 1 <= len(username) <= USERNAME_MAX_LENGTH:
        raise InvalidInput(f"A username has 1 to {USERNAME_MAX_LENGTH} characters")
    if username != username.strip() or any(_is_hidden(letter) for letter in username):
        raise InvalidInput("A username has no control or invisible characters and no spaces around it")
    if len(username_key(username)) > USERNAME_KEY_MAX_LENGTH:
        raise InvalidInput("A username has too many ligatures")


def check_password(password: str) -> None:
    """Raise InvalidInput unless somebody may have this password."""
    if not 1 <= len(password) <= PASSWORD_MAX_LENGTH:
        raise InvalidInput(f"A password has 1 to {PASSWORD_MAX_LENGTH} characters")
    if any(letter == "\0" or unicodedata.category(letter) == "Cs" for letter in password):
        raise InvalidInput("A password has no NUL character and no half of a surrogate pair")


def _is_hidden(letter: str) -> bool:
    """Control, format, unassigned and separating characters, and those that Unicode lets a font leave out."""
    return unicodedata.category(letter) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") or letter in _IGNORABLE
