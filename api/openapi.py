"""The service described for programs, in OpenAPI 3.1: what `GET /openapi.json` answers.

Limits are taken from where they are kept; that the rest is what the routes do, tests hold.
"""

from typing import Any

from api.heads import MAX_BODY_BYTES
from api.refusals import FIELDS, REFUSALS, Json, answer, refused
from api.routes.verify import METHODS
from models.credentials import PASSWORD_MAX_LENGTH, USERNAME_MAX_LENGTH
from models.settings import Settings
from models.tokens import TOKEN_LENGTH

VERSION = "0.1.0"
ABOUT = """A user logs in once; after that every call is authenticated, rate-limited and counted.

Every error is `{"error": a sentence for people, "code": a stable name for programs}`. What is not listed here is
answered too: another path as the response `NotFound` says, another method as `MethodNotAllowed` does, and `HEAD`,
wherever `GET` is, as that without its body. Pages for people, such as `/dashboard`, are not described here.
"""

# Control, format and separating characters, and those that fonts may leave out. Beyond these the rule of
# `models.credentials` is only told: ranges for what is unassigned or private would fill a page, and not every reader of
# patterns knows the categories of Unicode.
_HIDDEN = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160\u17b4-\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
    "\U000e0100-\U000e01ef"
)
_SPACES = r"\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_USERNAME = f"^[^{_HIDDEN}{_SPACES}]([^{_HIDDEN}]*[^{_HIDDEN}{_SPACES}])?$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"

_TOKEN = ("NoSession", "StoreAway")
"""What a route that takes a token can answer."""

_BODY = ("WrongMediaType", "Overloaded")
"""What a route that takes a username and a password can answer."""


def document(settings: Settings) -> Json:
    """The description of the service with these settings."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gatehouse", "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": {
            path: {"parameters": [{"$ref": "#/components/parameters/RequestId"}], method: operation}
            for path, (method, operation) in (
                _PATHS | _PATHS_OF_OPERATORS | (_METRICS if settings.metrics_key else {})
            ).items()
        }
        | {"/verify": {"parameters": [{"$ref": "#/components/parameters/RequestId"}, _DIALECT]} | _verify()},
        "components": {
            "schemas": _schemas(settings),
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
                "Empty",
                {},
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
                "LoggedIn",
                {"message": "Login successful", "sessionToken": ("4awAAAAAAAAAAQAAAAAAAAABAAABogo7" * 3)},
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
    "/ping": (
        "get",
        _with_token(
            "ping",
            "The call that is limited and counted",
            answer(200, "Admitted.", "Empty", {}, "RateLimit-Policy", "RateLimit"),
            "RateLimited",
        ),
    ),
    "/top": (
        "get",
        _operation(
            "top",
            "Who calls most",
            answer(
                200,
                "Ten users at most, most calls first, ties by lower user id.",
                "Top",
                {"topUsersCallingAPIAllTime": ["CallingPingAPI userID:3 called 4 times"]},
            ),
            "StoreAway",
        ),
    ),
    "/count": (
        "get",
        _operation(
            "count",
            "How many users have called",
            answer(200, "An estimate, of many users about a per cent off.", "Count", {"estimatedCount": 150}),
            "StoreAway",
        ),
    ),
}


def _verify() -> Json:
    """The same operation for every method: a proxy passes on that of the call it asks about."""
    admitted = answer(
        200,
        "Admitted: for a proxy, which passes these fields on.",
        "Empty",
        {},
        *("X-User-Id", "X-User-Name", "X-Session-Expires", "RateLimit-Policy", "RateLimit"),
    )
    about = "Whether a call to another service may go on; limited and counted. A body is ignored."
    return {
        method.lower(): _operation(
            f"verify{method.title()}",
            about,
            admitted,
            *(*_TOKEN, "RateLimited", "RefusedToNginx"),
            security=[{"session": []}],
        )
        for method in METHODS
    }


_PATHS_OF_OPERATORS: dict[str, tuple[str, Json]] = {
    "/health/live": (
        "get",
        _operation("live", "Does the process answer?", answer(200, "It does.", "Live", {"status": "live"})),
    ),
    "/health/ready": (
        "get",
        _operation(
            "ready",
            "Are the stores there that it needs?",
            answer(200, "They are, though there may be `warnings`.", "Ready", {"status": "ready"}),
            "NotReady",
        ),
    ),
    "/openapi.json": (
        "get",
        _operation("describeService", "This document", answer(200, "OpenAPI 3.1.", "Description")),
    ),
}

_METRICS: dict[str, tuple[str, Json]] = {
    "/metrics": (
        "get",
        _operation(
            "metrics",
            "How it is doing, for Prometheus",
            answer(200, "Prometheus's text format, or OpenMetrics.", text="text/plain; version=0.0.4; charset=utf-8"),
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


def _text(pattern: str, **more: Any) -> Json:
    """A string that matches a pattern."""
    return {"type": "string", "pattern": pattern, **more}


def _schemas(settings: Settings) -> Json:
    def exactly(optional: tuple[str, ...] = (), **properties: Json) -> Json:
        required = [name for name in properties if name not in optional]
        return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}

    username = _text(
        _USERNAME,
        minLength=1,
        maxLength=USERNAME_MAX_LENGTH,
        description="Upper and lower case, full and half width are the same name. Besides what the pattern refuses, no "
        "character that Unicode leaves unassigned or private, and not too many ligatures.",
    )
    password = _text(r"^[^\u0000]*$", minLength=1, maxLength=PASSWORD_MAX_LENGTH, format="password")
    long_password = password | {"minLength": settings.password_min_length}
    line = _text("^CallingPingAPI userID:[0-9]+ called [0-9]+ times$")
    return {
        "NewAccount": exactly(username=username, password=long_password),
        "Credentials": exactly(username=username, password=password),
        "Empty": exactly(),
        "LoggedIn": exactly(
            message={"const": "Login successful"}, sessionToken=_text(rf"^[A-Za-z0-9_-]{{{TOKEN_LENGTH}}}$")
        ),
        "Session": exactly(
            userId={"type": "integer", "minimum": 1},
            username=username,
            createdAt=_text(_TIME, format="date-time"),
            expiresAt=_text(_TIME, format="date-time"),
        ),
        "Top": exactly(topUsersCallingAPIAllTime={"type": "array", "maxItems": 10, "items": line}),
        "Count": exactly(estimatedCount={"type": "integer", "minimum": 0}),
        "Live": exactly(status={"const": "live"}),
        "Ready": exactly(
            ("warnings",),
            status={"const": "ready"},
            warnings={"type": "array", "minItems": 1, "items": {"type": "string"}},
        ),
        "Description": {"type": "object", "required": ["openapi", "info", "paths"]},
    }
