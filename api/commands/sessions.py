"""`gatehouse session`: sessions."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.commands import printing
from api.commands.printing import AsJson
from api.commands.running import UserId, Username, Yes, confirm, run, run_for

if TYPE_CHECKING:
    from models.connections import Stores

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
    found = run(lambda stores: stores.register.page(after, limit + 1))
    from models.register import LiveSession

    printing.page("sessions", LiveSession, found, limit, "user_id", as_json=as_json)


@app.command(epilog="Examples:\n\ngatehouse session show ada\n\ngatehouse session show --id 4711 --json")
def show(username: Username = None, user_id: UserId = None, as_json: AsJson = False) -> None:
    """Show what PostgreSQL and Redis have of a user's session, and whether they agree."""
    _, comparison = run_for(username, user_id, lambda stores, user: stores.register.compare(user.id))
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
    user, was_live = run_for(username, user_id, lambda stores, user: stores.roster.end_session(user.id))
    sentence = f"ended the session of {user.username}" if was_live else f"{user.username} has no session"
    printing.result({"id": user.id, "username": user.username, "ended": int(was_live)}, sentence, as_json=as_json)


async def _revoke_all(stores: "Stores") -> int:
    ended = 0
    with printing.progress("ending sessions", None) as advance:
        async for batch in stores.register.revoke_all():
            ended += batch
            advance(batch)
    return ended
