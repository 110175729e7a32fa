"""Several web processes on one port, kept alive: `WEB_PROCESSES=4 python -m api`.

The supervisor has the port and serves nothing. Its children accept connections from the sockets that it keeps, so that
what nobody has accepted yet is lost with none of them. SIGTERM and SIGINT end all, SIGHUP replaces one after another.
"""

import asyncio
import logging
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack

from api.child import Child
from api.listeners import Listeners
from models.logs import set_up
from models.settings import Settings

log = logging.getLogger("gatehouse.supervisor")

WRONGLY_SET_UP = 2
"""The exit code of a process that cannot be started with these settings."""

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Before a process that has ended is started again; doubled each time, until one has lived for a while."""

LONG_LIVED_S = 10.0
LONGEST_WAIT_S = 1.0
"""Of clients for a successor; before a longer pause they are let go."""


def supervise(settings: Settings, environ: Mapping[str, str]) -> int:
    """Keep the web processes alive until SIGTERM or SIGINT; returns the exit code.

    Args:
        environ: for the processes.

    Raises:
        AddressError: the port cannot be used.
    """
    listeners = Listeners(settings.host, settings.port, settings.web_processes)
    set_up(settings)
    with ExitStack() as stack:
        stack.callback(listeners.close)
        environ = {**environ, "WEB_PROCESSES": "1"}
        if settings.metrics_key and not settings.prometheus_multiproc_dir:
            folder = tempfile.TemporaryDirectory(prefix="gatehouse-metrics-")
            environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(folder)
        return asyncio.run(_Supervisor(listeners, settings.web_processes, environ).run())


class _WronglySetUp(Exception):
    """The first process has told what is wrong."""


class _Place:
    """One of the places for a child; whoever dies in it has a successor."""

    def __init__(self, supervisor: "_Supervisor", number: int) -> None:
        self.number, self.serves = number, False
        self._supervisor = supervisor
        self._child: Child | None = None
        self._successor: Child | None = None

    async def keep(self) -> None:
        """Have a child here until cancelled.

        Raises:
            _WronglySetUp: not even the first one of all could start.
        """
        loop, pause_s = asyncio.get_running_loop(), SHORTEST_PAUSE_S
        while True:
            child = self._child = self._successor or self._supervisor.spawn(self.number)
            self._successor, began_s = None, loop.time()
            if await child.starts():
                self._turn(serves=True)
                self._supervisor.served.set()
            else:
                await child.stop()
            await child.ended.wait()
            self._turn(serves=self._successor is not None)
            if child.code == WRONGLY_SET_UP and not self._supervisor.served.is_set():
                raise _WronglySetUp
            if self._successor is None:
                if loop.time() - began_s > LONG_LIVED_S:
                    pause_s = SHORTEST_PAUSE_S
                log.error("web process %d ended (%s); another starts in %.1f s", child.pid, child.outcome, pause_s)
                if pause_s > LONGEST_WAIT_S:
                    self._supervisor.listeners.let_go(self.number)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _turn(self, *, serves: bool) -> None:
        if serves is not self.serves:
            self.serves = serves
            self._supervisor.steer()

    async def replace(self) -> bool:
        """Start a successor, and stop the child once that serves; returns whether it does."""
        successor = self._supervisor.spawn(self.number)
        if not await successor.starts():
            await successor.stop()
            log.error("the successor of a web process did not start (%s); the old ones stay", successor.outcome)
            return False
        self._successor, old = successor, self._child
        if old is not None:
            await old.stop()
            log.info("web process %d has taken the place of %d", successor.pid, old.pid)
        return True


class _Supervisor:
    """Keeps places filled.

    Args:
        listeners: one for each place.
        number: of places.
        environ: for the children.
    """

    def __init__(self, listeners: Listeners, number: int, environ: Mapping[str, str]) -> None:
        self.listeners, self._environ = listeners, environ
        self._children: list[Child] = []
        self._places = [_Place(self, at) for at in range(number)]
        self.served = asyncio.Event()
        """Any child ever did: the settings are right."""
        self._stopping, self._turning = asyncio.Event(), asyncio.Event()

    def spawn(self, number: int) -> Child:
        """Start a child that accepts what comes to a place."""
        self._children = [child for child in self._children if not child.ended.is_set()]
        self._children.append(child := Child(self.listeners[number], self._environ))
        return child

    def steer(self) -> None:
        """Some place has begun to serve, or has ceased to: new connections go to those that do."""
        self.listeners.steer([place.number for place in self._places if place.serves])

    async def run(self) -> int:
        """Until told to stop, or until it is clear that nothing can start; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number, event in (
            (signal.SIGTERM, self._stopping),
            (signal.SIGINT, self._stopping),
            (signal.SIGHUP, self._turning),
        ):
            loop.add_signal_handler(number, event.set)
        tasks = [asyncio.create_task(work) for work in (self._stopping.wait(), self._keep_all(), self._replace_on())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children if not child.ended.is_set()))
        return next((_code_of(end) for end in ends if isinstance(end, Exception)), 0)

    async def _keep_all(self) -> None:
        """The first place alone until somebody serves, so that what is wrong with the settings is told once."""
        first, *others = self._places
        keeping = [asyncio.create_task(first.keep())]
        try:
            served = asyncio.create_task(self.served.wait())
            await asyncio.wait([served, *keeping], return_when=asyncio.FIRST_COMPLETED)
            served.cancel()
            keeping += [asyncio.create_task(place.keep()) for place in others if self.served.is_set()]
            await asyncio.gather(*keeping)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def _replace_on(self) -> None:
        """For each SIGHUP replace one child after another; a further one meanwhile begins anew afterwards."""
        while True:
            await self._turning.wait()
            self._turning.clear()
            for place in self._places:
                if not await place.replace():
                    break
            else:
                log.info("all web processes have been replaced")


def _code_of(error: Exception) -> int:
    if isinstance(error, _WronglySetUp):
        return WRONGLY_SET_UP
    log.critical("the supervisor ends", exc_info=error)
    return 1
