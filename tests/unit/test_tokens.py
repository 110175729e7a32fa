"""Tokens (design, section 3): fixed shape, refused when a single bit is not ours, rotated, and random."""

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from models.settings import key_id
from models.tokens import TOKEN_LENGTH, Claims, TokenSigner

KEY, OTHER_KEY = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
EXPIRES_MS = 1_900_000_000_000


@pytest.fixture(scope="module")
def signer() -> TokenSigner:
    return TokenSigner([KEY])


@pytest.fixture(scope="module")
def token(signer: TokenSigner) -> str:
    return signer.sign(7, 11, EXPIRES_MS, secrets.token_bytes(30))


@pytest.mark.parametrize(
    ("user_id", "version", "expires_ms"), [(0, 0, 0), (1, 1, EXPIRES_MS), (2**63 - 1, 2**63 - 1, 2**63 - 1)]
)
def test_every_token_has_96_characters_of_base64url(
    signer: TokenSigner, user_id: int, version: int, expires_ms: int
) -> None:
    random_part, digest = signer.new_secret()
    token = signer.sign(user_id, version, expires_ms, random_part)
    assert re.fullmatch(r"[A-Za-z0-9_-]{96}", token)
    assert len(token) == TOKEN_LENGTH < 100
    assert signer.verify(token) == Claims(user_id, version, expires_ms, digest)


def test_a_token_is_laid_out_as_the_docstring_says(signer: TokenSigner) -> None:
    random_part, _ = signer.new_secret()
    raw = urlsafe_b64decode(signer.sign(7, 11, EXPIRES_MS, random_part))
    assert raw[:2] == key_id(KEY)
    assert [int.from_bytes(raw[at : at + 8]) for at in (2, 10, 18)] == [7, 11, EXPIRES_MS]
    assert raw[26:56] == random_part
    assert len(raw[56:]) == 16


def test_no_flipped_bit_is_verified(signer: TokenSigner, token: str) -> None:
    """Of the 72 bytes, and of the 96 characters, any of which is then another character or none of the alphabet."""
    raw = urlsafe_b64decode(token)
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        assert signer.verify(urlsafe_b64encode(forged).decode()) is None
    for bit in range(len(token) * 8):
        letters = bytearray(token.encode())
        letters[bit // 8] ^= 1 << bit % 8
        assert signer.verify(letters.decode("latin-1")) is None


def test_no_exchanged_bytes_are_verified(signer: TokenSigner) -> None:
    """Two well-signed tokens do not make a third one: each cut of the one with the rest of the other is refused."""
    one, two = (signer.sign(uid, 1, EXPIRES_MS, signer.new_secret()[0]) for uid in (1, 2))
    crossed = {one[:at] + two[at:] for at in range(1, TOKEN_LENGTH)} - {one, two}
    assert len(crossed) > 40  # the others differ in nothing but random letters that happen to agree
    assert [made for made in crossed if signer.verify(made) is not None] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token + "=",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token[:-1] + "\uff21",  # a fullwidth letter
        lambda token: token[:-1] + "\udc80",  # how a byte that is no UTF-8 arrives
        lambda token: token[:-1] + "\0",
        lambda token: "+" * TOKEN_LENGTH,
        lambda token: "A" * TOKEN_LENGTH,
    ],
)
def test_no_other_shape_is_verified(signer: TokenSigner, token: str, change: "type[str]") -> None:
    assert signer.verify(change(token)) is None


def test_the_alphabet_is_that_of_urls(signer: TokenSigner) -> None:
    """The same bytes in the alphabet of MIME are refused: one session has one spelling."""
    made = (signer.sign(1, 1, EXPIRES_MS, secrets.token_bytes(30)) for _ in range(100))
    token = next(token for token in made if "-" in token or "_" in token)
    assert signer.verify(token) is not None
    assert signer.verify(token.replace("-", "+").replace("_", "/")) is None


def test_keys_rotate_the_first_signs_and_all_verify(token: str) -> None:
    rotated = TokenSigner([OTHER_KEY, KEY])
    assert rotated.verify(token) == TokenSigner([KEY]).verify(token) is not None
    newer = rotated.sign(7, 12, EXPIRES_MS, bytes(30))
    assert TokenSigner([OTHER_KEY]).verify(newer) is not None
    assert TokenSigner([KEY]).verify(newer) is None


def test_an_unknown_key_is_refused_under_any_name(token: str) -> None:
    assert TokenSigner([OTHER_KEY]).verify(token) is None
    renamed = key_id(OTHER_KEY) + urlsafe_b64decode(token)[2:]
    assert TokenSigner([OTHER_KEY]).verify(urlsafe_b64encode(renamed).decode()) is None


def test_the_clock_is_not_looked_at(signer: TokenSigner) -> None:
    assert signer.verify(signer.sign(1, 1, 1, bytes(30))) is not None


def test_random_parts_are_240_bits_that_never_repeat(signer: TokenSigner) -> None:
    parts = [signer.new_secret()[0] for _ in range(100_000)]
    assert {len(part) for part in parts} == {30}
    assert len(set(parts)) == len(parts)
    ones = sum(int.from_bytes(part).bit_count() for part in parts)
    assert abs(ones / (240 * len(parts)) - 0.5) < 0.001  # ten standard deviations


def test_only_the_digest_of_the_random_part_is_told(signer: TokenSigner) -> None:
    """What leaves for the stores says nothing about the token's random part but its SHA-256."""
    random_part, digest = signer.new_secret()
    assert digest == hashlib.sha256(random_part).digest()
    claims = signer.verify(signer.sign(1, 1, EXPIRES_MS, random_part))
    assert claims == Claims(1, 1, EXPIRES_MS, digest)
    assert random_part.hex() not in repr(claims).encode().hex()
