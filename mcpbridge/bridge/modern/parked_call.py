"""One call of a 2026-07-28 client on a legacy child for that call alone, over all its attempts.

If the child sends a request, the client's request is answered with `input_required` and its HTTP
exchange ends; the child's call stays in flight, parked. The client's retry brings the answers, and
the call goes on under the exchange of the retry. While the call is parked, progress has no stream
and is dropped; an answer of the child waits for the retry.

| state | meaning |
|---|---|
| attempt | an exchange is open and gets the child's messages |
| parked | the client has server requests to answer, no exchange is open |
| over | the child has answered or is gone; kept for a while for a retry that is sent again |

Source: MCP 2026-07-28, Multi Round-Trip Requests.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import anyio
import msgspec

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import Asker, CallEvent, CallFailed, Logged
from mcpbridge.errors import WireError
from mcpbridge.rules.access.shares import MESSAGE_BYTES, Account
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    Fault,
    cancelled,
    client_cannot_answer,
    error_object,
    out_of_memory,
)
from mcpbridge.rules.mcp.correlator import Answered, Progressed, Tagged, Withdrawn
from mcpbridge.rules.mcp.input_required import input_request, refusal_to_ask
from mcpbridge.rules.mcp.methods import LOG_MESSAGE
from mcpbridge.rules.mcp.request_meta import RequestMeta, progress_token
from mcpbridge.wire.json_object import replaced, spans
from mcpbridge.wire.messages import Failure, Notification, Reply, Request, Result

GATHER_S = 0.03
"""Seconds in which a child's requests are gathered, so that one answer carries them together."""

MAX_OPEN = 64
"""Most requests of one call that may be open at once; as many as of a session."""
_STATE_BYTES = 1 << 12
"""Counted for a call's objects, in addition to its messages."""
_DECLINED = b'{"action":"cancel"}'
"""The answer to an elicitation whose client is not waited for any more."""


class InputRequest(msgspec.Struct, frozen=True):
    """A server request that the client has not answered."""

    request: Request
    """The request as the child sent it."""
    entry: bytes
    """What the client gets, in `inputRequests`."""

    @property
    def size(self) -> int:
        """The bytes that are charged for it."""
        return MESSAGE_BYTES + len(self.request.params or b"") + len(self.entry)


