"""Names that cannot be resolved: what depends on them says so, and all else goes on."""

from __future__ import annotations

import pytest

from tests.support.bridge_process import ACCEPT, bridge, initialize
from tests.support.proofs import proves

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


@proves("fault 116")
async def test_a_server_whose_name_is_unknown_is_tried_again() -> None:
    """Alive and not ready; clients are told at once what is missing and when to come back."""
    # A name that no resolver ever knows: RFC 6761, 6.4.
    words = ("--connect", "tcp:server.invalid:9", "--give-up-after", "0", "--")
    async with bridge(*words, ready=False) as running, running.client() as client:
        await running.logged("child.spawn_failed", count=2)
        assert (await client.get("/livez")).status_code == 200
        probed = await client.get("/readyz")
        assert (probed.status_code, probed.json()["missing"]) == (503, {"child": "unreachable"})
        answer = await client.post("/mcp", json=initialize("n"), headers=ACCEPT)
        assert (answer.status_code, answer.json()["id"]) == (503, "n")
        assert int(answer.headers["retry-after"]) > 0
        facts = answer.json()["error"]["data"]["mcpbridge"]
        assert facts == {"reason": "unreachable", "executed": "no", "retryable": True}
        assert "server.invalid" not in answer.text
