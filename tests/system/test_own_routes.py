"""The README's example of a route of one's own, run as it stands there."""

import re

import httpx

from models.connections import open_stores
from models.devservers import free_port
from tests.soak.stage import ROOT, stage

EXAMPLE = re.compile(r"```python\n(\"\"\"orders\.py.*?)```", re.DOTALL)


async def test_the_readmes_example_is_protected_by_its_one_line() -> None:
    example = EXAMPLE.search((ROOT / "README.md").read_text())
    assert example is not None
    with stage() as there:
        text, address = example[1], "port=8001"
        assert text.count(address) == 1
        web_port = free_port()
        (there.folder / "orders.py").write_text(text.replace(address, f"port={web_port}"))
        web = there.web(web_port, module="orders", PYTHONPATH=str(there.folder), RATE_LIMITS="1/1h")
        async with open_stores(there.settings) as stores:
            user_id = await stores.accounts.add("ada", "correct horse")
            token = await stores.sessions.start(user_id)
        async with httpx.AsyncClient(base_url=web.url, timeout=10) as client:
            given = {"Authorization": f"Bearer {token}"}
            assert (await client.get("/orders")).json()["code"] == "missing_token"
            admitted = await client.get("/orders", headers=given)
            assert (admitted.status_code, admitted.json()) == (200, {"userId": user_id, "orders": []})
            assert admitted.headers["ratelimit"] == '"default";r=0;t=3600'
            assert admitted.headers["cache-control"] == "no-store"
            assert (await client.get("/orders", headers=given)).status_code == 429
        assert web.stop() == 0, web.said
        (line,) = [line for line in web.said.splitlines() if '"status":200' in line and "/orders" in line]
        assert f'"bytes":{len(admitted.content)}' in line
