"""The end: what a signal does to calls, streams, children and the exit status.

The catalogue of faults: its timeline of the end, and rows 96 to 98 and 109 to 112.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge.runtime.signals import ONE_ORDER_S
from tests.support import bridge_process
from tests.support.bridge_process import (
    RunningBridge,
    bridge,
    child,
    eventually,
    initialize,
    rpc,
    started,
)
from tests.support.namespaces import NEEDS_NAMESPACES, OWN_MOUNTS, OWN_PID_SPACE
from tests.support.proofs import proves

pytestmark = pytest.mark.slow

SILENT = (sys.executable, "-c", "import sys; sys.stdin.read()")
"""A server that never answers, and ends with its stdin."""
ELICITS: dict[str, Any] = {"elicitation": {}}


class Held:
    """A call whose response has begun, and whose answer is not there yet."""

    def __init__(self, response: httpx.Response, first: str) -> None:
        self._response = response
        self._text = first

    async def messages(self) -> list[Any]:
        """The rest, up to the end of the response."""
        async for text in self._lines:
            self._text += text
        return bridge_process.messages(self._text)

    async def begun(self) -> Held:
        """Wait for the first event."""
        self._lines = self._response.aiter_text()
        async for text in self._lines:
            self._text += text
            if "notifications/progress" in self._text:
                return self
        raise AssertionError(f"the response ended: {self._text}")


@asynccontextmanager
async def held(
    client: httpx.AsyncClient, headers: dict[str, str], message: dict[str, Any]
) -> AsyncIterator[Held]:
    """A call in flight: the server has it and has reported its first progress."""
    async with client.stream("POST", "/mcp", json=message, headers=headers) as response:
        assert response.status_code == 200
        yield await Held(response, "").begun()


def countdown(request_id: Any, seconds: float, steps: int = 10) -> dict[str, Any]:
    """A call of the demo that reports progress at once and then takes its time."""
    arguments = {"seconds": seconds, "steps": steps}
    meta = {"progressToken": f"token of {request_id}"}
    params = {"name": "countdown", "arguments": arguments, "_meta": meta}
    return rpc(request_id, "tools/call", params)


def hold(request_id: Any, name: str = "it") -> dict[str, Any]:
    """A call of the recorder that ends when it is released."""
    return rpc(request_id, "x/hold", {"name": name, "progress": 1, "_meta": {"progressToken": 1}})


def reason(message: dict[str, Any]) -> Any:
    """Why the bridge answered with its own error."""
    return message["error"]["data"]["mcpbridge"]["reason"]


async def phase(run: RunningBridge, name: str) -> dict[str, Any]:
    """Wait until the end has come to this phase."""
    (record,) = await run.logged("drain.phase_changed", lambda record: record["phase"] == name)
    return record


@proves("fault 96")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_calls_in_flight_are_answered_and_the_status_is_0(number: signal.Signals) -> None:
    """On the shared child, on a separate one, and outside of any session."""
    async with bridge() as run, run.client() as client:
        shared = await bridge_process.open_session(client)
        own = await bridge_process.open_session(client, capabilities=ELICITS)
        async with (
            held(client, shared, countdown("a", 1)) as first,
            held(client, own, countdown("a", 1)) as second,
            held(client, bridge_process.ACCEPT, countdown("a", 1)) as third,
        ):
            run.signal(number)
            answers = [(await call.messages())[-1] for call in (first, second, third)]
        assert await run.ended(10) == 0
    assert [answer["id"] for answer in answers] == ["a", "a", "a"]
    assert all("result" in answer for answer in answers), answers
    assert [record["calls"] for record in run.events("drain.phase_changed")][:2] == [3, 3]


@proves("fault 96")
async def test_without_calls_the_end_is_at_once() -> None:
    """Children end at the end of their stdin; no deadline is waited for."""
    async with bridge() as run, run.client() as client:
        await bridge_process.open_session(client)
        await bridge_process.open_session(client, capabilities=ELICITS)
        run.signal(signal.SIGTERM)
        assert await run.ended(4) == 0
    assert [record["how"] for record in run.events("child.stopped")] == ["exit code 0"] * 2


@proves("fault 96")
async def test_while_calls_finish_new_sessions_are_refused(tmp_path: Path) -> None:
    """Probes say so, old sessions go on, idle streams end, all answers say close."""
    command = ("--", *child("recorder", str(tmp_path)))
    async with bridge(*command) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        listener = await bridge_process.open_session(client, "2025-11-25")
        older = await bridge_process.open_session(client)
        async with (
            client.stream("GET", "/mcp", headers=listener) as stream,
            client.stream("GET", "/mcp", headers=older) as older_stream,
            held(client, session, hold(1)) as call,
        ):
            run.signal(signal.SIGTERM)
            assert (await phase(run, "draining"))["calls"] == 1
            # Idle streams end by themselves; who knows of that is told when to come back.
            *_, last = re.findall(r"^retry: ?(\d+)\r?$", (await stream.aread()).decode(), re.M)
            assert 500 <= int(last) <= 3000
            assert await older_stream.aread() == b": keep-alive\n\n"

            probes = {path: await client.get(path) for path in ("/livez", "/readyz", "/startupz")}
            health = await client.get("/health")
            assert [probe.status_code for probe in probes.values()] == [200, 503, 200]
            assert (health.status_code, "draining" in health.json()["missing"]) == (503, True)

            opening = await client.post("/mcp", json=initialize(7), headers=bridge_process.ACCEPT)
            outside = await client.post("/mcp", json=rpc(8, "ping"), headers=bridge_process.ACCEPT)
            again = await client.get("/mcp", headers=session)
            for refused in (opening, outside, again):
                assert refused.status_code == 503
                assert refused.headers["retry-after"] == "1"
                assert "mcp-session-id" not in refused.headers
                assert reason(refused.json()) == "draining"
            assert [opening.json()["id"], outside.json()["id"]] == [7, 8]

            release = rpc(9, "x/release", {"name": "it"})
            released = await client.post("/mcp", json=release, headers=session)
            assert released.json()["result"] == {"released": 1}
            for answer in (*probes.values(), health, opening, outside, again, released):
                assert answer.headers["connection"] == "close"
            assert (await call.messages())[-1] == {
                "jsonrpc": "2.0",
                "id": 1,
                "result": {"held": "it"},
            }
        assert await run.ended(5) == 0


@proves("fault 96")
async def test_at_the_deadline_calls_get_one_error(tmp_path: Path) -> None:
    """Each form of answer carries it, the status is 3, the grace is kept."""
    command = ("--grace", "6", "--json-window", "0", "--", *child("recorder", str(tmp_path)))
    json_only = {"accept": "application/json"}
    async with bridge(*command) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        began = asyncio.get_running_loop().time()
        async with (
            held(client, session, hold(1)) as call,
            client.stream("POST", "/mcp", json=hold(2), headers={**session, **json_only}) as late,
        ):
            run.signal(signal.SIGTERM)
            errors = [
                (await call.messages())[-1],
                *bridge_process.messages((await late.aread()).decode()),
            ]
        assert await run.ended(6) == 3
        assert asyncio.get_running_loop().time() - began < 6
    facts = {"reason": "shutdown", "executed": "maybe", "retryable": False}
    assert [error["id"] for error in errors] == [1, 2]
    assert [error["error"]["data"]["mcpbridge"] for error in errors] == [facts, facts]
    assert "deadline" in [record["because"] for record in run.events("drain.phase_changed")]


@proves("fault 97")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Calls still get their error, children are killed, the status is 3."""
    async with bridge("--", *child("recorder", str(tmp_path))) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        async with held(client, session, hold(1)) as call:
            run.signal(number)
            await phase(run, "draining")
            await run.next_order(number)
            assert reason((await call.messages())[-1]) == "shutdown"
        assert await run.ended(3) == 3


