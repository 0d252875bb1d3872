"""Forwards a request to the replica that has its session, and hands its response on as it comes.

Host, Origin, credentials and rate were checked here. Of the client's headers only those go on that
the other replica reads: no token and no cookie. Only `http.peers.forwarding` makes it forward, on
the port for clients; what comes from another replica is served where it came to, or refused.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.types import Scope

from mcpbridge.bridge.drain import Drain
from mcpbridge.http.peers.held import HELD_S, HeldRequests
from mcpbridge.http.request import HttpRequest, RequestHead
from mcpbridge.http.responses import HttpResponse, refusal_of, refusing
from mcpbridge.replicas.homes import Homes, NoneSettled
from mcpbridge.replicas.peer_client import Headers, Lost, PeerClient, PeerConnection, Unreachable
from mcpbridge.replicas.peer_proof import HEADER, PeerProofs, Unproven
from mcpbridge.replicas.session_id import (
    Replica,
    SessionId,
    SessionIds,
    Unreadable,
    replica_named,
)
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import (
    Fault,
    Unavailable,
    replica_lost,
    replica_unreachable,
    session_of_newer_release,
    shutdown,
)
from mcpbridge.rules.homes.lost_calls import is_repeatable
from mcpbridge.rules.mcp.admission import Refusal, session_gone
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Failure, Message, Notification, Request, encode

log = logging.getLogger("mcpbridge.http")

CHALLENGE = "Mcpbridge-Peer"
"""The scheme in WWW-Authenticate with which a peer port refuses a proof."""
LOOK_EVERY_S = 5.0
"""Seconds between two looks for open responses whose client's credentials have ended."""

_PASSED = frozenset(
    (
        b"accept",
        b"content-type",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
    )
)
_PARAM_PREFIX = b"mcp-param-"
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"date", b"keep-alive", b"proxy-connection", b"server", b"transfer-encoding")
)
_EVENT_END = b"\n\n"
_LOG_EVERY_S = 10.0
ENDING = "ending"
"""What a peer port says, in place of a problem with the proof, once its replica has ended all of
its sessions: they go on at another one, and the request was not read."""
MOVED = "moved"
"""The same if another replica has the session now, which it names."""
_ANSWERED, _LEFT = "answered", "left"
_REPEATED = "repeated"
"""The outcome of a request without an answer that is sent again."""
_DEAD = (Unproven.OTHER_BOOT, ENDING)
"""Answers that say that the session is not there any more, and that the request was not read."""
_MOST_HOMES = 5
"""Homes of a session that are tried for one request; each may be lost while it is asked."""


class Forwarded(msgspec.Struct, frozen=True):
    """What is sent on, and what its client is told if it fails."""

    body: bytes = b""
    requests: Sequence[bytes] = ()
    """The ids of the requests in the body, which await answers."""
    batch: bool = False
    parked: bool = False
    """Whether it goes on with a parked call, which has ended if its replica has."""
    repeatable: bool = False
    """Whether it may be executed twice, so that it is sent again if its answer is lost."""


def forwarded(content: Message | list[Message], *, parked: bool = False) -> Forwarded:
    """Return one message or a batch, as it is sent on."""
    if isinstance(content, list):
        ids = [each.id for each in content if isinstance(each, Request)]
        body = b"[%b]" % b",".join(map(encode, content))
        return Forwarded(body, ids, batch=True, repeatable=all(map(_is_repeatable, content)))
    ids = [content.id] if isinstance(content, Request) else []
    repeatable = not parked and _is_repeatable(content)
    return Forwarded(encode(content), ids, parked=parked, repeatable=repeatable)


def _is_repeatable(message: Message) -> bool:
    # No class patterns, for which CPython makes a set, a list and a tuple: each call asks.
    if isinstance(message, Request):
        return is_repeatable("request", message.method)
    return is_repeatable("notification" if isinstance(message, Notification) else "reply", None)


class _Attempt(enum.Enum):
    """What came of forwarding a request to one replica."""

    OVER = "over"
    """The client has the response, or what became of the request."""
    DEAD = "dead"
    """The replica has ended and cannot have read it."""
    UNREACHABLE = "unreachable"
    """Nothing was sent, and the replica may live."""
    LOST = "lost"
    """There is no answer, and it may be sent again; whether the replica lives is not known."""
    HERE = "here"
    """This replica has adopted its session, and serves it."""


