"""Headers of a client in the environment of the children that it has for itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.test_principals import call
from tests.support.bridge_process import (
    ACCEPT,
    asked_until,
    bridge,
    child,
    initialize,
    open_session,
)
from tests.support.modern_client import headers_of
from tests.support.proofs import proves
from tests.support.token_file import ALICE, BOB, bearing, environ, token_file, told

pytestmark = pytest.mark.slow
COMMAND = child("environ")
FLAGS = ("--header-env", "X-Api-Key=API_KEY", "--header-env", "X-Tenant=TENANT?")
KEY, OTHER = "sk-canary-1", "sk-canary-2"


async def test_each_set_of_values_has_children_of_its_own() -> None:
    """In both eras; another value makes another client, and without one there is nothing."""
    async with (
        bridge(*FLAGS, "--", *COMMAND, ready=False) as running,
        running.client(headers={"x-api-key": KEY}) as one,
        running.client(headers={"x-api-key": OTHER, "x-tenant": "t"}) as two,
        running.client() as none,
    ):
        assert (await none.get("/readyz")).status_code == 200
        refused = await none.post("/mcp", json=initialize(), headers=ACCEPT)
        assert refused.status_code == 400
        assert "x-api-key is missing (--header-env)" in refused.json()["error"]["message"]
        assert running.processes() == set()

        names = ("API_KEY", "TENANT", "HTTP_X_API_KEY")
        found = {}
        for client, want in ((one, [KEY, None]), (two, [OTHER, "t"])):
            sessions = [await open_session(client) for _ in range(2)]
            pids = set()
            for session in sessions:
                for number in range(3):
                    message = environ(number, *names)
                    answer = told(await client.post("/mcp", json=message, headers=session))
                    assert [answer[name] for name in names] == [*want, None]
                    pids.add(answer["pid"])
            message = call(names=names)
            modern = told(await client.post("/mcp", json=message, headers=headers_of(message)))
            assert modern["API_KEY"] == want[0]
            assert {modern["pid"]} == pids
            own = await open_session(client, capabilities={"sampling": {}})
            apart = told(await client.post("/mcp", json=environ(1, *names), headers=own))
            assert apart["API_KEY"] == want[0]
            assert apart["pid"] not in pids
            found[client] = (sessions[0], pids)
        assert not found[one][1] & found[two][1]

        session = found[one][0]
        for headers in ({"x-api-key": OTHER}, {"x-tenant": "t"}):
            changed = await one.post("/mcp", json=environ(), headers={**session, **headers})
            assert changed.status_code == 404
        left_out = await none.post("/mcp", json=environ(), headers=session)
        assert left_out.status_code == 400
        twice = [*session.items(), ("x-api-key", KEY), ("x-api-key", KEY)]
        assert (await none.post("/mcp", json=environ(), headers=twice)).status_code == 400
        assert (await one.post("/mcp", json=environ(), headers=session)).status_code == 200


@proves("fault 81")
async def test_the_same_value_of_two_clients_is_not_the_same(tmp_path: Path) -> None:
    """Who knows another's key does not get at its session; quotas count the client."""
    words = ("--auth-token-file", str(token_file(tmp_path)), "--max-sessions-per-principal", "2")
    async with (
        bridge(*words, *FLAGS, "--", *COMMAND, ready=False) as running,
        bearing(running, ALICE, x_api_key=KEY) as alice,
        bearing(running, BOB, x_api_key=KEY) as bob,
    ):
        ours, theirs = await open_session(alice), await open_session(bob)
        pids = [
            told(await client.post("/mcp", json=environ(), headers=session))["pid"]
            for client, session in ((alice, ours), (bob, theirs))
        ]
        assert pids[0] != pids[1]
        assert (await bob.post("/mcp", json=environ(), headers=ours)).status_code == 404
        async with bearing(running, ALICE, x_api_key=OTHER) as again:
            await open_session(again)
            full = await again.post("/mcp", json=initialize(), headers=ACCEPT)
            assert full.status_code == 429


@proves("fault 132")
async def test_a_client_that_makes_up_values_has_a_share(tmp_path: Path) -> None:
    """Its own sets of values give way when they are not in use; those of others never do."""
    words = ("--auth-token-file", str(token_file(tmp_path)), "--max-header-values", "2")
    async with (
        bridge(*words, *FLAGS, "--", *COMMAND, ready=False) as running,
        bearing(running, ALICE) as alice,
        bearing(running, BOB, x_api_key=KEY) as bob,
    ):
        theirs = await open_session(bob)
        for value in ("a", "b"):
            alice.headers["x-api-key"] = value
            ours = await open_session(alice)
        for value in map(str, range(30)):
            alice.headers["x-api-key"] = value
            full = await alice.post("/mcp", json=initialize(), headers=ACCEPT)
            assert full.status_code == 429
            assert "--max-header-values 2" in full.json()["error"]["message"]
            message = call(names=())
            full = await alice.post("/mcp", json=message, headers=headers_of(message))
            assert full.status_code == 429
        assert len(running.processes()) == 3
        alice.headers["x-api-key"] = "b"
        assert (await alice.delete("/mcp", headers=ours)).status_code == 200
        alice.headers["x-api-key"] = "c"

        async def let_in() -> bool:
            freed = await alice.post("/mcp", json=initialize(), headers=ACCEPT)
            assert freed.status_code in (200, 429)
            return freed.status_code == 200

        await asked_until(let_in, 'another set of values is let in, as "b" has just been used')
        assert (await bob.post("/mcp", json=environ(), headers=theirs)).status_code == 200


@proves("fault 132")
async def test_without_authentication_each_address_has_a_share() -> None:
    """One client that makes up values costs those at other addresses nothing."""
    async with (
        bridge("--max-header-values", "1", *FLAGS, "--", *COMMAND, ready=False) as running,
        running.client(headers={"x-api-key": "a"}) as one,
        running.client(headers={"x-api-key": "b"}) as again,
        running.client(
            headers={"x-api-key": "c"},
            transport=httpx.AsyncHTTPTransport(local_address="127.0.0.2"),
        ) as other,
    ):
        await open_session(one)
        full = await again.post("/mcp", json=initialize(), headers=ACCEPT)
        assert full.status_code == 429
        await open_session(other)


@proves("fault 19")
async def test_a_child_that_one_value_ends_is_nobody_elses() -> None:
    """It fails again and again for the client that brought it, and the program goes on."""
    script = (
        "import os, runpy, sys\n"
        "if os.environ.get('API_KEY') == 'bad': sys.exit(3)\n"
        "sys.argv = [sys.argv[1]]\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = (COMMAND[0], "-c", script, COMMAND[1])
    words = ("--header-env", "X-Api-Key=API_KEY", "--give-up-after", "2")
    async with (
        bridge(*words, "--", *command, ready=False) as running,
        running.client(headers={"x-api-key": "bad"}) as bad,
        running.client(headers={"x-api-key": "good"}) as good,
    ):
        fails = await bad.post("/mcp", json=initialize(), headers=ACCEPT)
        assert fails.status_code == 503
        session = await open_session(good)
        assert told(await good.post("/mcp", json=environ(), headers=session))["pid"]
        again = await bad.post("/mcp", json=initialize(), headers=ACCEPT)
        assert again.status_code == 503
        assert (await good.get("/readyz")).status_code == 200
