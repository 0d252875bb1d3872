"""Completes answers of a legacy child for a client of 2026-07-28.

Source: MCP 2026-07-28, Base Protocol, Results; Errors; Caching.
"""

from __future__ import annotations

import functools

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INTERNAL_ERROR, INVALID_PARAMS, error_object
from mcpbridge.rules.mcp.initialize import SERVER_INFO, ServerProfile
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.rules.mcp.request_meta import RELATED_TASK
from mcpbridge.wire.json_object import (
    LONG_BYTES,
    elements,
    may_hold_meta,
    member,
    opened,
    packed,
    viewed,
    without,
)
from mcpbridge.wire.messages import Reply, Result

CACHEABLE = frozenset(
    (
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    )
)
_PRIVATE = b'"private"'
_T = ord("T")
NOT_FOUND_BEFORE = -32002
"""Resource not found, in the legacy revisions."""
URL_REQUIRED_BEFORE = -32042
"""Code of 2025-11-25 for a page that must be visited first."""


def discovered(profile: ServerProfile, serves_legacy: tuple[str, ...]) -> bytes:
    """Build the result of `server/discover` from the profile of a legacy child."""
    said = opened(profile.result)
    dates = (*SUPPORTED, *serves_legacy)
    members = {
        "supportedVersions": msgspec.json.encode(dates),
        "capabilities": packed({n: v for n, v in profile.capabilities.items() if n != "tasks"}),
    }
    if "instructions" in said:
        members["instructions"] = said["instructions"]
    return completed(packed(members), "server/discover", profile)


def completed(result: bytes, method: str, profile: ServerProfile) -> bytes:
    """Add the members that 2026-07-28 requires of a result.

    Existing members stay; those that only the tasks of 2025-11-25 know are removed.
    """
    if len(result) < LONG_BYTES and _takes_only_stamps(result, method):
        stamp = _bare_stamp(profile)
        return b'%b,"resultType":"complete","_meta":%b}' % (result[:-1], stamp)
    try:
        members = viewed(result)
    except WireError:
        return result
    members.setdefault("resultType", b'"complete"')
    if method in CACHEABLE and members["resultType"] == b'"complete"':
        # The lifetime is unknown, and children are per principal.
        members.setdefault("ttlMs", b"0")
        members.setdefault("cacheScope", _PRIVATE)
    if method == "tools/list" and "tools" in members:
        members["tools"] = _without_execution(bytes(members["tools"]))
    meta = members.get("_meta")
    members["_meta"] = _stamped(bytes(meta) if meta is not None else None, profile)
    return packed(members)


def privately(reply: Reply) -> Reply:
    """Mark a reply as private, whatever the server says, so that no cache shares it.

    The bridge tells clients apart, and the server behind it does not know how.

    Raises:
        WireError: The server's own mark cannot be read beyond doubt.

    Source: MCP 2026-07-28, Caching.
    """
    if not isinstance(reply, Result) or not reply.result.startswith(b"{"):
        return reply
    if b"public" not in reply.result and b"\\u" not in reply.result:
        return reply
    members = opened(reply.result)
    if members.get("cacheScope", _PRIVATE) == _PRIVATE:
        return reply
    return Result(reply.id, packed({**members, "cacheScope": _PRIVATE}), reply.extra)


def _takes_only_stamps(result: bytes, method: str) -> bool:
    """Return whether a result lacks the stamps, which is usual and needs no decoding."""
    closed = result[:2] == b'{"' and result[-1:] == b"}"
    # One byte is sought first: see `may_hold_meta`.
    typed = _T in result and result.find(b"resultType") >= 0
    has_them = typed or may_hold_meta(result, b"_meta")
    return closed and not has_them and method not in CACHEABLE


def error_up(error: bytes) -> bytes:
    """Convert an error of a legacy child to codes with the same meaning in 2026-07-28."""
    code = code_of(error)
    if code is None:
        return error_object(INTERNAL_ERROR, "the MCP server answered with a malformed error")
    members = opened(error)
    if code == NOT_FOUND_BEFORE:
        members["code"] = b"%d" % INVALID_PARAMS
    elif -32099 <= code <= -32020:
        # The specification reserves the range; codes with another meaning must not appear in it.
        members = {
            "code": b"%d" % INTERNAL_ERROR,
            "message": members.get("message", b'"error"'),
            "data": packed({"original": error}),
        }
    else:
        return error
    return packed(members)


def code_of(error: bytes) -> int | None:
    """Return the code of a JSON-RPC error object, or None if it has none."""
    try:
        raw = member(error, "code")
        return int(raw) if raw is not None else None
    except (WireError, ValueError):
        return None


def _stamped(meta: bytes | None, profile: ServerProfile) -> bytes:
    keys = opened(meta) if meta is not None and meta.startswith(b"{") else {}
    keys.pop(RELATED_TASK, None)
    server_info = profile.server_info
    if server_info is not None:
        keys.setdefault(SERVER_INFO, server_info)
    return packed(keys)


@functools.lru_cache(maxsize=16)
def _bare_stamp(profile: ServerProfile) -> bytes:
    """Return the `_meta` of results that have none; the same for all answers of a child."""
    return _stamped(None, profile)


def _without_execution(tools: bytes) -> bytes:
    if b"execution" not in tools:
        return tools
    try:
        kept = [without(tool, ("execution",)) for tool in elements(tools)]
    except WireError:
        return tools
    return b"[%b]" % b",".join(kept)
