"""The body of a POST, from bytes to messages, or the refusal it earns."""

from __future__ import annotations

from mcpbridge.errors import WireError
from mcpbridge.http.incoming import Incoming
from mcpbridge.rules.admission import (
    Admitted,
    Opening,
    Refusal,
    check_post_head,
    echoing,
    refused_text,
)
from mcpbridge.wire.messages import Message, Request, decode, decode_batch, is_batch


def judge_body(incoming: Incoming, body: bytes) -> Message | list[Message] | Refusal:
    """The message or the batch in a body, by the rules on head and body.

    A head that is refused is refused with the id in the body, where that can be read.
    """
    content = _read(body)
    refusal = check_post_head(
        incoming.accepts, incoming.get(b"content-type"), incoming.get(b"content-encoding")
    )
    return content if refusal is None else echoing(refusal, id_of(content))


def id_of(content: Message | list[Message] | Opening | Admitted | Refusal) -> bytes | None:
    """The id of the one request that this is or holds."""
    match content:
        case Request(id):
            return id
        case Opening(request):
            return request.id
        case Admitted([Request(id)]):
            return id
        case Refusal():
            return content.request_id
    return None


def _read(body: bytes) -> Message | list[Message] | Refusal:
    try:
        return decode_batch(body) if is_batch(body) else decode(body)
    except WireError as error:
        return refused_text(error)
