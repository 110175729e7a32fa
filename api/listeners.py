"""The sockets on which the web processes of one port accept connections."""

import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress

SOCKET_BUFFER_BYTES = 64 * 1024
"""What the kernel holds for a client in either direction; it would grow to megabytes for one that does not read."""

WAITING_CONNECTIONS = 1024
"""Not yet accepted; a client beyond them tries again after a second."""

SO_ATTACH_REUSEPORT_CBPF = 51  # linux/asm-generic/socket.h
_LOAD, _MODULO, _IF_EQUAL, _RETURN = 0x20, 0x94, 0x15, 0x06  # linux/bpf_common.h
_RANDOM = 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM, linux/filter.h


class AddressError(Exception):
    """The address cannot be used."""


def listener(host: str, port: int, *, one_of_many: bool = False) -> socket.socket:
    """A socket that is bound and does not listen yet.

    Args:
        one_of_many: others of ours have the same address.

    Raises:
        AddressError: one sentence.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if one_of_many:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                bound.setsockopt(socket.SOL_SOCKET, direction, SOCKET_BUFFER_BYTES)  # each connection inherits it
            bound.bind(address)
        except OSError as error:
            raise AddressError(f"Cannot listen on {host}:{port} (HOST, PORT): {error.strerror or error}") from None
        stack.pop_all()
    return bound


class Listeners:
    """A socket for each of some processes. They stay open here, so nothing that waits in one is lost with a process.

    Linux spreads new connections evenly over them. Elsewhere it is one and the same socket, and the quicker get more.

    Raises:
        AddressError: see `listener`.
    """

    def __init__(self, host: str, port: int, number: int) -> None:
        listener(host, port).close()  # else we would share the port with another service that shares its own
        self._spreads = sys.platform == "linux"
        different = number if self._spreads else 1
        sockets = [listener(host, port, one_of_many=True) for _ in range(different)]
        for each in sockets:
            each.listen(WAITING_CONNECTIONS)  # in this order the kernel numbers them
        self._sockets = sockets * (number // different)

    def __getitem__(self, number: int) -> socket.socket:
        return self._sockets[number]

    def let_go(self, number: int) -> None:
        """End the connections that wait for a process which will be away for long: their clients can try again."""
        if self._spreads:
            self._sockets[number].setblocking(False)  # as it is in every process anyway
            with suppress(BlockingIOError):
                for _ in range(WAITING_CONNECTIONS):
                    self._sockets[number].accept()[0].close()

    def close(self) -> None:
        """Let go of the port."""
        for each in self._sockets:
            each.close()

    def steer(self, numbers: Sequence[int]) -> None:
        """Have new connections go to these alone, evenly; what waits at others stays there."""
        if self._spreads and numbers:
            program = b"".join(struct.pack("HBBI", *step) for step in _choosing(numbers))
            held = ctypes.create_string_buffer(program, len(program))
            given = struct.pack("HP", len(program) // 8, ctypes.addressof(held))
            self._sockets[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, given)


def _choosing(numbers: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """A program for the kernel's classic packet filter that returns one of these at random."""
    steps = [(_LOAD, 0, 0, _RANDOM), (_MODULO, 0, 0, len(numbers))]
    for at, number in enumerate(numbers):
        steps += [(_IF_EQUAL, 0, 1, at), (_RETURN, 0, 0, number)]
    return [*steps, (_RETURN, 0, 0, numbers[0])]
