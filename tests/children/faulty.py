"""A server that speaks before its handshake and does what no server should, as a call asks for it.

`tools/call` with `{"name": "fault", "arguments": {"fault": NAME}}` does the fault of that name in
the table below in the place of an answer; with `"idle": true` the call is answered well and the
fault is done at once afterwards, when no client waits for anything. The tools `hold` and `release`
keep a call in flight, and answer it; `x/echo` behaves.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from _mcp import answer, answer_line, say, serve, write  # type: ignore[import-not-found]

GOOD = b'{"good":true}'
HUGE = 6_000_000
"""More than the limit that the tests set, less than four times as much."""
SHORT = b'{"jsonrpc":"2.0","method":"%b","params":%b}\n'
NUMBERS = (
    b'{"n":[12345678901234567890,%b,1.0,1,1e400,-0,0.1000]}'
    # Raw, since no reader of numbers gives them back as they are.
    % (b"9" * 5000)
)
SURROGATE = b'{"text":"\\ud800 \\uDFFF \\u00e9"}'
TWICE_BELOW = b'{"a":1,"a":2,"content":[]}'


def good(request_id: int) -> bytes:
    """The answer that the fault is followed by."""
    return bytes(answer_line(request_id, GOOD)) + b"\n"


def instead(result: bytes) -> Callable[[int], bytes]:
    """This as the result, whatever it is."""
    return lambda request_id: bytes(answer_line(request_id, result)) + b"\n"


def before(*lines: bytes) -> Callable[[int], bytes]:
    """These lines, in which `%d` is the call's id, and the good answer after them."""
    return lambda request_id: (
        b"".join(line.replace(b"%d", b"%d" % request_id) + b"\n" for line in lines)
        + good(request_id)
    )


def cut(request_id: int) -> bytes:
    """Half of an answer."""
    return bytes(answer_line(request_id, b'{"text":"and th'))[:-1] + b"\n"


def both(request_id: int) -> bytes:
    """A result and an error."""
    return b'{"jsonrpc":"2.0","id":%d,"result":{},"error":{"code":1,"message":"x"}}\n' % request_id


def last_id(request_id: int) -> bytes:
    """An answer over the limit whose id comes last."""
    return b'{"result":{"text":"' + b"x" * HUGE + b'"},"id":%d,"jsonrpc":"2.0"}\n' % request_id


def flood(request_id: int) -> bytes:
    """Notifications by the thousand, in the middle of which is the answer."""
    lines = [
        SHORT % (b"notifications/message", b'{"level":"info","data":"x"}'),
        SHORT % (b"notifications/progress", b'{"progressToken":%d,"progress":1}' % request_id),
        SHORT % (b"notifications/tools/list_changed", b"{}"),
    ]
    return b"".join(lines) * 2_000 + good(request_id) + b"".join(lines) * 1_000


STRAY = (b"0", b"-1", b"999999999", b'"none"', b"1.5", b"null", b"9" * 30, b"[1]")
TAG = b'"_meta":{"io.modelcontextprotocol/subscriptionId":%b}'
FAULTS: dict[str, Callable[[int], bytes]] = {
    "noise": before(
        b"Listening on port 3000!\n\n \t\n\r\n\rLoading [=====> ]\r\n0\n[]\n{}\nnull\n[1,{}]",
        b"\x1b[31mred\x1b[0m",
        b"WARN " + b"x" * 5_000,
    ),
    "cut": cut,
    "cut_before_the_id": before(b'{"jsonrpc":"2.0","res', b'{"jsonrpc":"2.0","id":'),
    "marks": lambda request_id: (
        b"\xef\xbb\xbf"
        + SHORT % (b"notifications/tools/list_changed", b"{}")
        + b"\xef\xbb\xbf"
        + good(request_id)
    ),
    "crlf": lambda request_id: good(request_id)[:-1] + b"\r\n",
    "utf8": instead(b'{"text":"\xff\xc0\x80\xed\xa0\x80"}'),
    "utf8_for_nobody": before(
        b'\xff\xfe{"jsonrpc"', b'{"jsonrpc":"2.0","method":"\xff","params":{}}'
    ),
    "nul": instead(b'{"text":"\x00\x01"}'),
    "surrogate": instead(SURROGATE),
    "nan": instead(b'{"n":[NaN,Infinity,-Infinity]}'),
    "numbers": instead(NUMBERS),
    "two_ids": before(b'{"jsonrpc":"2.0","id":%d,"id":1,"result":{"stray":1}}'),
    "twice_below": instead(TWICE_BELOW),
    "deep": instead(b"[" * 100_000 + b"]" * 100_000),
    "huge": instead(b'{"text":"' + b"x" * HUGE + b'"}'),
    "huge_last_id": last_id,
    "huge_for_nobody": before(
        SHORT[:-1] % (b"notifications/message", b'{"data":"' + b"x" * HUGE + b'"}')
    ),
    "flood": flood,
    "double": lambda request_id: (
        good(request_id)
        + instead(b'{"good":false}')(request_id)
        + b'{"jsonrpc":"2.0","id":%d,"error":{"code":1,"message":"no"}}\n' % request_id
    ),
    "strangers": before(*(b'{"jsonrpc":"2.0","id":%b,"result":{"stray":1}}' % s for s in STRAY)),
    "spelled": lambda request_id: (
        b'{"jsonrpc":"2.0","id":"%d","result":{"good":true}}\n' % request_id
    ),
    "both": both,
    "neither": lambda request_id: b'{"jsonrpc":"2.0","id":%d}\n' % request_id,
    "questions": before(
        b'{"jsonrpc":"2.0","id":%d,"method":"roots/list"}',
        b'{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}',
        b'{"jsonrpc":"2.0","id":"x","method":"elicitation/create","params":{}}',
        b'{"jsonrpc":"2.0","id":"p","method":"ping"}',
    ),
    "told_to_all": before(
        *(
            (SHORT % (b"notifications/" + method, params)).rstrip()
            for method, params in (
                (b"message", b'{"level":"emergency","data":"whose?"}'),
                (b"resources/updated", b'{"uri":"nobody:subscribed"}'),
                (b"x/own", b'{"secret":1}'),
                (b"tools/list_changed", b"{}"),
            )
        )
    ),
    "strange_tokens": before(
        *(
            (SHORT % (b"notifications/progress", b'{"progressToken":%b,"progress":1}' % s)).rstrip()
            for s in STRAY
        ),
        *(
            (SHORT % (b"notifications/resources/updated", b'{"uri":"a:b",%b}' % (TAG % s))).rstrip()
            for s in STRAY
        ),
        b'{"jsonrpc":"2.0","method":"notifications/progress"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":424242}}',
    ),
}
"""What is written in the place of an answer, given the id of the call."""


