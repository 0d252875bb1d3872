"""Each signal in each situation: what ends the program does, and nothing else does.

The catalogue of faults, rows 98 to 101, 110 and 119.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import sys
import termios
from pathlib import Path
from threading import Timer

import pytest
import uvloop

from mcpbridge.runtime.signals import heard_signals
from tests.support import bridge_process
from tests.support.bridge_process import bridge, child, eventually, rpc, started
from tests.support.proofs import proves

pytestmark = pytest.mark.slow

ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
STAYS = (signal.SIGHUP, signal.SIGPIPE, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2)
HOLD = {"name": "it"}
BROKEN = (sys.executable, str(Path(__file__).parents[1] / "support" / "broken_bridge.py"))
OURS = {"PYTHONPATH": str(Path(__file__).parents[2])}


@proves("faults 99-101", "fault 108")
async def test_signals_that_are_no_order_to_end_end_nothing(tmp_path: Path) -> None:
    """Idle, with a call in flight, and stopped and continued before."""
    async with bridge("--", *child("recorder", str(tmp_path))) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        for number in STAYS:
            run.signal(number)
        (state,) = await run.logged("serve.state")
        assert (state["calls_in_flight"], state["sessions_open"], state["calls"]) == (0, 1, [])
        assert state["pids"] == [record["pid"] for record in run.events("child.started")]
        await run.logged("log.level_changed", lambda record: record["now"] == "debug")
        (ignored,) = await run.logged("serve.signal")
        assert (ignored["signal"], ignored["ignored"]) == ("SIGHUP", True)

        call = asyncio.create_task(
            client.post("/mcp", json=rpc(1, "x/hold", HOLD), headers=session)
        )
        held = "x/hold"
        await eventually(lambda: held in _seen(tmp_path), "the call is with the server")
        for number in (*STAYS, signal.SIGTSTP, signal.SIGCONT):
            run.signal(number)
        *_, state = await run.logged("serve.state", count=2)
        assert [each["method"] for each in state["calls"]] == [held]
        assert sum(state["tasks"].values()) > 5
        await run.logged("log.level_changed", lambda record: record["now"] == "info")
        released = await client.post("/mcp", json=rpc(2, "x/release", HOLD), headers=session)
        assert released.json()["result"] == {"released": 1}
        assert (await call).json()["result"] == {"held": "it"}
        assert session["mcp-session-id"] not in str(run.log)


def _seen(folder: Path) -> str:
    """What the recorders have read."""
    return "".join(file.read_text() for file in folder.iterdir())


@proves("fault 100", "fault 101", "fault 110")
@pytest.mark.parametrize("number", STAYS)
async def test_no_signal_ends_the_program_while_it_starts(number: signal.Signals) -> None:
    """From the first lines on, as soon as any is held."""
    async with started("--port", "0") as run:
        await eventually(lambda: heeds(run.pid, number), f"{number.name} is held or heard")
        run.signal(number)
        await run.logged("child.ready")
        assert await run.terminate() == 0
        bridge_process.assert_clean(run)


@proves("fault 96", "fault 98", "fault 110")
@pytest.mark.parametrize("number", ENDS)
async def test_the_signals_that_end_do_so_from_the_start_on(number: signal.Signals) -> None:
    """Before it listens, with status 0 as ever."""
    async with started("--port", "0") as run:
        await eventually(
            lambda: heeds(run.pid, number) or bool(run.log), f"{number.name} is held or heard"
        )
        run.signal(number)
        assert await run.ended(10) == 0
        bridge_process.assert_clean(run)
        assert run.processes() == set()


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process blocks, ignores or catches a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    # The interpreter catches SIGINT for itself before anything of ours runs.
    kinds = "Blk" if number == signal.SIGINT else "Blk|Ign|Cgt"
    sets = re.findall(rf"^Sig(?:{kinds}):\s*([0-9a-f]+)$", status, re.MULTILINE)
    # What has no handler and is ignored by default needs no care.
    return number == signal.SIGWINCH or any(int(each, 16) & 1 << (number - 1) for each in sets)


@proves("fault 97", "fault 98")
async def test_quit_ends_like_term_and_a_second_one_at_once(tmp_path: Path) -> None:
    """Some images stop their main process with it; a core dump is not wanted."""
    async with bridge("--", *child("recorder", str(tmp_path))) as run, run.client() as client:
        session = await bridge_process.open_session(client)
        async with client.stream(
            "POST",
            "/mcp",
            json=rpc(1, "x/hold", {**HOLD, "progress": 1, "_meta": {"progressToken": 1}}),
            headers=session,
        ) as response:
            run.signal(signal.SIGQUIT)
            await run.logged("drain.phase_changed", lambda record: record["phase"] == "draining")
            run.signal(signal.SIGHUP)  # no order to end, so not the second one
            await run.next_order(signal.SIGQUIT)
            (*_, error) = bridge_process.messages((await response.aread()).decode())
        assert error["error"]["data"]["mcpbridge"]["reason"] == "shutdown"
        assert await run.ended(3) == 3


@proves("fault 97")
async def test_a_third_signal_waits_for_nothing() -> None:
    """Not even for an end that hangs, which only a bug of ours can make."""
    env = {**OURS, "ENDLESS_END": "1"}
    async with started("--port", "0", under=BROKEN, env=env) as run:
        await run.logged("child.ready")
        run.signal(signal.SIGTERM)
        for count in (2, 3):
            await run.logged("serve.signal", count=count - 1)
            await run.next_order(signal.SIGTERM)
        assert await run.ended(5) == 130


@proves("fault 99")
async def test_the_end_of_the_terminal_is_the_end_of_the_bridge() -> None:
    """Its window was closed: there is no lame duck."""
    keyboard, terminal = pty.openpty()
    try:
        async with bridge(
            "--lame-duck",
            "15s",
            stdin=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        ) as run:
            os.close(terminal)
            os.close(keyboard)
            keyboard = -1
            assert await run.ended(6) == 0
        assert [record["signal"] for record in run.events("serve.signal")] == ["SIGHUP"]
    finally:
        if keyboard >= 0:
            os.close(keyboard)
            os.close(terminal)


@proves("fault 99")
async def test_what_was_ignored_from_outside_stays_so() -> None:
    """`nohup` means that a hang-up is not to be heard."""
    async with bridge(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as run:
        run.signal(signal.SIGHUP)
        run.signal(signal.SIGUSR1)
        await run.logged("serve.state")
        assert run.events("serve.signal") == []


@proves("fault 119")
async def test_a_fault_of_our_own_ends_the_program_with_a_record_of_its_state() -> None:
    """Status 70, the state, no child left; a session's fault stays with it."""
    # No way is known to make the program fail so; a bug is put into it from outside.
    async with started("--port", "0", under=BROKEN, env=OURS, faulty=True) as run:
        (record,) = await run.logged("serve.started")
        run.url = str(record["url"]).rpartition("/")[0]
        await run.logged("child.ready")
        async with run.client() as client:
            healthy = await bridge_process.open_session(client)
            opening = bridge_process.initialize(
                1, capabilities={"elicitation": {}, "experimental": {"broken": {}}}
            )
            hurt = await client.post("/mcp", json=opening, headers=bridge_process.ACCEPT)
            assert hurt.json()["error"]["data"]["mcpbridge"]["reason"] == "bridge_failed"
            (failed,) = await run.logged("task.failed")
            assert "a bug of one session" in failed["exception"]
            listed = await client.post("/mcp", json=rpc(1, "tools/list"), headers=healthy)
            assert listed.json()["result"]["tools"]
        run.signal(signal.SIGWINCH)
        assert await run.ended(10) == 70
        (crashed,) = await run.logged("serve.crashed")
        assert "a bug of the program" in crashed["exception"]
        assert crashed["state"]["sessions_open"] == 1
        await eventually(lambda: run.processes() == set(), "no process is left")