class _Exchange:
    """One request that is forwarded."""

    __slots__ = ("connection", "fault", "home", "left", "listens", "moved_to", "over", "principal")

    def __init__(
        self, connection: PeerConnection, home: Replica, principal: Principal, *, listens: bool
    ) -> None:
        self.connection = connection
        self.home = home
        self.principal = principal
        self.listens = listens
        """Whether its response is a stream on which the client only listens."""
        self.left = False
        """Whether its client has left."""
        self.over = False
        """Whether its response ends now, as streams do from which a client reconnects."""
        self.fault: Fault | None = None
        """Why it was ended here; None if it was not."""
        self.moved_to: Replica | None = None
        """The replica that has the session, if it is not the one that was asked."""

    def client_left(self) -> None:
        """End it: the client has left."""
        self.left = True
        self.connection.abort()

    def moved(self) -> None:
        """Note which replica has the session, as the one that was asked says."""
        self.moved_to = _home_in(self.connection)

    def end(self) -> None:
        """End its response; its client connects again."""
        self.over = True
        self.connection.abort()

    def cut(self, fault: Fault) -> None:
        """End it with this fault."""
        self.fault = fault
        self.connection.abort()


class _Loss(NamedTuple):
    """A replica that did not serve a request."""

    attempt: _Attempt | Replica
    """What came of asking it, or the replica that it named."""
    home: Replica
    since: float
    """When the first of the replicas that were asked did not, on the event loop's clock."""


_Otherwise = Callable[[_Loss, Forwarded, HttpRequest], Awaitable[Replica | HttpResponse]]
"""Returns where a request goes that a replica did not serve, or its answer."""


