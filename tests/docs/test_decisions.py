"""`docs/decisions.md` held against `pyproject.toml`: each dependency has its reason there."""

import re
import tomllib
from itertools import chain

from tests.docs.markdown import ROOT, rows, section


def test_every_dependency_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    real = {re.split(r"[\[<>=; ]", requirement)[0] for requirement in wanted} - {project["name"]}
    listed = rows(section((ROOT / "docs/decisions.md").read_text(), "Dependencies"))
    assert {name for cell, _ in listed for name in re.sub(r" \(.*\)", "", cell).split(", ")} == real
