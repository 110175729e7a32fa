"""Request bodies: strict JSON into typed structures."""

import json
import re

import msgspec
from sanic import Request
from sanic.exceptions import SanicException

from models.errors import InvalidInput

_MEDIA_TYPE = re.compile(r'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE | re.ASCII)


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signs up or logs in."""

    username: str
    password: str


_CREDENTIALS = msgspec.json.Decoder(Credentials)


def read_credentials(request: Request) -> Credentials:
    """The credentials in a request's body.

    Raises:
        InvalidInput: not JSON, or not exactly these two texts, each once.
        SanicException: 415, the body does not say that it is JSON as it is: in UTF-8 (RFC 8259, 8.1), not compressed.
    """
    headers = request.headers
    if not _MEDIA_TYPE.fullmatch(",".join(headers.getall("content-type", []))) or "content-encoding" in headers:
        raise SanicException(status_code=415)
    try:
        credentials = _CREDENTIALS.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The body must be a JSON object with the texts username and password: {error}") from error
    # Of a name that comes twice msgspec takes the last and others the first: two readers, two users. Reading again is
    # safe and cheap by now: these two names and texts, however often.
    if len(json.loads(request.body, object_pairs_hook=list)) != len(Credentials.__struct_fields__):
        raise InvalidInput("The body must be a JSON object with the texts username and password, each once")
    return credentials
