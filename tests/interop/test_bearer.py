"""The TypeScript SDK's client with a bearer token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.test_interop import HERE, node
from tests.support.bearer_check import assert_served_with_a_token
from tests.support.sdk_clients import Client

pytestmark = [pytest.mark.interop, pytest.mark.slow]


async def test_a_typescript_client_is_served_with_its_token(tmp_path: Path) -> None:
    """Two clients with a token each are served by a process each; a wrong token is refused."""
    client = Client("typescript", (node(), str(HERE / "client.mjs")))
    await assert_served_with_a_token(client, tmp_path)
