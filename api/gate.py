"""The gate: Bearer header → `usage.admit` → the handler. 401 and 429 are made here alone."""

from collections.abc import Awaitable, Callable
from functools import wraps

from sanic import HTTPResponse, Request

from api.errors import problem
from models.connections import Stores
from models.sessions import Reason
from models.store import Quota
from models.tokens import Claims
from models.usage import Admission

Handler = Callable[[Request], Awaitable[HTTPResponse]]
ClaimsHandler = Callable[[Request, Claims], Awaitable[HTTPResponse]]

_WHY: dict[Reason, str] = {
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
            return too_many(admission)
        request.ctx.claims = admission.claims
        response = await handler(request)
        response.headers.update(rate_limit_headers(admission.quotas))
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
    return problem(401, _WHY[reason], reason, {"WWW-Authenticate": challenge})


def too_many(admission: Admission) -> HTTPResponse:
    """429 with the whole seconds to wait, rounded up: whoever waits that long is admitted."""
    headers = rate_limit_headers(admission.quotas)
    headers["Retry-After"] = str(_whole_seconds(admission.wait_us))
    return problem(429, "Rate limit exceeded", "rate_limited", headers)


def rate_limit_headers(quotas: tuple[Quota, ...]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): quota, window; remaining, reset."""
    policies = (f'"{quota.limit.name}";q={quota.limit.calls};w={quota.limit.window_s}' for quota in quotas)
    states = (f'"{quota.limit.name}";r={quota.remaining};t={_whole_seconds(quota.reset_us)}' for quota in quotas)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _whole_seconds(time_us: int) -> int:
    return max(1, -(-time_us // 1_000_000))
