"""`gatehouse load`: made-up users who call for real."""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec
import typer

from api.commands import printing
from api.commands.callers import Tally, call_all
from api.commands.printing import Advance, AsJson
from api.commands.running import MISUSED, run, stop
from models.errors import ServiceError

if TYPE_CHECKING:
    from models.connections import Stores

T = TypeVar("T")

MAX_CONNECTIONS = 1_000
MAX_SECONDS = 3_600
LOOK_EVERY_S = 0.2

EXAMPLES = (
    "Examples:\n\ngatehouse load --users 1000 --seconds 10 --clean\n\n"
    "gatehouse load --remove 3f9a1c2e   (what a rehearsal that was cut short has left)"
)


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What a rehearsal saw.

    Args:
        statuses: answers by status; calls that had none by why.
        users_left: its users who are still there.
    """

    rehearsal: str
    users: int
    connections: int
    seconds: float
    calls: int
    calls_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    statuses: dict[str, int]
    users_left: int


def load(
    users: Annotated[int, typer.Option(min=1, max=100_000, help="Users to create, each with a session.")] = 100,
    seconds: Annotated[int, typer.Option(min=1, max=MAX_SECONDS, help="How long to call.")] = 10,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=MAX_CONNECTIONS, help="Connections that call at a time.")
    ] = 16,
    url: Annotated[str, typer.Option(help="Where a web process listens.")] = "http://127.0.0.1:8000",
    clean: Annotated[bool, typer.Option("--clean", help="Remove the users, and their calls, afterwards.")] = False,
    remove: Annotated[
        str | None, typer.Option(metavar="REHEARSAL", help="Only remove what an earlier rehearsal has left.")
    ] = None,
    yes_really: Annotated[bool, typer.Option("--yes-really", help="Call another machine than this one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create users and let them call /ping for real, and tell how fast it went.

    It needs the same stores as the web process that it calls. Limits apply: a user above them gets 429. An admitted
    /ping waits PING_DELAY_MS, 200 ms unless the web process has it as 0: then the figures are the gate's own.
    """
    if remove is not None:
        removed = run(lambda stores: _telling_what_is_left(stores, remove, lambda: _remove(stores, remove)))
        printing.result({"rehearsal": remove, "removed": removed}, f"removed {removed} users", as_json=as_json)
        return
    from models.rehearsals import new_id

    target, rehearsal = _target(url, yes_really=yes_really), new_id()

    async def work(stores: "Stores") -> Report:
        return await _rehearse(stores, rehearsal, users, seconds, concurrency, target, clean=clean)

    report = run(lambda stores: _telling_what_is_left(stores, rehearsal, lambda: work(stores)))
    if as_json:
        printing.document(report)
        return
    printing.fields(report)
    if report.users_left:
        printing.note(f"{report.users_left} users are left: gatehouse load --remove {rehearsal}")


def _target(url: str, *, yes_really: bool) -> SplitResult:
    try:
        target = urlsplit(url)
        _ = target.port
    except ValueError:
        raise typer.BadParameter(f"{url!r} is no address", param_hint="--url") from None
    if target.scheme not in ("http", "https") or not target.hostname:
        raise typer.BadParameter(f"{url!r} is not like http://127.0.0.1:8000", param_hint="--url")
    if not _is_here(target.hostname) and not yes_really:
        stop(f"gatehouse: {target.hostname} is another machine: to put it under load say --yes-really", MISUSED)
    return target


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _rehearse(
    stores: "Stores", rehearsal: str, users: int, seconds: int, connections: int, target: SplitResult, *, clean: bool
) -> Report:
    tokens: list[str] = []
    with printing.progress(f"creating {users} users", users) as advance:
        async for batch in stores.rehearsals.enrol(rehearsal, users):
            tokens += batch
            advance(len(batch))
    tally, began_s = Tally(), time.monotonic()
    with printing.progress(f"calling {target.geturl()}, seconds", seconds) as advance:
        watch = asyncio.create_task(_watch(began_s, advance))
        try:
            await call_all(target, tokens, connections, began_s + seconds, tally)
        finally:
            watch.cancel()
    took_s = time.monotonic() - began_s
    if clean:
        await _remove(stores, rehearsal)
    return Report(
        rehearsal=rehearsal,
        users=len(tokens),
        connections=connections,
        seconds=round(took_s, 3),
        calls=tally.calls,
        calls_per_s=round(tally.calls / took_s, 1),
        p50_ms=tally.percentile_ms(0.5),
        p99_ms=tally.percentile_ms(0.99),
        statuses=dict(tally.statuses),
        users_left=await stores.rehearsals.count(rehearsal),
    )


async def _watch(began_s: float, advance: Advance) -> None:
    shown_s = 0
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now_s = int(time.monotonic() - began_s)
        advance(now_s - shown_s)
        shown_s = now_s


async def _remove(stores: "Stores", rehearsal: str) -> int:
    removed, there = 0, await stores.rehearsals.count(rehearsal)
    with printing.progress("removing users", there) as advance:
        async for batch in stores.rehearsals.remove(rehearsal):
            removed += batch
            advance(batch)
    return removed


async def _telling_what_is_left(stores: "Stores", rehearsal: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work; when it is cut short, say what it leaves behind."""
    try:
        return await work()
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None:
            task.uncancel()  # one question more
        left = "its"
        with suppress(ServiceError):
            left = str(await stores.rehearsals.count(rehearsal))
        if left != "0":
            printing.note(f"cut short; {left} users are left: gatehouse load --remove {rehearsal}")
        raise
