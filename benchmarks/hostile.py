"""Messages that are costly to read for their size; run as a program, a server that writes them.

All are within the default limits on bytes. What a client sends is in `BODIES`, what the server
writes instead of an answer in `OUTPUTS`: `tools/call` with one of these names writes it and then
answers, unless it is the answer.

Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

BODY_BYTES = 4_000_000
"""Less than the default of --max-request-bytes."""
LINE_BYTES = 16_000_000
"""Less than the default of --max-message-bytes."""
_CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"plain"'
_SMALL = b'{"jsonrpc":"2.0","id":1,"method":"x/y"}'
_ENVELOPE = (
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}'
)


def _members(size: int) -> bytes:
    """Members of an object of about that many bytes, each with another name and after a comma."""
    return b"".join(b', "%d":1' % number for number in range(size // 12))


def _hovering(size: int) -> bytes:
    """An array that nests 510 deep, or nearly so, over all its length."""
    below = b"[[[[[]]]]]"
    return b"[" * 505 + b",".join([below] * (size // 11)) + b"]" * 505


def _deep(size: int) -> bytes:
    """An array of arrays that nest 505 deep each."""
    return b"[" + b",".join([b"[" * 505 + b"]" * 505] * (size // 1011)) + b"]"


BODIES: dict[str, Callable[[], bytes]] = {
    "members of params": lambda: (
        _CALL + b',"_meta":{"progressToken":1}' + _members(BODY_BYTES) + b"}}"
    ),
    "members of _meta": lambda: _CALL + b',"_meta":{' + _ENVELOPE + _members(BODY_BYTES) + b"}}}",
    "members of the message": lambda: _CALL + b"}" + _members(BODY_BYTES) + b"}",
    "members of arguments": lambda: _CALL + b',"arguments":{"a":1' + _members(BODY_BYTES) + b"}}}",
    "a batch of 90,000": lambda: b"[" + b",".join([_SMALL] * 90_000) + b"]",
    "a batch of numbers": lambda: b"[" + b"1," * (BODY_BYTES // 2) + b"1]",
    "nested 505 deep": lambda: _CALL + b',"arguments":' + _deep(BODY_BYTES) + b"}}",
    "nested 505 deep, with a token": lambda: (
        _CALL + b',"_meta":{"progressToken":1},"arguments":' + _deep(BODY_BYTES) + b"}}"
    ),
    "nested near the limit": lambda: _CALL + b',"arguments":' + _hovering(BODY_BYTES) + b"}}",
    "empty arrays": lambda: _CALL + b',"arguments":[' + b"[]," * (BODY_BYTES // 3) + b"[]]}}",
    "empty strings in arrays": lambda: (
        _CALL + b',"arguments":["",' + b'[""],' * (BODY_BYTES // 5) + b'""]}}'
    ),
    "brackets in a string": lambda: _CALL + b',"arguments":"' + b"[{" * (BODY_BYTES // 2) + b'"}}',
}
"""By name: what makes the body of a request."""


def _result(payload: bytes) -> Callable[[bytes], bytes]:
    return lambda call: (
        b'{"jsonrpc":"2.0","id":%b,"result":{"structuredContent":%b}}\n'
        % (
            call,
            payload,
        )
    )


def _spaced(call: bytes) -> bytes:
    """A result in the form that many serialisers write, with a blank behind each colon."""
    return b'{"jsonrpc": "2.0", "id": %b, "result": {"structuredContent": %b}}\n' % (
        call,
        _deep(LINE_BYTES),
    )


def _streamed(call: bytes) -> bytes:
    """Progress, for which an event stream begins, and a long result."""
    head = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'
    return head + call + b',"progress":1}}\n' + _result(_deep(LINE_BYTES))(call)


def _progress(call: bytes) -> bytes:
    head = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b' % call
    return head + _members(LINE_BYTES - 2_000_000) + b"}}\n"


OUTPUTS: dict[str, Callable[[bytes], bytes]] = {
    "short invalid lines": lambda call: b"a\n" * (1 << 19),
    "a batch of numbers": lambda call: b"[" + b"1," * (LINE_BYTES // 2) + b"1]\n",
    "a batch of notifications": lambda call: (
        b"[" + b'{"jsonrpc":"2.0","method":"x/y"},' * (LINE_BYTES // 33) + b"{}]\n"
    ),
    "members of a progress notification": _progress,
    "members of a result": lambda call: (
        b'{"jsonrpc":"2.0","id":%b,"result":{"isError":true%b}}\n' % (call, _members(LINE_BYTES))
    ),
    "a result nested 505 deep": lambda call: _result(_deep(LINE_BYTES))(call),
    "a result with blanks, nested 505 deep": _spaced,
    "a result on an event stream, nested 505 deep": _streamed,
    "a result nested near the limit": lambda call: _result(_hovering(LINE_BYTES))(call),
    "a result of empty arrays": lambda call: _result(b"[" + b"[]," * (LINE_BYTES // 3) + b"[]]")(
        call
    ),
    "a result of short strings": lambda call: _result(
        b'["\\n"' + b',"\\n"' * (LINE_BYTES // 5) + b"]"
    )(call),
    "a result that is not ASCII": lambda call: _result(
        ('"' + "\u2019\u00e9" * (LINE_BYTES // 5) + '"').encode()
    )(call),
    "a result that is not JSON": lambda call: _result(b"[" + b"NaN," * (LINE_BYTES // 4) + b"1]")(
        call
    ),
    "a result of brackets in a string": lambda call: _result(
        b'"' + b"[{" * (LINE_BYTES // 2) + b'"'
    )(call),
    "a result of signs of a tag": lambda call: _result(
        b'"' + b"io.modelcontextprotocol/subscriptionI_" * (LINE_BYTES // 38) + b'"'
    )(call),
    "notifications": lambda call: (
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}\n'
        * 40_000
    ),
}
"""By name: what makes the bytes on standard output, given the call's id."""
STDERR = "short lines on stderr"
"""The name of the call that is answered after `a` and a line end, often, on standard error."""


def _write(raw: bytes, fd: int = 1) -> None:
    left = memoryview(raw)
    while left:
        left = left[os.write(fd, left) :]


def _serve(message: dict[str, object], call: bytes) -> None:
    params = message.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    if message["method"] == "initialize" and isinstance(params, dict):
        _answer(
            call,
            {
                "protocolVersion": params.get("protocolVersion"),
                "capabilities": {"tools": {}, "logging": {}},
                "serverInfo": {"name": "hostile", "version": "1"},
            },
        )
        return
    if name == STDERR:
        _write(b"a\n" * (1 << 19), fd=2)
    elif isinstance(name, str) and name in OUTPUTS:
        _write(OUTPUTS[name](call))
    _answer(call, {"content": []})


def _answer(call: bytes, result: object) -> None:
    text = json.dumps(result).encode()
    _write(b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (call, text))


def main() -> None:
    """Serve standard input to its end."""
    # The messages of the client are read as they come; only those with a tool are looked at.
    sys.setrecursionlimit(10_000)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message and "method" in message:
            _serve(message, json.dumps(message["id"]).encode())


if __name__ == "__main__":
    main()