class ParkedCall:
    """A call, its child and the open input requests; owned by the table of `EmulatedCalls`."""

    lasting = False

    def __init__(
        self,
        lease: Lease,
        request: Request,
        envelope: RequestMeta,
        hand_over: Callable[[ParkedCall, Exchange], None],
        over: Callable[[ParkedCall], None],
        account: Account,
        budget: Budget,
        caller: bytes = b"",
    ) -> None:
        """Make a call; `begin` sends the request.

        Args:
            lease: The child, used for this call alone.
            request: The request as the child gets it.
            envelope: The client's `_meta` in the first attempt.
            hand_over: Answers the open exchange with the open input requests.
            over: Called when the child is not needed any more.
            account: Charged for what the call keeps, until `let_go`.
            budget: While it is full, the child's requests are declined.
            caller: The client: see `CallSink`.
        """
        self.key = secrets.token_hex(16)
        self.lease = lease
        self.request = request
        self.envelope = envelope
        self.caller = caller
        self.round = 0
        self.input_requests: dict[str, InputRequest] = {}
        """Open ones by key, in the order in which the child asked."""
        self.reply: Reply | None = None
        self.fault: Fault | None = None
        self.parked_at: float | None = None
        self._attempt: Exchange | None = None
        self._token: bytes | None = None
        self._asked = 0
        self._gathering = anyio.Event()
        self._hand_over = hand_over
        self._over = over
        self._number: int | None = None
        self._account = account
        self._budget = budget
        self._kept = _STATE_BYTES + len(request.params or b"") + len(envelope.capabilities)
        account.charge(self._kept)

    @property
    def held(self) -> int:
        """Bytes kept for it."""
        return self._kept

    def let_go(self) -> int:
        """Count what it keeps no more, as it is dropped; return how many bytes that were."""
        freed = self._kept
        self._keep(-freed)
        return freed

    def _keep(self, change: int) -> None:
        self._kept += change
        self._account.charge(change)

    @property
    def asker(self) -> Asker | None:
        """The client and the id of its open attempt, if there is one: see `CallSink`."""
        return self._attempt.asker if self._attempt is not None else None

    @property
    def attempt(self) -> Exchange | None:
        """The open exchange; None while the call is parked or over."""
        return self._attempt

    @property
    def over(self) -> bool:
        """Whether the child has answered or is gone."""
        return self.reply is not None or self.fault is not None

    def begin(self, attempt: Exchange) -> None:
        """Send the request; raise what `Mux.request` raises."""
        # Before the request is sent: the child may ask before it answers.
        self.lease.mux.attach(self)
        self.next_attempt(attempt, self.envelope)
        self._number = self.lease.mux.request(self.request, self)

    def next_round(self, attempt: Exchange, envelope: RequestMeta) -> None:
        """Begin the next round: the client has answered all input requests of this one."""
        self.round += 1
        self.next_attempt(attempt, envelope)

    def next_attempt(self, attempt: Exchange, envelope: RequestMeta) -> None:
        """Make this the open exchange, which gets the child's messages from now on."""
        self._keep(len(envelope.capabilities) - len(self.envelope.capabilities))
        self._attempt, self.envelope, self.parked_at = attempt, envelope, None
        self._token = progress_token(attempt.request.params)
        # The child may have answered, or ended, while the client was away.
        if self.over:
            self._finish()

    def park(self, now: float) -> Exchange | None:
        """Park the call; return the exchange that was open, None if there was none."""
        attempt, self._attempt = self._attempt, None
        self.parked_at = now
        # Questions so far are handed over; the next one begins another gathering.
        self._gathering = anyio.Event()
        return attempt

    def answer(self, key: str, value: bytes) -> None:
        """Send the client's answer to one input request to the child."""
        answered = self.input_requests.pop(key)
        self._keep(-answered.size)
        self.lease.mux.send(Result(answered.request.id, value))

    def abandon(self, reason: str) -> None:
        """Give the call up: decline its open input requests and cancel it at the child."""
        for each in self.input_requests.values():
            if each.request.method == "elicitation/create":
                self.lease.mux.send(Result(each.request.id, _DECLINED))
            else:
                self.lease.mux.send(Failure(each.request.id, cancelled().error()))
        self._forget_input_requests()
        # After the answers to its requests: the child may wait for one before it looks at anything
        # else.
        if self._number is not None and not self.over:
            self.lease.mux.cancel(self._number, reason)
        self._end()

    def receive(self, event: CallEvent) -> None:
        """Take the next event of the call: see `CallSink`."""
        match event:
            case Answered(reply=reply):
                self.reply = reply
                self._keep(len(reply.result if isinstance(reply, Result) else reply.error))
                self._forget_input_requests()
                self._finish()
            case Progressed(notification=notification):
                self._progressed(notification)
            case Logged():
                if self._attempt is not None:
                    self._attempt.receive(event)
            case Tagged():
                pass  # A legacy child has no tagged notifications.
            case CallFailed(fault):
                self.fail(fault)

    def _progressed(self, notification: Notification) -> None:
        """Deliver progress to the open exchange, under its own progress token."""
        if self._attempt is None or self._token is None or notification.params is None:
            return
        span = spans(notification.params)["progressToken"]
        params = replaced(notification.params, [(span, self._token)])
        self._attempt.progressed(Notification(notification.method, params, notification.extra))

    def fail(self, fault: Fault) -> None:
        """End the call with a fault: its child is gone, or the request could not be sent."""
        self.fault = fault
        self._forget_input_requests()
        self._finish()

    def on_notification(self, notification: Notification) -> None:
        """Deliver a log message to the open exchange; drop others: see `ChildListener`."""
        if notification.method == LOG_MESSAGE:
            self.receive(Logged(notification))

    def on_server_request(self, request: Request) -> None:
        """Add an input request for the client, or decline it: see `ChildListener`."""
        try:
            refusal = refusal_to_ask(request, self.envelope)
            entry = input_request(request) if refusal is None else b""
        except WireError as error:
            refusal, entry = error_object(INVALID_PARAMS, str(error)), b""
        if refusal is not None:
            self.lease.mux.send(Failure(request.id, refusal))
            return
        if len(self.input_requests) >= MAX_OPEN or self._budget.full:
            full = (
                out_of_memory(self._budget.limit) if self._budget.full else client_cannot_answer()
            )
            self.lease.mux.send(Failure(request.id, full.error()))
            return
        self._asked += 1
        added = InputRequest(request, entry)
        self.input_requests[f"i{self._asked}"] = added
        self._keep(added.size)
        self._gathering.set()

    def _forget_input_requests(self) -> None:
        self._keep(-sum(each.size for each in self.input_requests.values()))
        self.input_requests.clear()

    def on_server_request_cancelled(self, withdrawal: Withdrawn) -> None:
        """Remove an input request that the child takes back; an answer to it will be ignored."""
        for key, each in list(self.input_requests.items()):
            if each.request.id == withdrawal.child_id:
                del self.input_requests[key]
                self._keep(-each.size)

    def on_child_exit(self) -> None:
        """Do nothing: the call has failed already, by `CallFailed`."""

    async def gather(self, attempt: Exchange) -> None:
        """Until `attempt` ends: when the child asks, wait `GATHER_S` for more, then hand over."""
        while self._is_open(attempt):
            await self._gathering.wait()
            await anyio.sleep(GATHER_S)
            # During the sleep the child may have answered or taken its requests back, or the
            # client may have left.
            if self._is_open(attempt) and self.input_requests:
                self._hand_over(self, attempt)
                return
            self._gathering = anyio.Event()

    def _is_open(self, attempt: Exchange) -> bool:
        return self._attempt is attempt and attempt.reply is None

    def _finish(self) -> None:
        # Wakes `gather`, which ends since no attempt is open any more.
        self._gathering.set()
        # Taken before it is answered: its end must find a call without an open attempt.
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            if self.fault is not None:
                attempt.fail(self.fault)
            elif isinstance(self.reply, Result):
                attempt.answered(Result(attempt.request.id, self.reply.result, self.reply.extra))
            elif isinstance(self.reply, Failure):
                attempt.answered(Failure(attempt.request.id, self.reply.error, self.reply.extra))
        self._end()

    def _end(self) -> None:
        self.lease.mux.detach(self)
        self._over(self)
