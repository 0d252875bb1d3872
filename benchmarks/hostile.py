"""Messages that are costly to read for their size; run as a program, a server that writes them.

All are within the default limits on bytes. What a client sends is in `BODIES`, what the server
writes instead of an answer in `OUTPUTS`: the request that `request` makes for one of these names
writes it and then answers, unless it is the answer. It speaks the legacy revisions, or 2026-07-28
if its argument is `modern`.

Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

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


def _with_string(piece: bytes, end: bytes = b"") -> bytes:
    return _CALL + b',"arguments":{"a":"%b%b"}}}' % (piece * (BODY_BYTES // len(piece)), end)


def _with_elements(piece: bytes) -> bytes:
    return _CALL + b',"arguments":[%b1]}}' % (piece * (BODY_BYTES // len(piece)))


def _long_call(number: int) -> bytes:
    head = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"plain","arguments":"'
    return head % number + b"a" * (BODY_BYTES // 100 - 200) + b'"}}'


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
    "a long string": lambda: _with_string(b"a"),
    "a long string that is not ASCII": lambda: _with_string("\u2019\u00e9".encode()),
    "a string of escapes": lambda: _with_string(b'\\"\\\\\\n\\u00e9'),
    "a string of lone surrogates": lambda: _with_string(b"\\ud800"),
    "a string of line separators": lambda: _with_string("\u2028".encode()),
    "a string that is not UTF-8 at its end": lambda: _with_string(b"a", b"\xff"),
    "line ends between elements": lambda: _with_elements(b"1,\r\n"),
    "blanks between elements": lambda: _with_elements(b"1," + b" " * 1000),
    "blanks before a member": lambda: _CALL + b" " * BODY_BYTES + b',"arguments":{}}}',
    "not JSON at its end": lambda: _with_elements(b"[1,2],") + b"}",
    "a name with an escape": lambda: (
        _CALL + b',"\\u0061":"' + b"a" * BODY_BYTES + b'","_meta":{"progressToken":1}}}'
    ),
    "a long name": lambda: _CALL + b',"' + b"a" * BODY_BYTES + b'":1}}',
    "a long id": lambda: b'{"jsonrpc":"2.0","id":"%b","method":"x/y"}' % (b"a" * BODY_BYTES),
    "a long method": lambda: b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"a" * BODY_BYTES),
    "a long name of a tool": lambda: (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b"}}'
        % (b"a" * BODY_BYTES)
    ),
    "a long progress token": lambda: (
        _CALL + b',"_meta":{"progressToken":"' + b"a" * BODY_BYTES + b'"}}}'
    ),
    "a member named twice": lambda: _CALL + b',"a":"%b","a":1}}' % (b"a" * BODY_BYTES),
    "a batch of 100 long messages": lambda: (
        b"[" + b",".join([_long_call(number) for number in range(100)]) + b"]"
    ),
    "a long notification": lambda: (
        b'{"jsonrpc":"2.0","method":"x/y","params":{"a":"%b"}}' % (b"a" * BODY_BYTES)
    ),
    "a long answer": lambda: b'{"jsonrpc":"2.0","id":7,"result":{"a":"%b"}}' % (b"a" * BODY_BYTES),
    "a long name of a client": lambda: (
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26",'
        b'"capabilities":{},"clientInfo":{"version":"1","name":"%b"}}}' % (b"a" * BODY_BYTES)
    ),
}
"""By name: what makes the body of a request."""


_LONG = b"a" * (LINE_BYTES - 1000)
_PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b'


TOOLS = "a list of tools"
"""The name of the output that is a page of `tools/list`."""
_TOOL = (
    b'{"name":"a","execution":{},"inputSchema":{"type":"object"},"description":"%b"}'
    % _LONG[: LINE_BYTES // 4000 - 100]
)


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


def _streamed(make: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Progress, for which an event stream begins, and then what `make` makes."""
    return lambda call: _PROGRESS % call + b',"progress":1}}\n' + make(call)


def _progress(call: bytes) -> bytes:
    return _PROGRESS % call + _members(LINE_BYTES - 2_000_000) + b"}}\n"


