"""The gate: Bearer header → `usage.admit` → the handler. 401 and 429 are made here alone."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, overload

from sanic import HTTPResponse, Request, Sanic

from api.answers import Answer
from api.errors import problem
from models.connections import Stores
from models.errors import SettingsError, UnknownPolicy
from models.limits import RateLimit
from models.policies import DEFAULT, Applied, Policies
from models.sessions import Reason
from models.tokens import Claims
from models.usage import Admission, Usage

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


PolicyOf = Callable[[Request], str]
"""By which policies a request is judged, their names between commas."""


@overload
def limited(handler: Handler) -> Handler: ...
@overload
def limited(*, policy: str | PolicyOf = DEFAULT) -> Callable[[Handler], Handler]: ...
def limited(handler: Handler | None = None, *, policy: str | PolicyOf = DEFAULT) -> Any:
    """Protect a route: a valid session, within all limits, counted; one Redis round trip.

    Args:
        policy: names from `RATE_LIMITS`, between commas, by which the route's calls are judged; or what tells them.
    """
    if handler is None:
        return lambda handler: _limited(handler, policy)
    return _limited(handler, policy)


def _limited(handler: Handler, policy: str | PolicyOf) -> Handler:
    @wraps(handler)
    async def gate(request: Request) -> HTTPResponse:
        usage: Usage = request.app.ctx.stores.usage
        token = bearer_token(request)
        if token is None:
            usage.refused("missing_token")
            return unauthorized("missing_token")
        if policy is DEFAULT:  # as of most routes
            applied = usage.policies.default
        else:
            applied = usage.policies.named(policy if isinstance(policy, str) else policy(request))
        admission = await usage.admit(token, applied)
        if admission.reason is not None:
            return unauthorized(admission.reason)
        request.ctx.claims = admission.claims
        if not admission.admitted:
            return too_many(admission, rate_limit_headers(applied))
        response = await handler(request)
        headers = rate_limit_headers(applied)
        if type(response) is Answer:
            response.fields += headers.fields(admission)
        elif headers.policy:
            response.headers["RateLimit-Policy"] = headers.policy
            response.headers["RateLimit"] = headers.state(admission)
        return response

    gate.policy = policy  # type: ignore[attr-defined]  # for `check_policies`
    return gate


def check_policies(app: Sanic[Any, Any], policies: Policies) -> None:
    """See that there are all policies that routes are protected by.

    Raises:
        SettingsError: names the routes whose policy is missing.
    """
    problems = []
    for route in app.router.routes:
        policy = getattr(route.handler, "policy", DEFAULT)
        try:
            policies.named(policy if isinstance(policy, str) else DEFAULT)
        except UnknownPolicy:
            problems.append(f"RATE_LIMITS: has no policy {policy!r}, which /{route.path} is protected by")
    if problems:
        raise SettingsError(problems)


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


@lru_cache(maxsize=4_096)
def rate_limit_headers(applied: Applied) -> "RateLimitHeaders":
    """What writes the header fields of these policies."""
    return RateLimitHeaders(applied.limits)


class RateLimitHeaders:
    """Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).

    Args:
        limits: as every admission reports them, in this order.
    """

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self.policy = ", ".join(f'"{limit.name}";q={limit.calls};w={limit.window_s}' for limit in limits)
        self._state = ", ".join(f'"{limit.name}";r=%d;t=%d' for limit in limits)
        # Nothing where only shadows judge.
        both = f"RateLimit-Policy: {self.policy}\r\nRateLimit: {self._state}\r\n" if limits else ""
        self._fields = both.encode()

    def state(self, admission: Admission) -> str:
        """Of each limit, the remaining calls and the seconds until one more is free, rounded up."""
        return self._state % _numbers(admission)

    def fields(self, admission: Admission) -> bytes:
        """Both, as they are sent."""
        return self._fields % _numbers(admission)


def _numbers(admission: Admission) -> tuple[int, ...]:
    numbers: list[int] = []
    for remaining, reset_us in zip(admission.remaining, admission.reset_us, strict=True):
        numbers += (remaining, _whole_seconds(reset_us))
    return tuple(numbers)


def _whole_seconds(time_us: int) -> int:
    return max(1, -(-time_us // 1_000_000))
