"""Ending a process together with everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest
from anyio import to_thread

from mcpbridge.process.group import end_group, signal_group
from tests.process.lives import WITHIN_S

Member = subprocess.Popen[bytes]
IGNORES = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);signal.pause()"
)
OBEYS = "import signal; print(flush=True); signal.pause()"


def member(text: str, group: int = 0) -> Member:
    """A running process in a group, or leading one of its own."""
    argv = (sys.executable, "-S", "-c", text)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, process_group=group)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


@pytest.fixture
def pair() -> Iterator[tuple[Member, Member]]:
    """A leader that obeys SIGTERM, and a member of its group that does not."""
    leader = member(OBEYS)
    follower = member(IGNORES, leader.pid)
    yield leader, follower
    for process in (leader, follower):
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def waited(process: Member) -> int:
    """Its return code, soon."""
    return process.wait(WITHIN_S)


async def test_a_signal_reaches_every_member(pair: tuple[Member, Member]) -> None:
    """And tells whether there was anybody."""
    leader, follower = pair
    assert signal_group(leader.pid, signal.SIGKILL)
    assert [waited(leader), waited(follower)] == [-signal.SIGKILL] * 2
    assert not signal_group(leader.pid, signal.SIGKILL)


@pytest.mark.slow
async def test_who_ignores_sigterm_is_killed(pair: tuple[Member, Member]) -> None:
    """After its grace, and together with all others (fault 13; C49)."""
    leader, follower = pair
    with anyio.fail_after(WITHIN_S):
        await end_group(leader.pid, 0.3)
    assert [waited(leader), waited(follower)] == [-signal.SIGTERM, -signal.SIGKILL]


async def test_an_empty_group_is_no_error(pair: tuple[Member, Member]) -> None:
    """Nobody left costs no time."""
    leader, follower = pair
    os.killpg(leader.pid, signal.SIGKILL)
    waited(leader)
    waited(follower)
    with anyio.fail_after(WITHIN_S):
        await end_group(leader.pid, 600)


async def test_the_grace_ends_with_the_last_member(pair: tuple[Member, Member]) -> None:
    """Who obeys does not make anybody wait."""
    leader, follower = pair
    follower.kill()
    waited(follower)
    with anyio.fail_after(WITHIN_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_group, leader.pid, 600)
            # The dead count as members until their parent has waited for them.
            await to_thread.run_sync(waited, leader)
    assert leader.returncode == -signal.SIGTERM
