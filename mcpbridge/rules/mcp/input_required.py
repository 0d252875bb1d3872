"""Converts requests of a legacy child to `input_required`, and the answers back.

Source: MCP 2026-07-28, Multi Round-Trip Requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INVALID_PARAMS, METHOD_NOT_FOUND, error_object
from mcpbridge.rules.mcp.methods import ASKED_ABILITY
from mcpbridge.rules.mcp.request_meta import RequestMeta, stripped
from mcpbridge.wire.json_object import elements, member, opened, packed, with_members, without
from mcpbridge.wire.messages import Request, quoted, text_of

_UNKNOWN_ABOVE = ("elicitationId", "task")


def refusal_to_ask(server_request: Request, envelope: RequestMeta) -> bytes | None:
    """Return the error if a child asks for what the client does not offer; None if it does."""
    ability = ASKED_ABILITY.get(server_request.method)
    if ability is None or ability not in envelope.abilities:
        return error_object(
            METHOD_NOT_FOUND, f"the client does not offer {server_request.method[:64]}"
        )
    if ability == "elicitation":
        mode = text_of(member(server_request.params or b"{}", "mode")) or "form"
        offered = {"url": envelope.url_elicitation, "form": envelope.form_elicitation}
        if not offered.get(mode):
            return error_object(INVALID_PARAMS, f"the client has no elicitation mode {mode[:16]!r}")
    return None


def input_request(server_request: Request) -> bytes:
    """Encode a server request as an entry of `inputRequests`."""
    params = without(server_request.params or b"{}", _UNKNOWN_ABOVE)
    meta = member(params, "_meta")
    if meta is not None and meta.startswith(b"{"):
        kept = without(meta, ("progressToken",))
        params = with_members(params, {"_meta": kept})
    return packed({"method": quoted(server_request.method), "params": params})


def input_required(requests: Mapping[str, bytes], state: str) -> bytes:
    """Return the result that asks the client for input."""
    return packed(
        {
            "resultType": b'"input_required"',
            "inputRequests": packed(requests),
            "requestState": quoted(state),
        }
    )


def input_responses(params: bytes | None) -> dict[str, bytes]:
    """Return the answers that a retry carries, by key; values that are not objects are left out."""
    raw = member(params or b"{}", "inputResponses")
    if raw is None or not raw.startswith(b"{"):
        return {}
    return {key: value for key, value in opened(raw).items() if value.startswith(b"{")}


def request_state(params: bytes | None) -> str | None:
    """Return the `requestState` of a retry, or None; empty, hence invalid, if it is not a text."""
    raw = member(params or b"{}", "requestState")
    return None if raw is None or raw == b"null" else text_of(raw) or ""


def digest(method: str, params: bytes | None) -> str:
    """Return a hash of what must not change between two attempts of a call.

    That is everything but the envelope and the answers, independent of the order of members.
    """
    salient = without(stripped(params) or b"{}", ("_meta",))
    with suppress(msgspec.MsgspecError):  # A number too large for any machine: its spelling counts.
        salient = msgspec.json.encode(msgspec.json.decode(salient), order="sorted")
    return hashlib.sha256(method.encode() + b"\0" + salient).hexdigest()


def pages_to_visit(error: bytes) -> dict[str, bytes] | None:
    """Convert the url elicitations in a -32042 error of 2025-11-25 to `inputRequests`."""
    raw = member(error, "data", "elicitations")
    if raw is None or not raw.startswith(b"["):
        return None
    requests: dict[str, bytes] = {}
    try:
        for place, entry in enumerate(elements(raw), 1):
            params = without(entry, _UNKNOWN_ABOVE)
            params = with_members(params, {"mode": b'"url"'})
            requests[f"i{place}"] = packed({"method": b'"elicitation/create"', "params": params})
    except WireError:
        return None
    return requests or None


def all_accepted(responses: Mapping[str, bytes], count: int) -> bool:
    """Return whether the user agreed to visit every page."""
    actions = [text_of(member(value, "action")) for value in responses.values()]
    return len(actions) >= count and all(action == "accept" for action in actions)
