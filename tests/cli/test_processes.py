"""`gatehouse` as a process: exit codes, pipes, terminals, Ctrl-C, completion, and how soon help is there."""

import asyncio
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.connections import Stores
from models.devservers import free_port
from tests.cli.conftest import environment, run_here

Start = Callable[..., "subprocess.Popen[str]"]
DEADLINE_S = 60
HEAVY = ("sanic", "asyncpg", "tortoise", "redis", "arq", "passlib", "models.connections", "rich.progress")


def test_help_and_completion_import_nothing_heavy(start: Start) -> None:
    script = (
        "import sys, api.cli\nfor line in ('--help', 'usage export --help', '--version', 'keys new'):\n"
        "    assert api.cli.main(line.split()) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    process = start(program=[sys.executable, "-c", script])
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "[]\n"), out


def test_every_command_has_help_with_an_example(start: Start) -> None:
    commands = ["migrate", "dev", "doctor", "load", "user add", "user list", "user disable", "user enable"]
    commands += ["user set-password", "session list", "session show", "session revoke"]
    commands += ["usage top", "usage export", "usage reset", "keys new", "keys rotate"]
    script = (
        "import sys, api.cli\nfor command in sys.stdin.read().splitlines():\n"
        "    print(chr(12) + command, flush=True)\n    assert api.cli.main([*command.split(), '--help']) == 0\n"
    )
    process = start(program=[sys.executable, "-c", script])
    out, _ = process.communicate("\n".join(commands), timeout=DEADLINE_S)
    pages = out.split("\f")[1:]
    assert len(pages) == len(commands)
    for command, page in zip(commands, pages, strict=True):
        assert f"gatehouse {command}" in page.partition("Examples:")[2], command


def test_the_installed_script_answers_as_the_module(start: Start) -> None:
    script = shutil.which("gatehouse", path=str(Path(sys.executable).parent))
    if script is None:  # not installed into this environment: its entry point is what pyproject names
        entry = (Path(__file__).parents[2] / "pyproject.toml").read_text()
        assert 'gatehouse = "api.cli:main"' in entry
        program = [sys.executable, "-c", "import sys; from api.cli import main; sys.exit(main())"]
    else:
        program = [script]
    answers = []
    for command in (program, None):
        process = start("--version", program=command)
        answers.append((process.communicate(timeout=DEADLINE_S)[0], process.returncode))
    assert answers[0] == answers[1]
    assert re.fullmatch(r"gatehouse \d+\.\d+\.\d+\n", answers[0][0])


AWAY = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (["user", "list"], {}, 0, ""),
        (["user", "enable", "nobody"], {}, 1, "There is no user 'nobody'"),
        (["user", "list"], {"DATABASE_URL": f"postgres://app@{AWAY}/gatehouse"}, 1, "PostgreSQL is away"),
        (["usage", "top"], {"REDIS_URL": f"redis://{AWAY}/0"}, 1, "Redis is away"),
        (["user", "list"], {"DATABASE_URL": ""}, 2, "DATABASE_URL: missing"),
        (["user", "list", "--limit", "0"], {}, 2, "--limit"),
        (["user", "lsit"], {}, 2, "lsit"),
        (["usage", "export", "--format", "xml"], {}, 2, "xml"),
    ],
)
async def test_exit_codes(stores: Stores, arguments: list[str], environ: dict[str, str], code: int, said: str) -> None:
    ran = await asyncio.to_thread(run_here, environment(stores.settings) | environ, *arguments)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert code == 0 or ran.out == ""


def test_a_process_ends_with_the_exit_code_of_its_command(start: Start) -> None:
    for arguments, code in ((["user", "enable", "nobody"], 1), (["user", "lsit"], 2)):
        process = start(*arguments)
        _, err = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, "Traceback" in err) == (code, False)


async def test_a_schema_that_is_missing_is_told(stores: Stores, start: Start) -> None:
    await stores.database.fetch("CREATE DATABASE bare")
    try:
        url = stores.settings.database_url.replace("/gatehouse", "/bare")
        process = start("user", "list", environ={"DATABASE_URL": url})
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert err == "gatehouse: The database's schema is not up to date: run `gatehouse migrate`\n"
    finally:
        await stores.database.fetch("DROP DATABASE bare WITH (FORCE)")


@pytest.mark.parametrize("arguments", [["usage", "export"], ["--help"]])
async def test_a_reader_that_goes_away_is_no_fault(stores: Stores, start: Start, arguments: list[str]) -> None:
    await stores.database.fetch("INSERT INTO call_totals SELECT n, 1, now() FROM generate_series(1, 20000) AS n")
    with start(*arguments) as process:
        process.stdout.close()  # type: ignore[union-attr]
        assert process.stderr.read() == ""  # type: ignore[union-attr]
        assert process.wait(DEADLINE_S) == 1


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, start: Start, *argv: str, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        options = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        # The first terminal that the leader of a session opens is the one that Ctrl-C comes from.
        name = os.ttyname(theirs)
        self.process = start(
            *argv, environ=environ, preexec_fn=lambda: os.close(os.open(name, os.O_RDWR)), text=False, **options
        )
        os.close(theirs)
        self.said = ""

    def read_until(self, pattern: str) -> None:
        end_at = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.said):
            assert time.monotonic() < end_at, self.said
            assert self._read(), self.said

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], DEADLINE_S)
        try:
            data = os.read(self._ours, 65_536) if ready else b""
        except OSError:  # the other side is closed
            data = b""
        self.said += data.decode()
        return bool(data)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(DEADLINE_S)


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


