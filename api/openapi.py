"""The service described for programs, in OpenAPI 3.1: what `GET /openapi.json` answers.

Limits are taken from where they are kept; that the rest is what the routes do, tests hold.
"""

from typing import Any

from api import viewer
from api.heads import MAX_BODY_BYTES
from api.refusals import FIELDS, REFUSALS, Json, answer, page, refused
from api.routes.verify import METHODS
from api.schemas import schemas
from models.policies import DEFAULT, MAX_APPLIED
from models.settings import Settings
from models.windows import PERIODS

VERSION = "0.1.0"
ABOUT = """A user logs in once; after that every call is authenticated, rate-limited and counted.

Every error is `{"error": a sentence for people, "code": a stable name for programs}`. What is not listed here is
answered too: another path as the response `NotFound` says, another method as `MethodNotAllowed` does, and `HEAD`,
wherever `GET` is, as that without its body. Pages for people, such as `/dashboard`, are not described here.
"""

_TOKEN = ("NoSession", "StoreAway")
"""What a route that takes a token can answer."""

_BODY = ("WrongMediaType", "Overloaded")
"""What a route that takes a username and a password can answer."""


def document(settings: Settings) -> Json:
    """The description of the service with these settings."""
    paths = _PATHS | {"/ping": ("get", _ping(settings))} | _PATHS_OF_OPERATORS
    if settings.docs:
        paths |= _PATHS_OF_READERS
    if settings.metrics_key:
        paths |= _METRICS
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gatehouse", "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": {
            path: {"parameters": [{"$ref": "#/components/parameters/RequestId"}], method: operation}
            for path, (method, operation) in paths.items()
        }
        | {"/verify": _verify(settings)},
        "components": {
            "schemas": schemas(settings),
            "responses": {name: refusal.response() for name, refusal in REFUSALS.items()},
            "headers": FIELDS,
            "parameters": {"RequestId": _REQUEST_ID},
            "securitySchemes": {
                "session": {"type": "http", "scheme": "bearer", "description": "The `sessionToken` of `/login`."},
                "metricsKey": {"type": "http", "scheme": "bearer", "description": "`METRICS_KEY`."},
            },
        },
    }


def _operation(name: str, about: str, answers: Json, *refusals: str, **more: Any) -> Json:
    """An operation; `refusals` are names, besides those that every route can answer."""
    return {"operationId": name, "summary": about, "responses": answers | refused(*refusals), **more}


def _with_token(*given: Any) -> Json:
    """An operation behind a session."""
    return _operation(*given, *_TOKEN, security=[{"session": []}])


def _with_body(schema: str, *given: Any) -> Json:
    """An operation with a username and a password."""
    body = {
        "required": True,
        "description": f"{MAX_BODY_BYTES} bytes of UTF-8 at most, not compressed, each name once.",
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "example": {"username": "ada", "password": "correct horse battery"},
            }
        },
    }
    return _operation(*given, *_BODY, requestBody=body)


_OF_A_SCRIPT = ("Kept-Cache-Control", "Vary", "Optional-Content-Encoding")
_LIMITS = ("RateLimit-Policy", "RateLimit")
_LIMITS_OF_SHADOWS = ("Optional-RateLimit-Policy", "Optional-RateLimit")
_WINDOW: Json = {
    "name": "window",
    "in": "query",
    "description": "Of this `hour`, of this `day`, or of `all` time.",
    "schema": {"enum": list(PERIODS)},
}

_PATHS: dict[str, tuple[str, Json]] = {
    "/signup": (
        "post",
        _with_body(
            "NewAccount",
            "signUp",
            "Create an account",
            answer(
                201,
                "The account is there.",
                ("Empty", {}),
                links={"logIn": {"operationId": "logIn", "requestBody": "$request.body"}},
            ),
            "SignupDisabled",
            "UsernameTaken",
        ),
    ),
    "/login": (
        "post",
        _with_body(
            "Credentials",
            "logIn",
            "Start a session, which ends the user's older one",
            answer(
                200,
                "The token stands for the user until the session ends.",
                (
                    "LoggedIn",
                    {"message": "Login successful", "sessionToken": ("4awAAAAAAAAAAQAAAAAAAAABAAABogo7" * 3)},
                ),
            ),
            "InvalidCredentials",
            "LoginThrottled",
        ),
    ),
    "/logout": ("post", _with_token("logOut", "End the session", answer(204, "It has ended."))),
    "/session": (
        "get",
        _with_token(
            "describeSession",
            "Whose session it is, and until when; neither limited nor counted",
            answer(
                200,
                "It is live.",
                (
                    "Session",
                    {
                        "userId": 1,
                        "username": "ada",
                        "createdAt": "2026-11-23T20:36:19.028Z",
                        "expiresAt": "2026-11-23T21:06:19.028Z",
                    },
                ),
            ),
        ),
    ),
    "/top": (
        "get",
        _operation(
            "top",
            "Who calls most, of all time, this hour or this day (UTC)",
            answer(
                200,
                "Ten users at most, most calls first, ties by lower user id: with `window` each with its numbers, "
                "without it as the lines that there have always been.",
                ("Top", {"topUsersCallingAPIAllTime": ["CallingPingAPI userID:3 called 4 times"]}),
                ("TopOfWindow", {"window": "day", "users": [{"userId": 3, "calls": 4}]}),
            ),
            "StoreAway",
            parameters=[_WINDOW],
        ),
    ),
    "/count": (
        "get",
        _operation(
            "count",
            "How many users have called, of all time, this hour or this day (UTC)",
            answer(
                200,
                "Of all time an estimate, of many users about a per cent off; of an hour or a day the exact number.",
                ("Count", {"estimatedCount": 150}),
                ("CountOfWindow", {"window": "hour", "callers": 12}),
            ),
            "StoreAway",
            parameters=[_WINDOW],
        ),
    ),
}