@proves("fault 97")
async def test_two_signals_at_once_are_one() -> None:
    """GNU `timeout` signals its command and then the whole group; the call is answered."""
    async with bridge() as run, run.client() as client:
        session = await bridge_process.open_session(client)
        async with held(client, session, countdown(1, 1)) as call:
            run.signal(signal.SIGTERM)
            # Another number, since the kernel merges two of the same that are pending.
            run.signal(signal.SIGINT)
            assert "result" in (await call.messages())[-1]
        assert await run.ended(10) == 0
    assert [record["count"] for record in run.events("serve.signal")] == [1, 1]


@proves("fault 97")
async def test_gnu_timeout_ends_it_once() -> None:
    """The program itself, which passes a signal on to its command and to the whole group."""
    async with bridge(under=("timeout", "600")) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        async with held(client, session, countdown(1, 1)) as call:
            run.signal(signal.SIGTERM)
            assert "result" in (await call.messages())[-1]
        assert await run.ended(10) == 0
    assert {record["count"] for record in run.events("serve.signal")} == {1}


@proves("fault 11", "fault 96", "C49")
async def test_a_server_has_a_share_of_the_grace_to_end_by_itself() -> None:
    """One that takes 3 s to end after its input is not killed if the calls left the time."""
    slow = "import sys, time; sys.stdin.read(); time.sleep(3)"
    async with bridge("--", sys.executable, "-c", slow, ready=False) as run:
        await run.logged("child.started")
        run.signal(signal.SIGTERM)
        assert await run.ended(10) == 0
    assert [record["how"] for record in run.events("child.stopped")] == ["exit code 0"]


