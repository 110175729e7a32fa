"""`gatehouse keys`: a rotation step by step, in a file that keeps everything else, without a word about the keys."""

from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest

from models.settings import parse_secret_keys
from models.tokens import TokenSigner
from tests.cli.conftest import Ran, run_here

OLD = "zR6R1ZwckLoYcFDNiZ6SGJcJDaV0pdEp7ov2tgH7"
FILE = """# Settings
POSTGRES_PASSWORD="a # b"\r
export SECRET_KEYS='{keys}'
# SECRET_KEYS=an example
SESSION_TTL_S=60"""


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(FILE.format(keys=OLD), newline="")
    path.chmod(0o600)
    return path


def keys_in(path: Path) -> tuple[str, ...]:
    """The keys of the file, in which nothing else may have changed."""
    with path.open(newline="") as file:
        text = file.read()
    keys = text.partition("SECRET_KEYS='")[2].partition("'")[0]
    assert text == FILE.format(keys=keys)
    return parse_secret_keys(keys)


def rotate(*argv: str, environ: dict[str, str] | None = None) -> Ran:
    return run_here(environ or {}, "keys", "rotate", *argv)


def test_a_new_key_is_one_that_settings_take() -> None:
    keys = {(run_here({}, "keys", "new")).out.strip() for _ in range(3)}
    assert len(keys) == 3
    for key in keys:
        assert parse_secret_keys(key) == (key,)


def test_a_whole_rotation_logs_nobody_out(env_file: Path) -> None:
    """At every step what one process signs, those of the step before and after verify."""
    seen = [keys_in(env_file)]
    for step in ("add", "promote", "retire"):
        ran = rotate("--step", step, "--env-file", str(env_file))
        assert ran.code == 0
        assert "Restart every process" in ran.out
        assert not any(key in ran.out + ran.err for key in keys_in(env_file))
        assert env_file.stat().st_mode & 0o777 == 0o600
        seen.append(keys_in(env_file))
    assert [len(keys) for keys in seen] == [1, 2, 2, 1]
    assert OLD not in seen[-1]
    for before, after in pairwise(seen[:3]):
        for signing, verifying in ((before, after), (after, before)):
            token = TokenSigner(signing).sign(1, 1, 1, bytes(30))
            assert TokenSigner(verifying).verify(token)
    assert [path.name for path in env_file.parent.iterdir()] == [".env"]


def test_the_planted_short_cut_logs_users_out() -> None:
    """So that the test above can fail: a new key that signs at once is unknown to whoever was not restarted."""
    token = TokenSigner((OLD[::-1], OLD)).sign(1, 1, 1, bytes(30))
    assert TokenSigner((OLD,)).verify(token) is None


def test_without_a_step_it_tells_where_the_rotation_is(env_file: Path) -> None:
    assert "begins one" in (rotate("--env-file", str(env_file))).out
    rotate("--step", "add", "--env-file", str(env_file))
    told = rotate("--env-file", str(env_file), "--json")
    assert "promote" in told.document["next"]
    assert "retire" in told.document["next"]
    assert len(told.document["keyIds"]) == 2
    assert OLD not in told.out


def test_keys_are_printed_only_when_asked_for() -> None:
    environ = {"SECRET_KEYS": OLD}
    ran = rotate("--step", "add", environ=environ)
    assert (ran.code, ran.out) == (1, "")
    assert "--show" in ran.err
    assert OLD not in ran.err
    ran = rotate("--step", "add", "--show", environ=environ)
    assert ran.out.startswith(f"{OLD},")
    assert len(parse_secret_keys(ran.out.strip())) == 2


@pytest.mark.parametrize("step", ["promote", "retire"])
def test_a_step_that_is_not_due_changes_nothing(env_file: Path, step: str) -> None:
    ran = rotate("--step", step, "--env-file", str(env_file))
    assert ran.code == 1
    assert "--step add" in ran.err
    assert keys_in(env_file) == (OLD,)


def test_what_is_no_key_is_told_without_it(env_file: Path) -> None:
    for environ in ({"SECRET_KEYS": "a short secret"}, {"SECRET_KEYS": ""}):
        ran = rotate(environ=environ)
        assert ran.code == 1
        assert "shorter" in ran.err
        assert "a short secret" not in ran.err
    env_file.write_text("PORT=1\n")
    assert "it needs one" in (rotate("--env-file", str(env_file))).err
    assert (rotate("--env-file", str(env_file.parent / "none"))).code == 1


def test_a_file_behind_a_link_is_rewritten_where_it_is(env_file: Path) -> None:
    link = env_file.parent / "link"
    link.symlink_to(env_file)
    rotate("--step", "add", "--env-file", str(link))
    assert link.is_symlink()
    assert len(keys_in(env_file)) == 2


def test_the_owner_and_the_group_stay(env_file: Path) -> None:
    """So that the service reads its keys on, and with the group's mode nobody else does."""
    env_file.chmod(0o640)
    # As if somebody else had made the file: only root can give one away for real.
    with patch("api.commands.keys._owners", return_value=(1, 1)), patch("os.fchown") as given:
        assert rotate("--step", "add", "--env-file", str(env_file)).code == 0
    there = env_file.stat()
    assert given.call_args.args[1:] == (there.st_uid, there.st_gid)
    assert there.st_mode & 0o777 == 0o640


def test_a_file_whose_owner_cannot_stay_is_left_as_it_was(env_file: Path) -> None:
    """With another group the same mode would let other people read the keys."""
    env_file.chmod(0o640)
    with (
        patch("api.commands.keys._owners", return_value=(1, 1)),
        patch("os.fchown", side_effect=PermissionError(1, "Operation not permitted")),
    ):
        ran = rotate("--step", "add", "--env-file", str(env_file))
    assert (ran.code, ran.out) == (1, "")
    assert keys_in(env_file) == (OLD,)
    assert [path.name for path in env_file.parent.iterdir()] == [".env"]


def test_a_full_disk_leaves_the_file_as_it_was(env_file: Path) -> None:
    with patch("os.fsync", side_effect=OSError(28, "No space left on device")):
        ran = rotate("--step", "add", "--env-file", str(env_file))
    assert ran.code == 1
    assert keys_in(env_file) == (OLD,)
    assert [path.name for path in env_file.parent.iterdir()] == [".env"]


def test_a_file_that_others_can_read_is_told(env_file: Path) -> None:
    env_file.chmod(0o644)
    ran = rotate("--step", "add", "--env-file", str(env_file))
    assert "chmod 600" in ran.err
    assert env_file.stat().st_mode & 0o777 == 0o644
