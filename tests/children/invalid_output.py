"""A server that stays alive and writes what no server should, each time a request names it.

The request `x/NAME` asks for the function of that name below; `x/echo` behaves. Where a function
says nothing else, its call is answered properly in the end.
"""

import json
import os
from pathlib import Path
from typing import Any

from _mcp import answer, answer_line, say, serve, write  # type: ignore[import-not-found]

GOOD = b'{"text":"\xe2\x80\xa8 \xc2\x85 \xf0\x9f\x98\x80"}'
"""A result with what some readers take for a line end, and a character of four bytes."""
MANY = 20_000_000


def is_open(fd: int) -> bool:
    """Whether a descriptor still is what the listing of them said: the listing's own is not."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def look(request_id: Any, _: Any) -> None:
    """Tells what it sees of itself: ids, open descriptors, environment, ignored signals."""
    ignored = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("SigIgn")
    )
    listed = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    seen = {
        "pid": os.getpid(),
        "pgid": os.getpgid(0),
        "sid": os.getsid(0),
        "fds": [fd for fd in listed if is_open(fd)],
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "ignored": int(ignored, 16),
    }
    answer(request_id, seen)


def banner(request_id: Any, _: Any) -> None:
    """Words for people, a progress bar, blank lines and JSON that is not a message."""
    write(
        b"Server ready!\n\n \t\n\r\n\rLoading [=====> ]\r\n0\n[]\n{}\nnull\n[1,{}]\n\x1b[31mred\n"
    )
    answer(request_id, {"good": True})


def mark(request_id: Any, _: Any) -> None:
    """A byte-order mark before its answer."""
    write(b"\xef\xbb\xbf" + answer_line(request_id, GOOD) + b"\n")


def crlf(request_id: Any, _: Any) -> None:
    """A carriage return before the line end."""
    write(answer_line(request_id, GOOD) + b"\r\n")


def drip(request_id: Any, _: Any) -> None:
    """One byte at a time."""
    for byte in answer_line(request_id, GOOD) + b"\n":
        write(bytes([byte]))


def utf8(request_id: Any, _: Any) -> None:
    """Invalid UTF-8 as its only answer."""
    write(answer_line(request_id, b'{"text":"\xff\xc0\x80\xed\xa0\x80"}') + b"\n")


def nan(request_id: Any, _: Any) -> None:
    """Numbers that JSON does not have as its only answer."""
    write(answer_line(request_id, b"[NaN,Infinity]") + b"\n")


def nul(request_id: Any, _: Any) -> None:
    """Raw control characters as its only answer."""
    write(answer_line(request_id, b'{"text":"\x00\x01"}') + b"\n")


def cut(request_id: Any, _: Any) -> None:
    """Half a line as its only answer."""
    write(answer_line(request_id, b'{"text":"and th')[:-1] + b"\n")


def deep(request_id: Any, _: Any) -> None:
    """A hundred thousand arrays in each other as its only answer."""
    write(answer_line(request_id, b"[" * 100_000 + b"]" * 100_000) + b"\n")


def both(request_id: Any, _: Any) -> None:
    """A result and an error at once as its only answer."""
    error = b'{"code":1,"message":"x"}'
    write(answer_line(request_id, b"{}")[:-1] + b',"error":' + error + b"}\n")


def neither(request_id: Any, _: Any) -> None:
    """No result and no error as its only answer."""
    write(b'{"jsonrpc":"2.0","id":%d}\n' % request_id)


def ambiguous(request_id: Any, _: Any) -> None:
    """Two ids in one answer, the second another's; then the real one."""
    write(b'{"jsonrpc":"2.0","id":%d,"id":%d,"result":1}\n' % (request_id, request_id + 1))
    answer(request_id, {"good": True})


def twice(request_id: Any, _: Any) -> None:
    """The same id answered three times; the first counts."""
    answer(request_id, {"good": True})
    answer(request_id, {"good": False})
    write(b'{"jsonrpc":"2.0","id":%d,"error":{"code":1,"message":"no"}}\n' % request_id)


def unknown(request_id: Any, _: Any) -> None:
    """Answers to no request, in every spelling of an id, before its own."""
    for other in (b"0", b"-1", b"999999999", b'"none"', b"1.5", b"null", b"9" * 30, b"[1]"):
        write(b'{"jsonrpc":"2.0","id":%b,"result":{"stray":true}}\n' % other)
    answer(request_id, {"good": True})


def spelled(request_id: Any, _: Any) -> None:
    """The id of its answer turned into a string."""
    answer(str(request_id), {"good": True})


def huge(request_id: Any, _: Any) -> None:
    """20 MB as its only answer."""
    write(answer_line(request_id, b'{"text":"' + b"x" * MANY + b'"}') + b"\n")


def last_id(request_id: Any, _: Any) -> None:
    """20 MB as its only answer, with the id after them."""
    tail = b'","extra":0},"id":%d,"jsonrpc":"2.0"}\n' % request_id
    write(b'{"result":{"text":"' + b"x" * MANY + tail)


def huge_log(request_id: Any, _: Any) -> None:
    """20 MB of log that no client asked for."""
    say("notifications/message", {"level": "info", "data": "x" * MANY})
    answer(request_id, {"good": True})


def flood(request_id: Any, _: Any) -> None:
    """Notifications by the thousand."""
    lines = [
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":'
        b'{"progressToken":%d,"progress":1}}' % request_id,
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
    ]
    write(b"".join(line + b"\n" for line in lines) * 3_000)
    answer(request_id, {"good": True})


def stderr(request_id: Any, _: Any) -> None:
    """50 MB for people, secret among them; ends with a line that has no end."""
    line = b"canary " + b"e" * 1000 + b"\n"
    for _ in range(50):
        write(line * (MANY // 20 // len(line)), fd=2)
    write(b"\xff and no end", fd=2)
    answer(request_id, {"good": True})


def asked(request_id: Any, _: Any) -> None:
    """Questions for a client that cannot be known, on ids that calls use too."""
    for number in (request_id, 0, "x"):
        question: dict[str, Any] = {
            "jsonrpc": "2.0",
            "id": number,
            "method": "roots/list",
            "params": {},
        }
        write(json.dumps(question).encode() + b"\n")
    answer(request_id, {"good": True})


TROUBLES = (
    *(look, banner, mark, crlf, drip, utf8, nan, nul, cut, deep, both, neither, ambiguous),
    *(twice, unknown, spelled, huge, last_id, huge_log, flood, stderr, asked),
)

if __name__ == "__main__":
    serve({f"x/{trouble.__name__}": trouble for trouble in TROUBLES})
