"""The access log: one line for each answer, cheap enough for every call.

The logging module costs a quarter of a whole call for each record. So a line is put together here from parts of which
most are made once, and leaves with others in one write: see `models.line_writer`.
"""

import logging
from json import dumps
from time import gmtime, perf_counter, strftime, time
from typing import Any

from sanic import Request

from api.origin import address_of
from models.log_lines import Said
from models.logs import Log
from models.settings import Settings

LOGGER = "gatehouse.access"
MAX_PATH_CHARS = 512
KNOWN_KINDS = 4_096
FIRST_REFUSAL, FIRST_FAILURE = 400, 500
NO_STATUS = 1_000

KNOWN_HUNDREDTHS = 10_000
_HUNDREDTHS = [f"{hundredths / 100:.2f}" for hundredths in range(KNOWN_HUNDREDTHS)]
"""Milliseconds below a hundred: looked up faster than written."""

Noted = tuple[Any, ...]
"""What `_json` and `_text` take apart: themselves, the end, the beginning, the kind, …"""


def open_access_log(log: Log, settings: Settings) -> "AccessLog | None":
    """The access log that the settings ask for, or None for none."""
    least = {"on": 0, "errors": FIRST_REFUSAL, "off": NO_STATUS}[settings.access_log]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    if level > logging.INFO:
        least = max(least, FIRST_FAILURE if level == logging.WARNING else NO_STATUS)
    return AccessLog(log, settings, least) if least < NO_STATUS else None


class AccessLog:
    """Writes what became of each request: never a query, a header or a body, and the user only behind the gate.

    Args:
        least_status: lower ones are left out.
    """

    def __init__(self, log: Log, settings: Settings, least_status: int = 0) -> None:
        self._log = log
        self._add = log.writer.add
        self._render = self._text if log.is_text else self._json
        self._settings = settings
        self._proxied = settings.trusted_proxies > 0
        self._least_status = least_status
        self._kinds: dict[tuple[Any, ...], str] = {}
        self._epoch_s = _epoch_s()
        self._ms, self._ts, self._second = 0, "", ""

    def note(self, request: Request, status: int, body_bytes: int, began_s: float) -> None:
        """Keep what one line needs, until the writer has it put together; see `api.answered` for the arguments.

        A hundred lines one after the other cost half of what they do between the calls that they tell of.
        """
        if status < self._least_status:
            return
        stream: Any = request.stream
        if self._proxied:
            address = address_of(request, self._settings)
        elif (address := stream.protocol.peer_address) is None:
            address = stream.protocol.peer_address = address_of(request, self._settings)
        # The id is known by now: the answer had it.
        asked = request.method, request._parsed_url, stream.head_only, request.route
        self._add(
            (self._render, perf_counter(), began_s, asked, status, body_bytes, request._ctx, address, request._id)
        )

    def _json(self, noted: Noted) -> str:
        _, ended_s, began_s, (method, url, head_only, route), status, body_bytes, ctx, address, request_id = noted
        ms = int((ended_s + self._epoch_s) * 1000)
        if ms != self._ms:
            self._tick(ms)
        key = method, url.path, status, head_only
        kind = self._kinds.get(key) or self._kind_of(key, route)
        hundredths = int((ended_s - began_s) * 100_000)
        lasted = _HUNDREDTHS[hundredths] if hundredths < KNOWN_HUNDREDTHS else f"{hundredths / 100:.2f}"
        more = ""
        if ctx is not None:
            told = ctx.__dict__
            if "claims" in told:
                more = f'"user_id":{told["claims"].user_id},'
            if "code" in told:
                more += f'"code":"{told["code"]}",'
        return (
            f'{self._ts}{kind}{lasted},"bytes":{body_bytes},{more}"address":"{address}","request_id":"{request_id}"}}'
        )

    def _tick(self, ms: int) -> None:
        if ms // 1000 != self._ms // 1000:
            self._epoch_s = _epoch_s()  # each second: the time of day may be set
            self._second = strftime("%Y-%m-%dT%H:%M:%S", gmtime(ms // 1000))
        self._ms, self._ts = ms, f'{{"ts":"{self._second}.{ms % 1000:03d}Z",'

    def _kind_of(self, key: tuple[str, bytes, int, bool], route: Any) -> str:
        """What is the same in each line of this kind, as JSON; kept if there is a route for it."""
        method, path, status, head_only = key
        what = {"level": _level(status), "logger": LOGGER, "event": "request"}
        what |= {"method": "HEAD" if head_only else method, "path": _shown(path)}
        if route is not None:
            what["route"] = f"/{route.path}"
        kind = f'{dumps(what, separators=(",", ":"))[1:-1]},"status":{status},"duration_ms":'
        if route is not None:
            if len(self._kinds) >= KNOWN_KINDS:
                self._kinds.clear()
            self._kinds[key] = kind
        return kind

    def _text(self, noted: Noted) -> str:
        _, ended_s, began_s, (method, url, head_only, _), status, _, ctx, address, request_id = noted
        claims = getattr(ctx, "claims", None)
        facts = {"user_id": claims and claims.user_id, "code": getattr(ctx, "code", None)}
        facts |= {"address": address, "request_id": request_id}
        message = (
            f"{'HEAD' if head_only else method} {_shown(url.path)} {status} in {(ended_s - began_s) * 1000:.1f} ms"
        )
        return self._log.format(Said(ended_s + _epoch_s(), _level(status), LOGGER, message, facts))


def _epoch_s() -> float:
    """From this process's clock to the time of day."""
    return time() - perf_counter()


def _level(status: int) -> str:
    return "info" if status < FIRST_FAILURE else "warning"


def _shown(path: bytes | None) -> str:
    """Percent-encoded as it came, without the query; cut short."""
    text = (path or b"").decode("latin-1")
    return text if len(text) <= MAX_PATH_CHARS else f"{text[:MAX_PATH_CHARS]}…"
