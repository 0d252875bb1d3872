"""Plays of three: clients who use a mux, the mux, and the child at the other end of its pipe.

A play is text, a step a line; `>>` goes towards the child, `<<` comes from it:

    A >> {"id":7,"method":"x"}          A sends this
    child >> {"id":1,"method":"x"}      this must arrive at the child, next
    child << {"id":1,"result":{}}       the child says this
    A << {"id":7,"result":{}}           A must hear this, next
    child ~~ noise                      the child writes an invalid line; `bad_json 1` answers 1
    A << fault bad_child_message        A's call must fail with this reason, next

`"jsonrpc"` is left out. At the end no client may have heard and the child not have got anything
that is not in the play.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from mcpbridge.bridge.children.listeners import CallEvent, CallFailed, Logged
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.channels.channel import InvalidLine
from mcpbridge.channels.memory import MemoryChannel, memory_pair
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged, Withdrawn
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Message, Notification, Request, decode, encode

PREFIX = b'{"jsonrpc":"2.0",'
TURNS = 10
WITHIN_S = 10.0

Given = ParamSpec("Given")


def bounded(test: Callable[Given, Awaitable[None]]) -> Callable[Given, Awaitable[None]]:
    """Let a test fail that would wait without end."""

    @functools.wraps(test)
    async def run(*args: Given.args, **options: Given.kwargs) -> None:
        async with asyncio.timeout(WITHIN_S):
            await test(*args, **options)

    return run


async def turns(count: int = TURNS) -> None:
    """Let every task run until it has to wait."""
    for _ in range(count):
        await asyncio.sleep(0)  # one turn of the loop


async def arrived(end: MemoryChannel) -> list[Any]:
    """What has come at this end since it was last asked, without a wait for more."""
    mark = Notification("end")
    end.put(mark)
    received = list(await end.receive())
    assert received.pop() is mark
    return received


def message(text: str) -> Message:
    """A message as plays write it."""
    return decode(PREFIX + text.encode()[1:])


def written(item: Message) -> str:
    """A message in the words of a play."""
    return "{" + encode(item).removeprefix(PREFIX).decode()


class FakeClient:
    """A client that calls and listens: a sink and a listener in one."""

    def __init__(self) -> None:
        self.heard: deque[str] = deque()
        self.lasting = False
        self.asker = None
        self.caller = b""
        """Its calls are subscriptions."""
        self.losses = 0

    def receive(self, event: CallEvent) -> None:
        """As a sink."""
        match event:
            case Answered(reply=reply):
                self.heard.append(written(reply))
            case Progressed(notification=notification):
                self.heard.append(written(notification))
            case Logged(notification):
                self.heard.append(f"remark {written(notification)}")
            case Tagged(notification=notification):
                self.heard.append(f"tagged {written(notification)}")
            case CallFailed(fault):
                self.heard.append(f"fault {fault.reason}")

    def on_notification(self, notification: Notification) -> None:
        """As a listener."""
        self.heard.append(written(notification))

    def on_server_request(self, request: Request) -> None:
        """As a listener."""
        self.heard.append(written(request))

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """As a listener."""
        self.heard.append(f"withdrawn {withdrawal.child_id.decode()}")

    def on_child_exit(self) -> None:
        """As a listener."""
        self.losses += 1


class Stage:
    """A mux, its child's end of the pipe, and clients who come in when they are first named."""

    def __init__(self, *, shared: bool, **limits: Any) -> None:
        self.meters = Meters()
        near, self.child = memory_pair()
        self.near: MemoryChannel = near
        self.mux = Mux(near, self.meters, shared=shared, max_message_bytes=1000, **limits)
        self.clients: dict[str, FakeClient] = {}
        self._arrived: deque[str] = deque()

    def enter(self, *names: str) -> None:
        """Let clients hold leases on the child."""
        for name in names:
            self.mux.attach(self.client(name))

    def leave(self, name: str) -> None:
        """Let a client give its lease back."""
        self.mux.detach(self.client(name))

    def call(self, name: str, text: str) -> int:
        """Let a client send a request; its number on the pipe."""
        request = message(text)
        assert isinstance(request, Request)
        return self.mux.request(request, self.client(name))

    async def play(self, script: str) -> None:
        """Play it, and check that nothing else happened."""
        running = asyncio.create_task(self.mux.run())
        listening = asyncio.create_task(self._listen())
        try:
            for step in filter(None, map(str.strip, script.splitlines())):
                await turns()
                await self._step(step)
            await turns()
            left = {name: list(client.heard) for name, client in self.clients.items()}
            assert (list(self._arrived), left) == ([], {name: [] for name in left})
        finally:
            self.child.close()
            await running
            await listening

    async def _step(self, step: str) -> None:
        who, arrow, what = step.split(" ", 2)
        match who, arrow:
            case "child", ">>":
                assert self._arrived, f"nothing arrived: {step}"
                assert self._arrived.popleft() == what
            case "child", "<<":
                self.child.send(message(what))
            case "child", "~~":
                reason, _, answers = what.partition(" ")
                invalid = InvalidLine(reason, 2000, b"sample", int(answers) if answers else None)
                self.near.put(invalid)
            case name, ">>":
                self.call(name, what)
            case name, _:
                heard = self.client(name).heard
                assert heard, f"nothing was heard: {step}"
                assert heard.popleft() == what

    async def _listen(self) -> None:
        while received := await self.child.receive():
            for item in received:
                assert not isinstance(item, InvalidLine)
                self._arrived.append(written(item))

    def client(self, name: str) -> FakeClient:
        """The client of this name; comes in when first named."""
        return self.clients.setdefault(name, FakeClient())
