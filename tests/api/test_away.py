"""What is answered while a store, or every worker, is away."""

import pytest

from api.errors import STATUS
from models import errors
from models.devservers import free_port
from models.records import SyncState
from tests.api.conftest import PASSWORD, Api, Start, decoded, problem


def test_health_when_all_is_well(api: Api) -> None:
    assert (api.get("/health/live").status_code, api.get("/health/live").content) == (200, b'{"status":"live"}')
    api.run(api.stores.sessions.sync())
    assert (api.get("/health/ready").status_code, api.get("/health/ready").content) == (200, b'{"status":"ready"}')


def test_ready_says_when_no_worker_is_at_work(api: Api) -> None:
    """And stays 200: the calls are better off here than nowhere."""
    never = api.get("/health/ready")
    assert never.status_code == 200
    (warning,) = decoded(never)["warnings"]
    assert warning.startswith("No worker has published sessions to this Redis yet")
    store = api.stores.store
    assert api.run(store.sync_states()) == {}
    for server in api.run(store.servers.masters()):
        run = api.run(store.identity(server.gate))
        api.run(store.save_sync_states({run.id: SyncState(0, run.now_us - 612_000_000)}))
    (warning,) = decoded(api.get("/health/ready"))["warnings"]
    assert warning.startswith("No worker has published sessions for 612 s: see")


NOWHERE = {"redis_url": "redis://127.0.0.1:{}/0", "database_url": "postgres://app@127.0.0.1:{}/gatehouse"}


def _without(start: Start, *settings: str) -> Api:
    return start(**{name: NOWHERE[name].format(free_port()) for name in settings})


@pytest.mark.parametrize(
    ("away", "names"),
    [
        (["redis_url"], "Redis"),
        (["database_url"], "PostgreSQL"),
        (["database_url", "redis_url"], "PostgreSQL and Redis"),
    ],
)
def test_ready_names_the_store_that_is_away(start: Start, away: list[str], names: str) -> None:
    api = _without(start, *away)
    assert api.get("/health/live").status_code == 200
    answer = api.get("/health/ready")
    assert (answer.status_code, answer.content) == (503, problem(f"Not ready: {names} away", "not_ready"))
    assert answer.headers["retry-after"] == "1"


def test_without_redis_login_works_and_logout_says_that_it_is_not_done(api: Api, start: Start) -> None:
    api.sign_up("ada")
    lame = _without(start, "redis_url")
    token = lame.log_in("ada")
    answer = lame.post("/logout", token)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.content == problem("Redis is away; try again shortly", "store_unavailable")
    assert decoded(api.get("/ping", token))["code"] == "session_revoked"


def test_without_postgresql_cached_sessions_go_on_and_login_waits(api: Api, start: Start) -> None:
    token = api.start_session(1)
    api.run(api.stores.sessions.sync())  # by a worker: else nobody knows how old what is in Redis may be
    lame = _without(start, "database_url")
    assert lame.get("/ping", token).status_code == 200
    for answer in (
        lame.post("/login", json={"username": "ada", "password": PASSWORD}),
        lame.post("/signup", json={"username": "eva", "password": PASSWORD}),
        lame.post("/logout", token),
    ):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.content == problem("PostgreSQL is away; try again shortly", "store_unavailable")


def test_without_both_a_session_is_neither_valid_nor_invalid(api: Api, start: Start) -> None:
    token = api.start_session(1)
    lame = _without(start, "database_url", "redis_url")
    for method, path in (
        ("GET", "/ping"),
        ("GET", "/session"),
        ("POST", "/logout"),
        ("GET", "/top"),
        ("GET", "/count"),
    ):
        answer = lame.request(method, path, token)
        assert (answer.status_code, decoded(answer)["code"]) == (503, "store_unavailable")


def test_every_outage_that_the_domain_knows_has_a_status_of_its_own() -> None:
    """One that is missing in the table would be told as a fault of ours."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    outages = [kind for kind in kinds if issubclass(kind, errors.StoreUnavailable)]
    assert len(outages) > 5
    assert [kind.__name__ for kind in outages if STATUS.get(kind) != 503] == []