class Relay:
    """The forwarding of one replica."""

    def __init__(
        self,
        ids: SessionIds,
        proofs: PeerProofs,
        client: PeerClient,
        drain: Drain,
        meters: Meters,
        passed: Sequence[str] = (),
        still: Callable[[Principal], bool] | None = None,
        homes: Homes | None = None,
    ) -> None:
        """Make a relay.

        Args:
            ids: Reads which replica a session id names.
            proofs: Prove this replica to others.
            client: Connects to them.
            drain: Waits for forwarded requests too.
            meters: Count what was forwarded.
            passed: Further headers that the other replica reads, in lower case.
            still: Returns whether a client's credentials are still valid; None: they do not end.
            homes: Finds the next home of a session that has lost its own; None: there is none.
        """
        self._homes = homes
        self._ids = ids
        self._proofs = proofs
        self._client = client
        self._drain = drain
        self._meters = meters
        self._passed = _PASSED | {name.encode() for name in passed}
        self._still = still
        self._open: set[_Exchange] = set()
        self._held = HeldRequests()
        self._logged: dict[str, float] = {}

    def home_of(self, text: str, principal: Principal) -> Replica | Refusal | None:
        """Return the other replica that a session id names.

        Returns:
            The replica; None if it is this one, which has no such session; or the refusal of an id
            that names none.
        """
        found = self._ids.open(text, principal.key)
        if isinstance(found, SessionId):
            home = found.owner if self._homes is None else self._homes.known(text, found.owner)
            return home if home != self._ids.own else None
        self._meters.tally("forwards", f"refused_{found.value}")
        if found is Unreadable.NEWER:
            return refusal_of(Unavailable(session_of_newer_release()), None)
        return session_gone()

    def forward(
        self, home: Replica, sent: Forwarded, http_request: HttpRequest
    ) -> Coroutine[Any, Any, None]:
        """Forward a request and send its client the response, or what became of it."""
        once = msgspec.structs.replace(sent, repeatable=False)
        return self._forward(home, once, http_request, self._no_home, None)

    def place(
        self,
        home: Replica,
        sent: Forwarded,
        http_request: HttpRequest,
        here: Callable[[HttpRequest], Coroutine[Any, Any, None]],
    ) -> Coroutine[Any, Any, None]:
        """Forward an `initialize` to a replica that has room; `here` serves it if that is gone."""
        once = msgspec.structs.replace(sent, repeatable=False)
        return self._forward(home, once, http_request, self._this_replica, here)

    def serve(
        self,
        home: Replica,
        sent: Forwarded,
        http_request: HttpRequest,
        here: Callable[[HttpRequest], Coroutine[Any, Any, None]],
    ) -> Coroutine[Any, Any, None]:
        """Forward a request for a session, which another replica adopts if its own is lost.

        Args:
            home: The replica that has the session.
            sent: What is sent on.
            http_request: The client's request.
            here: Serves it if the session is here by then, since this replica has adopted it.
        """
        if self._homes is None:
            return self.forward(home, sent, http_request)
        return self._forward(home, sent, http_request, self._next_home, here)

    async def _forward(
        self,
        home: Replica,
        sent: Forwarded,
        http_request: HttpRequest,
        otherwise: _Otherwise,
        here: Callable[[HttpRequest], Coroutine[Any, Any, None]] | None,
    ) -> None:
        begun = await self._begun(home, sent, http_request, otherwise)
        # First, as with CPython 3.11 the class of an enum looks its members up by a slow path.
        if not isinstance(begun, _Exchange):
            if begun is _Attempt.HERE and here is not None:
                await here(http_request)
            return
        connection, send, last = begun.connection, http_request.send, None
        outcome, more = _LEFT, True
        try:
            # No coroutines beside this one: an idle stream would keep the frame of each.
            while more:
                piece = connection.take()
                if piece or connection.complete:
                    if last is None:
                        await send(_start(connection))
                    last = piece or last or b""
                    more = not connection.at_end
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
                else:
                    await connection.news()
            outcome = _ANSWERED
        except Lost:
            outcome = await self._lost(begun, sent, http_request, last)
        finally:
            self._over(begun, sent, http_request, outcome)

    async def _begun(
        self, home: Replica, sent: Forwarded, http_request: HttpRequest, otherwise: _Otherwise
    ) -> _Exchange | _Attempt:
        """Return the exchange of a request whose response begins; else what came of it.

        Args:
            home: The replica that has the session.
            sent: What is sent on.
            http_request: The client's request.
            otherwise: Returns what follows if the replica does not serve it.
        """
        since = 0.0
        for _ in range(_MOST_HOMES):
            attempt = await self._attempt(home, sent, http_request)
            if isinstance(attempt, _Exchange) or attempt is _Attempt.OVER:
                if self._homes is not None and self._homes.has_doubts:
                    self._homes.answered(home)
                return attempt
            if attempt is _Attempt.LOST:
                # The next connection tells whether it has ended.
                continue
            since = since or asyncio.get_running_loop().time()
            found = await otherwise(_Loss(attempt, home, since), sent, http_request)
            if isinstance(found, HttpResponse):
                await found.finish(http_request)
                return _Attempt.OVER
            if found == self._ids.own:
                return _Attempt.HERE
            home = found
        await _unavailable(replica_unreachable(), sent).finish(http_request)
        return _Attempt.OVER

    async def _no_home(
        self, loss: _Loss, sent: Forwarded, _: HttpRequest
    ) -> Replica | HttpResponse:
        """Return the answer to a request that only the replica that was lost could serve."""
        unknown = loss.attempt is _Attempt.UNREACHABLE
        return _unavailable(replica_unreachable(), sent) if unknown else _gone(sent)

    async def _this_replica(
        self, _loss: _Loss, _sent: Forwarded, _: HttpRequest
    ) -> Replica | HttpResponse:
        """Return this replica, which serves what the other one was not there for."""
        return self._ids.own

    async def _next_home(
        self, loss: _Loss, sent: Forwarded, http_request: HttpRequest
    ) -> Replica | HttpResponse:
        """Return the next home of a session that has lost its own, or the answer if it has none.

        The request is held while no replica may adopt the session yet: none has it so far.
        """
        homes, head = self._homes, http_request.head
        session_id = head.names.session_id
        assert homes is not None
        assert session_id is not None
        if isinstance(loss.attempt, Replica):
            homes.moved(session_id, loss.attempt)
            return loss.attempt
        unknown = loss.attempt is _Attempt.UNREACHABLE
        if sent.requests:
            # Until it has a home, since the drain ends as soon as no call is in flight.
            self._drain.call_started()
        try:
            finding = functools.partial(
                homes.next_home, session_id, head.principal, loss.home, unknown=unknown
            )
            home = await self._home_in_time(finding, loss.since, sent, http_request)
        except LookupError:
            return _gone(sent)
        except Unavailable as error:
            return _unavailable(error.fault, sent)
        finally:
            if sent.requests:
                self._drain.call_finished()
        self._meters.tally("adoptions", "owner_unknown" if unknown else "owner_dead")
        return home

    async def _home_in_time(
        self,
        finding: Callable[[], Awaitable[Replica]],
        since: float,
        sent: Forwarded,
        http_request: HttpRequest,
    ) -> Replica:
        """Return the next home of a session, for which its request is held for `HELD_S` at most.

        Args:
            finding: Finds the home, or raises; see `Homes.next_home`.
            since: When the session was found to have lost its home, on the event loop's clock.
            sent: The request.
            http_request: The same, with its connection.

        Raises:
            Unavailable, LookupError: See `Homes.next_home`.
        """
        loop, until = asyncio.get_running_loop(), None
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await finding()
            except NoneSettled as error:
                at = loop.time() + error.after_s
                held = self._held.until(at, since, len(sent.body), http_request.disconnect)
                if not await held:
                    raise
            except TimeoutError:
                # What another replica has begun to adopt goes on, and the next request finds it.
                raise Unavailable(replica_unreachable()) from None
            until = since + HELD_S

    async def _attempt(
        self, home: Replica, sent: Forwarded, http_request: HttpRequest
    ) -> _Exchange | _Attempt | Replica:
        """Forward a request to one replica and wait until its response begins.

        Returns:
            The exchange, of which the client has nothing yet; what came of it if the client is not
            to get the response; or where its session is.
        """
        head = http_request.head
        use = head.values.get(b"mcp-session-id", b"")
        began_at = asyncio.get_running_loop().time()
        try:
            connection = await self._client.connection(home, use)
        except Unreachable as error:
            return self._not_sent(home, error)
        listens = head.method == "GET"
        exchange = _Exchange(connection, home, head.principal, listens=listens)
        self._open.add(exchange)
        if sent.requests:
            self._drain.call_started()
        outcome = _LEFT
        try:
            http_request.disconnect.watch(exchange.client_left)
            connection.begin(self._request(home, head, http_request, sent.body), use)
            while not connection.begun:
                await connection.news()
            outcome = await self._judged(exchange, sent, http_request, began_at)
        except Lost:
            outcome = await self._lost(exchange, sent, http_request, None)
        finally:
            if outcome != _ANSWERED:
                self._over(exchange, sent, http_request, outcome)
        if outcome == _ANSWERED:
            return exchange
        if exchange.moved_to is not None:
            return exchange.moved_to
        if outcome == _REPEATED:
            return _Attempt.LOST
        return _Attempt.DEAD if outcome in _DEAD else _Attempt.OVER

    async def _judged(
        self, exchange: _Exchange, sent: Forwarded, http_request: HttpRequest, began_at: float
    ) -> str:
        """Return the outcome of a request whose response begins, for the metrics."""
        seconds = asyncio.get_running_loop().time() - began_at
        self._meters.observe("forward_seconds", seconds)
        problem = _refused_proof(exchange.connection)
        if problem is None:
            return _ANSWERED
        if problem == MOVED:
            exchange.moved()
        if exchange.moved_to is None:
            await self._unproven(problem, sent, http_request)
        return problem

    def _over(
        self, exchange: _Exchange, sent: Forwarded, http_request: HttpRequest, outcome: str
    ) -> None:
        """Take note that a request is forwarded no more."""
        http_request.disconnect.ignore()
        if sent.requests:
            self._drain.call_finished()
        self._open.discard(exchange)
        self._client.release(exchange.connection, exchange.home)
        self._meters.tally("forwards", outcome)

    async def run(self) -> None:
        """End responses whose client's credentials have ended, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._still is not None:
                for exchange in list(self._open):
                    if not self._still(exchange.principal):
                        exchange.end()

    def end_idle_streams(self) -> None:
        """End streams on which clients only listen, so that they connect elsewhere."""
        for exchange in list(self._open):
            if exchange.listens:
                exchange.end()

    def cut_off(self) -> None:
        """Answer every forwarded request that is left with an error, and close all connections."""
        for exchange in list(self._open):
            exchange.cut(shutdown())
        self._held.end()
        self._client.close()

    async def _lost(
        self,
        exchange: _Exchange,
        sent: Forwarded,
        http_request: HttpRequest,
        last: bytes | None,
    ) -> str:
        """Tell the client what became of a request whose response has not come, or broke off.

        Args:
            exchange: The request.
            sent: What was sent.
            http_request: The client's request.
            last: The end of what it has of the response; None if nothing was sent to it.
        """
        if exchange.left:
            return _LEFT
        if last is None and sent.repeatable and not (exchange.fault or exchange.over):
            return _REPEATED
        fault = exchange.fault or replica_lost()
        if last is None:
            await (_ending(exchange) or _answer(fault, sent)).finish(http_request)
        elif exchange.listens or exchange.over:
            await http_request.send({"type": "http.response.body", "body": b""})
        elif last.endswith(_EVENT_END) and sent.requests and exchange.connection.is_stream:
            failures = [_event(encode(Failure(each, fault.error()))) for each in sent.requests]
            await http_request.send({"type": "http.response.body", "body": b"".join(failures)})
        else:
            # Whatever followed would be taken for the rest of the response.
            http_request.disconnect.cut()
            while (await http_request.receive())["type"] != "http.disconnect":
                pass
        return "ended" if exchange.over or exchange.fault else "lost"

    def _not_sent(self, home: Replica, error: Unreachable) -> _Attempt:
        """Return what a failure to connect says."""
        self._meters.tally("forwards", "refused" if error.refused else "unreachable")
        if self._may_log("peer.unreachable"):
            log.warning("peer.unreachable", extra={"home": str(home), "problem": str(error)})
        return _Attempt.DEAD if error.refused else _Attempt.UNREACHABLE

    async def _unproven(self, problem: str, sent: Forwarded, http_request: HttpRequest) -> None:
        if problem in _DEAD:
            return
        if self._may_log("peer.refused_proof"):
            log.warning("peer.refused_proof", extra={"problem": problem})
        await _unavailable(replica_unreachable(), sent).finish(http_request)

    def _request(
        self, home: Replica, head: RequestHead, http_request: HttpRequest, body: bytes
    ) -> bytes:
        """Return the request as the other replica gets it."""
        lines = head.passed_lines
        if lines is None:
            lines = self._lines(head, http_request.scope)
            # Only the heads of POSTs are remembered; a stream would keep its lines for nothing.
            if head.method == "POST":
                head.keep_lines(lines)
        # Not kept: the proof changes with time, and with the credentials under the same head.
        proof = self._proofs.header_for(home, head.principal)
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (lines, proof, len(body), body)

    def _lines(self, head: RequestHead, scope: Scope) -> bytes:
        """Return the head of a request as another replica gets it, up to the value of the proof."""
        path: bytes = scope["raw_path"]
        if scope["query_string"]:
            path += b"?" + scope["query_string"]
        lines = [b"%b %b HTTP/1.1\r\nhost: mcpbridge\r\n" % (head.method.encode(), path)]
        for name, value in head.raw:
            if name in self._passed or name.startswith(_PARAM_PREFIX):
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"%b%b: " % (b"".join(lines), HEADER)

    def _may_log(self, event: str) -> bool:
        """Return whether an event of this kind may be logged again: once in `_LOG_EVERY_S`."""
        now = asyncio.get_running_loop().time()
        due = now - self._logged.get(event, -math.inf) >= _LOG_EVERY_S
        if due:
            self._logged[event] = now
        return due


def _start(connection: PeerConnection) -> dict[str, Any]:
    """Return the ASGI message for the head of a response."""
    lines = [pair for pair in connection.take_headers() if pair[0] not in _OF_THE_CONNECTION]
    return {"type": "http.response.start", "status": connection.status, "headers": lines}


def _refused_proof(connection: PeerConnection) -> str | None:
    """Return why a peer port refused the proof; None if it did not."""
    if connection.status != 403:
        return None
    return next((_problem_in(each) for each in _values(connection.headers or [])), None)


def _values(headers: Headers) -> list[bytes]:
    start = CHALLENGE.encode() + b" "
    return [v for name, v in headers if name == b"www-authenticate" and v.startswith(start)]


def _problem_in(challenge: bytes, name: str = "error") -> str:
    return challenge.decode("latin-1").partition(f'{name}="')[2].partition('"')[0]


def _home_in(connection: PeerConnection) -> Replica | None:
    """Return the replica that a peer port names as the home of a session that has moved."""
    homes = [replica_named(_problem_in(each, "home")) for each in _values(connection.headers or [])]
    return next(iter(homes), None)


def _event(payload: bytes) -> bytes:
    return b"event: message\ndata: %b\n\n" % payload


def _ending(exchange: _Exchange) -> HttpResponse | None:
    """Return the response if a stream has not begun when it is to end; None for another request."""
    if not exchange.over:
        return None
    return refusing(refusal_of(Unavailable(replica_unreachable()), None))


def _echoing(refusal: Refusal, sent: Forwarded) -> Refusal:
    if sent.batch or not sent.requests:
        return refusal
    return msgspec.structs.replace(refusal, request_id=sent.requests[0])


def _gone(sent: Forwarded) -> HttpResponse:
    """Return the answer if the replica that has the session or the parked call has ended."""
    return (
        _answer(replica_lost(), sent) if sent.parked else refusing(_echoing(session_gone(), sent))
    )


def _unavailable(fault: Fault, sent: Forwarded) -> HttpResponse:
    return refusing(_echoing(refusal_of(Unavailable(fault), None), sent))


def _answer(fault: Fault, sent: Forwarded) -> HttpResponse:
    """Return the answers to requests that may have been executed, or the refusal of another."""
    if not sent.requests:
        return _unavailable(fault, sent)
    answers = b",".join(encode(Failure(each, fault.error())) for each in sent.requests)
    return HttpResponse(200, b"[%b]" % answers if sent.batch else answers)
