"""`subscriptions/listen` of 2026-07-28, on a legacy child that several clients share.

A listen is to the child what a session is that only listens: it has subscriptions among the
others' and hears what they hear. What it passes on is what it was asked for, each message tagged
with the listen's own id.

Source: MCP 2026-07-28, Subscriptions.
"""

from __future__ import annotations

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.shared_state import text_member
from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.methods import (
    ACKNOWLEDGED,
    LIST_CHANGED,
    RESOURCE_UPDATED,
    SUBSCRIPTION_ID,
    coalescing_key,
    concerns,
)
from mcpbridge.wire.json_object import elements, member, opened, packed
from mcpbridge.wire.messages import Notification, Request, Result, encode, quoted, text_of

_LIST_FLAGS = {
    "toolsListChanged": LIST_CHANGED["tools"],
    "promptsListChanged": LIST_CHANGED["prompts"],
    "resourcesListChanged": LIST_CHANGED["resources"],
}


class Subscription:
    """One open listen; owned by whoever serves its connection, and ended by it."""

    def __init__(self, request: Request, stream: Stream) -> None:
        """Make a listen; it hears nothing before `take`.

        Raises:
            WireError: The params are not what they must be.
        """
        self.request = request
        self.stream = stream
        self.level: str | None = None
        self.subscriptions: set[str] = set()
        self.lease: Lease | None = None
        wanted = member(request.params or b"{}", "notifications") or b"{}"
        flags = opened(wanted) if wanted.startswith(b"{") else {}
        self.wanted_lists = {
            flag: method for flag, method in _LIST_FLAGS.items() if flags.get(flag) == b"true"
        }
        uris = flags.get("resourceSubscriptions", b"[]")
        found = (text_of(uri) for uri in elements(uris)) if uris.startswith(b"[") else ()
        self.wanted_uris = list(dict.fromkeys(uri for uri in found if uri is not None))

    @property
    def wanted(self) -> set[str]:
        """What it subscribes to; see `Subscriber`."""
        return self.subscriptions

    def take(self, lease: Lease) -> None:
        """Hear this child from now on."""
        if self.lease is not None:
            self.lease.mux.detach(self)
        self.lease = lease
        lease.mux.attach(self)

    def acknowledge(self, granted_lists: set[str]) -> None:
        """Say what is honoured; the first thing on the stream."""
        lists = {flag: b"true" for flag, m in self.wanted_lists.items() if m in granted_lists}
        self.wanted_lists = {flag: self.wanted_lists[flag] for flag in lists}
        honoured = dict(lists)
        if self.subscriptions:
            uris = b",".join(quoted(uri) for uri in self.wanted_uris if uri in self.subscriptions)
            honoured["resourceSubscriptions"] = b"[%b]" % uris
        self._say(ACKNOWLEDGED, {"notifications": packed(honoured)}, key=None)

    def on_notification(self, notification: Notification) -> None:
        """The child says something; see `ChildListener`."""
        uri = None
        if notification.method == RESOURCE_UPDATED:
            uri = text_member(notification.params, "uri")
            if uri is None or not any(concerns(own, uri) for own in self.subscriptions):
                return
        elif notification.method not in self.wanted_lists.values():
            return
        try:
            params = opened(notification.params) if notification.params else {}
        except WireError:
            return
        self._say(notification.method, params, key=coalescing_key(notification.method, uri))

    def on_server_request(self, request: Request) -> None:
        """A shared child asks nobody."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """A shared child asks nobody."""

    def on_child_exit(self) -> None:
        """The child is gone; the next one is given to this listen as to the sessions."""

    def end(self) -> None:
        """The server side ends it: the result, then the end of the stream."""
        if not self.stream.log.closed:
            tag = packed({SUBSCRIPTION_ID: self.request.id})
            result = packed({"resultType": b'"complete"', "_meta": tag})
            self.stream.append(encode(Result(self.request.id, result)), sheddable=False)
            self.stream.close()

    def leave(self) -> None:
        """Nobody reads any more."""
        if self.lease is not None:
            self.lease.mux.detach(self)

    def _say(self, method: str, params: dict[str, bytes], key: str | None) -> None:
        if self.stream.log.closed:
            return
        meta = params.get("_meta", b"{}")
        tagged = {
            **(opened(meta) if meta.startswith(b"{") else {}),
            SUBSCRIPTION_ID: self.request.id,
        }
        message = Notification(method, packed({**params, "_meta": packed(tagged)}))
        self.stream.append(encode(message), sheddable=key is not None, key=key)
