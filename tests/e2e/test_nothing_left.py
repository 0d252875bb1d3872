"""Whatever ends, and however: no process of it is left.

The catalogue of faults, rows 7, 8, 13, 15, 16, 102, 103, 109 and 119.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import bridge_process
from tests.support.bridge_process import RunningBridge, bridge, child, eventually, rpc, started
from tests.support.namespaces import NEEDS_NAMESPACES, OWN_MOUNTS, OWN_PID_SPACE
from tests.support.proofs import proves

pytestmark = pytest.mark.slow
BROKEN = (sys.executable, str(Path(__file__).parents[1] / "support" / "broken_bridge.py"))
ENDLESS = {"PYTHONPATH": str(Path(__file__).parents[2]), "ENDLESS_END": "1"}

KILLED_WITHIN_S = 6.0
"""The keeper takes one second; the rest is for a busy machine."""
ELICITS: dict[str, Any] = {"elicitation": {}}


def escaped(folder: Path, server: int) -> set[int]:
    """The processes that a server left behind outside of its group."""
    return {int(pid) for pid in (folder / str(server)).read_text().split()}


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def gone(pids: set[int], within_s: float = KILLED_WITHIN_S) -> None:
    """Wait until none of them lives."""
    await eventually(lambda: not any(map(lives, pids)), f"{pids} have ended", within_s)


def keeper_of(run: RunningBridge) -> int:
    """The pid of the process that ends a killed bridge's children."""
    (reaper,) = [
        pid
        for pid in children(run.pid)
        if b"_reaper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return reaper


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@proves("fault 15", "fault 8")
async def test_strays_end_with_their_child_and_no_other(tmp_path: Path) -> None:
    """Those of a deleted session, of a crashed child, of the bridge."""
    command = ("--", *child("escaping", str(tmp_path), "obeys"))
    async with bridge("--isolation", "session", *command) as run, run.client() as client:
        first = await bridge_process.open_session(client, capabilities=ELICITS)
        second = await bridge_process.open_session(client, capabilities=ELICITS)
        servers = [record["pid"] for record in run.events("child.started")]
        told = {pid: escaped(tmp_path, pid) for pid in servers}
        assert all(map(lives, set().union(*told.values())))
        shared, one, other = servers

        await client.delete("/mcp", headers=first)
        (stopped,) = await run.logged("child.stopped")
        ended = stopped["pid"]
        assert ended == one
        await gone(told[ended])
        assert all(map(lives, told[other] | told[shared]))

        answer = await client.post("/mcp", json=rpc(1, "x/crash"), headers=second)
        assert answer.json()["error"]["data"]["mcpbridge"]["exit"] == {"signal": signal.SIGSEGV}
        (crashed,) = await run.logged("child.exited")
        await gone(told[crashed["pid"]])
        assert all(map(lives, told[shared]))

        assert await run.terminate() == 0
        assert not any(map(lives, set().union(*told.values())))


@proves("fault 15", "C49")
async def test_strays_that_obey_nobody_are_killed_in_time(tmp_path: Path) -> None:
    """SIGTERM is tried first; the end of the bridge takes no longer for them."""
    command = ("--grace", "6", "--", *child("escaping", str(tmp_path), "ignores"))
    async with bridge(*command) as run:
        (started_,) = await run.logged("child.started")
        left = escaped(tmp_path, started_["pid"])
        assert await run.terminate() == 0
        assert not any(map(lives, left))
    (seen,) = await run.logged("child.escaped_processes")
    assert set(seen["escaped"]) == left


@proves("fault 109")
@pytest.mark.parametrize("under", [(), pytest.param(OWN_PID_SPACE, marks=NEEDS_NAMESPACES)])
async def test_orphans_are_waited_for_and_children_keep_their_status(
    under: tuple[str, ...], tmp_path: Path
) -> None:
    """As process 1 and as any other process: dead orphans go, an exit status stays."""
    words = ("--log-level", "debug", "--", *child("exiting", str(tmp_path / "left")))
    leaves = "(sleep 0 & sleep 0 &); " + 'exec "$@"'
    wrapped = ("sh", "-c", leaves, "sh", *words[words.index("--") + 1 :])
    async with bridge(*words[:3], *wrapped, under=under) as run, run.client() as client:
        await run.logged("orphan.reaped", count=2)
        for code in (7, 9):
            crash = rpc(1, "x/crash", {"code": code})
            answer = await client.post("/mcp", json=crash, headers=bridge_process.ACCEPT)
            assert answer.json()["error"]["data"]["mcpbridge"]["exit"] == {"code": code}
            await run.logged("child.ready", count=2 + (code == 9))
        own = run.pid if not under else children(run.pid)[0]
        await eventually(lambda: not zombies(own), "each is waited for")
        os.kill(own, signal.SIGTERM)
        assert await run.ended(10) == 0


def zombies(pid: int) -> list[int]:
    """Children of a process that have ended and that it has not waited for."""
    return [each for each in children(pid) if not lives(each)]


async def killed(run: RunningBridge) -> None:
    """SIGKILL to the bridge alone."""
    run.signal(signal.SIGKILL)
    assert await run.ended() == -signal.SIGKILL


async def third_signal(run: RunningBridge) -> None:
    """The signal after which it waits for no client."""
    run.signal(signal.SIGTERM)
    for count in (2, 3):
        await run.logged("serve.signal", count=count - 1)
        await run.next_order(signal.SIGTERM)
    assert await run.ended() == 130


@proves("fault 102")
@pytest.mark.parametrize("end", [killed, third_signal])
@pytest.mark.parametrize(
    "program",
    [("invalid_output",), ("ignoring_sigterm",), ("escaping", "{}", "ignores")],
    ids=lambda p: p[0],
)
async def test_nothing_outlives_a_bridge_that_was_killed(
    program: tuple[str, ...], end: Callable[[RunningBridge], Awaitable[None]], tmp_path: Path
) -> None:
    """Not who ignores the end of its stdin and SIGTERM, nor who left its group."""
    words = [word.format(tmp_path) for word in program]
    # Only an end that hangs lasts until a third signal.
    under, env = (BROKEN, ENDLESS) if end is third_signal else ((), {})
    command = ("--", *child(words[0], *words[1:]))
    async with started("--port", "0", *command, under=under, env=env) as run:
        await run.logged("child.ready")
        reaper = keeper_of(run)
        everybody = {reaper, *run.processes()}
        assert (
            len(everybody)
            == {"invalid_output": 2, "ignoring_sigterm": 3, "escaping": 4}[program[0]]
        )
        await end(run)
        await gone(everybody)


@proves("fault 15")
async def test_a_process_that_writes_on_to_stderr_holds_nothing_up(tmp_path: Path) -> None:
    """The pipe is never empty when the server has ended: the bridge serves on, and ends in order.

    Another server process runs, so that what was left may be its own, and is not ended before it.
    """
    async with bridge("--", *child("chattering", str(tmp_path))) as run, run.client() as client:
        await bridge_process.open_session(client, capabilities=ELICITS)
        await run.logged("child.started", count=2)
        session = await bridge_process.open_session(client)
        await client.post("/mcp", json=rpc(1, "x/leave"), headers=session)
        await run.logged("child.exited")
        await run.logged("child.ready", count=2)
        writer = int((tmp_path / "left").read_text())
        assert lives(writer), "it writes while the last lines of the server are read"
        echo = rpc(2, "x/echo", {"text": "x"})
        answer = await client.post("/mcp", json=echo, headers=session)
        assert answer.json()["result"] == {"text": "x"}
        assert (await client.get("/livez")).status_code == 200
        assert await run.terminate() == 0
    await gone({writer})


@proves("fault 102")
async def test_a_lost_keeper_is_told_of_and_costs_nothing_else() -> None:
    """Calls go on; the log says what is not to be had any more."""
    async with bridge("--isolation", "session") as run, run.client() as client:
        os.kill(keeper_of(run), signal.SIGKILL)
        session = await bridge_process.open_session(client, capabilities=ELICITS)
        (lost,) = await run.logged("reaper.lost")
        assert lost["level"] == "warning"
        listed = await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
        assert listed.json()["result"]["tools"]


@proves("fault 8", "fault 103")
async def test_a_child_dies_first_and_leaves_no_core(tmp_path: Path) -> None:
    """The kernel knows which process to kill first; no secret gets into a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    own = int(Path("/proc/self/oom_score_adj").read_text())

    def allow_cores() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    words = ("--", *child("escaping", str(tmp_path), "obeys"))
    async with bridge(*words, preexec_fn=allow_cores) as run, run.client() as client:
        answer = await client.post("/mcp", json=rpc(1, "x/limits"), headers=bridge_process.ACCEPT)
        assert answer.json()["result"] == {"oom_score_adj": min(own + 500, 1000), "core": 0}
        bridge_score = int(Path(f"/proc/{run.pid}/oom_score_adj").read_text())
        assert bridge_score == own
        answer = await client.post("/mcp", json=rpc(2, "x/left"), headers=bridge_process.ACCEPT)
        assert answer.json()["result"] == {}


@proves("fault 7")
@NEEDS_NAMESPACES
async def test_a_child_that_memory_ran_out_for_is_told_apart(tmp_path: Path) -> None:
    """By the count of its cgroup; another SIGKILL is not that."""
    table = tmp_path / "cgroup"
    for folder in (table, table / "memory"):
        folder.mkdir()
    counts = [table / "memory.events", table / "memory" / "memory.oom_control"]
    write(counts, 3)
    # In its own mount space, so that the counts are ours to change.
    script = f'mount --bind {table} /sys/fs/cgroup && exec "$@"'
    under = (*OWN_MOUNTS, "sh", "-c", script, "sh")
    words = ("--", *child("exiting", str(tmp_path / "left")))
    kill = rpc(1, "x/kill", {"signal": signal.SIGKILL})
    async with bridge(*words, under=under) as run, run.client() as client:
        reasons: list[Any] = []
        for count, kills in enumerate((3, 4, 4), start=2):
            write(counts, kills)
            answer = await client.post("/mcp", json=kill, headers=bridge_process.ACCEPT)
            facts = answer.json()["error"]["data"]["mcpbridge"]
            reasons.append((facts["reason"], facts["exit"]))
            await run.logged("child.ready", count=count)
    plain = ("child_exited", {"signal": signal.SIGKILL})
    short = ("child_oom", {"signal": signal.SIGKILL, "out_of_memory": True})
    assert reasons == [plain, short, plain]


def write(counts: list[Path], kills: int) -> None:
    """Set the count that the kernel keeps, of both versions of cgroups."""
    for file in counts:
        file.write_text(f"low 0\noom_kill {kills}\n")


@proves("fault 16")
async def test_a_system_without_room_for_a_process_refuses_only_that(tmp_path: Path) -> None:
    """A session that needs one is told so; what runs goes on."""
    # Another user, for which alone the limit counts, and who may read whatever the tests' own may.
    script = (
        "exec setpriv --reuid 64321 --clear-groups --inh-caps +dac_override --ambient-caps"
        ' +dac_override "$@"'
    )
    under = ("prlimit", "--nproc=6", "sh", "-c", script, "sh")
    demo = f"exec {sys.executable} -m mcpbridge.demo"
    words = ("--isolation", "session", "--spares", "0", "--", "sh", "-c", demo)
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    async with bridge(*words, under=under, env=env) as run, run.client() as client:
        refused: list[Any] = []
        for _ in range(8):
            answer = await client.post(
                "/mcp", json=bridge_process.initialize(1), headers=bridge_process.ACCEPT
            )
            if answer.status_code != 200 or "error" in answer.json():
                refused.append(answer)
        assert refused, "the limit was never reached"
        for answer in refused:
            assert answer.json()["error"]["data"]["mcpbridge"]["reason"] == "spawn_failed"
        (failed, *_) = await run.logged("child.spawn_failed")
        assert os.strerror(11) in failed["problem"]
        listed = await client.post("/mcp", json=rpc(2, "tools/list"), headers=bridge_process.ACCEPT)
        assert listed.json()["result"]["tools"]