@proves("fault 11", "fault 12", "C49")
async def test_a_child_that_will_not_end_is_killed_in_time() -> None:
    """It ignores the end of its stdin and SIGTERM; so does what it started."""
    async with bridge("--", *child("ignoring_sigterm")) as run:
        assert len(run.processes()) == 2
        began = asyncio.get_running_loop().time()
        assert await run.terminate() == 0
        # Two rungs of 5 s; the rest is for a busy machine.
        assert asyncio.get_running_loop().time() - began < 14
        assert run.processes() == set()
    assert [record["how"] for record in run.events("child.stopped")] == ["signal 9"]


@proves("fault 96")
async def test_a_signal_while_the_child_starts_ends_it() -> None:
    """No client has called, so none is waited for."""
    async with bridge("--", *SILENT, ready=False) as run:
        await run.logged("child.started")
        run.signal(signal.SIGTERM)
        assert await run.ended(4) == 0


@proves("fault 4", "fault 96")
async def test_an_initialize_that_waits_for_the_child_gets_its_error() -> None:
    """A child that never comes up does not leave a client without an answer."""
    async with bridge("--grace", "6", "--", *SILENT, ready=False) as run, run.client() as client:
        await run.logged("child.started")
        opening = client.stream("POST", "/mcp", json=initialize(1), headers=bridge_process.ACCEPT)
        async with opening as response:  # its head comes when the JSON window is over
            run.signal(signal.SIGTERM)
            (answer,) = bridge_process.messages((await response.aread()).decode())
        assert (answer["id"], reason(answer)) == (1, "shutdown")
        assert await run.ended(6) == 3


@proves("fault 110")
async def test_no_signal_is_lost_at_the_start() -> None:
    """From the first lines of the program on, long before it listens."""
    async with started("--port", "0") as run:
        await eventually(lambda: _heeds_sigterm(run.pid), "SIGTERM is held or heard")
        assert await run.terminate() == 0
        bridge_process.assert_clean(run)
        await eventually(lambda: run.processes() == set(), "no process is left")


