"""The dashboard while something is away: the server, a store, the first figures, or a place to look from."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from playwright.async_api import Route

from tests.dashboard.conftest import Open, Site


async def test_a_server_that_goes_and_comes_back(site: Site, open_: Open, shots: Path) -> None:
    visit = await open_(scheme="dark")
    (token,) = await site.users("ada")
    await site.ping(token)
    await visit.look()
    await visit.until(lambda: _has_rows(visit.rows()))
    assert await asyncio.to_thread(site.web.stop) == 0
    await visit.reach("disconnected")
    assert "last data" in await visit.page.locator("#status-text").inner_text()
    assert "The server does not answer. These figures are from" in await visit.page.locator("#notices").inner_text()
    assert await visit.rows() == [["ada", "1"]]  # what was known stays, in grey
    assert "grayscale" in await visit.page.locator(".card").first.evaluate("(it) => getComputedStyle(it).filter")
    await visit.keep("disconnected", shots)
    assert await visit.faults() == []
    await asyncio.to_thread(site.web.start)
    await visit.reach("live")
    assert await visit.page.locator("#notices").inner_text() == ""
    refused = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "CONNECTION_RESET")
    assert [said for said in visit.complaints if not any(name in said for name in refused)] == []
    assert visit.elsewhere == []


async def _has_rows(rows: Awaitable[list[list[str]]]) -> bool:
    return bool(await rows)


async def test_a_redis_that_goes_and_comes_back(site: Site, open_: Open, shots: Path) -> None:
    visit = await open_()
    (token,) = await site.users("ada")
    assert await site.ping(token) == [200]
    await visit.look()
    await visit.until(lambda: _has_rows(visit.rows()))
    port = site.stage.valkey.port
    site.stage.valkey.stop()
    await visit.page.wait_for_selector('[data-health="redis"][data-is="away"]')
    await visit.says("#notices", "Redis is away: sessions are checked in PostgreSQL")
    for name in ("calls", "refused", "callers"):
        await visit.says(f'[data-figure="{name}"]', "–")
        await visit.says(f'[data-detail="{name}"]', "Redis is away")
    await visit.says('[data-figure="sessions"]', "1")
    await visit.says("#empty-text", "The counters are in Redis, which is away.")
    await visit.says('[data-health="worker"] .word', "Not known")
    await visit.keep("redis-away", shots)
    assert await visit.faults() == []
    site.stage.valkey.port = port
    await asyncio.to_thread(site.stage.valkey.start)
    await visit.page.wait_for_selector('[data-health="redis"][data-is="good"]')
    assert await visit.page.locator("#notices").inner_text() == ""
    assert visit.complaints == []
    site.web.kill()  # it waits for a worker before it believes this Redis: for the other tests a new one
    await asyncio.to_thread(site.web.start)


async def test_before_the_first_figures(open_: Open, shots: Path) -> None:
    visit = await open_()
    held: list[Route] = []
    await visit.page.route("**/dashboard/events", lambda route: held.append(route))
    await visit.sign_in()
    await visit.reach("loading")
    await visit.until(lambda: _any(held))
    assert await visit.page.locator("#status-text").inner_text() == "Connecting…"
    assert await visit.page.locator("#figures").get_attribute("aria-busy") == "true"
    assert await visit.page.locator("#empty-title").inner_text() == "Connecting"
    await visit.keep("loading", shots)
    assert await visit.faults() == []
    await held[0].continue_()
    await visit.reach("live")
    assert await visit.page.locator("#figures").get_attribute("aria-busy") == "false"
    assert visit.complaints == []


async def _any(held: list[Route]) -> bool:
    return bool(held)


async def test_a_ticket_that_ends_leads_back_to_the_key(open_: Open) -> None:
    visit = await open_()
    await visit.look()
    await visit.page.context.clear_cookies()
    await visit.page.evaluate("document.getElementById('pause').click()")
    await visit.reach("paused")
    await visit.page.evaluate("document.getElementById('pause').click()")
    await visit.page.wait_for_selector("#key")
