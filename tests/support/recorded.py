"""Recordings of a server, made without a bridge."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import SubprocessChild
from mcpbridge.tape.recording import Recorder
from mcpbridge.tape.tapped_channel import Tape
from mcpbridge.wire.messages import Message, Notification, Request, Result
from tests.support.bridge_process import DEMO

INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "recorder", "version": "1"},
}


async def recorded(
    path: Path, calls: Sequence[tuple[str, Any]], server: Sequence[str] = DEMO
) -> list[bytes]:
    """Record one session with a server; the results of these requests."""
    recorder = Recorder(path, 1 << 20, server)
    ends = functools.partial(PipeChannel, limits=PipeLimits())
    child = SubprocessChild(ChildSpec(tuple(server), {}), Tape("demo", [recorder]).tapped(ends))
    results: list[bytes] = []
    with recorder.open():
        async with anyio.create_task_group() as tasks:
            await tasks.start(child.run)
            for number, (method, params) in enumerate([("initialize", INITIALIZE), *calls]):
                child.channel.send(Request(b"%d" % number, method, json.dumps(params).encode()))
                received: list[object] = []
                while not any(isinstance(each, Result) for each in received):
                    received += await child.channel.receive()
                results += [each.result for each in received if isinstance(each, Result)]
                if number == 0:
                    told: Message = Notification("notifications/initialized")
                    child.channel.send(told)
            child.stop()
    return results[1:]
