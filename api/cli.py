"""The command line `gatehouse`, also `python -m api.cli`: what there is, and where it is.

Nothing here imports a driver or a framework: `gatehouse --help` and completion answer at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from api.commands import doctor, imports, keys, load, sessions, usage, users
from api.commands.printing import AsJson, result
from api.commands.running import DONE, FAILED, read_settings, telling

app = typer.Typer(
    name="gatehouse",
    help="Operate Gatehouse.",
    epilog="Settings are read from the environment: DATABASE_URL, REDIS_URL, SECRET_KEYS and more, see"
    " docs/reference.md. Exit codes: 0 done, 1 could not be done, 2 misused or wrongly set up, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, and with them secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(users.app, name="user")
app.add_typer(sessions.app, name="session")
app.add_typer(usage.app, name="usage")
app.add_typer(imports.app, name="import")
app.add_typer(keys.app, name="keys")
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(epilog=load.EXAMPLES)(load.load)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 could not be done, 2 misused or wrongly set up."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name is printed on any terminal
    try:
        app(list(argv) if argv is not None else None, prog_name="gatehouse")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    else:
        code = DONE
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # as in `gatehouse user list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"gatehouse {version_of('gatehouse')}\n")
        raise typer.Exit


@app.callback()
def gatehouse(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Operate Gatehouse."""


@app.command(epilog="Examples:\n\ngatehouse migrate")
def migrate(as_json: AsJson = False) -> None:
    """Bring the database's schema up to date."""
    import asyncio

    with telling():
        settings = read_settings()
        from models.database import migrate as run_migrations

        applied = asyncio.run(run_migrations(settings.database_url))
    sentence = "\n".join(f"applied {name}" for name in applied) or "the schema is up to date"
    result({"applied": applied}, sentence, as_json=as_json)


@app.command(epilog="Examples:\n\ngatehouse dev\n\nPORT=9000 DEV_DIR=/tmp/gatehouse gatehouse dev")
def dev() -> None:
    """Run everything on this machine, stores included, until Ctrl-C."""
    from api.dev import main as run_dev  # needs what only development installs

    raise typer.Exit(run_dev())


if __name__ == "__main__":
    sys.exit(main())
