"""A user of the original, imported, logs in over HTTP with the old password."""

from models.imports import Wishes
from tests.api.conftest import Api, api, decoded, running_api
from tests.conftest import Servers
from tests.imports.original import PASSWORD, go_hash, original

__all__ = ["api", "running_api"]


def test_an_imported_user_logs_in_and_gets_an_argon2id_hash(api: Api, servers: Servers) -> None:
    old = go_hash(cost=10)
    assert old.startswith("$2a$10$")

    async def import_() -> None:
        async with original(servers.postgres) as theirs:
            await theirs.add(41, "Ada", old)
            await api.stores.imports.import_users(theirs.url, Wishes())

    api.run(import_())
    assert api.sql("SELECT password_hash FROM users")[0][0] == old
    wrong = api.post("/login", json={"username": "ada", "password": PASSWORD + "!"})
    assert wrong.status_code == 401
    token = api.log_in("ada")
    assert decoded(api.get("/session", token))["userId"] == 41
    assert api.get("/ping", token).status_code == 200
    assert api.sql("SELECT password_hash FROM users")[0][0].startswith("$argon2id$")
    assert api.log_in("ada")
    assert decoded(api.get("/top"))["topUsersCallingAPIAllTime"] == ["CallingPingAPI userID:41 called 1 times"]
