"""Agent frameworks list the tools of a server behind the bridge and call one, by both transports.

No model is asked: each framework's own MCP client is driven by a program of a few lines, in an
separate environment, since their dependencies exclude each other.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE

import pytest

from tests.support.bridge_process import DEMO, bridge
from tests.support.sdk_servers import PEERS, ROOT

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PATHS = {"http": "/mcp", "sse": "/sse"}
FRAMEWORKS = sorted(path.stem for path in (PEERS / "frameworks").glob("*.txt"))
SAID = "h\u00e9llo \u2028 \U0001f98a"
WITHIN_S = 90.0


async def seen_by(framework: str, url: str, transport: str) -> dict[str, object]:
    """What the program of a framework reports."""
    python = ROOT / f".venv-framework-{framework}" / "bin" / "python"
    assert python.exists(), f"{python.parent.parent.name} is missing: `make interop` makes it"
    program = str(PEERS / "frameworks" / f"{framework}.py")
    process = await asyncio.create_subprocess_exec(
        str(python), program, url, transport, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode(errors="replace")[-3000:]
    report: dict[str, object] = json.loads(out.splitlines()[-1])
    return report


def test_six_frameworks_are_tried() -> None:
    """Each with its requirements and its program."""
    assert len(FRAMEWORKS) == 6
    assert {path.stem for path in (PEERS / "frameworks").glob("*.py")} == {*FRAMEWORKS, "report"}


@pytest.mark.parametrize("transport", list(PATHS))
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_framework_lists_tools_and_calls_one(framework: str, transport: str) -> None:
    """At default flags; the text of the answer is the one that was sent."""
    async with bridge("--", *DEMO) as running:
        report = await seen_by(framework, f"{running.url}{PATHS[transport]}", transport)
    assert report["said"] == SAID
    tools = report["tools"]
    assert isinstance(tools, list)
    assert "echo" in tools
