"""The arguments of tools that clients must repeat in headers, as the child's list of tools says.

The list is fetched when a call first needs it and kept until the child says that its tools have
changed. If it cannot be fetched, headers are not checked: the child has to do it.
"""

from __future__ import annotations

import anyio

from mcpbridge import __version__
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.rules.faults import Unavailable
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.era_probe import own_envelope
from mcpbridge.rules.mcp.methods import LIST_CHANGED
from mcpbridge.rules.mcp.modern_checks import SUPPORTED, Annotations, Path, annotations_in
from mcpbridge.rules.mcp.revisions import Era
from mcpbridge.wire.json_object import member, with_members
from mcpbridge.wire.messages import Notification, Request, Result

_WITHIN_S = 5.0
_MAX_PAGES = 50
_KEPT_S = 30.0
"""Seconds that the list of a modern child is kept: without a listen it announces no changes."""


class ToolCatalog:
    """A cache of the annotations of one child's tools; a listener of the shared child."""

    def __init__(self) -> None:
        self._lease: Lease | None = None
        self._known: Annotations | None = None
        self._until = float("inf")
        self._changes = 0

    def known(self, lease: Lease, now: float) -> Annotations | None:
        """Return the annotations of this child's tools; None if they must be fetched."""
        return self._known if self._lease is lease and now < self._until else None

    async def annotations(self, lease: Lease, now: float) -> Annotations:
        """Return the annotations of this child's tools; empty if the list cannot be fetched."""
        if self._lease is not lease:
            self._lease, self._known = lease, None
            lease.mux.attach(self)
        if self._known is None or now >= self._until:
            found, before = None, self._changes
            with anyio.move_on_after(_WITHIN_S):
                found = await self._fetch(lease)
            if before != self._changes:
                # The tools changed during the fetch: this list is used for this call and not kept.
                return found or {}
            # A failed fetch is tried again after `_KEPT_S`, not with every call.
            self._known = found or {}
            lasts = found is not None and not _is_modern(lease)
            self._until = float("inf") if lasts else now + _KEPT_S
        return self._known or {}

    def on_notification(self, notification: Notification) -> None:
        """Forget the list if the tools have changed: see `ChildListener`."""
        if notification.method == LIST_CHANGED["tools"]:
            self._changes += 1
            self._known = None

    def on_server_request(self, request: Request) -> None:
        """Do nothing: the mux declines a shared child's requests."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Do nothing: the mux declines a shared child's requests."""

    def on_child_exit(self) -> None:
        """Forget the child and its list."""
        self._changes += 1
        self._lease, self._known = None, None

    async def _fetch(self, lease: Lease) -> Annotations | None:
        found: dict[str, dict[Path, str]] = {}
        envelope = own_envelope(SUPPORTED[0], __version__) if _is_modern(lease) else None
        params = envelope
        for _ in range(_MAX_PAGES):
            try:
                reply = await lease.mux.ask("tools/list", params)
            except Unavailable:
                return None
            if not isinstance(reply, Result):
                return None
            found.update(annotations_in(reply.result))
            cursor = member(reply.result, "nextCursor")
            if cursor is None or cursor == b"null":
                return found
            params = with_members(envelope or b"{}", {"cursor": cursor})
        return found


def _is_modern(lease: Lease) -> bool:
    return lease.profile is not None and lease.profile.revision.era is Era.MODERN
