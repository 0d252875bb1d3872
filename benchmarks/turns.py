"""The longest turn of the loop, and the slowest probe, while one costly message arrives.

    .venv/bin/python -m benchmarks.turns [--only WORD]

Each message of `hostile` goes to a bridge at default limits, alone, those of the server to a client
of each era, and answers of a server of 2026-07-28 to a legacy client, while `/livez` is asked on a
schedule: a probe is due every 20 ms, whether the one before has been answered or not. Two figures
each: the longest turn of the loop in processor time of its thread, and the probe that took longest,
by the clock, from the moment that it was due. Goals: 20 ms and 100 ms.

One JSON line a figure on standard output, the table on standard error. Exit status: 0, goals met or
not; 1 if the bridge gave no answer; 2 if it did not start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import figures, hostile, obstacles, target
from benchmarks.calls import ENVELOPE, MODERN_HEAD
from benchmarks.figures import Figure

ROW = "longest turn"
TURN_MS, PROBE_MS = 20, 100
EVERY_S = 0.02
WITHIN_S = 120.0
NO_ANSWER, NOT_STARTED = 1, 2
_REVISION = "2025-03-26"
_PIECE_BYTES = 1 << 16
_PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
METER = (sys.executable, "-m", "benchmarks.turn_meter")
_HOSTILE = (sys.executable, str(Path(hostile.__file__)))


Figures = Iterator[Figure]


class NoAnswer(Exception):
    """A request that was not answered in time or at all."""


class _Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> dict[str, str]:
        """Return the headers of the answer, once its body has been read; raises NoAnswer."""
        try:
            async with asyncio.timeout(WITHIN_S):
                self._writer.write(request)
                await self._writer.drain()
                head = await self._reader.readuntil(b"\r\n\r\n")
                pairs = (line.split(":", 1) for line in head.decode().split("\r\n")[1:-2])
                headers = {name.lower(): value.strip() for name, value in pairs}
                await self._read_body(headers)
                return headers
        except (OSError, EOFError, TimeoutError) as error:
            raise NoAnswer(f"{request[:40]!r}: {error!r}") from error

    async def _read_body(self, headers: dict[str, str]) -> None:
        if "content-length" in headers:
            await self._read(int(headers["content-length"]))
            return
        while size := int(await self._reader.readline() or b"0", 16):
            await self._read(size + 2)

    async def _read(self, size: int) -> None:
        # Kept and joined, a body of 32 MB would hold this loop, and the probes on it, for 50 ms.
        while size:
            size -= len(await self._reader.readexactly(min(size, _PIECE_BYTES)))


@asynccontextmanager
async def _client(bridge: target.Target) -> AsyncIterator[_Client]:
    reader, writer = await asyncio.open_connection(bridge.host, bridge.port)
    try:
        yield _Client(reader, writer)
    finally:
        writer.close()


def _post(body: bytes, session: dict[str, str]) -> bytes:
    headers = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Content-Length": str(len(body)),
        **session,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body


def modern_head(output: str) -> dict[str, str]:
    """Return the headers with which a client of 2026-07-28 asks for an output."""
    head = {**MODERN_HEAD, "Mcp-Method": hostile.method_of(output), "Mcp-Name": output}
    if output == hostile.TOOLS:
        del head["Mcp-Name"]
    return head


async def _session(client: _Client) -> dict[str, str]:
    hello = json.dumps(target.HELLO).replace(target.REVISION, _REVISION)
    headers = await client.ask(_post(hello.encode(), {}))
    session = {"Mcp-Session-Id": headers["mcp-session-id"], "MCP-Protocol-Version": _REVISION}
    await client.ask(_post(json.dumps(target.INITIALIZED).encode(), session))
    return session


async def _probe(bridge: target.Target, due: float) -> float:
    async with _client(bridge) as client:
        await client.ask(_PROBE)
    return time.monotonic() - due


async def _slowest_probe(
    bridge: target.Target, body: bytes, modern: str = ""
) -> tuple[float, float, float]:
    """Send one body; when it was sent, when it was answered, and the slowest probe; seconds.

    The client is one of 2026-07-28 if `modern` names the output that it asks for.
    """
    async with _client(bridge) as client:
        head = modern_head(modern) if modern else await _session(client)
        # What is loaded with the first request of a kind is not part of a message's cost.
        plain = hostile.request("plain", ENVELOPE if modern else {})
        await client.ask(_post(plain, modern_head("plain") if modern else head))
        await _probe(bridge, time.monotonic())
        began = time.monotonic()
        asked = asyncio.create_task(client.ask(_post(body, head)))
        probes, due = [asyncio.create_task(_probe(bridge, began))], began
        while not asked.done():
            due += EVERY_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            probes.append(asyncio.create_task(_probe(bridge, due)))
        took = await asyncio.gather(*probes)
        await asked
    return began, time.monotonic(), max(took)


def longest(path: Path, began: float, ended: float) -> float:
    """Seconds of the longest turn that `turn_meter` wrote down between two moments."""
    turns = (line.split() for line in path.read_text().splitlines())
    return max((float(took) for at, took in turns if began <= float(at) <= ended), default=0.0)


def _measured(name: str, body: bytes, modern: str = "", server: Sequence[str] = ()) -> Figures:
    with tempfile.TemporaryDirectory(prefix="mcpbridge-bench-") as folder:
        path = Path(folder, "turns")
        words = ["--port", "0", "--isolation", "shared", "--", *_HOSTILE, *server]
        argv = [*METER, str(path), sys.executable, "-m", "mcpbridge", *words]
        with target.running("bridge", argv) as bridge:
            began, ended, probe_s = asyncio.run(_slowest_probe(bridge, body, modern))
        turn_s = longest(path, began, ended)
    turn = [turn_s * 1e3]
    yield Figure(ROW, f"{name}: turn", "ms", turn, TURN_MS, obstacle=obstacles.TURN)
    probe = [probe_s * 1e3]
    yield Figure(ROW, f"{name}: slowest probe", "ms", probe, PROBE_MS, obstacle=obstacles.PROBE)


def turns(only: str = "") -> Figures:
    """Measure all messages whose name holds a word; raises NoAnswer."""
    bodies = {f"body: {name}": make for name, make in hostile.BODIES.items()}
    for name in (*hostile.OUTPUTS, hostile.STDERR):
        bodies[f"server: {name}"] = lambda name=name: hostile.request(name)  # type: ignore[misc]
    for name, make in bodies.items():
        if only in name:
            yield from _measured(name, make())
    for output in hostile.OUTPUTS:
        name = f"server, modern client: {output}"
        if only in name:
            yield from _measured(name, hostile.request(output, ENVELOPE), output)
    for output in hostile.TRANSLATED:
        name = f"modern server: {output}"
        if only in name:
            yield from _measured(name, hostile.request(output), server=("modern",))


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="messages with this in their name")
    told = []
    try:
        for figure in turns(parser.parse_args().only):
            told.append(figure)
            print(figure.line(), flush=True)
    except NoAnswer as error:
        print(f"turns: {error}", file=sys.stderr)
        return NO_ANSWER
    except (OSError, target.TargetFailed) as error:
        print(f"turns: {error}", file=sys.stderr)
        return NOT_STARTED
    print(figures.table(told), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
