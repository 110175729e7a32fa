"""Row 8: processes are told to stop under load; no request on its way is cut, and none fails over a rolling restart."""

import asyncio
import os
import signal
import time
from itertools import count

from models.connections import open_stores
from tests.soak.between import enrol
from tests.soak.broken_web import SECOND_SIGNAL_CUTS
from tests.soak.load import Call, Connections, request
from tests.soak.scenario import Outcome, scenario
from tests.soak.stage import Process, Stage

DELAY_MS = 100
CALLERS = 8
STOP_DEADLINE_S = 8.0


class _Callers:
    """Clients of two processes: a call whose connection ends before it is answered is tried at the other one."""

    def __init__(self, webs: list[Process], tokens: list[str], outcome: Outcome) -> None:
        self._webs, self._outcome = webs, outcome
        self._wires = [request("GET", "/ping", token) for token in tokens]
        self._connections = Connections()
        self.calls = self.retried = 0

    async def call_on(self, number: int) -> None:
        """Until cancelled, one call after the other."""
        for turn in count(number):
            order = (self._webs[turn % 2], self._webs[(turn + 1) % 2])
            for attempt, web in enumerate(order):
                call = Call(number, web.port or 0, time.monotonic())
                await self._connections.ask(call, self._wires[number])
                self.calls += 1
                if call.status == 200:
                    break
                self.retried += 1
                if attempt or call.status:
                    said = call.answer[-80:].decode(errors="replace")
                    self._outcome.violations.append(f"a call fails in both processes: {call.status} {said}")

    def close(self) -> None:
        self._connections.close()


async def _stop(web: Process, how: int, wires: list[bytes], outcome: Outcome) -> float:
    """Stop it with requests on their way, which all must be answered; returns the seconds that it took."""
    connections = Connections()
    flying = [asyncio.create_task(connections.ask(Call(0, web.port or 0, time.monotonic()), wire)) for wire in wires]
    await asyncio.sleep(DELAY_MS / 2000)  # they have been read, and wait out the delay of /ping
    started_s = time.monotonic()
    if how == 2:
        os.killpg(web.pid, signal.SIGTERM)
    else:
        web.signal(signal.SIGTERM)
    if how:
        await asyncio.sleep(0.01)
        web.signal(signal.SIGTERM)
    calls = await asyncio.gather(*flying)
    code = await asyncio.to_thread(web.wait, STOP_DEADLINE_S)
    connections.close()
    cut = [call for call in calls if call.status != 200]
    outcome.check(not cut, f"{len(cut)} of {len(calls)} requests on their way are cut by {how + 1} signals")
    outcome.check(code == 0, f"a web process ends with {code}")
    return time.monotonic() - started_s


@scenario(
    8,
    "restarts",
    "rolling restarts of web and worker under load, by one signal, two, or the group's: no request is cut or fails",
    full=50,
    short=1,
    planted=(SECOND_SIGNAL_CUTS,),
)
async def restarts(stage: Stage, rounds: int, planted: str) -> Outcome:
    """Each round both web processes and the worker are restarted, one after the other."""
    outcome, longest_s = Outcome(), 0.0
    module = f"tests.soak.broken_web {planted}" if planted else "api"
    starting = [asyncio.to_thread(stage.web, None, module=module, PING_DELAY_MS=str(DELAY_MS)) for _ in range(2)]
    webs = await asyncio.gather(*starting)
    worker = stage.worker()
    async with open_stores(stage.settings) as stores:
        tokens = [await stores.sessions.start(user_id) for user_id in await enrol(stores, CALLERS)]
    callers = _Callers(webs, tokens, outcome)
    calling = [asyncio.create_task(callers.call_on(number)) for number in range(CALLERS)]
    wires = [request("GET", "/ping", token) for token in tokens]
    try:
        for number in range(rounds):
            for which, web in enumerate(webs):
                longest_s = max(longest_s, await _stop(web, (2 * number + which) % 3, wires, outcome))
                await asyncio.to_thread(web.start)
                await asyncio.sleep(0.2)
            outcome.check(await asyncio.to_thread(worker.stop) == 0, "the worker does not end with 0")
            await asyncio.to_thread(worker.start)
            outcome.tried += 1
            stage.progress(outcome.tried)
    finally:
        for task in calling:
            task.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
        callers.close()
    outcome.figures |= {"calls": callers.calls, "retried": callers.retried, "longest stop s": round(longest_s, 2)}
    return outcome
