"""The log of `mcpbridge dev` as a person sees it: what a slow start waits for, and colours."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_starts import LOG_ON_A_TERMINAL
from tests.support.bridge_process import ACCEPT, DEMO, RunningBridge, eventually, rpc, started
from tests.support.failing_child import new_fifo, open_fifo

pytestmark = pytest.mark.slow

TERMINAL = (sys.executable, "-c", LOG_ON_A_TERMINAL)
ESCAPE = "\x1b"
WAITING = r"waiting for the answer to initialize, for \d+ s; npx may be fetching some-server"
SEEN: Mapping[str, str] = {
    "waiting": rf"\S+ {WAITING}",
    "stderr": r"\S+ stderr │ fetched",
    "ready": r"\S+ ready: mcpbridge-demo \S+, \d+ tools",
    "call": r"\S+ echo +(<1|\d+) ms  ok",
}
"""The lines of one run, without colours."""
COLORED: Mapping[str, str] = {
    "waiting": rf"\x1b\[2m\S+\x1b\[0m \x1b\[33m{WAITING}\x1b\[0m",
    "stderr": r"\x1b\[2m\S+\x1b\[0m \x1b\[33mstderr │\x1b\[0m fetched",
    "ready": r"\x1b\[2m\S+\x1b\[0m \x1b\[32mready\x1b\[0m: mcpbridge-demo \S+, \d+ tools",
    "call": r"\x1b\[2m\S+\x1b\[0m \x1b\[1mecho +\x1b\[0m +(<1|\d+) ms  \x1b\[32mok\x1b\[0m",
}
"""The same on a terminal: the time is dim, what waits and stderr yellow, what is good green."""


def npx(folder: Path, fifo: str) -> tuple[str, ...]:
    """A command that fetches a package for as long as the fifo is not opened, and then serves."""
    program = folder / "npx"
    gate = f"read -r line < {shlex.quote(fifo)}\necho fetched >&2\n"
    program.write_text(f"#!/bin/sh\n{gate}exec {shlex.join(DEMO)}\n", "utf-8")
    program.chmod(0o755)
    return (str(program), "-y", "some-server")


async def seen(running: RunningBridge, lines: Mapping[str, str], name: str) -> None:
    """Wait until a line is on the terminal."""
    pattern = re.compile(lines[name])
    await eventually(lambda: any(map(pattern.fullmatch, running.noise)), lines[name])


@pytest.mark.parametrize(
    ("under", "form", "lines"),
    [(TERMINAL, (), COLORED), ((), ("--log-format", "text"), SEEN)],
    ids=["terminal", "elsewhere"],
)
async def test_a_slow_start_says_what_it_waits_for(
    tmp_path: Path, under: tuple[str, ...], form: tuple[str, ...], lines: Mapping[str, str]
) -> None:
    """Then what the server says, that it is ready, and each call; in colour on a terminal alone."""
    fifo = new_fifo(tmp_path, "fifo")
    words = ("--port", "0", "--no-watch", *form, "--", *npx(tmp_path, fifo))
    async with started("dev", *words, under=under) as running:
        await seen(running, lines, "waiting")
        os.close(open_fifo(fifo))
        await seen(running, lines, "stderr")
        await seen(running, lines, "ready")
        (url,) = (line.split()[-1] for line in running.noise if "  address " in line)
        async with httpx.AsyncClient() as client:
            call = rpc(1, "tools/call", {"name": "echo", "arguments": {"text": "x"}})
            assert (await client.post(url, json=call, headers=ACCEPT)).status_code == 200
        await seen(running, lines, "call")
        assert await running.terminate() == 0
    colored = [line for line in running.noise if ESCAPE in line]
    assert bool(colored) == (under == TERMINAL)
    assert running.log == []


async def test_elsewhere_the_log_is_for_programs() -> None:
    """Without an option: each line is a record."""
    async with started("dev", "--port", "0", "--no-watch", "--", *DEMO) as running:
        await running.logged("serve.ready")
        assert await running.terminate() == 0
    assert running.noise == []
