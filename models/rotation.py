"""The signing keys' rotation, one step at a time, so that no process meets a token that it cannot verify.

First every process has to know the new key, then it may sign, and when the last token of the old one has ended the old
one may go. Between two steps every process is restarted.
"""

import re
import secrets
from typing import Literal

from models.errors import InvalidInput
from models.settings import key_id, parse_secret_keys

Step = Literal["add", "promote", "retire"]

_LINE = re.compile(
    r"^(?P<before>[ \t]*(?:export[ \t]+)?SECRET_KEYS[ \t]*=[ \t]*)(?P<value>.*?)(?P<after>[ \t\r]*)$", re.M
)


def new_key() -> str:
    """A fresh signing key: 384 random bits."""
    return secrets.token_urlsafe(48)


def take_step(keys: tuple[str, ...], step: Step) -> tuple[str, ...]:
    """The keys after a step.

    Raises:
        InvalidInput: this is not the time for it.
    """
    if step == "add":
        return (*keys, new_key())
    if len(keys) < 2:
        raise InvalidInput("There is one key only: the first step is `--step add`")
    return (keys[-1], *keys[:-1]) if step == "promote" else keys[:1]


def advice(keys: tuple[str, ...], step: Step | None, session_ttl_s: str) -> str:
    """What is to be done next, after a step or, without one, from here."""
    restart = "Restart every process (web and worker)"
    if step == "add":
        return f"{restart}; then `gatehouse keys rotate --step promote`: every process knows the new key by then"
    if step == "promote":
        return f"{restart}; {session_ttl_s} s (SESSION_TTL_S) later `gatehouse keys rotate --step retire`"
    if step == "retire":
        return f"{restart}. The rotation is done"
    if len(keys) == 1:
        return "No rotation is under way; `--step add` begins one"
    return (
        "A rotation is under way. If the last key was added and every process restarted, `--step promote` is due;"
        f" if the first was promoted, every process restarted, and {session_ttl_s} s are over, `--step retire`"
    )


def ids(keys: tuple[str, ...]) -> list[str]:
    """What tokens call the keys, which tells nothing about them; the first signs."""
    return [key_id(key).hex() for key in keys]


def read_keys(text: str) -> tuple[str, ...]:
    """The keys of a value of SECRET_KEYS.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        return parse_secret_keys(text)
    except ValueError as error:
        raise InvalidInput(f"SECRET_KEYS: {error}") from None


def find_in_file(text: str) -> str:
    """The value of SECRET_KEYS in an environment file.

    Raises:
        InvalidInput: it is not there, or twice.
    """
    return _unquoted(_line(text)["value"])


def replace_in_file(text: str, keys: tuple[str, ...]) -> str:
    """An environment file with other keys, and all else as it was."""
    line = _line(text)
    value, quote = line["value"], line["value"][:1]
    quote = quote if quote in ("'", '"') and len(value) > 1 and value.endswith(quote) else ""
    return text[: line.start("value")] + quote + ",".join(keys) + quote + text[line.end("value") :]


def _line(text: str) -> re.Match[str]:
    lines = list(_LINE.finditer(text))
    if len(lines) != 1:
        raise InvalidInput(f"The file has {len(lines) or 'no'} lines that begin with SECRET_KEYS=; it needs one")
    return lines[0]


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
