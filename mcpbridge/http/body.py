"""The body of a POST: from bytes to messages, or to a refusal."""

from __future__ import annotations

import functools

import msgspec

from mcpbridge.channels.off_loop import LONG_BYTES, pause, read_off_loop
from mcpbridge.errors import WireError
from mcpbridge.http.request import HeadVerdict, RequestHead
from mcpbridge.rules.mcp.admission import (
    Admitted,
    Opening,
    Refusal,
    check_names,
    check_post_head,
    echoing,
    refused_text,
)
from mcpbridge.rules.mcp.revisions import Era, known
from mcpbridge.rules.trace_context import carried
from mcpbridge.wire.messages import Message, Request, decode, decode_batch, is_batch, walked

TRACEPARENT = b"traceparent"
"""The header that names the trace of a client's request."""


class BodyLimits(msgspec.Struct, frozen=True):
    """The limits on a body."""

    max_bytes: int
    max_depth: int
    """Most levels of nested objects and arrays."""


def judge_body(head: RequestHead, body: bytes, max_depth: int) -> Message | list[Message] | Refusal:
    """Return the message or the batch in a body, or the refusal by the rules on head and body.

    The refusal of a head carries the id in the body, if that can be read.
    """
    return _judged(head, _read(body, max_depth))


async def judge_long_body(
    head: RequestHead, body: bytes, max_depth: int
) -> Message | list[Message] | Refusal:
    """Return what `judge_body` returns; decode a long body in a thread."""
    return _judged(head, await read_off_loop(functools.partial(_read, max_depth=max_depth), body))


def _judged(
    head: RequestHead, content: Message | list[Message] | Refusal
) -> Message | list[Message] | Refusal:
    if TRACEPARENT in head.values:
        content = _carrying(head, content)
    refusal = head.verdict(judge_head).refusal
    return content if refusal is None else echoing(refusal, id_of(content))


def judge_head(head: RequestHead) -> HeadVerdict:
    """Apply the rules on the head of a POST that need no body; see `RequestHead.verdict`."""
    refusal = check_post_head(
        head.accepts, head.get(b"content-type"), head.get(b"content-encoding")
    )
    revision = known(head.names.revision)
    return HeadVerdict(
        refusal, check_names(head.names), revision is not None and revision.era is Era.MODERN
    )


def id_of(content: Message | list[Message] | Opening | Admitted | Refusal) -> bytes | None:
    """Return the id of the only request in this content; None if there is none or several."""
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


def _carrying(
    head: RequestHead, content: Message | list[Message] | Refusal
) -> Message | list[Message] | Refusal:
    """Return the content with the trace of the head in each request that names none itself."""
    if isinstance(content, list):
        return [_carrying_one(head, message) for message in content]
    return content if isinstance(content, Refusal) else _carrying_one(head, content)


def _carrying_one(head: RequestHead, message: Message) -> Message:
    if not isinstance(message, Request):
        return message
    params = carried(message.params, head.get(TRACEPARENT), head.get(b"tracestate"))
    return Request(message.id, message.method, params, message.extra)


def _read(body: bytes, max_depth: int) -> Message | list[Message] | Refusal:
    try:
        found: Message | list[Message]
        # One comparison decides for nearly every body; a batch may begin with blanks.
        batch = body[:1] != b"{" and is_batch(body)
        found = decode_batch(body, max_depth) if batch else decode(body, max_depth)
    except WireError as error:
        return refused_text(error)
    # Still in the thread: a rule that opens the payload later, on the loop, finds it walked.
    if len(body) >= LONG_BYTES:
        pause()
        walked(found if isinstance(found, list) else [found])
    return found
