"""The log of authentication events: one JSON object a line, in the logger `gatehouse.auth`.

A line has the event, its outcome, the user's id when there is such a user, the client's address and the request's id.
It never has what was typed: a username that nobody has may be a password in the wrong field. JSON escapes whatever
would end a line (OWASP ASVS 5.0, 16.3.1 and 16.4.1).
"""

import logging

import msgspec

log = logging.getLogger("gatehouse.auth")

_REFUSED = ("refused", "throttled", "failed")


class Origin(msgspec.Struct, frozen=True):
    """Where a request came from.

    Args:
        address: the client's, as far as the trusted proxies tell it; IPv6 as its /64 network.
        request_id: as in the answer's `X-Request-Id`.
    """

    address: str
    request_id: str


LOCAL = Origin("local", "")
"""The command line, and whoever else is on the inside."""


def record(event: str, outcome: str, origin: Origin, *, user_id: int | None = None, why: str = "") -> None:
    """Write one event.

    Args:
        event: what was asked for: `login`, `logout`, `signup`, `revoke`, `dashboard_login`, and of operators also
            `revoke_all`, `disable`, `enable`, `set_password`, `reset_usage`.
        outcome: `done`, `refused`, `throttled` or `failed`.
        why: a refusal's code.
    """
    facts = {"event": event, "outcome": outcome, "user_id": user_id, "why": why or None}
    facts |= {"address": origin.address, "request_id": origin.request_id or None}
    level = logging.WARNING if outcome in _REFUSED else logging.INFO
    known = {name: fact for name, fact in facts.items() if fact is not None}
    log.log(level, msgspec.json.encode(known).decode(), extra={"facts": known})
