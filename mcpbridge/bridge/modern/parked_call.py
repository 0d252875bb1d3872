"""One call of a 2026-07-28 client on a legacy child of its own, over all its legs.

The client's request is answered by `input_required` whenever the child asks something, and the
HTTP exchange is over; the child's call stays in flight, parked. The client's retry brings the
answers, and the call goes on under the retry's exchange. In between the child may speak; progress
has no stream then and is dropped, an answer waits for the retry.

| state | meaning |
|---|---|
| a leg | an exchange is open: what the child says goes there |
| parked | questions are out with the client, no exchange is open |
| over | the child has answered or is gone; kept a while for a retry that comes again |

Source: MCP 2026-07-28, Multi Round-Trip Requests.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import anyio
import msgspec

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import CallEvent, CallFailed, Logged
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INVALID_PARAMS, Fault, cancelled, error_object
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged, Withdrawn
from mcpbridge.rules.mcp.input_required import input_request, refusal_to_ask
from mcpbridge.rules.mcp.methods import LOG_MESSAGE
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.wire.json_object import member, replaced, spans
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result

GATHER_S = 0.03
"""Questions that a child asks within this time travel together."""

_DECLINED = b'{"action":"cancel"}'
"""The answer to a form or a page that nobody will fill in any more."""


class ClientQuestion(msgspec.Struct, frozen=True):
    """A question that the client has not answered."""

    request: Request
    """As the child asked it."""
    entry: bytes
    """As the client is asked, in `inputRequests`."""


class ParkedCall:
    """A call, its child, and what the client still owes it; owned by the table of errands."""

    lasting = False

    def __init__(
        self,
        lease: Lease,
        request: Request,
        envelope: RequestMeta,
        hand_over: Callable[[ParkedCall, Exchange], None],
        over: Callable[[ParkedCall], None],
    ) -> None:
        """Begin; `begin` sends the request.

        Args:
            lease: The child, used by nobody else.
            request: As the child gets it.
            envelope: Of the first leg.
            hand_over: Answers a leg with the questions that are open.
            over: Told once, when the child is not needed any more.
        """
        self.key = secrets.token_hex(16)
        self.lease = lease
        self.request = request
        self.envelope = envelope
        self.round = 0
        self.questions: dict[str, ClientQuestion] = {}
        """Open ones by key, as the child asked them."""
        self.reply: Reply | None = None
        self.fault: Fault | None = None
        self.parked_at: float | None = None
        self._leg: Exchange | None = None
        self._token: bytes | None = None
        self._asked = 0
        self._gathering = anyio.Event()
        self._hand_over = hand_over
        self._over = over
        self._number: int | None = None

    @property
    def attempt(self) -> Exchange | None:
        """The exchange that is open; None while the call is parked or over."""
        return self._leg

    @property
    def over(self) -> bool:
        """The child has answered, or is gone."""
        return self.reply is not None or self.fault is not None

    def begin(self, leg: Exchange) -> None:
        """Send the request; raises what `Mux.request` raises."""
        self.lease.mux.attach(self)
        self.next_attempt(leg, self.envelope)
        self._number = self.lease.mux.request(self.request, self)

    def next_round(self, leg: Exchange, envelope: RequestMeta) -> None:
        """Go on with the answers to the questions of this round."""
        self.round += 1
        self.next_attempt(leg, envelope)

    def next_attempt(self, leg: Exchange, envelope: RequestMeta) -> None:
        """From now on what the child says belongs to this exchange."""
        self._leg, self.envelope, self.parked_at = leg, envelope, None
        self._token = _token_of(leg.request)
        if self.over:
            self._finish()

    def park(self, now: float) -> Exchange | None:
        """End the leg: its client is asked; returns the exchange to be answered."""
        leg, self._leg = self._leg, None
        self.parked_at = now
        self._gathering = anyio.Event()
        return leg

    def answer(self, key: str, value: bytes) -> None:
        """Give the child the client's answer to one question."""
        question = self.questions.pop(key)
        self.lease.mux.send(Result(question.request.id, value))

    def abandon(self, reason: str) -> None:
        """Nobody waits any more: questions get an end, the child hears of the cancellation."""
        for question in self.questions.values():
            if question.request.method == "elicitation/create":
                self.lease.mux.send(Result(question.request.id, _DECLINED))
            else:
                self.lease.mux.send(Failure(question.request.id, cancelled().error()))
        self.questions.clear()
        if self._number is not None and not self.over:
            self.lease.mux.cancel(self._number, reason)
        self._end()

    def receive(self, event: CallEvent) -> None:
        """Take what comes of the call: see `CallSink`."""
        match event:
            case Answered(reply=reply):
                self.reply = reply
                self.questions.clear()
                self._finish()
            case Progressed(notification=notification):
                self._progressed(notification)
            case Logged():
                if self._leg is not None:
                    self._leg.receive(event)
            case Tagged():
                pass  # A legacy child knows no subscriptions.
            case CallFailed(fault):
                self.fail(fault)

    def _progressed(self, notification: Notification) -> None:
        """Progress, under the current leg's own token."""
        if self._leg is None or self._token is None or notification.params is None:
            return
        span = spans(notification.params)["progressToken"]
        params = replaced(notification.params, [(span, self._token)])
        self._leg.progressed(Notification(notification.method, params, notification.extra))

    def fail(self, fault: Fault) -> None:
        """End the call: its child is gone, or could not be sent to."""
        self.fault = fault
        self.questions.clear()
        self._finish()

    def on_notification(self, notification: Notification) -> None:
        """The child says something that names no request; see `ChildListener`."""
        if notification.method == LOG_MESSAGE:
            self.receive(Logged(notification))

    def on_server_request(self, request: Request) -> None:
        """The child asks; see `ChildListener`."""
        try:
            refusal = refusal_to_ask(request, self.envelope)
            entry = input_request(request) if refusal is None else b""
        except WireError as error:
            refusal, entry = error_object(INVALID_PARAMS, str(error)), b""
        if refusal is not None:
            self.lease.mux.send(Failure(request.id, refusal))
            return
        self._asked += 1
        self.questions[f"i{self._asked}"] = ClientQuestion(request, entry)
        self._gathering.set()

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """The child takes a question back: an answer to it will be ignored."""
        for key, question in list(self.questions.items()):
            if question.request.id == withdrawal.child_id:
                del self.questions[key]

    def on_child_exit(self) -> None:
        """The child is gone; `fail` has told."""

    async def gather(self, leg: Exchange) -> None:
        """While a leg is open: when the child asks, wait a moment for more, then hand over."""
        while self._is_open(leg):
            await self._gathering.wait()
            await anyio.sleep(GATHER_S)
            if self._is_open(leg) and self.questions:
                self._hand_over(self, leg)
                return
            self._gathering = anyio.Event()

    def _is_open(self, leg: Exchange) -> bool:
        return self._leg is leg and leg.reply is None

    def _finish(self) -> None:
        self._gathering.set()
        leg, self._leg = self._leg, None
        if leg is not None:
            if self.fault is not None:
                leg.fail(self.fault)
            elif isinstance(self.reply, Result):
                leg.answered(Result(leg.request.id, self.reply.result, self.reply.extra))
            elif isinstance(self.reply, Failure):
                leg.answered(Failure(leg.request.id, self.reply.error, self.reply.extra))
        self._end()

    def _end(self) -> None:
        self.lease.mux.detach(self)
        self._over(self)


def _token_of(request: Request) -> bytes | None:
    try:
        return member(request.params or b"{}", "_meta", "progressToken")
    except WireError:
        return None
