"""Every refused login computes one argon2 and one bcrypt hash, whatever kind of user was asked for.

Counted here; that the times are equal too is measured by `make soak` (enumeration).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import bcrypt
import pytest
from argon2 import low_level
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from models import passwords
from models.passwords import Passwords

PASSWORD = "correct horse battery"
BOTH = {"argon2": 1, "bcrypt": 1}
NOBODY, OWN, OLD, DAMAGED, PLANTED = "nobody", "own", "old", "damaged", "planted"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many hashes of each kind were computed."""
    counted: Counter[str] = Counter()

    def counting(kind: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **given: Any) -> Any:
            counted[kind] += 1
            try:
                return compute(*args, **given)
            except (InvalidHashError, VerificationError) as error:
                counted[kind] -= not isinstance(error, VerifyMismatchError)  # it was not even computed
                raise

        return count

    monkeypatch.setattr(low_level, "hash_secret", counting("argon2", low_level.hash_secret))
    monkeypatch.setattr(low_level, "verify_secret", counting("argon2", low_level.verify_secret))
    monkeypatch.setattr(bcrypt, "hashpw", counting("bcrypt", bcrypt.hashpw))
    return counted


@pytest.fixture
def hasher() -> Iterator[Passwords]:
    opened = Passwords(threads=1)
    yield opened
    opened.close()


async def stored_for(hasher: Passwords, kind: str) -> str | None:
    return {
        NOBODY: None,
        OWN: await hasher.hash(PASSWORD),
        OLD: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10, prefix=b"2a")).decode(),
        DAMAGED: "$argon2id$v=19$m=19456,t=2,p=1$not$a hash",
        PLANTED: "$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHRzb21l$7BTwQ/Ji6eXFe6m9L7YJO4iDBWPBfHSpu1GIV3W6Kkk",
    }[kind]


@pytest.mark.parametrize("kind", [NOBODY, OWN, OLD, DAMAGED, PLANTED])
@pytest.mark.parametrize("length", [8, 73, 256])
async def test_a_wrong_password_takes_one_hash_of_each_kind(
    hasher: Passwords, computed: Counter[str], kind: str, length: int
) -> None:
    stored = await stored_for(hasher, kind)
    await hasher.verify("warm up", None)
    computed.clear()
    assert await hasher.verify("x" * length, stored) == (False, None)
    assert computed == BOTH


@pytest.mark.parametrize("kind", [OWN, OLD])
async def test_so_does_the_right_one_of_a_disabled_user(hasher: Passwords, computed: Counter[str], kind: str) -> None:
    stored = await stored_for(hasher, kind)
    await hasher.verify("warm up", None)
    computed.clear()
    assert await hasher.verify(PASSWORD, stored, usable=False) == (False, None)
    assert computed == BOTH


async def test_one_hash_for_each_refusal_would_tell_them_apart(hasher: Passwords, computed: Counter[str]) -> None:
    """The planted variant."""
    work = []
    for kind in (OWN, OLD):
        stored = await stored_for(hasher, kind)
        computed.clear()
        assert stored is not None
        passwords._verify("wrong", stored)
        work.append(dict(computed))
    assert work == [{"argon2": 1}, {"bcrypt": 1}]
