"""The shim as a process, and programs that may stand in its place."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.bridge_process import (
    RunningBridge,
    assert_clean,
    bridge,
    child,
    eventually,
    marked,
    messages,
    rpc,
    started,
)

WITHIN_S = 20.0


@asynccontextmanager
async def shim(listen: str, *words: str, command: Sequence[str]) -> AsyncIterator[RunningBridge]:
    """A shim that listens; its `url` is its address.

    Ends it with SIGTERM if the test has not, and asserts what every end must show.
    """
    async with started("shim", "--listen", listen, *words, "--", *command) as running:
        (record,) = await running.logged("shim.started")
        running.url = record["address"]
        yield running
        if running.process.returncode is None:
            assert await running.terminate() == 0, running.log
        await eventually(lambda: not marked(running._mark), "no process is left", 10)
        assert_clean(running)


def forking(tool: str, listen: str, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that starts a command for each connection, by `inetd` or `socat`."""
    if tool == "inetd":
        return child("inetd", listen, *command)
    kind, _, rest = listen.partition(":")
    where = f"UNIX-LISTEN:{rest},fork" if kind == "unix" else f"TCP-LISTEN:{port(listen)},fork"
    what = shlex.join(command).replace(":", "\\:").replace(",", "\\,")
    options = "" if kind == "unix" else ",reuseaddr,bind=127.0.0.1"
    return (tool, where + options, f"EXEC:{what}")


@asynccontextmanager
async def in_place_of_the_shim(argv: Sequence[str], listen: str) -> AsyncIterator[None]:
    """A program that listens, as soon as it does; ended with the block."""
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
    try:
        await eventually(lambda: _listens(listen), "it listens", WITHIN_S)
        yield
    finally:
        process.terminate()
        await process.wait()


def port(listen: str) -> int:
    """The port in `tcp:HOST:PORT`."""
    return int(listen.rpartition(":")[2])


def free_tcp() -> str:
    """The address of a port without a listener."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp:127.0.0.1:{found.getsockname()[1]}"


def connect(address: str) -> socket.socket:
    """A connection that does not block."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect("\0" + rest[1:] if rest.startswith("@") else rest)
        except OSError:
            made.close()
            raise
    else:
        made = socket.create_connection(("127.0.0.1", port(address)))
    made.setblocking(False)
    return made


async def read(connection: socket.socket, size: int) -> bytes:
    """That many bytes, or fewer at the end of the stream."""
    found = bytearray()
    async with asyncio.timeout(WITHIN_S):
        while len(found) < size:
            chunk = await asyncio.get_running_loop().sock_recv(connection, 1 << 18)
            if not chunk:
                break
            found += chunk
    return bytes(found)


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def program(text: str) -> tuple[str, ...]:
    """The command of a short Python program; `sys` and `os` are there."""
    return (sys.executable, "-S", "-c", f"import os, sys\n{text}")


def address(kind: str, folder: Path) -> str:
    """An address that is used by no other test."""
    return f"unix:{folder}/s" if kind == "unix" else free_tcp()


def questioner(folder: Path) -> tuple[str, ...]:
    """The command of a server that records and asks."""
    record = folder / "record"
    record.mkdir(exist_ok=True)
    return child("questioner", str(record))


def connected(to: str, *words: str, **more: Any) -> AbstractAsyncContextManager[RunningBridge]:
    """A bridge without a command."""
    return bridge("--connect", to, *words, **more)


async def call(client: Any, headers: dict[str, str], method: str, params: Any = None) -> Any:
    """The one answer to a call."""
    answer = await client.post("/mcp", json=rpc("c", method, params or {}), headers=headers)
    assert answer.status_code == 200, answer.text
    (only,) = [each for each in messages(answer.text) if each.get("id") == "c"]
    return only


def _listens(address: str) -> bool:
    try:
        connect(address).close()
    except OSError:
        return False
    return True
