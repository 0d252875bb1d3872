"""`subscriptions/listen` of 2026-07-28, on a legacy child that several clients share.

For the child a listen is like a session that only listens: it subscribes like the others and gets
the notifications that they get. It passes on those that its client asked for, each tagged with the
listen's id.

Source: MCP 2026-07-28, Subscriptions.
"""

from __future__ import annotations

from collections.abc import Mapping

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.shared_state import updated_uri
from mcpbridge.errors import NotMessage, TooMany, WireError
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.mcp.correlator import Withdrawn
from mcpbridge.rules.mcp.methods import (
    ACKNOWLEDGED,
    LIST_CHANGED,
    RESOURCE_UPDATED,
    SUBSCRIPTION_ID,
    coalescing_key,
)
from mcpbridge.rules.uri_set import UriSet, uri_bytes, uri_problem
from mcpbridge.wire.json_object import elements, member, opened, packed
from mcpbridge.wire.messages import (
    Notification,
    Request,
    Result,
    encode,
    encode_members,
    quoted,
    text_of,
)

_LIST_FLAGS = {
    "toolsListChanged": LIST_CHANGED["tools"],
    "promptsListChanged": LIST_CHANGED["prompts"],
    "resourcesListChanged": LIST_CHANGED["resources"],
}


class Subscription:
    """A listen of one client: a `Subscriber`; owned by the task that serves its connection."""

    def __init__(self, request: Request, stream: Stream, most: int, account: Account) -> None:
        """Make a listen that is attached to no child; see `take`.

        Args:
            request: Asks for it.
            stream: Takes what its client hears.
            most: How many resources it may subscribe to.
            account: Charged for what it keeps, as long as it exists.

        Raises:
            WireError: The params are not what they must be, or name too many resources.
        """
        self.stream = stream
        self._account = account
        self.level: str | None = None
        self.subscriptions = UriSet(charge=account.charge)
        self.lease: Lease | None = None
        # Not the request, whose parameters may have megabytes; its transport keeps it all the same.
        self._id = request.id
        self._unanswered: set[str] = set()
        """Asked of the child, which has not answered and may grant them yet."""
        flags = _flags_in(request)
        self.wanted_lists = _lists_in(flags)
        self.wanted_uris = _uris_in(flags.get("resourceSubscriptions", b"[]"), most)
        account.charge(len(request.params or b"") + sum(map(uri_bytes, self.wanted_uris)))

    def wants(self, uri: str) -> bool:
        """Return whether it subscribes to a resource; see `Subscriber`."""
        return uri in self.subscriptions or uri in self._unanswered

    @property
    def asked_for(self) -> set[str]:
        """What the child has to be told when it ends."""
        return {*self.subscriptions, *self._unanswered}

    def ask(self, uri: str) -> None:
        """Reckon with this resource while the child is asked for it."""
        self._unanswered.add(uri)

    def settle(self, uri: str, *, granted: bool) -> None:
        """Keep what the child has answered."""
        self._unanswered.discard(uri)
        if granted:
            self.subscriptions.add(uri)

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
            uri = updated_uri(notification.params)
            if uri is None or not self.subscriptions.concerned(uri):
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
            tag = packed({SUBSCRIPTION_ID: self._id})
            result = packed({"resultType": b'"complete"', "_meta": tag})
            self.stream.append(encode(Result(self._id, result)), sheddable=False)
            self.stream.close()

    @property
    def held(self) -> int:
        """Bytes that wait for its client: see `Holder`."""
        return self._account.held

    def cut(self) -> None:
        """End it without its result, which would wait like all before it: see `Holder`."""
        self.stream.cut()

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
            SUBSCRIPTION_ID: self._id,
        }
        text = encode_members(method, {**params, "_meta": packed(tagged)})
        self.stream.append(text, sheddable=method != ACKNOWLEDGED, key=key)


def wanted_lists(request: Request) -> Mapping[str, str]:
    """Return the methods of the list-changed notifications that a listen asks for, by its flags.

    Raises:
        WireError: The params are not what they must be.
    """
    return _lists_in(_flags_in(request))


def _flags_in(request: Request) -> Mapping[str, bytes]:
    wanted = member(request.params or b"{}", "notifications") or b"{}"
    return opened(wanted) if wanted.startswith(b"{") else {}


def _lists_in(flags: Mapping[str, bytes]) -> dict[str, str]:
    return {flag: method for flag, method in _LIST_FLAGS.items() if flags.get(flag) == b"true"}


def _uris_in(uris: bytes, most: int) -> list[str]:
    """Return the resources that are asked for, each once; raise WireError if too many."""
    if not uris.startswith(b"["):
        return []
    try:
        named = elements(uris, most)
    except TooMany as error:
        problem = f"resourceSubscriptions has more than {most} elements (--max-subscriptions)"
        raise NotMessage(problem) from error
    texts = (text_of(each) for each in named)
    found = dict.fromkeys(text for text in texts if text is not None)
    for uri in found:
        if (wrong := uri_problem(uri)) is not None:
            raise NotMessage(wrong)
    return list(found)
