"""Faults on purpose, between a bridge and a real process."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from mcpbridge.channels.channel import InvalidLine, Received
from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.dev.faulty_channel import Faults
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import ChildChannel, SubprocessChild
from mcpbridge.rules.injected_faults import FaultPlan, fault_rule
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.tapped_channel import Tape
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result

SERVER = """
import json, sys
got = 0
for line in sys.stdin:
    asked = json.loads(line)
    got += 1
    if "id" in asked and asked["params"].get("name") != "silent":
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"got": got}}), flush=True)
"""
ENDS = functools.partial(PipeChannel, limits=PipeLimits())


class Conversation:
    """A child behind a channel with faults, and what came of it."""

    def __init__(self, child: SubprocessChild[ChildChannel]) -> None:
        self.child = child
        self.received: list[Received] = []
        self._news = anyio.Event()

    def ask(self, number: int, tool: str = "x", method: str = "tools/call") -> None:
        """Send a request."""
        params = json.dumps({"name": tool}).encode()
        self.child.channel.send(Request(b"%d" % number, method, params))

    def take(self, received: Sequence[Received]) -> None:
        """Take what comes."""
        self.received += received
        self._news.set()

    async def until(self, count: int) -> list[Received]:
        """Wait until `count` messages have come; return all that came."""
        with anyio.fail_after(30):
            while len(self.received) < count:
                self._news = anyio.Event()
                await self._news.wait()
        return self.received


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def put(self, frame: Frame, redactor: Redactor | None) -> None:
        """Keep a frame."""
        self.frames.append(frame)


@asynccontextmanager
async def conversation(*rules: str, tape: Tape | None = None) -> AsyncIterator[Conversation]:
    """A conversation with a server under these rules."""
    make = Faults(FaultPlan([fault_rule(each) for each in rules], "mine")).injected(ENDS)
    if tape is not None:
        make = tape.tapped(make)
    child = SubprocessChild(ChildSpec((sys.executable, "-c", SERVER), dict(os.environ)), make)
    async with anyio.create_task_group() as tasks:
        await tasks.start(child.run)
        talk = Conversation(child)
        tasks.start_soon(child.channel.forward, talk.take)
        yield talk
        child.stop()


def ids(received: Sequence[Received]) -> list[bytes | None]:
    """The ids of answers, in order."""
    return [each.id for each in received if isinstance(each, Reply)]


async def test_a_request_without_a_rule_passes() -> None:
    """Both ways, as do notifications."""
    async with conversation("tool=y drop") as talk:
        talk.child.channel.send(Notification("notifications/initialized"))
        talk.ask(1)
        assert await talk.until(1) == [Result(b"1", b'{"got": 2}')]


async def test_an_error_takes_the_place_of_the_server() -> None:
    """It names the rule, and the server is not asked."""
    async with conversation("tool=x error") as talk:
        talk.ask(1)
        (failed,) = await talk.until(1)
        assert isinstance(failed, Failure)
        assert failed.id == b"1"
        error = json.loads(failed.error)
        assert error["data"]["mcpbridge"]["reason"] == "injected"
        assert "--fault 'tool=x error'" in error["message"]
        talk.ask(2, "y")
        assert (await talk.until(2))[1] == Result(b"2", b'{"got": 1}')


async def test_a_delayed_answer_lets_others_pass() -> None:
    """The server works on the call at once; only its answer is held back."""
    async with conversation("tool=slow delay=60m", "tool=late delay=1ms") as talk:
        talk.ask(1, "slow")
        talk.ask(2, "y")
        assert await talk.until(1) == [Result(b"2", b'{"got": 2}')]
        talk.ask(3, "late")
        assert ids(await talk.until(2)) == [b"2", b"3"]


async def test_a_dropped_answer_never_comes() -> None:
    """The answer to the request after it does."""
    async with conversation("drop rate=0.5 seed=7") as talk:
        for number in range(1, 9):
            talk.ask(number)
        talk.ask(9, method="other")
        # The luck of seed 7: tests/rules/test_injected_faults.py.
        assert ids(await talk.until(4)) == [b"3", b"7", b"8", b"9"]


async def test_a_cut_answer_is_a_line_that_is_no_message() -> None:
    """As a channel reports it, with the id that it can still tell."""
    async with conversation("tool=x garbage") as talk:
        talk.ask(1)
        (line,) = await talk.until(1)
        assert isinstance(line, InvalidLine)
        assert (line.reason, line.answers) == ("bad_json", 1)
        assert line.sample == b'{"jsonrpc":"2.0","id":1,"result":{"got'


async def test_a_process_is_killed_while_it_works_on_a_call() -> None:
    """As a crash ends it: by a signal, and not because it was stopped."""
    async with conversation("tool=silent die") as talk:
        talk.ask(1, "silent")
        with anyio.fail_after(30):
            await talk.child.exited.wait()
        assert talk.child.report is not None
        assert talk.child.report.how.signal == 9
        assert not talk.child.report.asked


async def test_a_cancelled_request_is_forgotten() -> None:
    """Its rule does not meet another answer under its id."""
    async with conversation("tool=silent drop") as talk:
        talk.ask(1, "silent")
        talk.child.channel.send(Notification("notifications/cancelled", b'{"requestId":1}'))
        talk.ask(1, "y")
        assert ids(await talk.until(1)) == [b"1"]


async def test_faults_are_marked_in_log_and_tape(caplog: pytest.LogCaptureFixture) -> None:
    """With the rule and the request, also if the log is told to be silent."""
    caplog.set_level("ERROR")
    kept = Kept()
    async with conversation("tool=x error", tape=Tape("mine", [kept])) as talk:
        talk.ask(1)
        await talk.until(1)
    (mark,) = [each for each in kept.frames if (each.text or "").startswith("fault.injected")]
    assert mark.direction is Direction.META
    assert mark.text == "fault.injected id=1 tool=x error"
    asked, answered = [each for each in kept.frames if each.message is not None]
    assert mark.seq < asked.seq < answered.seq
    assert len({each.session_id for each in kept.frames}) == 1
