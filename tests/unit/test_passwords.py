"""Passwords: argon2id for new ones, bcrypt still verified and upgraded, bounded, and the same work whoever asks."""

import asyncio
import threading
import unicodedata
from collections.abc import Iterator

import bcrypt
import pytest
from argon2 import PasswordHasher

from models.errors import Overloaded
from models.passwords import QUEUE_PER_THREAD, Passwords

PASSWORD = "correct horse battery"
ARGON2ID = "$argon2id$v=19$m=19456,t=2,p=1$"
_SALT_AND_SUM = "$c29tZXNhbHRzb21l$7BTwQ/Ji6eXFe6m9L7YJO4iDBWPBfHSpu1GIV3W6Kkk"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    opened = Passwords(threads=1)
    yield opened
    opened.close()


def bcrypt_hash(password: str, cost: int = 4, prefix: bytes = b"2a") -> str:
    """As the Go service wrote them, but for the cost."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost, prefix=prefix)).decode()


async def test_a_new_hash_is_argon2id_with_a_salt_of_its_own(passwords: Passwords) -> None:
    one, two = await passwords.hash(PASSWORD), await passwords.hash(PASSWORD)
    assert one.startswith(ARGON2ID)
    assert one != two
    assert PASSWORD not in one
    assert await passwords.verify(PASSWORD, one) == (True, None)
    assert await passwords.verify(PASSWORD + "!", one) == (False, None)


@pytest.mark.parametrize(
    "password", ["a", "x" * 256, "x" * 1_000, "пароль", "😀" * 64, " lead and trail ", 'tab\tquote"']
)
async def test_any_text_is_a_password_and_no_other_text_is_it(passwords: Passwords, password: str) -> None:
    """Beyond 72 bytes too, where bcrypt would have stopped reading."""
    stored = await passwords.hash(password)
    assert await passwords.verify(password, stored) == (True, None)
    assert (await passwords.verify(password + "x", stored))[0] is False
    assert (await passwords.verify(password[:-1], stored))[0] is False


@pytest.mark.parametrize("prefix", [b"2a", b"2b"])
async def test_a_bcrypt_hash_verifies_and_is_upgraded_to_argon2id(passwords: Passwords, prefix: bytes) -> None:
    stored = bcrypt_hash(PASSWORD, prefix=prefix)
    valid, better = await passwords.verify(PASSWORD, stored)
    assert valid
    assert better is not None
    assert better.startswith(ARGON2ID)
    assert await passwords.verify(PASSWORD, better) == (True, None)


async def test_a_wrong_password_upgrades_nothing(passwords: Passwords) -> None:
    assert await passwords.verify(PASSWORD + "!", bcrypt_hash(PASSWORD)) == (False, None)


async def test_a_cheap_argon2_hash_is_upgraded(passwords: Passwords) -> None:
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    valid, better = await passwords.verify(PASSWORD, cheap)
    assert valid
    assert (better or "").startswith(ARGON2ID)


async def test_bcrypt_answers_no_beyond_its_72_bytes(passwords: Passwords) -> None:
    """A bcrypt that truncates would take any longer password that begins alike."""
    stored = bcrypt_hash("x" * 72)
    assert (await passwords.verify("x" * 72, stored))[0] is True
    for longer in ("x" * 73, "x" * 256, "x" * 71 + "é"):
        assert await passwords.verify(longer, stored) == (False, None)


async def test_one_text_is_one_password_however_it_was_composed(passwords: Passwords) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zoë Ångström é") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for stored in (await passwords.hash(composed), await passwords.hash(decomposed)):
        assert (await passwords.verify(composed, stored))[0] is True
        assert (await passwords.verify(decomposed, stored))[0] is True


async def test_what_only_looks_alike_is_another_password(passwords: Passwords) -> None:
    """NFC and not NFKC: a fullwidth letter or a ligature stays what it is."""
    stored = await passwords.hash("file")
    for lookalike in ("\ufb01le", "\uff46ile", "File", "file "):
        assert (await passwords.verify(lookalike, stored))[0] is False


@pytest.mark.parametrize(
    "planted",
    [
        "$2a$31$" + "a" * 53,
        "$2b$15$" + "a" * 53,
        "$argon2id$v=19$m=4194304,t=2,p=1" + _SALT_AND_SUM,
        "$argon2id$v=19$m=8,t=4000000,p=1" + _SALT_AND_SUM,
        "$argon2id$v=19$m=2048,t=1,p=255" + _SALT_AND_SUM,
        "$argon2d$v=19$m=8,t=1,p=1" + _SALT_AND_SUM,
        "$1$salt$1234567890123456789012",
        "$plaintext$correct horse battery",
        PASSWORD,
        "",
        "$2a$",
        "$argon2id$",
    ],
)
async def test_a_planted_hash_is_refused_before_it_costs_anything(passwords: Passwords, planted: str) -> None:
    async with asyncio.timeout(2):
        assert await passwords.verify(PASSWORD, planted) == (False, None)


@pytest.mark.parametrize(
    "damaged", [ARGON2ID + "c29tZXNhbHRzb21l$", ARGON2ID + "!$!", ARGON2ID, "$2a$10$tooshort", "$2a$10$" + "!" * 53]
)
async def test_a_damaged_hash_lets_nobody_in(passwords: Passwords, damaged: str) -> None:
    """A login against it is a wrong password, not a fault of the service."""
    assert await passwords.verify(PASSWORD, damaged) == (False, None)


async def test_no_more_wait_than_the_bound_and_the_rest_are_told(passwords: Passwords) -> None:
    stored, bound = bcrypt_hash(PASSWORD), 1 + QUEUE_PER_THREAD
    tries = (passwords.verify("wrong", stored) for _ in range(3 * bound))
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert answers[:bound] == [(False, None)] * bound
    assert [type(answer) for answer in answers[bound:]] == [Overloaded] * 2 * bound
    assert (await passwords.verify(PASSWORD, stored))[0] is True  # the wave is over, and there is room again


async def test_an_abandoned_verification_keeps_its_place_until_it_is_done(passwords: Passwords) -> None:
    """Clients who hang up do not make room for more work than the bound: a thread cannot be stopped."""
    stored, started, release = bcrypt_hash(PASSWORD), threading.Event(), threading.Event()
    running = asyncio.create_task(passwords._off_loop(lambda: started.set() or release.wait(10)))  # type: ignore[func-returns-value]
    await asyncio.to_thread(started.wait)
    waiting = [asyncio.create_task(passwords.verify("wrong", stored)) for _ in range(QUEUE_PER_THREAD)]
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(Overloaded):
        await passwords.verify("wrong", stored)
    release.set()
    assert await asyncio.gather(*waiting) == [(False, None)] * QUEUE_PER_THREAD


async def test_the_loop_turns_while_a_password_is_hashed(passwords: Passwords) -> None:
    task = asyncio.create_task(passwords.hash(PASSWORD))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10


async def test_nobody_has_the_password_of_the_dummy_hash(passwords: Passwords) -> None:
    assert await passwords.verify("nobody has this password", None) == (False, None)
