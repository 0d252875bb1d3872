"""A way to a remote server of either era, for a client of either era.

Messages pass unchanged if server and client are of one era. The server is asked what
it speaks when it matters: if it refuses a client's `initialize`, and before the first request of a
client of 2026-07-28. The answer stands while the program runs.

| client | server | its messages |
|---|---|---|
| legacy | answers `initialize` | pass |
| legacy | refuses it, and answers `server/discover` | are translated |
| 2026-07-28 | answers `server/discover` | pass |
| 2026-07-28 | refuses it as a server does that does not know it | are translated |
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mcpbridge import __version__
from mcpbridge.reverse.client_calls import RemoteServerClient
from mcpbridge.reverse.remote_client import RemoteClient
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.request_headers import speaks_modern
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp import era_probe
from mcpbridge.rules.mcp.era_probe import ChildEra, own_envelope
from mcpbridge.rules.mcp.methods import DISCOVER, INITIALIZE
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result

log = logging.getLogger("mcpbridge.reverse")

_KNOWS_NO_DISCOVERY = (400, 404, 405, 406, 415, 501)
"""Statuses with which a server of the legacy revisions answers `server/discover`."""
_PROBE_S = 10.0
_PROBE_ID = b'"mcpbridge-discover"'

MakeTranslated = Callable[[ChildEra], RemoteServerClient]
"""Makes a client that translates for a server of an era."""


class EitherEra:
    """A way to a remote server that translates if it must; works within `run`."""

    def __init__(self, plain: RemoteClient, translated: MakeTranslated) -> None:
        """Make it.

        Args:
            plain: Passes messages unchanged.
            translated: Makes what translates them, once it is needed.
        """
        self._plain = plain
        self._make_translated = translated
        self._for_legacy: RemoteServerClient | None = None
        self._for_modern: RemoteServerClient | None = None
        self._choosing = anyio.Lock()
        self._tasks: TaskGroup

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            await self._tasks.start(self._plain.run)
            task_status.started()
            await anyio.sleep_forever()

    async def answer(self, request: Request) -> Reply:
        """Return the answer to a request: the server's, or an error of mcpbridge."""
        if speaks_modern(request):
            return await self._answer_modern(request)
        if self._for_legacy is None and request.method == INITIALIZE:
            return await self._introduced(request)
        return await (self._for_legacy or self._plain).answer(request)

    async def send(self, message: Notification | Reply) -> None:
        """Pass on a notification or an answer of the client."""
        chosen = self._for_modern if speaks_modern(message) else self._for_legacy
        await (chosen or self._plain).send(message)

    async def _introduced(self, request: Request) -> Reply:
        reply = await self._plain.answer(request)
        if isinstance(reply, Result):
            self._for_legacy = self._plain
            return reply
        async with self._choosing:
            if self._for_legacy is None:
                try:
                    if await self._is_modern():
                        self._for_legacy = await self._translated(ChildEra.MODERN)
                except Unavailable:
                    return reply
        return await self._for_legacy.answer(request) if self._for_legacy is not None else reply

    async def _answer_modern(self, request: Request) -> Reply:
        async with self._choosing:
            if self._for_modern is None:
                try:
                    modern = await self._is_modern()
                except Unavailable as failed:
                    return Failure(request.id, failed.fault.error())
                plain = self._plain
                self._for_modern = plain if modern else await self._translated(ChildEra.LEGACY)
            chosen = self._for_modern
        return await chosen.answer(request)

    async def _is_modern(self) -> bool:
        """Return whether the server speaks 2026-07-28; raise Unavailable if it cannot be asked."""
        probe = Request(_PROBE_ID, DISCOVER, own_envelope(SUPPORTED[0], __version__))
        try:
            with anyio.move_on_after(_PROBE_S):
                return era_probe.speaks_modern(await self._plain.attempt(probe))
        except faults.RemoteRefused as refused:
            if refused.status in _KNOWS_NO_DISCOVERY:
                return False
            raise
        raise faults.overdue(_PROBE_S, "for server/discover")

    async def _translated(self, server: ChildEra) -> RemoteServerClient:
        client = self._make_translated(server)
        await self._tasks.start(client.run)
        log.info("connect.translating", extra={"server": server.value})
        return client
