"""Answers the questions of other replicas about sessions, on the peer port."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

import msgspec

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.children.child_pool import ChildPoolSettings
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import HttpResponse, refusing
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_messages import (
    MAX_HANDOVER_BYTES,
    MAX_QUESTION_BYTES,
    HandOverMessage,
    HomeAnswer,
    HomeQuestion,
    OfferedSession,
)
from mcpbridge.replicas.placement import FULL
from mcpbridge.replicas.session_id import SessionId, SessionIds
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable, replica_lost, session_closed
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.rules.mcp.initialize import read_introduction
from mcpbridge.rules.supervision.isolation import needs_own_child
from mcpbridge.rules.supervision.lifecycle import SessionState

_Said = TypeVar("_Said")

_decoder = msgspec.json.Decoder(HomeQuestion)
_hand_over_decoder: msgspec.json.Decoder[HandOverMessage] = msgspec.json.Decoder(HandOverMessage)


class HomeQuestions:
    """The routes of questions about sessions, and of sessions that are handed over."""

    def __init__(self, homes: Homes, bridge: Bridge) -> None:
        self._homes = homes
        self._bridge = bridge

    async def post(self, http_request: HttpRequest) -> None:
        """Answer one question."""
        question = await _read(http_request, _decoder, MAX_QUESTION_BYTES)
        if question is not None:
            answer = await self._homes.answer(question, http_request.head.principal)
            await self._send(answer, http_request)

    async def take(self, http_request: HttpRequest) -> None:
        """Take a session that another replica hands over, or note what became of others."""
        message = await _read(http_request, _hand_over_decoder, MAX_HANDOVER_BYTES)
        if message is None:
            return
        principal = http_request.head.principal
        if isinstance(message, OfferedSession):
            answer = await self._homes.taker.take(message, principal)
            taken = answer.answer is PeerAnswer.HAS
            self._bridge.meters.tally("handovers", "taken" if taken else "not_taken")
        else:
            answer = self._homes.notices.told(message, principal)
        await self._send(answer, http_request)

    async def _send(self, answer: HomeAnswer, http_request: HttpRequest) -> None:
        """Send an answer, with how full this replica is."""
        told = msgspec.structs.replace(answer, fill=taken_part(self._bridge))
        await HttpResponse(200, msgspec.json.encode(told)).finish(http_request)


def taken_part(bridge: Bridge) -> float:
    """Return how full a replica is for further sessions, at most 1; it is full once it ends."""
    # A part of the memory is left when no session is admitted any more.
    full = bridge.drain.ending or bridge.budget.full
    return FULL if full else min(bridge.fill, FULL)


async def _read(
    http_request: HttpRequest, decoder: msgspec.json.Decoder[_Said], limit: int
) -> _Said | None:
    """Return what a replica has sent; None if it was refused."""
    body = await read_body(http_request, limit)
    if not isinstance(body, Refusal):
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError:
            body = refuse(400, INVALID_REQUEST, "not a message about a session")
    await refusing(body).finish(http_request)
    return None


class BridgeSessions:
    """The sessions of a bridge, as `Homes` and `Claims` see them."""

    def __init__(self, bridge: Bridge, ids: SessionIds, pool: ChildPoolSettings) -> None:
        self._pool = pool
        self._bridge = bridge
        self._ids = ids

    def has(self, session_id: str, principal: Principal) -> bool:
        """See `SessionHost`."""
        return self._bridge.session(session_id, principal) is not None

    def opened_id(self, session_id: str, principal: Principal) -> SessionId | None:
        """See `SessionHost`."""
        found = self._ids.open(session_id, principal.key)
        return found if isinstance(found, SessionId) else None

    def needs_own_child(self, params: bytes) -> bool:
        """See `SessionHost`."""
        profile = read_introduction(params)
        roots = bool(self._pool.roots)
        return profile is None or needs_own_child(
            self._pool.isolation, profile, answers_roots=roots
        )

    def may_adopt(self) -> bool:
        """See `SessionHost`."""
        return not self._bridge.drain.ending

    def may_take(self, principal: Principal) -> bool:
        """See `SessionHost`."""
        sessions = self._bridge.sessions
        return self.may_adopt() and not sessions.full and not sessions.fills(principal)

    async def revive(
        self,
        session_id: str,
        params: bytes,
        principal: Principal,
        record: SessionRecord | None = None,
    ) -> None:
        """See `SessionHost`."""
        profile = read_introduction(params)
        if profile is None:
            raise Unavailable(session_closed())
        await self._bridge.revive(session_id, profile, principal, record)

    def end(self, session_id: str, principal: Principal) -> None:
        """See `SessionHost`."""
        session = self._bridge.session(session_id, principal)
        if session is not None:
            self._bridge.close(session)

    def leavers(self) -> Iterator[tuple[str, Principal, bool]]:
        """See `LeavingHost`."""
        for session in self._bridge.sessions:
            # A session of HTTP+SSE is one connection. Values of headers for the environment of
            # children are taken from live requests alone, so such a session is adopted with one.
            stays = session.one_streamed or session.owner.env.pairs
            if not stays and session.state is SessionState.OPEN:
                yield session.id, session.owner, not session.in_flight

    def content(self, session_id: str, principal: Principal) -> tuple[bytes, SessionRecord] | None:
        """See `LeavingHost`."""
        session = self._bridge.session(session_id, principal)
        return None if session is None else (session.client_profile.params, session.record)

    def moved(self, session_id: str, principal: Principal) -> bool:
        """See `LeavingHost`."""
        session = self._bridge.session(session_id, principal)
        if session is None:
            return False
        # Its client is told when to open the stream again, which ends its connection here.
        session.streams.standalone.dismiss()
        self._bridge.close(session, why="moved")
        return True

    def with_own_child(self) -> Collection[str]:
        """See `LeavingHost`."""
        # The stream of a session of HTTP+SSE ends with this replica, however long it waits.
        sessions = self._bridge.sessions
        return {each.id for each in sessions if each.holds_own_child and not each.one_streamed}

    def is_here(self, session_id: str) -> bool:
        """See `SessionHost`."""
        return self._bridge.sessions.get(session_id) is not None

    def has_own_child(self, session_id: str) -> bool:
        """See `ClaimableSessions`."""
        session = self._bridge.sessions.get(session_id)
        return session is not None and self._needs_own_child(session)

    def own_child_sessions(self) -> list[str]:
        """See `ClaimableSessions`."""
        return [each.id for each in self._bridge.sessions if self._needs_own_child(each)]

    def record(self, session_id: str) -> SessionRecord | None:
        """See `ChangedSessions`."""
        session = self._bridge.sessions.get(session_id)
        return session.client.record if session is not None else None

    def params(self, session_id: str) -> bytes | None:
        """See `ChangedSessions`."""
        session = self._bridge.sessions.get(session_id)
        return session.client_profile.params if session is not None else None

    def end_copy(self, session_id: str) -> None:
        """See `SessionHost`."""
        session = self._bridge.sessions.get(session_id)
        if session is not None:
            self._bridge.meters.tally("yields", ())
            self._bridge.close(session, replica_lost(), why="yielded")

    def _needs_own_child(self, session: Session) -> bool:
        if session.one_streamed:
            # Its stream ends with this replica, so it is never elsewhere.
            return False
        roots = bool(self._pool.roots)
        return needs_own_child(self._pool.isolation, session.client_profile, answers_roots=roots)
