"""What a reply of Redis means; of an error: an outage, a refusal for now, or a fault of ours."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

from hiredis import ReplyError

from models.errors import RedisFault, RedisRefused, ScriptMissing
from models.link import Link

T = TypeVar("T")

_NOT_NOW = (
    "OOM",
    "READONLY",
    "MISCONF",
    "LOADING",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "BUSY",
    "TRYAGAIN",
)
"""Replies of a server that could do it at another time; any other error reply is a fault of ours."""


def checked(reply: Any) -> Any:
    """A reply of the link, unless it is an error.

    Raises:
        ScriptMissing: the server does not know the script.
        RedisRefused: it could do it at another time.
        RedisFault: a fault of ours.
    """
    if isinstance(reply, ReplyError):
        text = str(reply)
        if text.startswith("NOSCRIPT"):
            raise ScriptMissing() from reply
        if text.startswith(_NOT_NOW):
            raise RedisRefused() from reply
        raise RedisFault(text)
    return reply


async def reply_of(link: Link, command: bytes) -> Any:
    """The checked reply to one packed command."""
    return checked(await link.call(command))


async def gather_all(work: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all of it, side by side; when some of it fails the first error is raised at the end of all."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]  # what is no result was raised


def time_us(reply: Sequence[bytes]) -> int:
    """The reply to TIME, in microseconds since 1970."""
    seconds, microseconds = reply
    return int(seconds) * 1_000_000 + int(microseconds)
