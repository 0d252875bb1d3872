"""What a child and the bridge say to each other, seen from between them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from mcpbridge.channels.channel import InvalidLine, Received
from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.errors import ChannelClosed
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import ChildChannel, SubprocessChild
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.recording import redacted
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.tapped_channel import Tape, TappedChannel
from mcpbridge.wire.messages import Request, Result

SERVER = """
import sys
print("up", file=sys.stderr, flush=True)
for line in sys.stdin:
    print('{"jsonrpc":"2.0","id":1,"result":{"x":"sesame-1"}}')
    print("noise", flush=True)
"""
ENDS = functools.partial(PipeChannel, limits=PipeLimits())
ASKED = Request(b"1", "ping")


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.redacted: list[Frame] = []

    def put(self, frame: Frame, redactor: Redactor | None) -> None:
        """Keep a frame."""
        self.frames.append(frame)
        self.redacted.append(redacted(frame, redactor))


@asynccontextmanager
async def child(tape: Tape, hidden: Secrets | None = None) -> AsyncIterator[ChildChannel]:
    """A server whose channel is tapped."""
    spec = ChildSpec((sys.executable, "-c", SERVER), dict(os.environ))
    make = tape.tapped(ENDS, hidden) if hidden is not None else tape.tapped(ENDS)
    server = SubprocessChild(spec, make)
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.run)
        yield server.channel
        server.stop()


async def conversation(channel: ChildChannel, *, forwarded: bool = False) -> list[object]:
    """One question, and all that comes until the end."""
    channel.send(ASKED)
    found: list[object] = []
    if forwarded:

        def take(received: Sequence[Received]) -> None:
            found.extend(received)
            if len(found) >= 2:
                channel.close_input()

        await channel.forward(take)
        return found
    while len(found) < 2:
        found += await channel.receive()
    channel.close_input()
    assert await channel.receive() == []
    assert await channel.receive() == []
    return found


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_tape_has_all_that_passed(
    caplog: pytest.LogCaptureFixture, forwarded: bool
) -> None:
    """Messages of both sides, invalid lines, stderr, start and end; once each, in order."""
    caplog.set_level("INFO")
    kept = Kept()
    async with child(Tape("demo", [kept])) as channel:
        result, noise = await conversation(channel, forwarded=forwarded)
    assert result == Result(b"1", b'{"x":"sesame-1"}')
    assert isinstance(noise, InvalidLine)
    said = [each for each in kept.frames if each.direction is Direction.FROM_SERVER]
    assert [(each.message, each.text) for each in said] == [(result, None), (None, "noise")]
    (asked,) = [each for each in kept.frames if each.direction is Direction.TO_SERVER]
    assert asked.message == ASKED
    assert [each.text for each in kept.frames if each.direction is Direction.STDERR] == ["up"]
    events = [str(each.text).split()[0] for each in kept.frames if each.direction is Direction.META]
    assert events[:2] == ["channel.opened", "child.started"]
    # The server ends by itself, before or after it is asked to.
    assert sorted(events[2:]) in (
        ["channel.ended", "child.stopped"],
        ["channel.ended", "child.exited"],
    )
    assert [each.seq for each in kept.frames] == list(range(1, len(kept.frames) + 1))
    assert {each.server_label for each in kept.frames} == {"demo"}
    assert len({each.session_id for each in kept.frames}) == 1


async def test_each_child_is_a_session(caplog: pytest.LogCaptureFixture) -> None:
    """With its own lines of stderr."""
    caplog.set_level("INFO")
    kept = Kept()
    tape = Tape("demo", [kept])
    async with child(tape) as one, child(tape) as two:
        await conversation(one)
        await conversation(two)
    lines = [each for each in kept.frames if each.direction is Direction.STDERR]
    assert len({each.session_id for each in lines}) == len(lines) == 2


@pytest.mark.parametrize(
    ("tape_secrets", "hidden", "left"),
    [
        (["sesame-1"], None, b"***"),
        ([], Secrets((("A", "sesame-1"),)), b"***"),
        ([], None, b"sesame-1"),
    ],
)
async def test_sinks_are_told_the_secrets_of_the_child(
    tape_secrets: list[str], hidden: Secrets | None, left: bytes
) -> None:
    """Those of the operator and those of its client."""
    kept = Kept()
    async with child(Tape("demo", [kept], tape_secrets), hidden) as channel:
        await conversation(channel)
    (result,) = [each.message for each in kept.redacted if isinstance(each.message, Result)]
    assert result.result == b'{"x":"%b"}' % left


async def test_what_is_known_of_a_request_comes_with_it() -> None:
    """Once, when it is sent; what is noted of requests that are never sent stays bounded."""
    kept = Kept()
    async with child(Tape("demo", [kept])) as channel:
        assert isinstance(channel, TappedChannel)
        for number in range(5000):
            channel.note(b"%d" % number, {"client": str(number)})
        for each in (b"4999", b"4999", b"1"):
            channel.send(Request(each, "ping"))
        channel.close_input()
    facts = [each.facts for each in kept.frames if each.direction is Direction.TO_SERVER]
    assert facts == [{"client": "4999"}, {}, {}]


async def test_what_was_not_sent_is_not_on_the_tape() -> None:
    """A child that is gone took nothing."""
    kept = Kept()
    async with child(Tape("demo", [kept])) as channel:
        channel.close_input()
        with pytest.raises(ChannelClosed):
            channel.send(ASKED)
        assert channel.held == 0
        assert not channel.congested
        await channel.writable()
    assert [each for each in kept.frames if each.message is not None] == []
