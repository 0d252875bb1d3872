"""`subscriptions/listen` of 2026-07-28, on a legacy child that several clients share.

For the child a listen is like a session that only listens: it subscribes like the others and gets
the notifications that they get. It passes on those that its client asked for, each tagged with the
listen's id.

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
    """A listen of one client: a `Subscriber`; owned by the task that serves its connection."""

    def __init__(self, request: Request, stream: Stream) -> None:
        """Make a listen that is attached to no child; see `take`.

        Raises:
            WireError: The params are invalid.
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
        """URIs of its subscriptions: see `Subscriber`."""
        return self.subscriptions

    def take(self, lease: Lease) -> None:
        """Take notifications of this child from now on: see `Subscriber`."""
        if self.lease is not None:
            self.lease.mux.detach(self)
        self.lease = lease
        lease.mux.attach(self)

    def acknowledge(self, granted_lists: set[str]) -> None:
        """Put the acknowledgement, which says what is granted, first on the stream."""
        lists = {flag: b"true" for flag, m in self.wanted_lists.items() if m in granted_lists}
        self.wanted_lists = {flag: self.wanted_lists[flag] for flag in lists}
        honoured = dict(lists)
        if self.subscriptions:
            uris = b",".join(quoted(uri) for uri in self.wanted_uris if uri in self.subscriptions)
            honoured["resourceSubscriptions"] = b"[%b]" % uris
        self._say(ACKNOWLEDGED, {"notifications": packed(honoured)}, key=None)

    def on_notification(self, notification: Notification) -> None:
        """Put a notification on the stream, if the client asked for it: see `ChildListener`."""
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
        """Do nothing: the mux declines a shared child's requests."""

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Do nothing: the mux declines a shared child's requests."""

    def on_child_exit(self) -> None:
        """Do nothing: the tenant gives the next child to all subscribers."""

    def end(self) -> None:
        """Put the listen's result on the stream and end it."""
        if not self.stream.log.closed:
            tag = packed({SUBSCRIPTION_ID: self.request.id})
            result = packed({"resultType": b'"complete"', "_meta": tag})
            self.stream.append(encode(Result(self.request.id, result)), sheddable=False)
            self.stream.close()

    def leave(self) -> None:
        """Leave the child: the client has closed the connection."""
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
