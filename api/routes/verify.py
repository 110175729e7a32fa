"""Forward auth: a proxy in front of any API asks here whether a call may go on, and as whose."""

from datetime import UTC, datetime
from urllib.parse import quote

from sanic import Blueprint, HTTPResponse, Request

from api.answers import Answer, as_sent, rfc3339
from api.dialects import in_dialect
from api.gate import limited
from models.connections import Stores
from models.tokens import Claims

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

blueprint = Blueprint("verify")


@blueprint.route("/verify", methods=METHODS)  # type: ignore[untyped-decorator]  # as the framework's others are not
@in_dialect
@limited
async def verify(request: Request) -> HTTPResponse:
    stores: Stores = request.app.ctx.stores
    claims: Claims = request.ctx.claims
    return Answer(b"{}", 200, _identity(claims, await stores.accounts.name_of(claims.user_id)))


def _identity(claims: Claims, name: str | None) -> bytes:
    """The header fields that say whose call it is: a name in UTF-8, percent-encoded (RFC 3986, 2.1)."""
    expires_at = datetime.fromtimestamp(claims.expires_ms / 1000, UTC)
    fields = {"X-User-Id": str(claims.user_id), "X-Session-Expires": rfc3339(expires_at)}
    if name is not None:
        fields["X-User-Name"] = quote(name, safe="@+!$&'()*,;=:")
    return as_sent(fields)
