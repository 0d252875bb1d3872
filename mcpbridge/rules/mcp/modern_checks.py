"""Checks a request of 2026-07-28 in the specified order, with its codes and statuses.

| check | refused with |
|---|---|
| no routing header repeated | 400 -32020 |
| `_meta` with version and capabilities | 400 -32602 |
| header version = body version | 400 -32020 |
| version served | 400 -32022 |
| `Mcp-Method`, `Mcp-Name` = body | 400 -32020 |
| method exists in this revision, its capability is advertised | 404 -32601 |
| `Mcp-Param-*` = arguments | 400 -32020 |

Source: MCP 2026-07-28, Transports, Streamable HTTP; Errors.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    error_object,
)
from mcpbridge.rules.mcp.admission import Reason, Refusal, refuse
from mcpbridge.rules.mcp.methods import DISCOVER, INITIALIZE
from mcpbridge.rules.mcp.request_meta import RequestMeta, read_envelope
from mcpbridge.rules.mcp.revisions import MODERN, Era, Revision, known, served_dates
from mcpbridge.wire.headers import decoded_value
from mcpbridge.wire.json_object import elements, member
from mcpbridge.wire.messages import Message, Notification, Reply, Request, text_of

HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

NAME_SOURCE = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The parameter that `Mcp-Name` repeats."""

MAY_ASK = frozenset(("tools/call", "prompts/get", "resources/read"))
"""Requests that may be answered by `input_required`."""

_REMOVED = frozenset(
    (
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
    )
)
_CAPABILITY = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "completion": "completions",
}
"""By the part of a method before the slash."""
SUPPORTED = tuple(revision.date for revision in reversed(MODERN))
"""Served revisions with envelopes, newest first."""
_MODERN_ERA = Era.MODERN
"""Read once: with CPython 3.11 the class of an enum looks its members up by a slow path."""


class RoutingHeaders(msgspec.Struct, frozen=True):
    """The routing headers of 2026-07-28 on one request."""

    version: str | None
    method: str | None
    name: str | None
    params: Mapping[str, str]
    """`Mcp-Param-*` by lower-case name, without the prefix."""
    repeated: bool
    """Whether a routing header is repeated."""


def is_modern(message: Message, claim: bytes | None, version: str | None) -> bool:
    """Return whether the rules of 2026-07-28 apply to a message.

    Args:
        message: The decoded message.
        claim: The version that its body claims, as raw JSON; None if it claims none.
        version: The header's version, which decides if the body claims none.
    """
    if claim is not None:
        revision = known(text_of(claim))
        return revision is None or revision.era is _MODERN_ERA
    if isinstance(message, Request) and message.method == INITIALIZE:
        # Its params negotiate: what a header says about an earlier session does not count.
        return False
    revision = known(version)
    return revision is not None and revision.era is _MODERN_ERA


def check_request(request: Request, routing: RoutingHeaders) -> RequestMeta | Refusal:
    """Make the checks that need nothing but the request; return its envelope or a refusal."""
    if routing.repeated:
        return mismatch("a routing header is repeated")
    try:
        envelope = read_envelope(request.params)
    except WireError as error:
        return refuse(400, INVALID_REQUEST, str(error))
    if isinstance(envelope, str):
        if request.method == INITIALIZE:
            return mismatch(f"initialize does not exist in {routing.version}; send {DISCOVER}")
        return refuse(400, INVALID_PARAMS, envelope)
    return _compare(request, routing, envelope)


def check_method(method: str, capabilities: Collection[str], child: Revision) -> Refusal | None:
    """Check that the method exists in this revision and the server advertises its family.

    Args:
        method: The request's method.
        capabilities: The names that the server advertises.
        child: The child's revision. The tasks of 2025-11-25 are not those of this revision.
    """
    foreign = child.era is not _MODERN_ERA and method[:6] == "tasks/"
    if method in _REMOVED or foreign:
        return method_not_found(method)
    family, solidus, _ = method.partition("/")
    capability = _CAPABILITY.get(family) if solidus else None
    if capability is None or capability in capabilities:
        return None
    if capability == "completions" and not child.names_completion:
        return None
    return method_not_found(method)


