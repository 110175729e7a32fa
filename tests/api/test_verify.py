"""Forward auth: what `/verify` tells a proxy, and what it tells nginx, which understands less."""

import asyncio
import socket
import time

import pytest

from api.routes.verify import METHODS
from models import database
from models.policies import parse_policies
from tests.api.conftest import DEADLINE_S, Api, Start, decoded


@pytest.mark.parametrize("method", [*METHODS, "HEAD"])
def test_any_method_is_admitted_limited_and_counted(api: Api, method: str) -> None:
    api.sign_up("ada")
    token = api.log_in("ada")
    user_id = decoded(api.get("/session", token))["userId"]
    answer = api.request(method, "/verify", token)
    assert answer.status_code == 200
    assert (answer.headers["x-user-id"], answer.headers["x-user-name"]) == (str(user_id), "ada")
    assert answer.headers["x-session-expires"] == decoded(api.get("/session", token))["expiresAt"]
    assert answer.headers["ratelimit"] == '"default";r=0;t=5'
    assert api.request(method, "/verify", token).status_code == 429
    assert decoded(api.get("/top")) == {
        "topUsersCallingAPIAllTime": [f"CallingPingAPI userID:{user_id} called 1 times"]
    }


def test_a_name_cannot_end_its_header_field(api: Api) -> None:
    api.sign_up("Zoë b: c")
    answer = api.get("/verify", api.log_in("Zoë b: c"))
    assert answer.headers["x-user-name"] == "Zo%C3%AB%20b:%20c"


def test_an_admitted_call_waits_for_no_name(api: Api, start: Start) -> None:
    """A PostgreSQL that takes connections and says nothing is asked once, by one call, and briefly."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgres://app@127.0.0.1:{silent.getsockname()[1]}/gatehouse"
        hung = start(database_url=address, rate_limits=parse_policies("100/1h"))
        token = api.start_session(1)
        hung.run(_trusting(hung))
        began_s = time.monotonic()
        answers = [hung.get("/verify", token) for _ in range(5)]
        took_s = time.monotonic() - began_s
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all("x-user-name" not in answer.headers for answer in answers)
    assert took_s < database.QUERY_DEADLINE_S, "each of them has waited as long as a query may take"


async def _trusting(api: Api) -> None:
    """Until the process has looked at its connection to Redis; before, it asks PostgreSQL about sessions."""
    await api.stores.usage.top()
    api.stores.usage._watch.poke(api.stores.store.servers.of(0))
    async with asyncio.timeout(DEADLINE_S):
        while not api.stores.usage.trusts_redis:
            await asyncio.sleep(0.01)


def test_nginx_is_told_the_true_status_in_a_field(api: Api) -> None:
    token = api.start_session(1)
    assert api.get("/verify?dialect=nginx", token).status_code == 200
    limited = api.get("/verify?dialect=nginx", token)
    assert (limited.status_code, limited.headers["x-gate-status"]) == (403, "429")
    assert (limited.headers["x-gate-code"], limited.headers["retry-after"]) == ("rate_limited", "5")
    assert limited.headers["ratelimit-policy"] == '"default";q=1;w=5'
    missing = api.get("/verify?dialect=nginx")
    assert (missing.status_code, missing.headers["x-gate-code"]) == (401, "missing_token")
    assert missing.headers["www-authenticate"] == "Bearer"


def test_nginx_is_told_that_the_stores_are_away(api: Api, start: Start) -> None:
    alone = start(redis_url="redis://127.0.0.1:1/0", database_url="postgres://app@127.0.0.1:1/gatehouse")
    answer = alone.get("/verify?dialect=nginx", api.start_session(1))
    assert (answer.status_code, answer.headers["x-gate-status"], answer.headers["retry-after"]) == (403, "503", "1")


@pytest.mark.parametrize("query", ["dialect=apache", "dialect=nginx&dialect=nginx", "dialect=NGINX"])
def test_an_unknown_dialect_is_refused_before_anything_is_counted(start: Start, query: str) -> None:
    api = start(rate_limits=parse_policies("1/5s"))
    token = api.start_session(1)
    assert api.get(f"/verify?{query}", token).status_code == 400
    assert api.get("/ping", token).status_code == 200


def test_what_is_no_method_of_calls_is_told_which_are(api: Api) -> None:
    answer = api.request("TRACE", "/verify", "x")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
