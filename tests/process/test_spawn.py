"""Ending a process together with everything it started; why one could not be started."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest

from mcpbridge.process.spawn import explained, group_ends, signal_group
from tests.bridge.playbook import turns
from tests.process.lives import WITHIN_S
from tests.support.proofs import proves

Member = subprocess.Popen[bytes]
IGNORES = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);signal.pause()"
)
OBEYS = "import signal; print(flush=True); signal.pause()"


def member(text: str, group: int = 0) -> Member:
    """A running process in a group, or the leader of another one."""
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
    """And says whether there was one."""
    leader, follower = pair
    assert signal_group(leader.pid, signal.SIGKILL)
    assert [waited(leader), waited(follower)] == [-signal.SIGKILL] * 2
    assert not signal_group(leader.pid, signal.SIGKILL)


@proves("fault 13")
async def test_a_group_lasts_as_long_as_one_of_it_lives(pair: tuple[Member, Member]) -> None:
    """A process that obeys does not end it for the other."""
    leader, follower = pair
    assert signal_group(leader.pid, signal.SIGTERM)
    assert waited(leader) == -signal.SIGTERM
    ending = asyncio.create_task(group_ends(leader.pid))
    # One look is enough: it would have ended with it.
    await turns()
    assert not ending.done()
    follower.kill()
    with anyio.fail_after(WITHIN_S):
        await ending


async def test_an_empty_group_has_ended(pair: tuple[Member, Member]) -> None:
    """An empty group costs no time."""
    leader, follower = pair
    assert signal_group(leader.pid, signal.SIGKILL)
    waited(leader)
    waited(follower)
    assert not signal_group(leader.pid, signal.SIGTERM)
    with anyio.fail_after(WITHIN_S):
        await group_ends(leader.pid)


@proves("fault 13")
async def test_the_dead_that_nobody_has_waited_for_hold_up_nobody(
    pair: tuple[Member, Member],
) -> None:
    """The kernel counts them as members still (the end keeps its time)."""
    leader, follower = pair
    assert signal_group(leader.pid, signal.SIGKILL)
    for dead in pair:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    os.killpg(leader.pid, 0)
    with anyio.fail_after(WITHIN_S):
        await group_ends(leader.pid)
    assert [waited(leader), waited(follower)] == [-signal.SIGKILL] * 2


@proves("fault 16", "fault 104", "fault 112")
@pytest.mark.parametrize(
    ("number", "limit"),
    [(errno.EAGAIN, "ulimit -u"), (errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max")],
)
def test_a_limit_of_the_system_is_named(number: int, limit: str) -> None:
    """The kernel's own words, and what to raise."""
    text = explained(OSError(number, os.strerror(number)))
    assert text.startswith(os.strerror(number))
    assert limit in text


def test_any_other_reason_stands_alone() -> None:
    """Nothing is guessed."""
    assert explained(OSError(errno.E2BIG, "Argument list too long")) == "Argument list too long"
    assert explained(OSError("odd")) == "odd"
