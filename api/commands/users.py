"""`gatehouse user`: accounts."""

import sys
from typing import Annotated

import typer

from api.commands import printing
from api.commands.printing import AsJson
from api.commands.running import UserId, Username, one_of, run, run_for, telling
from models.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Accounts: add, list, disable, enable, set a password.")

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


@app.command(epilog="Examples:\n\ngatehouse user add ada\n\npass show ada | gatehouse user add ada --password-stdin")
def add(
    username: Annotated[str, typer.Argument(help="The new user's name.", metavar="USER")],
    password_stdin: FromStdin = False,
    if_no_users: Annotated[
        bool, typer.Option("--if-no-users", help="Do nothing when there is any account already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create an account; asks for the password."""

    if if_no_users and run(lambda stores: stores.accounts.any()):
        if as_json:
            printing.document(None)
        return
    password = _read_password(username, from_stdin=password_stdin, twice=False)
    user_id = run(lambda stores: stores.accounts.add(username, password))
    printing.result({"id": user_id, "username": username}, f"added {username} (id {user_id})", as_json=as_json)


@app.command(
    "list",
    epilog="Examples:\n\ngatehouse user list --search ada\n\ngatehouse user list --limit 1000 --after 4711 --json",
)
def list_users(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Accounts on this page.")] = 100,
    after: Annotated[int, typer.Option(min=0, help="The last id of the page before.")] = 0,
    search: Annotated[str, typer.Option(help="Only names with this in them, small or capital letters alike.")] = "",
    as_json: AsJson = False,
) -> None:
    """List accounts by their id, a page at a time."""
    found = run(lambda stores: stores.roster.page(after, limit + 1, search))
    from models.roster import Account

    printing.page("users", Account, found, limit, "id", as_json=as_json)


@app.command(epilog="Examples:\n\ngatehouse user disable ada\n\ngatehouse user disable --id 4711")
def disable(username: Username = None, user_id: UserId = None, as_json: AsJson = False) -> None:
    """Keep a user from logging in, and end the session everywhere. To clients the user is unknown."""
    user, changed = run_for(username, user_id, lambda stores, user: stores.roster.disable(user.id))
    sentence = f"disabled {user.username} (id {user.id})" if changed else f"{user.username} was disabled already"
    printing.result({"id": user.id, "username": user.username, "changed": changed}, sentence, as_json=as_json)


@app.command(epilog="Examples:\n\ngatehouse user enable ada")
def enable(username: Username = None, user_id: UserId = None, as_json: AsJson = False) -> None:
    """Let a disabled user log in again."""
    user, changed = run_for(username, user_id, lambda stores, user: stores.roster.enable(user.id))
    sentence = f"enabled {user.username} (id {user.id})" if changed else f"{user.username} was not disabled"
    printing.result({"id": user.id, "username": user.username, "changed": changed}, sentence, as_json=as_json)


@app.command(
    "set-password",
    epilog="Examples:\n\ngatehouse user set-password ada\n\npass show ada | gatehouse user set-password ada"
    " --password-stdin",
)
def set_password(
    username: Username = None, user_id: UserId = None, password_stdin: FromStdin = False, as_json: AsJson = False
) -> None:
    """Give a user another password, and end the session everywhere. Asks for it twice."""
    one_of(username, user_id)

    user = run(lambda stores: stores.roster.find(username, user_id))
    password = _read_password(user.username, from_stdin=password_stdin, twice=True)
    run(lambda stores: stores.roster.set_password(user.id, password))
    sentence = f"{user.username} (id {user.id}) has another password"
    printing.result({"id": user.id, "username": user.username}, sentence, as_json=as_json)


def _read_password(username: str, *, from_stdin: bool, twice: bool) -> str:
    # Not inside the event loop, where the first Ctrl-C would only ask the loop to stop.
    with telling():
        if from_stdin:
            return sys.stdin.readline().rstrip("\r\n")
        if not sys.stdin.isatty():
            raise InvalidInput("There is no terminal to ask for the password: pipe it in with --password-stdin")
        from getpass import getpass

        password = getpass(f"Password for {username}: ")
        if twice and getpass("Once more: ") != password:
            raise InvalidInput("The two are not the same; nothing was changed")
        return password
