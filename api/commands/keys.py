"""`gatehouse keys`: the keys that sign tokens."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from api.commands import printing
from api.commands.printing import AsJson
from api.commands.running import telling
from models.errors import InvalidInput
from models.rotation import Step as StepName
from models.rotation import advice, find_in_file, ids, new_key, read_keys, replace_in_file, take_step

app = typer.Typer(no_args_is_help=True, help="Signing keys: new, rotate.")


class Step(StrEnum):
    """The steps of a rotation, in their order."""

    ADD = "add"
    PROMOTE = "promote"
    RETIRE = "retire"


@app.command(epilog='Examples:\n\ngatehouse keys new\n\necho "SECRET_KEYS=$(gatehouse keys new)" >> .env')
def new(as_json: AsJson = False) -> None:
    """Print a fresh signing key, a whole value of SECRET_KEYS for a new deployment."""
    key = new_key()
    printing.result({"key": key}, key, as_json=as_json)


@app.command(
    epilog="Examples:\n\ngatehouse keys rotate\n\ngatehouse keys rotate --step add --env-file .env\n\n"
    "gatehouse keys rotate --step promote --show"
)
def rotate(
    step: Annotated[Step | None, typer.Option(help="Take this step; without it, tell where the rotation is.")] = None,
    env_file: Annotated[
        Path | None,
        typer.Option("--env-file", help="Read SECRET_KEYS from this file, and write it there; else the environment."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the new value of SECRET_KEYS.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change the signing keys so that nobody is logged out: add one, promote it, retire the old one.

    Every process is restarted between two steps. Keys are printed only with --show, else their ids.
    """
    with telling():
        keys = read_keys(find_in_file(env_file.read_text()) if env_file else os.environ.get("SECRET_KEYS", ""))
        taken: StepName | None = step.value if step else None
        if taken and not (env_file or show):
            raise InvalidInput("Say --env-file FILE to write the keys, or --show to print them")
        after = take_step(keys, taken) if taken else keys
        if taken and env_file:
            _rewrite(env_file, after)
    _report(after, taken, show=show, as_json=as_json)


def _report(keys: tuple[str, ...], step: StepName | None, *, show: bool, as_json: bool) -> None:
    to_do = advice(keys, step, os.environ.get("SESSION_TTL_S") or "1800")
    if as_json:
        shown = {"secretKeys": ",".join(keys)} if show else {}
        printing.document({"keyIds": ids(keys), "step": step, "next": to_do, **shown})
        return
    if show:
        printing.say(",".join(keys))
    tell = printing.note if show else printing.say
    signing, *others = ids(keys)
    tell(f"signing key: {signing}" + (f"; also verified: {', '.join(others)}" if others else ""))
    tell(to_do)


def _rewrite(path: Path, keys: tuple[str, ...]) -> None:
    from api.commands.exporting import placed

    real = path.resolve()  # what a link leads to, not the link
    with real.open(newline="") as before:
        text = before.read()
    was = real.stat()
    mode = was.st_mode & 0o777
    with placed(real, 0o600) as file:
        # The same owner and group before anybody else may read it: a mode means little without them.
        if (was.st_uid, was.st_gid) != _owners(file.fileno()):
            os.fchown(file.fileno(), was.st_uid, was.st_gid)
        os.fchmod(file.fileno(), mode)
        file.write(replace_in_file(text, keys))
    if mode & 0o077:
        printing.note(f"{path} can be read by others: chmod 600 it")


def _owners(descriptor: int) -> tuple[int, int]:
    there = os.fstat(descriptor)
    return there.st_uid, there.st_gid
