"""What routes can answer, in the words of OpenAPI 3.1: each error once, for the routes to refer to."""

import re
from typing import Any, NamedTuple

from api import errors, viewer
from api.exchange import ON_EVERY_ANSWER
from api.gate import WHY
from api.metrics import KEY_REQUIRED

Json = dict[str, Any]

_NAME = '"[a-z][a-z0-9_]{0,31}(-[2-8])?"'
_POLICY = rf"{_NAME};q=[1-9][0-9]*;w=[1-9][0-9]*"
_STATE = rf"{_NAME};r=[0-9]+;t=[1-9][0-9]*"


def _field(about: str, *, required: bool = True, **schema: Any) -> Json:
    return {"required": required, "description": about, "schema": schema}


FIELDS: Json = {
    **{name: _field("On every answer.", const=value) for name, value in ON_EVERY_ANSWER.items()},
    "X-Request-Id": _field("On every answer, and in the log.", type="string", pattern="^[A-Za-z0-9._-]{1,64}$"),
    "RateLimit-Policy": _field(
        "Each limit: `q` calls in any `w` seconds.", type="string", pattern=f"^{_POLICY}(, {_POLICY})*$"
    ),
    "RateLimit": _field(
        "Of each limit, `r` calls are left, and one more in `t` seconds.",
        type="string",
        pattern=f"^{_STATE}(, {_STATE})*$",
    ),
    "Retry-After": _field("Seconds.", type="integer", minimum=1),
    "WWW-Authenticate": _field("RFC 6750, 3.", enum=["Bearer", 'Bearer error="invalid_token"']),
    "X-User-Id": _field("Whose call it is.", type="integer", minimum=1),
    "X-User-Name": _field(
        "UTF-8, percent-encoded; not there while PostgreSQL is away and the name was not asked for before.",
        required=False,
        type="string",
    ),
    "X-Session-Expires": _field("RFC 3339, in UTC.", type="string", format="date-time"),
    "X-Gate-Status": _field("The true status, with `dialect=nginx`.", enum=["400", "401", "429", "503"]),
    "X-Gate-Code": _field("The error's `code`.", type="string"),
    "Allow": _field("What is allowed.", type="string", pattern="^[A-Z]+(, [A-Z]+)*$"),
}
FIELDS |= {
    "Kept-Cache-Control": _field("It never changes.", const=viewer.KEEP),
    "Vary": _field("What the body depends on.", const=viewer.ENCODED["Vary"]),
    "Content-Encoding": _field("Of a client that takes it.", const="gzip"),
    **{name: _field("What the page may do.", const=value) for name, value in viewer.FIELDS.items()},
}
_SOMETIMES = (
    *("RateLimit-Policy", "RateLimit", "Retry-After"),
    *("X-Gate-Status", "X-Gate-Code", "Content-Encoding"),
)
FIELDS |= {f"Optional-{name}": FIELDS[name] | {"required": False} for name in _SOMETIMES}
"""Name → header field."""


def answer(
    status: int, about: str, *bodies: tuple[str, Json | None], fields: tuple[str, ...] = (), **more: Any
) -> Json:
    """Status → response, with what is on every answer, and `fields`.

    Args:
        bodies: the schemas of what the body may be, each with an example; none for no body.
    """
    made = {"description": about, "headers": _headers(*fields), **more}
    schemas = [{"$ref": f"#/components/schemas/{schema}"} for schema, _ in bodies]
    examples = {schema: {"value": example} for schema, example in bodies if example is not None}
    if bodies:
        content: Json = {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}
        made["content"] = {"application/json": content | ({"examples": examples} if examples else {})}
    return {str(status): made}


def page(about: str, media_type: str, *fields: str) -> Json:
    """200 → response that is no JSON."""
    content = {media_type: {"schema": {"type": "string"}}}
    return {"200": {"description": about, "headers": _headers(*fields), "content": content}}


def refused(*names: str) -> Json:
    """Status → reference, of these refusals and of those that every route can answer."""
    found = {REFUSALS[name].status: f"#/components/responses/{name}" for name in (*_EVERYWHERE, *names)}
    return {str(status): {"$ref": reference} for status, reference in sorted(found.items())}


class Refusal(NamedTuple):
    """An error's answer.

    Args:
        codes: all that it can have.
        fields: header fields besides those on every answer.
        fixed: clients may rely on the sentence too.
    """

    status: int
    about: str
    codes: tuple[str, ...]
    fields: tuple[str, ...] = ()
    fixed: bool = False

    def response(self) -> Json:
        """As OpenAPI writes it."""
        error: Json = {"const": _SENTENCES[self.codes[0]]} if self.fixed else {"type": "string", "minLength": 1}
        schema = {
            "type": "object",
            "required": ["error", "code"],
            "properties": {"error": error, "code": {"enum": list(self.codes)}},
            "additionalProperties": False,
        }
        examples = {code: {"value": {"error": _SENTENCES[code], "code": code}} for code in self.codes}
        return {
            "description": self.about,
            "headers": _headers(*self.fields),
            "content": {"application/json": {"schema": schema, "examples": examples}},
        }


