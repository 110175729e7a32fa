"""The gate: Bearer header → `usage.admit` → the handler. 401 and 429 are made here alone."""

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps

from sanic import HTTPResponse, Request

from api.answers import Answer
from api.errors import problem
from models.connections import Stores
from models.limits import RateLimit
from models.sessions import Reason
from models.tokens import Claims
from models.usage import Admission

Handler = Callable[[Request], Awaitable[HTTPResponse]]
ClaimsHandler = Callable[[Request, Claims], Awaitable[HTTPResponse]]

WHY: dict[Reason, str] = {
    "missing_token": "A Bearer token is required",
    "malformed_token": "The token is not one of ours",
    "session_expired": "The session has expired; log in again",
    "session_replaced": "The session was replaced by a newer login",
    "session_revoked": "The session was ended; log in again",
    "session_unknown": "There is no such session; log in again",
}


def limited(handler: Handler) -> Handler:
    """Protect a route: a valid session, within all limits, counted; one Redis round trip."""

    @wraps(handler)
    async def gate(request: Request) -> HTTPResponse:
        token = bearer_token(request)
        if token is None:
            return unauthorized("missing_token")
        stores: Stores = request.app.ctx.stores
        admission = await stores.usage.admit(token)
        if admission.reason is not None:
            return unauthorized(admission.reason)
        if not admission.admitted:
            return too_many(admission, request.app.ctx.rate_limit_headers)
        request.ctx.claims = admission.claims
        response = await handler(request)
        headers: RateLimitHeaders = request.app.ctx.rate_limit_headers
        if type(response) is Answer:
            response.fields += headers.fields(admission)
        else:
            response.headers["RateLimit-Policy"] = headers.policy
            response.headers["RateLimit"] = headers.state(admission)
        return response

    return gate


def signed(handler: ClaimsHandler) -> Handler:
    """Protect a route by the token's signature and expiry alone; the handler asks the session's store itself."""

    @wraps(handler)
    async def gate(request: Request) -> HTTPResponse:
        token = bearer_token(request)
        if token is None:
            return unauthorized("missing_token")
        stores: Stores = request.app.ctx.stores
        claims = stores.sessions.read_token(token)
        if isinstance(claims, str):
            return unauthorized(claims)
        return await handler(request, claims)

    return gate


def bearer_token(request: Request) -> str | None:
    """The token of the one `Authorization: Bearer` header (RFC 6750, 2.1); None when none was sent.

    The scheme is case-insensitive (RFC 9110, 11.1). Two headers are two answers to one question, and so a text that is
    no token. What follows the scheme is returned as it is, for the signature to judge.
    """
    values = request.headers.getall("authorization", [])
    if len(values) != 1:
        return "" if values else None
    scheme, _, token = values[0].partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def unauthorized(reason: Reason) -> HTTPResponse:
    """401 with the challenge of RFC 6750, 3: an error code only for credentials that were given."""
    challenge = "Bearer" if reason == "missing_token" else 'Bearer error="invalid_token"'
    return problem(401, WHY[reason], reason, {"WWW-Authenticate": challenge})


def too_many(admission: Admission, headers: "RateLimitHeaders") -> HTTPResponse:
    """429 with the whole seconds to wait, rounded up: whoever waits that long is admitted."""
    given = {"RateLimit-Policy": headers.policy, "RateLimit": headers.state(admission)}
    given["Retry-After"] = str(_whole_seconds(admission.wait_us))
    return problem(429, "Rate limit exceeded", "rate_limited", given)


class RateLimitHeaders:
    """Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).

    Args:
        limits: as every admission reports them, in this order.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self.policy = ", ".join(f'"{limit.name}";q={limit.calls};w={limit.window_s}' for limit in limits)
        self._state = ", ".join(f'"{limit.name}";r=%d;t=%d' for limit in limits)

    def state(self, admission: Admission) -> str:
        """Of each limit, the remaining calls and the seconds until one more is free, rounded up."""
        numbers: list[int] = []
        for remaining, reset_us in zip(admission.remaining, admission.reset_us, strict=True):
            numbers += (remaining, _whole_seconds(reset_us))
        return self._state % tuple(numbers)

    def fields(self, admission: Admission) -> bytes:
        """Both, as they are sent."""
        return f"RateLimit-Policy: {self.policy}\r\nRateLimit: {self.state(admission)}\r\n".encode()


def _whole_seconds(time_us: int) -> int:
    return max(1, -(-time_us // 1_000_000))
