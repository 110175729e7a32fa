"""The web process: `python -m api`. Settings come from the environment, README.md has the table."""

import argparse
import logging
import os
import socket
import sys

from api.app import build_app
from models.errors import SettingsError
from models.settings import Settings


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 1 the address cannot be used, 2 wrongly set up."""
    argparse.ArgumentParser(prog="python -m api", description=__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"Cannot listen on {settings.host}:{settings.port} (HOST, PORT): {reason}", file=sys.stderr)  # noqa: T201
        return 1
    build_app(settings).run(sock=listener, single_process=True, access_log=False, motd=False)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


if __name__ == "__main__":
    sys.exit(main())
