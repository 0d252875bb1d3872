"""Applies the rules to an HTTP request and returns what was admitted, or the first refusal.

The rules stand in the order of their application: cheap ones about the head first, so that a
refused body is never read; then the body; then the session. Each refusal echoes the request's id if
it could be read, because SDK clients match answers by it and some reject a null.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Streamable HTTP and Session Management.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from mcpbridge.errors import DuplicateMember, NotJson, TooDeep, WireError
from mcpbridge.rules.faults import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    SESSION_NOT_FOUND,
    error_object,
)
from mcpbridge.rules.mcp.initialize import ClientProfile, read_introduction
from mcpbridge.rules.mcp.methods import INITIALIZE
from mcpbridge.rules.mcp.revisions import Era, Revision, known, served_dates
from mcpbridge.wire.headers import MAX_SESSION_ID, Acceptable, is_json, is_session_id
from mcpbridge.wire.messages import MAX_BATCH, Message, Reply, Request, canonical_id

_NO_ID = "a notification has no id"
_TELLS = "notifications/"


class Reason(enum.StrEnum):
    """Why a request was refused: the word in the log and in the metrics."""

    HOST = "host"
    ORIGIN = "origin"
    CROSS_SITE = "cross_site"
    CREDENTIALS = "credentials"
    SCOPE = "scope"
    PATH = "path"
    METHOD = "method"
    ACCEPT = "accept"
    CONTENT_TYPE = "content_type"
    CONTENT_ENCODING = "content_encoding"
    REVISION = "revision"
    SESSION = "session"
    """The session is unknown, ended or another client's, or its id is invalid."""
    SESSION_MISSING = "session_missing"
    HEADER_MISMATCH = "header_mismatch"
    """A routing header of 2026-07-28 differs from the body."""
    MESSAGE = "message"
    """The body is not a message."""
    MCP_METHOD = "mcp_method"
    BODY_SIZE = "body_size"
    HEAD_SIZE = "head_size"
    TOO_SLOW = "too_slow"
    FRAMING = "framing"
    """What was sent is not HTTP, or can be read in two ways."""
    OTHER = "other"


class Refusal(msgspec.Struct, frozen=True):
    """The answer to a request that goes no further, ready to be sent."""

    status: int
    error: bytes
    """The JSON-RPC error object."""
    request_id: bytes | None = None
    allow: str | None = None
    """The allowed methods, for 405."""
    retry_after_s: int | None = None
    challenge: str | None = None
    """The value of WWW-Authenticate, for 401 and 403."""
    reason: str = ""
    """A `Reason`, or that of a fault; empty if the status says it."""


class Opening(msgspec.Struct, frozen=True):
    """An `initialize` request, which opens a session."""

    request: Request
    client_profile: ClientProfile


class Admitted(msgspec.Struct, frozen=True):
    """Messages to serve, in the session that the client named or outside of any session."""

    messages: Sequence[Message]
    batch: bool = False


class Names(msgspec.Struct, frozen=True):
    """The session and revision that a request names in its headers."""

    session_id: str | None
    revision: str | None


def refuse(
    status: int,
    code: int,
    message: str,
    *,
    request_id: bytes | None = None,
    allow: str | None = None,
    reason: str = "",
) -> Refusal:
    """Return a refusal with a JSON-RPC error."""
    return Refusal(status, error_object(code, message), request_id, allow, reason=reason)


def echoing(refusal: Refusal, request_id: bytes | None) -> Refusal:
    """Return the refusal with the request's id, if it has none yet."""
    if request_id is None or refusal.request_id is not None:
        return refusal
    return msgspec.structs.replace(refusal, request_id=request_id)


def refused_text(error: WireError) -> Refusal:
    """Return the refusal of a body that is not a message."""
    code = PARSE_ERROR if isinstance(error, NotJson) else INVALID_REQUEST
    return refuse(400, code, str(error), request_id=error.request_id, reason=Reason.MESSAGE)


def check_post_head(
    accept: Acceptable, content_type: str | None, content_encoding: str | None
) -> Refusal | None:
    """Check the head of a POST by the rules that need no body."""
    if content_encoding is not None and content_encoding.strip().lower() != "identity":
        # An encoded body could unpack to any size.
        problem = "Content-Encoding is not supported: send plain JSON"
        return refuse(415, INVALID_REQUEST, problem, reason=Reason.CONTENT_ENCODING)
    if not is_json(content_type):
        problem = "Content-Type must be application/json"
        return refuse(415, INVALID_REQUEST, problem, reason=Reason.CONTENT_TYPE)
    if not accept.json and not accept.stream:
        return refuse(
            406, INVALID_REQUEST, "Accept must allow application/json or text/event-stream"
        )
    return None


