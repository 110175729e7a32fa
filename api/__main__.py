"""The web process: `python -m api`. Settings come from the environment, docs/reference.md has the table."""

import argparse
import os
import resource
import socket
import sys

from api.app import build_app
from api.requests import current_request_id
from models.errors import SettingsError
from models.logs import set_up
from models.settings import Settings

WAITING_CONNECTIONS = 1024
"""Not yet accepted; a client beyond them tries again after a second."""

OPEN_FILES = 10_240
"""As many as macOS allows. The usual 1,024 would be used up by as many slow clients."""

SOCKET_BUFFER_BYTES = 64 * 1024
"""What the kernel holds for a client in either direction; it would grow to megabytes for one that does not read."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 1 the address cannot be used, 2 wrongly set up."""
    argparse.ArgumentParser(prog="python -m api", description=__doc__).parse_args()
    try:
        settings = Settings.from_environ(os.environ)
        app = build_app(settings, set_up(settings, current_request_id))
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"Cannot listen on {settings.host}:{settings.port} (HOST, PORT): {reason}", file=sys.stderr)  # noqa: T201
        return 1
    _allow_many_connections()
    app.run(sock=listener, backlog=WAITING_CONNECTIONS, single_process=True, access_log=False, motd=False)
    return 0


def _allow_many_connections() -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if 0 <= now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listener.setsockopt(socket.SOL_SOCKET, direction, SOCKET_BUFFER_BYTES)  # each connection inherits it
    listener.bind(address)
    return listener


if __name__ == "__main__":
    sys.exit(main())
