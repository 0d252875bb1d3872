"""A stdio MCP server with one tool, `echo`, that costs next to nothing.

Run as a program. One read, all whole lines in it, one write. The call that a benchmark makes is
recognised as bytes and its text copied as it came; everything else takes the decoded way, so that
this stays a correct server (initialize, ping, tools/list, tools/call, the errors of JSON-RPC).
Standard library only, and little of it: the start-up counts when a bridge starts many children.
"""

from __future__ import annotations

import json
import os
import re

READ_BYTES = 256 * 1024
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

# A whole line or nothing: a looser search could take an id from inside the arguments. A text with a
# backslash is left to the decoded way, since the end of the string is then no longer one search.
PLAIN_CALL = re.compile(
    rb'\{"jsonrpc":"2\.0","id":(-?\d+|"[^"\\]*"),"method":"tools/call",'
    rb'"params":\{"name":"echo","arguments":\{"text":("[^"\\]*")\}\}\}\r?'
)
TOOLS = [
    {
        "name": "echo",
        "description": "Answers the text it was given.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        },
    }
]


class Refused(Exception):
    """A request this server does not serve; becomes a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def answer(line: bytes) -> bytes:
    """The lines that answer one line of input; empty for what asks for no reply."""
    call = PLAIN_CALL.fullmatch(line)
    if call is None:
        return _answer_decoded(line)
    return (
        b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":%b}]}}\n'
        % call.groups()
    )


def _answer_decoded(line: bytes) -> bytes:
    if not line.strip():
        return b""
    reply: dict[str, object] = {"jsonrpc": "2.0", "id": None}
    notes = b""
    try:
        message = _decode(line)
        if "id" not in message or "method" not in message:
            return b""
        reply["id"] = message["id"]
        reply["result"] = _result(message["method"], message.get("params"))
        if message["method"] == "tools/call":
            notes = _progress(message["params"])
    except Refused as refused:
        reply["error"] = {"code": refused.code, "message": str(refused)}
    return notes + _line(reply)


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _progress(params: object) -> bytes:
    match params:
        case {"_meta": {"progressToken": token}, "arguments": {"progress": int(count)}}:
            method = {"jsonrpc": "2.0", "method": "notifications/progress"}
            given = ({"progressToken": token, "progress": i + 1} for i in range(count))
            return b"".join(_line({**method, "params": each}) for each in given)
    return b""


def _decode(line: bytes) -> dict[str, object]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused(-32700, "not JSON") from None
    if not isinstance(message, dict):
        raise Refused(-32600, "not an object")
    return message


def _result(method: object, params: object) -> dict[str, object]:
    given = params if isinstance(params, dict) else {}
    match method:
        case "tools/call":
            return _call(given)
        case "initialize":
            asked = given.get("protocolVersion")
            return {
                "protocolVersion": asked if asked in REVISIONS else REVISIONS[-1],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo-child", "version": "1"},
            }
        case "tools/list":
            return {"tools": TOOLS}
        case "ping":
            return {}
    raise Refused(-32601, "method not found")


def _call(params: dict[str, object]) -> dict[str, object]:
    arguments = params.get("arguments")
    text = arguments.get("text") if isinstance(arguments, dict) else None
    if params.get("name") != "echo" or not isinstance(text, str):
        raise Refused(-32602, "echo needs a text")
    content: dict[str, object] = {"content": [{"type": "text", "text": text}]}
    if isinstance(arguments, dict) and "structured" in arguments:
        content["structuredContent"] = arguments["structured"]
    return content


def _write_all(reply: bytes) -> None:
    rest = memoryview(reply)
    while rest:
        rest = rest[os.write(1, rest) :]


def main() -> None:
    """Serve standard input until it ends."""
    begun: list[bytes] = []  # the pieces of a line without its end yet, joined once
    while piece := os.read(0, READ_BYTES):
        *ended, rest = piece.split(b"\n")
        if ended:
            ended[0] = b"".join([*begun, ended[0]])
            begun.clear()
            _write_all(b"".join(map(answer, ended)))
        if rest:
            begun.append(rest)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        raise SystemExit(1) from None
