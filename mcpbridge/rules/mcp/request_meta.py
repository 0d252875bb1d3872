"""Reads the envelope of 2026-07-28: what a request says of its client in `params._meta`.

Source: MCP 2026-07-28, Base Protocol, `_meta`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.methods import ASKED_ABILITY, LOG_LEVELS
from mcpbridge.wire.json_object import (
    Payload,
    may_hold_meta,
    member,
    object_at,
    opened,
    packed,
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
_WITH_META = ("_meta", *_RETRY_KEYS)
_RECENT_BYTES = 2048
"""A longer `_meta` is not cached, which bounds the memory of the caches."""
T = TypeVar("T")


class RequestMeta(msgspec.Struct, frozen=True):
    """The envelope of one request."""

    version: str
    capabilities: bytes
    """The client's capabilities, as it wrote them."""
    abilities: frozenset[str]
    """The ones of sampling, elicitation and roots that the client offers."""
    url_elicitation: bool
    """Whether the client can send its user to a page."""
    form_elicitation: bool
    """Whether the client can show its user a form."""
    log_level: str | None
    """The least severe log message that it wants; None for no messages at all."""

    @property
    def fingerprint(self) -> str:
        """Equal for two clients that a legacy child cannot tell apart."""
        return hashlib.sha256(legacy_capabilities(self)).hexdigest()[:16]


def claimed_version(message: Message) -> bytes | None:
    """Return the raw value by which a message claims a revision with envelopes, or None."""
    if not isinstance(message, Request) and not isinstance(message, Notification):
        return None
    if message.params is None:
        return None
    # Without the slash: some writers escape it.
    if not may_hold_meta(message.params, _SIGN):
        return None
    try:
        meta = _meta_of(message.params)
        return _read_short(_recent_claim, _claim, meta) if meta is not None else None
    except WireError:
        return None


def progress_token(params: bytes | None) -> bytes | None:
    """Return the raw token under which a request asks for progress; None if it asks for none."""
    try:
        return member(params or b"{}", "_meta", "progressToken")
    except WireError:
        return None


def client_info(params: bytes | None) -> bytes | None:
    """Return what a request says of its client's name and version, as JSON; None if nothing."""
    try:
        return member(params or b"{}", "_meta", CLIENT_INFO)
    except WireError:
        return None


def read_envelope(params: bytes | None) -> RequestMeta | str:
    """Return the envelope in the params of a request, or the problem as a text.

    Raises:
        WireError: `params` or `_meta` names a member twice.
    """
    meta = _meta_of(params) if params is not None else None
    if meta is None:
        return "params._meta is missing"
    return _read_short(_recent_envelope, _envelope, meta)


def _meta_of(params: bytes) -> bytes | None:
    """Return `_meta`, the same object each time; None if there is none or it is not an object."""
    if params[:1] != b"{":
        return None
    if type(params) is Payload:
        return params.object_in("_meta")
    span = spans(params).get("_meta")
    if span is None or params[span[0] : span[0] + 1] != b"{":
        return None
    return object_at(params, span)


def _read_short(recent: Callable[[bytes], T], read: Callable[[bytes], T], meta: bytes) -> T:
    """Return what `read` returns for a `_meta`; from a cache if it is short."""
    return recent(meta) if len(meta) <= _RECENT_BYTES else read(meta)


def _claim(meta: bytes) -> bytes | None:
    return member(meta, PROTOCOL_VERSION)


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


def stripped(params: bytes | None) -> bytes | None:
    """Return the params as a legacy child expects them: without envelope and retry members.

    Trace and vendor keys of `_meta` stay; an empty `_meta` is removed, since some servers do not
    answer a request with a `_meta` that they do not know.
    """
    if params is None or not params.startswith(b"{"):
        return params
    meta = _meta_of(params)
    if meta is None:
        return without(params, _RETRY_KEYS)
    kept = _read_short(_recent_kept, _kept, meta)
    if kept is None:
        return without(params, _WITH_META)
    members = spans(params)
    changed = spliced(params, members["_meta"], kept)
    return changed if members.keys().isdisjoint(_RETRY_KEYS) else without(changed, _RETRY_KEYS)


def _kept(meta: bytes) -> bytes | None:
    """Return `_meta` without the envelope, or None if nothing is left."""
    kept = {name: v for name, v in opened(meta).items() if not name.startswith(RESERVED)}
    return packed(kept) if kept else None


# Most clients send the same envelope with every request. Without these caches a call of 2026-07-28
# costs 37,000 instructions more, an eighth of all.
_recent_claim = functools.lru_cache(maxsize=128)(_claim)
_recent_envelope = functools.lru_cache(maxsize=128)(_envelope)
_recent_kept = functools.lru_cache(maxsize=128)(_kept)


def legacy_capabilities(envelope: RequestMeta) -> bytes:
    """Return the client capabilities for a legacy child, in one spelling.

    Without `listChanged` of roots and without tasks, which nothing in 2026-07-28 could serve.
    """
    offered = opened(envelope.capabilities)
    kept: dict[str, bytes] = {}
    for ability in sorted(envelope.abilities):
        kept[ability] = b"{}" if ability == "roots" else _sorted(offered[ability])
    return packed(kept)


def _sorted(raw: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(raw), order="sorted")
    except msgspec.MsgspecError:  # A lone surrogate, or a number too large for any machine.
        return raw