def check_message(message: Message) -> Refusal | None:
    """Check a message that is not a request: answers do not exist in this revision."""
    if isinstance(message, Reply):
        return refuse(400, INVALID_REQUEST, "a client of 2026-07-28 sends no answers")
    assert isinstance(message, Request | Notification)
    return None


def method_not_found(method: str) -> Refusal:
    """Return the refusal of an unknown method; the specification prescribes the status."""
    problem = f"method not found: {method[:64]}"
    return refuse(404, METHOD_NOT_FOUND, problem, reason=Reason.MCP_METHOD)


def mismatch(why: str) -> Refusal:
    """Return the refusal of a request whose headers and body differ."""
    return refuse(400, HEADER_MISMATCH, why, reason=Reason.HEADER_MISMATCH)


def not_served() -> Refusal:
    """Return the refusal of this era; a code that clients of both eras do not take as modern.

    Such a client must fall back to `initialize`.
    """
    problem = f"only {served_dates()} are served here"
    return refuse(400, INVALID_REQUEST, problem, reason=Reason.REVISION)


def unsupported(requested: str | None) -> Refusal:
    """Return the refusal of a version that is not served."""
    data = {"supported": list(SUPPORTED), "requested": requested}
    error = error_object(UNSUPPORTED_VERSION, "unsupported protocol version", data)
    return Refusal(400, error, reason=Reason.REVISION)


def missing_capability(required: dict[str, object]) -> bytes:
    """Return the JSON-RPC error for a call that needs a capability that its client lacks."""
    return error_object(
        MISSING_CAPABILITY,
        "the call needs a client capability that was not declared",
        {"requiredCapabilities": required},
    )


def _compare(
    request: Request, routing: RoutingHeaders, envelope: RequestMeta
) -> RequestMeta | Refusal:
    if routing.version is None:
        return mismatch("MCP-Protocol-Version header is missing")
    if routing.version != envelope.version:
        return mismatch("MCP-Protocol-Version header and body differ")
    revision = known(envelope.version)
    if revision is None or revision.era is not _MODERN_ERA:
        return unsupported(envelope.version)
    if routing.method is None:
        return mismatch("Mcp-Method header is missing")
    if routing.method != request.method:
        return mismatch("Mcp-Method header and body differ")
    source = NAME_SOURCE.get(request.method)
    if source is not None:
        return _compare_name(request, routing, source) or envelope
    return envelope


def _compare_name(request: Request, routing: RoutingHeaders, source: str) -> Refusal | None:
    name = text_of(member(request.params or b"{}", source))
    if name is None:
        return refuse(400, INVALID_PARAMS, f"params.{source} (a string) is missing")
    if routing.name is None:
        return mismatch("Mcp-Name header is missing")
    if decoded_value(routing.name) != name:
        return mismatch(f"Mcp-Name header and params.{source} differ")
    return None


Path = tuple[str, ...]
Annotations = Mapping[str, Mapping[Path, str]]
"""By tool name: the path of each annotated property, and its header's lower-case name."""

_FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?\Z"
_KINDS = ("string", "integer", "boolean")


def annotations_in(tools_result: bytes) -> dict[str, dict[Path, str]]:
    """Return the annotations of every annotated tool in a `tools/list` result."""
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


def check_tool_params(
    params: bytes, routing: RoutingHeaders, paths: Mapping[Path, str]
) -> Refusal | None:
    """Check that the header of each annotated argument repeats its value."""
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
            good = (
                isinstance(header, str)
                and re.match(_FIELD_NAME, header)
                and below.get("type") in _KINDS
            )
            yield (*path, name), str(header).lower() if good else ""
        yield from _annotated(below, (*path, name))


def _same(raw: bytes, sent: str | None) -> bool:
    if sent is None:
        return False
    if raw.startswith(b'"'):
        return text_of(raw) == sent
    if raw in (b"true", b"false"):
        return raw.decode() == sent
    if re.match(_NUMBER, argument := raw.decode()) is None or re.match(_NUMBER, sent) is None:
        return False
    # 42 and 42.0 are the same number; a float cannot tell numbers of more than 15 digits apart.
    return decimal.Decimal(argument) == decimal.Decimal(sent)
