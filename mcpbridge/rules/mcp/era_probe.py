"""Finds out which eras a child speaks: the probe, and the meaning of its answer.

The first message on a pipe may pin the era of the whole process, and some servers exit on a
message they do not expect. So the probe is the first message of the first process. One that
answers as a server of 2026-07-28 serves that era; one that answers with an error is asked to
`initialize`; one that the probe has harmed is replaced by another, which is not asked.

Source: MCP 2026-07-28, Transports, stdio, Backward Compatibility: fall back on anything but a
result or a recognised error, and key on no single code.
"""

from __future__ import annotations

import enum

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.initialize import ServerProfile, read_discovery
from mcpbridge.rules.mcp.modern_checks import (
    HEADER_MISMATCH,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from mcpbridge.rules.mcp.request_meta import CLIENT_CAPABILITIES, CLIENT_INFO, PROTOCOL_VERSION
from mcpbridge.rules.mcp.revisions import MODERN, Revision, known
from mcpbridge.rules.mcp.to_modern import code_of
from mcpbridge.wire.json_object import elements, member
from mcpbridge.wire.messages import Reply, Result, text_of


class ChildEra(enum.Enum):
    """The operator's setting for what the server speaks."""

    AUTO = "auto"
    """Probe the first process of the server."""
    LEGACY = "legacy"
    MODERN = "modern"
    DUAL = "dual"


class ServerEras(msgspec.Struct, frozen=True):
    """The eras that the server speaks; what is known is constant while the bridge lives."""

    legacy: bool | None
    """None: it speaks 2026-07-28, and no client of the legacy revisions has come yet."""
    modern: bool

    @property
    def in_words(self) -> str:
        """The eras for a log: `legacy`, `modern`, or `legacy and modern`."""
        spoken = (("legacy", self.legacy), ("modern", self.modern))
        return " and ".join(name for name, speaks in spoken if speaks)


VERDICTS = {
    ChildEra.LEGACY: ServerEras(legacy=True, modern=False),
    ChildEra.MODERN: ServerEras(legacy=False, modern=True),
    ChildEra.DUAL: ServerEras(legacy=True, modern=True),
}
"""The eras for each setting that needs no probe."""


def own_envelope(version: str, bridge_version: str) -> bytes:
    """Return the params of a request that the bridge itself sends to a child of 2026-07-28."""
    meta = {
        PROTOCOL_VERSION: version,
        CLIENT_CAPABILITIES: {},
        CLIENT_INFO: {"name": "mcpbridge", "version": bridge_version},
    }
    return msgspec.json.encode({"_meta": meta})


def speaks_modern(reply: Reply) -> bool:
    """Return whether an answer to the probe can only come from a server of 2026-07-28."""
    if isinstance(reply, Result):
        return read_discovery(reply.result) is not None
    code = code_of(reply.error)
    if code == UNSUPPORTED_VERSION:
        return _names_a_known_version(reply.error)
    return code in (HEADER_MISMATCH, MISSING_CAPABILITY)


def _names_a_known_version(error: bytes) -> bool:
    try:
        raw = member(error, "data", "supported")
        dates = [text_of(date) for date in elements(raw)] if raw is not None else []
    except WireError:
        return False
    return any(_is_modern(known(date)) for date in dates)


def _is_modern(revision: Revision | None) -> bool:
    return revision is not None and revision in MODERN


def discovery_of(reply: Reply) -> ServerProfile | None:
    """Return the profile in an answer to `server/discover`; None if there is none."""
    return read_discovery(reply.result) if isinstance(reply, Result) else None
