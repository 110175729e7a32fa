"""Row 2: every order in which the steps of a re-cache or a sync and of a session's end can be taken."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import combinations_with_replacement, product
from typing import Any
...
