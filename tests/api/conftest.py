"""The API as clients meet it: one server for each process of the suite, on real stores, emptied before each test."""

import asyncio
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import patch

import httpx
import msgspec
import pytest
from sanic_testing.reusable import ReusableClient

from api.app import build_app
from models import heartbeat, operations
from models.connections import Stores
from models.devservers import free_port
from models.keys import log_key
from models.policies import DEFAULT
from models.settings import Settings
from tests.conftest import empty
from tests.redis_client import connect

T = TypeVar("T")

KEY = "zR6R1ZwckLoYcFDNiZ6SGJcJDaV0pdEp"
PASSWORD = "correct horse battery"
JSON = "application/json"
DEADLINE_S = 5.0


class Api:
    """One running server and the plain calls on it. Its loop turns only while a call is made.

    Args:
        config: changes to Sanic's own configuration.
    """

    def __init__(self, settings: Settings, **config: Any) -> None:
        self.settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._app = build_app(settings)
        self._app.config.update(config)
        self._client = ReusableClient(self._app, port=self.port, loop=self._loop)

    @contextmanager
    def running(self) -> Iterator["Api"]:
        """Start the server, and stop it at the end."""
        try:
            with self._client:
                yield self
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    @property
    def stores(self) -> Stores:
        """The server's own stores, for use inside `run`."""
        stores: Stores = self._app.ctx.stores
        return stores

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something on the server's loop."""
        return self._loop.run_until_complete(work)

    def request(self, method: str, path: str, token: str | None = None, **given: Any) -> httpx.Response:
        """One request through sanic-testing; `token` becomes the Authorization header, the rest is httpx's."""
        if token is not None:
            given["headers"] = {"Authorization": f"Bearer {token}"} | given.get("headers", {})
        _, response = self._client.request(path, http_method=method, gather_request=False, **given)
        assert isinstance(response, httpx.Response)
        return response

    def get(self, path: str, token: str | None = None, **given: Any) -> httpx.Response:
        return self.request("GET", path, token, **given)

    def post(self, path: str, token: str | None = None, **given: Any) -> httpx.Response:
        return self.request("POST", path, token, **given)

    def at_once(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Several requests side by side: method, path and httpx's arguments of each."""

        async def send() -> list[httpx.Response]:
            unlimited = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=self.url, limits=unlimited, timeout=30) as client:
                return await asyncio.gather(*(client.request(m, path, **given) for m, path, given in requests))

        return self.run(send())

    def raw(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send these bytes on a connection of their own; returns status, headers (lower case) and body."""

        async def talk() -> tuple[int, dict[str, str], bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(sent)
                async with asyncio.timeout(DEADLINE_S):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    first, *lines = head.rstrip("\r\n").split("\r\n")
                    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                    body = await reader.readexactly(int(headers.get("content-length", "0")))
                return int(first.split(" ")[1]), headers, body
            finally:
                writer.close()

        return self.run(talk())

    def raw_all(self, sent: bytes) -> bytes:
        """Send these bytes, of which the last request ends the connection; returns all that came back."""

        async def talk() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(sent)
                async with asyncio.timeout(DEADLINE_S):
                    return await reader.read()
            finally:
                writer.close()

        return self.run(talk())

    def hang_up(self, sent: bytes) -> None:
        """Send these bytes, then the end of the connection, and wait until the server has closed it too."""

        async def talk() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(sent)
            writer.write_eof()
            async with asyncio.timeout(DEADLINE_S):
                await reader.read()
            writer.close()

        self.run(talk())

    def sql(self, statement: str, *args: Any) -> list[Any]:
        """Rows from PostgreSQL, behind the API's back."""
        return self.run(self.stores.database.fetch(statement, *args))

    def sign_up(self, username: str, password: str = PASSWORD) -> int:
        """Create an account over HTTP; returns the user's id."""
        assert self.post("/signup", json={"username": username, "password": password}).status_code == 201
        user_id: int = self.sql("SELECT id FROM users WHERE username = $1", username)[0]["id"]
        return user_id

    def log_in(self, username: str, password: str = PASSWORD) -> str:
        """Log in over HTTP; returns the session's token."""
        answer = self.post("/login", json={"username": username, "password": password})
        assert answer.status_code == 200
        return str(decoded(answer)["sessionToken"])

    def start_session(self, user_id: int) -> str:
        """A session without its account's password, for tests that need many; returns its token."""
        self.sql(
            "INSERT INTO users (id, username, username_key, password_hash, created_at) VALUES ($1, $2, $2, '', now())",
            user_id,
            f"user {user_id}",
        )
        return self.run(self.stores.sessions.start(user_id))

    def forget_cache(self) -> None:
        """Lose all that Redis holds, as a crash without a file would."""

        async def flush(redis: Any) -> None:
            await redis.flushall()

        self._with_redis(flush)

    def let_pass(self, user_id: int, seconds: float, policy: str = DEFAULT) -> None:
        """Make the user's counted calls so much older, as waiting would, their key's remaining life included."""
        key = log_key(user_id, policy)

        async def age(redis: Any) -> None:
            held = await redis.get(key) or b""
            times = [at_us - round(seconds * 1e6) for (at_us,) in struct.iter_unpack(">Q", held)]
            left_ms = await redis.pttl(key) - round(seconds * 1000)
            await redis.delete(key)
            if times and left_ms > 0:
                await redis.set(key, struct.pack(f">{len(times)}Q", *times), px=left_ms)

        self._with_redis(age)

    def _with_redis(self, use: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        async def connected() -> T:
            async with connect(self.settings.redis_url) as redis:
                return await use(redis)

        return self.run(connected())


def decoded(answer: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object."""
    found: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
    return found


def problem(error: str, code: str) -> bytes:
    """The exact bytes of an error's body."""
    return b'{"error":"%s","code":"%s"}' % (error.encode(), code.encode())


def is_problem(status: int, headers: Any, body: bytes) -> bool:
    """Whether this is a 4xx in the error shape: two texts, the second one snake_case, and nothing of Python in them."""
    shape = {"error", "code"}
    found = msgspec.json.decode(body, type=dict[str, str])
    telling = any(word in body for word in (b"Traceback", b"msgspec", b"sanic", b"asyncpg", b".py"))
    code = found.get("code", "").replace("_", "a")
    return (
        400 <= status < 500
        and headers["content-type"] == JSON
        and set(found) == shape
        and code.islower()
        and not telling
    )


@pytest.fixture(scope="session")
def running_api(settings: Settings) -> Iterator[Api]:
    # Nothing asks Redis by itself: some tests show that a request did not.
    quiet = patch.object(heartbeat, "LOOK_EVERY_S", 3_600.0), patch.object(operations, "TELL_EVERY_S", 3_600.0)
    with quiet[0], quiet[1], Api(settings).running() as api:
        yield api


@pytest.fixture
def api(running_api: Api) -> Api:
    """The API with one call per five seconds, on empty stores."""
    running_api.run(empty(running_api.stores))
    return running_api


@pytest.fixture(scope="session")
def site(settings: Settings) -> Iterator[Api]:
    """An API with a dashboard, which `KEY` opens."""
    with Api(replace(settings, admin_key=KEY)).running() as api:
        yield api


Start = Callable[..., Api]


@pytest.fixture
def start(api: Api) -> Iterator[Start]:
    """Starts another API on the same (empty) stores: `start(signup=False)`."""
    with ExitStack() as running:
        yield lambda **changes: running.enter_context(Api(replace(api.settings, **changes)).running())
