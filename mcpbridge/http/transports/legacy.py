"""The legacy revisions over Streamable HTTP: POST, GET and DELETE on the MCP path.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Streamable HTTP; clients of 2024-11-05 that POST
here are served the same way.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.replay import ResumeResult
from mcpbridge.bridge.calls.stream import Reader, Stream
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.http.body import id_of, judge_head
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import (
    COMMENT,
    SESSION_HEADER,
    EventStream,
    Headers,
    HttpResponse,
    refusal_of,
    refusing,
    send_empty,
    send_late_json,
    send_replies,
)
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable, draining
from mcpbridge.rules.mcp.admission import (
    Admitted,
    Opening,
    Refusal,
    admit_batch,
    admit_message,
    refuse,
    session_gone,
    session_required,
)
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.request_meta import progress_token
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.wire.messages import (
    Message,
    Notification,
    Request,
    Result,
)

METHODS = "GET, POST, DELETE"
Conversation = Session | SessionlessCalls


class AnswerSettings(SettingsSection, frozen=True):
    """Settings of the form of answers."""

    json_window_s: float = setting(
        1.0,
        "--json-window",
        "An answer that comes within this time, with nothing before it, is plain JSON; otherwise"
        " the response begins then, as an event stream. A call during which the server can send"
        " nothing else stays with JSON however long it takes. 0: every answer is a stream.",
        group="Listening",
        unit=Unit.SECONDS,
        minimum=0,
    )
    max_stream_age_s: float = setting(
        0.0,
        "--max-stream-age",
        "End the connection of a call's event stream at this age; clients of 2025-11-25 reconnect"
        " for the rest. 0: never.",
        group="Listening",
        unit=Unit.SECONDS,
        minimum=0,
    )


class LegacyTransport:
    """A transport for clients of the legacy revisions, over Streamable HTTP."""

    def __init__(self, bridge: Bridge, keepalive: KeepAlive, settings: AnswerSettings) -> None:
        self._bridge = bridge
        self._keepalive = keepalive
        self._settings = settings

    def handle(
        self, head: RequestHead, content: Message | list[Message]
    ) -> StartedCall | HttpResponse | Refusal:
        """Take one message, or a batch of 2025-03-26, and begin to serve its requests.

        Returns:
            The response, or the call that brings it; a refusal if a rule is broken.

        Raises:
            Unavailable: No child, session or tenant can be had at present.
        """
        if isinstance(content, Request) and content.method == INITIALIZE:
            # Clients that start a new session send the headers of the last one, which may be gone.
            session: Session | Refusal | None = None
        else:
            session = head.verdict(judge_head).legacy_refusal or self._named_session(head)
        if session is not None and not isinstance(session, Session):
            return session
        admitted: Opening | Admitted | Refusal
        revision = session.client.revision if session is not None else None
        if isinstance(content, list):
            admitted = admit_batch(content, revision)
        else:
            strict = self._bridge.session_settings.require_session
            admitted = admit_message(content, revision, require_session=strict)
        if not isinstance(admitted, Admitted):
            return admitted if isinstance(admitted, Refusal) else self._open(head, admitted)
        if admitted.batch and session is not None:
            return self._serve_batch(head, session, admitted.messages)
        message = admitted.messages[0]
        serving = session or self._bridge.tenant_of(head.principal).sessionless_nowait()
        if serving is None:
            return StartedCall(functools.partial(self._serve_sessionless, message))
        return self._serve(head, serving, message)

    async def get(self, http_request: HttpRequest) -> None:
        """Open the standalone stream, or resume the stream that `Last-Event-ID` names."""
        session = self._required_session(http_request.head)
        if not http_request.head.accepts.stream:
            session = refuse(406, INVALID_REQUEST, "Accept must allow text/event-stream")
        stream = (
            session if isinstance(session, Refusal) else self._stream_for(http_request, session)
        )
        if isinstance(stream, Refusal) or isinstance(session, Refusal):
            assert isinstance(stream, Refusal)
            await self._refuse(http_request, stream)
        else:
            await self._stream(http_request, session, stream)

    async def delete(self, http_request: HttpRequest) -> None:
        """End the session that a request names."""
        session = self._required_session(http_request.head)
        if isinstance(session, Refusal):
            await self._refuse(http_request, session)
            return
        self._end(session)
        await send_empty(http_request.send, 200)

    def _end(self, session: Session) -> None:
        """End a session for its client."""
        self._bridge.close(session)

    def _named_session(self, head: RequestHead) -> Session | Refusal | None:
        session_id = head.names.session_id
        if session_id is None:
            return None
        session = self._bridge.session(session_id, head.principal)
        if session is None and self._bridge.drain.cut_off:
            # A client gives its session up on 404; this one may be one that the cutoff has closed.
            return refusal_of(Unavailable(draining()), None)
        return session or session_gone()

    def _required_session(self, head: RequestHead) -> Session | Refusal:
        refusal = head.verdict(judge_head).legacy_refusal
        return refusal or self._named_session(head) or session_required()

    def _stream_for(self, http_request: HttpRequest, session: Session) -> Stream | Refusal:
        """Return the stream that a GET asks for, or the refusal."""
        last_event_id = http_request.head.get(b"last-event-id")
        found = ResumeResult.FRESH if last_event_id is None else session.streams.find(last_event_id)
        if found is ResumeResult.FOREIGN:
            return refuse(400, INVALID_REQUEST, "Last-Event-ID is not of this session")
        if found is ResumeResult.OVER:
            # 405 is the only status after which every deployed client stops asking.
            return refuse(405, INVALID_REQUEST, "nothing is left on that stream", allow=METHODS)
        stream = session.streams.standalone if isinstance(found, ResumeResult) else found
        # A stream with an answer on it may still be resumed: only what would listen without end is
        # refused.
        if stream is session.streams.standalone and not self._may_listen(session):
            return refusal_of(Unavailable(draining()), None)
        fault = self._bridge.over_streams(session)
        return stream if fault is None else refusal_of(Unavailable(fault), None)

    def _may_listen(self, _session: Session) -> bool:
        """Return whether the standalone stream of a session may be opened now."""
        return self._bridge.drain.accepts_sessions

    def _open(self, head: RequestHead, opening: Opening) -> StartedCall:
        streams = head.streams
        session, exchange = self._bridge.open(opening, head.principal, streams=streams)
        return StartedCall(functools.partial(self._finish_opening, session, exchange))

    async def _finish_opening(
        self, session: Session, exchange: Exchange, http_request: HttpRequest
    ) -> None:
        left = functools.partial(self._bridge.client_left, session)
        http_request.disconnect.watch(left)
        try:
            await self._finish_opened(session, exchange, http_request)
        finally:
            http_request.disconnect.ignore()
            # A stream that was begun watches for its client itself.
            left()

    async def _finish_opened(
        self, session: Session, exchange: Exchange, http_request: HttpRequest
    ) -> None:
        await exchange.first(self._settings.json_window_s)
        headers: Headers = ()
        if session.state is not SessionState.CLOSED:
            headers = [*headers, (SESSION_HEADER, session.id.encode())]
        await self._respond(http_request, session, exchange, headers)

    async def _serve_sessionless(self, message: Message, http_request: HttpRequest) -> None:
        """Serve a message without a session, as soon as the server's eras are known."""
        head = http_request.head
        handled: StartedCall | HttpResponse
        try:
            calls = await self._bridge.tenant_of(head.principal).sessionless()
            handled = self._serve(head, calls, message)
        except Unavailable as error:
            refusal = refusal_of(error, id_of(message))
            handled = refusing(refusal)
        await handled.finish(http_request)

    def _serve(
        self, head: RequestHead, session: Conversation, message: Message
    ) -> StartedCall | HttpResponse:
        if isinstance(message, Request):
            streams = head.streams
            exchange = session.call(message, streams=streams, caller=head.caller)
            if not self._settings.json_window_s:
                exchange.always_stream()
            finish = functools.partial(self._finish, session, exchange)
            return StartedCall(finish, exchange)
        if isinstance(message, Notification):
            session.tell(message)
        else:
            session.answer(message)
        return self._accepted()

    def _accepted(self) -> HttpResponse:
        return HttpResponse(202)

    async def _finish(
        self, session: Conversation, exchange: Exchange, http_request: HttpRequest
    ) -> None:
        """Wait for the first event of a call, at most the JSON window, then answer."""
        await exchange.first(self._settings.json_window_s)
        if exchange.reply is None and self._stays_json(http_request.head, session, exchange):
            await exchange.first(self._keepalive.every_s)
            if exchange.stream is None:
                exchange.only_answer()
        await self._respond(http_request, session, exchange)

    def _stays_json(self, head: RequestHead, session: Conversation, exchange: Exchange) -> bool:
        """Return whether a slow answer stays JSON, as nothing is expected before it.

        Some clients refuse events over 1 MiB, but read JSON of any size. A stream could be resumed,
        so the operator who limits the age of connections gets one.
        """
        settings, client = self._settings, session.client
        if exchange.stream is not None or not head.accepts.json:
            return False
        resumed = settings.max_stream_age_s > 0 and session.revision.primes_streams
        can_be_asked = client.profile is not None and bool(client.profile.abilities)
        if not settings.json_window_s or resumed or can_be_asked or client.level is not None:
            return False
        return progress_token(exchange.request.params) is None

    def _serve_batch(
        self, head: RequestHead, session: Session, messages: Sequence[Message]
    ) -> StartedCall | HttpResponse:
        requests = [message for message in messages if isinstance(message, Request)]
        streams = head.streams
        # One stream for all answers of a batch, which ends with the last of them.
        stream = session.streams.begin(len(requests)) if streams and requests else None
        exchanges: list[Exchange] = []
        for message in messages:
            match message:
                case Request():
                    exchanges.append(
                        session.call(message, streams=streams, stream=stream, caller=head.caller)
                    )
                case Notification():
                    session.tell(message)
                case _:
                    session.answer(message)
        if not exchanges:
            return self._accepted()
        return StartedCall(functools.partial(self._finish_batch, session, exchanges, stream))

    async def _finish_batch(
        self,
        session: Session,
        exchanges: Sequence[Exchange],
        stream: Stream | None,
        http_request: HttpRequest,
    ) -> None:
        if stream is not None:
            await self._stream(http_request, session, stream)
            return
        await _all_answered(exchanges, http_request.unsent)
        replies = [exchange.reply for exchange in exchanges if exchange.reply is not None]
        await send_replies(http_request, 200, replies, batch=True)

    async def _respond(
        self,
        http_request: HttpRequest,
        session: Conversation,
        exchange: Exchange,
        headers: Headers = (),
    ) -> None:
        """Answer a request: as JSON if only its answer has come and the client takes it."""
        accepts = http_request.head.accepts
        if exchange.fault is not None and exchange.refused:
            refusal = refusal_of(Unavailable(exchange.fault), exchange.request.id)
            await self._refuse(http_request, refusal)
        elif exchange.reply is not None and exchange.stream is None and accepts.json:
            await send_replies(http_request, 200, [exchange.reply], headers)
        elif exchange.streams:
            await self._stream(http_request, session, exchange.streamed(), headers)
        else:
            with exchange.streamed().attach() as reader, self._keepalive.watching(reader):
                await send_late_json(http_request.send, reader, headers)

    async def _stream(
        self,
        http_request: HttpRequest,
        session: Conversation,
        stream: Stream,
        headers: Headers = (),
    ) -> None:
        polled = session.revision.primes_streams
        # No generator-based context managers here: each takes half a KiB of an idle stream.
        watching = self._keepalive.watching
        with stream.attach() as reader, watching(reader, http_request.head.principal):
            listens = stream is session.streams.standalone
            # Proxies hold the head back until the first byte of the body, and a client that
            # listens waits for the head before it goes on.
            preamble = COMMENT if listens and not polled else b""
            response = EventStream(reader, headers, preamble, polled=polled)
            aging = self._age(reader) if polled and not listens else None
            session.streams.connected(1)
            if listens:
                http_request.disconnect.may_end(_always)
            try:
                await response.serve(http_request)
            finally:
                http_request.disconnect.may_end(None)
                session.streams.connected(-1)
                if aging is not None:
                    aging.cancel()

    def _age(self, reader: Reader) -> asyncio.TimerHandle | None:
        """Return a timer that ends this connection at its maximum age; None if there is none."""
        if not self._settings.max_stream_age_s:
            return None
        loop = asyncio.get_running_loop()
        return loop.call_later(self._settings.max_stream_age_s, reader.leave)

    async def _refuse(self, http_request: HttpRequest, refusal: Refusal) -> None:
        await refusing(refusal).finish(http_request)


def _always() -> bool:
    """Return True: a stream on which a client only listens may always end for another client."""
    return True


async def _all_answered(exchanges: Sequence[Exchange], unsent: Account) -> None:
    """Wait until all calls of a batch are answered; until then their answers are charged."""
    awaited = asyncio.get_running_loop().create_future()
    account, left = Account(unsent), len(exchanges)

    def answered(exchange: Exchange) -> None:
        nonlocal left
        reply = exchange.reply
        if isinstance(reply, Result):
            account.charge(len(reply.result))
        left -= 1
        # The task that waits may have been cancelled.
        if not left and not awaited.done():
            awaited.set_result(None)

    for exchange in exchanges:
        exchange.listen(functools.partial(answered, exchange))
    try:
        await awaited
    finally:
        for exchange in exchanges:
            exchange.ignore()