def _text(piece: bytes, end: bytes = b"") -> Callable[[bytes], bytes]:
    """A result that is one long string."""
    return _result(b'"%b%b"' % (piece * ((LINE_BYTES - 1000) // len(piece)), end))


def _behind(call: bytes) -> bytes:
    """A result before its id."""
    payload = _LONG + b'"}'
    return b'{"jsonrpc":"2.0","result":{"a":"%b,"id":%b}\n' % (payload, call)


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
    "a result on an event stream, nested 505 deep": lambda call: _streamed(
        _result(_deep(LINE_BYTES))
    )(call),
    "a long string on an event stream": lambda call: _streamed(_text(b"a"))(call),
    "a long string that is not ASCII, on an event stream": lambda call: _streamed(
        _text("\u2019\u00e9".encode())
    )(call),
    "a result that is one string": lambda call: _text(b"a")(call),
    "a result of escapes": lambda call: _text(b'\\"\\\\\\n\\u00e9')(call),
    "a result of lone surrogates": lambda call: _text(b"\\ud800")(call),
    "a result of line separators": lambda call: _text("\u2028".encode())(call),
    "a result that is not UTF-8 at its end": lambda call: _text(b"a", b"\xff")(call),
    "a result with line ends between elements": lambda call: _result(
        b"[" + b"1,\r" * (LINE_BYTES // 3 - 1000) + b"1]"
    )(call),
    "a result that ends with CR LF": lambda call: _text(b"a")(call)[:-1] + b"\r\n",
    "a result behind a byte-order mark": lambda call: b"\xef\xbb\xbf" + _text(b"a")(call),
    "a result before its id": _behind,
    "a result of short texts": lambda call: (
        b'{"jsonrpc":"2.0","id":%b,"result":{"content":[%b]}}\n'
        % (call, b",".join([b'{"type":"text","text":"a"}'] * (LINE_BYTES // 28)))
    ),
    "two long results": lambda call: (
        _text(b"a")(b"99999")[: LINE_BYTES // 2] + b'"}}\n' + _text(b"a")(call)
    ),
    "a result with the tag of a subscription": lambda call: (
        b'{"jsonrpc":"2.0","id":%b,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":%b},'
        b'"a":"%b"}}\n' % (call, call, _LONG[:-200])
    ),
    TOOLS: lambda call: (
        b'{"jsonrpc":"2.0","id":%b,"result":{"tools":[%b]}}\n' % (call, b",".join([_TOOL] * 4000))
    ),
    "an error with long data": lambda call: (
        b'{"jsonrpc":"2.0","id":%b,"error":{"code":1,"message":"a","data":"%b"}}\n' % (call, _LONG)
    ),
    "a long progress notification": lambda call: (
        _PROGRESS % call + b',"progress":1,"message":"%b"}}\n' % _LONG
    ),
    "a long log message": lambda call: (
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"%b"}}\n'
        % _LONG
    ),
    "a long notification of a resource": lambda call: (
        b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"%b"}}\n'
        % _LONG
    ),
    "a long request of the server": lambda call: (
        b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"a":"%b"}}\n' % _LONG
    ),
    "a long text": lambda call: _LONG + b"\n",
    "a line over the limit": lambda call: _LONG * 3 + b"\n",
    "blank lines": lambda call: b" \n" * (1 << 19),
    "results of other calls": lambda call: b'{"jsonrpc":"2.0","id":99999,"result":{}}\n' * 40_000,
    "progress notifications": lambda call: (_PROGRESS % call + b',"progress":1}}\n') * 40_000,
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
TRANSLATED = [name for name in OUTPUTS if "result" in name or name == TOOLS]
"""The outputs that a client of the other era than the server's does not get as they are."""
STDERR = "short lines on stderr"
"""The name of the call that is answered after `a` and a line end, often, on standard error."""


def request(name: str, envelope: Mapping[str, object] = MappingProxyType({})) -> bytes:
    """Return the request, with the id 1, for which the server writes an output.

    Args:
        name: The name of the output.
        envelope: What `_meta` holds beside a progress token.
    """
    listing = name == TOOLS
    params = {"cursor" if listing else "name": name, "_meta": {"progressToken": 1, **envelope}}
    method = method_of(name)
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def method_of(name: str) -> str:
    """Return the method of the request for an output."""
    return "tools/list" if name == TOOLS else "tools/call"


def _write(raw: bytes, fd: int = 1) -> None:
    left = memoryview(raw)
    while left:
        left = left[os.write(fd, left) :]


_DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "private",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "hostile", "version": "1"}},
}

_UNKNOWN_METHOD = b'{"code":-32601,"message":"Method not found"}'


def _serve(message: dict[str, object], call: bytes, *, modern: bool) -> None:
    params = message.get("params")
    if modern and message["method"] == "server/discover":
        _answer(call, _DISCOVERED)
        return
    # A server of both eras would give a legacy client a process of the same era.
    if modern and message["method"] == "initialize":
        _write(b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (call, _UNKNOWN_METHOD))
        return
    name = params.get("name", params.get("cursor")) if isinstance(params, dict) else None
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
    modern = sys.argv[1:] == ["modern"]
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "id" in message and "method" in message:
            _serve(message, json.dumps(message["id"]).encode(), modern=modern)


if __name__ == "__main__":
    main()
