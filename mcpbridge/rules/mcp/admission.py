"""An HTTP request that passed every rule, or the first rule it broke.

The rules stand in the order in which they are asked: the cheap ones about the head first, so that
a refused body is never read; then the body; then the session. Each refusal echoes the request's
id where it could be read, because SDK clients match answers by it and some reject a null.

Source: MCP 2025-03-26 to 2025-11-25, Transports, Streamable HTTP and Session Management.
"""

from __future__ import annotations

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
from mcpbridge.wire.headers import Acceptable, is_json, is_session_id
from mcpbridge.wire.messages import MAX_BATCH, Message, Reply, Request, canonical_id

_NO_ID = "a notification has no id"


class Refusal(msgspec.Struct, frozen=True):
    """Why a request goes no further, ready to be sent."""

    status: int
    error: bytes
    """The JSON-RPC error object."""
    request_id: bytes | None = None
    allow: str | None = None
    """The methods that would do, for 405."""
    retry_after_s: int | None = None
    challenge: str | None = None
    """How to authenticate: the value of WWW-Authenticate, for 401 and 403."""


class Opening(msgspec.Struct, frozen=True):
    """`initialize`: a session is to be opened."""

    request: Request
    client_profile: ClientProfile


class Admitted(msgspec.Struct, frozen=True):
    """Messages to be served, in the session the client named or, without one, outside of any."""

    messages: Sequence[Message]
    batch: bool = False


class Names(msgspec.Struct, frozen=True):
    """What a request says of its session and revision in headers."""

    session_id: str | None
    revision: str | None


def refuse(
    status: int,
    code: int,
    message: str,
    *,
    request_id: bytes | None = None,
    allow: str | None = None,
) -> Refusal:
    """A refusal with a JSON-RPC error."""
    return Refusal(status, error_object(code, message), request_id, allow)


def echoing(refusal: Refusal, request_id: bytes | None) -> Refusal:
    """The refusal with the id of the request it refuses, where it names none yet."""
    if request_id is None or refusal.request_id is not None:
        return refusal
    return msgspec.structs.replace(refusal, request_id=request_id)


def refused_text(error: WireError) -> Refusal:
    """The refusal of a body that is no message."""
    code = PARSE_ERROR if isinstance(error, NotJson) else INVALID_REQUEST
    return refuse(400, code, str(error), request_id=error.request_id)


def check_post_head(
    accept: Acceptable, content_type: str | None, content_encoding: str | None
) -> Refusal | None:
    """The rules on the head of a POST that need no body."""
    if content_encoding is not None and content_encoding.strip().lower() != "identity":
        # An encoded body could unpack to any size.
        return refuse(415, INVALID_REQUEST, "Content-Encoding is not supported: send plain JSON")
    if not is_json(content_type):
        return refuse(415, INVALID_REQUEST, "Content-Type must be application/json")
    if not accept.json and not accept.stream:
        return refuse(
            406, INVALID_REQUEST, "Accept must allow application/json or text/event-stream"
        )
    return None


_NOT_LEGACY = refuse(
    400, INVALID_REQUEST, f"MCP-Protocol-Version is not one served here: {served_dates()}"
)


def check_names(names: Names) -> Refusal | None:
    """The rules on the revision and session headers that need no table of sessions."""
    if names.revision is not None:
        revision = known(names.revision)
        if revision is None or revision.era is not Era.LEGACY:
            return _NOT_LEGACY
    if names.session_id is not None and not is_session_id(names.session_id):
        return refuse(400, INVALID_REQUEST, "Mcp-Session-Id must be visible ASCII")
    return None


def session_gone() -> Refusal:
    """The session is unknown, ended, or somebody else's: they are told apart for nobody."""
    return refuse(404, SESSION_NOT_FOUND, "session not found")


def session_required(request_id: bytes | None = None) -> Refusal:
    """The request needs a session and names none."""
    return refuse(
        400,
        INVALID_REQUEST,
        "Mcp-Session-Id is missing: begin with initialize",
        request_id=request_id,
    )


def handshake_required() -> Refusal:
    """The request needs a session, over a transport in which a connection has one or none."""
    return refuse(400, INVALID_REQUEST, "the connection has no session: begin with initialize")


def admit_message(
    message: Message, session: Revision | None, *, require_session: bool
) -> Opening | Admitted | Refusal:
    """Judge one message of a POST whose head passed.

    Args:
        message: The body.
        session: The revision of the session the client named; None where it named none.
        require_session: Nothing but `initialize` is served outside a session.
    """
    request_id = message.id if isinstance(message, Request) else None
    if isinstance(message, Request) and message.method == INITIALIZE:
        return _opening(message, session)
    if _poses_as_notification(message):
        return refuse(400, INVALID_REQUEST, _NO_ID, request_id=request_id)
    if session is None and (require_session or isinstance(message, Reply)):
        return session_required(request_id)
    return Admitted((message,))


def admit_batch(messages: Sequence[Message], session: Revision | None) -> Admitted | Refusal:
    """Judge the messages of a batch whose head passed; `session` as in `admit_message`."""
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
    """The error for a request whose id is in flight in its session already."""
    return error_object(INVALID_REQUEST, "a request with this id is still in flight")


def _poses_as_notification(message: Message) -> bool:
    # A child that looks at the method alone would take it for a notification, and the ids in a
    # cancellation are mapped only where it is one: it would end another client's call.
    return isinstance(message, Request) and message.method.startswith("notifications/")


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
