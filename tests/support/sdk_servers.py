"""The stdio servers of the end-to-end tests, and what a visitor must see in each of them.

A client prints all it saw; the gists here are what that comes down to, without the fields each
SDK adds in its own way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "support" / "peers"

HARD_TEXT = "line\r\nline\u2028\u2029 \U0001f98a \\ \" 'e\u0301' \u0000 end"


def interpreter(version: int) -> str:
    """The Python of the environment that holds major version 1 or 2 of the SDK."""
    python = ROOT / f".venv-mcp{version}" / "bin" / "python"
    assert python.exists(), f"{python.parent.parent.name} is missing: `make interop` makes it"
    return str(python)


@dataclass(frozen=True)
class Server:
    """A stdio server, what a tour visits in it and what must be seen there."""

    name: str
    argv: tuple[str, ...]
    plan: Mapping[str, Any]
    """As `--plan` of the clients: labels and what is sent under them."""
    shows: Mapping[str, object]
    """Label to gist, see `gist`; labels that no client can promise exactly are left out."""
    answers: Mapping[str, object]
    """Label to gist of the plan's questions, for a client that declares all it can answer."""
    wavering: frozenset[str] = frozenset()
    """Labels whose answers differ from one run to the next, bridge or no bridge."""


def said(text: str) -> tuple[str, str]:
    """The gist of a tool's answer."""
    return ("said", text)


def failed(text: str) -> tuple[str, str]:
    """The gist of a tool's answer marked as an error."""
    return ("failed", text)


def refused(code: int) -> tuple[str, int]:
    """The gist of a JSON-RPC error."""
    return ("refused", code)


def gist(seen: Any) -> object:
    """What one entry of a tour comes down to, without what SDKs add to it each in its way."""
    match seen:
        case {"error": {"code": code}}:
            return refused(code)
        case {"result": {"content": [{"text": text}], **rest}}:
            return failed(text) if rest.get("isError") else said(text)
        case {"result": {"contents": [{"uri": uri, **rest}]}}:
            return ("read", uri, rest.get("text", rest.get("blob")))
        case {"result": {"messages": [{"role": role, "content": {"text": text}}]}}:
            return ("prompted", role, text)
        case {"result": {"completion": {"values": values}}}:
            return ("completed", *values)
        case {"result": result}:
            return result
        case [*entries]:
            return [_name_of(entry) for entry in entries]
    return seen


def _name_of(entry: Any) -> object:
    if not isinstance(entry, Mapping):
        return entry
    return entry.get("uriTemplate") or entry.get("uri") or entry["name"]


LISTS = ("tools", "resources", "resourceTemplates", "prompts")
TOOLS = ["echo", "add", "countdown", "slow", "fail", "log", "pid", "ask", "sample", "roots"]
MORE_TOOLS = ["wait", "ended", "ping_client", "big", "change"]
"""Of the low-level servers only."""
QUESTIONS = {
    "ask": ["ask", {"question": "who?"}],
    "sample": ["sample", {"prompt": "hum"}],
    "roots": ["roots", {}],
}
ANSWERS = {
    "ask": said("accept: said to: who?"),
    "sample": said("sampled from: hum"),
    "roots": said("file:///peer/place"),
}
EVERY_BYTE = (
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNE"
    "RUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJ"
    "iouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3O"
    "z9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/w=="
)

PEER_PLAN: Mapping[str, Any] = {
    "lists": LISTS,
    "calls": {
        "echo": ["echo", {"text": HARD_TEXT}],
        "add": ["add", {"a": 2, "b": 3}],
        "fail": ["fail", {"message": "as asked"}],
        "unknown tool": ["nonesuch", {}],
        "missing argument": ["echo", {}],
    },
    "counted": {"countdown": ["countdown", {"seconds": 0.2, "steps": 4}]},
    "reads": {
        "greeting": "peer://greeting",
        "bytes": "peer://bytes",
        "item": "peer://item/seven",
        "unknown resource": "peer://nonesuch",
    },
    "prompted": {
        "summarize": ["summarize", {"topic": "tea"}],
        "unknown prompt": ["nonesuch", {}],
    },
    "completions": {
        "topics": [{"type": "ref/prompt", "name": "summarize"}, {"name": "topic", "value": "be"}]
    },
    "questions": QUESTIONS,
}
PEER_SHOWS: Mapping[str, object] = {
    "ping": {},
    "tools": TOOLS,
    "resources": ["peer://greeting", "peer://bytes"],
    "resourceTemplates": ["peer://item/{name}"],
    "prompts": ["summarize"],
    "echo": said(HARD_TEXT),
    "fail": failed("as asked"),
    "countdown": said("liftoff"),
    "countdown-progress": [[0, 4], [1, 4], [2, 4], [3, 4]],
    "greeting": ("read", "peer://greeting", "good day"),
    "bytes": ("read", "peer://bytes", EVERY_BYTE),
    "item": ("read", "peer://item/seven", "item seven"),
    "summarize": ("prompted", "user", "Summarize tea."),
}


