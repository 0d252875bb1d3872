"""Requests that programs read in different ways: what a front end and the bridge must not do."""

from __future__ import annotations

from collections.abc import Mapping

HOST = "host: localhost"
KIND = "content-type: application/json"


def body(request_id: str) -> bytes:
    """The body of a ping with this id."""
    return b'{"jsonrpc":"2.0","id":"%b","method":"ping"}' % request_id.encode()


def request(
    request_id: str,
    *lines: str,
    first: str = "POST /mcp HTTP/1.1",
    content: bytes | None = None,
    length: bool = True,
    host: str = HOST,
) -> bytes:
    """A request as bytes, named by its `x-id`."""
    content = body(request_id) if content is None else content
    sized = (f"content-length: {len(content)}",) if length else ()
    kept = [line for line in (host, KIND, f"x-id: {request_id}", *sized, *lines) if line]
    return "\r\n".join([first, *kept, "", ""]).encode("latin-1") + content


def chunked(*chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    """Chunks and their end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + last


PLANTED = request("planted")
"""What must be answered to no client, as it stands in the body of another request."""
_INNER = b"0\r\n\r\n" + PLANTED
_WHOLE = chunked(body("odd"))


def _odd(*lines: str, content: bytes = _INNER, **more: object) -> bytes:
    return request("odd", *lines, content=content, **more)  # type: ignore[arg-type]


_TE = "transfer-encoding: chunked"
CASES: Mapping[str, bytes] = {
    "plain": request("odd"),
    "pipelined": request("odd") + request("odd-2") + request("odd-3"),
    "chunked": request("odd", _TE, length=False, content=_WHOLE),
    "length and chunked": _odd(_TE),
    "chunked and length": request("odd", _TE, "content-length: 4", length=False, content=_INNER),
    "gzip, chunked": request(
        "odd", "transfer-encoding: gzip, chunked", length=False, content=_WHOLE
    ),
    "chunked, identity": _odd("transfer-encoding: chunked, identity"),
    "chunked twice": request("odd", _TE, _TE, length=False, content=_WHOLE),
    "xchunked": _odd("transfer-encoding: xchunked"),
    "blank before the colon": _odd("transfer-encoding : chunked"),
    "tab before chunked": _odd("transfer-encoding:\tchunked"),
    "vertical tab": _odd("transfer-encoding: \x0bchunked"),
    "quoted chunked": _odd('transfer-encoding: "chunked"'),
    "folded chunked": _odd("transfer-encoding:\r\n chunked"),
    "folded header": request("odd", "x-long: one\r\n two"),
    "underscores": _odd("content_length: 0", "transfer_encoding: chunked"),
    "two lengths": _odd("content-length: 5"),
    "two equal lengths": request("odd", f"content-length: {len(body('odd'))}"),
    "a list of lengths": request("odd", "content-length: 40, 40", length=False),
    "plus length": request("odd", f"content-length: +{len(body('odd'))}", length=False),
    "hex length": request("odd", "content-length: 0x28", length=False),
    "huge length": request("odd", "content-length: 99999999999999999999", length=False),
    "negative length": request("odd", "content-length: -1", length=False),
    "two hosts": request("odd", "host: evil.example"),
    "no host": request("odd", host=""),
    "empty host": request("odd", host="host:"),
    "host with a path": request("odd", host="host: localhost/a"),
    "absolute form": request("odd", first="POST http://localhost/mcp HTTP/1.1"),
    "absolute form elsewhere": request("odd", first="POST http://evil.example/mcp HTTP/1.1"),
    "two blanks": request("odd", first="POST  /mcp HTTP/1.1"),
    "fragment": request("odd", first="POST /mcp#a HTTP/1.1"),
    "lower-case method": request("odd", first="post /mcp HTTP/1.1"),
    "http/1.0": request("odd", first="POST /mcp HTTP/1.0"),
    "http/1.0 kept": request("odd", "connection: keep-alive", first="POST /mcp HTTP/1.0"),
    "http/1.0 chunked": request(
        "odd", _TE, first="POST /mcp HTTP/1.0", length=False, content=_INNER
    ),
    "http/2.0": request("odd", first="POST /mcp HTTP/2.0"),
    "http/1.2": request("odd", first="POST /mcp HTTP/1.2"),
    "no version": b"POST /mcp\r\n\r\n",
    "bare line feeds": request("odd").replace(b"\r\n", b"\n"),
    "one bare line feed": request("odd", "x-a: b\nx-c: d"),
    "bare carriage return": request("odd", "x-a: b\rtransfer-encoding: chunked"),
    "null byte": request("odd", "x-a: b\x00c"),
    "leading line ends": b"\r\n\r\n" + request("odd"),
    "h2c offered": _odd("connection: upgrade", "upgrade: h2c", content=PLANTED),
    "websocket offered": _odd("connection: upgrade", "upgrade: websocket", content=PLANTED),
    "upgrade of chunks": request(
        "odd", "connection: upgrade", "upgrade: foo", _TE, length=False, content=_WHOLE
    ),
    "connect to a path": _odd(first="CONNECT /mcp HTTP/1.1", content=PLANTED),
    "connect to a host": _odd(first="CONNECT localhost:80 HTTP/1.1", content=PLANTED),
    "get with a body": _odd(first="GET /mcp HTTP/1.1", content=PLANTED),
    "options star": _odd(first="OPTIONS * HTTP/1.1", content=PLANTED),
    "expect": request("odd", "expect: 100-continue"),
    "expect nonsense": request("odd", "expect: nonsense"),
    "connection names the length": _odd("connection: content-length", content=PLANTED),
    "chunk extension": request(
        "odd", _TE, length=False, content=_WHOLE.replace(b"\r\n", b";a=b\r\n", 1)
    ),
    "chunk extension with a line feed": request(
        "odd", _TE, length=False, content=_WHOLE.replace(b"\r\n", b";a\nb\r\n", 1)
    ),
    "chunk ends with a line feed": request(
        "odd", _TE, length=False, content=_WHOLE.replace(b"\r\n", b"\n")
    ),
    "chunk of zeros": request("odd", _TE, length=False, content=b"00000" + _WHOLE),
    "chunk too large": request(
        "odd", _TE, length=False, content=b"ffffffffffffffff1\r\n" + PLANTED
    ),
    "chunk negative": request("odd", _TE, length=False, content=b"-1\r\n" + PLANTED),
    "chunk hex mark": request("odd", _TE, length=False, content=b"0x" + _WHOLE),
    "chunk with blanks": request("odd", _TE, length=False, content=b" " + _WHOLE),
    "trailers": request(
        "odd",
        _TE,
        length=False,
        content=chunked(body("odd"), last=b"0\r\ncontent-length: 9\r\n\r\n"),
    ),
    "garbage behind": request("odd") + b"\x00\x01 garbage\r\n\r\n",
}
"""By name: bytes with requests whose `x-id` begins with `odd`."""
