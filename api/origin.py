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
_PROTO = re.compile(r'(?:^|;)\s*proto="?([a-z]+)"?\s*(?:;|$)', re.IGNORECASE)
_PORT = re.compile(r"^(?:\[([^\]]+)\]|([0-9.]+))(?::\d+)?$")


def origin_of(request: Request) -> Origin:
    """The origin of a request."""
    return Origin(address_of(request, request.app.ctx.stores.settings), str(request.id))


def address_of(request: Request, settings: Settings) -> str:
    """The client's address, IPv6 as its /64 network.

    Each proxy adds the address that it saw to the end of the header, so with n trusted proxies the n-th entry from the
    end is the client's; what stands before it anybody may have written (RFC 7239, 8.1).
    """
    address = _told(request, settings, settings.proxy_header)
    if address is not None and settings.proxy_header == "Forwarded":
        match = _FOR.search(address)
        address = match[1] if match else ""
    return _network(request.ip if address is None else address, request.ip)


def is_https(request: Request) -> bool:
    """Whether the client came over TLS, which ends at a proxy: as a trusted one tells it, else it is not known."""
    settings: Settings = request.app.ctx.stores.settings
    if settings.proxy_header == "Forwarded":
        match = _PROTO.search(_told(request, settings, "Forwarded") or "")
        return match is not None and match[1].lower() == "https"
    return (_told(request, settings, "X-Forwarded-Proto") or "").lower() == "https"


def _told(request: Request, settings: Settings, header: str) -> str | None:
    """What the outermost of the trusted proxies wrote; None when no proxy is trusted, or none wrote it."""
    trusted = settings.trusted_proxies
    if not trusted:
        return None
    entries = ",".join(request.headers.getall(header, [])).split(",")
    told = [entry.strip() for entry in entries if entry.strip()]
    return told[-min(trusted, len(told))] if told else None


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
