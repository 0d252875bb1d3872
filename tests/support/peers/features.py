"""Everything a legacy client may do, in two sessions at once: the scenario `features`.

Both sessions make the same visit at the same moment, each under a marker of its own that goes
into all it sends; what one of them hears with the other's marker in it was sent to the wrong one.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any, Protocol

import anyio
from scenarios import Arrivals, Connect, JsonObject, Talk, attempt

MARKERS = ("left", "right")
BIG = 2_000_000
"""Characters, which are bytes here, of the messages that are large."""


class Subscriber(Talk, Protocol):
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
            for marker, talk in zip(MARKERS, (left, right), strict=True):
                seen[marker] = {}
                group.start_soon(_visit, talk, marker, options.declare, seen[marker])
        # What was sent to the wrong session may come after its own visit: told at the end.
        for marker, talk in zip(MARKERS, (left, right), strict=True):
            seen[marker]["logs"] = [entry["data"] for entry in talk.logs.entries]
            seen[marker]["updates"] = [entry["uri"] for entry in talk.updates.entries]
    return seen


async def _visit(talk: Subscriber, marker: str, declared: bool, seen: JsonObject) -> None:
    await _plain(talk, seen)
    await _ask(talk, marker, seen)
    await _log(talk, marker, declared, seen)
    await _subscribe(talk, marker, seen)
    await talk.abandon("wait", {"label": marker})
    seen["ended"] = await attempt(talk.call("ended", {"label": marker}))
    await _exchange_big(talk, marker, declared, seen)
    seen["last"] = await attempt(talk.call("echo", {"text": f"{marker} is done"}))


async def _plain(talk: Subscriber, seen: JsonObject) -> None:
    seen["ping"] = await attempt(talk.ping())
    seen["tools"] = (await talk.page("tools", None))["tools"]
    seen["greeting"] = await attempt(talk.read("peer://greeting"))
    seen["prompt"] = await attempt(talk.prompt("summarize", {"topic": "tea"}))
    ref, argument = {"type": "ref/prompt", "name": "summarize"}, {"name": "topic", "value": "be"}
    seen["completion"] = await attempt(talk.complete(ref, argument))
    steps: list[Any] = []

    async def on_progress(done: float, total: float | None, _message: str | None) -> None:
        steps.append([done, total])

    arguments = {"seconds": 0.2, "steps": 4}
    seen["countdown"] = await attempt(talk.call("countdown", arguments, on_progress))
    seen["progress"] = steps


async def _ask(talk: Subscriber, marker: str, seen: JsonObject) -> None:
    """Let the child ask; a client that declared nothing sees the child refused."""
    seen["ask"] = await attempt(talk.call("ask", {"question": marker}))
    seen["sample"] = await attempt(talk.call("sample", {"prompt": marker}))
    seen["roots"] = await attempt(talk.call("roots", {}))
    seen["ping_client"] = await attempt(talk.call("ping_client", {}))


async def _log(talk: Subscriber, marker: str, declared: bool, seen: JsonObject) -> None:
    for level in ("error", "info"):
        seen[f"level {level}"] = await attempt(talk.set_level(level))
        seen[f"log {level}"] = await attempt(talk.call("log", {"message": f"{marker} {level}"}))
    # On a shared child with two calls in flight it is nobody's, and not worth the wait.
    if declared:
        await talk.logs.holding(f"{marker} info")


async def _subscribe(talk: Subscriber, marker: str, seen: JsonObject) -> None:
    """Hear of one item, then of another only: had the first been told again, it came before."""
    first, second = (f"{marker}-{which}" for which in ("first", "second"))
    seen["subscribe"] = await attempt(talk.subscribe(f"peer://item/{first}"))
    seen["change"] = await attempt(talk.call("change", {"name": first, "text": "new"}))
    await talk.updates.holding(first)
    seen["changed"] = await attempt(talk.read(f"peer://item/{first}"))
    seen["unsubscribe"] = await attempt(talk.unsubscribe(f"peer://item/{first}"))
    await attempt(talk.subscribe(f"peer://item/{second}"))
    await attempt(talk.call("change", {"name": first, "text": "newer"}))
    await attempt(talk.call("change", {"name": second, "text": "new"}))
    await talk.updates.holding(second)


async def _exchange_big(talk: Subscriber, marker: str, declared: bool, seen: JsonObject) -> None:
    text = marker + "y" * BIG

    async def on_progress(*_step: Any) -> None:
        steps.append(_step[0])

    steps: list[float] = []
    seen["big echo"] = _digest(await attempt(talk.call("echo", {"text": text})))
    # After progress the answer can only be an event of a stream.
    seen["big event"] = _digest(await attempt(talk.call("big", {"size": BIG}, on_progress)))
    seen["big progress"] = steps
    if declared:
        seen["big sample"] = _digest(await attempt(talk.call("sample", {"prompt": text})))


def _digest(answer: JsonObject) -> object:
    """The length and SHA-256 of the text in a tool's answer; an error as it is."""
    if "error" in answer:
        return answer
    text = answer["result"]["content"][0]["text"].encode()
    return [len(text), hashlib.sha256(text).hexdigest()]