def _headers(*fields: str) -> Json:
    names = (*ON_EVERY_ANSWER, "X-Request-Id", *fields)
    return {re.sub("^(Optional|Kept)-", "", name): {"$ref": f"#/components/headers/{name}"} for name in names}


_SENTENCES: dict[str, str] = {
    **{code: sentence for sentence, code in errors.REFUSALS.values()},
    **{kind.code: (kind.__doc__ or "").partition(".")[0] for kind in errors.STATUS},
    **dict(WHY.items()),
    "incomplete_request": "The request ended too early",
    "internal_error": "Something went wrong here; the log has more",
    "rate_limited": "Rate limit exceeded",
    "metrics_key_required": KEY_REQUIRED,
    "not_ready": "Not ready: PostgreSQL away",
}
"""Code → what the answer says, or one of the things that it says."""

_WAIT = ("Retry-After",)
_TO_NGINX_ALWAYS = ("X-Gate-Status", "X-Gate-Code")
_TO_NGINX = ("Optional-X-Gate-Status", "Optional-X-Gate-Code")
_LIMITS = ("RateLimit-Policy", "RateLimit", "Retry-After")

REFUSALS: dict[str, Refusal] = {
    "BadRequest": Refusal(400, "Not valid, as a body or as HTTP.", ("invalid_request", "incomplete_request")),
    "UnknownPolicy": Refusal(
        400, "Not valid, or no such `policy`.", ("invalid_request", "incomplete_request", "unknown_policy")
    ),
    "InvalidCredentials": Refusal(
        401, "The same for an unknown user, a wrong password and a disabled user.", ("invalid_credentials",), fixed=True
    ),
    "NoSession": Refusal(401, "The `code` says why.", tuple(WHY), ("WWW-Authenticate", *_TO_NGINX)),
    "NoMetricsKey": Refusal(401, "`METRICS_KEY` is needed.", ("metrics_key_required",), ("WWW-Authenticate",)),
    "SignupDisabled": Refusal(403, "The operator creates the accounts here.", ("signup_disabled",)),
    "RefusedToNginx": Refusal(
        403,
        "With `dialect=nginx`, for 400 by `policy`, 429 and 503, which stand in `X-Gate-Status`.",
        ("rate_limited", "store_unavailable", "unknown_policy"),
        (*_TO_NGINX_ALWAYS, "Optional-Retry-After", "Optional-RateLimit-Policy", "Optional-RateLimit"),
    ),
    "NotFound": Refusal(404, "No such path.", ("not_found",)),
    "MethodNotAllowed": Refusal(405, "Not with this method.", ("method_not_allowed",), ("Allow",)),
    "TooSlow": Refusal(408, "The request did not arrive in time.", ("request_timeout",)),
    "UsernameTaken": Refusal(409, "Somebody has this name.", ("username_taken",), fixed=True),
    "BodyTooLarge": Refusal(413, "The body is too large.", ("payload_too_large",)),
    "AddressTooLong": Refusal(414, "The path and query are too long.", ("uri_too_long",)),
    "WrongMediaType": Refusal(415, "The body is not said to be JSON in UTF-8.", ("unsupported_media_type",)),
    "WrongExpectation": Refusal(417, "`Expect` is not `100-continue`.", ("expectation_failed",)),
    "RateLimited": Refusal(429, "A limit is reached; not counted.", ("rate_limited",), _LIMITS, fixed=True),
    "LoginThrottled": Refusal(429, "Too many wrong passwords; nothing was looked at.", ("login_throttled",), _WAIT),
    "HeadTooLarge": Refusal(431, "The header fields are too large.", ("headers_too_large",)),
    "Fault": Refusal(500, "A fault of ours.", ("internal_error",)),
    "Unavailable": Refusal(503, "Not in time.", ("unavailable",), _WAIT),
    "StoreAway": Refusal(503, "A store is away.", ("store_unavailable", "unavailable"), _WAIT),
    "Overloaded": Refusal(
        503,
        "Too many passwords to hash, or a store is away.",
        ("overloaded", "store_unavailable", "unavailable"),
        _WAIT,
    ),
    "NotReady": Refusal(503, "A store is away.", ("not_ready", "store_unavailable", "unavailable"), _WAIT),
}
"""Name → refusal."""

_EVERYWHERE = (
    "BadRequest",
    "TooSlow",
    "BodyTooLarge",
    "AddressTooLong",
    "WrongExpectation",
    "HeadTooLarge",
    "Fault",
    "Unavailable",
)
"""What every route can answer; a later one with the same status takes its place."""
