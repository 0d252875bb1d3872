"""A server that speaks literal RESP bytes: what it answers is what a test gives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

HELD = b""
"""An answer that does not come."""
CUT = b"cut"
"""The connection ends in place of an answer."""
_SETTING_UP = (b"CLIENT", b"AUTH", b"SELECT", b"HELLO")


class FakeRedis:
    """Answers questions in turn; the words with which a connection begins it answers by itself."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: list[bytes] = []
        """For the questions to come; the last one serves for all others."""
        self.asked: list[list[bytes]] = []
        """The questions, without those with which connections begin."""
        self.reply: Callable[[list[bytes]], bytes] | None = None
        """Answers questions by what they are, in place of `answers`, if it is set."""
        self.was_asked = asyncio.Event()
        self.setting_up: list[list[bytes]] = []
        self.connections: list[asyncio.StreamWriter] = []
        self._serving: list[asyncio.Task[None] | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until its client ends it."""
        self.connections.append(writer)
        self._serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                question = await _question(reader)
                if question[0].upper() in _SETTING_UP:
                    self.setting_up.append(question)
                    writer.write(b"+OK\r\n")
                    continue
                self.asked.append(question)
                self.was_asked.set()
                answer = self._answer(question)
                if answer == CUT:
                    break
                writer.write(answer)
        writer.close()

    def _answer(self, question: list[bytes]) -> bytes:
        if self.reply is not None:
            return self.reply(question)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def end(self) -> None:
        """End all connections, and wait until that is done."""
        for each in self.connections:
            each.close()
        await asyncio.gather(*filter(None, self._serving))


@contextlib.asynccontextmanager
async def fake_redis(*answers: bytes, port: int = 0) -> AsyncIterator[FakeRedis]:
    """Serve on loopback until the block ends, at a free port or a certain one."""
    fake = FakeRedis()
    fake.answers += answers or (b"+OK\r\n",)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", port)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        await fake.end()


async def _question(reader: asyncio.StreamReader) -> list[bytes]:
    """Read one question: an array of bulk strings."""
    words = []
    head = await reader.readuntil(b"\r\n")
    assert head[:1] == b"*", head
    for _ in range(int(head[1:])):
        length = await reader.readuntil(b"\r\n")
        assert length[:1] == b"$", length
        words.append((await reader.readexactly(int(length[1:]) + 2))[:-2])
    return words