@proves("fault 96")
async def test_a_lame_duck_serves_everything_until_balancers_have_noticed() -> None:
    """Not ready, yet new sessions and calls are served, with Connection: close."""
    async with bridge("--lame-duck", "1s") as run, run.client() as client:
        began = asyncio.get_running_loop().time()
        run.signal(signal.SIGTERM)
        await phase(run, "lame_duck")
        probes = [await client.get(path) for path in ("/readyz", "/livez", "/startupz")]
        assert [probe.status_code for probe in probes] == [503, 200, 200]
        opened = await client.post("/mcp", json=initialize(1), headers=bridge_process.ACCEPT)
        assert (opened.status_code, opened.headers["connection"]) == (200, "close")
        session = {**bridge_process.ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        listed = await client.post("/mcp", json=rpc(2, "tools/list"), headers=session)
        assert listed.json()["result"]["tools"]
        assert await run.ended(5) == 0
        assert asyncio.get_running_loop().time() - began >= 1


@proves("fault 96", "fault 97")
async def test_in_kubernetes_the_end_begins_as_a_lame_duck() -> None:
    """Removal from the endpoints is not synchronous with the signal."""
    async with bridge(env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) as run, run.client() as client:
        run.signal(signal.SIGTERM)
        await phase(run, "lame_duck")
        await bridge_process.open_session(client)
        await run.next_order(signal.SIGTERM)
        assert await run.ended(3) == 3
    (record,) = await run.logged("serve.started")
    assert record["address"].startswith("0.0.0.0:")
    assert "KUBERNETES_SERVICE_HOST" in record["because"]


@proves("fault 109", "fault 110")
@NEEDS_NAMESPACES
async def test_process_1_ends_like_any_other() -> None:
    """The kernel drops signals that process 1 has no handler for."""
    # Processes that have lost their parent when they end.
    leaves = 'for i in 1 2 3; do (sleep 0 &); done; exec "$@"'
    words = ("--log-level", "debug", "--", "sh", "-c", leaves, "sh", *bridge_process.DEMO)
    async with bridge(*words, under=OWN_PID_SPACE) as run, run.client() as client:
        first = _children(run.process.pid)[0]
        (record,) = await run.logged("serve.started")
        assert record["address"].startswith("0.0.0.0:")
        assert "process 1" in record["because"]
        await run.logged("orphan.reaped", count=3)
        session = await bridge_process.open_session(client)
        async with held(client, session, countdown(1, 0.5)) as call:
            os.kill(first, signal.SIGTERM)
            assert "result" in (await call.messages())[-1]
        assert await run.ended(5) == 0
    assert [record["how"] for record in run.events("child.stopped")] == ["exit code 0"]


@proves("fault 109", "fault 110")
@NEEDS_NAMESPACES
async def test_process_1_loses_no_signal_at_its_start() -> None:
    """The kernel drops one that process 1 neither holds back nor handles."""
    async with started("--port", "0", under=OWN_PID_SPACE) as run:

        def heeding() -> list[int]:
            # What makes the namespace holds signals back too, before it becomes the program.
            found = _children(run.process.pid)
            return [pid for pid in found if _runs_python(pid) and _heeds_sigterm(pid)]

        await eventually(lambda: bool(heeding()), "SIGTERM is held or heard")
        os.kill(heeding()[0], signal.SIGTERM)
        assert await run.ended() == 0
        bridge_process.assert_clean(run)


@proves("fault 97", "fault 110")
@NEEDS_NAMESPACES
async def test_process_1_hears_a_second_signal(tmp_path: Path) -> None:
    """With the same status as anywhere."""
    words = ("--", *child("recorder", str(tmp_path)))
    async with bridge(*words, under=OWN_PID_SPACE) as run, run.client() as client:
        first = _children(run.process.pid)[0]
        session = await bridge_process.open_session(client)
        async with held(client, session, hold(1)) as call:
            os.kill(first, signal.SIGTERM)
            await phase(run, "draining")
            await asyncio.sleep(ONE_ORDER_S)  # as `RunningBridge.next_order`, to process 1
            os.kill(first, signal.SIGINT)
            assert reason((await call.messages())[-1]) == "shutdown"
        assert await run.ended(3) == 3


@proves("fault 96", "fault 109")
@NEEDS_NAMESPACES
async def test_process_1_ends_before_docker_kills_it() -> None:
    """`docker stop` waits 10 s; a longer call gets its error, and the status is not a kill's."""
    async with bridge(under=OWN_PID_SPACE) as run, run.client() as client:
        first = _children(run.process.pid)[0]
        session = await bridge_process.open_session(client)
        async with held(client, session, countdown(1, 20)) as call:
            os.kill(first, signal.SIGTERM)
            assert reason((await call.messages())[-1]) == "shutdown"
        assert await run.ended(10) == 3


@proves("fault 98")
async def test_the_keys_of_a_terminal_reach_the_bridge_alone() -> None:
    """Ctrl-C is for us to pass on in order; a child that heard it would drop calls."""
    keyboard, terminal = pty.openpty()
    try:
        async with (
            bridge(
                "--lame-duck",
                "15s",
                stdin=terminal,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            ) as run,
            run.client() as client,
        ):
            session = await bridge_process.open_session(client)
            async with held(client, session, countdown(1, 0.5)) as call:
                os.write(keyboard, b"\x03")
                assert "result" in (await call.messages())[-1]
            # A user waits at the keyboard: no lame duck.
            assert await run.ended(5) == 0
        assert [record["signal"] for record in run.events("serve.signal")] == ["SIGINT"]
    finally:
        os.close(keyboard)
        os.close(terminal)


@proves("fault 114")
async def test_a_taken_port_is_told_before_a_child_starts(tmp_path: Path) -> None:
    """One line with the address, status 1, no child."""
    touched = tmp_path / "touched"
    async with bridge() as first:
        words = ("--port", str(first.port), "--", "sh", "-c", f"touch {touched}; cat")
        async with started(*words) as second:
            assert await second.ended(10) == 1
            (record,) = await second.logged("serve.failed")
    taken = f"cannot listen on 127.0.0.1:{first.port}: Address already in use"
    assert record["problem"] == f"{taken}; give another port with --port"
    assert second.log == [record]
    assert not touched.exists()


@proves("fault 111")
@NEEDS_NAMESPACES
async def test_it_runs_where_nothing_can_be_written() -> None:
    """Every file system read-only, no HOME, no TMPDIR, no name for the user."""
    script = (
        "mount -o remount,bind,ro / && cd / && ! touch /tmp/x 2>/dev/null && unset HOME TMPDIR USER"
        ' LOGNAME XDG_CACHE_HOME && exec "$@"'
    )
    root = str(Path(__file__).parents[2])
    under = (*OWN_MOUNTS, "sh", "-c", script, "sh")
    async with bridge(under=under, env={"PYTHONPATH": root}) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        echo = {"name": "echo", "arguments": {"text": "x"}}
        answer = await client.post("/mcp", json=rpc(1, "tools/call", echo), headers=session)
        assert answer.json()["result"]["content"][0]["text"] == "x"


def _heeds_sigterm(pid: int) -> bool:
    """Whether a process holds SIGTERM back or has a handler for it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    sets = re.findall(r"^Sig(?:Blk|Cgt):\s*([0-9a-f]+)$", status, re.MULTILINE)
    return any(int(each, 16) & 1 << (signal.SIGTERM - 1) for each in sets)


def _runs_python(pid: int) -> bool:
    """Whether a process runs this interpreter."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").resolve() == Path(sys.executable).resolve()
    return False


