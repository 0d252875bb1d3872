"""What a client leaves is free at once: the garbage collector comes seldom, by intention.

Whatever is held in a circle stays until then: a thousand connections or sessions that are over
would be megabytes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    initialize,
    messages,
    open_session,
    rpc,
)
from tests.support.modern_client import (
    FORM,
    Stateless,
    asking,
    form,
    headers_of,
    progress,
    retry_of,
    serving,
)

PATH = (str(Path(__file__).parents[1] / "support" / "observed"), os.environ.get("PYTHONPATH", ""))
TELLING = {"PYTHONPATH": os.pathsep.join(PATH)}
TELL = signal.SIGRTMIN + 3
TIMES = 3
STREAM = {"accept": "text/event-stream"}
SOON_S = 0.3

Visit = Callable[[Stateless], Awaitable[None]]


def _do(request_id: int, **wishes: Any) -> dict[str, Any]:
    return rpc(request_id, "tools/call", {"name": "do", "arguments": wishes})


@asynccontextmanager
async def _session(some: Stateless, capabilities: Any = None) -> AsyncIterator[dict[str, str]]:
    """A session from its beginning to its end; the headers that name it."""
    headers = await open_session(some.client, capabilities=capabilities)
    yield headers
    assert (await some.client.delete("/mcp", headers=headers)).status_code == 200


async def _call(some: Stateless, headers: Mapping[str, str], message: Any) -> list[Any]:
    response = await some.client.post("/mcp", json=message, headers=headers)
    assert response.status_code == 200, response.text
    return messages(response.text)


async def calls(some: Stateless) -> None:
    """The later ones take the fast path."""
    async with _session(some) as headers:
        for number in range(5):
            (answer,) = await _call(some, headers, _do(number))
            assert answer["id"] == number


async def calls_of_many_sessions(some: Stateless) -> None:
    """More heads on one connection than are remembered."""
    for _ in range(6):
        await calls(some)


async def child_of_its_own(some: Stateless) -> None:
    """Started and ended with the session."""
    async with _session(some, {"sampling": {}}) as headers:
        assert (await _call(some, headers, _do(1)))[-1]["id"] == 1


async def streamed_call(some: Stateless) -> None:
    """Progress, and then the answer."""
    async with _session(some) as headers:
        message = _do(1, say=[progress(1)])
        message["params"]["_meta"] = {"progressToken": "t"}
        assert len(await _call(some, headers, message)) == 2


async def stream(some: Stateless) -> None:
    """Its client leaves it, and then the session."""
    async with (
        _session(some) as headers,
        some.client.stream("GET", "/mcp", headers={**headers, **STREAM}) as response,
    ):
        assert response.status_code == 200


async def stateless_call(some: Stateless) -> None:
    """Of a client of 2026-07-28."""
    await some.do()


async def stateless_call_that_is_left(some: Stateless) -> None:
    """Its client closes the connection before there is an answer."""
    message = some.request("tools/call", {"name": "do", "arguments": {"hold": "x"}})
    with pytest.raises(httpx.ReadTimeout):
        await some.client.post("/mcp", json=message, headers=headers_of(message), timeout=SOON_S)


async def listen(some: Stateless) -> None:
    """A subscription, left after its acknowledgement."""
    wanted = {"notifications": {"toolsListChanged": True}}
    async with some.stream(some.request("subscriptions/listen", wanted)) as events:
        assert await events.next() is not None


async def parked_call(some: Stateless) -> None:
    """The child asks, and the client answers with a second request."""
    params = asking([form()])
    asked = await some.result("tools/call", params, FORM)
    answers = {key: {"action": "accept", "content": {}} for key in asked["inputRequests"]}
    assert await some.result("tools/call", retry_of(params, asked, **answers), FORM)


async def old_stream(some: Stateless) -> None:
    """The transport of 2024-11-05."""
    async with some.client.stream("GET", "/sse", headers=STREAM) as response:
        data = (line[5:].strip() async for line in response.aiter_lines() if line[:5] == "data:")
        endpoint = await anext(data)
        for message in (initialize(0, "2024-11-05"), _do(1)):
            assert (await some.client.post(endpoint, json=message)).status_code == 202
            assert f'"id":{message["id"]}' in await anext(data)


async def refused(some: Stateless) -> None:
    """No JSON, no session, no place, no host of ours."""
    post = some.client.post
    none = {**ACCEPT, "content-type": "application/json", "mcp-session-id": "0" * 64}
    assert (await post("/mcp", content=b"{", headers=none)).status_code == 400
    assert (await post("/mcp", json=_do(1), headers=none)).status_code == 404
    assert (await some.client.get("/nothing")).status_code == 404
    assert (await some.client.get("/mcp", headers={"host": "evil.example"})).status_code == 421


VISITS: tuple[Visit, ...] = (
    calls,
    calls_of_many_sessions,
    child_of_its_own,
    streamed_call,
    stream,
    stateless_call,
    stateless_call_that_is_left,
    listen,
    parked_call,
    old_stream,
    refused,
)


@pytest.mark.parametrize("kind", ["legacy", "modern"])
@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.__name__)
async def test_nothing_is_left_to_the_garbage_collector(
    visit: Visit, kind: str, tmp_path: Path
) -> None:
    """Each visit on its own connection; the first ones fill what is kept for good."""
    env = {**TELLING, "MCPBRIDGE_CHILD_ERA": kind}
    async with serving(kind, tmp_path, env=env) as some:
        await _visit(some, visit)
        await _garbage(some.bridge, 1)
        await _visit(some, visit)
        assert await _garbage(some.bridge, 2) == {}


async def _visit(some: Stateless, visit: Visit) -> None:
    for _ in range(TIMES):
        async with some.bridge.client() as client:
            await visit(Stateless(some.bridge, some.folder, client))


async def _garbage(running: RunningBridge, count: int) -> dict[str, int]:
    """Names of types, and how many of each only the collector could free since the last time."""
    running.signal(TELL)
    *_, told = await running.logged("garbage", count=count)
    types: dict[str, int] = told["types"]
    return types
