"""One path for both eras of Streamable HTTP: which rules a request goes by, and who serves it.

A body that carries the envelope of 2026-07-28 goes by its rules, whatever else it names; the
header alone decides only where the body says nothing. The verdict depends on the request and the
settings alone: clients remember what they were answered.

Source: MCP 2026-07-28, Transports, Backward Compatibility.
"""

from __future__ import annotations

from mcpbridge.bridge.children.server_eras import EraSettings
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import TRACEPARENT, BodyLimits, id_of, judge_body, judge_head
from mcpbridge.http.origin_check import read_body
from mcpbridge.http.request import HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import send_refusal
from mcpbridge.http.transports.legacy import LegacyTransport
from mcpbridge.http.transports.modern import ModernTransport
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Refusal, check_names, echoing, refuse
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.modern_checks import SUPPORTED, is_modern, not_served, unsupported
from mcpbridge.rules.mcp.request_meta import claimed_version
from mcpbridge.rules.mcp.revisions import Era, known
from mcpbridge.wire.messages import Message, Request


class StreamableHttp:
    """The MCP path of one bridge."""

    def __init__(
        self,
        stateful: LegacyTransport,
        stateless: ModernTransport,
        eras: EraSettings,
        limits: BodyLimits,
        access: AccessControl | None = None,
    ) -> None:
        self._stateful = stateful
        self._stateless = stateless
        self._eras = eras
        self._limits = limits
        self._access = access or AccessControl()

    async def post(self, http_request: HttpRequest) -> None:
        """Serve a message, or a batch, by the rules of its era."""
        if http_request.begun is not None:
            await http_request.begun(http_request)
            return
        body = await read_body(http_request, self._limits.max_bytes)
        depth = self._limits.max_depth
        content = body if isinstance(body, Refusal) else await judge_body(http_request, body, depth)
        if isinstance(content, Refusal):
            await send_refusal(http_request.send, content)
            return
        refusal = self._access.admits(http_request.principal, content)
        face = refusal or self._face_for(http_request, content)
        if isinstance(face, Refusal):
            await send_refusal(http_request.send, echoing(face, id_of(content)))
        elif isinstance(face, ModernTransport) and not isinstance(content, list):
            await face.post(http_request, content)
        else:
            await self._stateful.post(http_request, content)

    def may_begin(self, head: RequestHead) -> bool:
        """Whether calls with this head need nothing of it to be looked at again.

        A head with names that no call may have is left to `post`, which refuses it; so is one that
        names a trace, which goes into the call.
        """
        if TRACEPARENT in head.values:
            return False
        modern = _is_modern_date(head.names.revision)
        return judge_head(head) is None and (modern or check_names(head.names) is None)

    def begin(self, head: RequestHead, request: Request) -> StartedCall | None:
        """Begin a call whose head `may_begin`; None where it is more than a call. See `post`."""
        face = self._face_for(head, request)
        return None if isinstance(face, Refusal) else face.begin(head, request)

    async def get(self, http_request: HttpRequest) -> None:
        """Open a stream of a session."""
        if self._only_posts(http_request):
            await self._refuse_method(http_request)
        else:
            await self._stateful.get(http_request)

    async def delete(self, http_request: HttpRequest) -> None:
        """End a session."""
        if self._only_posts(http_request):
            await self._refuse_method(http_request)
        else:
            await self._stateful.delete(http_request)

    def _face_for(
        self, head: RequestHead, content: Message | list[Message]
    ) -> LegacyTransport | ModernTransport | Refusal:
        version = head.names.revision
        if isinstance(content, list):
            claims = any(claimed_version(message) is not None for message in content)
            modern = claims or _is_modern_date(version)
            if modern:
                return refuse(400, INVALID_REQUEST, "there are no batches in 2026-07-28")
            return self._stateful
        modern = is_modern(content, claimed_version(content), version)
        if modern and not self._eras.serves_modern:
            return not_served()
        if modern:
            return self._stateless
        if not self._eras.serves_legacy:
            return self._without_handshake(content)
        return self._stateful

    def _without_handshake(self, content: Message) -> Refusal:
        if isinstance(content, Request) and content.method == INITIALIZE:
            dates = ", ".join(SUPPORTED)
            return refuse(400, INVALID_REQUEST, f"initialize is not served: only {dates} is")
        return unsupported(None)

    def _only_posts(self, http_request: HttpRequest) -> bool:
        if not self._eras.serves_legacy:
            return True
        modern = _is_modern_date(http_request.names.revision)
        return self._eras.serves_modern and (modern or http_request.get(b"mcp-method") is not None)

    async def _refuse_method(self, http_request: HttpRequest) -> None:
        refusal = refuse(405, INVALID_REQUEST, "method not allowed", allow="POST")
        await send_refusal(http_request.send, refusal)


def _is_modern_date(date: str | None) -> bool:
    revision = known(date)
    return revision is not None and revision.era is Era.MODERN
