"""The MCP Inspector's command line against the bridge, over both transports it speaks to a URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import DEMO, RunningBridge, bridge
from tests.support.inspector import Seen, inspected

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

TOOL_FAILED = 5
"""Its exit status where a tool's answer is marked as an error, or there is no such tool."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def between() -> AsyncIterator[RunningBridge]:
    """A bridge before the demo, for all tests of the module."""
    async with bridge() as running:
        yield running


def targets(running: RunningBridge) -> dict[str, tuple[str, ...]]:
    """The demo over either transport of the bridge, and without it."""
    return {
        "http": ("--transport", "http", "--server-url", f"{running.url}/mcp"),
        "sse": ("--transport", "sse", "--server-url", f"{running.url}/sse"),
        "stdio": DEMO,
    }


async def everywhere(running: RunningBridge, words: Sequence[str], home: Path) -> Seen:
    """What is seen over every transport, which must be one and the same."""
    found = targets(running)
    seen = await asyncio.gather(*(inspected(each, words, home) for each in found.values()))
    assert seen[0] == seen[1] == seen[2], dict(zip(found, seen, strict=True))
    return seen[0]


def _said(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


CALLS: dict[str, tuple[tuple[str, ...], Any]] = {
    "echo": (("echo", "--tool-arg", "text=tea \u2028 \U0001f98a"), _said("tea \u2028 \U0001f98a")),
    "add": (
        ("add", "--tool-args-json", '{"a": 2, "b": 0.5}'),
        _said("2.5") | {"structuredContent": {"sum": 2.5}},
    ),
    "progress": (("countdown", "--tool-args-json", '{"seconds": 0.2}'), _said("liftoff")),
}


@pytest.mark.parametrize(("words", "result"), CALLS.values(), ids=CALLS.keys())
async def test_a_tool_answers_over_both_transports_as_without_the_bridge(
    between: RunningBridge, words: tuple[str, ...], result: Any, tmp_path: Path
) -> None:
    """Text, structured content, and an answer that comes after progress."""
    seen = await everywhere(between, ("--method", "tools/call", "--tool-name", *words), tmp_path)
    assert seen == Seen(0, result, "")


@pytest.mark.parametrize(
    ("method", "key", "names"),
    [
        ("tools/list", "tools", {"echo", "add", "countdown", "ask"}),
        ("resources/list", "resources", {"greeting", "time"}),
        ("prompts/list", "prompts", {"summarize"}),
    ],
)
async def test_a_list_is_the_same_over_both_transports_as_without_the_bridge(
    between: RunningBridge, method: str, key: str, names: set[str], tmp_path: Path
) -> None:
    """Every field of every entry."""
    seen = await everywhere(between, ("--method", method), tmp_path)
    assert seen.status == 0
    assert names <= {entry["name"] for entry in seen.result[key]}


async def test_resources_prompts_and_the_log_level_pass(
    between: RunningBridge, tmp_path: Path
) -> None:
    """A resource is read, a prompt is filled in, a level is set."""
    words: tuple[str, ...] = ("--method", "resources/read", "--uri", "demo://greeting")
    (content,) = (await everywhere(between, words, tmp_path)).result["contents"]
    assert (content["uri"], content["mimeType"]) == ("demo://greeting", "text/plain")
    words = ("--method", "prompts/get", "--prompt-name", "summarize", "--prompt-args", "topic=tea")
    (message,) = (await everywhere(between, words, tmp_path)).result["messages"]
    assert "Summarize tea" in message["content"]["text"]
    words = ("--method", "logging/setLevel", "--log-level", "error")
    assert await everywhere(between, words, tmp_path) == Seen(0, {}, "")


async def test_a_tool_that_fails_and_one_that_does_not_exist_are_told_apart(
    between: RunningBridge, tmp_path: Path
) -> None:
    """The Inspector sees the fault that the server reports and none of the bridge's."""
    call = ("--method", "tools/call", "--tool-name")
    failed = await everywhere(between, (*call, "fail", "--tool-arg", "message=no"), tmp_path)
    assert failed.status == TOOL_FAILED
    assert failed.result == _said("no") | {"isError": True}
    unknown = await everywhere(between, (*call, "nonesuch"), tmp_path)
    assert (unknown.status, unknown.result) == (TOOL_FAILED, None)
    assert "tool_not_found" in unknown.error


async def test_two_inspectors_get_all_their_calls_answered_at_once(
    between: RunningBridge, tmp_path: Path
) -> None:
    """200 calls, ten in flight in each of two sessions, one over either transport."""
    load = ("--load", "--load-requests", "100", "--load-concurrency", "10")
    words = ("--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=tea", *load)
    found = targets(between)
    both = (inspected(found[each], words, tmp_path) for each in ("http", "sse"))
    for seen in await asyncio.gather(*both):
        counts = [seen.result[key] for key in ("requests", "ok", "toolErrors", "errors")]
        assert (seen.status, counts) == (0, [100, 100, 0, 0])
