"""The schemas of the OpenAPI document: what bodies are, as JSON Schema 2020-12."""

from api.refusals import Json
from models.credentials import PASSWORD_MAX_LENGTH, USERNAME_MAX_LENGTH
from models.settings import Settings
from models.tokens import TOKEN_LENGTH
from models.windows import PERIODS

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


def schemas(settings: Settings) -> Json:
    """Name → schema."""
    return _of_accounts(settings) | _of_usage() | _of_operators() | {"Empty": _exactly()}


def _of_accounts(settings: Settings) -> Json:
    username = _text(
        _USERNAME,
        minLength=1,
        maxLength=USERNAME_MAX_LENGTH,
        description="Upper and lower case, full and half width are the same name. Besides what the pattern refuses, no "
        "character that Unicode leaves unassigned or private, and not too many ligatures.",
    )
    password = _text(r"^[^\u0000]*$", minLength=1, maxLength=PASSWORD_MAX_LENGTH, format="password")
    long_password = password | {"minLength": settings.password_min_length}
    token, time = _text(rf"^[A-Za-z0-9_-]{{{TOKEN_LENGTH}}}$"), _text(_TIME, format="date-time")
    return {
        "NewAccount": _exactly(username=username, password=long_password),
        "Credentials": _exactly(username=username, password=password),
        "LoggedIn": _exactly(message={"const": "Login successful"}, sessionToken=token),
        "Session": _exactly(userId=_FROM_ONE, username=username, createdAt=time, expiresAt=time),
    }


def _of_usage() -> Json:
    line = _text("^CallingPingAPI userID:[0-9]+ called [0-9]+ times$")
    window, count = {"enum": list(PERIODS)}, {"type": "integer", "minimum": 0}
    return {
        "Top": _exactly(topUsersCallingAPIAllTime=_ten(line)),
        "TopOfWindow": _exactly(window=window, users=_ten(_exactly(userId=_FROM_ONE, calls=_FROM_ONE))),
        "Count": _exactly(estimatedCount=count),
        "CountOfWindow": _exactly(window=window, callers=count),
    }


def _of_operators() -> Json:
    warnings = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    return {
        "Live": _exactly(status={"const": "live"}),
        "Ready": _exactly(("warnings",), status={"const": "ready"}, warnings=warnings),
        "Description": {"type": "object", "required": ["openapi", "info", "paths"]},
    }


_FROM_ONE: Json = {"type": "integer", "minimum": 1}


def _exactly(optional: tuple[str, ...] = (), **properties: Json) -> Json:
    """An object with these members and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _ten(items: Json) -> Json:
    """Ten at most."""
    return {"type": "array", "maxItems": 10, "items": items}


def _text(pattern: str, **more: Json | str | int) -> Json:
    """A string that matches a pattern."""
    return {"type": "string", "pattern": pattern, **more}
