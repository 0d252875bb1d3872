"""An adapter between a legacy session and a child of 2026-07-28.

The child has no sessions, so their state is kept here: the log level is sent with every request,
and the subscriptions with one `subscriptions/listen`, which is replaced when they change. If the
child wants input, the client is asked in the terms of its revision, and the call is sent again with
the answers.

Source: MCP 2026-07-28, Multi Round-Trip Requests; Subscriptions; MCP 2025-11-25.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import CallEvent, CallFailed
from mcpbridge.bridge.children.shared_state import text_member
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.round_trips import CallServerRequests, RoundTrip
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.errors import ChannelClosed, WireError
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Unavailable,
    error_object,
)
from mcpbridge.rules.mcp.correlator import Answered, Tagged
from mcpbridge.rules.mcp.initialize import ClientProfile, ServerProfile
from mcpbridge.rules.mcp.methods import (
    ACKNOWLEDGED,
    DISCOVER,
    INITIALIZED,
    LIST_CHANGED,
    LISTEN,
    LOG_LEVELS,
    PING,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from mcpbridge.rules.mcp.to_legacy import (
    enveloped,
    plain_notification,
)
from mcpbridge.wire.json_object import elements, member, packed
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    Result,
    text_of,
)

log = logging.getLogger("mcpbridge.bridge")

_NOT_IN_A_SESSION = (DISCOVER, LISTEN)
"""Methods that the child knows and no legacy revision has."""
_ACKNOWLEDGED_WITHIN_S = 10.0
_RENEWED_AFTER_S = 1.0
"""Seconds before a listen that the child ended is opened again: it may end that one too."""
_LIST_FLAGS = {"tools": "toolsListChanged", "prompts": "promptsListChanged",
               "resources": "resourcesListChanged"}  # fmt: skip


class ModernChildAdapter:
    """An adapter for one session; owned by its child link."""

    def __init__(
        self,
        client: ClientState,
        find_child: Callable[[], Awaitable[Lease]],
        server_requests: CallServerRequests,
        tell_client: Callable[[Notification], None],
        spawn: Spawn,
    ) -> None:
        """Make an adapter; it opens a listen once its client has sent `initialized`.

        Args:
            client: The client's log level and subscriptions.
            find_child: Waits for the child.
            server_requests: Send server requests to the client.
            tell_client: Takes the child's notifications that belong to no request.
            spawn: Starts a task of the bridge, which outlives the request.
        """
        self._client = client
        self._find_child = find_child
        self._server_requests = server_requests
        self._tell_client = tell_client
        self._spawn = spawn
        self._listen: _Listen | None = None
        self._editing = anyio.Lock()
        self._wrapped: frozenset[str] = frozenset()
        self._closed = False

    def call(self, exchange: Exchange) -> None:
        """Answer a request here, or send it to the child: see `Adapter`."""
        request = exchange.request
        if request.method == PING:
            exchange.answered(Result(request.id, b"{}"))
        elif request.method == SET_LEVEL:
            exchange.answered(self._set_level(request))
        elif request.method in _NOT_IN_A_SESSION or request.method.startswith("tasks/"):
            refusal = error_object(METHOD_NOT_FOUND, f"method not found: {request.method[:64]}")
            exchange.answered(Failure(request.id, refusal))
        elif request.method in (SUBSCRIBE, UNSUBSCRIBE):
            self._spawn(self._subscribe, exchange)
        else:
            self._spawn(self._serve, exchange)

    def tell(self, notification: Notification) -> None:
        """Open the listen after `initialized`; drop other notifications, unknown to the child."""
        if notification.method == INITIALIZED:
            self._spawn(self._listen_again, frozenset())

    def announce_lists(self, profile: ServerProfile) -> None:
        """Tell the client what its listen would have told, if the child has refused that."""
        if self._listen is not None and self._listen.refused:
            for method in profile.changing_lists:
                self._tell_client(Notification(method))

    def close(self) -> None:
        """End the listen: see `Adapter`."""
        self._closed = True
        if self._listen is not None:
            self._listen.cancel()
            self._listen = None

    def tools_changed(self, names: frozenset[str]) -> None:
        """Remember of which tools the client has seen a changed output schema."""
        self._wrapped |= names

    def wraps(self, tool: str | None) -> bool:
        """Return whether the client has seen a changed output schema of this tool."""
        return tool in self._wrapped

    def lost_listen(self, listen: _Listen) -> None:
        """Open a listen on the next child, as the child of this one is gone."""
        if listen is self._listen:
            self._listen = None
            self._spawn(self._listen_again, frozenset(), True)

    def renew(self, listen: _Listen) -> None:
        """Open another listen after a pause, as the child has ended this one."""
        self._spawn(self._after_pause, listen)

    async def _after_pause(self, listen: _Listen) -> None:
        await anyio.sleep(_RENEWED_AFTER_S)
        self.lost_listen(listen)

    def _set_level(self, request: Request) -> Reply:
        level = text_member(request.params, "level")
        if level not in LOG_LEVELS:
            problem = f"level must be one of {', '.join(LOG_LEVELS)}"
            return Failure(request.id, error_object(INVALID_PARAMS, problem))
        self._client.set_level(level)
        return Result(request.id, b"{}")

    async def _serve(self, exchange: Exchange) -> None:
        try:
            lease = await self._find_child()
            await lease.mux.channel.writable()
            RoundTrip(
                lease.mux,
                exchange,
                self._client,
                self._find_child,
                self._server_requests,
                self,
                self._spawn,
            ).begin()
        except Unavailable as error:
            exchange.unsent(error.fault)
        except WireError as error:
            exchange.invalid(str(error))

    async def _subscribe(self, exchange: Exchange) -> None:
        request = exchange.request
        uri = text_member(request.params, "uri")
        if uri is None:
            refusal = error_object(INVALID_PARAMS, "params.uri (a string) is missing")
            exchange.answered(Failure(request.id, refusal))
        elif request.method == UNSUBSCRIBE:
            self._client.subscriptions.discard(uri)
            await self._listen_again(frozenset())
            exchange.answered(Result(request.id, b"{}"))
        elif uri in await self._listen_again(frozenset((uri,))):
            exchange.answered(Result(request.id, b"{}"))
        else:
            refusal = error_object(INVALID_PARAMS, "the MCP server does not let this be subscribed")
            exchange.answered(Failure(request.id, refusal))

    async def _listen_again(self, more: frozenset[str], changed: bool = False) -> frozenset[str]:
        """Open a listen for all that is wanted, then end the one before, so that no event is lost.

        Returns:
            The URIs of the resources that the child grants; empty if the listen cannot be opened.
        """
        # One change at a time: of two listens the one that is opened last must be the one that
        # stays, with the URIs of both changes.
        async with self._editing:
            try:
                lease = await self._find_child()
                uris = {*self._client.subscriptions, *more}
                listen = _Listen(self, lease, uris, self._tell_client)
                granted = await listen.open(self._client.profile)
            except (Unavailable, ChannelClosed, WireError):
                return frozenset()
            # The session may have ended during the wait; `close` did not know of this listen.
            if self._closed:
                listen.cancel()
                return granted
            before, self._listen = self._listen, listen
            if before is not None:
                before.cancel()
            # The child ended before this listen was the session's: `lost_listen` did nothing then.
            if listen.lost:
                self.lost_listen(listen)
            if changed:
                for method in listen.methods:
                    self._tell_client(Notification(method))
            return granted


class _Listen:
    """A sink for the one listen of a session."""

    lasting = True
    caller = b""
    asker = None

    def __init__(
        self,
        modern_child: ModernChildAdapter,
        lease: Lease,
        uris: set[str],
        tell_client: Callable[[Notification], None],
    ) -> None:
        self._modern_child = modern_child
        self._tell_client = tell_client
        self._mux = lease.mux
        capabilities = lease.profile.capabilities if lease.profile is not None else {}
        lists = [name for name in _LIST_FLAGS if _changes(capabilities.get(name))]
        self.methods = [LIST_CHANGED[name] for name in lists]
        self._flags = {_LIST_FLAGS[name]: b"true" for name in lists}
        if uris:
            self._flags["resourceSubscriptions"] = msgspec.json.encode(sorted(uris))
        self._acknowledged = anyio.Event()
        self.lost = False
        """Whether the child is gone."""
        self.refused = False
        """Whether the child has answered in place of an acknowledgement."""
        self._granted: frozenset[str] = frozenset()
        self._number = 0

    async def open(self, client_profile: ClientProfile | None) -> frozenset[str]:
        """Send the listen, wait for its acknowledgement and return the URIs that are granted."""
        params = enveloped(None, client_profile, None, {"notifications": packed(self._flags)})
        self._number = self._mux.request(Request(b"0", LISTEN, params), self)
        with anyio.move_on_after(_ACKNOWLEDGED_WITHIN_S):
            await self._acknowledged.wait()
        return self._granted

    def cancel(self) -> None:
        """End the listen at the child."""
        self._mux.cancel(self._number, "not wanted any more")

    def receive(self, event: CallEvent) -> None:
        """Take the next event of the subscription, which has no progress and no logs."""
        match event:
            case Tagged(notification=notification):
                self._tagged(notification)
            case Answered():
                # The child has ended the listen, or refused it.
                if self._acknowledged.is_set():
                    self._modern_child.renew(self)
                else:
                    self.refused = True
                self._acknowledged.set()
            case CallFailed():
                # The child is gone, or has taken the subscription back.
                self.lost = self._mux.shut
                if self.lost:
                    self._modern_child.lost_listen(self)
                elif self._acknowledged.is_set():
                    self._modern_child.renew(self)
                self._acknowledged.set()

    def _tagged(self, notification: Notification) -> None:
        if notification.method == ACKNOWLEDGED:
            raw = member(notification.params or b"{}", "notifications", "resourceSubscriptions")
            uris = [text_of(uri) for uri in elements(raw)] if raw is not None else []
            self._granted = frozenset(uri for uri in uris if uri is not None)
            self._acknowledged.set()
        else:
            self._tell_client(plain_notification(notification))


def _changes(capability: bytes | None) -> bool:
    return capability is not None and member(capability, "listChanged") == b"true"
