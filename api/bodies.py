"""Request bodies: strict JSON into typed structures."""

from typing import TypeVar

import msgspec
from sanic import Request
from sanic.exceptions import SanicException

from models.errors import InvalidInput

T = TypeVar("T", bound=msgspec.Struct)


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signs up or logs in."""

    username: str
    password: str


_CREDENTIALS = msgspec.json.Decoder(Credentials)


def read_credentials(request: Request) -> Credentials:
    """The credentials in a request's body.

    Raises:
        InvalidInput: not JSON, or not exactly these two texts.
        SanicException: 415, the body does not say that it is JSON.
    """
    media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise SanicException(status_code=415)
    try:
        return _CREDENTIALS.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The body must be a JSON object with the texts username and password: {error}") from error
