"""`docs/reference.md` held against the code, both ways: what is there is told, and what is told is there."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import typer

from api import cli, errors, refusals
from api.openapi import document
from models import keys, settings
from tests.conftest import Servers
from tests.docs.markdown import ROOT, names, rows, section
from worker import jobs
from worker.job import job

REFERENCE = (ROOT / "docs/reference.md").read_text()
COUNTERS_OF_TOOLS = {"tortoise_migrations"}
"""Tables that are not ours."""


def told(heading: str) -> list[list[str]]:
    """The rows of a section's tables."""
    found = list(rows(section(REFERENCE, heading)))
    assert found, heading
    return found


def code_of(cell: str) -> str:
    (name,) = names(cell)
    return name


def test_every_setting_is_told_with_its_default() -> None:
    defaults = {"DATABASE_URL": None, "REDIS_URL": None, "SECRET_KEYS": None, "ARQ_REDIS_URL": "REDIS_URL"}
    defaults |= dict.fromkeys(("METRICS_KEY", "ADMIN_KEY"), "")
    environ = dict.fromkeys(("DATABASE_URL", "REDIS_URL", "SECRET_KEYS"), "")
    least = settings.Settings("postgres://h/d", "redis://h", "redis://h", ("k",))
    assert set(settings._OPTIONAL) == {name.lower() for name in _variables()} - {n.lower() for n in defaults}
    for variable, default in _variables().items():
        if variable in environ:
            assert default == "required", variable
        elif variable in defaults:
            assert default == (f"`{defaults[variable]}`" if defaults[variable] else "none"), variable
        else:
            value = getattr(least, variable.lower())
            parse, _ = settings._OPTIONAL[variable.lower()]
            assert (parse(default.strip("`")) if default != "none" else "") == value, variable


def _variables() -> dict[str, str]:
    """Variable → the cell of its default."""
    found: dict[str, str] = {}
    for cell, default, *_ in told("Settings"):
        found |= dict(zip(names(cell), default.split(", ") if len(names(cell)) > 1 else [default], strict=True))
    return found


def test_the_example_file_has_every_setting() -> None:
    example = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for_others = {"POSTGRES_PASSWORD", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert example - for_others == set(_variables()) - {"HOST"}  # compose listens everywhere inside


@pytest.fixture
def description(settings: Any) -> dict[str, Any]:
    return document(replace(settings, metrics_key="k" * 24))


def _codes(response: dict[str, Any]) -> set[str]:
    name = response.get("$ref", "").rpartition("/")[2]
    return set(refusals.REFUSALS[name].codes) if name else set()


def test_every_route_is_told_with_its_own_refusals(description: dict[str, Any]) -> None:
    everywhere = {code for name in refusals._EVERYWHERE for code in refusals.REFUSALS[name].codes}
    real = {}
    for path, operations in description["paths"].items():
        for method in operations.keys() - {"parameters"}:
            if (path != "/verify" or method == "get") and not path.startswith("/docs/"):
                answers = operations[method]["responses"].values()
                codes = {code for answer in answers for code in _codes(answer)}
                real[f"{method.upper()} {path}"] = codes - everywhere
    assert {names(route)[0]: set(names(refused)) for route, *_, refused in told("Routes")} == real


def test_every_error_is_told_with_its_status() -> None:
    real = {(refusal.status, code) for refusal in refusals.REFUSALS.values() for code in refusal.codes}
    real |= {(status, kind.code) for kind, status in errors.STATUS.items()}
    real = {(status, code) for status, code in real if status != 403 or code == "signup_disabled"}
    real |= {(401, "not_signed_in"), (403, "foreign_form"), (503, "too_many_viewers")}  # of the dashboard's pages
    listed = {(int(code_of(status)), code_of(code)) for status, code, _ in told("Errors") if len(names(code)) == 1}
    assert listed == real


def test_every_header_field_is_told() -> None:
    fields = {re.sub("^(Optional|Kept)-", "", name) for name in refusals.FIELDS}
    assert {name for cell, *_ in told("Header fields of answers") for name in names(cell)} == fields


def test_every_key_is_told_with_its_type() -> None:
    dictionary = re.findall(r"^    (gate:\S+) +((?:\S+ )*\S+)  ", str(keys.__doc__), re.MULTILINE)
    assert {(code_of(key), kind) for key, kind, *_ in told("Redis keys")} == set(dictionary)


async def test_every_table_is_told_with_its_columns(servers: Servers) -> None:
    connection = await asyncpg.connect(servers.postgres.url)
    try:
        found = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
    finally:
        await connection.close()
    real: dict[str, set[str]] = {}
    for table, column in found:
        if table not in COUNTERS_OF_TOOLS:
            real.setdefault(table, set()).add(column)
    assert {code_of(table): set(names(columns)) for table, columns, _ in told("Tables")} == real


def test_every_job_is_told() -> None:
    real = {name for name, found in vars(jobs).items() if hasattr(found, "__wrapped__") and found is not job}
    assert {code_of(name) for name, *_ in told("Jobs")} == real


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Each command and its long options."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*path, name))
    else:
        options = {option for parameter in command.params for option in parameter.opts}
        yield " ".join(path), {option for option in options if option.startswith("--")}


def test_every_command_is_told_with_its_options() -> None:
    real = dict(_commands(typer.main.get_command(cli.app)))
    assert {code_of(command): set(names(options)) for command, _, options in told("Command line")} == real


def test_every_metric_is_told() -> None:
    made = set(re.findall(r'"(gatehouse_[a-z_]+)"', (ROOT / "api/metrics.py").read_text()))
    assert {code_of(metric).removesuffix("_total") for metric, *_ in told("Metrics")} == made
