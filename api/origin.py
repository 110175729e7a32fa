"""Where a request came from: the client's address, told by as many proxies as the operator trusts."""

import ipaddress
import re
from functools import lru_cache

from sanic import Request

from models.events import Origin
from models.settings import Settings

KNOWN_ADDRESSES = 4_096
"""Addresses whose spelling was looked at lately."""

_FOR = re.compile(r'(?:^|;)\s*for="?([^";,]+)"?', re.IGNORECASE)
_PORT = re.compile(r"^(?:\[([^\]]+)\]|([0-9.]+))(?::\d+)?$")


def origin_of(request: Request) -> Origin:
    """The origin of a request."""
    return Origin(address_of(request, request.app.ctx.stores.settings), str(request.id))


def address_of(request: Request, settings: Settings) -> str:
    """The client's address, IPv6 as its /64 network.

    Each proxy adds the address that it saw to the end of the header, so with n trusted proxies the n-th entry from the
    end is the client's; what stands before it anybody may have written (RFC 7239, 8.1).
    """
    address = peer = request.ip
    if settings.trusted_proxies:
        entries = ",".join(request.headers.getall(settings.proxy_header, [])).split(",")
        told = [entry.strip() for entry in entries if entry.strip()]
        if told:
            entry = told[-min(settings.trusted_proxies, len(told))]
            if settings.proxy_header == "Forwarded":
                match = _FOR.search(entry)
                entry = match[1] if match else ""
            address = entry
    return _network(address, peer)


@lru_cache(maxsize=KNOWN_ADDRESSES)
def _network(told: str, peer: str) -> str:
    """An address in one spelling; of IPv6 its /64 network, as whoever has one address has all of these."""
    for text in (told, peer):
        match = _PORT.match(text)
        try:
            address = ipaddress.ip_address((match[1] or match[2]) if match else text)
        except ValueError:
            continue
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is None:
                return str(ipaddress.IPv6Network((address.packed[:8] + bytes(8), 64)))
            address = address.ipv4_mapped
        return str(address)
    return "unknown"
