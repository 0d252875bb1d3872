"""One call of a legacy session on a child of 2026-07-28, in one or more rounds.

If the child wants input the client is asked, and the call is sent again with the answers: the child
keeps no state of a call except in `requestState`.

Source: MCP 2026-07-28, Multi Round-Trip Requests.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.listeners import Asker, CallEvent
from mcpbridge.bridge.children.mux import Mux
from mcpbridge.bridge.children.shared_state import text_member
from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.bridge.legacy.server_requests import ServerRequestSender
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.channels.off_loop import LONG_BYTES, read_off_loop
from mcpbridge.errors import WireError
from mcpbridge.rules.faults import INTERNAL_ERROR, Unavailable, error_object
from mcpbridge.rules.mcp.correlator import Answered, Tagged
from mcpbridge.rules.mcp.modern_checks import MAY_ASK
from mcpbridge.rules.mcp.to_legacy import (
    enveloped,
    error_down,
    result_down,
    result_type,
    server_request_down,
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
"""Most rounds of input requests in one call: as many as deployed SDK clients allow."""
PACE_S = 0.25
"""Seconds before the next round, if the child asked for a retry without input requests."""


class CallServerRequests(Protocol):
    """A sender of the server requests of single calls to the client."""

    def ask_for_call(
        self, request: Request, asker: ServerRequestSender, exchange: Exchange
    ) -> None:
        """Send a server request of this call to the client, or decline it."""

    def call_over(self, exchange: Exchange) -> None:
        """Take back the open server requests of this call."""


class Lists(Protocol):
    """A memory of the lists of tools that the client has seen."""

    def tools_changed(self, names: frozenset[str]) -> None:
        """Take note of the tools in a list whose output schema was changed for the client."""

    def wraps(self, tool: str | None) -> bool:
        """Return whether the client has seen a changed output schema of this tool."""


class RoundTrip:
    """A call of the session on the child, in one or more rounds.

    It receives the child's answers as a `CallSink`, and those of the client to server requests as a
    `ServerRequestSender`.
    """

    lasting = False

    def __init__(
        self,
        mux: Mux,
        exchange: Exchange,
        client: ClientState,
        find_child: Callable[[], Awaitable[Lease]],
        server_requests: CallServerRequests,
        lists: Lists,
        spawn: Spawn,
    ) -> None:
        """Make a call; `begin` sends its first round.

        Args:
            mux: The mux of the child that gets the first round.
            exchange: Gets the final answer.
            client: Its profile and log level are sent with each round.
            find_child: Waits for the child that gets the next round.
            server_requests: Send server requests to the client.
            lists: The lists of tools that the client has seen.
            spawn: Starts a task of the bridge, which outlives the request.
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
        self.caller = exchange.caller
        self._answers: dict[str, bytes] = {}

    @property
    def asker(self) -> Asker | None:
        """The client and its own id of the call, in each round: see `CallSink`."""
        return self._exchange.asker

    def begin(self) -> None:
        """Send the request of this round; raise WireError if its params cannot be read."""
        # The client may have cancelled while the task waited for the child.
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
        """Take the next event of this round: see `CallSink`."""
        match event:
            case Answered(reply=reply):
                self._answered(reply)
            case Tagged():
                pass  # Only subscriptions have tagged notifications.
            case _:
                self._exchange.receive(event)

    def _answered(self, reply: Reply) -> None:
        """Take the child's answer to this round."""
        # First: a cancellation must not name a number that the child has answered.
        self._exchange.attempt_over()
        if isinstance(reply, Failure):
            self._finish(Failure(self._exchange.request.id, error_down(reply.error)))
            return
        try:
            self._understand(reply.result)
        except WireError as error:
            self._give_up(str(error))

    def send(self, message: Message) -> None:
        """Take the client's answer to one input request; its id is the request's key."""
        if isinstance(message, Failure):
            # A request that is taken back fails too: then the caller of `call_over` answers the
            # call in this same turn of the loop, before the task runs.
            self._spawn(self._unanswered)
        elif isinstance(message, Result):
            key = text_of(message.id) or ""
            # Not wanted: the answer to a request of a round that is over.
            if key in self._wanted:
                self._wanted.discard(key)
                self._exchange.keep(len(message.result))
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
            tool = text_member(self._exchange.request.params, "name")
            wrap = method == "tools/call" and self._lists.wraps(tool)
            if len(result) < LONG_BYTES:
                self._complete(*result_down(result, method, wrap=wrap))
            else:
                self._spawn(self._translate_aside, result, wrap)

    async def _translate_aside(self, result: bytes, wrap: bool) -> None:
        """Translate a long result in a worker thread; until then the call has no answer."""
        method = self._exchange.request.method
        problem, found = "the MCP server's answer cannot be translated", None
        try:
            found = await read_off_loop(lambda text: result_down(text, method, wrap=wrap), result)
        except WireError as error:
            problem = str(error)
        finally:
            # Also if this is cancelled or the translation has a bug: else its client would wait
            # until the call times out.
            if found is None:
                self._give_up(problem)
            else:
                self._complete(*found)

    def _complete(self, result: bytes, changed: frozenset[str]) -> None:
        if changed:
            self._lists.tools_changed(changed)
        self._finish(Result(self._exchange.request.id, result))

    def _ask(self, result: bytes) -> None:
        if self._exchange.request.method not in MAY_ASK:
            self._give_up("the MCP server asked during a call that may not ask")
            return
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            self._give_up(f"the MCP server asked more than {MAX_ROUNDS} times")
            return
        self._state = member(result, "requestState")
        self._exchange.keep(len(self._state or b""))
        self._answers = {}
        input_requests = opened(member(result, "inputRequests") or b"{}")
        self._wanted = set(input_requests)
        if not input_requests:
            self._spawn(self._after_pause)
        for key, entry in input_requests.items():
            method = text_of(member(entry, "method")) or ""
            params = member(entry, "params")
            if not self._client.revision.knows(method, text_of(member(params or b"{}", "mode"))):
                self._give_up(f"the client's revision does not know {method[:64]}")
                return
            shown = server_request_down(method, params, secrets.token_urlsafe(16))
            self._server_requests.ask_for_call(
                Request(quoted(key), method, shown), self, self._exchange
            )

    async def _after_pause(self) -> None:
        await anyio.sleep(PACE_S)
        await self._again()

    async def _again(self) -> None:
        # The process that asked keeps no state of the round: another one may take the next.
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
