"""The dashboard in a real Chromium, on real processes: the way in, what it shows, and to whom."""

import itertools
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Literal

import pytest

from models.keys import BUCKETS, bucket_of
from tests.dashboard.conftest import DESKTOP, KEY, PHONE, Open, Site, Visit, nothing_wrong

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LONG = "W" * 64
MARKUP = "<img src=x onerror=document.title='taken'>"
FIRST = 1_000_000
"""Of ten thousand ids that no other test uses: processes remember names."""

RIGHT_TO_LEFT = "مرحبا ABC 123"

pytestmark = pytest.mark.usefixtures("hour")


async def test_from_the_key_to_live_figures_and_out_again(site: Site, open_: Open, shots: Path) -> None:
    """The whole way once, with the keyboard alone."""
    visit = await open_()
    page, press = visit.page, visit.page.keyboard.press
    async with nothing_wrong(visit):
        await visit.sign_in()
        await visit.reach("live")
        site.start_worker()
        assert await page.locator("#empty-title").inner_text() == "No calls yet"
        await visit.says('[data-figure="calls"]', "0")
        await visit.keep("empty", shots)
        assert await visit.faults() == []

        ada, eva = await site.users("ada", "eva")
        assert sorted(await site.ping(ada, ada, eva, ada, ada, "no token")) == [200, 200, 200, 200, 401, 429]
        await visit.until(lambda: _equal(visit.rows(), [["ada", "3"], ["eva", "1"]]))
        for detail, text in (("refused", "over a limit"), ("callers", "Of all time"), ("shares", "Of 5 calls")):
            await visit.says(f'[data-detail="{detail}"]', text)
        await visit.until(lambda: _positive(page.locator('[data-figure="refused"]').inner_text()))
        await visit.says('[data-figure="callers"]', "2")
        await visit.says('[data-share="cached"]', "100%")
        for name in ("redis", "postgresql", "worker", "snapshot"):
            await page.wait_for_selector(f'[data-health="{name}"][data-is="good"]')
        assert "Admitted now" in (await page.locator("#chart svg").get_attribute("aria-label") or "")

        await _walk_to_the_windows(visit)
        await press("ArrowLeft")  # from all time to today
        await visit.says("#top-caption", "most calls of today")
        await visit.says('[data-detail="callers"]', "Exactly, today")
        assert await visit.rows() == [["ada", "3"], ["eva", "1"]]
        await press("Shift+Tab")
        await press("Enter")
        await page.wait_for_selector("#key")
        await page.goto(f"{visit.url}/dashboard")
        assert await page.locator("#key").is_visible()


async def _walk_to_the_windows(visit: Visit) -> None:
    """With the key Tab, on the way pausing and going on."""
    page, press = visit.page, visit.page.keyboard.press
    focused = []
    await page.evaluate("document.activeElement.blur()")
    for _ in range(4):
        await press("Tab")
        focused.append(await page.evaluate("document.activeElement.textContent || document.activeElement.value"))
        outline = await page.evaluate("(it => getComputedStyle(it).outlineStyle)(document.activeElement)")
        assert outline == "solid", focused
        if len(focused) == 2:
            await press("Enter")
            await visit.reach("paused")
            await press("Enter")
            await visit.reach("live")
    assert focused == ["Skip to the figures", "Pause", "Sign out", "all"]


async def _equal(found: Awaitable[Any], wanted: object) -> bool:
    return bool(await found == wanted)


async def _positive(text: Awaitable[str]) -> bool:
    return await text not in ("–", "0", "0.0")


async def test_a_wrong_key_is_announced_and_another_try_opens(open_: Open, shots: Path) -> None:
    visit = await open_(scheme="dark", size=PHONE)
    await visit.sign_in("a key that nobody has set")
    alert = visit.page.get_by_role("alert")
    await alert.wait_for()
    assert await alert.inner_text() == "This is not the admin key"
    assert await visit.page.evaluate("document.activeElement.id") == "key"
    assert await visit.page.input_value("#key") == ""
    await visit.keep("wrong-key", shots)
    assert await visit.faults() == []
    await visit.page.keyboard.type(KEY)
    await visit.page.keyboard.press("Enter")
    await visit.reach("live")
    # A browser notes any answer of 401 in the console.
    assert [said for said in visit.complaints if "401" not in said] == []
    assert visit.elsewhere == []


async def test_it_suits_everybody_and_names_are_only_text(site: Site, open_: Open, shots: Path) -> None:
    """In both schemes and sizes, with names that want to be something else."""
    names = [LONG, MARKUP, RIGHT_TO_LEFT, "ada", "</script><script>document.title='taken'</script>"]
    assert set(await site.ping(*await site.users(*names))) == {200}
    visit = await open_()
    async with nothing_wrong(visit):
        await visit.look()
        await visit.until(lambda: _equal(visit.rows(), [[name, "1"] for name in names]))
        assert await visit.page.title() == "Gatehouse"
        assert await visit.page.locator("main img, main script").count() == 0
        for scheme, (width, height) in itertools.product(SCHEMES, (DESKTOP, PHONE)):
            await visit.page.emulate_media(color_scheme=scheme)
            await visit.page.set_viewport_size({"width": width, "height": height})
            assert await visit.faults() == []
            await visit.keep(f"names-{scheme}-{width}", shots)


async def test_ten_thousand_users(site: Site, open_: Open, shots: Path, hour: int) -> None:
    users = range(FIRST, FIRST + 10_000)
    statements = (
        "INSERT INTO users (id, username, username_key, password_hash, created_at) SELECT n, 'user ' || n, n, ''"
    )
    statements += ", now() FROM generate_series($1::bigint, $1 + 9999) AS n"
    await site.stores.database.fetch(statements, FIRST)
    await site.stores.database.fetch(
        "INSERT INTO sessions (user_id, version, token_digest, created_at, expires_at, changed_at) "
        "SELECT id, id, '', now(), now() + interval '1 hour', now() FROM users"
    )
    for bucket in range(BUCKETS):
        members = [uid for uid in users if bucket_of(uid) == bucket]
        await site.stores.store.add_calls(bucket, [(f"{uid}:{hour}", _calls(uid)) for uid in members])
    visit = await open_()
    async with nothing_wrong(visit):
        await visit.look()
        top = [[f"user {uid}", f"{_calls(uid):,}"] for uid in users[:10]]
        await visit.until(lambda: _equal(visit.rows(), top))
        await visit.says('[data-figure="sessions"]', "10,000")
        await visit.page.get_by_label("This hour").check()
        await visit.says('[data-figure="callers"]', "10,000")
        assert await visit.faults() == []
        await visit.keep("ten-thousand", shots)


def _calls(user_id: int) -> int:
    return 1 + 10_000 // (user_id - FIRST + 1)


async def test_without_javascript_it_says_so(site: Site, open_: Open) -> None:
    visit = await open_(java_script_enabled=False)
    await visit.sign_in()
    said = visit.page.locator("noscript p")
    await said.wait_for()
    assert "draws live figures with JavaScript" in await said.inner_html()
