"""What `make fuzz` begins with: small inputs, each of which takes another way through the code.

An input that once broke something is added here, so that every run begins with it.
"""

from __future__ import annotations

from mcpbridge.wire.lines import BOM, KEPT_BYTES

_HEAD = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
_PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
_HELLO = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"f","version":"1"}}}'
)

LINES = (
    b"",
    b"\n",
    b"one\ntwo\n",
    b"one\r\ntwo\r\n\r\n",
    BOM + b"one\n" + BOM + b"two",
    b" \t\r\n\t x \t\n",
    b"x" * 65 + b"\n" + b"y" * 64 + b"\n",
    b"x" * (KEPT_BYTES + 70) + b"\nshort\n",
    b"a\xe2\x80\xa8b\n\x85\x0b\x0c\n",
)
"""For the line splitter; the limit there is 64 bytes."""

ENVELOPES = (
    _PING,
    _HELLO,
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
    b'{"jsonrpc":"2.0","id":"a","result":{"b":[1,2.50,-0,1e400]}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}',
    b'{"id":9007199254740993123,"jsonrpc":"2.0","method":"x","params":{}}',
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}',
    b'{"jsonrpc":"2.0","i\\u0064":1,"method":"x","ID":2}',
    b'{"jsonrpc":"2.0","id":1,"method":"\\ud83d\\ude00\\ud800","more":[{"id":2}]}',
    b'{"jsonrpc":"2.0","id":1.0,"method":"x"}',
    b'{"jsonrpc":"2.0","id":1,"method":"x","result":{}}',
    b'\n{ "jsonrpc" : "2.0" ,\r\n"id" : -1 , "method":"x\xe2\x80\xa8" }\t',
    b'{"jsonrpc":"2.0","id":1,"method":"x","params":[[[[[[[[{}]]]]]]]]}',
    b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"x"}]',
    b'{"jsonrpc":"2.0","id":1,"method":"x","params":"\xff"}',
    b"{}",
    b"nul",
)
"""For the envelope, and as payloads of event streams."""

HEADERS = (
    b"application/json, text/event-stream",
    b"text/*;q=0, */*;q=0.5",
    b"application/json;charset=utf-8;q=nan, , ;",
    b"=?base64?w6TDtg==?=",
    b"=?base64?w6TDtg=?=",
    b"=?base64?/w==?=",
    b"=?base64??=",
    b"a\tb\x00\x7f\xff",
    b"0123456789abcdef-1-2",
    b"ab-0-00",
)
"""For everything that reads the value of a header."""

HTTP = (
    _HEAD + b"content-length: %d\r\n\r\n" % len(_PING) + _PING,
    _HEAD + b"content-length: %d\r\n\r\n" % len(_HELLO) + _HELLO,
    _HEAD + b"transfer-encoding: chunked\r\n\r\n28\r\n" + _PING + b"\r\n0\r\n\r\n",
    _HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n28;x=y\r\n" + _PING,
    _HEAD + b"expect: 100-continue\r\ncontent-length: 40\r\n\r\n",
    _HEAD + b"mcp-method: ping\r\nmcp-protocol-version: 2026-07-28\r\ncontent-length: 2\r\n\r\n{}",
    b"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n",
    b"GET /sse HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n",
    b"DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: x\r\n\r\n",
    b"GET /readyz HTTP/1.0\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET //mcp/../%00?a=%ff#x HTTP/1.1\r\nhost: localhost/\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\nhost: localhost\n obs: fold\n\n",
    b"\r\n\r\n\r\n",
)
"""Requests as bytes."""

WORDS = (
    *(b"\n", b"\r", b"\r\n", b"\r\n\r\n", b"\x00", b"\xff", BOM, b"\xe2\x80\xa8", b"\xc2\x85"),
    *(b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"\\u0000", b"\\ud800", b"\\n"),
    *(b'"id":', b'"ID":', b'"method":"x"', b'"jsonrpc":"2.0",', b'"params":{}', b'"result":1'),
    *(b"null", b"true", b"1e5", b"-0", b"1.0", b"NaN", b"Infinity", b"18446744073709551616"),
    *(b"=?base64?", b"?=", b"==", b"*/*", b"q=0", b";", b"%", b"/", b"..", b"?", b"#"),
    *(b"content-length: 0\r\n", b"content-length: 99999999\r\n", b"transfer-encoding: chunked\r\n"),
    *(b"connection: close\r\n", b"upgrade: h2c\r\n", b"content-encoding: gzip\r\n", b"HTTP/1.1"),
    *(b"mcp-session-id: \r\n", b"last-event-id: ab-0-0\r\n", b"origin: null\r\n", b"0\r\n\r\n"),
    *(b"mcp-protocol-version: 2026-07-28\r\n", b"mcp-protocol-version: x\r\n", b"GET ", b"POST "),
)
"""What mutations put in."""
