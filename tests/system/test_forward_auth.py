"""Real proxies with the shipped configurations, in front of a small API: what gets through, and as whose."""

import asyncio
import os
import re
import shlex
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx
import pytest

from models.devservers import free_port
from tests.soak.stage import ROOT, Stage, stage

DEADLINE_S = 20.0
NAME = "Zoë %\u4e2d"


class Proxy(NamedTuple):
    """A proxy that is installed as a Debian package of the same name.

    Args:
        shipped: its configuration in `docs/`.
        main: what includes that, in a folder of its own.
        command: starts it there.
        away: what a client gets when Gatehouse is down.
    """

    shipped: str
    main: str
    command: str
    away: int


_TEMPORARY = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
PROXIES = {
    "nginx": Proxy(
        "nginx.conf",
        f"pid nginx.pid; error_log nginx.log; events {{}} http {{ access_log off; {_TEMPORARY} include nginx.conf; }}",
        "nginx -p {folder} -c main -e nginx.log -g daemon\\ off;",
        503,
    ),
    "caddy": Proxy(
        "Caddyfile",
        "{\n admin off\n auto_https off\n}\nimport Caddyfile\n",
        "caddy run --adapter caddyfile --config main",
        502,
    ),
}


def _installed(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is not None


class Upstream:
    """The API behind the proxy: tells the header fields that it got, and echoes whatever follows an upgrade."""

    def __init__(self) -> None:
        self.port = free_port()
        self.seen: list[dict[str, str]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(re.findall(r"(?m)^([^:\s]+): (.*?)\r$", head))
        self.seen.append({name.lower(): value for name, value in fields.items()})
        if "Upgrade" in fields:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while data := await reader.read(1024):
                writer.write(data)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()


@asynccontextmanager
async def proxied(there: Stage, proxy: Proxy, gatehouse: int) -> AsyncIterator[tuple[httpx.AsyncClient, Upstream]]:
    """A proxy with its shipped configuration, the addresses changed."""
    upstream, port = Upstream(), free_port()
    shipped = (ROOT / "docs" / proxy.shipped).read_text()
    for address, ours in (("127.0.0.1:8000", gatehouse), ("127.0.0.1:9000", upstream.port), ("127.0.0.1:8080", port)):
        assert address in shipped
        shipped = shipped.replace(address, f"127.0.0.1:{ours}")
    (there.folder / proxy.shipped).write_text(shipped)
    (there.folder / "main").write_text(proxy.main)
    environ = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "HOME": str(there.folder)}
    command = shlex.split(proxy.command.format(folder=there.folder))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=there.folder, env=environ, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", upstream.port)
    transport = httpx.AsyncHTTPTransport(retries=8)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=DEADLINE_S
        ) as client:
            yield client, upstream
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
        server.close()


@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxy_lets_through_only_whom_gatehouse_admits(name: str) -> None:
    if not _installed(name) and "CI" not in os.environ:
        pytest.skip(f"{name} is not installed (Debian: apt install {name})")
    proxy = PROXIES[name]
    with stage() as there:
        web = there.web(RATE_LIMITS="3/1h")
        async with proxied(there, proxy, web.port or 0) as (client, upstream):
            account = {"username": NAME, "password": "correct horse"}
            assert (await client.post("/signup", json=account)).status_code == 201
            token = (await client.post("/login", json=account)).json()["sessionToken"]
            forged = {"X-User-Id": "1000", "X-User-Name": "admin", "X-Session-Expires": "never"}
            given = {"Authorization": f"Bearer {token}"} | forged

            await _is_admitted(client, upstream, given)
            await _speaks_websocket(client, given)
            for headers, code in (
                (forged, "missing_token"),
                (forged | {"Authorization": "Bearer x"}, "malformed_token"),
            ):
                refused = await client.get("/orders", headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (401, code)
                assert refused.headers["www-authenticate"].startswith("Bearer")
            assert (await client.get("/orders", headers=given)).status_code == 200
            await _is_limited(client, given)
            assert len(upstream.seen) == 3, "a refused call has reached the API"

            web.kill()
            away = await client.get("/orders", headers=given)
            assert (away.status_code, len(upstream.seen)) == (proxy.away, 3)


async def _is_admitted(client: httpx.AsyncClient, upstream: Upstream, given: dict[str, str]) -> None:
    admitted = await client.post("/orders?page=2", headers=given, content=b"x" * 100_000)
    assert (admitted.status_code, admitted.text) == (200, "ok")
    (seen,) = upstream.seen
    assert (seen["x-user-id"], seen["x-user-name"]) == ("1", "Zo%C3%AB%20%25%E4%B8%AD")
    assert re.fullmatch(r"20\d\d-.*Z", seen["x-session-expires"])
    assert "authorization" not in seen


async def _is_limited(client: httpx.AsyncClient, given: dict[str, str]) -> None:
    limited = await client.get("/orders", headers=given)
    assert (limited.status_code, limited.json()) == (429, {"error": "Rate limit exceeded", "code": "rate_limited"})
    assert 3590 < int(limited.headers["retry-after"]) <= 3600
    assert limited.headers["ratelimit-policy"] == '"default";q=3;w=3600'
    assert limited.headers["ratelimit"].startswith('"default";r=0;t=')


async def _speaks_websocket(client: httpx.AsyncClient, given: dict[str, str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    fields = given | {"Host": "127.0.0.1", "Connection": "Upgrade", "Upgrade": "websocket"}
    writer.write("".join(("GET /live HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in fields.items()), "\r\n")).encode())
    async with asyncio.timeout(DEADLINE_S):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"frame")
        assert await reader.readexactly(5) == b"frame"
    writer.close()
