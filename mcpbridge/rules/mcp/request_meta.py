"""The envelope of 2026-07-28: what every request says of its client, in `params._meta`.

Source: MCP 2026-07-28, Base Protocol, `_meta`.
"""

from __future__ import annotations

import functools
import hashlib

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.methods import ASKED_ABILITY, LOG_LEVELS
from mcpbridge.wire.json_object import (
    may_hold_meta,
    member,
    opened,
    packed,
    part,
    spans,
    spliced,
    without,
)
from mcpbridge.wire.messages import Message, Notification, Request, text_of

RESERVED = "io.modelcontextprotocol/"
PROTOCOL_VERSION = RESERVED + "protocolVersion"
CLIENT_CAPABILITIES = RESERVED + "clientCapabilities"
CLIENT_INFO = RESERVED + "clientInfo"
LOG_LEVEL = RESERVED + "logLevel"
RELATED_TASK = RESERVED + "related-task"

_RETRY_KEYS = ("inputResponses", "requestState")
_SIGN = RESERVED.rstrip("/").encode()
_RECENT_BYTES = 2048
"""Of a longer `_meta` nothing is remembered, so that what is remembered is bounded."""


class RequestMeta(msgspec.Struct, frozen=True):
    """What one request says of its client."""

    version: str
    capabilities: bytes
    """The client's capabilities, as it wrote them."""
    abilities: frozenset[str]
    """Which of sampling, elicitation and roots it offers to be asked for."""
    url_elicitation: bool
    """It can send its user to a page."""
    form_elicitation: bool
    """It can show its user a form."""
    log_level: str | None
    """The least severe log message it wants; None: none at all."""

    @property
    def fingerprint(self) -> str:
        """The same for two clients that a legacy child cannot tell apart."""
        return hashlib.sha256(legacy_capabilities(self)).hexdigest()[:16]


def claimed_version(message: Message) -> bytes | None:
    """The raw value by which a message claims to be of a revision with envelopes, if any."""
    if not isinstance(message, Request | Notification) or message.params is None:
        return None
    # Without the solidus: some writers escape it.
    if not may_hold_meta(message.params, _SIGN):
        return None
    try:
        return member(message.params, "_meta", PROTOCOL_VERSION)
    except WireError:
        return None


def read_envelope(params: bytes | None) -> RequestMeta | str:
    """The envelope in the params of a request, or what is wrong with it.

    Raises:
        WireError: `params` or `_meta` names a member twice.
    """
    meta = member(params, "_meta") if params is not None else None
    if meta is None or not meta.startswith(b"{"):
        return "params._meta is missing"
    return _recent_envelope(meta) if len(meta) <= _RECENT_BYTES else _envelope(meta)


def _envelope(meta: bytes) -> RequestMeta | str:
    keys = opened(meta)
    version = text_of(keys.get(PROTOCOL_VERSION))
    if version is None:
        return f"_meta key {PROTOCOL_VERSION} (a string) is missing"
    capabilities = keys.get(CLIENT_CAPABILITIES)
    if capabilities is None or not capabilities.startswith(b"{"):
        return f"_meta key {CLIENT_CAPABILITIES} (an object) is missing"
    if LOG_LEVEL in keys and text_of(keys[LOG_LEVEL]) not in LOG_LEVELS:
        return f"_meta key {LOG_LEVEL} must be one of {', '.join(LOG_LEVELS)}"
    offered = {name: value for name, value in opened(capabilities).items() if value != b"null"}
    elicitation = offered.get("elicitation", b"null")
    modes = opened(elicitation) if elicitation.startswith(b"{") else {}
    return RequestMeta(
        version=version,
        capabilities=capabilities,
        abilities=frozenset(offered).intersection(ASKED_ABILITY.values()),
        url_elicitation="url" in modes,
        form_elicitation="elicitation" in offered and (not modes or "form" in modes),
        log_level=text_of(keys.get(LOG_LEVEL)),
    )


_recent_envelope = functools.lru_cache(maxsize=128)(_envelope)
"""A client says the same of itself with every request."""


def stripped(params: bytes | None) -> bytes | None:
    """The params as a legacy child expects them: without envelope and retry members.

    Trace and vendor keys of `_meta` stay; an empty `_meta` goes, since some servers do not answer
    a request that has one they do not know.
    """
    if params is None or not params.startswith(b"{"):
        return params
    members = spans(params)
    span = members.get("_meta")
    if span is None or not params.startswith(b"{", span[0]):
        return without(params, _RETRY_KEYS)
    meta = part(params, span)
    kept = _recent_kept(meta) if len(meta) <= _RECENT_BYTES else _kept(meta)
    if kept is None:
        return without(params, ("_meta", *_RETRY_KEYS))
    changed = spliced(params, span, kept)
    return changed if members.keys().isdisjoint(_RETRY_KEYS) else without(changed, _RETRY_KEYS)


def _kept(meta: bytes) -> bytes | None:
    """What of `_meta` is no part of the envelope; None where nothing is."""
    kept = {name: v for name, v in opened(meta).items() if not name.startswith(RESERVED)}
    return packed(kept) if kept else None


_recent_kept = functools.lru_cache(maxsize=128)(_kept)


def legacy_capabilities(envelope: RequestMeta) -> bytes:
    """The client capabilities to introduce a legacy child to, in one spelling.

    Roots without `listChanged` and no tasks: nothing in 2026-07-28 could serve them.
    """
    offered = opened(envelope.capabilities)
    kept: dict[str, bytes] = {}
    for ability in sorted(envelope.abilities):
        kept[ability] = b"{}" if ability == "roots" else _sorted(offered[ability])
    return packed(kept)


def _sorted(raw: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(raw), order="sorted")
    except msgspec.MsgspecError:  # A lone surrogate, a number beyond any machine's.
        return raw
