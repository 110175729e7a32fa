"""The head of a request, read as strictly as RFC 9112 writes it.

Whatever two readers could understand differently is refused, because a proxy in front of us may be the other reader: if
the two disagree on where a request ends, one client's bytes become another client's request (request smuggling). So
nothing is repaired here: no folded line, no bare CR or LF, no space before a colon, no second length.
"""

import re

import msgspec
from sanic.exceptions import BadRequest, PayloadTooLarge, SanicException

MAX_HEAD_BYTES = 8 * 1024
MAX_FIELDS = 100
MAX_BODY_BYTES = 16 * 1024
CHUNKED = -1
"""The length of a body that tells it chunk by chunk."""

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110, 5.6.2
_IN_PATH = r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?]"  # RFC 3986, 3.3 and 3.4, but for what is percent-encoded
_HOST = r"(?:[A-Za-z0-9\-._~]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{1,5})?"

# The repeats are possessive: they give nothing back, so that a head that fits nowhere is refused in linear time.
_HEAD = re.compile(
    rf"({_WORD}{{1,32}}+) "
    rf"(?:(?:https?://{_HOST})?(/{_IN_PATH}*+(?:%[0-9A-Fa-f]{{2}}{_IN_PATH}*+)*+)|https?://{_HOST}|(\*)) "
    r"HTTP/1\.([01])\r\n"
    rf"(?:{_WORD}++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+"
)
_ONE_HOST = re.compile(_HOST)
_ONE_LENGTH = re.compile(r"[0-9]{1,18}")
_IN_NO_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_ABOUT_THE_MESSAGE = frozenset(("host", "content-length", "transfer-encoding", "connection", "expect"))


class Head(msgspec.Struct):
    """What a head says.

    Args:
        target: path and query; of a whole URL too, whose host is not looked at further (RFC 9112, 3.2.2).
        minor: of the version, `1` or `0`.
        fields: names in lower case, values without the white space around them, as Latin-1.
        length: of the body in bytes, or CHUNKED.
        keep_alive: whether a further request may follow on the connection.
        expects_continue: the client waits for a word before it sends the body.
    """

    method: str
    target: str
    minor: str
    fields: list[tuple[str, str]]
    length: int = 0
    keep_alive: bool = True
    expects_continue: bool = False


def read_head(raw: bytes) -> Head:
    """Read a head: request line and field lines, each with its CR LF, without the empty line.

    Raises:
        SanicException: 400 it is not what RFC 9112 wants, 413 the body would be too large, 417 it expects something
            unknown, 431 it has too many fields.
    """
    text = raw.decode("latin-1")
    line = _HEAD.fullmatch(text)
    if line is None:
        raise BadRequest()
    method, path, asterisk, minor = line.groups()
    fields = []
    about: dict[str, str] = {}
    for field in text.split("\r\n")[1:-1]:
        name, _, value = field.partition(":")
        name, value = name.lower(), value.strip(" \t")
        fields.append((name, value))
        if name in _ABOUT_THE_MESSAGE:
            # Several lines are one list (RFC 9110, 5.3), and a list is no host, no length and not `chunked`.
            about[name] = f"{about[name]},{value}" if name in about else value
    if len(fields) > MAX_FIELDS:
        raise SanicException(status_code=431)
    if asterisk and method != "OPTIONS":
        raise BadRequest()
    head = Head(method, path or asterisk or "/", minor, fields)
    _check_host(about.pop("host", None), minor)
    if about or minor == "0":
        _read_framing(head, about)
    return head


def _check_host(host: str | None, minor: str) -> None:
    """One, none only in HTTP/1.0 (RFC 9112, 3.2), and not empty, as it is in no `http` URL (RFC 9110, 4.2.1)."""
    if not (minor == "0" if host is None else _ONE_HOST.fullmatch(host)):
        raise BadRequest()


def _read_framing(head: Head, about: dict[str, str]) -> None:
    """How long the body is, and what comes after it."""
    coding, length = about.get("transfer-encoding"), about.get("content-length")
    if coding is not None:
        if length is not None or head.minor == "0" or coding.lower() != "chunked":
            raise BadRequest()
        head.length = CHUNKED
    elif length is not None:
        if not _ONE_LENGTH.fullmatch(length):
            raise BadRequest()
        head.length = int(length)
        if head.length > MAX_BODY_BYTES:
            raise PayloadTooLarge()
    options = [option.strip(" \t") for option in about.get("connection", "").lower().split(",")]
    head.keep_alive = "close" not in options and (head.minor == "1" or "keep-alive" in options)
    if head.minor == "1" and "expect" in about:
        if about["expect"].lower() != "100-continue":
            raise SanicException(status_code=417)
        head.expects_continue = head.length != 0


def check_beginning(beginning: bytearray, seen: int) -> None:
    """Refuse a head that is not complete yet and cannot become one.

    Args:
        seen: so many of its bytes were checked before.

    Raises:
        SanicException: 400 it holds what no head holds, 414 or 431 it is too long already.
    """
    if len(beginning) > MAX_HEAD_BYTES:
        raise too_long(beginning)
    if _IN_NO_HEAD.search(beginning, max(seen - 1, 0)):
        raise BadRequest()


def too_long(head: bytearray) -> SanicException:
    """What is said of a head above the limit: its first line alone is, or all lines together."""
    return SanicException(status_code=414 if head.find(b"\r\n", 0, MAX_HEAD_BYTES) < 0 else 431)
