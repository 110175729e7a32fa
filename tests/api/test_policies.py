"""Named limits: chosen by `?policy=` or a proxy's header, each with its own log; shadows that refuse nobody."""

import socket

import pytest
from sanic import HTTPResponse, Request, json

from api.app import App, build_app
from api.gate import limited
from models.errors import SettingsError
from models.policies import parse_policies
from tests.api.conftest import Api, Start, decoded, problem

UNKNOWN = problem("There is no such policy in RATE_LIMITS, or more of them than may judge one call", "unknown_policy")
POLICIES = parse_policies("default=1/5s; search=2/1m, 3/1h; once=1/1h; shadow:strict=1/1m; shadow:lax=5/1m")


@pytest.fixture
def policed(start: Start) -> Api:
    return start(rate_limits=POLICIES, policy_header="X-Gate-Policy")


def ask(api: Api, token: str, policy: str = "", **headers: str) -> tuple[int, str]:
    """Status and `RateLimit` of one call that a proxy asks for."""
    answer = api.get("/verify" + (f"?policy={policy}" if policy else ""), token, headers=headers)
    return answer.status_code, answer.headers.get("ratelimit", "")


def test_each_policy_has_its_own_log_and_its_name_in_the_headers(policed: Api) -> None:
    token = policed.start_session(1)
    assert ask(policed, token) == (200, '"default";r=0;t=5')
    assert ask(policed, token) == (429, '"default";r=0;t=5')
    assert ask(policed, token, "search") == (200, '"search";r=1;t=60, "search-2";r=2;t=3600')
    answer = policed.get("/verify?policy=search", token)
    assert answer.headers["ratelimit-policy"] == '"search";q=2;w=60, "search-2";q=3;w=3600'
    assert ask(policed, token, "search") == (429, '"search";r=0;t=60, "search-2";r=1;t=3600')
    assert ask(policed, token, "once") == (200, '"once";r=0;t=3600')
    assert policed.get("/ping", token).status_code == 429
    assert decoded(policed.get("/top"))["topUsersCallingAPIAllTime"] == ["CallingPingAPI userID:1 called 4 times"]


def test_several_policies_allow_a_call_together_or_none_of_them_changes(policed: Api) -> None:
    token = policed.start_session(1)
    assert ask(policed, token, "search,once") == (200, '"search";r=1;t=60, "search-2";r=2;t=3600, "once";r=0;t=3600')
    assert ask(policed, token, "once,search")[0] == 429
    assert ask(policed, token, "search") == (200, '"search";r=0;t=60, "search-2";r=1;t=3600')
    refused = policed.get("/verify?policy=search&policy=once", token)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    policed.let_pass(1, 60, "search")
    assert ask(policed, token, "search") == (200, '"search";r=1;t=60, "search-2";r=0;t=3540')


def test_a_proxy_may_choose_by_a_header_and_its_address_goes_before(policed: Api, api: Api) -> None:
    token = policed.start_session(1)
    assert ask(policed, token, **{"X-Gate-Policy": "once"}) == (200, '"once";r=0;t=3600')
    assert ask(policed, token, "search", **{"X-Gate-Policy": "once"})[0] == 200
    assert ask(policed, token, **{"X-Gate-Policy": "once"})[0] == 429
    # Without the setting the field is a client's own, and means nothing.
    assert ask(api, token, **{"X-Gate-Policy": "once"}) == (200, '"default";r=0;t=5')


@pytest.mark.parametrize("policy", ["other", "search,", "search,search", "default,search,once,strict,lax"])
@pytest.mark.parametrize("dialect", ["", "&dialect=nginx"])
def test_an_unknown_policy_is_refused_before_anything_is_counted(policed: Api, policy: str, dialect: str) -> None:
    token = policed.start_session(1)
    answer = policed.get(f"/verify?policy={policy}{dialect}", token)
    assert answer.content == UNKNOWN
    assert answer.status_code == (403 if dialect else 400)
    assert ask(policed, token, **{"X-Gate-Policy": policy})[0] == 400
    assert decoded(policed.get("/top"))["topUsersCallingAPIAllTime"] == []


def test_a_shadow_counts_what_it_would_refuse_and_refuses_nobody(policed: Api) -> None:
    token = policed.start_session(1)
    usage = policed.stores.usage
    applied = usage.policies.named("search,lax,strict")
    shadowed = [policed.run(usage.admit(token, applied)) for _ in range(3)]
    assert [admission.admitted for admission in shadowed] == [True, True, False]
    assert [admission.shadowed for admission in shadowed] == [(), ("strict",), ()]
    assert [list(admission.remaining) for admission in shadowed] == [[1, 2], [0, 1], [0, 1]]
    answer = policed.get("/verify?policy=once,strict", token)
    assert (answer.status_code, answer.headers["ratelimit-policy"]) == (200, '"once";q=1;w=3600')


def test_where_only_shadows_judge_every_call_passes_without_the_fields(policed: Api) -> None:
    token = policed.start_session(1)
    for _ in range(3):
        answer = policed.get("/verify?policy=strict", token)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
        assert "ratelimit-policy" not in answer.headers
    assert decoded(policed.get("/top"))["topUsersCallingAPIAllTime"] == ["CallingPingAPI userID:1 called 3 times"]


def test_a_shadow_that_becomes_a_limit_knows_only_what_it_would_have_admitted(policed: Api, start: Start) -> None:
    """Its log holds what it allowed, so that what it would refuse is what it will refuse."""
    token = policed.start_session(1)
    for _ in range(3):
        assert ask(policed, token, "lax")[0] == 200
    enforced = start(rate_limits=parse_policies("1/5s; lax=5/1m"))
    assert ask(enforced, token, "lax") == (200, '"lax";r=1;t=60')


def test_a_route_without_its_policy_stops_the_start(api: Api) -> None:
    app = build_app(api.settings)

    @app.get("/orders")
    @limited(policy="orders")
    async def list_orders(_request: Request) -> HTTPResponse:
        return json({})

    with pytest.raises(SettingsError, match="no policy 'orders', which /orders is protected by"):
        api.run(_started(app))


async def _started(app: App) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = await app.create_server(sock=listener, return_asyncio_server=True)
        await server.startup()
        try:
            await server.before_start()
        finally:
            await server.close()
            await server.after_stop()
