"""Clients made with the Python SDKs log in at a real authorization server."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.oauth_login import assert_logged_in, authorization_server, logged_in, trusting
from tests.support.sdk_servers import PEERS, interpreter

pytestmark = [pytest.mark.sdk, pytest.mark.slow]


async def test_every_python_client_logs_in_by_itself_and_asks_for_more_when_told() -> None:
    """Discovery, registration, consent, token, call; again when the server has changed its keys."""
    async with authorization_server() as issuer, trusting(issuer) as running:
        url = f"{running.url}/mcp"
        one, two = (str(PEERS / f"login_mcp{version}.py") for version in (1, 2))
        programs = [
            (interpreter(1), one, url),
            (interpreter(2), two, url, "legacy"),
            (interpreter(2), two, url, "auto"),
        ]
        for report in await asyncio.gather(*(logged_in(argv) for argv in programs)):
            assert_logged_in(report, url)
        async with httpx.AsyncClient(base_url=issuer, trust_env=False) as client:
            await client.post("/keys/rotate")
            await client.post("/keys/withdraw")
            assert_logged_in(await logged_in(programs[0]), url)
            asked = (await client.get("/asked")).json()
        assert asked["/keys"] == 2
        assert asked["/register"] == asked["/token"] / 2 == len(programs) + 1
