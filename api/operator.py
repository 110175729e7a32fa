"""Who is at the dashboard: the operator's cookie, and forms that only our own pages may send."""

import time
from functools import wraps
from urllib.parse import parse_qs, urlsplit

from sanic import HTTPResponse, Request
from sanic.exceptions import SanicException

from api.errors import STATUS, problem
from api.gate import Handler
from api.origin import is_https
from api.pages import page
from models.admin import TICKET_TTL_S
from models.connections import Stores
from models.errors import InvalidInput, ServiceError

COOKIE = "gatehouse_dashboard"
PATH = "/dashboard"


def seconds_left(request: Request) -> float:
    """How long the request's cookie still opens the dashboard."""
    stores: Stores = request.app.ctx.stores
    found = (part.partition("=") for part in ";".join(request.headers.getall("cookie", [])).split(";"))
    tickets = [value.strip() for name, _, value in found if name.strip() == COOKIE]
    return max((stores.admin.seconds_left(ticket, time.time()) for ticket in tickets[:4]), default=0.0)


def with_ticket(request: Request, response: HTTPResponse, ticket: str) -> HTTPResponse:
    """Have the browser keep a ticket; an empty one makes it forget."""
    secure = "; Secure" if is_https(request) else ""
    life_s = TICKET_TTL_S if ticket else 0
    cookie = f"{COOKIE}={ticket}; Path={PATH}; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}"
    response.headers["Set-Cookie"] = cookie
    return response


def operator_only(handler: Handler) -> Handler:
    """Answer 401 to whoever is not signed in."""

    @wraps(handler)
    async def check(request: Request) -> HTTPResponse:
        if not seconds_left(request):
            return problem(401, "Sign in at /dashboard first", "not_signed_in")
        return await handler(request)

    return check


def own_form(handler: Handler) -> Handler:
    """Take a form from our own pages alone, and answer what goes wrong with the page that it came from."""

    @wraps(handler)
    async def take(request: Request) -> HTTPResponse:
        if _is_foreign(request):
            return problem(403, "This form can only be sent from the dashboard itself", "foreign_form")
        try:
            return await handler(request)
        except ServiceError as error:
            wait = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return page("login", STATUS[type(error)], str(error), wait)

    return take


def _is_foreign(request: Request) -> bool:
    """Whether a browser sent it from another site's page, told by what no page can forge (Fetch Metadata; Fetch, 3.2).

    Over plain HTTP browsers send `Origin` alone. Whoever sends neither is no browser that could be led here.
    """
    site, origin = request.headers.getone("sec-fetch-site", None), request.headers.getone("origin", None)
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc.lower() != request.headers.getone("host", "").lower()


def read_key(request: Request) -> str:
    """The admin key in a form.

    Raises:
        InvalidInput: not one field `key` with a text.
        SanicException: 415, it is no form.
    """
    if request.headers.getone("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise SanicException(status_code=415)
    try:
        keys = parse_qs(request.body.decode(), strict_parsing=True, max_num_fields=8).get("key", [])
    except ValueError:
        keys = []
    if len(keys) != 1:
        raise InvalidInput("Type the admin key")
    return keys[0].strip()


_FORM = "application/x-www-form-urlencoded"
