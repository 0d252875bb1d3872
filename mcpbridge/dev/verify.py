"""`mcpbridge verify`: asks a server what a recording asks, and compares the answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from mcpbridge.reverse.one_request import CannotReach, Conversation, Respond, checked_reply
from mcpbridge.rules.faults import METHOD_NOT_FOUND, error_object
from mcpbridge.rules.mcp.methods import PING
from mcpbridge.tape.comparison import Ignored, counted, differences
from mcpbridge.tape.frame import Frame
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.verification import (
    CheckedRequest,
    RecordedConversation,
    RecordedRequest,
    value_of,
)
from mcpbridge.wire.messages import Failure, Reply, Request, Result

Connect = Callable[[Respond], AbstractAsyncContextManager[Conversation]]
"""Opens a conversation with the server, whose requests are answered by what it is given."""


class Verification:
    """One comparison of a server with a recording."""

    def __init__(self, connect: Connect, ignored: Sequence[Ignored], redactor: Redactor | None):
        """Make it.

        Args:
            connect: Opens a conversation; once for each recorded session.
            ignored: Paths of answers whose differences do not count.
            redactor: Removes secrets as the recording did; None if it has them.
        """
        self._connect = connect
        self._ignored = ignored
        self._redactor = redactor
        self._answers = 0
        self.replaced: list[tuple[Frame, Reply]] = []
        """The recorded frames of answers that differ, with the answers of now."""

    async def run(self, sessions: Sequence[RecordedConversation]) -> AsyncIterator[CheckedRequest]:
        """Ask everything; yield what comes of each request.

        Raises:
            CannotReach: The server cannot be started or reached, or does not answer the first
                request.
        """
        number = 0
        for recorded in sessions:
            async with self._connect(_responding(recorded)) as conversation:
                for step in recorded.steps:
                    if not isinstance(step, RecordedRequest):
                        await conversation.send(step)
                        continue
                    number += 1
                    yield await self._outcome(recorded.server, step, conversation, number)

    async def _outcome(
        self, server: str, asked: RecordedRequest, conversation: Conversation, number: int
    ) -> CheckedRequest:
        if asked.skipped:
            return CheckedRequest(server, asked.name, skipped=asked.skipped)
        request = msgspec.structs.replace(asked.request, id=b"%d" % number)
        began = time.monotonic()
        try:
            reply = checked_reply(await conversation.answer(request))
        except CannotReach as error:
            if not self._answers:
                raise
            seconds = time.monotonic() - began
            return CheckedRequest(
                server, asked.name, problem=f"no answer: {error}", seconds=seconds
            )
        self._answers += 1
        seconds = time.monotonic() - began
        reply = self._redacted(reply)
        found = differences(value_of(asked.answer), value_of(reply))
        wrong = counted(found, asked.name, self._ignored)
        if wrong:
            now = msgspec.structs.replace(reply, id=asked.answer.id)
            self.replaced.append((asked.frame, now))
        return CheckedRequest(server, asked.name, wrong, seconds=seconds)

    def _redacted(self, reply: Reply) -> Reply:
        if self._redactor is None:
            return reply
        found = self._redactor.message(reply)
        assert isinstance(found, Result | Failure)
        return found


def _responding(recorded: RecordedConversation) -> Respond:
    """Return what answers the server's requests as the recorded client did."""

    def respond(request: Request) -> Reply:
        if request.method == PING:
            return Result(request.id, b"{}")
        found = recorded.answer_to(request)
        if found is None:
            problem = f"the recording has no answer to {request.method}"
            return Failure(request.id, error_object(METHOD_NOT_FOUND, problem))
        return found

    return respond