def drip(request_id: int) -> None:
    """The answer one byte at a time."""
    for byte in good(request_id):
        write(bytes([byte]))


def stderr(request_id: int) -> None:
    """20 MB for people, a secret among them; ends with a line that has no end."""
    for _ in range(20):
        write((b"canary " + b"e" * 1000 + b"\n") * 1_000, fd=2)
    write(b"\xff and no end", fd=2)
    write(good(request_id))


def long_line(request_id: int) -> None:
    """An answer of 60 MB, piece by piece."""
    write(b'{"jsonrpc":"2.0","id":%d,"result":"' % request_id)
    for _ in range(60):
        write(b"x" * 1_000_000)
    write(b'"}\n')


def storm(request_id: int) -> None:
    """Notifications by the hundred thousand before the answer."""
    line = SHORT % (b"notifications/message", b'{"level":"info","data":"%b"}' % (b"x" * 100))
    for _ in range(100):
        write(line * 1_000)
    write(good(request_id))


def close_stderr(request_id: int) -> None:
    """Nothing more for people; done again it is a fault no more."""
    with contextlib.suppress(OSError):
        os.close(2)
    write(good(request_id))


def leave(_: int) -> None:
    """An end that was not asked for."""
    os._exit(3)


def kill(_: int) -> None:
    """An end by the signal that the kernel sends where memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def abort(_: int) -> None:
    """An end by its own fault."""
    os.abort()


def close_stdout(_: int) -> None:
    """Alive, and silent from now on."""
    os.close(1)


def close_stdin(request_id: int) -> None:
    """Alive, and it will hear nothing more."""
    os.close(0)
    write(good(request_id))
    signal.pause()


def endless(_: int) -> None:
    """A line without an end."""
    while True:
        write(b"x" * (1 << 20))


ACTIONS: dict[str, Callable[[int], None]] = {
    action.__name__: action
    for action in (
        *(drip, stderr, long_line, storm, close_stderr),
        *(leave, kill, abort, close_stdout, close_stdin, endless),
    )
}
"""What is more than writing."""


class Tools:
    """The three tools, and the calls that are held."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    def call(self, request_id: Any, params: Any) -> None:
        """Does what a call asks for."""
        name, arguments = params["name"], params.get("arguments", {})
        if name == "hold":
            self._held.append((request_id, arguments))
            token = params["_meta"]["progressToken"]
            say("notifications/progress", {"progressToken": token, "progress": 1})
        elif name == "release":
            held, self._held = self._held, []
            for waiting, given in held:
                answer(waiting, given)
            answer(request_id, {"released": len(held)})
        elif arguments.get("idle"):
            write(good(request_id))
            fault(arguments["fault"], request_id)
        else:
            fault(arguments["fault"], request_id)


def fault(name: str, request_id: int) -> None:
    """Do it."""
    action = ACTIONS.get(name)
    if action is not None:
        action(request_id)
    else:
        write(FAULTS[name](request_id))


def pid(request_id: Any, _: Any) -> None:
    """Who it is."""
    answer(request_id, {"pid": os.getpid()})


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    write(b"My server v1.0\nready on stdio\n\xef\xbb\xbf\r\n{\n")
    serve({"tools/call": Tools().call, "x/pid": pid})
