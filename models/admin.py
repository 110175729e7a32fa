"""Who may see the dashboard: whoever knows the operator's key, and then for half a day the browser that showed it.

What the browser keeps is a ticket: when it ends, a random part, and a signature made with the admin key, so nothing is
stored, and another key ends them all. Signing out forgets it in that browser.
"""

import hashlib
import hmac
import re
import secrets
import time

from models.errors import InvalidCredentials, LoginThrottled
from models.events import Origin, record
from models.throttle import LoginThrottle

TICKET_TTL_S = 12 * 3_600

_TICKET = re.compile(r"([0-9]{10,12})\.[A-Za-z0-9_-]{22}\.[0-9a-f]{64}", re.ASCII)
_GUESSER = "\0dashboard"
"""Under which name wrong keys are throttled: no user can have it."""


class Admin:
    """The operator's way in.

    Args:
        key: from the settings; empty when there is no way in.
        throttle: counts wrong keys as wrong passwords at one address. Not over all addresses: nobody can guess such a
            key, but anybody could lock the operator out.
    """

    def __init__(self, key: str, throttle: LoginThrottle) -> None:
        self._key = _digest(f"key\0{key}")
        self._signing_key = _digest(f"tickets\0{key}") if key else secrets.token_bytes(32)
        self._open = bool(key)
        self._throttle = throttle

    async def sign_in(self, key: str, origin: Origin) -> str:
        """A ticket for whoever knows the key.

        Raises:
            InvalidCredentials: it is another one.
            LoginThrottled: too many wrong ones from this address; nothing was compared.
            Overloaded: too many at once.
        """
        try:
            async with self._throttle.attempt(_GUESSER, origin.address, known=True) as attempt:
                # Digests, so that not even the length of a guess takes a time of its own.
                if not (hmac.compare_digest(_digest(f"key\0{key}"), self._key) and self._open):
                    raise InvalidCredentials("This is not the admin key")
                attempt.forgive()
        except LoginThrottled:
            record("dashboard_login", "throttled", origin)
            raise
        except InvalidCredentials as error:
            record("dashboard_login", "refused", origin, why=error.code)
            raise
        record("dashboard_login", "done", origin)
        return self.issue(time.time())

    def issue(self, now_s: float) -> str:
        """A ticket from now on."""
        facts = f"{int(now_s) + TICKET_TTL_S}.{secrets.token_urlsafe(16)}"
        return f"{facts}.{self._signature(facts)}"

    def seconds_left(self, ticket: str, now_s: float) -> float:
        """How long a ticket goes on; 0 when it has ended or is none of ours."""
        match = _TICKET.fullmatch(ticket)
        if match is None:
            return 0.0
        facts, _, signature = ticket.rpartition(".")
        genuine = hmac.compare_digest(signature, self._signature(facts)) and self._open
        return max(0.0, int(match[1]) - now_s) if genuine else 0.0

    def _signature(self, facts: str) -> str:
        return hmac.digest(self._signing_key, facts.encode(), "sha256").hex()


def _digest(text: str) -> bytes:
    return hashlib.sha256(b"gatehouse dashboard:" + text.encode("utf-8", "surrogatepass")).digest()
