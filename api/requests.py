"""A request as the routes see it, with an id that its answer and the log have too."""

import itertools
import os
import re
import secrets

from sanic import Request

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""An id that a client may choose itself: nothing in it ends a line, of a log or of a head."""


class _Ids:
    """Ids that no other process and no other request has: a random beginning and a number."""

    def __init__(self) -> None:
        self._restart()
        os.register_at_fork(after_in_child=self._restart)

    def _restart(self) -> None:
        self._beginning = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def new(self) -> str:
        return f"{self._beginning}-{next(self._numbers):x}"


_ids = _Ids()


class IdentifiedRequest(Request):
    """A request whose `id` is the client's own `X-Request-Id` if that is harmless, else one of ours."""

    __slots__ = ()

    @property
    def id(self) -> str:
        found = self._id
        if found is None:
            given = self.headers.getone("x-request-id", None)
            found = self._id = given if given is not None and _HARMLESS.fullmatch(given) else _ids.new()
        return found  # type: ignore[return-value]  # the framework's own ids may be numbers


def current_request_id() -> str | None:
    """The id of the request that this task handles, or was made for; None outside of any."""
    request = Request._current.get(None)
    return None if request is None else str(request.id)
