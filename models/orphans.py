"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child calls before exec so that Linux sends it a signal when its parent dies, even by kill -9.

    The parent is the *thread* that starts the child: start servers from one that lives as long as they do.
    There is no such call elsewhere than on Linux; the answer is then None.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(number))
        # The parent may have died between the fork and the line above; then no signal will ever come.
        if os.getppid() != parent:
            os._exit(1)

    return tie