@proves("fault 119", "fault 140")
async def test_a_callback_that_fails_ends_the_program_as_a_task_does() -> None:
    """Nothing waits for a callback: its pipe would stay as it is, and with it each call."""
    async with started("--port", "0", under=BROKEN, env=OURS, faulty=True) as run:
        (record,) = await run.logged("serve.started")
        run.url = str(record["url"]).rpartition("/")[0]
        await run.logged("child.ready")
        async with run.client() as client:
            headers = await bridge_process.open_session(client)
            echo = {"name": "echo", "arguments": {"text": "break the callback"}}
            call = rpc(1, "tools/call", echo)
            asked = asyncio.create_task(client.post("/mcp", json=call, headers=headers))
            assert await run.ended() == 70
            await asyncio.gather(asked, return_exceptions=True)
        (crashed,) = await run.logged("serve.crashed")
        assert "a bug of a callback" in crashed["exception"]
        await eventually(lambda: run.processes() == set(), "no process is left")


@proves("fault 117")
async def test_a_loop_that_stands_still_is_told_with_its_stack() -> None:
    """By a thread, since no task can; and again when it goes on."""
    async with started("--port", "0", under=BROKEN, env=OURS) as run:
        await run.logged("child.ready")
        run.signal(signal.SIGUSR1)
        (stalled,) = await run.logged("loop.stalled")
        assert any("stand_still" in line for line in stalled["stack"])
        (resumed,) = await run.logged("loop.resumed")
        assert 1 < resumed["after_s"] < 15
        assert await run.terminate() == 0


@proves("fault 99")
def test_a_signal_amid_another_comes_once() -> None:
    """It came while the handler of the other ran, and is not a second order to end."""

    def on_signal(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)

    async def heard() -> list[signal.Signals]:
        found = []
        with heard_signals() as signals:
            # When the loop sleeps, so that it is the loop that wakes up for it.
            Timer(0.1, os.kill, (os.getpid(), signal.SIGWINCH)).start()
            async for each in signals:
                found.append(each)
                if each is signal.SIGUSR2:
                    # Whatever is said twice is said before this.
                    os.kill(os.getpid(), signal.SIGUSR1)
                elif each is signal.SIGUSR1:
                    break
        return found

    before = signal.signal(signal.SIGWINCH, on_signal)
    try:
        found = uvloop.run(heard())
    finally:
        signal.signal(signal.SIGWINCH, before)
    assert sorted(found) == sorted((signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR1))
