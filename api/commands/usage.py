"""`gatehouse usage`: calls."""

from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from api.commands import printing
from api.commands.printing import AsJson
from api.commands.running import Yes, confirm, run
from models.errors import StoreUnavailable
from models.keys import BUCKETS

if TYPE_CHECKING:
    from models.connections import Stores

app = typer.Typer(no_args_is_help=True, help="Calls: top, export, snapshot, reset.")


class Window(StrEnum):
    """Of which time; hours and days are those of UTC."""

    HOUR = "hour"
    DAY = "day"
    ALL = "all"


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSONL = "jsonl"


class Ranked(msgspec.Struct, frozen=True, rename="camel"):
    """A user's place."""

    rank: int
    user_id: int
    username: str | None
    calls: int


Of = Annotated[Window, typer.Option("--window", help="Calls of this hour, of this day (UTC), or of all time.")]


@app.command(epilog="Examples:\n\ngatehouse usage top\n\ngatehouse usage top --window day --count 50 --json")
def top(
    window: Of = Window.ALL,
    count: Annotated[int, typer.Option(min=1, max=1_000, help="How many users at most.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Rank the users by their calls."""

    async def work(stores: "Stores") -> list[Ranked]:
        ranked = await stores.usage.top(window.value, count)
        names = await _names(stores, [user_id for user_id, _ in ranked])
        return [Ranked(rank, uid, names.get(uid), calls) for rank, (uid, calls) in enumerate(ranked, start=1)]

    rows = run(work)
    if as_json:
        printing.document(rows)
    else:
        printing.table(Ranked, rows)


@app.command(epilog="Example:\n\ngatehouse usage snapshot")
def snapshot(as_json: AsJson = False) -> None:
    """Bring PostgreSQL's copy of the counters up to date, as the worker does; returns when it has every call."""

    async def work(stores: "Stores") -> None:
        await stores.snapshots.settle(range(BUCKETS))
        if await stores.snapshots.backlog():
            raise StoreUnavailable("Calls were counted meanwhile, or a restore must come first: run it again")

    run(work)
    printing.result({"complete": True}, "PostgreSQL has every call", as_json=as_json)


async def _names(stores: "Stores", user_ids: list[int]) -> dict[int, str]:
    """The users' names; none while PostgreSQL is away, which the ranking does without."""
    try:
        return await stores.roster.names(user_ids)
    except StoreUnavailable:
        return {}


@app.command(
    epilog="Examples:\n\ngatehouse usage export --format csv -o calls.csv\n\n"
    "gatehouse usage export --window day | jq .calls"
)
def export(
    file_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="CSV is for spreadsheets: a name that one would take for a formula has ' before it."
            " JSON Lines has names as they are.",
        ),
    ] = Format.JSONL,
    window: Of = Window.ALL,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file, put in place when it is whole; else standard output."),
    ] = None,
) -> None:
    """Write every user's calls, as of one moment, by user id."""
    from api.commands.exporting import written

    async def work(stores: "Stores") -> int:
        with printing.progress("exporting", None) as advance, written(output, file_format is Format.CSV) as write:
            count = 0
            # Closed here also when a write fails: the pages hold a transaction.
            async with aclosing(stores.exports.pages(window.value)) as pages:
                async for page in pages:
                    write(page)
                    advance(len(page))
                    count += len(page)
            return count

    count = run(work)
    if output is not None:
        printing.note(f"wrote the calls of {count} users to {output}")


@app.command(epilog="Examples:\n\ngatehouse usage reset --user ada\n\ngatehouse usage reset --all --yes")
def reset(
    username: Annotated[str | None, typer.Option("--user", help="Forget the calls of this user.")] = None,
    user_id: Annotated[int | None, typer.Option("--id", min=1, help="The same by id, also of a deleted user.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Forget the calls of all users.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set calls to zero, in both stores and for good. Rate limits are not touched."""
    if [username is not None, user_id is not None, everybody].count(True) != 1:
        raise typer.BadParameter("Say --user, --id or --all: one of them")
    whose = "all users" if everybody else username or f"the user with the id {user_id}"
    confirm(f"The calls of {whose} will be forgotten for good. Go on?", yes)
    run(_reset_all if everybody else lambda stores: _reset_one(stores, username, user_id))
    printing.result(
        {"reset": "all" if everybody else user_id or username}, f"the calls of {whose} are zero", as_json=as_json
    )


async def _reset_one(stores: "Stores", username: str | None, user_id: int | None) -> None:
    await stores.resets.reset_users([user_id or (await stores.roster.find(username)).id])


async def _reset_all(stores: "Stores") -> None:
    with printing.progress("resetting", BUCKETS) as advance:
        async for _ in stores.resets.reset_all():
            advance(1)
