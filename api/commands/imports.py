"""`gatehouse import`: what another service leaves behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from api.commands import printing
from api.commands.exporting import harmless, placed
from api.commands.printing import AsJson
from api.commands.running import run, telling
from models.errors import InvalidInput

if TYPE_CHECKING:
    from models.connections import Stores
    from models.imports import Refusal, Report

app = typer.Typer(no_args_is_help=True, help="Imports: the users of the service that Gatehouse replaces.")

SHOWN = 20

EXAMPLES = (
    "Examples:\n\ngatehouse import users --from postgres://user@host/original --dry-run\n\n"
    "gatehouse import users --from dump.sql --rejected rejected.csv --counts-from redis://host:6379/0"
)


@app.callback()
def imports() -> None:
    """Keep `users` a command of its own, as there is no other one yet."""


class PlainPasswords(StrEnum):
    """What to do with passwords that were kept in plain text."""

    REFUSE = "refuse"
    SKIP = "skip"
    HASH = "hash"


From = Annotated[
    str,
    typer.Option(
        "--from",
        envvar="IMPORT_FROM",
        help="postgres://…, a dump of pg_dump (plain, with COPY), or a .csv with a line of names. An address with a"
        " password is safer in the variable: other users of this machine see command lines.",
    ),
]
NewIds = Annotated[bool, typer.Option("--new-ids", help="Give everybody an id of ours, in place of the original's.")]
Plain = Annotated[
    PlainPasswords,
    typer.Option(
        "--plain-passwords", help="Plain-text passwords: import nobody, all others, or hash them (20 ms each)."
    ),
]
CountsFrom = Annotated[
    str,
    typer.Option(
        "--counts-from",
        envvar="IMPORT_COUNTS_FROM",
        help="redis://… of the original: take over the users' call totals too.",
    ),
]
Rejected = Annotated[
    Path | None, typer.Option("--rejected", help="Write who was refused to this file, as CSV.", dir_okay=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing, and tell what would be done.")]


@app.command("users", epilog=EXAMPLES)
def import_users(
    source: From,
    new_ids: NewIds = False,
    plain_passwords: Plain = PlainPasswords.REFUSE,
    counts_from: CountsFrom = "",
    rejected: Rejected = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take over the users of the original, with their bcrypt hashes: all of them that can, or none.

    Running it again adds who is new and changes nobody who is here. Sessions are not taken over.
    """
    shown: list[Refusal] = []

    with telling(), _told(rejected, shown) as tell:

        async def work(stores: "Stores") -> "Report":
            from models.imports import Wishes

            wishes = Wishes(new_ids, plain_passwords.value, dry_run)
            return await stores.imports.import_users(source, wishes, counts_from, tell)

        report = run(work)
    if as_json:
        printing.document({"dryRun": dry_run, **msgspec.to_builtins(report), "first": shown})
    else:
        _print(report, shown, dry_run, rejected)


@contextmanager
def _told(path: Path | None, shown: "list[Refusal]") -> "Iterator[Callable[[Refusal], None]]":
    """Keeps the first refusals, and writes all to a file if there is to be one."""

    def keep(refusal: "Refusal") -> None:
        if len(shown) < SHOWN:
            shown.append(refusal)

    if path is None:
        yield keep
        return
    with placed(path) as file:
        file.write("line,id,username,reason\r\n")

        def write(refusal: "Refusal") -> None:
            keep(refusal)
            try:
                file.write(_csv(refusal))
            except OSError as error:  # which would be taken for one of the database
                raise InvalidInput(f"{path} cannot be written, and nothing was imported: {error.strerror}") from error

        yield write


def _csv(refusal: "Refusal") -> str:
    import csv
    import io

    line = io.StringIO()
    # The name as it is shown is quoted, which also keeps a spreadsheet from taking it for a formula.
    csv.writer(line).writerow([refusal.line, refusal.id or "", harmless(f"'{refusal.shown}'"), refusal.reason])
    return line.getvalue()


def _print(report: "Report", shown: "list[Refusal]", dry_run: bool, rejected: Path | None) -> None:
    refused = sum(report.refused.values())
    if dry_run:
        printing.say("nothing was changed; this is what would be done")
    disabled = f", {report.disabled} of them disabled, as they were deleted" if report.disabled else ""
    printing.say(f"imported       {report.imported}{disabled}")
    printing.say(f"already there  {report.there}")
    printing.say(f"refused        {refused}")
    if report.calls is not None:
        printing.say(f"call totals    {report.calls}")
    for one in shown:
        printing.say(f"  line {one.line}: {one.shown!r}: {one.reason}")
    if refused > len(shown):
        more = f"they are in {rejected}" if rejected else "--rejected FILE writes them all"
        printing.say(f"  and {refused - len(shown)} more: {more}")
