"""Converts answers and requests of a child of 2026-07-28 for a client of a legacy revision.

Source: MCP 2026-07-28, Base Protocol; MCP 2025-11-25, Lifecycle; Tools, Output Schema.
"""

from __future__ import annotations

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INTERNAL_ERROR, error_object
from mcpbridge.rules.mcp.initialize import SERVER_INFO, ClientProfile, ServerProfile
from mcpbridge.rules.mcp.methods import SUBSCRIPTION_ID
from mcpbridge.rules.mcp.modern_checks import (
    HEADER_MISMATCH,
    MISSING_CAPABILITY,
    SUPPORTED,
    UNSUPPORTED_VERSION,
)
from mcpbridge.rules.mcp.request_meta import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    LOG_LEVEL,
    PROTOCOL_VERSION,
)
from mcpbridge.rules.mcp.revisions import Revision
from mcpbridge.rules.mcp.to_modern import code_of
from mcpbridge.wire.json_object import elements, member, opened, packed, with_members, without
from mcpbridge.wire.messages import Notification, quoted, text_of

TASKS = "io.modelcontextprotocol/tasks"
_ADDED = ("resultType", "ttlMs", "cacheScope")
_NAMELESS = msgspec.json.encode({"name": "mcp-server", "version": "0"})


def introduced(profile: ServerProfile, revision: Revision) -> bytes:
    """Build the result of `initialize` from the profile of a child of 2026-07-28."""
    capabilities = opened(member(profile.result, "capabilities") or b"{}")
    if "extensions" in capabilities:
        kept = without(capabilities["extensions"], (TASKS,))
        capabilities["extensions"] = kept
    members = {
        "protocolVersion": quoted(revision.date),
        "capabilities": packed(capabilities),
        "serverInfo": _server_info(profile),
    }
    instructions = member(profile.result, "instructions")
    if instructions is not None:
        members["instructions"] = instructions
    return packed(members)


def enveloped(
    params: bytes | None,
    client_profile: ClientProfile | None,
    log_level: str | None,
    added: dict[str, bytes] | None = None,
) -> bytes:
    """Return the params of a legacy client's request as a child of 2026-07-28 expects them.

    Args:
        params: The client's params.
        client_profile: The client's `initialize`.
        log_level: The level that it set with `logging/setLevel`.
        added: Additional members of a retry.
    """
    members = opened(params) if params is not None and params.startswith(b"{") else {}
    meta = opened(members["_meta"]) if members.get("_meta", b"").startswith(b"{") else {}
    meta[PROTOCOL_VERSION] = quoted(SUPPORTED[0])
    meta[CLIENT_CAPABILITIES] = _capabilities(client_profile)
    client_info = (
        member(client_profile.params, "clientInfo") if client_profile is not None else None
    )
    if client_info is not None:
        meta[CLIENT_INFO] = client_info
    if log_level is not None:
        meta[LOG_LEVEL] = quoted(log_level)
    return packed({**members, **(added or {}), "_meta": packed(meta)})


def result_type(result: bytes) -> str:
    """Return the result's type; `complete` if it has none."""
    return text_of(member(result, "resultType")) or "complete"


def server_request_down(method: str, params: bytes | None, page_id: str) -> bytes | None:
    """Convert the params of a server request to the legacy revisions.

    Args:
        method: The request's method.
        params: The child's params.
        page_id: Id for a page to visit, which is required there and unknown to 2026-07-28.
    """
    if method != "elicitation/create" or params is None:
        return params
    if text_of(member(params, "mode")) != "url" or member(params, "elicitationId") is not None:
        return params
    return with_members(params, {"elicitationId": quoted(page_id)})


