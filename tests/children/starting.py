"""A server whose start is out of the ordinary, in the way that its first argument names.

| argument | what it does |
|---|---|
| `exit CODE` | words on stderr, then the end, before it reads anything |
| `kill` | ends itself by SIGKILL |
| `silent` | reads and never answers; ends with its stdin |
| `stubborn` | the same, but ignores the end of its stdin |
| `refuse` | answers `initialize` with an error, and everything else |
| `chatty` | a banner first; notifications and a question straight after its `initialize` answer |
| `lock FILE` | serves if no other process does; else it ends with 5 |
| `late FIFO` | serves once a process has opened the fifo for writing |
"""

import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from _mcp import introduce, say, serve, write  # type: ignore[import-not-found]


def silent() -> None:
    """Read to the end and say nothing."""
    while os.read(0, 65536):
        pass


def refusing(request_id: Any, _: Any) -> None:
    """An error for an answer."""
    error = b'{"code":-32602,"message":"not today"}'
    write(b'{"jsonrpc":"2.0","id":%d,"error":%b}\n' % (request_id, error))


def chatting(request_id: Any, params: Any) -> None:
    """More than the answer."""
    introduce(request_id, params)
    say("notifications/tools/list_changed")
    say("notifications/message", {"level": "info", "data": "hello"})
    write(b'{"jsonrpc":"2.0","id":0,"method":"ping"}\n')


def main(kind: str, words: Sequence[str]) -> None:
    """Start as asked."""
    match kind:
        case "exit":
            write(b"first words\nsecret last words\n", fd=2)
            os._exit(int(words[0]))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            silent()
        case "stubborn":
            silent()
            signal.pause()
        case "refuse":
            serve({"initialize": refusing})
        case "chatty":
            write(b"\xef\xbb\xbfWelcome!\n\nListening on stdio\n")
            serve({"initialize": chatting})
        case "lock":
            held = os.open(words[0], os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(5)
            serve({})
        case "late":
            with open(words[0], "rb"):
                pass
            serve({})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
