"""An original to import from, and ours to import into."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from models.connections import Stores
from models.imports import Refusal, Report, Wishes
from tests.conftest import Servers
from tests.imports.original import Original, original

Imported = tuple[Report, list[Refusal]]
Import = Callable[..., Coroutine[Any, Any, Imported]]


@pytest.fixture
async def theirs(servers: Servers) -> AsyncIterator[Original]:
    async with original(servers.postgres) as opened:
        yield opened


@pytest.fixture
def take(stores: Stores) -> Import:
    """Imports: `await take(source, new_ids=True)`; returns the report and who was refused."""

    async def imported(source: object, counts_from: str = "", **wishes: object) -> Imported:
        refused: list[Refusal] = []
        report = await stores.imports.import_users(str(source), Wishes(**wishes), counts_from, refused.append)  # type: ignore[arg-type]
        return report, refused

    return imported
