"""Which arguments of which tool its client must repeat in headers, as the child's list has it.

Fetched when the first call needs it and kept until the child says that its tools have changed. A
list that cannot be had validates nothing: the call is the child's to judge then.
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
"""A child of 2026-07-28 tells of changes only where it is listened to; its list is read anew."""


class ToolCatalog:
    """The annotations of one child's tools; a tenant of the shared child."""

    def __init__(self) -> None:
        self._lease: Lease | None = None
        self._known: Annotations | None = None
        self._until = float("inf")
        self._changes = 0

    def known(self, lease: Lease, now: float) -> Annotations | None:
        """The annotations of this child's tools, where they need not be asked for."""
        return self._known if self._lease is lease and now < self._until else None

    async def annotations(self, lease: Lease, now: float) -> Annotations:
        """The annotations of this child's tools; none where the list cannot be had."""
        if self._lease is not lease:
            self._lease, self._known = lease, None
            lease.mux.attach(self)
        if self._known is None or now >= self._until:
            found, before = None, self._changes
            with anyio.move_on_after(_WITHIN_S):
                found = await self._fetch(lease)
            if before != self._changes:
                # News that came meanwhile: the list is good for this call and no other.
                return found or {}
            # What could not be had is asked for again later, not at every call.
            self._known = found or {}
            lasts = found is not None and not _is_modern(lease)
            self._until = float("inf") if lasts else now + _KEPT_S
        return self._known or {}

    def on_notification(self, notification: Notification) -> None:
        """See `ChildListener`."""
        if notification.method == LIST_CHANGED["tools"]:
            self._changes += 1
            self._known = None

    def on_server_request(self, request: Request) -> None:
        """A shared child asks nobody."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """A shared child asks nobody."""

    def on_child_exit(self) -> None:
        """The child is gone, and what was known of it."""
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
