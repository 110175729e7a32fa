"""Sign up, log in, log out, and what my session is."""

from sanic import Blueprint, HTTPResponse, Request

from api.answers import empty, json, rfc3339
from api.bodies import read_credentials
from api.gate import signed, unauthorized
from api.origin import origin_of
from models.connections import Stores
from models.tokens import Claims

blueprint = Blueprint("accounts")


@blueprint.post("/signup")
async def sign_up(request: Request) -> HTTPResponse:
    credentials = read_credentials(request)
    stores: Stores = request.app.ctx.stores
    await stores.accounts.sign_up(credentials.username, credentials.password, origin_of(request))
    return json({}, 201)


@blueprint.post("/login")
async def log_in(request: Request) -> HTTPResponse:
    credentials = read_credentials(request)
    stores: Stores = request.app.ctx.stores
    token = await stores.accounts.log_in(credentials.username, credentials.password, origin_of(request))
    return json({"message": "Login successful", "sessionToken": token})


@blueprint.post("/logout")
@signed
async def log_out(request: Request, claims: Claims) -> HTTPResponse:
    stores: Stores = request.app.ctx.stores
    reason = await stores.accounts.log_out(claims, origin_of(request))
    return unauthorized(reason) if reason else empty()


@blueprint.get("/session")
@signed
async def describe_session(request: Request, claims: Claims) -> HTTPResponse:
    stores: Stores = request.app.ctx.stores
    found = await stores.sessions.inspect(claims)
    if isinstance(found, str):
        return unauthorized(found)
    return json(
        {
            "userId": found.user_id,
            "username": found.username,
            "createdAt": rfc3339(found.created_at),
            "expiresAt": rfc3339(found.expires_at),
        }
    )
