"""Answers that are not errors."""

from typing import Any

import msgspec
from sanic import HTTPResponse

from api.errors import JSON


def json(content: dict[str, Any], status: int = 200) -> HTTPResponse:
    """A JSON body. Nothing here may be kept by a cache: answers are personal or of the moment."""
    return HTTPResponse(msgspec.json.encode(content), status, {"Cache-Control": "no-store"}, JSON)


def empty() -> HTTPResponse:
    """204."""
    return HTTPResponse(None, 204, {"Cache-Control": "no-store"})
