"""The shim by itself: bytes, connections, and their ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.bridge_process import child, eventually, started
from tests.support.proofs import proves
from tests.support.shim import connect, descriptors, program, read, rss_kib, shim

pytestmark = pytest.mark.slow

CAT = ("cat",)
RAW = bytes(range(256)) * 3


@pytest.mark.parametrize("kind", ["unix", "abstract", "tcp"])
async def test_one_connection_is_one_process(kind: str, tmp_path: Path) -> None:
    """Bytes as they are, both ends passed on, and nothing left of it afterwards."""
    listen = {
        "unix": f"unix:{tmp_path}/s",
        "abstract": f"unix:@{tmp_path}",
        "tcp": "tcp:127.0.0.1:0",
    }[kind]
    command = ("sh", "-c", "echo words for people >&2; exec cat")
    async with shim(listen, command=command) as running:
        await eventually(lambda: descriptors(running.pid) > 0, "it runs")
        before = descriptors(running.pid)
        for _ in range(3):
            with closing(connect(running.url)) as one, closing(connect(running.url)) as two:
                one.send(RAW)
                two.send(b"two")
                assert await read(one, len(RAW)) == RAW
                assert await read(two, 3) == b"two"
                one.shutdown(socket.SHUT_WR)
                assert await read(one, 1) == b""
                two.send(b"still")
                assert await read(two, 5) == b"still"
        await running.logged("child.stopped", count=6)
        assert len({each["pid"] for each in running.events("child.started")}) == 6
        told = {each["pid"] for each in running.events("child.stderr")}
        assert told == {each["pid"] for each in running.events("child.started")}
        assert {each["line"] for each in running.events("child.stderr")} == {"words for people"}
        await eventually(lambda: descriptors(running.pid) == before, "all is closed")


@proves("O16")
async def test_who_says_nothing_starts_nothing(tmp_path: Path) -> None:
    """Probes connect; some of them stay."""
    listen = f"unix:{tmp_path}/s"
    async with shim(listen, command=CAT) as running:
        before = descriptors(running.pid)
        for _ in range(100):
            connect(listen).close()
        silent = [connect(listen) for _ in range(300)]
        await eventually(lambda: descriptors(running.pid) > before + 200, "they are held")
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mcpbridge", "health", listen, stdout=asyncio.subprocess.PIPE
        )
        assert (await asked.communicate())[0] == f"{listen} listens\n".encode()
        assert asked.returncode == 0
        assert running.events("child.started") == []
        # The bound: the oldest are closed, the youngest may still speak.
        assert await read(silent[0], 1) == b""
        silent[-1].send(b"x")
        assert await read(silent[-1], 1) == b"x"
        for each in silent:
            each.close()
        await eventually(lambda: descriptors(running.pid) == before, "all is closed")
        assert len(await running.logged("child.started")) == 1


@proves("fault 54")
@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_who_does_not_read_is_waited_for(kind: str, tmp_path: Path) -> None:
    """A stalled reader stops its own process alone; all comes in the end."""
    listen = f"unix:{tmp_path}/s" if kind == "unix" else "tcp:127.0.0.1:0"
    sent = random.Random(7).randbytes(24 << 20)
    async with shim(listen, command=CAT) as running:
        with closing(connect(running.url)) as slow, closing(connect(running.url)) as quick:
            sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(slow, sent))
            await asyncio.wait([sending], timeout=0.5)
            assert not sending.done()
            quick.send(b"q")
            assert await read(quick, 1) == b"q"
            assert rss_kib(running.pid) < 48 << 10
            found = await read(slow, len(sent))
            await sending
            assert hashlib.sha256(found).digest() == hashlib.sha256(sent).digest()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_the_last_bytes_come_before_the_end(kind: str, tmp_path: Path) -> None:
    """Of a process that ends by itself, though its peer reads late and goes on talking."""
    listen = f"unix:{tmp_path}/s" if kind == "unix" else "tcp:127.0.0.1:0"
    last = program("sys.stdin.readline(); sys.stdout.write('x' * 3_000_000); sys.exit(3)")
    async with shim(listen, command=last) as running:
        with closing(connect(running.url)) as connection:
            connection.send(b"go\nand never read\n")
            await running.logged("child.started")
            connection.send(b"nor this")
            assert len(await read(connection, 3_000_001)) == 3_000_000
        (ended,) = await running.logged("child.exited")
        assert ended["how"] == "exit code 3"


async def test_there_is_a_bound_on_processes(tmp_path: Path) -> None:
    """One more is refused by the name of the limit, until there is room again."""
    listen = f"unix:{tmp_path}/s"
    async with shim(listen, "--max-connections", "1", command=CAT) as running:
        with closing(connect(listen)) as one, closing(connect(listen)) as two:
            one.send(b"1")
            assert await read(one, 1) == b"1"
            two.send(b"2")
            assert await read(two, 1) == b""
            (refused,) = await running.logged("shim.refused")
            assert refused["limit"] == "--max-connections 1"
        await running.logged("child.stopped")
        with closing(connect(listen)) as three:
            three.send(b"3")
            assert await read(three, 1) == b"3"


async def test_the_end_waits_for_connections(tmp_path: Path) -> None:
    """After the first signal no client is let in, and the others are served until they leave."""
    path = tmp_path / "s"
    async with shim(f"unix:{path}", command=CAT) as running:
        with closing(connect(f"unix:{path}")) as one, closing(connect(f"unix:{path}")) as silent:
            one.send(b"1")
            assert await read(one, 1) == b"1"
            running.signal(signal.SIGTERM)
            assert await read(silent, 1) == b""
            await eventually(lambda: not path.exists(), "the file is gone")
            one.send(b"still served")
            assert await read(one, 12) == b"still served"
        assert await running.ended() == 0


async def test_the_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    """Neither beyond its grace, nor after a second signal, whatever the process does."""
    listen = f"unix:{tmp_path}/s"
    ignoring_sigterm = program(
        "import signal\nsignal.signal(15, 1)\nprint(1, flush=True)\nsignal.pause()"
    )
    async with shim(listen, "--grace", "6s", command=CAT) as running:
        with closing(connect(listen)) as one:
            one.send(b"1")
            assert await read(one, 1) == b"1"
            assert await running.terminate() == 0
            assert await read(one, 1) == b""
    async with shim(listen, command=ignoring_sigterm) as running:
        with closing(connect(listen)) as one:
            one.send(b"1")
            assert await read(one, 2) == b"1\n"
            running.signal(signal.SIGTERM)
            await running.logged("shim.signal")
            await running.next_order(signal.SIGTERM)
            assert await running.ended(5) == 3


async def test_a_killed_shim_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """The next one takes its address over; a living one keeps its own."""
    path = tmp_path / "s"
    listen = f"unix:{path}"
    async with started("shim", "--listen", listen, "--", *child("invalid_output")) as killed:
        await killed.logged("shim.started")
        killed.signal(signal.SIGKILL)
        await killed.ended()
    assert path.exists()
    async with shim(listen, "--mode", "0600", command=CAT) as running:
        assert path.stat().st_mode & 0o777 == 0o600
        async with started("shim", "--listen", listen, "--", *CAT) as second:
            assert await second.ended() == 1
            (failed,) = await second.logged("shim.failed")
            assert failed["problem"] == (
                f"cannot listen on {listen}: another process listens on {path}"
            )
        with closing(connect(listen)) as one:
            one.send(b"1")
            assert await read(one, 1) == b"1"
        assert running.process.returncode is None
    assert not path.exists()


async def test_what_cannot_work_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    """A command that is not there, no address, and an invalid one."""
    path = tmp_path / "s"
    for words, status, problem in (
        (("--listen", f"unix:{path}", "--", "no-such-command"), 127, "not found on PATH"),
        (("--", "cat"), 2, "no address to listen on; give --listen unix:PATH"),
        (("--listen", "8081", "--", "cat"), 2, "is not a socket address; write unix:PATH"),
        (("--listen", f"unix:{path}", "--mode", "u+rw", "--", "cat"), 2, "are not permissions"),
        (("--listen", f"unix:{path}", "--"), 2, "no MCP server to start"),
        (("--listen", f"unix:{path / 'a' / 'b'}", "--", "cat"), 1, "cannot listen on"),
    ):
        async with started("shim", *words) as failed:
            assert await failed.ended() == status, words
        said = [*failed.noise, *(str(each) for each in failed.log)]
        assert problem in "\n".join(said), said
    assert os.listdir(tmp_path) == []


async def test_it_needs_little(tmp_path: Path) -> None:
    """Neither the web framework nor the server library is loaded, and memory shows it."""
    async with shim(f"unix:{tmp_path}/s", command=CAT) as running:
        mapped = Path(f"/proc/{running.pid}/maps").read_text()
        assert "httptools" not in mapped
        assert "uvloop" not in mapped
        assert rss_kib(running.pid) < 40 << 10
