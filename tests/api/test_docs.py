"""The page for people: its files are the ones that were looked at, and it asks nobody but us for anything."""

import gzip
import hashlib
import os
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from api.viewer import FOLDER, KEEP, POLICY, SCRIPT
from tests.api.conftest import Api, decoded
from tests.api.openapi_rules import operations

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OURS = {"page.html", "VENDORED.md"}
VENDORED = re.compile(r"^\| `(\S+)` \| `\S+` \| `([0-9a-f]{64})` \|$", re.MULTILINE)

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists() and "CI" not in os.environ, reason="there is no /usr/bin/chromium to look at the page with"
)


def altered(folder: Path) -> list[str]:
    """Files that are not as VENDORED.md has them, or are only there or only here."""
    listed = dict(VENDORED.findall((folder / "VENDORED.md").read_text()))
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return sorted({name for name in {*listed, *there} - OURS if listed.get(name) != there.get(name)})


def test_the_vendored_files_are_as_they_came(tmp_path: Path) -> None:
    assert altered(FOLDER) == []
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() + (b" " if path.name == SCRIPT else b""))
    (tmp_path / "new.js").touch()
    assert altered(tmp_path) == ["new.js", SCRIPT]


def test_the_page_and_its_script_are_served(api: Api) -> None:
    page = api.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe-eval" not in POLICY
    assert re.search("script-src ([^;]*);", POLICY)[1] == "'self'"  # type: ignore[index]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert f'src="/docs/{SCRIPT}"' in page.text
    script = api.get(f"/docs/{SCRIPT}", headers={"Accept-Encoding": "br, gzip"})
    assert (script.headers["cache-control"], script.headers["vary"]) == (KEEP, "Accept-Encoding")
    assert script.content == (FOLDER / SCRIPT).read_bytes()
    assert script.headers["x-content-type-options"] == "nosniff"
    assert api.request("HEAD", f"/docs/{SCRIPT}").content == b""
    assert api.get("/docs/page.html").status_code == 404


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("GZIP;q=0.5", True), ("br,gzip ; q=1", True), ("", False), ("br", False), ("gzip;q=0", False)],
)
def test_who_takes_gzip_gets_it(api: Api, accepted: str, compressed: bool) -> None:
    given = f"GET /docs/{SCRIPT} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accepted}\r\n\r\n".encode()
    _, headers, body = api.raw(given)
    assert headers.get("content-encoding") == ("gzip" if compressed else None)
    assert (gzip.decompress(body) if compressed else body) == (FOLDER / SCRIPT).read_bytes()
    assert len(body) < 250_000 or not compressed


class Seen:
    """A page, what it asked for, and what it complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on(
            "console", lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


async def _look(url: str) -> tuple[Seen, str]:
    """Open the page, make a call by it, and return what was seen and what the page shows."""
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        try:
            seen = Seen(await browser.new_page(viewport={"width": 1200, "height": 900}))
            await seen.page.goto(f"{url}/docs")
            await seen.page.get_by_text("Who calls most").first.wait_for()
            shown = await seen.page.locator("rapi-doc").evaluate("it => it.shadowRoot.textContent")
            await seen.page.get_by_text("Does the process answer?").click()
            await seen.page.get_by_role("button", name="TRY").first.click()
            await seen.page.get_by_text('"live"').first.wait_for()
            if folder := os.environ.get("SCREENSHOTS"):
                await seen.page.screenshot(path=Path(folder) / "docs.png")
            return seen, str(shown)
        finally:
            await browser.close()


@needs_chromium
def test_the_page_shows_every_operation_and_asks_nobody_else(api: Api) -> None:
    seen, shown = api.run(_look(api.url))
    for summary in {operation["summary"] for operation in operations(decoded(api.get("/openapi.json"))).values()}:
        assert summary in shown
    assert {url.split("/")[2] for url in seen.asked if not url.startswith("data:")} == {f"127.0.0.1:{api.port}"}
    assert {url.removeprefix(api.url) for url in seen.asked} >= {"/openapi.json", f"/docs/{SCRIPT}", "/health/live"}
    assert seen.complaints == []