def result_down(result: bytes, method: str, *, wrap: bool = False) -> tuple[bytes, frozenset[str]]:
    """Convert a complete result; also return the tools whose output schema was changed.

    The legacy revisions know only objects as output schemas and as structured content, and their
    SDK clients check the one against the other: both must be wrapped, or neither.

    Args:
        result: The child's result.
        method: The method of the call.
        wrap: Whether the client has seen a changed output schema of the tool that is called.
    """
    members = {name: value for name, value in opened(result).items() if name not in _ADDED}
    meta = members.get("_meta", b"")
    if meta.startswith(b"{"):
        kept = without(meta, (SERVER_INFO, SUBSCRIPTION_ID))
        if kept == b"{}":
            del members["_meta"]
        else:
            members["_meta"] = kept
    changed: frozenset[str] = frozenset()
    if method == "tools/list":
        changed = _adapt_tools(members)
    elif method == "tools/call":
        _adapt_content(members, wrap=wrap)
    return packed(members), changed


def plain_notification(notification: Notification) -> Notification:
    """Convert a notification of a listen to a session's."""
    params = opened(notification.params or b"{}")
    meta = params.get("_meta", b"")
    if meta.startswith(b"{"):
        kept = without(meta, (SUBSCRIPTION_ID,))
        if kept == b"{}":
            del params["_meta"]
        else:
            params["_meta"] = kept
    return Notification(notification.method, packed(params) if params else None)


def error_down(error: bytes) -> bytes:
    """Convert an error of a child of 2026-07-28 for a client that knows no envelope.

    An error about the envelope concerns what the bridge wrote, not what the client wrote.
    """
    if code_of(error) in (HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION):
        return error_object(
            INTERNAL_ERROR, "the MCP server refused the request", {"original": msgspec.Raw(error)}
        )
    return error


def _adapt_tools(members: dict[str, bytes]) -> frozenset[str]:
    """Make every output schema an object's; return the tools whose schema was wrapped."""
    raw = members.get("tools")
    if raw is None or b"outputSchema" not in raw:
        return frozenset()
    wrapped: set[str] = set()
    tools: list[bytes] = []
    for tool in elements(raw):
        schema = member(tool, "outputSchema")
        if schema is not None and text_of(_type_in(schema)) != "object":
            wrapped.add(text_of(member(tool, "name")) or "")
            around = {
                "type": b'"object"',
                "properties": packed({"result": schema}),
                "required": b'["result"]',
            }
            tool = with_members(tool, {"outputSchema": packed(around)})
        tools.append(tool)
    members["tools"] = b"[%b]" % b",".join(tools)
    return frozenset(wrapped)


def _adapt_content(members: dict[str, bytes], *, wrap: bool) -> None:
    """Make the structured content an object, to match its schema."""
    value = members.get("structuredContent")
    if value is None or (value.startswith(b"{") and not wrap):
        return
    content = members.get("content", b"[]")
    if b'"text"' not in content:
        # The value may be most of 16 MB: it is copied as few times as possible.
        text = quoted(value.decode("utf-8", "replace"))
        before = b"".join(b"%b," % element for element in elements(content))
        members["content"] = b'[%b{"type":"text","text":%b}]' % (before, text)
    members["structuredContent"] = b'{"result":%b}' % value


def _type_in(schema: bytes) -> bytes | None:
    try:
        return member(schema, "type")
    except WireError:
        return None


def _server_info(profile: ServerProfile) -> bytes:
    info = profile.server_info
    if info is None:
        return _NAMELESS
    named = {**opened(_NAMELESS), **opened(info)}
    # Both members are required there, and some clients refuse empty ones.
    return packed({name: v if v != b'""' else b'"0"' for name, v in named.items()})


def _capabilities(client_profile: ClientProfile | None) -> bytes:
    raw = member(client_profile.params, "capabilities") if client_profile is not None else None
    if raw is None:
        return b"{}"
    offered = {name: v for name, v in opened(raw).items() if name != "tasks" and v != b"null"}
    if "roots" in offered:
        offered["roots"] = b"{}"
    if offered.get("extensions", b"").startswith(b"{"):
        offered["extensions"] = without(offered["extensions"], (TASKS,))
    return packed(offered)
