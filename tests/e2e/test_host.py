"""What the machine does to the bridge: unread logs, addresses, users, sockets handed over.

The catalogue of faults, rows 105 to 107, 111, 113 and 115.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import bridge_process
from tests.support.bridge_process import DEMO, bridge, eventually, rpc, started
from tests.support.proofs import proves

pytestmark = pytest.mark.slow

PACKAGE = str(Path(__file__).parents[2])


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def echoed(url: str) -> str:
    """What the demo says to a call at this address, once it is there."""
    echo = {"name": "echo", "arguments": {"text": "still here"}}
    async with httpx.AsyncClient(base_url=url, timeout=bridge_process.END_S) as client:
        async with asyncio.timeout(bridge_process.START_S):
            while True:
                try:
                    ready = await client.get("/readyz")
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)  # nothing tells: its log is what is broken
                    continue
                if ready.status_code == 200:
                    break
                await asyncio.sleep(0.05)  # nothing tells: asks again
        session = await bridge_process.open_session(client)
        answer = await client.post("/mcp", json=rpc(1, "tools/call", echo), headers=session)
        return str(answer.json()["result"]["content"][0]["text"])


def has_ipv6() -> bool:
    """Whether this machine has a loopback of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("words", [(), ("--host", "localhost"), ("--host", "127.0.0.1")])
async def test_by_default_both_loopbacks_are_served(words: tuple[str, ...]) -> None:
    """Sessions of one bridge, by either address and at one port; not if one was asked for."""
    both = has_ipv6() and "127.0.0.1" not in words
    async with bridge("--admin-port", "0", *words) as run:
        (record,) = run.events("serve.started")
        port, admin = int(record["address"].split(":")[1]), int(record["admin"].split(":")[1])
        assert record.get("also") == (f"[::1]:{port}" if both else None)
        assert await echoed(f"http://127.0.0.1:{port}") == "still here"
        for each in (port, admin):
            if both:
                reader, writer = await asyncio.open_connection("::1", each)
                writer.write(b"GET /health/ HTTP/1.1\r\nHost: [::1]:%d\r\n\r\n" % each)
                assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
                writer.close()
            else:
                with pytest.raises(OSError, match=r"Errno"):
                    await asyncio.open_connection("::1", each)
        if both:
            assert await echoed(f"http://[::1]:{port}") == "still here"


@proves("fault 105", "fault 106")
@pytest.mark.parametrize(
    "redirect", ["0<&- 1>&- 2>&-", "2>/dev/full", "2>&1 | true"], ids=["closed", "full", "unread"]
)
async def test_without_a_log_the_program_works_as_with_one(redirect: str) -> None:
    """Descriptors closed, the disk full, no process at the other end."""
    port = free_port()
    words = f"-m mcpbridge --port {port} --log-level debug -- {' '.join(DEMO)}"
    script = f"exec {sys.executable} {words} {redirect}"
    if "|" in redirect:
        script = f"({script.replace(' | true', '')}) | true; exit ${{PIPESTATUS[0]}}"
    shell = await asyncio.create_subprocess_exec("bash", "-c", script, start_new_session=True)
    try:
        assert await echoed(f"http://127.0.0.1:{port}") == "still here"
    finally:
        os.killpg(shell.pid, signal.SIGTERM) if "|" not in redirect else _terminate(port)
        status = await asyncio.wait_for(shell.wait(), bridge_process.END_S)
    assert status == 0


def _terminate(port: int) -> None:
    """SIGTERM to the bridge with this port, wherever it stands in a pipeline."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[1:3] == [b"-m", b"mcpbridge"] and str(port).encode() in words:
                os.kill(int(entry.name), signal.SIGTERM)


@proves("fault 106")
async def test_a_log_that_nobody_reads_holds_up_neither_calls_nor_the_end() -> None:
    """The pipe is full; records are dropped, and the end waits a second for it."""
    port, (read, write) = free_port(), os.pipe()
    while True:
        os.set_blocking(write, False)
        try:
            os.write(write, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(write, True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mcpbridge", "--port", str(port), "--log-level", "debug", "--",
        *DEMO, stderr=write, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert await echoed(f"http://127.0.0.1:{port}") == "still here"
        began = asyncio.get_running_loop().time()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 8) == 0
        assert asyncio.get_running_loop().time() - began < 6
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(write)
        os.close(read)


@proves("fault 113")
@pytest.mark.parametrize(
    ("host", "reached"), [("::1", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"])], ids=["six", "both"]
)
async def test_it_listens_on_ipv6_alone_and_on_both(host: str, reached: list[str]) -> None:
    """Loopback of the one family, and every address of both."""
    async with bridge("--host", host) as run:
        (record,) = await run.logged("serve.started")
        assert record["address"] == f"[{host}]:{run.port}"
        for address in reached:
            assert await echoed(f"http://{address}:{run.port}") == "still here"
        if host == "::1":
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", run.port), 5)


@proves("fault 111")
async def test_any_user_may_run_it() -> None:
    """One without a name or a home, who may write nothing."""
    script = (
        "unset HOME USER LOGNAME TMPDIR; exec setpriv --reuid 65532 --regid 65532 --clear-groups"
        " --no-new-privs --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search"
        ' --bounding-set -all,+dac_read_search "$@"'
    )
    env = {"PYTHONPATH": PACKAGE, "PYTHONDONTWRITEBYTECODE": ""}
    words = ("--", "sh", "-c", f"exec {sys.executable} -m mcpbridge.demo")
    async with bridge(*words, under=("sh", "-c", script, "sh"), env=env) as run:
        assert "65532" in Path(f"/proc/{run.pid}/status").read_text()
        assert await echoed(run.url) == "still here"


@proves("fault 115")
async def test_a_socket_handed_over_is_listened_on() -> None:
    """As systemd does it; the server behind sees nothing of it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        script = f'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=x exec "$@" 3<&{listener.fileno()}'
        tell = "tr '\\0' '\\n' </proc/self/environ | grep LISTEN_ >&2; exec \"$@\""
        words = ("--", "sh", "-c", tell, "sh", *DEMO)
        under = ("bash", "-c", script, "bash")
        fds = (listener.fileno(),)
        async with bridge(*words, under=under, pass_fds=fds) as run:
            (record,) = await run.logged("serve.started")
            assert record["address"] == f"127.0.0.1:{port}"
            assert "LISTEN_FDS" in record["because"]
            assert await echoed(f"http://127.0.0.1:{port}") == "still here"
            lines: list[Any] = [record["line"] for record in run.events("child.stderr")]
            assert not any("LISTEN_" in line for line in lines)


@proves("fault 115")
async def test_something_else_handed_over_is_refused() -> None:
    """With the descriptor and why, before a child starts."""
    script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3</dev/null'
    async with started("--port", "0", under=("bash", "-c", script, "bash")) as run:
        assert await run.ended(10) == 1
        (failed,) = await run.logged("serve.failed")
        assert "descriptor 3" in failed["problem"]
        await eventually(lambda: run.processes() == set(), "no process is left")
