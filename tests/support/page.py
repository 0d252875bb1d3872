"""The page of `mcpbridge dev` as a program reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from tests.support.bridge_process import RunningBridge
from tests.support.raw_http import WITHIN_S

FRAMES = "/ui/frames"


class Event(msgspec.Struct, frozen=True):
    """One event of the stream of frames."""

    kind: str
    id: str | None
    data: Any

    @property
    def method(self) -> str | None:
        """The method of the message that passed; None if it has none."""
        found: str | None = self.data.get("raw", {}).get("method")
        return found


class FrameReader:
    """The events of one response, one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        facts: dict[str, str] = {}
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                if not line and facts:
                    return Event(facts["event"], facts.get("id"), json.loads(facts["data"]))
                name, _, value = line.partition(": ")
                if name:
                    facts[name] = value
        return None

    async def until(self, wanted: Callable[[Event], bool]) -> list[Event]:
        """All events up to the first of a kind, which is the last one."""
        found: list[Event] = []
        while (event := await self.next()) is not None:
            found.append(event)
            if wanted(event):
                return found
        raise AssertionError(f"the stream ended after {found}")


def page_address(bridge: RunningBridge) -> str:
    """The address that `mcpbridge dev` has printed."""
    records = [*bridge.events("dev.page_served"), *bridge.events("dev.started")]
    return str(records[0]["page"])


def token_of(address: str) -> str:
    """The token in the address of the page."""
    return urlsplit(address).fragment.removeprefix("token=")


def bearing(bridge: RunningBridge) -> dict[str, str]:
    """The header with which the frames may be read."""
    return {"authorization": f"Bearer {token_of(page_address(bridge))}"}


@asynccontextmanager
async def frames(
    bridge: RunningBridge, query: str = "", last: str = ""
) -> AsyncIterator[FrameReader]:
    """The stream of frames, after the event with the id `last` if one is given."""
    headers = bearing(bridge) | ({"last-event-id": last} if last else {})
    async with (
        bridge.client() as client,
        client.stream("GET", FRAMES + query, headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream"
        reader = FrameReader(response)
        first = await reader.next()
        assert first is not None
        assert (first.kind, first.data["format"]) == ("start", 1)
        yield reader
