"""Classifies how a call ended, in one word for metrics and traces.

| word | meaning |
|---|---|
| `ok` | the server's result |
| `tool_error` | the server's result, with the tool's failure |
| `error` | the server's JSON-RPC error |
| `cancelled` | the client cancelled it |
| `fault` | the bridge answered in the server's place; the fault has the reason |

Source: MCP 2025-11-25, Tools, Error Handling: `isError` in a result is a failure of the tool.
"""

from __future__ import annotations

import re

from mcpbridge.errors import WireError
from mcpbridge.rules.faults import Fault
from mcpbridge.wire.json_object import LONG_BYTES, Payload, member
from mcpbridge.wire.messages import Failure, Reply, Result

OK = "ok"
TOOL_ERROR = "tool_error"
ERROR = "error"
CANCELLED = "cancelled"
FAULT = "fault"

TOOLS_CALL = "tools/call"

_SIGN = b'"isError"'
_FIRST = ord("E")
"""A byte of the name that is rare; see `wire.json_object.BACKSLASH`."""
_FLAG = r"--[a-z-]+"
_BLANKS_AND_COLON = b" \t\r\n:"


def outcome_of(method: str, reply: Reply, fault: Fault | None) -> str:
    """Return the word for a call with this final answer.

    Args:
        method: The request's method.
        reply: The client's answer.
        fault: Why the bridge answered in the server's place, if it did.
    """
    if fault is not None:
        return CANCELLED if fault.reason == "cancelled" else FAULT
    if not isinstance(reply, Result):
        return ERROR
    return TOOL_ERROR if method == TOOLS_CALL and is_tool_error(reply.result) else OK


def is_tool_error(result: bytes) -> bool:
    """Return whether a result of `tools/call` says that the tool failed.

    Costs one search; the result is decoded only if the name occurs. A long result whose members are
    known is not searched.
    """
    if len(result) >= LONG_BYTES and type(result) is Payload and result.known is not None:
        return member(result, "isError") == b"true"
    if _FIRST not in result:
        return False  # one byte is sought natively, where the whole name takes each byte in turn
    at = result.find(_SIGN)
    while at >= 0:
        after = at + len(_SIGN)
        if result[after : after + 16].lstrip(_BLANKS_AND_COLON).startswith(b"true"):
            # A nested member may have that name too.
            try:
                return member(result, "isError") == b"true"
            except WireError:
                return False
        at = result.find(_SIGN, after)
    return False


def error_type(outcome: str, reply: Reply, fault: Fault | None, code: int | None) -> str | None:
    """Return the `error.type` of OpenTelemetry, or None for success.

    Source: OpenTelemetry semantic conventions for MCP.
    """
    if outcome == OK:
        return None
    if fault is not None:
        return fault.reason
    return TOOL_ERROR if not isinstance(reply, Failure) else str(code)


def limit_of(fault: Fault) -> str | None:
    """Return the flag of the limit that a fault reports; None for another kind of fault."""
    if fault.reason != "capacity":
        return None
    found = re.search(_FLAG, fault.message)
    return found[0] if found is not None else "other"
