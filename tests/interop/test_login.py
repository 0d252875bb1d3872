"""Clients made with the TypeScript SDKs log in at a real authorization server."""

from __future__ import annotations

import pytest

from tests.interop.test_interop import HERE, node
from tests.support.oauth_login import assert_logged_in, authorization_server, logged_in, trusting

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_typescript_client_logs_in_by_itself_and_asks_for_more(version: str) -> None:
    """Discovery, registration, consent, token, call; then once more for the scope of tools."""
    async with authorization_server() as issuer, trusting(issuer) as running:
        url = f"{running.url}/mcp"
        report = await logged_in((node(), str(HERE / "login.mjs"), version, url))
        assert_logged_in(report, url)
