"""What a client of an SDK must see of a bridge that wants a token."""

from __future__ import annotations

from pathlib import Path

from tests.support.bridge_process import bridge
from tests.support.sdk_clients import Client, reported, running
from tests.support.sdk_servers import demo_server
from tests.support.token_file import ALICE, BOB, token_file


async def assert_served_with_a_token(client: Client, folder: Path) -> None:
    """Served over both transports with it, each under its own name; not at all without."""
    server = demo_server()
    words = ("--auth-token-file", str(token_file(folder)), "--", *server.argv)
    async with bridge(*words) as between:
        paths = (("http", "/mcp"),) if client.name == "mcp2-auto" else _BOTH
        for token in (ALICE, BOB):
            for transport, path in paths:
                args = ("--bearer", token, "--transport", transport, "--calls", "4")
                report = await reported(client, "echoes", *args, target=(between.url + path,))
                assert "error" not in report, report
        assert len(between.processes()) == 2
        wrong = ("--bearer", "nobodys-token-0123456789", "--within", "10")
        async with running(client, "echoes", *wrong, target=(f"{between.url}/mcp",)) as run:
            assert await run.ended() != 0


_BOTH = (("http", "/mcp"), ("sse", "/sse"))
