"""Import: the users of the service that Gatehouse replaces become ours, all of them that can, or none.

Everything happens in one transaction. The rows are staged in a temporary table, judged there by each other and by who
is here, and those that nothing is against become users. Whoever is here already stays as they are, so that a second run
changes nothing, and a password that was changed here is not turned back. Sessions are not taken over: everybody logs in
once more. Deleted users of the original come as disabled ones: nobody else can take their name, nor their calls.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

import msgspec

from models.candidates import REASONS, Candidate, read_candidate
from models.database import Database, load_sql
from models.errors import InvalidInput, StoreUnavailable
from models.original_counts import OriginalCounts
from models.originals import read_originals
from models.passwords import Passwords

PlainPasswords = Literal["refuse", "skip", "hash"]

DEADLINE_S = 24 * 3_600.0
"""For all of it: a million plain-text passwords take hours to hash, a million hashes half a minute to take over."""

STEP_DEADLINE_S = 300.0
CHUNK_LINES = 20_000
REFUSALS_PAGE = 1_000
HASHED_AT_ONCE = 32
ROUNDS = 3
"""Tries to insert; a further one is needed for whoever signs up with an imported name in that very moment."""

_STAGE = load_sql("stage_users")
_JUDGE_USERS = load_sql("judge_staged_users")
_JUDGE_NAMES = load_sql("judge_staged_names")
_LOCK = load_sql("lock_users")
_ADVANCE = load_sql("advance_user_ids")
_INSERT = load_sql("insert_staged_users")
_MEASURE = load_sql("measure_staged_users")
_COUNT = load_sql("count_staged_users")
_READ_REFUSALS = load_sql("read_staged_refusals")
_COLUMNS = ("line", "id", "username", "username_key", "password_hash", "created_at", "disabled_at", "shown", "verdict")


class Refusal(msgspec.Struct, frozen=True):
    """A row that did not become a user.

    Args:
        line: of the file, or the number of the row.
        shown: its name, in ASCII.
        reason: half a sentence.
    """

    line: int
    id: int | None
    shown: str
    reason: str


class Report(msgspec.Struct, frozen=True):
    """What an import did, or in a dry run would have done.

    Args:
        there: users who were here already, and were left as they are.
        disabled: of the imported ones, those that were deleted in the original.
        refused: reason, as a key of REASONS → rows.
        calls: users whose call totals were taken over; None when that was not asked for.
    """

    imported: int
    there: int
    disabled: int
    refused: dict[str, int]
    calls: int | None = None


class Wishes(msgspec.Struct, frozen=True):
    """How to import.

    Args:
        new_ids: give everybody an id of ours.
        plain_passwords: what to do with passwords that were kept in plain text: import nobody, import the others, or
            hash them.
        dry_run: change nothing.
    """

    new_ids: bool = False
    plain_passwords: PlainPasswords = "refuse"
    dry_run: bool = False


class Imports:
    """What takes over the original's users."""

    def __init__(self, database: Database, passwords: Passwords, counts: OriginalCounts) -> None:
        self._database = database
        self._passwords = passwords
        self._counts = counts

    async def import_users(
        self, source: str, wishes: Wishes, counts_from: str = "", refused: Callable[[Refusal], None] | None = None
    ) -> Report:
        """Take over the users of a source.

        Args:
            source: as `read_originals` takes it.
            counts_from: the address of the original's Redis, to take over the call totals too.
            refused: is told each row that did not become a user, in their order.

        Raises:
            InvalidInput: the source is not right, or has passwords in plain text: nothing was imported.
            StoreUnavailable: nothing was imported; or all users, but not all call totals. Run it again.
        """
        if counts_from and wishes.new_ids:
            raise InvalidInput("Call totals belong to ids: they cannot be taken over together with new ids")
        async with self._database.transaction(DEADLINE_S) as connection:
            await connection.execute(_STAGE, timeout=STEP_DEADLINE_S)
            await self._stage(connection, source, wishes)
            await self._decide(connection, wishes)
            report = await self._report(connection)
            async for refusal in _refusals(connection):
                if refused:
                    refused(refusal)
            calls = await self._counts.keep(connection, counts_from) if counts_from and not wishes.dry_run else None
        if calls is not None:
            await self._counts.publish()
        return msgspec.structs.replace(report, calls=calls)

    async def _stage(self, connection: Any, source: str, wishes: Wishes) -> None:
        plain = total = 0
        async for page in read_originals(source):
            candidates = [read_candidate(original) for original in page]
            total += len(candidates)
            plain += await self._settle_plain([one for one in candidates if one.plain is not None], wishes)
            records = [tuple(getattr(one, name) for name in _COLUMNS) for one in candidates]
            await connection.copy_records_to_table(
                "staged_users", records=records, columns=_COLUMNS, timeout=STEP_DEADLINE_S
            )
        if plain and wishes.plain_passwords == "refuse":
            raise InvalidInput(
                f"{plain} of {total} passwords are in plain text: nothing was imported. --plain-passwords hash hashes "
                "them, in about 20 ms each; --plain-passwords skip leaves these users out"
            )

    async def _settle_plain(self, plain: Sequence[Candidate], wishes: Wishes) -> int:
        """Hash passwords that were kept in plain text, or refuse them; returns how many."""
        for at in range(0, len(plain), HASHED_AT_ONCE):
            some = plain[at : at + HASHED_AT_ONCE]
            if wishes.plain_passwords != "hash" or wishes.dry_run:
                hashes = [""] * len(some)
            else:
                hashes = await asyncio.gather(*(self._passwords.hash(one.plain or "") for one in some))
            for one, made in zip(some, hashes, strict=True):
                one.password_hash = made
                one.verdict = None if wishes.plain_passwords == "hash" else "plain_password"
        return len(plain)

    async def _decide(self, connection: Any, wishes: Wishes) -> None:
        """Give every staged user a verdict; all that is left without one in a dry run would be imported."""
        keep = not wishes.new_ids
        await self._judge(connection, keep)
        if wishes.dry_run:
            return
        last_line, highest_id = await connection.fetchrow(_MEASURE, timeout=STEP_DEADLINE_S)
        if keep and highest_id:
            await self._reserve_ids(highest_id)
        for _ in range(ROUNDS):
            for after in range(0, last_line, CHUNK_LINES):
                await connection.execute(_INSERT, after, after + CHUNK_LINES, keep, timeout=STEP_DEADLINE_S)
            await self._judge(connection, keep)
            if not await _undecided(connection):
                return
        raise StoreUnavailable("Users came and went during the import, and nothing was imported: run it again")

    async def _judge(self, connection: Any, keep: bool) -> None:
        await connection.execute("ANALYZE staged_users", timeout=STEP_DEADLINE_S)
        await connection.execute(_JUDGE_USERS, keep, timeout=STEP_DEADLINE_S)
        await connection.execute(_JUDGE_NAMES, timeout=STEP_DEADLINE_S)

    async def _reserve_ids(self, highest_id: int) -> None:
        """Let nobody who signs up from now on get an imported id; on a connection whose lock ends at once."""
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK)
            await connection.fetch(_ADVANCE, highest_id)

    async def _report(self, connection: Any) -> Report:
        rows = await connection.fetch(_COUNT, timeout=STEP_DEADLINE_S)
        users = {row["verdict"]: row["users"] for row in rows}
        disabled = sum(row["disabled"] for row in rows if row["verdict"] in (None, "imported"))
        imported = users.pop("imported", 0) + users.pop(None, 0)
        return Report(imported, users.pop("there", 0), disabled, users)


async def _undecided(connection: Any) -> bool:
    return any(row["verdict"] is None for row in await connection.fetch(_COUNT, timeout=STEP_DEADLINE_S))


async def _refusals(connection: Any) -> AsyncIterator[Refusal]:
    last = 0
    while rows := await connection.fetch(_READ_REFUSALS, last, REFUSALS_PAGE, timeout=STEP_DEADLINE_S):
        for line, user_id, shown, verdict, other in rows:
            yield Refusal(line, user_id, shown, REASONS[verdict].format(other))
        last = rows[-1]["line"]
