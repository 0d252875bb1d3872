"""One call of a legacy session on a child of 2026-07-28, over as many rounds as it takes.

Where the child wants input the client is asked, and the call is sent again with the answers: the
child remembers nothing but what it wrote into `requestState`.

Source: MCP 2026-07-28, Multi Round-Trip Requests.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import CallEvent
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.children.shared_state import text_member
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.server_requests import ServerRequestSender
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INTERNAL_ERROR, Unavailable, error_object
from mcpbridge.rules.mcp.correlator import Answered, Tagged
from mcpbridge.rules.mcp.modern_checks import MAY_ASK
from mcpbridge.rules.mcp.to_legacy import (
    adapted_content,
    enveloped,
    error_down,
    plain_result,
    question_down,
    result_type,
)
from mcpbridge.wire.json_object import member, opened, packed
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Reply,
    Request,
    Result,
    quoted,
    text_of,
)

MAX_ROUNDS = 10
"""Rounds of questions in one call; what deployed SDK clients allow."""
PACE_S = 0.25
"""Pause before a round in which the child only wants to be asked again."""


class CallQuestions(Protocol):
    """Puts to the client what the server asks during one call."""

    def inquire(self, request: Request, asker: ServerRequestSender, exchange: Exchange) -> None:
        """Ask the client something that belongs to this call, or decline it."""

    def call_over(self, exchange: Exchange) -> None:
        """Take back what this call asked."""


class Lists(Protocol):
    """What is remembered of the lists of tools that the client has seen."""

    def tools_listed(self, result: bytes) -> bytes:
        """A list of tools as the client may see it."""

    def wraps(self, tool: str | None) -> bool:
        """Whether the client has seen another output schema of this tool than the child's."""


class RoundTrip:
    """One call of the session on the child, over as many rounds as it takes.

    It waits for the child's answers (`CallSink`) and, while the client is asked, for the
    client's (`ServerRequestSender`).
    """

    lasting = False

    def __init__(
        self,
        mux: Mux,
        exchange: Exchange,
        client: ClientState,
        find_child: Callable[[], Awaitable[Lease]],
        server_requests: CallQuestions,
        lists: Lists,
        spawn: Spawn,
    ) -> None:
        """Make a call; `begin` sends its first round.

        Args:
            mux: Of the child that gets the first round.
            exchange: Gets the final answer.
            client: What goes with each round, since the child remembers nothing.
            find_child: Waits for the child that gets the next round.
            server_requests: Ask the client.
            lists: What the client has seen of the child's tools.
            spawn: Runs work in the bridge's own time.
        """
        self._lists = lists
        self._client = client
        self._find_child = find_child
        self._server_requests = server_requests
        self._mux = mux
        self._exchange = exchange
        self._spawn = spawn
        self._rounds = 0
        self._state: bytes | None = None
        self._wanted: set[str] = set()
        self._answers: dict[str, bytes] = {}

    def begin(self) -> None:
        """Send the request; raises WireError if its params cannot be read."""
        if self._exchange.reply is not None:
            return
        added: dict[str, bytes] = {}
        if self._rounds:
            if self._answers:
                added["inputResponses"] = packed(self._answers)
            if self._state is not None:
                added["requestState"] = self._state
        request = self._exchange.request
        params = enveloped(request.params, self._client.profile, self._client.level, added)
        self._exchange.submit(self._mux, Request(b"0", request.method, params), self)

    def receive(self, event: CallEvent) -> None:
        """Take what comes of this round: see `CallSink`."""
        match event:
            case Answered(reply=reply):
                self._answered(reply)
            case Tagged():
                pass  # A call is no subscription.
            case _:
                self._exchange.receive(event)

    def _answered(self, reply: Reply) -> None:
        """The child's answer to this round."""
        self._exchange.attempt_over()
        if isinstance(reply, Failure):
            self._finish(Failure(self._exchange.request.id, error_down(reply.error)))
            return
        try:
            self._understand(reply.result)
        except WireError as error:
            self._give_up(str(error))

    def send(self, message: Message) -> None:
        """The client's answer to one question, under its key; see `ServerRequestSender`."""
        if isinstance(message, Failure):
            # Of a question that is withdrawn comes a failure as well: then whoever withdraws it
            # says, in this very turn of the loop, how the call ends.
            self._spawn(self._unanswered)
        elif isinstance(message, Result):
            key = text_of(message.id) or ""
            if key in self._wanted:
                self._wanted.discard(key)
                self._answers[key] = message.result
                if not self._wanted:
                    self._spawn(self._again)

    def _understand(self, result: bytes) -> None:
        kind = result_type(result)
        method = self._exchange.request.method
        if kind == "input_required":
            self._ask(result)
        elif kind != "complete":
            self._give_up(f"the MCP server answered with a result of kind {kind[:32]!r}")
        else:
            plain = plain_result(result)
            if method == "tools/list":
                plain = self._lists.tools_listed(plain)
            elif method == "tools/call":
                tool = text_member(self._exchange.request.params, "name")
                plain = adapted_content(plain, wrap=self._lists.wraps(tool))
            self._finish(Result(self._exchange.request.id, plain))

    def _ask(self, result: bytes) -> None:
        if self._exchange.request.method not in MAY_ASK:
            self._give_up("the MCP server asked during a call that may not ask")
            return
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            self._give_up(f"the MCP server asked more than {MAX_ROUNDS} times")
            return
        self._state = member(result, "requestState")
        self._answers = {}
        questions = opened(member(result, "inputRequests") or b"{}")
        self._wanted = set(questions)
        if not questions:
            self._spawn(self._after_pause)
        for key, entry in questions.items():
            method = text_of(member(entry, "method")) or ""
            params = member(entry, "params")
            if not self._client.revision.knows(method, text_of(member(params or b"{}", "mode"))):
                self._give_up(f"the client's revision does not know {method[:64]}")
                return
            shown = question_down(method, params, secrets.token_urlsafe(16))
            self._server_requests.inquire(Request(quoted(key), method, shown), self, self._exchange)

    async def _after_pause(self) -> None:
        await anyio.sleep(PACE_S)
        await self._again()

    async def _again(self) -> None:
        # Nothing of a round is left in the process that asked: any other may take the next one.
        try:
            lease = await self._find_child()
            await lease.mux.channel.writable()
            self._mux = lease.mux
            self.begin()
        except Unavailable as error:
            self._exchange.fail(error.fault)
        except WireError as error:
            self._give_up(str(error))

    async def _unanswered(self) -> None:
        self._give_up("the client could not answer a question of the MCP server")

    def _finish(self, reply: Reply) -> None:
        self._exchange.answered(reply)

    def _give_up(self, why: str) -> None:
        if self._exchange.reply is None:
            self._server_requests.call_over(self._exchange)
            error = error_object(INTERNAL_ERROR, why)
            self._finish(Failure(self._exchange.request.id, error))
