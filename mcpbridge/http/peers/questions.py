"""Answers the questions of other replicas about sessions, on the peer port."""

from __future__ import annotations

import msgspec

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.children.child_pool import ChildPoolSettings
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.request import HttpRequest
from mcpbridge.http.responses import HttpResponse, refusing
from mcpbridge.replicas.homes import HomeQuestion, Homes
from mcpbridge.replicas.session_id import SessionId, SessionIds
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable, session_closed
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.rules.mcp.initialize import read_introduction
from mcpbridge.rules.supervision.isolation import needs_own_child

_MAX_QUESTION_BYTES = 4096
_decoder = msgspec.json.Decoder(HomeQuestion)


class HomeQuestions:
    """The route of questions."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes

    async def post(self, http_request: HttpRequest) -> None:
        """Answer one question."""
        body = await read_body(http_request, _MAX_QUESTION_BYTES)
        if isinstance(body, Refusal):
            await refusing(body).finish(http_request)
            return
        try:
            question = _decoder.decode(body)
        except msgspec.MsgspecError:
            refusal = refuse(400, INVALID_REQUEST, "not a question about a session")
            await refusing(refusal).finish(http_request)
            return
        answer = await self._homes.answer(question, http_request.head.principal)
        await HttpResponse(200, msgspec.json.encode(answer)).finish(http_request)


class BridgeSessions:
    """The sessions of a bridge, as `Homes` sees them."""

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

    async def revive(self, session_id: str, params: bytes, principal: Principal) -> None:
        """See `SessionHost`."""
        profile = read_introduction(params)
        if profile is None:
            raise Unavailable(session_closed())
        await self._bridge.revive(session_id, profile, principal)
