"""What a child said of itself in its handshake, and what is answered from it.

One child may serve many sessions; each session's `initialize` is answered from the record of the
one handshake the bridge did with it, with only the revision adapted.

Source: MCP 2024-11-05 to 2025-11-25, Lifecycle, Initialization.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.methods import ASKED_ABILITY, LIST_CHANGED
from mcpbridge.rules.mcp.revisions import MODERN, NEWEST_LEGACY, Era, Revision, known, negotiated
from mcpbridge.wire.json_object import elements, member, opened, replaced, spans
from mcpbridge.wire.messages import quoted, text_of

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
"""Where a result of 2026-07-28 says who made it."""


class ServerProfile(msgspec.Struct, frozen=True):
    """A child's answer to `initialize`, or to `server/discover`, as it came."""

    result: bytes
    revision: Revision

    def answer(self, requested: str | None) -> tuple[Revision, bytes]:
        """The revision and the result to answer another client's `initialize` with."""
        revision = negotiated(requested, self.revision)
        if revision is self.revision:
            return revision, self.result
        span = spans(self.result)["protocolVersion"]
        return revision, replaced(self.result, [(span, quoted(revision.date))])

    @property
    def changing_lists(self) -> tuple[str, ...]:
        """The notifications by which this child tells that a list of its has changed."""
        return tuple(
            method
            for capability, method in LIST_CHANGED.items()
            if self._says_true("capabilities", capability, "listChanged")
        )

    def _says_true(self, *path: str) -> bool:
        try:
            return member(self.result, *path) == b"true"
        except WireError:
            return False

    @property
    def server_info(self) -> bytes | None:
        """Who the child says it is."""
        path = ("serverInfo",) if self.revision.era is Era.LEGACY else ("_meta", SERVER_INFO)
        try:
            return member(self.result, *path)
        except WireError:
            return None

    @property
    def capabilities(self) -> Mapping[str, bytes]:
        """What the child offers, by name."""
        return _capabilities(self.result)

    @property
    def name(self) -> str:
        """The child's name for itself, for people."""
        try:
            return text_of(member(self.server_info or b"{}", "name")) or "unnamed"
        except WireError:
            return "unnamed"

    @property
    def version(self) -> str | None:
        """The child's version of itself; None if it gives none."""
        try:
            return text_of(member(self.server_info or b"{}", "version"))
        except WireError:
            return None


@functools.lru_cache(maxsize=16)
def _capabilities(result: bytes) -> Mapping[str, bytes]:
    # Each request of 2026-07-28 is checked against them; there are but a few children.
    try:
        return opened(member(result, "capabilities") or b"{}")
    except WireError:
        return {}


def read_profile(result: bytes) -> ServerProfile | None:
    """The profile in an `initialize` result; None where it is none a handshake can rest on."""
    try:
        revision = known(text_of(member(result, "protocolVersion")))
    except WireError:
        return None
    if revision is None or revision.era is not Era.LEGACY:
        return None
    return ServerProfile(result, revision)


def read_discovery(result: bytes) -> ServerProfile | None:
    """The profile in a `server/discover` result; None where it names no version known here."""
    try:
        raw = member(result, "supportedVersions")
        dates = {text_of(date) for date in elements(raw)} if raw is not None else set()
    except WireError:
        return None
    for revision in reversed(MODERN):
        if revision.date in dates:
            return ServerProfile(result, revision)
    return None


class ClientProfile(msgspec.Struct, frozen=True):
    """What a client said of itself in `initialize`."""

    params: bytes
    requested: str
    """The revision it asked for, as it spelled it."""
    abilities: frozenset[str]
    """Which of sampling, elicitation and roots it offers to be asked for."""


def read_introduction(params: bytes | None) -> ClientProfile | None:
    """The introduction in the params of `initialize`; None where they are not what they must be.

    Raises:
        DuplicateMember: A member that decides is named twice.
    """
    if params is None or not params.startswith(b"{"):
        return None
    requested = text_of(member(params, "protocolVersion"))
    capabilities = member(params, "capabilities")
    if requested is None or capabilities is None or not capabilities.startswith(b"{"):
        return None
    offered = frozenset(
        name
        for name, (start, end) in spans(capabilities).items()
        if name in ASKED_ABILITY.values() and capabilities[start:end] != b"null"
    )
    return ClientProfile(params, requested, offered)


def bridge_introduction(version: str) -> bytes:
    """The params with which the bridge itself introduces itself to a child it shares out.

    It offers nothing: a question of a shared child could not be attributed to a session.
    """
    return msgspec.json.encode(
        {
            "protocolVersion": NEWEST_LEGACY.date,
            "capabilities": {},
            "clientInfo": {"name": "mcpbridge", "version": version},
        }
    )
