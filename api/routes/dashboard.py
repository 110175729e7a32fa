"""The operator's page, what it shows, and how one gets in."""

from sanic import Blueprint, HTTPResponse, Request

from api.broadcast import Broadcast
from api.errors import problem
from api.operator import operator_only, own_form, read_key, seconds_left, with_ticket
from api.origin import origin_of
from api.pages import file, page, see_other
from api.streams import EventStream
from models.connections import Stores

blueprint = Blueprint("dashboard", url_prefix="/dashboard")


@blueprint.get("/")
async def show(request: Request) -> HTTPResponse:
    return page("index" if seconds_left(request) else "login")


@blueprint.get("/<name:str>")
async def load(request: Request, name: str) -> HTTPResponse:
    return file(request, name)


@blueprint.get("/events")
@operator_only
async def follow(request: Request) -> HTTPResponse:
    broadcast: Broadcast = request.app.ctx.broadcast
    if broadcast.full:
        return problem(503, "Too many dashboards are open; close one", "too_many_viewers", {"Retry-After": "5"})
    return EventStream(broadcast.events(seconds_left(request)))


@blueprint.post("/login")
@own_form
async def sign_in(request: Request) -> HTTPResponse:
    stores: Stores = request.app.ctx.stores
    ticket = await stores.admin.sign_in(read_key(request), origin_of(request))
    return with_ticket(request, see_other("/dashboard"), ticket)


@blueprint.post("/logout")
@own_form
async def sign_out(request: Request) -> HTTPResponse:
    return with_ticket(request, see_other("/dashboard"), "")
