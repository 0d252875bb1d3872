"""Requests of a session's own child to its client: sampling, elicitation, roots.

A server request is delivered once, on one stream, and only that session's client can answer it. If
no stream takes it within the time limit the child gets an error. Once it is delivered a person may
have to answer, so only the timeouts of the call bound the wait.

Source: MCP 2025-11-25, Client Features; 2025-11-25, Transports, Sending and Receiving.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import anyio
import msgspec

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import (
    Fault,
    client_cannot_answer,
    out_of_memory,
    question_undelivered,
)
from mcpbridge.rules.mcp.correlator import Withdrawn, cancel_for
from mcpbridge.rules.mcp.methods import ASKED_ABILITY
from mcpbridge.rules.mcp.server_requests import Destination, ServerRequestTable, destination_of
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Reply,
    Request,
    encode,
    encode_for_stream,
)

MAX_OPEN = 64
"""Most server requests of one child that may be open at once."""


class ServerRequestSender(Protocol):
    """A sender of server requests, which gets the answers: a child's mux, or a call."""

    def send(self, message: Message) -> None:
        """Take an answer, under the id that the sender chose."""


class _Open(msgspec.Struct):
    asker: ServerRequestSender
    exchange: Exchange | None
    """The only call that the request can belong to; None if that is not certain."""
    stream: Stream
    entry: int


class ServerRequests:
    """A table of the open server requests of one session; owned by it."""

    __slots__ = (
        "_abilities",
        "_budget",
        "_correlator",
        "_delivery_s",
        "_meters",
        "_open",
        "_spawn",
        "_standalone",
    )

    def __init__(
        self,
        correlator: ServerRequestTable,
        abilities: Collection[str],
        standalone: Stream,
        meters: Meters,
        spawn: Spawn,
        delivery_s: float,
        budget: Budget,
    ) -> None:
        """Make an empty table.

        Args:
            correlator: Numbers the requests.
            abilities: Which of sampling, elicitation and roots the client offers.
            standalone: The stream for messages that belong to no call.
            meters: Count server requests that are declined or not delivered.
            spawn: Starts a task of the bridge, which outlives the request.
            delivery_s: Seconds that a server request waits for the client to open a stream.
            budget: While it is full, server requests are declined.
        """
        self._correlator = correlator
        self._abilities = abilities
        self._standalone = standalone
        self._meters = meters
        self._spawn = spawn
        self._delivery_s = delivery_s
        self._budget = budget
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(
        self,
        request: Request,
        asker: ServerRequestSender,
        calls: Collection[Exchange],
    ) -> None:
        """Send a server request to the client, or decline it.

        Args:
            request: The request, under the child's own id.
            asker: Gets the answer.
            calls: The calls in flight whose answers go to event streams, oldest first.
        """
        ability = ASKED_ABILITY.get(request.method)
        offered = ability is None or ability in self._abilities
        place = destination_of(offered, len(calls), self._standalone.attached)
        # Not for a request that is declined anyway: it would cost another one its answer.
        if place is not Destination.DECLINED and len(self._open) >= MAX_OPEN:
            self._make_room()
        if place is Destination.DECLINED or len(self._open) >= MAX_OPEN:
            self._decline(asker, request.id, client_cannot_answer())
            return
        if self._budget.full:
            self._decline(asker, request.id, out_of_memory(self._budget.limit))
            return
        latest = (
            list(calls)[-1] if place in (Destination.ONLY_CALL, Destination.LATEST_CALL) else None
        )
        number, numbered = self._correlator.ask(request)
        stream = latest.streamed() if latest is not None else self._standalone
        # Never dropped for lack of room: the child waits for the answer, and may serve nothing
        # else.
        entry = stream.append(encode_for_stream(numbered), sheddable=False)
        if latest is not None:
            latest.noticed()
        only = latest if place is Destination.ONLY_CALL else None
        self._open[number] = _Open(asker, only, stream, entry)
        # No client listens now. A child must not wait without end for one that never does.
        if place is Destination.QUEUE:
            self._spawn(self._expire, number)

    def ask_for_call(
        self, request: Request, asker: ServerRequestSender, exchange: Exchange
    ) -> None:
        """Send or decline a request of this call's child: see `CallServerRequests`."""
        self.ask(request, asker, [exchange] if exchange.streams else [])

    def answer(self, reply: Reply) -> None:
        """Send the client's answer to the asker; drop one that answers no open request."""
        answered = self._correlator.answered(reply)
        if answered is None:
            self._meters.count("unasked_answer")
            return
        number, own = answered
        self._open.pop(number).asker.send(own)

    def withdraw(self, withdrawal: Withdrawn, asker: ServerRequestSender) -> None:
        """Take back a request of this asker; cancel it at the client on the same stream."""
        found = self._correlator.withdrawn(withdrawal, self._asked_by(asker))
        if found is None:
            return
        number, notification = found
        open_request = self._open.pop(number)
        # The answer of its call may have closed the stream that carried the request.
        if open_request.stream.log.closed:
            self._tell_listener(encode(notification))
        else:
            open_request.stream.append(encode(notification), sheddable=True)

    def call_over(self, exchange: Exchange) -> None:
        """Take back the server requests of a call that ends early; cancel them on its stream."""
        if not self._open:
            return
        # A list, since giving up changes the table.
        numbers = [n for n, each in self._open.items() if each.exchange is exchange]
        for number in numbers:
            exchange.tell(self._give_up(number, client_cannot_answer()), sheddable=True)

    def child_lost(self, asker: ServerRequestSender) -> None:
        """Take back all requests of this asker: the child is gone."""
        for number in self._asked_by(asker):
            del self._open[number]
            self._correlator.give_up(number)
            self._tell_listener(encode(cancel_for(number, "the server ended")))

    def _asked_by(self, asker: ServerRequestSender) -> list[int]:
        return [number for number, each in self._open.items() if each.asker is asker]

    def _make_room(self) -> None:
        """Give up the oldest request whose call is over: the child most likely does not wait."""
        for number, each in self._open.items():
            if each.exchange is not None and each.exchange.reply is not None:
                self._tell_listener(self._give_up(number, client_cannot_answer()))
                return

    async def _expire(self, number: int) -> None:
        await anyio.sleep(self._delivery_s)
        waiting = self._open.get(number)
        # It may have been answered, taken back or delivered in the last moment.
        if waiting is not None and waiting.stream.delivered < waiting.entry:
            self._meters.count("undelivered_question")
            # Else a client that connects later would get a request that has failed.
            waiting.stream.log.discard(waiting.entry)
            self._give_up(number, question_undelivered(self._delivery_s))

    def _give_up(self, number: int, fault: Fault) -> bytes:
        open_request = self._open.pop(number)
        child_id = self._correlator.give_up(number)
        if child_id is not None:
            open_request.asker.send(Failure(child_id, fault.error()))
        return encode(cancel_for(number, "the call it belonged to is over"))

    def _tell_listener(self, cancellation: bytes) -> None:
        if not self._standalone.log.closed:
            self._standalone.append(cancellation, sheddable=True)

    def _decline(self, asker: ServerRequestSender, child_id: bytes, fault: Fault) -> None:
        self._meters.count("declined_question")
        asker.send(Failure(child_id, fault.error()))