_NOT_LEGACY = refuse(
    400,
    INVALID_REQUEST,
    f"MCP-Protocol-Version is not one served here: {served_dates()}",
    reason=Reason.REVISION,
)


def check_names(names: Names) -> Refusal | None:
    """Check the revision and session headers by the rules that need no table of sessions."""
    if names.revision is not None:
        revision = known(names.revision)
        if revision is None or revision.era is not Era.LEGACY:
            return _NOT_LEGACY
    if names.session_id is not None and not is_session_id(names.session_id):
        problem = f"Mcp-Session-Id must be 1 to {MAX_SESSION_ID} characters of visible ASCII"
        return refuse(400, INVALID_REQUEST, problem, reason=Reason.SESSION)
    return None


def session_gone() -> Refusal:
    """Return the one answer for unknown, ended and other clients' sessions."""
    return refuse(404, SESSION_NOT_FOUND, "session not found", reason=Reason.SESSION)


def session_required(request_id: bytes | None = None) -> Refusal:
    """Return the refusal of a request that needs a session and names none."""
    return refuse(
        400,
        INVALID_REQUEST,
        "Mcp-Session-Id is missing: begin with initialize",
        request_id=request_id,
        reason=Reason.SESSION_MISSING,
    )


def handshake_required() -> Refusal:
    """Return the refusal of a request that needs a session on a connection without one."""
    problem = "the connection has no session: begin with initialize"
    return refuse(400, INVALID_REQUEST, problem, reason=Reason.SESSION_MISSING)


def admit_message(
    message: Message, session: Revision | None, *, require_session: bool
) -> Opening | Admitted | Refusal:
    """Decide on one message of a POST whose head was accepted.

    Args:
        message: The decoded body.
        session: The revision of the session that the client named; None if it named none.
        require_session: Serve only `initialize` outside of sessions.
    """
    request_id = None
    if isinstance(message, Request):
        request_id = message.id
        if message.method == INITIALIZE:
            return _opening(message, session)
        if _poses_as_notification(message):
            return refuse(400, INVALID_REQUEST, _NO_ID, request_id=request_id)
    if session is None and (require_session or isinstance(message, Reply)):
        return session_required(request_id)
    return Admitted((message,))


def admit_batch(messages: Sequence[Message], session: Revision | None) -> Admitted | Refusal:
    """Decide on a batch of a POST whose head was accepted; `session` as in `admit_message`."""
    if session is None or not session.batches:
        return refuse(400, INVALID_REQUEST, "batches are served in 2025-03-26 sessions only")
    if not 0 < len(messages) <= MAX_BATCH:
        return refuse(400, INVALID_REQUEST, f"a batch holds 1 to {MAX_BATCH} messages")
    requests = [message for message in messages if isinstance(message, Request)]
    if any(_poses_as_notification(request) for request in requests):
        return refuse(400, INVALID_REQUEST, _NO_ID)
    if any(request.method == INITIALIZE for request in requests):
        return refuse(400, INVALID_REQUEST, "initialize must not be in a batch")
    if len({canonical_id(request.id) for request in requests}) != len(requests):
        return refuse(400, INVALID_REQUEST, "two requests of the batch have the same id")
    if len({isinstance(message, Reply) for message in messages}) > 1:
        return refuse(400, INVALID_REQUEST, "a batch holds answers or requests, not both")
    return Admitted(messages, batch=True)


def duplicate_id() -> bytes:
    """Return the error for a request whose id is already in flight in its session."""
    return error_object(INVALID_REQUEST, "a request with this id is still in flight")


def _poses_as_notification(request: Request) -> bool:
    # A child that looks at the method alone would take it for a notification, and ids in a
    # cancellation are mapped only if it is one: it could cancel another client's call.
    return request.method[: len(_TELLS)] == _TELLS


def _opening(request: Request, session: Revision | None) -> Opening | Refusal:
    if session is not None:
        return refuse(
            400, INVALID_REQUEST, "the session is initialized already", request_id=request.id
        )
    try:
        client_profile = read_introduction(request.params)
    except (DuplicateMember, TooDeep) as error:
        return refuse(400, INVALID_REQUEST, str(error), request_id=request.id)
    if client_profile is None:
        return refuse(
            400,
            INVALID_PARAMS,
            "initialize needs params with protocolVersion (a string) and capabilities (an object)",
            request_id=request.id,
        )
    return Opening(request, client_profile)
