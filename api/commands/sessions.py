"""`gatehouse session`: sessions."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.commands import printing
from api.commands.printing import AsJson
from api.commands.running import UserId, Username, Yes, confirm, one_of, run, the_user

if TYPE_CHECKING:
    from models.connections import Stores
    from models.register import Comparison
    from models.roster import Who

app = typer.Typer(no_args_is_help=True, help="Sessions: list, show, revoke.")


@app.command(
    "list", epilog="Examples:\n\ngatehouse session list\n\ngatehouse session list --limit 1000 --after 4711 --json"
)
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Sessions on this page.")] = 100,
    after: Annotated[int, typer.Option(min=0, help="The last user id of the page before.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List the live sessions by their user's id, a page at a time."""
    page = run(lambda stores: stores.register.page(after, limit + 1))
    rows, more = page[:limit], len(page) > limit
    if as_json:
        printing.document({"sessions": rows, "after": rows[-1].user_id if more else None})
        return
    from models.register import LiveSession

    printing.table(LiveSession, rows)
    if more:
        printing.note(f"There are more: --after {rows[-1].user_id}")


@app.command(epilog="Examples:\n\ngatehouse session show ada\n\ngatehouse session show --id 4711 --json")
def show(username: Username = None, user_id: UserId = None, as_json: AsJson = False) -> None:
    """Show what PostgreSQL and Redis have of a user's session, and whether they agree."""
    one_of(username, user_id)

    async def work(stores: "Stores") -> "Comparison":
        return await stores.register.compare((await the_user(stores, username, user_id)).id)

    comparison = run(work)
    if as_json:
        printing.document(comparison)
    else:
        printing.fields(comparison)


@app.command(epilog="Examples:\n\ngatehouse session revoke ada\n\ngatehouse session revoke --all --yes")
def revoke(
    username: Username = None,
    user_id: UserId = None,
    everybody: Annotated[bool, typer.Option("--all", help="End the sessions of all users.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a user's session everywhere, or those of all users."""
    if everybody and username is None and user_id is None:
        confirm("All users will have to log in again. End all sessions?", yes)
        ended = run(_revoke_all)
        printing.result({"ended": ended}, f"ended {ended} sessions", as_json=as_json)
        return
    if everybody:
        raise typer.BadParameter("--all, or one user: not both")
    one_of(username, user_id)

    async def work(stores: "Stores") -> "tuple[Who, bool]":
        user = await the_user(stores, username, user_id)
        return user, await stores.roster.end_session(user.id)

    user, was_live = run(work)
    sentence = f"ended the session of {user.username}" if was_live else f"{user.username} has no session"
    printing.result({"id": user.id, "username": user.username, "ended": int(was_live)}, sentence, as_json=as_json)


async def _revoke_all(stores: "Stores") -> int:
    ended = 0
    with printing.progress("ending sessions", None) as advance:
        async for batch in stores.register.revoke_all():
            ended += batch
            advance(batch)
    return ended
