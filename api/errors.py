"""The one table from errors to answers. Every error is JSON: `{"error": sentence, "code": snake_case}`."""

import logging

import msgspec
from sanic import HTTPResponse, Request
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler

from api.answers import Answer, as_sent
from models import errors

log = logging.getLogger("gatehouse.api")

STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidInput: 400,
    errors.UnknownPolicy: 400,
    errors.InvalidCredentials: 401,
    errors.SignupDisabled: 403,
    errors.UsernameTaken: 409,
    errors.LoginThrottled: 429,
    errors.Overloaded: 503,
    errors.StoreUnavailable: 503,
    errors.RedisAway: 503,
    errors.ReplyLost: 503,
    errors.RedisRefused: 503,
    errors.RedisBusy: 503,
    errors.ScriptMissing: 503,
    errors.SlotMoved: 503,
}

# What the framework itself refuses, in our words: its own name files, routes and limits.
REFUSALS: dict[int, tuple[str, str]] = {
    400: ("The request is not valid HTTP", "invalid_request"),
    404: ("There is nothing here", "not_found"),
    405: ("This method is not allowed here", "method_not_allowed"),
    408: ("The request took too long to arrive", "request_timeout"),
    413: ("The request is too large", "payload_too_large"),
    414: ("The address is too long", "uri_too_long"),
    415: ("The body must be application/json", "unsupported_media_type"),
    417: ("The expectation cannot be met", "expectation_failed"),
    431: ("The headers are too large", "headers_too_large"),
    503: ("The service cannot answer now; try again shortly", "unavailable"),
}
_FORWARDED_HEADERS = ("allow", "retry-after")


def problem(status: int, error: str, code: str, headers: dict[str, str] | None = None) -> Answer:
    """An error's answer.

    Args:
        error: a sentence for people.
        code: a snake_case name for programs, stable.
    """
    return Answer(msgspec.json.encode({"error": error, "code": code}), status, as_sent(headers or {}), code)


def refusal(error: errors.ServiceError) -> Answer:
    """The answer to what `models` could not do."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return problem(STATUS.get(type(error), 500), str(error), error.code, headers)


class Errors(ErrorHandler):
    """Answers for whatever a handler or the framework raised."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        if isinstance(exception, errors.ServiceError):
            return refusal(exception)
        if isinstance(exception, RequestCancelled):
            return problem(400, "The request ended too early", "incomplete_request")  # nobody is there to read it
        if isinstance(exception, SanicException) and exception.status_code in REFUSALS:
            error, code = REFUSALS[exception.status_code]
            given = {name.lower(): str(value) for name, value in (exception.headers or {}).items()}
            headers = {name.title(): given[name] for name in _FORWARDED_HEADERS if name in given}
            if "Allow" in headers:
                allowed = set(headers["Allow"].split(", "))
                headers["Allow"] = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
            if exception.status_code == 503:
                headers.setdefault("Retry-After", "1")
            return problem(exception.status_code, error, code, headers)
        log.error("unexpected error on %s %s, request %s", request.method, request.path, request.id, exc_info=exception)
        return problem(500, "Something went wrong here; the log has more", "internal_error")
