"""Forward auth: a proxy in front of any API asks here whether a call may go on, and as whose."""

from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from sanic import Blueprint, HTTPResponse, Request

from api.answers import Answer, as_sent, rfc3339
from api.dialects import in_dialect
from api.gate import limited
from models.connections import Stores
from models.policies import DEFAULT
from models.tokens import Claims
from models.usage import KNOWN_TOKENS

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

blueprint = Blueprint("verify")


def _policy_of(request: Request) -> str:
    """`?policy=`, which the proxy's configuration has in its address, or else the field that the proxy sets."""
    asked: list[str] = request.args.getlist("policy", []) if request.query_string else []
    if not asked and (field := request.app.ctx.stores.settings.policy_header):
        asked = request.headers.getall(field, [])
    # Of several all must allow the call: whoever manages to add one gets a stricter answer, never a weaker one.
    return ",".join(asked) or DEFAULT


@blueprint.route("/verify", methods=METHODS)  # type: ignore[untyped-decorator]  # as the framework's others are not
@in_dialect
@limited(policy=_policy_of)
async def verify(request: Request) -> HTTPResponse:
    stores: Stores = request.app.ctx.stores
    claims: Claims = request.ctx.claims
    name = await stores.accounts.name_of(claims.user_id)
    return Answer(b"{}", 200, _identity(claims.user_id, claims.expires_ms, name))


@lru_cache(maxsize=KNOWN_TOKENS)
def _identity(user_id: int, expires_ms: int, name: str | None) -> bytes:
    """The header fields that say whose call it is: a name in UTF-8, percent-encoded (RFC 3986, 2.1)."""
    expires_at = datetime.fromtimestamp(expires_ms / 1000, UTC)
    fields = {"X-User-Id": str(user_id), "X-Session-Expires": rfc3339(expires_at)}
    if name is not None:
        fields["X-User-Name"] = quote(name, safe="@+!$&'()*,;=:")
    return as_sent(fields)
