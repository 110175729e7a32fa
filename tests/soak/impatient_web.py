"""The web process with deadlines for clients that a test can wait for: `python -m tests.soak.impatient_web`."""

import sys
from unittest.mock import patch

from api import connection
from api.__main__ import main

LIMIT_S = 1.0
DEADLINES = ("HEAD_DEADLINE_S", "BODY_DEADLINE_S", "WRITE_DEADLINE_S", "LINGER_S")


if __name__ == "__main__":
    for name in DEADLINES:
        patch.object(connection, name, LIMIT_S).start()
    sys.exit(main())
