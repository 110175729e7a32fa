"""Where PostgreSQL is, as `DATABASE_URL` says it.

    postgres://user:password@host:port/database
    postgres://user:password@host:port,host:port/database    a primary and its standbys; whichever is the primary now
    postgres:///database?host=/folder                        a Unix socket

Parameters: `sslmode`, `host`, `target_session_attrs`, and `pgbouncer=transaction` for a PgBouncer that gives a server
connection to a client for one transaction only.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from models.redis_target import Address

PORT = 5432

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PRIMARY = ("read-write", "primary")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "sslmode": _SSL_MODES,
    "host": (),
    "target_session_attrs": ("any", *_PRIMARY),
    "pgbouncer": ("transaction", "session"),
}
"""Parameter → what it may be; empty: anything."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._%-]+))(?::([0-9]{1,5}))?")


class PostgresTarget(msgspec.Struct, frozen=True):
    """What one address of PostgreSQL says.

    Args:
        hosts: where it may be; a path is a folder with a Unix socket.
        session: the `target_session_attrs` of asyncpg: which of the hosts will do.
        pooled: another client has the server's connection after each transaction.
    """

    hosts: tuple[Address, ...]
    database: str
    user: str | None = None
    password: str | None = None
    sslmode: str | None = None
    session: str = "any"
    pooled: bool = False

    def __repr__(self) -> str:
        return "PostgresTarget(…)"  # it may come into a log

    @property
    def settings(self) -> dict[str, Any]:
        """What asyncpg is given for a connection, but for the host."""
        named = {"user": self.user, "password": self.password, "database": self.database, "ssl": self.sslmode}
        settings = named | {"target_session_attrs": self.session}
        # A statement that was prepared stays on a server connection that somebody else has by then.
        return settings | {"statement_cache_size": 0} if self.pooled else settings


def parse_postgres(text: str) -> PostgresTarget:
    """Read an address.

    Raises:
        ValueError: what is wrong with it, as half a sentence that quotes nothing of it.
    """
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError("not an address") from None  # the original quotes what may be a password
    if url.scheme not in ("postgres", "postgresql"):
        raise ValueError("not a postgres:// address")
    if not (database := unquote(url.path.strip("/"))):
        raise ValueError("no database name")
    parameters = _parameters(url.query)
    login, _, there = url.netloc.rpartition("@")
    user, _, password = login.partition(":")
    hosts = _hosts(parameters.get("host", ""), there)
    return PostgresTarget(
        hosts=hosts,
        database=database,
        user=unquote(user) or None,
        password=unquote(password) or None,
        sslmode=parameters.get("sslmode"),
        # Of several hosts only the primary will do: see docs/postgresql.md.
        session=parameters.get("target_session_attrs", "read-write" if len(hosts) > 1 else "any"),
        pooled=parameters.get("pgbouncer") == "transaction",
    )


def _parameters(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    if given.keys() - _PARAMETERS.keys():
        raise ValueError(f"of the parameters only {', '.join(_PARAMETERS)} are supported")
    for name, value in given.items():
        if _PARAMETERS[name] and value not in _PARAMETERS[name]:
            raise ValueError(f"{name} is none of {', '.join(_PARAMETERS[name])}")
    return given


def _hosts(parameter: str, there: str) -> tuple[Address, ...]:
    """The hosts, of which `parameter` says where and `there` the port when they are a folder with a socket."""
    if parameter.startswith("/"):
        return ((parameter, _hosts("", f"socket{there}")[0][1]),)
    if not (text := parameter or there):
        raise ValueError("no host")
    found = [_HOST.fullmatch(host) for host in text.split(",")]
    hosts = tuple((unquote(match[1] or match[2]), int(match[3] or PORT)) for match in found if match)
    if len(hosts) < len(found) or not all(0 < port < 65_536 for _, port in hosts):
        raise ValueError("a host is not like name:port")
    return hosts