async def test_on_a_terminal_there_is_a_table_in_which_a_name_is_no_markup(stores: Stores, start: Start) -> None:
    await stores.accounts.add("[red]ada[/red]", "password")
    listing = Terminal(start, "user", "list", TERM="xterm")
    assert listing.end() == 0
    assert "[red]ada[/red]" in listing.said
    assert "─" in listing.said


@pytest.mark.parametrize("no_color", ["", "1"])
@pytest.mark.usefixtures("stores")
def test_colour_is_only_where_it_is_wanted(start: Start, no_color: str) -> None:
    doctor = Terminal(start, "doctor", TERM="xterm", NO_COLOR=no_color)
    assert doctor.end() == 1
    coloured = [code for code in COLOUR.findall(doctor.said) if re.search(r"3[0-9]", code)]
    assert bool(coloured) is not bool(no_color)


async def test_a_password_is_asked_for_twice_and_never_shown(stores: Stores, start: Start) -> None:
    await stores.accounts.add("ada", "password")
    terminal = Terminal(start, "user", "set-password", "ada")
    terminal.read_until("Password for ada: ")
    terminal.type("a new one\n")
    terminal.read_until("Once more: ")
    terminal.type("a new one\n")
    assert terminal.end() == 0
    assert "a new one" not in terminal.said
    assert await stores.accounts.log_in("ada", "a new one")


async def test_two_passwords_that_differ_change_nothing(stores: Stores, start: Start) -> None:
    await stores.accounts.add("ada", "password")
    terminal = Terminal(start, "user", "set-password", "ada")
    terminal.read_until("Password for ada: ")
    terminal.type("a new one\n")
    terminal.read_until("Once more: ")
    terminal.type("another\n")
    assert terminal.end() == 1
    assert "nothing was changed" in terminal.said
    assert await stores.accounts.log_in("ada", "password")


async def test_ctrl_c_at_a_question_ends_it(stores: Stores, start: Start) -> None:
    await stores.accounts.add("ada", "password")
    for command, question in ((["user", "set-password", "ada"], "Password"), (["session", "revoke", "--all"], "y/N")):
        terminal = Terminal(start, *command)
        terminal.read_until(question)
        terminal.type("\x03")
        assert terminal.end() in (1, 130)
        assert "Traceback" not in terminal.said


async def test_ctrl_c_in_the_middle_says_what_is_left_and_removes_nothing(stores: Stores, start: Start) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    process = start("load", "--users", "20", "--seconds", "600", "--url", away, "--clean")
    async with asyncio.timeout(DEADLINE_S):
        while len(await stores.register.page()) < 20:
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.to_thread(process.communicate, timeout=DEADLINE_S)
    assert (process.returncode, out) == (130, "")
    left = re.fullmatch(r"cut short; 20 users are left: gatehouse (load --remove [0-9a-f]{8})\n", err)
    assert left, err
    ran = await asyncio.to_thread(run_here, environment(stores.settings), *left[1].split())
    assert ran.out == "removed 20 users\n"
    assert await stores.roster.page() == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(start: Start, shell: str) -> None:
    process = start(environ={"_GATEHOUSE_COMPLETE": f"source_{shell}"})
    script, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "_GATEHOUSE_COMPLETE=complete_" in script
    assert shutil.which(shell) is None or subprocess.run([shell, "-n"], input=script, text=True, check=True)


OFFERED = {
    "gatehouse us": {"user", "usage"},
    "gatehouse user en": {"enable"},
    "gatehouse usage top --win": {"--window"},
    "gatehouse usage top --window ": {"hour", "day", "all"},
    "gatehouse keys rotate --step p": {"promote"},
}
"""What is typed → what the shell offers."""


def test_bash_completes_commands_options_and_choices(start: Start, tmp_path: Path) -> None:
    """Bash itself, with the script that `--show-completion` prints, asks the real program."""
    program = tmp_path / "gatehouse"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.cli "$@"\n')
    program.chmod(0o755)
    script = f"""
PATH={tmp_path}:$PATH
eval "$(_GATEHOUSE_COMPLETE=source_bash gatehouse)"
completing=$(complete -p gatehouse | sed 's/.*-F \\([^ ]*\\).*/\\1/')
while IFS= read -r COMP_LINE; do
  read -ra COMP_WORDS <<< "$COMP_LINE"
  [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
  COMP_POINT=${{#COMP_LINE}} COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
  "$completing" gatehouse < /dev/null
  echo "${{COMPREPLY[@]}}"
done
"""
    process = start(program=["bash", "--norc", "-c", script])
    out, err = process.communicate("".join(f"{line}\n" for line in OFFERED), timeout=DEADLINE_S)
    assert [set(line.split()) for line in out.splitlines()] == list(OFFERED.values()), err
