"""What a reply of Redis means; of an error: an outage, a refusal for now, or a fault of ours."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hiredis import ReplyError
from redis.exceptions import RedisError, ResponseError

from models.errors import RedisAway, RedisFault, RedisRefused
from models.link import Link

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
    "NOSCRIPT",
)
"""Replies of a server that could do it at another time; any other error reply is a fault of ours."""


@contextmanager
def wrapping_errors() -> Iterator[None]:
    """Turn the general client's errors into RedisAway; a fault of ours stays as it is."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        # The client has classes of its own for some of them and leaves the others in the text.
        if type(error) is ResponseError and not any(code in str(error) for code in _NOT_NOW):
            raise
        raise RedisAway() from error
    except RuntimeError as error:
        # What uvloop raises for a write to a connection that was reset a moment ago.
        if "handler is closed" not in str(error):
            raise
        raise RedisAway() from error


def checked(reply: Any) -> Any:
    """A reply of the link, unless it is an error: RedisRefused for another time, RedisFault for a fault of ours."""
    if isinstance(reply, ReplyError):
        if str(reply).startswith(_NOT_NOW):
            raise RedisRefused() from reply
        raise RedisFault(str(reply))
    return reply


async def ask(link: Link, commands: Sequence[bytes]) -> list[Any]:
    """The checked replies to packed commands that are sent together."""
    return [checked(reply) for reply in await asyncio.gather(*(link.call(command) for command in commands))]


def time_us(reply: Sequence[bytes]) -> int:
    """The reply to TIME, in microseconds since 1970."""
    seconds, microseconds = reply
    return int(seconds) * 1_000_000 + int(microseconds)
