"""The web process: `python -m api`. Settings come from the environment, docs/reference.md has the table."""

import argparse
import os
import resource
import socket
import sys

from api.listeners import WAITING_CONNECTIONS, AddressError, listener
from api.supervisor import supervise
from models.errors import SettingsError
from models.logs import set_up
from models.settings import Settings

OPEN_FILES = 10_240
"""As many as macOS allows. The usual 1,024 would be used up by as many slow clients."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 1 the address cannot be used, 2 wrongly set up."""
    given = _arguments()
    environ = os.environ | ({} if given.processes is None else {"WEB_PROCESSES": given.processes})
    try:
        settings = Settings.from_environ(environ)
        if given.listener is not None:
            return _serve(settings, socket.socket(fileno=given.listener), given.parent)
        if settings.web_processes > 1:
            return supervise(settings, environ)
        return _serve(settings, listener(settings.host, settings.port))
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except AddressError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--processes", metavar="N", help="how many serve the port, instead of WEB_PROCESSES")
    for own in ("--listener", "--parent"):  # what a supervisor gives its children: file descriptors
        parser.add_argument(own, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _serve(settings: Settings, accepting: socket.socket, parent: int | None = None) -> int:
    """Serve in this process.

    Args:
        parent: a pipe to a supervisor, who is told when this process serves, and by its end when it has ended.
    """
    from api.app import build_app  # a supervisor goes without the framework
    from api.requests import current_request_id

    app = build_app(settings, set_up(settings, current_request_id))
    if parent is not None:

        @app.after_server_start
        async def tell(_: object) -> None:
            os.write(parent, b"1")

    _allow_many_connections()
    app.run(sock=accepting, backlog=WAITING_CONNECTIONS, single_process=True, access_log=False, motd=False)
    return 0


def _allow_many_connections() -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if 0 <= now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    sys.exit(main())