def _ping(settings: Settings) -> Json:
    enforced = any(policy.name == DEFAULT and not policy.shadow for policy in settings.rate_limits)
    return _with_token(
        "ping",
        "The call that is limited and counted",
        answer(200, "Admitted.", ("Empty", {}), fields=_LIMITS if enforced else _LIMITS_OF_SHADOWS),
        "RateLimited",
    )


def _verify(settings: Settings) -> Json:
    """The same operation for every method: a proxy passes on that of the call it asks about."""
    shadows = any(policy.shadow for policy in settings.rate_limits)
    limits = _LIMITS_OF_SHADOWS if shadows else _LIMITS
    fields = ("X-User-Id", "X-User-Name", "X-Session-Expires", *limits)
    admitted = answer(200, "Admitted: for a proxy, which passes these fields on.", ("Empty", {}), fields=fields)
    about = "Whether a call to another service may go on; limited and counted. A body is ignored."
    refusals = (*_TOKEN, "RateLimited", "RefusedToNginx", "UnknownPolicy")
    return {"parameters": [{"$ref": "#/components/parameters/RequestId"}, _DIALECT, *_policies(settings)]} | {
        method.lower(): _operation(f"verify{method.title()}", about, admitted, *refusals, security=[{"session": []}])
        for method in METHODS
    }


def _policies(settings: Settings) -> list[Json]:
    """By which policies `/verify` judges: in the address, or in a field that a proxy sets."""
    schema = {
        "type": "array",
        "items": {"enum": [policy.name for policy in settings.rate_limits]},
        "minItems": 1,
        "maxItems": MAX_APPLIED,
        "uniqueItems": True,
    }
    about = f"By which of the named limits to judge the call, all of which must allow it; `{DEFAULT}` without it"
    query = {"name": "policy", "in": "query", "description": f"{about}.", "style": "form", "explode": False}
    given = [query | {"schema": schema}]
    if settings.policy_header:
        field = {"name": settings.policy_header, "in": "header", "description": f"{about}, and without `policy`."}
        given.append(field | {"schema": schema})
    return given


_PATHS_OF_OPERATORS: dict[str, tuple[str, Json]] = {
    "/health/live": (
        "get",
        _operation("live", "Does the process answer?", answer(200, "It does.", ("Live", {"status": "live"}))),
    ),
    "/health/ready": (
        "get",
        _operation(
            "ready",
            "Are the stores there that it needs?",
            answer(200, "They are, though there may be `warnings`.", ("Ready", {"status": "ready"})),
            "NotReady",
        ),
    ),
    "/openapi.json": (
        "get",
        _operation("describeService", "This document", answer(200, "OpenAPI 3.1.", ("Description", None))),
    ),
}

_PATHS_OF_READERS: dict[str, tuple[str, Json]] = {
    "/docs": (
        "get",
        _operation(
            "readDocument",
            "This document, for people",
            page("A page.", viewer.PAGE_TYPE, *viewer.FIELDS),
        ),
    ),
    f"/docs/{viewer.SCRIPT}": (
        "get",
        _operation(
            "loadViewer",
            "What shows it",
            page("To keep for ever.", viewer.SCRIPT_TYPE, *_OF_A_SCRIPT),
        ),
    ),
}

_METRICS: dict[str, tuple[str, Json]] = {
    "/metrics": (
        "get",
        _operation(
            "metrics",
            "How it is doing, for Prometheus",
            page("Prometheus's text format, or OpenMetrics.", "text/plain; version=0.0.4; charset=utf-8"),
            "NoMetricsKey",
            security=[{"metricsKey": []}],
        ),
    ),
}

_DIALECT: Json = {
    "name": "dialect",
    "in": "query",
    "description": "`nginx` gets 403 for what its `auth_request` does not understand.",
    "schema": {"enum": ["nginx"]},
}
_REQUEST_ID: Json = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "Of the client's choice; if it is not 1 to 64 of `A-Za-z0-9._-`, the answer has another one.",
    "schema": {"type": "string"},
    "example": "550e8400-e29b-41d4-a716-446655440000",
}
