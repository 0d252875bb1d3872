"""The rows in which one client's requests go to different replicas, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any
from urllib.parse import urljoin

import httpx

from tests.suites.replicas.conversation import (
    LONG_S,
    WITHIN_S,
    held,
    http_client,
    tool_call,
)
from tests.suites.replicas.conversation import Client as Conversation
from tests.suites.replicas.lab import Lab, lab
from tests.suites.replicas.rows import Figure, Size, at_least, at_most, detail, equal
from tests.support.bridge_process import initialize, messages, rpc
from tests.support.modern_client import headers_of, meta
from tests.support.sdk_clients import Client, reported
from tests.support.sdk_servers import PEERS, ROOT, interpreter

ABILITIES: tuple[dict[str, Any], ...] = ({}, {"elicitation": {}})
CALL_ID = 7
INTERNAL = -32603
LOST_WITHIN_S = 3.0
ECHOES = 40
"""Calls of each client over HTTP+SSE."""


async def row_8(_size: Size) -> list[Figure]:
    """A conversation spread over three replicas is told the same as one with one replica."""
    async with lab(count=1, peers=False) as one:
        url = one.replicas[0].url
        wanted = await held(url, url, url)
    differences, count = 0, 0
    async with lab() as made:
        urls = [replica.url for replica in made.replicas]
        for order in itertools.permutations(urls):
            found = await held(*order)
            count += 1
            for mine, other in itertools.zip_longest(found, wanted):
                if mine != other:
                    differences += 1
                    detail("differs", {"spread": mine, "one replica": other})
    steps = len(wanted)
    return [
        equal("differences", differences, 0),
        equal("conversations", count, 6),
        at_least("steps of each", steps, 12),
    ]


async def row_9(_size: Size) -> list[Figure]:
    """The owner is killed in a streamed call: its client is told, at the stream or when it resumes.

    The session has a process for itself or shares one, and the stream was opened at the owner or
    at another replica.
    """
    kinds = [(able, at_owner) for able in ABILITIES for at_owner in (True, False)]
    # All at once: most of the time passes until the replicas take each other for settled.
    found = await asyncio.gather(*(_lost_alone(*kind) for kind in kinds))
    told = 0
    for _, message in found:
        error = message.get("error", {})
        right = (message.get("id"), error.get("code")) == (CALL_ID, INTERNAL)
        right = right and error["data"]["mcpbridge"]["reason"] == "replica_lost"
        told += right
        if not right:
            detail("told", message)
    longest_s = max(seconds for seconds, _ in found)
    return [
        equal("told replica_lost under the call's id", told, len(kinds)),
        at_most("longest time in s", round(longest_s, 1), LOST_WITHIN_S),
    ]


async def _lost_alone(able: Any, at_owner: bool) -> tuple[float, Any]:
    async with lab() as made, http_client() as http:
        return await _lost(made, http, able, at_owner=at_owner)


async def _lost(
    made: Lab, http: httpx.AsyncClient, able: Any, *, at_owner: bool
) -> tuple[float, Any]:
    """Kill the owner in a call; the seconds until its client is told, and what it is told."""
    owner, relay, third = made.replicas
    client, _ = await Conversation.opened(http, owner.url, relay.url, able)
    call = tool_call(CALL_ID, "steps", token="t", text="lost", wait_s=LONG_S)
    last = ""
    await made.settled()
    async with client.streaming(owner.url if at_owner else relay.url, call) as stream:
        event = await stream.next()
        assert event is not None
        last = event.event_id
        began = monotonic()
        await owner.kill()
        # A stream at the owner breaks; one at another replica ends with the error.
        with contextlib.suppress(httpx.TransportError):
            while (event := await stream.next()) is not None:
                last = event.event_id or last
                if "error" in event.message:
                    return monotonic() - began, event.message
    async with client.listening(third.url, last=last) as stream:
        while (event := await stream.next()) is not None:
            if "error" in event.message:
                return monotonic() - began, event.message
    return monotonic() - began, {}


async def row_12(_size: Size) -> list[Figure]:
    """A parked call of 2026-07-28 is answered through another replica, or lost with its own."""
    async with lab() as made, http_client() as http:
        first, second, _ = made.replicas
        parked = await _parked(http, first.url)
        answered = await _retried(http, second.url, parked)
        parked = await _parked(http, first.url)
        await first.kill()
        lost = await _retried(http, second.url, parked)
    said = answered.get("result", {}).get("content", [{}])[0].get("text")
    error = lost.get("error", {})
    reason = error.get("data", {}).get("mcpbridge", {}).get("reason")
    return [
        equal("answer through another replica", said, "parked answered"),
        equal("code when the replica is gone", error.get("code"), INTERNAL),
        equal("reason", reason, "replica_lost"),
    ]


async def _parked(http: httpx.AsyncClient, url: str) -> Any:
    """Call a tool that asks; the result that says so."""
    arguments = {"name": "ask", "arguments": {"text": "parked"}, "_meta": meta({"elicitation": {}})}
    message = rpc(1, "tools/call", arguments)
    response = await http.post(f"{url}/mcp", json=message, headers=headers_of(message))
    (answer,) = [each for each in messages(response.text) if "result" in each]
    return answer["result"]


async def _retried(http: httpx.AsyncClient, url: str, parked: Any) -> Any:
    """Answer what a parked call asks; the answer of the call."""
    ((key, _),) = parked["inputRequests"].items()
    given = {"action": "accept", "content": {"answer": "answered"}}
    arguments = {
        "name": "ask",
        "arguments": {"text": "parked"},
        "inputResponses": {key: given},
        "requestState": parked["requestState"],
        "_meta": meta({"elicitation": {}}),
    }
    message = rpc(2, "tools/call", arguments)
    response = await http.post(f"{url}/mcp", json=message, headers=headers_of(message))
    return messages(response.text)[-1]


async def row_11(_size: Size) -> list[Figure]:
    """HTTP+SSE through the balancer; a stream whose replica is gone is unknown."""
    async with lab() as made:
        clients = [
            Client("python", (interpreter(1), str(PEERS / "client_mcp1.py"))),
            Client("typescript", ("node", str(ROOT / "tests" / "interop" / "client.mjs"))),
        ]
        reports = await asyncio.gather(*(_echoed(client, made) for client in clients))
        right = sum(report["right"] for report in reports)
        wrong = [each for report in reports for each in report["wrong"]]
        if wrong:
            detail("wrong", wrong)
        spread = await _messages_everywhere(made)
        gone = await _owner_gone(made)
    return [
        equal("right answers of the SDKs", right, ECHOES * len(clients)),
        equal("errors", len(wrong), 0),
        equal("statuses of messages at each replica", spread, [202, 202, 202]),
        equal("statuses when the owner is gone", gone, [404, 404]),
    ]


async def _echoed(client: Client, made: Lab) -> dict[str, Any]:
    words = ("--transport", "sse", "--calls", str(ECHOES), "--marker", client.name)
    return await reported(client, "echoes", *words, target=(f"{made.url}/sse",))


async def _messages_path(lines: AsyncIterator[str]) -> str:
    """The path that the first event of a stream names; the stream ends when `lines` is dropped."""
    async with asyncio.timeout(WITHIN_S):
        while not (line := await anext(lines)).startswith("data:"):
            pass
    return line.partition(":")[2].strip()


async def _messages_everywhere(made: Lab) -> list[int]:
    """Statuses of a message at each replica, for a stream at the first."""
    async with http_client() as http, http.stream("GET", f"{made.replicas[0].url}/sse") as got:
        lines = got.aiter_lines()
        path = await _messages_path(lines)
        hello = initialize(0, "2024-11-05")
        first = await http.post(urljoin(made.replicas[1].url, path), json=hello)
        assert first.status_code == 202, first.text
        return [
            (await http.post(urljoin(replica.url, path), json=rpc(1, "ping"))).status_code
            for replica in made.replicas
        ]


async def _owner_gone(made: Lab) -> list[int]:
    """Statuses of a message at the other replicas, once that of the stream is killed."""
    first, *others = made.replicas
    async with http_client() as http, http.stream("GET", f"{first.url}/sse") as got:
        lines = got.aiter_lines()
        path = await _messages_path(lines)
        await first.kill()
        return [
            (await http.post(urljoin(replica.url, path), json=rpc(1, "ping"))).status_code
            for replica in others
        ]
