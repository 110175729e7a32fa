"""Where Redis is: one server, the master that sentinels name, or a cluster, as `REDIS_URL` says it.

    redis://[user:password@]host:port/database
    redis+sentinel://[user:password@]host:port,host:port,…/name[/database]
    redis+cluster://[user:password@]host:port,host:port,…

With `rediss` in place of `redis` all connections are encrypted, those to sentinels too.
"""

import re
import ssl
from typing import Literal
from urllib.parse import parse_qsl, unquote

import msgspec

Address = tuple[str, int]
"""Host and port."""

Kind = Literal["server", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {"": "server", "sentinel": "sentinel", "cluster": "cluster"}
_PORTS: dict[Kind, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_TLS = {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
_SENTINEL = {"sentinel_username", "sentinel_password"}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


class Credentials(msgspec.Struct, frozen=True):
    """Whom to log in as; an empty password: nobody."""

    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"  # it may come into a log


class RedisTarget(msgspec.Struct, frozen=True):
    """What one address of Redis says.

    Args:
        hosts: the server; or sentinels; or some nodes of a cluster.
        name: by which sentinels know the master.
        sentinel: the credentials for sentinels, which may differ from the server's.
        tls: the `ssl_…` parameters; None for plain connections.
    """

    kind: Kind
    hosts: tuple[Address, ...]
    database: int = 0
    name: str = ""
    credentials: Credentials = Credentials()
    sentinel: Credentials = Credentials()
    tls: dict[str, str] | None = None

    def tls_context(self) -> ssl.SSLContext | None:
        """How to encrypt, or None to not: the host's name and certificate are checked unless a parameter says no."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.get("ssl_ca_certs"))
        if self.tls.get("ssl_check_hostname", "").lower() in ("false", "no", "0"):
            context.check_hostname = False
        if self.tls.get("ssl_cert_reqs") == "none":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate := self.tls.get("ssl_certfile"):
            context.load_cert_chain(certificate, self.tls.get("ssl_keyfile"))
        return context


def parse_redis(text: str) -> RedisTarget:
    """Read an address.

    Raises:
        ValueError: what is wrong with it, as half a sentence that quotes nothing of it.
    """
    scheme, separator, rest = text.partition("://")
    protocol, _, suffix = scheme.partition("+")
    if not separator or protocol not in ("redis", "rediss") or suffix not in _KINDS:
        raise ValueError("not a redis:// or rediss:// address, with +sentinel or +cluster after redis where it is one")
    kind = _KINDS[suffix]
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    name, database = _path(kind, path)
    options = _options(query, kind, tls=protocol == "rediss")
    return RedisTarget(
        kind=kind,
        hosts=_hosts(hosts, kind),
        database=database,
        name=name,
        credentials=Credentials(unquote(username), unquote(password)),
        sentinel=Credentials(options.pop("sentinel_username", ""), options.pop("sentinel_password", "")),
        tls=options if protocol == "rediss" else None,
    )


def _hosts(text: str, kind: Kind) -> tuple[Address, ...]:
    if not text:
        raise ValueError("no host")
    found = [_HOST.fullmatch(host) for host in text.split(",")]
    hosts = tuple((match[1] or match[2], int(match[3] or _PORTS[kind])) for match in found if match)
    if len(hosts) < len(found) or not all(0 < port < 65_536 for _, port in hosts):
        raise ValueError("a host is not like name:port")
    if kind == "server" and len(hosts) > 1:
        raise ValueError("several hosts, which only +sentinel and +cluster have")
    return hosts


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """The master's name and the database."""
    parts = [unquote(part) for part in path.strip("/").split("/")] if path.strip("/") else []
    name = parts.pop(0) if kind == "sentinel" and parts else ""
    if kind == "sentinel" and not name:
        raise ValueError("sentinels need the master's name: redis+sentinel://host:port/name")
    if len(parts) > 1 or not re.fullmatch(r"[0-9]{0,5}", "".join(parts)):
        raise ValueError("the database is not a number")
    database = int("".join(parts) or 0)
    if kind == "cluster" and database:
        raise ValueError("a cluster has database 0 alone")
    return name, database


def _options(query: str, kind: Kind, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(query))
    allowed = (_TLS if tls else set()) | (_SENTINEL if kind == "sentinel" else set())
    if unknown := options.keys() - allowed:
        known = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"{len(unknown)} unknown parameters behind the question mark; there are {known}")
    return options
