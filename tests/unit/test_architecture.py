"""The house rules that can be read off the code: design, section 7, and style, rules 1 to 6.

Each rule is a function from sources to violations, so that each is also shown a source that breaks it.
"""

import ast
import graphlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_ROUTE_LINES = 15

Sources = dict[str, str]
"""Path from the project's root → text."""

LAYERS: tuple[set[str], ...] = (
    {"credentials", "errors", "events", "findings", "keys", "limits", "line_writer", "local_limits", "log_lines"}
    | {"meters", "orphans", "pace", "policies", "postgres_target", "readings", "records", "redis_target"}
    | {"refreshed", "rotation", "settings", "tasks", "windows"},
    {"cluster", "counters", "tables", "database", "link", "logs", "lua", "replies", "sentinels", "servers", "store"}
    | {"passwords", "pool", "tokens"},
    {"heartbeat", "outage", "publishing", "sessions", "snapshots", "throttle", "usage", "watch"},
    {"accounts", "admin", "candidates", "imports", "operations", "original_counts", "originals"}
    | {"diagnosis", "exports", "postgres_checks", "redis_checks", "register", "rehearsals", "resets", "roster"},
    {"overview"},
    {"connections"},
    {"spans", "tracing"},
)
"""The modules of `models`, the lower first: each imports only its own layer and those before."""

DEVELOPMENT = {"devprocess", "devservers"}
OF_DEVELOPMENT_TOO = {"orphans"}  # it knows nothing of the service
DEVELOPMENT_USERS = ("api/dev.py", "api/devprocfile.py", "models/devservers.py", "tests/")

REDIS_USERS = ("original_counts", "servers")
DRIVERS: dict[str, tuple[str, ...]] = {
    "sanic": ("api/",),
    "arq": ("worker/",),
    "redis": (*(f"models/{name}.py" for name in REDIS_USERS), "worker/main.py", "worker/queue.py"),
    "hiredis": tuple(f"models/{name}.py" for name in ("cluster", "link", "replies", "sentinels", "servers", "store")),
    "asyncpg": ("models/database.py", "models/pool.py"),
    "prometheus_client": ("api/metrics.py",),
    "opentelemetry": ("models/spans.py",),
    "typer": ("api/cli.py", "api/commands/"),
    "rich": ("api/commands/printing.py",),
}
"""A library → who may import it."""


def read(*patterns: str) -> Sources:
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


def code() -> Sources:
    return read("api/**/*.py", "worker/**/*.py", "models/**/*.py")


def scripts() -> Sources:
    return read("models/scripts/*")


