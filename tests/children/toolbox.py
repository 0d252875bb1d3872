"""An MCP server with tools that are not for all clients, and a record of all that it reads.

Usage: `toolbox.py handshake|modern FOLDER`. Every line it reads is added to `FOLDER/PID` before it
is obeyed. It lists its tools on three pages, in a spelling that no JSON library would write, and
calls any name at all.
"""

import json
import os
import sys
from typing import Any

from _mcp import answer, answer_line, introduce, write  # type: ignore[import-not-found]

KEY = "io.modelcontextprotocol/"
PAGES = {
    None: (
        b'{"tools": [ {"name":"read_it", "inputSchema":{"type":"object"},"n":1.00} ,'
        b'{"inputSchema":{"type":"object"},"name":"wipe_it"},'
        b'{"name":"r\\u0065ad_odd","inputSchema":{"type":"object"},"x":"\\ud800"} ],'
        b'"nextCursor":"two"%b}'
    ),
    "two": (
        b'{"tools":[{"name":"wipe_all","inputSchema":{"type":"object","properties":'
        b'{"region":{"type":"string","x-mcp-header":"Region"}}}}],"nextCursor":"three"%b}'
    ),
    "three": b'{"tools":[{"name":"read_last","inputSchema":{"type":"object"}}]%b}',
}
STAMP = b',"resultType":"complete","ttlMs":0,"cacheScope":"public"'


def discover(request_id: Any) -> None:
    """What a server of 2026-07-28 says of itself."""
    answer(
        request_id,
        {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "public",
            "_meta": {KEY + "serverInfo": {"name": "toolbox", "version": "1"}},
        },
    )


def obey(message: dict[str, Any], *, modern: bool) -> None:
    """Do what one request asks for."""
    request_id, method, params = message["id"], message["method"], message.get("params") or {}
    if method == "server/discover" and modern:
        discover(request_id)
    elif method == "initialize" and not modern:
        introduce(request_id, params)
    elif method == "tools/list":
        page = PAGES[params.get("cursor")] % (STAMP if modern else b"")
        write(answer_line(request_id, page) + b"\n")
    elif method == "tools/call":
        stamp = {"resultType": "complete"} if modern else {}
        said = {"content": [{"type": "text", "text": f"did {params.get('name')}"}], **stamp}
        answer(request_id, said)
    else:
        error = b'{"code":-32601,"message":"unknown method"}'
        write(b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (json.dumps(request_id).encode(), error))


def main(kind: str, folder: str) -> None:
    """Record and obey until stdin ends."""
    with open(os.path.join(folder, str(os.getpid())), "ab", 0) as record:
        for line in sys.stdin.buffer:
            record.write(line)
            message = json.loads(line)
            if "id" in message and "method" in message:
                obey(message, modern=kind == "modern")


if __name__ == "__main__":
    main(*sys.argv[1:])
