"""What pipes and HTTP cost without a bridge: each body goes to the child, each line is an answer.

Run as a program with the child's command. It reads no message: it trusts the child to answer every
line, in order, and its one client to send one line a body under its own ids. So it has no
sessions, limits, supervision, streams, notifications, and a wrong answer where any of that is
needed; what a bridge costs beyond it is what those cost.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from pathlib import Path
from typing import cast

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import asgi


class Child(asyncio.SubprocessProtocol):
    """The stdio server and who waits for its next lines."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[bytes]] = deque()
        self._pieces: list[bytes] = []
        self._stdin: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It runs."""
        stdin = cast(asyncio.SubprocessTransport, transport).get_pipe_transport(0)
        self._stdin = cast(asyncio.WriteTransport, stdin)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Give each whole line to the next in the queue."""
        *ended, rest = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*self._pieces, ended[0]])
            self._pieces.clear()
            for line in ended:
                self.waiting.popleft().set_result(line)
        if rest:
            self._pieces.append(rest)

    async def ask(self, body: bytes) -> bytes:
        """The answer to a body."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        self._stdin.writelines((body, b"\n"))
        return await answer


def main(argv: list[str]) -> None:
    """Serve until SIGTERM."""
    children: list[Child] = []

    async def application(scope: asgi.Event, receive: asgi.Receive, send: asgi.Send) -> None:
        if not children:  # the first request comes alone
            loop = asyncio.get_running_loop()
            _, child = await loop.subprocess_exec(Child, *argv, stderr=None)
            children.append(child)
        pieces, more = [], True
        while more:
            event = await receive()
            pieces.append(cast(bytes, event["body"]))
            more = bool(event["more_body"])
        answer = await children[0].ask(b"".join(pieces))
        await send(asgi.head(len(answer)))
        await send({"type": "http.response.body", "body": answer})

    asgi.serve(application)


if __name__ == "__main__":
    main(sys.argv[1:])