def imported(path: str, text: str) -> Iterator[str]:
    """Every module that a file imports, also inside functions; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = Path(path).parts[: -node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if name in layer), None)


def imports_against_the_order(sources: Sources) -> list[str]:
    """`models` by its layers, below `api` and `worker`, which do not know each other; nothing knows the tests."""
    found = []
    for path, text in sources.items():
        folder, name = Path(path).parts[0], Path(path).stem
        banned = {"api": {"worker", "tests"}, "worker": {"api", "tests"}, "models": {"api", "worker", "tests"}}[folder]
        modules = {tuple(module.split(".")) for module in imported(path, text)}
        found += [f"{path} imports {top}" for top in {parts[0] for parts in modules} & banned]
        ours = {
            parts[1] for parts in modules if parts[0] == "models" and len(parts) > 1 and is_module(parts[1], sources)
        }
        if Path(path).parent == Path("models") and name != "__init__":
            if name not in DEVELOPMENT and layer_of(name) is None:
                found.append(f"{path} has no place in LAYERS")
            mine = -1 if name in DEVELOPMENT else layer_of(name)
            found += [
                f"{path} imports models.{other}"
                for other in ours - DEVELOPMENT - (OF_DEVELOPMENT_TOO if name in DEVELOPMENT else set())
                if (layer_of(other) or 0) > (len(LAYERS) if mine is None else mine)
            ]
        if not path.startswith(DEVELOPMENT_USERS):
            found += [f"{path} imports models.{other}" for other in ours & DEVELOPMENT]
    return found


def is_module(name: str, sources: Sources) -> bool:
    return name in DEVELOPMENT or layer_of(name) is not None or f"models/{name}.py" in sources


def entangled_commands(sources: Sources) -> list[str]:
    """The command line and the service know each other only where `api/cli.py` starts `dev`."""
    found = []
    for path, text in sources.items():
        ours = {module for module in imported(path, text) if module.startswith("api.")}
        commands = {module for module in ours if module.startswith("api.commands")}
        if path.startswith("api/commands/"):
            found += [f"{path} imports {module}" for module in ours - commands]
        elif path != "api/cli.py":
            found += [f"{path} imports {module}" for module in commands]
    return found


def import_cycles(sources: Sources) -> list[str]:
    names = {".".join(Path(path).with_suffix("").parts): path for path in sources}
    graph = {name: set(imported(path, sources[path])) & set(names) - {name} for name, path in names.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" → ".join(error.args[1])]
    return []


def drivers_out_of_place(sources: Sources) -> list[str]:
    return [
        f"{path} imports {library}"
        for path, text in sources.items()
        for library, places in DRIVERS.items()
        if not path.startswith(places) and library in {module.split(".")[0] for module in imported(path, text)}
    ]


def long_files(sources: Sources) -> list[str]:
    lengths = {path: len(text.splitlines()) for path, text in sources.items()}
    return [f"{path} has {length} lines" for path, length in lengths.items() if length > MAX_FILE_LINES]


def long_functions(sources: Sources, most_lines: int) -> list[str]:
    return [
        f"{path}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > most_lines
    ]


def branching_routes(sources: Sources) -> list[str]:
    """Coroutines of the edge that catch, loop or run a script themselves; parse, call, answer is all they do."""
    banned = (ast.Try, ast.While, ast.AsyncWith)
    return [
        f"{path}: {function.name} has {type(node).__name__}"
        for path, text in sources.items()
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, banned)
    ]


def headless_scripts(scripts: Sources) -> list[str]:
    """Scripts whose leading comment is missing or leaves out a parameter, the keys or what is returned."""
    found = []
    for path, text in scripts.items():
        lines = text.splitlines()
        end = next((at for at, line in enumerate(lines) if not line.startswith("--")), len(lines))
        header, body = "\n".join(lines[:end]), "\n".join(lines[end:])
        wanted = {"KEYS", "Returns"} if path.endswith(".lua") else set(re.findall(r"\$\d+", body))
        wanted |= {"ARGV"} if "ARGV[" in body else set()
        missing = sorted(word for word in wanted if word not in header)
        if not re.match(r"-- \S", header) or missing:
            found.append(f"{path} lacks a header" + "".join(f" with {word}" for word in missing))
    return found


def misnamed_scripts(sources: Sources, scripts: Sources) -> list[str]:
    """Scripts that are not loaded exactly once, by name, and names for which there is no script."""
    suffixes = {"load_sql": ".sql", "Script": ".lua"}
    loads = [
        f"models/scripts/{node.args[0].value!s}{suffixes[node.func.id]}"
        for path, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in suffixes
        and isinstance(node.args[0], ast.Constant)
    ]
    found = [f"{path} is loaded {loads.count(path)} times" for path in scripts if loads.count(path) != 1]
    return found + [f"{path} does not exist" for path in loads if path not in scripts]


def vague_names(sources: Sources) -> list[str]:
    return [path for path in sources if re.search(r"(utils?|common|core|helpers?|managers?)\.py$", path)]


def test_imports_run_one_way() -> None:
    assert imports_against_the_order(code()) == []
    assert import_cycles(code()) == []
    assert entangled_commands(code()) == []


def test_each_driver_has_its_place() -> None:
    assert drivers_out_of_place(code()) == []


def test_a_file_is_readable_in_one_sitting() -> None:
    assert long_files(code() | scripts() | read("tests/**/*.py")) == []
    assert vague_names(code() | read("tests/**/*.py")) == []


def test_routes_and_jobs_are_three_thoughts() -> None:
    edge = read("api/routes/*.py", "worker/jobs.py")
    assert len(edge) >= 5
    assert long_functions(edge, MAX_ROUTE_LINES) == []
    assert branching_routes(edge) == []


def test_functions_are_short() -> None:
    assert long_functions(code(), MAX_FUNCTION_LINES) == []


def test_every_script_has_a_header_and_one_caller() -> None:
    assert len(scripts()) >= 15
    assert headless_scripts(scripts()) == []
    assert misnamed_scripts(code(), scripts()) == []


GOOD_LUA = {"models/scripts/a.lua": "-- What it does.\n-- KEYS 1 a\n-- Returns nothing\nreturn 1"}
LOADS_A = {"models/store.py": 'A = Script("a")'}

ORDER, DRIVER = imports_against_the_order, drivers_out_of_place
BROKEN: list[tuple[Callable[..., list[str]], tuple[object, ...], str]] = [
    (ORDER, ({"models/tokens.py": "import models.usage"},), "models/tokens.py imports models.usage"),
    (ORDER, ({"models/settings.py": "from models import store"},), "models/settings.py imports models.store"),
    (ORDER, ({"models/settings.py": "from . import store"},), "models/settings.py imports models.store"),
    (ORDER, ({"models/usage.py": "def f():\n  from models.accounts import A"},), "imports models.accounts"),
    (ORDER, ({"models/accounts.py": "from models.connections import Stores"},), "imports models.connections"),
    (ORDER, ({"models/new.py": ""},), "models/new.py has no place"),
    (ORDER, ({"models/devservers.py": "import models.errors"},), "imports models.errors"),
    (ORDER, ({"models/usage.py": "import models.devservers"},), "imports models.devservers"),
    (ORDER, ({"api/app.py": "from models.devservers import free_port"},), "imports models.devservers"),
    (ORDER, ({"models/usage.py": "import api.gate"},), "models/usage.py imports api"),
    (ORDER, ({"api/gate.py": "from worker import jobs"},), "api/gate.py imports worker"),
    (ORDER, ({"worker/jobs.py": "from api.errors import problem"},), "worker/jobs.py imports api"),
    (ORDER, ({"worker/jobs.py": "import tests.conftest"},), "worker/jobs.py imports tests"),
    (import_cycles, ({"api/a.py": "import api.b", "api/b.py": "from api import a"},), "api.a"),
    (DRIVER, ({"models/usage.py": "from redis.asyncio import Redis"},), "models/usage.py imports redis"),
    (DRIVER, ({"worker/jobs.py": "import redis"},), "worker/jobs.py imports redis"),
    (DRIVER, ({"models/sessions.py": "import asyncpg"},), "models/sessions.py imports asyncpg"),
    (DRIVER, ({"worker/main.py": "import sanic.log"},), "worker/main.py imports sanic"),
    (DRIVER, ({"api/app.py": "def f():\n  import arq"},), "api/app.py imports arq"),
    (DRIVER, ({"api/routes/ping.py": "import typer"},), "api/routes/ping.py imports typer"),
    (entangled_commands, ({"api/commands/users.py": "import api.gate"},), "api/commands/users.py imports api.gate"),
    (entangled_commands, ({"api/app.py": "import api.commands.users"},), "api/app.py imports api.commands"),
    (long_files, ({"a.py": "x\n" * 301},), "a.py has 301 lines"),
    (long_functions, ({"a.py": "async def f():\n" + "  x\n" * 15}, 15), "a.py: f has 16 lines"),
    (branching_routes, ({"a.py": "async def f():\n  try: x\n  finally: y"},), "a.py: f has Try"),
    (vague_names, ({"models/utils.py": "", "models/store.py": ""},), "models/utils.py"),
    (headless_scripts, ({"a.lua": "return 1"},), "a.lua lacks a header with KEYS with Returns"),
    (headless_scripts, ({"a.lua": "-- A.\n-- KEYS 1\n-- Returns 1\nreturn ARGV[1]"},), "a header with ARGV"),
    (headless_scripts, ({"a.sql": "-- A.\n--   $1 a\nSELECT $1, $2"},), "a.sql lacks a header with $2"),
    (headless_scripts, ({"a.sql": "SELECT 1"},), "a.sql lacks a header"),
    (misnamed_scripts, ({}, GOOD_LUA), "a.lua is loaded 0 times"),
    (misnamed_scripts, (LOADS_A | {"models/b.py": 'A = Script("a")'}, GOOD_LUA), "a.lua is loaded 2 times"),
    (misnamed_scripts, (LOADS_A | {"models/b.py": 'B = load_sql("b")'}, GOOD_LUA), "b.sql does not exist"),
]


@pytest.mark.parametrize("case", range(len(BROKEN)))
def test_each_rule_can_fail(case: int) -> None:
    check, broken, violation = BROKEN[case]
    (found,) = check(*broken)
    assert violation in found


def test_the_rules_take_what_is_right() -> None:
    good = {
        "models/usage.py": "from models.sessions import Sessions\nfrom models.errors import X",
        "models/servers.py": "import redis\nfrom models.link import Link",
        "api/app.py": "import sanic\nfrom models.connections import Stores\nfrom api.errors import Errors",
        "api/dev.py": "from models.devservers import free_port",
        "worker/main.py": "import arq\nimport redis\nfrom worker.jobs import sync",
    }
    assert imports_against_the_order(good) + import_cycles(good) + drivers_out_of_place(good) == []
    assert headless_scripts(GOOD_LUA) + misnamed_scripts(LOADS_A, GOOD_LUA) == []
