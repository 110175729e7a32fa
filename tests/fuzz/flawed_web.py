"""A web process with a flaw for each check of schemathesis that can fail here: `python -m tests.fuzz.flawed_web`."""

import sys
import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import msgspec
from sanic import HTTPResponse, Request, text

import models.accounts
from api import __main__, gate
from api.bodies import Credentials
from api.routes import accounts, health, usage
from models.connections import Stores
from models.errors import InvalidInput, UsernameTaken
from models.sessions import Description, Sessions
from models.tokens import Claims
from models.usage import Usage
from models.windows import Period

SEEN_AS = {
    "ServerError",
    "UndefinedStatusCode",
    "UndefinedContentType",
    "JsonSchemaError",
    "AcceptedNegativeData",
    "RejectedPositiveData",
    "UnsupportedMethodResponse",
    "AllowHeaderMismatch",
    "IgnoredAuth",
    "MissingHeaders",
}
"""What schemathesis calls them."""


def _read_anything(request: Request) -> Credentials:
    """Bodies as duck typing reads them: further names, other types and media types are as good."""
    try:
        found = msgspec.json.decode(request.body)
        return Credentials(str(found["username"])[:20].strip() or "x", str(found["password"]).ljust(8, "x"))
    except (msgspec.DecodeError, TypeError, KeyError) as error:
        raise InvalidInput() from error


def _short_password(password: str) -> None:
    """As bcrypt has it, and the document does not say."""
    if len(password.encode()) > 72:
        raise InvalidInput()


async def _count(_usage: Usage, _period: Period) -> int:
    raise ZeroDivisionError


async def _top(_usage: Usage, _period: Period) -> list[tuple[str, int]]:
    return [("ada", 1)]


async def _away(_stores: Stores) -> list[str]:
    raise UsernameTaken()


async def _inspect(_sessions: Sessions, _claims: Claims) -> Description:
    return msgspec.convert({"user_id": 1, "username": "x", "created_at": 0, "expires_at": 0}, Description, strict=False)


def _read_any_token(_sessions: Sessions, _token: str) -> Claims:
    return Claims(1, 1, int(time.time() * 2_000), b"")


async def _forget(_request: Request) -> HTTPResponse:
    return text("")


_CHANGES: list[tuple[Any, str, Any]] = [
    (accounts, "read_credentials", _read_anything),
    (models.accounts, "check_password", _short_password),
    (Usage, "count_callers", _count),
    (Usage, "top", _top),
    (Stores, "away", _away),
    (Sessions, "inspect", _inspect),
    (Sessions, "read_token", _read_any_token),
    (gate.RateLimitHeaders, "fields", lambda _headers, _admission: b""),
    (health, "json", lambda _content: text("live")),
]


if __name__ == "__main__":
    usage.blueprint.add_route(_forget, "/top", methods=["DELETE"])
    with ExitStack() as stack:
        for target, name, value in _CHANGES:
            stack.enter_context(patch.object(target, name, value))
        sys.exit(__main__.main())
