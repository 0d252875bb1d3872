"""`python -m mcpbridge doctor`, run to its end, for tests that read what it says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

WITHIN_S = 60.0


class DoctorRun(NamedTuple):
    """One run."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.out)

    def marks(self) -> dict[str, str]:
        """The last mark of each check of an endpoint, by the check's name."""
        return {check["name"]: check["mark"] for check in self.report["checks"]}

    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [name for name, mark in self.marks().items() if mark == "failed"]


async def doctor(*words: str, env: Mapping[str, str] | None = None) -> DoctorRun:
    """Run it with these words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mcpbridge",
        "doctor",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return DoctorRun(process.returncode, out.decode(), err.decode())


async def as_operator(url: str, *words: str) -> DoctorRun:
    """Ask an endpoint as the MCP Operator does."""
    return await doctor(url, "--as", "mcp-operator", "--json", *words)
