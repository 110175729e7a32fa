"""A web process with one more route, `/whoami`, which answers whose call the gate thinks it is.

Everything else is the service as it is: `python -m tests.soak.whoami` with the environment of `python -m api`.
"""

import os
import socket
import sys
from typing import Any
from unittest.mock import patch

from sanic import Blueprint, HTTPResponse, Request

from api.answers import Answer
from api.app import build_app
from api.gate import limited
from models import link, servers
from models.settings import Settings
from tests.soak.crosstalk import SHIFTED

PATIENCE_S = 10.0
"""For Redis: on a machine that is busy with something else nothing here may turn to the limits of an outage."""

blueprint = Blueprint("whoami")


@blueprint.get("/whoami")
@limited
async def whoami(request: Request) -> HTTPResponse:
    return Answer(b'{"userId":%d}' % request.ctx.claims.user_id)


def main() -> int:
    """Serve until SIGTERM."""
    settings = Settings.from_environ(os.environ)
    if os.environ.get("SOAK_PLANTED") == SHIFTED:
        patch.object(link._Connection, "send", _forgetting(link._Connection.send)).start()
    patch.object(servers, "GATE_DEADLINE_S", PATIENCE_S).start()
    app = build_app(settings)
    app.blueprint(blueprint)
    listener = socket.create_server((settings.host, settings.port), backlog=1024)
    app.run(sock=listener, single_process=True, access_log=False, motd=False)
    return 0


def _forgetting(send: Any) -> Any:
    """The classic fault of a shared connection: a cancelled call gives up its place, and its reply goes to the next."""

    def forgetting(self: Any, command: bytes) -> Any:
        reply = send(self, command)
        waiting = self._waiting
        reply.add_done_callback(lambda it: waiting.remove(it) if it.cancelled() and it in waiting else None)
        return reply

    return forgetting


if __name__ == "__main__":
    sys.exit(main())
