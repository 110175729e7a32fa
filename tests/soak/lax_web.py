"""The web process on the framework's own connections, with timeouts as short: `python -m tests.soak.lax_web`."""

import sys
from unittest.mock import patch

from sanic.config import DEFAULT_CONFIG
from sanic.server.protocols.http_protocol import HttpProtocol

from api import app
from api.__main__ import main
from tests.soak.impatient_web import LIMIT_S

if __name__ == "__main__":
    patch.object(app.App, "connection", HttpProtocol).start()
    patch.object(app, "RESPONSE_TIMEOUT_S", LIMIT_S).start()
    patch.dict(DEFAULT_CONFIG, REQUEST_TIMEOUT=LIMIT_S).start()
    sys.exit(main())