def fastmcp_server() -> Server:
    """The server made with the FastMCP package."""
    return Server(
        name="fastmcp",
        argv=(interpreter(1), str(PEERS / "server_fastmcp.py")),
        plan=PEER_PLAN,
        shows={
            **PEER_SHOWS,
            "add": said('{"sum":5.0}'),
            "unknown tool": failed("Unknown tool: 'nonesuch'"),
            "unknown resource": refused(-32002),
            "unknown prompt": refused(0),
            "topics": refused(-32601),
        },
        answers=ANSWERS,
    )


def fastmcp4_command() -> tuple[str, ...]:
    """The command of the server made with version 4 of the FastMCP package."""
    return (interpreter(2), str(PEERS / "server_fastmcp.py"))


def mcp1_server() -> Server:
    """The server made with the low-level part of the SDK 1.x."""
    return Server(
        name="mcp1",
        argv=(interpreter(1), str(PEERS / "server_mcp1.py")),
        plan=PEER_PLAN,
        shows={
            **PEER_SHOWS,
            "tools": [*TOOLS, *MORE_TOOLS],
            "add": said("5"),
            "unknown tool": failed("no tool 'nonesuch'"),
            "missing argument": failed("Input validation error: 'text' is a required property"),
            "unknown resource": refused(0),
            "unknown prompt": refused(0),
            "topics": ("completed", "bees", "beans"),
        },
        answers=ANSWERS,
    )


def demo_server() -> Server:
    """The example server of the package; its times and dates are left out of the tour."""
    return Server(
        name="demo",
        argv=(sys.executable, "-m", "mcpbridge.demo"),
        plan={
            "lists": LISTS,
            "calls": PEER_PLAN["calls"],
            "counted": PEER_PLAN["counted"],
            "reads": {"greeting": "demo://greeting", "unknown resource": "demo://nonesuch"},
            "prompted": PEER_PLAN["prompted"],
            "completions": PEER_PLAN["completions"],
            "questions": {"ask": QUESTIONS["ask"]},
        },
        shows={
            "ping": {},
            "echo": said(HARD_TEXT),
            "add": said("5"),
            "fail": failed("as asked"),
            "countdown": said("liftoff"),
            "unknown tool": refused(-32602),
            "unknown resource": refused(-32002),
            "unknown prompt": refused(-32602),
        },
        answers={"ask": said("The answer is: said to: who?")},
        # The last step comes with the answer, and then is heard by some clients only.
        wavering=frozenset({"countdown-progress"}),
    )


def shown(report: Mapping[str, Any], labels: Iterable[str]) -> dict[str, object]:
    """The gists of a report under the labels a server promises."""
    return {label: gist(report.get(label)) for label in labels}


def steady(report: Mapping[str, Any], server: Server) -> dict[str, Any]:
    """All of a report that must be the same whenever and however the server is visited."""
    return {label: seen for label, seen in report.items() if label not in server.wavering}


def in_2026(gists: dict[str, object]) -> dict[str, object]:
    """What a tour shows in 2026-07-28: no ping, and another code for what is not found."""
    gone, renamed = refused(-32002), refused(-32602)
    told = {label: renamed if seen == gone else seen for label, seen in gists.items()}
    hello = told.get("hello")
    if isinstance(hello, dict):
        told["hello"] = {**hello, "protocolVersion": "2026-07-28"}
    return {**told, "ping": refused(-32601)} if "ping" in told else told
