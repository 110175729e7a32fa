"""Running a command's one call: settings read, stores opened, and every expected error told in a sentence."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from api.commands.printing import note
from models.errors import ServiceError, SettingsError

if TYPE_CHECKING:
    # What opens stores takes half a second to import: only a command that runs pays for it.
    from models.connections import Stores
    from models.roster import Who
    from models.settings import Settings

T = TypeVar("T")

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

_OF_AN_OLD_SCHEMA = ("42P01", "42703")  # undefined_table, undefined_column
_NOT_ALLOWED = "42501"  # insufficient_privilege

Username = Annotated[str | None, typer.Argument(help="The user's name, in small or capital letters.", metavar="USER")]
UserId = Annotated[int | None, typer.Option("--id", min=1, help="The user's id, in place of the name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]


def read_settings() -> "Settings":
    """The settings of the environment."""
    from models.settings import Settings

    return Settings.from_environ(os.environ)


def run(work: "Callable[[Stores], Awaitable[T]]") -> T:
    """The result of one piece of work on the stores; ends the command when it cannot be had."""
    with telling():
        return asyncio.run(_open_and_run(work, read_settings()))


async def _open_and_run(work: "Callable[[Stores], Awaitable[T]]", settings: "Settings") -> T:
    from models.connections import open_stores

    async with open_stores(settings) as stores:
        return await work(stores)


@contextmanager
def telling() -> Iterator[None]:
    """Turn expected errors into a sentence on standard error and an exit code."""
    # What the domain logs is for services; here the one sentence says it.
    logging.getLogger("gatehouse").addHandler(logging.NullHandler())
    try:
        yield
    except SettingsError as error:
        stop(str(error), MISUSED)
    except ServiceError as error:
        stop(f"gatehouse: {error}", FAILED)
    except BrokenPipeError:
        raise  # nobody reads any more: the entry ends quietly
    except OSError as error:
        stop(f"gatehouse: {error.filename or ''}: {error.strerror or error}".replace(": : ", ": "), FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if (sentence := _refusal(error)) is None:
            raise  # a fault of ours, which needs its traceback
        stop(f"gatehouse: {sentence}", FAILED)


def _refusal(error: BaseException | None) -> str | None:
    """What an operator can do about PostgreSQL's refusal of a statement, by its SQLSTATE."""
    while error is not None:
        state = getattr(error, "sqlstate", None)
        if state in _OF_AN_OLD_SCHEMA:
            return "The database's schema is not up to date: run `gatehouse migrate`"
        if state == _NOT_ALLOWED:
            return f"PostgreSQL refuses ({error}): `gatehouse doctor` says what the role lacks"
        error = error.__cause__
    return None


def stop(message: str, code: int) -> NoReturn:
    """End the command."""
    note(message)
    raise typer.Exit(code)


def run_for(
    username: str | None, user_id: int | None, work: "Callable[[Stores, Who], Awaitable[T]]"
) -> "tuple[Who, T]":
    """The user who was named on the command line, and the result of one piece of work on them."""
    one_of(username, user_id)

    async def find_and_work(stores: "Stores") -> "tuple[Who, T]":
        user = await stores.roster.find(username, user_id)
        return user, await work(stores, user)

    return run(find_and_work)


def one_of(username: str | None, user_id: int | None) -> None:
    """Refuse a command line that names no user, or names one twice."""
    if (username is None) == (user_id is None):
        raise typer.BadParameter("Name the user, or give --id: one of them")


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be taken back, unless it was said already."""
    if yes:
        return
    if not sys.stdin.isatty():
        stop(f"gatehouse: {question} There is no terminal to ask: say --yes", MISUSED)
    if not typer.confirm(question, err=True):
        stop("gatehouse: nothing was done", FAILED)
