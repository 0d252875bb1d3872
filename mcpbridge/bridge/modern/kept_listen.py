"""A `subscriptions/listen` that stays open though the child does not know the method.

With reloads the bridge has something to tell, whatever the child can: that lists may have changed.
So the bridge acknowledges the listen in the child's place, and `Passthrough.announce_lists` tells
its client of each reload until the client or the bridge ends the stream. If the child knows the
method, its acknowledgement is completed: it may name no list, as its own never change.

Source: MCP 2026-07-28, Subscriptions.
"""

from __future__ import annotations

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.listeners import Asker, CallEvent
from mcpbridge.bridge.modern.subscriptions import wanted_lists
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import METHOD_NOT_FOUND
from mcpbridge.rules.mcp.correlator import Answered, Tagged
from mcpbridge.rules.mcp.methods import ACKNOWLEDGED, SUBSCRIPTION_ID
from mcpbridge.rules.mcp.to_modern import code_of
from mcpbridge.wire.json_object import member, packed, with_members
from mcpbridge.wire.messages import Failure, Notification, encode


class KeptListen:
    """A sink of one listen, before its exchange."""

    lasting = True

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def caller(self) -> bytes:
        """The client of the exchange."""
        return self._exchange.caller

    @property
    def asker(self) -> Asker | None:
        """The client, as it named itself in the request."""
        return self._exchange.asker

    def receive(self, event: CallEvent) -> None:
        """Pass every event on but an acknowledgement and the answer that the method is unknown."""
        match event:
            case Answered(reply=Failure(error=error)) if code_of(error) == METHOD_NOT_FOUND:
                # The child has nothing to cancel when the client leaves.
                self._exchange.attempt_over()
                tag = packed({SUBSCRIPTION_ID: self._exchange.request.id})
                self._acknowledge(packed({"_meta": tag}))
            case Tagged(notification=Notification(method=method, params=params)) if (
                method == ACKNOWLEDGED
            ):
                self._acknowledge(params or b"{}")
            case _:
                self._exchange.receive(event)

    def _acknowledge(self, params: bytes) -> None:
        """Tell the client what is honoured: what these params say, and each list that it wants.

        Also lists that the server does not have now: a reload may bring them.
        """
        try:
            lists = dict.fromkeys(wanted_lists(self._exchange.request), b"true")
            honoured = with_members(member(params, "notifications") or b"{}", lists)
            params = with_members(params, {"notifications": honoured})
        except WireError:
            # It is passed on as the child wrote it: its client finds the same fault.
            pass
        self._exchange.tell(encode(Notification(ACKNOWLEDGED, params)), sheddable=False)
