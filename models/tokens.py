"""Session tokens: signed so that a forged one is refused before any I/O, random so that a leaked key opens nothing.

A token is 72 bytes as 96 characters of base64url (RFC 4648 section 5, no padding):

    key id 2 | user id 8 | session version 8 | expiry 8, ms since 1970 | random 30 | HMAC-SHA-256 16

The signature is the first 128 bits of HMAC-SHA-256 (RFC 2104 section 5 allows the truncation) over all bytes before it.
"""

import hashlib
import hmac
import re
import secrets
import struct
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Sequence

import msgspec

from models.settings import key_id

TOKEN_LENGTH = 96

_BODY = struct.Struct(">2sQQQ30s")
_SIGNATURE_BYTES = 16
_SHAPE = re.compile(r"[A-Za-z0-9_-]{96}")
_FROM_URLSAFE = str.maketrans("-_", "+/")


class Claims(msgspec.Struct, frozen=True):
    """What a well-signed token says: which session of whom, until when.

    Args:
        version: the session's version; a later login or logout has a higher one.
        digest: SHA-256 of the token's random part, 32 bytes: all that any store ever sees of it.
        expires_ms: end of the session, in milliseconds since 1970 (UTC).
    """

    user_id: int
    version: int
    expires_ms: int
    digest: bytes


class TokenSigner:
    """Signs with the first key and verifies with all of them, so that keys rotate without logging anyone out.

    Args:
        secret_keys: at least one; the order matters only in that the first signs.
    """

    def __init__(self, secret_keys: Sequence[str]) -> None:
        self._keys = {key_id(key): key.encode() for key in secret_keys}
        self._signing_id = key_id(secret_keys[0])

    def new_secret(self) -> tuple[bytes, bytes]:
        """A fresh random part (30 bytes) and its digest, made before the session has a version."""
        random_part = secrets.token_bytes(30)
        return random_part, hashlib.sha256(random_part).digest()

    def sign(self, user_id: int, version: int, expires_ms: int, random_part: bytes) -> str:
        """The token of one session, 96 characters."""
        body = _BODY.pack(self._signing_id, user_id, version, expires_ms, random_part)
        signature = hmac.digest(self._keys[self._signing_id], body, "sha256")[:_SIGNATURE_BYTES]
        return urlsafe_b64encode(body + signature).decode()

    def verify(self, token: str) -> Claims | None:
        """What the token claims, or None when it is not one that a known key signed. Never looks at the clock."""
        if not _SHAPE.fullmatch(token):
            return None
        raw = a2b_base64(token.translate(_FROM_URLSAFE))
        body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        signed_by, user_id, version, expires_ms, random_part = _BODY.unpack(body)
        key = self._keys.get(signed_by)
        if key is None or not hmac.compare_digest(hmac.digest(key, body, "sha256")[:_SIGNATURE_BYTES], signature):
            return None
        return Claims(user_id, version, expires_ms, hashlib.sha256(random_part).digest())