def _children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@proves("fault 11", "fault 12", "fault 54", "fault 96")
async def test_everything_at_once_ends_in_time(tmp_path: Path) -> None:
    """100 streams, readers that stall, half a request, a server that obeys no signal: in its grace.

    Status 3, since a call got its error; nothing is left.
    """
    words = ("--grace", "6", "--json-window", "0", "--", *child("ignoring_sigterm"))
    # As many as are open at once, and half a head and half a body as well.
    limits = httpx.Limits(max_connections=None)
    async with bridge(*words) as run, run.client(limits=limits) as client, AsyncExitStack() as held:
        streams = []
        for _ in range(100):
            session = await bridge_process.open_session(client)
            opening = client.stream("GET", "/mcp", headers=session)
            streams.append(await held.enter_async_context(opening))
        assert [stream.status_code for stream in streams] == [200] * 100
        silent = client.stream("POST", "/mcp", json=rpc(1, "x/silent"), headers=session)
        call = await held.enter_async_context(silent)  # its head says that the server has it
        head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        for half in (head, head + b"Content-Length: 100\r\n\r\n{"):
            _, writer = await asyncio.open_connection("127.0.0.1", run.port)
            held.callback(writer.close)
            writer.write(half)
            await writer.drain()
        await stalled_reader(run, held)

        began = asyncio.get_running_loop().time()
        run.signal(signal.SIGTERM)
        (error,) = bridge_process.messages((await call.aread()).decode())
        assert reason(error) == "shutdown"
        for stream in streams:
            await stream.aread()
        assert await run.ended(8) == 3
        # The kill comes at 6 s; the rest is for a busy machine.
        assert asyncio.get_running_loop().time() - began < 6.5
        assert run.processes() == set()


async def stalled_reader(run: RunningBridge, held: AsyncExitStack) -> None:
    """A client that asks and asks and never reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", run.port))
    held.callback(sock.close)
    sock.setblocking(False)
    text = json.dumps(rpc(1, "x/echo", {"text": "x" * 3_000_000})).encode()
    request = (
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\n\r\n%b"
    ) % (len(text), text)
    # The second is taken in when the first has been answered: more than any buffer holds.
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().sock_sendall(sock, request * 4)
