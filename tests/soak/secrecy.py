"""Row 12: tokens never repeat, keys rotate under load and log nobody out, and secrets stay out of every file."""

import asyncio
import secrets
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import httpx
from redis.asyncio import Redis

from models.connections import open_stores
from models.tokens import TokenSigner
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Process, Stage

BITS = 240
FRONT_AT_ONCE = "the new key signs before all know it"
LEAK = "a token in a log"
DEADLINE_S = 15.0


@scenario(
    12,
    "unique-tokens",
    "1,000,000 tokens: none repeats, and each bit of the random part is as often 1 as 0 (chi-squared)",
    full=1_000_000,
    short=20_000,
)
async def unique_tokens(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Tokens of one user and version, so that only the random part can tell them apart."""
    outcome, signer = Outcome(), TokenSigner(stage.settings.secret_keys)
    expires_ms = int(time.time() * 1000) + 1_800_000
    seen, ones = set[str](), [0] * BITS
    for number in range(rounds):
        random_part, _ = signer.new_secret()
        seen.add(signer.sign(1, 1, expires_ms, random_part))
        if number % 16 == 0:
            bits = int.from_bytes(random_part)
            for bit in range(BITS):
                ones[bit] += bits >> bit & 1
        if number % 10_000 == 0:
            stage.progress(number)
    outcome.tried = rounds
    outcome.check(len(seen) == rounds, f"{rounds - len(seen)} tokens repeat")
    drawn = (rounds + 15) // 16
    chi_squared = sum((count - drawn / 2) ** 2 / (drawn / 4) for count in ones)
    # 240 degrees of freedom: mean 240, deviation 22; six of these happen by chance less than once in 10^7 runs.
    outcome.check(abs(chi_squared - BITS) < 6 * (2 * BITS) ** 0.5, f"chi-squared is {chi_squared:.0f}")
    outcome.figures["chi-squared of 240 bits"] = round(chi_squared)
    return outcome


class _Clients:
    """Users who call both processes all the time, and log in anew now and then."""

    def __init__(self, outcome: Outcome, processes: list[Process]) -> None:
        self._outcome, self._processes = outcome, processes
        self.calls = 0

    async def use(self, name: str) -> None:
        """Until cancelled."""
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            token = await self._log_in(client, name)
            for number in range(10**9):
                if number % 16 == 15:
                    token = await self._log_in(client, name)
                for process in self._processes:
                    answer = await self._ask(client, "GET", process, "/ping", token=token)
                    self.calls += 1
                    if answer is not None and answer.status_code == 401:
                        self._outcome.violations.append(f"a valid token is refused: {answer.text}")
                await asyncio.sleep(0.05)

    async def _log_in(self, client: httpx.AsyncClient, name: str) -> str:
        while True:
            credentials = {"username": name, "password": name}
            for process in self._processes:
                answer = await self._ask(client, "POST", process, "/login", json=credentials)
                if answer is not None and answer.status_code == 200:
                    return str(answer.json()["sessionToken"])

    async def _ask(
        self, client: httpx.AsyncClient, method: str, process: Process, path: str, token: str = "", json: object = None
    ) -> httpx.Response | None:
        """The answer; None while the process is down."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return await client.request(method, process.url + path, headers=headers, json=json)
        except httpx.TransportError:
            await asyncio.sleep(0.02)
            return None


@scenario(
    12,
    "key-rotation",
    "signing keys rotate in two processes that restart in turn under load: nobody is logged out",
    full=20,
    short=1,
    planted=(FRONT_AT_ONCE,),
    planted_rounds=1,
)
async def key_rotation(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Each rotation: the new key goes to the end everywhere, then to the front everywhere; then the old one goes."""
    outcome, keys = Outcome(), [stage.settings.secret_keys[0]]
    processes = [stage.web(SECRET_KEYS=keys[0]) for _ in range(2)]
    async with open_stores(stage.settings) as stores:
        for number in range(6):
            await stores.accounts.add(f"user{number}", f"user{number}")
    clients = _Clients(outcome, processes)
    calling = [asyncio.create_task(clients.use(f"user{number}")) for number in range(6)]
    for _ in range(rounds):
        new, old = secrets.token_urlsafe(48), keys[0]
        steps = [[new, old]] if planted == FRONT_AT_ONCE else [[old, new], [new, old]]
        for keys in steps:
            for process in processes:
                process.environ["SECRET_KEYS"] = ",".join(keys)
                await asyncio.to_thread(process.stop)
                await asyncio.to_thread(process.start)
                await asyncio.sleep(0.5)
        keys = [new, old]
        outcome.tried += 1
        stage.progress(outcome.tried)
    for task in calling:
        task.cancel()
    await asyncio.gather(*calling, return_exceptions=True)
    outcome.check(clients.calls > 20 * rounds, "hardly anybody called")
    outcome.figures["calls"] = clients.calls
    return outcome


@scenario(
    12,
    "canaries",
    "passwords and tokens, whole or in part, are in no file of PostgreSQL, no file of Redis and no log",
    full=20,
    short=1,
    planted=(LEAK,),
    planted_rounds=1,
    durable=True,
)
async def canaries(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Each round a user goes through every route and every error path; then every file is searched."""
    outcome, spoken = Outcome(), dict[str, bytes]()
    web = stage.web(
        RATE_LIMITS="2/1s", LOGIN_LIMITS_USER="3/1s", LOGIN_LIMITS_USER_ADDRESS="3/1s", SNAPSHOT_INTERVAL_S="1"
    )
    stage.worker(SNAPSHOT_INTERVAL_S="1")
    async with httpx.AsyncClient(base_url=web.url, timeout=DEADLINE_S) as client:
        for number in range(rounds):
            spoken |= await _go_everywhere(client, f"user{number}")
            outcome.tried += 1
            stage.progress(outcome.tried)
        stage.postgres.stop()
        spoken |= await _go_everywhere(client, "late", stores_away=True)
        stage.postgres.start()
        if planted == LEAK:
            (stage.folder / "planted.log").write_bytes(next(iter(spoken.values())))
    async with Redis.from_url(stage.valkey.url) as redis:
        await redis.execute_command("WAITAOF", 1, 0, 5_000)
    files, size = 0, 0
    for path in _files(stage.folder):
        held = path.read_bytes()
        files, size = files + 1, size + len(held)
        for what, canary in spoken.items():
            outcome.check(canary not in held, f"{what} is in {path.relative_to(stage.folder)}")
    outcome.figures |= {"files": files, "MB": round(size / 1e6), "secrets": len(spoken)}
    return outcome


async def _go_everywhere(client: httpx.AsyncClient, name: str, *, stores_away: bool = False) -> dict[str, bytes]:
    """Use every route well and badly; returns what was secret in it."""
    password, typo = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    right, wrong = {"username": name, "password": password}, {"username": name, "password": typo}
    await client.post("/signup", json=right)
    token = "none" if stores_away else (await client.post("/login", json=right)).json()["sessionToken"]
    bearer, forged = {"Authorization": f"Bearer {token}"}, {"Authorization": f"Bearer {token[:-4]}AAAA"}
    for headers in (bearer, forged, {"Authorization": f"Basic {typo}"}, {"Authorization": f"Bearer {typo}"}):
        for path in ("/ping", "/ping", "/ping", "/session", "/nowhere", f"/ping?token={typo}"):
            await client.get(path, headers=headers)
        await client.post("/ping", headers=headers)
    for given in (
        wrong,
        wrong,
        wrong,
        wrong,
        {"username": typo, "password": typo},
        {"username": name},
        right | {"x": 1},
    ):
        await client.post("/login", json=given)
    await client.post("/login", content=f'{{"username": "{name}", "password": "{typo}'.encode())
    await client.post("/login", json=right, headers={"Content-Type": f"text/{typo}"})
    await client.post("/logout", headers=bearer)
    await client.post("/logout", headers=bearer)
    found = {f"{name}'s password": password.encode(), f"{name}'s mistyped password": typo.encode()}
    if not stores_away:
        raw = urlsafe_b64decode(token)
        found |= {f"{name}'s token": token.encode(), f"{name}'s random part": raw[26:56], "its signature": raw[56:]}
        found[f"{name}'s random part in hexadecimal"] = raw[26:56].hex().encode()
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Every file under a folder: data, write-ahead logs, append-only files, the logs of all processes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path
