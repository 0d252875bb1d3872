"""The annotations of a child's tools: fetched once, forgotten when the tools change."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.modern.tool_catalog import ToolCatalog
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.rules.faults import child_exited
from mcpbridge.rules.mcp.initialize import ServerProfile
from mcpbridge.rules.mcp.modern_checks import Annotations
from mcpbridge.rules.mcp.revisions import MODERN, NEWEST_LEGACY, Revision
from mcpbridge.wire.messages import Failure, Notification, Request, Result
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import arrived, bounded, turns

CHANGED = Notification("notifications/tools/list_changed")
REGION: Annotations = {"add": {("region",): "region"}}


def page(*names: str, cursor: str | None = None) -> bytes:
    """One page of a list of tools, each with an argument that a header must repeat."""
    schema = {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    }
    found: dict[str, Any] = {"tools": [{"name": each, "inputSchema": schema} for each in names]}
    return json.dumps(found | ({} if cursor is None else {"nextCursor": cursor})).encode()


class Server:
    """A child in memory, and a catalog that asks it."""

    def __init__(self, revision: Revision = NEWEST_LEGACY) -> None:
        self.catalog = ToolCatalog()
        self._running: list[asyncio.Task[None]] = []
        self.lease, self.far = self.another(revision)

    def another(self, revision: Revision = NEWEST_LEGACY) -> tuple[Lease, MemoryChannel]:
        """A child after its handshake."""
        lease, far = lease_on_memory(shared=True)
        lease.introduced_as(ServerProfile(b"{}", revision))
        # The loop refers to its tasks weakly: one that nothing else holds may be collected.
        self._running.append(asyncio.create_task(lease.mux.run()))
        return lease, far

    def ask(self, now: float = 0.0) -> asyncio.Task[Annotations]:
        """A call that needs to know."""
        return asyncio.create_task(self.catalog.annotations(self.lease, now))

    async def request(self) -> Request:
        """The one request that the child has got."""
        await turns()
        (request,) = await arrived(self.far)
        assert isinstance(request, Request)
        return request

    async def answer(self, *pages: bytes) -> list[Request]:
        """Let the child answer one request after another; the requests."""
        asked = []
        for result in pages:
            asked.append(await self.request())
            self.far.send(Result(asked[-1].id, result))
        return asked


@bounded
async def test_a_list_is_fetched_with_all_its_pages_and_kept() -> None:
    """Later calls do not ask the child again, however late."""
    server = Server()
    asking = server.ask()
    asked = await server.answer(page("add", cursor="2"), page("sub"))
    assert [each.method for each in asked] == ["tools/list"] * 2
    assert [json.loads(each.params or b"{}") for each in asked] == [{}, {"cursor": "2"}]
    found = await asking
    assert found == dict.fromkeys(("add", "sub"), REGION["add"])
    assert server.catalog.known(server.lease, 1e9) == found == await server.ask(1e9)
    assert await arrived(server.far) == []


@bounded
async def test_a_modern_child_is_asked_with_an_envelope_and_again_after_a_while() -> None:
    """Without a listen it announces no changes."""
    server = Server(MODERN[-1])
    asking = server.ask()
    (asked,) = await server.answer(page("add"))
    assert "_meta" in json.loads(asked.params or b"{}")
    assert await asking == REGION
    known = [server.catalog.known(server.lease, now) for now in (29.0, 31.0)]
    assert known == [REGION, None]


@bounded
async def test_a_change_of_the_tools_forgets_the_list() -> None:
    """Other notifications do not."""
    server = Server()
    asking = server.ask()
    await server.answer(page("add"))
    await asking
    server.far.send(Notification("notifications/prompts/list_changed"))
    await turns()
    assert server.catalog.known(server.lease, 0.0) == REGION
    server.far.send(CHANGED)
    await turns()
    assert server.catalog.known(server.lease, 0.0) is None


@bounded
async def test_a_list_that_changes_during_its_fetch_serves_one_call_and_is_not_kept() -> None:
    """It may be the old one or the new one."""
    server = Server()
    asking = server.ask()
    request = await server.request()
    server.far.send(CHANGED)
    server.far.send(Result(request.id, page("add")))
    assert await asking == REGION
    assert server.catalog.known(server.lease, 0.0) is None


@bounded
async def test_a_list_that_cannot_be_fetched_is_asked_for_again_after_a_while() -> None:
    """Not with every call: until then the child itself has to check its headers."""
    server = Server()
    asking = server.ask(10.0)
    request = await server.request()
    server.far.send(Failure(request.id, b'{"code":-1,"message":""}'))
    assert await asking == {}
    known = [server.catalog.known(server.lease, now) for now in (39.0, 41.0)]
    assert known == [{}, None]


@bounded
async def test_the_list_of_a_child_that_is_gone_is_not_that_of_the_next() -> None:
    """Which is asked by the next call."""
    server = Server()
    asking = server.ask()
    await server.answer(page("add"))
    await asking
    server.lease.mux.fail_all(child_exited(None, "maybe"))
    assert server.catalog.known(server.lease, 0.0) is None
    server.lease, server.far = server.another()
    asking = server.ask()
    await server.answer(page("sub"))
    assert list(await asking) == ["sub"]


@bounded
async def test_the_list_of_one_child_says_nothing_of_another() -> None:
    """The one that takes over may have other tools while the one before still runs."""
    server = Server()
    asking = server.ask()
    await server.answer(page("add"))
    await asking
    other, _ = server.another()
    assert server.catalog.known(other, 0.0) is None
