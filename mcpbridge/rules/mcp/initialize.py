"""Keeps what a child or client said in `initialize`, and builds answers from it.

One child may serve many sessions; each session's `initialize` is answered from the record of the
single handshake between the bridge and the child, with only the revision adapted.

Source: MCP 2024-11-05 to 2025-11-25, Lifecycle, Initialization.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.methods import ASKED_ABILITY, LIST_CHANGED
from mcpbridge.rules.mcp.revisions import MODERN, NEWEST_LEGACY, Era, Revision, known, negotiated
from mcpbridge.wire.json_object import (
    elements,
    member,
    opened,
    replaced,
    spans,
    with_members,
)
from mcpbridge.wire.messages import quoted, text_of

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
"""The key under which a result of 2026-07-28 names its server."""
_MOST_OF_NAME = 80
"""Most characters of a client's name and version that are shown."""


class ServerProfile(msgspec.Struct, frozen=True):
    """A child's result of `initialize` or `server/discover`, unchanged."""

    result: bytes
    revision: Revision

    def __hash__(self) -> int:
        # Bytes remember their hash; that of a revision would be made with each call.
        return hash(self.result)

    def answer(self, requested: str | None) -> tuple[Revision, bytes]:
        """Return the revision and the result for another client's `initialize`."""
        revision = negotiated(requested, self.revision)
        if revision is self.revision:
            return revision, self.result
        span = spans(self.result)["protocolVersion"]
        return revision, replaced(self.result, [(span, quoted(revision.date))])

    @property
    def names_legacy(self) -> bool:
        """Whether an answer to `server/discover` names a legacy revision too."""
        dates = _dates(self.result)
        revisions = (known(date) for date in dates)
        return any(each is not None and each.era is Era.LEGACY for each in revisions)

    @property
    def changing_lists(self) -> tuple[str, ...]:
        """The methods of the list-changed notifications that this child sends."""
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
        """The child's `serverInfo` as JSON, or None."""
        path = ("serverInfo",) if self.revision.era is Era.LEGACY else ("_meta", SERVER_INFO)
        try:
            return member(self.result, *path)
        except WireError:
            return None

    @property
    def capabilities(self) -> Mapping[str, bytes]:
        """The child's capabilities by name."""
        return _capabilities(self.result)

    @property
    def name(self) -> str:
        """The child's name for people."""
        try:
            return text_of(member(self.server_info or b"{}", "name")) or "unnamed"
        except WireError:
            return "unnamed"

    @property
    def version(self) -> str | None:
        """The child's version; None if it gives none."""
        try:
            return text_of(member(self.server_info or b"{}", "version"))
        except WireError:
            return None


@functools.lru_cache(maxsize=16)
def _capabilities(result: bytes) -> Mapping[str, bytes]:
    # Each request of 2026-07-28 is checked against them; there are only a few children.
    try:
        return opened(member(result, "capabilities") or b"{}")
    except WireError:
        return {}


def read_profile(result: bytes) -> ServerProfile | None:
    """Return the profile in an `initialize` result; None if no handshake can rest on it."""
    try:
        revision = known(text_of(member(result, "protocolVersion")))
    except WireError:
        return None
    if revision is None or revision.era is not Era.LEGACY:
        return None
    return ServerProfile(result, revision)


def read_discovery(result: bytes) -> ServerProfile | None:
    """Return the profile in a `server/discover` result; None if it names no known version."""
    dates = _dates(result)
    for revision in reversed(MODERN):
        if revision.date in dates:
            return ServerProfile(result, revision)
    return None


def with_changing_lists(result: bytes) -> bytes:
    """Return the result of a handshake that announces changes of each list that it offers.

    Raises:
        WireError: It cannot be read.
    """
    raw = member(result, "capabilities")
    if raw is None or not raw.startswith(b"{"):
        return result
    offered = opened(raw)
    changing = {
        name: with_members(offered[name], {"listChanged": b"true"})
        for name in LIST_CHANGED
        if offered.get(name, b"").startswith(b"{")
    }
    return with_members(result, {"capabilities": with_members(raw, changing)})


def differences(told: ServerProfile, profile: ServerProfile) -> str:
    """The members in which two answers to `initialize` differ, by name; empty if they do not."""
    try:
        one, other = opened(told.result), opened(profile.result)
    except WireError:
        return "result"
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return ", ".join(names)


def _dates(result: bytes) -> set[str | None]:
    """The revisions that a `server/discover` result names; empty if it cannot be read."""
    try:
        raw = member(result, "supportedVersions")
        return {text_of(date) for date in elements(raw)} if raw is not None else set()
    except WireError:
        return set()


class ClientProfile(msgspec.Struct, frozen=True):
    """The params of a client's `initialize`."""

    params: bytes
    requested: str
    """The revision it asked for, as it spelled it."""
    abilities: frozenset[str]
    """The ones of sampling, elicitation and roots that the client offers."""


def read_introduction(params: bytes | None) -> ClientProfile | None:
    """Parse the params of `initialize`; None if a required member is missing or invalid.

    Raises:
        DuplicateMember: A member that matters is repeated.
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
    # A copy without what a `Payload` remembers of its members: a session keeps it for its life.
    return ClientProfile(bytes(params), requested, offered)


def introduced_as(params: bytes) -> bytes | None:
    """Return what the params of `initialize` say of the client's name and version, as JSON."""
    try:
        return member(params, "clientInfo")
    except WireError:
        return None


def client_named(info: bytes | None) -> str:
    """Return the name and version of a client for people, printable; empty if unknown.

    Args:
        info: A client's `clientInfo` as JSON.
    """
    if info is None or not info.startswith(b"{"):
        return ""
    try:
        words = (text_of(member(info, each)) for each in ("name", "version"))
        text = " ".join(each for each in words if each)[:_MOST_OF_NAME]
    except WireError:
        return ""
    return "".join(each if each.isprintable() else "?" for each in text)


def bridge_introduction(version: str, *, roots: bool = False) -> bytes:
    """Return the params of the bridge's own `initialize` to a shared child.

    It offers no capability of clients: a request of a shared child could not be attributed to a
    session.

    Args:
        version: That of the bridge.
        roots: Whether the bridge itself answers requests for roots.
    """
    return msgspec.json.encode(
        {
            "protocolVersion": NEWEST_LEGACY.date,
            "capabilities": {"roots": {}} if roots else {},
            "clientInfo": {"name": "mcpbridge", "version": version},
        }
    )
