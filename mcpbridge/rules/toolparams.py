"""`Mcp-Param-*`: arguments that a tool's schema wants repeated in headers.

A schema annotates a property with `x-mcp-header`. An annotation that breaks its rules validates
nothing; clients drop such a tool from their list.

Source: MCP 2026-07-28, Tools, Header Parameters.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.admission import Refusal
from mcpbridge.rules.modern import Routing, mismatch
from mcpbridge.wire.headers import decoded_value
from mcpbridge.wire.json_object import elements, member
from mcpbridge.wire.messages import text_of

Path = tuple[str, ...]
Annotations = Mapping[str, Mapping[Path, str]]
"""By tool name: the path of each annotated property, and its header's lower-case name."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?\Z")
_KINDS = ("string", "integer", "boolean")


def annotations_in(tools_result: bytes) -> dict[str, dict[Path, str]]:
    """The annotations of every tool in a `tools/list` result; tools without any are left out."""
    found: dict[str, dict[Path, str]] = {}
    if b"x-mcp-header" not in tools_result:
        return found
    try:
        tools = elements(member(tools_result, "tools") or b"[]")
        for tool in tools:
            name = text_of(member(tool, "name"))
            schema = msgspec.json.decode(member(tool, "inputSchema") or b"{}")
            paths = dict(_annotated(schema, ()))
            lowered = list(paths.values())
            if name is not None and paths and len(set(lowered)) == len(lowered) and all(lowered):
                found[name] = paths
    except (WireError, msgspec.DecodeError):
        return found
    return found


def check_tool_params(params: bytes, routing: Routing, paths: Mapping[Path, str]) -> Refusal | None:
    """Whether each annotated argument that is there is repeated in its header, and truly."""
    for path, header in paths.items():
        raw = member(params, "arguments", *path)
        sent = routing.params.get(header)
        if raw is None or raw == b"null":
            if sent is not None:
                return mismatch(f"Mcp-Param-{header} repeats an argument that is not there")
            continue
        if sent is None:
            return mismatch(f"Mcp-Param-{header} header is missing")
        if not _same(raw, decoded_value(sent)):
            return mismatch(f"Mcp-Param-{header} header and argument differ")
    return None


def _annotated(schema: Any, path: Path) -> Iterator[tuple[Path, str]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    for name, below in properties.items():
        if not isinstance(below, dict):
            continue
        header = below.get("x-mcp-header")
        if header is not None:
            good = isinstance(header, str) and _TOKEN.match(header) and below.get("type") in _KINDS
            yield (*path, name), str(header).lower() if good else ""
        yield from _annotated(below, (*path, name))


def _same(raw: bytes, sent: str | None) -> bool:
    if sent is None:
        return False
    if raw.startswith(b'"'):
        return text_of(raw) == sent
    if raw in (b"true", b"false"):
        return raw.decode() == sent
    if _NUMBER.match(argument := raw.decode()) is None or _NUMBER.match(sent) is None:
        return False
    # 42 and 42.0 are the same number; of two with more than 15 digits a float would not tell.
    return decimal.Decimal(argument) == decimal.Decimal(sent)
