"""Everything a legacy client may do, in two sessions at once: the scenario `features`.

Both sessions make the same visit at the same moment, each under its own marker that goes
into all it sends; what one of them hears with the other's marker in it was sent to the wrong one.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any, Protocol

import anyio
from scenarios import Arrivals, Connect, JsonObject, PeerSession, attempt

MARKERS = ("left", "right")
BIG = 2_000_000
"""Characters, which are bytes here, of the messages that are large."""


class Subscriber(PeerSession, Protocol):
    """A conversation with the verbs that sessions have."""

    updates: Arrivals

    async def subscribe(self, uri: str) -> JsonObject: ...

    async def unsubscribe(self, uri: str) -> JsonObject: ...

    async def abandon(self, name: str, arguments: JsonObject) -> None: ...


async def features(connect: Connect, options: argparse.Namespace) -> JsonObject:
    """Visit in both sessions; what each saw, by marker."""
    seen: JsonObject = {}
    async with connect(options) as left, connect(options) as right:
        async with anyio.create_task_group() as group:
            for marker, peer in zip(MARKERS, (left, right), strict=True):
                seen[marker] = {}
                group.start_soon(_visit, peer, marker, options.declare, seen[marker])
        # What was sent to the wrong session may come after its own visit: told at the end.
        for marker, peer in zip(MARKERS, (left, right), strict=True):
            seen[marker]["logs"] = [entry["data"] for entry in peer.logs.entries]
            seen[marker]["updates"] = [entry["uri"] for entry in peer.updates.entries]
    return seen


async def _visit(peer: Subscriber, marker: str, declared: bool, seen: JsonObject) -> None:
    await _plain(peer, seen)
    await _ask(peer, marker, seen)
    await _log(peer, marker, declared, seen)
    await _subscribe(peer, marker, seen)
    await peer.abandon("wait", {"label": marker})
    seen["ended"] = await attempt(peer.call("ended", {"label": marker}))
    await _exchange_big(peer, marker, declared, seen)
    seen["last"] = await attempt(peer.call("echo", {"text": f"{marker} is done"}))


async def _plain(peer: Subscriber, seen: JsonObject) -> None:
    seen["ping"] = await attempt(peer.ping())
    seen["tools"] = (await peer.page("tools", None))["tools"]
    seen["greeting"] = await attempt(peer.read("peer://greeting"))
    seen["prompt"] = await attempt(peer.prompt("summarize", {"topic": "tea"}))
    ref, argument = {"type": "ref/prompt", "name": "summarize"}, {"name": "topic", "value": "be"}
    seen["completion"] = await attempt(peer.complete(ref, argument))
    steps: list[Any] = []

    async def on_progress(done: float, total: float | None, _message: str | None) -> None:
        steps.append([done, total])

    arguments = {"seconds": 0.2, "steps": 4}
    seen["countdown"] = await attempt(peer.call("countdown", arguments, on_progress))
    seen["progress"] = steps


async def _ask(peer: Subscriber, marker: str, seen: JsonObject) -> None:
    """Let the child ask; a client that declared nothing sees the child refused."""
    seen["ask"] = await attempt(peer.call("ask", {"question": marker}))
    seen["sample"] = await attempt(peer.call("sample", {"prompt": marker}))
    seen["roots"] = await attempt(peer.call("roots", {}))
    seen["ping_client"] = await attempt(peer.call("ping_client", {}))


async def _log(peer: Subscriber, marker: str, declared: bool, seen: JsonObject) -> None:
    for level in ("error", "info"):
        seen[f"level {level}"] = await attempt(peer.set_level(level))
        seen[f"log {level}"] = await attempt(peer.call("log", {"message": f"{marker} {level}"}))
    # On a shared child with two calls in flight it belongs to no call, and is not worth the wait.
    if declared:
        await peer.logs.holding(f"{marker} info")


async def _subscribe(peer: Subscriber, marker: str, seen: JsonObject) -> None:
    """Get one item, then another only: had the first been told again, it came before."""
    first, second = (f"{marker}-{which}" for which in ("first", "second"))
    seen["subscribe"] = await attempt(peer.subscribe(f"peer://item/{first}"))
    seen["change"] = await attempt(peer.call("change", {"name": first, "text": "new"}))
    await peer.updates.holding(first)
    seen["changed"] = await attempt(peer.read(f"peer://item/{first}"))
    seen["unsubscribe"] = await attempt(peer.unsubscribe(f"peer://item/{first}"))
    await attempt(peer.subscribe(f"peer://item/{second}"))
    await attempt(peer.call("change", {"name": first, "text": "newer"}))
    await attempt(peer.call("change", {"name": second, "text": "new"}))
    await peer.updates.holding(second)


async def _exchange_big(peer: Subscriber, marker: str, declared: bool, seen: JsonObject) -> None:
    text = marker + "y" * BIG

    async def on_progress(*_step: Any) -> None:
        steps.append(_step[0])

    steps: list[float] = []
    seen["big echo"] = _digest(await attempt(peer.call("echo", {"text": text})))
    # After progress the answer can only be an event of a stream.
    seen["big event"] = _digest(await attempt(peer.call("big", {"size": BIG}, on_progress)))
    seen["big progress"] = steps
    if declared:
        seen["big sample"] = _digest(await attempt(peer.call("sample", {"prompt": text})))


def _digest(answer: JsonObject) -> object:
    """The length and SHA-256 of the text in a tool's answer; an error as it is."""
    if "error" in answer:
        return answer
    text = answer["result"]["content"][0]["text"].encode()
    return [len(text), hashlib.sha256(text).hexdigest()]
