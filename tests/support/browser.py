"""A real browser: where it is, and one page of it that a test drives."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "interop" / "browser"
WITHIN_S = 90.0


def chromium() -> str:
    """The browser's path; its absence is a failure and not a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise AssertionError("no browser: apt-get install chromium, or whatever brings Chromium here")


def node() -> str:
    """Node's path, likewise."""
    found = shutil.which("node")
    assert found, "node is missing: apt-get install nodejs npm, or whatever brings Node >= 20 here"
    driver = HERE.parent / "node_modules" / "playwright-core"
    assert driver.exists(), "playwright-core is missing: `make browser` installs it"
    return found


class Tab:
    """One page, driven by `drive.mjs`, which has all that it can do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, act: str, **words: Any) -> Any:
        """Have it do something; what that returns."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"act": act, **words}).encode() + b"\n")
        async with asyncio.timeout(WITHIN_S):
            line = await stdout.readline()
        assert line, "the browser has ended"
        answer = json.loads(line)
        assert "error" not in answer, (act, words, answer["error"])
        return answer["value"]

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element of this kind has this text in it."""
        await self.do("shows", selector=selector, text=text)

    async def hides(self, selector: str, text: str) -> None:
        """Wait until none of this kind has it."""
        await self.do("hides", selector=selector, text=text)

    async def click(self, selector: str, text: str = "") -> None:
        """Click on the last element of this kind with this text in it."""
        await self.do("click", selector=selector, text=text)

    async def rows(self) -> list[list[str]]:
        """The cells of each row: time, server, client, call, milliseconds, status."""
        found: list[list[str]] = await self.do("rows")
        return found

    async def row(self, call: str) -> list[str]:
        """The last row whose call begins so."""
        return [each for each in await self.rows() if each[3].startswith(call)][-1]


@asynccontextmanager
async def tab(profile: Path) -> AsyncIterator[Tab]:
    """A page of a separate browser, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(node(), str(HERE / "drive.mjs"), chromium(), str(profile)),
        stdin=PIPE,
        stdout=PIPE,
        limit=1 << 24,
    )
    try:
        yield Tab(process)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
