"""The command line: migrate · user add · session revoke · dev."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Sequence

from models.connections import open_stores
from models.database import migrate
from models.errors import InvalidInput, ServiceError, SettingsError
from models.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 could not be done, 2 misused or wrongly set up."""
    arguments = _parser().parse_args(argv)
    if arguments.run is None:
        return dev()
    try:
        settings = Settings.from_environ(os.environ)
        return int(asyncio.run(arguments.run(arguments, settings)))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except ServiceError as error:
        print(f"gatehouse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.cli", description="Operate Gatehouse.")
    nouns = parser.add_subparsers(required=True, metavar="command")
    nouns.add_parser("migrate", help="bring the database's schema up to date").set_defaults(run=run_migrate)
    user = nouns.add_parser("user", help="accounts").add_subparsers(required=True, metavar="action")
    add = user.add_parser("add", help="create an account; asks for the password")
    add.add_argument("username")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    add.add_argument("--if-no-users", action="store_true", help="do nothing when there is any account already")
    add.set_defaults(run=add_user)
    session = nouns.add_parser("session", help="sessions").add_subparsers(required=True, metavar="action")
    revoke = session.add_parser("revoke", help="end a user's session everywhere")
    revoke.add_argument("username")
    revoke.set_defaults(run=revoke_session)
    nouns.add_parser("dev", help="run everything on this machine, stores included").set_defaults(run=None)
    return parser


async def run_migrate(_arguments: argparse.Namespace, settings: Settings) -> int:
    applied = await migrate(settings.database_url)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    return 0


async def add_user(arguments: argparse.Namespace, settings: Settings) -> int:
    async with open_stores(settings) as stores:
        if arguments.if_no_users and await stores.accounts.any():
            return 0
        if arguments.password_stdin:
            password = sys.stdin.readline().rstrip("\r\n")
        elif not sys.stdin.isatty():
            raise InvalidInput("There is no terminal to ask for the password: pipe it in with --password-stdin")
        else:
            password = getpass.getpass(f"Password for {arguments.username}: ")
        user_id = await stores.accounts.add(arguments.username, password)
        print(f"added {arguments.username} (id {user_id})")
    return 0


async def revoke_session(arguments: argparse.Namespace, settings: Settings) -> int:
    async with open_stores(settings) as stores:
        ended = await stores.accounts.revoke_session(arguments.username)
        print(f"ended the session of {arguments.username}" if ended else f"{arguments.username} has no session")
    return 0


def dev() -> int:
    from api.dev import main as run_dev  # needs what only development installs

    return run_dev()


if __name__ == "__main__":
    sys.exit(main())
