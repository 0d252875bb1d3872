"""The Python SDK's clients with a bearer token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bearer_check import assert_served_with_a_token
from tests.support.sdk_clients import python_clients

pytestmark = [pytest.mark.sdk, pytest.mark.slow]


@pytest.mark.parametrize("name", ["mcp1", "mcp2-legacy", "mcp2-auto"])
async def test_a_python_client_is_served_with_its_token(name: str, tmp_path: Path) -> None:
    """Two clients with a token each are served by a process each; a wrong token is refused."""
    await assert_served_with_a_token(python_clients()[name], tmp_path)
