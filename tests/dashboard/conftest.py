"""A site with a dashboard as its operator has it: real processes, and a real Chromium in front of them."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from models.connections import Stores, open_stores
from models.devservers import ValkeyServer
from models.settings import Settings
from tests.conftest import Servers, empty
from tests.soak.stage import Process, Stage

KEY = "zR6R1ZwckLoYcFDNiZ6SGJcJDaV0pdEp"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = (1280, 800), (360, 780)
DEADLINE_S = 30.0


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A Redis that may be taken away."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        Path(folder).chmod(0o755)
        with ValkeyServer(Path(folder) / "valkey", durable=False) as server:
            yield server


class Site:
    """The processes, the stores behind them, and what clients do.

    Args:
        stage: what starts processes.
        stores: the domain, for what no test waits to be done over HTTP.
    """

    def __init__(self, stage: Stage, stores: Stores) -> None:
        self.stage = stage
        self.stores = stores
        self.web = stage.web(ADMIN_KEY=KEY, RATE_LIMITS="3/1h", SNAPSHOT_INTERVAL_S="1")

    def start_worker(self) -> Process:
        return self.stage.worker(SNAPSHOT_INTERVAL_S="1")

    async def users(self, *names: str) -> list[str]:
        """Users with sessions; returns their tokens."""
        rows = await self.stores.database.fetch(
            "INSERT INTO users (username, username_key, password_hash, created_at) "
            "SELECT name, name, '', now() FROM unnest($1::text[]) AS name RETURNING id",
            list(names),
        )
        return [await self.stores.sessions.start(row["id"]) for row in rows]

    async def ping(self, *tokens: str) -> list[int]:
        """One call with each; returns the statuses."""
        async with httpx.AsyncClient(base_url=self.web.url) as client:
            calls = (client.get("/ping", headers={"Authorization": f"Bearer {token}"}) for token in tokens)
            return [answer.status_code for answer in await asyncio.gather(*calls)]


@pytest.fixture(scope="session")
def stage(servers: Servers, settings: Settings) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        Path(folder).chmod(0o755)
        with ValkeyServer(Path(folder) / "valkey", durable=False) as valkey:
            own = replace(settings, redis_url=valkey.url, queue_redis_url=valkey.url)
            stage = Stage(Path(folder), servers.postgres, valkey, own)
            yield stage
            for process in stage.processes:
                process.kill()


@pytest.fixture(scope="session")
async def running_site(stage: Stage) -> AsyncIterator[Site]:
    async with open_stores(stage.settings) as stores:
        yield Site(stage, stores)


@pytest.fixture
async def site(running_site: Site) -> AsyncIterator[Site]:
    """A site where nobody has called: web runs, the worker not yet."""
    await empty(running_site.stores)
    yield running_site
    for process in running_site.stage.processes[1:]:
        process.kill()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium; `playwright install` is not needed."""
    if CHROMIUM is None:
        # Where everything has to be there a missing browser is a failure, not a reason.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("Chromium is missing: apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Visit:
    """One page, and whatever it should not have done.

    Args:
        complaints: of the console, and uncaught errors.
        elsewhere: requests to anybody but the site.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(DEADLINE_S * 1000)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._follow)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def _follow(self, request: Request) -> None:
        if not request.url.startswith(self.url + "/"):
            self.elsewhere.append(request.url)

    async def sign_in(self, key: str = KEY) -> None:
        """As an operator does: the field has the focus already."""
        await self.page.goto(f"{self.url}/dashboard")
        await self.page.wait_for_selector("#key:focus")
        await self.page.keyboard.type(key)
        await self.page.keyboard.press("Enter")

    async def look(self) -> None:
        """Sign in, and wait for the first figures."""
        await self.sign_in()
        await self.reach("live")

    async def reach(self, state: str) -> None:
        await self.page.wait_for_selector(f'body[data-state="{state}"]')

    async def says(self, selector: str, text: str) -> None:
        """Wait until an element has this text."""
        await self.page.locator(selector).filter(has_text=text).first.wait_for(state="attached")

    async def rows(self) -> list[list[str]]:
        """The table of top users."""
        found: list[list[str]] = await self.page.evaluate(
            "[...document.querySelectorAll('#top-rows tr')].map("
            "(row) => [row.querySelector('bdi').textContent, row.lastChild.textContent])"
        )
        return found

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.05)

    async def faults(self) -> list[str]:
        """What axe finds, and what does not fit beside each other."""
        found = [f"{it['id']}: {it['nodes'][0]['html']}" for it in (await Axe().run(self.page)).response["violations"]]
        wide = await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found + ([f"{wide} pixels too wide"] if wide > 0 else [])

    async def keep(self, name: str, folder: Path) -> None:
        """A screenshot, for people."""
        await self.page.screenshot(path=folder / f"{name}.png", full_page=True)


Open = Callable[..., Awaitable[Visit]]


@pytest.fixture
async def open_(site: Site, browser: Browser) -> AsyncIterator[Open]:
    """Opens a page in a browser without a past: `open_(scheme="dark", size=PHONE)`."""
    async with AsyncExitStack() as stack:

        async def visit(scheme: Any = "light", size: tuple[int, int] = DESKTOP, **given: Any) -> Visit:
            window: Any = {"width": size[0], "height": size[1]}
            context = await browser.new_context(color_scheme=scheme, viewport=window, reduced_motion="reduce", **given)
            stack.push_async_callback(context.close)
            return Visit(await context.new_page(), site.web.url)

        yield visit


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where screenshots are kept to be looked at: `GATEHOUSE_SHOTS`, or nowhere that lasts."""
    folder = Path(os.environ.get("GATEHOUSE_SHOTS") or tempfile.mkdtemp(prefix="gatehouse-shots-"))
    folder.mkdir(exist_ok=True)
    return folder


@asynccontextmanager
async def nothing_wrong(visit: Visit) -> AsyncIterator[None]:
    """The page complains of nothing and asks nobody else."""
    yield
    assert visit.complaints == []
    assert visit.elsewhere == []
