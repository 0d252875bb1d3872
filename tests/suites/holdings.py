"""What a bridge that runs under `watched.py` holds, as the system and the process itself see it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import read_memory
from tests.support.bridge_process import RunningBridge

SETTLE_LOOKS = 30
"""One a second: children end and idle connections are closed within that."""
WATCHED: dict[str, Any] = {
    "under": (sys.executable, str(Path(__file__).with_name("watched.py"))),
    "stdin": asyncio.subprocess.PIPE,
    "stdout": asyncio.subprocess.PIPE,
}
"""Options of `tests.support.bridge_process.bridge` for a bridge that can be asked."""


class Watched:
    """One bridge, started with `WATCHED`."""

    def __init__(self, running: RunningBridge) -> None:
        self._bridge = running
        self._pid = running.pid

    @property
    def rss_kib(self) -> int:
        """Resident memory."""
        return read_memory(self._pid).rss_kib

    async def holdings(self) -> dict[str, int]:
        """Descriptors, children, zombies and what the process says about itself, at this moment."""
        process = self._bridge.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"?\n")
        told = json.loads(await process.stdout.readline())
        states = children_of(self._pid)
        return {
            "descriptors": len(os.listdir(f"/proc/{self._pid}/fd")),
            "children": len(states),
            "zombies": states.count("Z"),
            **told,
        }

    async def steady(self) -> dict[str, int]:
        """What it holds once that has not changed for a second: the last of a load is gone."""
        found = await self.holdings()
        for _ in range(SETTLE_LOOKS):
            await asyncio.sleep(1)  # a process under load has settled, or not yet
            before, found = found, await self.holdings()
            if found == before:
                break
        return found

    async def settled(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """What it holds once that is what is wanted, or when the time for it is over."""
        found = await self.holdings()
        for _ in range(SETTLE_LOOKS):
            if found == wanted:
                break
            await asyncio.sleep(1)  # a process under load has settled, or not yet
            found = await self.holdings()
        return found


def children_of(pid: int) -> list[str]:
    """The states of a process's children, Z for a zombie."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(fields[0])
    return found
